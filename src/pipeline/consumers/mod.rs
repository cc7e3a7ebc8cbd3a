//! Consumers that pull: who waits for messages of which queue, and what is leased for them.
//!
//! | file | noun |
//! |---|---|
//! | `mod` | [`Consumers`]: the door for those that ask; [`Parcel`]: what one of them gets |
//! | `line` | those that wait for one queue, in the order in which they came |
//! | `memory` | the memory of the answers, shared by the queues |
//! | `call` | one lease, asked of the store until it is known what became of it |
//! | `usher` | the actor |
//!
//! Each request holds a [`Place`] from when it is made until its answer was written, so what all of them together may have
//! in a mailbox or in memory is bounded by the number of places.

mod call;
mod line;
mod memory;
mod usher;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::actor::{Address, Place as Thread, RestartPolicy, Role, Supervisor};
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::pipeline::catalog::Catalog;
use crate::pipeline::consumers::memory::{Memory, Share};
use crate::pipeline::consumers::usher::{Tools, Usher};
use crate::pipeline::phase;
use crate::store::error::StoreError;
use crate::store::lease::{BatchRef, Lease};
use crate::store::{QueueRef, Store};

/// Payload and header bytes of one answer; one message may exceed it alone.
pub const PARCEL_BYTES_MAX: u64 = 16 << 20;
/// Messages of one request in the mailbox at the same time at most: its arrival, its leaving, its release.
const MESSAGES_OF_A_PLACE: usize = 3;

/// How many consumers there may be, and what they may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerLimits {
    /// Requests under way at once, waiting or answered and not taken yet, at least 1.
    pub consumers_max: u32,
    /// Bytes of payload in their answers together, at least 1 KiB; one message may exceed it alone. Those of one queue have half of it
    /// at most, those of the next half of the rest.
    pub answers_bytes_max: u64,
}

impl Default for ConsumerLimits {
    fn default() -> Self {
        Self { consumers_max: 5_000, answers_bytes_max: 64 << 20 }
    }
}

/// What a consumer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// From which queue.
    pub queue: QueueRef,
    /// Messages at most, 1–1,000.
    pub max: u16,
    /// What its messages may need at most, headers included; bounds the memory that is kept for the answer.
    pub message_bytes_max: u64,
    /// How long the leases last, 1 s–12 h.
    pub lease: Duration,
    /// Until when it waits; one that lies in the past means one look.
    pub until: Instant,
}

/// Why a consumer gets no answer of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too many ask at once.
    Overloaded,
    /// Answers that were not taken yet hold the memory that this one needs.
    AnswersFull,
    /// The gateway stops.
    ShuttingDown,
    /// The queue of that generation is no more, or nobody pulls from it any more.
    Gone,
    /// The store could not.
    Store(StoreError),
    /// The actor was restarted; what it had leased ends with its lease.
    Broken,
}

type Reply = Result<Option<Parcel>, Refused>;

enum Message {
    Arrived(Arrival),
    Left(Key),
    Release(Release, Place),
}

/// Names one that waits: until when, its number, its queue.
type Key = (Instant, u64, QueueName);

struct Arrival {
    number: u64,
    wish: Wish,
    reply: oneshot::Sender<Reply>,
    place: Place,
}

/// Leases to be given back.
#[derive(Clone, Debug)]
struct Release {
    batch: BatchRef,
    indices: Vec<u16>,
    /// When they are over anyway.
    until: Instant,
}

/// The door for consumers: cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Consumers {
    shared: Arc<Shared>,
    address: Address<Message>,
}

struct Shared {
    limits: ConsumerLimits,
    places: Arc<AtomicU32>,
    numbers: AtomicU64,
    memory: Arc<Memory>,
    is_shut: AtomicBool,
    /// Rung when it is shut.
    shut: Notify,
    /// Until when somebody asks, or asked, for messages of a queue; as many as there are queues.
    asked: Mutex<HashMap<QueueName, Instant>>,
}

impl fmt::Debug for Consumers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Consumers").field("under_way", &self.under_way()).finish_non_exhaustive()
    }
}

