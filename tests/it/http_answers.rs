//! Input → exact answer, row by row; after each row the next request is served.

use super::http_gateway::{Client, Reply, TestGateway, chunked, request};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    paths_and_methods_have_their_answers
    targets_of_a_publish_have_their_answers
    options_of_a_publish_have_their_answers
    requests_on_one_connection_are_answered_in_their_order
}

/// A request and what must come back.
struct Row {
    name: &'static str,
    /// Method and target.
    line: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    /// The code of the problem; empty for an answer without one.
    code: &'static str,
    /// A member of the problem and its value.
    member: Option<(&'static str, &'static str)>,
}

const PUBLISH: &str = "POST /v1/queues/default/messages";

fn row(name: &'static str, line: &'static str, status: u16, code: &'static str) -> Row {
    Row { name, line, headers: Vec::new(), body: Vec::new(), status, code, member: None }
}

/// A publish with one header.
fn with(header: &'static str, value: &str, status: u16, code: &'static str) -> Row {
    Row { body: b"x".to_vec(), ..row(header, PUBLISH, status, code) }
        .header(header, value)
        .member("header", header)
}

impl Row {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn body(mut self, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    fn member(mut self, name: &'static str, value: &'static str) -> Self {
        self.member = Some((name, value)).filter(|_| self.status >= 400);
        self
    }

    fn check(&self, gateway: &TestGateway) {
        let name = self.name;
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut client = gateway.connect();
        client.send(&request(self.line, &headers, &self.body));
        let reply = client.reply_to(self.line);
        let shown = format!("{name}: {} {headers:?}: {reply:?}", self.line);
        assert_eq!(reply.status, self.status, "{shown}");
        let id = reply.header("posthaste-request-id").unwrap_or_default();
        assert_eq!(id.len(), 16, "{shown}");
        if self.status >= 400 {
            self.check_problem(&reply, id, &shown);
        }
        // On the same connection where it is kept, and on a new one in any case.
        if reply.header("connection") != Some("close") {
            client.send(&request("GET /health", &[], b""));
            assert_eq!(client.reply_to("GET /health").status, 200, "{shown}");
        }
        gateway.assert_alive(name);
    }

    fn check_problem(&self, reply: &Reply, id: &str, shown: &str) {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{shown}");
        let is_publish = self.line.starts_with("POST /v1/queues/") && self.line.contains("essages");
        let stored = is_publish.then_some("no");
        assert_eq!(reply.header("posthaste-stored"), stored, "{shown}");
        let waits = matches!(self.status, 429 | 503);
        assert_eq!(reply.header("retry-after").is_some(), waits, "{shown}");
        if self.line.starts_with("HEAD") {
            return;
        }
        let problem = reply.json();
        assert_eq!(problem["code"], self.code, "{shown}");
        assert_eq!(problem["type"], format!("/docs/errors#{}", self.code), "{shown}");
        assert_eq!(problem["status"], self.status, "{shown}");
        assert_eq!(problem["request_id"], id, "{shown}");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
        }
        assert!(problem["retryable"].is_boolean(), "{shown}");
        if let Some((member, value)) = self.member {
            let found = problem[member].as_str().map(str::to_ascii_lowercase);
            assert_eq!(found, Some(value.to_ascii_lowercase()), "{shown}");
        }
    }
}

fn check(home: &Home, rows: &[Row]) {
    let gateway = TestGateway::start(home);
    for row in rows {
        row.check(&gateway);
    }
}

