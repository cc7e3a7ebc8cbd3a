//! One item of a batch: its payload, and what it says of itself beyond what the request says of all.

use std::borrow::Cow;

use actix_http::header::HeaderName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::domain::message::HEADERS_BYTES_MAX;
use crate::domain::timestamp::Timestamp;
use crate::http::batch::array::{Field, Fields, pointer};
use crate::http::batch::walk::unescape;
use crate::http::error::Refusal;
use crate::http::extract::shown;
use crate::http::options::value::{self, Wrong};
use crate::http::options::{Options, deliver_at};
use crate::http::pace::Pace;
use crate::http::settings::ServerLimits;
use crate::http::trace;

/// The longest value of an option, in bytes of JSON: what the record has room for, each byte written as an escape.
const OPTION_BYTES_MAX: usize = 6 << 16;
/// Characters of base64 that are decoded in one go.
const BASE64_CHARS: usize = Pace::BYTES / 4 * 4;

/// What holds for every item.
#[derive(Clone, Copy)]
pub(super) struct Terms<'r> {
    /// What the request says of all.
    pub(super) common: &'r Options,
    /// The limits of requests.
    pub(super) limits: &'r ServerLimits,
    /// When the request came.
    pub(super) now: Timestamp,
    /// Whether the batch is one unit.
    pub(super) is_atomic: bool,
}

/// An item that can be stored.
#[derive(Debug)]
pub(super) struct Item<'b> {
    /// The payload, from the body where it stands there as it is.
    pub(super) payload: Cow<'b, [u8]>,
    /// The field that the payload stands in; `None` where it is all there is.
    pub(super) form: Option<Field>,
    /// Its options, those of the request included; `None` when it has none but those.
    pub(super) options: Option<Options>,
}

/// Reads the item at `index`.
pub(super) async fn read<'b>(
    fields: &Fields<'b>,
    index: u64,
    terms: Terms<'_>,
    pace: &mut Pace,
) -> Result<Item<'b>, Refusal> {
    let options = options(fields, index, terms)?;
    let (form, payload) = payload(fields, index, pace).await?;
    Ok(Item { payload, form: Some(form), options })
}

async fn payload<'b>(
    fields: &Fields<'b>,
    index: u64,
    pace: &mut Pace,
) -> Result<(Field, Cow<'b, [u8]>), Refusal> {
    let forms = [Field::Payload, Field::PayloadJson, Field::PayloadBase64];
    let mut given = forms.into_iter().filter_map(|form| Some((form, fields.value(form)?)));
    let Some((form, raw)) = given.next() else {
        let detail = "an item has a payload: write payload (text), payload_json or payload_base64";
        return Err(Refusal::new(Code::InvalidValue, detail).pointer(format!("/{index}")));
    };
    if let Some((other, _)) = given.next() {
        let detail = format!("{} and {} are two payloads: an item has one", form.name(), other.name());
        return Err(Refusal::new(Code::ContradictoryOptions, detail).pointer(pointer(index, other)));
    }
    if form == Field::PayloadJson {
        return Ok((form, raw.into()));
    }
    let text = match raw {
        [b'"', inner @ .., b'"'] => text(inner, pace).await,
        _ => return Err(refusal(index, form, &Wrong::value("it is not a string"))),
    };
    if form == Field::Payload {
        return Ok((form, text));
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let pieces = text.len().div_ceil(BASE64_CHARS);
    for (place, piece) in text.chunks(BASE64_CHARS).enumerate() {
        // Only the last piece may be padded.
        let is_whole = place + 1 == pieces || !piece.ends_with(b"=");
        if !is_whole || STANDARD.decode_vec(piece, &mut bytes).is_err() {
            let wrong = Wrong::value("it is not base64 (RFC 4648, section 4, padded)");
            return Err(refusal(index, form, &wrong));
        }
        pace.spend(piece.len()).await;
    }
    Ok((form, bytes.into()))
}

/// The text between the quotes of a string, from the body where nothing in it is escaped.
async fn text<'b>(raw: &'b [u8], pace: &mut Pace) -> Cow<'b, [u8]> {
    for piece in raw.chunks(Pace::BYTES) {
        if piece.contains(&b'\\') {
            return unescape(raw, pace).await.into();
        }
        pace.spend(piece.len()).await;
    }
    raw.into()
}

