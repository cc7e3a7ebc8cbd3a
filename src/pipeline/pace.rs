//! So many in a span of time and not more: the generic cell rate algorithm (ITU-T I.371), with turns that can be taken ahead of
//! their moment. Pure: time comes in.

use std::time::Duration;

use crate::clock::Tick;
use crate::domain::format::Rate;

/// What may come at once after a pause: what the rate brings in this time, one at least.
const BURST: Duration = Duration::from_millis(100);

/// The pace of a rate: who takes a turn is told how long to wait for it.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    interval: Duration,
    /// How much earlier than evenly spread a turn may come.
    tolerance: Duration,
    /// When the next one would come if all were evenly spread.
    next: Tick,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        let interval = rate.interval();
        let burst = u32::try_from(BURST.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX).max(1);
        Self { rate, interval, tolerance: interval.saturating_mul(burst - 1), next: Tick::default() }
    }

    /// The rate.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// How long somebody who came now would wait for a turn.
    pub(super) fn wait(&self, now: Tick) -> Duration {
        self.next.since(now).saturating_sub(self.tolerance)
    }

    /// Whether every turn that was taken is paid back: it is as if none had ever been.
    pub(super) fn is_full(&self, now: Tick) -> bool {
        self.next <= now
    }

    /// Takes a turn that comes within `most`; gives how long to wait for it, or how long it would have been.
    pub(super) fn take(&mut self, now: Tick, most: Duration) -> Result<Duration, Duration> {
        let wait = self.wait(now);
        if wait > most {
            return Err(wait);
        }
        self.next = self.next.max(now).after(self.interval);
        Ok(wait)
    }

    /// Gives the last turn back.
    pub(super) fn give_back(&mut self) {
        self.next = Tick::new(self.next.since(Tick::new(self.interval)));
    }

    /// Turns that come within `ahead` after a pause.
    pub(super) fn burst(&self, ahead: Duration) -> usize {
        let span = self.tolerance.saturating_add(ahead);
        usize::try_from(span.as_nanos() / self.interval.as_nanos().max(1))
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }

    /// Turns that come within `ahead`.
    pub(super) fn turns(&self, now: Tick, ahead: Duration) -> usize {
        let wait = self.wait(now);
        if wait > ahead {
            return 0;
        }
        let early = self.tolerance.saturating_sub(self.next.since(now));
        let span = if wait.is_zero() { early + ahead } else { ahead.saturating_sub(wait) };
        usize::try_from(span.as_nanos() / self.interval.as_nanos().max(1))
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    fn pace(text: &str) -> Pace {
        Pace::new(text.parse().expect("a rate"))
    }

    #[test]
    fn a_tenth_of_a_second_may_come_at_once_and_then_they_are_spread_evenly() {
        let mut pace = pace("50/s");
        let take =
            |pace: &mut Pace, ms| pace.take(at(ms), Duration::from_secs(1)).map(|wait| wait.as_millis());
        assert_eq!([0; 7].map(|ms| take(&mut pace, ms)), [0, 0, 0, 0, 0, 20, 40].map(Ok));
        assert_eq!(take(&mut pace, 50), Ok(10));
        assert!(!pace.is_full(at(10)) && pace.is_full(at(1_000)));
        assert_eq!(take(&mut pace, 10_000), Ok(0));
    }

    #[test]
    fn a_turn_that_is_too_far_away_is_not_taken() {
        let (mut pace, second) = (pace("5/h"), Duration::from_secs(1));
        assert_eq!(pace.take(at(0), second), Ok(Duration::ZERO));
        let interval = Duration::from_mins(12);
        assert_eq!([pace.take(at(0), second), pace.take(at(0), second)], [Err(interval); 2]);
        assert_eq!((pace.turns(at(0), second), pace.turns(at(0), interval)), (0, 1));
        pace.give_back();
        assert_eq!((pace.wait(at(0)), pace.turns(at(0), second)), (Duration::ZERO, 1));
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_rate_and_its_burst(per_s in 1_u32..1_000, steps in prop::collection::vec(0_u64..200, 1..30), most_ms in 0_u64..500) {
            let mut pace = pace(&format!("{per_s}/s"));
            let (mut now, mut turns) = (at(0), Vec::new());
            for step_ms in steps {
                now = now.after(Duration::from_millis(step_ms));
                let foreseen = pace.turns(now, Duration::from_millis(most_ms));
                let mut taken = 0;
                while let Ok(wait) = pace.take(now, Duration::from_millis(most_ms)) {
                    turns.push(now.after(wait));
                    taken += 1;
                }
                prop_assert_eq!(taken, foreseen);
            }
            turns.sort_unstable();
            let burst = usize::try_from(per_s / 10).expect("small").max(1);
            // So many in a row take at least as long as those beyond the burst do when they are spread evenly.
            for count in [burst + 1, burst + 10, 2 * burst + 1] {
                let least = f64::from(u32::try_from(count - burst).expect("small")) / f64::from(per_s);
                for row in turns.windows(count + 1) {
                    let took = row[count].since(row[0]).as_secs_f64();
                    prop_assert!(took >= least - 1e-6, "{} in {}", count, took);
                }
            }
        }

        #[test]
        fn the_rate_is_reached_by_who_is_never_late(per_s in 1_u32..5_000) {
            let mut pace = pace(&format!("{per_s}/s"));
            let taken = (0..3_000).filter(|ms| pace.take(at(*ms), Duration::ZERO).is_ok()).count();
            // One a millisecond is asked for.
            let wanted = usize::try_from(per_s).expect("small").min(1_000) * 3;
            prop_assert!(taken + taken / 50 + 2 >= wanted.min(3_000), "{} of {}", taken, wanted);
        }
    }
}
