//! Connections: receivers that answer too early, read nothing, or leave something behind for the next message.

use std::io::{Read, Write as _};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use posthaste::domain::message::Headers;
use posthaste::domain::outcome::Outcome;
use posthaste::domain::queue::QueueSettings;
use posthaste::processor::{Processor as _, Report};
use tokio::time::timeout;

use super::word;
use crate::support::delivery::{delivery, http, push, settings};
use crate::support::peer::Peer;
use crate::support::sink::{Answer, Sink};

const TIMEOUT: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(20);
/// More than the sockets between hold.
const LARGE: usize = 16 << 20;

async fn push_to(peer: &Peer, payload: &[u8]) -> Report {
    let settings = QueueSettings { timeout: TIMEOUT, ..settings(&format!("http://{}/", peer.address())) };
    timeout(WITHIN, push(settings, payload)).await.expect("the attempt ends by itself")
}

/// Reads a head and the short body behind it.
pub(super) fn read_request(stream: &mut impl Read) -> Option<()> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
    while !seen.ends_with(b"end") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
        }
    }
    Some(())
}

#[tokio::test]
async fn a_receiver_that_never_reads_is_a_time_out() {
    let (over, waits) = mpsc::sync_channel::<()>(0);
    let peer = Peer::start(move |_stream| assert!(waits.recv().is_err(), "nothing is ever said"));
    let report = push_to(&peer, &vec![b'x'; LARGE]).await;
    assert_eq!((report.outcome.clone(), word(&report)), (Outcome::retry(), "timeout"), "{report:?}");
    drop(over);
}

#[tokio::test]
async fn an_answer_before_the_payload_was_read_counts() {
    for (head, outcome, status) in [
        ("HTTP/1.1 413 Too Large", Outcome::reject("the receiver answered 413 Payload Too Large"), 413),
        ("HTTP/1.1 503 Busy", Outcome::retry(), 503),
    ] {
        let peer = Peer::start(move |mut stream| {
            let mut first = [0; 64];
            drop(stream.read(&mut first));
            drop(write!(stream, "{head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
            // It takes in what is on its way, so that the answer is not lost to a reset.
            let mut rest = [0; 16 << 10];
            while stream.read(&mut rest).is_ok_and(|count| count > 0) {}
        });
        let report = push_to(&peer, &vec![b'x'; LARGE]).await;
        assert_eq!((report.outcome, report.status), (outcome, Some(status)));
        // The client lets go of the connection meanwhile.
        tokio::task::spawn_blocking(move || drop(peer)).await.expect("the peer ends");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_the_next_messages() {
    let peer = Peer::start(|mut stream| {
        while read_request(&mut stream).is_some() {
            let asked = "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n";
            let unasked = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            // In one piece: what came behind the next request would be the answer to it.
            if stream.write_all([asked, unasked].concat().as_bytes()).is_err() {
                return;
            }
        }
    });
    let http = http();
    let settings = settings(&format!("http://{}/", peer.address()));
    let settings = Arc::new(QueueSettings { timeout: TIMEOUT, ..settings });
    for _ in 0..5 {
        let attempt = http.process(delivery(&settings, Headers::default(), b"the end"));
        let report = timeout(WITHIN, attempt).await.expect("the attempt ends by itself");
        assert_eq!((report.outcome.clone(), report.status), (Outcome::retry(), Some(500)), "{report:?}");
    }
    assert_eq!(peer.connections(), 5, "a connection with something left on it is not used again");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let peer = Peer::start(|mut stream| {
        if read_request(&mut stream).is_some() {
            // It says that it stays, and goes.
            drop(write!(stream, "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let (http, settings) = (http(), Arc::new(settings(&format!("http://{}/", peer.address()))));
    for turn in 1..=5 {
        let attempt = http.process(delivery(&settings, Headers::default(), b"the end"));
        let report = timeout(WITHIN, attempt).await.expect("the attempt ends by itself");
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        assert_eq!(peer.connections(), turn);
        // The client has seen that it went before it is used again.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The answer was given and its connection kept before the receiver closes it.
#[tokio::test]
async fn a_connection_that_is_closed_after_it_was_kept_costs_no_attempt() {
    const AT_ONCE: usize = 8;
    let (taken, may_close) = mpsc::sync_channel::<()>(1);
    let (closed, is_closed) = mpsc::sync_channel::<()>(1);
    let peer = Peer::start(move |mut stream| {
        if read_request(&mut stream).is_some() {
            drop(write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
            may_close.recv().unwrap_or_default();
            drop(stream);
            closed.send(()).unwrap_or_default();
        }
    });
    let (http, settings) = (http(), Arc::new(settings(&format!("http://{}/", peer.address()))));
    for turn in 1..=AT_ONCE {
        let attempt = http.process(delivery(&settings, Headers::default(), b"the end"));
        let report = timeout(WITHIN, attempt).await.expect("the attempt ends by itself");
        assert_eq!((&report.outcome, report.excerpt.as_deref()), (&Outcome::Done, Some("ok")), "{report:?}");
        assert_eq!(peer.connections(), turn);
        taken.send(()).expect("the peer waits");
        is_closed.recv().expect("the peer closes");
        // The client has seen that it went before it is used again.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_cut_off() {
    let peer = Peer::start(|mut stream| {
        if read_request(&mut stream).is_some() {
            let storm = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
            while stream.write_all(&storm).is_ok() {}
        }
    });
    let settings = settings(&format!("http://{}/", peer.address()));
    let report = timeout(WITHIN, push(settings, b"the end")).await.expect("the attempt ends by itself");
    let error = report.error.as_deref().unwrap_or_default();
    assert_eq!(report.outcome, Outcome::retry());
    assert!(error.starts_with("protocol: no head of an answer within 256 KiB"), "{error}");
}

/// hyper reads the more at once the more came before: also far past the end of the next head.
#[tokio::test]
async fn long_answers_on_a_kept_connection_are_answers() {
    const ANSWERS: usize = 30;
    let body = Bytes::from(vec![b'.'; 900_000]);
    let sink = Sink::start(move |_| Answer::body(200, body.clone()));
    let mut settings = QueueSettings { timeout: WITHIN, ..settings(&sink.url("/")) };
    settings.answer.bytes_max = 1 << 20;
    let (http, settings) = (http(), Arc::new(settings));
    for _ in 0..ANSWERS {
        let report = http.process(delivery(&settings, Headers::default(), b"payload")).await;
        assert_eq!((report.outcome, report.status, report.error), (Outcome::Done, Some(200), None));
    }
    assert_eq!((sink.count(), sink.connections()), (ANSWERS, 1));
}
