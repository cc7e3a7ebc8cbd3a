//! The answers to a batch.

use serde::{Deserialize, Serialize};

use crate::api::problem::Problem;
use crate::domain::id::MessageId;

/// The answer to a batch that is one unit: 202 for a new one, 200 for the one that its idempotency key stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchPublished {
    /// Messages of the batch.
    pub accepted: u64,
    /// They, in the order sent.
    pub ids: Vec<MessageId>,
    /// Whether the key was used before for the same, so that nothing new was stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// The answer to a batch of which each item is for itself (`?atomic=false`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ItemsPublished {
    /// Items that were stored.
    pub accepted: u64,
    /// Items whose key stands for a message that was there before.
    pub duplicates: u64,
    /// Items that were refused.
    pub refused: u64,
    /// What became of each, in the order sent.
    pub items: Vec<ItemPublished>,
}

/// What became of one item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ItemPublished {
    /// It is a message.
    Kept {
        /// Which.
        id: MessageId,
        /// Whether its key was used before for the same, so that nothing new was stored.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// It was refused.
    Refused {
        /// Why.
        error: Box<ItemProblem>,
    },
}

/// Why one item was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ItemProblem {
    /// The problem, as for a publish of its own.
    #[serde(flatten)]
    pub problem: Problem,
    /// `no`, or `unknown` when it may have been stored all the same: what the header `Posthaste-Stored` says of a publish.
    pub stored: String,
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::api::code::Code;

    fn id() -> MessageId {
        MessageId::from_str("0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400").expect("an id")
    }

    #[test]
    fn a_batch_is_written_as_documented_and_read_back() {
        let mut published = BatchPublished { accepted: 1, ids: vec![id()], duplicate: false };
        let text = serde_json::to_string(&published).expect("serialises");
        assert_eq!(text, r#"{"accepted":1,"ids":["0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400"]}"#);
        assert_eq!(serde_json::from_str::<BatchPublished>(&text).expect("valid"), published);
        published.duplicate = true;
        let text = serde_json::to_string(&published).expect("serialises");
        assert!(text.ends_with(r#","duplicate":true}"#), "{text}");
    }

    #[test]
    fn items_are_written_as_documented_and_read_back() {
        let problem = Problem::new(Code::InvalidValue, "no");
        let error = Box::new(ItemProblem { problem, stored: "no".to_owned() });
        let published = ItemsPublished {
            accepted: 1,
            duplicates: 1,
            refused: 1,
            items: vec![
                ItemPublished::Kept { id: id(), duplicate: false },
                ItemPublished::Kept { id: id(), duplicate: true },
                ItemPublished::Refused { error },
            ],
        };
        let text = serde_json::to_string(&published).expect("serialises");
        let start = concat!(
            r#"{"accepted":1,"duplicates":1,"refused":1,"items":[{"id":"0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400"},"#,
            r#"{"id":"0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400","duplicate":true},{"error":{"type":"#
        );
        assert!(text.starts_with(start) && text.ends_with(r#""stored":"no"}}]}"#), "{text}");
        assert_eq!(serde_json::from_str::<ItemsPublished>(&text).expect("valid"), published);
    }
}
