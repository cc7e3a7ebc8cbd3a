//! What the HTTP edge knows: once for the process ([`State`]), once for each of its threads ([`Desk`]).

use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::actor::Supervisor;
use crate::api::code::Code;
use crate::clock::{Clock, Tick};
use crate::domain::destination::Destination;
use crate::domain::format::bytes;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::http::budget::{Budget, Share};
use crate::http::error::{Refusal, of_store, shutting_down};
use crate::http::extract::shown;
use crate::http::observer::Observations;
use crate::http::settings::{ServerLimits, ServerSettings};
use crate::pipeline::catalog::{Catalog, CatalogView};
use crate::pipeline::consumers::Consumers;
use crate::pipeline::ingester::Ingester;
use crate::pipeline::lanes::Lanes;
use crate::pipeline::prober::{StoreState, StoreWatch};
use crate::pipeline::share::Shares;
use crate::processor::Keyring;
use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth, Warning};
use crate::store::settings::RequiredDurability;
use crate::store::{MessageStore, QueueEntry, Store};

/// When a destination is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// It is given to a queue, or dead letters are to go there: by where it leads now.
    Set,
    /// It comes with a message: by what is known of it, or is within this time.
    Publish {
        /// How long may be waited.
        within: Duration,
    },
}

/// What the egress guard says of a destination: of one that is set, why its name does not resolve now, if so; an error says why it
/// may not be reached, and what would allow it.
pub type Judged = Result<Option<String>, String>;

/// Judges a destination.
pub type JudgeDestination = Arc<dyn Fn(Destination, Occasion) -> BoxFuture<'static, Judged> + Send + Sync>;

/// Makes the door to the store for the HTTP thread it is called on.
pub type MakeIngester = Arc<dyn Fn() -> Ingester + Send + Sync>;

/// What the HTTP edge needs of the rest of the gateway.
#[derive(Clone)]
pub struct Gateway {
    /// `[server]`.
    pub settings: ServerSettings,
    /// `store.durability`.
    pub durability: RequiredDurability,
    /// `[queue_defaults]`, as JSON: what a PUT leaves out.
    pub queue_defaults: Value,
    /// The names that a queue's `processor` may have.
    pub processors: Vec<String>,
    /// The name of this gateway on `/status`: new at each start.
    pub instance: String,
    /// Time.
    pub clock: Clock,
    /// The store.
    pub store: Arc<dyn Store>,
    /// How the store is.
    pub store_watch: StoreWatch,
    /// The queues.
    pub catalog: Catalog,
    /// The actors.
    pub supervisor: Supervisor,
    /// Deliveries in flight at most, each of which may have a connection of its own: the edge leaves descriptors for them.
    pub deliveries_max: u64,
    /// What deliveries are signed with, and what seals the secrets that come by API.
    pub keyring: Keyring,
    /// What was seen when the queues were declared that an operator should look at: for `/status`, as long as the gateway
    /// runs. Unset while the store was not there yet.
    pub warnings: Arc<OnceLock<Vec<Warning>>>,
    /// The egress guard.
    pub judge_destination: JudgeDestination,
    /// Called once on each HTTP thread.
    pub make_ingester: MakeIngester,
    /// What is sent to each origin.
    pub lanes: Lanes,
    /// What each queue may have in flight.
    pub shares: Shares,
    /// The door for consumers that pull.
    pub consumers: Consumers,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gateway").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Bytes that one permit of a look-up stands for.
const LOOK_UP_PERMIT_BYTES: u64 = 1 << 10;
/// How long a look-up waits until those before it have what they look for.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(10);

/// What all HTTP threads share.
#[derive(Debug)]
pub(super) struct State {
    /// The rest of the gateway.
    pub(super) gateway: Gateway,
    /// When the gateway was started.
    pub(super) started_at: Timestamp,
    started: Tick,
    /// The memory of all bodies.
    pub(super) bodies: Arc<Budget>,
    /// The memory of all payloads in answers.
    answers: Arc<Budget>,
    /// The memory of what the store finds, until it is known how much of it is shown.
    look_ups: Semaphore,
    look_up_permits: u32,
    /// What was seen of the store before.
    pub(super) observations: Observations,
    publishes: AtomicU32,
    is_draining: AtomicBool,
}

impl State {
    /// The state of a gateway that starts now.
    pub(super) fn new(gateway: Gateway) -> Self {
        let answers_bytes_max = gateway.settings.limits.answers_bytes_max;
        let look_up_permits = u32::try_from(answers_bytes_max / LOOK_UP_PERMIT_BYTES).unwrap_or(u32::MAX);
        Self {
            answers: Budget::new(answers_bytes_max),
            look_ups: Semaphore::new(look_up_permits as usize),
            look_up_permits,
            started_at: gateway.clock.now(),
            started: gateway.clock.tick(),
            bodies: Budget::new(gateway.settings.limits.bodies_bytes_max),
            observations: Observations::default(),
            publishes: AtomicU32::new(0),
            is_draining: AtomicBool::new(false),
            gateway,
        }
    }

