//! The bounded queue in front of an actor: many senders on any thread, one reader.
//!
//! Messages of one sender arrive in the order sent; between senders no order is promised.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// Why a message was not taken; it comes back with the answer.
#[derive(thiserror::Error)]
pub enum SendError<M> {
    /// The mailbox had no room (in time); try later, shed, or slow down.
    #[error("the mailbox is full")]
    Full(M),
    /// Nobody will ever read this mailbox again: its actor stopped, or gave up.
    #[error("the mailbox is closed")]
    Closed(M),
}

impl<M> SendError<M> {
    /// The message that was not sent.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

// By hand, so that a message needs no Debug and never reaches a log through its error.
impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

/// How many messages are in a mailbox; outlives both of its ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Depth(Arc<AtomicUsize>);

impl Depth {
    pub(super) fn messages(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }
}

/// The sending end of a mailbox: cheap to clone, usable from any thread.
pub struct Address<M> {
    sender: mpsc::Sender<M>,
    depth: Depth,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), depth: self.depth.clone() }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Address")
            .field("depth", &self.depth())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<M> Address<M> {
    /// Sends without waiting; works on any thread, inside a runtime or not.
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        match self.sender.try_reserve() {
            Ok(permit) => {
                self.put(permit, message);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(SendError::Full(message)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(SendError::Closed(message)),
        }
    }

    /// Sends, waiting for room for at most `deadline`; those who wait are served in their order.
    ///
    /// Needs a Tokio timer once it has to wait. Dropping the future before it resolves sends nothing.
    pub async fn send(&self, message: M, deadline: Duration) -> Result<(), SendError<M>> {
        let message = match self.try_send(message) {
            Err(SendError::Full(message)) => message,
            answer => return answer,
        };
        match tokio::time::timeout(deadline, self.sender.reserve()).await {
            Ok(Ok(permit)) => {
                self.put(permit, message);
                Ok(())
            }
            Ok(Err(_closed)) => Err(SendError::Closed(message)),
            Err(_elapsed) => Err(SendError::Full(message)),
        }
    }

    /// Messages waiting now; a snapshot that may be off by the sends and reads under way.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth.messages().min(self.capacity())
    }

    /// The most messages that can wait.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sender.max_capacity()
    }

    /// Whether nobody will ever read this mailbox again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    // Counted before it is visible to the reader, so that the count can never fall below zero.
    fn put(&self, permit: mpsc::Permit<'_, M>, message: M) {
        self.depth.add(1);
        permit.send(message);
    }
}

/// The reading end of a mailbox; the supervisor owns it and lends it to one life after another.
#[derive(Debug)]
pub struct Inbox<M> {
    receiver: mpsc::Receiver<M>,
    depth: Depth,
}

impl<M> Inbox<M> {
    /// Waits for the next message; `None` once all addresses are gone, or the inbox was closed, and
    /// nothing is left.
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<M> {
        let message = self.receiver.recv().await;
        self.depth.take(usize::from(message.is_some()));
        message
    }

    /// The next message if one is waiting; `None` when there is none, now or ever.
    pub fn try_next(&mut self) -> Option<M> {
        let message = self.receiver.try_recv().ok();
        self.depth.take(usize::from(message.is_some()));
        message
    }

    /// Waits for at least one message and appends up to `max` (at least 1) to `messages`.
    ///
    /// Answers how many came; 0 once all addresses are gone, or the inbox was closed, and nothing is
    /// left. Dropping the future loses no message.
    pub async fn next_many(&mut self, messages: &mut Vec<M>, max: usize) -> usize {
        let count = self.receiver.recv_many(messages, max.max(1)).await;
        self.depth.take(count);
        count
    }

    /// Refuses further messages from now on, while those queued can still be read.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// Whether nothing can be sent any more: all addresses are gone, or the inbox was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Messages waiting now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.receiver.len()
    }
}

/// Makes a mailbox for at most `capacity` messages.
///
/// # Panics
/// When `capacity` is 0: such a mailbox could never take a message.
#[must_use]
pub fn mailbox<M>(capacity: usize) -> (Address<M>, Inbox<M>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let depth = Depth::default();
    (Address { sender, depth: depth.clone() }, Inbox { receiver, depth })
}

impl<M> Address<M> {
    /// The shared count, for the registry.
    pub(super) fn depth_count(&self) -> Depth {
        self.depth.clone()
    }
}
