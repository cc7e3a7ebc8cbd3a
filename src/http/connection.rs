//! One client's connection: nobody may be slow for ever, neither with a head nor with reading an answer.
//!
//! The server's own time-out covers the head of a connection's first request only, and not to the half second. So [`Guarded`]
//! wraps the socket: it times every head, ends a connection that is idle for long, and one whose client takes nothing of its
//! answer. Both the socket and the request under way know the [`Connection`], which carries the one timer they share.
//!
//! That timer is what wakes a connection on which nothing happens, so whenever the socket has nothing to read it is set, also
//! while a request is served: it may ring then, and when the request is answered nobody looks at the socket any more.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::settings::ServerLimits;

/// How long a client may take none of an answer. Less than what a reader of a slow line needs for one kernel buffer
/// would cut honest ones; more would let a few thousand of them hold memory for long.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

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
}

impl From<&ServerLimits> for Patience {
    fn from(limits: &ServerLimits) -> Self {
        Self { head: limits.head_timeout, idle: limits.idle_timeout }
    }
}

/// The last bytes of something: enough to recognise its end.
#[derive(Clone, Copy, Default)]
struct Tail([u8; Self::BYTES]);

impl Tail {
    const BYTES: usize = 16;

    fn push(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = *last;
        } else {
            self.0.rotate_left(bytes.len());
            self.0[Self::BYTES - bytes.len()..].copy_from_slice(bytes);
        }
    }

    /// Whether it ends with the last `length` bytes of `end`, after the line end before them where there is room for it.
    fn ends_with(&self, end: &Self, length: usize) -> bool {
        let start = Self::BYTES.saturating_sub(length);
        self.0[start..] == end.0[start..] && (start == 0 || self.0[start - 1] == b'\n')
    }
}

/// How the last request ends, as far as its reader knows.
#[derive(Clone, Copy)]
enum End {
    /// With a blank line: one without a body, or with a chunked one.
    BlankLine,
    /// With these bytes, of a body of so many.
    Body(Tail, usize),
    /// Nobody has read its body.
    Unread,
}

/// What a request and its socket know of their connection.
pub(super) struct Connection {
    phase: Cell<Phase>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
    patience: Patience,
    came: Cell<Tail>,
    end: Cell<End>,
    has_ended: Cell<bool>,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new((&ServerLimits::default()).into())
    }
}

impl Connection {
    fn new(patience: Patience) -> Self {
        Self {
            phase: Cell::new(Phase::Head(Instant::now())),
            timer: RefCell::default(),
            patience,
            came: Cell::default(),
            end: Cell::new(End::BlankLine),
            has_ended: Cell::default(),
        }
    }

    /// Whether the client has ended its side: it sends nothing more, and most likely reads nothing more. One that is reset is
    /// told of by the drop of what serves it.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// A head is complete, and its request, with or without a body, is now served until the guard is dropped.
    pub(super) fn serve(self: &Rc<Self>, has_body: bool) -> Serving {
        self.end.set(if has_body { End::Unread } else { End::BlankLine });
        self.phase.set(Phase::Serving);
        Serving(self.clone())
    }

    /// The body of the request under way was read to its end, which is no blank line when its length was declared.
    pub(super) fn body_was_read(&self, body: &[u8], is_length_declared: bool) {
        let mut tail = Tail::default();
        tail.push(body);
        self.end.set(if is_length_declared { End::Body(tail, body.len()) } else { End::BlankLine });
    }

    fn note(&self, bytes: &[u8]) {
        let mut came = self.came.get();
        came.push(bytes);
        self.came.set(came);
        if !bytes.is_empty() && matches!(self.phase.get(), Phase::Idle(_)) {
            self.phase.set(Phase::Head(Instant::now()));
        }
    }

