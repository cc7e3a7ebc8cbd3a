//! A payload inside an answer: written piece by piece, as the client takes it.
//!
//! A payload may have 16 MiB, and six times as many in JSON. So neither its text nor its base64 is ever made as a whole: what an
//! answer holds is the payload itself, shared with the record that the store gave, and the piece that is on its way. Its length is
//! counted first, a part at a time, so that the other requests of the thread are served in between.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use crate::http::answer::{self, Answer};
use crate::http::budget::Share;

/// Bytes looked at before others have a turn: some tens of microseconds.
const LOOK_BYTES: usize = 64 << 10;
/// Bytes written in one piece: a multiple of three, so that only the last piece is padded in base64, and so few that a piece fits
/// into the buffer of its connection, unless it is made of control characters.
pub(super) const PIECE_BYTES: usize = 12 << 10;
/// What closes the payload and the message.
const CLOSE: &[u8] = b"\"}";

/// How a payload is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// As a string, since it is valid UTF-8.
    Text,
    /// In base64 (RFC 4648, padded).
    Base64,
}

/// A payload in the form in which it is shown, which is made piece by piece.
#[derive(Debug)]
pub(super) struct Pieces {
    payload: Bytes,
    form: Form,
    /// Bytes of its form in JSON, without the quotes.
    json_bytes: u64,
}

impl Pieces {
    /// A payload as text where it can be, and in base64 elsewhere.
    pub(super) async fn look(payload: Bytes) -> Self {
        match text_bytes(&payload, LOOK_BYTES).await {
            Some(json_bytes) => Self { payload, form: Form::Text, json_bytes },
            None => Self::base64(payload),
        }
    }

    /// A payload in base64, whatever it is.
    pub(super) fn base64(payload: Bytes) -> Self {
        let json_bytes = (payload.len() as u64).div_ceil(3) * 4;
        Self { payload, form: Form::Base64, json_bytes }
    }

    /// The end of a JSON object opened: what comes after its last field and before the payload's form.
    pub(super) fn open(&self, mut object: Vec<u8>) -> Vec<u8> {
        let key = match self.form {
            Form::Text => "payload",
            Form::Base64 => "payload_base64",
        };
        let brace = object.pop();
        debug_assert_eq!(brace, Some(b'}'), "it is an object");
        object.extend_from_slice(format!(r#","{key}":""#).as_bytes());
        object
    }

    /// Bytes of its form and of [`CLOSE`].
    pub(super) fn size(&self) -> u64 {
        self.json_bytes + CLOSE.len() as u64
    }

    /// Writes the next piece of its form, and [`CLOSE`] after the last one; gives whether it was that.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        let piece = self.payload.split_to(self.payload.len().min(PIECE_BYTES));
        match self.form {
            Form::Base64 => out.extend_from_slice(STANDARD.encode(&piece).as_bytes()),
            Form::Text => {
                out.reserve(piece.len() + piece.len() / 8 + CLOSE.len());
                piece.iter().for_each(|byte| write(out, *byte));
            }
        }
        let is_last = self.payload.is_empty();
        if is_last {
            out.extend_from_slice(CLOSE);
        }
        is_last
    }
}

/// A payload that is to be shown with its message, with the memory it takes.
#[derive(Debug)]
pub(super) struct Shown {
    pieces: Pieces,
    _share: Share,
}

impl Shown {
    /// Looks at a payload whose share was taken.
    pub(super) async fn look(payload: Bytes, share: Share) -> Self {
        Self { pieces: Pieces::look(payload).await, _share: share }
    }

    /// The answer that shows a message with it, or only the head of that answer.
    pub(super) fn answer(self, message: &impl Serialize, is_head_only: bool) -> Answer {
        let open = self.pieces.open(serde_json::to_vec(message).expect("our answers are plain values"));
        let size = open.len() as u64 + self.pieces.size();
        let body = if is_head_only {
            Body { size, open: None, shown: None }
        } else {
            Body { size, open: Some(open.into()), shown: Some(self) }
        };
        answer::found(body)
    }
}

/// Bytes of a payload as a JSON string, without the quotes; `None` when it is no text.
async fn text_bytes(payload: &[u8], look_bytes: usize) -> Option<u64> {
    let (mut rest, mut bytes) = (payload, 0);
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(look_bytes)];
        let length = match std::str::from_utf8(part) {
            Ok(_) => part.len(),
            // The end of the part may be in the middle of a character, the end of the payload may not.
            Err(error) if error.error_len().is_none() && part.len() < rest.len() => error.valid_up_to(),
            Err(_) => return None,
        };
        bytes += part[..length].iter().map(|byte| written_bytes(*byte)).sum::<u64>();
        rest = &rest[length..];
        if !rest.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    Some(bytes)
}

/// The letter that stands for a byte behind a backslash (RFC 8259, section 7).
const fn letter(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        _ => None,
    }
}

