//! An authority, certificates of it, and a receiver behind TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long a connection may stay silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Signs certificates; nobody trusts it by itself.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let pem = pem("CERTIFICATE", certificate.der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for `localhost` and its key into a folder; gives the paths of both.
    pub(crate) fn issue(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let paths = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&paths.0, pem("CERTIFICATE", certificate.der())).expect("a file");
        std::fs::write(&paths.1, pem("PRIVATE KEY", &key.serialize_der())).expect("a file");
        paths
    }

    /// Writes its certificate where those who read that file will trust it: whole, or not at all.
    pub(crate) fn publish(&self, path: &Path) {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, &self.pem).expect("a file");
        std::fs::rename(draft, path).expect("it takes its place");
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("ring has them");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = builder.with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key.into());
        Arc::new(config.expect("the key fits"))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let body = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// Answers every request with 200, one connection after the other.
pub(crate) struct SecureSink {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_stopping: AtomicBool,
    received: AtomicUsize,
}

impl SecureSink {
    /// A receiver called `localhost`, by a certificate of `authority`.
    pub(crate) fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (state, config) = (Arc::<State>::default(), authority.server());
        let serving = state.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                // A client that does not trust it hangs up: that is what some tests are about.
                if stream.and_then(|stream| answer(stream, config.clone())).is_ok() {
                    serving.received.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// Requests that were read and answered.
    pub(crate) fn count(&self) -> usize {
        self.state.received.load(Ordering::SeqCst)
    }
}

impl Drop for SecureSink {
    fn drop(&mut self) {
        self.state.is_stopping.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the receiver panicked");
        }
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    while !is_whole(&request) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
    request.len() >= end + 4 + length
}
