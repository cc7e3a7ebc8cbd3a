//! Messages: publishing one or many, looking one up, cancelling one.

use std::sync::Arc;

use actix_http::{Method, StatusCode};

use super::Call;
use super::queues::target;
use crate::api::Message;
use crate::api::code::Code;
use crate::domain::format::secret;
use crate::domain::id::MessageId;
use crate::domain::message::{Headers, State};
use crate::domain::queue::HTTP;
use crate::domain::record::Record;
use crate::http::answer::{self, Answer};
use crate::http::error::{Refusal, of_store};
use crate::http::extract::{flag, parameters, queue_name, shown};
use crate::http::payload::Shown;
use crate::store::QueueEntry;
use crate::store::error::StoreError;
use crate::store::stats::{Cancelled, Found};

/// Publishes: for targets that only the router understands, as with a percent-encoded `messages`.
pub(super) async fn publish(call: Call) -> Result<Answer, Refusal> {
    let segment = call.segment("queue").to_owned();
    let Call { desk, request, payload, connection, id } = call;
    Ok(crate::http::publish::publish(&desk, request.head(), &segment, payload, &connection, id).await)
}

/// Publishes many.
pub(super) async fn publish_batch(call: Call) -> Result<Answer, Refusal> {
    let segment = call.segment("queue").to_owned();
    let Call { desk, request, payload, connection, id } = call;
    Ok(crate::http::batch::publish(&desk, request.head(), &segment, payload, &connection, id).await)
}

/// Cancels a message that nobody has leased.
pub(super) async fn cancel(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    call.nothing().await?;
    let mut entry = call.desk.queue_in_store(name.as_str()).await?;
    let text = call.segment("id");
    let Ok(id) = text.parse::<MessageId>() else { return Err(message_unknown(&entry, text)) };
    let mut cancelled = call.desk.store.cancel(entry.queue_ref(), id).await;
    if matches!(cancelled, Err(StoreError::Gone)) {
        entry = call.desk.queue_asked(name.as_str()).await?;
        cancelled = call.desk.store.cancel(entry.queue_ref(), id).await;
    }
    match cancelled.map_err(|error| of_store(&error))? {
        Cancelled::Cancelled => Ok(answer::nothing()),
        Cancelled::Leased => {
            let detail = "a worker or a consumer has the message: it can be cancelled when it is given back or its lease is over";
            Err(Refusal::new(Code::MessageLeased, detail))
        }
        Cancelled::Finished => {
            let detail =
                "the message was delivered or cancelled before, or it is dead: there is nothing to cancel";
            Err(Refusal::new(Code::MessageFinished, detail))
        }
        Cancelled::Unknown if entry.settings.lookup => Err(message_unknown(&entry, text)),
        Cancelled::Unknown => Err(lookup_off()),
    }
}

/// Shows where a message is and what was tried.
pub(super) async fn show(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    let parameters = parameters(call.request.uri(), &["payload"])?;
    let with_payload = flag(&parameters, "payload")?;
    let entry = call.desk.queue_in_store(&name).await?;
    // What is no id is the id of no message.
    let text = call.segment("id");
    let Ok(id) = text.parse::<MessageId>() else { return Err(message_unknown(&entry, text)) };
    let state = &call.desk.state;
    let looking = state.begin_look_up(entry.settings.limits.payload_max).await?;
    let (entry, found) = find(&call, entry, id).await?;
    let Some(found) = found else {
        return Err(if entry.settings.lookup { message_unknown(&entry, text) } else { lookup_off() });
    };
    let payload = found.record.as_ref().filter(|_| with_payload).map(Record::payload);
    let message = message(&entry, id, found);
    let Some(payload) = payload else { return Ok(answer::json(StatusCode::OK, &message)) };
    let share = state.take_answer(payload.len() as u64)?;
    drop(looking);
    let shown = Shown::look(payload, share).await;
    Ok(shown.answer(&message, call.request.method() == Method::HEAD))
}

async fn find(
    call: &Call,
    entry: Arc<QueueEntry>,
    id: MessageId,
) -> Result<(Arc<QueueEntry>, Option<Found>), Refusal> {
    let desk = &call.desk;
    match desk.store.find(entry.queue_ref(), id).await {
        Ok(found) => Ok((entry, found)),
        Err(StoreError::Gone) => {
            let entry = desk.queue_asked(entry.name.as_str()).await?;
            let found = desk.store.find(entry.queue_ref(), id).await.map_err(|error| of_store(&error))?;
            Ok((entry, found))
        }
        Err(error) => Err(of_store(&error)),
    }
}

fn message_unknown(entry: &QueueEntry, text: &str) -> Refusal {
    let (text, name) = (shown(text), &entry.name);
    let detail =
        format!("there is no message {text:?} in queue {name}, or it ended and has left the history since");
    Refusal::new(Code::MessageUnknown, detail)
}

fn lookup_off() -> Refusal {
    let detail = "the queue keeps no index of its messages (lookup is false): one that is pending is not found by its id";
    Refusal::new(Code::LookupOff, detail).setting("lookup", None)
}

/// The message as the API shows it, without its payload.
pub(super) fn message(entry: &QueueEntry, id: MessageId, found: Found) -> Message {
    let Found { state, reason, ended_at, due_at, record, finished, mut history, .. } = found;
    history.drain(..history.len().saturating_sub(Message::ATTEMPTS_MAX));
    let mut message = Message {
        id,
        queue: entry.name.clone(),
        state,
        reason,
        priority: None,
        published_at: id.made_at(),
        deliver_at: None,
        expires_at: None,
        died_at: ended_at.filter(|_| state == State::Dead),
        destination: None,
        content_type: None,
        payload_bytes: None,
        max_attempts: None,
        attempt_count: history.last().map_or(0, |attempt| attempt.number),
        attempts: history,
        next_attempt_at: due_at,
        payload: None,
        payload_base64: None,
    };
    if entry.settings.processor == HTTP {
        message.destination = entry.settings.destination.as_ref().map(ToString::to_string);
    }
    if let Some(record) = record {
        let headers = Headers::decode(&record.headers()).unwrap_or_default();
        message.priority = Some(record.priority());
        message.published_at = record.accepted_at();
        message.deliver_at = headers.deliver_at;
        message.expires_at = record.expires_at();
        message.destination = headers.destination.or(message.destination);
        message.content_type = Some(headers.content_type);
        message.payload_bytes = Some(record.payload().len() as u64);
        message.max_attempts = Some(record.attempts_max());
        message.attempt_count = record.attempts();
    } else if let Some(finished) = finished {
        message.priority = Some(finished.priority);
        message.published_at = finished.accepted_at;
        message.content_type = Some(finished.content_type);
        message.payload_bytes = Some(finished.payload_bytes);
        message.max_attempts = Some(finished.attempts_max);
        message.attempt_count = finished.attempts;
    }
    message.destination = message.destination.map(|text| secret::destination(&text).into_owned());
    message
}
