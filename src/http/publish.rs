//! Publishing one message: the body is the payload, the options are headers. The one hot path, so written to be lean: no
//! router, no extractor, no buffer between the socket and the record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::header::HeaderMap;
use actix_http::{Payload, RequestHead};
use tokio::time::Instant;

use crate::api::code::Code;
use crate::domain::id::{MessageId, Shard};
use crate::domain::message::{HEADERS_BYTES_MAX, Headers, HeadersTooLarge};
use crate::domain::record::{self, Head};
use crate::domain::timestamp::Timestamp;
use crate::http::answer::{self, Answer, RequestId};
use crate::http::body::{self, SizeLimit};
use crate::http::connection::Connection;
use crate::http::destination;
use crate::http::error::{Accepted, NotAccepted, Refusal, of_publish};
use crate::http::extract::{decode, parameters, queue_name};
use crate::http::fingerprint::Fingerprint;
use crate::http::options::{Options, check_loop, credential_refused};
use crate::http::state::Desk;
use crate::store::QueueEntry;
use crate::store::enqueue::{Due, Group, IdempotencyKey, NewMessage};

/// How long a publisher waits for the store before it is told that the outcome is unknown: longer than any healthy commit,
/// shorter than the patience of most clients.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The queue's segment in the path of a publish as it is usually written; `None` for every other request.
pub(super) fn segment_of(head: &RequestHead) -> Option<&str> {
    let rest = head.uri.path().strip_prefix("/v1/queues/")?;
    let (segment, rest) = rest.split_once('/')?;
    (rest == "messages" && head.method == actix_http::Method::POST).then_some(segment)
}

/// Whether a request wants something published, however it is written and whether or not there is such a route: its refusal
/// then says whether anything was stored.
pub(super) fn is_meant(head: &RequestHead) -> bool {
    let mut segments = head.uri.path().split('/');
    let mut is_next = |name: &str| {
        segments.next().is_some_and(|segment| segment == name || decode(segment).as_deref() == Some(name))
    };
    head.method == actix_http::Method::POST
        && ["", "v1", "queues"].into_iter().all(&mut is_next)
        && segments.nth(1).is_some_and(|segment| decode(segment).as_deref() == Some("messages"))
}

/// Publishes one message and answers.
pub(super) async fn publish(
    desk: &Desk,
    head: &RequestHead,
    segment: &str,
    payload: Payload,
    connection: &Rc<Connection>,
    id: RequestId,
) -> Answer {
    let now = desk.state.gateway.clock.now();
    let mut request = Publish { desk, head, connection, now, is_keyed: false };
    match request.run(segment, payload).await {
        Ok((Accepted::New, entry, message)) => answer::accepted(&entry.name, message, id),
        Ok((Accepted::Duplicate(first), entry, _)) => answer::duplicate(&entry.name, first[0], id),
        Err(refusal) => {
            let stored = refusal.stored(request.is_keyed);
            answer::refusal(refusal.of_publish(request.is_keyed), id, Some(stored))
        }
    }
}

struct Publish<'r> {
    desk: &'r Desk,
    head: &'r RequestHead,
    connection: &'r Rc<Connection>,
    now: Timestamp,
    is_keyed: bool,
}

