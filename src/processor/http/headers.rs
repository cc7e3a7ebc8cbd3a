//! The headers of a delivery: whose they are, and who wins.
//!
//! Ours cannot be replaced. Of the rest a queue's `delivery.headers` win over what a message wants forwarded, so that a publisher
//! cannot replace a credential that the operator set.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::domain::destination::Destination;
use crate::domain::format::secret;
use crate::domain::header::{is_credential, never};
use crate::domain::queue::QueueName;
use crate::processor::Delivery;
use crate::processor::http::sign::Signer;

static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
static ATTEMPT: HeaderName = HeaderName::from_static("posthaste-attempt");
static QUEUE: HeaderName = HeaderName::from_static("posthaste-queue");
static VIA: HeaderName = HeaderName::from_static("posthaste-via");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
static IDENTITY: HeaderValue = HeaderValue::from_static("identity");
static AGENT: HeaderValue = HeaderValue::from_static(concat!("Posthaste/", env!("CARGO_PKG_VERSION")));

/// A header that a queue or a message brings and that HTTP cannot carry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the header {0:?} cannot be sent: its name or value is not one of HTTP")]
pub struct HeaderError(pub String);

/// What every delivery of a queue carries. Reserved names in `added` are left out: they are refused where settings are read.
pub(super) fn of_queue(
    queue: &QueueName,
    via: &HeaderValue,
    added: &BTreeMap<String, String>,
) -> Result<HeaderMap, HeaderError> {
    let mut map = HeaderMap::with_capacity(16 + added.len());
    map.insert(USER_AGENT, AGENT.clone());
    map.insert(ACCEPT, ANYTHING.clone());
    map.insert(ACCEPT_ENCODING, IDENTITY.clone());
    map.insert(&QUEUE, value("posthaste-queue", queue.as_str().as_bytes())?);
    map.insert(&VIA, via.clone());
    for (name, text) in added.iter().filter(|(name, _)| never(&name.to_ascii_lowercase()).is_none()) {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError(name.clone()))?;
        map.insert(parsed, value(name, text.as_bytes())?);
    }
    Ok(map)
}

/// The same for destinations that messages bring and whose origin is not the queue's own: without what is shown as `***` of
/// `added`, which who may publish could otherwise have sent to himself.
pub(super) fn without_credentials(base: &HeaderMap, added: &BTreeMap<String, String>) -> HeaderMap {
    let mut map = base.clone();
    for name in
        added.keys().filter(|name| secret::is_header(name) && never(&name.to_ascii_lowercase()).is_none())
    {
        map.remove(name.as_str());
    }
    map
}

/// Whether the destination that a message brought has another origin than its queue's own, or its queue has none.
pub(super) fn is_elsewhere(brought: &Destination, own: Option<&Destination>) -> bool {
    own.is_none_or(|own| own.url().origin() != brought.url().origin())
}

/// The values of credentials of the queue and of the message in the headers of an attempt.
pub(super) fn credentials(sent: &HeaderMap, delivery: &Delivery) -> Vec<HeaderValue> {
    let (added, forward) = (&delivery.settings.delivery.headers, &delivery.headers.forward);
    let names = added.keys().map(String::as_str).chain(forward.iter().map(|(name, _)| name.as_str()));
    let names = names.filter(|name| secret::is_header(name) && never(&name.to_ascii_lowercase()).is_none());
    names.flat_map(|name| sent.get_all(name)).cloned().collect()
}

