//! Looks at the store once a second, so that nobody who answers a request has to.
//!
//! # What it does
//! Asks the store how it is and which queues there are; publishes the first as a [`StoreState`], the second in the
//! catalog.
//!
//! # What it waits for
//! The store, then for a second.
//!
//! # What it guarantees
//! A change that another gateway or a restart brought is known about a second later. A change that this process made
//! meanwhile is never undone by an older list.
//!
//! # When it fails
//! With the store away the state says so and why; the catalog stays as it is.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::sleep;

use crate::actor::{Actor, Exit, Inbox, Life};
use crate::clock::Clock;
use crate::domain::timestamp::Timestamp;
use crate::pipeline::catalog::Catalog;
use crate::store::MessageStore;
use crate::store::error::StoreError;
use crate::store::health::StoreHealth;

/// The time between two looks.
const PROBE_EVERY: Duration = Duration::from_secs(1);

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
        watch.set(StoreState { reachable, health: Some(health), error: None, checked_at: Some(at) });
        watch
    }

    fn set(&self, state: StoreState) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }
}

/// The actor.
pub(super) struct Prober {
    pub(super) store: Rc<dyn MessageStore>,
    pub(super) catalog: Catalog,
    pub(super) watch: StoreWatch,
    pub(super) clock: Clock,
}

impl Actor for Prober {
    // Time tells it what to do.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let mut stopping = pin!(life.stopping());
        while !life.is_stopping() {
            life.beat();
            tokio::select! {
                biased;
                () = &mut stopping => return Exit::Done,
                () = self.look() => {}
            }
            tokio::select! {
                biased;
                () = &mut stopping => {}
                () = sleep(PROBE_EVERY) => {}
            }
        }
        Exit::Done
    }
}

impl Prober {
    async fn look(&self) {
        let version = self.catalog.version();
        let health = self.store.health().await;
        let queues = match &health {
            Ok(health) if health.reachable => self.store.queues().await,
            Ok(_) => Err(StoreError::Unavailable("it says that it cannot be reached".to_owned())),
            Err(error) => Err(error.clone()),
        };
        let before = self.watch.now();
        let state = StoreState {
            reachable: queues.is_ok(),
            health: health.ok().or_else(|| before.health.clone()),
            error: queues.as_ref().err().cloned(),
            checked_at: Some(self.clock.now()),
        };
        note(&before, &state);
        self.watch.set(state);
        if let Ok(queues) = queues {
            let is_current = self.catalog.replace_all_since(version, queues);
            if !is_current {
                log::debug!("a queue changed while all were asked for: the next look will see");
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
