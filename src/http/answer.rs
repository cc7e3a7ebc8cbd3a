//! Answers: how each kind of them is written.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Payload, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::api::problem;
use crate::api::{Published, REQUEST_ID_HEADER, STORED_HEADER};
use crate::domain::id::MessageId;
use crate::domain::queue::QueueName;
use crate::http::error::Refusal;
use crate::store::error::Stored;

/// An answer, ready to be sent.
pub(super) type Answer = Response<BoxBody>;

static REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);
static STORED: HeaderName = HeaderName::from_static(STORED_HEADER);
static JSON: HeaderValue = HeaderValue::from_static("application/json");
static PROBLEM: HeaderValue = HeaderValue::from_static(problem::CONTENT_TYPE);
static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Names a request in its answer and in the log: 16 random hex digits.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; 16]);

impl RequestId {
    /// A new one.
    pub(super) fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut random = fastrand::u64(..);
        Self(std::array::from_fn(|_| {
            let digit = DIGITS[usize::try_from(random & 15).expect("below 16")];
            random >>= 4;
            digit
        }))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

/// A status with a value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("our answers are plain values");
    typed(status, &JSON, body.into())
}

/// 200 with JSON that is written as the client takes it.
pub(super) fn found(body: impl MessageBody + 'static) -> Answer {
    let mut answer = Response::with_body(StatusCode::OK, BoxBody::new(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON.clone());
    answer
}

/// 204: done, and there is nothing to say.
pub(super) fn nothing() -> Answer {
    Response::with_body(StatusCode::NO_CONTENT, BoxBody::new(()))
}

/// A status with a text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, &TEXT, text.into())
}

