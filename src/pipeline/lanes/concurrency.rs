//! How many attempts a lane may have in flight: additive increase, multiplicative decrease (Chiu and Jain, 1989), judged once a
//! round by errors and by how long attempts take. Pure: no clock, no I/O.
//!
//! | what a round of attempts showed | the limit |
//! |---|---|
//! | the destination said "too many" (429) | is halved, at once |
//! | a quarter or more failed | is halved |
//! | they took twice as long as they may, and a quarter of a second more | loses a quarter |
//! | all was well, and the limit was reached | grows by one; below what it was before the lane was shut, by one an answer |

use std::time::Duration;

/// Of a round that many may fail: one in this many.
const FAILED_PART: u32 = 4;
/// What a round may take beyond twice the fastest one: what a busy gateway adds by itself must not count.
const SLACK_US: u64 = 250_000;
/// Results of a round at least: fewer say little.
const ROUND_MIN: u32 = 4;
/// How fast what is called fast follows rounds that are slower: by this part of the difference.
const DRIFT: u64 = 16;

/// What the end of an attempt says of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Load {
    /// It can be borne.
    Fine,
    /// It failed, perhaps for the load.
    Failed,
    /// The destination says that it is too much.
    TooMuch,
    /// Nothing.
    Unknown,
}

/// The limit of one lane.
#[derive(Debug)]
pub(super) struct Limit {
    now: u32,
    most: u32,
    /// Below this the limit grows by one with each answer.
    fast_below: u32,
    /// Grows when the limit is lowered: what began before does not lower it again.
    epoch: u32,
    was_full: bool,
    round: Round,
    /// The mean of the fastest round, microseconds, which slowly follows slower ones; 0 before the first.
    fast_us: u64,
}

#[derive(Debug, Default)]
struct Round {
    results: u32,
    failed: u32,
    took_us: u64,
}

impl Limit {
    /// A limit that begins at the most it may be.
    pub(super) fn new(most: u32) -> Self {
        Self {
            now: most.max(1),
            most: most.max(1),
            fast_below: 1,
            epoch: 0,
            was_full: false,
            round: Round::default(),
            fast_us: 0,
        }
    }

    /// Attempts that may be in flight.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Those of them that may be other than first attempts.
    pub(super) fn of_retries(&self) -> u32 {
        (self.now - self.now.div_ceil(4)).max(1)
    }

    /// To be noted with an attempt that begins, and told when it ends.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Notes how many are in flight.
    pub(super) fn in_flight(&mut self, count: u32) {
        self.was_full |= count >= self.now;
    }

    /// Begins again with one, because the lane was shut.
    pub(super) fn restart(&mut self) {
        self.fast_below = (self.now / 2).max(self.fast_below).clamp(1, self.most);
        self.lower_to(1);
    }

    /// Takes in how an attempt ended that began at that epoch.
    pub(super) fn ended(&mut self, epoch: u32, load: Load, took: Duration) {
        if epoch != self.epoch || load == Load::Unknown {
            return;
        }
        if load == Load::TooMuch {
            self.halve();
            return;
        }
        self.round.results += 1;
        self.round.failed += u32::from(load == Load::Failed);
        self.round.took_us =
            self.round.took_us.saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if load == Load::Fine && self.now < self.fast_below && self.was_full {
            self.now += 1;
            self.was_full = false;
        }
        if self.round.results >= self.now.max(ROUND_MIN) {
            self.end_round();
        }
    }

    fn end_round(&mut self) {
        let Round { results, failed, took_us } = std::mem::take(&mut self.round);
        if failed.saturating_mul(FAILED_PART) >= results {
            self.halve();
            return;
        }
        let mean_us = (took_us / u64::from(results)).max(1);
        if self.fast_us == 0 || mean_us <= self.fast_us {
            self.fast_us = mean_us;
        } else {
            let is_slow = mean_us > self.fast_us.saturating_mul(2).saturating_add(SLACK_US);
            // What stays slow is not slow for the load: it becomes the measure.
            self.fast_us += (mean_us - self.fast_us).div_ceil(DRIFT);
            if is_slow {
                self.lower_to(self.now - self.now.div_ceil(4).min(self.now - 1));
                self.fast_below = self.now;
                return;
            }
        }
        if self.was_full && self.now < self.most {
            self.now += 1;
        }
        self.was_full = false;
    }

    fn halve(&mut self) {
        self.lower_to((self.now / 2).max(1));
        self.fast_below = self.now;
    }

