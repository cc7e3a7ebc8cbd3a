//! Looks at the store about once a second, so that nobody who answers a request has to.
//!
//! # What it does
//! Declares the operator's queues, when that was not done before it was started. Asks the store how it is and which queues
//! there are; publishes the first as a [`StoreState`], the second in the catalog. Tells the store now and then that this
//! gateway lives, and hears which others do.
//!
//! # What it waits for
//! The store, then for [`PROBE_EVERY`], or for word that another gateway changed a queue.
//!
//! # What it guarantees
//! Before the queues are declared the store counts as away. A change that another gateway or a restart brought is known
//! within a second. A change that this process made meanwhile is never undone by an older list.
//!
//! # When it fails
//! With the store away the state says so and why, the catalog stays as it is, and it looks more often, so that its
//! return is noticed soon; it tries to declare ever more slowly, up to once a second.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::sleep;

use crate::actor::{Actor, Exit, Inbox, Life};
use crate::clock::{Clock, Tick};
use crate::domain::timestamp::Timestamp;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::catalog::Catalog;
use crate::store::error::StoreError;
use crate::store::health::{Instance, StoreHealth};
use crate::store::wake::WakeSubscription;
use crate::store::{INSTANCE_MEMORY, MessageStore, QueueEntry, Store};

/// The time between two looks: what changed elsewhere is to be known within a second.
const PROBE_EVERY: Duration = Duration::from_millis(800);
/// The least time between two looks, however much changes: a look at many queues is not cheap.
const PROBE_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The time between two looks while the store is away.
const PROBE_AWAY_EVERY: Duration = Duration::from_millis(250);
/// How often the store is told that this gateway lives: twice may be missed.
const ANNOUNCE_EVERY: Duration = INSTANCE_MEMORY.checked_div(3).expect("three is not zero");

/// Makes the operator's queues known to the store and gives all there are. Asked again until it succeeds, then never again.
pub type Declare = Arc<
    dyn Fn(Rc<dyn MessageStore>) -> LocalBoxFuture<'static, Result<Vec<QueueEntry>, StoreError>>
        + Send
        + Sync,
>;

/// What is still to be declared; it outlives the actor.
pub(super) type Undeclared = Arc<Mutex<Option<Declare>>>;

/// How the store was when it was looked at last.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StoreState {
    /// Whether it answered, and said that it can be reached. False before the first look.
    pub reachable: bool,
    /// What it said of itself when it answered last; `None` until it has.
    pub health: Option<StoreHealth>,
    /// Why it did not answer, when it did not.
    pub error: Option<StoreError>,
    /// When it was looked at; `None` before the first look.
    pub checked_at: Option<Timestamp>,
    /// The gateways that live on it, as it said last.
    pub instances: Vec<Instance>,
}

/// The latest [`StoreState`]. Clones share it; usable from any thread.
#[derive(Clone, Default)]
pub struct StoreWatch(Arc<RwLock<Arc<StoreState>>>);

impl fmt::Debug for StoreWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.now(), formatter)
    }
}

impl StoreWatch {
    /// How the store was when it was looked at last.
    #[must_use]
    pub fn now(&self) -> Arc<StoreState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of a store before the first look: it said this of itself when it was opened.
    #[must_use]
    pub fn opened(health: StoreHealth, at: Timestamp) -> Self {
        let watch = Self::default();
        let reachable = health.reachable;
        let instances = Vec::new();
        watch.set(StoreState {
            reachable,
            health: Some(health),
            error: None,
            checked_at: Some(at),
            instances,
        });
        watch
    }

    /// What is known of a store that did not answer when it was opened.
    #[must_use]
    pub fn away(error: StoreError, at: Timestamp) -> Self {
        let watch = Self::default();
        watch.set(StoreState { error: Some(error), checked_at: Some(at), ..StoreState::default() });
        watch
    }

    fn set(&self, state: StoreState) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }
}

/// The actor.
pub(super) struct Prober {
    store: Rc<dyn MessageStore>,
    changes: WakeSubscription,
    tools: Tools,
    backoff: Backoff,
    announced: Option<Tick>,
}

/// What a prober works with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) catalog: Catalog,
    pub(super) watch: StoreWatch,
    pub(super) clock: Clock,
    pub(super) undeclared: Undeclared,
    /// The name of this gateway.
    pub(super) instance: Arc<str>,
}

