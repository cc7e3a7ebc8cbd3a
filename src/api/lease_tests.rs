//! What a consumer says is read strictly.

use serde_json::json;

use super::*;

fn code(result: Result<impl Sized, Box<Problem>>) -> (Code, String) {
    let Err(problem) = result else { panic!("it was taken") };
    (problem.known_code().expect("ours"), problem.pointer.unwrap_or_default())
}

#[test]
fn an_empty_body_asks_for_one_message_now_and_what_is_written_is_read_back() {
    assert_eq!(read_lease(b""), Ok(LeaseOrder::default()));
    assert_eq!(read_lease(b"{}"), Ok(LeaseOrder::default()));
    let order =
        LeaseOrder { max: 1_000, wait: WAIT_MAX, lease: Some(LEASE_MAX), payload_as: PayloadAs::Base64 };
    assert_eq!(read_lease(&serde_json::to_vec(&order).expect("JSON")), Ok(order));
}

#[test]
fn what_a_consumer_may_not_ask_for_is_refused_by_its_place() {
    for (body, expected, pointer) in [
        ("[]", Code::InvalidValue, ""),
        ("{", Code::Malformed, ""),
        (r#"{"max":1,"max":2}"#, Code::Malformed, ""),
        (r#"{"mxa":1}"#, Code::UnknownField, "/mxa"),
        (r#"{"max":0}"#, Code::InvalidValue, "/max"),
        (r#"{"max":1001}"#, Code::InvalidValue, "/max"),
        (r#"{"max":-1}"#, Code::InvalidValue, "/max"),
        (r#"{"max":1.5}"#, Code::InvalidValue, "/max"),
        (r#"{"max":"1"}"#, Code::InvalidValue, "/max"),
        (r#"{"max":null}"#, Code::InvalidValue, "/max"),
        (r#"{"wait":"61s"}"#, Code::InvalidValue, "/wait"),
        (r#"{"wait":5}"#, Code::InvalidValue, "/wait"),
        (r#"{"wait":"5"}"#, Code::InvalidValue, "/wait"),
        (r#"{"lease":"999ms"}"#, Code::InvalidValue, "/lease"),
        (r#"{"lease":"12h1ms"}"#, Code::InvalidValue, "/lease"),
        (r#"{"payload_as":"text"}"#, Code::InvalidValue, "/payload_as"),
        (r#"{"payload_as":{}}"#, Code::InvalidValue, "/payload_as"),
    ] {
        assert_eq!(code(read_lease(body.as_bytes())), (expected, pointer.to_owned()), "{body}");
    }
    let Err(problem) = read_lease(br#"{"mxa":1}"#) else { panic!("it was taken") };
    assert!(problem.detail.contains("did you mean \"max\"?"), "{}", problem.detail);
}

#[test]
fn an_empty_reason_is_none() {
    let body = br#"{"reject":[{"receipt":"a","reason":""}],"retry":[{"receipt":"b","reason":""}]}"#;
    let all: Vec<_> = read_settle(body).expect("valid").into_iter().map(|named| named.said).collect();
    assert_eq!(all, [Ending::Reject { reason: None }, Ending::Retry { delay: None, reason: None }]);
}

#[test]
fn endings_keep_the_order_of_the_body() {
    let body = br#"{"release":["r"],"reject":[{"receipt":"j","reason":"no"}],"ack":["a","b"],
        "retry":[{"receipt":"t"},{"reason":"busy","delay":"1m","receipt":"u"}]}"#;
    let all = read_settle(body).expect("valid");
    let retry = |delay, reason: Option<&str>| Ending::Retry { delay, reason: reason.map(str::to_owned) };
    let expected = [
        ("r", "/release/0", Ending::Release),
        ("j", "/reject/0/receipt", Ending::Reject { reason: Some("no".to_owned()) }),
        ("a", "/ack/0", Ending::Ack),
        ("b", "/ack/1", Ending::Ack),
        ("t", "/retry/0/receipt", retry(None, None)),
        ("u", "/retry/1/receipt", retry(Some(Duration::from_mins(1)), Some("busy"))),
    ];
    let found: Vec<_> =
        all.iter().map(|named| (&*named.receipt, &*named.pointer, named.said.clone())).collect();
    assert_eq!(found, expected);
    assert_eq!(read_settle(b"{}"), Ok(vec![]));
}

#[test]
fn what_cannot_be_settled_or_extended_is_refused_by_its_place() {
    let long = format!(r#"{{"ack":["{}"]}}"#, "a".repeat(257));
    let words = format!(r#"{{"reject":[{{"receipt":"a","reason":"{}"}}]}}"#, "a".repeat(1_025));
    let many = json!({"ack": vec!["a"; 600], "release": vec!["b"; 401]}).to_string();
    for (body, expected, pointer) in [
        ("", Code::Malformed, ""),
        (r#"{"acks":[]}"#, Code::UnknownField, "/acks"),
        (r#"{"ack":"a"}"#, Code::InvalidValue, "/ack"),
        (r#"{"ack":[7]}"#, Code::InvalidValue, "/ack/0"),
        (&long, Code::InvalidValue, "/ack/0"),
        (&words, Code::InvalidValue, "/reject/0/reason"),
        (&many, Code::InvalidValue, "/release"),
        (r#"{"retry":["a"]}"#, Code::InvalidValue, "/retry/0"),
        (r#"{"retry":[{}]}"#, Code::InvalidValue, "/retry/0/receipt"),
        (r#"{"retry":[{"receipt":"a","delay":"25h"}]}"#, Code::InvalidValue, "/retry/0/delay"),
        (r#"{"retry":[{"receipt":"a","after":"1s"}]}"#, Code::UnknownField, "/retry/0/after"),
        (r#"{"reject":[{"receipt":"a","delay":"1s"}]}"#, Code::UnknownField, "/reject/0/delay"),
        (r#"{"ack":["a"],"retry":[{"receipt":"a"}]}"#, Code::ContradictoryOptions, "/retry/0/receipt"),
        (r#"{"ack":["a","b","a"]}"#, Code::ContradictoryOptions, "/ack/2"),
    ] {
        assert_eq!(code(read_settle(body.as_bytes())), (expected, pointer.to_owned()), "{body}");
    }
    for (body, expected, pointer) in [
        ("{}", Code::InvalidValue, "/receipts"),
        (r#"{"receipts":{}}"#, Code::InvalidValue, "/receipts"),
        (r#"{"receipts":["a","a"]}"#, Code::ContradictoryOptions, "/receipts/1"),
        (r#"{"receipts":["a"],"lease":"0s"}"#, Code::InvalidValue, "/lease"),
        (r#"{"receipts":["a"],"wait":"1s"}"#, Code::UnknownField, "/wait"),
    ] {
        assert_eq!(code(read_extend(body.as_bytes())), (expected, pointer.to_owned()), "{body}");
    }
    let order = read_extend(br#"{"lease":"30s","receipts":["a","b"]}"#).expect("valid");
    assert_eq!((order.receipts.len(), order.lease), (2, Some(Duration::from_secs(30))));
}
