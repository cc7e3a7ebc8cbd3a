//! A peer on a real socket that does with a connection whatever a test says, one after the other.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How long a connection may stay silent: longer than any wait that a test expects to end by itself.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A running peer.
pub(crate) struct Peer {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_stopping: AtomicBool,
    connections: AtomicUsize,
}

impl Peer {
    /// A peer on a free port of 127.0.0.1.
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::<State>::default();
        let serving = state.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                serving.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(SILENCE_MAX)).expect("a socket has time-outs");
                stream.set_write_timeout(Some(SILENCE_MAX)).expect("a socket has time-outs");
                serve(stream);
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Its URL with this scheme.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/", self.address.port())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it took.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.state.is_stopping.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the peer panicked");
        }
    }
}
