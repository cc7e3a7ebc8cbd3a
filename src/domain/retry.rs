//! What follows from an attempt: the one place where a message's fate is decided. Pure: time and chance come in.

use std::time::Duration;

use crate::domain::outcome::{DeadReason, Outcome, RetryHint};
use crate::domain::queue::QueueSettings;
use crate::domain::timestamp::Timestamp;

/// The longest wait that a receiver may ask for.
pub const RETRY_HINT_MAX: Duration = Duration::from_hours(24);
/// The shortest wait where the schedule is empty: without it a message that is allowed many attempts would use them up
/// within seconds.
pub const UNSCHEDULED_MIN: Duration = Duration::from_secs(1);
/// The longest wait for a shut lane before it is looked at again.
pub const DEFER_MAX: Duration = Duration::from_mins(5);

/// How a lease ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Delivered.
    Ack,
    /// Scheduled again; the attempt counts.
    Retry {
        /// How long from now, by the store's clock.
        delay: Duration,
    },
    /// Into the dead letters; the attempt counts.
    Dead {
        /// Why.
        reason: DeadReason,
        /// In the words of who decided it, if any.
        detail: Option<String>,
    },
    /// Scheduled again; no attempt counts.
    Defer {
        /// How long from now, by the store's clock.
        delay: Duration,
    },
    /// The same, and not counted as deferred either: what it waits for goes on, and others are before it.
    Postpone {
        /// How long from now, by the store's clock.
        delay: Duration,
    },
    /// Back to the head of its queue as if never leased.
    Release,
}

/// When attempts are repeated, and how often.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryPolicy<'a> {
    /// The delay after each failed attempt; beyond its end the last delay repeats. Without any it is [`UNSCHEDULED_MIN`].
    pub schedule: &'a [Duration],
    /// Spread around a delay, 0–1.
    pub jitter: f64,
    /// Attempts this message is allowed, at least 1.
    pub attempts_max: u8,
}

impl<'a> RetryPolicy<'a> {
    /// The policy of a queue for a message allowed `attempts_max` attempts.
    #[must_use]
    pub fn of(settings: &'a QueueSettings, attempts_max: u8) -> Self {
        Self { schedule: &settings.retry.schedule, jitter: settings.retry.jitter, attempts_max }
    }

    /// The delay after attempt number `attempt` (from 1), spread by `random` (0 ≤ random < 1); that of an empty schedule is
    /// only spread upwards.
    #[must_use]
    pub fn backoff(&self, attempt: u8, random: f64) -> Duration {
        let place = usize::from(attempt).saturating_sub(1).min(self.schedule.len().saturating_sub(1));
        let (delay, least) = match self.schedule.get(place) {
            Some(delay) => (*delay, Duration::ZERO),
            None => (UNSCHEDULED_MIN, UNSCHEDULED_MIN),
        };
        let spread = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        Duration::try_from_secs_f64(delay.as_secs_f64() * spread).unwrap_or(delay).max(least)
    }
}

/// Decides what becomes of a message after attempt number `attempts` (from 1) ended with `outcome`.
///
/// `now` turns a receiver's date into a delay; `random` (0 ≤ random < 1) spreads the backoff.
#[must_use]
pub fn decide(
    outcome: Outcome,
    attempts: u8,
    policy: RetryPolicy<'_>,
    now: Timestamp,
    random: f64,
) -> Verdict {
    let dead = |reason, detail| Verdict::Dead { reason, detail };
    match outcome {
        Outcome::Done => Verdict::Ack,
        Outcome::Reject { reason } => dead(DeadReason::Rejected, Some(reason)),
        Outcome::Undeliverable { reason } => dead(DeadReason::Undeliverable, Some(reason)),
        Outcome::Deferred { until } => Verdict::Defer { delay: wait(until, now).min(DEFER_MAX) },
        Outcome::Retry { .. } if attempts >= policy.attempts_max => dead(DeadReason::Exhausted, None),
        Outcome::Retry { after } => {
            let hint = after.map_or(Duration::ZERO, |after| wait(after, now).min(RETRY_HINT_MAX));
            Verdict::Retry { delay: policy.backoff(attempts, random).max(hint) }
        }
    }
}