fn paths_and_methods_have_their_answers(home: &Home) {
    check(
        home,
        &[
            row("the root", "GET /", 200, ""),
            row("its head", "HEAD /", 200, ""),
            row("health", "GET /health", 200, ""),
            row("its head", "HEAD /health", 200, ""),
            row("ready", "GET /ready", 200, ""),
            row("its head", "HEAD /ready?check=work", 200, ""),
            row("status", "GET /status", 200, ""),
            row("its head", "HEAD /status", 200, ""),
            row("a queue", "GET /v1/queues/default", 200, ""),
            row("its head", "HEAD /v1/queues/default", 200, ""),
            row("a name that is encoded", "GET /v1/queues/def%61ult", 200, ""),
            row("an empty query", "GET /health?", 200, ""),
            row("an absolute target", "GET http://test/health", 200, ""),
            row("nothing there", "GET /nothing", 404, "route_unknown"),
            row("a slash too many", "GET /health/", 404, "route_unknown"),
            row("a slash too many", "GET /v1/queues/default/", 404, "route_unknown"),
            row("a slash too many", "GET //health", 404, "route_unknown"),
            row("a slash too many", "POST /v1/queues/default/messages/x/y", 404, "route_unknown").body(b"x"),
            row("a slash too many", "POST /v1/queues/default/messages/", 404, "route_unknown").body(b"x"),
            row("a post to a message", "POST /v1/queues/default/messages/x", 405, "method_not_allowed")
                .body(b"x"),
            row("a batch is posted", "GET /v1/queues/default/messages/batch", 405, "method_not_allowed"),
            row("all queues", "GET /v1/queues", 200, ""),
            row("their head", "HEAD /v1/queues", 200, ""),
            row("not in this version", "GET /v1/jobs/1", 404, "route_unknown"),
            row(
                "a secret of a declared queue",
                "POST /v1/queues/default/secret",
                409,
                "queue_declared_in_file",
            ),
            row("a secret without a type", "POST /v1/queues/default/secret", 415, "unsupported_media_type")
                .body(b"{}"),
            row("a secret of nobody", "POST /v1/queues/nobody/secret", 404, "queue_unknown"),
            row("another version", "GET /v2/queues/default", 404, "route_unknown"),
            row("letters matter", "GET /Health", 404, "route_unknown"),
            row("the whole server", "OPTIONS *", 404, "route_unknown"),
            row("delete the root", "DELETE /", 405, "method_not_allowed"),
            row("post to health", "POST /health", 405, "method_not_allowed").body(b"x"),
            row("options of health", "OPTIONS /health", 405, "method_not_allowed"),
            row("read the messages", "GET /v1/queues/default/messages", 405, "method_not_allowed"),
            row("their head", "HEAD /v1/queues/default/messages", 405, "method_not_allowed"),
            row("a method of one's own", "BREW /status", 405, "method_not_allowed"),
            row("post a queue", "POST /v1/queues/default", 405, "method_not_allowed").body(b"{}"),
            row("small letters", "get /health", 405, "method_not_allowed"),
            row("an unknown queue", "GET /v1/queues/nothing", 404, "queue_unknown"),
            row("its head", "HEAD /v1/queues/nothing", 404, "queue_unknown"),
            row("no queue name", "GET /v1/queues/-x", 400, "invalid_queue_name"),
            row("no queue name", "GET /v1/queues/..", 400, "invalid_queue_name"),
            row("no queue name", "GET /v1/queues/a%2Fb", 400, "invalid_queue_name"),
            row("no queue name", "GET /v1/queues/a%00", 400, "invalid_queue_name"),
            row("no queue name", "GET /v1/queues/%ff", 400, "invalid_queue_name"),
            row("no queue name", "GET /v1/queues/a%252Fb", 400, "invalid_queue_name"),
            row("a parameter", "GET /health?x=1", 400, "unknown_parameter").member("parameter", "x"),
            row("a parameter", "GET /?x", 400, "unknown_parameter").member("parameter", "x"),
            row("a parameter", "GET /status?queues=default", 400, "unknown_parameter")
                .member("parameter", "queues"),
            row("a parameter", "GET /v1/queues/default?x", 400, "unknown_parameter").member("parameter", "x"),
            row("a queue that cannot be", "GET /status?queue=a/b", 400, "invalid_queue_name"),
            row("a check that is none", "GET /ready?check=all", 400, "invalid_value")
                .member("parameter", "check"),
            row("a check twice", "GET /ready?check=work&check=work", 400, "contradictory_options"),
        ],
    );
}

#[test]
fn the_allow_header_lists_what_is_allowed() {
    let gateway = TestGateway::in_memory();
    for (line, allow) in [
        ("DELETE /status", "GET, HEAD"),
        ("OPTIONS /v1/queues/default", "GET, HEAD, PUT, PATCH, DELETE"),
        ("PUT /v1/queues/default/messages", "POST"),
        ("PUT /v1/queues/default/messages/x", "GET, HEAD, DELETE"),
        ("DELETE /v1/queues/default/messages/batch", "POST"),
    ] {
        let reply = gateway.send(line, &[], b"");
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{line}");
    }
}

