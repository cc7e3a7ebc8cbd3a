//! A gateway that runs out of descriptors: its own trouble costs no message an attempt.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::invariants::assert_laws;
use crate::support::sink::{Answer, Sink};
use crate::support::tls::{Authority, SecureSink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);
/// Descriptors that a starved gateway may have: some 40 are taken by its threads, listeners and store. As many strangers take the
/// rest, and those who find none left fit into the backlog.
const DESCRIPTORS_MAX: usize = 128;
/// What is said while it lasts.
const SHORT: &str = "the gateway is short of descriptors, memory, addresses or look-ups";

fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs").count()
}

/// Publishes on a connection that was made before: there may be no descriptor for another. Gives the message's path.
fn publish(connection: &mut Connection, queue: &str) -> String {
    let path = format!("/v1/queues/{queue}/messages");
    let answer = connection.request("POST", &path, &[], b"x").expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("location").expect("a Location").to_owned()
}

fn totals(connection: &mut Connection) -> Value {
    let status = connection.request("GET", "/status", &[], b"").expect("an answer").json();
    assert_laws(&status);
    status["totals"].clone()
}

fn assert_delivered_at_the_first_attempt(gateway: &mut Gateway, path: &str) {
    let message = gateway.wait_until_message_is("delivered", path, WITHIN);
    let attempts = message["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 1, "{path}: {message}");
    assert_eq!((&attempts[0]["number"], &attempts[0]["status"]), (&1.into(), &200.into()), "{message}");
}

#[test]
fn idle_strangers_that_take_every_descriptor_cost_no_message_an_attempt() {
    let slow = Answer::After(Duration::from_millis(300), Box::new(Answer::status(200)));
    let sink = Sink::start(move |_| slow.clone());
    let destination = format!("destination = \"{}\"", sink.url("/"));
    let settings =
        format!("[queues.a]\nprocessor = \"http\"\n{destination}\nretry.schedule = [\"100ms\", \"100ms\"]\n");
    let limit = format!("--nofile={DESCRIPTORS_MAX}:{DESCRIPTORS_MAX}");
    let wrapper = vec!["prlimit".to_owned(), limit];
    let mut gateway = Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper, "sqlite:posthaste.db");
    gateway.launch_until_ready();
    let mut kept = Connection::open(&gateway.address()).expect("a connection");
    totals(&mut kept);
    let strangers: Vec<TcpStream> = (0..DESCRIPTORS_MAX)
        .map(|_| {
            let mut stranger = TcpStream::connect(gateway.address()).expect("the system accepts it");
            stranger.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            stranger
        })
        .collect();
    wait_until("most descriptors are taken", WITHIN, || {
        (descriptors(&gateway) >= DESCRIPTORS_MAX / 2).then_some(())
    });
    let paths: Vec<String> = (0..40).map(|_| publish(&mut kept, "a")).collect();
    wait_until("some were put back, or all had room", WITHIN, || {
        let totals = totals(&mut kept);
        (totals["deferred"].as_u64() > Some(0) || totals["delivered"] == 40).then_some(())
    });
    drop(strangers);
    for path in paths {
        assert_delivered_at_the_first_attempt(&mut gateway, &path);
    }
    let totals = totals(&mut kept);
    assert_eq!((&totals["retried"], &totals["dead_lettered"]), (&0.into(), &0.into()), "{totals}");
}

/// Sets how many descriptors a running gateway may have; what it has it keeps.
fn limit(gateway: &Gateway, soft: &str) {
    let (pid, limit) = (gateway.pid().to_string(), format!("--nofile={soft}"));
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("it runs");
    assert!(status.success(), "prlimit {limit}: {status}");
}

#[test]
fn without_a_descriptor_nothing_is_connected_resolved_or_read_and_nothing_is_counted() {
    let authority = Authority::new();
    let (secure, plain) = (SecureSink::start(&authority), Sink::start(|_| Answer::status(200)));
    let queue = |name: &str, url: &str| {
        format!(
            "[queues.{name}]\nprocessor = \"http\"\ndestination = \"{url}\"\nretry.schedule = [\"100ms\"]\n"
        )
    };
    let port = plain.address().port();
    let settings = queue("plain", &plain.url("/"))
        + &queue("named", &format!("http://localhost:{port}/"))
        + &queue("secure", &secure.url());
    let wrapper = ["env", "-u", "SSL_CERT_DIR", "SSL_CERT_FILE=authority.pem"].map(str::to_owned);
    let mut gateway = Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper.into(), "sqlite:posthaste.db");
    authority.publish(&gateway.folder().join("authority.pem"));
    gateway.launch_until_ready();
    let mut kept = Connection::open(&gateway.address()).expect("a connection");
    totals(&mut kept);
    // Below what is open: every new descriptor is one too many.
    limit(&gateway, "3:");
    let paths = ["plain", "named", "secure"].map(|queue| publish(&mut kept, queue));
    for _ in 0..2 {
        let before = totals(&mut kept)["deferred"].as_u64().expect("a count");
        wait_until("each was put back twice", WITHIN, || {
            (totals(&mut kept)["deferred"].as_u64() >= Some(before + 3)).then_some(())
        });
    }
    let so_far = totals(&mut kept);
    assert_eq!((&so_far["retried"], &so_far["dead"]), (&0.into(), &0.into()), "{so_far}");
    assert_eq!((plain.count(), secure.count()), (0, 0));
    limit(&gateway, "1024:");
    for path in &paths {
        assert_delivered_at_the_first_attempt(&mut gateway, path);
    }
    let log = gateway.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(SHORT)).collect();
    assert_eq!(said.len(), 1, "it is said once: {log}");
    assert!(said[0].contains("WARN") && said[0].contains("oo many open files"), "{said:?}");
}
