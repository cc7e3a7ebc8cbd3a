//! Leases messages for the worker of its thread.
//!
//! # What it does
//! Keeps a ring of the queues believed to have work, and leases from them in turn: as many messages as the worker has
//! free slots and the queue's share and lane have room for, and of queues with short attempts some more. A queue joins the ring
//! when the store posts it, when it changes, and when the sweeper found something in it; it leaves the ring when a
//! lease finds nothing more. A queue that sends to one destination rests while its lane is shut, or while its rate is used up: nothing
//! is asked of the store. Never leased from are pull queues, those that are paused or parked, and those whose
//! processor this process does not have.
//!
//! # What it waits for
//! With work: for room. Without: for the wake board. It listens first and looks then, so no wake-up is lost between; and
//! as the sweeper posts what is ready again and again, one that the store failed to post is late, not lost.
//!
//! # What it guarantees
//! Nothing is leased beyond the room there is, and no more of one queue than its fair part of the thread's slots lets
//! begin ([`slots`](crate::pipeline::slots)). A lease whose answer was lost is asked for again under the same batch
//! id, across a restart of the actor as well, so it is neither taken twice nor left to run out. Queues take turns. A
//! suspect is leased only with the one permit of the process.
//!
//! # When it fails
//! With the store away it tries again, ever more slowly, up to once a second, and goes on by itself. Asked to stop, it
//! waits for the answer of a lease under way, hands those messages back, and tells the worker to hand back what has not
//! begun.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::actor::{Actor, Address, Exit, Inbox, Life};
use crate::clock::Clock;
use crate::domain::queue::QueueName;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::batch::{Batch, Ended, Held, Suspects, Taken, Until};
use crate::pipeline::catalog::Catalog;
use crate::pipeline::lanes::{Lanes, Way};
use crate::pipeline::order::{Aside, Order, Right};
use crate::pipeline::ring::Ring;
use crate::pipeline::settings::WorkerSettings;
use crate::pipeline::share::{Share, Shares};
use crate::pipeline::worker::{Work, pass_on};
use crate::pipeline::{is_late, slots, until_late};
use crate::processor::Registry;
use crate::store::error::StoreError;
use crate::store::lease::{BatchId, LeaseKind, LeaseRequest, Leased};
use crate::store::wake::{WakeBoard, WakeSubscription};
use crate::store::{MessageStore, QueueEntry, Store};

/// How soon a full share or lane is looked at again, and a queue with suspects while another one is in flight.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How soon a queue is looked at again at the latest that rests: what shut its lane may end sooner than it was said to.
const REST_MAX: Duration = Duration::from_secs(1);
/// Bytes of one lease: what a store reads in one go without keeping others waiting.
const LEASE_BYTES_MAX: u64 = 4 << 20;

/// What a dispatcher works with, on its thread and beyond.
pub(super) struct Tools {
    pub(super) catalog: Catalog,
    pub(super) registry: Registry,
    pub(super) shares: Shares,
    pub(super) lanes: Lanes,
    pub(super) clock: Clock,
    pub(super) suspects: Suspects,
    pub(super) settings: Arc<WorkerSettings>,
    pub(super) held: Arc<Held>,
    pub(super) worker: Address<Work>,
    pub(super) settler: Address<Ended>,
    pub(super) wakes: WakeBoard,
    /// A lease whose answer is not known, and when it was asked for first; it outlives the actor.
    pub(super) unanswered: Mutex<Option<(LeaseRequest, Instant)>>,
}

/// The actor.
pub(super) struct Dispatcher {
    tools: Arc<Tools>,
    store: Rc<dyn MessageStore>,
    subscription: WakeSubscription,
    changes: watch::Receiver<u64>,
    /// The version of the catalog that `known` shows; `None` before the first look.
    learned_at: Option<u64>,
    known: HashMap<QueueName, Arc<QueueEntry>>,
    ring: Ring,
    /// Queues with work for which there was no room here: the other threads were told.
    told_others: HashSet<QueueName>,
    aside: Aside,
    backoff: Backoff,
}

/// What may be leased of a queue.
struct Room {
    /// Messages that its share was asked for.
    wanted: usize,
    bytes: u64,
    /// Messages that may be leased, taken of its share and its lane.
    reserved: usize,
}

