//! Where messages rest: one trait, several backends, one conformance suite.
//!
//! Every call is shaped for a batch, because a store's cost is per call and not per message. The rules that hold for
//! every backend, and that the conformance suite checks on each:
//!
//! - **Groups.** An `enqueue` call carries groups, one for each HTTP request. A group is stored whole or not at all and
//!   has a result of its own; one group's refusal never touches another. Inside a group the order is: idempotency, limits,
//!   write, so that a keyed retry of what is stored is told "duplicate" and never "full". Keys are checked against earlier
//!   groups of the same call as well. A refused group uses up no key.
//! - **Unknown.** A call whose answer was lost is *unknown*, never done. `enqueue` is idempotent by [`CallId`] for
//!   [`CALL_MEMORY`]: the same call sent again gives the same results and stores nothing twice.
//! - **Fencing.** The claimer chooses the [`BatchId`](lease::BatchId), so a lost `lease` may be sent again and finds its batch; the
//!   store draws the [`Token`](lease::Token). `settle` and `extend` carry the token; a wrong one is `lost` and changes nothing. A batch that
//!   ended leaves a mark for [`CALL_MEMORY`]: a late `lease` with its id takes nothing, a `settle` sent again answers
//!   `settled` and counts once; one with another [`Way`](lease::Way) for the same lease is `lost` and changes nothing.
//! - **Lost leases** count an attempt and go back to the head of their queue, or into the dead letters as `poison` when
//!   attempts are used up. What a *worker* lost is a suspect until an attempt of it ends otherwise: leased before all others,
//!   only when the request allows suspects, with nothing but suspects; and alone when it was lost at least twice or has one
//!   attempt left ([`must_be_alone`](crate::domain::record::Record::must_be_alone)).
//! - **TTL** is judged when a message's turn comes (lease, promote, reap), never while it is leased.
//! - **Order.** Best effort, first in first out within a priority. Retries, promoted and replayed messages wait apart from
//!   fresh ones and are drawn one to one with them; priorities are drawn 16 : 4 : 1, an empty one passes its turn on.
//! - **Putting off** can be taken back: `promote` makes pending what waits for its time, but only while it counts the attempts that
//!   it had then, so that what was retried since keeps its delay.
//! - **Counters** change in the step that moves the message; both laws of [`stats::QueueStats::laws_hold`] are true at
//!   every instant.
//! - **Shedding.** The attempt log and the finished history may be dropped under pressure; messages never.
//! - **Generations.** A deleted queue is gone at once: every call names the generation it knows, a wrong one is
//!   [`StoreError::Gone`] (for a group [`enqueue::GroupResult::Gone`], for `settle` and `extend` `Lost`) and changes nothing.
//! - **Parking.** A queue that parked itself because its dead letters are full goes on by itself when they are below the
//!   limits again, whatever brought that about: letters that left, new settings; at the latest the next sweep sees it. One
//!   that is parked for its destination goes on when it is given another one.
//! - **Budgets.** No call works on more than its own bounds say, and a sweep does at most [`SWEEP_MESSAGES_MAX`] messages
//!   or [`SWEEP_BYTES_MAX`] bytes a queue and round; one message may exceed the bytes alone.
//! - A call that finds nothing writes nothing.

pub mod dead;
pub mod enqueue;
pub mod error;
pub mod health;
mod hold;
pub mod lease;
pub mod memory;
pub mod redis;
mod scheduled;
pub mod settings;
pub mod sqlite;
pub mod stats;
pub(crate) mod turns;
pub mod wake;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use crate::clock::Clock;
use crate::domain::id::MessageId;
use crate::domain::queue::{Generation, ParkReason, QueueName, QueueSettings, Source};
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::{OpenError, StoreError};
use crate::store::health::{Instance, StoreHealth};
pub use crate::store::hold::Hold;
use crate::store::lease::{BatchRef, Extended, LeaseRequest, Leased, Settled, Settlement};
pub use crate::store::scheduled::Scheduled;
use crate::store::settings::StoreSettings;
use crate::store::stats::{Cancelled, Found, QueueStats, Swept};
use crate::store::wake::WakeBoard;

/// How long a call id and the mark of an ended batch are remembered.
pub const CALL_MEMORY: Duration = Duration::from_mins(1);
/// Messages that one sweep moves in one queue at most.
pub const SWEEP_MESSAGES_MAX: usize = 1_000;
/// Bytes that one sweep moves in one queue at most; one message may exceed it alone.
pub const SWEEP_BYTES_MAX: u64 = 4 << 20;
/// Scheduled messages that one call brings forward at most.
pub const PROMOTED_MAX: usize = 1_000;
/// How long a gateway is shown among those that live after it was heard of last.
pub const INSTANCE_MEMORY: Duration = Duration::from_secs(15);
/// A lease's longest life, extensions included.
pub const LEASE_LIFE_MAX: Duration = Duration::from_hours(12);

