//! How each kind of store is opened and restarted.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use posthaste::clock::Clock;
use posthaste::store::Store;
use posthaste::store::memory::Memory;
use posthaste::store::settings::{RequiredDurability, StoreSettings};

use crate::support::redis::{RedisServer, STRICT};

/// One kind of store under test.
pub(crate) trait Fixture {
    /// The scheme of its URL.
    fn kind(&self) -> &'static str;

    /// Whether gateways share it: it goes by its own clock, and what a gateway that ended holds stays leased until its time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Opens a new, empty store.
    fn open(&mut self, clock: &Clock, bytes_max: Option<u64>) -> Arc<dyn Store>;

    /// What the next process finds; `None` when the store keeps nothing. The connections of the old one are of no use.
    fn reopen(&mut self) -> LocalBoxFuture<'_, Option<Arc<dyn Store>>>;

    /// A `store.bytes_max` that is soon reached, and how many payload bytes surely reach it.
    fn small(&self) -> (u64, u64);
}

/// The store in memory. A restart is the one it is the model of.
#[derive(Default)]
pub(crate) struct MemoryFixture(Option<Arc<Memory>>);

impl Fixture for MemoryFixture {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn open(&mut self, clock: &Clock, bytes_max: Option<u64>) -> Arc<dyn Store> {
        let durability = RequiredDurability::None;
        let settings =
            StoreSettings { url: "memory:".to_owned(), durability, bytes_max, ..StoreSettings::default() };
        let store = Memory::open(&settings, clock).expect("memory can be opened");
        self.0 = Some(Arc::clone(&store));
        store
    }

    fn reopen(&mut self) -> LocalBoxFuture<'_, Option<Arc<dyn Store>>> {
        Box::pin(async {
            let store = self.0.take().expect("it was opened").reopen().expect("it can be opened again");
            self.0 = Some(Arc::clone(&store));
            Some(store as Arc<dyn Store>)
        })
    }

    fn small(&self) -> (u64, u64) {
        (64 << 10, 64 << 10)
    }
}

/// The store in a file of its own.
#[derive(Default)]
pub(crate) struct SqliteFixture(Option<(tempfile::TempDir, StoreSettings, Clock, Arc<dyn Store>)>);

impl Fixture for SqliteFixture {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn open(&mut self, clock: &Clock, bytes_max: Option<u64>) -> Arc<dyn Store> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
        let settings = StoreSettings { url, bytes_max, ..StoreSettings::default() };
        let store = posthaste::store::open(&settings, clock).expect("the file can be opened");
        self.0 = Some((folder, settings, clock.clone(), Arc::clone(&store)));
        store
    }

    fn reopen(&mut self) -> LocalBoxFuture<'_, Option<Arc<dyn Store>>> {
        Box::pin(async {
            let (folder, settings, clock, store) = self.0.take().expect("it was opened");
            store.connect().close().await.expect("a store can be closed");
            drop(store);
            let store = posthaste::store::open(&settings, &clock).expect("the file can be opened again");
            self.0 = Some((folder, settings, clock, Arc::clone(&store)));
            Some(store)
        })
    }

    fn small(&self) -> (u64, u64) {
        // Beyond what it sets aside for its log and its reserve.
        (64 << 20, 64 << 20)
    }
}

/// The store in Redis: a server of its own for each test.
#[derive(Default)]
pub(crate) struct RedisFixture(Option<(RedisServer, StoreSettings, Clock, Arc<dyn Store>)>);

impl Fixture for RedisFixture {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn open(&mut self, clock: &Clock, bytes_max: Option<u64>) -> Arc<dyn Store> {
        let most = bytes_max.unwrap_or(0).to_string();
        let server = RedisServer::start(&[&STRICT[..], &["--maxmemory", &most]].concat());
        let settings = StoreSettings { url: server.url(), bytes_max, ..StoreSettings::default() };
        let store = posthaste::store::open(&settings, clock).expect("Redis can be opened");
        self.0 = Some((server, settings, clock.clone(), Arc::clone(&store)));
        store
    }

    fn reopen(&mut self) -> LocalBoxFuture<'_, Option<Arc<dyn Store>>> {
        Box::pin(async {
            let (server, settings, clock, store) = self.0.take().expect("it was opened");
            store.connect().close().await.expect("a store can be closed");
            drop(store);
            let store = posthaste::store::open(&settings, &clock).expect("Redis can be opened again");
            self.0 = Some((server, settings, clock, Arc::clone(&store)));
            Some(store)
        })
    }

    fn small(&self) -> (u64, u64) {
        (16 << 20, 16 << 20)
    }
}
