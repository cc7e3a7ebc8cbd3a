//! When a message that met a lane without room is worth another look. Pure: time and chance come in.
//!
//! Such messages stand in a line that exists as moments only: each is given the one at which the lane would come to it at the pace
//! of its attempts, so that what comes back is about what the lane can take, however many were put off. Each queue has a line of
//! its own, and the lane comes to them in turn, so nobody stands behind the backlog of another.
//!
//! While no attempt is answered the lines cannot move. Then the least delay doubles, and a line is as long as [`LOOKS_PER_S`] make it,
//! at most [`LINE_MIN`] or eight times the least delay, and never longer than [`LINE_MAX`]: whoever waits behind a destination that
//! is down costs the others next to nothing. What waits long for one that answers again is brought forward
//! ([`Backlog`](super::backlog)). Its messages come back at moments that all lanes have in common, so that one lease
//! takes many of them.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Tick;
use crate::domain::retry::DEFER_MAX;

/// The least delay while the line moves: long enough that a store does not notice, short beside a retry.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// The part by which chance lengthens a delay, or shortens the longest one.
const JITTER: f64 = 0.25;
/// How many of those that stand before a lane which does not answer look each second whether it does.
const LOOKS_PER_S: u32 = 50;
/// Within what they all look, however many they are, while it was quiet for no longer than an eighth of it.
const LINE_MIN: Duration = Duration::from_secs(40);
/// Within what they look at the latest: who is back after long gets its backlog in about that time.
const LINE_MAX: Duration = Duration::from_mins(1);
/// They come back at multiples of this.
const GRID: Duration = Duration::from_millis(500);
/// How often lines are looked for that nobody stands in.
const SWEEP: Duration = Duration::from_millis(250);

/// How lines move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moves {
    /// The lane has room so often.
    Each(Duration),
    /// They do not: it is shut, does not answer, or nothing is known of it yet.
    Not,
}

/// The lines before one lane.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When the end of each queue's would be reached.
    ends: HashMap<usize, Tick>,
    /// Whether the lane did not answer when somebody was put off last: then `ends` say when they all have looked.
    is_stuck: bool,
    swept_at: Tick,
    least: Duration,
    doubles_at: Tick,
}

impl Line {
    /// How long from now a message of a queue is put off, when the lane opens at `opens` and its lines move like `moves`; `random` is
    /// at least 0 and below 1. Never more than [`DEFER_MAX`]: a lane may open earlier than it was said to.
    pub(super) fn put_off(
        &mut self,
        now: Tick,
        queue: usize,
        opens: Tick,
        moves: Moves,
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
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        self.is_stuck = !matches!(moves, Moves::Each(_));
        let each = match moves {
            Moves::Each(each) => each,
            Moves::Not => return self.look_again(now, queue, opens, lines),
        };
        let end = self.ends.entry(queue).or_default();
        *end = (*end).max(opens).max(now).after(each.saturating_mul(lines)).min(now.after(DEFER_MAX));
        let delay = (*end).max(opens).since(now).max(self.least);
        let random = random.clamp(0.0, 1.0);
        let longer = delay.mul_f64(1.0 + JITTER * random);
        if longer > DEFER_MAX { DEFER_MAX.mul_f64(1.0 - JITTER * random) } else { longer }
    }

    fn look_again(&mut self, now: Tick, queue: usize, opens: Tick, lines: u32) -> Duration {
        let from = now.after(self.least).max(opens);
        let each = (Duration::from_secs(1) / LOOKS_PER_S).saturating_mul(lines);
        let last = from.after(self.least.saturating_mul(8).clamp(LINE_MIN, LINE_MAX));
        let end = self.ends.entry(queue).or_default();
        *end = (*end).max(from).after(each);
        if last < *end {
            // The line has its full length: who joins it shares a moment with others.
            *end = from.after(each);
        }
        let (now, at) = (now.since(Tick::default()), end.since(Tick::default()));
        let at_us = at.as_micros().next_multiple_of(GRID.as_micros());
        Duration::from_micros(u64::try_from(at_us).unwrap_or(u64::MAX)).saturating_sub(now).min(DEFER_MAX)
    }

    /// Whether messages of this queue stand in line.
    pub(super) fn has(&self, now: Tick, queue: usize) -> bool {
        self.ends.get(&queue).is_some_and(|end| now < *end)
    }

