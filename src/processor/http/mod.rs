//! Pushes a message to a destination over HTTP.
//!
//! One attempt is one request: the payload byte for byte, the headers of [`headers`], judged by the [`guard`] before, while and
//! after connecting. The head of the answer decides ([`mod@classify`]); of the rest a bounded part is read, for people to look at.
//! Nothing is followed, nothing is sent twice, no proxy is taken from the environment.

mod answer;
pub mod classify;
mod client;
pub mod guard;
pub mod headers;
mod shortage;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response};
use tokio::time::{Instant, timeout_at};

pub use self::answer::excerpt;
use self::answer::{describe, innermost};
use self::classify::{Failure, causes, classify, signal};
use self::client::{ClientError, Clients, Kind};
use self::guard::{Guard, LookupError, Refusal, ResolveError, Trust};
use self::shortage::{Lack, Shortages};
use crate::domain::destination::Destination;
use crate::domain::format::duration;
use crate::domain::outcome::Outcome;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::processor::{Build, Context, Delivery, Processor, Report, Signal, StoreId};

/// Queues whose prepared route a thread keeps; beyond, all are made anew. A route is a few hundred bytes.
const ROUTES_MAX: usize = 4_096;

/// The part of a time-out, and the most, by which an answer must have ended before it: who waits for this attempt must still be
/// told what the head said.
const MARGIN_PART: u32 = 20;
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The `http` processor of one thread.
pub struct Http {
    guard: Guard,
    store_id: StoreId,
    clients: Clients,
    routes: RefCell<HashMap<QueueName, Rc<Route>>>,
    shortages: Arc<Shortages>,
}

/// What all messages of a queue have in common, as long as its settings stay the same.
struct Route {
    settings: Arc<QueueSettings>,
    destination: Destination,
    trust: Trust,
    client: Client,
    method: Method,
    headers: HeaderMap,
}

/// One request on its way.
struct Attempt {
    guard: Guard,
    route: Rc<Route>,
    request: Request,
    timeout: Duration,
    shortages: Arc<Shortages>,
}

/// How `http` is built on each thread.
pub(super) fn build(context: &Context) -> Build {
    let (guard, store_id) = (context.guard.clone(), context.store_id.clone());
    let shortages = Arc::<Shortages>::default();
    Arc::new(move || Rc::new(Http::saying(guard.clone(), store_id.clone(), shortages.clone())))
}

impl Processor for Http {
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report> {
        match self.prepare(&delivery) {
            Ok(attempt) => Box::pin(attempt.make()),
            Err(report) => Box::pin(ready(report)),
        }
    }
}

impl Http {
    /// A processor for the current thread. `store_id` names the store in `posthaste-via`; of it only visible ASCII is sent.
    #[must_use]
    pub fn new(guard: Guard, store_id: StoreId) -> Self {
        Self::saying(guard, store_id, Arc::default())
    }

