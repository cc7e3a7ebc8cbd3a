//! The writer: one thread that owns the write connection and makes many calls into one transaction.
//!
//! # What it does
//! It takes what gathered while the transaction before was being flushed, does it in the order settle, extend, lease,
//! publish, rest, commits once, shows the new stats, posts wakes, and answers everybody.
//!
//! # What it waits for
//! The inbox; and between two transactions for a checkpoint, when the log is beyond its cap.
//!
//! # What it guarantees
//! An answer is given after the COMMIT that makes it true. A transaction that promises nothing which a power loss must not undo
//! (workers' leases, sweeps, reads) is not flushed by itself: it is in the log, so a crash of the process does not undo
//! it, and the next flushed transaction, whose promises may rest on it, flushes it as well, because the log is one file
//! and is read up to its last intact commit. A lease that hands out a message's last attempt does promise something:
//! that it was started at most so often.
//!
//! # When it fails
//! - *Before COMMIT was sent* nothing of the transaction is in the file: it is rolled back, the cache is built anew, and
//!   every operation, every group of a publish, gets a transaction of its own; what fails there is answered "no".
//! - *From COMMIT* it is not known what is in the file: everybody is answered "unknown". The descriptors are closed, never
//!   flushed again; a new connection writes the log back into the file and flushes that; then the number of the last transaction in the file
//!   tells whether this one is there, and with it the results that a call sent again is given.
//! - A full disk says so before the transaction's last page is written, so that is a "no" even when COMMIT finds it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Tick;
use crate::store::error::StoreError;
use crate::store::sqlite::checkpoint;
use crate::store::sqlite::inbox::Taken;
use crate::store::sqlite::lock::FileLock;
use crate::store::sqlite::operation::{Operation, Rank};
use crate::store::sqlite::schema::PAGE_BYTES;
use crate::store::sqlite::space::{self, Pages};
use crate::store::sqlite::transaction::{Engine, Fate, Step, is_damage, is_full, refusal};
use crate::store::sqlite::work::{Sql, all_stats};
use crate::store::sqlite::{Shared, fault, recovery};

/// How soon the writer looks again when there is housekeeping and nobody asks for anything.
const HOUSEKEEPING_EVERY: Duration = Duration::from_millis(100);
/// Pages given back to the file system in one step.
const VACUUM_STEP_PAGES: u64 = 256;
/// Free pages that are kept for what comes next: 4 MiB.
const VACUUM_KEEPS_PAGES: u64 = 1_024;
/// How long a log beyond its cap is left alone when a reader's snapshot keeps it from beginning anew.
const CHECKPOINT_RETRY_EVERY: Duration = Duration::from_millis(200);
/// Messages that are taken back from workers in one transaction at start.
const TAKE_BACK_STEP_MAX: usize = 1_000;
/// Bytes of a log frame's header.
const FRAME_HEADER_BYTES: u64 = 24;

/// The thread's possessions.
pub(super) struct Writer {
    /// The file and its cache.
    pub(super) engine: Engine,
    /// What all threads see.
    pub(super) shared: Arc<Shared>,
    /// Keeps other processes out until the end.
    pub(super) lock: FileLock,
    /// Threads that end before the writer does.
    pub(super) threads: Vec<JoinHandle<()>>,
    /// When a checkpoint could not begin the log anew.
    pub(super) checkpoint_failed: Option<Tick>,
}

/// Says that the writer has ended, however it does.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.vitals.away(Some("the store's writer has ended".to_owned()));
        self.0.inbox.ended();
    }
}

