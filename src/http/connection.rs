//! One client's connection: nobody may be slow for ever, neither with a head nor with reading an answer.
//!
//! The server's own time-out covers the head of a connection's first request only. [`Guarded`] wraps the socket and
//! gives every later head the same time, ends a connection that is idle for long, and one whose client takes nothing of
//! its answer. Both the socket and the request under way know the [`Connection`], which carries the one timer they share.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may be idle between two requests: long enough for a client that posts now and then, short enough
/// that a crowd that went away leaves room for others.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a client may take none of an answer. Less than what a reader of a slow line needs for one kernel buffer
/// would cut honest ones; more would let a few thousand of them hold memory for long.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

/// What a client gets whose head does not come; the same as for a first head.
const HEAD_TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Where a connection is between its requests.
#[derive(Clone, Copy, Default)]
enum Phase {
    /// Before the first request, whose head the server times itself.
    #[default]
    New,
    /// A request is being served: what comes in now is its body, which has a deadline of its own.
    Serving,
    /// Nothing has come since the last request was answered at that moment.
    Idle(Instant),
    /// The first bytes of a head came at that moment.
    Head(Instant),
}

/// What a request and its socket know of their connection.
#[derive(Default)]
pub(super) struct Connection {
    phase: Cell<Phase>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Connection {
    /// A head is complete, and its request is now served until the guard is dropped.
    pub(super) fn serve(self: &Rc<Self>) -> Serving {
        self.phase.set(Phase::Serving);
        Serving(self.clone())
    }

    /// Ready once `deadline` has passed; else the current task is woken by then, and perhaps earlier.
    ///
    /// The timer is moved only when it must ring earlier or has rung, so that a request that ends in time, as nearly
    /// all do, costs no timer of its own.
    pub(super) fn poll_until(&self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut timer = self.timer.borrow_mut();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// A request is being served. Dropping it says that it no longer is.
pub(super) struct Serving(Rc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Idle(Instant::now()));
    }
}

/// A socket that gives up on a client who is too slow.
pub(super) struct Guarded {
    stream: TcpStream,
    connection: Rc<Connection>,
    head_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Guards a socket just accepted.
    pub(super) fn new(stream: TcpStream, head_timeout: Duration) -> Self {
        Self { stream, connection: Rc::default(), head_timeout, stalled: None }
    }

    /// What its requests know of it.
    pub(super) fn connection(&self) -> Rc<Connection> {
        self.connection.clone()
    }

    /// Ends the wait for a request that takes too long to begin or to become whole.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.connection.phase.get() {
            Phase::New | Phase::Serving => return Poll::Pending,
            Phase::Idle(since) => ready!(self.connection.poll_until(context, since + KEEP_ALIVE)),
            Phase::Head(since) => {
                ready!(self.connection.poll_until(context, since + self.head_timeout));
                // Nothing else is on its way: no request is being served. It is a courtesy, so one try is enough.
                let told = self.stream.try_write(HEAD_TOO_SLOW).is_ok();
                log::debug!("told" = told; "a request's head came too slowly");
            }
        }
        Poll::Ready(())
    }

    fn poll_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let timer =
            self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL_MAX)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            // To the reader, "nothing more will come" is the end of the connection.
            Poll::Pending => self.poll_request(context).map(Ok),
            ready => {
                let phase = &self.connection.phase;
                if buffer.filled().len() > before && matches!(phase.get(), Phase::Idle(_)) {
                    phase.set(Phase::Head(Instant::now()));
                }
                ready
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_stall(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_stall(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
