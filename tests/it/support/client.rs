//! A small HTTP/1.1 client on a plain socket: it shows exactly what went over the wire, and blocks.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The version, as `HTTP/1.1`.
    pub(crate) version: String,
    /// The status.
    pub(crate) status: u16,
    /// The headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The status and the body as text, for the message of a failed test.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }
}

/// One connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects; every read and write ends after 30 s.
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let to: SocketAddr = address.parse().expect("an address");
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: address.to_owned() })
    }

    /// Sends one request and reads its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.send(method, path, headers, body)?;
        self.answer(method == "HEAD")
    }

    /// Sends one request and does not wait for its answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("a string grows");
        }
        if method != "GET" || !body.is_empty() {
            write!(head, "Content-Length: {}\r\n", body.len()).expect("a string grows");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)
    }

    /// Sends the head of a request with a body of so many bytes, and the first `sent` of these.
    pub(crate) fn send_part(
        &mut self,
        method: &str,
        path: &str,
        bytes: usize,
        sent: usize,
    ) -> io::Result<()> {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {bytes}\r\n\r\n", self.host);
        let part = [head.as_bytes(), &vec![b'x'; sent]].concat();
        self.stream.get_mut().write_all(&part)
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends nothing more.
    pub(crate) fn close_end(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// The socket, to send on it while answers are read.
    pub(crate) fn sender(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// How long each read waits.
    pub(crate) fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(time))
    }

    /// Bytes that wait to be read, at most one; waits for them as long as a read does.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        self.stream.get_ref().peek(&mut [0])
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads the answer to the request sent last.
    pub(crate) fn answer(&mut self, bodiless: bool) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let version = line.split(' ').next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let mut body = Vec::new();
        if !bodiless && status != 204 {
            if find("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
                self.chunks(&mut body)?;
            } else if let Some(length) = find("content-length") {
                body.resize(length.parse().map_err(io::Error::other)?, 0);
                self.stream.read_exact(&mut body)?;
            } else {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(Answer { version, status, headers, body })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + length, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    Connection::open(address)?.request(method, path, headers, body)
}
