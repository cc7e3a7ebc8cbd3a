//! Requests sent before the ones before them were answered: each has the answer that it has alone, in its turn.

use std::io;
use std::thread;

use serde_json::json;

use crate::support::client::{Answer, Connection};
use crate::support::gateway::{Gateway, Home};
use crate::support::stores::on_both_stores;

const QUEUES: &str = "[queues.jobs]\nprocessor = \"pull\"\n";

on_both_stores! {
    a_request_behind_another_one_changes_nothing_of_its_answer
    many_are_answered_each_for_itself_and_in_order
    who_closes_its_end_behind_them_is_answered_all_the_same
    more_than_is_read_ahead_is_answered_to_the_last
}

/// A request as it is sent, and how its answer begins.
struct Sent {
    bytes: String,
    status: u16,
    version: &'static str,
    is_head: bool,
}

/// What is added to a request line, with its status in the answer.
fn sent(line: &str, headers: &str, body: &str, status: u16) -> Sent {
    let version = if headers.contains("Host") { "HTTP/1.1" } else { "HTTP/1.0" };
    let bytes = format!("{line} {version}\r\n{headers}\r\n{body}");
    Sent { bytes, status, version, is_head: line.starts_with("HEAD") }
}

const HOST: &str = "Host: x\r\n";
const HOST_1: &str = "Host: x\r\nContent-Length: 1\r\n";
const CLOSE: &str = "Host: x\r\nConnection: close\r\n";
const OLD: &str = "Connection: keep-alive\r\n";
const OLD_1: &str = "Connection: keep-alive\r\nContent-Length: 1\r\n";
const CHUNKED: &str = "Host: x\r\nTransfer-Encoding: chunked\r\n";
const PUBLISH: &str = "POST /v1/queues/jobs/messages";

fn together(requests: &[Sent]) -> Vec<u8> {
    requests.iter().map(|request| request.bytes.as_str()).collect::<String>().into_bytes()
}

fn open(gateway: &Gateway) -> Connection {
    Connection::open(&gateway.address()).expect("it connects")
}

/// The answers to requests, each framed as its own.
fn answers(connection: &mut Connection, requests: &[Sent]) -> Vec<Answer> {
    let answer = |request: &Sent| {
        let what = &request.bytes;
        let answer = connection.answer(request.is_head).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = (answer.status, answer.version.as_str());
        assert_eq!(found, (request.status, request.version), "{what}: {}", answer.text());
        let is_closing = answer.header("connection") == Some("close");
        assert_eq!(is_closing, what.contains("Connection: close"), "{what}");
        let length: usize = answer.header("content-length").map_or(0, |it| it.parse().expect("a number"));
        assert_eq!(answer.body.len(), if request.is_head { 0 } else { length }, "{what}");
        answer
    };
    requests.iter().map(answer).collect()
}

fn assert_ended(connection: &mut Connection) {
    let error = connection.answer(false).expect_err("nothing more");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

fn a_request_behind_another_one_changes_nothing_of_its_answer(home: &Home) {
    let gateway = home.start(QUEUES, &[]);
    let pair = |first: Sent, second: Sent| {
        let mut connection = open(&gateway);
        let both = [first, second];
        connection.send_bytes(&together(&both)).expect("it is sent");
        let answers = answers(&mut connection, &both);
        if !both[1].bytes.contains(HOST) || both[1].bytes.contains(CLOSE) {
            assert_ended(&mut connection);
        }
        answers
    };
    let publish = || sent(PUBLISH, HOST_1, "x", 202);
    pair(sent("HEAD /v1/queues", HOST, "", 200), sent("GET /health", HOST, "", 200));
    pair(sent("HEAD /status", HOST, "", 200), sent("GET /v1/queues/jobs", HOST, "", 200));
    for second in [
        sent("HEAD /health", HOST, "", 200),
        sent("GET /health", "", "", 200),
        sent("GET /health", CLOSE, "", 200),
    ] {
        assert!(pair(publish(), second)[0].json()["id"].is_string());
    }
    let lease = sent("POST /v1/queues/jobs/leases", "Host: x\r\nContent-Length: 0\r\n", "", 200);
    let leased = pair(lease, sent("HEAD /health", HOST, "", 200));
    assert!(leased[0].json()["items"][0]["receipt"].is_string(), "{}", leased[0].text());
}

/// Sixteen of every kind, the last of which closes the connection; eight of them publish.
fn many() -> Vec<Sent> {
    let chunks = "1\r\nx\r\n0\r\n\r\n";
    vec![
        sent("HEAD /v1/queues", HOST, "", 200),
        sent(PUBLISH, HOST_1, "x", 202),
        sent("HEAD /status", OLD, "", 200),
        sent(PUBLISH, CHUNKED, chunks, 202),
        sent(PUBLISH, CHUNKED, chunks, 202),
        sent("GET /health", OLD, "", 200),
        sent(PUBLISH, OLD_1, "x", 202),
        sent("GET /v1/queues/jobs", HOST, "", 200),
        sent("GET /v1/queues/none", HOST, "", 404),
        sent(PUBLISH, HOST_1, "\n", 202),
        sent("HEAD /v1/queues/none", HOST, "", 404),
        sent(PUBLISH, OLD_1, "x", 202),
        sent(PUBLISH, CHUNKED, "1;a=b\r\nx\r\n0\r\nDigest: x\r\n\r\n", 202),
        sent("HEAD /nothing", OLD, "", 404),
        sent(PUBLISH, HOST_1, "x", 202),
        sent("GET /v1/queues", CLOSE, "", 200),
    ]
}

fn many_are_answered_each_for_itself_and_in_order(home: &Home) {
    let gateway = home.start(QUEUES, &[]);
    let requests = many();
    let all = together(&requests);
    for piece in [all.len(), 300, 7] {
        let mut connection = open(&gateway);
        all.chunks(piece).for_each(|piece| connection.send_bytes(piece).expect("it is sent"));
        answers(&mut connection, &requests);
        assert_ended(&mut connection);
    }
    assert_eq!(gateway.status()["totals"]["accepted"], json!(3 * 8));
}

fn who_closes_its_end_behind_them_is_answered_all_the_same(home: &Home) {
    let gateway = home.start(QUEUES, &[]);
    let mut requests = many();
    requests.truncate(15);
    let mut connection = open(&gateway);
    connection.send_bytes(&together(&requests)).expect("it is sent");
    connection.close_end().expect("it is closed");
    answers(&mut connection, &requests);
    assert_ended(&mut connection);
}

fn more_than_is_read_ahead_is_answered_to_the_last(home: &Home) {
    let gateway = home.start(QUEUES, &[]);
    let body = "x".repeat(10_000);
    let mut requests = Vec::new();
    for _ in 0..40 {
        requests.push(sent(PUBLISH, "Host: x\r\nContent-Length: 10000\r\n", &body, 202));
        requests.push(sent("HEAD /v1/queues", HOST, "", 200));
    }
    let mut connection = open(&gateway);
    let mut sender = connection.sender().expect("a second handle");
    let all = together(&requests);
    let sending = thread::spawn(move || io::Write::write_all(&mut sender, &all));
    answers(&mut connection, &requests);
    sending.join().expect("no panic").expect("it is sent");
}