impl Consumers {
    /// Starts the actor in that place.
    pub(super) fn start(
        supervisor: &Supervisor,
        place: &Thread,
        store: &Arc<dyn Store>,
        catalog: &Catalog,
        limits: ConsumerLimits,
    ) -> Self {
        let shared = Arc::new(Shared {
            limits,
            places: Arc::default(),
            numbers: AtomicU64::new(1),
            memory: Memory::new(limits.answers_bytes_max),
            is_shut: AtomicBool::new(false),
            shut: Notify::new(),
            asked: Mutex::default(),
        });
        let role = Role {
            name: "consumers".to_owned(),
            phase: phase::DISPATCH,
            mailbox_capacity: usize::try_from(limits.consumers_max)
                .unwrap_or(usize::MAX)
                .saturating_mul(MESSAGES_OF_A_PLACE),
            restart: RestartPolicy::default(),
        };
        let (store, tools) = (store.clone(), (shared.clone(), catalog.clone()));
        let own = Arc::new(std::sync::OnceLock::<Address<Message>>::new());
        let known = own.clone();
        let address = supervisor.start(place, role, move || {
            let (shared, catalog) = tools.clone();
            Usher::new(Tools { shared, catalog, address: known.clone() }, &*store)
        });
        drop(own.set(address.clone()));
        Self { shared, address }
    }

    /// Asks for messages. The request has its turn from now on; the future resolves with what it gets, `None` for nothing, soon
    /// after `wish.until` unless the store is slow.
    ///
    /// # Errors
    /// [`Refused`]. Dropping the future takes the request back; what was leased for it meanwhile is given back uncounted.
    pub fn ask(&self, wish: Wish) -> Result<Waiting, Refused> {
        if self.shared.is_shut() {
            return Err(Refused::ShuttingDown);
        }
        let place = self.shared.take_place().ok_or(Refused::Overloaded)?;
        self.shared.note_asked(&wish);
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let key = (wish.until, number, wish.queue.name.clone());
        let (reply, answer) = oneshot::channel();
        let arrival = Arrival { number, wish, reply, place };
        if self.address.try_send(Message::Arrived(arrival)).is_err() {
            // There is room for all that have a place, so nobody reads any more.
            return Err(Refused::ShuttingDown);
        }
        Ok(Waiting { answer, leave: Some((self.address.clone(), key)) })
    }

    /// Answers all that wait with nothing, and refuses those that come.
    pub fn shut(&self) {
        self.shared.is_shut.store(true, Ordering::Release);
        self.shared.shut.notify_one();
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.shared.places.load(Ordering::Relaxed)
    }

    /// How long nobody has asked here for messages of this queue; `None` when nobody ever has.
    #[must_use]
    pub fn unasked_for(&self, queue: &QueueName) -> Option<Duration> {
        let until = *self.shared.asked().get(queue)?;
        Some(Instant::now().saturating_duration_since(until))
    }

    /// The most requests that may be under way.
    #[must_use]
    pub fn limits(&self) -> ConsumerLimits {
        self.shared.limits
    }
}

impl Shared {
    fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    fn take_place(&self) -> Option<Place> {
        let taken = |used: u32| (used < self.limits.consumers_max).then_some(used + 1);
        self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Place(self.places.clone()))
    }

    fn note_asked(&self, wish: &Wish) {
        let until = wish.until.max(Instant::now());
        let mut asked = self.asked();
        if let Some(known) = asked.get_mut(&wish.queue.name) {
            *known = until.max(*known);
        } else {
            asked.insert(wish.queue.name.clone(), until);
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<QueueName, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the requests that may be under way; given back when it is dropped.
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for its answer.
#[must_use = "dropping it takes the request back"]
pub struct Waiting {
    answer: oneshot::Receiver<Reply>,
    leave: Option<(Address<Message>, Key)>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Future for Waiting {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        self.leave = None;
        Poll::Ready(answer.unwrap_or(Err(Refused::Broken)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((address, key)) = self.leave.take() {
            // Where nobody reads any more nobody waits either.
            drop(address.try_send(Message::Left(key)));
        }
    }
}

/// What was leased for a consumer: at least one message.
#[derive(Debug)]
pub struct Parcel {
    /// How the batch is named.
    pub batch: BatchRef,
    /// Until when it is held, by the store's clock.
    pub until: Timestamp,
    /// The messages.
    pub leases: Vec<Lease>,
    /// Gives them back unless they arrive.
    pub hold: Hold,
}

/// Gives leases back, uncounted, when it is dropped before it heard that the consumer has them.
///
/// That is a message to the actor. Where it cannot give them back in time, they end with their lease.
pub struct Hold {
    release: Option<(Address<Message>, Release, Place)>,
    _memory: Share,
}

impl fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hold").finish_non_exhaustive()
    }
}

impl Hold {
    /// The consumer has them, as far as this end can tell.
    pub fn arrived(mut self) {
        self.release = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((address, release, place)) = self.release.take() {
            drop(address.try_send(Message::Release(release, place)));
        }
    }
}
