//! `posthaste bench`: every scenario against a real gateway, and the proof that what it prints is true.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::publish::pass_on;
use super::{ask_at, command, json};
use crate::support::client;
use crate::support::command::Ended;
use crate::support::gateway::{Gateway, Home};
use crate::support::redis::RedisServer;
use crate::support::sink::{Answer, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);
const BRIEFLY: [&str; 6] = ["--seconds", "0.3", "--warmup", "0.1", "--connections", "4"];
/// What lets a gateway push to this machine.
const LOOPBACK: &str = "[egress]\nallow = ['127.0.0.0/8']\n";

/// Runs a bench on a gateway of its own; it gives one JSON document.
fn bench(arguments: &[&str]) -> Value {
    found(&ask_at("", &[&["bench", "--json"], arguments].concat(), b""), arguments)
}

/// The same on a gateway that runs.
fn bench_at(gateway: &Gateway, arguments: &[&str]) -> Value {
    found(&super::ask(gateway, &[&["bench", "--json"], arguments].concat()), arguments)
}

fn found(ended: &Ended, arguments: &[&str]) -> Value {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
    let report = json(&ended.stdout);
    assert!(report["rate_per_s"].as_f64() > Some(0.0) && report["seconds"].as_f64() > Some(0.0), "{report}");
    assert!(report["cpu_us_per_message"]["gateway"].as_f64() > Some(0.0), "{report}");
    assert!(report["memory_bytes"]["gateway_after"].as_u64() > Some(1 << 20), "{report}");
    report
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer}: {report}"))
}

fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}: {report}"))
}

fn assert_sane(report: &Value, pointer: &str, expected: u64) {
    let of = |name: &str| number(report, &format!("{pointer}/{name}"));
    assert_eq!(count(report, &format!("{pointer}/count")), expected, "{pointer}: {report}");
    let all = ["p50", "p90", "p99", "p99_9", "max"].map(of);
    assert!(all[0] > 0.0 && all.is_sorted(), "{report}");
}

#[test]
fn publishing_is_measured_in_both_loops_and_in_batches() {
    let closed = bench(&[&["accept"], &BRIEFLY[..]].concat());
    assert_eq!((&closed["asked"]["loop"], &closed["gateway"]["store"]), (&"closed".into(), &"sqlite".into()));
    assert_eq!(
        (&closed["gateway"]["durability"], &closed["gateway"]["is_own"]),
        (&"strict".into(), &true.into())
    );
    let accepted = count(&closed, "/messages");
    assert_eq!(count(&closed, "/requests/answers/202"), accepted);
    assert_sane(&closed, "/latency_ms", accepted);
    assert!(number(&closed, "/memory_bytes/disk_after") > 0.0, "{closed}");
    let open = bench(&[&["accept", "--rate", "200", "--even"], &BRIEFLY[..]].concat());
    assert_eq!((&open["asked"]["loop"], &open["asked"]["arrivals"]), (&"open".into(), &"even".into()));
    assert_eq!(count(&open, "/messages"), 60, "as many as were due");
    let batch = bench(&[&["batch", "--batch-size", "10", "--store", "memory"], &BRIEFLY[..]].concat());
    assert_eq!(
        (&batch["gateway"]["store"], &batch["gateway"]["durability"]),
        (&"memory".into(), &"none".into())
    );
    let batches = count(&batch, "/requests/answers/202");
    assert_eq!(count(&batch, "/messages"), batches * 10);
    assert_sane(&batch, "/latency_ms", batches);
}

#[test]
fn taking_a_backlog_is_measured() {
    let drain = bench(&["drain", "--messages", "1500"]);
    assert_eq!((count(&drain, "/messages"), &drain["latency_ms"]), (1_500, &Value::Null));
    let deliver = bench(&["deliver", "--messages", "1001"]);
    assert_eq!(count(&deliver, "/messages"), 1_001);
    assert!(number(&deliver, "/receivers/cpu_percent") > 0.0, "{deliver}");
    let backlog = bench(&["backlog", "--messages", "2100", "--seconds", "0.2", "--connections", "2"]);
    for name in ["publish_batches_messages_per_s", "lease_and_settle_messages_per_s"] {
        assert!(number(&backlog, &format!("/figures/{name}")) > 0.0, "{backlog}");
    }
}