fn targets_of_a_publish_have_their_answers(home: &Home) {
    check(
        home,
        &[
            row("as it should be", PUBLISH, 202, "").body(b"x"),
            row("a name that is encoded", "POST /v1/queues/d%65fault/messages", 202, "").body(b"x"),
            row("a route that is encoded", "POST /v1/queues/default/%6Dessages", 202, "").body(b"x"),
            row("both, and unknown", "POST /v1/queues/nothing/%6Dessages", 404, "queue_unknown").body(b"x"),
            row("an empty query", "POST /v1/queues/default/messages?", 202, "").body(b"x"),
            row("an empty body", PUBLISH, 202, ""),
            row("an unknown queue", "POST /v1/queues/nothing/messages", 404, "queue_unknown").body(b"x"),
            row("a longest name", LONGEST, 404, "queue_unknown").body(b"x"),
            row("one too long", TOO_LONG, 400, "invalid_queue_name").body(b"x"),
            row("an empty name", "POST /v1/queues//messages", 400, "invalid_queue_name").body(b"x"),
            row("dots", "POST /v1/queues/../messages", 400, "invalid_queue_name").body(b"x"),
            row("encoded dots", "POST /v1/queues/%2e%2e/messages", 400, "invalid_queue_name").body(b"x"),
            row("an encoded slash", "POST /v1/queues/a%2Fb/messages", 400, "invalid_queue_name").body(b"x"),
            row("NUL", "POST /v1/queues/a%00b/messages", 400, "invalid_queue_name").body(b"x"),
            row("a line end", "POST /v1/queues/a%0d%0ab/messages", 400, "invalid_queue_name").body(b"x"),
            row("no UTF-8", "POST /v1/queues/a%ffb/messages", 400, "invalid_queue_name").body(b"x"),
            row("encoded twice", "POST /v1/queues/a%2541/messages", 400, "invalid_queue_name").body(b"x"),
            row("half an escape", "POST /v1/queues/a%4/messages", 400, "invalid_queue_name").body(b"x"),
            row("a star", "POST /v1/queues/*/messages", 400, "invalid_queue_name").body(b"x"),
            row("braces", "POST /v1/queues/%7Bq%7D/messages", 400, "invalid_queue_name").body(b"x"),
            row("a look-alike", "POST /v1/queues/d%D0%B5fault/messages", 400, "invalid_queue_name")
                .body(b"x"),
            row("a blank", "POST /v1/queues/a%20b/messages", 400, "invalid_queue_name").body(b"x"),
            row("a parameter", "POST /v1/queues/default/messages?delay=1s", 400, "unknown_parameter")
                .body(b"x")
                .member("parameter", "delay"),
        ],
    );
}

const LONGEST: &str = concat!(
    "POST /v1/queues/",
    "a123456789b123456789c123456789d123456789e123456789f123456789a123456789b123456789",
    "c123456789d123456789e123456789f123456789a1234567",
    "/messages"
);
const TOO_LONG: &str = concat!(
    "POST /v1/queues/",
    "a123456789b123456789c123456789d123456789e123456789f123456789a123456789b123456789",
    "c123456789d123456789e123456789f123456789a12345678",
    "/messages"
);

