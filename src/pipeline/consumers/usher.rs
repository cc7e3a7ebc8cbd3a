//! Leads consumers to the messages they wait for.
//!
//! # What it does
//! Keeps a line for each queue that somebody waits for, and leases for those in it in their turn, a batch for each. One message
//! that comes wakes one of them: a look at the store serves the one at the head, and only one that says that there is more
//! makes others worth while ([`line`](super::line)). What did not reach its consumer it gives back.
//!
//! # What it waits for
//! Consumers that come and leave; word from the wake board for the queues that have a line; the end of somebody's time; the store;
//! memory, where answers that are not taken yet hold all that a queue may have.
//! Without any of these it does nothing and asks the store for nothing, however many wait.
//!
//! # What it guarantees
//! It listens before it looks, so no wake-up is lost in this process. Who comes and does not wait is looked for after it came.
//! A lease whose answer was lost is asked for again under the same batch id. What was leased for somebody who has left is given
//! back, uncounted. Nothing here is unbounded: each request has a place until it is answered. Answers of one queue that nobody takes
//! hold up no other queue.
//!
//! # When it fails
//! With the store away it tries again, ever more slowly, while somebody has time to wait, and tells the others why. After a panic
//! those that waited are told that it broke; what had been leased for them ends with its lease. Asked to stop, it answers
//! all that wait with nothing, waits for the calls under way, and gives back what nobody takes any more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actor::{Actor, Address, Exit, Inbox, Life};
use crate::domain::queue::QueueName;
use crate::pipeline::catalog::Catalog;
use crate::pipeline::consumers::call::{Called, Calling, Outcome, call, release};
use crate::pipeline::consumers::line::{Line, Look, Waiter, tell_all};
use crate::pipeline::consumers::memory::Share;
use crate::pipeline::consumers::{
    Arrival, Hold, Key, Message, PARCEL_BYTES_MAX, Parcel, Place, Refused, Release, Shared,
};
use crate::pipeline::{after, is_late, until_late};
use crate::store::error::StoreError;
use crate::store::lease::Leased;
use crate::store::wake::WakeSubscription;
use crate::store::{MessageStore, QueueRef, Store};

/// Messages taken from the mailbox in one go.
const TAKE_MAX: usize = 1_024;
/// Calls that give leases back under way at once.
const RELEASES_MAX: usize = 16;

/// What it works with in all its lives.
pub(super) struct Tools {
    pub(super) shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    /// Its own address, for what is to be given back to it.
    pub(super) address: Arc<OnceLock<Address<Message>>>,
}

/// The actor.
pub(super) struct Usher {
    tools: Tools,
    store: Rc<dyn MessageStore>,
    subscription: WakeSubscription,
    changes: watch::Receiver<u64>,
    /// The version of the catalog that the lines were held against.
    learned_at: u64,
    lines: HashMap<QueueName, Line>,
    /// When whose time is over.
    deadlines: BTreeSet<Key>,
    calls: FuturesUnordered<Calling>,
    to_release: VecDeque<(Release, Place)>,
    releases: FuturesUnordered<LocalBoxFuture<'static, ()>>,
}

impl Actor for Usher {
    type Message = Message;

    async fn run(&mut self, inbox: &mut Inbox<Message>, life: &Life) -> Exit {
        let mut taken = Vec::with_capacity(TAKE_MAX);
        let (mut stopping, mut late) = (pin!(life.stopping()), pin!(until_late(life)));
        let shared = self.tools.shared.clone();
        let mut is_closed = false;
        loop {
            life.beat();
            if shared.is_shut() || life.is_stopping() || is_closed {
                self.send_all_away();
            }
            self.listen();
            self.expire(Instant::now());
            self.start_calls(Instant::now());
            self.start_releases();
            let is_idle = self.calls.is_empty() && self.releases.is_empty() && inbox.depth() == 0;
            if ((life.is_stopping() || is_closed) && is_idle) || is_late(life) {
                return Exit::Done;
            }
            let next = self.next_moment();
            let is_stopping = life.is_stopping();
            tokio::select! {
                biased;
                Some(called) = self.calls.next(), if !self.calls.is_empty() => self.called(called),
                Some(()) = self.releases.next(), if !self.releases.is_empty() => {}
                count = inbox.next_many(&mut taken, TAKE_MAX), if !is_closed => {
                    is_closed = count == 0;
                    let now = Instant::now();
                    taken.drain(..).for_each(|message| self.take(message, now));
                }
                () = self.subscription.posted() => {}
                _ = self.changes.changed() => {}
                () = shared.shut.notified() => {}
                () = shared.memory.freed() => self.lines.values_mut().for_each(Line::fed),
                () = after(next) => {}
                () = &mut stopping, if !is_stopping => {}
                () = &mut late => {}
            }
        }
    }
}

