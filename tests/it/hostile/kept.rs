//! Connections over TLS that are kept for the next message, and that the receiver ends meanwhile, in order or not: neither a message
//! nor an attempt is lost to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::connections::read_request;
use crate::support::gateway::Gateway;
use crate::support::peer::Peer;
use crate::support::tls::Authority;

const WITHIN: Duration = Duration::from_secs(30);
const FILE: &str = "authority.pem";
/// Messages to each receiver, one after the other.
const MESSAGES: usize = 5;

/// What a receiver does with a connection on which it answered, once that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It says so, and closes.
    Said,
    /// It closes.
    Unsaid,
    /// It says so, and leaves the rest to the client.
    SaidOnly,
    /// It takes the next message.
    None,
}

/// A receiver behind TLS that ends each connection thus when it is told to.
struct Closer {
    name: &'static str,
    end: End,
    received: Arc<AtomicUsize>,
    close: SyncSender<()>,
    closed: Receiver<()>,
    /// Dropped last: it waits for the thread that waits for those.
    peer: Peer,
}

impl Closer {
    fn start(name: &'static str, end: End, config: Arc<ServerConfig>) -> Self {
        let received = Arc::<AtomicUsize>::default();
        let (close, may_close) = sync_channel::<()>(1);
        let (closing, closed) = sync_channel::<()>(1);
        let (counted, left_open) = (received.clone(), Mutex::new(Vec::new()));
        let peer = Peer::start(move |stream: TcpStream| {
            // What it says at the end is not to wait until the client has acknowledged what was before it.
            stream.set_nodelay(true).expect("a setting of the socket");
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            while read_request(&mut stream).is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
                drop(stream.flush());
                if may_close.recv().is_err() {
                    return;
                }
                match end {
                    End::None => {
                        closing.send(()).unwrap_or_default();
                        continue;
                    }
                    End::Said | End::SaidOnly => {
                        stream.conn.send_close_notify();
                        drop(stream.flush());
                    }
                    End::Unsaid => {}
                }
                if end == End::SaidOnly {
                    left_open.lock().expect("unbroken").push(stream.sock);
                } else {
                    drop(stream);
                }
                closing.send(()).unwrap_or_default();
                return;
            }
        });
        Self { name, end, received, close, closed, peer }
    }
}

#[test]
fn a_kept_connection_over_tls_that_the_receiver_ends_costs_no_attempt() {
    let authority = Authority::new();
    let ends =
        [("said", End::Said), ("unsaid", End::Unsaid), ("said-only", End::SaidOnly), ("kept", End::None)];
    let closers = ends.map(|(name, end)| Closer::start(name, end, authority.server(|_| {})));
    let mut settings = "workers.threads = 1\n".to_owned();
    for closer in &closers {
        let (name, url) = (closer.name, closer.peer.url("https"));
        let queue =
            format!("[queues.{name}]\nprocessor = 'http'\ndestination = '{url}'\nretry.schedule = ['1h']");
        writeln!(settings, "{queue}\ntimeout = '5s'").expect("a string grows");
    }
    let wrapper = ["env", "-u", "SSL_CERT_DIR", &format!("SSL_CERT_FILE={FILE}")].map(str::to_owned);
    let mut gateway = Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper.into(), "sqlite:posthaste.db");
    authority.publish(&gateway.folder().join(FILE));
    gateway.launch_until_ready();
    for turn in 1..=MESSAGES {
        let paths = closers.each_ref().map(|closer| gateway.publish(closer.name, &[], b"the end"));
        for (closer, path) in closers.iter().zip(&paths) {
            let message = gateway.wait_for("it was tried", WITHIN, |gateway| {
                let message = gateway.request("GET", path, &[], b"").json();
                message["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty()).then_some(message)
            });
            let attempts = message["attempts"].as_array().expect("a list");
            let outcome = (attempts.len(), &attempts[0]["outcome"]);
            assert_eq!(outcome, (1, &json!("delivered")), "{:?}, turn {turn}: {message}", closer.end);
            assert_eq!(closer.received.load(Ordering::SeqCst), turn, "{:?}", closer.end);
            let connections = if closer.end == End::None { 1 } else { turn };
            assert_eq!(closer.peer.connections(), connections, "{:?}", closer.end);
        }
        // Only now, when all of them are kept.
        for closer in &closers {
            closer.close.send(()).expect("it waits");
            closer.closed.recv_timeout(WITHIN).expect("it ends it");
        }
    }
    gateway.stop();
}
