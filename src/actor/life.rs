//! What an actor knows of its own life: its name, its beats, and when to stop.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::mailbox::Inbox;
use super::watch::Entry;

/// Handed to an actor for each of its lives.
pub struct Life {
    entry: Arc<Entry>,
    // The deadline of the actor's shutdown phase, once that has begun.
    phase: watch::Receiver<Option<Instant>>,
}

impl fmt::Debug for Life {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Life")
            .field("name", &self.name())
            .field("stopping", &self.is_stopping())
            .finish_non_exhaustive()
    }
}

impl Life {
    pub(super) fn new(entry: Arc<Entry>, phase: watch::Receiver<Option<Instant>>) -> Self {
        Self { entry, phase }
    }

    /// The actor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.entry.name()
    }

    /// Notes progress: [`watch`](super::Supervisor::watch) shows how long ago the last beat was.
    pub fn beat(&self) {
        self.entry.beat();
    }

    /// Resolves once the actor's shutdown phase has begun; at once if it already has.
    ///
    /// Dropping the future is harmless: it can be asked for again and again.
    pub async fn stopping(&self) {
        // The signal cannot go away before the actor does; if it did, to stop would be right as well.
        drop(self.phase.clone().wait_for(Option::is_some).await);
    }

    /// Whether the actor's shutdown phase has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.deadline().is_some()
    }

    /// When the actor's shutdown phase ends, if it has begun; who is not done by then is named as late.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        *self.phase.borrow()
    }

    /// The next message; once stopping, what is still queued and then `None`. Counts as a beat.
    ///
    /// `None` also once all addresses are gone. Dropping the future loses no message.
    pub async fn next<M>(&self, inbox: &mut Inbox<M>) -> Option<M> {
        let message = tokio::select! {
            biased;
            message = inbox.next() => message,
            () = self.stopping() => inbox.try_next(),
        };
        self.beat();
        message
    }
}
