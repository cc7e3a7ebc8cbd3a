//! A proxy before a Redis that breaks one connection at a chosen moment: between the request and its answer, or in the middle
//! of the answer.

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
}

/// A proxy that passes all on until it is told otherwise.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
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
        let shared = Arc::new(Shared { socket, armed: Mutex::default(), is_over: AtomicBool::new(false) });
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
    let Ok(server) = UnixStream::connect(&shared.socket) else { return };
    client.set_nodelay(true).expect("a socket");
    let answer_fault: Arc<Mutex<Option<Fault>>> = Arc::default();
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let (of_requests, shared) = (Arc::clone(&answer_fault), Arc::clone(shared));
    thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut chunk) {
            match shared.fault_of(&chunk[..length]) {
                Some(Fault::LoseRequest) => break,
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
