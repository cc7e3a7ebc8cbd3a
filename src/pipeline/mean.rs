//! How long attempts take of late: a mean that forgets.

use std::time::Duration;

/// How many attempts it takes for the weight of one to fall to about a third.
const WEIGHT: u64 = 8;

/// The mean in microseconds, at least 1, once another attempt took so long; 0 is no mean yet.
pub(super) fn with(mean_us: u64, took: Duration) -> u64 {
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    match mean_us {
        0 => took_us,
        _ => (mean_us.saturating_mul(WEIGHT - 1).saturating_add(took_us) / WEIGHT).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_the_mean_and_each_further_one_moves_it_by_an_eighth() {
        assert_eq!(with(0, Duration::from_micros(800)), 800);
        assert_eq!(with(800, Duration::from_micros(1_600)), 900);
        assert_eq!(with(800, Duration::ZERO), 700);
        assert_eq!((with(0, Duration::ZERO), with(1, Duration::ZERO)), (1, 1));
        assert!(with(u64::MAX, Duration::MAX) > u64::MAX / 9, "no overflow");
    }
}
