//! What an operation works with inside a transaction: the connection, the state, the clocks, and what follows a commit.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::BatchId;
use crate::store::sqlite::calls::Calls;
use crate::store::sqlite::counts;
use crate::store::sqlite::key::{Band, NUMBER_MAX, QueueNumber, Seq};
use crate::store::sqlite::state::{Front, Now, Queue, State};
use crate::store::{QueueRef, stats::QueueStats};

/// What the file's side of an operation gives. An error undoes the whole transaction.
pub(super) type Sql<T> = rusqlite::Result<T>;

/// What is true or to be done once the transaction is committed.
#[derive(Default)]
pub(super) struct Effects {
    /// Queues whose numbers may have changed.
    pub(super) touched: Vec<QueueNumber>,
    /// Queues that got something to lease.
    pub(super) woken: Vec<QueueNumber>,
    /// The soonest moment that came up.
    pub(super) soonest: Option<Timestamp>,
    /// Marks that hold only if the transaction does.
    pub(super) marks: Vec<(QueueNumber, BatchId)>,
    /// Queues that are no more.
    pub(super) deleted: Vec<QueueName>,
    /// Whether an answer promises what a power loss must not undo.
    pub(super) durable: bool,
}

/// The statements of the hot path, looked up once a transaction.
#[derive(Default)]
pub(super) struct Hot<'c> {
    /// Adds a message.
    pub(super) insert_message: Option<CachedStatement<'c>>,
    /// Moves a message.
    pub(super) move_message: Option<CachedStatement<'c>>,
    /// Removes a message.
    pub(super) remove_message: Option<CachedStatement<'c>>,
    /// Enters when a message is due.
    pub(super) enter_due: Option<CachedStatement<'c>>,
    /// Removes when a message is due.
    pub(super) remove_due: Option<CachedStatement<'c>>,
    /// Enters an id.
    pub(super) enter_id: Option<CachedStatement<'c>>,
    /// Removes an id.
    pub(super) remove_id: Option<CachedStatement<'c>>,
}

/// One transaction at work.
pub(super) struct Work<'c> {
    /// The write connection.
    pub(super) sql: &'c Connection,
    /// Statements of the hot path.
    pub(super) hot: Hot<'c>,
    /// The cache of the file.
    pub(super) state: &'c mut State,
    /// What is remembered of calls.
    pub(super) calls: &'c mut Calls,
    /// The clocks.
    pub(super) now: Now,
    /// Why nothing new is taken.
    pub(super) full: Option<&'c str>,
    /// Whether attempts and history are not written, for want of room.
    pub(super) shed: bool,
    /// What follows.
    pub(super) effects: Effects,
}

/// The statement in a slot, prepared on first use.
pub(super) fn hot<'h, 'c>(
    slot: &'h mut Option<CachedStatement<'c>>,
    sql: &'c Connection,
    text: &str,
) -> Sql<&'h mut CachedStatement<'c>> {
    if slot.is_none() {
        *slot = Some(sql.prepare_cached(text)?);
    }
    Ok(slot.as_mut().expect("it was just filled"))
}

const FIRST_WAITING: &str = "SELECT seq, at_ms FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
const FIRST_DUE: &str = "SELECT due_ms, seq FROM due WHERE queue = ?1 ORDER BY due_ms, seq LIMIT ?2";
const COUNT_TRANSACTION: &str = "UPDATE meta SET transactions = ?1";
/// Entries of the schedule that a look for the next one passes over at most, while purged ones lie before it.
const DUE_LOOK_MAX: u32 = 1_000;

