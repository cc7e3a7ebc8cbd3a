//! Publishing many messages with one request.
//!
//! A batch is one unit: one group for the store, which keeps all of it or nothing. With `?atomic=false` each item is a group of
//! its own and has an answer of its own. In both cases the body is read through before anything is stored, in pieces, so that
//! the other requests of the thread are served in between. Messages are made of NDJSON while it comes: it is never there whole.
//!
//! | file | noun |
//! |---|---|
//! | `walk` | JSON text: where its values end, and whether they are valid |
//! | `lines` | NDJSON: one payload a line |
//! | `array` | JSON: an array of items |
//! | `item` | one item: its payload and its options |
//! | `reader` | the messages of a body |
//! | `alone` | storing each item for itself |

mod alone;
mod array;
mod item;
mod lines;
mod reader;
mod walk;

use std::rc::Rc;
use std::sync::Arc;

use ::bytes::Bytes;
use actix_http::{Payload, RequestHead, StatusCode};
use tokio::time::Instant;

use crate::api::BatchPublished;
use crate::api::code::Code;
use crate::domain::id::MessageId;
use crate::domain::timestamp::Timestamp;
use crate::http::answer::{self, Answer, RequestId};
use crate::http::batch::reader::{Format, Items, Origin, Reader};
use crate::http::body::{self, BATCH_BYTES_MAX, Chunks, SizeLimit};
use crate::http::connection::Connection;
use crate::http::destination;
use crate::http::error::{Accepted, NotAccepted, Refusal, of_publish};
use crate::http::extract::{once, parameters, queue_name, shown};
use crate::http::options::{Options, check_loop};
use crate::http::pace::Pace;
use crate::http::publish::{PUBLISH_TIMEOUT, allow, encode};
use crate::http::state::Desk;
use crate::store::QueueEntry;
use crate::store::enqueue::{Group, IdempotencyKey, NewMessage};

/// Walks over NDJSON to its end; gives how many lines are JSON.
pub(super) async fn lines_of(body: Bytes) -> usize {
    let (mut lines, mut pace, mut valid) = (lines::Lines::default(), Pace::default(), 0);
    lines.feed(body);
    while let Some(line) = lines.next(&mut pace).await {
        valid += usize::from(line.judged.is_ok());
    }
    valid
}

/// Publishes a batch and answers.
pub(super) async fn publish(
    desk: &Desk,
    head: &RequestHead,
    segment: &str,
    payload: Payload,
    connection: &Rc<Connection>,
    id: RequestId,
) -> Answer {
    let now = desk.state.gateway.clock.now();
    let mut batch = Batch { desk, head, connection, now, id, is_keyed: false };
    match batch.run(segment, payload).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let stored = refusal.stored(batch.is_keyed);
            answer::refusal(refusal.of_publish(batch.is_keyed), id, Some(stored))
        }
    }
}

/// What is known of a batch before its body is read.
struct Plan {
    entry: Arc<QueueEntry>,
    format: Format,
    /// What the request says of every item.
    common: Options,
    /// The headers that are kept of an item that says nothing of itself.
    headers: Vec<u8>,
    /// The key of the whole batch.
    key: Option<Vec<u8>>,
    is_atomic: bool,
}

struct Batch<'r> {
    desk: &'r Desk,
    head: &'r RequestHead,
    connection: &'r Rc<Connection>,
    now: Timestamp,
    id: RequestId,
    is_keyed: bool,
}

