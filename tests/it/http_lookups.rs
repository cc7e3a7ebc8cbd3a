//! What a publish answers and what a lookup shows, over the life of a message.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use posthaste::api::{Message, Published};
use posthaste::domain::message::{Priority, State};
use posthaste::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use posthaste::domain::phases::Phases;
use posthaste::domain::retry::Verdict;
use posthaste::http::ServerSettings;
use posthaste::store::lease::{BatchId, LeaseKind, LeaseRequest, Settlement};
use serde_json::json;

use super::http_gateway::{PATIENCE, Plan, Reply, TestGateway, request};
use crate::support::gateway::Home;
use crate::support::stores::on_both_stores;

on_both_stores! {
    a_publish_answers_with_id_queue_and_place
    options_show_in_the_lookup
    a_message_is_shown_through_its_life_and_death
    payloads_that_nobody_takes_stay_within_their_memory
    a_payload_larger_than_the_memory_of_answers_is_shown_alone
    what_is_not_there_is_said_to_be_so
    a_key_stands_for_one_message
}

fn message(gateway: &TestGateway, published: &Reply, query: &str) -> Message {
    let path = published.header("location").expect("a location");
    let reply = gateway.look(&format!("{path}{query}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_slice(&reply.body).expect("a message")
}

fn a_publish_answers_with_id_queue_and_place(home: &Home) {
    let gateway = TestGateway::start(home);
    let reply = gateway.publish("default", &[("Content-Type", "text/plain")], b"hello");
    assert_eq!((reply.status, reply.header("content-type")), (202, Some("application/json")));
    assert_eq!(reply.header("posthaste-stored"), None);
    let published: Published = serde_json::from_slice(&reply.body).expect("valid");
    let id = published.id;
    assert_eq!(reply.body, format!(r#"{{"id":"{id}","queue":"default"}}"#).into_bytes());
    let location = format!("/v1/queues/default/messages/{id}");
    assert_eq!(reply.header("location"), Some(location.as_str()));
    assert_eq!(id.shard().number(), 0);

    let shown = gateway.look(&location);
    assert_eq!(gateway.send(&format!("HEAD {location}"), &[], b"").status, 200);
    let text = shown.json();
    let expected = json!({
        "id": id.to_string(), "queue": "default", "state": "pending", "priority": "normal",
        "published_at": text["published_at"], "content_type": "text/plain", "payload_bytes": 5,
        "max_attempts": 12, "attempt_count": 0, "attempts": [],
    });
    assert_eq!(text, expected);
    assert!(text["published_at"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')));
}

fn options_show_in_the_lookup(home: &Home) {
    let gateway = TestGateway::start(home);
    let reply = gateway.publish(
        "default",
        &[
            ("Posthaste-Delay", "1h"),
            ("Posthaste-TTL", "2h"),
            ("Posthaste-Priority", "high"),
            ("Posthaste-Max-Attempts", "3"),
        ],
        b"\xff\x00",
    );
    let found = message(&gateway, &reply, "?payload=true");
    assert_eq!(
        (found.state, found.priority, found.max_attempts),
        (State::Scheduled, Some(Priority::High), Some(3))
    );
    let after =
        |at: Option<posthaste::domain::timestamp::Timestamp>| at.expect("there").since(found.published_at);
    assert_eq!(after(found.expires_at), Duration::from_hours(2));
    assert_eq!(after(found.deliver_at), Duration::from_hours(1));
    assert!(after(found.next_attempt_at) >= Duration::from_hours(1));
    assert_eq!((found.payload, found.payload_base64.as_deref()), (None, Some("/wA=")));
    assert_eq!(found.content_type.as_deref(), Some(""));
    let text = gateway.publish("default", &[], "grüß".as_bytes());
    assert_eq!(message(&gateway, &text, "?payload=true").payload.as_deref(), Some("grüß"));
    assert_eq!(message(&gateway, &text, "?payload=false").payload, None);
}

/// Leases what is pending and settles it so.
fn settle(gateway: &TestGateway, verdict: &Verdict, outcome: AttemptOutcome, status: u16) {
    let queue = gateway.queue("default");
    gateway.with_store(async |connection| {
        let request = LeaseRequest {
            queue,
            batch: BatchId::random(),
            kind: LeaseKind::Worker,
            max: 10,
            bytes_max: 1 << 20,
            lease: Duration::from_mins(1),
            suspects: false,
        };
        let leased = connection.lease(request).await.expect("a lease");
        assert_eq!(leased.leases.len(), 1);
        let attempt = Attempt {
            number: 1,
            at: posthaste::domain::timestamp::Timestamp::from_millis(1_700_000_000_000),
            duration_ms: 7,
            outcome,
            status: Some(status),
            error: None,
            excerpt: Some("no".to_owned()),
            phases: Phases { wait: Some(Duration::from_micros(6_100)), ..Phases::NONE },
            next_at: None,
        };
        let settlements: Vec<_> = leased
            .leases
            .iter()
            .map(|lease| Settlement {
                index: lease.index,
                verdict: verdict.clone(),
                attempt: Some(attempt.clone()),
                gist: None,
            })
            .collect();
        connection.settle(leased.batch, Arc::new(settlements)).await.expect("settled");
    });
}

fn a_message_is_shown_through_its_life_and_death(home: &Home) {
    let gateway = TestGateway::start(home);
    let failing = gateway.publish("default", &[("Content-Type", "text/plain")], b"abc");
    settle(&gateway, &Verdict::Retry { delay: Duration::from_hours(1) }, AttemptOutcome::Retry, 503);
    let found = message(&gateway, &failing, "");
    assert_eq!((found.state, found.attempt_count, found.attempts.len()), (State::Scheduled, 1, 1));
    assert_eq!((found.attempts[0].status, found.attempts[0].excerpt.as_deref()), (Some(503), Some("no")));
    assert_eq!(found.attempts[0].next_at, found.next_attempt_at);
    let json = gateway.look(failing.header("location").expect("a location")).json();
    assert_eq!(json["attempts"][0]["phases_us"], json!({ "wait": 6_100 }), "{json}");
    assert_eq!(json["attempts"][0]["next_attempt_at"], json["next_attempt_at"], "{json}");
    assert!(found.next_attempt_at.is_some() && found.died_at.is_none() && found.reason.is_none());

    let rejected = gateway.publish("default", &[("Content-Type", "text/plain")], b"abc");
    let verdict = Verdict::Dead { reason: DeadReason::Rejected, detail: Some("422".to_owned()) };
    settle(&gateway, &verdict, AttemptOutcome::Rejected, 422);
    let found = message(&gateway, &rejected, "?payload=true");
    assert_eq!(found.attempts[0].next_at, None, "none follows");
    assert_eq!((found.state, found.reason), (State::Dead, Some(DeadReason::Rejected)));
    assert!(found.died_at.is_some() && found.next_attempt_at.is_none());
    assert_eq!(found.payload.as_deref(), Some("abc"));

    let delivered = gateway.publish("default", &[("Content-Type", "text/plain")], b"abc");
    settle(&gateway, &Verdict::Ack, AttemptOutcome::Delivered, 200);
    let found = message(&gateway, &delivered, "?payload=true");
    assert_eq!((found.state, found.attempt_count, found.died_at), (State::Delivered, 1, None));
    let [attempt] = &found.attempts[..] else { panic!("{:?}", found.attempts) };
    assert_eq!((attempt.number, attempt.outcome, attempt.status), (1, AttemptOutcome::Delivered, Some(200)));
    assert_eq!((attempt.duration_ms, &attempt.excerpt), (7, &None), "of the answer only the status is kept");
    assert_eq!((found.content_type.as_deref(), found.payload_bytes), (Some("text/plain"), Some(3)));
    assert_eq!((found.payload, found.payload_base64), (None, None), "it is no longer kept");
}

/// Looks a message up with its payload and reads no more of the answer than its status.
fn begin_to_look(gateway: &TestGateway, path: &str) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(gateway.address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(&request(&format!("GET {path}"), &[], b"")).expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    let status = std::str::from_utf8(&status[9..]).expect("digits");
    (status.parse().expect("a status"), stream)
}

fn payloads_that_nobody_takes_stay_within_their_memory(home: &Home) {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.answers_bytes_max = 40 << 20;
    let declared = vec![("default", json!({"processor": "pull", "limits": {"payload_max": "16MiB"}}))];
    let gateway = TestGateway::start_as(home, Plan { server, declared, ..Plan::default() });
    // More than what the system keeps of an answer that nobody reads.
    let payload = vec![0xfe; 16 << 20];
    let published = gateway.publish("default", &[], &payload);
    let path = format!("{}?payload=true", published.header("location").expect("a location"));
    let looks: Vec<_> = std::thread::scope(|scope| {
        let looks: Vec<_> = (0..12).map(|_| scope.spawn(|| begin_to_look(&gateway, &path))).collect();
        looks.into_iter().map(|look| look.join().expect("answered")).collect()
    });
    let count = |wanted| looks.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(200), count(503)), (2, 10), "as many as fit");
    assert_eq!(gateway.look("/health").status, 200);
    gateway.assert_alive("payloads that nobody takes");
    let refused = gateway.look(&path);
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"), "{refused:?}");
    assert_eq!(refused.json()["setting"], "server.limits.answers_bytes_max");
    assert!(refused.header("retry-after").is_some() && refused.header("posthaste-stored").is_none());
    assert_eq!(
        message(&gateway, &published, "").payload_bytes,
        Some(16 << 20),
        "without its payload it is shown"
    );
    drop(looks);
    gateway.wait_for(&format!("HEAD {path}"), 200);
    let found = message(&gateway, &published, "?payload=true");
    let shown = found.payload_base64.expect("it is no text");
    assert!(base64::engine::general_purpose::STANDARD.decode(shown).expect("base64") == payload);
    let head = gateway.send(&format!("HEAD {path}"), &[], b"");
    let whole = gateway.look(&path);
    assert_eq!((head.status, head.header("content-length")), (200, whole.header("content-length")));
    assert_eq!(whole.header("content-length"), Some(whole.body.len().to_string().as_str()));
}

fn a_payload_larger_than_the_memory_of_answers_is_shown_alone(home: &Home) {
    let mut server = ServerSettings::default();
    server.listen.0.set_port(0);
    server.threads = 1;
    server.limits.answers_bytes_max = 1 << 20;
    let declared = vec![("default", json!({"processor": "pull", "limits": {"payload_max": "16MiB"}}))];
    let gateway = TestGateway::start_as(home, Plan { server, declared, ..Plan::default() });
    let text = "\u{1}\"€".repeat(400_000);
    let published = gateway.publish("default", &[], text.as_bytes());
    for _ in 0..2 {
        assert!(message(&gateway, &published, "?payload=true").payload.as_deref() == Some(&*text));
    }
}

fn what_is_not_there_is_said_to_be_so(home: &Home) {
    let gateway = TestGateway::start(home);
    let unknown = "/v1/queues/default/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";
    for (path, status, code) in [
        (unknown, 404, "message_unknown"),
        ("/v1/queues/default/messages/0192f0c1", 404, "message_unknown"),
        ("/v1/queues/default/messages/0192f0c1-5e3a-4c4d-9b21-3f6a52e8d400", 404, "message_unknown"),
        ("/v1/queues/default/messages/%00", 404, "message_unknown"),
        ("/v1/queues/default/messages/..", 404, "message_unknown"),
        ("/v1/queues/nothing/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", 404, "queue_unknown"),
        ("/v1/queues/-x/messages/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", 400, "invalid_queue_name"),
        (&format!("{unknown}?payload=1"), 400, "invalid_value"),
        (&format!("{unknown}?payload=true&payload=true"), 400, "contradictory_options"),
        (&format!("{unknown}?body=true"), 400, "unknown_parameter"),
    ] {
        let reply = gateway.look(path);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}: {reply:?}");
        assert_eq!(reply.header("posthaste-stored"), None);
        gateway.assert_alive(path);
    }
    assert_eq!(gateway.put("blind", &json!({"processor": "log", "lookup": false})).status, 201);
    let reply = gateway.publish("blind", &[], b"x");
    let shown = gateway.look(reply.header("location").expect("a location"));
    assert_eq!((shown.status, shown.code().as_str()), (409, "lookup_off"));
}

fn a_key_stands_for_one_message(home: &Home) {
    let gateway = TestGateway::start(home);
    let headers = [("Idempotency-Key", "order-7"), ("Content-Type", "text/plain")];
    let first = gateway.publish("default", &headers, b"hello");
    assert_eq!(first.status, 202);
    let quoted =
        [("Idempotency-Key", "\"order-7\""), ("Content-Type", "text/plain"), ("Posthaste-Priority", "low")];
    for headers in [&headers[..], &quoted[..]] {
        let again = gateway.publish("default", headers, b"hello");
        let expected = format!(r#"{{"id":"{}","queue":"default","duplicate":true}}"#, first.id());
        assert_eq!((again.status, String::from_utf8(again.body.clone())), (200, Ok(expected)), "{again:?}");
        assert_eq!(again.header("location"), first.header("location"));
    }
    let other_method = [headers[0], headers[1], ("Posthaste-Method", "PUT")];
    let default_method = [headers[0], headers[1], ("Posthaste-Method", "POST")];
    let other_type = [headers[0], ("Content-Type", "text/html")];
    for (headers, body) in [
        (&headers[..], &b"other"[..]),
        (&other_type, b"hello"),
        (&other_method, b"hello"),
        (&default_method, b"hello"),
    ] {
        let reused = gateway.publish("default", headers, body);
        assert_eq!((reused.status, reused.code().as_str()), (422, "idempotency_key_reused"), "{reused:?}");
        assert_eq!(reused.header("posthaste-stored"), Some("no"));
        assert_eq!(reused.json()["header"], "Idempotency-Key");
    }
    assert_eq!(gateway.put("other", &json!({"processor": "log"})).status, 201);
    assert_eq!(gateway.publish("other", &headers, b"another queue").status, 202);
    assert_eq!(gateway.accepted(), 1);

    // Said first and left out then it is another request as well.
    let said = [("Idempotency-Key", "order-8"), ("Posthaste-Method", "POST")];
    assert_eq!(gateway.publish("other", &said, b"hello").status, 202);
    assert_eq!(gateway.publish("other", &said, b"hello").status, 200);
    let left_out = gateway.publish("other", &said[..1], b"hello");
    assert_eq!((left_out.status, left_out.code().as_str()), (422, "idempotency_key_reused"), "{left_out:?}");
}