fn wait(hint: RetryHint, now: Timestamp) -> Duration {
    match hint {
        RetryHint::After(span) => span,
        RetryHint::At(at) => at.since(now),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const SCHEDULE: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_mins(2)];

    fn policy(attempts_max: u8, jitter: f64) -> RetryPolicy<'static> {
        RetryPolicy { schedule: &SCHEDULE, jitter, attempts_max }
    }

    #[test]
    fn every_outcome_has_its_verdict() {
        let decide = |outcome, attempts| decide(outcome, attempts, policy(4, 0.0), NOW, 0.5);
        let seconds = Duration::from_secs;
        let dead = |reason, detail: Option<&str>| Verdict::Dead { reason, detail: detail.map(str::to_owned) };
        assert_eq!(decide(Outcome::Done, 4), Verdict::Ack);
        assert_eq!(decide(Outcome::reject("no"), 1), dead(DeadReason::Rejected, Some("no")));
        let nowhere = Outcome::Undeliverable { reason: "gone".into() };
        assert_eq!(decide(nowhere, 1), dead(DeadReason::Undeliverable, Some("gone")));
        assert_eq!(decide(Outcome::retry(), 1), Verdict::Retry { delay: seconds(5) });
        assert_eq!(decide(Outcome::retry(), 3), Verdict::Retry { delay: seconds(120) });
        assert_eq!(decide(Outcome::retry(), 4), dead(DeadReason::Exhausted, None));
        assert_eq!(decide(Outcome::retry_after(seconds(60)), 1), Verdict::Retry { delay: seconds(60) });
        assert_eq!(decide(Outcome::retry_after(seconds(1)), 1), Verdict::Retry { delay: seconds(5) });
        assert_eq!(decide(Outcome::retry_after(Duration::MAX), 1), Verdict::Retry { delay: RETRY_HINT_MAX });
        let past = Outcome::Retry { after: Some(RetryHint::At(Timestamp::from_millis(7))) };
        assert_eq!(decide(past, 2), Verdict::Retry { delay: seconds(30) });
        let until = RetryHint::At(NOW.saturating_add(seconds(9)));
        assert_eq!(decide(Outcome::Deferred { until }, 4), Verdict::Defer { delay: seconds(9) });
    }

    #[test]
    fn beyond_the_schedule_its_last_delay_repeats() {
        assert_eq!(policy(200, 0.0).backoff(150, 0.5), Duration::from_mins(2));
        let at_once = RetryPolicy { schedule: &[Duration::ZERO], jitter: 0.2, attempts_max: 9 };
        assert_eq!([1, 8].map(|attempt| at_once.backoff(attempt, 0.9)), [Duration::ZERO; 2]);
    }

    #[test]
    fn without_a_schedule_a_retry_waits_for_a_second_at_least() {
        let empty = RetryPolicy { schedule: &[], jitter: 0.2, attempts_max: 255 };
        let after = |outcome, random| decide(outcome, 1, empty, NOW, random);
        let second = Verdict::Retry { delay: UNSCHEDULED_MIN };
        assert_eq!(
            [0.0, 0.3, 0.5].map(|random| after(Outcome::retry(), random)),
            [(); 3].map(|()| second.clone())
        );
        assert_eq!(empty.backoff(254, 1.0), Duration::from_millis(1_200), "spread upwards");
        let hint = Duration::from_secs(7);
        assert_eq!(after(Outcome::retry_after(hint), 0.5), Verdict::Retry { delay: hint });
        assert_eq!(after(Outcome::retry_after(Duration::from_millis(3)), 0.5), second);
        assert_eq!(
            decide(Outcome::retry(), 255, empty, NOW, 0.5),
            Verdict::Dead { reason: DeadReason::Exhausted, detail: None }
        );
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_spread(attempt in 1_u8..=255, jitter in 0.0_f64..=1.0, random in 0.0_f64..1.0) {
            let plain = policy(255, 0.0).backoff(attempt, random).as_secs_f64();
            let spread = policy(255, jitter).backoff(attempt, random).as_secs_f64();
            prop_assert!(spread >= plain * (1.0 - jitter) - 1e-6 && spread <= plain * (1.0 + jitter) + 1e-6);
        }

        #[test]
        fn a_message_never_gets_more_attempts_than_allowed(attempts_max in 1_u8..=255, random in 0.0_f64..1.0) {
            let mut attempts = 1;
            while let Verdict::Retry { .. } = decide(Outcome::retry(), attempts, policy(attempts_max, 0.2), NOW, random) {
                attempts += 1;
            }
            prop_assert_eq!(attempts, attempts_max);
        }
    }
}