#[test]
fn the_way_to_a_receiver_is_measured_from_when_messages_were_due() {
    let latency = bench(&[&["latency", "--rate", "100"], &BRIEFLY[..]].concat());
    assert_eq!(latency["latency_of"], "from due until received");
    assert_sane(&latency, "/latency_ms", count(&latency, "/messages"));
    let slow = ["slow", "--rate", "100", "--even", "--destinations", "3", "--delay", "400ms"];
    let slow = bench(&[&slow, &BRIEFLY[..]].concat());
    assert_sane(&slow, "/latency_ms", 20);
    assert!(number(&slow, "/latency_ms/p50") < 400.0, "the slow one is not among them: {slow}");
}

#[test]
fn a_retry_storm_is_measured_until_everything_is_delivered() {
    let storm = bench(&["retry-storm", "--messages", "50", "--fail-seconds", "0.3"]);
    assert_eq!(count(&storm, "/messages"), 50);
    assert!(number(&storm, "/figures/attempts") > 50.0, "some were refused first: {storm}");
    assert!(number(&storm, "/seconds") >= 0.3, "{storm}");
}

#[test]
fn a_redis_is_measured_too_and_nothing_is_left_in_it() {
    let redis = RedisServer::start_durable();
    let url = redis.url();
    for scenario in [&["accept"][..], &["latency", "--rate", "50"], &["soak", "--rate", "50"]] {
        let report = bench(&[scenario, &BRIEFLY, &["--store", &url]].concat());
        assert!(number(&report, "/cpu_us_per_message/store") > 0.0, "{report}");
        assert!(number(&report, "/memory_bytes/store_after") > 0.0, "{report}");
        let means = report["gateway"]["durability_means"].as_str();
        assert!(means.is_some_and(|means| means.contains("appendfsync always")), "{report}");
    }
    assert_eq!(redis.ask(&["DBSIZE"]), ":0\r\n");
}

#[test]
fn a_gateway_that_runs_is_as_it_was_afterwards() {
    for home in [Home::Sqlite, Home::redis()] {
        let gateway = home.start(LOOPBACK, &[]);
        for scenario in ["accept", "latency"] {
            let report = bench_at(&gateway, &[&[scenario, "--rate", "60"], &BRIEFLY[..]].concat());
            assert_eq!(report["gateway"]["is_own"], false);
        }
        assert_eq!(gateway.status()["queues"].as_array().expect("queues").len(), 1, "that of before");
    }
}

#[test]
fn a_soak_is_at_half_the_knee_and_tells_what_the_gateway_was_at_both_ends() {
    let report = bench(&["soak", "--seconds", "1.5", "--connections", "4"]);
    let soak = &report["soak"];
    assert!(
        (number(soak, "/knee_per_s") / 2.0 - number(&report, "/asked/rate_per_s")).abs() < 0.01,
        "{report}"
    );
    assert_eq!((&report["asked"]["loop"], number(soak, "/window_s")), (&"open".into(), 0.25));
    for name in ["gateway_rss_bytes", "disk_bytes", "fds", "fds_other", "threads", "actors"] {
        for part in ["first", "last", "most"] {
            assert!(number(soak, &format!("/watched/{name}/{part}")) > 0.0, "{name}: {report}");
        }
    }
    assert_eq!(soak["watched"]["store_bytes"], Value::Null, "SQLite has no memory of its own");
    for name in ["until_202_p99_9_ms", "until_received_p99_9_ms"] {
        assert!(number(soak, &format!("/{name}/ratio")) > 0.0, "{report}");
    }
    assert_eq!(count(soak, "/accepted"), count(&report, "/messages"));
    assert_eq!((count(soak, "/received"), count(soak, "/lost")), (count(soak, "/accepted"), 0));
    assert_eq!(soak["fds_at_rest"]["after"], Value::Null, "it is too short to wait for rest");
}