/// What a call to a store gives: on the thread that asked, when it is known.
pub type Answer<'a, T> = LocalBoxFuture<'a, Result<T, StoreError>>;

/// A queue as a call means it: by name and generation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct QueueRef {
    /// Its name.
    pub name: QueueName,
    /// The making of it that the caller knows.
    pub generation: Generation,
}

/// A queue as the store keeps it.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueEntry {
    /// Its name.
    pub name: QueueName,
    /// Which making of it.
    pub generation: Generation,
    /// Who declared it.
    pub source: Source,
    /// Its settings.
    pub settings: Arc<QueueSettings>,
    /// Whether an operator paused it: accepts, never leases.
    pub paused: bool,
    /// Whether it parked itself, and why: accepts, never leases.
    pub parked: Option<ParkReason>,
}

impl QueueEntry {
    /// The queue as a call names it.
    #[must_use]
    pub fn queue_ref(&self) -> QueueRef {
        QueueRef { name: self.name.clone(), generation: self.generation }
    }
}

/// What became of a queue that was put.
#[derive(Clone, PartialEq, Debug)]
pub enum Put {
    /// There was none of that name.
    Created(QueueEntry),
    /// There was one; its settings are now these. Its messages, generation, pause and park stay.
    Updated(QueueEntry),
    /// An operator's file declares it: nothing was changed.
    DeclaredInFile,
}

/// What became of settings that were to replace others.
#[derive(Clone, PartialEq, Debug)]
pub enum Changed {
    /// They are the queue's now. Its messages, generation, pause and park stay.
    Changed(QueueEntry),
    /// The queue's settings are no longer what the caller took them for, but these: nothing was changed.
    Otherwise(Arc<QueueSettings>),
    /// An operator's file declares it: nothing was changed.
    DeclaredInFile,
}

/// What became of a queue that was to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// It is gone, with all that was in it.
    Deleted,
    /// It holds messages (pending, scheduled, leased or dead) and the deletion was not forced: nothing was changed.
    NotEmpty,
    /// An operator's file declares it: nothing was changed.
    DeclaredInFile,
}

/// A store that was opened: made once, shared by every thread, from which each thread takes its own connection.
pub trait Store: Send + Sync {
    /// `sqlite`, `memory`, … as shown on `/status`.
    fn kind(&self) -> &'static str;

    /// What tells this store from every other: made at random with it, and kept as long as it is. Sent as `posthaste-via`. Ask for
    /// it when it is needed: a store that has not been reached yet says something else until it is.
    fn id(&self) -> Arc<str>;

    /// Whether it lies beyond this process, so that it may be away, come back by itself, and be shared with other gateways.
    fn is_remote(&self) -> bool {
        false
    }

    /// A connection for the current thread. Cheap and never blocks; what it needs it makes on first use.
    fn connect(&self) -> Rc<dyn MessageStore>;

    /// Where the store posts that a queue has work.
    fn wakes(&self) -> &WakeBoard;
}

/// One thread's connection to a store. Every future may be dropped: the call then happens or not, as if its answer was lost.
///
/// All calls have a deadline inside the backend ([`StoreError::Timeout`]).
pub trait MessageStore {
    /// Stores groups of messages; one result for each group, in order. An `Err` holds for every group of the call.
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>>;

    /// Leases up to `max` messages of a queue as one batch. Empty when nothing is ready, or the queue is paused or parked;
    /// an empty lease leaves no batch.
    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased>;

    /// Ends leases of a batch. One result for each settlement, in order; the rest of the batch stays leased.
    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>>;

    /// Moves the deadline of a whole batch to `lease` from now; never nearer than it is, never beyond [`LEASE_LIFE_MAX`] from the
    /// lease's beginning.
    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended>;

    /// The same for who names leases of the batch: where one of them at least is held the deadline of the whole batch moves. One
    /// result for each, in order; [`Extended::Lost`] also for a lease that was settled or taken back.
    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>>;

    /// Does one bounded round of what time brings: promotes what is due, takes back lost leases, expires, enforces
    /// retention, goes on with purges; says which queues have something to lease.
    fn sweep(&self) -> Answer<'_, Swept>;

    /// Finds one message, wherever it is; `None` also when it left the history.
    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>>;

