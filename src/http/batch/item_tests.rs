//! What an item takes, and how what it does not take is refused.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::destination::Destination;
use crate::domain::message::Priority;
use crate::http::batch::array::Array;
use crate::http::batch::tests::block_on;
use crate::store::enqueue::Due;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn read_with(item: &str, common: &Options, is_atomic: bool) -> Result<(Vec<u8>, Option<Options>), Refusal> {
    let body = format!("[{item}]");
    let limits = ServerLimits::default();
    block_on(async {
        let (mut array, mut pace) = (Array::new(body.as_bytes()), Pace::default());
        let fields = array.next(&mut pace).await?.expect("an item")?;
        let terms = Terms { common, limits: &limits, now: NOW, is_atomic };
        let item = super::read(&fields, 0, terms, &mut pace).await?;
        Ok((item.payload.into_owned(), item.options))
    })
}

fn read(item: &str) -> Result<(Vec<u8>, Option<Options>), Refusal> {
    read_with(item, &Options::default(), false)
}

#[test]
fn a_payload_comes_as_text_json_or_base64() {
    for (item, payload, content_type) in [
        (r#"{"payload":"grüß\n\ud83d\ude00"}"#, "grüß\n😀".as_bytes(), None),
        (r#"{"payload":""}"#, b"", None),
        (
            r#"{"payload_json": {"b" : 1,"a":[ ] ,"a":1e999} }"#,
            br#"{"b" : 1,"a":[ ] ,"a":1e999}"#,
            Some("application/json"),
        ),
        (r#"{"payload_json":null}"#, b"null", Some("application/json")),
        (r#"{"payload_json":"\u0061"}"#, br#""\u0061""#, Some("application/json")),
        (r#"{"payload_base64":"\/wA="}"#, b"\xff\0", None),
        (r#"{"payload_base64":""}"#, b"", None),
        (r#"{"payload_json":1,"content_type":"application/x+json"}"#, b"1", Some("application/x+json")),
        (r#"{"payload":"x","content_type":" text/plain\t"}"#, b"x", Some("text/plain")),
    ] {
        let (found, options) = read(item).expect(item);
        assert_eq!(found, payload, "{item}");
        assert_eq!(options.map(|options| options.headers.content_type).as_deref(), content_type, "{item}");
    }
}

#[test]
fn a_long_payload_is_decoded_in_pieces() {
    let bytes: Vec<u8> = (0..200_001_usize).map(|place| place.to_le_bytes()[0]).collect();
    let item = json!({"payload_base64": STANDARD.encode(&bytes)}).to_string();
    assert!(read(&item).expect("valid").0 == bytes);
    // Padding in the middle, also where a piece ends.
    for at in [BASE64_CHARS - 1, BASE64_CHARS + 3] {
        let mut text = STANDARD.encode(&bytes);
        text.replace_range(at..=at, "=");
        assert!(read(&json!({"payload_base64": text}).to_string()).is_err(), "{at}");
    }
}

#[test]
fn an_item_says_all_that_headers_can() {
    let (_, options) = read(&json!({
        "payload": "x", "content_type": "text/plain", "delay": "1h30m", "ttl": "7d", "priority": "high", "max_attempts": 255,
        "method": "PUT", "timeout": "100ms", "traceparent": PARENT, "idempotency_key": "\"order-7\"",
        "headers": {"X-Tenant": " a b\tc ", "authorization": "Bearer x", "Empty": ""},
        "destination": "https://example.com/a",
    }).to_string()).expect("valid");
    let options = options.expect("its own");
    assert_eq!(options.key.as_deref(), Some(&b"order-7"[..]));
    assert_eq!(options.due, Some(Due::After(Duration::from_mins(90))));
    assert_eq!((options.ttl, options.priority), (Some(Duration::from_hours(168)), Some(Priority::High)));
    assert_eq!(options.attempts_max, Some(255));
    assert_eq!(options.destination.as_ref().map(Destination::as_str), Some("https://example.com/a"));
    let headers = options.headers;
    assert_eq!((headers.method.as_deref(), headers.timeout), (Some("PUT"), Some(Duration::from_millis(100))));
    assert_eq!(headers.deliver_at, Some(NOW.saturating_add(Duration::from_mins(90))));
    assert_eq!(headers.traceparent.as_deref(), Some(PARENT));
    let forward: Vec<_> =
        headers.forward.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(forward, [("authorization", "Bearer x"), ("empty", ""), ("x-tenant", "a b\tc")]);
}

#[test]
fn what_an_item_says_wins_over_what_the_request_says_of_all() {
    let mut common = Options {
        due: Some(Due::After(Duration::from_secs(9))),
        ttl: Some(Duration::from_secs(5)),
        ..Options::default()
    };
    common.headers.deliver_at = Some(NOW.saturating_add(Duration::from_secs(9)));
    common.headers.traceparent = Some(PARENT.replace("01", "00"));
    common.headers.tracestate = Some("a=1".to_owned());
    common.headers.forward = vec![("x-a".to_owned(), "1".to_owned()), ("x-b".to_owned(), "1".to_owned())];
    assert!(read_with(r#"{"payload":"x"}"#, &common, true).expect("valid").1.is_none(), "it says nothing");
    let item = json!({
        "payload": "x", "deliver_at": "2020-01-01T00:00:00Z", "headers": {"X-B": "2", "x-c": "3"}, "traceparent": PARENT,
    });
    let options = read_with(&item.to_string(), &common, true).expect("valid").1.expect("its own");
    let past = Timestamp::parse("2020-01-01T00:00:00Z").expect("a time");
    assert_eq!((options.due, options.headers.deliver_at), (Some(Due::At(past)), Some(past)));
    assert_eq!(options.ttl, Some(Duration::from_secs(5)));
    assert_eq!((options.headers.traceparent.as_deref(), options.headers.tracestate), (Some(PARENT), None));
    let forward: Vec<_> =
        options.headers.forward.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(forward, ["x-a=1", "x-b=2", "x-c=3"]);
    let broken = read_with(r#"{"payload":"x","traceparent":"00-x"}"#, &common, true).expect("ignored").1;
    assert!(broken.is_none(), "a broken one is none");
}

#[test]
fn each_refusal_names_its_place_and_code() {
    let (long, many) = (
        "k".repeat(257),
        (0..65).map(|name| (format!("x-{name}"), json!("v"))).collect::<serde_json::Map<_, _>>(),
    );
    let too_long = format!(r#""{}""#, "9".repeat(OPTION_BYTES_MAX));
    for (field, value, code, pointer, words) in [
        ("delay", r#""10""#, Code::InvalidValue, "/0/delay", "delay: "),
        ("delay", "10", Code::InvalidValue, "/0/delay", "not a string"),
        ("delay", "null", Code::InvalidValue, "/0/delay", "left out"),
        ("delay", r#""31d""#, Code::InvalidValue, "/0/delay", "0s to 30d"),
        ("delay", r#"" 1s""#, Code::InvalidValue, "/0/delay", "not a duration"),
        ("delay", &too_long, Code::InvalidValue, "/0/delay", "too long"),
        ("deliver_at", r#""tomorrow""#, Code::InvalidValue, "/0/deliver_at", "RFC 3339"),
        ("deliver_at", r#""2999-01-01T00:00:00Z""#, Code::InvalidValue, "/0/deliver_at", "more than 30d"),
        ("ttl", r#""0s""#, Code::InvalidValue, "/0/ttl", "1ms to 30d"),
        ("ttl", r#"{"s":1}"#, Code::InvalidValue, "/0/ttl", "not a string"),
        ("priority", r#""HIGH""#, Code::InvalidValue, "/0/priority", "high, normal or low"),
        ("priority", "1", Code::InvalidValue, "/0/priority", "not a string"),
        ("max_attempts", "0", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", "256", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", "3.0", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", "-1", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", "1e1", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", r#""3""#, Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("max_attempts", "null", Code::InvalidValue, "/0/max_attempts", "1 to 255"),
        ("destination", r#""ftp://x.example""#, Code::InvalidValue, "/0/destination", "scheme"),
        ("method", r#""post""#, Code::InvalidValue, "/0/method", "POST, PUT"),
        ("timeout", r#""99ms""#, Code::InvalidValue, "/0/timeout", "100ms to 15m"),
        ("traceparent", "7", Code::InvalidValue, "/0/traceparent", "not a string"),
        ("content_type", r#""text/ü""#, Code::InvalidValue, "/0/content_type", "visible ASCII"),
        ("content_type", r#""a\nb""#, Code::InvalidValue, "/0/content_type", "visible ASCII"),
        ("idempotency_key", r#""""#, Code::InvalidValue, "/0/idempotency_key", "is empty"),
        ("idempotency_key", &format!("{long:?}"), Code::InvalidValue, "/0/idempotency_key", "257 bytes"),
        ("headers", "[]", Code::InvalidValue, "/0/headers", "an object"),
        ("headers", r#"{"X-A":1}"#, Code::InvalidValue, "/0/headers/X-A", "not a string"),
        ("headers", r#"{"X A":"1"}"#, Code::InvalidValue, "/0/headers/X A", "not a header's name"),
        ("headers", r#"{"":"1"}"#, Code::InvalidValue, "/0/headers/", "not a header's name"),
        ("headers", r#"{"x/y":"1"}"#, Code::InvalidValue, "/0/headers/x~1y", "not a header's name"),
        ("headers", r#"{"X-A":"a\r\nb: c"}"#, Code::InvalidValue, "/0/headers/X-A", "visible ASCII"),
        ("headers", r#"{"X-A":"1","x-a":"2"}"#, Code::ContradictoryOptions, "/0/headers/x-a", "twice"),
        ("headers", r#"{"X-A":"1","X-A":"2"}"#, Code::Malformed, "/0/headers", "twice"),
        ("headers", r#"{"Host":"1"}"#, Code::HeaderNotForwardable, "/0/headers/Host", "one connection"),
        ("headers", r#"{"Webhook-Id":"1"}"#, Code::HeaderNotForwardable, "/0/headers/Webhook-Id", "itself"),
        (
            "headers",
            r#"{"Posthaste-Via":"1"}"#,
            Code::HeaderNotForwardable,
            "/0/headers/Posthaste-Via",
            "itself",
        ),
        ("headers", &Value::from(many).to_string(), Code::HeadTooLarge, "/0/headers", "at most 64"),
        (
            "headers",
            &format!(r#"{{"a":"{}"}}"#, "x".repeat(OPTION_BYTES_MAX)),
            Code::HeadTooLarge,
            "/0/headers",
            "65535",
        ),
        ("payload_json", "1", Code::ContradictoryOptions, "/0/payload_json", "two payloads"),
        ("payload_base64", r#""""#, Code::ContradictoryOptions, "/0/payload_base64", "two payloads"),
        ("dealy", "1", Code::UnknownField, "/0/dealy", "did you mean \"delay\"?"),
        ("tracestate", r#""a=1""#, Code::UnknownField, "/0/tracestate", "is not a field"),
        ("id", "1", Code::UnknownField, "/0/id", "is not a field"),
    ] {
        let refusal = read(&format!(r#"{{"payload":"x","{field}":{value}}}"#)).expect_err(value);
        let problem = refusal.problem();
        assert_eq!(problem.known_code(), Some(code), "{field} {value:.80}: {problem:?}");
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{field} {value:.80}");
        assert!(
            problem.detail.contains(words) && problem.detail.len() < 400,
            "{value:.80}: {}",
            problem.detail
        );
    }
}

#[test]
fn what_is_wrong_with_a_payload_is_said() {
    for (item, code, pointer, words) in [
        ("{}", Code::InvalidValue, "/0", "has a payload"),
        (r#"{"ttl":"1s"}"#, Code::InvalidValue, "/0", "payload_base64"),
        (r#"{"payload":null}"#, Code::InvalidValue, "/0/payload", "not a string"),
        (r#"{"payload":{"a":1}}"#, Code::InvalidValue, "/0/payload", "not a string"),
        (r#"{"payload_base64":"a"}"#, Code::InvalidValue, "/0/payload_base64", "not base64"),
        (r#"{"payload_base64":"YQ"}"#, Code::InvalidValue, "/0/payload_base64", "padded"),
        (r#"{"payload_base64":"_wA="}"#, Code::InvalidValue, "/0/payload_base64", "not base64"),
        (r#"{"payload_base64":"YQ=\n="}"#, Code::InvalidValue, "/0/payload_base64", "not base64"),
        (r#"{"payload_base64":7}"#, Code::InvalidValue, "/0/payload_base64", "not a string"),
    ] {
        let refusal = read(item).expect_err(item);
        assert_eq!((refusal.code(), refusal.problem().pointer.as_deref()), (code, Some(pointer)), "{item}");
        assert!(refusal.problem().detail.contains(words), "{item}: {refusal:?}");
    }
    let both = read(r#"{"payload":"x","delay":"1s","deliver_at":"2020-01-01T00:00:00Z"}"#).expect_err("both");
    assert_eq!(
        (both.code(), both.problem().pointer.as_deref()),
        (Code::ContradictoryOptions, Some("/0/deliver_at"))
    );
}

#[test]
fn an_item_of_a_unit_has_no_key_of_its_own() {
    let item = r#"{"payload":"x","idempotency_key":"k"}"#;
    let refusal = read_with(item, &Options::default(), true).expect_err("a unit");
    assert_eq!(refusal.code(), Code::ContradictoryOptions);
    assert_eq!(refusal.problem().pointer.as_deref(), Some("/0/idempotency_key"));
    assert!(refusal.problem().detail.contains("?atomic=false"));
}

proptest! {
    #[test]
    fn every_payload_round_trips(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let found = |item: Value| read(&item.to_string()).map(|(payload, _)| payload).expect("valid");
        prop_assert_eq!(found(json!({"payload": text})), text.clone().into_bytes());
        prop_assert_eq!(found(json!({"payload_base64": STANDARD.encode(&bytes)})), bytes);
        let value = json!({"a": [text, null]});
        let written = value.to_string().into_bytes();
        prop_assert_eq!(found(json!({"payload_json": value})), written);
    }

    #[test]
    fn no_value_of_any_field_makes_it_panic(
        field in prop::sample::select(vec![
            "payload", "payload_json", "payload_base64", "content_type", "headers", "delay", "deliver_at", "ttl", "priority",
            "max_attempts", "destination", "method", "timeout", "traceparent", "idempotency_key",
        ]),
        text in ".{0,20}", number: f64, shape in 0..5_u8,
    ) {
        let value = match shape {
            0 => Value::from(text),
            1 => json!({text: number}),
            2 => json!({"X-A": text}),
            3 => json!([text, number]),
            _ => json!(number),
        };
        drop(read(&json!({"payload": "x", field: value}).to_string()));
    }
}
