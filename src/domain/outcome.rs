//! How an attempt ended, and what is remembered of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::phases::Phases;
use crate::domain::timestamp::Timestamp;

/// When a receiver wants the next attempt: never sooner than the queue's own backoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryHint {
    /// That long from now.
    After(Duration),
    /// At that moment.
    At(Timestamp),
}

/// How one attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was processed.
    Done,
    /// Not this time.
    Retry {
        /// The earliest moment for the next attempt, if the receiver named one.
        after: Option<RetryHint>,
    },
    /// Never: the receiver, consumer or processor said so.
    Reject {
        /// Why, in its own words; kept with the dead letter.
        reason: String,
    },
    /// The destination is no more, or is refused: nowhere to go.
    Undeliverable {
        /// Why.
        reason: String,
    },
    /// It could not be attempted, because its lane was shut or the gateway itself is short of something; no attempt is counted.
    Deferred {
        /// When it may be worth another look.
        until: RetryHint,
    },
}

impl Outcome {
    /// A retry at the queue's own schedule.
    #[must_use]
    pub const fn retry() -> Self {
        Self::Retry { after: None }
    }

    /// A retry no sooner than `after` from now.
    #[must_use]
    pub const fn retry_after(after: Duration) -> Self {
        Self::Retry { after: Some(RetryHint::After(after)) }
    }

    /// A rejection with its reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

/// Why a message lies in the dead letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadReason {
    /// Attempts used up.
    Exhausted,
    /// Receiver, consumer or processor said never.
    Rejected,
    /// Its TTL was over when its turn came.
    Expired,
    /// Attempts used up, and the last one was a lost lease.
    Poison,
    /// The destination was removed or is refused.
    Undeliverable,
    /// The record cannot be read.
    Damaged,
}

impl DeadReason {
    /// All of them; an element's place is its byte at rest.
    pub const ALL: [Self; 6] =
        [Self::Exhausted, Self::Rejected, Self::Expired, Self::Poison, Self::Undeliverable, Self::Damaged];

    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Undeliverable => "undeliverable",
            Self::Damaged => "damaged",
        }
    }

    /// Its byte at rest.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The reason with this byte.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// How an attempt is called in the attempt log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    /// Processed.
    Delivered,
    /// Failed, to be tried again if attempts are left.
    Retry,
    /// Refused for good.
    Rejected,
    /// Its lease ran out, or its gateway died.
    Lost,
    /// Nowhere to go.
    Undeliverable,
}

impl AttemptOutcome {
    const ALL: [Self; 5] = [Self::Delivered, Self::Retry, Self::Rejected, Self::Lost, Self::Undeliverable];

    /// Its byte at rest.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The outcome with this byte.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// One attempt as remembered: shown with its message, never needed to deliver it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u8,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The receiver's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of the receiver's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// Where its time went, as far as its processor knows.
    #[serde(rename = "phases_us", default, skip_serializing_if = "Phases::is_empty")]
    pub phases: Phases,
    /// When the next attempt was due, where this one put it off. The store knows: what is said when it is settled is not looked
    /// at.
    #[serde(rename = "next_attempt_at", default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
}

impl Attempt {
    /// What is remembered of the attempt that delivered a message: when, how long, where the time went, and the status. What was
    /// read of the answer is not, so that a message which went well costs the history a few bytes.
    #[must_use]
    pub const fn of_delivered(&self) -> Self {
        let Self { number, at, duration_ms, outcome, status, phases, .. } = *self;
        Self { number, at, duration_ms, outcome, status, error: None, excerpt: None, phases, next_at: None }
    }

    /// The same, with when the next one is due if another follows.
    #[must_use]
    pub fn followed_at(&self, next_at: Option<Timestamp>) -> Self {
        Self { next_at, ..self.clone() }
    }
}
