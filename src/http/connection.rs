//! One client's connection: nobody may be slow for ever, neither with a head nor with reading an answer.
//!
//! The server's own time-out covers the head of a connection's first request only, and not to the half second. So [`Guarded`]
//! wraps the socket: it times every head, ends a connection that is idle for long, and one whose client takes nothing of its
//! answer. Both the socket and the request under way know the [`Connection`], which carries the one timer they share.
//!
//! The socket gives the server one request at a time. What a client sends behind it (pipelining) is read as well, to see its end,
//! but is kept here, up to 128 KiB, until the answer was written: the server writes an answer by the head that it decoded last.
//!
//! The socket also tells the request under way that its client has closed its end, and those who care that an answer has left
//! this process whole. The end comes behind all that was sent, and only so much is read ahead of the request that is served: so
//! who cares asks the system, which knows of an end that nobody has read yet, unless it has no room for more itself.
//!
//! That timer is what wakes a connection on which nothing happens, so whenever the socket has nothing to read it is set, also
//! while a request is served: it may ring then, and when the request is answered nobody looks at the socket any more.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::framing::{Follows, Framing};
use crate::http::settings::ServerLimits;
use crate::pipeline::consumers::Hold;

/// How long a client may take none of an answer. Less than what a reader of a slow line needs for one kernel buffer
/// would cut honest ones; more would let a few thousand of them hold memory for long.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

/// How long an answer may be taken more slowly than its least speed.
const TAKE_RATE_AFTER: Duration = WRITE_STALL_MAX;

/// How much is read behind a request under way, to see whether its client is still there.
const AHEAD_BYTES_MAX: usize = 128 << 10;

/// What a client gets whose head does not come.
const HEAD_TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Where a connection is between its requests.
#[derive(Clone, Copy)]
enum Phase {
    /// A request is being served: what comes in now is its body, which has a deadline of its own.
    Serving,
    /// Nothing has come since the last request was answered at that moment.
    Idle(Instant),
    /// The first bytes of a head came at that moment, or the connection was made.
    Head(Instant),
}

/// How long is waited for a client.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    head: Duration,
    idle: Duration,
    /// The least speed at which an answer is to be taken, bytes a second; 0: any.
    answer_bytes_per_s: u64,
}

impl From<&ServerLimits> for Patience {
    fn from(limits: &ServerLimits) -> Self {
        Self {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            answer_bytes_per_s: limits.answer_bytes_per_s_min,
        }
    }
}

/// An answer that the client takes more slowly than it is written.
#[derive(Clone, Copy)]
struct Taking {
    /// When there was no room for more of it for the first time.
    since: Instant,
    /// What was taken since then.
    bytes: u64,
}

impl Taking {
    /// Until when more of it has to be taken.
    fn deadline(self, patience: Patience) -> Option<Instant> {
        let rate = patience.answer_bytes_per_s;
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000).checked_div(rate)?);
        self.since.checked_add(TAKE_RATE_AFTER)?.checked_add(earned)
    }
}

/// What a request and its socket know of their connection.
pub(super) struct Connection {
    /// There as long as it is guarded.
    stream: Weak<RefCell<TcpStream>>,
    phase: Cell<Phase>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
    patience: Patience,
    framing: Cell<Framing>,
    is_closed: Cell<bool>,
    /// An answer is under way: not all of it was taken by the system.
    is_unwritten: Cell<bool>,
    /// The answer under way, when its client is the slower one.
    taking: Cell<Option<Taking>>,
    /// What is to hear that the answers so far have been written.
    leaving: RefCell<Vec<Hold>>,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new(Weak::new(), (&ServerLimits::default()).into())
    }
}

impl Connection {
    fn new(stream: Weak<RefCell<TcpStream>>, patience: Patience) -> Self {
        Self {
            stream,
            phase: Cell::new(Phase::Head(Instant::now())),
            timer: RefCell::default(),
            patience,
            framing: Cell::default(),
            is_closed: Cell::new(false),
            is_unwritten: Cell::new(false),
            taking: Cell::default(),
            leaving: RefCell::default(),
        }
    }

