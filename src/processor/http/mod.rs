//! Pushes a message to a destination over HTTP.
//!
//! One attempt is one request: the payload byte for byte, the headers of [`headers`], judged by the [`guard`] before, while and
//! after connecting. The head of the answer decides ([`mod@classify`]); of the rest a bounded part is read, for people to look at.
//! Nothing is followed, nothing is sent twice, no proxy is taken from the environment.

mod answer;
pub mod classify;
mod client;
mod connect;
mod connection;
mod echo;
pub mod guard;
pub mod headers;
mod pool;
mod shortage;
pub(super) mod sign;
mod tls;
mod watch;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};
use url::Position;

pub use self::answer::excerpt;
use self::answer::{describe, innermost};
use self::classify::{Failure, classify, signal};
use self::client::{Answer, Client, Origin, SendError};
use self::connect::ConnectError;
use self::connection::Outgoing;
use self::echo::Sent;
use self::guard::{Guard, LookupError, Refusal, ResolveError};
use self::pool::Room;
use self::shortage::{Lack, Shortages};
use self::sign::Signer;
use self::tls::TlsError;
use self::watch::{Phase, Watch};
use crate::domain::destination::Destination;
use crate::domain::format::{duration, secret};
use crate::domain::outcome::{Outcome, RetryHint};
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::timestamp::Timestamp;
use crate::processor::signing::Unsigned;
use crate::processor::{Build, Context, Delivery, Keyring, Processor, Report, Signal, StoreId};

/// Queues whose prepared route a thread keeps; beyond, all are made anew. A route is a few hundred bytes.
const ROUTES_MAX: usize = 4_096;

/// How long a thread goes on with what another may have read anew from a secret file.
const SIGNER_AGE_MAX: Duration = Duration::from_secs(1);

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
    client: Client,
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
    /// The same for a destination that a message brought and that is another origin's.
    headers_elsewhere: HeaderMap,
    signer: Option<Arc<Signer>>,
    /// When it was made, where what is in a file may be another after a while.
    looked_at: Option<Timestamp>,
}

impl Route {
    fn holds_for(&self, delivery: &Delivery) -> bool {
        let is_fresh =
            |looked: Timestamp| looked <= delivery.at && delivery.at.since(looked) < SIGNER_AGE_MAX;
        Arc::ptr_eq(&self.settings, &delivery.settings) && self.looked_at.is_none_or(is_fresh)
    }
}

/// A destination that the guard let pass, and how it is reached.
struct Target {
    destination: Destination,
    /// Whether it came with the message.
    is_brought: bool,
    /// Whether it came with the message and has another origin than the queue's own.
    is_elsewhere: bool,
    /// Its path and query, as requests have it.
    path: Uri,
    /// What of its query is not shown when the answer repeats it.
    secrets: Vec<String>,
    origin: Rc<Origin>,
}

/// One request on its way.
struct Attempt {
    route: Rc<Route>,
    target: Rc<Target>,
    request: Outgoing,
    /// What is not shown of them when the answer repeats it.
    credentials: Vec<HeaderValue>,
    timeout: Duration,
    guard: Guard,
    shortages: Arc<Shortages>,
}

/// What the threads of a process share.
type Shared = (Arc<Shortages>, Arc<Room>);

/// How `http` is built on each thread.
pub(super) fn build(context: &Context) -> Build {
    let (guard, store_id) = (context.guard.clone(), context.store_id.clone());
    let (keyring, shared) = (context.keyring.clone(), (Arc::<Shortages>::default(), Arc::<Room>::default()));
    Arc::new(move || Rc::new(Http::sharing(guard.clone(), keyring.clone(), store_id.clone(), shared.clone())))
}

impl Processor for Http {
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report> {
        match self.prepare(&delivery) {
            Ok(attempt) => Box::pin(attempt.make()),
            Err(report) => Box::pin(ready(report)),
        }
    }

    fn tick(&self) {
        self.client.tick();
    }
}

impl Http {
    /// A processor for the current thread. `store_id` names the store in `posthaste-via`; of it only visible ASCII is sent.
    #[must_use]
    pub fn new(guard: Guard, keyring: Keyring, store_id: StoreId) -> Self {
        Self::sharing(guard, keyring, store_id, Shared::default())
    }

    fn sharing(guard: Guard, keyring: Keyring, store_id: StoreId, (shortages, room): Shared) -> Self {
        let client = Client::new(guard.clone(), room);
        Self { guard, keyring, store_id, client, routes: RefCell::default(), shortages }
    }

