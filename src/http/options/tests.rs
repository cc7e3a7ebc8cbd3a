//! What each option takes, and how what it does not take is refused.

use actix_http::header::HeaderName;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn read_bytes(lines: &[(&str, &[u8])]) -> Result<Options, Refusal> {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    Options::read(&map, &ServerLimits::default(), NOW)
}

fn read(lines: &[(&str, &str)]) -> Result<Options, Refusal> {
    let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    read_bytes(&lines)
}

fn refused(lines: &[(&str, &str)]) -> Refusal {
    read(lines).expect_err("must be refused")
}

#[test]
fn what_is_said_is_read() {
    let options = read(&[
        ("Content-Type", "application/json; charset=utf-8"),
        ("Idempotency-Key", "\"order-7\""),
        ("Posthaste-Delay", "1h30m"),
        ("Posthaste-TTL", "7d"),
        ("Posthaste-Priority", "high"),
        ("Posthaste-Max-Attempts", "255"),
        ("Posthaste-Method", "PUT"),
        ("Posthaste-Timeout", "100ms"),
        ("Posthaste-Forward-X-Tenant", "a b\tc"),
        ("Posthaste-Forward-Authorization", "Bearer x"),
        ("Posthaste-Forward-Content-Encoding", "gzip"),
        ("Posthaste-Forward-Empty", ""),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("X-Anything", "goes"),
        ("Authorization", "ours alone"),
        ("Content-Encoding", "Identity"),
        ("Posthaste-Attempt", "3"),
    ])
    .expect("valid");
    assert_eq!(options.key.as_deref(), Some(&b"order-7"[..]));
    assert_eq!(options.due, Some(Due::After(Duration::from_mins(90))));
    assert_eq!(options.ttl, Some(Duration::from_hours(24 * 7)));
    assert_eq!((options.priority, options.attempts_max), (Some(Priority::High), Some(255)));
    assert_eq!(options.credential(), Some("authorization"));
    let headers = options.headers;
    assert_eq!(headers.content_type, "application/json; charset=utf-8");
    assert_eq!(headers.method.as_deref(), Some("PUT"));
    assert_eq!(headers.timeout, Some(Duration::from_millis(100)));
    assert_eq!(headers.deliver_at, Some(NOW.saturating_add(Duration::from_mins(90))));
    assert_eq!(headers.tracestate.as_deref(), Some("a=1,b=2"));
    assert!(headers.traceparent.is_some());
    let forward: Vec<_> =
        headers.forward.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected =
        [("authorization", "Bearer x"), ("content-encoding", "gzip"), ("empty", ""), ("x-tenant", "a b\tc")];
    assert_eq!(forward, expected);
}

#[test]
fn nothing_said_is_nothing_set() {
    let options = read(&[("Host", "x"), ("User-Agent", "y")]).expect("valid");
    assert!(options.key.is_none() && options.due.is_none() && options.ttl.is_none());
    assert_eq!(options.headers, Headers::default());
}

