//! Pulling: leasing messages, settling and extending the leases.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::StatusCode;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, sleep_until};

use super::Call;
use crate::api::Leases;
use crate::api::code::Code;
use crate::api::lease::{
    self, Ending, LeaseOrder, LeasedMessage, Named, ReceiptFate, ReceiptResult, ReceiptResults,
};
use crate::api::message::Message;
use crate::domain::message::{HEADERS_BYTES_MAX, Headers, State};
use crate::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use crate::domain::phases::Phases;
use crate::domain::queue::QueueName;
use crate::domain::retry::{RetryPolicy, Verdict};
use crate::domain::timestamp::Timestamp;
use crate::http::answer::{self, Answer};
use crate::http::body::{self, Body, SizeLimit};
use crate::http::connection::Connection;
use crate::http::error::{Refusal, of_store, shutting_down};
use crate::http::extract::{json_type, parameters, queue_name};
use crate::http::handout;
use crate::http::state::{Desk, State as Edge};
use crate::pipeline::consumers::{Parcel, Refused, Wish};
use crate::store::error::{StoreError, Stored};
use crate::store::lease::{BatchId, BatchRef, Extended, Lease, Receipt, Settled, Settlement, Token};
use crate::store::{MessageStore, QueueEntry};

/// Bytes of a lease's body: many times what it may say.
const LEASE_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 16 << 10, setting: None };
/// Bytes of a settle's or extend's body: a thousand receipts, each with a reason in which every letter is escaped, would be 6 MiB.
const RECEIPTS_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 8 << 20, setting: None };
/// How long the store may take, beyond what a consumer waits.
const STORE_WITHIN: Duration = Duration::from_secs(10);
/// How often one that waits for the store beyond its time looks whether it is known to be away.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause before a call whose answer was lost is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Calls that one request has under way at once: a store that commits many together then has something to gather.
const CALLS_MAX: usize = 16;

/// Leases messages; waits for them as long as it was asked to.
pub(super) async fn lease(call: Call) -> Result<Answer, Refusal> {
    let (desk, connection, name, body) = read(call, LEASE_BYTES_MAX).await?;
    let order = lease::read_lease(&body.bytes)?;
    drop(body);
    let until = Instant::now() + order.wait;
    let mut entry = pull_queue(desk.queue(name.as_str()).await?)?;
    let mut is_asked = false;
    loop {
        match wait(&desk, &connection, &entry, &order, until).await? {
            Ok(Some(parcel)) => {
                if let Some(answer) = hand_out(&desk, &connection, &entry, &order, parcel).await {
                    return Ok(answer);
                }
            }
            Ok(None) => return Ok(answer::json(StatusCode::OK, &Leases::default())),
            // It may have been made anew since it was looked up.
            Err(Refused::Gone) if !is_asked => {
                is_asked = true;
                entry = pull_queue(desk.queue_asked(name.as_str()).await?)?;
            }
            Err(refused) => return Err(of_refused(&desk.state, &refused)),
        }
    }
}

async fn wait(
    desk: &Desk,
    connection: &Connection,
    entry: &QueueEntry,
    order: &LeaseOrder,
    until: Instant,
) -> Result<Result<Option<Parcel>, Refused>, Refusal> {
    let wish = Wish {
        queue: entry.queue_ref(),
        max: order.max,
        message_bytes_max: entry.settings.limits.payload_max + HEADERS_BYTES_MAX as u64,
        lease: order.lease.unwrap_or_else(|| entry.settings.lease()),
        until,
    };
    let waiting = match desk.state.gateway.consumers.ask(wish) {
        Ok(waiting) => waiting,
        Err(refused) => return Ok(Err(refused)),
    };
    let answered = async {
        tokio::select! {
            biased;
            reply = waiting => Ok(reply),
            refusal = over(&desk.state, until) => Err(refusal),
        }
    };
    // Where nobody is there any more what is answered does not matter.
    connection.unless_closed(answered).await.unwrap_or(Ok(Ok(None)))
}

