//! What the end of an attempt means for its lane: one table. Pure.
//!
//! | the attempt showed | for the breaker | for the limit | the lane |
//! |---|---|---|---|
//! | nothing of the destination | – | – | – |
//! | no answer | a failure | failed | – |
//! | 429 | alive | too much | held until `Retry-After` |
//! | 503 | failing | failed | held until `Retry-After` |
//! | 502, 504 | failing | failed | – |
//! | 408 | alive | failed | – |
//! | anything else: 2xx, 3xx, any other 4xx and 5xx | alive | fine | – |
//!
//! An answer shows that somebody is there, also one that refuses this message: 404 and 422 are about the message, 500 is mostly a
//! fault that this message met, and what other messages meet is not known by it. 502, 503 and 504 are what stands before a receiver
//! says in its place.

use std::time::Duration;

use crate::domain::outcome::RetryHint;
use crate::domain::retry::RETRY_HINT_MAX;
use crate::domain::timestamp::Timestamp;
use crate::pipeline::lanes::breaker::Health;
use crate::pipeline::lanes::concurrency::Load;
use crate::processor::Signal;

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    pub(super) health: Health,
    pub(super) load: Load,
    /// How long the lane is held.
    pub(super) hold: Option<Duration>,
}

/// Finds the row; `now` turns a date into a span. A lane is held for a day at most.
pub(super) fn judge(signal: Signal, now: Timestamp) -> Judgement {
    let (status, hold) = match signal {
        Signal::Nothing => return Judgement { health: Health::Unknown, load: Load::Unknown, hold: None },
        Signal::NoAnswer => return Judgement { health: Health::Silent, load: Load::Failed, hold: None },
        Signal::Answered { status, hold } => (status, hold),
    };
    let (health, load) = match status {
        429 => (Health::Alive, Load::TooMuch),
        502..=504 => (Health::Failing, Load::Failed),
        408 => (Health::Alive, Load::Failed),
        _ => (Health::Alive, Load::Fine),
    };
    let hold = hold.filter(|_| matches!(status, 429 | 503)).map(|hint| {
        let span = match hint {
            RetryHint::After(span) => span,
            RetryHint::At(at) => at.since(now),
        };
        span.min(RETRY_HINT_MAX)
    });
    Judgement { health, load, hold: hold.filter(|span| !span.is_zero()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn of(status: u16, hold: Option<RetryHint>) -> (Health, Load, Option<u64>) {
        let Judgement { health, load, hold } = judge(Signal::Answered { status, hold }, NOW);
        (health, load, hold.map(|span| span.as_secs()))
    }

    #[test]
    fn an_answer_shows_that_somebody_is_there() {
        for status in (100..1_000).filter(|status| ![408, 429, 502, 503, 504].contains(status)) {
            assert_eq!(of(status, None), (Health::Alive, Load::Fine, None), "{status}");
        }
        assert_eq!(of(408, None), (Health::Alive, Load::Failed, None));
        assert_eq!(of(429, None), (Health::Alive, Load::TooMuch, None));
        for status in [502, 503, 504] {
            assert_eq!(of(status, None), (Health::Failing, Load::Failed, None), "{status}");
        }
    }

    #[test]
    fn no_answer_is_a_failure_and_what_was_not_asked_is_nothing() {
        let rows = [Signal::NoAnswer, Signal::Nothing].map(|signal| judge(signal, NOW));
        let hold = None;
        assert_eq!(rows[0], Judgement { health: Health::Silent, load: Load::Failed, hold });
        assert_eq!(rows[1], Judgement { health: Health::Unknown, load: Load::Unknown, hold });
    }

    #[test]
    fn only_429_and_503_hold_the_lane_and_no_longer_than_a_day() {
        let after = |seconds| Some(RetryHint::After(Duration::from_secs(seconds)));
        for status in [200, 404, 408, 425, 500, 502, 504] {
            assert_eq!(of(status, after(60)).2, None, "{status}");
        }
        for status in [429, 503] {
            assert_eq!(of(status, after(60)).2, Some(60));
            assert_eq!(of(status, after(u64::MAX)).2, Some(86_400));
            assert_eq!(of(status, after(0)).2, None);
            let at = |ms| Some(RetryHint::At(Timestamp::from_millis(ms)));
            assert_eq!(of(status, at(1_030_000)).2, Some(30));
            assert_eq!(of(status, at(999_999)).2, None, "a date that is over");
        }
    }
}