impl Publish<'_> {
    /// What can be judged without the body comes first; of that, what will never pass before what cannot pass now.
    async fn run(
        &mut self,
        segment: &str,
        payload: Payload,
    ) -> Result<(Accepted, Arc<QueueEntry>, MessageId), Refusal> {
        match self.prepare(segment).await {
            Ok((options, entry)) => self.store(options, entry, payload).await,
            Err(refusal) => Err(refusal.unread(payload)),
        }
    }

    async fn prepare(&mut self, segment: &str) -> Result<(Options, Arc<QueueEntry>), Refusal> {
        let state = &self.desk.state;
        let name = queue_name(segment)?;
        parameters(&self.head.uri, &[])?;
        body::has_length(&self.head.headers)?;
        let options = Options::read(&self.head.headers, state.limits(), self.now)?;
        self.is_keyed = options.key.is_some();
        // Nearly no request has one, and the id is no constant.
        if let Some(via) = &options.headers.via {
            check_loop(via, &state.gateway.store.id())?;
        }
        state.admit()?;
        let entry = self.desk.queue(&name).await?;
        allow(&options, &entry)?;
        destination::need(&options, &entry)?;
        destination::reach(state, &options).await?;
        Ok((options, entry))
    }

    async fn store(
        &self,
        options: Options,
        mut entry: Arc<QueueEntry>,
        payload: Payload,
    ) -> Result<(Accepted, Arc<QueueEntry>, MessageId), Refusal> {
        let state = &self.desk.state;
        let bytes_max = entry.settings.limits.payload_max;
        let limit = SizeLimit { bytes_max, setting: Some("limits.payload_max") };
        let headers = &self.head.headers;
        let body =
            body::read(payload, headers, limit, state.limits(), &state.bodies, self.connection).await?;
        let (accepted, message) = keep(self.desk, &options, &mut entry, &body.bytes, self.now).await?;
        Ok((accepted, entry, message))
    }
}

/// Publishes one message without a request: for a program that embeds the gateway. The options are the headers of a publish.
pub(super) async fn publish_here(
    desk: &Desk,
    queue: &str,
    headers: &HeaderMap,
    payload: &[u8],
) -> Result<(Accepted, MessageId), Refusal> {
    let (state, now) = (&desk.state, desk.state.gateway.clock.now());
    let name = queue_name(queue)?;
    let options = Options::read(headers, state.limits(), now)?;
    state.admit()?;
    let mut entry = desk.queue(&name).await?;
    allow(&options, &entry)?;
    destination::need(&options, &entry)?;
    destination::reach(state, &options).await?;
    let bytes_max = entry.settings.limits.payload_max;
    if payload.len() as u64 > bytes_max {
        let detail = format!("the payload has {} bytes: limits.payload_max is {bytes_max}", payload.len());
        return Err(
            Refusal::new(Code::PayloadTooLarge, detail).setting("limits.payload_max", Some(bytes_max))
        );
    }
    keep(desk, &options, &mut entry, payload, now).await
}

/// Has the store keep one message. A queue that was deleted and made again meanwhile is tried once more, and `entry` is then
/// the new one.
async fn keep(
    desk: &Desk,
    options: &Options,
    entry: &mut Arc<QueueEntry>,
    payload: &[u8],
    now: Timestamp,
) -> Result<(Accepted, MessageId), Refusal> {
    let mut is_second_try = false;
    loop {
        let _in_flight = desk.state.begin_publish()?;
        let (group, message) = group(options, entry, payload, now)?;
        let result = desk.ingester.publish(group, Instant::now() + PUBLISH_TIMEOUT).await;
        match of_publish(result) {
            Ok(accepted) => return Ok((accepted, message)),
            Err(NotAccepted::Refused(refusal)) => return Err(refusal),
            Err(NotAccepted::Gone) => {
                let asked = desk.queue_asked(entry.name.as_str()).await?;
                if is_second_try || asked.generation == entry.generation {
                    return Err(Refusal::new(Code::QueueUnknown, "the queue was deleted meanwhile"));
                }
                allow(options, &asked)?;
                *entry = asked;
                is_second_try = true;
            }
        }
    }
}

/// The group of one message that the store is asked to keep.
fn group(
    options: &Options,
    entry: &QueueEntry,
    payload: &[u8],
    now: Timestamp,
) -> Result<(Group, MessageId), Refusal> {
    let headers = encode(&options.headers)?;
    let message = message(options, &headers, entry, payload, now);
    let id = message.id;
    let key = options
        .key
        .as_ref()
        .map(|key| IdempotencyKey { key: key.clone(), fingerprint: Fingerprint::of(options, payload) });
    Ok((Group { queue: entry.queue_ref(), key, messages: Arc::new([message]) }, id))
}

