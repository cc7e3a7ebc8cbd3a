//! One client's connection: nobody may be slow for ever, neither with a head nor with reading an answer.
//!
//! The server's own time-out covers the head of a connection's first request only, and not to the half second. So [`Guarded`]
//! wraps the socket: it times every head, ends a connection that is idle for long, and one whose client takes nothing of its
//! answer. Both the socket and the request under way know the [`Connection`], which carries the one timer they share.

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

/// What a request and its socket know of their connection.
pub(super) struct Connection {
    phase: Cell<Phase>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { phase: Cell::new(Phase::Head(Instant::now())), timer: RefCell::default() }
    }
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
            Phase::Serving => return Poll::Pending,
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
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_pending() {
            // To the reader, "nothing more will come" is the end of the connection.
            return self.poll_request(context).map(Ok);
        }
        let phase = &self.connection.phase;
        if buffer.filled().len() > before && matches!(phase.get(), Phase::Idle(_)) {
            phase.set(Phase::Head(Instant::now()));
        }
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

    /// Both ends of a connection, ours guarded with five seconds for a head.
    async fn pair() -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let (stream, _) = listener.accept().await.expect("accepts");
        (Guarded::new(stream, Duration::from_secs(5)), client)
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
        let serving = connection.serve();
        assert!(matches!(connection.phase.get(), Phase::Serving));
        drop(serving);
        assert!(matches!(connection.phase.get(), Phase::Idle(since) if since == Instant::now()));
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
        drop(guarded.connection().serve());
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
        drop(guarded.connection().serve());
        let from = Instant::now();
        assert_eq!(read(&mut guarded).await, 0);
        assert_eq!(from.elapsed(), KEEP_ALIVE);
        drop(guarded);
        assert_eq!(client.read(&mut [0; 10]).await.expect("the end"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_cut_and_who_takes_some_is_not() {
        let (mut guarded, mut client) = pair().await;
        let _serving = guarded.connection().serve();
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
