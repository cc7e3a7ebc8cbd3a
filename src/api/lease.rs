//! Pulling: what a consumer says, and what it gets.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::api::message::Message;
use crate::api::nearest::hint;
use crate::api::problem::Problem;
use crate::domain::format::duration;
use crate::domain::timestamp::Timestamp;

/// Messages of one lease, and receipts of one settle or extend, at most.
pub const RECEIPTS_MAX: usize = 1_000;
/// The longest wait for messages.
pub const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long a lease may be.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// How long a lease may be.
pub const LEASE_MAX: Duration = Duration::from_hours(12);
/// The longest delay of a retry that a consumer may name: as long as an entry of `retry.schedule`.
pub const RETRY_DELAY_MAX: Duration = Duration::from_hours(24);
/// Bytes of a reason.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Bytes of a receipt.
pub const RECEIPT_BYTES_MAX: usize = 256;

/// How payloads are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadAs {
    /// As a string where it is valid UTF-8, in base64 elsewhere.
    #[default]
    Auto,
    /// In base64.
    Base64,
}

/// What a consumer asks for: the body of `POST …/leases`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LeaseOrder {
    /// Messages at most, 1–1,000.
    pub max: u16,
    /// How long to wait for the first one, up to 60 s.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// How long the leases last, 1 s–12 h; absent: as the queue has it.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// How payloads are shown.
    pub payload_as: PayloadAs,
}

impl Default for LeaseOrder {
    fn default() -> Self {
        Self { max: 1, wait: Duration::ZERO, lease: None, payload_as: PayloadAs::Auto }
    }
}

/// A message in the hands of a consumer. Its payload is among the fields of the message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LeasedMessage {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Names the lease: for settle and extend.
    pub receipt: String,
    /// The number of this attempt, from 1.
    pub attempt: u8,
    /// Until when it is held, by the store's clock.
    pub lease_until: Timestamp,
    /// The headers that its publisher had forwarded, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The trace that its publisher was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The same, the vendors' part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// The answer to a lease; no items when nothing came.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Leases {
    /// The messages.
    pub items: Vec<LeasedMessage>,
}

/// How a consumer ends a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Done.
    Ack,
    /// Not this time.
    Retry {
        /// How long from now; absent: as the queue's schedule has it.
        delay: Option<Duration>,
        /// Why, for the attempt log.
        reason: Option<String>,
    },
    /// Never.
    Reject {
        /// Why, kept with the dead letter.
        reason: Option<String>,
    },
    /// Never begun: back to the head of the queue, nothing counted.
    Release,
}

/// One receipt of a request, and where in the body it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named<T> {
    /// The receipt.
    pub receipt: String,
    /// The JSON pointer of it.
    pub pointer: String,
    /// What is said of it.
    pub said: T,
}

/// What a consumer asks of its leases: the body of `POST …/leases/extend`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtendOrder {
    /// Which.
    pub receipts: Vec<Named<()>>,
    /// How long from now, 1 s–12 h; absent: as the queue has it.
    pub lease: Option<Duration>,
}

/// What became of one receipt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReceiptResult {
    /// Which.
    pub receipt: String,
    /// `settled`, `extended` or `lost`.
    pub result: ReceiptFate,
    /// Until when it is held now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<Timestamp>,
}

/// What became of a lease that was to be settled or extended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptFate {
    /// It has ended as asked, now or before.
    Settled,
    /// It goes on.
    Extended,
    /// It was over, or never was: nothing was changed.
    Lost,
}

/// The answer to a settle or an extend, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReceiptResults {
    /// One for each receipt.
    pub results: Vec<ReceiptResult>,
}