impl Usher {
    pub(super) fn new(tools: Tools, store: &dyn Store) -> Self {
        let (subscription, changes) = (store.wakes().subscribe_named(), tools.catalog.changes());
        Self {
            tools,
            store: store.connect(),
            subscription,
            changes,
            learned_at: 0,
            lines: HashMap::new(),
            deadlines: BTreeSet::new(),
            calls: FuturesUnordered::new(),
            to_release: VecDeque::new(),
            releases: FuturesUnordered::new(),
        }
    }

    fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Arrived(arrival) => self.arrive(arrival, now),
            Message::Left(key) => {
                self.deadlines.remove(&key);
                let (_, number, queue) = key;
                if let Some(line) = self.lines.get_mut(&queue) {
                    line.leave(number);
                    self.tidy(&queue);
                }
            }
            Message::Release(release, place) => self.to_release.push_back((release, place)),
        }
    }

    fn arrive(&mut self, arrival: Arrival, now: Instant) {
        let QueueRef { name, generation } = arrival.wish.queue.clone();
        if !self.is_current(&arrival.wish.queue) {
            drop(arrival.reply.send(Err(Refused::Gone)));
            return;
        }
        if self.lines.get(&name).is_some_and(|line| line.generation != generation) {
            // The calls under way for it find no line and end by themselves.
            self.send_away(&name);
        }
        let line = self.lines.entry(name.clone()).or_insert_with(|| {
            // Before the first look.
            self.subscription.watch(&name);
            Line::new(generation)
        });
        if arrival.wish.until > now {
            self.deadlines.insert((arrival.wish.until, arrival.number, name));
        }
        line.arrive(arrival, now);
    }

    /// Whether the queue is there in that making and consumers pull from it, as far as is known.
    fn is_current(&self, queue: &QueueRef) -> bool {
        let known = self.tools.catalog.find(queue.name.as_str());
        known.is_some_and(|entry| entry.generation == queue.generation && entry.settings.is_pull())
    }

    /// Takes in what was posted and what changed.
    fn listen(&mut self) {
        let version = *self.changes.borrow_and_update();
        if self.learned_at != version {
            self.learned_at = version;
            let gone: Vec<_> = self
                .lines
                .iter()
                .map(|(name, line)| QueueRef { name: name.clone(), generation: line.generation })
                .filter(|queue| !self.is_current(queue))
                .collect();
            for queue in gone {
                self.send_away(&queue.name);
            }
            let catalog = &self.tools.catalog;
            self.tools.shared.asked().retain(|name, _| catalog.find(name.as_str()).is_some());
        }
        let wakes = self.subscription.take();
        if wakes.queues_changed {
            // Word may have been lost before this one came.
            self.lines.values_mut().for_each(Line::woken);
        }
        for name in wakes.queues {
            if let Some(line) = self.lines.get_mut(&name) {
                line.woken();
            }
        }
    }

    /// Answers those in a line whose queue is gone.
    fn send_away(&mut self, name: &QueueName) {
        let Some(mut line) = self.lines.remove(name) else { return };
        self.subscription.unwatch(name);
        for waiter in line.take_all() {
            self.forget(name, &waiter);
            waiter.tell(Err(Refused::Gone));
        }
    }

    /// Answers all that wait with nothing.
    fn send_all_away(&mut self) {
        self.deadlines.clear();
        let names: Vec<_> = self.lines.keys().cloned().collect();
        for name in names {
            if let Some(line) = self.lines.get_mut(&name) {
                tell_all(line.take_all(), None);
            }
            self.tidy(&name);
        }
    }

    fn forget(&mut self, name: &QueueName, waiter: &Waiter) {
        self.deadlines.remove(&(waiter.wish.until, waiter.number, name.clone()));
    }

    /// Forgets a line in which nobody is left.
    fn tidy(&mut self, name: &QueueName) {
        if self.lines.get(name).is_some_and(Line::is_over) {
            self.lines.remove(name);
            self.subscription.unwatch(name);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, number, name)) = self.deadlines.first().filter(|(at, ..)| *at <= now).cloned() {
            self.deadlines.pop_first();
            if let Some(waiter) = self.lines.get_mut(&name).and_then(|line| line.expire(number)) {
                waiter.tell(Ok(None));
            }
            self.tidy(&name);
        }
    }

    /// The next moment at which there is something to do by itself.
    fn next_moment(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, ..)| *at);
        self.lines.values().filter_map(Line::retry_at).chain(deadline).min()
    }

    fn start_calls(&mut self, now: Instant) {
        let memory = self.tools.shared.memory.clone();
        let (mut over, mut starved) = (Vec::new(), Vec::new());
        for (name, line) in &mut self.lines {
            while let Some((waiter, look)) = line.next(now) {
                let least = waiter.wish.message_bytes_max;
                let most = least.saturating_mul(u64::from(waiter.wish.max)).min(PARCEL_BYTES_MAX);
                if let Some(share) = memory.take(name, least.min(PARCEL_BYTES_MAX), most) {
                    self.calls.push(call(self.store.clone(), share, name.clone(), waiter, look));
                } else {
                    starved.push((name.clone(), line.starved(waiter, now)));
                }
            }
            if line.is_over() {
                over.push(name.clone());
            }
        }
        for (name, waiters) in starved {
            self.told(&name, waiters, Some(&Refused::AnswersFull));
            self.tidy(&name);
        }
        for name in over {
            self.tidy(&name);
        }
    }

    fn start_releases(&mut self) {
        while self.releases.len() < RELEASES_MAX {
            let Some((what, place)) = self.to_release.pop_front() else { return };
            self.releases.push(Box::pin(release(self.store.clone(), what, place)));
        }
    }

    /// A lease call has ended.
    fn called(&mut self, called: Called) {
        let Called { queue, waiter, look, outcome } = called;
        let now = Instant::now();
        let line = self.lines.get_mut(&queue).filter(|line| line.generation == waiter.wish.queue.generation);
        match outcome {
            Outcome::Leased(leased, first_sent, memory) if !leased.leases.is_empty() => {
                let told = line.map(|line| line.found(look, leased.more, now)).unwrap_or_default();
                self.forget(&queue, &waiter);
                self.hand_over(waiter, leased, first_sent, memory);
                self.told(&queue, told, None);
            }
            Outcome::Leased(leased, ..) => match line {
                Some(line) => {
                    let waiter = Some(waiter).filter(|waiter| !waiter.reply.is_closed());
                    let told = line.found_nothing(waiter, look, leased.more, now);
                    self.told(&queue, told, None);
                }
                None => waiter.tell(Err(Refused::Gone)),
            },
            Outcome::Refused(error) => self.refused(&queue, waiter, look, &error),
            Outcome::GivenUp(error) => {
                let cause = error.to_string();
                log::warn!("queue.name" = queue.as_str(), "cause" = cause.as_str(); "the store never said what it leased to a consumer");
                line.into_iter().for_each(Line::ended);
                self.forget(&queue, &waiter);
                waiter.tell(Err(Refused::Store(error)));
            }
        }
        self.tidy(&queue);
    }

    fn hand_over(&self, waiter: Waiter, leased: Leased, first_sent: Instant, memory: Share) {
        let Some(address) = self.tools.address.get().cloned() else { return };
        let release = Release {
            batch: leased.batch.clone(),
            indices: leased.leases.iter().map(|lease| lease.index).collect(),
            until: first_sent + waiter.wish.lease,
        };
        let hold = Hold { release: Some((address, release, waiter.place)), _memory: memory };
        let parcel = Parcel { batch: leased.batch, until: leased.until, leases: leased.leases, hold };
        // Who has left does not take it, and dropping it gives it back.
        drop(waiter.reply.send(Ok(Some(parcel))));
    }

    /// The store leased nothing, for sure.
    fn refused(&mut self, queue: &QueueName, waiter: Waiter, look: Look, error: &StoreError) {
        let now = Instant::now();
        let is_mine = |line: &&mut Line| line.generation == waiter.wish.queue.generation;
        let Some(line) = self.lines.get_mut(queue).filter(is_mine) else {
            waiter.tell(Err(Refused::Gone));
            return;
        };
        match error {
            StoreError::Gone => {
                line.ended();
                self.forget(queue, &waiter);
                waiter.tell(Err(Refused::Gone));
                self.send_away(queue);
            }
            // It will not be different before somebody starts another version: whoever meets it is told.
            StoreError::Newer(_) => {
                let told = line.failed(None, look, now);
                self.forget(queue, &waiter);
                waiter.tell(Err(Refused::Store(error.clone())));
                self.told(queue, told, Some(&Refused::Store(error.clone())));
            }
            _ => {
                let waiter = Some(waiter).filter(|waiter| !waiter.reply.is_closed());
                let told = line.failed(waiter, look, now);
                self.told(queue, told, Some(&Refused::Store(error.clone())));
            }
        }
    }

    /// Answers those whose waiting is over.
    fn told(&mut self, queue: &QueueName, waiters: Vec<Waiter>, refused: Option<&Refused>) {
        for waiter in &waiters {
            self.forget(queue, waiter);
        }
        tell_all(waiters, refused);
    }
}
