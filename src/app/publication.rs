//! A message with its options, as an embedding program publishes it.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::format::duration;
use crate::domain::message::Priority;
use crate::domain::timestamp::Timestamp;

/// A message to publish. Its options are those of a publish over HTTP, with the same limits.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Publication {
    pub(super) queue: String,
    pub(super) payload: Bytes,
    pub(super) options: Vec<(String, String)>,
}

impl Publication {
    /// A message for this queue.
    pub fn new(queue: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { queue: queue.into(), payload: payload.into(), options: Vec::new() }
    }

    fn option(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.options.push((name.into(), value.to_string()));
        self
    }

    /// The payload's type; delivered with it.
    pub fn content_type(self, content_type: impl Display) -> Self {
        self.option("content-type", content_type)
    }

    /// At most 256 bytes: the same key and message within the queue's window give the first message's id and store nothing.
    pub fn idempotency_key(self, key: impl Display) -> Self {
        self.option("idempotency-key", key)
    }

    /// Not before so long from now, at most 30 d.
    pub fn delay(self, delay: Duration) -> Self {
        self.option("posthaste-delay", duration::show(delay))
    }

    /// Not before that moment, at most 30 d from now.
    pub fn deliver_at(self, at: Timestamp) -> Self {
        self.option("posthaste-deliver-at", at)
    }

    /// How long it may wait for an attempt.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.option("posthaste-ttl", duration::show(ttl))
    }

    /// Its priority, when not the queue's.
    pub fn priority(self, priority: Priority) -> Self {
        self.option("posthaste-priority", priority.as_str())
    }

    /// Attempts allowed, 1–255; beyond the queue's schedule its last delay repeats.
    pub fn attempts_max(self, attempts_max: u8) -> Self {
        self.option("posthaste-max-attempts", attempts_max)
    }

    /// The HTTP method of its delivery, when not the queue's.
    pub fn method(self, method: impl Display) -> Self {
        self.option("posthaste-method", method)
    }

    /// The longest attempt, when not the queue's.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.option("posthaste-timeout", duration::show(timeout))
    }

    /// The W3C trace it belongs to.
    pub fn traceparent(self, traceparent: impl Display) -> Self {
        self.option("traceparent", traceparent)
    }

    /// A header to deliver.
    pub fn forward(self, name: impl Display, value: impl Display) -> Self {
        self.option(format!("posthaste-forward-{name}"), value)
    }
}