/// Reads what a consumer asks for; an empty body asks for one message, now.
///
/// # Errors
/// `malformed`, `unknown_field`, `invalid_value`, each with its pointer. The first problem only.
pub fn read_lease(body: &[u8]) -> Result<LeaseOrder, Box<Problem>> {
    let mut order = LeaseOrder::default();
    if body.is_empty() {
        return Ok(order);
    }
    for (name, value) in fields(body, &["max", "wait", "lease", "payload_as"])? {
        let at = format!("/{name}");
        match name.as_str() {
            "max" => {
                let max = value.as_u64().and_then(|max| u16::try_from(max).ok());
                let max = max.filter(|max| (1..=RECEIPTS_MAX).contains(&usize::from(*max)));
                order.max = max.ok_or_else(|| invalid(&at, "write a whole number, 1 to 1000"))?;
            }
            "wait" => order.wait = span(&at, &value, Duration::ZERO, WAIT_MAX)?,
            "lease" => order.lease = Some(span(&at, &value, LEASE_MIN, LEASE_MAX)?),
            _ => {
                order.payload_as = serde_json::from_value(value)
                    .map_err(|_| invalid(&at, "write \"auto\" or \"base64\""))?;
            }
        }
    }
    Ok(order)
}

/// Reads which leases end how, in the order in which they stand in the body.
///
/// # Errors
/// As [`read_lease`]; `contradictory_options` for a receipt that is there twice.
pub fn read_settle(body: &[u8]) -> Result<Vec<Named<Ending>>, Box<Problem>> {
    let mut all = Vec::new();
    for (name, value) in fields(body, &["ack", "retry", "reject", "release"])? {
        let at = format!("/{name}");
        for (place, value) in list(&at, value, all.len())?.into_iter().enumerate() {
            let at = format!("{at}/{place}");
            all.push(match name.as_str() {
                "ack" => receipt(value, at, Ending::Ack)?,
                "release" => receipt(value, at, Ending::Release)?,
                _ => said(value, &at, name == "retry")?,
            });
        }
    }
    check_once(&all)?;
    Ok(all)
}

/// Reads which leases are to be extended.
///
/// # Errors
/// As [`read_settle`].
pub fn read_extend(body: &[u8]) -> Result<ExtendOrder, Box<Problem>> {
    let (mut receipts, mut lease) = (None, None);
    for (name, value) in fields(body, &["receipts", "lease"])? {
        let at = format!("/{name}");
        if name == "lease" {
            lease = Some(span(&at, &value, LEASE_MIN, LEASE_MAX)?);
            continue;
        }
        let items = list(&at, value, 0)?.into_iter().enumerate();
        receipts = Some(items.map(|(place, value)| receipt(value, format!("{at}/{place}"), ())).collect());
    }
    let missing = || Err(invalid("/receipts", "it is required: a list of the receipts to extend"));
    let receipts: Vec<_> = receipts.unwrap_or_else(missing)?;
    check_once(&receipts)?;
    Ok(ExtendOrder { receipts, lease })
}

/// A text that no lease gave.
#[must_use]
pub fn no_receipt(pointer: &str) -> Box<Problem> {
    invalid(pointer, "a receipt is the text that a lease gave, unchanged")
}

/// One entry of `retry` or `reject`.
fn said(value: Value, at: &str, is_retry: bool) -> Result<Named<Ending>, Box<Problem>> {
    let known: &[&str] = if is_retry { &["receipt", "delay", "reason"] } else { &["receipt", "reason"] };
    let Value::Object(entry) = value else {
        return Err(invalid(at, &format!("write an object with some of these fields: {}", known.join(", "))));
    };
    let (mut named, mut delay, mut reason) = (None, None, None);
    for (name, value) in entry {
        let pointer = json::pointer(at, &name);
        match name.as_str() {
            "receipt" => named = Some(receipt(value, pointer, ())?),
            "delay" if is_retry => delay = Some(span(&pointer, &value, Duration::ZERO, RETRY_DELAY_MAX)?),
            // An empty one says nothing.
            "reason" => reason = Some(words(&pointer, value)?).filter(|reason| !reason.is_empty()),
            _ => return Err(unknown(&name, pointer, known)),
        }
    }
    let Some(Named { receipt, pointer, said: () }) = named else {
        return Err(invalid(&format!("{at}/receipt"), "it is required: the receipt that a lease gave"));
    };
    let said = if is_retry { Ending::Retry { delay, reason } } else { Ending::Reject { reason } };
    Ok(Named { receipt, pointer, said })
}

