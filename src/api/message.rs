//! One message as the API shows it, and the answer to its publish.

use serde::{Deserialize, Serialize};

use crate::domain::id::MessageId;
use crate::domain::message::{Priority, State};
use crate::domain::outcome::{Attempt, DeadReason};
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;

/// The answer to a publish: 202 for a new message, 200 for the one that its idempotency key stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Published {
    /// The message.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// Whether the key was used before for the same, so that nothing new was stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// One message: where it is and what was tried.
///
/// `priority`, `content_type`, `payload_bytes` and `max_attempts` are absent only when its record is damaged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Which.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// Where it is in its life.
    pub state: State,
    /// Why it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// When its publisher wanted it to be delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// When its TTL ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_at: Option<Timestamp>,
    /// Where it is pushed to: the message's own destination, else its queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Its Content-Type as posted; empty when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Bytes of its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// Attempts allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u8>,
    /// Attempts counted, lost leases included.
    pub attempt_count: u8,
    /// The last attempts, oldest first; at most 20.
    pub attempts: Vec<Attempt>,
    /// When the next attempt is due, while it is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The payload, when it was asked for, is still kept, and is valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64 (RFC 4648, padded), when it was asked for, is still kept, and is not valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

impl Message {
    /// The most attempts that are shown.
    pub const ATTEMPTS_MAX: usize = 20;
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;
    use std::time::Duration;

    use super::*;
    use crate::domain::outcome::AttemptOutcome;
    use crate::domain::phases::Phases;

    fn message() -> Message {
        Message {
            id: MessageId::from_str("0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400").expect("an id"),
            queue: "orders".parse().expect("a name"),
            state: State::Scheduled,
            reason: None,
            priority: Some(Priority::High),
            published_at: Timestamp::from_millis(0),
            deliver_at: None,
            expires_at: None,
            died_at: None,
            destination: None,
            content_type: Some("text/plain".to_owned()),
            payload_bytes: Some(2),
            max_attempts: Some(12),
            attempt_count: 1,
            attempts: vec![Attempt {
                number: 1,
                at: Timestamp::from_millis(5),
                duration_ms: 3,
                outcome: AttemptOutcome::Retry,
                status: Some(503),
                error: None,
                excerpt: None,
                phases: Phases { wait: Some(Duration::from_micros(2_740)), ..Phases::NONE },
                next_at: Some(Timestamp::from_millis(5_008)),
            }],
            next_attempt_at: Some(Timestamp::from_millis(5_008)),
            payload: None,
            payload_base64: None,
        }
    }

    #[test]
    fn a_message_is_written_as_documented_and_read_back() {
        let text = serde_json::to_string(&message()).expect("serialises");
        assert_eq!(
            text,
            concat!(
                r#"{"id":"0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400","queue":"orders","state":"scheduled","priority":"high","#,
                r#""published_at":"1970-01-01T00:00:00.000Z","content_type":"text/plain","payload_bytes":2,"#,
                r#""max_attempts":12,"attempt_count":1,"attempts":[{"number":1,"at":"1970-01-01T00:00:00.005Z","#,
                r#""duration_ms":3,"outcome":"retry","status":503,"phases_us":{"wait":2740},"#,
                r#""next_attempt_at":"1970-01-01T00:00:05.008Z"}],"next_attempt_at":"1970-01-01T00:00:05.008Z"}"#
            )
        );
        assert_eq!(serde_json::from_str::<Message>(&text).expect("valid"), message());
    }

    #[test]
    fn only_a_duplicate_says_so() {
        let mut published = Published { id: message().id, queue: message().queue, duplicate: false };
        let text = serde_json::to_string(&published).expect("serialises");
        assert_eq!(text, r#"{"id":"0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400","queue":"orders"}"#);
        assert_eq!(serde_json::from_str::<Published>(&text).expect("valid"), published);
        published.duplicate = true;
        let text = serde_json::to_string(&published).expect("serialises");
        assert!(text.ends_with(r#","duplicate":true}"#), "{text}");
    }
}
