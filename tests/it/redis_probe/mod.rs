//! Whether Redis is fit for what a 202 promises: at start and while running, on real servers.

mod acl;
mod address;
mod fsynced;
mod moved;
mod refusals;
mod refused;
mod replicas;
mod rights;
mod room;
mod running;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::error::{OpenError, StoreError};
use posthaste::store::health::{Durability, StoreHealth};
use posthaste::store::lease::{Leased, Settled};
use posthaste::store::settings::{RequiredDurability, StoreSettings};
use posthaste::store::stats::QueueStats;
use posthaste::store::{MessageStore, Put, QueueRef, Store};

use crate::conformance::stand::{Draft, draft, ids, plain_settings, request, settlements};
use crate::support::redis::RedisServer;

/// How long anything may take to be seen on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

/// Runs a scenario on a thread as a gateway has them.
fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, scenario);
}

fn strict(server: &RedisServer) -> StoreSettings {
    StoreSettings { url: server.url(), ..StoreSettings::default() }
}

fn relaxed(server: &RedisServer) -> StoreSettings {
    StoreSettings { durability: RequiredDurability::Relaxed, ..strict(server) }
}

fn open(settings: &StoreSettings) -> Result<Arc<dyn Store>, OpenError> {
    posthaste::store::open(settings, &Clock::system())
}

/// Why a store is not opened: what exit code 78 prints.
fn refusal(settings: &StoreSettings) -> String {
    match open(settings) {
        Err(OpenError::Configuration(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened: {settings:?}"),
    }
}

/// A store with one connection and one queue.
struct Rig {
    store: Arc<dyn Store>,
    connection: Rc<dyn MessageStore>,
    queue: QueueRef,
}

impl Rig {
    async fn open(settings: &StoreSettings) -> Self {
        let store = open(settings).expect("Redis is fit");
        let connection = store.connect();
        let name: posthaste::domain::queue::QueueName = "orders".parse().expect("a name");
        let put = connection.put_queue(name, Arc::new(plain_settings())).await;
        let (Put::Created(entry) | Put::Updated(entry)) = put.expect("it can be made") else {
            panic!("declared")
        };
        Self { store, connection, queue: entry.queue_ref() }
    }

    fn group(&self, drafts: &[Draft]) -> Group {
        let now = Clock::system().now();
        let messages = drafts.iter().map(|draft| draft.build(now)).collect();
        Group { queue: self.queue.clone(), key: None, messages }
    }

    /// What becomes of a publish, an error of the whole call included.
    async fn offer(&self, drafts: &[Draft]) -> Result<(), StoreError> {
        let groups = Arc::new(vec![self.group(drafts)]);
        match self.connection.enqueue(CallId::random(), groups).await?.pop() {
            Some(GroupResult::Accepted) => Ok(()),
            Some(GroupResult::Failed(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    async fn publish(&self) {
        self.offer(&[draft()]).await.expect("it is accepted");
    }

    /// Publishes until it is judged: the first calls may meet a connection that was cut.
    async fn offer_when_connected(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            match self.offer(&[draft()]).await {
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) if begun.elapsed() < WITHIN => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    async fn lease(&self, max: u16) -> Leased {
        let request = posthaste::store::lease::LeaseRequest { max, ..request(&self.queue) };
        self.connection.lease(request).await.expect("leasing goes on")
    }

    /// Leases and settles up to so many; gives their ids.
    async fn work(&self, max: u16, verdict: Verdict) -> Vec<MessageId> {
        let leased = self.lease(max).await;
        let ids = ids(&leased);
        if ids.is_empty() {
            return ids;
        }
        let batch = leased.batch.clone();
        let settled = self.connection.settle(batch, Arc::new(settlements(leased, &verdict))).await;
        let settled = settled.expect("settling goes on");
        assert!(settled.iter().all(|settled| *settled == Settled::Settled), "{settled:?}");
        ids
    }

    async fn health(&self) -> StoreHealth {
        self.connection.health().await.expect("Redis answers")
    }

    async fn stats(&self) -> QueueStats {
        self.connection.stats(None).await.expect("Redis answers").pop().expect("there is one queue")
    }

    async fn warnings(&self) -> Vec<&'static str> {
        self.health().await.warnings.iter().map(|warning| warning.code).collect()
    }
}

/// Why a publish was refused for want of durability.
fn not_durable(offered: Result<(), StoreError>) -> String {
    match offered {
        Err(StoreError::NotDurable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Asks until something is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < WITHIN, "waiting until {what}: not within {WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
