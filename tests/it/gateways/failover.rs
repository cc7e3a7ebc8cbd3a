//! The address of Redis moves to another server; the gateway goes on by itself.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count};
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, STRICT};
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);
/// How soon after the address moved everything goes on; a publish may wait two seconds for a replica before.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
const MESSAGES: u64 = 4_000;
const FAILOVERS: u64 = 2;
const THREADS: u64 = 1;
const CONCURRENCY: u64 = 16;
const PREFETCH: u64 = 8;
const IN_FLIGHT_MAX: u64 = THREADS * (CONCURRENCY + PREFETCH);
const PUBLISH: &str = "/v1/queues/orders/messages";
/// Every thread has something to do with each message.
const WORKED: &str =
    "[server]\nthreads = 1\n[workers]\nthreads = 1\n[queues.orders]\nprocessor = 'log'\nlease = '3s'\n";
const PULLED: &str = "[queues.orders]\nprocessor = 'pull'\n";

/// A server, and the port by which another follows it.
struct Node {
    server: RedisServer,
    port: String,
}

impl Node {
    fn start() -> Self {
        let (server, port) = RedisServer::start_on_port(&STRICT);
        Self { server, port }
    }

    /// Follows another and waits until it has what that has.
    fn follow(&self, master: &Self) {
        self.server.order(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        self.catch_up(master);
    }

    fn catch_up(&self, master: &Self) {
        wait_until("the replica is in step", WITHIN, || {
            let offset = master.server.info("master_repl_offset");
            let told = self.server.ask(&["INFO", "replication"]);
            let has_all =
                told.contains("master_link_status:up") && self.server.info("slave_repl_offset") >= offset;
            has_all.then_some(())
        });
    }

    /// Takes the place of a master that lives, without losing anything.
    fn supersede(&self, master: &Self) {
        self.catch_up(master);
        self.promote();
    }

    fn promote(&self) {
        self.server.order("REPLICAOF NO ONE");
    }
}

/// A gateway before an address.
fn gateway(settings: &str, arguments: &[&str], address: &Proxy) -> Gateway {
    let arguments = [&["--dev", "--log", "info"], arguments].concat();
    let mut gateway = Gateway::prepare(settings, &arguments).wrapped(vec![], &address.url());
    gateway.launch_until_ready();
    gateway
}

/// Publishes until it is accepted; every other answer is a 503.
fn publish_until_accepted(gateway: &Gateway, within: Duration) {
    wait_until("a publish is accepted", within, || {
        let answer = gateway.request("POST", PUBLISH, &[], b"probe");
        assert!([202, 503].contains(&answer.status), "{}", answer.text());
        (answer.status == 202).then_some(())
    });
}

fn warnings(status: &Value) -> Vec<&str> {
    let warnings = status["store"]["warnings"].as_array().expect("a list");
    warnings.iter().filter_map(|warning| warning["code"].as_str()).collect()
}

/// Kills the master, lets its replica take its place and its address, and brings it back as the replica of that one.
fn fail_over(master: &mut Node, replica: &Node, address: &Proxy) {
    master.server.kill();
    replica.promote();
    address.point_at(replica.server.socket());
    thread::sleep(Duration::from_millis(fastrand::u64(0..500)));
    master.server.launch();
    master.follow(replica);
}

#[test]
fn failovers_under_load_lose_nothing_that_a_replica_had_to_have() {
    let mut nodes = [Node::start(), Node::start()];
    nodes[1].follow(&nodes[0]);
    let address = Proxy::start(nodes[0].server.socket());
    let sink = Sink::keeping(Keep::Digests, |received| {
        let answer = Answer::status(if is_refused_at_first(received) { 503 } else { 200 });
        Answer::After(Duration::from_millis(4), Box::new(answer))
    });
    let settings = format!(
        "[workers]\nthreads = {THREADS}\nconcurrency = {CONCURRENCY}\nprefetch = {PREFETCH}\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{}]\nlease = '3s'\n",
        sink.url("/orders"),
        ["'200ms'"; 11].join(", "),
    );
    let mut gateway = gateway(&settings, &["--set", "store.replicas_ack=1"], &address);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load = Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: 16 << 10, seed };
    let publishing = load.start(&gateway.whereabouts());
    let progress = publishing.progress().clone();
    for failover in 1..=FAILOVERS {
        let place = failover * MESSAGES / (FAILOVERS + 1);
        wait_until(&format!("{place} messages were sent"), WITHIN, || {
            (progress.finished() >= place).then_some(())
        });
        let [first, second] = &mut nodes;
        fail_over(first, second, &address);
        let (accepted, received) = (progress.accepted(), sink.count());
        wait_until("the load goes on, in and out", RESUMES_WITHIN, || {
            let is_over = progress.finished() == MESSAGES;
            (is_over || (progress.accepted() > accepted && sink.count() > received)).then_some(())
        });
        nodes.swap(0, 1);
    }
    let sent = publishing.join();
    let status = gateway.wait_until_drained(WITHIN);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{reconciled:?}, {} of unknown fate, {} refused", progress.unknown(), progress.refused());
    assert_eq!(progress.finished(), MESSAGES);
    let allowed = FAILOVERS * IN_FLIGHT_MAX;
    assert!(reconciled.duplicates <= allowed, "{} duplicates, {allowed} are allowed", reconciled.duplicates);
    let came = reconciled.messages;
    assert_eq!(["accepted", "delivered", "dead"].map(|key| count(&status, key)), [came, came, 0], "{status}");
    assert!(!warnings(&status).contains(&"accepted_fell"), "{status}");
    gateway.stop();
}

