//! A gateway's beginning and end: signals, restarts, one process to a store.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::client::Connection;
use crate::support::command::posthaste;
use crate::support::gateway::{END_WITHIN, Gateway};
use crate::support::sink::{Answer, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);
const IDLE_ENDS_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn ctrl_c_ends_an_idle_gateway_within_two_seconds() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // What the gateway waits for it waits for each time; a disk that is busy with something else is not three times in a row.
        let is_soon = (0..3).any(|_| time_to_end(signal) <= IDLE_ENDS_WITHIN);
        assert!(is_soon, "{signal}: three times later than {IDLE_ENDS_WITHIN:?}");
    }
}

/// How long an idle gateway takes to end by a signal.
fn time_to_end(signal: Signal) -> Duration {
    let mut gateway = Gateway::start("", &[]);
    // A connection that is kept open does not hold it.
    let mut kept = Connection::open(&gateway.address()).expect("it listens");
    assert_eq!(kept.request("GET", "/health", &[], b"").expect("an answer").status, 200);
    let told = Instant::now();
    gateway.signal(signal);
    let status = gateway.wait_for_exit(END_WITHIN);
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{signal}: {status:?}");
    assert!(gateway.log().contains(signal.as_str()), "{}", gateway.log());
    took
}

#[test]
fn a_terminal_that_closes_lets_attempts_under_way_end() {
    let (release, gate) = std::sync::mpsc::sync_channel(1);
    let gate = std::sync::Mutex::new(gate);
    let sink = Sink::start(move |_| {
        gate.lock().expect("nobody panicked").recv_timeout(WITHIN).expect("released");
        Answer::status(200)
    });
    let settings = format!("[queues.orders]\nprocessor = 'http'\ndestination = '{}'\n", sink.url("/"));
    let mut gateway = Gateway::start(&settings, &["--dev"]);
    let path = gateway.publish("orders", &[], b"in flight");
    sink.wait_for(1, WITHIN);
    gateway.signal(Signal::SIGHUP);
    gateway.wait_for("it is draining", WITHIN, |gateway| {
        let answer = crate::support::client::request(&gateway.address(), "GET", "/ready", &[], b"");
        answer.map_or(true, |answer| answer.status == 503).then_some(())
    });
    release.send(()).expect("the receiver waits");
    assert_eq!(gateway.wait_for_exit(END_WITHIN).code(), Some(0));
    gateway.launch_until_ready();
    let message = gateway.wait_until_message_is("delivered", &path, WITHIN);
    assert_eq!((&message["attempt_count"], sink.count()), (&json!(1), 1), "{message}");
    gateway.stop();
}

#[test]
fn a_terminal_that_closes_does_not_end_what_was_told_to_outlive_it() {
    // As nohup does it.
    let wrapper = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let mut gateway = Gateway::prepare("", &[]).wrapped(wrapper, "sqlite:posthaste.db");
    gateway.launch_until_ready();
    gateway.signal(Signal::SIGHUP);
    gateway.publish("default", &[], b"still here");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_for_exit(END_WITHIN).code(), Some(0));
    assert!(gateway.log().contains("SIGTERM") && !gateway.log().contains("SIGHUP"), "{}", gateway.log());
}

#[test]
fn a_second_signal_ends_at_once_and_loses_nothing() {
    let is_up = Arc::<AtomicBool>::default();
    let up = is_up.clone();
    let sink =
        Sink::start(
            move |_| {
                if up.load(Ordering::SeqCst) { Answer::status(200) } else { Answer::HangBeforeHead }
            },
        );
    let settings = format!(
        "[server]\ngrace = '5m'\n[queues.orders]\nprocessor = 'http'\ndestination = '{}'\ntimeout = '10m'\n",
        sink.url("/")
    );
    let mut gateway = Gateway::start(&settings, &["--dev"]);
    let path = gateway.publish("orders", &[], b"in flight");
    sink.wait_for(1, WITHIN);
    gateway.signal(Signal::SIGINT);
    gateway.wait_for("it is draining", WITHIN, |gateway| {
        let answer = crate::support::client::request(&gateway.address(), "GET", "/ready", &[], b"");
        answer.map_or(true, |answer| answer.status == 503).then_some(())
    });
    gateway.signal(Signal::SIGINT);
    gateway.wait_for_exit(Duration::from_secs(2));
    is_up.store(true, Ordering::SeqCst);
    gateway.launch_until_ready();
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    gateway.stop();
}

/// A gateway that is started with these limits of open files.
fn limited(settings: &str, limits: &str) -> Gateway {
    let script = format!("{limits}; exec \"$@\"");
    let wrapper = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let mut gateway = Gateway::prepare(settings, &["--dev"]).wrapped(wrapper, "sqlite:posthaste.db");
    gateway.launch_until_ready();
    gateway
}

