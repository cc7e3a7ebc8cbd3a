//! Lanes in the real binary: bad destinations beside good ones, one that is down, what a restart leaves of it.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::command;
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::assert_laws;
use crate::support::redis::RedisServer;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    seventeen_deliver_all_they_have_while_three_are_shut
    a_destination_that_is_down_is_not_hammered_and_is_not_flooded_when_it_is_back
}

/// Publishes so many in few requests.
fn publish_many(gateway: &Gateway, queue: &str, count: usize) {
    for begun in (0..count).step_by(1_000) {
        let lines = "{}\n".repeat((count - begun).min(1_000));
        let headers = [("content-type", "application/x-ndjson")];
        let path = format!("/v1/queues/{queue}/messages/batch");
        let answer = gateway.request("POST", &path, &headers, lines.as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

fn queue<'s>(status: &'s Value, name: &str) -> &'s Value {
    let all = status["queues"].as_array().expect("a list");
    all.iter().find(|queue| queue["name"] == name).expect("it is there")
}

fn lane<'s>(status: &'s Value, key: &str) -> Option<&'s Value> {
    status["lanes"].as_array().expect("a list").iter().find(|lane| lane["key"] == key)
}

fn origin(sink: &Sink) -> String {
    format!("http://{}", sink.address())
}

fn seventeen_deliver_all_they_have_while_three_are_shut(home: &Home) {
    const EACH: usize = 200;
    let healthy: Vec<_> = (0..17).map(|_| Sink::start(|_| Answer::status(200))).collect();
    let hanging = Sink::start(|_| Answer::HangBeforeHead);
    let trickling =
        Sink::start(|_| Answer::Trickle { status: 200, bytes: 10_000, every: Duration::from_secs(1) });
    // Bound and not listened on would be accepted: one that is closed is refused.
    let refusing = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let refusing = format!("http://{}", refusing.expect("a free port"));
    let mut settings = "[workers]\nthreads = 2\n".to_owned();
    let mut declare = |name: &str, destination: &str| {
        writeln!(
            settings,
            "[queues.{name}]\nprocessor = 'http'\ndestination = '{destination}'\ntimeout = '15m'"
        )
        .expect("a string grows");
    };
    for (number, sink) in healthy.iter().enumerate() {
        declare(&format!("healthy-{number}"), &sink.url("/"));
    }
    declare("hanging", &hanging.url("/"));
    declare("trickling", &trickling.url("/"));
    declare("refusing", &refusing);
    let mut gateway = home.start(&settings, &["--dev"]);
    for bad in ["hanging", "trickling", "refusing"] {
        publish_many(&gateway, bad, EACH);
    }
    gateway.wait_for("the refusing one is shut", WITHIN, |gateway| {
        (lane(&gateway.status(), &refusing)?["breaker"] == "open").then_some(())
    });
    for number in 0..17 {
        publish_many(&gateway, &format!("healthy-{number}"), EACH);
    }
    let status = gateway.wait_for("the healthy ones have all they should", WITHIN, |gateway| {
        let status = gateway.status();
        let has_all = |number: usize| queue(&status, &format!("healthy-{number}"))["delivered"] == EACH;
        (0..17).all(has_all).then_some(status)
    });
    assert_laws(&status);
    assert_eq!((hanging.answers_ended(), trickling.answers_ended()), (0, 0), "those are under way still");
    for sink in [&hanging, &trickling] {
        let shown = lane(&status, &origin(sink)).expect("a lane");
        assert!(shown["in_flight"].as_u64() <= Some(64), "{shown}");
        assert!(shown["waiting"].as_u64() >= Some(EACH as u64 - 64), "{shown}");
    }
    gateway.kill();
}