/// Adds what this attempt of this message carries to what [`of_queue`] made, signed where there is something to sign it with.
pub(super) fn of_attempt(
    base: &HeaderMap,
    delivery: &Delivery,
    signer: Option<&Signer>,
) -> Result<HeaderMap, HeaderError> {
    let (headers, settings) = (&delivery.headers, &delivery.settings);
    let mut map = base.clone();
    for (name, text) in &headers.forward {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError(name.clone()))?;
        let withheld = !settings.delivery.forward_credentials && is_credential(parsed.as_str());
        if withheld || base.contains_key(&parsed) || never(parsed.as_str()).is_some() {
            continue;
        }
        map.append(parsed, value(name, text.as_bytes())?);
    }
    if !headers.content_type.is_empty() {
        map.insert(CONTENT_TYPE, value("content-type", headers.content_type.as_bytes())?);
    }
    if let Some(parent) =
        headers.traceparent.as_deref().and_then(|parent| continued(parent, fastrand::u64(1..)))
    {
        map.insert(&TRACEPARENT, parent);
        if let Some(state) = &headers.tracestate {
            map.insert(&TRACESTATE, value("tracestate", state.as_bytes())?);
        }
    }
    if let (Some(before), Some(own)) = (&headers.via, base.get(&VIA)) {
        let chain = [before.as_bytes(), b", ", own.as_bytes()].concat();
        map.insert(&VIA, value("posthaste-via", &chain)?);
    }
    let mut buffer = [0; 36];
    let id = value("webhook-id", delivery.record.id().encode(&mut buffer).as_bytes())?;
    let timestamp = HeaderValue::from(delivery.at.as_millis() / 1_000);
    if let Some(signer) = signer {
        let payload = delivery.record.payload();
        let signature = signer.header(delivery.at, id.as_bytes(), timestamp.as_bytes(), &payload);
        map.insert(&WEBHOOK_SIGNATURE, signature);
    }
    map.insert(&WEBHOOK_ID, id);
    map.insert(&WEBHOOK_TIMESTAMP, timestamp);
    map.insert(&ATTEMPT, HeaderValue::from(u16::from(delivery.attempt)));
    Ok(map)
}

/// The `traceparent` of an attempt (W3C Trace Context, level 2): the trace that the publisher named, with the attempt as its
/// parent and of the flags those that are known (sampled, random trace id). A version that is not known is continued as version 00.
/// `None` for what is not of that form.
fn continued(parent: &str, span: u64) -> Option<HeaderValue> {
    const KNOWN_FLAGS: u8 = 0b11;
    let trace = parent.get(3..35).filter(|trace| trace.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let flags = u8::from_str_radix(parent.get(53..55)?, 16).ok()? & KNOWN_FLAGS;
    HeaderValue::from_str(&format!("00-{trace}-{span:016x}-{flags:02x}")).ok()
}

/// The value of `posthaste-via`: what of the store's id a header can carry.
pub(super) fn via(store_id: &str) -> HeaderValue {
    let text: Vec<u8> = store_id.bytes().filter(u8::is_ascii_graphic).collect();
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("visible ASCII is allowed in a header")
}

fn value(name: &str, bytes: &[u8]) -> Result<HeaderValue, HeaderError> {
    HeaderValue::from_bytes(bytes).map_err(|_| HeaderError(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_cannot_set_what_is_ours_nor_what_is_no_header() {
        let queue = "orders".parse().expect("a name");
        let of = |name: &str, text: &str| {
            of_queue(&queue, &via("s"), &BTreeMap::from([(name.to_owned(), text.to_owned())]))
        };
        let map = of("Posthaste-Queue", "other").expect("left out");
        assert_eq!(map["posthaste-queue"], "orders");
        assert_eq!(map["user-agent"], concat!("Posthaste/", env!("CARGO_PKG_VERSION")));
        assert_eq!(of("x-y", "a\r\nhost: b"), Err(HeaderError("x-y".to_owned())));
        assert_eq!(of("x y", "a"), Err(HeaderError("x y".to_owned())));
    }

    #[test]
    fn a_trace_is_continued_with_the_attempt_as_parent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (flags, expected) in [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("04", "00")] {
            for version in ["00", "cc"] {
                let parent = format!("{version}-{trace}-00f067aa0ba902b7-{flags}");
                let own = continued(&parent, 0xb7).expect("well-formed");
                assert_eq!(own, format!("00-{trace}-00000000000000b7-{expected}"), "{parent}");
            }
        }
        let later = continued(&format!("cc-{trace}-00f067aa0ba902b7-01-more"), 1).expect("well-formed");
        assert_eq!(later, format!("00-{trace}-0000000000000001-01"));
        for broken in ["", "00-x", "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01"] {
            assert_eq!(continued(broken, 1), None, "{broken}");
        }
    }

    #[test]
    fn any_store_id_makes_a_header() {
        assert_eq!(via("0192f0c1\r\nx: y é"), "0192f0c1x:y");
        assert_eq!(via(""), "");
    }
}
