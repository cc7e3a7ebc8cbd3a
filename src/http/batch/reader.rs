//! The messages of a body, one after another.

use std::borrow::Cow;

use crate::api::code::Code;
use crate::domain::format::bytes;
use crate::domain::message::Headers;
use crate::domain::timestamp::Timestamp;
use crate::http::batch::array::{Array, Field, pointer};
use crate::http::batch::item::{self, Item, Terms};
use crate::http::batch::lines::{Line, Lines};
use crate::http::batch::{Plan, walk};
use crate::http::destination::{self, Reach};
use crate::http::error::Refusal;
use crate::http::extract::{check_charset, shown};
use crate::http::fingerprint::Fingerprint;
use crate::http::options::Options;
use crate::http::pace::Pace;
use crate::http::publish::{allow, encode, message};
use crate::http::settings::ServerLimits;
use crate::http::state::State;
use crate::store::enqueue::{IdempotencyKey, NewMessage};

/// Bytes of work that every item costs beside those of its payload.
const ITEM_BYTES: usize = 256;

/// How the items of a batch are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// `application/x-ndjson`.
    Lines,
    /// `application/json`.
    Array,
}

impl Format {
    /// By the Content-Type of the request.
    pub(super) fn of(content_type: &str) -> Result<Self, Refusal> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-ndjson") {
            check_charset(content_type)?;
            return Ok(Self::Lines);
        }
        if essence.eq_ignore_ascii_case("application/json") {
            check_charset(content_type)?;
            return Ok(Self::Array);
        }
        let detail = format!(
            "a batch is sent as Content-Type: application/x-ndjson (one payload a line) or application/json (an array of \
             items), not {:?}",
            shown(content_type)
        );
        Err(Refusal::new(Code::UnsupportedMediaType, detail).header("Content-Type"))
    }

    /// The type of a payload that has none of its own.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/json",
            Self::Array => "",
        }
    }
}

/// A message of a batch, with the key that it has of its own.
pub(super) struct Made {
    pub(super) message: NewMessage,
    pub(super) key: Option<IdempotencyKey>,
}

enum Source<'b> {
    Lines(Lines<'b>),
    Array(Array<'b>),
}

/// Reads the messages of a body.
pub(super) struct Reader<'r> {
    plan: &'r Plan,
    limits: &'r ServerLimits,
    reach: Reach<'r>,
    now: Timestamp,
    body: &'r [u8],
    source: Source<'r>,
    /// The headers of an item that says nothing of itself, encoded once.
    headers: Vec<u8>,
    index: u64,
    /// The fingerprint of all that was read, where it is wanted.
    fingerprint: Option<Fingerprint>,
}

