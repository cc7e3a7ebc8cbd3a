//! From an origin to a connection: look up, connect, judge the peer, TLS.
//!
//! The addresses of a name are tried as RFC 8305 ("Happy Eyeballs") has it: the families take turns, and the next address is tried
//! when the one before failed or has not answered for a moment; whichever connects first wins.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use url::Host;

use super::connection::{Connection, Stream};
use super::guard::{Guard, Refusal, ResolveError, Trust};
use super::watch::{Phase, Watch};
use crate::domain::destination::Destination;

/// Addresses tried to reach a name.
const ADDRESSES_MAX: usize = 8;

/// How long an address may keep the next one waiting (RFC 8305, section 5: its recommended Connection Attempt Delay).
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The name has no addresses, or none that may be used.
    #[error(transparent)]
    Resolve(ResolveError),
    /// The guard refuses the address that the connection led to.
    #[error(transparent)]
    Refused(Refusal),
    /// Nobody there.
    #[error(transparent)]
    Connect(io::Error),
    /// No TLS with who is there.
    #[error(transparent)]
    Tls(io::Error),
    /// Not within `connect_timeout`.
    #[error("no connection in time")]
    TimedOut,
    /// The connection was not fit for HTTP.
    #[error(transparent)]
    Http(hyper::Error),
}

/// Where to connect to.
pub(super) struct Site {
    /// Judges the addresses, and who is there.
    pub(super) guard: Guard,
    /// A destination of the origin.
    pub(super) destination: Destination,
    /// What the guard grants it.
    pub(super) trust: Trust,
    /// For https.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Site {
    /// Makes a connection within so long.
    pub(super) async fn connect(
        &self,
        within: Duration,
        watch: &mut Watch,
    ) -> Result<Connection, ConnectError> {
        let until = Instant::now() + within;
        timeout_at(until, self.connection(watch)).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn connection(&self, watch: &mut Watch) -> Result<Connection, ConnectError> {
        let url = self.destination.url();
        let addresses = match url.host() {
            Some(Host::Domain(name)) => {
                watch.enter(Phase::Dns);
                self.guard.resolve(name, self.trust).await.map_err(ConnectError::Resolve)?
            }
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            None => Vec::new(),
        };
        watch.enter(Phase::Connect);
        let stream = dial(&addresses, url.port_or_known_default().unwrap_or(0)).await?;
        let peer = stream.peer_addr().map_err(ConnectError::Connect)?;
        self.guard.judge_peer(&self.destination, peer, self.trust).map_err(ConnectError::Refused)?;
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => Stream::Tls(Box::new(self.secure(tls.clone(), stream).await?)),
        };
        Connection::open(stream).await.map_err(ConnectError::Http)
    }

    async fn secure(
        &self,
        tls: Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let named = match self.destination.url().host() {
            Some(Host::Ipv4(address)) => Ok(ServerName::from(IpAddr::from(address))),
            Some(Host::Ipv6(address)) => Ok(ServerName::from(IpAddr::from(address))),
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).map_err(io::Error::other),
            None => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let named = named.map_err(ConnectError::Tls)?;
        TlsConnector::from(tls).connect(named, stream).await.map_err(ConnectError::Tls)
    }
}

/// Connects to the first address that answers; tells what the last one said where none does.
async fn dial(addresses: &[IpAddr], port: u16) -> Result<TcpStream, ConnectError> {
    let mut rest = in_turn(addresses).into_iter().take(ADDRESSES_MAX);
    let mut dialled = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address to connect to");
    loop {
        match rest.next() {
            Some(address) => dialled.push(TcpStream::connect(SocketAddr::new(address, port))),
            None if dialled.is_empty() => return Err(ConnectError::Connect(failed)),
            None => {}
        }
        let next = dialled.next();
        let ended = if rest.len() == 0 {
            next.await
        } else {
            match timeout_at(Instant::now() + NEXT_AFTER, next).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => failed = error,
            None => {}
        }
    }
}

/// The addresses in the order in which they were found, but that the two families take turns (RFC 8305, section 4).
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv4() == first.is_ipv4() { &mut own } else { &mut other };
        family.push(*address);
    }
    let mut ordered = Vec::with_capacity(addresses.len());
    for place in 0..own.len().max(other.len()) {
        ordered.extend(own.get(place));
        ordered.extend(other.get(place));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn the_families_take_turns_and_the_first_found_begins() {
        for (found, ordered) in [
            (&[][..], &[][..]),
            (&["::1"], &["::1"]),
            (&["::1", "::2", "::3", "1.1.1.1"], &["::1", "1.1.1.1", "::2", "::3"]),
            (&["1.1.1.1", "::1", "1.1.1.2", "::2"], &["1.1.1.1", "::1", "1.1.1.2", "::2"]),
            (&["1.1.1.1", "1.1.1.2", "::1"], &["1.1.1.1", "::1", "1.1.1.2"]),
        ] {
            assert_eq!(in_turn(&addresses(found)), addresses(ordered), "{found:?}");
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_is_makes_way_for_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let stream =
            dial(&addresses(&["127.0.0.2", "127.0.0.3", "127.0.0.1"]), port).await.expect("connected");
        assert_eq!(stream.peer_addr().expect("a peer"), listener.local_addr().expect("bound"));
    }

    #[tokio::test]
    async fn where_nobody_is_at_any_address_the_last_one_says_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        for found in [&["127.0.0.1"][..], &["127.0.0.2", "127.0.0.1"]] {
            let error = dial(&addresses(found), port).await.expect_err("nobody there");
            let ConnectError::Connect(error) = error else { panic!("{error:?}") };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        let error = dial(&[], port).await.expect_err("no address");
        assert!(matches!(error, ConnectError::Connect(_)), "{error:?}");
    }
}