    /// Whether more came than the request, so that a part of the next head waits with the server already, which shows it to
    /// nobody.
    ///
    /// Judged by the last bytes that came: where nothing is behind a request they are the request's, so this never errs to
    /// the harm of an honest client. Who takes pains to have the same bytes there is taken for idle, which is also bounded.
    fn has_rest(&self) -> bool {
        let came = self.came.get();
        match self.end.get() {
            End::BlankLine => !(came.0.ends_with(b"\n\r\n") || came.0.ends_with(b"\n\n")),
            End::Body(tail, length) => !came.ends_with(&tail, length),
            End::Unread => false,
        }
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

/// A request is being served. Dropping it says that it no longer is.
pub(super) struct Serving(Rc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        let (connection, now) = (&self.0, Instant::now());
        let (phase, patience) = if connection.has_rest() {
            (Phase::Head(now), connection.patience.head)
        } else {
            (Phase::Idle(now), connection.patience.idle)
        };
        connection.phase.set(phase);
        connection.ring_by(now + patience);
    }
}

/// A socket that gives up on a client who is too slow.
pub(super) struct Guarded {
    stream: TcpStream,
    connection: Rc<Connection>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Guards a socket just accepted.
    pub(super) fn new(stream: TcpStream, patience: Patience) -> Self {
        Self { stream, connection: Rc::new(Connection::new(patience)), stalled: None }
    }

    /// What its requests know of it.
    pub(super) fn connection(&self) -> Rc<Connection> {
        self.connection.clone()
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
                let told = self.stalled.is_none() && self.stream.try_write(HEAD_TOO_SLOW).is_ok();
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
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_pending() {
            // To the reader, "nothing more will come" is the end of the connection.
            return self.poll_request(context).map(Ok);
        }
        let came = &buffer.filled()[before..];
        self.connection.has_ended.set(came.is_empty() && buffer.remaining() > 0);
        self.connection.note(came);
        result
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What the last of the bytes of a request are.
    const BLANK_LINE: &[u8] = b"\r\n\r\n";

    /// Both ends of a connection, ours guarded with five seconds for a head.
    async fn pair() -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let (stream, _) = listener.accept().await.expect("accepts");
        (Guarded::new(stream, (&ServerLimits::default()).into()), client)
    }

    async fn read(guarded: &mut Guarded) -> usize {
        guarded.read(&mut [0; 100]).await.expect("no error")
    }