fn options_of_a_publish_have_their_answers(home: &Home) {
    check(
        home,
        &[
            with("Posthaste-Delay", "10s", 202, ""),
            with("Posthaste-Delay", "0s", 202, ""),
            with("Posthaste-Delay", "30d", 202, ""),
            with("Posthaste-Delay", "30d1ms", 400, "invalid_value"),
            with("Posthaste-Delay", "10", 400, "invalid_value"),
            with("Posthaste-Delay", "-1s", 400, "invalid_value"),
            with("Posthaste-Delay", "1e3s", 400, "invalid_value"),
            with("Posthaste-Delay", "NaN", 400, "invalid_value"),
            with("Posthaste-Delay", "1000000000000000000d", 400, "invalid_value"),
            with("Posthaste-Delay", "", 400, "invalid_value"),
            with("Posthaste-Deliver-At", "2020-01-01T00:00:00+05:30", 202, ""),
            with("Posthaste-Deliver-At", "2026-02-30T00:00:00Z", 400, "invalid_value"),
            with("Posthaste-Deliver-At", "10000-01-01T00:00:00Z", 400, "invalid_value"),
            with("Posthaste-Deliver-At", "2999-01-01T00:00:00Z", 400, "invalid_value"),
            with("Posthaste-Deliver-At", "2026-02-30T00:00:00Z", 400, "invalid_value"),
            with("Posthaste-Deliver-At", "1700000000", 400, "invalid_value"),
            with("Posthaste-TTL", "1ms", 202, ""),
            with("Posthaste-TTL", "0s", 400, "invalid_value"),
            with("Posthaste-TTL", "31d", 400, "invalid_value"),
            with("Posthaste-Priority", "low", 202, ""),
            with("Posthaste-Priority", "urgent", 400, "invalid_value"),
            with("Posthaste-Max-Attempts", "1", 202, ""),
            with("Posthaste-Max-Attempts", "255", 202, ""),
            with("Posthaste-Max-Attempts", "0", 400, "invalid_value"),
            with("Posthaste-Max-Attempts", "256", 400, "invalid_value"),
            with("Posthaste-Max-Attempts", "1.5", 400, "invalid_value"),
            with("Posthaste-Method", "DELETE", 202, ""),
            with("Posthaste-Method", "CONNECT", 400, "invalid_value"),
            with("Posthaste-Timeout", "15m", 202, ""),
            with("Posthaste-Timeout", "1ms", 400, "invalid_value"),
            with("Posthaste-Destination", "https://example.com/", 422, "destination_not_allowed"),
            with("Posthaste-Destination", "gopher://example.com/", 400, "invalid_value"),
            with("Posthaste-Forward-X-Tenant", "7", 202, ""),
            with("Posthaste-Forward-Authorization", "Bearer x", 202, ""),
            with("Posthaste-Forward-Cookie", "a=b", 202, ""),
            with("Posthaste-Forward-Content-Encoding", "gzip", 202, ""),
            with("Posthaste-Forward-Connection", "x", 422, "header_not_forwardable"),
            with("Posthaste-Forward-Host", "x", 422, "header_not_forwardable"),
            with("Posthaste-Forward-Content-Length", "1", 422, "header_not_forwardable"),
            with("Posthaste-Forward-Transfer-Encoding", "chunked", 422, "header_not_forwardable"),
            with("Posthaste-Forward-Webhook-Signature", "x", 422, "header_not_forwardable"),
            with("Posthaste-Forward-Posthaste-Via", "x", 422, "header_not_forwardable"),
            with("Posthaste-Forward-", "x", 400, "unknown_header"),
            with("Posthaste-Dealy", "1s", 400, "unknown_header"),
            with("Posthaste-Stored", "no", 400, "unknown_header"),
            with("Idempotency-Key", "order-1", 202, ""),
            with("Idempotency-Key", "", 400, "invalid_value"),
            with("Idempotency-Key", "\"\"", 400, "invalid_value"),
            with("Idempotency-Key", &"k".repeat(257), 400, "invalid_value"),
            with("Content-Encoding", "identity", 202, ""),
            with("Content-Encoding", "gzip", 415, "unsupported_content_encoding"),
            with("Content-Encoding", "br, gzip", 415, "unsupported_content_encoding"),
            with("Content-Type", "caf\u{e9}", 400, "invalid_value"),
            with("Posthaste-TTL", "1d", 400, "contradictory_options").header("Posthaste-TTL", "1d"),
            with("Posthaste-Forward-A", "1", 400, "contradictory_options").header("posthaste-forward-a", "2"),
            with("Idempotency-Key", "a", 400, "contradictory_options").header("Idempotency-Key", "a"),
            with("Content-Type", "text/plain", 400, "contradictory_options")
                .header("Content-Type", "text/plain"),
            row("a delay and a moment", PUBLISH, 400, "contradictory_options")
                .header("Posthaste-Delay", "1s")
                .header("Posthaste-Deliver-At", "2020-01-01T00:00:00Z"),
            row("what Connection names", PUBLISH, 422, "header_not_forwardable")
                .header("Connection", "x-hop")
                .header("Posthaste-Forward-X-Hop", "1"),
            row("a broken trace", PUBLISH, 202, "").header("traceparent", "nonsense").body(b"x"),
            row("what others send", PUBLISH, 202, "")
                .header("X-Request-Id", "1")
                .header("Authorization", "x"),
            row("a delivery passed on", PUBLISH, 202, "")
                .header("Posthaste-Attempt", "1")
                .header("Posthaste-Via", "x"),
        ],
    );
}

