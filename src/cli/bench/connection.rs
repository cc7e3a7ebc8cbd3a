//! One kept connection to the gateway: requests that are ready as bytes, answers of which the status is read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stamp::{self, STAMP_BYTES};

/// Bytes of a head that is read: more than any gateway answers with.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A request as it goes over the wire.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where its stamp goes.
    stamp_at: Option<usize>,
}

impl Request {
    /// A publish.
    pub(super) fn post(
        host: &str,
        path: &str,
        key: Option<&str>,
        content_type: &str,
        body: &[u8],
        is_stamped: bool,
    ) -> Self {
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let length = body.len();
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        let stamp_at = is_stamped.then_some(bytes.len());
        bytes.extend_from_slice(body);
        Self { bytes, stamp_at }
    }

    /// Whether it has one.
    pub(super) const fn is_stamped(&self) -> bool {
        self.stamp_at.is_some()
    }

    /// Its bytes with a stamp, which are put together in `room` where it has one.
    pub(super) fn stamped<'r>(&'r self, room: &'r mut Vec<u8>, number: u64, due: Duration) -> &'r [u8] {
        let Some(at) = self.stamp_at else { return &self.bytes };
        room.clear();
        room.extend_from_slice(&self.bytes);
        stamp::write(&mut room[at..at + STAMP_BYTES], number, due);
        room
    }
}

/// The head of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    status: u16,
    length: usize,
    body_length: usize,
    closes: bool,
}

/// A connection that is kept.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; HEAD_BYTES_MAX] })
    }

    /// Itself, where the gateway left it open while nothing was asked, as far as is known.
    pub(super) fn if_open(mut self) -> Option<Self> {
        let read = self.stream.try_read(&mut self.buffer);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock).then_some(self)
    }

    /// Sends a request and reads its whole answer; gives its status, and whether the connection may be used again. Cancelled it is of
    /// no more use.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, bool)> {
        self.stream.write_all(request).await?;
        let mut length = 0;
        let head = loop {
            if length == self.buffer.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let count = self.stream.read(&mut self.buffer[length..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += count;
            if let Some(head) = head(&self.buffer[..length])? {
                break head;
            }
        };
        let mut left = head.body_length.saturating_sub(length - head.length);
        while left > 0 {
            let room = left.min(self.buffer.len());
            let count = self.stream.read(&mut self.buffer[..room]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
        }
        Ok((head.status, !head.closes))
    }
}

/// The head of an answer once all of it is there. One whose body has no length is refused: no gateway gives such to a publish.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| strange())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status: u16 = status.ok_or_else(strange)?;
    let (mut body_length, mut closes) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            body_length = Some(value.trim().parse().map_err(|_| strange())?);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let body_length = body_length.or((status == 204).then_some(0)).ok_or_else(strange)?;
    Ok(Some(Head { status, length: end + 4, body_length, closes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\nconnection: Close\r\n\r\nbody";
        for length in 0..text.len() - 4 {
            assert_eq!(head(&text[..length]).expect("so far"), None);
        }
        let whole = Head { status: 503, length: text.len() - 4, body_length: 7, closes: true };
        assert_eq!(head(text).expect("a head"), Some(whole));
    }

    #[test]
    fn what_is_no_answer_of_a_gateway_is_refused() {
        for text in [
            "SMTP\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ] {
            assert!(head(text.as_bytes()).is_err(), "{text:?}");
        }
        let empty = head(b"HTTP/1.1 204 No Content\r\n\r\n").expect("a head").expect("whole");
        assert_eq!((empty.body_length, empty.closes), (0, false));
    }

    #[test]
    fn a_request_is_stamped_where_it_has_a_stamp() {
        let plain = Request::post("h:1", "/p", None, "text/plain", b"abc", false);
        let mut room = Vec::new();
        let bytes = plain.stamped(&mut room, 1, Duration::ZERO).to_vec();
        let text = String::from_utf8(bytes).expect("text");
        assert!(
            text.starts_with("POST /p HTTP/1.1\r\nHost: h:1\r\n")
                && text.ends_with("Content-Length: 3\r\n\r\nabc"),
            "{text}"
        );
        let stamped = Request::post("h:1", "/p", Some("k"), "text/plain", &[b'x'; STAMP_BYTES + 1], true);
        let text =
            String::from_utf8(stamped.stamped(&mut room, 7, Duration::from_nanos(9)).to_vec()).expect("text");
        assert!(text.contains("\r\nAuthorization: Bearer k\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n0000000007 00000000000000000009 x"), "{text}");
    }
}
