//! Operations: what a thread hands to the writer, and how it gets its answer.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Tick;
use crate::domain::record;
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::{StoreError, Stored};
use crate::store::sqlite::work::{Sql, Work};

/// Where an answer comes.
pub(super) type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

/// The order of operations within a transaction: what makes room first, what fills it last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// Ends leases.
    Settle,
    /// Prolongs leases.
    Extend,
    /// Leases.
    Lease,
    /// Stores messages.
    Publish,
    /// Everything else.
    Rest,
}

impl Rank {
    /// All of them, most urgent first.
    pub(super) const ALL: [Self; 5] = [Self::Settle, Self::Extend, Self::Lease, Self::Publish, Self::Rest];

    /// Its place in [`Rank::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// How much an operation asks of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Weight {
    /// Messages that it touches.
    pub(super) messages: usize,
    /// Bytes that it brings.
    pub(super) bytes: u64,
}

/// Something for the writer to do, in steps that may each have a transaction of their own.
pub(super) trait Operation: Send {
    /// When in a transaction it is done.
    fn rank(&self) -> Rank;

    /// How much it asks.
    fn weight(&self) -> Weight;

    /// When it was asked for.
    fn asked(&self) -> Tick;

    /// Whether its answer promises what a power loss must not undo.
    fn is_durable(&self) -> bool;

    /// Whether anyone waits for its answer. What nobody waits for is not begun.
    fn is_wanted(&self) -> bool;

    /// Steps that may succeed and fail apart from each other.
    fn steps(&self) -> usize;

    /// Does one step. It may be done again when the transaction was undone.
    fn run(&mut self, step: usize, work: &mut Work<'_>) -> Sql<()>;

    /// Notes that a step failed.
    fn refuse(&mut self, step: usize, error: StoreError);

    /// Answers.
    fn answer(self: Box<Self>);
}

/// An operation of one step.
pub(super) struct Job<T, F> {
    rank: Rank,
    weight: Weight,
    is_durable: bool,
    asked: Tick,
    work: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Work<'_>) -> Sql<Result<T, StoreError>> + Send + 'static,
{
    /// One that does `work`, and where its answer comes.
    pub(super) fn with_reply(
        rank: Rank,
        weight: Weight,
        is_durable: bool,
        asked: Tick,
        work: F,
    ) -> (Box<dyn Operation>, Reply<T>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { rank, weight, is_durable, asked, work, outcome: None, reply }), answer)
    }
}

impl<T, F> Operation for Job<T, F>
where
    T: Send,
    F: FnMut(&mut Work<'_>) -> Sql<Result<T, StoreError>> + Send,
{
    fn rank(&self) -> Rank {
        self.rank
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn asked(&self) -> Tick {
        self.asked
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn steps(&self) -> usize {
        1
    }

    fn run(&mut self, _step: usize, work: &mut Work<'_>) -> Sql<()> {
        self.outcome = Some((self.work)(work)?);
        Ok(())
    }

    fn refuse(&mut self, _step: usize, error: StoreError) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Who asked may have gone; then the call is as one whose answer was lost.
            drop(self.reply.send(outcome));
        }
    }
}

/// An `enqueue` call: each of its groups is a step.
pub(super) struct Enqueue {
    call: CallId,
    groups: Arc<Vec<Group>>,
    weight: Weight,
    asked: Tick,
    results: Vec<Option<GroupResult>>,
    reply: oneshot::Sender<Result<Vec<GroupResult>, StoreError>>,
}

impl Enqueue {
    /// One for these groups, and where its answer comes.
    pub(super) fn with_reply(
        call: CallId,
        groups: Arc<Vec<Group>>,
        asked: Tick,
    ) -> (Box<dyn Operation>, Reply<Vec<GroupResult>>) {
        let (reply, answer) = oneshot::channel();
        let results = vec![None; groups.len()];
        let messages = groups.iter().flat_map(|group| group.messages.iter());
        let weight = messages.fold(Weight::default(), |weight, message| Weight {
            messages: weight.messages + 1,
            bytes: weight.bytes + record::charged_bytes(&message.record),
        });
        (Box::new(Self { call, groups, weight, asked, results, reply }), answer)
    }
}

impl Operation for Enqueue {
    fn rank(&self) -> Rank {
        Rank::Publish
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn asked(&self) -> Tick {
        self.asked
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn steps(&self) -> usize {
        self.groups.len()
    }

    fn run(&mut self, step: usize, work: &mut Work<'_>) -> Sql<()> {
        let result = work.enqueue(self.call, step, self.groups.len(), &self.groups[step])?;
        self.results[step] = Some(result);
        Ok(())
    }

    fn refuse(&mut self, step: usize, error: StoreError) {
        self.results[step] = Some(GroupResult::Failed(error));
    }

    fn answer(self: Box<Self>) {
        let unknown = |result: &Option<GroupResult>| match result {
            Some(GroupResult::Failed(error)) if error.stored() == Stored::Unknown => Some(error.clone()),
            _ => None,
        };
        // When nothing is known of any group, that is the answer to the call: it is to be sent again.
        let all_unknown: Option<Vec<StoreError>> = self.results.iter().map(unknown).collect();
        let answer = match all_unknown.and_then(|mut errors| errors.pop()) {
            Some(error) => Err(error),
            None => Ok(self.results.into_iter().flatten().collect()),
        };
        drop(self.reply.send(answer));
    }
}