/// The options of an item: those of the request, until it says something of its own.
struct Own<'r> {
    common: &'r Options,
    options: Option<Options>,
}

impl Own<'_> {
    fn change(&mut self) -> &mut Options {
        self.options.get_or_insert_with(|| self.common.clone())
    }
}

/// The options of an item; `None` when it says nothing.
fn options(fields: &Fields<'_>, index: u64, terms: Terms<'_>) -> Result<Option<Options>, Refusal> {
    let said = |field| string(fields, index, field);
    let is_json = fields.value(Field::PayloadJson).is_some();
    let reader = Reader { fields, index, terms };
    let mut own = Own { common: terms.common, options: None };
    if let Some(content_type) = said(Field::ContentType)? {
        let content_type = reader.visible(Field::ContentType, &content_type)?;
        content_type.clone_into(&mut own.change().headers.content_type);
    } else if is_json {
        "application/json".clone_into(&mut own.change().headers.content_type);
    }
    if let Some(due) = reader.due()? {
        own.change().due = Some(due);
        own.change().headers.deliver_at = Some(deliver_at(due, terms.now));
    }
    if let Some(ttl) = reader.parsed(Field::Ttl, |text| value::ttl(text, terms.limits))? {
        own.change().ttl = Some(ttl);
    }
    if let Some(priority) = reader.parsed(Field::Priority, value::priority)? {
        own.change().priority = Some(priority);
    }
    if let Some(attempts_max) = reader.attempts_max()? {
        own.change().attempts_max = Some(attempts_max);
    }
    if let Some(destination) = reader.parsed(Field::Destination, value::destination)? {
        own.change().headers.destination = Some(destination.to_string());
        own.change().destination = Some(destination);
    }
    if let Some(method) = reader.parsed(Field::Method, value::method)? {
        own.change().headers.method = Some(method);
    }
    if let Some(timeout) = reader.parsed(Field::Timeout, value::timeout)? {
        own.change().headers.timeout = Some(timeout);
    }
    if let Some(parent) = said(Field::Traceparent)?
        && trace::is_parent(&parent)
    {
        own.change().headers.traceparent = Some(parent);
        own.change().headers.tracestate = None;
    }
    if let Some(key) = reader.key()? {
        own.change().key = Some(key);
    }
    if fields.value(Field::Headers).is_some() {
        reader.forward(&mut own.change().headers.forward)?;
    }
    Ok(own.options)
}

struct Reader<'f, 'b> {
    fields: &'f Fields<'b>,
    index: u64,
    terms: Terms<'f>,
}