    /// What the future gives, or `None` as soon as the client has closed its end: nobody is taken to wait for an answer then. Nor is
    /// one of whom that could not be seen, because it has sent more behind its request than is read ahead. To be awaited by
    /// the request under way, whose task the socket wakes, once its own body has been read.
    pub(super) async fn unless_closed<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.is_closed.get() || self.has_unread(context) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Whether something came that nobody reads: as much is kept behind the request as may be. All that is wanted has been read
    /// when a request is polled. If not, the current task is woken when something comes.
    fn has_unread(&self, context: &mut Context<'_>) -> bool {
        self.stream.upgrade().is_some_and(|stream| stream.borrow().poll_read_ready(context).is_ready())
    }

    /// An answer was handed over to the last byte: tells this when the system has taken them all, and drops it when the connection
    /// ends before.
    pub(super) fn when_written(&self, hold: Hold) {
        self.leaving.borrow_mut().push(hold);
    }

    /// All that was handed over has been taken by the system; where the client closed its end before, for nobody.
    fn written(&self) {
        let leaving = std::mem::take(&mut *self.leaving.borrow_mut());
        if !leaving.is_empty() && !self.has_ended() {
            leaving.into_iter().for_each(Hold::arrived);
        }
    }

    /// Whether the client has ended its side: it sends nothing more, and most likely reads nothing more. One that is reset is
    /// told of by the drop of what serves it.
    pub(super) fn has_ended(&self) -> bool {
        self.is_closed.get() || self.stream.upgrade().is_some_and(|stream| has_read_end(&stream.borrow()))
    }

    /// A head is complete, and its request is now served until the guard is dropped: this follows the head.
    pub(super) fn serve(self: &Rc<Self>, follows: Follows) -> Serving {
        self.framed(|framing| framing.say(follows));
        self.phase.set(Phase::Serving);
        self.taking.set(None);
        Serving(self.clone())
    }

    fn framed<T>(&self, with: impl FnOnce(&mut Framing) -> T) -> T {
        let mut framing = self.framing.get();
        let result = with(&mut framing);
        self.framing.set(framing);
        result
    }

    /// How many of these bytes the server is to be given now: none behind the request under way.
    fn take(&self, bytes: &[u8]) -> usize {
        let taken = self.framed(|framing| framing.take(bytes));
        if taken > 0 && matches!(self.phase.get(), Phase::Idle(_)) {
            self.phase.set(Phase::Head(Instant::now()));
        }
        taken
    }

    /// The server asks for more: it gets the next request when the one before was answered, and the answer was written.
    fn is_asked(&self) {
        let is_answered = !matches!(self.phase.get(), Phase::Serving) && !self.is_unwritten.get();
        self.framed(|framing| {
            framing.is_asked();
            if framing.is_whole() && is_answered {
                *framing = Framing::default();
            }
        });
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

    /// Whether the timer will ring and wake the task that was last told to wait for it.
    fn will_ring(&self) -> bool {
        self.timer.borrow().as_ref().is_some_and(|timer| !timer.is_elapsed())
    }

    /// Has a timer that will ring do so by `deadline`.
    fn ring_by(&self, deadline: Instant) {
        if self.will_ring()
            && let Some(timer) = &mut *self.timer.borrow_mut()
            && timer.deadline() > deadline
        {
            timer.as_mut().reset(deadline);
        }
    }
}

/// Whether the end of what the client sends has come, read or not, as the system last told.
fn has_read_end(stream: &TcpStream) -> bool {
    match stream.ready(Interest::READABLE).now_or_never() {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
}

/// A request is being served. Dropping it says that it no longer is.
pub(super) struct Serving(Rc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        let (connection, now) = (&self.0, Instant::now());
        connection.phase.set(Phase::Idle(now));
        connection.is_unwritten.set(true);
        connection.ring_by(now + connection.patience.idle);
    }
}

/// A socket that gives up on a client who is too slow.
pub(super) struct Guarded {
    /// Nobody else holds it; its requests may look at it.
    stream: Rc<RefCell<TcpStream>>,
    connection: Rc<Connection>,
    stalled: Option<Pin<Box<Sleep>>>,
    /// What came behind the request under way.
    ahead: BytesMut,
}

impl Guarded {
    /// Guards a socket just accepted.
    pub(super) fn new(stream: TcpStream, patience: Patience) -> Self {
        let stream = Rc::new(RefCell::new(stream));
        let connection = Rc::new(Connection::new(Rc::downgrade(&stream), patience));
        Self { stream, connection, stalled: None, ahead: BytesMut::new() }
    }

    /// What its requests know of it.
    pub(super) fn connection(&self) -> Rc<Connection> {
        self.connection.clone()
    }

