//! A distribution of durations: to three digits, whatever their number.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest duration that is told apart, in microseconds: an hour. A longer one counts as that.
const LONGEST_US: u64 = 3_600_000_000;
/// Decimal digits that hold.
const DIGITS: u8 = 3;

/// Durations as they were measured.
#[derive(Clone)]
pub(super) struct Latencies(Histogram<u64>);

/// What is said of them, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("bounds that are known to be good"))
    }

    /// Adds one, rounded up to a microsecond.
    pub(super) fn add(&mut self, duration: Duration) {
        let us = duration.as_nanos().div_ceil(1_000);
        self.0.saturating_record(u64::try_from(us).unwrap_or(LONGEST_US));
    }

    /// Adds all of others.
    pub(super) fn add_all(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all have the same bounds");
    }

    /// Those of them that came after these, which are some of them.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        later.0.subtract(&earlier.0).expect("they have the same bounds, and these are among them");
        later
    }

    /// What is said of them; `None` where there are none.
    pub(super) fn summary(&self) -> Option<Summary> {
        let count = self.0.len();
        if count == 0 {
            return None;
        }
        let of = |quantile| ms(self.0.value_at_quantile(quantile));
        Some(Summary {
            count,
            mean: (self.0.mean() * 1_000.0).round() / 1e6,
            p50: of(0.5),
            p90: of(0.9),
            p99: of(0.99),
            p99_9: of(0.999),
            max: ms(self.0.max()),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "an hour of microseconds is far below 2⁵³")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_agrees_with_the_sorted_durations(mut all in prop::collection::vec(0..10_000_000_000_u64, 1..500)) {
            let mut latencies = Latencies::new();
            for &ns in &all {
                latencies.add(Duration::from_nanos(ns));
            }
            all.sort_unstable();
            let summary = latencies.summary().expect("there are some");
            prop_assert_eq!(summary.count, all.len() as u64);
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss,
                     reason = "some hundred durations of seconds")]
            for (said, part) in [(summary.p50, 0.5), (summary.p90, 0.9), (summary.p99, 0.99), (summary.p99_9, 0.999), (summary.max, 1.0)] {
                let place = ((all.len() as f64 * part).ceil() as usize).clamp(1, all.len()) - 1;
                let right = all[place] as f64 / 1e6;
                // A microsecond by rounding up, and the last of three digits.
                prop_assert!(said >= right - 1e-9 && said <= right * 1.002 + 0.002, "{} for {}, not {}", said, part, right);
            }
        }
    }

    #[test]
    fn what_came_since_is_without_what_was_before() {
        let mut latencies = Latencies::new();
        latencies.add(Duration::from_millis(900));
        let earlier = latencies.clone();
        assert_eq!(latencies.since(&earlier).summary(), None);
        latencies.add(Duration::from_millis(2));
        let summary = latencies.since(&earlier).summary().expect("one");
        assert!(summary.count == 1 && summary.max < 3.0, "{summary:?}");
    }

    #[test]
    fn what_is_longer_than_an_hour_counts_and_of_none_nothing_is_said() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary(), None);
        latencies.add(Duration::from_hours(20));
        latencies.add(Duration::ZERO);
        let summary = latencies.summary().expect("two");
        assert!(summary.max >= 3_600_000.0 && summary.count == 2, "{summary:?}");
    }
}
