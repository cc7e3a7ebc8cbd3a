//! A lease that a dispatcher asks for, and those that others are asked for before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::queue::QueueName;
use crate::pipeline::batch::SuspectPermit;
use crate::pipeline::lanes::Way;
use crate::pipeline::share::Share;
use crate::store::QueueEntry;
use crate::store::error::{StoreError, Stored};
use crate::store::lease::LeaseRequest;

/// Answers that leave a lease unknown after which others are asked for first, and when it is asked for again then.
const ASIDE_AFTER: u32 = 3;
const ASIDE_FOR: Duration = Duration::from_millis(500);

/// A lease to ask for, with the room that it takes.
pub(super) struct Order {
    pub(super) request: LeaseRequest,
    pub(super) first_sent: Instant,
    pub(super) entry: Arc<QueueEntry>,
    pub(super) share: Arc<Share>,
    pub(super) way: Way,
    pub(super) thread: usize,
    /// Messages that it may take of the share, and of the lane where it is booked; given back when it is dropped.
    pub(super) reserved: usize,
    pub(super) suspect: Option<SuspectPermit>,
    /// Answers that left it unknown.
    pub(super) tries: u32,
}

impl Drop for Order {
    fn drop(&mut self) {
        self.share.give_back(self.thread, self.reserved);
        if let Some(lane) = self.way.booked() {
            lane.give_back(self.reserved);
        }
    }
}

/// The right to lease so many messages of a queue on a thread.
pub(super) struct Right {
    pub(super) share: Arc<Share>,
    pub(super) way: Way,
    pub(super) thread: usize,
    pub(super) reserved: usize,
}

impl Order {
    /// An order that was sent first at that moment.
    pub(super) fn new(
        request: LeaseRequest,
        first_sent: Instant,
        entry: Arc<QueueEntry>,
        right: Right,
        suspect: Option<SuspectPermit>,
    ) -> Self {
        let Right { share, way, thread, reserved } = right;
        Self { request, first_sent, entry, share, way, thread, reserved, suspect, tries: 0 }
    }

    /// Whether others are asked for before it.
    pub(super) fn is_aside(&self) -> bool {
        self.tries >= ASIDE_AFTER
    }

    /// Whether the store may have leased what it asks for, so that it must be asked again: a store that cannot be reached says
    /// nothing of what it did with an earlier sending. In vain once the lease would be over.
    pub(super) fn may_be_leased(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Gone | StoreError::Newer(_) | StoreError::Foreign(_) => false,
            _ if self.first_sent.elapsed() >= self.request.lease => false,
            _ => self.tries > 0 || error.stored() == Stored::Unknown,
        }
    }
}

/// Leases whose fate stays unknown while the store answers, and when each is asked for again: at most one of a queue.
#[derive(Default)]
pub(super) struct Aside(Vec<(Instant, Order)>);

impl Aside {
    /// Puts one aside for a while.
    pub(super) fn put(&mut self, order: Order, now: Instant) {
        self.0.push((now + ASIDE_FOR, order));
    }

    /// One whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Order> {
        let place = self.0.iter().position(|(at, _)| *at <= now)?;
        Some(self.0.remove(place).1)
    }

    /// How long until the time of the next one comes.
    pub(super) fn rests_for(&self, now: Instant) -> Option<Duration> {
        self.0.iter().map(|(at, _)| at.saturating_duration_since(now)).min()
    }

    /// Whether one of this queue is among them.
    pub(super) fn has(&self, queue: &QueueName) -> bool {
        self.0.iter().any(|(_, order)| order.entry.name == *queue)
    }
}