    /// Reads what is for the server, and keeps what came behind it.
    fn poll_wanted(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, buffer))?;
        let came = &buffer.filled()[before..];
        if came.is_empty() {
            self.connection.is_closed.set(true);
        }
        let taken = self.connection.take(came);
        if taken < came.len() {
            self.ahead.extend_from_slice(&came[taken..]);
            buffer.set_filled(before + taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the server what is for it of what was kept. Gives whether there was any.
    fn give_kept(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let room = self.ahead.len().min(buffer.remaining());
        let taken = self.connection.take(&self.ahead[..room]);
        buffer.put_slice(&self.ahead[..taken]);
        if taken == self.ahead.len() {
            self.ahead = BytesMut::new();
        } else {
            self.ahead.advance(taken);
        }
        taken > 0
    }

    /// Keeps what comes behind the request under way, as far as there is room for it; the buffer only lends its own. Ready with
    /// the end of it all, once nothing is before it, and with an error.
    fn poll_ahead(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_closed = &self.connection.is_closed;
        while !is_closed.get() && self.ahead.len() < AHEAD_BYTES_MAX {
            let mut lent = buffer.take(AHEAD_BYTES_MAX - self.ahead.len());
            ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, &mut lent))?;
            is_closed.set(lent.filled().is_empty());
            self.ahead.extend_from_slice(lent.filled());
        }
        if is_closed.get() && self.ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ends the wait for a request that takes too long to begin or to become whole.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (connection, patience) = (&self.connection, self.connection.patience);
        match connection.phase.get() {
            Phase::Serving if connection.will_ring() => return Poll::Pending,
            // Pending: it is for the time after this request.
            Phase::Serving => return connection.poll_until(context, Instant::now() + patience.idle),
            Phase::Idle(since) => ready!(connection.poll_until(context, since + patience.idle)),
            Phase::Head(since) => {
                ready!(connection.poll_until(context, since + patience.head));
                // It is a courtesy, so one try is enough; none where the answer before it is still on its way.
                let told = self.stalled.is_none() && self.stream.borrow().try_write(HEAD_TOO_SLOW).is_ok();
                log::debug!("told" = told; "a request's head came too slowly");
            }
        }
        Poll::Ready(())
    }

    /// Ends the wait for a client that takes nothing of its answer, or too little.
    fn poll_stall(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        if let Poll::Ready(taken) = &result {
            self.stalled = None;
            if let (Some(taking), Ok(bytes)) = (connection.taking.get(), taken) {
                let bytes = taking.bytes + *bytes as u64;
                connection.taking.set(Some(Taking { bytes, ..taking }));
            }
            return result;
        }
        let timer = self.stalled.get_or_insert_with(|| {
            let now = Instant::now();
            let taking = connection.taking.get().unwrap_or(Taking { since: now, bytes: 0 });
            connection.taking.set(Some(taking));
            let stall = now + WRITE_STALL_MAX;
            let deadline = taking.deadline(connection.patience).map_or(stall, |least| least.min(stall));
            Box::pin(sleep_until(deadline))
        });
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes its answer too slowly")))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // A request that outlives its socket has nobody to answer.
        self.connection.leaving.borrow_mut().clear();
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.connection.is_asked();
        if !self.ahead.is_empty() && self.give_kept(buffer) {
            return Poll::Ready(Ok(()));
        }
        let result = if self.connection.framing.get().wants_more() {
            self.poll_wanted(context, buffer)
        } else {
            self.poll_ahead(context, buffer)
        };
        if result.is_ready() {
            return result;
        }
        if self.connection.framed(Framing::is_left) && !self.ahead.is_empty() {
            // It says what follows the head in a moment, and is to ask for it then.
            context.waker().wake_by_ref();
        }
        // To the reader, "nothing more will come" is the end of the connection.
        self.poll_request(context).map(Ok)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.is_unwritten.set(true);
        let result = Pin::new(&mut *self.stream.borrow_mut()).poll_write(context, bytes);
        self.poll_stall(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.is_unwritten.set(true);
        let result = Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(context, slices);
        self.poll_stall(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes when it has written all that it has.
        self.connection.written();
        if self.connection.is_unwritten.take() && !self.ahead.is_empty() {
            // Nothing more may come that wakes it.
            context.waker().wake_by_ref();
        }
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "connection_ahead_tests.rs"]
mod ahead_tests;

#[cfg(test)]
#[path = "connection_end_tests.rs"]
mod end_tests;
