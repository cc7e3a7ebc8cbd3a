//! Leased messages inside an answer: written piece by piece, as the consumer takes them, and given back if it does not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::api::lease::{LeasedMessage, PayloadAs};
use crate::http::answer::{self, Answer};
use crate::http::connection::Connection;
use crate::http::payload::{PIECE_BYTES, Pieces};
use crate::pipeline::consumers::Hold;

const OPEN: &[u8] = b"{\"items\":[";
const CLOSE: &[u8] = b"]}";

/// One message on its way out.
struct Item {
    open: Vec<u8>,
    pieces: Pieces,
}

/// The answer that hands messages out, each with its payload.
///
/// Its length is counted first, a part of a payload at a time, so that the other requests of the thread are served in between.
pub(super) async fn answer(
    messages: Vec<(LeasedMessage, Bytes)>,
    payload_as: PayloadAs,
    hold: Hold,
    connection: Rc<Connection>,
) -> Answer {
    let mut items = VecDeque::with_capacity(messages.len());
    // A comma between two.
    let mut size = (OPEN.len() + CLOSE.len() + messages.len().saturating_sub(1)) as u64;
    for (message, payload) in messages {
        let pieces = match payload_as {
            PayloadAs::Auto => Pieces::look(payload).await,
            PayloadAs::Base64 => Pieces::base64(payload),
        };
        let open = pieces.open(serde_json::to_vec(&message).expect("our answers are plain values"));
        size += open.len() as u64 + pieces.size();
        items.push_back(Item { open, pieces });
    }
    answer::found(Body { size, items, at: At::Beginning, hold: Some(hold), connection })
}

enum At {
    Beginning,
    /// Before an item that is not the first.
    Item,
    Payload,
    End,
}

/// The body of such an answer. Dropped before its end it gives the messages back; at its end the connection takes the hold on them.
struct Body {
    size: u64,
    items: VecDeque<Item>,
    at: At,
    hold: Option<Hold>,
    connection: Rc<Connection>,
}

impl Body {
    /// Writes at least a piece, unless it ends before.
    fn fill(&mut self, out: &mut Vec<u8>) {
        while out.len() < PIECE_BYTES {
            match (&self.at, self.items.front_mut()) {
                (At::End, _) => return,
                (_, None) => {
                    out.extend_from_slice(CLOSE);
                    self.at = At::End;
                }
                (At::Payload, Some(item)) => {
                    if item.pieces.write_next(out) {
                        self.items.pop_front();
                        self.at = At::Item;
                    }
                }
                (At::Beginning | At::Item, Some(item)) => {
                    out.extend_from_slice(if matches!(self.at, At::Beginning) { OPEN } else { b"," });
                    out.append(&mut item.open);
                    self.at = At::Payload;
                }
            }
        }
    }
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
        let mut out = Vec::new();
        self.fill(&mut out);
        if !out.is_empty() {
            return Poll::Ready(Some(Ok(out.into())));
        }
        if let Some(hold) = self.hold.take() {
            self.connection.when_written(hold);
        }
        Poll::Ready(None)
    }
}