impl<'r> Reader<'r> {
    /// Of this body.
    pub(super) fn new(
        plan: &'r Plan,
        body: &'r [u8],
        state: &'r State,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let source = match plan.format {
            Format::Lines => Source::Lines(Lines::new(body)),
            Format::Array => Source::Array(Array::new(body)),
        };
        let headers = encode(&plan.common.headers)?;
        let fingerprint = plan.key.as_ref().map(|_| Fingerprint::of_batch());
        let (limits, reach) = (state.limits(), Reach::new(state));
        Ok(Self { plan, limits, reach, now, body, source, headers, index: 0, fingerprint })
    }

    /// The next message, or why its item is none; `None` at the end.
    ///
    /// # Errors
    /// The whole body is refused: it cannot be read on, or has too many items.
    pub(super) async fn next(&mut self, pace: &mut Pace) -> Result<Option<Result<Made, Refusal>>, Refusal> {
        let index = self.index;
        let (item, line) = match &mut self.source {
            Source::Lines(lines) => {
                let Some(line) = lines.next(pace).await else { return Ok(None) };
                (of_line(&line, self.body), Some(line.number))
            }
            Source::Array(array) => {
                let Some(fields) = array.next(pace).await? else { return Ok(None) };
                let terms = Terms {
                    common: &self.plan.common,
                    limits: self.limits,
                    now: self.now,
                    is_atomic: self.plan.is_atomic,
                };
                let item = match fields {
                    Ok(fields) => item::read(&fields, index, terms, pace).await,
                    Err(refusal) => Err(refusal),
                };
                (item, None)
            }
        };
        if index == u64::from(self.limits.batch_messages_max) {
            let setting = "server.limits.batch_messages_max";
            let detail = format!("the batch has more items than {setting}, which is {index}");
            return Err(Refusal::new(Code::BatchTooLarge, detail).setting(setting, Some(index)));
        }
        self.index += 1;
        let made = match item {
            Ok(item) => self.make(item, pace).await,
            Err(refusal) => Err(refusal),
        };
        pace.spend(ITEM_BYTES).await;
        Ok(Some(made.map_err(|refusal| {
            let refusal = refusal.index(index);
            line.into_iter().fold(refusal, Refusal::line)
        })))
    }

    /// The fingerprint of the whole batch, once it is read.
    pub(super) fn fingerprint(self) -> Option<[u8; 16]> {
        self.fingerprint.map(Fingerprint::finish)
    }

    /// The message of the item that was read last.
    async fn make(&mut self, item: Item<'_>, pace: &mut Pace) -> Result<Made, Refusal> {
        let (entry, index) = (&self.plan.entry, self.index - 1);
        let payload = &*item.payload;
        let most = entry.settings.limits.payload_max;
        if payload.len() as u64 > most {
            let shown = bytes::show(most);
            let detail = format!("the payload has {} bytes: limits.payload_max is {shown}", payload.len());
            let refusal = Refusal::new(Code::PayloadTooLarge, detail);
            let refusal = refusal.setting("limits.payload_max", Some(most));
            return Err(match item.form {
                Some(form) => refusal.pointer(pointer(index, form)),
                None => refusal,
            });
        }
        let own = match &item.options {
            None => None,
            Some(own) => {
                check(own, self.plan, &mut self.reach, index).await?;
                let headers = encode(&own.headers).map_err(|refusal| {
                    refusal.pointer(pointer(index, largest(&own.headers, &self.plan.common.headers)))
                })?;
                Some((own, headers))
            }
        };
        let (options, headers): (&Options, &[u8]) =
            own.as_ref().map_or((&self.plan.common, &self.headers), |(own, headers)| (own, headers));
        destination::need(options, entry).map_err(|refusal| match &self.source {
            Source::Lines(_) => refusal,
            Source::Array(_) => refusal.in_body(pointer(index, Field::Destination)),
        })?;
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.add(options, payload, pace).await;
        }
        let key = match &options.key {
            None => None,
            Some(key) => {
                let fingerprint = Fingerprint::of_slowly(options, payload, pace).await;
                Some(IdempotencyKey { key: key.clone(), fingerprint })
            }
        };
        pace.spend(payload.len()).await;
        Ok(Made { message: message(options, headers, entry, payload, self.now), key })
    }
}

fn of_line<'b>(line: &Line, body: &'b [u8]) -> Result<Item<'b>, Refusal> {
    match line.judged {
        Ok(()) => Ok(Item { payload: Cow::Borrowed(&body[line.range.clone()]), form: None, options: None }),
        Err(walk::NoJson { at, what }) => {
            let detail = format!("line {} is no JSON at its byte {at}: {what}", line.number);
            Err(Refusal::new(Code::Malformed, detail))
        }
    }
}

/// The field of an item that makes its headers too large to be kept, which those of the request alone are not.
fn largest(own: &Headers, common: &Headers) -> Field {
    let forwarded: usize = own.forward.iter().map(|(name, value)| name.len() + value.len()).sum();
    let is_forwarded = own.forward != common.forward && forwarded > own.content_type.len();
    if is_forwarded { Field::Headers } else { Field::ContentType }
}

/// What this queue does not take of an item, and what it must not have, said of the item.
async fn check(own: &Options, plan: &Plan, reach: &mut Reach<'_>, index: u64) -> Result<(), Refusal> {
    let checked = match allow(own, &plan.entry) {
        // What the request says of all was judged with it.
        Ok(()) if own.destination == plan.common.destination => Ok(()),
        Ok(()) => reach.reach(own).await,
        Err(refusal) => Err(refusal),
    };
    checked.map_err(|refusal| {
        let field = match refusal.code() {
            Code::DestinationNotAllowed | Code::DestinationRefused => Field::Destination,
            _ => Field::Headers,
        };
        refusal.in_body(pointer(index, field))
    })
}
