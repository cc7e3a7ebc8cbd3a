//! Who wants to pass or to lease, and what it is told.

use std::time::Duration;

use crate::clock::Tick;
use crate::pipeline::lanes::breaker::{Admitted, Change};
use crate::pipeline::lanes::row::Turn;
use crate::pipeline::places::Places;

/// Somebody who wants to pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Which queue: the address of its share.
    pub(super) queue: usize,
    /// Whether it is another than the first attempt.
    pub(super) is_retry: bool,
    /// Whether it was booked: its queue sends here only.
    pub(super) is_booked: bool,
    /// How the places of its queue are taken.
    pub(super) places: Places,
}

/// A queue that sends here only and would lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Which queue: the address of its share.
    pub(super) queue: usize,
    /// Messages that it has leased.
    pub(super) own: usize,
    /// Messages that it would lease besides.
    pub(super) wanted: usize,
    /// Of `at_once` that it may have in flight that many more may be leased before they have a place.
    pub(super) early: usize,
    pub(super) at_once: usize,
}

/// What a passage is ended with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    pub(super) ask: Ask,
    pub(super) admitted: Admitted,
    pub(super) limit_epoch: u32,
    pub(super) generation: u32,
}

/// What is to be said of the end of a passage.
pub(super) struct Ended {
    pub(super) change: Change,
    /// Until when the lane is held from now on, when it was not before.
    pub(super) held_until: Option<Tick>,
}

/// The answer to who wants to pass.
pub(super) enum Answer {
    /// It may, after that long.
    Pass(Passage, Duration),
    /// It is told when it may.
    Wait(Turn),
    /// Nobody may now.
    Shut,
    /// Others are before it.
    Busy,
}
