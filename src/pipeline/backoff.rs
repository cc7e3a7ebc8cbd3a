//! The pauses between one try and the next when the store does not answer: doubling, bounded, spread by chance.

use std::time::Duration;

/// The first pause.
const LEAST: Duration = Duration::from_millis(20);
/// The longest pause.
const MOST: Duration = Duration::from_secs(1);

/// How often in a row it failed.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: 20 ms doubled each time up to 1 s, and of that between half and all.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = LEAST.saturating_mul(2_u32.saturating_pow(self.failures)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Notes that it went well; says whether it had failed before.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// How often in a row it has failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for most_ms in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
            let pause = backoff.failed();
            let most = Duration::from_millis(most_ms);
            assert!(pause >= most / 2 && pause <= most, "{pause:?} is not within {most:?}");
        }
        assert!(backoff.is_failing() && backoff.succeeded() && !backoff.succeeded());
        assert!(backoff.failed() <= LEAST);
    }
}