#[test]
fn each_refusal_names_its_header_and_code() {
    let long = "k".repeat(257);
    for (line, code, header, words) in [
        (("Posthaste-Delay", "10"), Code::InvalidValue, "Posthaste-Delay", "has no unit"),
        (("Posthaste-Delay", "-1s"), Code::InvalidValue, "Posthaste-Delay", "is not a duration"),
        (("Posthaste-Delay", "NaNs"), Code::InvalidValue, "Posthaste-Delay", "is not a duration"),
        (("Posthaste-Delay", ""), Code::InvalidValue, "Posthaste-Delay", "is not a duration"),
        (("Posthaste-Delay", "31d"), Code::InvalidValue, "Posthaste-Delay", "0s to 30d"),
        (("Posthaste-Delay", "1000000000000000000d"), Code::InvalidValue, "Posthaste-Delay", "too long"),
        (("Posthaste-Deliver-At", "tomorrow"), Code::InvalidValue, "Posthaste-Deliver-At", "RFC 3339"),
        (
            ("Posthaste-Deliver-At", "10000-01-01T00:00:00Z"),
            Code::InvalidValue,
            "Posthaste-Deliver-At",
            "RFC 3339",
        ),
        (
            ("Posthaste-Deliver-At", "2999-01-01T00:00:00Z"),
            Code::InvalidValue,
            "Posthaste-Deliver-At",
            "more than 30d",
        ),
        (("Posthaste-TTL", "0s"), Code::InvalidValue, "Posthaste-TTL", "1ms to 30d"),
        (("Posthaste-TTL", "30d1ms"), Code::InvalidValue, "Posthaste-TTL", "1ms to 30d"),
        (("Posthaste-Priority", "HIGH"), Code::InvalidValue, "Posthaste-Priority", "high, normal or low"),
        (("Posthaste-Max-Attempts", "0"), Code::InvalidValue, "Posthaste-Max-Attempts", "1 to 255"),
        (("Posthaste-Max-Attempts", "256"), Code::InvalidValue, "Posthaste-Max-Attempts", "1 to 255"),
        (("Posthaste-Max-Attempts", "+3"), Code::InvalidValue, "Posthaste-Max-Attempts", "1 to 255"),
        (("Posthaste-Max-Attempts", "3.0"), Code::InvalidValue, "Posthaste-Max-Attempts", "1 to 255"),
        (("Posthaste-Destination", "ftp://x.example"), Code::InvalidValue, "Posthaste-Destination", "scheme"),
        (("Posthaste-Method", "post"), Code::InvalidValue, "Posthaste-Method", "POST, PUT"),
        (("Posthaste-Method", "HEAD"), Code::InvalidValue, "Posthaste-Method", "POST, PUT"),
        (("Posthaste-Timeout", "99ms"), Code::InvalidValue, "Posthaste-Timeout", "100ms to 15m"),
        (("Posthaste-Timeout", "15m1ms"), Code::InvalidValue, "Posthaste-Timeout", "100ms to 15m"),
        (("Posthaste-Dealy", "1s"), Code::UnknownHeader, "posthaste-dealy", "did you mean Posthaste-Delay?"),
        (("Posthaste-Forward-", "x"), Code::UnknownHeader, "posthaste-forward-", "is not an option"),
        (("Posthaste-Request-Id", "x"), Code::UnknownHeader, "posthaste-request-id", "is not an option"),
        (("Posthaste-Forward-Host", "x"), Code::HeaderNotForwardable, "posthaste-forward-host", "never"),
        (("Posthaste-Forward-TE", "x"), Code::HeaderNotForwardable, "posthaste-forward-te", "one connection"),
        (
            ("Posthaste-Forward-Webhook-Id", "x"),
            Code::HeaderNotForwardable,
            "posthaste-forward-webhook-id",
            "itself",
        ),
        (("Idempotency-Key", ""), Code::InvalidValue, "Idempotency-Key", "is empty"),
        (("Idempotency-Key", "\"\""), Code::InvalidValue, "Idempotency-Key", "is empty"),
        (("Idempotency-Key", &long), Code::InvalidValue, "Idempotency-Key", "257 bytes"),
        (
            ("Content-Encoding", "gzip"),
            Code::UnsupportedContentEncoding,
            "Content-Encoding",
            "Posthaste-Forward-",
        ),
        (("Content-Encoding", ""), Code::UnsupportedContentEncoding, "Content-Encoding", "never decoded"),
        (
            ("Content-Encoding", "identity, gzip"),
            Code::UnsupportedContentEncoding,
            "Content-Encoding",
            "never",
        ),
    ] {
        let refusal = refused(&[line]);
        let problem = refusal.problem();
        assert_eq!(problem.known_code(), Some(code), "{line:?}: {problem:?}");
        assert_eq!(problem.header.as_deref(), Some(header), "{line:?}");
        assert!(problem.detail.contains(words), "{line:?}: {}", problem.detail);
    }
}

#[test]
fn an_option_is_said_once() {
    for name in [
        "Posthaste-TTL",
        "Posthaste-Timeout",
        "Posthaste-Delay",
        "Posthaste-Forward-X",
        "Idempotency-Key",
        "Content-Type",
    ] {
        let problem_of = refused(&[(name, "5s"), (name, "5s")]);
        assert_eq!(problem_of.code(), Code::ContradictoryOptions, "{name}");
        let header = problem_of.problem().header.clone().expect("named");
        assert!(header.eq_ignore_ascii_case(name), "{name}: {header}");
    }
    let both = refused(&[("Posthaste-Delay", "5s"), ("Posthaste-Deliver-At", "2023-01-01T00:00:00Z")]);
    assert_eq!(both.code(), Code::ContradictoryOptions);
    assert!(both.problem().detail.contains("send one of them"));
    for name in ["Posthaste-Delay", "Posthaste-Deliver-At"] {
        let value = if name.ends_with('y') { "5s" } else { "2023-01-01T00:00:00Z" };
        let twice = refused(&[(name, value), (name, value)]);
        assert_eq!(twice.problem().detail, format!("{name} is there twice"));
    }
}