impl Actor for Prober {
    // Time tells it what to do.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let mut stopping = pin!(life.stopping());
        while !life.is_stopping() {
            life.beat();
            // What changes during the look may be too late for it: it ends the wait after it.
            drop(self.changes.take());
            let pause = tokio::select! {
                biased;
                () = &mut stopping => return Exit::Done,
                pause = self.look() => pause,
            };
            tokio::select! {
                biased;
                () = &mut stopping => {}
                () = self.changed() => {}
                () = sleep(pause) => {}
            }
        }
        Exit::Done
    }
}

impl Prober {
    pub(super) fn new(store: &dyn Store, tools: Tools) -> Self {
        let changes = store.wakes().subscribe_changes();
        Self { store: store.connect(), changes, tools, backoff: Backoff::default(), announced: None }
    }

    /// Resolves when another gateway changed a queue, not sooner than a look may follow the last one.
    async fn changed(&self) {
        sleep(PROBE_AGAIN_AFTER).await;
        self.changes.posted().await;
    }

    /// Looks once; gives the pause until the next look.
    async fn look(&mut self) -> Duration {
        if let Err(error) = self.declare().await {
            let before = self.tools.watch.now();
            let checked_at = Some(self.tools.clock.now());
            let state = StoreState { reachable: false, error: Some(error), checked_at, ..(*before).clone() };
            note(&before, &state);
            self.tools.watch.set(state);
            return self.backoff.failed();
        }
        let version = self.tools.catalog.version();
        let health = self.store.health().await;
        let queues = match &health {
            Ok(health) if health.reachable => self.store.queues().await,
            Ok(_) => Err(StoreError::Unavailable("it says that it cannot be reached".to_owned())),
            Err(error) => Err(error.clone()),
        };
        let instances = if queues.is_ok() { self.announce().await } else { None };
        let before = self.tools.watch.now();
        let state = StoreState {
            reachable: queues.is_ok(),
            health: health.ok().or_else(|| before.health.clone()),
            error: queues.as_ref().err().cloned(),
            checked_at: Some(self.tools.clock.now()),
            instances: instances.unwrap_or_else(|| before.instances.clone()),
        };
        note(&before, &state);
        let is_away = !state.reachable;
        self.tools.watch.set(state);
        if let Ok(queues) = queues {
            let is_current = self.tools.catalog.replace_all_since(version, queues);
            if !is_current {
                log::debug!("a queue changed while all were asked for: the next look will see");
            }
        }
        if is_away { PROBE_AWAY_EVERY } else { PROBE_EVERY }
    }

    /// Declares the operator's queues, if that is still to be done.
    async fn declare(&mut self) -> Result<(), StoreError> {
        let lock = || self.tools.undeclared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(declare) = lock().clone() else { return Ok(()) };
        let entries = declare(self.store.clone()).await?;
        lock().take();
        self.tools.catalog.replace_all(entries);
        self.backoff.succeeded();
        Ok(())
    }

    /// Says that this gateway lives, when it is time to; gives all that do.
    async fn announce(&mut self) -> Option<Vec<Instance>> {
        let now = self.tools.clock.tick();
        if self.announced.is_some_and(|announced| now.since(announced) < ANNOUNCE_EVERY) {
            return None;
        }
        let (id, last_seen) = (self.tools.instance.clone(), self.tools.clock.now());
        let instance = Instance { id, version: env!("CARGO_PKG_VERSION").into(), last_seen };
        match self.store.announce(instance).await {
            Ok(instances) => {
                self.announced = Some(now);
                Some(instances)
            }
            Err(error) => {
                // A store that leaves it without an answer must not hold up every look.
                if matches!(error, StoreError::Timeout(_)) {
                    self.announced = Some(self.tools.clock.tick());
                }
                log::debug!("cause" = error.to_string().as_str(); "the store was not told that this gateway lives");
                None
            }
        }
    }
}

/// Logs a change for the worse or the better.
fn note(before: &StoreState, now: &StoreState) {
    match &now.error {
        Some(error) if before.reachable || before.checked_at.is_none() => {
            log::warn!("cause" = error.to_string().as_str(); "the store cannot be reached");
        }
        None if before.error.is_some() => log::info!("the store can be reached again"),
        _ => {}
    }
    let full = |state: &StoreState| state.health.as_ref().and_then(|health| health.full.clone());
    match (full(before), full(now)) {
        (None, Some(why)) => log::warn!("cause" = why.as_str(); "the store is full: publishes are refused"),
        (Some(_), None) => log::info!("the store has room again"),
        _ => {}
    }
}
