//! Those of one queue who wait in hand for a lane, and for how long that is worth it: who waits keeps a place of its queue from
//! messages to other lanes, and who is put off costs the store two calls and comes back no sooner than in a quarter of a second.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::pipeline::lanes::ask::Ask;
use crate::pipeline::lanes::lane::Pass;
use crate::pipeline::places::{InHand, Unanswered};

/// What a message may wait for as if it were its turn: to be leased where there is a rate, and in hand in a row of any length.
pub(super) const AHEAD: Duration = Duration::from_millis(50);
/// How long a message may wait in hand for its lane.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long one waits that was to pass within [`AHEAD`]: less than it would be put off for.
pub(super) const BRIEFLY: Duration = Duration::from_millis(200);
/// Of one queue with many destinations that many may wait for a lane that is not quick.
const ROW_MAX: usize = 4;

/// Somebody who waits in hand.
pub(super) struct Waiter {
    pub(super) ask: Ask,
    pub(super) told: oneshot::Sender<Pass>,
    /// Its place, where its queue has many destinations.
    pub(super) in_hand: Option<InHand>,
}

/// What who waits in hand waits for.
pub(super) struct Turn {
    pub(super) told: oneshot::Receiver<Pass>,
    /// How long it waits at most.
    pub(super) patience: Duration,
    /// How often it sees to it that turns of the rate are handed out.
    pub(super) look: Duration,
}

/// What one queue has in a lane.
pub(super) struct Row {
    pub(super) queue: usize,
    pub(super) in_flight: usize,
    pub(super) waiters: VecDeque<Waiter>,
    /// What of it is in flight without an answer, where its queue has many destinations.
    pub(super) unanswered: Option<Unanswered>,
}

impl Row {
    pub(super) fn new(queue: usize) -> Self {
        Self { queue, in_flight: 0, waiters: VecDeque::new(), unanswered: None }
    }

    /// What those who wait ask for now.
    pub(super) fn asks(&self) -> Vec<Ask> {
        let places = self.waiters.front().and_then(|waiter| waiter.in_hand.as_ref()).map(InHand::places);
        let now = |ask: &Ask| Ask { places: places.unwrap_or(ask.places), ..*ask };
        self.waiters.iter().map(|waiter| now(&waiter.ask)).collect()
    }

    /// Forgets who waits no more.
    pub(super) fn tidy(&mut self) {
        self.waiters.retain(|waiter| !waiter.told.is_closed());
    }

    /// Counts what is in flight in its queue's share, while the lane `is_quiet`.
    pub(super) fn count(&mut self, is_quiet: bool) {
        if let Some(unanswered) = &mut self.unanswered {
            unanswered.set(if is_quiet { self.in_flight } else { 0 });
        }
    }

    /// Whether it holds nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiters.is_empty()
    }
}

/// The how many-th passes who joins a row of `own`, when queues take turns and the others have so many waiting.
pub(super) fn passes_at(own: usize, others: impl Iterator<Item = usize>) -> usize {
    own + 1 + others.map(|waiting| waiting.min(own + 1)).sum::<usize>()
}

/// How long who joins a row of `own` waits at most, when it is to pass after `wait`; `None` where it is put off instead. Once such
/// hopes were in vain, `is_late`, a queue with many destinations has a short row only.
pub(super) fn patience(own: usize, is_booked: bool, wait: Duration, is_late: bool) -> Option<Duration> {
    match () {
        () if wait > WAIT_MAX => None,
        () if is_booked || own < ROW_MAX => Some(WAIT_MAX),
        () => (wait <= AHEAD && !is_late).then_some(BRIEFLY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_pass_in_turn_however_long_the_row_of_another_is() {
        assert_eq!(passes_at(0, [].into_iter()), 1);
        assert_eq!(passes_at(5, [].into_iter()), 6);
        assert_eq!(passes_at(0, [1_000, 0, 3].into_iter()), 3);
        assert_eq!(passes_at(2, [1_000, 2].into_iter()), 3 + 3 + 2);
    }

    #[test]
    fn a_row_is_as_long_as_what_passes_soon_and_short_for_a_lane_that_is_slow_or_was_late() {
        let ms = Duration::from_millis;
        let waits = |own, wait_ms, is_late| patience(own, false, ms(wait_ms), is_late);
        assert_eq!([0, 3].map(|own| waits(own, 1_000, false)), [Some(WAIT_MAX); 2]);
        assert_eq!([0, 3].map(|own| waits(own, 1_001, false)), [None; 2]);
        assert_eq!([4, 1_000].map(|own| waits(own, 50, false)), [Some(BRIEFLY); 2]);
        assert_eq!((waits(4, 51, false), waits(4, 50, true)), (None, None));
        assert_eq!(waits(3, 50, true), Some(WAIT_MAX));
        assert_eq!(patience(1_000, true, ms(1_000), true), Some(WAIT_MAX), "it has no other lane");
    }
}
