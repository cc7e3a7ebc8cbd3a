//! A delivery for the unit tests of processors.

use std::sync::Arc;

use bytes::Bytes;

use super::Delivery;
use crate::domain::id::{MessageId, Shard};
use crate::domain::message::{Headers, Priority};
use crate::domain::queue::QueueSettings;
use crate::domain::record::{Head, Record, encode};
use crate::domain::timestamp::Timestamp;

/// When the message was accepted.
pub(super) const ACCEPTED_AT: Timestamp = Timestamp::from_millis(1_795_353_900_250);

/// The first attempt of a message without headers.
pub(super) fn delivery(queue: &str, payload: &[u8]) -> Delivery {
    let id = MessageId::new(ACCEPTED_AT, [7; 10], Shard::default());
    let head = Head { id, attempts_max: 3, priority: Priority::Normal, accepted_at: ACCEPTED_AT, ttl: None };
    let record = Record::decode(Bytes::from(encode(&head, &[], payload))).expect("just encoded");
    let (queue, settings) = (queue.parse().expect("a name"), Arc::new(QueueSettings::default()));
    Delivery { record, headers: Headers::default(), queue, settings, attempt: 1, at: ACCEPTED_AT }
}
