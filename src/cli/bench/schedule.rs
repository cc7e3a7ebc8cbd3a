//! When messages are due: arrivals that do not wait for answers, decided before the first is sent.

use std::time::Duration;

use serde::Serialize;

/// Seeds the gaps between arrivals: they are the same in each run, so that runs can be compared.
const SEED: u64 = 0x706f_7374_6861_7374;

/// How arrivals are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Spacing {
    /// As independent clients bring them: a Poisson process.
    Poisson,
    /// At even distances.
    Even,
}

/// The moments at which messages are due, from the begin of a run; ends with the run.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    random: fastrand::Rng,
    rate_per_s: f64,
    spacing: Spacing,
    lasting_s: f64,
    at_s: f64,
    /// How many were given, which are far below 2⁵³.
    given: f64,
}

impl Schedule {
    /// So many messages a second, for so long.
    pub(super) fn new(rate_per_s: f64, spacing: Spacing, lasting: Duration) -> Self {
        let random = fastrand::Rng::with_seed(SEED);
        Self { random, rate_per_s, spacing, lasting_s: lasting.as_secs_f64(), at_s: 0.0, given: 0.0 }
    }

    /// For how long messages are due.
    pub(super) fn lasting(&self) -> Duration {
        Duration::from_secs_f64(self.lasting_s)
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at_s = match self.spacing {
            // Multiplied, not added up: no error gathers.
            Spacing::Even => self.given / self.rate_per_s,
            // 1 - f64() is never 0, whose logarithm would be infinite.
            Spacing::Poisson => self.at_s - (1.0 - self.random.f64()).ln() / self.rate_per_s,
        };
        // Also beyond the end: once over it stays over.
        self.at_s = at_s;
        if at_s >= self.lasting_s {
            return None;
        }
        self.given += 1.0;
        Some(Duration::from_secs_f64(at_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_come_at_even_distances_and_none_after_the_end() {
        let due: Vec<_> = Schedule::new(4.0, Spacing::Even, Duration::from_secs(1)).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_independent_clients() {
        let due: Vec<_> = Schedule::new(1_000.0, Spacing::Poisson, Duration::from_secs(20)).collect();
        assert!((19_000..21_000).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted());
        let gaps: Vec<f64> =
            due.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
        // Of an exponential distribution 1/e of all gaps are longer than the mean.
        let long = gaps.iter().filter(|gap| **gap > 0.001).count();
        assert!((long * 1_000 / gaps.len()).abs_diff(368) < 20, "{long} of {}", gaps.len());
    }

    #[test]
    fn a_schedule_that_is_over_stays_over() {
        for spacing in [Spacing::Poisson, Spacing::Even] {
            let mut schedule = Schedule::new(100.0, spacing, Duration::from_secs(1));
            assert!(schedule.by_ref().count() > 50);
            assert!((0..1_000).all(|_| schedule.next().is_none()), "{spacing:?}");
        }
    }

    #[test]
    fn a_schedule_is_the_same_each_time() {
        let schedule = Schedule::new(100.0, Spacing::Poisson, Duration::from_secs(1));
        assert!(schedule.clone().eq(schedule));
    }
}
