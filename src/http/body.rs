//! Reading a body: whole or not at all, within its size, its time, and the memory that all bodies share.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::bytes::{Bytes, BytesMut};
use actix_http::Payload;
use actix_http::error::PayloadError;
use actix_http::header::{self, HeaderMap};
use futures_util::Stream as _;
use tokio::time::Instant;

use crate::api::code::Code;
use crate::domain::format::{bytes, duration};
use crate::http::budget::{Budget, Share};
use crate::http::connection::Connection;
use crate::http::error::Refusal;
use crate::http::settings::ServerLimits;

/// How often the speed of a body is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A body that came whole, with the memory it takes.
#[derive(Debug)]
pub(super) struct Body {
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// Its part of the budget, for as long as this is kept.
    pub(super) share: Share,
}

/// Refuses what is to be stored when nothing says how long it is, and be it 0: somebody lost the body on its way (RFC 9110, 15.5.12).
pub(super) fn has_length(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let detail = "a body comes with Content-Length or in chunks; one that is empty with Content-Length: 0";
    Err(Refusal::new(Code::LengthRequired, detail).header("Content-Length"))
}

/// The setting of the most bytes that a batch may have, which is refused in words of its own.
pub(super) const BATCH_BYTES_MAX: &str = "server.limits.batch_bytes_max";

/// The most bytes a body may have, and which setting says so.
#[derive(Clone, Copy)]
pub(super) struct SizeLimit {
    /// The bytes.
    pub(super) bytes_max: u64,
    /// The setting; `None` for a limit that is built in.
    pub(super) setting: Option<&'static str>,
}

impl SizeLimit {
    fn refusal(self) -> Refusal {
        let shown = bytes::show(self.bytes_max);
        if let Some(setting) = self.setting {
            let detail = format!("the body is larger than {setting}, which is {shown}");
            let is_batch = setting == BATCH_BYTES_MAX;
            let code = if is_batch { Code::BatchTooLarge } else { Code::PayloadTooLarge };
            Refusal::new(code, detail).setting(setting, Some(self.bytes_max))
        } else {
            let detail = format!("the body is larger than the {shown} that are taken here");
            Refusal::new(Code::PayloadTooLarge, detail).limit(self.bytes_max)
        }
    }
}

/// The length that a request declares; `None` for a chunked body. The server refuses what is no number.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Reads a body of at most `limit`.
///
/// The first chunk is used as it is when it is all there is. Dropping the future gives all memory back.
pub(super) async fn read(
    payload: Payload,
    headers: &HeaderMap,
    limit: SizeLimit,
    limits: &ServerLimits,
    budget: &Arc<Budget>,
    connection: &Connection,
) -> Result<Body, Refusal> {
    Chunks::open(payload, headers, limit, limits, budget, connection)?.whole().await
}

enum Gathered {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    fn push(&mut self, chunk: Bytes, declared: Option<u64>) {
        match self {
            Self::None => *self = Self::One(chunk),
            Self::One(first) => {
                // Not the whole declared length at once: who declares much and sends little should not get memory for it.
                const ROOM_MAX: usize = 64 << 10;
                let declared = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                let room = (first.len() + chunk.len()).max(declared.min(ROOM_MAX));
                let mut all = BytesMut::with_capacity(room);
                all.extend_from_slice(first);
                all.extend_from_slice(&chunk);
                *self = Self::Many(all);
            }
            Self::Many(all) => all.extend_from_slice(&chunk),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(chunk) => chunk,
            Self::Many(all) => all.freeze(),
        }
    }
}

/// A body as it comes, within its limits.
pub(super) struct Chunks<'r> {
    /// `None` once it was refused.
    payload: Option<Payload>,
    declared: Option<u64>,
    limit: SizeLimit,
    limits: &'r ServerLimits,
    connection: &'r Connection,
    /// Of all that came, kept or not.
    share: Share,
    length: u64,
    /// How long chunks were waited for, but for the present wait, and when that began: what is done with them in between is not the
    /// client's time.
    waited: Duration,
    waits_since: Option<Instant>,
}

impl<'r> Chunks<'r> {
    /// Of a body of at most `limit`. What is too large is refused here where its length is declared, and at the first byte too many
    /// where it is not.
    pub(super) fn open(
        payload: Payload,
        headers: &HeaderMap,
        limit: SizeLimit,
        limits: &'r ServerLimits,
        budget: &Arc<Budget>,
        connection: &'r Connection,
    ) -> Result<Self, Refusal> {
        let declared = declared(headers);
        if declared.is_some_and(|length| length > limit.bytes_max) {
            return Err(limit.refusal().unread(payload));
        }
        Ok(Self {
            payload: Some(payload),
            declared,
            limit,
            limits,
            connection,
            share: budget.share(),
            length: 0,
            waited: Duration::ZERO,
            waits_since: None,
        })
    }