#[test]
fn framing_that_means_two_things_is_refused_by_the_server_itself() {
    let gateway = TestGateway::in_memory();
    for (name, head, body, status) in [
        ("length and chunks", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("two lengths", "Content-Length: 1\r\nContent-Length: 1\r\n", "x", 400),
        ("a signed length", "Content-Length: +1\r\n", "x", 400),
        ("a negative length", "Content-Length: -1\r\n", "x", 400),
        ("a length in hex", "Content-Length: 0x1\r\n", "x", 400),
        ("two codings", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 400),
        ("an unknown coding", "Transfer-Encoding: gzip\r\n", "x", 400),
        ("two hosts", "Host: other\r\n", "", 400),
        ("a blank before the colon", "X-A : 1\r\n", "", 400),
        ("a folded line", "X-A: 1\r\n  2\r\n", "", 400),
        ("NUL in a value", "X-A: \0\r\n", "", 400),
    ] {
        let mut client = gateway.connect();
        client.send(format!("{PUBLISH} HTTP/1.1\r\nHost: test\r\n{head}\r\n{body}").as_bytes());
        let reply = client.reply_to(PUBLISH);
        assert_eq!((reply.status, reply.body.len()), (status, 0), "{name}: {reply:?}");
        assert!(client.is_closed(), "{name}");
        gateway.assert_alive(name);
    }
    for (name, bytes) in [
        ("no host", &b"GET /health HTTP/1.1\r\n\r\n"[..]),
        ("no request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"),
        ("an old post without a length", b"POST /v1/queues/default/messages HTTP/1.0\r\n\r\n"),
    ] {
        let mut client = gateway.connect();
        client.send(bytes);
        assert_eq!(client.reply_to("GET").status, 400, "{name}");
        gateway.assert_alive(name);
    }
}

#[test]
fn heads_are_held_to_their_limits() {
    let gateway = TestGateway::in_memory();
    let head = |client: &mut Client, line: &str, headers: &[(&str, &str)], body: &[u8]| {
        client.send(&request(line, headers, body));
        client.reply_to(line)
    };
    // Host and Content-Length are two of the 64.
    let names: Vec<String> = (0..63).map(|number| format!("X-{number}")).collect();
    let lines: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(head(&mut gateway.connect(), PUBLISH, &lines[..62], b"x").status, 202);
    let many = head(&mut gateway.connect(), PUBLISH, &lines, b"x");
    assert_eq!((many.status, many.code().as_str()), (431, "head_too_large"));
    assert_eq!(many.header("posthaste-stored"), Some("no"));
    assert_eq!(many.json()["setting"], "server.limits.head_headers_max");
    assert_eq!(many.json()["limit"], 64);
    gateway.assert_alive("too many headers");

    let fixed = request(PUBLISH, &[("X", "")], b"x").len() - 1;
    for (length, status) in [((32 << 10) - fixed, 202), ((32 << 10) - fixed + 1, 431)] {
        let value = "v".repeat(length);
        let reply = head(&mut gateway.connect(), PUBLISH, &[("X", &value)], b"x");
        assert_eq!(reply.status, status, "{length} bytes: {reply:?}");
    }
    gateway.assert_alive("a head too large");

    for (length, status) in [(8 << 10, 404), ((8 << 10) + 1, 414)] {
        let line = format!("GET /{}", "a".repeat(length - 1));
        let reply = head(&mut gateway.connect(), &line, &[], b"");
        assert_eq!(reply.status, status, "{length} bytes");
    }
    gateway.assert_alive("a target too long");

    let huge = "v".repeat(140 << 10);
    let reply = head(&mut gateway.connect(), "GET /health", &[("X", &huge)], b"");
    assert_eq!((reply.status, reply.body.len()), (431, 0));
    let names: Vec<String> = (0..100).map(|number| format!("X-{number}")).collect();
    let lines: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let reply = head(&mut gateway.connect(), "GET /health", &lines, b"");
    assert_eq!((reply.status, reply.body.len()), (431, 0));
    gateway.assert_alive("a head beyond the server's limit");
}

fn requests_on_one_connection_are_answered_in_their_order(home: &Home) {
    let gateway = TestGateway::start(home);
    let mut client = gateway.connect();
    let mut all = Vec::new();
    for number in 0..20_u8 {
        all.extend(request(PUBLISH, &[], &[number; 40]));
        all.extend(request("GET /health", &[], b""));
        all.extend(request(PUBLISH, &[("Transfer-Encoding", "chunked")], &chunked(&[number; 40], 7)));
    }
    client.send(&all);
    for _ in 0..20 {
        assert_eq!(client.reply_to(PUBLISH).status, 202);
        assert_eq!(client.reply_to("GET /health").body, b"OK");
        assert_eq!(client.reply_to(PUBLISH).status, 202);
    }
    assert_eq!(gateway.accepted(), 40);
}
