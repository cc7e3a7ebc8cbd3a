//! When a message that met a lane without room is worth another look. Pure: time and chance come in.
//!
//! Such messages stand in a line that exists as moments only: each is given the one at which the lane would come to it at the pace
//! of its attempts, so that what comes back is about what the lane can take, however many were put off. While no attempt ends the
//! line cannot move: then the least delay doubles.

use std::time::Duration;

use crate::clock::Tick;
use crate::domain::retry::DEFER_MAX;

/// The least delay while the line moves: long enough that a store does not notice, short beside a retry.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// The part by which chance lengthens a delay, or shortens the longest one.
const JITTER: f64 = 0.25;

/// The line before one lane.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When its end would be reached.
    end: Tick,
    least: Duration,
    doubles_at: Tick,
}

impl Line {
    /// How long from now a message is put off, when the lane opens at `opens` and has room each `each`; `random` is at least 0 and
    /// below 1. Never more than [`DEFER_MAX`]: a lane may open earlier than it was said to.
    pub(super) fn put_off(&mut self, now: Tick, opens: Tick, each: Duration, random: f64) -> Duration {
        if now >= self.doubles_at {
            self.least = self.least.saturating_mul(2).clamp(DELAY_MIN, DEFER_MAX);
            self.doubles_at = now.after(self.least);
        }
        // A line longer than the longest delay has no more meaning.
        self.end = self.end.max(opens).max(now).after(each).min(now.after(DEFER_MAX));
        let delay = self.end.max(opens).since(now).max(self.least);
        let random = random.clamp(0.0, 1.0);
        let longer = delay.mul_f64(1.0 + JITTER * random);
        if longer > DEFER_MAX { DEFER_MAX.mul_f64(1.0 - JITTER * random) } else { longer }
    }

    /// Notes that the destination answered: the line moves.
    pub(super) fn moved(&mut self) {
        self.least = Duration::ZERO;
        self.doubles_at = Tick::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    const EACH: Duration = Duration::from_millis(100);

    #[test]
    fn who_is_put_off_comes_back_at_the_pace_of_the_lane() {
        let mut line = Line::default();
        let delays: Vec<_> = (0..6).map(|_| line.put_off(at(0), at(0), EACH, 0.0).as_millis()).collect();
        assert_eq!(delays, [250, 250, 300, 400, 500, 600]);
        assert_eq!(line.put_off(at(500), at(2_000), EACH, 0.0).as_millis(), 1_600, "not before it opens");
    }

    #[test]
    fn while_nothing_moves_the_least_delay_doubles_to_five_minutes() {
        let (mut line, mut now, mut delays) = (Line::default(), at(0), Vec::new());
        for _ in 0..14 {
            let delay = line.put_off(now, now, Duration::ZERO, 0.0);
            delays.push(delay.as_millis());
            now = now.after(delay);
        }
        assert_eq!(delays[..5], [250, 500, 1_000, 2_000, 4_000]);
        assert_eq!(delays[11..], [300_000; 3]);
        line.moved();
        assert_eq!(line.put_off(now, now, Duration::ZERO, 0.0), DELAY_MIN);
    }

    proptest! {
        #[test]
        fn nobody_is_put_off_for_longer_than_five_minutes_or_to_before_the_lane_opens(steps in prop::collection::vec((0_u64..1_000, 0_u64..400_000, 0_u64..60_000, 0.0_f64..1.0, any::<bool>()), 1..200)) {
            let (mut line, mut now) = (Line::default(), at(0));
            for (step_ms, opens_ms, each_ms, random, moved) in steps {
                now = now.after(Duration::from_millis(step_ms));
                let opens = now.after(Duration::from_millis(opens_ms));
                let delay = line.put_off(now, opens, Duration::from_millis(each_ms), random);
                prop_assert!(delay <= DEFER_MAX && delay >= DELAY_MIN);
                prop_assert!(now.after(delay) >= opens || delay >= DEFER_MAX.mul_f64(0.7499));
                if moved {
                    line.moved();
                }
            }
        }
    }
}
