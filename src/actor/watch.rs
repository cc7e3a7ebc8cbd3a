//! What can be seen of an actor from outside: one line of `/status`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

use super::mailbox::Depth;

/// Where an actor is in its life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    /// Registered; its thread has not come to it yet.
    Starting,
    /// Living.
    Running,
    /// Broken, and pausing before its next life.
    Restarting,
    /// Its shutdown phase has begun and it has not ended yet.
    Stopping,
    /// Ended, and will not come back.
    Stopped,
    /// Broke more often than its restart policy allows.
    GaveUp,
}

impl ActorState {
    /// The state's name in the API: `starting`, `running`, `restarting`, `stopping`, `stopped`, `gave_up`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::GaveUp => "gave_up",
        }
    }
}

/// A snapshot of one actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActorStatus {
    /// Its name, as given in its role.
    pub name: String,
    /// Where it is in its life cycle.
    pub state: ActorState,
    /// Restarts since it was started.
    pub restarts: u32,
    /// Messages waiting in its mailbox.
    pub mailbox_depth: usize,
    /// The most messages its mailbox holds.
    pub mailbox_capacity: usize,
    /// Milliseconds since it last noted progress; grows while it is idle, too.
    pub beat_age_ms: u64,
}

/// An actor in the supervisor's registry.
#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    phase: usize,
    mailbox_capacity: usize,
    depth: Depth,
    born: Instant,
    state: Mutex<ActorState>,
    restarts: AtomicU32,
    beat_ms: AtomicU64,
}

impl Entry {
    pub(super) fn new(name: String, phase: usize, mailbox_capacity: usize, depth: Depth) -> Self {
        Self {
            name,
            phase,
            mailbox_capacity,
            depth,
            born: Instant::now(),
            state: Mutex::new(ActorState::Starting),
            restarts: AtomicU32::new(0),
            beat_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Index of its shutdown phase.
    pub(super) fn phase(&self) -> usize {
        self.phase
    }

    pub(super) fn beat(&self) {
        self.beat_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Counts a restart and answers how many there were.
    pub(super) fn count_restart(&self) -> u32 {
        self.restarts.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn state(&self) -> ActorState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, state: ActorState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state(), ActorState::Stopped | ActorState::GaveUp)
    }

    pub(super) fn status(&self, phase_begun: bool) -> ActorStatus {
        let state = match self.state() {
            ended @ (ActorState::Stopped | ActorState::GaveUp) => ended,
            _ if phase_begun => ActorState::Stopping,
            living => living,
        };
        // What was left in the mailbox of an ended actor went with it.
        let mailbox_depth =
            if self.has_ended() { 0 } else { self.depth.messages().min(self.mailbox_capacity) };
        ActorStatus {
            name: self.name.clone(),
            state,
            restarts: self.restarts.load(Ordering::Relaxed),
            mailbox_depth,
            mailbox_capacity: self.mailbox_capacity,
            beat_age_ms: self.age_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed)),
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
