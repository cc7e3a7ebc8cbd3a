//! Messages in memory: the smallest store that is correct, and the model that the others are tested against.
//!
//! Everything lies behind one lock, every call is one step under it and answers at once. What the trait leaves open is
//! decided here, so that two stores given the same calls give the same answers:
//!
//! **Order.** Each queue has the lists of [`turns::List`](crate::store::turns::List), each first in, first out, and draws
//! from them by [`turns::Turns`](crate::store::turns::Turns). A message drawn uses up its turn also when it is found dead;
//! one that did not fit the batch does not.
//! - To the back of *fresh*: what is published without delay. To the back of *returned*: what is promoted (in the order
//!   of due moments, ties in the order of scheduling), brought forward (in the order given), replayed (ids in
//!   the order given, else oldest death first), and what is retried or deferred until a moment that is not in the future. A suspect goes to the back of *suspects* instead.
//! - To the front of *head*, or of *suspects* for a suspect: what is released or lost. The releases of one `settle` call go
//!   back together, in the order of the batch. Lost batches go back the youngest first, each from its last place on, so that
//!   what was leased first is first again.
//! - The lists keep their order when the store is opened again; the wheel starts anew.
//!
//! **Lease.** A batch that lives is found again by its id before anything else is looked at (held or not): what is left of
//! it, with the token it has. With `suspects` the first sound suspect and those behind it are the whole batch, up to the first that must
//! be alone, which is a batch of its own; dead ones before and among them are put away. A lease ends early when it put away [`SWEEP_MESSAGES_MAX`](crate::store::SWEEP_MESSAGES_MAX) messages or
//! [`SWEEP_BYTES_MAX`](crate::store::SWEEP_BYTES_MAX) bytes of dead ones, or when that parks the queue. A record of a newer
//! version ends the call with nothing changed. `more` says whether a list that the request may draw from is not empty
//! afterwards; it is false when the queue is held and for a batch that ended.
//!
//! **Settle.** A lease is over when it was settled or taken back, not at its deadline: settlements and extensions that come
//! before the sweep hold. An index that was settled is `settled` whatever is sent later; one that was taken back is `lost`.
//! The times of a worker's batch (deadline, longest life, mark) are monotonic, those of a pulling consumer's go by the wall.
//! The attempt is remembered, one that delivered the message as [`Attempt::of_delivered`](crate::domain::outcome::Attempt::of_delivered)
//! says; one that comes with a release or a deferral may be. The log is cut to `history.attempts` when something is added to it and when its message is delivered.
//!
//! **Lost.** An attempt and a loss are counted and logged (begun when the batch was leased). Attempts used up: `poison`; else
//! expired: `expired`; else it is followed by another attempt and counts as retried. A worker's loss marks the message as a
//! suspect, any other counted attempt clears that mark.
//!
//! **Dead letters.** Oldest first is by the moment of death, ties in the order of dying. The status is that of the attempt
//! that was settled with the death, for `expired` and `damaged` that of the last attempt remembered, for `poison` none. A
//! queue that is parked for another reason stays so; `park` by hand replaces the reason. One that is parked for full dead
//! letters goes on when they are below the limits: that is looked at when some left, when a queue is put or queues are
//! declared, and by every sweep. Trimming leaves the last dead letter
//! whatever its size, and is done by the sweep as well when a limit was lowered. A replay counts as matched what it looked
//! at: the damaged, and the one that met the limit, included; a dry run counts all and changes nothing.
//!
//! **Limits** are checked in the order length, bytes, keys. The store is full from the moment on when `store.bytes_max` is
//! reached: the group that reaches it is still taken. A key that is over counts for nothing; it is removed by the sweep, or
//! when the limit of keys is reached.
//!
//! **A restart** forgets the ids of `enqueue` calls and everything about the batches of workers, what they held being lost;
//! batches of pulling consumers and their marks stay.

mod audit;
mod batch;
mod dead;
mod enqueue;
mod history;
mod keys;
mod lease;
mod lists;
mod lookup;
mod queue;
mod state;
mod sweep;

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Tick};
use crate::domain::id::MessageId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::timestamp::Timestamp;
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::{OpenError, StoreError};
use crate::store::health::StoreHealth;
use crate::store::lease::{BatchRef, Extended, LeaseKind, LeaseRequest, Leased, Settled, Settlement};
use crate::store::memory::state::State;
use crate::store::settings::{RequiredDurability, StoreSettings};
use crate::store::stats::{Cancelled, Found, QueueStats, Swept};
use crate::store::wake::WakeBoard;
use crate::store::{
    Answer, Changed, Deleted, Hold, MessageStore, Put, QueueEntry, QueueRef, Scheduled, Store,
};

