//! Pushing over HTTP to receivers that are slow, broken or hostile, and to those that must not be reached.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::domain::message::Headers;
use posthaste::domain::outcome::Outcome;
use posthaste::domain::queue::QueueSettings;
use posthaste::processor::settings::EgressSettings;
use posthaste::processor::{Guard, Report, Signal};
use tokio::time::timeout;

use crate::support::delivery::{delivery, http, http_with, process, push, settings};
use crate::support::sink::{Answer, Sink};

const TIMEOUT: Duration = Duration::from_millis(400);
const DEADLINE: Duration = Duration::from_secs(10);

/// Pushes to a sink that answers thus, with a short time-out; the attempt must end.
async fn push_to(answer: Answer) -> (Report, Sink) {
    let sink = Sink::start(move |_| answer.clone());
    let settings = QueueSettings { timeout: TIMEOUT, ..settings(&sink.url("/")) };
    let report = timeout(DEADLINE, push(settings, b"payload")).await.expect("the attempt ends by itself");
    assert_eq!(sink.count(), 1, "nothing is sent twice");
    sink.until("the connection is let go of", DEADLINE, |sink| sink.answers_ended() == 1).await;
    (report, sink)
}

fn word(report: &Report) -> &str {
    report.error.as_deref().and_then(|error| error.split(':').next()).unwrap_or_default()
}

#[tokio::test]
async fn what_a_slow_answer_did_bring_is_kept() {
    let (report, _) = push_to(Answer::WrongLength { status: 500, claimed: 100, sent: 3 }).await;
    assert_eq!(report.excerpt.as_deref(), Some("..."));
    let slow = Answer::Trickle { status: 200, bytes: 5, every: Duration::from_millis(5) };
    let (report, _) = push_to(slow).await;
    assert_eq!((report.excerpt.as_deref(), report.error), (Some("....."), None));
}

/// What left the sink bounds what the gateway can have taken in: sockets hold a few MiB at most.
#[tokio::test]
async fn an_answer_without_end_is_cut_and_its_connection_dropped() {
    let bomb: Bytes = vec![b'.'; 64 << 20].into();
    for answer in [Answer::Endless(200), Answer::body(200, bomb.clone())] {
        let sink = Sink::start(move |_| answer.clone());
        let mut settings = QueueSettings { timeout: Duration::from_secs(30), ..settings(&sink.url("/")) };
        settings.answer.bytes_max = 64 << 10;
        let report = push(settings, b"x").await;
        assert_eq!((report.outcome, report.status, report.error), (Outcome::Done, Some(200), None));
        assert_eq!(report.excerpt.map(|excerpt| excerpt.len()), Some(4 << 10));
        sink.until("the connection is dropped", DEADLINE, |sink| sink.answers_ended() == 1).await;
        assert!(sink.sent_bytes() < 32 << 20, "{} bytes left the sink", sink.sent_bytes());
    }
}

#[tokio::test]
async fn an_answer_of_exactly_the_allowed_length_is_whole() {
    let sink = Sink::start(|_| Answer::body(200, vec![b'.'; 1_000]));
    for (bytes_max, excerpt_bytes) in
        [(0, None), (1, Some(1)), (999, Some(999)), (1_000, Some(1_000)), (1_001, Some(1_000))]
    {
        let mut settings = settings(&sink.url("/"));
        settings.answer.bytes_max = bytes_max;
        let report = push(settings, b"x").await;
        assert_eq!((report.outcome, report.error), (Outcome::Done, None), "{bytes_max}");
        assert_eq!(report.excerpt.map(|excerpt| excerpt.len()), excerpt_bytes, "{bytes_max}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_expanded() {
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x04\x00\x43\xbe\xb7\xe8\x01\x00\x00\x00";
    let answer = Answer::Whole {
        status: 200,
        headers: vec![("content-encoding", "gzip".to_owned())],
        body: Bytes::from_static(gzip),
    };
    let (report, sink) = push_to(answer).await;
    assert_eq!(sink.only().header("accept-encoding"), Some("identity"));
    assert!(report.excerpt.is_some_and(|excerpt| excerpt.starts_with('\u{fffd}')), "the bytes as they came");
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let canary = Sink::start(|_| Answer::status(200));
    for status in [301, 302, 303, 307, 308] {
        for location in
            [canary.url("/"), "/again".to_owned(), "http://169.254.169.254/latest/meta-data/".to_owned()]
        {
            let (report, _) = push_to(Answer::header(status, "location", location)).await;
            assert_eq!((report.outcome, report.status), (Outcome::retry(), Some(status)));
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn nobody_there_is_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    drop(listener);
    let report = push(settings(&url), b"x").await;
    assert_eq!((report.outcome.clone(), report.status), (Outcome::retry(), None));
    assert_eq!(report.error.as_deref(), Some("connect: Connection refused (os error 111)"));
}

#[tokio::test]
async fn a_receiver_without_tls_is_never_sent_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}/", listener.local_addr().expect("bound"));
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut first = [0; 5];
        io::Read::read_exact(&mut stream, &mut first).expect("a few bytes");
        io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("sent");
        first
    });
    let report = push(settings(&url), b"x").await;
    assert_eq!((report.outcome.clone(), word(&report)), (Outcome::retry(), "tls"), "{report:?}");
    let first = receiver.join().expect("no panic");
    assert_eq!(first[..2], [0x16, 3], "the first record is a TLS handshake");
}

