//! Clients that are slow: with a head, with a body, between requests. Each is cut, and the others are served meanwhile.

use std::time::{Duration, Instant};

use posthaste::http::ServerSettings;

use super::http_gateway::{Plan, TestGateway, request};

const PUBLISH: &str = "POST /v1/queues/default/messages";

fn impatient() -> TestGateway {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.head_timeout = Duration::from_millis(300);
    server.limits.body_timeout = Duration::from_millis(600);
    TestGateway::in_memory_as(Plan { server, ..Plan::default() })
}

#[test]
fn a_head_that_does_not_come_is_cut_on_a_new_connection_and_on_a_used_one() {
    let gateway = impatient();
    let mut new = gateway.connect();
    new.send(b"GET /health HTTP/1.1\r\nHost:");
    let mut used = gateway.connect();
    used.send(&request("GET /health", &[], b""));
    assert_eq!(used.reply_to("GET").status, 200);
    used.send(b"GET /health HTTP/1.1\r\nHost:");
    gateway.assert_alive("while heads are awaited");
    for (name, client) in [("new", &mut new), ("used", &mut used)] {
        let reply = client.reply_to("GET");
        assert_eq!((reply.status, reply.body.len()), (408, 0), "{name}: {reply:?}");
        assert!(client.is_closed(), "{name}");
    }
    gateway.assert_alive("heads that did not come");
}

fn with_timeouts(head: Duration, idle: Duration) -> TestGateway {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.head_timeout = head;
    server.limits.idle_timeout = idle;
    TestGateway::in_memory_as(Plan { server, ..Plan::default() })
}

/// Requests of every kind, each whole.
fn whole_requests() -> Vec<(&'static str, Vec<u8>)> {
    let chunked = [("Transfer-Encoding", "chunked")];
    vec![
        ("GET /health", request("GET /health", &[], b"")),
        ("HEAD /status", request("HEAD /status", &[], b"")),
        ("GET /status", request("GET /status", &[], b"")),
        ("GET /v1/queues/default/messages/x", request("GET /v1/queues/default/messages/x", &[], b"")),
        ("GET /nothing", request("GET /nothing", &[], b"")),
        (PUBLISH, request(PUBLISH, &[], b"a")),
        (PUBLISH, request(PUBLISH, &[], &[b'x'; 20_000])),
        (PUBLISH, request(PUBLISH, &[("Content-Length", "0")], b"")),
        (PUBLISH, request(PUBLISH, &chunked, b"1\r\na\r\n0\r\n\r\n")),
        ("POST /v1/queues/none/messages", request("POST /v1/queues/none/messages", &[], b"")),
    ]
}

#[test]
fn an_idle_connection_is_closed_without_a_word_whatever_came_before() {
    // The time for a head is long, so that what wakes the connection is its own time.
    let idle_timeout = Duration::from_millis(200);
    let gateway = with_timeouts(Duration::from_mins(10), idle_timeout);
    let mut clients = Vec::new();
    for (line, bytes) in whole_requests() {
        let (mut client, sent) = (gateway.connect(), Instant::now());
        // Twice, since a used connection has a timer already.
        for _ in 0..2 {
            client.send(&bytes);
            client.reply_to(line);
        }
        clients.push((line, client, sent));
    }
    for (line, client, sent) in &mut clients {
        assert!(client.is_closed(), "{line}");
        assert!(sent.elapsed() >= idle_timeout, "{line}");
    }
}

#[test]
fn half_a_head_behind_a_request_in_one_segment_has_the_time_of_a_head() {
    let gateway = with_timeouts(Duration::from_millis(200), Duration::from_hours(1));
    let mut clients = Vec::new();
    for (line, bytes) in whole_requests() {
        let mut client = gateway.connect();
        client.send(&[&bytes[..], b"GET /hea"].concat());
        client.reply_to(line);
        clients.push((line, client));
    }
    for (line, client) in &mut clients {
        let reply = client.reply_to("GET");
        assert_eq!((reply.status, reply.body.len()), (408, 0), "{line}: {reply:?}");
        assert!(client.is_closed(), "{line}");
    }
}

#[test]
fn a_connection_that_was_served_for_long_is_closed_when_it_is_idle() {
    let gateway = with_timeouts(Duration::from_millis(100), Duration::from_millis(200));
    let mut client = gateway.connect();
    client.send(&request(PUBLISH, &[("Content-Length", "2")], b"h"));
    // Longer than any timer of the first client's runs: until two others were closed, one after the other.
    for _ in 0..2 {
        let mut other = gateway.connect();
        other.send(&request("GET /health", &[], b""));
        assert_eq!(other.reply_to("GET").status, 200);
        assert!(other.is_closed());
    }
    client.send(b"i");
    assert_eq!(client.reply_to(PUBLISH).status, 202);
    assert!(client.is_closed());
}

