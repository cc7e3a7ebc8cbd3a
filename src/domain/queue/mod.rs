//! Queues: their names, their generation, and the settings of one.

mod ranges;
mod settings;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use ranges::SettingProblem;
pub use settings::{
    AnswerSettings, DeadSettings, DeliverySettings, DestinationOverride, HTTP, HistorySettings,
    IdempotencySettings, LimitSettings, PULL, QueueSettings, RetrySettings, WhenFull,
};

/// The longest queue name, in bytes.
pub const QUEUE_NAME_BYTES_MAX: usize = 128;

/// A queue's name: a letter or digit, then letters, digits, `.`, `_`, `-`; at most 128. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

/// A text that is no queue name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a queue name is a letter or digit followed by up to 127 letters, digits, dots, hyphens or underscores"
)]
pub struct QueueNameError;

impl QueueName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` could be a queue's name.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.len() <= QUEUE_NAME_BYTES_MAX
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }
}

impl FromStr for QueueName {
    type Err = QueueNameError;

    fn from_str(text: &str) -> Result<Self, QueueNameError> {
        if Self::is_valid(text) { Ok(Self(text.into())) } else { Err(QueueNameError) }
    }
}

impl Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

impl Serialize for QueueName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for QueueName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which making of a queue is meant: drawn at random when it is made, so that a queue deleted and made again is another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Who declared a queue, and so who may change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An operator's file: the API may not change it.
    File,
    /// The API.
    Api,
}

/// Why a queue's processor stands still although nobody paused it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkReason {
    /// The dead letters are at a limit and `dead.when_full` is `park`.
    DeadFull,
    /// The destination answered 410.
    DestinationGone,
    /// The egress guard refuses the destination.
    EgressRefused,
}
