//! The values of the options of a publish: what each takes, wherever it is said.

use std::time::Duration;

use crate::api::code::Code;
use crate::domain::destination::Destination;
use crate::domain::format::{duration, range};
use crate::domain::header::{Never, never};
use crate::domain::message::Priority;
use crate::domain::timestamp::Timestamp;
use crate::http::extract::shown;
use crate::http::settings::ServerLimits;
use crate::store::enqueue::Due;

/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Why a value is not taken.
#[derive(Debug)]
pub(in crate::http) struct Wrong {
    /// The code.
    pub(in crate::http) code: Code,
    /// What is wrong and what would be right, without the option's name.
    pub(in crate::http) detail: String,
    /// The setting that says so.
    pub(in crate::http) setting: Option<&'static str>,
}

impl Wrong {
    /// A value of the wrong form, or out of its range.
    pub(in crate::http) fn value(detail: impl Into<String>) -> Self {
        Self { code: Code::InvalidValue, detail: detail.into(), setting: None }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
fn wrong(error: impl ToString) -> Wrong {
    Wrong::value(error.to_string())
}

/// A delay.
pub(in crate::http) fn delay(text: &str, limits: &ServerLimits) -> Result<Due, Wrong> {
    span(text, Duration::ZERO, limits.delay_max, Some("server.limits.delay_max")).map(Due::After)
}

/// A moment.
pub(in crate::http) fn deliver_at(text: &str, limits: &ServerLimits, now: Timestamp) -> Result<Due, Wrong> {
    let at = Timestamp::parse(text).map_err(wrong)?;
    if at.since(now) > limits.delay_max {
        let detail = format!("it is more than {} from now", duration::show(limits.delay_max));
        return Err(Wrong { setting: Some("server.limits.delay_max"), ..Wrong::value(detail) });
    }
    Ok(Due::At(at))
}

/// A time to live.
pub(in crate::http) fn ttl(text: &str, limits: &ServerLimits) -> Result<Duration, Wrong> {
    span(text, Duration::from_millis(1), limits.ttl_max, Some("server.limits.ttl_max"))
}

/// A priority.
pub(in crate::http) fn priority(text: &str) -> Result<Priority, Wrong> {
    let named = Priority::ALL.into_iter().find(|priority| priority.as_str() == text);
    named.ok_or_else(|| {
        Wrong::value(format!("{:?} is not a priority: write high, normal or low", shown(text)))
    })
}

/// Attempts allowed.
pub(in crate::http) fn attempts_max(text: &str) -> Result<u8, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u8>().ok().filter(|number| digits && *number > 0);
    number
        .ok_or_else(|| Wrong::value(format!("{:?} is not a number of attempts: write 1 to 255", shown(text))))
}

/// A destination.
pub(in crate::http) fn destination(text: &str) -> Result<Destination, Wrong> {
    text.parse::<Destination>().map_err(wrong)
}

/// A method of delivery.
pub(in crate::http) fn method(text: &str) -> Result<String, Wrong> {
    match text {
        "POST" | "PUT" | "PATCH" | "DELETE" | "GET" => Ok(text.to_owned()),
        _ => Err(Wrong::value(format!(
            "{:?} is not allowed: write POST, PUT, PATCH, DELETE or GET",
            shown(text)
        ))),
    }
}

/// The time-out of an attempt.
pub(in crate::http) fn timeout(text: &str) -> Result<Duration, Wrong> {
    span(text, Duration::from_millis(100), Duration::from_mins(15), None)
}

/// Whether a header of this name, in lower case, may be forwarded.
pub(in crate::http) fn forwardable(name: &str) -> Result<(), Wrong> {
    let why = match never(name) {
        None => return Ok(()),
        Some(Never::Connection) => "it belongs to one connection or frames a request",
        Some(Never::Ours) => "the gateway sets it itself",
    };
    let detail = format!("{name} can never be forwarded: {why}");
    Err(Wrong { code: Code::HeaderNotForwardable, detail, setting: None })
}

/// An idempotency key; one pair of double quotes is removed.
pub(in crate::http) fn key(bytes: &[u8]) -> Result<Vec<u8>, Wrong> {
    let key = match bytes {
        [b'"', inner @ .., b'"'] => inner,
        bytes => bytes,
    };
    if key.is_empty() {
        return Err(Wrong::value("it is empty: leave it out, or send 1 to 256 bytes"));
    }
    if key.len() > KEY_BYTES_MAX {
        let detail = format!("it has {} bytes: at most {KEY_BYTES_MAX} are allowed", key.len());
        return Err(Wrong::value(detail));
    }
    Ok(key.to_vec())
}

fn span(
    text: &str,
    least: Duration,
    most: Duration,
    setting: Option<&'static str>,
) -> Result<Duration, Wrong> {
    let span = duration::parse(text).map_err(wrong)?;
    range::span(span, &(least..=most)).map_err(|error| {
        let setting = setting.filter(|_| span > most);
        Wrong { setting, ..wrong(error) }
    })?;
    Ok(span)
}