#[tokio::test]
async fn a_refused_destination_is_undeliverable_and_never_connected_to() {
    let canary = Sink::start(|_| Answer::status(200));
    let port = canary.address().port();
    let private = |name: &str| match name {
        "mixed.example" => Ok(vec![IpAddr::from([93, 184, 216, 34]), IpAddr::from([127, 0, 0, 1])]),
        "inner.example" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Err(io::Error::other("no such name")),
    };
    let guard = Guard::with_lookup(&EgressSettings::default(), false, Arc::new(private));
    let http = http_with(guard);
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "inner.example",
        "mixed.example",
    ] {
        let settings = Arc::new(settings(&format!("http://{host}:{port}/")));
        let report = process(&http, delivery(&settings, Headers::default(), b"x")).await;
        let Outcome::Undeliverable { reason } = &report.outcome else { panic!("{host}: {report:?}") };
        assert!(reason.contains("egress.allow = [\"http://"), "{host}: {reason}");
        assert_eq!((report.status, report.error), (None, None));
    }
    assert_eq!(canary.connections(), 0, "no packet left");
}

#[tokio::test]
async fn a_name_that_passes_leads_to_the_address_that_passed() {
    let sink = Sink::start(|_| Answer::status(200));
    let lookup = |name: &str| match name {
        "receiver.example" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        _ => Err(io::Error::other("no such name")),
    };
    let origin = format!("http://receiver.example:{}", sink.address().port());
    let allow = vec![origin.parse().expect("an origin")];
    let http = http_with(Guard::with_lookup(&EgressSettings { allow }, false, Arc::new(lookup)));
    let settings = Arc::new(settings(&format!("{origin}/hook")));
    let report = process(&http, delivery(&settings, Headers::default(), b"x")).await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(sink.only().header("host"), origin.strip_prefix("http://"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_retry() {
    let lookup = |name: &str| match name {
        "slow.example" => {
            std::thread::sleep(Duration::from_secs(1));
            Ok(vec![IpAddr::from([93, 184, 216, 34])])
        }
        "empty.example" => Ok(Vec::new()),
        _ => Err(io::Error::other("no such name")),
    };
    let http = http_with(Guard::with_lookup(&EgressSettings::default(), false, Arc::new(lookup)));
    for (name, error) in [
        ("gone.example", "dns: the name \"gone.example\" does not resolve: no such name"),
        ("empty.example", "dns: the name \"empty.example\" has no address"),
        ("slow.example", "timeout: no connection within 200ms"),
    ] {
        let settings = settings(&format!("http://{name}/"));
        let settings = Arc::new(QueueSettings { connect_timeout: Duration::from_millis(200), ..settings });
        let report = process(&http, delivery(&settings, Headers::default(), b"x")).await;
        let (error, signal) = (Some(error.to_owned()), Signal::NoAnswer);
        assert_eq!(report, Report { error, signal, ..Report::from(Outcome::retry()) });
    }
}

#[tokio::test]
async fn after_any_of_this_the_next_message_is_delivered() {
    let sink = Sink::start(|received| match received.order {
        0 => Answer::Reset,
        1 => Answer::HangAfterHead(500),
        2 => Answer::WrongLength { status: 200, claimed: 5, sent: 2 },
        3 => Answer::Flood(b"HTTP/1.1 200 OK\r\n", b"x-flood: ................\r\n"),
        4 => Answer::Endless(200),
        _ => Answer::status(200),
    });
    let (http, settings) = (http(), Arc::new(QueueSettings { timeout: TIMEOUT, ..settings(&sink.url("/")) }));
    for _ in 0..5 {
        process(&http, delivery(&settings, Headers::default(), b"x")).await;
    }
    let report = process(&http, delivery(&settings, Headers::default(), b"last")).await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(sink.received().last().and_then(|last| last.body.clone()).as_deref(), Some(&b"last"[..]));
}
