//! Reading a request: strictly what a well-behaved client sends, and a panic on anything else.

use bytes::{Buf, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::BODY_BYTES_MAX;

/// The longest head.
const HEAD_BYTES_MAX: usize = 256 << 10;

pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// The next request of a connection; nothing when the client ended it, even in the middle of one.
pub(super) async fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Request> {
    let head_bytes = loop {
        if let Some(place) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break place + 4;
        }
        assert!(buffer.len() <= HEAD_BYTES_MAX, "the head has more than {HEAD_BYTES_MAX} bytes");
        more(stream, buffer).await?;
    };
    let head = buffer.split_to(head_bytes);
    let (method, target, headers) = parse(&head);
    let lengths: Vec<usize> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.parse().expect("a length"))
        .collect();
    assert!(lengths.len() <= 1, "more than one Content-Length: {headers:?}");
    let is_chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    assert!(!is_chunked, "the payload's length is known, so it is sent: {headers:?}");
    let body_bytes = lengths.first().copied().unwrap_or(0);
    assert!(body_bytes <= BODY_BYTES_MAX, "the body has {body_bytes} bytes");
    while buffer.len() < body_bytes {
        more(stream, buffer).await?;
    }
    Some(Request { method, target, headers, body: buffer.copy_to_bytes(body_bytes) })
}

async fn more(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<()> {
    buffer.reserve(64 << 10);
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

fn parse(head: &[u8]) -> (String, String, Vec<(String, String)>) {
    let head = std::str::from_utf8(head).expect("a head of text");
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().expect("a request line");
    let mut words = first.split(' ');
    let (method, target) = (words.next().expect("a method"), words.next().expect("a target"));
    assert_eq!(words.next(), Some("HTTP/1.1"), "{first}");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
        (name.to_owned(), value.trim().to_owned())
    };
    (method.to_owned(), target.to_owned(), lines.map(header).collect())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