/// A moment as kept in the file.
pub(super) fn kept_ms(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// A clock's reading as kept in the file.
pub(super) fn kept_reading(reading: Duration) -> i64 {
    i64::try_from(reading.as_millis()).unwrap_or(i64::MAX)
}

impl Work<'_> {
    /// The number of the queue that a call means; `None` when it is gone.
    pub(super) fn number_of(&self, queue: &QueueRef) -> Option<QueueNumber> {
        self.state.number_of(queue)
    }

    /// A queue that is known to be there.
    pub(super) fn queue(&self, number: QueueNumber) -> &Queue {
        self.state.queues.get(&number).expect("its number was just looked up")
    }

    /// A queue that is known to be there, to be changed: its numbers are written when the transaction ends.
    pub(super) fn queue_mut(&mut self, number: QueueNumber) -> &mut Queue {
        let queue = self.state.queues.get_mut(&number).expect("its number was just looked up");
        if !queue.touched {
            queue.touched = true;
            self.effects.touched.push(number);
        }
        queue
    }

    /// A running number that was never given before.
    pub(super) fn next_number(&mut self, number: QueueNumber) -> Sql<u64> {
        let tally = &mut self.queue_mut(number).tally;
        if tally.last_number >= NUMBER_MAX {
            let words = "the queue has used up its running numbers: delete it and make it again".to_owned();
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG);
            return Err(rusqlite::Error::SqliteFailure(code, Some(words)));
        }
        tally.last_number += 1;
        Ok(tally.last_number)
    }

    /// Says that a queue got something to lease.
    pub(super) fn wake(&mut self, number: QueueNumber) {
        if !self.effects.woken.contains(&number) {
            self.effects.woken.push(number);
        }
    }

    /// Says that something comes at `at`.
    pub(super) fn comes(&mut self, at: Timestamp) {
        self.effects.soonest = Some(self.effects.soonest.map_or(at, |soonest| soonest.min(at)));
    }

    /// Looks up the first scheduled message anew.
    pub(super) fn look_for_due(&mut self, number: QueueNumber) -> Sql<()> {
        let mut found = None;
        if self.queue(number).tally.gauges.scheduled > 0 {
            let mut statement = self.sql.prepare_cached(FIRST_DUE)?;
            let mut rows = statement.query((number, DUE_LOOK_MAX))?;
            while let Some(row) = rows.next()? {
                found = Some(Timestamp::from_millis(row.get(0)?));
                if !self.queue(number).is_purged(row.get(1)?) {
                    break;
                }
            }
        }
        self.queue_mut(number).next_due = found;
        Ok(())
    }

    /// Writes the numbers of every queue that was changed, and the transaction's own if anything was written. Gives what
    /// the queues' stats are once it is committed.
    pub(super) fn finish(&mut self, changes_before: u64) -> Sql<Vec<QueueStats>> {
        let mut stats = Vec::with_capacity(self.effects.touched.len());
        for index in 0..self.effects.touched.len() {
            let number = self.effects.touched[index];
            look_for_fronts(self.sql, self.state, number);
            if let Some(queue) = self.state.queues.get_mut(&number) {
                counts::keep(self.sql, queue)?;
                stats.push(queue.stats());
            }
        }
        if self.sql.total_changes() > changes_before {
            self.state.transactions += 1;
            self.sql.prepare_cached(COUNT_TRANSACTION)?.execute([self.state.transactions])?;
        }
        Ok(stats)
    }
}

/// Looks up the front of every list of a queue that is not known. One that cannot be read stays unknown: it is shown only,
/// and who needs its message will be told.
fn look_for_fronts(sql: &Connection, state: &mut State, number: QueueNumber) {
    let Some(queue) = state.queues.get_mut(&number) else { return };
    for (index, front) in queue.fronts.iter_mut().enumerate() {
        if let Front::From(from) = *front {
            let last = Seq::range(number, Band::ALL[index]).1;
            match first_waiting(sql, &state.leased, from, last) {
                Ok(found) => *front = found,
                Err(error) => log::error!("queue {} cannot be read: {error}", queue.entry.name),
            }
        }
    }
}

/// The first row of a range that is not leased.
fn first_waiting(sql: &Connection, leased: &HashSet<Seq>, from: Seq, last: Seq) -> Sql<Front> {
    let mut statement = sql.prepare_cached(FIRST_WAITING)?;
    let mut rows = statement.query((from, last))?;
    while let Some(row) = rows.next()? {
        let seq: Seq = row.get(0)?;
        if !leased.contains(&seq) {
            return Ok(Front::At(seq, row.get(1)?));
        }
    }
    Ok(Front::Empty)
}

/// The stats of every queue.
pub(super) fn all_stats(sql: &Connection, state: &mut State) -> Vec<QueueStats> {
    let numbers: Vec<QueueNumber> = state.queues.keys().copied().collect();
    for number in numbers {
        look_for_fronts(sql, state, number);
    }
    state.queues.values().map(Queue::stats).collect()
}

/// The row that a query gives, if there is one.
pub(super) fn one<T>(result: Sql<T>) -> Sql<Option<T>> {
    result.optional()
}
