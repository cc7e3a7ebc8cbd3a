//! A receiver that does as it is told: HTTP/1.1 on real sockets, good answers and every bad one.
//!
//! It runs on a thread of its own, so a test may block while it serves. Each request is recorded, then a script chooses the
//! answer. Memory is bounded: by [`RECEIVED_MAX`], by [`BODY_BYTES_MAX`], and in long runs by keeping digests instead of bodies.

mod answer;
mod request;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub(crate) use self::answer::Answer;

/// Requests that one sink records before the run counts as out of hand.
pub(crate) const RECEIVED_MAX: usize = 4_000_000;
/// The largest body a sink takes: twice what the product allows.
pub(crate) const BODY_BYTES_MAX: usize = 32 << 20;
/// Connections served at once; more wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Its place among all that the sink received, from 0.
    pub(crate) order: usize,
    /// The connection it came on, from 0.
    pub(crate) connection: usize,
    /// When it was complete.
    pub(crate) at: Instant,
    /// The method.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names and values as they came, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, unless the sink keeps digests only.
    pub(crate) body: Option<Bytes>,
    /// The length of the body.
    pub(crate) body_bytes: usize,
    /// The SHA-256 of the body.
    pub(crate) sha256: [u8; 32],
}

impl Received {
    /// The value of the first header of this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The names of all headers in lower case, sorted.
    pub(crate) fn header_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names
    }
}

/// What a sink keeps of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// All of it.
    Bodies,
    /// Length and SHA-256.
    Digests,
}

type Script = Box<dyn Fn(&Received) -> Answer + Send + Sync>;

struct State {
    script: Script,
    keep: Keep,
    received: Mutex<Vec<Arc<Received>>>,
    arrived: Condvar,
    connections: AtomicUsize,
    connections_open: AtomicUsize,
    sent_bytes: AtomicU64,
    answers_ended: AtomicUsize,
}

/// A running sink. Dropping it closes every connection.
pub(crate) struct Sink {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sink {
    /// A sink on a free port of 127.0.0.1 that keeps bodies and answers as `script` says.
    pub(crate) fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self::keeping(Keep::Bodies, script)
    }

    /// The same, keeping `keep` of each body.
    pub(crate) fn keeping(keep: Keep, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        raise_open_files();
        let state = Arc::new(State {
            script: Box::new(script),
            keep,
            received: Mutex::default(),
            arrived: Condvar::new(),
            connections: AtomicUsize::new(0),
            connections_open: AtomicUsize::new(0),
            sent_bytes: AtomicU64::new(0),
            answers_ended: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let serving = state.clone();
        let thread = thread::Builder::new().name("sink".to_owned()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, serving, stopped));
        });
        Self { address, state, stop: Some(stop), thread: Some(thread.expect("a thread")) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path beginning with `/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests were received.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state.received).len()
    }

    /// All requests so far, in order.
    pub(crate) fn received(&self) -> Vec<Arc<Received>> {
        lock(&self.state.received).clone()
    }

    /// The only request; panics when there are none or several.
    pub(crate) fn only(&self) -> Arc<Received> {
        let received = self.received();
        assert_eq!(received.len(), 1, "exactly one request was expected");
        received[0].clone()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub(crate) fn connections_open(&self) -> usize {
        self.state.connections_open.load(Ordering::SeqCst)
    }

    /// Bytes of answers that left so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.state.sent_bytes.load(Ordering::SeqCst)
    }

    /// Answers that came to their end, or that the client put an end to.
    pub(crate) fn answers_ended(&self) -> usize {
        self.state.answers_ended.load(Ordering::SeqCst)
    }

    /// Blocks until `count` requests were received; panics after `deadline`. Not for the thread that sends them.
    pub(crate) fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Arc<Received>> {
        let waiting = lock(&self.state.received);
        let few = |received: &mut Vec<Arc<Received>>| received.len() < count;
        let (received, waited) =
            self.state.arrived.wait_timeout_while(waiting, deadline, few).expect("no panic inside");
        let seen = received.len();
        assert!(!waited.timed_out(), "{seen} of {count} requests came within {deadline:?}");
        received.clone()
    }

    /// Waits until `holds` is true of the sink without blocking the thread; panics after `deadline`.
    pub(crate) async fn until(&self, what: &str, deadline: Duration, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < deadline, "not within {deadline:?}: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Lets the process hold as many sockets as the machine permits: client and sink share the process in most tests.
fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the soft limit can be raised to the hard one");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((stream, _)) = accepted else { continue };
                let number = state.connections.fetch_add(1, Ordering::SeqCst);
                state.connections_open.fetch_add(1, Ordering::SeqCst);
                let state = state.clone();
                connections.spawn(async move {
                    converse(stream, number, &state).await;
                    state.connections_open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(ended) = connections.join_next() => ended.expect("the script does not panic"),
            _ = &mut stopped => return,
        }
    }
}

/// Serves one connection until either side has enough of it.
async fn converse(mut stream: TcpStream, number: usize, state: &State) {
    let mut buffer = BytesMut::new();
    while let Some(request) = request::read(&mut stream, &mut buffer).await {
        let received = state.record(number, request);
        let goes_on = answer::write((state.script)(&received), &mut stream, &state.sent_bytes).await;
        state.answers_ended.fetch_add(1, Ordering::SeqCst);
        if !goes_on || received.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            return;
        }
    }
}

impl State {
    fn record(&self, connection: usize, request: request::Request) -> Arc<Received> {
        let request::Request { method, target, headers, body } = request;
        let (sha256, body_bytes) = (request::sha256(&body), body.len());
        let body = (self.keep == Keep::Bodies).then_some(body);
        let mut all = lock(&self.received);
        assert!(all.len() < RECEIVED_MAX, "a sink records at most {RECEIVED_MAX} requests");
        let (order, at) = (all.len(), Instant::now());
        let received = Received { order, connection, at, method, target, headers, body, body_bytes, sha256 };
        let received = Arc::new(received);
        all.push(received.clone());
        drop(all);
        self.arrived.notify_all();
        received
    }
}
