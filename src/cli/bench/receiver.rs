//! The receivers that the gateway pushes to: on a thread of their own, each with a port, and so with a lane, of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::latencies::Latencies;
use super::meter::ThreadClock;
use super::numbers::Numbers;
use super::stamp;
use crate::cli::Failure;

/// The largest request that is taken: the largest message, and a head.
const REQUEST_BYTES_MAX: usize = 17 << 20;
/// Connections that one receiver serves at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// How long it waits where no connection can be accepted.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// What one receiver has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Requests that came.
    pub(super) requests: AtomicU64,
    /// Those that were answered 200.
    pub(super) taken: AtomicU64,
    /// Connections that are open.
    pub(super) connections: AtomicU64,
    /// Whether they are answered 503 at the moment.
    pub(super) refuses: AtomicBool,
    stamped: Mutex<Stamped>,
}

/// Messages that said when they were due.
#[derive(Default)]
struct Stamped {
    latencies: Option<Latencies>,
    numbers: Numbers,
    again: u64,
}

impl Seen {
    fn stamped(&self) -> MutexGuard<'_, Stamped> {
        self.stamped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when messages were due until they came, each at its first time; and how many came again.
    pub(super) fn latencies(&self) -> (Latencies, u64) {
        let stamped = self.stamped();
        (stamped.latencies.clone().unwrap_or_else(Latencies::new), stamped.again)
    }

    /// The numbers that came.
    pub(super) fn numbers(&self) -> Numbers {
        self.stamped().numbers.clone()
    }

    fn note(&self, payload: &[u8], since: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some((number, due)) = stamp::read(payload) else { return };
        let mut stamped = self.stamped();
        match stamped.numbers.add(number) {
            Some(true) => {
                stamped.latencies.get_or_insert_with(Latencies::new).add(since.saturating_sub(due));
            }
            Some(false) => stamped.again += 1,
            None => {}
        }
    }
}

/// Receivers on one thread. Dropping them ends it.
pub(super) struct Receivers {
    pub(super) addresses: Vec<SocketAddr>,
    /// One for each address.
    pub(super) seen: Vec<Arc<Seen>>,
    /// Tells what they use.
    pub(super) clock: Option<ThreadClock>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receivers {
    /// Starts one for each of these delays, which pass before it answers.
    ///
    /// # Errors
    /// When this machine does not have that address, or gives no thread.
    pub(super) fn start(at: IpAddr, delays: &[Duration], epoch: Instant) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::failed(format!("cannot receive at {at}: {error}; --sink says where"));
        let listeners: io::Result<Vec<_>> = delays.iter().map(|_| listen(at)).collect();
        let listeners = listeners.map_err(failed)?;
        let addresses: io::Result<Vec<_>> = listeners.iter().map(TcpListener::local_addr).collect();
        let seen: Vec<Arc<Seen>> = delays.iter().map(|_| Arc::default()).collect();
        let (end, ended) = oneshot::channel();
        let (told, clock) = mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let each: Vec<_> = listeners.into_iter().zip(delays.to_vec()).zip(seen.clone()).collect();
        let run = move || {
            drop(told.send(ThreadClock::here()));
            runtime.block_on(async {
                let mut serving: FuturesUnordered<_> = each
                    .into_iter()
                    .map(|((listener, delay), seen)| serve(listener, delay, seen, epoch))
                    .collect();
                tokio::select! {
                    _ = ended => {}
                    () = async { while serving.next().await.is_some() {} } => {}
                }
            });
        };
        let thread = thread::Builder::new().name("sink".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self {
            addresses: addresses.map_err(failed)?,
            seen,
            clock: clock.recv().ok().flatten(),
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where the first one receives.
    pub(super) fn url(&self, index: usize) -> String {
        format!("http://{}/", self.addresses[index])
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn listen(at: IpAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((at, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, delay: Duration, seen: Arc<Seen>, epoch: Instant) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let mut connections = FuturesUnordered::new();
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => connections.push(converse(stream, delay, &seen, epoch)),
                // No descriptor is left: one may be in a moment.
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            },
            Some(_) = connections.next() => {}
        }
    }
}

/// Counts a connection as long as it is served.
struct Open<'s>(&'s AtomicU64);

impl<'s> Open<'s> {
    fn begin(count: &'s AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(mut stream: TcpStream, delay: Duration, seen: &Seen, epoch: Instant) -> io::Result<()> {
    let _open = Open::begin(&seen.connections);
    stream.set_nodelay(true)?;
    let (mut buffer, mut length) = (vec![0; 8 << 10], 0);
    loop {
        let Some((head, body)) = whole(&buffer[..length])? else {
            if length == buffer.len() {
                if length >= REQUEST_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                buffer.resize(length * 2, 0);
            }
            let count = stream.read(&mut buffer[length..]).await?;
            if count == 0 {
                return Ok(());
            }
            length += count;
            continue;
        };
        let end = head + body;
        seen.note(&buffer[head..end], epoch.elapsed());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if seen.refuses.load(Ordering::Relaxed) {
            stream.write_all(REFUSED).await?;
        } else {
            stream.write_all(TAKEN).await?;
            seen.taken.fetch_add(1, Ordering::Relaxed);
        }
        buffer.copy_within(end..length, 0);
        length -= end;
    }
}

/// The bytes of the head and of the body of a request that is all there.
fn whole(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| strange())?;
    let fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body: usize = match length {
        Some((_, value)) => value.trim().parse().map_err(|_| strange())?,
        None => 0,
    };
    if body > REQUEST_BYTES_MAX {
        return Err(strange());
    }
    Ok((bytes.len() >= end + 4 + body).then_some((end + 4, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        let text = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        let end = text.len() - 4;
        assert_eq!(whole(text).expect("a request"), Some((end - 3, 3)));
        assert_eq!(whole(&text[..end]).expect("a request"), Some((end - 3, 3)));
        assert_eq!(whole(&text[..end - 1]).expect("a request"), None);
        assert!(whole(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n").is_err());
    }

    #[test]
    fn a_message_that_comes_again_counts_once() {
        let seen = Seen::default();
        let mut payload = [b'x'; 40];
        for number in [3, 70, 3] {
            stamp::write(&mut payload[..stamp::STAMP_BYTES], number, Duration::from_millis(10));
            seen.note(&payload, Duration::from_millis(30));
        }
        seen.note(b"no stamp", Duration::ZERO);
        let (latencies, again) = seen.latencies();
        let summary = latencies.summary().expect("two came");
        assert_eq!((summary.count, again), (2, 1));
        assert!((summary.p50 - 20.0).abs() < 0.1, "{summary:?}");
        assert_eq!(seen.requests.load(Ordering::Relaxed), 4);
    }
}
