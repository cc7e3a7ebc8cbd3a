//! The HTTP clients of one thread.
//!
//! A client has one time-out for connecting and one idea of which addresses it may be given, so there is one for each pair that
//! is in use. Connections that were let in by an exempt origin are thus never used for another one.
//!
//! TLS is set up for each client, so that a program needs to install nothing: with the provider that it has installed, else
//! with ring, and with the certificates that the machine trusts. A client for https whose certificates could not be read is never
//! kept, for they may be readable the next moment; one for http needs none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, redirect, retry};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::guard::{Guard, Trust};
use super::shortage;

/// Clients kept by a thread. Queues rarely differ in `connect_timeout`; beyond, the one that was not used for longest is
/// dropped with its idle connections.
const CLIENTS_MAX: usize = 16;

/// Idle connections kept per destination: as many as a lane has slots.
const IDLE_MAX: usize = 64;

/// How long an idle connection is kept. Many receivers close theirs after a minute; closing first avoids the race.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses tried to reach a name: the time to connect is divided among them.
const ADDRESSES_MAX: usize = 8;

/// Header lines read of an answer; one with more is not HTTP to us.
const ANSWER_HEADERS_MAX: usize = 128;

/// What makes a client another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// How long it waits for a connection.
    pub(super) connect_timeout: Duration,
    /// Which addresses it may be given.
    pub(super) trust: Trust,
    /// Whether it is for https destinations.
    pub(super) is_secure: bool,
}

/// The clients made so far, the last used first.
pub(super) struct Clients {
    guard: Guard,
    made: RefCell<VecDeque<(Kind, Client)>>,
}

/// No client can be made now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// For lack of descriptors or memory.
    #[error("no HTTP client: {0}")]
    Short(String),
    /// There are no certificates to judge those of receivers by.
    #[error("no HTTP client for https: {0}")]
    Roots(String),
    /// TLS or the client refuse their settings.
    #[error("no HTTP client: {0}")]
    Settings(String),
}

impl Clients {
    pub(super) fn new(guard: Guard) -> Self {
        Self { guard, made: RefCell::new(VecDeque::with_capacity(CLIENTS_MAX)) }
    }

    /// The client of this kind. Whatever keeps it from being made is tried again the next time.
    pub(super) fn client(&self, kind: Kind) -> Result<Client, ClientError> {
        let mut made = self.made.borrow_mut();
        let entry = match made.iter().position(|(made, _)| *made == kind) {
            Some(0) => return Ok(made[0].1.clone()),
            Some(place) => made.remove(place).expect("its place was just found"),
            None => (kind, build(&self.guard, kind)?),
        };
        let client = entry.1.clone();
        made.truncate(CLIENTS_MAX - 1);
        made.push_front(entry);
        Ok(client)
    }
}

fn build(guard: &Guard, kind: Kind) -> Result<Client, ClientError> {
    let resolver = CheckedResolver { guard: guard.clone(), trust: kind.trust };
    let builder = settings(Client::builder())
        .connect_timeout(kind.connect_timeout)
        .dns_resolver(resolver)
        .tls_backend_preconfigured(tls(kind.is_secure)?);
    let cause = |error: reqwest::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    builder.build().map_err(|error| ClientError::Settings(cause(error)))
}

/// TLS 1.2 and 1.3 to receivers whose certificates the machine trusts, HTTP/1.1 inside; to nobody unless `is_secure`.
fn tls(is_secure: bool) -> Result<ClientConfig, ClientError> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Settings(error.to_string()))?;
    let mut tls = if is_secure {
        let verifier = Arc::new(verifier(provider)?);
        // "Dangerous" is what takes any verifier; this one is the platform's.
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Judges certificates by those that the machine trusts, which are read here, all of them.
fn verifier(provider: Arc<CryptoProvider>) -> Result<Verifier, ClientError> {
    let enough = || shortage::now().map_or(Ok(()), |error| Err(ClientError::Short(error.to_string())));
    enough()?;
    let verifier = Verifier::new(provider);
    // It passes over files that it could not open, so it may have read some of them only.
    enough()?;
    verifier.map_err(|error| ClientError::Roots(error.to_string()))
}

/// What all clients have in common. Their other time-outs are kept by the attempt itself.
fn settings(builder: ClientBuilder) -> ClientBuilder {
    builder
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .pool_max_idle_per_host(IDLE_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
}

/// Gives a client only addresses that the guard let through.
struct CheckedResolver {
    guard: Guard,
    trust: Trust,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, trust) = (self.guard.clone(), self.trust);
        Box::pin(async move {
            let mut addresses = guard.resolve(name.as_str(), trust).await?;
            addresses.truncate(ADDRESSES_MAX);
            // Port 0: the client puts that of the URL in its place.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