    /// Notes that the destination answered: the lines move.
    pub(super) fn moved(&mut self) {
        if std::mem::take(&mut self.is_stuck) {
            // How long they wait says nothing of how long the next ones will.
            self.ends.clear();
        }
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
        let delays: Vec<_> =
            (0..6).map(|_| line.put_off(at(0), 1, at(0), Moves::Each(EACH), 0.0).as_millis()).collect();
        assert_eq!(delays, [250, 250, 300, 400, 500, 600]);
        assert_eq!(
            line.put_off(at(500), 1, at(2_000), Moves::Each(EACH), 0.0).as_millis(),
            1_600,
            "not before it opens"
        );
    }

    #[test]
    fn nobody_stands_behind_the_backlog_of_another_queue() {
        let mut line = Line::default();
        for _ in 0..1_000 {
            line.put_off(at(0), 1, at(0), Moves::Each(EACH), 0.0);
        }
        assert!(line.has(at(0), 1) && !line.has(at(0), 2));
        let delays: Vec<_> =
            (0..5).map(|_| line.put_off(at(0), 2, at(0), Moves::Each(EACH), 0.0).as_millis()).collect();
        assert_eq!(delays, [250, 400, 600, 800, 1_000], "every second turn");
        assert!(!line.has(at(1_000), 2) && line.has(at(1_000), 1));
        line.put_off(at(1_500), 1, at(0), Moves::Each(EACH), 0.0);
        assert_eq!(line.ends.len(), 1);
    }

    #[test]
    fn while_nothing_moves_the_least_delay_doubles_to_five_minutes() {
        let (mut line, mut now, mut delays) = (Line::default(), at(0), Vec::new());
        for _ in 0..14 {
            let delay = line.put_off(now, 1, now, Moves::Each(Duration::ZERO), 0.0);
            delays.push(delay.as_millis());
            now = now.after(delay);
        }
        assert_eq!(delays[..5], [250, 500, 1_000, 2_000, 4_000]);
        assert_eq!(delays[11..], [300_000; 3]);
        line.moved();
        assert_eq!(line.put_off(now, 1, now, Moves::Each(Duration::ZERO), 0.0), DELAY_MIN);
    }

    #[test]
    fn those_before_a_lane_that_does_not_answer_look_fifty_a_second_at_common_moments() {
        let mut line = Line::default();
        let mut put_off = |at_ms, queue, opens_ms, moves| {
            line.put_off(at(at_ms), queue, at(opens_ms), moves, 0.0).as_millis()
        };
        let mut delays: Vec<_> = (0..2_050).map(|_| put_off(100, 1, 0, Moves::Not)).collect();
        assert_eq!((delays[0], delays[2_049]), (400, 1_400), "after forty seconds the line begins anew");
        assert!(delays.iter().all(|delay| (100 + delay) % 500 == 0));
        delays.sort_unstable();
        let at_a_time: Vec<_> = delays.chunk_by(|one, other| one == other).map(<[_]>::len).collect();
        assert!(at_a_time.len() >= 80 && at_a_time.iter().all(|count| *count <= 50), "{at_a_time:?}");
        assert_eq!(
            [2, 2].map(|queue| put_off(100, queue, 0, Moves::Not)),
            [400, 400],
            "another queue's is its own"
        );
        let delays: Vec<_> = (0..50).map(|_| put_off(100, 3, 60_000, Moves::Not)).collect();
        assert_eq!((delays[0], delays[49]), (60_400, 62_900), "not all at once when it opens");
        line.moved();
        let delay = line.put_off(at(100), 1, at(0), Moves::Each(EACH), 0.0).as_millis();
        assert_eq!(delay, 250, "what they wait for says nothing of a lane that moves again");
    }

    proptest! {
        #[test]
        fn nobody_is_put_off_for_longer_than_five_minutes_or_to_before_the_lane_opens(steps in prop::collection::vec((0_u64..1_000, 0_u64..400_000, prop_oneof![Just(0_u64), 0_u64..60_000], 0.0_f64..1.0, any::<bool>(), 0_usize..3), 1..200)) {
            let (mut line, mut now) = (Line::default(), at(0));
            for (step_ms, opens_ms, each_ms, random, moved, queue) in steps {
                now = now.after(Duration::from_millis(step_ms));
                let opens = now.after(Duration::from_millis(opens_ms));
                let delay = line.put_off(now, queue, opens, if each_ms > 0 { Moves::Each(Duration::from_millis(each_ms)) } else { Moves::Not }, random);
                prop_assert!(delay <= DEFER_MAX && delay >= DELAY_MIN);
                prop_assert!(now.after(delay) >= opens || delay >= DEFER_MAX.mul_f64(0.7499));
                if moved {
                    line.moved();
                }
            }
        }
    }
}
