//! What travels with a payload: its content type, the headers to forward, and the options of its publish.
//!
//! The store keeps these as opaque bytes beside the payload; only this file knows their shape: a row of
//! `tag u8 | length u16 | bytes`, unknown tags skipped so that an older gateway can read a newer one's messages.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::timestamp::Timestamp;

/// Which messages of a queue come first: weights 16 : 4 : 1, so low is never starved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// 16 of 21 turns.
    High,
    /// 4 of 21 turns.
    #[default]
    Normal,
    /// 1 of 21 turns.
    Low,
}

impl Priority {
    /// All of them, most urgent first; an element's place is its [`Priority::index`].
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// 0 high, 1 normal, 2 low: its byte in the record.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The priority with this byte; anything else is damage.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::High),
            1 => Some(Self::Normal),
            2 => Some(Self::Low),
            _ => None,
        }
    }

    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Where a message is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its time: a delay, or the next attempt.
    Scheduled,
    /// Waits for its turn.
    Pending,
    /// A worker or consumer has it until a deadline.
    Leased,
    /// Processed; the end.
    Delivered,
    /// In the dead letters, from where it can be replayed or discarded.
    Dead,
    /// Cancelled by its id; the end.
    Cancelled,
    /// Removed by a purge; the end.
    Purged,
}

/// What a publisher said about a message beside its payload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// The Content-Type, as posted; empty when none was.
    pub content_type: String,
    /// Headers to deliver: name and value, in the order given.
    pub forward: Vec<(String, String)>,
    /// HTTP method of the delivery, when not the queue's.
    pub method: Option<String>,
    /// Time-out of an attempt, when not the queue's.
    pub timeout: Option<Duration>,
    /// When the publisher asked for it to be delivered.
    pub deliver_at: Option<Timestamp>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace context, the vendors' part.
    pub tracestate: Option<String>,
    /// A destination that came with the message.
    pub destination: Option<String>,
    /// The ids of the stores that it came by, the first one first, as a list with commas.
    pub via: Option<String>,
}

/// The most bytes that [`Headers::encode`] may give: what the record's length field can say.
pub const HEADERS_BYTES_MAX: usize = u16::MAX as usize;

/// The headers are too large to be kept: [`HEADERS_BYTES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the headers to keep with the message have {0} bytes; at most 65535 are possible")]
pub struct HeadersTooLarge(pub usize);

mod tag {
    pub(super) const CONTENT_TYPE: u8 = 1;
    pub(super) const FORWARD: u8 = 2;
    pub(super) const METHOD: u8 = 3;
    pub(super) const TIMEOUT: u8 = 4;
    pub(super) const DELIVER_AT: u8 = 5;
    pub(super) const TRACEPARENT: u8 = 6;
    pub(super) const TRACESTATE: u8 = 7;
    pub(super) const DESTINATION: u8 = 8;
    pub(super) const VIA: u8 = 9;
}

impl Headers {
    /// The content type in bytes that the store kept; empty where there is none.
    #[must_use]
    pub fn peek_content_type(bytes: &[u8]) -> &[u8] {
        let [tag::CONTENT_TYPE, high, low, rest @ ..] = bytes else { return &[] };
        rest.get(..usize::from(u16::from_be_bytes([*high, *low]))).unwrap_or_default()
    }