/// What is kept of the headers of a message.
pub(super) fn encode(headers: &Headers) -> Result<Vec<u8>, Refusal> {
    headers.encode().map_err(|HeadersTooLarge(bytes)| {
        let detail = format!(
            "the headers to keep with the message have {bytes} bytes: at most {HEADERS_BYTES_MAX} are kept"
        );
        Refusal::new(Code::HeadTooLarge, detail).limit(HEADERS_BYTES_MAX as u64)
    })
}

/// One new message; `headers` are the encoded ones of its options.
pub(super) fn message(
    options: &Options,
    headers: &[u8],
    entry: &QueueEntry,
    payload: &[u8],
    now: Timestamp,
) -> NewMessage {
    let settings = &entry.settings;
    let random = fastrand::u128(..).to_be_bytes();
    let random = random.first_chunk().expect("16 bytes have 10");
    let head = Head {
        id: MessageId::new(now, *random, Shard::default()),
        attempts_max: options.attempts_max.unwrap_or_else(|| settings.attempts_max()),
        priority: options.priority.unwrap_or(settings.priority),
        accepted_at: now,
        ttl: options.ttl.or(settings.ttl),
    };
    NewMessage {
        id: head.id,
        priority: head.priority,
        due: options.due.unwrap_or(Due::Now),
        record: record::encode(&head, headers, payload),
    }
}

/// What this queue does not take.
pub(super) fn allow(options: &Options, entry: &QueueEntry) -> Result<(), Refusal> {
    destination::allow(options, entry)?;
    match options.credential() {
        Some(name) if !entry.settings.delivery.forward_credentials => Err(credential_refused(name)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use actix_http::Method;
    use actix_http::uri::Uri;

    use super::*;

    #[test]
    fn only_a_publish_as_it_is_usually_written_is_matched_by_hand() {
        for (method, path, expected) in [
            (Method::POST, "/v1/queues/orders/messages", Some("orders")),
            (Method::POST, "/v1/queues/orders/messages?x=1", Some("orders")),
            (Method::POST, "/v1/queues/a%2Fb/messages", Some("a%2Fb")),
            (Method::POST, "/v1/queues//messages", Some("")),
            (Method::GET, "/v1/queues/orders/messages", None),
            (Method::POST, "/v1/queues/orders/messages/", None),
            (Method::POST, "/v1/queues/orders/messages/batch", None),
            (Method::POST, "/v1/queues/orders/%6Dessages", None),
            (Method::POST, "/v1/queues/orders", None),
            (Method::POST, "/v2/queues/orders/messages", None),
        ] {
            let mut head = RequestHead::default();
            head.method = method;
            head.uri = path.parse::<Uri>().expect("a target");
            assert_eq!(segment_of(&head), expected, "{path}");
        }
    }

    #[test]
    fn whatever_posts_to_messages_means_to_publish() {
        for (method, path, expected) in [
            (Method::POST, "/v1/queues/orders/messages", true),
            (Method::POST, "/v1/queues/a%2Fb/messages?x=1", true),
            (Method::POST, "/v1/queues/orders/%6Dessages", true),
            (Method::POST, "/v1/queues/orders/messages/", true),
            (Method::POST, "/v1/queues/orders/messages/batch", true),
            (Method::POST, "/v1/queues/orders/messages/x/y", true),
            (Method::GET, "/v1/queues/orders/messages", false),
            (Method::POST, "/v1/queues/orders/leases", false),
            (Method::POST, "/v1/queues/messages", false),
            (Method::POST, "/v1/queues/orders", false),
            (Method::POST, "/v2/queues/orders/messages", false),
            (Method::POST, "/", false),
        ] {
            let mut head = RequestHead::default();
            head.method = method;
            head.uri = path.parse::<Uri>().expect("a target");
            assert_eq!(is_meant(&head), expected, "{path}");
        }
    }
}
