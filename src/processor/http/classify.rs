//! What an answer means, and what it is called when there is none.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx | delivered |
//! | `webhook-delivery: abort-message`, or 489 with `Upstash-NonRetryable-Error: true` | rejected |
//! | 410, and what `delivery.reject` lists | rejected |
//! | 408, 425, 429, 5xx, 3xx (never followed), any other 4xx, anything else | retry, not before `Retry-After` |
//! | no answer | retry |
//! | not asked, for the gateway itself is short of something ([`shortage`](super::shortage)) | deferred, no attempt counted |

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use crate::domain::outcome::{Outcome, RetryHint};
use crate::domain::timestamp::Timestamp;
use crate::processor::Signal;
use crate::processor::http::client::SendError;
use crate::processor::http::connect::ConnectError;

const WEBHOOK_DELIVERY: &str = "webhook-delivery";
const NON_RETRYABLE: &str = "upstash-nonretryable-error";
/// The status that goes with [`NON_RETRYABLE`].
const NON_RETRYABLE_STATUS: u16 = 489;

/// What the head of an answer means for the message; `reject` is the queue's `delivery.reject`. Rows of the table above, in order.
#[must_use]
pub fn classify(status: StatusCode, headers: &HeaderMap, reject: &[u16]) -> Outcome {
    if status.is_success() {
        return Outcome::Done;
    }
    if says(headers, WEBHOOK_DELIVERY, "abort-message") {
        return Outcome::reject("the receiver answered webhook-delivery: abort-message");
    }
    if status.as_u16() == NON_RETRYABLE_STATUS && says(headers, NON_RETRYABLE, "true") {
        return Outcome::reject("the receiver answered 489 with Upstash-NonRetryable-Error: true");
    }
    if status == StatusCode::GONE || reject.contains(&status.as_u16()) {
        return Outcome::reject(format!("the receiver answered {status}"));
    }
    Outcome::Retry { after: retry_after(headers) }
}

/// What the head of an answer shows of the destination: it is there, and with 429 and 503 it may ask for a pause.
pub(super) fn signal(status: StatusCode, outcome: &Outcome) -> Signal {
    let hold = match outcome {
        Outcome::Retry { after } if matches!(status.as_u16(), 429 | 503) => *after,
        _ => None,
    };
    Signal::Answered { status: status.as_u16(), hold }
}

fn says(headers: &HeaderMap, name: &str, word: &str) -> bool {
    let is_word =
        |value: &HeaderValue| value.to_str().is_ok_and(|value| value.trim().eq_ignore_ascii_case(word));
    headers.get_all(name).iter().any(is_word)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date in any of the three forms of HTTP; anything else is as if it were not there.
fn retry_after(headers: &HeaderMap) -> Option<RetryHint> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow still mean: very long.
        return Some(RetryHint::After(Duration::from_secs(value.parse().unwrap_or(u64::MAX))));
    }
    let since_epoch = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(RetryHint::At(Timestamp::default().saturating_add(since_epoch)))
}

/// Why there is no answer, or not all of it: the first word of an attempt's `error`, stable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The name did not resolve.
    Dns,
    /// No connection.
    Connect,
    /// A connection, but no TLS: certificate, protocol.
    Tls,
    /// Not in time.
    Timeout,
    /// The connection ended before the head of the answer.
    Reset,
    /// What came is not HTTP.
    Protocol,
    /// The head came, the rest of the answer did not; the head decides.
    Body,
}

impl Failure {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Body => "body",
        }
    }

    /// What kept the head of an answer from coming.
    #[must_use]
    pub(super) fn of(error: &SendError) -> Self {
        match error {
            SendError::Connect(ConnectError::Resolve(_)) => Self::Dns,
            SendError::Connect(ConnectError::TimedOut) => Self::Timeout,
            SendError::Connect(ConnectError::Tls(_)) => Self::Tls,
            SendError::Connect(ConnectError::Connect(_) | ConnectError::Refused(_)) => Self::Connect,
            SendError::Connect(ConnectError::Http(error)) | SendError::Http(error) => Self::of_http(error),
        }
    }

    fn of_http(error: &hyper::Error) -> Self {
        if chain(Some(error)).any(<dyn Error>::is::<rustls::Error>) {
            Self::Tls
        } else if error.is_parse() || chain(Some(error)).any(is_junk) {
            Self::Protocol
        } else {
            Self::Reset
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An error and everything that it says it comes from; also what `io::Error` wraps without calling it a source.
pub(super) fn chain<'e>(
    first: Option<&'e (dyn Error + 'static)>,
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(first, |error| cause_of(*error))
}

fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// Whether it says that what was read makes no sense.
fn is_junk(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECT: [u16; 5] = [400, 413, 415, 422, 451];

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Outcome {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header value"));
        }
        classify(StatusCode::from_u16(status).expect("a status"), &map, &REJECT)
    }

    fn hint(status: u16, value: &str) -> Option<RetryHint> {
        match answer(status, &[("retry-after", value)]) {
            Outcome::Retry { after } => after,
            other => panic!("{status} with Retry-After: {value}: {other:?}"),
        }
    }

    fn is_rejected(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Reject { .. })
    }

    #[test]
    fn every_2xx_is_delivered() {
        for status in 200..300 {
            assert_eq!(answer(status, &[]), Outcome::Done, "{status}");
        }
        assert_eq!(
            answer(200, &[("webhook-delivery", "abort-message"), ("retry-after", "9")]),
            Outcome::Done
        );
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for status in [
            100, 101, 199, 300, 301, 302, 303, 304, 307, 308, 399, 408, 425, 429, 500, 501, 502, 503, 504,
            505, 599, 600, 999,
        ] {
            assert_eq!(answer(status, &[]), Outcome::retry(), "{status}");
        }
    }

    #[test]
    fn any_other_4xx_is_tried_again_as_a_receiver_answers_them_while_it_deploys() {
        for status in (400..500).filter(|status| *status != 410 && !REJECT.contains(status)) {
            assert_eq!(answer(status, &[]), Outcome::retry(), "{status}");
        }
    }

    #[test]
    fn what_the_queue_lists_is_rejected() {
        for status in REJECT {
            let Outcome::Reject { reason } = answer(status, &[]) else { panic!("{status} is not rejected") };
            assert!(reason.starts_with(&format!("the receiver answered {status}")), "{reason}");
        }
        let classify = |reject: &[u16]| classify(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), reject);
        assert!(is_rejected(&classify(&[503])));
        assert_eq!(classify(&[]), Outcome::retry());
    }

    #[test]
    fn gone_is_rejected_whatever_the_queue_lists() {
        assert!(is_rejected(&classify(StatusCode::GONE, &HeaderMap::new(), &[])));
    }

    #[test]
    fn a_receiver_may_abort_the_message_whatever_its_status() {
        for status in [302, 404, 429, 500, 503] {
            assert!(is_rejected(&answer(status, &[("webhook-delivery", "abort-message")])), "{status}");
        }
        assert!(is_rejected(&answer(500, &[("webhook-delivery", " Abort-Message ")])));
        assert!(is_rejected(&answer(
            500,
            &[("webhook-delivery", "x"), ("webhook-delivery", "abort-message")]
        )));
        assert_eq!(answer(500, &[("webhook-delivery", "continue")]), Outcome::retry());
    }

    #[test]
    fn a_489_is_rejected_with_its_header_only() {
        assert!(is_rejected(&answer(489, &[("upstash-nonretryable-error", "true")])));
        assert_eq!(answer(489, &[]), Outcome::retry());
        assert_eq!(answer(489, &[("upstash-nonretryable-error", "false")]), Outcome::retry());
        assert_eq!(answer(500, &[("upstash-nonretryable-error", "true")]), Outcome::retry());
    }

    #[test]
    fn retry_after_in_seconds_is_a_span() {
        for (value, seconds) in [("0", 0), ("1", 1), (" 120 ", 120), ("007", 7), ("315360000", 315_360_000)] {
            assert_eq!(hint(503, value), Some(RetryHint::After(Duration::from_secs(seconds))), "{value:?}");
        }
        let endless = Some(RetryHint::After(Duration::from_secs(u64::MAX)));
        assert_eq!(hint(429, "99999999999999999999999"), endless);
        for status in [301, 404, 408, 425, 429, 500, 503] {
            assert!(hint(status, "5").is_some(), "{status}");
        }
    }

    #[test]
    fn retry_after_as_a_date_is_a_moment() {
        let moment = |ms| Some(RetryHint::At(Timestamp::from_millis(ms)));
        assert_eq!(hint(503, "Sun, 22 Nov 2026 13:25:00 GMT"), moment(1_795_353_900_000));
        assert_eq!(hint(503, "Sunday, 22-Nov-26 13:25:00 GMT"), moment(1_795_353_900_000));
        assert_eq!(hint(503, "Sun Nov 22 13:25:00 2026"), moment(1_795_353_900_000));
        assert_eq!(hint(503, "Thu, 01 Jan 1970 00:00:07 GMT"), moment(7_000));
        assert_eq!(
            hint(503, "Sat, 22 Nov 2036 13:25:00 GMT"),
            moment(2_110_973_100_000),
            "ten years: the cap is not ours"
        );
    }

    #[test]
    fn a_retry_after_that_makes_no_sense_is_as_if_it_were_not_there() {
        for value in [
            "",
            " ",
            "-1",
            "-120",
            "+5",
            "1.5",
            "5s",
            "soon",
            "0x10",
            "1e3",
            "NaN",
            "2026-11-22T13:25:00Z",
            "Sun, 99 Nov 2026 13:25:00 GMT",
        ] {
            assert_eq!(hint(503, value), None, "{value:?}");
        }
        let mut map = HeaderMap::new();
        map.append(RETRY_AFTER, HeaderValue::from_bytes(b"\xff\xfe").expect("bytes are allowed"));
        assert_eq!(classify(StatusCode::SERVICE_UNAVAILABLE, &map, &REJECT), Outcome::retry());
    }
}
