//! Bodies: kept byte for byte, within their size, whole or not at all.

use posthaste::domain::id::MessageId;
use posthaste::http::ServerSettings;
use serde_json::json;

use super::http_gateway::{Plan, TestGateway, chunked, request};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    a_payload_is_kept_byte_for_byte_however_it_comes
    a_body_of_the_limit_passes_and_one_byte_more_is_refused_and_never_cut_short
    a_client_that_leaves_within_its_body_stores_nothing
    a_publish_that_asks_for_another_protocol_is_a_publish
}

/// The payload that the store has under that id.
fn stored(gateway: &TestGateway, queue: &str, id: &str) -> Vec<u8> {
    let id: MessageId = id.parse().expect("an id");
    let queue = gateway.queue(queue);
    let found = gateway.with_store(async |store| store.find(queue, id).await.expect("an answer"));
    found.expect("the message").record.expect("a record").payload().to_vec()
}

fn all_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 256) % 256).expect("below 256")).collect()
}

fn a_payload_is_kept_byte_for_byte_however_it_comes(home: &Home) {
    let gateway = TestGateway::start(home);
    for length in [0, 1, 2, 255, 4_096, 40_000, 300_000] {
        let body = all_bytes(length);
        let plain = gateway.publish("default", &[("Content-Type", "application/x-any")], &body);
        assert_eq!(plain.status, 202, "{length}: {plain:?}");
        assert_eq!(stored(&gateway, "default", &plain.id()), body, "{length} at once");
        let size = (length / 3).clamp(1, 7_000);
        let bytes = chunked(&body, size);
        let parts = gateway.publish("default", &[("Transfer-Encoding", "chunked")], &bytes);
        assert_eq!(parts.status, 202, "{length} in chunks: {parts:?}");
        assert_eq!(stored(&gateway, "default", &parts.id()), body, "{length} in chunks");
        // Head and body, and parts of the body, in packets of their own.
        let mut client = gateway.connect();
        let whole = request("POST /v1/queues/default/messages", &[], &body);
        for part in whole.chunks((whole.len() / 5).max(1)) {
            client.send(part);
            std::thread::yield_now();
        }
        let dripped = client.reply_to("POST");
        assert_eq!(stored(&gateway, "default", &dripped.id()), body, "{length} in parts");
    }
}

fn a_body_of_the_limit_passes_and_one_byte_more_is_refused_and_never_cut_short(home: &Home) {
    let gateway = TestGateway::start(home);
    let settings = json!({"processor": "log", "limits": {"payload_max": 1_000}});
    assert_eq!(gateway.put("small", &settings).status, 201);
    for (length, status) in [(999, 202), (1_000, 202), (1_001, 413), (5_000, 413), (200_000, 413)] {
        let body = all_bytes(length);
        for headers in [&[][..], &[("Transfer-Encoding", "chunked")]] {
            let bytes = if headers.is_empty() { body.clone() } else { chunked(&body, 100) };
            let reply = gateway.publish("small", headers, &bytes);
            assert_eq!(reply.status, status, "{length} {headers:?}: {reply:?}");
            if status == 202 {
                assert_eq!(stored(&gateway, "small", &reply.id()), body);
            } else {
                let problem = reply.json();
                assert_eq!(problem["code"], "payload_too_large");
                assert_eq!(problem["setting"], "limits.payload_max");
                assert_eq!(problem["limit"], 1_000);
                assert_eq!(reply.header("posthaste-stored"), Some("no"));
            }
            gateway.assert_alive("a body at the limit");
        }
    }
    assert_eq!(gateway.accepted_by("small"), 4);
}

#[test]
fn a_declared_length_is_judged_before_a_byte_of_it_came() {
    let gateway = TestGateway::in_memory();
    let mut client = gateway.connect();
    let head = request("POST /v1/queues/default/messages", &[("Content-Length", "99999999999")], b"");
    client.send(&head);
    let reply = client.reply_to("POST");
    assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
    gateway.assert_alive("a length that is too large");
}

