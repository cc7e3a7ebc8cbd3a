//! Checkpoints: writing the log's pages back into the file, so that the log stays small.
//!
//! # What it does
//! A thread with a connection of its own copies what is committed while the writer goes on (`PASSIVE`). Only when the log is
//! beyond its cap all the same does the writer wait for a checkpoint, before its next transaction, and begins the log
//! anew (`RESTART`).
//!
//! # What it waits for
//! The bell that the writer rings after a commit. Whoever checkpoints holds the gate, because a second one would be told
//! "busy" at once.
//!
//! # What it guarantees
//! Nothing: what it does not copy, the next checkpoint does.
//!
//! # When it fails
//! It drops its connection and takes a new one at the next bell. After an error of the writer's it does so in any case:
//! a descriptor on which a flush failed is never flushed again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use crate::store::sqlite::schema;
use crate::store::sqlite::whereabouts::Whereabouts;
use crate::store::sqlite::work::Sql;

/// How long a checkpoint between two transactions waits for readers.
const RESTART_WAIT: Duration = Duration::from_millis(20);

/// Where checkpoints are asked for and kept apart.
#[derive(Default)]
pub(super) struct Checkpoints {
    gate: Mutex<()>,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Default)]
struct Bell {
    is_wanted: bool,
    is_closed: bool,
    epoch: u64,
}

/// Frames of the log, and those of them that are written back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    /// All.
    pub(super) all: u64,
    /// Written back.
    pub(super) done: u64,
}

/// Counts the frames of the log.
pub(super) fn frames(sql: &Connection) -> Sql<Frames> {
    checkpoint(sql, CheckpointMode::NOOP)
}

fn checkpoint(sql: &Connection, mode: CheckpointMode) -> Sql<Frames> {
    let (all, done) = sql.wal_checkpoint_v2(DEFAULT_NAME, mode)?;
    Ok(Frames { all: u64::try_from(all).unwrap_or(0), done: u64::try_from(done).unwrap_or(0) })
}

impl Checkpoints {
    fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a checkpoint on the side.
    pub(super) fn ring(&self) {
        self.bell().is_wanted = true;
        self.rung.notify_one();
    }

    /// Makes the thread take a new connection.
    pub(super) fn distrust(&self) {
        self.bell().epoch += 1;
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.bell().is_closed = true;
        self.rung.notify_one();
    }

    /// Writes everything back on the writer's own connection and lets the log begin anew; `BUSY` when a reader's snapshot
    /// keeps it from that for longer than [`RESTART_WAIT`].
    pub(super) fn restart(&self, sql: &Connection) -> Sql<()> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        sql.busy_timeout(RESTART_WAIT)?;
        let done = checkpoint(sql, CheckpointMode::RESTART);
        sql.busy_timeout(schema::BUSY_WAIT)?;
        done.map(drop)
    }

    /// Writes everything back on the writer's own connection and empties the log.
    pub(super) fn truncate(&self, sql: &Connection) -> Sql<()> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(sql, CheckpointMode::TRUNCATE).map(drop)
    }

    /// Starts the thread.
    pub(super) fn start(self: &Arc<Self>, whereabouts: Arc<Whereabouts>) -> std::io::Result<JoinHandle<()>> {
        let checkpoints = Arc::clone(self);
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned());
        thread.spawn(move || checkpoints.run(&whereabouts))
    }

    fn run(&self, whereabouts: &Whereabouts) {
        let mut connection: Option<Connection> = None;
        let mut epoch = 0;
        loop {
            {
                let mut bell = self.bell();
                while !bell.is_wanted && !bell.is_closed {
                    bell = self.rung.wait(bell).unwrap_or_else(PoisonError::into_inner);
                }
                if bell.is_closed {
                    return;
                }
                bell.is_wanted = false;
                if bell.epoch != epoch {
                    epoch = bell.epoch;
                    connection = None;
                }
            }
            let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            if connection.is_none() {
                connection = whereabouts.open_with(schema::open_checkpointer).ok();
            }
            let done = connection.as_ref().map(|connection| checkpoint(connection, CheckpointMode::PASSIVE));
            if let Some(Err(error)) = done {
                log::debug!("a checkpoint on the side failed: {error}");
                connection = None;
            }
        }
    }
}
