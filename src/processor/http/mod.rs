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
pub(super) mod sign;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

pub use self::answer::excerpt;
use self::answer::{describe, innermost};
use self::classify::{Failure, causes, classify, signal};
use self::client::{ClientError, Clients, Kind};
use self::guard::{Guard, LookupError, Refusal, ResolveError, Trust};
use self::shortage::{Lack, Shortages};
use self::sign::Signer;
use crate::domain::destination::Destination;
use crate::domain::format::duration;
use crate::domain::outcome::{Outcome, RetryHint};
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::timestamp::Timestamp;
use crate::processor::signing::{LOOK_EVERY, Unsigned};
use crate::processor::{Build, Context, Delivery, Keyring, Processor, Report, Signal, StoreId};

/// Queues whose prepared route a thread keeps; beyond, all are made anew. A route is a few hundred bytes.
const ROUTES_MAX: usize = 4_096;

/// How long a message waits at least that cannot be signed now; a file is looked at about as often.
const UNSIGNED_DELAY: Duration = Duration::from_secs(5);

/// The part of a time-out, and the most, by which an answer must have ended before it: who waits for this attempt must still be
/// told what the head said.
const MARGIN_PART: u32 = 20;
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The `http` processor of one thread.
pub struct Http {
    guard: Guard,
    keyring: Keyring,
    store_id: StoreId,
    clients: Clients,
    routes: RefCell<HashMap<QueueName, Rc<Route>>>,
    shortages: Arc<Shortages>,
}

/// What all messages of a queue have in common, as long as its settings stay the same.
struct Route {
    settings: Arc<QueueSettings>,
    /// Of the queue's own destination, once a message needed it.
    own: OnceCell<Rc<Target>>,
    method: Method,
    headers: HeaderMap,
    signer: Option<Arc<Signer>>,
    /// When it was made, where what is in a file may be another after a while.
    looked_at: Option<Timestamp>,
}

impl Route {
    fn holds_for(&self, delivery: &Delivery) -> bool {
        let is_fresh = |looked: Timestamp| looked <= delivery.at && delivery.at.since(looked) < LOOK_EVERY;
        Arc::ptr_eq(&self.settings, &delivery.settings) && self.looked_at.is_none_or(is_fresh)
    }
}

/// A destination that the guard let pass, and how it is reached.
struct Target {
    destination: Destination,
    /// Whether it came with the message.
    is_brought: bool,
    trust: Trust,
    client: Client,
}

/// One request on its way.
struct Attempt {
    guard: Guard,
    route: Rc<Route>,
    target: Rc<Target>,
    request: Request,
    timeout: Duration,
    shortages: Arc<Shortages>,
}

