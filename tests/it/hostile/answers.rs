//! Answers: one row for each way in which one can be wrong.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use posthaste::domain::outcome::Outcome;
use posthaste::domain::queue::QueueSettings;

use super::word;
use crate::support::delivery::{push, settings};
use crate::support::sink::{Answer, Sink};

/// The time-out of an attempt that only this ends.
const TIMEOUT: Duration = Duration::from_millis(400);
/// How long such an attempt may last: 500 ms after its time-out it is abandoned, and the machine has other tests to run. Less than
/// [`LATE`]: nobody waited for that.
const TIMED_OUT_WITHIN: Duration = Duration::from_millis(2_500);
/// The time-out of an attempt that must end by what came: twice what any of them may last, so that it was not this.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an attempt may last whose end is in the first bytes that come: some milliseconds, and the machine has other tests to
/// run.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long one may last that reads up to a limit first, of 256 KiB at most: some tens of milliseconds in a debug build, twice as
/// many others as cores beside it.
const CUT_WITHIN: Duration = Duration::from_secs(10);
/// How long a client that has ended an attempt may keep its connection.
const LET_GO_WITHIN: Duration = Duration::from_secs(20);
/// What may leave a receiver that sends without end: the sockets between hold a few MiB.
const SENT_MAX: u64 = 24 << 20;

