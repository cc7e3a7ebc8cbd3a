//! The messages of a body, one after another.

use std::borrow::Cow;

use ::bytes::Bytes;

use crate::api::code::Code;
use crate::domain::format::bytes;
use crate::domain::message::Headers;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::http::batch::array::{Array, Field, pointer};
use crate::http::batch::item::{self, Item, Terms};
use crate::http::batch::lines::{Line, Lines};
use crate::http::batch::{Plan, empty, walk};
use crate::http::body::Chunks;
use crate::http::budget::Share;
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

/// What an item says, beside its payload.
pub(super) struct Origin {
    /// Its options, those of the request included; `None` when it has none but those.
    own: Option<Box<Options>>,
    /// The field that the payload stands in; `None` where it is all there is.
    form: Option<Field>,
    /// The line of the body that it is, from 1, where it is one.
    line: Option<u64>,
}

impl Origin {
    fn options<'o>(&'o self, plan: &'o Plan) -> &'o Options {
        self.own.as_deref().unwrap_or(&plan.common)
    }

    /// Names the item in what is said of it.
    fn name(&self, index: u64, refusal: Refusal) -> Refusal {
        self.line.into_iter().fold(refusal.index(index), Refusal::line)
    }
}

/// A message of a batch, with the key that it has of its own, and what it was made of.
pub(super) struct Made {
    pub(super) message: NewMessage,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) origin: Origin,
}

/// A message, or why its item is none.
pub(super) type Read = Result<Made, Refusal>;

/// All that was read of a body, with the memory that it counts for.
pub(super) struct Items {
    /// At least one.
    pub(super) read: Vec<Read>,
    /// Where the batch has a key.
    pub(super) fingerprint: Option<[u8; 16]>,
    _share: Share,
}

enum Source<'b> {
    /// As they come.
    Lines { lines: Lines, chunks: Chunks<'b> },
    /// Of a body that came whole.
    Array { array: Array<'b>, share: Share },
}

/// Reads the messages of a body.
pub(super) struct Reader<'r> {
    plan: &'r Plan,
    limits: &'r ServerLimits,
    reach: Reach<'r>,
    now: Timestamp,
    source: Source<'r>,
    index: u64,
    /// The fingerprint of all that was read, where it is wanted.
    fingerprint: Option<Fingerprint>,
}

impl<'r> Reader<'r> {
    /// Of a body of lines.
    pub(super) fn lines(plan: &'r Plan, chunks: Chunks<'r>, state: &'r State, now: Timestamp) -> Self {
        Self::new(plan, Source::Lines { lines: Lines::default(), chunks }, state, now)
    }

    /// Of a body that is an array.
    pub(super) fn array(
        plan: &'r Plan,
        body: &'r [u8],
        share: Share,
        state: &'r State,
        now: Timestamp,
    ) -> Self {
        Self::new(plan, Source::Array { array: Array::new(body), share }, state, now)
    }

    fn new(plan: &'r Plan, source: Source<'r>, state: &'r State, now: Timestamp) -> Self {
        let fingerprint = plan.key.as_ref().map(|_| Fingerprint::of_batch());
        let (limits, reach) = (state.limits(), Reach::new(state));
        Self { plan, limits, reach, now, source, index: 0, fingerprint }
    }

    /// All of them.
    ///
    /// # Errors
    /// The whole body is refused: it did not come whole, cannot be read through, has too many items or none, or one that is wrong in a
    /// batch that is one unit. What is wrong with the body itself is told before what is wrong with an item.
    pub(super) async fn all(mut self) -> Result<Items, Refusal> {
        let (mut pace, mut read) = (Pace::default(), Vec::new());
        let refusal = loop {
            match self.next(&mut pace).await {
                Ok(None) if read.is_empty() => return Err(empty()),
                Ok(None) => break None,
                Ok(Some(Err(refusal))) if self.plan.is_atomic => break Some(refusal),
                Ok(Some(item)) => read.push(item),
                Err(refusal) => break Some(refusal),
            }
        };
        let share = match self.source {
            Source::Array { share, .. } => share,
            Source::Lines { mut chunks, .. } => {
                while chunks.next().await?.is_some() {}
                chunks.into_share()
            }
        };
        match refusal {
            None => Ok(Items { read, fingerprint: self.fingerprint.map(Fingerprint::finish), _share: share }),
            Some(refusal) => Err(refusal),
        }
    }

    async fn next(&mut self, pace: &mut Pace) -> Result<Option<Read>, Refusal> {
        match &mut self.source {
            Source::Lines { lines, chunks } => {
                let Some(line) = next_line(lines, chunks, pace).await? else { return Ok(None) };
                self.take(of_line(&line), Some(line.number), pace).await.map(Some)
            }
            Source::Array { array, .. } => {
                let Some(fields) = array.next(pace).await? else { return Ok(None) };
                let terms = Terms {
                    common: &self.plan.common,
                    limits: self.limits,
                    now: self.now,
                    is_atomic: self.plan.is_atomic,
                };
                let item = match fields {
                    Ok(fields) => item::read(&fields, self.index, terms, pace).await,
                    Err(refusal) => Err(refusal),
                };
                self.take(item, None, pace).await.map(Some)
            }
        }
    }