fn a_client_that_leaves_within_its_body_stores_nothing(home: &Home) {
    let gateway = TestGateway::start(home);
    for (name, bytes) in [
        ("a length", request("POST /v1/queues/default/messages", &[("Content-Length", "10")], b"01234")),
        (
            "chunks",
            request(
                "POST /v1/queues/default/messages",
                &[("Transfer-Encoding", "chunked")],
                b"5\r\n01234\r\n",
            ),
        ),
        (
            "within a chunk",
            request("POST /v1/queues/default/messages", &[("Transfer-Encoding", "chunked")], b"5\r\n012"),
        ),
    ] {
        // One that only ends its half is told so.
        let mut half = gateway.connect();
        half.send(&bytes);
        half.end();
        let reply = half.reply_to("POST");
        assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{name}: {reply:?}");
        assert_eq!(reply.header("posthaste-stored"), Some("no"), "{name}");
        // One that is gone is not.
        let mut gone = gateway.connect();
        gone.send(&bytes);
        drop(gone);
    }
    let before = gateway.accepted();
    assert_eq!(before, 0);
    gateway.assert_alive("clients that left");
    assert_eq!(gateway.accepted(), 1);
}

#[test]
fn chunks_that_are_broken_are_refused() {
    let gateway = TestGateway::in_memory();
    for body in ["zz\r\nx\r\n0\r\n\r\n", "5\r\nx\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "-1\r\nx\r\n"] {
        let mut client = gateway.connect();
        client.send(&request(
            "POST /v1/queues/default/messages",
            &[("Transfer-Encoding", "chunked")],
            body.as_bytes(),
        ));
        let reply = client.reply_to("POST");
        assert_eq!(reply.status, 400, "{body:?}: {reply:?}");
        gateway.assert_alive(body);
    }
    assert_eq!(gateway.accepted(), 4, "one for each time that the next request was served");
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let gateway = TestGateway::in_memory();
    let mut client = gateway.connect();
    let headers = [("Expect", "100-continue"), ("Content-Length", "5")];
    client.send(&request("POST /v1/queues/default/messages", &headers, b""));
    assert_eq!(client.reply_to("POST").status, 100);
    client.send(b"hello");
    assert_eq!(client.reply_to("POST").status, 202);
}

#[test]
fn a_refused_body_without_end_is_not_read_to_its_end() {
    let gateway = TestGateway::in_memory();
    let mut client = gateway.connect();
    let headers = [("Transfer-Encoding", "chunked"), ("Posthaste-Delay", "nonsense")];
    client.send(&request("POST /v1/queues/default/messages", &headers, b"1\r\nx\r\n"));
    let reply = client.reply_to("POST");
    assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
    // The client goes on sending, and is cut off in the end.
    assert!(client.is_closed());
    gateway.assert_alive("a body without end");
}

#[test]
fn all_bodies_together_stay_within_their_memory() {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.bodies_bytes_max = 1 << 20;
    let declared = vec![("default", json!({"processor": "log", "limits": {"payload_max": "2MiB"}}))];
    let gateway = TestGateway::in_memory_as(Plan { server, declared, ..Plan::default() });
    let mut holds = gateway.connect();
    let length = (700_000).to_string();
    let headers = [("Content-Length", length.as_str())];
    holds.send(&request("POST /v1/queues/default/messages", &headers, &all_bytes(699_999)));
    // As long as the first body is in memory there is room for a third of one; how soon it is there is not known.
    let refused = loop {
        let reply = gateway.publish("default", &[], &all_bytes(600_000));
        if reply.status != 202 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(refused.json()["setting"], "server.limits.bodies_bytes_max");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("posthaste-stored"), Some("no"));
    gateway.assert_alive("the budget is used up");
    holds.send(b"x");
    assert_eq!(holds.reply_to("POST").status, 202);
    assert_eq!(gateway.publish("default", &[], &all_bytes(1_000_000)).status, 202);
}

fn a_publish_that_asks_for_another_protocol_is_a_publish(home: &Home) {
    let gateway = TestGateway::start(home);
    let headers = [("Connection", "upgrade"), ("Upgrade", "websocket"), ("Content-Length", "5")];
    let mut client = gateway.connect();
    client.send(&request("POST /v1/queues/default/messages", &headers, b"hello"));
    let reply = client.reply_to("POST");
    assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
    assert_eq!(stored(&gateway, "default", &reply.id()), b"hello");
    let more = gateway.send("POST /v1/queues/default/messages", &headers, b"hello, and more");
    assert_eq!((more.status, more.code().as_str()), (400, "malformed"));
    assert_eq!(gateway.accepted(), 1);
}