/// What an attempt must come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Delivered, with this status and this word of what went wrong afterwards.
    Done(u16, &'static str),
    /// To be tried again, with this status, if one came, and the word of what went wrong.
    Retry(Option<u16>, &'static str),
}

use Fate::{Done, Retry};

/// A way of answering, what it must come to, and how long that may take.
#[derive(Clone, Debug)]
pub(super) struct Mode {
    /// What the receiver does.
    pub(super) answer: Answer,
    /// What the attempt comes to.
    pub(super) fate: Fate,
    /// The attempt's time-out.
    pub(super) timeout: Duration,
    /// How long it may last.
    pub(super) within: Duration,
}

impl Mode {
    /// Whether it would send more than anybody keeps.
    pub(super) fn is_cut(&self) -> bool {
        self.within == CUT_WITHIN
    }

    /// What the receiver does, for who reads of a failure. No further than that: some have bodies of MiB.
    pub(super) fn shown(&self) -> String {
        let mut beginning = Beginning(String::new());
        // It fails where it is long enough.
        write!(beginning, "{:?}", self.answer).unwrap_or_default();
        beginning.0
    }
}

/// The first of what is written.
struct Beginning(String);

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = 200_usize.saturating_sub(self.0.len());
        self.0.extend(text.chars().take(room));
        if self.0.len() < 200 { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Nothing but the time-out ends it.
fn timed_out((answer, fate): (Answer, Fate)) -> Mode {
    Mode { answer, fate, timeout: TIMEOUT, within: TIMED_OUT_WITHIN }
}

/// It ends by the first that comes, or does not.
fn seen((answer, fate): (Answer, Fate)) -> Mode {
    Mode { answer, fate, timeout: PATIENCE, within: SEEN_WITHIN }
}

/// It ends at a limit.
fn cut((answer, fate): (Answer, Fate)) -> Mode {
    Mode { answer, fate, timeout: PATIENCE, within: CUT_WITHIN }
}

/// All of them.
pub(super) fn modes() -> Vec<Mode> {
    [silent(), unreadable(), headed(), endless(), odd()].concat()
}

const SLOW: Duration = Duration::from_millis(20);
/// Longer than the time-out.
const LATE: Duration = Duration::from_secs(3);

/// Nothing of an answer came in time.
fn silent() -> Vec<Mode> {
    vec![
        timed_out((Answer::HangBeforeHead, Retry(None, "timeout"))),
        timed_out((Answer::TrickleHead(Duration::from_millis(10)), Retry(None, "timeout"))),
        timed_out((Answer::After(LATE, Box::new(Answer::status(200))), Retry(None, "timeout"))),
        cut((Answer::Informational(None), Retry(None, "protocol"))),
        seen((Answer::Reset, Retry(None, "reset"))),
        seen((Answer::CloseEarly, Retry(None, "reset"))),
        seen((Answer::Raw(b"HTTP/1.1 20"), Retry(None, "reset"))),
        seen((Answer::Raw(b"HTTP/1.1 200 OK\r\nx: y\r\n"), Retry(None, "reset"))),
        seen((Answer::Raw(b"HTTP/1.1 100 Continue\r\n\r\n"), Retry(None, "reset"))),
    ]
}

/// What came is not HTTP, or not a head that can be believed.
fn unreadable() -> Vec<Mode> {
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
    let mut modes: Vec<_> = bad.map(|bytes| seen((Answer::Raw(bytes), Retry(None, "protocol")))).into();
    let floods: [(&'static [u8], &'static [u8]); 3] = [
        (b"HTTP/1.1 200 OK\r\n", b"x-flood: ....................................\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"................"),
        (b"HTTP/1.1 200 ", b"reason "),
    ];
    modes.extend(floods.map(|(first, then)| cut((Answer::Flood(first, then), Retry(None, "protocol")))));
    modes
}

/// The head counts although the rest is late, broken or missing.
fn headed() -> Vec<Mode> {
    let chunked = |rest: &'static str| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Answer::Raw(Box::leak(format!("{head}{rest}").into_bytes().into_boxed_slice()))
    };
    let late = vec![
        (Answer::HangAfterHead(200), Done(200, "timeout")),
        (Answer::HangAfterHead(503), Retry(Some(503), "timeout")),
        (Answer::Trickle { status: 200, bytes: 10_000, every: SLOW }, Done(200, "timeout")),
        (Answer::Trickle { status: 500, bytes: 10_000, every: SLOW }, Retry(Some(500), "timeout")),
    ];
    let broken = vec![
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
    ];
    late.into_iter().map(timed_out).chain(broken.into_iter().map(seen)).collect()
}

/// More than anybody asked for: cut, and the connection dropped.
fn endless() -> Vec<Mode> {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let rows = vec![
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
    ];
    rows.into_iter().map(cut).collect()
}

/// Announced as compressed, a thousandth of what it would be: it is looked at as it came.
fn gzip_bomb() -> Answer {
    let headers = vec![("content-encoding", "gzip".to_owned())];
    let mut body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    body.resize(8 << 20, 0);
    Answer::Whole { status: 200, headers, body: body.into() }
}

/// Odd, yet answers.
fn odd() -> Vec<Mode> {
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
    rows.into_iter().map(seen).collect()
}

/// One attempt at a receiver that answers thus.
async fn attempt(mode: Mode) {
    let shown = mode.shown();
    let answer = mode.answer;
    let sink = Sink::start(move |_| answer.clone());
    let settings = QueueSettings { timeout: mode.timeout, ..settings(&sink.url("/")) };
    let began = Instant::now();
    let report = tokio::time::timeout(mode.within, push(settings, b"payload")).await;
    let report =
        report.unwrap_or_else(|_| panic!("{shown}: the attempt lasts longer than {:?}", mode.within));
    let seen = (report.outcome.clone(), report.status, word(&report));
    let expected = match mode.fate {
        Done(status, word) => (Outcome::Done, Some(status), word),
        Retry(status, word) => (Outcome::retry(), status, word),
    };
    assert_eq!(seen, expected, "{shown}: {report:?}");
    let ended_by_time_out = expected.2 == "timeout";
    assert_eq!(ended_by_time_out, mode.timeout == TIMEOUT, "{shown}: it says how it ends");
    // A twentieth of it is kept back for what comes after the answer.
    let least = TIMEOUT * 9 / 10;
    assert!(!ended_by_time_out || began.elapsed() >= least, "{shown}: {:?}", began.elapsed());
    let excerpt_bytes = report.excerpt.as_ref().map_or(0, String::len);
    assert!(excerpt_bytes <= 4 << 10, "{shown}: {excerpt_bytes} bytes are kept");
    sink.until("the connection is let go of", LET_GO_WITHIN, |sink| sink.answers_ended() == 1).await;
    assert_eq!(sink.count(), 1, "{shown}: nothing is sent twice, nothing followed");
    assert!(sink.sent_bytes() < SENT_MAX, "{shown}: {} bytes left the sink", sink.sent_bytes());
}

async fn attempt_all(modes: Vec<Mode>) {
    join_all(modes.into_iter().map(attempt)).await;
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
    for mode in endless() {
        attempt(mode).await;
    }
}

#[tokio::test]
async fn what_is_merely_odd_is_an_answer() {
    attempt_all(odd()).await;
}