/// The URL of this store; there is nothing to name.
const URL: &str = "memory:";

/// What the clocks said when a call began.
#[derive(Clone, Copy)]
struct Now {
    wall: Timestamp,
    tick: Tick,
}

impl Now {
    /// The reading that the leases of this kind live by: a worker's monotonic, because a clock that is set must not take
    /// its messages away; a pulling consumer's by the wall, because its lease outlives the process.
    fn reading(self, kind: LeaseKind) -> Duration {
        match kind {
            LeaseKind::Worker => self.tick.since(Tick::default()),
            LeaseKind::Pull => Duration::from_millis(self.wall.as_millis()),
        }
    }
}

/// A store in memory. Clones of its connections share everything; nothing outlives the process.
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    id: Arc<str>,
    clock: Clock,
    wakes: WakeBoard,
    /// `None` once the store is closed.
    state: Mutex<Option<State>>,
}

/// Opens a store in memory.
///
/// # Errors
/// [`OpenError::Configuration`] for another URL than `memory:`, and for `store.durability = "strict"`, which it cannot keep.
pub fn open(settings: &StoreSettings, clock: &Clock) -> Result<Arc<dyn Store>, OpenError> {
    Ok(Memory::open(settings, clock)?)
}

impl Memory {
    /// Opens a store in memory, as itself.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(settings: &StoreSettings, clock: &Clock) -> Result<Arc<Self>, OpenError> {
        if settings.url != URL {
            let detail =
                format!("store.url: {:?} is not possible: the store in memory is {URL:?}", settings.url);
            return Err(OpenError::Configuration(detail));
        }
        let not_as_configured = match settings.durability {
            RequiredDurability::None => None,
            RequiredDurability::Relaxed => Some("memory: keeps messages in memory only".to_owned()),
            RequiredDurability::Strict => {
                let cure = "set store.durability = \"none\", or use sqlite:PATH";
                let detail = format!(
                    "store.durability: memory: keeps messages in memory only and cannot be strict: {cure}"
                );
                return Err(OpenError::Configuration(detail));
            }
        };
        let id = format!("{:016x}", fastrand::u64(..)).into();
        Ok(Self::with(id, clock, State::new(settings.bytes_max, not_as_configured)))
    }

    fn with(id: Arc<str>, clock: &Clock, state: State) -> Arc<Self> {
        let (clock, wakes, state) = (clock.clone(), WakeBoard::default(), Mutex::new(Some(state)));
        let shared = Shared { id, clock, wakes, state };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// What a store that outlives its process looks like after a restart: this one is closed and its messages are in the
    /// one returned, with the leases of workers lost and those of pulling consumers kept. For tests of such stores.
    ///
    /// # Errors
    /// [`OpenError::Failed`] when it was reopened before.
    pub fn reopen(&self) -> Result<Arc<Self>, OpenError> {
        let kept = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = kept.ok_or_else(|| OpenError::Failed("the store is closed".to_owned()))?;
        state.reopen(self.shared.now());
        Ok(Self::with(Arc::clone(&self.shared.id), &self.shared.clock, state))
    }
}

impl Store for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn id(&self) -> Arc<str> {
        Arc::clone(&self.shared.id)
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(Connection(Arc::clone(&self.shared)))
    }

    fn wakes(&self) -> &WakeBoard {
        &self.shared.wakes
    }
}

impl Shared {
    fn now(&self) -> Now {
        Now { wall: self.clock.now(), tick: self.clock.tick() }
    }

    /// Does one step under the lock and posts what came up.
    fn step<T>(&self, act: impl FnOnce(&mut State, Now) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_mut().ok_or_else(|| StoreError::Unavailable("it is closed".to_owned()))?;
        let result = act(state, self.now());
        state.post(&self.wakes);
        result
    }
}

/// A connection: nothing but a handle.
struct Connection(Arc<Shared>);

impl Connection {
    /// A step as a call: it happens when the answer is first asked for.
    fn call<'a, T: 'a>(
        &'a self,
        act: impl FnOnce(&mut State, Now) -> Result<T, StoreError> + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move { self.0.step(act) })
    }
}