#[test]
fn a_soak_that_is_judged_fails_when_a_message_is_lost_and_tells_all_the_same() {
    let gateway = Gateway::start(LOOPBACK, &[]);
    let address = gateway.address();
    let posts = AtomicU64::new(0);
    let losing = Sink::start(move |received| {
        let is_publish = received.target.ends_with("/messages");
        let is_lost = is_publish && posts.fetch_add(1, Ordering::SeqCst) % 10 == 9;
        if is_lost { Answer::status(202) } else { pass_on(&address, received) }
    });
    let soak =
        ["bench", "soak", "--json", "--rate", "100", "--even", "--seconds", "0.5", "--connections", "4"];
    let judged = ["--warmup", "0", "--max-rss-growth", "1000"];
    for (arguments, code) in [([&soak[..], &judged].concat(), 1), ([&soak[..], &judged[..2]].concat(), 0)] {
        let ended = ask_at(&losing.url(""), &arguments, b"");
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let report = json(&ended.stdout);
        assert_eq!((count(&report, "/soak/lost"), count(&report, "/soak/accepted")), (5, 50), "{report}");
        let words = "5 of 50 messages were accepted and never received";
        assert!(report["soak"]["faults"].to_string().contains(words), "{report}");
        assert_eq!(ended.stderr.contains(words), code == 1, "{ended:?}");
    }
}

/// A bench that runs in a folder.
struct Running {
    folder: tempfile::TempDir,
    process: Child,
}

impl Running {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name| File::create(folder.path().join(name)).expect("a file");
        let process = command(&[&["bench", "--json"], arguments].concat())
            .env("POSTHASTE_URL", url)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("it starts");
        Self { folder, process }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("a text")
    }

    fn wait(&mut self) -> Option<i32> {
        wait_until("it ends", WITHIN, || self.process.try_wait().expect("its state")).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// Runs a bench of three seconds against a gateway that stands still for one of them.
fn with_a_stall(arguments: &[&str]) -> Value {
    let gateway = Gateway::start("", &[]);
    let all = [arguments, &["--seconds", "3", "--warmup", "0", "--connections", "4"]].concat();
    let mut running = Running::start(&format!("http://{}", gateway.address()), &all);
    wait_until("it is under way", WITHIN, || {
        (gateway.status()["totals"]["accepted"].as_u64() > Some(20)).then_some(())
    });
    gateway.freeze();
    // What is shown is that this second is seen: it is the stimulus, and nothing is waited for.
    thread::sleep(Duration::from_secs(1));
    gateway.signal(Signal::SIGCONT);
    assert_eq!(running.wait(), Some(0), "{}", running.text("stderr"));
    json(&running.text("stdout"))
}

#[test]
fn a_gateway_that_stands_still_for_a_second_moves_the_p99_of_what_was_due() {
    let (open, closed) = thread::scope(|scope| {
        let open = scope.spawn(|| with_a_stall(&["accept", "--rate", "200"]));
        let closed = with_a_stall(&["accept"]);
        (open.join().expect("no panic"), closed)
    });
    for name in ["p99", "max"] {
        assert!(number(&open, &format!("/latency_ms/{name}")) >= 500.0, "{name}: {open}");
    }
    // Of six hundred about two hundred were due meanwhile, of which four were under way and the others waited to be sent.
    assert!(number(&open, "/requests/late") >= 100.0, "{open}");
    // Who counts from when they were sent sees those four, and calls the stall one of the last percent.
    assert!(number(&open, "/requests/service_ms/p50") < 500.0, "{open}");
    assert!(number(&open, "/requests/service_ms/p99") < number(&open, "/latency_ms/p99"), "{open}");
    // So does who waits for an answer before the next request.
    assert!(number(&closed, "/latency_ms/max") >= 500.0, "{closed}");
    assert!(number(&closed, "/latency_ms/p50") < 500.0, "{closed}");
}

#[test]
fn what_is_refused_is_counted_by_its_status_and_is_in_no_latency() {
    let gateway = Gateway::start("", &[]);
    let address = gateway.address();
    let posts = AtomicU64::new(0);
    let between = Sink::start(move |received| {
        if !received.target.ends_with("/messages") {
            return pass_on(&address, received);
        }
        match posts.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Answer::status(429),
            1 => Answer::status(503),
            _ => pass_on(&address, received),
        }
    });
    let arguments = ["bench", "--json", "--seconds", "0.3", "--warmup", "0", "--connections", "2"];
    let ended = ask_at(&between.url(""), &arguments, b"");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = json(&ended.stdout);
    let answers = |status: &str| count(&report, &format!("/requests/answers/{status}"));
    assert!(answers("429") > 0 && answers("503") > 0, "{report}");
    assert_eq!(count(&report, "/messages"), answers("202"));
    assert_sane(&report, "/latency_ms", answers("202"));
    let refusing = Sink::start({
        let address = gateway.address();
        move |received| {
            let is_publish = received.target.ends_with("/messages");
            if is_publish { Answer::status(503) } else { pass_on(&address, received) }
        }
    });
    let ended = ask_at(&refusing.url(""), &arguments, b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(
        ended.stderr.contains("nothing was accepted: ") && ended.stderr.contains("answered 503"),
        "{ended:?}"
    );
    assert_eq!(gateway.status()["queues"].as_array().expect("queues").len(), 1, "its queue is gone as well");
}

/// Where the gateway listens whose folder is in this one.
fn listening_below(folder: &Path) -> Option<String> {
    let own = fs::read_dir(folder).ok()?.next()?.ok()?;
    let log = fs::read_to_string(own.path().join("log")).ok()?;
    let line = log.split_once("address=")?.1.split_once('\n')?.0;
    line.split_whitespace().next().map(str::to_owned)
}

#[test]
fn a_ctrl_c_ends_its_gateway_and_removes_what_it_made() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().to_str().expect("a path");
    let mut running = Running::start("", &["accept", "--seconds", "60", "--folder", folder]);
    let address = wait_until("its gateway accepts", WITHIN, || {
        let address = listening_below(home.path())?;
        let status = client::request(&address, "GET", "/status", &[], b"").ok()?.json();
        (status["totals"]["accepted"].as_u64() > Some(0)).then_some(address)
    });
    let pid = Pid::from_raw(i32::try_from(running.process.id()).expect("an id"));
    kill(pid, Signal::SIGINT).expect("a signal");
    assert_eq!(running.wait(), Some(1));
    assert!(running.text("stderr").contains("ended by SIGINT"), "{}", running.text("stderr"));
    assert_eq!(running.text("stdout"), "");
    assert_eq!(fs::read_dir(home.path()).expect("a folder").count(), 0, "its folder is gone");
    assert!(client::request(&address, "GET", "/status", &[], b"").is_err(), "its gateway is gone");
}