impl Batch<'_> {
    /// In the order of a publish: what can be judged without the body comes first.
    async fn run(&mut self, segment: &str, payload: Payload) -> Result<Answer, Refusal> {
        let plan = match self.prepare(segment).await {
            Ok(plan) => plan,
            Err(refusal) => return Err(refusal.unread(payload)),
        };
        let items = self.read(&plan, payload).await?;
        if plan.is_atomic {
            self.publish_whole(plan, items).await
        } else {
            self.publish_each(plan, items).await
        }
    }

    async fn prepare(&mut self, segment: &str) -> Result<Plan, Refusal> {
        let state = &self.desk.state;
        let name = queue_name(segment)?;
        let is_atomic = is_atomic(self.head)?;
        body::has_length(&self.head.headers)?;
        let mut common = Options::read(&self.head.headers, state.limits(), self.now)?;
        // Items that are each for themselves may have keys; which, only the body says.
        self.is_keyed = common.key.is_some() || !is_atomic;
        let format = Format::of(&common.headers.content_type)?;
        // The type of the body is not that of its payloads.
        format.content_type().clone_into(&mut common.headers.content_type);
        let key = common.key.take();
        if key.is_some() && !is_atomic {
            let detail = "Idempotency-Key covers a batch as one unit, and with ?atomic=false it is none: give each item an idempotency_key";
            return Err(Refusal::new(Code::ContradictoryOptions, detail).header("Idempotency-Key"));
        }
        if let Some(via) = &common.headers.via {
            check_loop(via, &state.gateway.store.id())?;
        }
        state.admit()?;
        let entry = self.desk.queue(&name).await?;
        allow(&common, &entry)?;
        destination::reach(state, &common).await?;
        let headers = encode(&common.headers)?;
        Ok(Plan { entry, format, common, headers, key, is_atomic })
    }

    /// Reads the body through.
    async fn read(&self, plan: &Plan, payload: Payload) -> Result<Items, Refusal> {
        let (state, headers) = (&self.desk.state, &self.head.headers);
        let limits = state.limits();
        let limit = SizeLimit { bytes_max: limits.batch_bytes_max, setting: Some(BATCH_BYTES_MAX) };
        let chunks = Chunks::open(payload, headers, limit, limits, &state.bodies, self.connection)?;
        match plan.format {
            Format::Lines => Reader::lines(plan, chunks, state, self.now).all().await,
            Format::Array => {
                let body = chunks.whole().await?;
                Reader::array(plan, &body.bytes, body.share, state, self.now).all().await
            }
        }
    }

    /// Publishes the batch as one unit. A queue that was deleted and made again meanwhile is tried once more.
    async fn publish_whole(&self, mut plan: Plan, items: Items) -> Result<Answer, Refusal> {
        let key = plan.key.take().zip(items.fingerprint);
        let key = key.map(|(key, fingerprint)| IdempotencyKey { key, fingerprint });
        let (mut messages, mut origins) = (Vec::new(), Vec::new());
        for read in items.read {
            let made = read?;
            messages.push(made.message);
            origins.push(made.origin);
        }
        let mut messages: Arc<[NewMessage]> = messages.into();
        let mut is_second_try = false;
        loop {
            let group = Group { queue: plan.entry.queue_ref(), key: key.clone(), messages: messages.clone() };
            let in_flight = self.desk.state.begin_publish()?;
            let result = self.desk.ingester.publish(group, Instant::now() + PUBLISH_TIMEOUT).await;
            drop(in_flight);
            match of_publish(result) {
                Ok(Accepted::New) => {
                    let ids = messages.iter().map(|message| message.id).collect();
                    return Ok(published(StatusCode::ACCEPTED, ids, false));
                }
                Ok(Accepted::Duplicate(first)) => return Ok(published(StatusCode::OK, first, true)),
                Err(NotAccepted::Refused(refusal)) => return Err(refusal),
                Err(NotAccepted::Gone) if is_second_try => return Err(gone()),
                Err(NotAccepted::Gone) => {
                    plan.entry = self.made_again(&plan).await?;
                    messages = remake_all(&plan, &messages, &origins).await?;
                }
            }
            is_second_try = true;
        }
    }

    /// The queue that was made in the place of one that is gone.
    async fn made_again(&self, plan: &Plan) -> Result<Arc<QueueEntry>, Refusal> {
        let asked = self.desk.queue_asked(plan.entry.name.as_str()).await?;
        if asked.generation == plan.entry.generation {
            return Err(gone());
        }
        allow(&plan.common, &asked)?;
        Ok(asked)
    }
}

/// The messages of a batch for the queue that is there now.
async fn remake_all(
    plan: &Plan,
    before: &[NewMessage],
    origins: &[Origin],
) -> Result<Arc<[NewMessage]>, Refusal> {
    let (mut pace, mut messages) = (Pace::default(), Vec::with_capacity(before.len()));
    for (index, (message, origin)) in (0..).zip(before.iter().zip(origins)) {
        messages.push(reader::remake(plan, message, origin, index, &mut pace).await?);
    }
    Ok(messages.into())
}

fn published(status: StatusCode, ids: Vec<MessageId>, duplicate: bool) -> Answer {
    answer::json(status, &BatchPublished { accepted: ids.len() as u64, ids, duplicate })
}

fn gone() -> Refusal {
    Refusal::new(Code::QueueUnknown, "the queue was deleted meanwhile")
}

fn empty() -> Refusal {
    Refusal::new(Code::InvalidValue, "the batch is empty: it has at least one item")
}

/// Whether a batch is one unit, which it is unless `?atomic=false` says otherwise.
fn is_atomic(head: &RequestHead) -> Result<bool, Refusal> {
    let parameters = parameters(&head.uri, &["atomic"])?;
    match once(&parameters, "atomic")? {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            let detail = format!("atomic={:?}: write true or false", shown(other));
            Err(Refusal::new(Code::InvalidValue, detail).parameter("atomic"))
        }
    }
}

#[cfg(test)]
mod tests {
    /// Runs what gives others a turn, where there are none.
    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }
}