fn typed(status: StatusCode, content_type: &HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::with_body(status, BoxBody::new(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    answer
}

/// Adds where the thing is to be found.
pub(super) fn at(mut answer: Answer, path: &str) -> Answer {
    let value = HeaderValue::from_str(path).expect("our paths are visible ASCII");
    answer.headers_mut().insert(header::LOCATION, value);
    answer
}

/// Adds the name of the request, unless it is there.
pub(super) fn named(mut answer: Answer, id: RequestId) -> Answer {
    if !answer.headers().contains_key(&REQUEST_ID) {
        let value = HeaderValue::from_bytes(&id.0).expect("hex digits are allowed");
        answer.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    answer
}

/// Adds that nothing was stored to the refusal of a publish that no route took; one that was taken says it itself.
pub(super) fn refused_unread(mut answer: Answer) -> Answer {
    if answer.status().is_client_error() && !answer.headers().contains_key(&STORED) {
        answer.headers_mut().insert(STORED.clone(), HeaderValue::from_static(Stored::No.as_str()));
    }
    answer
}

/// Adds how long to wait before the next try, seconds: spread to twice the least, so that a crowd does not come back at once.
pub(super) fn retry_after(mut answer: Answer, least_s: u16) -> Answer {
    let seconds = fastrand::u16(least_s..=least_s.saturating_mul(2));
    answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    answer
}

/// A refusal as the caller reads it; with `stored` for a publish.
pub(super) fn refusal(refusal: Refusal, id: RequestId, stored: Option<Stored>) -> Answer {
    refusal.log(id.as_str());
    let row = refusal.code().row();
    let (mut problem, allow, unread) = refusal.into_parts();
    id.as_str().clone_into(&mut problem.request_id);
    let body = serde_json::to_vec(&problem).expect("a problem is plain values");
    let status = StatusCode::from_u16(row.status).expect("the table has valid statuses");
    let mut answer = Response::with_body(status, Rest::boxed(body.into(), unread));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM.clone());
    if let Some(stored) = stored {
        headers.insert(STORED.clone(), HeaderValue::from_static(stored.as_str()));
    }
    if let Some(methods) = allow {
        let methods = HeaderValue::from_str(&methods).expect("methods are visible ASCII");
        headers.insert(header::ALLOW, methods);
    }
    let answer = named(answer, id);
    if row.retry_after_s > 0 { retry_after(answer, row.retry_after_s) } else { answer }
}

/// A new message: 202, written from a fixed template into one piece of memory that headers and body share.
pub(super) fn accepted(queue: &QueueName, id: MessageId, request: RequestId) -> Answer {
    let name = queue.as_str();
    let mut buffer = [0; 36];
    let id = id.encode(&mut buffer);
    let mut all = BytesMut::with_capacity(2 * name.len() + 2 * id.len() + 16 + 48);
    for part in ["/v1/queues/", name, "/messages/", id] {
        all.extend_from_slice(part.as_bytes());
    }
    let location_end = all.len();
    all.extend_from_slice(&request.0);
    let request_end = all.len();
    // Neither a queue's name nor an id has anything that JSON would escape.
    for part in [r#"{"id":""#, id, r#"","queue":""#, name, r#""}"#] {
        all.extend_from_slice(part.as_bytes());
    }
    let all = all.freeze();
    let value =
        |range| HeaderValue::from_maybe_shared(all.slice(range)).expect("names and ids are visible ASCII");
    let mut answer = Response::with_body(StatusCode::ACCEPTED, BoxBody::new(all.slice(request_end..)));
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, value(0..location_end));
    headers.insert(header::CONTENT_TYPE, JSON.clone());
    headers.insert(REQUEST_ID.clone(), value(location_end..request_end));
    answer
}

/// The message that an idempotency key stands for: 200.
pub(super) fn duplicate(queue: &QueueName, id: MessageId, request: RequestId) -> Answer {
    let published = Published { id, queue: queue.clone(), duplicate: true };
    named(at(json(StatusCode::OK, &published), &message_path(queue, id)), request)
}

/// Where a message is to be found.
pub(super) fn message_path(queue: &QueueName, id: MessageId) -> String {
    let mut path = format!("/v1/queues/{queue}/messages/");
    write!(path, "{id}").expect("writing to a String cannot fail");
    path
}

/// A body that holds on to the unread rest of its request's until it is sent: see [`Refusal::unread`].
struct Rest {
    bytes: Bytes,
    is_sent: bool,
    _unread: Payload,
}

impl Rest {
    fn boxed(bytes: Bytes, unread: Option<Payload>) -> BoxBody {
        match unread {
            None | Some(Payload::None) => BoxBody::new(bytes),
            Some(unread) => BoxBody::new(Self { bytes, is_sent: false, _unread: unread }),
        }
    }
}

impl MessageBody for Rest {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if std::mem::replace(&mut self.is_sent, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(std::mem::take(&mut self.bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::api::{Code, Problem};

    fn id() -> MessageId {
        MessageId::from_str("0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400").expect("an id")
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer.headers().get(name).map(|value| value.to_str().expect("text"))
    }

    fn body(answer: Answer) -> Vec<u8> {
        answer.into_body().try_into_bytes().unwrap_or_else(|_| panic!("a body in one piece")).to_vec()
    }

    #[test]
    fn the_template_is_the_json_that_the_client_reads() {
        let queue: QueueName = "a.B-9_z".parse().expect("a name");
        let answer = accepted(&queue, id(), RequestId(*b"0123456789abcdef"));
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(header(&answer, "location"), Some(message_path(&queue, id()).as_str()));
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        assert_eq!(header(&answer, "posthaste-request-id"), Some("0123456789abcdef"));
        let read: Published = serde_json::from_slice(&body(answer)).expect("valid");
        assert_eq!(read, Published { id: id(), queue, duplicate: false });
    }

    #[test]
    fn a_refusal_says_what_to_do_next() {
        let refused = Refusal::new(Code::QueueFull, "full").setting("limits.length_max", Some(3));
        let answer = refusal(refused, RequestId(*b"0123456789abcdef"), Some(Stored::No));
        assert_eq!(answer.status().as_u16(), 429);
        assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&answer, "posthaste-stored"), Some("no"));
        let wait: u16 = header(&answer, "retry-after").expect("there").parse().expect("seconds");
        assert!((2..=4).contains(&wait), "{wait}");
        let problem: Problem = serde_json::from_slice(&body(answer)).expect("valid");
        assert_eq!((problem.request_id.as_str(), problem.limit), ("0123456789abcdef", Some(3)));
        let answer = refusal(
            Refusal::new(Code::MethodNotAllowed, "").allow("GET, HEAD".to_owned()),
            RequestId::random(),
            None,
        );
        assert_eq!(
            (header(&answer, "allow"), header(&answer, "posthaste-stored")),
            (Some("GET, HEAD"), None)
        );
        assert_eq!(header(&answer, "retry-after"), None);
    }

    #[test]
    fn request_ids_are_hex_and_differ() {
        let ids: std::collections::HashSet<String> =
            (0..1_000).map(|_| RequestId::random().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