fn receipt<T>(value: Value, pointer: String, said: T) -> Result<Named<T>, Box<Problem>> {
    match value {
        Value::String(receipt) if receipt.len() <= RECEIPT_BYTES_MAX => Ok(Named { receipt, pointer, said }),
        _ => Err(no_receipt(&pointer)),
    }
}

fn words(at: &str, value: Value) -> Result<String, Box<Problem>> {
    match value {
        Value::String(reason) if reason.len() <= REASON_BYTES_MAX => Ok(reason),
        _ => Err(invalid(at, "write a string of at most 1024 bytes")),
    }
}

fn list(at: &str, value: Value, before: usize) -> Result<Vec<Value>, Box<Problem>> {
    let Value::Array(items) = value else { return Err(invalid(at, "write a list")) };
    if before + items.len() > RECEIPTS_MAX {
        let problem = invalid(at, "a request takes 1000 receipts at most: send the others in another one");
        return Err(Box::new(Problem { limit: Some(RECEIPTS_MAX as u64), ..*problem }));
    }
    Ok(items)
}

fn span(at: &str, value: &Value, least: Duration, most: Duration) -> Result<Duration, Box<Problem>> {
    let within = format!("{} to {}", duration::show(least), duration::show(most));
    let Some(text) = value.as_str() else {
        return Err(invalid(at, &format!("write a duration in quotes, like \"5s\": {within}")));
    };
    let span = duration::parse(text).map_err(|error| invalid(at, &error.to_string()))?;
    if span < least || span > most {
        return Err(invalid(at, &format!("{} is out of range: {within}", duration::show(span))));
    }
    Ok(span)
}

/// The fields of the object that a body is, in the order in which they stand there.
fn fields(body: &[u8], known: &[&str]) -> Result<Vec<(String, Value)>, Box<Problem>> {
    let fields = json::parse_object(body);
    let fields = fields.map_err(|error| Box::new(Problem::new(Code::Malformed, error.to_string())))?;
    let Some(fields) = fields else {
        return Err(invalid(
            "",
            &format!("the body is a JSON object with some of these fields: {}", known.join(", ")),
        ));
    };
    match fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(unknown(name, json::pointer("", name), known)),
        None => Ok(fields),
    }
}

fn check_once<T>(all: &[Named<T>]) -> Result<(), Box<Problem>> {
    let mut seen = HashSet::with_capacity(all.len());
    match all.iter().find(|named| !seen.insert(named.receipt.as_str())) {
        Some(twice) => Err(Box::new(Problem {
            pointer: Some(twice.pointer.clone()),
            ..Problem::new(
                Code::ContradictoryOptions,
                format!("{}: this receipt is there twice", twice.pointer),
            )
        })),
        None => Ok(()),
    }
}

fn invalid(pointer: &str, detail: &str) -> Box<Problem> {
    let detail = if pointer.is_empty() { detail.to_owned() } else { format!("{pointer}: {detail}") };
    Box::new(Problem { pointer: Some(pointer.to_owned()), ..Problem::new(Code::InvalidValue, detail) })
}

fn unknown(name: &str, pointer: String, known: &[&str]) -> Box<Problem> {
    let (known, hint) = (known.join(", "), hint(name, known.iter().copied()));
    let shown: String = pointer.chars().take(64).collect();
    let detail = format!("{shown} is not a field here: taken are {known}{hint}");
    Box::new(Problem { pointer: Some(pointer), ..Problem::new(Code::UnknownField, detail) })
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
