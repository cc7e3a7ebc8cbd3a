//! One secret follows another: what verifies before, during and after, through restarts and on other gateways.

use std::thread;

use serde_json::json;

use super::*;
use crate::support::stores::on_both_stores;

on_both_stores! {
    deliveries_verify_before_during_and_after_a_rotation
    another_gateway_signs_with_the_new_secret_too
    no_rotation_is_lost_among_many_at_once
}

fn deliveries_verify_before_during_and_after_a_rotation(home: &Home) {
    let (mut gateway, sink) = (start(home, ""), sink());
    make(&gateway, &sink);
    assert_eq!(deliver(&gateway, &sink, b"{}").header("webhook-signature"), None);
    let queue = gateway.request("GET", "/v1/queues/orders", &[], b"").json();
    assert_eq!((&queue["signed"], queue.get("secret_set")), (&json!(false), None));

    // Made here, shown once.
    let answer = gateway.request("POST", "/v1/queues/orders/secret", &[], b"");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{}", answer.text());
    let rotated = answer.json();
    let made = rotated["secret"].as_str().expect("it is shown").to_owned();
    assert!(made.starts_with("whsec_") && rotated.get("previous_until").is_none(), "{rotated}");
    let every_byte: Vec<u8> = (0..=255).collect();
    for payload in [&b""[..], b"{\"a\": 1}\r\n", &every_byte] {
        assert_signed(&deliver(&gateway, &sink, payload), &[&made]);
    }

    // Given by the caller, and never shown.
    let rotated = done(&gateway, "POST", "orders/secret", &json!({"secret": FIRST}));
    assert!(rotated.get("secret").is_none() && rotated["previous_until"].is_string(), "{rotated}");
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST, &made]);
    // By PATCH and by PUT as well; a PUT that says nothing of it leaves it.
    done(&gateway, "PATCH", "orders", &json!({"secret": SECOND, "timeout": "5s"}));
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[SECOND, FIRST, &made]);
    let queue = done(&gateway, "PUT", "orders", &pushing(&sink));
    assert_eq!((&queue["signed"], &queue["secret_set"]), (&json!(true), &json!(true)), "{queue}");
    assert_eq!(done(&gateway, "PUT", "orders", &queue), queue, "what is shown can be given back");
    gateway.restart();
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[SECOND, FIRST, &made]);

    // An overlap that ends, and one of nothing.
    done(&gateway, "POST", "orders/secret", &json!({"secret": FIRST, "overlap": "300ms"}));
    let last = loop {
        let received = deliver(&gateway, &sink, b"{}");
        if received.header("webhook-signature").is_some_and(|value| !value.contains(' ')) {
            break received;
        }
    };
    assert_signed(&last, &[FIRST]);
    done(&gateway, "POST", "orders/secret", &json!({"secret": SECOND, "overlap": "0s"}));
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[SECOND]);

    let shown = gateway.request("GET", "/v1/queues/orders", &[], b"").text() + &gateway.status().to_string();
    for secret in [&made, FIRST, SECOND] {
        assert!(!shown.contains(&secret[6..]), "{shown}");
    }
    assert!(!shown.contains("sealed"), "{shown}");
    assert_eq!(leaks(home, &gateway, &[&made, FIRST, SECOND]), [""; 0]);

    let queue = done(&gateway, "PATCH", "orders", &json!({"secret": null}));
    assert_eq!(queue["signed"], false);
    assert_eq!(deliver(&gateway, &sink, b"{}").header("webhook-signature"), None);
}

/// Where gateways do not share a store the other one is the next life on the same file.
fn another_gateway_signs_with_the_new_secret_too(home: &Home) {
    let (mut first, sink) = (start(home, ""), sink());
    make(&first, &sink);
    done(&first, "PATCH", "orders", &json!({"secret": FIRST}));
    let second = match home {
        Home::Sqlite => None,
        Home::Redis(_) => Some(start(home, "")),
    };
    done(&first, "POST", "orders/secret", &json!({"secret": SECOND, "overlap": "0s"}));
    let second = if let Some(second) = second {
        first.kill();
        second
    } else {
        first.kill();
        first.launch_until_ready();
        first
    };
    // What it has not heard of yet it may sign with the old one: a second, at most.
    let is_new =
        |received: &Received| received.header("webhook-signature") == Some(&signature(SECOND, received));
    let last = loop {
        let received = deliver(&second, &sink, b"{}");
        if is_new(&received) {
            break received;
        }
        assert_signed(&received, &[FIRST]);
    };
    assert!(
        sink.received()
            .iter()
            .filter(|received| received.order > last.order)
            .all(|received| is_new(received))
    );
    assert_signed(&deliver(&second, &sink, b"{}"), &[SECOND]);
}

fn no_rotation_is_lost_among_many_at_once(home: &Home) {
    let (gateway, sink) = (start(home, ""), sink());
    make(&gateway, &sink);
    let made: Vec<String> = thread::scope(|scope| {
        let rotate = || {
            done(&gateway, "POST", "orders/secret", &json!({}))["secret"].as_str().expect("made").to_owned()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(rotate)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let received = deliver(&gateway, &sink, b"{}");
    let mut expected: Vec<_> = made.iter().map(|secret| signature(secret, &received)).collect();
    let mut found: Vec<_> = received.header("webhook-signature").expect("signed").split(' ').collect();
    expected.sort();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn ed25519_is_verified_by_its_public_key_beside_the_signature_of_an_hmac() {
    use ring::signature::{ED25519, UnparsedPublicKey};

    let (gateway, sink) = (start(&Home::Sqlite, ""), sink());
    make(&gateway, &sink);
    done(&gateway, "PATCH", "orders", &json!({"secret": FIRST}));
    let seed = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let rotated = done(&gateway, "POST", "orders/secret", &json!({"secret": seed}));
    let public =
        rotated["public_key"].as_str().and_then(|key| key.strip_prefix("whpk_")).expect("it is shown");
    let received = deliver(&gateway, &sink, b"{}");
    let value = received.header("webhook-signature").expect("signed");
    let (asymmetric, symmetric) = value.split_once(' ').expect("two");
    assert_eq!(symmetric, signature(FIRST, &received));
    let decoded = STANDARD.decode(asymmetric.strip_prefix("v1a,").expect("its version")).expect("base64");
    let header = |name: &str| received.header(name).expect(name).to_owned();
    let signed = format!("{}.{}.{{}}", header("webhook-id"), header("webhook-timestamp"));
    let public = UnparsedPublicKey::new(&ED25519, STANDARD.decode(public).expect("base64"));
    public.verify(signed.as_bytes(), &decoded).expect("it is verified");
    assert!(public.verify(signed.replace("{}", "[]").as_bytes(), &decoded).is_err(), "and nothing else");
}
