//! When a message that met a lane without room is worth another look. Pure: time and chance come in.
//!
//! Such messages stand in a line that exists as moments only: each is given the one at which the lane would come to it at the pace
//! of its attempts, so that what comes back is about what the lane can take, however many were put off. Each queue has a line of
//! its own, and the lane comes to them in turn, so nobody stands behind the backlog of another. While no attempt ends the lines cannot
//! move: then the least delay doubles.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Tick;
use crate::domain::retry::DEFER_MAX;

/// The least delay while the line moves: long enough that a store does not notice, short beside a retry.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// The part by which chance lengthens a delay, or shortens the longest one.
const JITTER: f64 = 0.25;
/// How often lines are looked for that nobody stands in.
const SWEEP: Duration = Duration::from_millis(250);

/// The lines before one lane.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When the end of each queue's would be reached.
    ends: HashMap<usize, Tick>,
    swept_at: Tick,
    least: Duration,
    doubles_at: Tick,
}

impl Line {
    /// How long from now a message of a queue is put off, when the lane opens at `opens` and has room each `each`; `random` is at least 0 and
    /// below 1. Never more than [`DEFER_MAX`]: a lane may open earlier than it was said to.
    pub(super) fn put_off(
        &mut self,
        now: Tick,
        queue: usize,
        opens: Tick,
        each: Duration,
        random: f64,
    ) -> Duration {
        if now >= self.doubles_at {
            self.least = self.least.saturating_mul(2).clamp(DELAY_MIN, DEFER_MAX);
            self.doubles_at = now.after(self.least);
        }
        // A line longer than the longest delay has no more meaning.
        if now.since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.ends.retain(|_, end| now < *end);
        }
        let lines = self.ends.len() + usize::from(!self.ends.contains_key(&queue));
        let each = each.saturating_mul(u32::try_from(lines).unwrap_or(u32::MAX));
        let end = self.ends.entry(queue).or_default();
        *end = (*end).max(opens).max(now).after(each).min(now.after(DEFER_MAX));
        let delay = (*end).max(opens).since(now).max(self.least);
        let random = random.clamp(0.0, 1.0);
        let longer = delay.mul_f64(1.0 + JITTER * random);
        if longer > DEFER_MAX { DEFER_MAX.mul_f64(1.0 - JITTER * random) } else { longer }
    }

    /// Whether messages of this queue stand in line.
    pub(super) fn has(&self, now: Tick, queue: usize) -> bool {
        self.ends.get(&queue).is_some_and(|end| now < *end)
    }

    /// Notes that the destination answered: the lines move.
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
        let delays: Vec<_> = (0..6).map(|_| line.put_off(at(0), 1, at(0), EACH, 0.0).as_millis()).collect();
        assert_eq!(delays, [250, 250, 300, 400, 500, 600]);
        assert_eq!(line.put_off(at(500), 1, at(2_000), EACH, 0.0).as_millis(), 1_600, "not before it opens");
    }

    #[test]
    fn nobody_stands_behind_the_backlog_of_another_queue() {
        let mut line = Line::default();
        for _ in 0..1_000 {
            line.put_off(at(0), 1, at(0), EACH, 0.0);
        }
        assert!(line.has(at(0), 1) && !line.has(at(0), 2));
        let delays: Vec<_> = (0..5).map(|_| line.put_off(at(0), 2, at(0), EACH, 0.0).as_millis()).collect();
        assert_eq!(delays, [250, 400, 600, 800, 1_000], "every second turn");
        assert!(!line.has(at(1_000), 2) && line.has(at(1_000), 1));
        line.put_off(at(1_500), 1, at(0), EACH, 0.0);
        assert_eq!(line.ends.len(), 1);
    }

    #[test]
    fn while_nothing_moves_the_least_delay_doubles_to_five_minutes() {
        let (mut line, mut now, mut delays) = (Line::default(), at(0), Vec::new());
        for _ in 0..14 {
            let delay = line.put_off(now, 1, now, Duration::ZERO, 0.0);
            delays.push(delay.as_millis());
            now = now.after(delay);
        }
        assert_eq!(delays[..5], [250, 500, 1_000, 2_000, 4_000]);
        assert_eq!(delays[11..], [300_000; 3]);
        line.moved();
        assert_eq!(line.put_off(now, 1, now, Duration::ZERO, 0.0), DELAY_MIN);
    }

    proptest! {
        #[test]
        fn nobody_is_put_off_for_longer_than_five_minutes_or_to_before_the_lane_opens(steps in prop::collection::vec((0_u64..1_000, 0_u64..400_000, 0_u64..60_000, 0.0_f64..1.0, any::<bool>(), 0_usize..3), 1..200)) {
            let (mut line, mut now) = (Line::default(), at(0));
            for (step_ms, opens_ms, each_ms, random, moved, queue) in steps {
                now = now.after(Duration::from_millis(step_ms));
                let opens = now.after(Duration::from_millis(opens_ms));
                let delay = line.put_off(now, queue, opens, Duration::from_millis(each_ms), random);
                prop_assert!(delay <= DEFER_MAX && delay >= DELAY_MIN);
                prop_assert!(now.after(delay) >= opens || delay >= DEFER_MAX.mul_f64(0.7499));
                if moved {
                    line.moved();
                }
            }
        }
    }
}
