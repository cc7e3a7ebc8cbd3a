//! Transactions: beginning, doing, committing, and what is true when that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, ffi};

use crate::clock::Clock;
use crate::store::error::StoreError;
use crate::store::sqlite::calls::Calls;
use crate::store::sqlite::checkpoint::Checkpoints;
use crate::store::sqlite::operation::Operation;
use crate::store::sqlite::space::Space;
use crate::store::sqlite::state::{Now, State};
use crate::store::sqlite::work::{Effects, Hot, Sql, Work, all_stats};
use crate::store::sqlite::{Shared, fault, recovery, schema};
use crate::store::stats::QueueStats;

const BEGIN: &str = "BEGIN IMMEDIATE";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
const MARK_DURABLE: &str = "UPDATE meta SET transactions = transactions";

/// What became of a transaction.
pub(super) enum Fate {
    /// It holds.
    Committed,
    /// Nothing of it is in the file.
    Failed(rusqlite::Error),
    /// COMMIT failed: it may be in the file or not.
    Unclear(String),
}

/// One step of one operation of a round.
pub(super) type Step = (usize, usize);

/// A transaction of which it is not known whether it is in the file.
struct Undecided {
    number: u64,
    effects: Effects,
}

/// The write connection and the cache of what it sees.
pub(super) struct Engine {
    /// The file.
    pub(super) path: PathBuf,
    /// None after an error, until a new one could be opened.
    pub(super) connection: Option<Connection>,
    /// The cache of the file.
    pub(super) state: State,
    /// What is remembered of calls.
    pub(super) calls: Calls,
    /// Room on the disk.
    pub(super) space: Space,
    /// What all threads see.
    pub(super) shared: Arc<Shared>,
    /// Who writes the log back.
    pub(super) checkpoints: Arc<Checkpoints>,
    /// The time.
    pub(super) clock: Clock,
    /// Whether no commit is flushed by itself.
    pub(super) is_relaxed: bool,
    flushes: bool,
    wrote: bool,
    undecided: Option<Undecided>,
}

impl Engine {
    /// With a connection as [`schema::open`] made it.
    pub(super) fn new(
        path: PathBuf,
        connection: Connection,
        space: Space,
        shared: Arc<Shared>,
        is_relaxed: bool,
    ) -> Sql<Self> {
        let clock = shared.clock.clone();
        let mut engine = Self {
            path,
            connection: Some(connection),
            state: State::default(),
            calls: Calls::default(),
            space,
            shared,
            checkpoints: Arc::default(),
            clock,
            is_relaxed,
            flushes: true,
            wrote: false,
            undecided: None,
        };
        engine.rebuild()?;
        Ok(engine)
    }

    fn rebuild(&mut self) -> Sql<()> {
        match &self.connection {
            Some(connection) => recovery::rebuild(connection, &mut self.state, Now::read(&self.clock)),
            None => Err(away()),
        }
    }

    /// Does steps of operations in one transaction.
    pub(super) fn transact(&mut self, operations: &mut [Box<dyn Operation>], steps: &[Step]) -> Fate {
        let durable = steps.iter().any(|(operation, _)| operations[*operation].is_durable());
        self.transact_with(durable, |work| {
            steps.iter().try_for_each(|(operation, step)| operations[*operation].run(*step, work))
        })
    }

