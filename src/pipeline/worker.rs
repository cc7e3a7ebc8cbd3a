//! Makes the attempts of one thread.
//!
//! # What it does
//! Hands each message of the batches that its dispatcher sends to its processor, asks [`decide`] what follows from the
//! report, and passes that on to the settler. At most `workers.concurrency` attempts are under way on the thread, and
//! `delivery.concurrency_max` of one queue on all threads, and what its lane allows of one destination. What has no slot yet waits in the order of arrival in its
//! queue, and the queues take turns as [`slots`](crate::pipeline::slots) says. A batch's lease is extended at each third of its length for as long as an attempt of it waits or runs.
//!
//! When a queue's own destination answered that it is gone, the queue is parked in the store, and what has not begun of it
//! here is given back.
//!
//! When a destination answers whose lane put messages off, those are brought forward in the store.
//!
//! Once a second it lets each processor do what time brings ([`Processors::tick`]).
//!
//! # What it waits for
//! Attempts; batches; the next time to extend; the next second.
//!
//! # What it guarantees
//! Each lease that it was given is told of to the settler exactly once. An attempt ends at the message's time-out plus
//! [`MARGIN`]. A panic in a processor is a failed attempt of that message and of no other. A message whose headers
//! cannot be read goes to the dead letters, its neighbours are processed. A batch that an extension finds lost is left
//! alone: what has not begun does not begin, what has is not settled.
//!
//! # When it fails
//! A panic of the actor itself counts as a lost attempt of each message that had begun; the others go back uncounted.
//! Asked to stop, it hands back what has not begun and lets the rest run to its end or to the deadline of its phase;
//! what still runs then is abandoned: its lease ends by itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep};

use crate::actor::{Actor, Address, Exit, Guard, Inbox, Life, Unfinished};
use crate::clock::Clock;
use crate::pipeline::attempt::{self, Bench, Finished, Key};
use crate::pipeline::batch::{Batch, Ended, Held, Taken};
use crate::pipeline::lanes::{Lanes, Recent};
use crate::pipeline::parking::Parkings;
use crate::pipeline::recalls::Recalls;
use crate::pipeline::slots::Slots;
use crate::pipeline::{is_late, until_late};
use crate::processor::Processors;
use crate::store::MessageStore;
use crate::store::error::StoreError;
use crate::store::lease::Extended;

/// Batches taken from the mailbox in one go.
const TAKE_MAX: usize = 16;
/// How often the processors hear of the time.
const TICK: Duration = Duration::from_secs(1);
/// Stands for "no batch to extend".
const FAR_AWAY: Duration = Duration::from_hours(24);
/// The longest pause before an extension that failed is tried again.
const EXTEND_AGAIN: Duration = Duration::from_secs(1);

/// What a dispatcher sends to its worker.
pub(super) enum Work {
    /// Attempts to make.
    Batch(Arc<Batch>, Vec<Taken>),
    /// Give back what has not begun.
    HandBack,
}

impl Work {
    /// The leases it carries.
    pub(super) fn into_taken(self) -> Option<Vec<Taken>> {
        match self {
            Self::Batch(_, taken) => Some(taken),
            Self::HandBack => None,
        }
    }
}

/// The actor.
pub(super) struct Worker {
    pub(super) store: Rc<dyn MessageStore>,
    pub(super) settler: Address<Ended>,
    pub(super) held: Arc<Held>,
    bench: Rc<Bench>,
    batches: HashMap<u64, Watched>,
}

/// A batch of which a lease has not ended.
struct Watched {
    batch: Arc<Batch>,
    keys: Vec<Key>,
    /// Leases that have not ended.
    open: usize,
    /// When to extend it; `None` while that is under way.
    extend_at: Option<Instant>,
}

type Extension = LocalBoxFuture<'static, (u64, Instant, Result<Extended, StoreError>)>;

impl Actor for Worker {
    type Message = Work;

