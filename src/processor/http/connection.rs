//! One HTTP/1.1 connection to a receiver: a request at a time, driven by the attempt that uses it.
//!
//! Whoever awaits an answer also turns the wheels of the connection, so a delivery needs no task of its own and nobody has to be
//! woken to hand it on. A connection that nobody uses stands still.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::task::noop_waker_ref;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Header lines read of an answer; one with more is not HTTP to us.
const ANSWER_HEADERS_MAX: usize = 128;

/// What is sent.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// Bytes read of an answer before its head is whole, interim answers (1xx) included; more is not HTTP to us.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// A socket to a receiver, perhaps with TLS.
pub(super) enum Stream {
    /// http.
    Plain(TcpStream),
    /// https.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The same, read no further than is allowed.
struct Bounded {
    stream: Stream,
    allowed: Rc<Cell<usize>>,
}

/// A connection with a receiver. Dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    /// How many bytes may be read.
    allowed: Rc<Cell<usize>>,
}

/// What moves the bytes; nothing once the connection is over, for what is over gives back what it did not send only when dropped.
struct Driver(Option<http1::Connection<TokioIo<Bounded>, Full<Bytes>>>);

impl Driver {
    /// Moves what can be moved now. What breaks it is told to who waits for the answer.
    fn turn(&mut self, context: &mut Context<'_>) {
        if let Some(http) = &mut self.0
            && Pin::new(http).poll(context).is_ready()
        {
            self.0 = None;
        }
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a socket.
    pub(super) async fn open(stream: Stream) -> hyper::Result<Self> {
        let mut builder = http1::Builder::new();
        builder.max_headers(ANSWER_HEADERS_MAX);
        let allowed = Rc::new(Cell::new(HEAD_BYTES_MAX));
        let bounded = Bounded { stream, allowed: allowed.clone() };
        let (sender, http) = builder.handshake(TokioIo::new(bounded)).await?;
        Ok(Self { sender, driver: Driver(Some(http)), allowed })
    }

    /// Sends a request and waits for the head of its answer. Dropping the future leaves a connection that is good for nothing.
    ///
    /// # Errors
    /// What broke it; with the request, where nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        self.allowed.set(HEAD_BYTES_MAX);
        let mut answer = pin!(self.sender.try_send_request(request));
        let answer = poll_fn(|context| {
            self.driver.turn(context);
            answer.as_mut().poll(context)
        });
        let answer = answer.await;
        // How much of the body is read is bounded by who reads it.
        self.allowed.set(usize::MAX);
        answer
    }

    /// The next part of the answer's body, `None` at its end. Dropping the future loses nothing.
    pub(super) async fn chunk(&mut self, body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
        loop {
            let frame = poll_fn(|context| {
                self.driver.turn(context);
                Pin::new(&mut *body).poll_frame(context)
            });
            match frame.await {
                // Trailers say nothing to us.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Err(error),
                None => return Ok(None),
            }
        }
    }

    /// Whether another request can be sent, as far as is known here: the receiver may have closed it this very moment.
    pub(super) fn is_free(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.driver.turn(&mut Context::from_waker(noop_waker_ref()));
        }
        self.sender.is_ready() && self.driver.0.is_some()
    }

    /// The same for one that nobody has used for a while.
    pub(super) fn is_still_free(&mut self) -> bool {
        self.driver.turn(&mut Context::from_waker(noop_waker_ref()));
        self.sender.is_ready() && self.driver.0.is_some()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, allowed } = self.get_mut();
        let left = allowed.get();
        if left == 0 {
            let why = "no head of an answer within 256 KiB";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        if left < usize::MAX {
            // What comes behind the head in one read is no part of it: only who must read again has read too much.
            allowed.set(left.saturating_sub(buffer.filled().len() - before));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
