//! Redis is killed and comes back; the gateway goes on by itself.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::invariants::assert_laws;
use crate::support::ledger::{is_refused_at_first, reconcile};
use crate::support::load::Load;
use crate::support::redis::RedisServer;
use crate::support::sink::{Answer, Keep, Sink};
use crate::support::wait_until;

const MESSAGES: u64 = 6_000;
const KILLS: u64 = 5;
/// How soon after Redis is back everything goes on, but for one time: a disk that others share stands still for seconds now and then.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);
const PROGRESS_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn five_kills_of_redis_under_load_lose_nothing_and_double_nothing() {
    let sink = Sink::keeping(Keep::Digests, |received| {
        let answer = Answer::status(if is_refused_at_first(received) { 503 } else { 200 });
        Answer::After(Duration::from_millis(4), Box::new(answer))
    });
    let settings = format!(
        "[queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{}]\n\
         [queues.kept]\nprocessor = 'pull'\n",
        sink.url("/orders"),
        ["'200ms'"; 11].join(", "),
    );
    let mut redis = RedisServer::start_durable();
    let mut gateway = Gateway::prepare(&settings, &["--dev", "--log", "info"]).over(&redis);
    gateway.launch_until_ready();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let load = Load { queue: "orders", messages: MESSAGES, clients: 16, payload_bytes_max: 16 << 10, seed };
    let publishing = load.start(&gateway.whereabouts());
    let progress = publishing.progress().clone();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut spans = Vec::new();
    for kill in 1..=KILLS {
        let place = kill * MESSAGES / (KILLS + 1);
        wait_until(&format!("{place} messages were sent"), PROGRESS_WITHIN, || {
            (progress.finished() >= place).then_some(())
        });
        redis.kill();
        thread::sleep(Duration::from_millis(random.u64(0..1_500)));
        let (accepted, received) = (progress.accepted(), sink.count());
        redis.launch();
        let back = Instant::now();
        wait_until("a publish is accepted", PROGRESS_WITHIN, || {
            let answer = gateway.request("POST", "/v1/queues/kept/messages", &[], b"probe");
            assert!([202, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 202).then_some(())
        });
        let publishes = back.elapsed();
        wait_until("the load goes on, in and out", PROGRESS_WITHIN, || {
            (progress.accepted() > accepted && sink.count() > received).then_some(())
        });
        println!("resumed after {publishes:?}, in all {:?}", back.elapsed());
        gateway.wait_until_ready(PROGRESS_WITHIN);
        spans.push(back.elapsed());
    }
    spans.sort_unstable();
    assert!(spans[spans.len() - 2] <= RESUMES_WITHIN, "it went on after {spans:?}");
    let sent = publishing.join();
    let find = |status: &Value| {
        let queues = status["queues"].as_array().expect("queues");
        queues.iter().find(|queue| queue["name"] == "orders").expect("it is declared").clone()
    };
    let status = gateway.wait_for("all is delivered", PROGRESS_WITHIN, |gateway| {
        let status = gateway.status();
        let orders = find(&status);
        ["pending", "scheduled", "leased"].iter().all(|gauge| orders[gauge] == 0).then_some(status)
    });
    assert_laws(&status);
    let reconciled = reconcile(&sent, &sink.received(), is_refused_at_first);
    println!("{reconciled:?}, {} of unknown fate, {} refused", progress.unknown(), progress.refused());
    assert_eq!(progress.finished(), MESSAGES);
    assert_eq!(reconciled.duplicates, 0, "{reconciled:?}");
    let orders = find(&status);
    let came = reconciled.messages;
    assert_eq!(
        ["accepted", "delivered", "dead"].map(|key| orders[key].as_u64()),
        [Some(came), Some(came), Some(0)]
    );
    gateway.stop();
}