    async fn run(&mut self, inbox: &mut Inbox<Work>, life: &Life) -> Exit {
        let mut attempts = FuturesUnordered::new();
        let mut extensions: FuturesUnordered<Extension> = FuturesUnordered::new();
        let mut timer = pin!(sleep(FAR_AWAY));
        let (mut parkings, mut recalls) = (Parkings::default(), Recalls::default());
        let mut seconds = interval_at(Instant::now() + TICK, TICK);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stopping, mut late) = (pin!(life.stopping()), pin!(until_late(life)));
        let (mut finished, mut work) = (Vec::<(Key, Finished)>::new(), Vec::new());
        // The dispatcher ends first; what it gave goes on.
        let mut is_closed = false;
        loop {
            life.beat();
            let is_stopping = life.is_stopping();
            if is_stopping {
                self.hand_back();
                let is_done = self.bench.in_hand.borrow().is_empty() && inbox.depth() == 0;
                if (is_done && parkings.is_empty()) || is_late(life) {
                    self.abandon();
                    return Exit::Done;
                }
            }
            tokio::select! {
                biased;
                // Extending comes first: under load there is always an attempt that has ended.
                () = &mut timer => self.extend_due(&extensions, timer.as_mut()),
                _ = seconds.tick() => self.bench.processors.tick(),
                () = next_many(&mut attempts, &mut finished), if !attempts.is_empty() => {
                    for (key, mut finished) in finished.drain(..) {
                        if let Some(recall) = finished.take_recall() {
                            recalls.begin(&self.store, recall);
                        }
                        self.finish(&key, finished, &mut parkings);
                    }
                    self.held.freed.notify_one();
                }
                Some((serial, until, answer)) = extensions.next(), if !extensions.is_empty() => {
                    self.extended(serial, until, answer, timer.as_mut());
                }
                () = parkings.next(), if !parkings.is_empty() => {}
                () = recalls.next(), if !recalls.is_empty() => {}
                count = inbox.next_many(&mut work, TAKE_MAX), if !is_closed => {
                    is_closed = count == 0;
                    for work in work.drain(..) {
                        match work {
                            Work::HandBack => self.hand_back(),
                            Work::Batch(batch, taken) => {
                                batch.is_gone.fetch_or(parkings.has(&batch), Ordering::Relaxed);
                                for key in self.take(&batch, taken, timer.as_mut()) {
                                    attempts.push(attempt::attempt(self.bench.clone(), batch.clone(), key));
                                }
                            }
                        }
                    }
                }
                () = &mut stopping, if !is_stopping => {}
                () = &mut late => {}
            }
        }
    }
}