/// How `http` is built on each thread.
pub(super) fn build(context: &Context) -> Build {
    let (guard, store_id) = (context.guard.clone(), context.store_id.clone());
    let (keyring, shortages) = (context.keyring.clone(), Arc::<Shortages>::default());
    Arc::new(move || {
        Rc::new(Http::saying(guard.clone(), keyring.clone(), store_id.clone(), shortages.clone()))
    })
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
    pub fn new(guard: Guard, keyring: Keyring, store_id: StoreId) -> Self {
        Self::saying(guard, keyring, store_id, Arc::default())
    }

    fn saying(guard: Guard, keyring: Keyring, store_id: StoreId, shortages: Arc<Shortages>) -> Self {
        let clients = Clients::new(guard.clone());
        Self { guard, keyring, store_id, clients, routes: RefCell::default(), shortages }
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Attempt, Report> {
        let route = self.route(delivery)?;
        let method =
            delivery.headers.method.as_deref().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let method = method.unwrap_or_else(|| route.method.clone());
        let target = self.target(&route, delivery)?;
        let mut request = Request::new(method, target.destination.url().clone());
        *request.headers_mut() = headers::of_attempt(&route.headers, delivery, route.signer.as_deref())
            .map_err(|error| Report::from(Outcome::reject(error.to_string())))?;
        let payload = delivery.record.payload();
        if payload.is_empty() && request.method() != Method::GET {
            // The client leaves it out, and receivers answer 411 (RFC 9110, 8.6).
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.body_mut() = Some(Body::from(payload));
        let (guard, shortages) = (self.guard.clone(), self.shortages.clone());
        Ok(Attempt { guard, route, target, request, timeout: delivery.timeout(), shortages })
    }

    /// The route of the delivery's queue, made anew when its settings are others than last time.
    fn route(&self, delivery: &Delivery) -> Result<Rc<Route>, Report> {
        let known = self.routes.borrow().get(&delivery.queue).cloned();
        if let Some(route) = known.filter(|route| route.holds_for(delivery)) {
            return Ok(route);
        }
        let route = Rc::new(self.plan(&delivery.queue, &delivery.settings, delivery.at)?);
        let mut routes = self.routes.borrow_mut();
        if routes.len() >= ROUTES_MAX {
            routes.clear();
        }
        routes.insert(delivery.queue.clone(), route.clone());
        Ok(route)
    }

    fn plan(&self, queue: &QueueName, settings: &Arc<QueueSettings>, at: Timestamp) -> Result<Route, Report> {
        // Whoever has a message to deliver has heard of the store it came from.
        let via = headers::via(&(self.store_id)());
        let headers = headers::of_queue(queue, &via, &settings.delivery.headers)
            .map_err(|error| mendable(format!("delivery.headers: {error}")))?;
        let method = Method::from_bytes(settings.delivery.method.as_bytes())
            .map_err(|error| mendable(format!("delivery.method: {error}")))?;
        let signer = self.keyring.signer(queue, settings, at).map_err(|why| unsigned(&why))?;
        let looked_at = settings.secret_file.as_ref().map(|_| at);
        let settings = settings.clone();
        Ok(Route { settings, own: OnceCell::new(), method, headers, signer, looked_at })
    }

    /// Where the delivery goes to: the destination that came with its message, else its queue's own.
    fn target(&self, route: &Route, delivery: &Delivery) -> Result<Rc<Target>, Report> {
        let undeliverable = |reason: &str| Report::from(Outcome::Undeliverable { reason: reason.to_owned() });
        let settings = &route.settings;
        if let Some(brought) = &delivery.headers.destination {
            let destination = brought.parse();
            let unreadable = |_| undeliverable("the destination that came with the message cannot be read");
            return self.aim(destination.map_err(unreadable)?, settings, true).map(Rc::new);
        }
        if let Some(own) = route.own.get() {
            return Ok(own.clone());
        }
        let own = settings.destination.clone();
        let own = own.ok_or_else(|| undeliverable("neither the message nor its queue has a destination"))?;
        let target = Rc::new(self.aim(own, settings, false)?);
        Ok(route.own.get_or_init(|| target).clone())
    }

    /// A destination as it can be reached now. Of one that came with a message nothing is kept.
    fn aim(
        &self,
        destination: Destination,
        settings: &QueueSettings,
        is_brought: bool,
    ) -> Result<Target, Report> {
        let trust = self.guard.trust(&destination).map_err(|refusal| refused(&refusal))?;
        let is_secure = destination.url().scheme() == "https";
        let kind = Kind { connect_timeout: settings.connect_timeout, trust, is_secure };
        let client = self.clients.client(kind).map_err(|error| match &error {
            ClientError::Short(cause) => self.shortages.defer(Lack::Resources, cause),
            ClientError::Roots(cause) => self.shortages.defer(Lack::Roots, cause),
            ClientError::Settings(_) => mendable(error.to_string()),
        })?;
        Ok(Target { destination, is_brought, trust, client })
    }
}

/// What an operator can mend is tried again.
fn mendable(error: String) -> Report {
    Report { error: Some(error), ..Report::from(Outcome::retry()) }
}

impl Attempt {
    async fn make(self) -> Report {
        let began = Instant::now();
        let Self { guard, route, target, request, timeout, shortages } = self;
        let response = match timeout_at(began + timeout, target.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(&error, &route, &target, &shortages),
            Err(_) => {
                return unanswered(Failure::Timeout, format!("no answer within {}", duration::show(timeout)));
            }
        };
        let margin = (timeout / MARGIN_PART).min(MARGIN_MAX);
        received(&guard, &route, &target, response, began + timeout.saturating_sub(margin)).await
    }
}

/// What an answer means once its head is here.
async fn received(
    guard: &Guard,
    route: &Route,
    target: &Target,
    response: Response,
    until: Instant,
) -> Report {
    let judged = match response.remote_addr() {
        Some(peer) => guard.judge_peer(&target.destination, peer, target.trust),
        None => return unanswered(Failure::Connect, "the address of the peer is not known"),
    };
    if let Err(refusal) = judged {
        return refused(&refusal);
    }
    let (status, settings) = (response.status(), &route.settings);
    let outcome = classify(status, response.headers(), &settings.delivery.reject);
    let rest = answer::read(response, &settings.answer, until).await;
    let is_gone = status == StatusCode::GONE && !target.is_brought;
    let signal = signal(status, &outcome);
    let (status, error, excerpt) = (Some(status.as_u16()), rest.error, rest.excerpt);
    Report { status, error, excerpt, is_gone, signal, ..Report::from(outcome) }
}

/// No answer came.
fn failed(error: &reqwest::Error, route: &Route, target: &Target, shortages: &Shortages) -> Report {
    if let Some(lack) = shortage::behind(error) {
        return shortages.defer(Lack::Resources, &lack.to_string());
    }
    let unresolved = causes(error).find_map(|cause| cause.downcast_ref::<ResolveError>());
    match unresolved {
        Some(ResolveError::Refused(rules)) => {
            refused(&Refusal::of_resolved(&target.destination, rules.clone()))
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

/// What must be signed and cannot be waits, and no attempt is counted.
fn unsigned(why: &Unsigned) -> Report {
    let until = RetryHint::After(UNSIGNED_DELAY.mul_f64(1.0 + fastrand::f64()));
    Report { error: Some(format!("not signed: {why}")), ..Report::from(Outcome::Deferred { until }) }
}

fn refused(refusal: &Refusal) -> Report {
    Outcome::Undeliverable { reason: refusal.to_string() }.into()
}