/// Resolves after `until` with why the store gave no answer: at once where it is known to be away.
async fn over(state: &Edge, until: Instant) -> Refusal {
    sleep_until(until).await;
    let last = Instant::now() + STORE_WITHIN;
    loop {
        if let Some(refusal) = state.store_is_away() {
            return refusal;
        }
        if Instant::now() >= last {
            let detail = "the store did not say in time what it leased: what it did goes back by itself";
            return Refusal::new(Code::StoreTimeout, detail);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The answer that hands a parcel out; `None` when nothing in it can be read.
async fn hand_out(
    desk: &Desk,
    connection: &Rc<Connection>,
    entry: &QueueEntry,
    order: &LeaseOrder,
    parcel: Parcel,
) -> Option<Answer> {
    let Parcel { batch, until, leases, hold } = parcel;
    let lease_for = order.lease.unwrap_or_else(|| entry.settings.lease());
    let leased_at = until.saturating_sub(lease_for);
    let (mut sound, mut damaged) = (Vec::with_capacity(leases.len()), Vec::new());
    for lease in leases {
        match Headers::decode(&lease.record.headers()) {
            Some(headers) => sound.push(leased(entry, &batch, &lease, headers, (leased_at, until))),
            None => damaged.push(lease),
        }
    }
    if !damaged.is_empty() {
        let verdict = Verdict::Dead {
            reason: DeadReason::Damaged,
            detail: Some("its headers cannot be read".to_owned()),
        };
        let settlements = damaged.into_iter().map(|lease| lease.settle(verdict.clone(), None)).collect();
        // Where that fails they come again when their lease is over.
        drop(desk.store.settle(batch, Arc::new(settlements)).await);
    }
    if sound.is_empty() {
        return None;
    }
    Some(handout::answer(sound, order.payload_as, hold, connection.clone()).await)
}

/// A leased message as the API shows it, and its payload.
fn leased(
    entry: &QueueEntry,
    batch: &BatchRef,
    lease: &Lease,
    headers: Headers,
    (leased_at, until): (Timestamp, Timestamp),
) -> (LeasedMessage, Bytes) {
    let record = &lease.record;
    let (token, index, attempt) = (batch.token, lease.index, lease.attempt_number());
    let receipt = Receipt { batch: batch.batch, token, index, attempt, leased_at };
    let payload = record.payload();
    let message = Message {
        id: record.id(),
        queue: entry.name.clone(),
        state: State::Leased,
        reason: None,
        priority: Some(record.priority()),
        published_at: record.accepted_at(),
        deliver_at: headers.deliver_at,
        expires_at: record.expires_at(),
        died_at: None,
        destination: None,
        content_type: Some(headers.content_type),
        payload_bytes: Some(payload.len() as u64),
        max_attempts: Some(record.attempts_max()),
        attempt_count: record.attempts(),
        attempts: Vec::new(),
        next_attempt_at: None,
        payload: None,
        payload_base64: None,
    };
    let leased = LeasedMessage {
        message,
        receipt: receipt.to_string(),
        attempt,
        lease_until: until,
        headers: headers.forward.into_iter().collect(),
        traceparent: headers.traceparent,
        tracestate: headers.tracestate,
    };
    (leased, payload)
}

/// Ends leases.
pub(super) async fn settle(call: Call) -> Result<Answer, Refusal> {
    let (desk, _connection, name, body) = read(call, RECEIPTS_BYTES_MAX).await?;
    let named = parsed(lease::read_settle(&body.bytes)?)?;
    drop(body);
    // Whatever works for the queue now: who holds a receipt has the message.
    let entry = desk.queue_in_store(name.as_str()).await?;
    let now = desk.state.gateway.clock.now();
    let settlement = |receipt: &Receipt, ending| settlement(&entry, receipt, ending, now);
    let batches = by_batch(&named);
    let calls = batches.into_iter().map(|(batch, places)| {
        let settlements: Vec<_> =
            places.iter().map(|place| settlement(&named[*place].0, &named[*place].2)).collect();
        let (settlements, batch, desk) = (Arc::new(settlements), batch.of(&entry), desk.clone());
        async move {
            let results = insist(&desk, |store| store.settle(batch.clone(), settlements.clone())).await;
            results.map(|results| (places, results))
        }
    });
    let mut fates = vec![ReceiptFate::Lost; named.len()];
    let mut calls = stream::iter(calls).buffer_unordered(CALLS_MAX);
    while let Some(ended) = calls.next().await {
        match ended {
            Ok((places, results)) => {
                for (place, result) in places.into_iter().zip(results) {
                    if result == Settled::Settled {
                        fates[place] = ReceiptFate::Settled;
                    }
                }
            }
            Err(StoreError::Gone) => {}
            Err(error) => return Err(of_store(&error)),
        }
    }
    drop(calls);
    let fates = fates.into_iter().map(|fate| (fate, None));
    Ok(results(named.into_iter().map(|(_, text, _)| text).zip(fates)))
}

/// Extends leases.
pub(super) async fn extend(call: Call) -> Result<Answer, Refusal> {
    let (desk, _connection, name, body) = read(call, RECEIPTS_BYTES_MAX).await?;
    let order = lease::read_extend(&body.bytes)?;
    let named = parsed(order.receipts)?;
    drop(body);
    let entry = desk.queue_in_store(name.as_str()).await?;
    let lease_for = order.lease.unwrap_or_else(|| entry.settings.lease());
    let calls = by_batch(&named).into_iter().map(|(batch, places)| {
        let (batch, desk) = (batch.of(&entry), desk.clone());
        let indices: Arc<[u16]> = places.iter().map(|place| named[*place].0.index).collect();
        async move {
            let extended =
                insist(&desk, |store| store.extend_leases(batch.clone(), indices.clone(), lease_for)).await;
            extended.map(|extended| (places, extended))
        }
    });
    let mut fates = vec![(ReceiptFate::Lost, None); named.len()];
    let mut calls = stream::iter(calls).buffer_unordered(CALLS_MAX);
    while let Some(ended) = calls.next().await {
        match ended {
            Ok((places, extended)) => {
                for (place, extended) in places.into_iter().zip(extended) {
                    if let Extended::Until(until) = extended {
                        fates[place] = (ReceiptFate::Extended, Some(until));
                    }
                }
            }
            Err(StoreError::Gone) => {}
            Err(error) => return Err(of_store(&error)),
        }
    }
    drop(calls);
    Ok(results(named.into_iter().map(|(_, text, ())| text).zip(fates)))
}

/// How a lease ends as its consumer says.
fn settlement(entry: &QueueEntry, receipt: &Receipt, ending: &Ending, now: Timestamp) -> Settlement {
    let (verdict, outcome, error) = match ending {
        Ending::Ack => (Verdict::Ack, AttemptOutcome::Delivered, None),
        Ending::Retry { delay, reason } => {
            // When its attempts are used up the store knows it.
            let policy = RetryPolicy::of(&entry.settings, u8::MAX);
            let delay = delay.unwrap_or_else(|| policy.backoff(receipt.attempt, fastrand::f64()));
            (Verdict::Retry { delay }, AttemptOutcome::Retry, reason.clone())
        }
        Ending::Reject { reason } => {
            let verdict = Verdict::Dead { reason: DeadReason::Rejected, detail: reason.clone() };
            (verdict, AttemptOutcome::Rejected, reason.clone())
        }
        Ending::Release => {
            return Settlement { index: receipt.index, verdict: Verdict::Release, attempt: None, gist: None };
        }
    };
    let at = receipt.leased_at.min(now);
    let attempt = Attempt {
        number: receipt.attempt,
        at,
        duration_ms: u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX),
        outcome,
        status: None,
        error,
        excerpt: None,
        phases: Phases::NONE,
        next_at: None,
    };
    Settlement { index: receipt.index, verdict, attempt: Some(attempt), gist: None }
}

/// Reads what every one of these requests has: a queue's name, and a body in JSON that may be empty.
async fn read(call: Call, limit: SizeLimit) -> Result<(Rc<Desk>, Rc<Connection>, QueueName, Body), Refusal> {
    let name = match target(&call) {
        Ok(name) => name,
        Err(refusal) => return Err(refusal.unread(call.payload)),
    };
    let Call { desk, request, payload, connection, .. } = call;
    let (state, headers) = (&desk.state, request.headers());
    let body = body::read(payload, headers, limit, state.limits(), &state.bodies, &connection).await?;
    if !body.bytes.is_empty() {
        json_type(headers, "what is said of leases is")?;
    }
    Ok((desk, connection, name, body))
}

fn target(call: &Call) -> Result<QueueName, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    parameters(call.request.uri(), &[])?;
    Ok(name.parse().expect("queue_name gives valid names only"))
}

/// The queue, if consumers pull from it.
fn pull_queue(entry: Arc<QueueEntry>) -> Result<Arc<QueueEntry>, Refusal> {
    if entry.settings.is_pull() {
        return Ok(entry);
    }
    let (name, processor) = (&entry.name, &entry.settings.processor);
    let detail = format!(
        "queue {name} has the processor {processor:?}, which takes its messages by itself: consumers pull from queues whose \
         processor is \"pull\""
    );
    Err(Refusal::new(Code::QueueNotPull, detail).setting("processor", None))
}

fn of_refused(state: &Edge, refused: &Refused) -> Refusal {
    match refused {
        Refused::Overloaded => {
            let (setting, limit) = ("server.limits.consumers_max", u64::from(state.limits().consumers_max));
            let detail = format!("too many consumers ask for messages: {setting} is {limit}");
            Refusal::new(Code::Overloaded, detail).setting(setting, Some(limit))
        }
        Refused::AnswersFull => {
            state.too_many_answers("answers of this queue that are not taken yet hold too much")
        }
        Refused::ShuttingDown => shutting_down(),
        Refused::Gone => of_store(&StoreError::Gone),
        Refused::Store(error) => of_store(error),
        Refused::Broken => Refusal::new(Code::Internal, "what serves consumers broke and was started anew"),
    }
}

/// What was said of which receipt, with its text.
type Said<T> = (Receipt, String, T);

fn parsed<T>(named: Vec<Named<T>>) -> Result<Vec<Said<T>>, Refusal> {
    let parse = |named: Named<T>| match named.receipt.parse() {
        Ok(receipt) => Ok((receipt, named.receipt, named.said)),
        Err(_) => Err(lease::no_receipt(&named.pointer).into()),
    };
    named.into_iter().map(parse).collect()
}

/// A batch, before it is known of which making of its queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Batch(BatchId, Token);

impl Batch {
    fn of(self, entry: &QueueEntry) -> BatchRef {
        BatchRef { queue: entry.queue_ref(), batch: self.0, token: self.1 }
    }
}

/// The places of the receipts of each batch.
fn by_batch<T>(named: &[Said<T>]) -> HashMap<Batch, Vec<usize>> {
    let mut batches: HashMap<_, Vec<usize>> = HashMap::new();
    for (place, (receipt, ..)) in named.iter().enumerate() {
        batches.entry(Batch(receipt.batch, receipt.token)).or_default().push(place);
    }
    batches
}

/// Asks again as long as it is not known what came of it: to settle or extend twice changes nothing. A store that has gone
/// silent meanwhile is not asked again.
async fn insist<'s, T>(
    desk: &'s Desk,
    call: impl Fn(&'s dyn MessageStore) -> LocalBoxFuture<'s, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + STORE_WITHIN;
    let mut result = call(&*desk.store).await;
    while let Err(error) = &result
        && error.stored() == Stored::Unknown
        && Instant::now() + AGAIN_AFTER < deadline
    {
        sleep(AGAIN_AFTER).await;
        let again = tokio::select! {
            biased;
            () = silence(&desk.state) => break,
            again = call(&*desk.store) => again,
        };
        result = again;
    }
    result
}

/// Resolves when the store is known not to answer.
async fn silence(state: &Edge) {
    while state.store_is_silent().is_none() {
        sleep(LOOK_EVERY).await;
    }
}

fn results(all: impl Iterator<Item = (String, (ReceiptFate, Option<Timestamp>))>) -> Answer {
    let result = |(receipt, (result, lease_until))| ReceiptResult { receipt, result, lease_until };
    answer::json(StatusCode::OK, &ReceiptResults { results: all.map(result).collect() })
}