    fn lower_to(&mut self, limit: u32) {
        self.now = limit;
        self.epoch = self.epoch.wrapping_add(1);
        self.round = Round::default();
        self.was_full = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    /// A round in which the limit is reached and all end alike.
    fn round(limit: &mut Limit, load: Load, took: Duration) {
        let (count, epoch) = (limit.now().max(ROUND_MIN), limit.epoch());
        for _ in 0..count {
            limit.in_flight(limit.now());
            limit.ended(epoch, load, took);
        }
    }

    #[test]
    fn it_begins_with_the_most_and_is_halved_by_rounds_that_fail() {
        let mut limit = Limit::new(64);
        for wanted in [32, 16, 8, 4, 2, 1, 1] {
            round(&mut limit, Load::Failed, FAST);
            assert_eq!(limit.now(), wanted);
        }
    }

    #[test]
    fn what_was_in_flight_when_it_was_lowered_does_not_lower_it_again() {
        let mut limit = Limit::new(64);
        let epoch = limit.epoch();
        for _ in 0..64 {
            limit.ended(epoch, Load::TooMuch, FAST);
        }
        assert_eq!(limit.now(), 32);
    }

    #[test]
    fn a_few_that_fail_do_not_lower_it() {
        let mut limit = Limit::new(64);
        for number in 0..6_400 {
            let load = if number % 5 == 0 { Load::Failed } else { Load::Fine };
            limit.in_flight(limit.now());
            limit.ended(limit.epoch(), load, FAST);
        }
        assert_eq!(limit.now(), 64);
    }

    #[test]
    fn after_the_lane_was_shut_it_begins_with_one_doubles_to_half_and_grows_by_one_from_there() {
        let mut limit = Limit::new(64);
        limit.restart();
        let mut seen = vec![limit.now()];
        for _ in 0..8 {
            let flight = limit.now();
            for _ in 0..flight {
                limit.in_flight(limit.now());
                limit.ended(limit.epoch(), Load::Fine, FAST);
            }
            seen.push(limit.now());
        }
        assert_eq!(&seen[..6], [1, 2, 4, 8, 16, 32]);
        assert!(seen[8] > 32 && seen[8] <= 36, "{seen:?}");
        for _ in 0..100 {
            round(&mut limit, Load::Fine, FAST);
        }
        assert_eq!(limit.now(), 64, "never more than the most");
    }

    #[test]
    fn it_grows_only_when_it_was_reached() {
        let mut limit = Limit::new(64);
        limit.restart();
        for _ in 0..1_000 {
            limit.ended(limit.epoch(), Load::Fine, FAST);
        }
        assert_eq!(limit.now(), 1);
    }

    #[test]
    fn rounds_that_become_slow_lower_it_and_what_stays_slow_is_the_measure_in_the_end() {
        let mut limit = Limit::new(64);
        round(&mut limit, Load::Fine, FAST);
        round(&mut limit, Load::Fine, Duration::from_millis(200));
        assert_eq!(limit.now(), 64, "a busy gateway is that slow by itself");
        round(&mut limit, Load::Fine, Duration::from_secs(2));
        assert_eq!(limit.now(), 48);
        for _ in 0..500 {
            round(&mut limit, Load::Fine, Duration::from_secs(2));
        }
        assert_eq!(limit.now(), 64);
        let mut slow = Limit::new(64);
        for _ in 0..100 {
            round(&mut slow, Load::Fine, Duration::from_secs(5));
        }
        assert_eq!(slow.now(), 64, "slow from the first is no sign of load");
    }

    #[test]
    fn some_of_it_is_kept_for_first_attempts() {
        let kept = |most| Limit::new(most).of_retries();
        assert_eq!([1, 2, 3, 4, 8, 64].map(kept), [1, 1, 2, 3, 6, 48]);
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_the_most_whatever_comes(most in 1_u32..200, ends in prop::collection::vec((0_usize..4, 0_u64..5_000, any::<bool>(), 0_usize..20), 0..600)) {
            let loads = [Load::Fine, Load::Failed, Load::TooMuch, Load::Unknown];
            let mut limit = Limit::new(most);
            for (load, took_ms, is_full, other) in ends {
                if is_full {
                    limit.in_flight(limit.now());
                }
                match other {
                    0 => limit.restart(),
                    1 => limit.ended(limit.epoch().wrapping_sub(1), loads[load], Duration::from_millis(took_ms)),
                    _ => limit.ended(limit.epoch(), loads[load], Duration::from_millis(took_ms)),
                }
                prop_assert!((1..=most).contains(&limit.now()));
                prop_assert!((1..=limit.now()).contains(&limit.of_retries()));
            }
        }
    }
}