#[test]
fn a_bench_that_is_killed_takes_its_gateway_with_it() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().to_str().expect("a path");
    let running = Running::start("", &["accept", "--seconds", "60", "--folder", folder]);
    let address = wait_until("its gateway listens", WITHIN, || listening_below(home.path()));
    drop(running);
    wait_until("its gateway is gone", WITHIN, || {
        client::request(&address, "GET", "/status", &[], b"").is_err().then_some(())
    });
}

#[test]
fn a_bench_of_a_running_gateway_that_is_interrupted_leaves_no_queue() {
    let gateway = Gateway::start("", &[]);
    let mut running =
        Running::start(&format!("http://{}", gateway.address()), &["accept", "--seconds", "60"]);
    wait_until("it is under way", WITHIN, || {
        (gateway.status()["totals"]["accepted"].as_u64() > Some(0)).then_some(())
    });
    kill(Pid::from_raw(i32::try_from(running.process.id()).expect("an id")), Signal::SIGTERM)
        .expect("a signal");
    assert_eq!(running.wait(), Some(1));
    assert_eq!(gateway.status()["queues"].as_array().expect("queues").len(), 1);
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is_made() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = format!("http://{}", nobody.expect("an address"));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["bench", "fly"], 2, "retry-storm"),
        (&["bench", "drain", "--rate", "5"], 2, "--rate means nothing to drain: it is for accept"),
        (&["bench", "--store", "papyrus"], 2, "it is sqlite, memory, or an URL"),
        (&["bench", "--set", "workers.threads=x"], 78, "workers.threads"),
        (&["bench", "--url", &nobody], 4, "no gateway answers"),
        (&["bench", "--folder", "no-such-folder"], 1, "no-such-folder"),
    ];
    for (arguments, code, words) in cases {
        let ended = ask_at("", arguments, b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_person_is_told_the_same() {
    let ended = ask_at("", &[&["bench", "accept", "--rate", "100"], &BRIEFLY[..]].concat(), b"");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in [
        "open loop: 100 requests/s due (Poisson)",
        "messages/s",
        "from due until 202: p50",
        "202 × ",
        "durability",
        "synchronous=FULL",
        "CPU a message",
        "MiB",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
}