const fn written_bytes(byte: u8) -> u64 {
    match byte {
        _ if letter(byte).is_some() => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

fn write(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match letter(byte) {
        Some(letter) => out.extend([b'\\', letter]),
        None if byte < 0x20 => {
            out.extend_from_slice(b"\\u00");
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        None => out.push(byte),
    }
}

/// The body of an answer that shows a payload. The payload and its share are let go with the last piece.
struct Body {
    size: u64,
    open: Option<Bytes>,
    shown: Option<Shown>,
}

impl MessageBody for Body {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if let Some(open) = self.open.take() {
            return Poll::Ready(Some(Ok(open)));
        }
        let Some(shown) = &mut self.shown else { return Poll::Ready(None) };
        let mut piece = Vec::new();
        if shown.pieces.write_next(&mut piece) {
            self.shown = None;
        }
        Poll::Ready(Some(Ok(piece.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use serde_json::json;

    use super::*;
    use crate::api::Message;
    use crate::http::budget::Budget;

    /// Bytes that are no text, in any order.
    const NOISE: [u8; 5] = [0x80, 0xff, 0xc3, 0x28, 0xf0];

    fn message() -> Message {
        let shown = json!({
            "id": "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", "queue": "orders", "state": "pending",
            "published_at": "1970-01-01T00:00:00.000Z", "attempt_count": 0, "attempts": [],
        });
        serde_json::from_value(shown).expect("a message")
    }

    /// What the client reads, and the pieces that it came in.
    async fn read(payload: &[u8]) -> (Vec<u8>, usize) {
        let budget = Budget::new(1 << 30);
        let share = budget.take(payload.len() as u64).expect("room");
        let shown = Shown::look(Bytes::copy_from_slice(payload), share).await;
        let mut body = Box::pin(shown.answer(&message(), false).into_body());
        let BodySize::Sized(size) = body.size() else { panic!("its length is known") };
        let (mut bytes, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            let piece = piece.expect("it cannot fail");
            assert!(piece.len() <= 6 * PIECE_BYTES + CLOSE.len());
            bytes.extend_from_slice(&piece);
            pieces += 1;
            assert!(bytes.len() as u64 == size || budget.used() == payload.len() as u64);
        }
        assert_eq!((bytes.len() as u64, budget.used()), (size, 0), "all is given back with the last piece");
        (bytes, pieces)
    }

    #[tokio::test]
    async fn a_payload_is_text_where_it_can_be_and_base64_elsewhere() {
        for (payload, key, expected) in [
            (&b""[..], "payload", ""),
            ("grüß".as_bytes(), "payload", "grüß"),
            (b"\xff\x00", "payload_base64", "/wA="),
            (b"cut \xc3", "payload_base64", "Y3V0IMM="),
        ] {
            let mut whole = serde_json::to_value(message()).expect("JSON");
            whole[key] = json!(expected);
            let (bytes, _) = read(payload).await;
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).expect("JSON"), whole);
        }
    }

    #[tokio::test]
    async fn every_character_is_written_as_json_has_it() {
        let all: String = (0..0x800).chain(0xfff0..0x1_0010).filter_map(char::from_u32).collect();
        let mut expected = serde_json::to_string(&message()).expect("JSON");
        expected.pop();
        expected.push_str(r#","payload":"#);
        expected.push_str(&serde_json::to_string(&all).expect("JSON"));
        expected.push('}');
        assert_eq!(String::from_utf8(read(all.as_bytes()).await.0).expect("text"), expected);
    }

    #[tokio::test]
    async fn a_long_payload_comes_in_pieces_and_whole() {
        let text = "a\"b\n€\u{1}".repeat(20_000);
        let (bytes, pieces) = read(text.as_bytes()).await;
        let found: Message = serde_json::from_slice(&bytes).expect("a message");
        assert_eq!((found.payload.as_deref(), pieces), (Some(&*text), 1 + text.len().div_ceil(PIECE_BYTES)));
        for cut in 0..3 {
            let noise: Vec<u8> = (0..3 * PIECE_BYTES + cut).map(|place| NOISE[place % NOISE.len()]).collect();
            let found: Message = serde_json::from_slice(&read(&noise).await.0).expect("a message");
            let shown = found.payload_base64.expect("it is no text");
            assert!(STANDARD.decode(shown).expect("base64") == noise);
        }
    }

    #[tokio::test]
    async fn a_character_may_lie_across_what_is_looked_at_in_one_go() {
        let text = "ä€𐍈x".repeat(3);
        for look_bytes in 4..=text.len() {
            assert_eq!(text_bytes(text.as_bytes(), look_bytes).await, Some(text.len() as u64));
            assert_eq!(text_bytes(&text.as_bytes()[..text.len() - 2], look_bytes).await, None, "cut");
        }
    }

    #[tokio::test]
    async fn a_head_has_the_length_and_nothing_else() {
        let budget = Budget::new(100);
        let shown = Shown::look(Bytes::from_static(b"abc"), budget.take(3).expect("room")).await;
        let mut body = Box::pin(shown.answer(&message(), true).into_body());
        let expected = serde_json::to_vec(&Message { payload: Some("abc".to_owned()), ..message() });
        assert_eq!(body.size(), BodySize::Sized(expected.expect("JSON").len() as u64));
        assert_eq!(budget.used(), 0);
        assert!(poll_fn(|context| body.as_mut().poll_next(context)).await.is_none());
    }
}
