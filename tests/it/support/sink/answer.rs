//! Answers: the good one, and what hostile, broken or slow receivers send instead.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";

/// What a sink does once it has read a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A whole answer; the connection stays open.
    Whole {
        /// The status.
        status: u16,
        /// Headers besides Content-Length.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
    },
    /// Another answer, later.
    After(Duration, Box<Answer>),
    /// Nothing, for ever.
    HangBeforeHead,
    /// A head that announces a body of 10 bytes, then nothing, for ever.
    HangAfterHead(u16),
    /// A head and then a body, one byte at a time.
    Trickle {
        /// The status.
        status: u16,
        /// The length of the body.
        bytes: usize,
        /// The pause before each byte.
        every: Duration,
    },
    /// A head, one byte at a time, for ever.
    TrickleHead(Duration),
    /// The connection is reset before anything is sent.
    Reset,
    /// A head that announces a body of 10 bytes, then a reset.
    ResetAfterHead(u16),
    /// The connection is closed before anything is sent.
    CloseEarly,
    /// Fewer bytes than announced, then the connection is closed.
    WrongLength {
        /// The status.
        status: u16,
        /// What Content-Length says.
        claimed: u64,
        /// What comes.
        sent: usize,
    },
    /// A chunked body without end.
    Endless(u16),
    /// These bytes, then those over and over.
    Flood(&'static [u8], &'static [u8]),
    /// That many `103 Early Hints`, then a 200; when absent, a hundred each millisecond without end.
    Informational(Option<usize>),
    /// These bytes, whatever they are, then the connection is closed.
    Raw(&'static [u8]),
}

impl Answer {
    /// An empty answer.
    pub(crate) fn status(status: u16) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// An answer with a body.
    pub(crate) fn body(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Whole { status, headers: Vec::new(), body: body.into() }
    }

    /// An empty answer with one header.
    pub(crate) fn header(status: u16, name: &'static str, value: impl Into<String>) -> Self {
        Self::Whole { status, headers: vec![(name, value.into())], body: Bytes::new() }
    }
}

/// A connection that an answer is written to, and what was written.
struct Wire<'w> {
    stream: &'w mut TcpStream,
    sent_bytes: &'w AtomicU64,
}

impl Wire<'_> {
    /// Whether the client still reads.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = self.stream.write_all(bytes).await.is_ok();
        if sent {
            self.sent_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        sent
    }

    /// Waits for the client to end the connection.
    async fn hang(&mut self) {
        let mut ignored = [0; 1024];
        while matches!(self.stream.read(&mut ignored).await, Ok(count) if count > 0) {}
    }

    fn reset(&self) {
        self.stream.set_zero_linger().expect("a socket can be reset");
    }

    /// Sends byte by byte until the client has enough, or all are sent.
    async fn trickle(&mut self, bytes: impl Iterator<Item = u8>, every: Duration) -> bool {
        for byte in bytes {
            tokio::time::sleep(every).await;
            if !self.send(&[byte]).await {
                return false;
            }
        }
        true
    }

    /// Sends the same over and over until the client has enough.
    async fn flood(&mut self, bytes: &[u8]) {
        while self.send(bytes).await {
            // Writing never waits while the client reads fast enough, and others want their turn.
            tokio::task::yield_now().await;
        }
    }
}

fn head(status: u16, headers: &[(&'static str, String)], length: Option<u64>) -> String {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").expect("a string grows");
    }
    if let Some(length) = length {
        write!(text, "content-length: {length}\r\n").expect("a string grows");
    }
    text + "\r\n"
}

/// Writes an answer; tells whether the connection may serve another request.
pub(super) async fn write(answer: Answer, stream: &mut TcpStream, sent_bytes: &AtomicU64) -> bool {
    let mut answer = answer;
    while let Answer::After(pause, then) = answer {
        tokio::time::sleep(pause).await;
        answer = *then;
    }
    let mut wire = Wire { stream, sent_bytes };
    match answer {
        Answer::Whole { status, headers, body } => {
            let mut bytes = head(status, &headers, Some(body.len() as u64)).into_bytes();
            bytes.extend_from_slice(&body);
            return wire.send(&bytes).await;
        }
        Answer::Trickle { status, bytes, every } => {
            return wire.send(head(status, &[], Some(bytes as u64)).as_bytes()).await
                && wire.trickle(std::iter::repeat_n(b'.', bytes), every).await;
        }
        Answer::Informational(Some(count)) => {
            let hints = HINT.repeat(count);
            return wire.send((hints + &head(200, &[], Some(0))).as_bytes()).await;
        }
        bad => misbehave(bad, &mut wire).await,
    }
    false
}

/// The answers after which a connection is of no use.
async fn misbehave(answer: Answer, wire: &mut Wire<'_>) {
    match answer {
        Answer::HangBeforeHead => wire.hang().await,
        Answer::HangAfterHead(status) => {
            wire.send(head(status, &[], Some(10)).as_bytes()).await;
            wire.hang().await;
        }
        Answer::TrickleHead(every) => {
            let endless = b"HTTP/1.1 200 OK\r\nx: ".iter().copied().chain(std::iter::repeat(b'.'));
            wire.trickle(endless, every).await;
        }
        Answer::Reset => wire.reset(),
        Answer::ResetAfterHead(status) => {
            wire.send(head(status, &[], Some(10)).as_bytes()).await;
            // On the loopback device the head has arrived once it is written; a reset leaves it readable there.
            wire.reset();
        }
        Answer::WrongLength { status, claimed, sent } => {
            let text = head(status, &[], Some(claimed)) + &".".repeat(sent);
            wire.send(text.as_bytes()).await;
        }
        Answer::Endless(status) => {
            wire.send(head(status, &[("transfer-encoding", "chunked".to_owned())], None).as_bytes()).await;
            wire.flood(format!("10000\r\n{}\r\n", ".".repeat(0x10000)).as_bytes()).await;
        }
        Answer::Flood(first, over_and_over) => {
            wire.send(first).await;
            wire.flood(&over_and_over.repeat((16 << 10) / over_and_over.len())).await;
        }
        Answer::Informational(_) => {
            let hints = HINT.repeat(100);
            while wire.send(hints.as_bytes()).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Answer::Raw(bytes) => {
            wire.send(bytes).await;
        }
        Answer::CloseEarly | Answer::Whole { .. } | Answer::After(..) | Answer::Trickle { .. } => {}
    }
}