    /// Counts an item and makes its message.
    async fn take(
        &mut self,
        item: Result<Item<'_>, Refusal>,
        line: Option<u64>,
        pace: &mut Pace,
    ) -> Result<Read, Refusal> {
        let index = self.index;
        if index == u64::from(self.limits.batch_messages_max) {
            let setting = "server.limits.batch_messages_max";
            let detail = format!("the batch has more items than {setting}, which is {index}");
            return Err(Refusal::new(Code::BatchTooLarge, detail).setting(setting, Some(index)));
        }
        self.index += 1;
        let (mut origin, item) = (Origin { own: None, form: None, line }, item);
        let made = match item {
            Ok(Item { payload, form, options }) => {
                (origin.own, origin.form) = (options.map(Box::new), form);
                self.make(origin, &payload, index, pace).await
            }
            Err(refusal) => Err(origin.name(index, refusal)),
        };
        pace.spend(ITEM_BYTES).await;
        Ok(made)
    }

    async fn make(&mut self, origin: Origin, payload: &[u8], index: u64, pace: &mut Pace) -> Read {
        let made = self.message(&origin, payload, index, pace).await;
        match made {
            Ok((message, key)) => Ok(Made { message, key, origin }),
            Err(refusal) => Err(origin.name(index, refusal)),
        }
    }

    async fn message(
        &mut self,
        origin: &Origin,
        payload: &[u8],
        index: u64,
        pace: &mut Pace,
    ) -> Result<(NewMessage, Option<IdempotencyKey>), Refusal> {
        let (plan, options) = (self.plan, origin.options(self.plan));
        fits(plan, origin, payload.len(), index)?;
        let own = match &origin.own {
            None => None,
            Some(own) => {
                // What the request says of all was judged with it.
                if own.destination != plan.common.destination {
                    self.reach.reach(own).await.map_err(|refusal| of_option(refusal, index))?;
                }
                let too_large = |refusal: Refusal| {
                    refusal.pointer(pointer(index, largest(&own.headers, &plan.common.headers)))
                };
                Some(encode(&own.headers).map_err(too_large)?)
            }
        };
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
        let headers = own.as_deref().unwrap_or(&plan.headers);
        Ok((message(options, headers, &plan.entry, payload, self.now), key))
    }
}

/// Makes the message of an item again, for the queue that is there now, from that for the queue which is gone.
///
/// # Errors
/// The new queue does not take it.
pub(super) async fn remake(
    plan: &Plan,
    before: &NewMessage,
    origin: &Origin,
    index: u64,
    pace: &mut Pace,
) -> Result<NewMessage, Refusal> {
    let record = Record::decode(Bytes::copy_from_slice(&before.record)).map_err(|error| {
        Refusal::new(Code::Internal, format!("the record of an item cannot be read: {error}"))
    })?;
    let payload = record.payload();
    fits(plan, origin, payload.len(), index).map_err(|refusal| origin.name(index, refusal))?;
    pace.spend(ITEM_BYTES + payload.len()).await;
    Ok(message(origin.options(plan), &record.headers(), &plan.entry, &payload, record.accepted_at()))
}

/// The next line of a body.
async fn next_line(
    lines: &mut Lines,
    chunks: &mut Chunks<'_>,
    pace: &mut Pace,
) -> Result<Option<Line>, Refusal> {
    loop {
        if let Some(line) = lines.next(pace).await {
            return Ok(Some(line));
        }
        match chunks.next().await? {
            Some(chunk) => lines.feed(chunk),
            None => return Ok(lines.last(pace).await),
        }
    }
}

fn of_line(line: &Line) -> Result<Item<'_>, Refusal> {
    match line.judged {
        Ok(()) => Ok(Item { payload: Cow::Borrowed(&line.bytes), form: None, options: None }),
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

/// What this queue does not take of an item, said of the item.
fn fits(plan: &Plan, origin: &Origin, payload_bytes: usize, index: u64) -> Result<(), Refusal> {
    let most = plan.entry.settings.limits.payload_max;
    if payload_bytes as u64 > most {
        let shown = bytes::show(most);
        let detail = format!("the payload has {payload_bytes} bytes: limits.payload_max is {shown}");
        let refusal = Refusal::new(Code::PayloadTooLarge, detail).setting("limits.payload_max", Some(most));
        return Err(match origin.form {
            Some(form) => refusal.pointer(pointer(index, form)),
            None => refusal,
        });
    }
    if let Some(own) = &origin.own {
        allow(own, &plan.entry).map_err(|refusal| of_option(refusal, index))?;
    }
    destination::need(origin.options(plan), &plan.entry).map_err(|refusal| match origin.form {
        Some(_) => refusal.in_body(pointer(index, Field::Destination)),
        None => refusal,
    })
}

/// Names the option of an item that a refusal is about.
fn of_option(refusal: Refusal, index: u64) -> Refusal {
    let field = match refusal.code() {
        Code::DestinationNotAllowed | Code::DestinationRefused => Field::Destination,
        _ => Field::Headers,
    };
    refusal.in_body(pointer(index, field))
}