    /// Does something in one transaction, flushed when `durable` or when it turns out to be.
    pub(super) fn transact_with(
        &mut self,
        durable: bool,
        run: impl FnOnce(&mut Work<'_>) -> Sql<()>,
    ) -> Fate {
        let (done, effects) = match self.begin(durable) {
            Ok(()) => self.run(run),
            Err(error) => (Err(error), Effects::default()),
        };
        let stats = match done {
            Ok(stats) => stats,
            Err(error) => {
                self.roll_back(&effects);
                return Fate::Failed(error);
            }
        };
        match self.commit() {
            Ok(()) => {
                let must_flush = effects.durable && !self.flushes && !self.is_relaxed;
                self.publish(effects, stats);
                if must_flush { self.flush() } else { Fate::Committed }
            }
            // Said while writing the pages, before the one that would make them count; SQLite has taken them back.
            Err(error) if is_full(&error) => {
                self.roll_back(&effects);
                Fate::Failed(error)
            }
            Err(error) => {
                log::error!("a COMMIT failed, it is not known whether it holds: {error}");
                self.undecided = Some(Undecided { number: self.state.transactions, effects });
                self.connection = None;
                Fate::Unclear(error.to_string())
            }
        }
    }

    fn begin(&mut self, durable: bool) -> Sql<()> {
        let Some(connection) = &self.connection else { return Err(away()) };
        let flushes = durable && !self.is_relaxed;
        if flushes != self.flushes {
            connection.execute_batch(if flushes {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.flushes = flushes;
        }
        connection.prepare_cached(BEGIN)?.execute([])?;
        Ok(())
    }

    fn run(&mut self, run: impl FnOnce(&mut Work<'_>) -> Sql<()>) -> (Sql<Vec<QueueStats>>, Effects) {
        let Some(connection) = &self.connection else { return (Err(away()), Effects::default()) };
        let before = connection.total_changes();
        let mut work = Work {
            sql: connection,
            hot: Hot::default(),
            state: &mut self.state,
            calls: &mut self.calls,
            now: Now::read(&self.clock),
            full: self.space.full.as_deref(),
            shed: !self.space.has_reserve,
            effects: Effects::default(),
        };
        // A defect in one operation must not end the writer: it is rolled back and answered like any other failure.
        let done = catch_unwind(AssertUnwindSafe(|| run(&mut work).and_then(|()| work.finish(before))));
        let effects = std::mem::take(&mut work.effects);
        drop(work);
        self.wrote = connection.total_changes() > before;
        (
            done.unwrap_or_else(|_| Err(failure(ffi::SQLITE_INTERNAL, "a defect: the operation panicked"))),
            effects,
        )
    }

    fn commit(&self) -> Sql<()> {
        let Some(connection) = &self.connection else { return Err(away()) };
        let commit = || connection.prepare_cached(COMMIT)?.execute([]).map(drop);
        match fault::at_commit(&self.path).filter(|_| self.wrote) {
            Some(fault) => fault.befall(commit),
            None => commit(),
        }
    }

    /// Flushes what was committed without a flush.
    fn flush(&mut self) -> Fate {
        let flushed = self.begin(true).and_then(|()| match &self.connection {
            Some(connection) => {
                connection.execute_batch(MARK_DURABLE)?;
                connection.execute_batch(COMMIT)
            }
            None => Err(away()),
        });
        match flushed {
            Ok(()) => Fate::Committed,
            Err(error) => {
                log::error!("what was committed could not be flushed: {error}");
                self.connection = None;
                Fate::Unclear(error.to_string())
            }
        }
    }

    /// Shows and tells what a commit changed.
    fn publish(&mut self, effects: Effects, stats: Vec<QueueStats>) {
        self.calls.commit();
        self.shared.vitals.publish(stats, &effects.deleted);
        for number in effects.touched {
            if let Some(queue) = self.state.queues.get_mut(&number)
                && queue.newer.is_some() != queue.newer_shown
            {
                queue.newer_shown = queue.newer.is_some();
                self.shared.vitals.newer(&queue.entry.name, queue.newer.as_ref());
            }
        }
        for number in effects.woken {
            if let Some(queue) = self.state.queues.get(&number).filter(|queue| queue.tally.gauges.pending > 0)
            {
                self.shared.wakes.post(&queue.entry.name);
            }
        }
        if let Some(soonest) = effects.soonest
            && self.state.next_at.is_none_or(|known| soonest < known)
        {
            self.state.next_at = Some(soonest);
            self.shared.wakes.post_time();
        }
    }

    /// Undoes a transaction: in the file, in what is remembered, and in the cache, which is built anew.
    fn roll_back(&mut self, effects: &Effects) {
        if let Some(connection) = &self.connection
            && !connection.is_autocommit()
            && let Err(error) = connection.execute_batch(ROLLBACK)
        {
            log::error!("a transaction cannot be rolled back: {error}");
            self.connection = None;
        }
        self.forget(effects);
        if let Err(error) = self.rebuild() {
            log::error!("the store cannot be read: {error}");
            self.connection = None;
        }
    }

    /// Drops what holds only if a transaction does.
    fn forget(&mut self, effects: &Effects) {
        self.calls.roll_back();
        for (number, batch) in &effects.marks {
            if let Some(queue) = self.state.queues.get_mut(number) {
                queue.undone.extend(queue.marks.remove(batch).map(|mark| (*batch, mark.deadline)));
            }
        }
    }

    /// Opens a new connection and decides what the one before left open.
    ///
    /// What is in the log was perhaps never flushed, although it can be read: only after it was written back into the file, and that
    /// was flushed, is it built upon.
    pub(super) fn reconnect(&mut self) -> Sql<()> {
        self.connection = None;
        self.checkpoints.distrust();
        let connection = self.shared.whereabouts.open_with(schema::reopen)?;
        self.flushes = true;
        self.checkpoints.truncate(&connection)?;
        let last = recovery::last_transaction(&connection)?;
        if let Some(Undecided { number, effects }) = self.undecided.take() {
            if last >= number {
                log::info!("the transaction whose COMMIT failed is in the file");
                self.calls.commit();
            } else {
                log::info!("the transaction whose COMMIT failed is not in the file");
                self.forget(&effects);
            }
        }
        recovery::rebuild(&connection, &mut self.state, Now::read(&self.clock))?;
        let stats = all_stats(&connection, &mut self.state);
        self.shared.vitals.republish(stats);
        for queue in self.state.queues.values().filter(|queue| queue.tally.gauges.pending > 0) {
            self.shared.wakes.post(&queue.entry.name);
        }
        self.shared.wakes.post_time();
        self.connection = Some(connection);
        Ok(())
    }
}

/// An error of our own, in SQLite's form.
fn failure(code: i32, words: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(words.to_owned()))
}

fn away() -> rusqlite::Error {
    failure(ffi::SQLITE_CANTOPEN, "the file is not open")
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether an error says that the file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// An error before COMMIT as the caller sees it: nothing was changed.
pub(super) fn refusal(error: &rusqlite::Error) -> StoreError {
    let words = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(words),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::CannotOpen) => {
            StoreError::Unavailable(words)
        }
        _ => StoreError::Internal(words),
    }
}
