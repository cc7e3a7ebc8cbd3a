//! The writer's queue: whole operations, handed over by the threads that ask.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::SWEEP_BYTES_MAX;
use crate::store::error::StoreError;
use crate::store::sqlite::operation::{Operation, Rank};

/// Operations that may wait. Each thread of the gateway has one call under way for each of its actors; a consumer's
/// requests come one a connection, and far fewer of those are served at once.
const OPERATIONS_MAX: usize = 4_096;
/// Bytes of messages that may wait: as many as the gateway takes in from its clients at once.
const BYTES_MAX: u64 = 64 << 20;
/// Messages that one transaction works on at most; one operation may exceed it alone.
const ROUND_MESSAGES_MAX: usize = 2_000;
/// Bytes of new messages that one transaction writes at most; one operation may exceed it alone.
const ROUND_BYTES_MAX: u64 = SWEEP_BYTES_MAX;

/// What the writer finds when it looks for work.
pub(super) enum Taken {
    /// Operations for one transaction, most urgent first; never none.
    Round(Vec<Box<dyn Operation>>),
    /// Nothing came in time.
    Idle,
    /// Nothing is left, and nothing will come.
    Closed,
}

/// A bounded queue with one line for each [`Rank`].
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: [VecDeque<Box<dyn Operation>>; Rank::ALL.len()],
    operations: usize,
    bytes: u64,
    is_closed: bool,
    has_ended: bool,
    writer_sleeps: bool,
    closers: Vec<oneshot::Sender<()>>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an operation over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the store is closed or too much waits: nothing was changed.
    pub(super) fn push(&self, operation: Box<dyn Operation>) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        let bytes = operation.weight().bytes;
        let too_much = waiting.operations > 0 && waiting.bytes + bytes > BYTES_MAX;
        if waiting.operations >= OPERATIONS_MAX || too_much {
            let (operations, bytes) = (waiting.operations, waiting.bytes);
            return Err(StoreError::Unavailable(format!(
                "overloaded: {operations} calls with {bytes} bytes wait for it"
            )));
        }
        waiting.operations += 1;
        waiting.bytes += bytes;
        waiting.lines[operation.rank().index()].push_back(operation);
        let wake = std::mem::take(&mut waiting.writer_sleeps);
        drop(waiting);
        if wake {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes what one transaction can do, waiting for it; without end when `patience` is none.
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken {
        let mut waiting = self.lock();
        while waiting.operations == 0 {
            if waiting.is_closed {
                return Taken::Closed;
            }
            waiting.writer_sleeps = true;
            let (woken, timed_out) = match patience {
                None => (self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner), false),
                Some(patience) => {
                    let result = self.bell.wait_timeout(waiting, patience);
                    let (woken, timeout) = result.unwrap_or_else(PoisonError::into_inner);
                    (woken, timeout.timed_out())
                }
            };
            waiting = woken;
            waiting.writer_sleeps = false;
            if timed_out && waiting.operations == 0 && !waiting.is_closed {
                return Taken::Idle;
            }
        }
        Taken::Round(waiting.take_round())
    }

    /// Refuses everything from now on; `closer` is dropped when the writer has ended.
    pub(super) fn close(&self, closer: Option<oneshot::Sender<()>>) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        if !waiting.has_ended {
            waiting.closers.extend(closer);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// The writer has ended: lets those go who wait for that, and whatever came too late.
    pub(super) fn ended(&self) {
        let mut waiting = self.lock();
        (waiting.is_closed, waiting.has_ended) = (true, true);
        (waiting.operations, waiting.bytes) = (0, 0);
        let late = std::mem::take(&mut waiting.lines);
        let closers = std::mem::take(&mut waiting.closers);
        drop(waiting);
        drop((late, closers));
    }
}

impl Waiting {
    /// One of each line first, so that none starves; then the lines in order, as far as the bounds allow.
    fn take_round(&mut self) -> Vec<Box<dyn Operation>> {
        let mut round = Vec::new();
        let (mut messages, mut bytes) = (0, 0);
        for line in &mut self.lines {
            take_first(line, &mut round, &mut messages, &mut bytes);
        }
        for line in &mut self.lines {
            while let Some(weight) = line.front().map(|operation| operation.weight()) {
                if messages + weight.messages > ROUND_MESSAGES_MAX || bytes + weight.bytes > ROUND_BYTES_MAX {
                    break;
                }
                take_first(line, &mut round, &mut messages, &mut bytes);
            }
        }
        self.operations -= round.len();
        self.bytes -= bytes;
        round.sort_by_key(|operation| operation.rank());
        round
    }
}

fn take_first(
    line: &mut VecDeque<Box<dyn Operation>>,
    round: &mut Vec<Box<dyn Operation>>,
    messages: &mut usize,
    bytes: &mut u64,
) {
    if let Some(operation) = line.pop_front() {
        let weight = operation.weight();
        *messages += weight.messages;
        *bytes += weight.bytes;
        round.push(operation);
    }
}
