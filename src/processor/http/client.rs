//! The HTTP clients of one thread.
//!
//! A client has one time-out for connecting and one idea of which addresses it may be given, so there is one for each pair that
//! is in use. Connections that were let in by an exempt origin are thus never used for another one.
//!
//! TLS is set up for each client, so that a program needs to install nothing: with the provider that it has installed, else
//! with ring, and with the certificates that the machine trusts.

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

type Key = (Duration, Trust);

/// The clients made so far, the last used first.
pub(super) struct Clients {
    guard: Guard,
    made: RefCell<VecDeque<(Key, Client)>>,
}

/// No client can be made on this machine as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub(super) struct ClientError(String);

impl Clients {
    pub(super) fn new(guard: Guard) -> Self {
        Self { guard, made: RefCell::new(VecDeque::with_capacity(CLIENTS_MAX)) }
    }

    /// The client that gives up connecting after `connect_timeout` and is given the addresses that `trust` allows.
    pub(super) fn client(&self, connect_timeout: Duration, trust: Trust) -> Result<Client, ClientError> {
        let key = (connect_timeout, trust);
        let mut made = self.made.borrow_mut();
        let entry = match made.iter().position(|(made, _)| *made == key) {
            Some(0) => return Ok(made[0].1.clone()),
            Some(place) => made.remove(place).expect("its place was just found"),
            None => (key, build(&self.guard, key)?),
        };
        let client = entry.1.clone();
        made.truncate(CLIENTS_MAX - 1);
        made.push_front(entry);
        Ok(client)
    }
}

fn build(guard: &Guard, (connect_timeout, trust): Key) -> Result<Client, ClientError> {
    let tls = tls().map_err(|error| ClientError(error.to_string()))?;
    let resolver = CheckedResolver { guard: guard.clone(), trust };
    let builder = settings(Client::builder())
        .connect_timeout(connect_timeout)
        .dns_resolver(resolver)
        .tls_backend_preconfigured(tls);
    let cause = |error: reqwest::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    builder.build().map_err(|error| ClientError(cause(error)))
}

/// TLS 1.2 and 1.3 to receivers whose certificates the machine trusts, HTTP/1.1 inside.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut tls = match Verifier::new(provider) {
        // "Dangerous" is what takes any verifier; this one is the platform's.
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Err(error) => {
            // Without root certificates plain HTTP still works; https then fails at each certificate, as it must.
            let cause = error.to_string();
            log::warn!("cause" = cause.as_str(); "https destinations cannot be verified, so none is delivered to");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
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
