//! `kill -9` of the gateway and of Redis, at random, under batches of ten thousand: each is there wholly or not at all, and once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use posthaste::clock::Clock;
use posthaste::store::lease::{BatchId, LeaseKind, LeaseRequest};
use posthaste::store::settings::{RequiredDurability, StoreSettings};

use super::NDJSON;
use crate::support::client::request;
use crate::support::gateway::{Gateway, Home, Whereabouts};
use crate::support::invariants::{assert_laws, count};
use crate::support::redis::RedisServer;
use crate::support::wait_until;

const BATCHES: usize = 12;
const ITEMS: usize = 10_000;
const KILLS: usize = 8;
const WITHIN: Duration = Duration::from_secs(90);
const SETTINGS: &str = "[server.limits]\nbatch_messages_max = 10000\n[queues.kept]\nprocessor = 'pull'\n";
const PATH: &str = "/v1/queues/kept/messages/batch";

/// What is known of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It was answered 202, or 200 as a duplicate.
    There,
    /// It had no key, and its answer was lost or said that it is not known.
    Unknown,
}

fn body(batch: usize) -> Vec<u8> {
    let mut lines = String::new();
    for item in 0..ITEMS {
        writeln!(lines, "[{batch},{item}]").expect("a string grows");
    }
    lines.into_bytes()
}

/// Sends one batch after the other, each until its fate is decided; every fourth has no key.
fn send_all(whereabouts: &Whereabouts, tries: &AtomicUsize) -> Vec<Fate> {
    (0..BATCHES).map(|batch| send(whereabouts, tries, batch)).collect()
}

fn send(whereabouts: &Whereabouts, tries: &AtomicUsize, batch: usize) -> Fate {
    let (body, key) = (body(batch), format!("batch-{batch}"));
    let is_keyed = !batch.is_multiple_of(4);
    let mut headers = vec![NDJSON];
    headers.extend(is_keyed.then_some(("Idempotency-Key", key.as_str())));
    let deadline = Instant::now() + WITHIN;
    loop {
        tries.fetch_add(1, Ordering::SeqCst);
        let stored = match request(&whereabouts.address(), "POST", PATH, &headers, &body) {
            Ok(answer) if matches!(answer.status, 200 | 202) => {
                let ids = super::ids(&answer);
                assert_eq!((ids.len(), answer.status == 200 && !is_keyed), (ITEMS, false));
                return Fate::There;
            }
            Ok(answer) => {
                assert!(answer.status >= 500, "{}", answer.text());
                answer.header("posthaste-stored").expect("it says so").to_owned()
            }
            // Who could not connect has sent nothing.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "no".to_owned(),
            Err(_) => "unknown".to_owned(),
        };
        if stored == "unknown" && !is_keyed {
            return Fate::Unknown;
        }
        assert!(Instant::now() < deadline, "batch {batch} was not taken within {WITHIN:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// How many messages of each batch the store holds, each item once; reads it as a gateway does.
fn held(folder: &Path, home: &Home) -> BTreeMap<usize, usize> {
    let url = match home {
        Home::Sqlite => format!("sqlite:{}", folder.join("posthaste.db").display()),
        Home::Redis(redis) => redis.url(),
    };
    let settings = StoreSettings { url, durability: RequiredDurability::Relaxed, ..StoreSettings::default() };
    let store = posthaste::store::open(&settings, &Clock::system()).expect("the store opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = tokio::task::LocalSet::new().block_on(&runtime, async {
        let connection = store.connect();
        let queues = connection.queues().await.expect("queues");
        let queue =
            queues.iter().find(|entry| entry.name.as_str() == "kept").expect("it is there").queue_ref();
        let mut items: Vec<(usize, usize)> = Vec::new();
        loop {
            let request = LeaseRequest {
                queue: queue.clone(),
                batch: BatchId::random(),
                kind: LeaseKind::Pull,
                max: 1_000,
                bytes_max: 64 << 20,
                lease: Duration::from_mins(10),
                suspects: false,
            };
            let leased = connection.lease(request).await.expect("a lease");
            if leased.leases.is_empty() {
                break;
            }
            items.extend(leased.leases.iter().map(|lease| {
                serde_json::from_slice::<(usize, usize)>(&lease.record.payload()).expect("a payload of ours")
            }));
        }
        let differences = connection.audit().await.expect("an audit");
        assert!(differences.is_empty(), "{differences:?}");
        connection.close().await.expect("it ends");
        items
    });
    let mut counts = BTreeMap::new();
    let distinct: std::collections::HashSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), found.len(), "no item is there twice");
    for (batch, item) in found {
        assert!(item < ITEMS);
        *counts.entry(batch).or_default() += 1;
    }
    counts
}

/// Kills at random moments while batches are sent, and then holds what was answered against what is there.
#[expect(
    clippy::print_stdout,
    reason = "a test that is repeated needs its seed, and who reads it the figures"
)]
fn batches_survive(mut home: Home, mut kill: impl FnMut(&mut Gateway, &mut Home)) {
    let mut gateway = home.start(SETTINGS, &["--log", "info"]);
    let (whereabouts, tries) = (gateway.whereabouts(), Arc::new(AtomicUsize::new(0)));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let sending = thread::spawn({
        let tries = tries.clone();
        move || send_all(&whereabouts, &tries)
    });
    for number in 0..KILLS {
        // While a batch is being sent, or just after.
        let before = tries.load(Ordering::SeqCst);
        wait_until("another batch is on its way", WITHIN, || {
            (tries.load(Ordering::SeqCst) > before || number == 0 || sending.is_finished()).then_some(())
        });
        thread::sleep(Duration::from_millis(random.u64(0..400)));
        kill(&mut gateway, &mut home);
    }
    let fates = sending.join().expect("every batch has a fate");
    gateway.wait_until_ready(WITHIN);
    let status = gateway.status();
    assert_laws(&status);
    let accepted = count(&status, "accepted");
    assert_eq!(count(&status, "pending"), accepted);
    gateway.stop();
    let held = held(gateway.folder(), &home);
    println!("{fates:?} in {} tries", tries.load(Ordering::SeqCst));
    assert_eq!(held.values().sum::<usize>() as u64, accepted);
    for (batch, fate) in fates.iter().enumerate() {
        let found = held.get(&batch).copied().unwrap_or_default();
        let is_right = found == ITEMS || (found == 0 && *fate == Fate::Unknown);
        assert!(is_right, "batch {batch} is {fate:?}, and {found} of it are there");
    }
}

fn kill_gateway(gateway: &mut Gateway, _: &mut Home) {
    gateway.kill();
    gateway.launch_until_ready();
}

#[test]
fn a_gateway_that_is_killed_leaves_no_half_batch() {
    batches_survive(Home::Sqlite, kill_gateway);
}

#[test]
fn a_gateway_that_is_killed_leaves_no_half_batch_in_redis() {
    batches_survive(Home::redis(), kill_gateway);
}

#[test]
fn a_redis_that_is_killed_has_no_half_batch() {
    batches_survive(Home::Redis(RedisServer::start_durable()), |_, home| {
        let Home::Redis(redis) = home else { unreachable!("it is one") };
        redis.kill();
        redis.launch();
    });
}