impl MessageStore for Connection {
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>> {
        self.call(move |state, now| Ok(state.enqueue(call, &groups, now)))
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased> {
        self.call(move |state, now| state.lease(&request, now))
    }

    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>> {
        self.call(move |state, now| match state.queue(&batch.queue) {
            Ok(queue) => Ok(queue.settle(&batch, &settlements, now)),
            Err(_) => Ok(vec![Settled::Lost; settlements.len()]),
        })
    }

    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended> {
        self.call(move |state, now| match state.queue(&batch.queue) {
            Ok(queue) => Ok(queue.extend(&batch, lease, now)),
            Err(_) => Ok(Extended::Lost),
        })
    }

    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>> {
        self.call(move |state, now| match state.queue(&batch.queue) {
            Ok(queue) => Ok(queue.extend_leases(&batch, &indices, lease, now)),
            Err(_) => Ok(vec![Extended::Lost; indices.len()]),
        })
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        self.call(|state, now| Ok(state.sweep(now)))
    }

    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>> {
        self.call(move |state, _| Ok(state.queue(&queue)?.find(id)))
    }

    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled> {
        self.call(move |state, now| Ok(state.queue(&queue)?.cancel(id, now)))
    }

    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>> {
        self.call(move |state, now| Ok(state.queue(&queue)?.bring_forward(&scheduled, now)))
    }

    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage> {
        self.call(move |state, _| Ok(state.queue(&queue)?.list_dead(&filter, cursor.as_deref(), limit)))
    }

    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>> {
        self.call(move |state, _| Ok(state.queue(&queue)?.dead_letter(id)))
    }

    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>> {
        self.call(move |state, _| Ok(state.queue(&queue)?.dead_groups(by)))
    }

    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed> {
        self.call(move |state, now| Ok(state.queue(&queue)?.replay(&selection, dry_run, now)))
    }

    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64> {
        self.call(move |state, _| Ok(state.queue(&queue)?.discard(&selection)))
    }

    fn purge(&self, queue: QueueRef) -> Answer<'_, u64> {
        self.call(move |state, _| Ok(state.queue(&queue)?.purge()))
    }

    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry> {
        self.call(move |state, _| state.hold(&queue, &hold))
    }

    fn queues(&self) -> Answer<'_, Vec<QueueEntry>> {
        self.call(|state, _| Ok(state.entries()))
    }

    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put> {
        self.call(move |state, _| Ok(state.put_queue(name, settings)))
    }

    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed> {
        self.call(move |state, _| state.change_queue(&queue, &was, settings))
    }

    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)> {
        self.call(move |state, _| Ok(state.declare(queues)))
    }

    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted> {
        self.call(move |state, _| state.delete_queue(&queue, force))
    }

    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>> {
        self.call(move |state, _| Ok(state.stats(names.as_deref())))
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        self.call(|state, _| Ok(state.health()))
    }

    fn audit(&self) -> Answer<'_, Vec<String>> {
        self.call(|state, _| Ok(state.audit()))
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, durability: RequiredDurability) -> StoreSettings {
        StoreSettings { url: url.to_owned(), durability, ..StoreSettings::default() }
    }

    fn refusal(url: &str, durability: RequiredDurability) -> String {
        match Memory::open(&settings(url, durability), &Clock::manual(Timestamp::default())) {
            Err(OpenError::Configuration(detail)) => detail,
            Err(OpenError::Failed(detail)) => panic!("{detail}"),
            Ok(_) => panic!("{url} was opened"),
        }
    }

    #[test]
    fn what_it_cannot_keep_is_refused_with_the_cure() {
        let detail = refusal("memory:", RequiredDurability::Strict);
        assert!(detail.contains("store.durability = \"none\""), "{detail}");
        let detail = refusal("memory:there", RequiredDurability::None);
        assert!(detail.starts_with("store.url"), "{detail}");
    }

    #[tokio::test]
    async fn it_says_that_a_message_is_in_memory_only() {
        for (durability, reasons) in [(RequiredDurability::None, 0), (RequiredDurability::Relaxed, 1)] {
            let store = open(&settings("memory:", durability), &Clock::manual(Timestamp::default()))
                .expect("it opens");
            let health = store.connect().health().await.expect("it answers");
            assert_eq!(health.durability, crate::store::health::Durability::None);
            assert_eq!(health.durability_reasons.len(), reasons);
        }
    }

    #[test]
    fn a_store_is_reopened_once() {
        let clock = Clock::manual(Timestamp::default());
        let store = Memory::open(&settings("memory:", RequiredDurability::None), &clock).expect("it opens");
        assert!(store.reopen().is_ok());
        assert!(store.reopen().is_err());
    }
}