#[test]
fn of_several_mistakes_the_same_one_is_named_every_time() {
    for _ in 0..20 {
        let lines = [("Posthaste-TTL", "2"), ("Posthaste-Priority", "x"), ("Posthaste-Dela", "1s")];
        assert_eq!(refused(&lines).problem().header.as_deref(), Some("posthaste-dela"));
        let lines = [("Posthaste-Delay", "5s"), ("Posthaste-Deliver-At", "2023-01-01T00:00:00Z")];
        assert_eq!(refused(&lines).problem().header.as_deref(), Some("Posthaste-Deliver-At"));
    }
}

#[test]
fn the_nearest_option_is_one_that_may_have_been_meant() {
    for (name, expected) in [
        ("posthaste-dealy", Some("Posthaste-Delay")),
        ("posthaste-deliver", Some("Posthaste-Deliver-At")),
        ("posthaste-attempts", Some("Posthaste-Max-Attempts")),
        ("posthaste-forwad-x", Some("Posthaste-Forward-<Name>")),
        ("posthaste-idempotency-key", Some("Idempotency-Key")),
        ("posthaste-content-type", Some("Content-Type")),
        ("posthaste-traceparent", Some("traceparent")),
        ("posthaste-tracestate", Some("tracestate")),
        ("posthaste-retry", None),
        ("posthaste-stored", None),
        ("posthaste-request-id", None),
        ("posthaste-x", None),
        ("posthaste-", None),
    ] {
        assert_eq!(meant(name), expected, "{name}");
        let mut headers = HeaderMap::new();
        let header = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.insert(header, HeaderValue::from_static("x"));
        let detail = check_none(&headers).expect_err("refused").problem().detail.clone();
        assert_eq!(detail.contains("is an option of a publish"), expected.is_some(), "{detail}");
    }
}

#[test]
fn the_edges_of_each_range_are_within() {
    for line in [
        ("Posthaste-Delay", "0s"),
        ("Posthaste-Delay", "30d"),
        ("Posthaste-TTL", "1ms"),
        ("Posthaste-TTL", "30d"),
        ("Posthaste-Timeout", "15m"),
        ("Posthaste-Max-Attempts", "1"),
        ("Posthaste-Deliver-At", "1970-01-01T00:00:00Z"),
        ("Idempotency-Key", &"k".repeat(256)),
        ("Idempotency-Key", &format!("\"{}\"", "k".repeat(256))),
        ("Idempotency-Key", "\""),
    ] {
        assert!(read(&[line]).is_ok(), "{line:?}");
    }
    let past = read(&[("Posthaste-Deliver-At", "2020-01-01T01:00:00+01:00")]).expect("the past means now");
    assert_eq!(past.due, Some(Due::At(Timestamp::from_millis(1_577_836_800_000))));
}

#[test]
fn bytes_that_are_not_ascii_pass_in_a_key_only() {
    assert_eq!(
        read_bytes(&[("idempotency-key", b"\xff\xfe")]).expect("opaque").key,
        Some(b"\xff\xfe".to_vec())
    );
    for name in ["content-type", "posthaste-forward-x", "posthaste-delay", "posthaste-destination"] {
        let refusal = read_bytes(&[(name, b"a\xffb")]).expect_err(name);
        assert_eq!(refusal.code(), Code::InvalidValue, "{name}");
        assert!(refusal.problem().detail.contains("visible ASCII"), "{name}");
    }
}

#[test]
fn a_broken_trace_is_ignored_and_never_refused() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let broken = read(&[("traceparent", "00-x"), ("tracestate", "a=1")]).expect("valid");
    assert_eq!((broken.headers.traceparent, broken.headers.tracestate), (None, None));
    let twice = read(&[("traceparent", parent), ("traceparent", parent)]).expect("valid");
    assert_eq!(twice.headers.traceparent, None);
    let state = read(&[("traceparent", parent), ("tracestate", "a")]).expect("valid");
    assert_eq!((state.headers.traceparent.as_deref(), state.headers.tracestate), (Some(parent), None));
    assert!(read_bytes(&[("traceparent", b"\xff"), ("tracestate", b"\xff")]).is_ok());
}

#[test]
fn what_connection_names_is_not_forwarded() {
    let lines = [("Connection", "keep-alive, X-Hop"), ("Posthaste-Forward-X-Hop", "1")];
    let refusal = refused(&lines);
    assert_eq!(refusal.code(), Code::HeaderNotForwardable);
    assert_eq!(refusal.problem().header.as_deref(), Some("posthaste-forward-x-hop"));
    assert!(read(&[("Connection", "keep-alive"), ("Posthaste-Forward-X-Hop", "1")]).is_ok());
}
