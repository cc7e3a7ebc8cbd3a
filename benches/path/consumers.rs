//! Consumers that wait: how soon one of them has a message that is posted to an idle queue, on the embedded store, on a Redis and at
//! another gateway on that Redis; and what a thousand of them cost while nothing comes.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use crate::Arguments;
use crate::client::Connection;
use crate::gateway::{Gateway, wait_for};
use crate::redis_server::RedisServer;
use crate::report::Report;

const QUEUE: &str = "/v1/queues/bench";
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
/// Between two posts, so that the consumer waits when one comes.
const PAUSE: Duration = Duration::from_millis(20);
/// Posts before those that are timed.
const WARM_UP: usize = 50;
/// Consumers that wait at once.
const CROWD: usize = 1_000;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(30);
/// The start of a gateway has work for a while, and so has a crowd that comes.
const SETTLE: Duration = Duration::from_secs(3);

/// Room for both ends of their connections.
const FILES: u64 = 4_096;

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).expect("so many files may be open");
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let alone = Gateway::start(folders[0].path());
    measure("", &alone, &alone, arguments.posts, report);
    idle("", &alone, None, report);
    drop(alone);
    let redis = RedisServer::start_durable();
    let one = Gateway::start_on(folders[1].path(), &redis.url());
    let other = Gateway::start_on(folders[2].path(), &redis.url());
    measure("redis_", &one, &one, arguments.posts, report);
    measure("redis_other_", &one, &other, arguments.posts, report);
    drop(other);
    idle("redis_", &one, Some(&redis), report);
}

fn lease(connection: &mut Connection, body: &str) {
    let path = format!("{QUEUE}/leases");
    connection.send("POST", &path, &JSON, body.as_bytes()).expect("an open socket");
}

/// From the beginning of a post at one gateway until a consumer at another has the answer with the message.
fn measure(name: &str, posting: &Gateway, pulling: &Gateway, posts: usize, report: &mut Report) {
    let put = |gateway: &Gateway| {
        let answer = gateway.connect().request("PUT", QUEUE, &JSON, br#"{"processor":"pull"}"#);
        assert!(matches!(answer.expect("an answer").status, 200 | 201));
    };
    put(posting);
    let (mut publisher, mut consumer, mut settler) =
        (posting.connect(), pulling.connect(), pulling.connect());
    let (mut to_consumer, mut to_answer) = (Vec::new(), Vec::new());
    for post in 0..posts + WARM_UP {
        lease(&mut consumer, r#"{"wait":"60s"}"#);
        thread::sleep(PAUSE);
        let posted = Instant::now();
        let answer = publisher.request("POST", &format!("{QUEUE}/messages"), &[], b"{\"n\":1}");
        let answered = posted.elapsed();
        assert_eq!(answer.expect("an answer").status, 202);
        let answer = consumer.answer(false).expect("an answer");
        // What came while the 202 was read is not seen sooner than it: the least that both took.
        let came = posted.elapsed();
        let found = answer.json();
        let receipt = found["items"][0]["receipt"].as_str().unwrap_or_else(|| panic!("{found}"));
        let body = format!(r#"{{"ack":["{receipt}"]}}"#);
        let settled = settler.request("POST", &format!("{QUEUE}/leases/settle"), &JSON, body.as_bytes());
        assert_eq!(settled.expect("an answer").status, 200);
        if post >= WARM_UP {
            to_consumer.push(came);
            to_answer.push(answered);
        }
    }
    report.add_distribution(&format!("{name}post_to_202"), to_answer);
    report.add_distribution(&format!("{name}post_to_consumer"), to_consumer);
}

/// What a thousand that wait cost beside an idle gateway.
fn idle(name: &str, gateway: &Gateway, redis: Option<&RedisServer>, report: &mut Report) {
    let watch = |what: &str, report: &mut Report| {
        thread::sleep(SETTLE);
        let commands = || redis.map(|redis| redis.info("total_commands_processed"));
        let (before, asked) = (gateway.cpu(), commands());
        thread::sleep(WATCHED);
        let percent = gateway.cpu().saturating_sub(before).as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
        report.add(&format!("{name}{what}_cpu_percent_of_a_core"), percent);
        if let (Some(before), Some(after)) = (asked, commands()) {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            report.add(
                &format!("{name}{what}_commands_per_s"),
                (after - before) as f64 / WATCHED.as_secs_f64(),
            );
        }
    };
    watch("idle", report);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| gateway.connect()).collect();
    for connection in &mut crowd {
        lease(connection, r#"{"wait":"60s"}"#);
    }
    watch("thousand_waiting", report);
    // The gateway is needed by who comes next: they leave before their time.
    drop(crowd);
    wait_for("they have left", || {
        let answer = gateway.connect().request("POST", &format!("{QUEUE}/leases"), &JSON, b"{}");
        (answer.ok()?.status == 200).then_some(())
    });
}