enum Next {
    Lease(Order),
    /// Nothing to do, or no room, for that long at most.
    Wait(Option<Duration>),
}

impl Actor for Dispatcher {
    // It is told what to do by the wake board and by the room there is.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let mut stopping = pin!(life.stopping());
        loop {
            life.beat();
            if life.is_stopping() {
                break;
            }
            self.listen();
            match self.next() {
                Next::Lease(order) => self.lease(order, life).await,
                Next::Wait(longest) => {
                    tokio::select! {
                        biased;
                        () = &mut stopping => {}
                        () = self.subscription.posted() => {}
                        () = self.tools.held.freed.notified() => {}
                        _ = self.changes.changed() => {}
                        () = sleep(longest.unwrap_or(Duration::MAX)), if longest.is_some() => {}
                    }
                }
            }
        }
        // The mailbox has room for every batch that can be held, and for this.
        if self.tools.worker.try_send(Work::HandBack).is_err() {
            log::debug!("there is no worker to hand messages back");
        }
        Exit::Done
    }
}

impl Dispatcher {
    pub(super) fn new(tools: Arc<Tools>, store: &dyn Store) -> Self {
        // Listening begins here; the first look comes after it.
        let (subscription, changes) = (store.wakes().subscribe(), tools.catalog.changes());
        Self {
            tools,
            store: store.connect(),
            subscription,
            changes,
            learned_at: None,
            known: HashMap::new(),
            ring: Ring::default(),
            told_others: HashSet::new(),
            aside: Aside::default(),
            backoff: Backoff::default(),
        }
    }

    /// Takes in what was posted and what changed.
    fn listen(&mut self) {
        let version = *self.changes.borrow_and_update();
        if self.learned_at != Some(version) {
            self.learned_at = Some(version);
            self.learn();
        }
        self.ring.wake(Instant::now());
        for name in self.subscription.take().queues {
            // Who asks now will find it; when that thread is full it will say so.
            if !self.tools.shares.is_leasing(&name) && !self.ring.is_resting(&name) {
                self.ring.add(&name);
            }
        }
        if self.tools.suspects.is_free() {
            for name in self.tools.suspects.queues() {
                self.ring.add(&name);
            }
        }
    }

    fn learn(&mut self) {
        let all: HashMap<_, _> =
            self.tools.catalog.all().into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for (name, entry) in &all {
            if !self.known.get(name).is_some_and(|known| Arc::ptr_eq(known, entry)) {
                self.ring.rouse(name);
            }
        }
        self.ring.keep(|name| all.contains_key(name));
        self.tools.shares.keep(|name| all.contains_key(name));
        self.told_others.retain(|name| all.contains_key(name));
        self.known = all;
    }

    /// The next lease to ask for.
    fn next(&mut self) -> Next {
        if let Some(next) = self.unanswered() {
            return next;
        }
        let now = Instant::now();
        if let Some(order) = self.aside.due(now) {
            return Next::Lease(order);
        }
        let mut longest = self.aside.rests_for(now);
        for _ in 0..self.ring.len() {
            let Some(name) = self.ring.next() else { break };
            if self.aside.has(&name) {
                // It is posted again when that is known.
                continue;
            }
            let Some(entry) = self.known.get(&name).filter(|entry| self.is_leased(entry)).cloned() else {
                self.tools.suspects.note(&name, false);
                continue;
            };
            let (share, way) = (self.tools.shares.of(&entry), self.tools.lanes.way(&entry.settings));
            let thread = self.tools.held.thread;
            let Room { wanted, bytes, reserved } = match self.reserve(&share, &way) {
                Ok(room) => room,
                Err(wait) => {
                    self.ring.rest(name, Instant::now() + wait.min(REST_MAX));
                    continue;
                }
            };
            if reserved == 0 {
                // Room on this thread is told of by its worker; room in a share or a lane may come from another thread.
                if wanted > 0 {
                    longest = Some(longest.map_or(LOOK_AGAIN, |longest| longest.min(LOOK_AGAIN)));
                }
                if self.tools.shares.sharing(thread) > 1 && self.told_others.insert(name.clone()) {
                    self.tools.wakes.post(&name);
                }
                self.ring.add(&name);
                continue;
            }
            self.told_others.remove(&name);
            let suspect = self.tools.suspects.permit();
            let request = LeaseRequest {
                queue: entry.queue_ref(),
                batch: BatchId::random(),
                kind: LeaseKind::Worker,
                max: u16::try_from(reserved).unwrap_or(u16::MAX),
                bytes_max: bytes.min(LEASE_BYTES_MAX),
                lease: entry.settings.lease(),
                suspects: suspect.is_some(),
            };
            let right = Right { share, way, thread, reserved };
            return Next::Lease(Order::new(request, Instant::now(), entry, right, suspect));
        }
        if !self.tools.suspects.queues().is_empty() {
            longest = Some(longest.map_or(LOOK_AGAIN, |longest| longest.min(LOOK_AGAIN)));
        }
        if let Some(until) = self.ring.rests_until() {
            let rest = until.saturating_duration_since(Instant::now());
            longest = Some(longest.map_or(rest, |longest: Duration| longest.min(rest)));
        }
        Next::Wait(longest)
    }