    /// Cancels one message that is not leased.
    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled>;

    /// Brings scheduled messages forward, in the order given: each that still waits for its time and counts as many attempts as is
    /// said is pending now, as if it were due. One result for each: whether it was brought forward. All others are left alone: what
    /// is not scheduled (any more), counts other attempts, is not readable, or expired, which the sweep judges when it is due; and
    /// what comes behind the first [`PROMOTED_MAX`]. Safe to be sent again. What a power loss undoes of it comes when it is due.
    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>>;

    /// One page of dead letters, oldest death first, without payloads.
    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage>;

    /// One dead letter with its record.
    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>>;

    /// Dead letters counted by reason, status or destination, most numerous first.
    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>>;

    /// Moves dead letters back to pending: attempts and TTL start anew. Stops at the queue's limits. A bounded step: call again
    /// while `more`.
    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed>;

    /// Removes dead letters for good; gives how many. A bounded step: call again until it gives 0.
    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64>;

    /// Empties pending and scheduled; leased and dead stay. Gives how many. The counters change at once, the space follows.
    fn purge(&self, queue: QueueRef) -> Answer<'_, u64>;

    /// Pauses, resumes or parks a queue; gives it as it is now.
    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry>;

    /// All queues, by name.
    fn queues(&self) -> Answer<'_, Vec<QueueEntry>>;

    /// Why the queue of this name, which [`queues`](Self::queues) left out, cannot be served although the store has it; `None` where
    /// it has none. Asks nobody.
    fn unserved(&self, _name: &str) -> Option<StoreError> {
        None
    }

    /// Makes a queue by API, or replaces the settings of one. Settings that name no secret leave the queue the one it has.
    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put>;

    /// Replaces the settings of a queue by API if they still are what the caller read, so that of two who change it at once
    /// neither undoes the other's.
    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed>;

    /// Applies an operator's file at start: makes or updates its queues; what an earlier file declared and this one does not
    /// stays as made by API. Gives all queues, and as they were before those whose settings this replaced.
    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)>;

    /// Deletes a queue by API; with `force` also what is in it.
    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted>;

    /// Counters and gauges, each queue's in one atomic read; of all queues, or of those named that exist.
    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>>;

    /// The same of all queues, for who looks again and again: of a queue in which nothing has happened since, what was read
    /// before may be given.
    fn observe(&self) -> Answer<'_, Vec<QueueStats>> {
        self.stats(None)
    }

    /// Says that this gateway lives, and gives all that do: one that has said nothing for [`INSTANCE_MEMORY`] is forgotten.
    fn announce(&self, instance: Instance) -> Answer<'_, Vec<Instance>> {
        Box::pin(async move { Ok(vec![instance]) })
    }

    /// Whether the store can be reached and what a 202 means now.
    fn health(&self) -> Answer<'_, StoreHealth>;

    /// Recounts everything and names each difference to the counters; empty when all is well. Looks at every message: for
    /// tests and for an operator's doubt.
    fn audit(&self) -> Answer<'_, Vec<String>>;

    /// Ends the store for the whole process: what was answered is on disk. Calls that come later are refused.
    fn close(&self) -> Answer<'_, ()>;
}

/// A kind of store: the scheme of its URL and how to open it.
pub struct Backend {
    /// The URL's scheme, without the colon.
    pub scheme: &'static str,
    /// Opens it. May block until the store is free or recovered.
    pub open: Open,
}

/// Opens one kind of store.
pub type Open = fn(&StoreSettings, &Clock) -> Result<Arc<dyn Store>, OpenError>;

/// Every kind of store there is.
pub const BACKENDS: &[Backend] = &[
    Backend { scheme: "memory", open: memory::open },
    Backend { scheme: "redis", open: redis::open },
    Backend { scheme: "redis+unix", open: redis::open },
    Backend { scheme: "rediss", open: redis::open },
    Backend { scheme: "sqlite", open: sqlite::open },
];

/// Opens the store that `settings.url` names. Blocks: call it before any runtime's thread depends on this one.
///
/// # Errors
/// An unknown scheme, or the backend's own.
pub fn open(settings: &StoreSettings, clock: &Clock) -> Result<Arc<dyn Store>, OpenError> {
    let scheme = settings.url.split(':').next().unwrap_or_default();
    let backend = BACKENDS.iter().find(|backend| backend.scheme == scheme);
    let backend =
        backend.ok_or_else(|| OpenError::Configuration(format!("store.url: no store of kind {scheme:?}")))?;
    (backend.open)(settings, clock)
}
