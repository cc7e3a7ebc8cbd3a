//! What a publish hands to the store, and what it gets back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::MessageId;
use crate::domain::message::Priority;
use crate::domain::timestamp::Timestamp;
use crate::store::QueueRef;
use crate::store::error::StoreError;

/// Names one `enqueue` call, so that it can be sent again. Random; 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u128);

impl CallId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// When a message may be leased first, by the store's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// At once.
    Now,
    /// That long after it was stored.
    After(Duration),
    /// At that moment; the past means now.
    At(Timestamp),
}

/// One message to store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMessage {
    /// Its id, as in the record.
    pub id: MessageId,
    /// Its priority, as in the record.
    pub priority: Priority,
    /// When it may be leased.
    pub due: Due,
    /// The bytes to keep, made by `domain::record::encode`.
    pub record: Vec<u8>,
}

/// An idempotency key with what it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey {
    /// The key, 1–256 bytes, opaque.
    pub key: Vec<u8>,
    /// A digest of payload, Content-Type, method and destination.
    pub fingerprint: [u8; 16],
}

/// The messages of one HTTP request: stored whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Where to.
    pub queue: QueueRef,
    /// The key of the request, if it had one.
    pub key: Option<IdempotencyKey>,
    /// At least one. Shared, so that whoever publishes may keep them until their fate is known.
    pub messages: Arc<[NewMessage]>,
}

/// What became of a group.
#[derive(Clone, PartialEq, Debug)]
pub enum GroupResult {
    /// Stored, durably as configured.
    Accepted,
    /// Its key was used before for the same: these are the first ids. Nothing was stored.
    Duplicate(Vec<MessageId>),
    /// Its key was used before for something else. Nothing was stored.
    KeyReused,
    /// The queue would exceed one of its limits. Nothing was stored.
    QueueFull {
        /// The setting: `limits.length_max`, `limits.bytes_max` or `idempotency.keys_max`.
        setting: &'static str,
        /// Its value.
        limit: u64,
    },
    /// No such queue any more. Nothing was stored.
    Gone,
    /// The store could not; `error.stored()` says whether it may have been stored.
    Failed(StoreError),
}