/// Connections by which somebody other than this test asked something a moment ago.
fn connections(node: &Node) -> usize {
    let list = node.server.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
    let is_used = |line: &&str| {
        let idle = line.split(' ').find_map(|word| word.strip_prefix("idle="));
        let idle_s: u64 = idle.and_then(|seconds| seconds.parse().ok()).expect("each line says so");
        idle_s <= 2 && !line.contains("cmd=client|list")
    };
    list.lines().filter(|line| line.starts_with("id=")).filter(is_used).count()
}

#[test]
fn a_master_that_is_demoted_alive_is_left_by_every_connection() {
    let [first, second] = [Node::start(), Node::start()];
    second.follow(&first);
    let address = Proxy::start(first.server.socket());
    let mut gateway = gateway(WORKED, &[], &address);
    publish_until_accepted(&gateway, Duration::ZERO);
    // Its connections stay open, and it answers READONLY; the address still leads to it.
    second.supersede(&first);
    first.follow(&second);
    wait_until("publishes are refused", WITHIN, || {
        let answer = gateway.request("POST", PUBLISH, &[], b"x");
        let is_refused = answer.status == 503 && answer.header("posthaste-stored") == Some("no");
        assert!(is_refused, "{}", answer.text());
        answer.text().contains("a replica of 127.0.0.1").then_some(())
    });
    address.point_at(second.server.socket());
    publish_until_accepted(&gateway, RESUMES_WITHIN);
    gateway.wait_until_ready(RESUMES_WITHIN);
    wait_until("all have left", WITHIN, || {
        gateway.publish("orders", &[], b"x");
        gateway.status();
        (connections(&first) == 0).then_some(())
    });
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(count(&status, "accepted"), count(&status, "delivered"), "{status}");
    gateway.stop();
}

#[test]
fn a_demotion_that_moves_the_address_at_once_goes_unnoticed_but_for_the_calls_in_between() {
    let [first, second] = [Node::start(), Node::start()];
    second.follow(&first);
    let address = Proxy::start(first.server.socket());
    let mut gateway = gateway(WORKED, &[], &address);
    publish_until_accepted(&gateway, Duration::ZERO);
    second.supersede(&first);
    address.point_at(second.server.socket());
    first.follow(&second);
    publish_until_accepted(&gateway, RESUMES_WITHIN);
    wait_until("all have left", WITHIN, || {
        gateway.publish("orders", &[], b"x");
        (connections(&first) == 0).then_some(())
    });
    let log = gateway.log();
    assert!(!log.contains("does not keep what a 202 promises"), "the new master is fit: {log}");
    gateway.stop();
}

#[test]
fn a_replica_that_missed_the_last_messages_is_warned_of_and_taken() {
    let [mut first, second] = [Node::start(), Node::start()];
    let address = Proxy::start(first.server.socket());
    let mut gateway = gateway(PULLED, &[], &address);
    for _ in 0..3 {
        gateway.publish("orders", &[], b"both have it");
    }
    second.follow(&first);
    second.promote();
    for _ in 0..2 {
        gateway.publish("orders", &[], b"one has it");
    }
    let accepted = |gateway: &Gateway| count(&gateway.status(), "accepted");
    assert_eq!(accepted(&gateway), 5);
    assert!(!warnings(&gateway.status()).contains(&"accepted_fell"));
    first.server.kill();
    address.point_at(second.server.socket());
    gateway.wait_for("it is warned of", WITHIN, |gateway| {
        let answer = gateway.request("GET", "/status", &[], b"");
        warnings(&answer.json()).contains(&"accepted_fell").then_some(())
    });
    publish_until_accepted(&gateway, RESUMES_WITHIN);
    let status = gateway.status();
    assert_laws(&status);
    assert_eq!(count(&status, "accepted"), 4, "{status}");
    assert!(gateway.log().contains("lost what it had acknowledged"));
    gateway.stop();
}

#[test]
fn another_redis_at_the_address_takes_nothing_and_the_old_one_goes_on_where_it_was() {
    let [old, other] = [Node::start(), Node::start()];
    let address = Proxy::start(old.server.socket());
    let mut gateway = gateway(PULLED, &[], &address);
    gateway.publish("orders", &[], b"first");
    address.point_at(other.server.socket());
    old.server.hang_up();
    let refused = gateway.wait_for("publishes are refused for it", WITHIN, |gateway| {
        let answer = gateway.request("POST", PUBLISH, &[], b"second");
        assert_eq!(answer.status, 503, "{}", answer.text());
        answer.text().contains("its epoch is gone").then_some(answer)
    });
    assert_eq!(refused.header("posthaste-stored"), Some("no"), "{}", refused.text());
    gateway.wait_for("it is not ready", WITHIN, |gateway| {
        let answer = gateway.request("GET", "/ready", &[], b"");
        (answer.status == 503 && answer.text().contains("not_durable")).then_some(())
    });
    assert_eq!(other.server.ask(&["LLEN", "ph:{orders#0}:p1"]), ":0\r\n");
    address.point_at(old.server.socket());
    other.server.hang_up();
    publish_until_accepted(&gateway, RESUMES_WITHIN);
    gateway.wait_until_ready(WITHIN);
    assert_eq!(old.server.ask(&["LLEN", "ph:{orders#0}:p1"]), ":2\r\n");
    gateway.stop();
}