#[test]
fn a_connection_that_is_used_now_and_then_outlives_the_time_of_a_head() {
    let gateway = with_timeouts(Duration::from_millis(100), Duration::from_hours(1));
    let mut clients = Vec::new();
    for (line, bytes) in whole_requests() {
        let mut client = gateway.connect();
        client.send(&bytes);
        client.reply_to(line);
        clients.push((line, bytes, client));
    }
    for _ in 0..2 {
        let mut slow = gateway.connect();
        slow.send(b"GET /health HTTP/1.1\r\n");
        assert_eq!(slow.reply_to("GET").status, 408);
    }
    for (line, bytes, client) in &mut clients {
        client.send(bytes);
        assert_ne!(client.reply_to(line).status, 408, "{line}");
    }
}

#[test]
fn a_head_in_two_parts_that_comes_in_time_is_served() {
    let gateway = TestGateway::in_memory();
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send(b"GET /health HTTP/1.1\r\nHo");
        std::thread::yield_now();
        client.send(b"st: x\r\n\r\n");
        assert_eq!(client.reply_to("GET").status, 200);
    }
}

#[test]
fn a_body_that_stops_is_cut_and_stores_nothing() {
    let gateway = impatient();
    for headers in [[("Content-Length", "10")], [("Transfer-Encoding", "chunked")]] {
        let mut client = gateway.connect();
        let body: &[u8] = if headers[0].0 == "Content-Length" { b"01234" } else { b"5\r\n01234\r\n" };
        let started = Instant::now();
        client.send(&request(PUBLISH, &headers, body));
        gateway.assert_alive("while a body is awaited");
        let reply = client.reply_to(PUBLISH);
        assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"), "{reply:?}");
        assert_eq!(reply.json()["setting"], "server.limits.body_timeout");
        assert_eq!(reply.json()["retryable"], true);
        assert_eq!(reply.header("posthaste-stored"), Some("no"));
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(started.elapsed() >= Duration::from_millis(600));
        assert!(client.is_closed());
        gateway.assert_alive("a body that stopped");
    }
    assert_eq!(gateway.accepted(), 4);
}

#[test]
fn a_slow_body_with_a_key_may_have_been_stored_by_an_earlier_try() {
    let gateway = impatient();
    let mut client = gateway.connect();
    let headers = [("Content-Length", "10"), ("Idempotency-Key", "k")];
    client.send(&request(PUBLISH, &headers, b"01234"));
    let reply = client.reply_to(PUBLISH);
    assert_eq!((reply.status, reply.header("posthaste-stored")), (408, Some("unknown")));
}

#[test]
fn a_body_that_trickles_is_cut_for_its_speed() {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.body_rate_after = Duration::from_secs(1);
    let gateway = TestGateway::in_memory_as(Plan { server, ..Plan::default() });
    let mut client = gateway.connect();
    client.send(&request(PUBLISH, &[("Content-Length", "100000")], b""));
    client.send(b"0123456789");
    for _ in 0..10 {
        gateway.assert_alive("while a body trickles");
    }
    let reply = client.reply_to(PUBLISH);
    assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"), "{reply:?}");
    assert_eq!(reply.json()["setting"], "server.limits.body_bytes_per_s_min");
    assert_eq!(reply.json()["limit"], 1_024);
    gateway.assert_alive("a body that trickled");
}

#[test]
fn stopping_ends_idle_connections_and_answers_what_is_under_way() {
    let gateway = TestGateway::in_memory();
    let mut idle = gateway.connect();
    idle.send(&request("GET /health", &[], b""));
    assert_eq!(idle.reply_to("GET").status, 200);
    let mut posting = gateway.connect();
    posting.send(&request(PUBLISH, &[("Content-Length", "5")], b"he"));
    // The head is with the gateway once another request that came later was answered.
    gateway.assert_alive("a body under way");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| gateway.stop(Duration::from_secs(10)));
        assert!(idle.is_closed());
        posting.send(b"llo");
        let reply = posting.reply_to(PUBLISH);
        assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
        assert!(stopping.join().expect("stopped"), "all was answered in time");
    });
}

#[test]
fn a_gateway_that_drains_says_so_and_takes_nothing() {
    let gateway = TestGateway::in_memory();
    gateway.edge.drain();
    let ready = gateway.look("/ready");
    assert_eq!((ready.status, ready.json()["reasons"][0]["code"].as_str()), (503, Some("draining")));
    for (headers, stored) in [(&[][..], "no"), (&[("Idempotency-Key", "k")], "unknown")] {
        let reply = gateway.publish("default", headers, b"x");
        assert_eq!((reply.status, reply.code().as_str()), (503, "shutting_down"));
        assert_eq!(reply.header("posthaste-stored"), Some(stored));
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(gateway.look("/health").status, 200);
    assert_eq!(gateway.look("/status").status, 200);
    assert_eq!(gateway.accepted(), 0);
}
