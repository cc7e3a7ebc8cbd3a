//! The HTTP client of one thread: sends a request to an origin, on a connection that was kept or on a new one.
//!
//! A connection belongs to its origin and to what the egress guard grants that origin; it is never used for another one. It is kept
//! ([`pool`](super::pool)) when an answer ended by itself, and used again last in, first out. What an idle one misses is found when
//! it is taken up: nothing of the request has left then, and it goes out on another one.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode};
use rustls::ClientConfig;

use super::connect::{ConnectError, Site};
use super::connection::{Connection, Outgoing};
use super::guard::{Guard, Trust};
use super::pool::{POOL_MAX, Pool, Room, Shelf};
use super::tls::{self, TlsError};
use super::watch::{Phase, Watch};
use crate::domain::destination::Destination;

/// Origins remembered by a thread, also while nothing is kept for them: some hundred bytes each. At least half of them can be
/// forgotten at any time.
const ORIGINS_MAX: usize = 2 * POOL_MAX;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// There was no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came on it is not HTTP.
    #[error(transparent)]
    Http(hyper::Error),
}

/// Sends requests from one thread.
pub(super) struct Client {
    guard: Guard,
    tls: OnceCell<Arc<ClientConfig>>,
    origins: RefCell<HashMap<String, Rc<Origin>>>,
    pool: Rc<Pool<Box<Connection>>>,
}

/// Where requests go: one scheme, host and port, and the idle connections to it.
pub(super) struct Origin {
    site: Site,
    host: HeaderValue,
    idle: Rc<Shelf<Box<Connection>>>,
}

/// The head of an answer, and the connection on which the rest comes. Dropping it closes the connection, unless all has come.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    /// Whether its last part was read.
    is_whole: bool,
    /// Taken out when this is dropped, to be kept.
    connection: Option<Box<Connection>>,
    /// Whether that one was kept before.
    is_again: bool,
    origin: Rc<Origin>,
}

impl Client {
    /// For the current thread; idle connections share the room of the process.
    pub(super) fn new(guard: Guard, room: Arc<Room>) -> Self {
        Self { guard, tls: OnceCell::new(), origins: RefCell::default(), pool: Pool::new(room) }
    }

    /// The origin of a destination that the guard let pass with this.
    ///
    /// # Errors
    /// There is no TLS for it. Whatever keeps that from being set up is tried again the next time.
    pub(super) fn origin(&self, destination: &Destination, trust: Trust) -> Result<Rc<Origin>, TlsError> {
        let key = destination.origin();
        let mut origins = self.origins.borrow_mut();
        if let Some(known) = origins.get(&key).filter(|known| known.site.trust == trust) {
            return Ok(known.clone());
        }
        let tls = if destination.url().scheme() == "https" { Some(self.tls()?) } else { None };
        let (guard, destination) = (self.guard.clone(), destination.clone());
        let site = Site { guard, destination, trust, tls };
        let origin = Rc::new(Origin { host: host(&key), site, idle: self.pool.shelf() });
        if origins.len() >= ORIGINS_MAX {
            origins.retain(|_, origin| Rc::strong_count(origin) > 1 || !origin.idle.is_empty());
        }
        if origins.len() < ORIGINS_MAX {
            origins.insert(key, origin.clone());
        }
        Ok(origin)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let tls = Arc::new(tls::config()?);
        Ok(self.tls.get_or_init(|| tls).clone())
    }

    /// Lets go of connections that were closed by the other end, and of those that nobody has used for long.
    pub(super) fn tick(&self) {
        self.pool.heed_shortage();
        for origin in self.origins.borrow().values() {
            origin.idle.sweep(|connection| connection.is_still_free());
        }
    }
}

/// The `Host` of requests to an origin.
fn host(origin: &str) -> HeaderValue {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    HeaderValue::from_str(authority).expect("the host of a URL is ASCII")
}

impl Origin {
    /// The `Host` of requests to it.
    pub(super) fn host(&self) -> HeaderValue {
        self.host.clone()
    }

    /// Sends a request, whose target is a path, and waits for the head of its answer; a new connection is waited for so long.
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// There is no answer. Where the request may have left it is never sent again.
    pub(super) async fn send(
        self: &Rc<Self>,
        mut request: Outgoing,
        connect_timeout: Duration,
        watch: &mut Watch,
    ) -> Result<Answer, SendError> {
        while let Some(mut kept) = self.idle.take() {
            watch.enter(Phase::Wait);
            match kept.send(request).await {
                Ok(answer) => return Ok(self.answer(answer, kept, true)),
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Http(refused.into_error())),
                },
            }
        }
        // In a box of its own: few attempts connect, and what each attempt holds is moved and kept for as long as it runs.
        let mut made = Box::new(Box::pin(self.site.connect(connect_timeout, watch)).await?);
        watch.enter(Phase::Wait);
        match made.send(request).await {
            Ok(answer) => Ok(self.answer(answer, made, false)),
            Err(refused) => Err(SendError::Http(refused.into_error())),
        }
    }

    fn answer(
        self: &Rc<Self>,
        answer: hyper::Response<Incoming>,
        connection: Box<Connection>,
        is_again: bool,
    ) -> Answer {
        let (head, body) = answer.into_parts();
        let (status, headers, origin) = (head.status, head.headers, self.clone());
        let is_whole = body.is_end_stream();
        Answer { status, headers, body, is_whole, connection: Some(connection), is_again, origin }
    }

    /// A connection could not be made for lack of descriptors: all that are idle go.
    pub(super) fn is_short(&self) {
        self.idle.pool().is_short();
    }
}

impl Answer {
    /// The next part of what comes after the head, `None` at its end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection broke, or what came on it is not HTTP.
    pub(super) async fn chunk(&mut self) -> hyper::Result<Option<Bytes>> {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.is_whole) else { return Ok(None) };
        let chunk = connection.chunk(&mut self.body).await?;
        self.is_whole = chunk.is_none() || self.body.is_end_stream();
        Ok(chunk)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.is_whole
            && let Some(mut connection) = self.connection.take()
            && connection.is_free()
        {
            self.origin.idle.keep(connection, self.is_again);
        }
    }
}
