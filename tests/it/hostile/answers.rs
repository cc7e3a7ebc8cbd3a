//! Answers: one row for each way in which one can be wrong.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use posthaste::domain::outcome::Outcome;
use posthaste::domain::queue::QueueSettings;

use super::word;
use crate::support::delivery::{push, settings};
use crate::support::sink::{Answer, Sink};

/// The time-out of an attempt.
const TIMEOUT: Duration = Duration::from_millis(400);
/// An attempt ends by itself well before this, whatever the machine is busy with.
const WITHIN: Duration = Duration::from_secs(20);
/// What may leave a receiver that sends without end: the sockets between hold a few MiB.
const SENT_MAX: u64 = 24 << 20;

/// What an attempt must come to.
#[derive(Clone, Copy)]
enum Fate {
    /// Delivered, with this status and this word of what went wrong afterwards.
    Done(u16, &'static str),
    /// To be tried again, with this status, if one came, and the word of what went wrong.
    Retry(Option<u16>, &'static str),
}

use Fate::{Done, Retry};

const SLOW: Duration = Duration::from_millis(20);
/// Longer than the time-out.
const LATE: Duration = Duration::from_secs(3);

/// Nothing of an answer came in time.
fn silent() -> Vec<(Answer, Fate)> {
    vec![
        (Answer::HangBeforeHead, Retry(None, "timeout")),
        (Answer::TrickleHead(Duration::from_millis(10)), Retry(None, "timeout")),
        (Answer::After(LATE, Box::new(Answer::status(200))), Retry(None, "timeout")),
        (Answer::Informational(None), Retry(None, "protocol")),
        (Answer::Reset, Retry(None, "reset")),
        (Answer::CloseEarly, Retry(None, "reset")),
        (Answer::Raw(b"HTTP/1.1 20"), Retry(None, "reset")),
        (Answer::Raw(b"HTTP/1.1 200 OK\r\nx: y\r\n"), Retry(None, "reset")),
        (Answer::Raw(b"HTTP/1.1 100 Continue\r\n\r\n"), Retry(None, "reset")),
    ]
}

/// What came is not HTTP, or not a head that can be believed.
fn unreadable() -> Vec<(Answer, Fate)> {
    let bad: [&'static [u8]; 20] = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"-ERR unknown command\r\n",
        b"<html><body>It works!</body></html>",
        b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
    ];
    let mut rows: Vec<_> = bad.map(|bytes| (Answer::Raw(bytes), Retry(None, "protocol"))).into();
    let floods: [(&'static [u8], &'static [u8]); 3] = [
        (b"HTTP/1.1 200 OK\r\n", b"x-flood: ....................................\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"................"),
        (b"HTTP/1.1 200 ", b"reason "),
    ];
    rows.extend(floods.map(|(first, then)| (Answer::Flood(first, then), Retry(None, "protocol"))));
    rows
}

/// The head counts although the rest is late, broken or missing.
fn headed() -> Vec<(Answer, Fate)> {
    let chunked = |rest: &'static str| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Answer::Raw(Box::leak(format!("{head}{rest}").into_bytes().into_boxed_slice()))
    };
    vec![
        (Answer::HangAfterHead(200), Done(200, "timeout")),
        (Answer::HangAfterHead(503), Retry(Some(503), "timeout")),
        (Answer::Trickle { status: 200, bytes: 10_000, every: SLOW }, Done(200, "timeout")),
        (Answer::Trickle { status: 500, bytes: 10_000, every: SLOW }, Retry(Some(500), "timeout")),
        (Answer::ResetAfterHead(200), Done(200, "body")),
        (Answer::ResetAfterHead(500), Retry(Some(500), "body")),
        (Answer::WrongLength { status: 200, claimed: 100, sent: 3 }, Done(200, "body")),
        (Answer::WrongLength { status: 500, claimed: 100, sent: 3 }, Retry(Some(500), "body")),
        (Answer::WrongLength { status: 200, claimed: 3, sent: 100 }, Done(200, "")),
        (chunked("zz\r\n"), Done(200, "body")),
        (chunked("fffffffffffffffff\r\n"), Done(200, "body")),
        (chunked("3\r\nabcXX0\r\n\r\n"), Done(200, "body")),
        (chunked("3\r\nabc\r\n"), Done(200, "body")),
        (chunked("-3\r\nabc\r\n"), Done(200, "body")),
    ]
}

/// More than anybody asked for: cut, and the connection dropped.
fn endless() -> Vec<(Answer, Fate)> {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![
        (Answer::Endless(200), Done(200, "")),
        (Answer::Endless(503), Retry(Some(503), "")),
        (Answer::body(200, Bytes::from(vec![b'.'; 64 << 20])), Done(200, "")),
        (
            Answer::Flood(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n", b"................"),
            Done(200, ""),
        ),
        (
            Answer::Flood(b"HTTP/1.1 500 No\r\ncontent-length: 9000000000000000000\r\n\r\n", b"."),
            Retry(Some(500), ""),
        ),
        (Answer::Flood(b"HTTP/1.0 200 OK\r\n\r\n", b"................"), Done(200, "")),
        (Answer::Flood(CHUNKED, b"1\r\n.\r\n"), Done(200, "")),
        (
            Answer::Flood(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=", b"................"),
            Done(200, "body"),
        ),
        (
            Answer::Flood(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
                b"x-trailer: .....\r\n",
            ),
            Done(200, "body"),
        ),
        (gzip_bomb(), Done(200, "")),
    ]
}

/// Announced as compressed, a thousandth of what it would be: it is looked at as it came.
fn gzip_bomb() -> Answer {
    let headers = vec![("content-encoding", "gzip".to_owned())];
    let mut body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    body.resize(8 << 20, 0);
    Answer::Whole { status: 200, headers, body: body.into() }
}

/// Odd, yet answers.
fn odd() -> Vec<(Answer, Fate)> {
    let mut rows = vec![
        (Answer::Informational(Some(50)), Done(200, "")),
        (Answer::Raw(b"HTTP/1.1 200\r\n\r\n"), Done(200, "")),
        (Answer::Raw(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"), Done(200, "")),
        (Answer::Raw(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"), Done(200, "")),
        (Answer::Raw(b"HTTP/1.1 200 OK\r\nserver: \xff\xfe\r\ncontent-length: 0\r\n\r\n"), Done(200, "")),
        (Answer::Raw(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello"), Done(204, "")),
        (Answer::body(200, &b"\0\x1b[2J\xff\xfe\r\n"[..]), Done(200, "")),
        (Answer::header(503, "retry-after", "soon"), Retry(Some(503), "")),
        (
            Answer::Raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            Retry(Some(101), ""),
        ),
    ];
    let redirects = [301, 302, 303, 307, 308].map(|status| Answer::header(status, "location", "/again"));
    rows.extend(
        redirects
            .into_iter()
            .zip([301, 302, 303, 307, 308])
            .map(|(answer, status)| (answer, Retry(Some(status), ""))),
    );
    rows.extend(
        [304, 401, 404, 500, 600, 999].map(|status| (Answer::status(status), Retry(Some(status), ""))),
    );
    rows
}

/// One attempt at a receiver that answers thus.
async fn attempt(answer: Answer, fate: Fate, timeout: Duration) {
    let shown = format!("{answer:?}").chars().take(200).collect::<String>();
    let sink = Sink::start(move |_| answer.clone());
    let settings = QueueSettings { timeout, ..settings(&sink.url("/")) };
    let report = tokio::time::timeout(2 * WITHIN, push(settings, b"payload")).await;
    let report = report.unwrap_or_else(|_| panic!("{shown}: the attempt does not end"));
    let seen = (report.outcome.clone(), report.status, word(&report));
    let expected = match fate {
        Done(status, word) => (Outcome::Done, Some(status), word),
        Retry(status, word) => (Outcome::retry(), status, word),
    };
    assert_eq!(seen, expected, "{shown}: {report:?}");
    let excerpt_bytes = report.excerpt.as_ref().map_or(0, String::len);
    assert!(excerpt_bytes <= 4 << 10, "{shown}: {excerpt_bytes} bytes are kept");
    sink.until("the connection is let go of", WITHIN, |sink| sink.answers_ended() == 1).await;
    assert_eq!(sink.count(), 1, "{shown}: nothing is sent twice, nothing followed");
    assert!(sink.sent_bytes() < SENT_MAX, "{shown}: {} bytes left the sink", sink.sent_bytes());
}

async fn attempt_all(rows: Vec<(Answer, Fate)>) {
    join_all(rows.into_iter().map(|(answer, fate)| attempt(answer, fate, TIMEOUT))).await;
}

#[tokio::test]
async fn what_does_not_come_is_a_retry() {
    attempt_all(silent()).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_retry() {
    attempt_all(unreadable()).await;
}

#[tokio::test]
async fn a_head_counts_whatever_comes_of_the_rest() {
    attempt_all(headed()).await;
}

/// What left the sink bounds what the gateway can have taken in.
#[tokio::test]
async fn what_has_no_end_is_cut() {
    for (answer, fate) in endless() {
        attempt(answer, fate, WITHIN).await;
    }
}

#[tokio::test]
async fn what_is_merely_odd_is_an_answer() {
    attempt_all(odd()).await;
}
