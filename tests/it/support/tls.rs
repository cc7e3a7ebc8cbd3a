//! An authority, certificates of it, and a receiver behind TLS.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ConfigBuilder, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    WantsVerifier,
};

use crate::support::peer::Peer;

/// Signs certificates; nobody trusts it by itself.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let pem = pem("CERTIFICATE", certificate.der());
        Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone(), pem }
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

    /// How a server called `localhost` serves TLS, with a certificate that is changed thus before it is signed.
    pub(crate) fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let (chain, key) = self.identity(change);
        Arc::new(versions(&[]).with_no_client_auth().with_single_cert(chain, key).expect("the key fits"))
    }

    /// The same, with no other versions of TLS than these.
    pub(crate) fn server_of(&self, only: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let (chain, key) = self.identity(|_| {});
        Arc::new(versions(only).with_no_client_auth().with_single_cert(chain, key).expect("the key fits"))
    }

    /// The same, but clients must show a certificate of this authority.
    pub(crate) fn server_that_asks(&self) -> Arc<ServerConfig> {
        let (chain, key) = self.identity(|_| {});
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("it has roots");
        let config = versions(&[]).with_client_cert_verifier(verifier).with_single_cert(chain, key);
        Arc::new(config.expect("the key fits"))
    }

    fn identity(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// A certificate for `localhost` that vouches for itself.
pub(crate) fn self_signed() -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let chain = vec![params.self_signed(&key).expect("a certificate").der().clone()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Arc::new(versions(&[]).with_no_client_auth().with_single_cert(chain, key).expect("the key fits"))
}

/// A server of these versions of TLS; of all when none is named.
fn versions(only: &[&'static SupportedProtocolVersion]) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let only = if only.is_empty() { rustls::ALL_VERSIONS } else { only };
    builder.with_protocol_versions(only).expect("ring has them")
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let body = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// How long a receiver waits before it goes on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pauses {
    /// After a connection was made and before TLS.
    pub(crate) handshake: Duration,
    /// Before the head of an answer.
    pub(crate) head: Duration,
    /// Between the head and the body.
    pub(crate) body: Duration,
}

/// Answers every request with 200, one connection after the other.
pub(crate) struct SecureSink {
    peer: Peer,
    received: Arc<AtomicUsize>,
}

impl SecureSink {
    /// A receiver called `localhost`, by a certificate of `authority`.
    pub(crate) fn start(authority: &Authority) -> Self {
        Self::serving(authority.server(|_| {}))
    }

    /// A receiver that serves TLS thus.
    pub(crate) fn serving(config: Arc<ServerConfig>) -> Self {
        Self::pausing(config, Pauses::default())
    }

    /// The same, that takes its time.
    pub(crate) fn pausing(config: Arc<ServerConfig>, pauses: Pauses) -> Self {
        let received = Arc::<AtomicUsize>::default();
        let counted = received.clone();
        let peer = Peer::start(move |stream| {
            // A client that does not trust it hangs up: that is what some tests are about.
            if answer(stream, config.clone(), pauses).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { peer, received }
    }

    pub(crate) fn url(&self) -> String {
        self.peer.url("https")
    }

    /// Requests that were read and answered.
    pub(crate) fn count(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, pauses: Pauses) -> io::Result<()> {
    thread::sleep(pauses.handshake);
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    while !is_whole(&request) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    thread::sleep(pauses.head);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n")?;
    stream.flush()?;
    thread::sleep(pauses.body);
    stream.write_all(b"ok")?;
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
