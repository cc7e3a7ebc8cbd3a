//! What only the store in Redis has: lost answers, other people's keys, a server that stands still, memory, what is left over.

mod appended;
mod at_rest;
mod away;
mod bounded;
mod earlier;
mod faults;
mod fields;
mod foreign;
mod idle;
mod index;
mod large;
mod mixed;
mod numbers;
mod observed;
mod occupied;
mod registry;
mod repaired;
mod repeats;
mod replies;
mod shared;
mod short;
mod spread;
mod status;
mod torn;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use posthaste::clock::Clock;
use posthaste::store::Store;
use posthaste::store::settings::{RequiredDurability, StoreSettings};

use crate::conformance::Fixture;
use crate::conformance::stand::Stand;
use crate::support::redis::RedisServer;

/// The longest that one test may take on a busy machine.
const TEST_MAX: Duration = Duration::from_mins(2);

/// Opens stores on a server that somebody else holds.
struct At(String);

impl Fixture for At {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn open(&mut self, clock: &Clock, bytes_max: Option<u64>) -> Arc<dyn Store> {
        let durability = RequiredDurability::Relaxed;
        let settings =
            StoreSettings { url: self.0.clone(), durability, bytes_max, ..StoreSettings::default() };
        posthaste::store::open(&settings, clock).expect("Redis can be opened")
    }

    fn reopen(&mut self) -> LocalBoxFuture<'_, Option<Arc<dyn Store>>> {
        Box::pin(async { None })
    }

    fn small(&self) -> (u64, u64) {
        (64 << 20, 64 << 20)
    }
}

/// A gateway's store at a URL.
fn stand_at(url: String, clock: &Clock) -> Stand {
    Stand::with_clock(Box::new(At(url)), clock)
}

/// Runs a test on a thread as a gateway has them.
fn run(test: impl AsyncFnOnce()) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let within = async { tokio::time::timeout(TEST_MAX, test()).await.expect("the test ends in time") };
    tokio::task::LocalSet::new().block_on(&runtime, within);
}

/// A command with arguments of any bytes.
fn ask<T: redis::FromRedisValue>(server: &RedisServer, words: &[&[u8]]) -> T {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("the server runs");
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The key of a queue.
fn key(queue: &str, name: &str) -> String {
    format!("ph:{{{queue}#0}}:{name}")
}

/// All keys without an end: those with one go by themselves.
fn lasting_keys(server: &RedisServer) -> Vec<String> {
    let keys: Vec<String> = ask(server, &[b"KEYS", b"*"]);
    let mut lasting: Vec<_> =
        keys.into_iter().filter(|key| ask::<i64>(server, &[b"PTTL", key.as_bytes()]) == -1).collect();
    lasting.sort_unstable();
    lasting
}