    fn prepare(&self, delivery: &Delivery) -> Result<Attempt, Report> {
        let route = self.route(delivery)?;
        let method =
            delivery.headers.method.as_deref().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let method = method.unwrap_or_else(|| route.method.clone());
        let target = self.target(&route, delivery)?;
        let base = if target.is_elsewhere { &route.headers_elsewhere } else { &route.headers };
        let mut headers = headers::of_attempt(base, delivery, route.signer.as_deref())
            .map_err(|error| Report::from(Outcome::reject(error.to_string())))?;
        let credentials = headers::credentials(&headers, delivery);
        headers.insert(HOST, target.origin.host());
        let payload = delivery.record.payload();
        if payload.is_empty() && method != Method::GET {
            // The client leaves it out, and receivers answer 411 (RFC 9110, 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(Full::new(payload));
        *request.method_mut() = method;
        *request.uri_mut() = target.path.clone();
        *request.headers_mut() = headers;
        let (guard, shortages) = (self.guard.clone(), self.shortages.clone());
        let timeout = delivery.timeout();
        Ok(Attempt { route, target, request, credentials, timeout, guard, shortages })
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
        let headers_elsewhere = headers::without_credentials(&headers, &settings.delivery.headers);
        let method = Method::from_bytes(settings.delivery.method.as_bytes())
            .map_err(|error| mendable(format!("delivery.method: {error}")))?;
        let signer = self.keyring.signer(queue, settings, at).map_err(|why| unsigned(&why))?;
        let looked_at = settings.secret_file.as_ref().map(|_| at);
        let settings = settings.clone();
        let own = OnceCell::new();
        Ok(Route { settings, own, method, headers, headers_elsewhere, signer, looked_at })
    }

    /// Where the delivery goes to: the destination that came with its message, else its queue's own.
    fn target(&self, route: &Route, delivery: &Delivery) -> Result<Rc<Target>, Report> {
        let settings = &route.settings;
        if let Some(brought) = &delivery.headers.destination {
            let destination: Destination = brought.parse().map_err(|_| unreadable())?;
            let is_elsewhere = headers::is_elsewhere(&destination, settings.destination.as_ref());
            return self.aim(destination, true).map(|target| Rc::new(Target { is_elsewhere, ..target }));
        }
        if let Some(own) = route.own.get() {
            return Ok(own.clone());
        }
        let own = settings.destination.clone();
        let own = own.ok_or_else(|| undeliverable("neither the message nor its queue has a destination"))?;
        let target = Rc::new(self.aim(own, false)?);
        Ok(route.own.get_or_init(|| target).clone())
    }

    /// A destination as it can be reached now. Of one that came with a message nothing is kept.
    fn aim(&self, destination: Destination, is_brought: bool) -> Result<Target, Report> {
        let trust = self.guard.trust(&destination).map_err(|refusal| refused(&refusal))?;
        let origin = self.client.origin(&destination, trust).map_err(|error| match &error {
            TlsError::Short(cause) => self.shortages.defer(Lack::Resources, cause),
            TlsError::Roots(cause) => self.shortages.defer(Lack::Roots, cause),
            TlsError::Settings(_) => mendable(error.to_string()),
        })?;
        let path = &destination.url()[Position::BeforePath..Position::AfterQuery];
        let path = path.parse().map_err(|_| unreadable())?;
        let secrets = secret::values_in_destination(destination.url().as_str());
        Ok(Target { destination, is_brought, is_elsewhere: false, path, secrets, origin })
    }
}

/// What an operator can mend is tried again.
fn mendable(error: String) -> Report {
    Report { error: Some(error), ..Report::from(Outcome::retry()) }
}

impl Attempt {
    async fn make(self) -> Report {
        let mut watch = Watch::default();
        let report = self.follow(&mut watch).await;
        Report { phases: watch.stop(), ..report }
    }

    async fn follow(self, watch: &mut Watch) -> Report {
        let began = Instant::now();
        let Self { route, target, request, credentials, timeout, guard, shortages } = self;
        let sent = target.origin.send(request, route.settings.connect_timeout, watch);
        let sent = timeout_at(began + timeout, sent).await;
        let is_late = matches!(sent, Err(_) | Ok(Err(SendError::Connect(ConnectError::TimedOut))));
        if is_late && watch.is_in(Phase::Dns) && guard.is_without_place(&target.destination) {
            return shortages
                .defer(Lack::Resources, "its name was not looked up in time: too many others are");
        }
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return failed(&error, &route, &target, &shortages),
            Err(_) => {
                return unanswered(Failure::Timeout, format!("no answer within {}", duration::show(timeout)));
            }
        };
        let margin = (timeout / MARGIN_PART).min(MARGIN_MAX);
        watch.enter(Phase::Body);
        answered(&route, &target, answer, &credentials, began + timeout.saturating_sub(margin)).await
    }
}

/// What an answer means once its head is here.
async fn answered(
    route: &Route,
    target: &Target,
    answer: Answer,
    credentials: &[HeaderValue],
    until: Instant,
) -> Report {
    let (status, settings) = (answer.status, &route.settings);
    let outcome = classify(status, &answer.headers, &settings.delivery.reject);
    let sent = Sent { headers: credentials, parameters: &target.secrets };
    let rest = answer::read(answer, &settings.answer, sent, until).await;
    let is_gone = status == StatusCode::GONE && !target.is_brought;
    let signal = signal(status, &outcome);
    let (status, error, excerpt) = (Some(status.as_u16()), rest.error, rest.excerpt);
    Report { status, error, excerpt, is_gone, signal, ..Report::from(outcome) }
}

/// No answer came.
fn failed(error: &SendError, route: &Route, target: &Target, shortages: &Shortages) -> Report {
    if let Some(lack) = shortage::behind(error) {
        target.origin.is_short();
        return shortages.defer(Lack::Resources, &lack.to_string());
    }
    let SendError::Connect(unconnected) = error else {
        return unanswered(Failure::of(error), innermost(error));
    };
    match unconnected {
        ConnectError::Refused(refusal) => refused(refusal),
        ConnectError::Resolve(ResolveError::Refused(rules)) => {
            refused(&Refusal::of_resolved(&target.destination, rules.clone()))
        }
        ConnectError::Resolve(ResolveError::Lookup(LookupError::Short { cause, .. })) => {
            shortages.defer(Lack::Resources, cause)
        }
        ConnectError::TimedOut => {
            let waited = duration::show(route.settings.connect_timeout);
            unanswered(Failure::Timeout, format!("no connection within {waited}"))
        }
        _ => unanswered(Failure::of(error), innermost(error)),
    }
}

fn undeliverable(reason: &str) -> Report {
    Outcome::Undeliverable { reason: reason.to_owned() }.into()
}

fn unreadable() -> Report {
    undeliverable("the destination that came with the message cannot be read")
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