#[test]
fn the_gateway_opens_as_many_files_as_the_system_allows() {
    for (limits, fds_max, is_told) in
        [("ulimit -Sn 150; ulimit -Hn 900", 900, true), ("ulimit -n 12000", 12_000, false)]
    {
        let gateway = limited("", limits);
        assert_eq!(gateway.status()["process"]["fds_max"], fds_max);
        let told = gateway.log().matches("the limit of open files is too low").count();
        assert_eq!(told, usize::from(is_told), "{}", gateway.log());
    }
}

#[test]
fn idle_clients_leave_descriptors_for_deliveries() {
    let messages = 40;
    // None is answered before all have come, so that they have that many connections at once.
    let sink = Sink::start(|_| Answer::After(Duration::from_secs(1), Box::new(Answer::status(200))));
    let url = sink.url("/");
    let settings =
        format!("[queues.orders]\nprocessor = 'http'\ndestination = '{url}'\nretry.schedule = []\n");
    let mut gateway = limited(&settings, "ulimit -n 200");
    let mut publisher = Connection::open(&gateway.address()).expect("it listens");
    let mut ask = |method: &str, path: &str, body: &[u8]| {
        publisher.request(method, path, &[], body).expect("an answer on a connection that is kept")
    };
    let mut idle = Vec::new();
    for _ in 0..260 {
        // What the system itself no longer takes until others were accepted takes nothing of the gateway.
        let address = gateway.address().parse().expect("an address");
        let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { break };
        (&client).write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        idle.push(client);
        // Gives the gateway a chance to take all that it will.
        assert_eq!(ask("GET", "/health", b"").status, 200);
    }
    assert!(idle.len() > 100, "{} clients", idle.len());
    let open = ask("GET", "/status", b"").json()["process"]["fds_open"].as_u64().expect("a number");
    assert!((60..=200 - messages).contains(&open), "{open} descriptors are open");
    for number in 0..messages {
        let answer = ask("POST", "/v1/queues/orders/messages", &number.to_be_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let totals = wait_until("all are delivered", WITHIN, || {
        let totals = ask("GET", "/status", b"").json()["totals"].clone();
        let ended = ["delivered", "dead", "retried"].map(|key| totals[key].as_u64().expect("a number"));
        (ended.iter().sum::<u64>() >= messages).then_some(totals)
    });
    assert_eq!((&totals["delivered"], &totals["retried"]), (&json!(messages), &json!(0)), "{totals}");
    assert!(!gateway.log().contains("os error 24"), "{}", gateway.log());
    drop(idle);
    gateway.wait_until_ready(WITHIN);
    gateway.stop();
}

#[test]
fn what_strangers_send_does_not_fill_the_log() {
    for (filter, is_logged) in [("info", false), ("info,actix_http=error", true)] {
        let mut gateway = Gateway::start("", &["--log", filter]);
        let sent =
            [&b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n"[..], b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"];
        for bytes in sent.into_iter().cycle().take(20) {
            let mut stranger = TcpStream::connect(gateway.address()).expect("it listens");
            stranger.write_all(bytes).expect("sent");
            let mut answer = Vec::new();
            stranger.read_to_end(&mut answer).expect("it is answered and closed");
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
        }
        gateway.publish("default", &[], b"is still shown");
        let log = gateway.wait_for("it logs", WITHIN, |gateway| {
            Some(gateway.log()).filter(|log| log.contains("payload_bytes=14"))
        });
        assert_eq!(log.contains("actix_http"), is_logged, "{filter}: {log}");
        gateway.stop();
    }
}

#[test]
fn an_idempotency_key_is_remembered_across_a_restart() {
    let mut gateway = Gateway::start("", &[]);
    let path = "/v1/queues/default/messages";
    let key = [("Idempotency-Key", "order-17")];
    let first = gateway.request("POST", path, &key, b"once");
    assert_eq!(first.status, 202, "{}", first.text());
    for is_killed in [false, true] {
        if is_killed {
            gateway.kill();
            gateway.launch_until_ready();
        } else {
            gateway.restart();
        }
        let again = gateway.request("POST", path, &key, b"once");
        assert_eq!(again.status, 200, "{}", again.text());
        let expected = json!({"id": first.json()["id"], "queue": "default", "duplicate": true});
        assert_eq!(again.json(), expected);
        let other = gateway.request("POST", path, &key, b"twice");
        assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency_key_reused")));
        assert_eq!(other.header("posthaste-stored"), Some("no"));
    }
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(status["totals"]["accepted"], 1, "{status}");
    gateway.stop();
}

#[test]
fn a_queue_made_by_api_survives_a_restart_with_its_messages() {
    let mut gateway = Gateway::start("", &[]);
    let settings = br#"{"processor":"pull","lease":"45s","limits":{"length_max":7}}"#;
    let made = gateway.request("PUT", "/v1/queues/made", &[("Content-Type", "application/json")], settings);
    assert_eq!(made.status, 201, "{}", made.text());
    let path = gateway.publish("made", &[], b"waits");
    gateway.restart();
    let queue = gateway.request("GET", "/v1/queues/made", &[], b"");
    assert_eq!(queue.status, 200, "{}", queue.text());
    assert_eq!(queue.json(), made.json());
    assert_eq!([&queue.json()["source"], &queue.json()["lease"]], ["api", "45s"]);
    let message = gateway.request("GET", &format!("{path}?payload=true"), &[], b"").json();
    assert_eq!([&message["state"], &message["payload"]], ["pending", "waits"], "{message}");
    gateway.stop();
}

#[test]
fn a_second_process_on_the_same_store_is_refused_by_the_name_of_the_file() {
    let mut gateway = Gateway::start("", &[]);
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:posthaste.db"];
    let impatient = [&arguments[..], &["--set", "store.lock_wait=100ms"]].concat();
    let ended = posthaste(gateway.folder(), &impatient, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("posthaste.db"), "{ended:?}");
    // The first one is none the worse for it.
    gateway.publish("default", &[], b"still here");
    gateway.stop();
}

#[test]
fn a_second_process_waits_for_the_first_to_let_go_of_the_store() {
    let mut first = Gateway::start("", &[]);
    let path = first.publish("default", &[], b"mine");
    first.wait_until_message_is("delivered", &path, WITHIN);
    let file = first.folder().join("posthaste.db");
    let store = format!("sqlite:{}", file.to_str().expect("a path of text"));
    let mut second = Gateway::prepare("", &[]).wrapped(Vec::new(), &store);
    second.spawn();
    second.wait_for("it says that it waits", WITHIN, |second| {
        second.log().contains("posthaste.db").then_some(())
    });
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit(END_WITHIN).code(), Some(0));
    second.wait_until_listening();
    second.wait_until_ready(WITHIN);
    let message = second.request("GET", &path, &[], b"").json();
    assert_eq!(message["state"], "delivered", "{message}");
    second.stop();
}

#[test]
fn kills_while_starting_lose_nothing() {
    let sink = Sink::start(|_| Answer::status(200));
    let settings = format!("[queues.orders]\nprocessor = 'http'\ndestination = '{}'\n", sink.url("/"));
    let mut gateway = Gateway::start(&settings, &["--dev"]);
    let delayed = [("Posthaste-Delay", "2s")];
    let paths: Vec<String> = (0..20).map(|_| gateway.publish("orders", &delayed, b"x")).collect();
    gateway.kill();
    for pause_ms in [0, 5, 20, 50, 100] {
        gateway.spawn();
        std::thread::sleep(Duration::from_millis(pause_ms));
        gateway.kill();
    }
    gateway.launch_until_ready();
    for path in paths {
        gateway.wait_until_message_is("delivered", &path, WITHIN);
    }
    assert_eq!(sink.count(), 20);
    gateway.stop();
}

#[test]
fn settings_that_replace_others_in_the_store_are_warned_of_once_and_without_secrets() {
    let mut gateway = Gateway::start("[queues.orders]\nprocessor = 'pull'\n", &[]);
    let json = [("content-type", "application/json")];
    let made = gateway.request("PUT", "/v1/queues/mails", &json, br#"{"processor":"pull","ttl":"1h"}"#);
    assert_eq!(made.status, 201, "{}", made.text());
    gateway.restart();
    assert_eq!(gateway.status()["store"]["warnings"], json!([]), "the same file again changes nothing");

    let edited = "[queues.orders]\nprocessor = 'pull'\nlimits.length_max = 5\n\
                  delivery.headers = { X-Key = 'hunter2' }\n[queues.mails]\nprocessor = 'pull'\n";
    std::fs::write(gateway.folder().join("posthaste.toml"), edited).expect("the settings");
    gateway.restart();
    let words = "at the start of this gateway its declared settings replaced others that the store had";
    let changes = [
        "ttl: nothing, before \"1h\"",
        "delivery.headers.X-Key: ***, before nothing, limits.length_max: 5, before 1000000",
    ];
    let warning = |queue, changes| json!({"code": "queue_redeclared", "detail": format!("queues.{queue}: {words}: {changes}")});
    let expected = json!([warning("mails", changes[0]), warning("orders", changes[1])]);
    assert_eq!(gateway.status()["store"]["warnings"], expected);
    let log = gateway.log();
    assert!(log.contains("limits.length_max: 5, before 1000000"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    gateway.restart();
    assert_eq!(gateway.status()["store"]["warnings"], json!([]));
    gateway.stop();
}
