//! Redis is full, with a long backlog of which half must be tried again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::queue::QueueSettings;
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::error::StoreError;
use posthaste::store::settings::StoreSettings;
use posthaste::store::{MessageStore, Put};

use crate::conformance::stand::{Draft, draft};
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count, is_drained};
use crate::support::redis::{RedisServer, STRICT};
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

/// So little that some more than [`BACKLOG_MIN`] messages fill it.
const MEMORY_BYTES: u64 = 44 << 20;
const BACKLOG_MIN: u64 = 50_000;
const PAYLOAD_BYTES: usize = 200;
const WITHIN: Duration = Duration::from_mins(5);
const PUBLISH: &str = "/v1/queues/orders/messages";

/// Publishes until the store takes no more; gives how many it has.
async fn fill(store: &dyn MessageStore) -> u64 {
    let settings = QueueSettings { processor: "pull".to_owned(), ..QueueSettings::default() };
    let put = store.put_queue("orders".parse().expect("a name"), Arc::new(settings)).await;
    let Ok(Put::Created(entry)) = put else { panic!("{put:?}") };
    let draft = Draft { payload: vec![b'x'; PAYLOAD_BYTES], attempts_max: 12, ..draft() };
    let mut stored = 0;
    loop {
        let messages = (0..500).map(|_| draft.build(Clock::system().now())).collect();
        let group = Group { queue: entry.queue_ref(), key: None, messages };
        match store.enqueue(CallId::random(), Arc::new(vec![group])).await.expect("Redis answers").pop() {
            Some(GroupResult::Accepted) => stored += 500,
            Some(GroupResult::Failed(StoreError::Full(_))) => return stored,
            other => panic!("{other:?}"),
        }
    }
}

/// What a client that goes on publishing was told.
#[derive(Default)]
struct Told {
    is_over: AtomicBool,
    accepted: AtomicU64,
    shed: AtomicU64,
}

/// Publishes, a little and again and again, until it is over.
fn publish(address: &str, told: &Told) {
    let mut connection = Connection::open(address).expect("it listens");
    while !told.is_over.load(Ordering::SeqCst) {
        let answer = connection.request("POST", PUBLISH, &[], &[b'y'; PAYLOAD_BYTES]).expect("an answer");
        if answer.status == 202 {
            told.accepted.fetch_add(1, Ordering::SeqCst);
        } else {
            let stored = answer.header("posthaste-stored");
            assert_eq!((answer.status, stored), (503, Some("no")), "{}", answer.text());
            assert!(answer.text().contains("store_full"), "{}", answer.text());
            told.shed.fetch_add(1, Ordering::SeqCst);
        }
        if answer.header("connection") == Some("close") {
            connection = Connection::open(address).expect("it listens");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A number in a line of a section of `INFO`; 0 where there is no such line.
fn number(redis: &RedisServer, section: &str, line: &str, name: &str) -> u64 {
    let told = redis.ask(&["INFO", section]);
    let numbers = told.lines().find_map(|told| told.strip_prefix(line)?.strip_prefix(':'));
    let number = numbers
        .and_then(|numbers| numbers.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')));
    number.map_or(0, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn a_full_redis_drains_to_nothing_by_itself_though_half_of_it_is_tried_again() {
    let redis = RedisServer::start(&[&STRICT[..], &["--maxmemory", &MEMORY_BYTES.to_string()]].concat());
    let settings = StoreSettings { url: redis.url(), ..StoreSettings::default() };
    let store = posthaste::store::open(&settings, &Clock::system()).expect("Redis can be opened");
    let stored = fill(&*store.connect()).await;
    assert!(stored >= BACKLOG_MIN, "{stored} messages fill it");
    drop(store);

    // Every second message is refused when it comes for the first time.
    let refused = Arc::<Mutex<HashSet<String>>>::default();
    let of_sink = refused.clone();
    let sink = Sink::keeping(Keep::Digests, move |received| {
        let id = received.header("webhook-id").unwrap_or_default();
        let is_first = received.header("posthaste-attempt") == Some("1");
        let is_refused = is_first && received.order.is_multiple_of(2);
        if is_refused {
            of_sink.lock().expect("no panic while it is held").insert(id.to_owned());
        }
        Answer::status(if is_refused { 500 } else { 200 })
    });
    // Later than the last first attempt: all that is tried again waits at the same time.
    let settings = format!(
        "[queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = ['12s']\nretry.jitter = 0.0\n",
        sink.url("/orders"),
    );
    let mut gateway = Gateway::prepare(&settings, &["--dev", "--log", "info"]).over(&redis);
    gateway.launch_until_ready();
    let told = Arc::<Told>::default();
    let clients = [(); 4].map(|()| {
        let (address, told) = (gateway.address(), told.clone());
        thread::spawn(move || publish(&address, &told))
    });
    let mut peak = 0;
    let sampled = |until: &dyn Fn(&serde_json::Value) -> bool, peak: &mut u64| {
        wait_until("the backlog is gone", WITHIN, || {
            *peak = (*peak).max(redis.info("used_memory"));
            let status = gateway.status();
            assert_laws(&status);
            thread::sleep(Duration::from_millis(50));
            until(&status).then_some(status)
        })
    };
    sampled(&|status| count(status, "delivered") >= stored, &mut peak);
    told.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("it was told nothing else");
    }
    let status = sampled(&is_drained, &mut peak);
    let (accepted, shed) = (told.accepted.load(Ordering::SeqCst), told.shed.load(Ordering::SeqCst));
    let retried = refused.lock().expect("no panic while it was held").len() as u64;
    println!(
        "{stored} stored, {accepted} accepted, {shed} shed, {retried} tried again, at most {peak} bytes used"
    );
    assert!(shed > 0, "publishes were shed");
    assert!(retried >= stored / 3, "{retried} were tried again");
    assert!(peak <= MEMORY_BYTES + MEMORY_BYTES / 20, "{peak} of {MEMORY_BYTES} bytes were used");
    // Redis had nothing to refuse: no publish, no settlement.
    assert_eq!(number(&redis, "errorstats", "errorstat_OOM", "count"), 0);
    assert_eq!(number(&redis, "commandstats", "cmdstat_evalsha", "rejected_calls"), 0);
    let unknown = number(&redis, "errorstats", "errorstat_NOSCRIPT", "count");
    // Of what failed nothing was but a script that was not loaded yet, whichever command called it.
    assert!(number(&redis, "commandstats", "cmdstat_evalsha", "failed_calls") <= unknown);
    assert!(number(&redis, "commandstats", "cmdstat_evalsha", "calls") > unknown, "there are such figures");
    let all = stored + accepted;
    let counts = ["accepted", "delivered", "retried", "dead", "recovered"].map(|key| count(&status, key));
    assert_eq!(counts, [all, all, retried, 0, 0], "{status}");
    let delivered: HashSet<_> = sink
        .received()
        .iter()
        .filter_map(|received| received.header("webhook-id").map(str::to_owned))
        .collect();
    assert_eq!(
        (delivered.len() as u64, sink.count() as u64),
        (all, all + retried),
        "each came as often as it had to"
    );
    gateway.publish("orders", &[], b"there is room again");
    gateway.wait_until_drained(WITHIN);
    gateway.stop();
}