    /// Seconds since the start.
    pub(super) fn uptime_s(&self) -> u64 {
        self.gateway.clock.tick().since(self.started).as_secs()
    }

    /// Refuses all publishes and leases from now on, and says so on `/ready`; answers the consumers that wait.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.gateway.consumers.shut();
    }

    /// Whether the gateway is about to end.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Refuses a publish before anything was done for it: when the gateway or its store cannot now.
    pub(super) fn admit(&self) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(shutting_down());
        }
        if self.publishes.load(Ordering::Relaxed) >= self.limits().publishes_in_flight_max {
            return Err(self.too_many_publishes());
        }
        let store = self.gateway.store_watch.now();
        let Some(health) = store.health.as_ref().filter(|_| store.reachable) else {
            return Err(away(&store));
        };
        if let Some(why) = &health.full {
            return Err(Refusal::new(Code::StoreFull, format!("the store is full: {why}")));
        }
        match self.not_durable(health) {
            Some(why) => Err(Refusal::new(Code::NotDurable, why)),
            None => Ok(()),
        }
    }

    /// Why the store cannot be asked, when it is known to be away.
    pub(super) fn store_is_away(&self) -> Option<Refusal> {
        let store = self.gateway.store_watch.now();
        (!store.reachable).then(|| away(&store))
    }

    /// Why nothing can be asked of the store, when it is known not to answer. One that says why it cannot, as when it is full,
    /// may still do something else.
    pub(super) fn store_is_silent(&self) -> Option<Refusal> {
        let store = self.gateway.store_watch.now();
        let is_silent = match &store.error {
            Some(StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Timeout(_)) => true,
            Some(_) => false,
            None => store.health.as_ref().is_some_and(|health| !health.reachable),
        };
        (is_silent && !store.reachable).then(|| away(&store))
    }

    /// Why a 202 would mean less now than `store.durability` promises; `None` when it would not.
    pub(super) fn not_durable(&self, health: &StoreHealth) -> Option<String> {
        let (word, is_kept) = match self.gateway.durability {
            RequiredDurability::Strict => {
                ("strict", matches!(health.durability, Durability::Strict | Durability::Assumed))
            }
            RequiredDurability::Relaxed => ("relaxed", self.is_as_taken(health.durability)),
            RequiredDurability::None => ("none", true),
        };
        if is_kept {
            return None;
        }
        let what = match (self.gateway.durability, health.durability) {
            (RequiredDurability::Relaxed, Durability::Unknown) => {
                "it is not known what the store keeps".to_owned()
            }
            _ => format!("store.durability is {word} and the store is not"),
        };
        Some(format!("{what}, so nothing is accepted: {}", health.durability_reasons.join("; ")))
    }

    /// Whether the store keeps what can be expected of one that is taken as it is.
    fn is_as_taken(&self, durability: Durability) -> bool {
        match durability {
            // It must still be the store that it was.
            Durability::Unknown => false,
            // A file keeps something, unless it is gone; memory never does, and a Redis need not.
            Durability::None => self.gateway.store.kind() == "memory" || self.gateway.store.is_remote(),
            _ => true,
        }
    }

    /// Takes a place among the publishes that wait for the store.
    pub(super) fn begin_publish(&self) -> Result<InFlight<'_>, Refusal> {
        let in_flight = InFlight(&self.publishes);
        // The guard gives back what was taken, in either case.
        if self.publishes.fetch_add(1, Ordering::Relaxed) < self.limits().publishes_in_flight_max {
            Ok(in_flight)
        } else {
            Err(self.too_many_publishes())
        }
    }

    /// Waits until the store may be asked for one more message with a payload of at most so many bytes. It gives the whole
    /// message, be its payload shown or not; so only as many may be on their way as there is memory for.
    pub(super) async fn begin_look_up(&self, bytes_max: u64) -> Result<SemaphorePermit<'_>, Refusal> {
        let permits = u32::try_from(bytes_max.div_ceil(LOOK_UP_PERMIT_BYTES)).unwrap_or(u32::MAX);
        let looking = self.look_ups.acquire_many(permits.min(self.look_up_permits));
        match timeout(LOOK_UP_WITHIN, looking).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.too_many_answers("too many look-ups wait for the store")),
        }
    }

    /// Takes the memory of an answer that shows so many bytes of payload.
    pub(super) fn take_answer(&self, bytes: u64) -> Result<Share, Refusal> {
        let too_many = || self.too_many_answers("the payloads in all answers together are too large");
        self.answers.take(bytes).ok_or_else(too_many)
    }

    /// Memory for answers is what is missing.
    pub(super) fn too_many_answers(&self, what: &str) -> Refusal {
        let (setting, limit) = ("server.limits.answers_bytes_max", self.limits().answers_bytes_max);
        let detail = format!("{what}: {setting} is {}", bytes::show(limit));
        Refusal::new(Code::Overloaded, detail).setting(setting, Some(limit))
    }

    /// The limits of requests.
    pub(super) fn limits(&self) -> &ServerLimits {
        &self.gateway.settings.limits
    }

    fn too_many_publishes(&self) -> Refusal {
        let (setting, limit) =
            ("server.limits.publishes_in_flight_max", self.limits().publishes_in_flight_max);
        let detail = format!("too many publishes wait for the store: {setting} is {limit}");
        Refusal::new(Code::Overloaded, detail).setting(setting, Some(limit.into()))
    }
}