    /// The bytes that the store keeps.
    ///
    /// # Errors
    /// [`HeadersTooLarge`] when they would not fit the record.
    pub fn encode(&self) -> Result<Vec<u8>, HeadersTooLarge> {
        let mut out = Vec::with_capacity(8 + self.content_type.len());
        let mut total = 0;
        let mut field = |tag: u8, parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            total += 3 + length;
            if let Ok(length) = u16::try_from(length) {
                out.push(tag);
                out.extend_from_slice(&length.to_be_bytes());
                for part in parts {
                    out.extend_from_slice(part);
                }
            }
        };
        if !self.content_type.is_empty() {
            field(tag::CONTENT_TYPE, &[self.content_type.as_bytes()]);
        }
        for (name, value) in &self.forward {
            field(tag::FORWARD, &[name.as_bytes(), b":", value.as_bytes()]);
        }
        if let Some(timeout) = self.timeout {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            field(tag::TIMEOUT, &[&timeout_ms.to_be_bytes()]);
        }
        if let Some(at) = self.deliver_at {
            field(tag::DELIVER_AT, &[&at.as_millis().to_be_bytes()]);
        }
        let texts = [
            (tag::METHOD, &self.method),
            (tag::TRACEPARENT, &self.traceparent),
            (tag::TRACESTATE, &self.tracestate),
            (tag::DESTINATION, &self.destination),
            (tag::VIA, &self.via),
        ];
        for (tag, text) in texts {
            if let Some(text) = text {
                field(tag, &[text.as_bytes()]);
            }
        }
        if total > HEADERS_BYTES_MAX { Err(HeadersTooLarge(total)) } else { Ok(out) }
    }

    /// Reads what [`Headers::encode`] wrote; `None` when the bytes are not of that shape.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut headers = Self::default();
        let mut rest: &[u8] = bytes;
        while !rest.is_empty() {
            let (&[tag, high, low], after) = rest.split_first_chunk::<3>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            rest = after;
            headers.set(tag, value)?;
        }
        Some(headers)
    }

    /// The destination among the bytes that [`Headers::encode`] wrote, found without reading the rest.
    #[must_use]
    pub fn destination_in(bytes: &[u8]) -> Option<&str> {
        let mut rest = bytes;
        loop {
            let (&[tag, high, low], after) = rest.split_first_chunk::<3>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            if tag == tag::DESTINATION {
                return std::str::from_utf8(value).ok();
            }
            rest = after;
        }
    }

    fn set(&mut self, tag: u8, value: &[u8]) -> Option<()> {
        let number = || value.try_into().ok().map(u64::from_be_bytes);
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match tag {
            tag::CONTENT_TYPE => self.content_type = text()?,
            tag::FORWARD => {
                let line = std::str::from_utf8(value).ok()?;
                let (name, value) = line.split_once(':')?;
                self.forward.push((name.to_owned(), value.to_owned()));
            }
            tag::METHOD => self.method = Some(text()?),
            tag::TIMEOUT => self.timeout = Some(Duration::from_millis(number()?)),
            tag::DELIVER_AT => self.deliver_at = Some(Timestamp::from_millis(number()?)),
            tag::TRACEPARENT => self.traceparent = Some(text()?),
            tag::TRACESTATE => self.tracestate = Some(text()?),
            tag::DESTINATION => self.destination = Some(text()?),
            tag::VIA => self.via = Some(text()?),
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = Headers> {
        let text = || "[ -~]{0,40}";
        (
            (text(), prop::collection::vec(("[a-z-]{1,20}", text()), 0..5), prop::option::of("[A-Z]{3,7}")),
            (prop::option::of(any::<u32>()), prop::option::of(0_u64..(1 << 48))),
            prop::array::uniform4(prop::option::of(text())),
        )
            .prop_map(
                |(
                    (content_type, forward, method),
                    (timeout_ms, deliver_ms),
                    [parent, state, destination, via],
                )| {
                    Headers {
                        content_type,
                        forward,
                        method,
                        timeout: timeout_ms.map(|ms| Duration::from_millis(ms.into())),
                        deliver_at: deliver_ms.map(Timestamp::from_millis),
                        traceparent: parent,
                        tracestate: state,
                        destination,
                        via,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn headers_survive_the_store(headers in headers()) {
            let bytes = Bytes::from(headers.encode().expect("small"));
            prop_assert_eq!(Headers::destination_in(&bytes), headers.destination.as_deref());
            prop_assert_eq!(Headers::decode(&bytes), Some(headers));
        }

        #[test]
        fn junk_is_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _found = Headers::destination_in(&bytes);
            drop(Headers::decode(&Bytes::from(bytes)));
        }
    }

    #[test]
    fn headers_that_do_not_fit_the_record_are_refused() {
        let mut headers = Headers { content_type: "a".repeat(40_000), ..Headers::default() };
        assert!(headers.encode().is_ok());
        headers.forward.push(("x".into(), "b".repeat(30_000)));
        assert_eq!(headers.encode(), Err(HeadersTooLarge(70_008)));
        headers.content_type = "a".repeat(70_000);
        assert!(headers.encode().is_err());
    }

    #[test]
    fn a_tag_of_a_newer_gateway_is_skipped() {
        let bytes = Bytes::from_static(&[99, 0, 2, 7, 7, 3, 0, 3, b'P', b'U', b'T']);
        assert_eq!(Headers::decode(&bytes).and_then(|headers| headers.method).as_deref(), Some("PUT"));
    }
}
