//! Pushing over HTTP to receivers that behave: what is sent, what an answer means.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use posthaste::domain::message::Headers;
use posthaste::domain::outcome::{Outcome, RetryHint};
use posthaste::domain::queue::QueueSettings;
use posthaste::processor::{Delivery, Processor as _, Report, Signal};
use sha2::{Digest, Sha256};

use crate::support::delivery::{AT, delivery, http, process, push, settings};
use crate::support::sink::{Answer, Keep, Sink};

const DEADLINE: Duration = Duration::from_secs(10);

fn delivered() -> Report {
    Report { status: Some(200), signal: answered(200), ..Report::from(Outcome::Done) }
}

fn retried(status: u16) -> Report {
    Report { status: Some(status), signal: answered(status), ..Report::from(Outcome::retry()) }
}

fn answered(status: u16) -> Signal {
    Signal::Answered { status, hold: None }
}

#[tokio::test]
async fn an_attempt_says_where_its_time_went() {
    const HEAD: Duration = Duration::from_millis(60);
    const PIECE: Duration = Duration::from_millis(20);
    const PIECES: u32 = 4;
    let slow = Answer::Trickle { status: 200, bytes: PIECES as usize, every: PIECE };
    let sink = Sink::start(move |received| match received.header("posthaste-attempt") {
        Some("1") => Answer::After(HEAD, Box::new(slow.clone())),
        _ => Answer::status(200),
    });
    let port = sink.address().port();
    let http = http();
    let settings = Arc::new(settings(&format!("http://localhost:{port}/")));
    let begun = std::time::Instant::now();
    let first = http.process(delivery(&settings, Headers::default(), b"x")).await;
    let took = begun.elapsed();
    let phases = [first.phases.dns, first.phases.connect, first.phases.wait, first.phases.body];
    let [Some(dns), Some(connect), Some(wait), Some(body)] = phases else { panic!("{first:?}") };
    assert!(wait >= HEAD && body >= PIECE * (PIECES - 1), "{first:?}");
    assert!(dns + connect + wait + body <= took, "{first:?} in {took:?}");
    // The next one goes over the connection that is there.
    let second = Delivery { attempt: 2, ..delivery(&settings, Headers::default(), b"x") };
    let second = http.process(second).await;
    assert_eq!((second.phases.dns, second.phases.connect), (None, None), "{second:?}");
    assert!(second.phases.wait.is_some(), "{second:?}");
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn a_payload_arrives_byte_for_byte() {
    let sink = Sink::start(|_| Answer::status(200));
    let (http, settings) = (http(), Arc::new(settings(&sink.url("/hook?a=1&b=%20"))));
    let mut payloads: Vec<Vec<u8>> =
        vec![Vec::new(), vec![0], b"{\"a\": 1}\r\n".to_vec(), (0..=255).collect()];
    payloads.extend([1_000, 65_536, 1 << 20].map(|length| (0..length).map(|_| fastrand::u8(..)).collect()));
    for payload in &payloads {
        assert_eq!(process(&http, delivery(&settings, Headers::default(), payload)).await, delivered());
    }
    let received = sink.received();
    assert_eq!(received.len(), payloads.len());
    for (received, payload) in received.iter().zip(&payloads) {
        assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/hook?a=1&b=%20"));
        assert_eq!(received.header("content-length"), Some(payload.len().to_string().as_str()));
        assert!(received.body.as_ref().is_some_and(|body| *body == payload), "{} bytes", payload.len());
    }
    assert!(received.iter().all(|received| received.connection == 0), "the connection is kept");
}

#[tokio::test]
async fn a_plain_message_carries_these_headers_and_no_others() {
    let sink = Sink::start(|_| Answer::status(204));
    let delivery = delivery(&Arc::new(settings(&sink.url("/"))), Headers::default(), b"x");
    let id = delivery.record.id().to_string();
    process(&http(), delivery).await;
    let received = sink.only();
    let expected = [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("content-length", "1"),
        ("host", &sink.address().to_string()),
        ("posthaste-attempt", "1"),
        ("posthaste-queue", "orders"),
        ("posthaste-via", "store-1"),
        ("user-agent", concat!("Posthaste/", env!("CARGO_PKG_VERSION"))),
        ("webhook-id", &id),
        ("webhook-timestamp", "1795353900"),
    ];
    assert_eq!(received.header_names(), expected.map(|(name, _)| name));
    for (name, value) in expected {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn what_was_published_with_a_message_is_passed_on() {
    let sink = Sink::start(|_| Answer::status(200));
    let mut settings = settings(&sink.url("/"));
    settings.delivery.method = "PUT".to_owned();
    settings.delivery.headers = [("X-Tenant", "seven"), ("authorization", "Bearer ours")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let forward = [
        ("x-order", "a"),
        ("x-order", "b"),
        ("x-text", "grün"),
        ("cookie", "c=1"),
        ("authorization", "Bearer theirs"),
        ("x-tenant", "eight"),
        ("host", "elsewhere.example"),
        ("content-length", "7"),
        ("posthaste-attempt", "9"),
        ("webhook-id", "forged"),
    ];
    let headers = Headers {
        content_type: "application/json; charset=utf-8".to_owned(),
        forward: forward.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        ..Headers::default()
    };
    let mut delivery = delivery(&Arc::new(settings), headers, b"x");
    delivery.attempt = 7;
    delivery.at = AT.saturating_add(Duration::from_millis(60_749));
    let id = delivery.record.id().to_string();
    assert_eq!(process(&http(), delivery).await, delivered());
    let received = sink.only();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("tracestate", "vendor=1"),
        ("x-tenant", "seven"),
        ("authorization", "Bearer ours"),
        ("cookie", "c=1"),
        ("x-text", "grün"),
        ("posthaste-attempt", "7"),
        ("webhook-timestamp", "1795353960"),
        ("webhook-id", &id),
        ("content-length", "1"),
        ("host", &sink.address().to_string()),
    ] {
        let values: Vec<&str> = received
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(values, [value], "{name}");
    }
    assert_eq!(received.method, "PUT");
    assert_eq!(received.header_names().iter().filter(|name| *name == "x-order").count(), 2);
}

#[tokio::test]
async fn a_queue_may_keep_credentials_back_and_a_message_may_name_its_method() {
    let sink = Sink::start(|_| Answer::status(200));
    let mut settings = settings(&sink.url("/"));
    settings.delivery.forward_credentials = false;
    let forward = [("Authorization", "Bearer theirs"), ("Cookie", "c=1"), ("X-Else", "1")];
    let headers = Headers {
        method: Some("DELETE".to_owned()),
        forward: forward.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Headers::default()
    };
    process(&http(), delivery(&Arc::new(settings), headers, b"x")).await;
    let received = sink.only();
    assert_eq!((received.method.as_str(), received.header("x-else")), ("DELETE", Some("1")));
    assert_eq!((received.header("authorization"), received.header("cookie")), (None, None));
}

#[tokio::test]
async fn a_message_whose_header_cannot_be_sent_is_rejected_and_a_queue_with_one_waits() {
    let sink = Sink::start(|_| Answer::status(200));
    let plain = Arc::new(settings(&sink.url("/")));
    let forward = vec![("x-a".to_owned(), "1\r\nx-b: 2".to_owned())];
    let report = process(&http(), delivery(&plain, Headers { forward, ..Headers::default() }, b"x")).await;
    assert!(
        matches!(&report.outcome, Outcome::Reject { reason } if reason.contains("\"x-a\"")),
        "{report:?}"
    );
    let mut settings = settings(&sink.url("/"));
    settings.delivery.headers.insert("x a".to_owned(), "1".to_owned());
    let report = push(settings, b"x").await;
    assert_eq!(report.outcome, Outcome::retry());
    assert!(report.error.is_some_and(|error| error.starts_with("delivery.headers: ")));
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn the_head_of_the_answer_decides() {
    let sink = Sink::start(|received| match received.target.as_str() {
        "/hint" => Answer::header(503, "retry-after", "120"),
        "/date" => Answer::header(429, "retry-after", "Sun, 22 Nov 2026 13:30:00 GMT"),
        "/abort" => Answer::header(500, "webhook-delivery", "abort-message"),
        status => Answer::status(status[1..].parse().expect("a status")),
    });
    let rejected = |status: u16, said: &str| {
        let outcome = Outcome::reject(format!("the receiver answered {said}"));
        Report { status: Some(status), ..Report::from(outcome) }
    };
    let date = RetryHint::At("2026-11-22T13:30:00Z".parse().expect("a time"));
    let hinted =
        |status, hint| Report { status: Some(status), ..Report::from(Outcome::Retry { after: Some(hint) }) };
    for (path, report) in [
        ("/200", delivered()),
        ("/202", Report { status: Some(202), ..delivered() }),
        ("/404", retried(404)),
        ("/500", retried(500)),
        ("/304", retried(304)),
        ("/422", rejected(422, "422 Unprocessable Entity")),
        ("/410", Report { is_gone: true, ..rejected(410, "410 Gone") }),
        ("/abort", rejected(500, "webhook-delivery: abort-message")),
        ("/hint", hinted(503, RetryHint::After(Duration::from_mins(2)))),
        ("/date", hinted(429, date)),
    ] {
        let made = push(settings(&sink.url(path)), b"x").await;
        let hold = match report.outcome {
            Outcome::Retry { after } => after,
            _ => None,
        };
        let signal = Signal::Answered { status: report.status.expect("an answer"), hold };
        assert_eq!(made, Report { signal, ..report }, "{path}");
    }
}

#[tokio::test]
async fn the_beginning_of_an_answer_is_kept_for_people() {
    let sink = Sink::start(|_| Answer::body(500, b"oops\r\n\x1b[31m\xff".to_vec()));
    let report = push(settings(&sink.url("/")), b"x").await;
    assert_eq!(report.excerpt.as_deref(), Some("oops  [31m\u{fffd}"));
    let mut short = settings(&sink.url("/"));
    short.answer.excerpt_max = 2;
    assert_eq!(push(short, b"x").await.excerpt.as_deref(), Some("oo"));
    let mut none = settings(&sink.url("/"));
    none.answer.excerpt_max = 0;
    assert_eq!(push(none, b"x").await.excerpt, None);
}

#[tokio::test]
async fn a_queue_without_a_destination_is_undeliverable() {
    let settings = QueueSettings { destination: None, ..settings("http://example.com/") };
    let report = push(settings, b"x").await;
    assert_eq!(
        report,
        Outcome::Undeliverable { reason: "neither the message nor its queue has a destination".to_owned() }
            .into()
    );
}

#[tokio::test]
async fn new_settings_hold_from_the_next_attempt_on() {
    let (first, second) = (Sink::start(|_| Answer::status(200)), Sink::start(|_| Answer::status(500)));
    let http = http();
    let to = |sink: &Sink| delivery(&Arc::new(settings(&sink.url("/"))), Headers::default(), b"x");
    assert_eq!(process(&http, to(&first)).await, delivered());
    assert_eq!(process(&http, to(&second)).await, retried(500));
    assert_eq!(process(&http, to(&first)).await, delivered());
    assert_eq!((first.count(), second.count()), (2, 1));
    assert_eq!(first.connections(), 1, "the same client serves both settings");
}

#[tokio::test]
async fn five_hundred_deliveries_are_under_way_at_once() {
    let sink = Sink::keeping(Keep::Digests, |_| Answer::HangBeforeHead);
    let (http, settings) = (http(), Arc::new(settings(&sink.url("/"))));
    let settings = Arc::new(QueueSettings { timeout: Duration::from_mins(1), ..(*settings).clone() });
    let attempts = (0..500).map(|_| process(&http, delivery(&settings, Headers::default(), b"x")));
    let mut attempts = Box::pin(join_all(attempts));
    let all_arrived = sink.until("500 requests under way", DEADLINE, |sink| sink.count() == 500);
    tokio::select! {
        () = all_arrived => assert_eq!(sink.connections_open(), 500),
        reports = &mut attempts => panic!("nobody was answered: {reports:?}"),
    }
    drop(attempts);
    let digest: [u8; 32] = Sha256::digest(b"x").into();
    for received in sink.received() {
        assert_eq!((&received.body, received.body_bytes, received.sha256), (&None, 1, digest));
    }
    sink.until("abandoned attempts end their connections", DEADLINE, |sink| sink.connections_open() == 0)
        .await;
}

/// A receiver that fails some first attempts, chosen by their id, as the long runs use it.
#[tokio::test]
async fn what_failed_is_delivered_by_a_second_attempt() {
    let fails = |id: &str| id.bytes().map(u32::from).sum::<u32>() % 3 == 0;
    let sink = Sink::start(move |received| {
        let id = received.header("webhook-id").expect("an id");
        let first = received.header("posthaste-attempt") == Some("1");
        Answer::status(if first && fails(id) { 503 } else { 200 })
    });
    let (http, settings) = (http(), Arc::new(settings(&sink.url("/"))));
    let made: Vec<Delivery> =
        (0..60_u8).map(|byte| delivery(&settings, Headers::default(), &[byte])).collect();
    let first = join_all(made.iter().cloned().map(|delivery| process(&http, delivery))).await;
    let failed: Vec<Delivery> = made
        .iter()
        .zip(&first)
        .filter(|(_, report)| **report != delivered())
        .map(|(made, _)| made.clone())
        .collect();
    assert!(failed.iter().all(|delivery| fails(&delivery.record.id().to_string())));
    let again = failed.iter().cloned().map(|delivery| process(&http, Delivery { attempt: 2, ..delivery }));
    let second = join_all(again).await;
    assert!(second.iter().all(|report| *report == delivered()));
    let received = sink.wait_for(60 + failed.len(), DEADLINE);
    let (first, second) = received.split_at(60);
    let last = first.iter().map(|received| received.at).max();
    assert!(
        second.iter().all(|again| Some(again.at) >= last && again.header("posthaste-attempt") == Some("2"))
    );
}
