//! A proxy before a Redis: an address that can be moved to another server, and one that breaks a call at a chosen moment: between
//! the request and its answer, in the middle of the answer, or by answering itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to one call of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The request never arrives.
    LoseRequest,
    /// The request is carried out, its answer is lost.
    LoseAnswer,
    /// The request is carried out, half of its answer arrives.
    HalveAnswer,
    /// The answer comes late.
    DelayAnswer(Duration),
    /// The request never arrives, and each command of it is answered with this error line.
    Say(&'static str),
}

/// A proxy that passes all on until it is told otherwise.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What is remembered of what a connection sent.
const SEEN_BYTES_MAX: usize = 1 << 20;

/// A connection, and what was sent on it.
type Seen = (TcpStream, Arc<Mutex<Vec<u8>>>);

struct Shared {
    socket: Mutex<PathBuf>,
    /// Where every second connection comes to.
    other: Mutex<Option<PathBuf>>,
    seen: Mutex<Vec<Seen>>,
    armed: Mutex<Option<Fault>>,
    is_over: AtomicBool,
}

impl Shared {
    /// The fault that awaits the next call of a script, once.
    fn fault_of(&self, request: &[u8]) -> Option<Fault> {
        let is_call = request.windows(7).any(|word| word == b"EVALSHA");
        if is_call { self.armed.lock().expect("nobody panics with it").take() } else { None }
    }
}

impl Proxy {
    /// Starts one before the server that listens on this socket.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            socket: Mutex::new(socket),
            other: Mutex::default(),
            seen: Mutex::default(),
            armed: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.is_over.load(Ordering::Acquire) {
                    return;
                }
                serve(client.expect("a connection"), &of_thread);
            }
        });
        Self { address, shared }
    }

    /// How a store names it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Moves the address: who connects from now on comes to the server on that socket. Connections that are open stay where they
    /// are until their server ends them.
    pub(crate) fn point_at(&self, socket: PathBuf) {
        *self.shared.socket.lock().expect("nobody panics with it") = socket;
    }

    /// Lets every second connection from now on come to another server.
    pub(crate) fn share_with(&self, socket: PathBuf) {
        *self.shared.other.lock().expect("nobody panics with it") = Some(socket);
    }

    /// Ends the connections on which these bytes were sent, and no others; gives how many those were.
    pub(crate) fn cut_those_that_sent(&self, bytes: &[u8]) -> usize {
        let mut cut = 0;
        for (connection, sent) in &*self.shared.seen.lock().expect("nobody panics with it") {
            let sent = sent.lock().expect("nobody panics with it");
            if sent.windows(bytes.len()).any(|window| window == bytes) {
                cut += usize::from(connection.shutdown(Shutdown::Both).is_ok());
            }
        }
        cut
    }

    /// Breaks the next call of a script.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.shared.armed.lock().expect("nobody panics with it") = Some(fault);
    }

    /// Whether the fault came to pass.
    pub(crate) fn has_struck(&self) -> bool {
        self.shared.armed.lock().expect("nobody panics with it").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

/// Serves one connection with two threads, which end with it.
fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
    let place = {
        let mut seen = shared.seen.lock().expect("nobody panics with it");
        seen.push((client.try_clone().expect("a socket"), Arc::clone(&sent)));
        seen.len()
    };
    let other = shared.other.lock().expect("nobody panics with it").clone();
    let first = shared.socket.lock().expect("nobody panics with it").clone();
    let socket = other.filter(|_| place % 2 == 0).unwrap_or(first);
    let Ok(server) = UnixStream::connect(socket) else { return };
    client.set_nodelay(true).expect("a socket");
    let answer_fault: Arc<Mutex<Option<Fault>>> = Arc::default();
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let mut to_asker = client.try_clone().expect("a socket");
    let (of_requests, shared) = (Arc::clone(&answer_fault), Arc::clone(shared));
    thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut chunk) {
            let mut sent_before = sent.lock().expect("nobody panics with it");
            if sent_before.len() < SEEN_BYTES_MAX {
                sent_before.extend_from_slice(&chunk[..length]);
            }
            drop(sent_before);
            match shared.fault_of(&chunk[..length]) {
                Some(Fault::LoseRequest) => break,
                Some(Fault::Say(line)) => {
                    let answer = format!("-{line}\r\n").repeat(commands(&chunk[..length]));
                    if to_asker.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                    continue;
                }
                Some(fault) => *of_requests.lock().expect("nobody panics with it") = Some(fault),
                None => {}
            }
            if to_server.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        drop(from_client.shutdown(Shutdown::Both));
        drop(to_server.shutdown(Shutdown::Both));
    });
    let (mut from_server, mut to_client) = (server, client);
    thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut chunk) {
            let fault = answer_fault.lock().expect("nobody panics with it").take();
            let passed = match fault {
                Some(Fault::LoseAnswer) => 0,
                Some(Fault::HalveAnswer) => length / 2,
                Some(Fault::DelayAnswer(delay)) => {
                    thread::sleep(delay);
                    length
                }
                _ => length,
            };
            if to_client.write_all(&chunk[..passed]).is_err() || passed < length {
                break;
            }
        }
        drop(to_client.shutdown(Shutdown::Both));
        drop(from_server.shutdown(Shutdown::Both));
    });
}

/// How many whole commands a chunk has.
fn commands(mut chunk: &[u8]) -> usize {
    /// Takes a line like `*3` or `$5`; gives the number.
    fn line(chunk: &mut &[u8], mark: u8) -> Option<usize> {
        let end = chunk.windows(2).position(|pair| pair == b"\r\n")?;
        let number = std::str::from_utf8(chunk[..end].strip_prefix(&[mark])?).ok()?.parse().ok()?;
        *chunk = &chunk[end + 2..];
        Some(number)
    }
    let mut count = 0;
    while let Some(words) = line(&mut chunk, b'*') {
        for _ in 0..words {
            let bytes = line(&mut chunk, b'$').expect("commands come whole");
            chunk = &chunk[bytes + 2..];
        }
        count += 1;
    }
    count
}