    /// The next chunk; `None` at the end, and behind a refusal. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        poll_fn(|context| self.poll(context)).await.map_err(|refusal| match self.payload.take() {
            Some(rest) => refusal.unread(rest),
            None => refusal,
        })
    }

    /// The whole body.
    pub(super) async fn whole(mut self) -> Result<Body, Refusal> {
        let mut gathered = Gathered::None;
        while let Some(chunk) = self.next().await? {
            gathered.push(chunk, self.declared);
        }
        Ok(Body { bytes: gathered.into_bytes(), share: self.share })
    }

    /// The part of the budget that the body has.
    pub(super) fn into_share(self) -> Share {
        self.share
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        // Not waiting for the end as well: where a client asks for an upgrade, the server sees none.
        let is_whole = self.declared == Some(self.length);
        let Some(payload) = self.payload.as_mut().filter(|_| !is_whole) else { return Poll::Ready(Ok(None)) };
        let polled = Pin::new(payload).poll_next(context);
        if polled.is_ready()
            && let Some(since) = self.waits_since.take()
        {
            self.waited += since.elapsed();
        }
        match polled {
            Poll::Ready(Some(Ok(chunk))) => Poll::Ready(self.take(&chunk).map(|()| Some(chunk))),
            Poll::Ready(None) => Poll::Ready(self.ended().map(|()| None)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(broken(&error))),
            Poll::Pending => self.poll_slow(context).map(Err),
        }
    }

    fn take(&mut self, chunk: &Bytes) -> Result<(), Refusal> {
        let length = chunk.len() as u64;
        self.length += length;
        if self.length > self.limit.bytes_max {
            return Err(self.limit.refusal());
        }
        if self.declared.is_some_and(|declared| self.length > declared) {
            return Err(Refusal::new(Code::Malformed, "the body is longer than its Content-Length"));
        }
        if !self.share.grow(length) {
            let setting = "server.limits.bodies_bytes_max";
            let detail = format!("the bodies of all requests together are larger than {setting}");
            return Err(
                Refusal::new(Code::Overloaded, detail).setting(setting, Some(self.limits.bodies_bytes_max))
            );
        }
        Ok(())
    }

    /// The server ends a body that is too short with an error; this is the last line before a truncated message.
    fn ended(&self) -> Result<(), Refusal> {
        match self.declared {
            Some(declared) if declared != self.length => Err(ended_early()),
            _ => Ok(()),
        }
    }

    /// Ready when the client is too slow; else the task is woken to look again.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        let now = Instant::now();
        let since = *self.waits_since.get_or_insert(now);
        let (limits, so_far) = (self.limits, self.waited + now.duration_since(since));
        if so_far >= limits.body_timeout {
            let detail = format!("the body did not arrive within {}", duration::show(limits.body_timeout));
            return Poll::Ready(
                Refusal::new(Code::RequestTimeout, detail).setting("server.limits.body_timeout", None),
            );
        }
        let least = limits.body_bytes_per_s_min.saturating_mul(so_far.as_secs());
        if so_far >= limits.body_rate_after && self.length < least {
            let rate = limits.body_bytes_per_s_min;
            let detail = format!("the body arrives at less than {}/s", bytes::show(rate));
            let setting = "server.limits.body_bytes_per_s_min";
            return Poll::Ready(Refusal::new(Code::RequestTimeout, detail).setting(setting, Some(rate)));
        }
        let next_look = (so_far + LOOK_EVERY).max(limits.body_rate_after).min(limits.body_timeout);
        match self.connection.poll_until(context, now + next_look.saturating_sub(so_far)) {
            // It passed while we looked: look again at once.
            Poll::Ready(()) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn broken(error: &PayloadError) -> Refusal {
    match error {
        PayloadError::Incomplete(_) => ended_early(),
        error => Refusal::new(Code::Malformed, format!("the body cannot be read: {error}")),
    }
}

fn ended_early() -> Refusal {
    Refusal::new(Code::Malformed, "the body ended before it was whole; nothing was stored")
}

#[cfg(test)]
mod tests {
    use actix_http::h1;

    use super::*;

    const LIMIT: SizeLimit = SizeLimit { bytes_max: 10, setting: Some("limits.payload_max") };

    /// What the socket brings.
    enum Part {
        Data(Bytes),
        End,
        Reset,
    }
    use Part::{Data, End, Reset};

    fn data(text: &'static str) -> Part {
        Data(Bytes::from_static(text.as_bytes()))
    }

    async fn read_within(
        budget: &Arc<Budget>,
        limits: &ServerLimits,
        declared: Option<&'static str>,
        parts: impl IntoIterator<Item = Part>,
    ) -> Result<Body, Refusal> {
        let (mut sender, payload) = h1::Payload::create(false);
        for part in parts {
            match part {
                Data(bytes) => sender.feed_data(bytes),
                End => sender.feed_eof(),
                Reset => sender.set_error(PayloadError::Incomplete(None)),
            }
        }
        let mut headers = HeaderMap::new();
        if let Some(length) = declared {
            headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static(length));
        }
        let connection = Connection::default();
        read(Payload::H1 { payload }, &headers, LIMIT, limits, budget, &connection).await
    }

    async fn read_parts(
        declared: Option<&'static str>,
        parts: impl IntoIterator<Item = Part>,
    ) -> Result<Vec<u8>, &'static str> {
        let budget = Budget::new(16);
        let result = code(read_within(&budget, &ServerLimits::default(), declared, parts).await);
        assert_eq!(budget.used(), 0);
        result
    }

    fn code(result: Result<Body, Refusal>) -> Result<Vec<u8>, &'static str> {
        result.map(|body| body.bytes.to_vec()).map_err(|refusal| refusal.code().word())
    }

    #[tokio::test]
    async fn one_chunk_is_used_as_it_is_and_several_become_one() {
        let (budget, limits) = (Budget::new(16), ServerLimits::default());
        let chunk = Bytes::from(b"hello".to_vec());
        let parts = [Data(chunk.clone()), End];
        let body = read_within(&budget, &limits, Some("5"), parts).await.expect("whole");
        assert_eq!(body.bytes.as_ptr(), chunk.as_ptr());
        assert_eq!(budget.used(), 5);
        drop(body);
        assert_eq!(budget.used(), 0);
        assert_eq!(read_parts(None, [data("ab"), data(""), data("cde"), End]).await, Ok(b"abcde".to_vec()));
    }

    #[tokio::test]
    async fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
        let whole = || Ok(b"0123456789".to_vec());
        assert_eq!(read_parts(Some("10"), [data("0123456789"), End]).await, whole());
        assert_eq!(read_parts(None, [data("01234"), data("56789"), End]).await, whole());
        assert_eq!(read_parts(Some("11"), []).await, Err("payload_too_large"));
        assert_eq!(
            read_parts(None, [data("01234"), data("56789"), data("x")]).await,
            Err("payload_too_large")
        );
        assert_eq!(read_parts(None, [End]).await, Ok(vec![]));
        assert_eq!(read_parts(Some("0"), [End]).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn what_ends_early_is_never_taken_for_whole() {
        assert_eq!(read_parts(Some("5"), [data("abc"), End]).await, Err("malformed"));
        assert_eq!(read_parts(Some("5"), [data("abc"), Reset]).await, Err("malformed"));
        assert_eq!(read_parts(None, [data("abc"), Reset]).await, Err("malformed"));
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_come_one_by_one_and_only_waiting_for_them_is_the_time_of_the_client() {
        let (budget, connection) = (Budget::new(16), Connection::default());
        let limits = ServerLimits { body_bytes_per_s_min: 0, ..ServerLimits::default() };
        let (mut sender, payload) = h1::Payload::create(false);
        let payload = Payload::H1 { payload };
        let headers = HeaderMap::new();
        let mut chunks =
            Chunks::open(payload, &headers, LIMIT, &limits, &budget, &connection).expect("within");
        let seconds = async |count| tokio::time::sleep(Duration::from_secs(count)).await;
        for text in ["ab", "cde", "f"] {
            let ((), chunk) = tokio::join!(
                async {
                    seconds(3).await;
                    sender.feed_data(Bytes::from_static(text.as_bytes()));
                },
                chunks.next()
            );
            assert_eq!(chunk.expect("in time").as_deref(), Some(text.as_bytes()));
            seconds(100).await;
        }
        assert_eq!(budget.used(), 6, "what was handed on counts");
        let before = Instant::now();
        let refusal = chunks.next().await.expect_err("cut");
        assert_eq!((refusal.code(), before.elapsed().as_secs()), (Code::RequestTimeout, 1), "ten in all");
        assert_eq!(
            chunks.next().await.map_err(|refusal| refusal.code()),
            Ok(None),
            "there is no more to come"
        );
        drop(chunks);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn all_bodies_together_stay_within_the_budget() {
        let (budget, limits) = (Budget::new(16), ServerLimits::default());
        let held = read_within(&budget, &limits, None, [data("0123456789"), End]).await.expect("room");
        let refused = read_within(&budget, &limits, None, [data("0123456"), End]).await;
        assert_eq!(code(refused), Err("overloaded"));
        assert_eq!(budget.used(), 10);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_trickles_is_cut() {
        let (budget, limits) = (Budget::new(16), ServerLimits::default());
        let before = Instant::now();
        assert_eq!(code(read_within(&budget, &limits, Some("5"), []).await), Err("request_timeout"));
        assert_eq!(before.elapsed().as_secs(), 5, "nothing at all is less than 1 KiB/s");

        let unlimited = ServerLimits { body_bytes_per_s_min: 0, ..ServerLimits::default() };
        let before = Instant::now();
        let refusal = read_within(&budget, &unlimited, None, [data("x")]).await.expect_err("cut");
        assert_eq!(refusal.problem().setting.as_deref(), Some("server.limits.body_timeout"));
        assert_eq!(before.elapsed().as_secs(), 10);
    }
}