/// Waits until a future ends, and collects all that have.
async fn next_many<F: Future>(futures: &mut FuturesUnordered<F>, ended: &mut Vec<F::Output>) {
    poll_fn(|context| {
        while let Poll::Ready(Some(output)) = futures.poll_next_unpin(context) {
            ended.push(output);
        }
        if ended.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

impl Worker {
    pub(super) fn new(
        store: Rc<dyn MessageStore>,
        settler: Address<Ended>,
        held: Arc<Held>,
        clock: Clock,
        processors: Processors,
        lanes: Lanes,
        concurrency: usize,
    ) -> Self {
        let give_back = {
            let (settler, clock) = (settler.clone(), clock.clone());
            move |unfinished: Unfinished<Taken>| {
                for taken in unfinished.started {
                    pass_on(&settler, attempt::lost(taken, clock.now()));
                }
                for taken in unfinished.not_started {
                    pass_on(&settler, taken.release());
                }
            }
        };
        let bench = Bench {
            clock,
            processors,
            slots: Rc::new(Slots::new(concurrency, held.clone())),
            recent: Recent::new(lanes),
            in_hand: RefCell::new(Guard::new(give_back)),
        };
        Self { store, settler, held, bench: Rc::new(bench), batches: HashMap::new() }
    }

    /// Takes a batch in hand; gives the keys of its leases.
    fn take(&mut self, batch: &Arc<Batch>, taken: Vec<Taken>, timer: Pin<&mut Sleep>) -> Vec<Key> {
        self.held.arrived(taken.len());
        let mut in_hand = self.bench.in_hand.borrow_mut();
        let mut keys = Vec::with_capacity(taken.len());
        for taken in taken {
            let key = (batch.serial, taken.lease.index);
            keys.push(key);
            // The store gave two leases one place in a batch: it will hear of one only.
            if in_hand.take(key, taken).is_some() {
                log::error!("queue.name" = batch.entry.name.as_str(); "a batch holds the same lease twice");
                keys.pop();
            }
        }
        drop(in_hand);
        let lease = batch.entry.settings.lease();
        let extend_at = batch.until.now() - lease + lease / 3;
        let watched = Watched {
            batch: batch.clone(),
            keys: keys.clone(),
            open: keys.len(),
            extend_at: Some(extend_at),
        };
        self.batches.insert(batch.serial, watched);
        if extend_at < timer.deadline() {
            timer.reset(extend_at);
        }
        keys
    }

    fn finish(&mut self, key: &Key, finished: Finished, parkings: &mut Parkings) {
        if let Finished::Made { report, .. } = &finished
            && report.is_gone
        {
            self.park(key.0, parkings);
        }
        let taken = self.bench.in_hand.borrow_mut().finish(key);
        // None: the lease was lost or handed back, and told of, while the attempt waited or ran.
        if let Some(taken) = taken {
            self.end(attempt::settle(taken, finished, self.bench.clock.now()));
        }
    }

    /// Parks the queue of a batch, and begins nothing more of it here.
    fn park(&self, serial: u64, parkings: &mut Parkings) {
        let Some(gone) = self.batches.get(&serial).map(|watched| watched.batch.clone()) else { return };
        for Watched { batch, .. } in self.batches.values() {
            if Arc::ptr_eq(&batch.entry.settings, &gone.entry.settings) {
                batch.is_gone.store(true, Ordering::Relaxed);
            }
        }
        parkings.begin(&self.store, &gone);
    }

    fn end(&mut self, ended: Ended) {
        let serial = ended.batch.serial;
        if let Some(watched) = self.batches.get_mut(&serial) {
            watched.open -= 1;
            if watched.open == 0 {
                self.batches.remove(&serial);
            }
        }
        pass_on(&self.settler, ended);
    }

    /// Gives back what has not begun.
    fn hand_back(&mut self) {
        let not_begun = self.bench.in_hand.borrow_mut().finish_not_started();
        for taken in not_begun {
            self.end(taken.release());
        }
    }

    fn extend_due(&mut self, extensions: &FuturesUnordered<Extension>, timer: Pin<&mut Sleep>) {
        let now = Instant::now();
        for (serial, watched) in &mut self.batches {
            if watched.extend_at.take_if(|at| *at <= now).is_none() {
                continue;
            }
            let (serial, store, batch) = (*serial, self.store.clone(), watched.batch.name.clone());
            let lease = watched.batch.entry.settings.lease();
            extensions.push(Box::pin(async move {
                let answer = store.extend(batch, lease).await;
                (serial, now + lease, answer)
            }));
        }
        self.arm(timer);
    }

    fn extended(
        &mut self,
        serial: u64,
        until: Instant,
        answer: Result<Extended, StoreError>,
        timer: Pin<&mut Sleep>,
    ) {
        let Some(watched) = self.batches.get_mut(&serial) else { return };
        let lease = watched.batch.entry.settings.lease();
        match answer {
            Ok(Extended::Until(_)) => {
                watched.batch.until.extend(until);
                watched.extend_at = Some(until - lease + lease / 3);
            }
            Ok(Extended::Lost) | Err(StoreError::Gone) => self.lose(serial),
            Err(error) => {
                let cause = error.to_string();
                log::debug!("cause" = cause.as_str(); "a lease was not extended and is tried again");
                watched.extend_at = Some(Instant::now() + (lease / 10).min(EXTEND_AGAIN));
            }
        }
        self.arm(timer);
    }

    fn arm(&self, timer: Pin<&mut Sleep>) {
        let next = self.batches.values().filter_map(|watched| watched.extend_at).min();
        timer.reset(next.unwrap_or_else(|| Instant::now() + FAR_AWAY));
    }

    /// Lets go of a batch that the store no longer keeps for us.
    fn lose(&mut self, serial: u64) {
        let Some(watched) = self.batches.remove(&serial) else { return };
        let batch = watched.batch;
        let queue = batch.entry.name.as_str();
        log::warn!("queue.name" = queue, "count" = watched.open; "leases were lost while their messages were in work");
        for key in &watched.keys {
            let taken = self.bench.in_hand.borrow_mut().finish(key);
            if taken.is_some() {
                pass_on(&self.settler, Ended { batch: batch.clone(), settlement: None });
            }
        }
        self.held.freed.notify_one();
    }

    /// Leaves what still runs to itself: nothing is said of it to the store.
    fn abandon(&mut self) {
        let mut count = 0;
        for key in self.batches.drain().flat_map(|(_, watched)| watched.keys) {
            count += usize::from(self.bench.in_hand.borrow_mut().finish(&key).is_some());
        }
        if count > 0 {
            log::warn!("count" = count; "attempts did not end in time: their messages are given out again");
        }
    }
}

/// Tells the settler. Its mailbox has room for all that can be held, so a refusal means that it is gone for good.
pub(super) fn pass_on(settler: &Address<Ended>, ended: Ended) {
    if let Err(error) = settler.try_send(ended) {
        let queue = error.into_message().batch.entry.name.clone();
        log::error!("queue.name" = queue.as_str(); "there is no settler: a lease is left to end by itself");
    }
}
