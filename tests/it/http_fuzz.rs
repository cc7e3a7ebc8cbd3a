//! Requests with bytes changed at random: each gets an answer or a closed connection, never a 5xx, and the next is served.

use super::http_gateway::{TestGateway, chunked, request};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    no_mutated_request_brings_the_gateway_down
}

/// Requests of a run; a fixed seed, so that a failure comes again.
const REQUESTS: usize = 3_000;
const SEED: u64 = 7;

fn originals() -> Vec<Vec<u8>> {
    let publish = "POST /v1/queues/default/messages";
    let options = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "\"order-7\""),
        ("Posthaste-Delay", "10s"),
        ("Posthaste-Forward-X-Tenant", "seven"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let settings = br#"{"processor":"log","retry":{"schedule":["5s","1h30m"],"jitter":0.2},"limits":{"payload_max":"1MiB"}}"#;
    vec![
        request(publish, &options, br#"{"order":7}"#),
        request(publish, &[("Transfer-Encoding", "chunked")], &chunked(b"hello, world", 5)),
        request(
            "POST /v1/queues/default/messages/batch",
            &[("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "batch-7"), ("Posthaste-TTL", "1h")],
            b"{\"order\":7}\r\n\n[1,\"\\ud83d\\ude00\"]\n",
        ),
        request(
            "POST /v1/queues/default/messages/batch?atomic=false",
            &[("Content-Type", "application/json")],
            br#"[{"payload":"a\n","delay":"1s","headers":{"X-A":"b"}},{"payload_json":{"a":[1.5e3,null]},"idempotency_key":"k","max_attempts":3},{"payload_base64":"/wA="}]"#,
        ),
        request("DELETE /v1/queues/default/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", &[], b""),
        request("PUT /v1/queues/orders", &[("Content-Type", "application/json")], settings),
        request(
            "GET /v1/queues/default/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400?payload=true",
            &[],
            b"",
        ),
        request("GET /status?queue=default&queue=%61", &[], b""),
    ]
}

/// Changes, doubles, removes or inserts a few bytes.
fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const SPICE: &[u8] = b"\0\r\n :;,%/\\\"{}[]0919azAZ\x7f\x80\xff-+.&=?#";
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..bytes.len());
        match random.u8(..5) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] = SPICE[random.usize(..SPICE.len())],
            2 => bytes.insert(at, SPICE[random.usize(..SPICE.len())]),
            3 => drop(bytes.remove(at)),
            _ => {
                let end = (at + random.usize(1..40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

fn no_mutated_request_brings_the_gateway_down(home: &Home) {
    let gateway = TestGateway::start(home);
    let mut random = fastrand::Rng::with_seed(SEED);
    let originals = originals();
    for number in 0..REQUESTS {
        let mut bytes = originals[number % originals.len()].clone();
        mutate(&mut bytes, &mut random);
        let mut client = gateway.connect();
        client.send(&bytes);
        // Whatever it waits for does not come.
        client.end();
        for reply in client.replies() {
            let shown = String::from_utf8_lossy(&bytes);
            assert!(reply.status < 500 && reply.status != 408, "{number}: {shown:?}: {reply:?}");
        }
        if number % 100 == 0 {
            gateway.assert_alive("mutated requests");
        }
    }
    gateway.assert_alive("mutated requests");
}