/// Attempts that the breaker may have let through in so long, with so many in flight when it first opens.
fn allowed(elapsed: Duration, in_flight_max: usize) -> usize {
    let (mut probes, mut least, mut open) = (0, Duration::ZERO, Duration::from_secs(1));
    while least + open.mul_f64(0.75) <= elapsed {
        least += open.mul_f64(0.75);
        open = (open * 2).min(Duration::from_mins(5));
        probes += 1;
    }
    // Four in a row may fail before the one that opens it, while the other places are taken.
    4 + in_flight_max + probes
}

fn a_destination_that_is_down_is_not_hammered_and_is_not_flooded_when_it_is_back(home: &Home) {
    const MESSAGES: usize = 300;
    let is_down = Arc::new(AtomicBool::new(true));
    let sink = {
        let is_down = is_down.clone();
        Sink::start(move |_| {
            if is_down.load(Ordering::SeqCst) {
                Answer::Reset
            } else {
                Answer::After(Duration::from_millis(5), Box::new(Answer::status(200)))
            }
        })
    };
    let schedule = vec!["'10ms'"; 90].join(", ");
    let settings = format!(
        "[lanes]\nconcurrency_max = 8\n[queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{schedule}]\n",
        sink.url("/")
    );
    let mut gateway = home.start(&settings, &["--dev"]);
    let begun = Instant::now();
    publish_many(&gateway, "orders", MESSAGES);
    let key = origin(&sink);
    gateway.wait_for("it was probed", WITHIN, |_| (sink.count() > 5).then_some(()));
    let status = gateway.wait_for("it is open again", WITHIN, |gateway| {
        let status = gateway.status();
        let shown = lane(&status, &key)?;
        let is_open = shown["breaker"] == "open" && shown["open_until"].is_string();
        // A pause of less than a second holds up nobody.
        (is_open && queue(&status, "orders")["stalled"].is_object()).then_some(status)
    });
    let (attempts, most) = (sink.count(), allowed(begun.elapsed(), 8));
    assert!(attempts <= most, "{attempts} attempts, {most} allowed");
    let stalled = &queue(&status, "orders")["stalled"];
    assert_eq!(stalled["code"], "breaker_open", "{stalled}");
    let detail = stalled["detail"].as_str().expect("a text");
    assert!(detail.starts_with("breaker open until ") && detail.contains(&key), "{detail}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(["status", "--url", &format!("http://{}", gateway.address())]);
    let shown = command::run(gateway.folder(), command);
    assert!(shown.stdout.contains(&key) && shown.stdout.contains("breaker_open"), "{shown:?}");
    is_down.store(false, Ordering::SeqCst);
    let mut most = 0;
    while gateway.status()["totals"]["delivered"] != MESSAGES {
        for _ in 0..50 {
            // In this order it is never more than there were.
            let received = sink.count();
            most = most.max(received.saturating_sub(sink.answers_ended()));
            thread::sleep(Duration::from_micros(200));
        }
        assert!(begun.elapsed() < WITHIN, "{}", gateway.status());
    }
    assert!(most <= 8, "{most} at once");
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(
        (lane(&status, &key).expect("a lane")["breaker"].as_str(), &queue(&status, "orders")["stalled"]),
        (Some("closed"), &Value::Null)
    );
    let log = gateway.log();
    for said in ["a breaker opened", "a breaker closed"] {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    gateway.stop();
}

/// Settings of a queue with a receiver that asked for a pause of an hour, and a second queue whose messages may go elsewhere.
fn paused_for_an_hour(sink: &Sink) -> String {
    let queue = |name: &str, more: &str| {
        format!("[queues.{name}]\nprocessor = 'http'\ndestination = '{}'\n{more}", sink.url("/"))
    };
    let again = format!(
        "[queues.again]\nprocessor = 'http'\ndestination = '{}'\ndestination_override = 'any'\nretry = {{ schedule = [{}], jitter = 0.0 }}\n",
        sink.url("/again"),
        vec!["'1s'"; 50].join(", ")
    );
    queue("orders", "") + &queue("mixed", "destination_override = 'any'\n") + &again
}

/// A receiver that asks for a pause of an hour; it does not where it says `again`.
fn busy() -> Sink {
    Sink::start(|request| match request.target.as_str() {
        "/again" => Answer::status(500),
        _ => Answer::header(429, "retry-after", "3600"),
    })
}

/// A message was sent, and 5,000 wait for the lane, as `/status` says.
fn assert_all_wait(gateway: &Gateway, sink: &Sink) {
    let status = gateway.status();
    assert_eq!((&queue(&status, "orders")["pending"], sink.count()), (&Value::from(5_000), 1));
    let shown = lane(&status, &origin(sink)).expect("a lane");
    assert_eq!((&shown["breaker"], &shown["waiting"]), (&Value::from("open"), &Value::from(5_000)));
    assert_eq!(queue(&status, "orders")["stalled"]["code"], "rate_limited");
}

#[test]
fn a_long_queue_whose_lane_is_shut_costs_redis_nothing() {
    let (sink, home) = (busy(), Home::redis());
    let Home::Redis(redis) = &home else { unreachable!("it was just made") };
    let mut gateway = home.start(&paused_for_an_hour(&sink), &["--dev"]);
    let first = gateway.publish("orders", &[], b"x");
    gateway.wait_until_message_is("scheduled", &first, WITHIN);
    publish_many(&gateway, "orders", 5_000);
    let evaluated = |redis: &RedisServer| redis.calls("evalsha") + redis.calls("evalsha_ro");
    // A lease takes off lists; nothing else here does.
    let (taken, begun) = (redis.calls("ltrim"), evaluated(redis));
    assert!(taken > 0, "it shows nothing");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(redis.calls("ltrim"), taken, "nobody leased");
    assert!(evaluated(redis) - begun <= 60, "{} scripts in three seconds", evaluated(redis) - begun);
    assert_all_wait(&gateway, &sink);
    gateway.stop();
}

/// How often the store's threads had something to do: each time they went to sleep again afterwards, which the system counts.
fn store_turns(gateway: &Gateway) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("it runs");
    let turns = tasks.flatten().filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        field("Name:")?
            .starts_with("store-")
            .then(|| field("voluntary_ctxt_switches:")?.parse::<u64>().ok())?
    });
    turns.sum()
}