impl Writer {
    /// Works until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut patience = Some(HOUSEKEEPING_EVERY);
        loop {
            let idle = match self.shared.inbox.take(patience) {
                Taken::Round(operations) => {
                    self.round(operations);
                    false
                }
                Taken::Idle => true,
                Taken::Closed => break,
            };
            let restless = self.keep_house(idle).unwrap_or_else(|error| {
                self.note(&error);
                true
            });
            // After work there is one look at the house even if nobody comes; then sleep.
            patience = (restless || !idle).then_some(HOUSEKEEPING_EVERY);
        }
        self.end();
    }

    /// Does a round of operations in one transaction, or each in its own when that fails, and answers them.
    fn round(&mut self, mut operations: Vec<Box<dyn Operation>>) {
        operations.retain(|operation| operation.is_wanted());
        let counted = operations.iter().map(|operation| operation.steps()).enumerate();
        let steps: Vec<Step> =
            counted.flat_map(|(operation, steps)| (0..steps).map(move |step| (operation, step))).collect();
        if steps.is_empty() && operations.is_empty() {
            return;
        }
        let mut ranks = operations.iter().map(|operation| operation.rank());
        let adds = ranks.any(|rank| matches!(rank, Rank::Publish | Rank::Rest));
        self.prepare(adds);
        match self.engine.transact(&mut operations, &steps) {
            Fate::Committed => self.took(&operations),
            Fate::Failed(error) => {
                self.note(&error);
                self.each_alone(&mut operations, &steps);
            }
            Fate::Unclear(words) => self.unclear(&mut operations, &steps, &words),
        }
        for operation in operations {
            operation.answer();
        }
    }

    /// Sees to it that a transaction can begin, and when it `adds` messages or they were refused, judges whether there is room.
    fn prepare(&mut self, adds: bool) {
        if self.engine.connection.is_none() {
            self.reconnect();
        }
        if let Err(error) = self.checkpoint_above_cap() {
            self.note(&error);
        }
        if let Some(connection) = &self.engine.connection {
            if let Some(pages) = fault::pages_max(&self.engine.path)
                && let Err(error) = connection.pragma_update(None, "max_page_count", pages)
            {
                log::error!("{error}");
            }
            if (adds || self.engine.space.full.is_some())
                && let Err(error) = self.engine.space.judge(connection)
            {
                self.note(&error);
            }
        }
        self.shared.vitals.full(self.engine.space.full.as_deref());
    }

    fn took(&self, operations: &[Box<dyn Operation>]) {
        let durable = operations.iter().filter(|operation| operation.is_durable());
        if let Some(asked) = durable.map(|operation| operation.asked()).min() {
            self.shared.vitals.took(self.shared.clock.tick().since(asked));
        }
    }

    /// Gives every step a transaction of its own.
    fn each_alone(&mut self, operations: &mut [Box<dyn Operation>], steps: &[Step]) {
        for step in steps {
            let alone = std::slice::from_ref(step);
            let (operation, part) = *step;
            if self.engine.connection.is_none() {
                self.reconnect();
            }
            let mut fate = self.engine.transact(operations, alone);
            let makes_room = operations[operation].rank() != Rank::Publish;
            if let Fate::Failed(error) = &fate
                && is_full(error)
                && makes_room
                && self.engine.space.give_up_reserve()
            {
                self.prepare(true);
                fate = self.engine.transact(operations, alone);
            }
            match fate {
                Fate::Committed => {}
                Fate::Failed(error) => {
                    self.note(&error);
                    operations[operation].refuse(part, refusal(&error));
                }
                Fate::Unclear(words) => self.unclear(operations, alone, &words),
            }
        }
    }

    fn unclear(&mut self, operations: &mut [Box<dyn Operation>], steps: &[Step], words: &str) {
        for (operation, step) in steps {
            operations[*operation].refuse(*step, StoreError::Unknown(words.to_owned()));
        }
        self.reconnect();
    }

    fn reconnect(&mut self) {
        match self.engine.reconnect() {
            Ok(()) => self.shared.vitals.away(None),
            Err(error) => {
                log::error!("the store cannot be opened again: {error}");
                self.shared.vitals.away(Some(error.to_string()));
            }
        }
    }

    /// Logs an error and shows what an operator must know of it.
    fn note(&self, error: &rusqlite::Error) {
        log::error!("the store failed: {error}");
        if is_damage(error) {
            let words = format!(
                "{error}: stop the gateway, keep the file, restore a copy; what can be read is still served"
            );
            self.shared.vitals.warn("store_damaged", Some(words));
        }
    }

    /// Waits for a checkpoint when the log is beyond its cap.
    fn checkpoint_above_cap(&mut self) -> Sql<()> {
        let Some(connection) = &self.engine.connection else { return Ok(()) };
        let frames = checkpoint::frames(connection)?;
        if frames.all * (PAGE_BYTES + FRAME_HEADER_BYTES) <= self.engine.space.log_bytes_max {
            return Ok(());
        }
        let tick = self.shared.clock.tick();
        if self.checkpoint_failed.is_some_and(|failed| tick.since(failed) < CHECKPOINT_RETRY_EVERY) {
            return Ok(());
        }
        // A snapshot that is still read keeps the log from beginning anew; it ends soon, and the next round tries again.
        let done = self.engine.checkpoints.restart(connection);
        self.checkpoint_failed = done.is_err().then_some(tick);
        Ok(())
    }

    /// What is to be done between transactions; gives whether to look again soon.
    fn keep_house(&mut self, idle: bool) -> Sql<bool> {
        let Some(connection) = &self.engine.connection else {
            self.reconnect();
            return Ok(self.engine.connection.is_none());
        };
        if !self.engine.space.has_reserve {
            self.make_room()?;
            return Ok(!self.engine.space.has_reserve);
        }
        let frames = checkpoint::frames(connection)?;
        let behind = (frames.all - frames.done.min(frames.all)) * PAGE_BYTES;
        if behind * 2 > self.engine.space.log_bytes_max || (idle && behind > 0) {
            self.engine.checkpoints.ring();
        }
        if !idle {
            return Ok(false);
        }
        let Pages { all, free } = space::pages(connection)?;
        let must_shrink = free > VACUUM_KEEPS_PAGES && free * 4 > all;
        if must_shrink {
            space::shrink(connection, VACUUM_STEP_PAGES)?;
        }
        Ok(must_shrink)
    }

    /// Gives back what can be given, and makes the reserve anew when there is room for it.
    fn make_room(&mut self) -> Sql<()> {
        let Some(connection) = &self.engine.connection else { return Ok(()) };
        space::shrink(connection, VACUUM_STEP_PAGES)?;
        self.engine.checkpoints.truncate(connection)?;
        self.engine.space.restore_reserve();
        if self.engine.space.has_reserve {
            log::info!("there is room again: the reserve stands, publishes are taken");
            self.engine.space.judge(connection)?;
        }
        self.shared.vitals.full(self.engine.space.full.as_deref());
        Ok(())
    }

    /// Takes back what the workers of the process before this one had, and shows what is there.
    pub(super) fn take_over(&mut self) -> Sql<()> {
        for number in recovery::queues_with_workers(&self.engine.state) {
            let mut more = true;
            while more {
                let fate = self.engine.transact_with(true, |work| {
                    more = work.take_back_workers(number, TAKE_BACK_STEP_MAX)?;
                    Ok(())
                });
                match fate {
                    Fate::Committed => {}
                    Fate::Failed(error) => return Err(error),
                    Fate::Unclear(_) => self.engine.reconnect()?,
                }
            }
        }
        if let Some(connection) = &self.engine.connection {
            let stats = all_stats(connection, &mut self.engine.state);
            self.shared.vitals.republish(stats);
        }
        Ok(())
    }

    /// Closes everything in order: the other threads, the log, the file, the lock.
    fn end(mut self) {
        self.engine.checkpoints.close();
        self.shared.close_reader();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        if let Some(connection) = self.engine.connection.take() {
            if let Err(error) = self.engine.checkpoints.truncate(&connection) {
                log::warn!("the log could not be written back at the end, the next start does it: {error}");
            }
            if let Err((_, error)) = connection.close() {
                log::warn!("the store could not be closed: {error}");
            }
        }
        drop(self.lock);
    }
}