    async fn ring(connection: &Connection, from: Instant, after_s: u64) -> Duration {
        let deadline = from + Duration::from_secs(after_s);
        poll_fn(|context| connection.poll_until(context, deadline)).await;
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_timer_rings_for_each_deadline_and_never_before_it() {
        let (connection, from) = (Connection::default(), Instant::now());
        assert_eq!(ring(&connection, from, 2).await.as_secs(), 2);
        // A later one, an earlier one while the later is set, and one that has passed.
        let later = connection.poll_until(
            &mut Context::from_waker(futures_util::task::noop_waker_ref()),
            from + Duration::from_secs(9),
        );
        assert!(later.is_pending());
        assert_eq!(ring(&connection, from, 5).await.as_secs(), 5);
        assert_eq!(ring(&connection, from, 9).await.as_secs(), 9);
        assert_eq!(ring(&connection, from, 1).await.as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_the_time_of_its_head_and_begins_that_of_the_pause() {
        let connection = Rc::new(Connection::default());
        assert!(matches!(connection.phase.get(), Phase::Head(_)));
        connection.note(b"GET / HTTP/1.1\r\n\r\n");
        let serving = connection.serve(false);
        assert!(matches!(connection.phase.get(), Phase::Serving));
        drop(serving);
        assert!(matches!(connection.phase.get(), Phase::Idle(since) if since == Instant::now()));
    }

    #[test]
    fn what_came_behind_a_request_is_known_by_its_last_bytes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        let chunks = "5\r\nhello\r\n0\r\n\r\n";
        let long = "the quick brown fox jumps";
        for (body, is_length_declared) in
            [(None, false), (Some(chunks), false), (Some(""), true), (Some("a"), true), (Some(long), true)]
        {
            for (rest, has_rest) in
                [("", false), ("GET /hea", true), ("\r", true), ("GET / HTTP/1.1\r\nHost:", true)]
            {
                let came = format!("POST / HTTP/1.1\r\nHost: x\r\n\r\n{}{rest}", body.unwrap_or_default());
                for pieces in [came.len(), 1, 3] {
                    let connection = Rc::new(Connection::default());
                    came.as_bytes().chunks(pieces).for_each(|piece| connection.note(piece));
                    let serving = connection.serve(body.is_some());
                    if let Some(body) = body {
                        connection.body_was_read(body.as_bytes(), is_length_declared);
                    }
                    drop(serving);
                    let found = matches!(connection.phase.get(), Phase::Head(_));
                    assert_eq!(found, has_rest, "{came:?} in pieces of {pieces}");
                }
            }
        }
        let connection = Rc::new(Connection::default());
        connection.note(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        drop(connection.serve(true));
        assert!(matches!(connection.phase.get(), Phase::Idle(_)), "a body that nobody read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_rings_while_a_request_is_served_is_set_again() {
        let (mut guarded, _client) = pair().await;
        let connection = guarded.connection();
        connection.note(BLANK_LINE);
        let mut serving = Some(connection.serve(false));
        let answered = Instant::now() + Duration::from_secs(70);
        let mut answering = Box::pin(sleep_until(answered));
        let mut buffer = [0; 10];
        // As the server does it: first it reads, then the answer becomes ready, and it reads again when something wakes it.
        let task = poll_fn(|context| {
            let read = Pin::new(&mut guarded).poll_read(context, &mut ReadBuf::new(&mut buffer));
            if serving.is_some() && answering.as_mut().poll(context).is_ready() {
                serving = None;
            }
            read
        });
        let ended = tokio::time::timeout(Duration::from_secs(200), task).await;
        ended.expect("somebody looked").expect("no error");
        assert_eq!(answered.elapsed(), ServerLimits::default().idle_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_told_so_and_ended() {
        let (mut guarded, mut client) = pair().await;
        let from = Instant::now();
        assert_eq!(read(&mut guarded).await, 0, "a connection on which nothing comes");
        assert_eq!(from.elapsed().as_secs(), 5);
        let mut told = [0; 64];
        let count = client.read(&mut told).await.expect("an answer");
        assert!(told[..count].starts_with(b"HTTP/1.1 408 "));

        let (mut guarded, mut client) = pair().await;
        guarded.connection().note(BLANK_LINE);
        drop(guarded.connection().serve(false));
        tokio::time::sleep(Duration::from_secs(20)).await;
        client.write_all(b"GET / HT").await.expect("sent");
        assert_eq!(read(&mut guarded).await, 8);
        let from = Instant::now();
        assert_eq!(read(&mut guarded).await, 0, "the second head of a connection");
        assert_eq!(from.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_ends_the_connection_without_a_word() {
        let (mut guarded, mut client) = pair().await;
        guarded.connection().note(BLANK_LINE);
        drop(guarded.connection().serve(false));
        let from = Instant::now();
        assert_eq!(read(&mut guarded).await, 0);
        assert_eq!(from.elapsed(), ServerLimits::default().idle_timeout);
        drop(guarded);
        assert_eq!(client.read(&mut [0; 10]).await.expect("the end"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_cut_and_who_takes_some_is_not() {
        let (mut guarded, mut client) = pair().await;
        let _serving = guarded.connection().serve(false);
        let answer = vec![7; 32 << 20];
        let from = Instant::now();
        let error = guarded.write_all(&answer).await.expect_err("more than all buffers hold");
        assert_eq!((error.kind(), from.elapsed()), (io::ErrorKind::TimedOut, WRITE_STALL_MAX));

        let (mut guarded, mut reader) = pair().await;
        let write = async {
            guarded.write_all(&answer).await.expect("taken");
            drop(guarded);
        };
        let mut taken = Vec::new();
        let take = async {
            tokio::time::sleep(WRITE_STALL_MAX / 2).await;
            reader.read_to_end(&mut taken).await.expect("whole");
        };
        tokio::join!(write, take);
        assert_eq!(taken.len(), answer.len());
        drop(client.shutdown().await);
    }
}