    /// Takes the right to lease of a queue what this thread has room for; else gives how long it is in vain to ask.
    fn reserve(&self, share: &Share, way: &Way) -> Result<Room, Duration> {
        let Tools { held, settings, shares, clock, .. } = &*self.tools;
        let (here, sharing) = (share.on(held.thread), shares.sharing(held.thread));
        let (all, lease_max) = (settings.concurrency as usize, usize::from(settings.lease_max));
        let early = share.early(settings.prefetch as usize, all, sharing);
        // Those that have something here and those whose turn comes are mostly the same ones.
        let queues = (held.queues() + usize::from(here.is_absent())).max(self.ring.len() + 1);
        let (room, bytes) = held.room(settings, early, here.leased() == 0, queues);
        let at_once =
            here.in_slots() + slots::takes(all, held.free_slots(all), here.in_slots(), queues, lease_max);
        let mut wanted = room.min(lease_max);
        if let Some(turns) = share.turns(clock.tick()) {
            wanted = wanted.min(turns?);
        }
        let mut reserved =
            if at_once == 0 { 0 } else { share.reserve(held.thread, wanted, early, sharing, at_once) };
        if let Some(lane) = way.booked().filter(|_| reserved > 0) {
            let booked = lane.book(share, reserved, early * sharing);
            share.give_back(held.thread, reserved - booked.unwrap_or(0));
            reserved = booked?;
        }
        Ok(Room { wanted, bytes, reserved })
    }

    fn is_leased(&self, entry: &QueueEntry) -> bool {
        let settings = &entry.settings;
        !entry.paused
            && entry.parked.is_none()
            && !settings.is_pull()
            && self.tools.registry.can_process(&entry.name, settings)
    }
}

impl Dispatcher {
    /// The lease that a life before this one asked for and did not see answered.
    fn unanswered(&self) -> Option<Next> {
        let (request, first_sent) = lock(&self.tools.unanswered).clone()?;
        let entry = self.known.get(&request.queue.name).filter(|entry| entry.queue_ref() == request.queue);
        let Some(entry) = entry.cloned() else {
            self.forget_unanswered();
            return None;
        };
        let suspect = request.suspects.then(|| self.tools.suspects.permit());
        if let Some(None) = suspect {
            return Some(Next::Wait(Some(LOOK_AGAIN)));
        }
        let (share, way) = (self.tools.shares.of(&entry), self.tools.lanes.way(&entry.settings));
        let (thread, suspect) = (self.tools.held.thread, suspect.flatten());
        let reserved = share.reserve_anyway(thread, usize::from(request.max));
        if let Some(lane) = way.booked() {
            lane.book_anyway(reserved);
        }
        let right = Right { share, way, thread, reserved };
        Some(Next::Lease(Order::new(request, first_sent, entry, right, suspect)))
    }

    fn forget_unanswered(&self) {
        lock(&self.tools.unanswered).take();
    }