    fn saying(guard: Guard, store_id: StoreId, shortages: Arc<Shortages>) -> Self {
        let clients = Clients::new(guard.clone());
        Self { guard, store_id, clients, routes: RefCell::default(), shortages }
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Attempt, Report> {
        let route = self.route(delivery)?;
        let method =
            delivery.headers.method.as_deref().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let method = method.unwrap_or_else(|| route.method.clone());
        let mut request = Request::new(method, route.destination.url().clone());
        *request.headers_mut() = headers::of_attempt(&route.headers, delivery)
            .map_err(|error| Report::from(Outcome::reject(error.to_string())))?;
        let payload = delivery.record.payload();
        if payload.is_empty() && request.method() != Method::GET {
            // The client leaves it out, and receivers answer 411 (RFC 9110, 8.6).
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.body_mut() = Some(Body::from(payload));
        let (guard, shortages) = (self.guard.clone(), self.shortages.clone());
        Ok(Attempt { guard, route, request, timeout: delivery.timeout(), shortages })
    }

    /// The route of the delivery's queue, made anew when its settings are others than last time.
    fn route(&self, delivery: &Delivery) -> Result<Rc<Route>, Report> {
        let known = self.routes.borrow().get(&delivery.queue).cloned();
        if let Some(route) = known.filter(|route| Arc::ptr_eq(&route.settings, &delivery.settings)) {
            return Ok(route);
        }
        let route = Rc::new(self.plan(&delivery.queue, &delivery.settings)?);
        let mut routes = self.routes.borrow_mut();
        if routes.len() >= ROUTES_MAX {
            routes.clear();
        }
        routes.insert(delivery.queue.clone(), route.clone());
        Ok(route)
    }

    fn plan(&self, queue: &QueueName, settings: &Arc<QueueSettings>) -> Result<Route, Report> {
        let Some(destination) = settings.destination.clone() else {
            let reason = "the queue has no destination".to_owned();
            return Err(Outcome::Undeliverable { reason }.into());
        };
        let trust = self.guard.trust(&destination).map_err(|refusal| refused(&refusal))?;
        // What an operator can mend is tried again.
        let mendable = |error: String| Report { error: Some(error), ..Report::from(Outcome::retry()) };
        let is_secure = destination.url().scheme() == "https";
        let kind = Kind { connect_timeout: settings.connect_timeout, trust, is_secure };
        let client = self.clients.client(kind).map_err(|error| match &error {
            ClientError::Short(cause) => self.shortages.defer(Lack::Resources, cause),
            ClientError::Roots(cause) => self.shortages.defer(Lack::Roots, cause),
            ClientError::Settings(_) => mendable(error.to_string()),
        })?;
        // Whoever has a message to deliver has heard of the store it came from.
        let via = headers::via(&(self.store_id)());
        let headers = headers::of_queue(queue, &via, &settings.delivery.headers)
            .map_err(|error| mendable(format!("delivery.headers: {error}")))?;
        let method = Method::from_bytes(settings.delivery.method.as_bytes())
            .map_err(|error| mendable(format!("delivery.method: {error}")))?;
        Ok(Route { settings: settings.clone(), destination, trust, client, method, headers })
    }
}

impl Attempt {
    async fn make(self) -> Report {
        let began = Instant::now();
        let Self { guard, route, request, timeout, shortages } = self;
        let response = match timeout_at(began + timeout, route.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(&error, &route, &shortages),
            Err(_) => {
                return unanswered(Failure::Timeout, format!("no answer within {}", duration::show(timeout)));
            }
        };
        let margin = (timeout / MARGIN_PART).min(MARGIN_MAX);
        received(&guard, &route, response, began + timeout.saturating_sub(margin)).await
    }
}

/// What an answer means once its head is here.
async fn received(guard: &Guard, route: &Route, response: Response, until: Instant) -> Report {
    let judged = match response.remote_addr() {
        Some(peer) => guard.judge_peer(&route.destination, peer.ip(), route.trust),
        None => return unanswered(Failure::Connect, "the address of the peer is not known"),
    };
    if let Err(refusal) = judged {
        return refused(&refusal);
    }
    let (status, settings) = (response.status(), &route.settings);
    let outcome = classify(status, response.headers(), &settings.delivery.reject);
    let rest = answer::read(response, &settings.answer, until).await;
    let signal = signal(status, &outcome);
    Report { outcome, status: Some(status.as_u16()), error: rest.error, excerpt: rest.excerpt, signal }
}

/// No answer came.
fn failed(error: &reqwest::Error, route: &Route, shortages: &Shortages) -> Report {
    if let Some(lack) = shortage::behind(error) {
        return shortages.defer(Lack::Resources, &lack.to_string());
    }
    let unresolved = causes(error).find_map(|cause| cause.downcast_ref::<ResolveError>());
    match unresolved {
        Some(ResolveError::Refused(rules)) => {
            refused(&Refusal::of_resolved(&route.destination, rules.clone()))
        }
        Some(ResolveError::Lookup(LookupError::Short { cause, .. })) => {
            shortages.defer(Lack::Resources, cause)
        }
        Some(ResolveError::Lookup(cause)) => unanswered(Failure::Dns, cause.to_string()),
        None if error.is_timeout() && error.is_connect() => {
            let waited = duration::show(route.settings.connect_timeout);
            unanswered(Failure::Timeout, format!("no connection within {waited}"))
        }
        None => unanswered(Failure::of(error), innermost(error)),
    }
}

fn unanswered(failure: Failure, detail: impl AsRef<str>) -> Report {
    let error = Some(describe(failure, detail));
    Report { error, signal: Signal::NoAnswer, ..Report::from(Outcome::retry()) }
}

fn refused(refusal: &Refusal) -> Report {
    Outcome::Undeliverable { reason: refusal.to_string() }.into()
}