#[test]
fn a_long_queue_whose_lane_is_shut_costs_sqlite_nothing() {
    let sink = busy();
    let mut gateway = Home::Sqlite.start(&paused_for_an_hour(&sink), &["--dev"]);
    let log = |gateway: &Gateway| fs::read(gateway.folder().join("posthaste.db-wal")).expect("a log");
    let (empty, turns) = (log(&gateway), store_turns(&gateway));
    let first = gateway.publish("orders", &[], b"x");
    gateway.wait_until_message_is("scheduled", &first, WITHIN);
    assert!(log(&gateway) != empty && store_turns(&gateway) > turns, "else it shows nothing");
    publish_many(&gateway, "orders", 5_000);
    let (written, turns) = (log(&gateway), store_turns(&gateway));
    thread::sleep(Duration::from_secs(3));
    let turned = store_turns(&gateway) - turns;
    assert!(log(&gateway) == written, "a lease is written, and nobody leased");
    assert!(turned <= 60, "{turned} turns in three seconds");
    assert_all_wait(&gateway, &sink);
    gateway.stop();
}

/// What of a message must be the same after a restart.
fn timing(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.request("GET", path, &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let message = answer.json();
    let keys = ["state", "attempt_count", "attempts", "next_attempt_at", "deliver_at", "published_at"];
    keys.into_iter()
        .map(|key| (key.to_owned(), message[key].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Messages that were retried, delayed, deferred or held, before and after `crash`.
fn survives(gateway: &mut Gateway, crash: impl FnOnce(&mut Gateway)) {
    // Tried while the lane is open, and deferred when its next turn finds it shut.
    let tried = gateway.publish("again", &[], b"x");
    gateway.wait_for("it was tried", WITHIN, |gateway| {
        gateway.status()["totals"]["retried"].as_u64().filter(|count| *count >= 1)
    });
    let retried = gateway.publish("orders", &[], b"x");
    let shown = gateway.wait_until_message_is("scheduled", &retried, WITHIN);
    assert_eq!(shown["attempt_count"], 1, "{shown}");
    let delayed = gateway.publish("orders", &[("posthaste-delay", "1h")], b"x");
    let deferred = gateway.publish("mixed", &[], b"x");
    let shown = gateway.wait_until_message_is("scheduled", &deferred, WITHIN);
    // Put off again and again, so that it is some seconds away.
    let shown = gateway.wait_for("it is put off for long", WITHIN, |gateway| {
        (queue(&gateway.status(), "mixed")["deferred"].as_u64()? >= 1).then(|| shown.clone())
    });
    assert_eq!((&shown["attempt_count"], &shown["attempts"]), (&Value::from(0), &Value::Array(Vec::new())));
    let shown = gateway.wait_for("so is the one that was tried", WITHIN, |gateway| {
        let count = queue(&gateway.status(), "again")["deferred"].as_u64()?;
        (count >= 1).then(|| gateway.request("GET", &tried, &[], b"").json())
    });
    assert!(shown["attempt_count"].as_u64() >= Some(1), "{shown}");
    let paths = [&retried, &delayed, &deferred, &tried];
    let before = paths.map(|path| timing(gateway, path));
    let counters = |gateway: &Gateway| {
        let status = gateway.status();
        assert_laws(&status);
        ["retried", "deferred", "delivered"].map(|counter| status["totals"][counter].clone())
    };
    let counted = counters(gateway);
    crash(gateway);
    assert_eq!(paths.map(|path| timing(gateway, path)), before);
    assert_eq!(counters(gateway), counted);
}

#[test]
fn what_waits_keeps_its_time_and_its_attempts_across_a_kill() {
    let sink = busy();
    let mut gateway = Home::Sqlite.start(&paused_for_an_hour(&sink), &["--dev"]);
    survives(&mut gateway, |gateway| {
        gateway.kill();
        gateway.launch_until_ready();
    });
    gateway.stop();
}

#[test]
fn what_waits_in_redis_keeps_its_time_and_its_attempts_across_a_kill_of_the_gateway() {
    let (sink, redis) = (busy(), RedisServer::start_durable());
    let mut gateway = Gateway::prepare(&paused_for_an_hour(&sink), &["--dev"]).over(&redis);
    gateway.launch_until_ready();
    survives(&mut gateway, |gateway| {
        gateway.kill();
        gateway.launch_until_ready();
    });
    gateway.stop();
}

#[test]
fn what_waits_keeps_its_time_and_its_attempts_across_a_restart_of_redis_under_a_gateway_that_stays() {
    let (sink, mut redis) = (busy(), RedisServer::start_durable());
    let mut gateway = Gateway::prepare(&paused_for_an_hour(&sink), &["--dev"]).over(&redis);
    gateway.launch_until_ready();
    survives(&mut gateway, |gateway| {
        redis.kill();
        redis.launch();
        gateway.wait_until_ready(WITHIN);
    });
    gateway.stop();
}

#[test]
fn what_waits_keeps_its_time_and_its_attempts_across_a_kill_and_a_restart_of_redis() {
    let (sink, mut redis) = (busy(), RedisServer::start_durable());
    let mut gateway = Gateway::prepare(&paused_for_an_hour(&sink), &["--dev"]).over(&redis);
    gateway.launch_until_ready();
    survives(&mut gateway, |gateway| {
        gateway.kill();
        redis.kill();
        redis.launch();
        gateway.launch_until_ready();
    });
    gateway.stop();
}