    async fn lease(&mut self, mut order: Order, life: &Life) {
        lock(&self.tools.unanswered).replace((order.request.clone(), order.first_sent));
        let leasing = self.tools.shares.leasing(&order.share);
        let was_aside = order.is_aside();
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.store.lease(order.request.clone()) => answer,
                () = until_late(life) => return,
            };
            match answer {
                Ok(leased) => {
                    if was_aside {
                        self.ring.add(&order.entry.name);
                    }
                    self.note(None);
                    self.take(order, leased, life.is_stopping());
                    self.forget_unanswered();
                    return;
                }
                Err(error) if order.may_be_leased(&error) && !is_late(life) => {
                    order.tries += 1;
                    // The store answers, and says that it does not know: the other queues do not wait until it does.
                    if order.is_aside() && matches!(error, StoreError::Unknown(_)) {
                        drop(leasing);
                        self.forget_unanswered();
                        self.aside.put(order, Instant::now());
                        return;
                    }
                    self.note(Some(&error));
                    let pause = self.backoff.failed();
                    tokio::select! {
                        biased;
                        () = until_late(life) => return,
                        () = sleep(pause) => {}
                    }
                }
                Err(error) => {
                    self.forget_unanswered();
                    self.refused(order, &error, life).await;
                    return;
                }
            }
        }
    }

    /// The store leased nothing, for sure.
    async fn refused(&mut self, order: Order, error: &StoreError, life: &Life) {
        let name = order.entry.name.clone();
        drop(order);
        match error {
            StoreError::Gone => {
                self.known.remove(&name);
            }
            StoreError::Newer(_) | StoreError::Foreign(_) => {
                // Not tried again before the sweeper or somebody else posts it.
                log::debug!("queue.name" = name.as_str(), "cause" = error.to_string().as_str(); "a queue is not leased");
            }
            _ => {
                self.note(Some(error));
                self.ring.add(&name);
                let pause = self.backoff.failed();
                tokio::select! {
                    biased;
                    () = life.stopping() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }

    /// Sends what was leased to the worker, or back when the gateway stops, and where the queue was changed since the lease was
    /// asked for: who changes settings and then posts a message finds it treated by them.
    fn take(&mut self, mut order: Order, leased: Leased, is_stopping: bool) {
        let name = &order.entry.name;
        if order.request.suspects {
            let found = leased.leases.first().is_some_and(|lease| lease.record.is_suspect());
            self.tools.suspects.note(name, found);
            if !found {
                order.suspect = None;
            }
        }
        if leased.more {
            self.ring.add(name);
        } else if let Some(lane) = order.way.booked() {
            lane.has_enough(&order.share);
        }
        let Ok(size) = u16::try_from(leased.leases.len()) else { return };
        if size == 0 {
            return;
        }
        // What the leases take of share and lane is theirs to give back from here on.
        let more = order.share.reserve_anyway(order.thread, usize::from(size).saturating_sub(order.reserved));
        order.reserved += more;
        if let Some(lane) = order.way.booked() {
            lane.book_anyway(more);
        }
        order.reserved -= usize::from(size);
        let batch = Arc::new(Batch {
            is_gone: std::sync::atomic::AtomicBool::new(false),
            serial: self.tools.held.next_serial(),
            name: leased.batch,
            entry: order.entry.clone(),
            share: order.share.clone(),
            lane: order.way.lane.clone(),
            is_booked: !order.way.is_mixed,
            held: self.tools.held.clone(),
            size,
            until: Until::new(order.first_sent + order.request.lease),
            _suspect: order.suspect.take(),
        });
        let taken: Vec<_> = leased.leases.into_iter().map(|lease| Taken::new(lease, &batch)).collect();
        let is_old =
            self.tools.catalog.find(name.as_str()).is_none_or(|known| !Arc::ptr_eq(&known, &order.entry));
        let refused = if is_stopping || is_old {
            Some(taken)
        } else {
            self.tools.held.sent(usize::from(size));
            match self.tools.worker.try_send(Work::Batch(batch, taken)) {
                Ok(()) => None,
                Err(error) => {
                    self.tools.held.arrived(usize::from(size));
                    error.into_message().into_taken()
                }
            }
        };
        for taken in refused.into_iter().flatten() {
            pass_on(&self.tools.settler, taken.release());
        }
    }

    /// Logs when the store goes away and when it is back. One failure alone is no news: a connection that was idle may be dead.
    fn note(&mut self, error: Option<&StoreError>) {
        match error {
            Some(error) if self.backoff.failures() == 1 => {
                log::warn!("cause" = error.to_string().as_str(); "the store does not lease messages");
            }
            Some(_) => {}
            None => {
                let was_said = self.backoff.failures() > 1;
                self.backoff.succeeded();
                if was_said {
                    log::info!("the store leases messages again");
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic is done under this lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