impl Reader<'_, '_> {
    fn parsed<T>(
        &self,
        field: Field,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = string(self.fields, self.index, field)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|wrong| refusal(self.index, field, &wrong))
    }

    fn due(&self) -> Result<Option<crate::store::enqueue::Due>, Refusal> {
        let Terms { limits, now, .. } = self.terms;
        let delay = self.parsed(Field::Delay, |text| value::delay(text, limits))?;
        let moment = self.parsed(Field::DeliverAt, |text| value::deliver_at(text, limits, now))?;
        if delay.is_some() && moment.is_some() {
            let detail = "delay and deliver_at say the same thing: write one of them";
            let pointer = pointer(self.index, Field::DeliverAt);
            return Err(Refusal::new(Code::ContradictoryOptions, detail).pointer(pointer));
        }
        Ok(delay.or(moment))
    }

    /// A number in JSON, written as its header has it.
    fn attempts_max(&self) -> Result<Option<u8>, Refusal> {
        let Some(raw) = self.fields.value(Field::MaxAttempts) else { return Ok(None) };
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(256)]);
        let attempts_max = value::attempts_max(&shown);
        attempts_max.map(Some).map_err(|wrong| refusal(self.index, Field::MaxAttempts, &wrong))
    }

    fn key(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let key = self.parsed(Field::IdempotencyKey, |text| value::key(text.as_bytes()))?;
        if key.is_some() && self.terms.is_atomic {
            let detail = "this batch is one unit, which the header Idempotency-Key covers as a whole: leave the item's own key out, \
                          or send the batch with ?atomic=false";
            let refusal = Refusal::new(Code::ContradictoryOptions, detail);
            return Err(refusal.pointer(pointer(self.index, Field::IdempotencyKey)));
        }
        Ok(key)
    }

    /// Puts the item's own headers beside those that the request has for all, or in their place.
    fn forward(&self, forward: &mut Vec<(String, String)>) -> Result<(), Refusal> {
        let wrong = |detail: &str| refusal(self.index, Field::Headers, &Wrong::value(detail));
        let raw = self.fields.value(Field::Headers).unwrap_or_default();
        let most = self.terms.limits.head_headers_max;
        if raw.len() > OPTION_BYTES_MAX {
            let detail =
                format!("headers: they have {} bytes: at most {HEADERS_BYTES_MAX} are kept", raw.len());
            let refusal = Refusal::new(Code::HeadTooLarge, detail).limit(HEADERS_BYTES_MAX as u64);
            return Err(refusal.pointer(pointer(self.index, Field::Headers)));
        }
        let Value::Object(own) = json::parse(raw).map_err(|error| {
            let detail = error.to_string();
            refusal(self.index, Field::Headers, &Wrong { code: Code::Malformed, detail, setting: None })
        })?
        else {
            return Err(wrong("they are an object of names and values"));
        };
        if own.len() > usize::from(most) {
            let detail = format!("headers: there are {}: at most {most} are taken", own.len());
            let refusal = Refusal::new(Code::HeadTooLarge, detail);
            let refusal = refusal.setting("server.limits.head_headers_max", Some(most.into()));
            return Err(refusal.pointer(pointer(self.index, Field::Headers)));
        }
        let mut seen = Vec::with_capacity(own.len());
        for (name, value) in own {
            let (lower, value) = self.header(&name, &value)?;
            if seen.contains(&lower) {
                let detail = format!("headers: {lower} is there twice, in two spellings");
                return Err(Refusal::new(Code::ContradictoryOptions, detail).pointer(self.of_header(&name)));
            }
            forward.retain(|(known, _)| *known != lower);
            forward.push((lower.clone(), value));
            seen.push(lower);
        }
        forward.sort_unstable();
        Ok(())
    }

    /// A header to forward: its name in lower case, and its value without blanks around it, as a header has it.
    fn header(&self, name: &str, value: &Value) -> Result<(String, String), Refusal> {
        let at = |wrong: Wrong| {
            let detail = format!("headers: {}: {}", shown(name), wrong.detail);
            Refusal::new(wrong.code, detail).pointer(self.of_header(name))
        };
        let valid = HeaderName::from_bytes(name.as_bytes());
        let lower = valid.map_err(|_| at(Wrong::value("this is not a header's name")))?;
        value::forwardable(lower.as_str()).map_err(at)?;
        let text = value.as_str().ok_or_else(|| at(Wrong::value("it is not a string")))?;
        let text = visible(text).map_err(at)?;
        Ok((lower.as_str().to_owned(), text.to_owned()))
    }

    fn of_header(&self, name: &str) -> String {
        json::pointer(&pointer(self.index, Field::Headers), &shown(name))
    }

    fn visible<'t>(&self, field: Field, text: &'t str) -> Result<&'t str, Refusal> {
        visible(text).map_err(|wrong| refusal(self.index, field, &wrong))
    }
}

/// A text as a header can carry it, without blanks around it.
fn visible(text: &str) -> Result<&str, Wrong> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Ok(text.trim_matches([' ', '\t']));
    }
    Err(Wrong::value("it has bytes that are not visible ASCII"))
}

/// The text of an option.
fn string(fields: &Fields<'_>, index: u64, field: Field) -> Result<Option<String>, Refusal> {
    let Some(raw) = fields.value(field) else { return Ok(None) };
    let wrong = |detail: &str| refusal(index, field, &Wrong::value(detail));
    if raw.len() > OPTION_BYTES_MAX {
        return Err(wrong("it is too long"));
    }
    serde_json::from_slice(raw)
        .map(Some)
        .map_err(|_| wrong("it is not a string; what is not said is left out"))
}

/// The refusal of the value of a field.
fn refusal(index: u64, field: Field, wrong: &Wrong) -> Refusal {
    let detail = format!("{}: {}", field.name(), wrong.detail);
    let refusal = Refusal::new(wrong.code, detail).pointer(pointer(index, field));
    wrong.setting.into_iter().fold(refusal, |refusal, setting| refusal.setting(setting, None))
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