/// A place among the publishes that wait for the store, given back when it is dropped.
pub(super) struct InFlight<'s>(&'s AtomicU32);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one HTTP thread has of its own: its connection to the store, its door to it, its view of the queues.
pub(super) struct Desk {
    /// What it shares with the others.
    pub(super) state: Arc<State>,
    /// Its connection to the store.
    pub(super) store: Rc<dyn MessageStore>,
    /// Its door for publishes.
    pub(super) ingester: Ingester,
    catalog: CatalogView,
    /// When the last list of queues was asked for. Locked while one is on its way, so that many who miss a queue at the same
    /// time cost the store one call.
    listed: tokio::sync::Mutex<Option<Instant>>,
}

impl Desk {
    /// Sets up the current thread.
    pub(super) fn new(state: &Arc<State>) -> Rc<Self> {
        let gateway = &state.gateway;
        Rc::new(Self {
            state: state.clone(),
            store: gateway.store.connect(),
            ingester: (gateway.make_ingester)(),
            catalog: gateway.catalog.view(),
            listed: tokio::sync::Mutex::new(None),
        })
    }

    /// The queue of this name. One that is not known here is asked for at the store, since another gateway may have made it.
    pub(super) async fn queue(&self, name: &str) -> Result<Arc<QueueEntry>, Refusal> {
        match self.catalog.find(name) {
            Some(entry) => Ok(entry),
            None => self.queue_asked(name).await,
        }
    }

    /// Refuses what would only wait for the store, when that is known not to answer.
    pub(super) fn check_store(&self) -> Result<(), Refusal> {
        self.state.store_is_silent().map_or(Ok(()), Err)
    }

    /// The queue of this name, for what is asked of the store next.
    pub(super) async fn queue_in_store(&self, name: &str) -> Result<Arc<QueueEntry>, Refusal> {
        self.check_store()?;
        self.queue(name).await
    }

    /// Does something with the queue of this name. When the one that is known here is no more, asks the store which one there
    /// is and does it with that.
    pub(super) async fn on_queue<T>(
        &self,
        name: &str,
        act: impl AsyncFn(&QueueEntry) -> Result<T, StoreError>,
    ) -> Result<(Arc<QueueEntry>, T), Refusal> {
        let entry = self.queue_in_store(name).await?;
        match act(&entry).await {
            Ok(done) => return Ok((entry, done)),
            Err(StoreError::Gone) => {}
            Err(error) => return Err(of_store(&error)),
        }
        let entry = self.queue_asked(name).await?;
        let done = act(&entry).await.map_err(|error| of_store(&error))?;
        Ok((entry, done))
    }

    /// All queues as the store has them now, by name.
    pub(super) async fn queues(&self) -> Result<Vec<QueueEntry>, Refusal> {
        self.check_store()?;
        let catalog = self.catalog.catalog();
        let version = catalog.version();
        let all = self.store.queues().await.map_err(|error| of_store(&error))?;
        // Dropped when something changed meanwhile: the prober sees to it.
        let _is_current = catalog.replace_all_since(version, all.clone());
        Ok(all)
    }

    /// The queue of this name as the store has it now.
    pub(super) async fn queue_asked(&self, name: &str) -> Result<Arc<QueueEntry>, Refusal> {
        self.check_store()?;
        let arrived = Instant::now();
        let mut listed = self.listed.lock().await;
        if listed.is_none_or(|asked| asked < arrived) {
            let asked = Instant::now();
            let catalog = self.catalog.catalog();
            let version = catalog.version();
            let all = self.store.queues().await.map_err(|error| of_store(&error))?;
            let found = all.iter().find(|entry| entry.name.as_str() == name).cloned();
            // Dropped when something changed meanwhile, for then the list may be older than that; what it has of our queue
            // is still news to us.
            if !catalog.replace_all_since(version, all)
                && let Some(entry) = found.filter(|_| catalog.find(name).is_none())
            {
                catalog.put(entry);
            }
            *listed = Some(asked);
        }
        let refused =
            || self.store.unserved(name).map_or_else(|| queue_unknown(name), |error| of_store(&error));
        self.catalog.find(name).ok_or_else(refused)
    }
}

fn queue_unknown(name: &str) -> Refusal {
    if name.parse::<QueueName>().is_err() {
        return Refusal::new(Code::QueueUnknown, format!("there is no queue {:?}", shown(name)));
    }
    let detail = format!(
        "there is no queue {name:?}: create it with PUT /v1/queues/{name} and a body like {{\"processor\":\"log\"}}, \
         or declare [queues.{name}] in the configuration file"
    );
    Refusal::new(Code::QueueUnknown, detail)
}

fn away(store: &StoreState) -> Refusal {
    let unheard = "the store has not answered yet";
    let why = store.error.as_ref().map_or_else(|| unheard.to_owned(), ToString::to_string);
    Refusal::new(Code::StoreUnavailable, why)
}
