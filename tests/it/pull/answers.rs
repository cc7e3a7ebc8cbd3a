//! What a lease, a settle and an extend answer, and what becomes of the messages.

use std::time::{Duration, Instant};

use posthaste::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use super::{
    QUEUE, WITHIN, ask, fates, lease, lease_one, over_both, post, receipt, settle, told, wait_until_leased,
};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::invariants::count;

fn message_path(message: &Value) -> String {
    format!("/v1/queues/jobs/messages/{}", message["id"].as_str().expect("an id"))
}

fn look(gateway: &Gateway, message: &Value) -> Value {
    gateway.request("GET", &message_path(message), &[], b"").json()
}

#[test]
fn a_lease_gives_a_message_whole_and_an_ack_ends_it() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        assert_eq!(lease(&gateway, &json!({})), Vec::<Value>::new());
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [
            ("Content-Type", "application/json"),
            ("Posthaste-Forward-X-Team", "blue"),
            ("Posthaste-TTL", "1h"),
            ("traceparent", trace),
        ];
        gateway.publish("jobs", &headers, br#"{"order":7}"#);
        let answer = client::request(&gateway.address(), "POST", "/v1/queues/jobs/leases", &[], b"");
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let answer = answer.json();
        let message = &answer["items"][0];
        let (id, at) = (&message["id"], &message["published_at"]);
        let expected = json!({"items": [{
            "id": id, "queue": "jobs", "state": "leased", "priority": "normal", "published_at": at,
            "expires_at": message["expires_at"], "content_type": "application/json", "payload_bytes": 11,
            "max_attempts": 4, "attempt_count": 0, "attempts": [], "attempt": 1,
            "receipt": message["receipt"], "lease_until": message["lease_until"],
            "headers": {"x-team": "blue"}, "traceparent": trace, "payload": r#"{"order":7}"#,
        }]});
        assert_eq!(answer, expected);
        assert!(receipt(message).len() <= 256);
        let since = |text: &Value| text.as_str().and_then(posthaste_time).expect("a time");
        let held = since(&message["lease_until"]) - since(at);
        assert!((29_000..60_000).contains(&held), "a lease of 30s from then on, not {held} ms");
        assert_eq!(look(&gateway, message)["state"], "leased");

        let ack = json!({"ack": [receipt(message)]});
        let answer = told(&gateway.address(), "/settle", &ack);
        let result = json!({"receipt": receipt(message), "result": "settled"});
        assert_eq!(answer, json!({"results": [result]}));
        assert_eq!(settle(&gateway, &ack), ["settled"], "said twice it is so once");
        let ended = gateway.wait_until_message_is("delivered", &message_path(message), WITHIN);
        assert_eq!(ended["attempt_count"], 1);
        assert_eq!(ended["attempts"][0]["outcome"], "delivered", "{ended}");
        assert!(ended["attempts"][0]["duration_ms"].is_u64(), "{ended}");
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [1, 1]);
    });
}

fn posthaste_time(text: &str) -> Option<u64> {
    Timestamp::parse(text).ok().map(Timestamp::as_millis)
}

#[test]
fn payloads_are_text_where_they_can_be_and_base64_elsewhere_or_when_asked_for_so() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        for (payload, payload_as, key, expected) in [
            ("grüß\n\"".as_bytes(), "auto", "payload", "grüß\n\""),
            (b"\xff\x00", "auto", "payload_base64", "/wA="),
            (b"", "auto", "payload", ""),
            (b"hi", "base64", "payload_base64", "aGk="),
        ] {
            gateway.publish("jobs", &[], payload);
            let message = lease_one(&gateway, &json!({"payload_as": payload_as}));
            assert_eq!(message[key], expected, "{message}");
            let other = if key == "payload" { "payload_base64" } else { "payload" };
            assert_eq!((message.get(other), &message["content_type"]), (None, &json!("")));
            assert_eq!(settle(&gateway, &json!({"ack": [receipt(&message)]})), ["settled"]);
        }
    });
}

#[test]
fn an_answer_has_sixteen_mebibytes_of_payload_at_most() {
    const BYTES: usize = 3 << 20;
    over_both(|home| {
        let limits = format!("{QUEUE}[queues.jobs.limits]\npayload_max = '16MiB'\n");
        let mut gateway = home.start(&limits, &[]);
        for byte in b'a'..b'i' {
            gateway.publish("jobs", &[], &vec![byte; BYTES]);
        }
        let (mut seen, mut most) = (Vec::new(), 0);
        while seen.len() < 8 {
            let found = lease(&gateway, &json!({"max": 1000, "payload_as": "auto"}));
            most = most.max(found.len());
            for message in &found {
                let payload = message["payload"].as_str().expect("text");
                let letter = payload.as_bytes()[0];
                assert!(payload.len() == BYTES && payload.bytes().all(|byte| byte == letter));
                seen.push(letter);
            }
            let receipts: Vec<_> = found.iter().map(receipt).collect();
            let fates = settle(&gateway, &json!({"ack": receipts}));
            assert!(fates.iter().all(|fate| fate == "settled"), "{fates:?}");
        }
        assert_eq!(most, 5, "as many as fit");
        seen.sort_unstable();
        assert_eq!(seen, b"abcdefgh");
        gateway.wait_until_drained(WITHIN);
    });
}

#[test]
fn a_retry_comes_again_and_at_the_end_it_is_dead_as_with_a_worker() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"again");
        let wait = json!({"wait": "30s"});
        for attempt in 1..=4 {
            let message = lease_one(&gateway, &wait);
            assert_eq!(
                (&message["attempt"], &message["attempt_count"]),
                (&json!(attempt), &json!(attempt - 1))
            );
            let retry =
                json!({"retry": [{"receipt": receipt(&message), "reason": format!("try {attempt}")}]});
            assert_eq!(settle(&gateway, &retry), ["settled"]);
            if attempt == 4 {
                let dead = gateway.wait_until_message_is("dead", &message_path(&message), WITHIN);
                assert_eq!((&dead["reason"], &dead["attempt_count"]), (&json!("exhausted"), &json!(4)));
                let letters = gateway.request("GET", "/v1/queues/jobs/dead", &[], b"").json();
                assert_eq!(letters["items"][0]["detail"], "try 4", "{letters}");
                let log = dead["attempts"].as_array().expect("attempts");
                let words: Vec<_> =
                    log.iter().map(|attempt| (&attempt["outcome"], &attempt["error"])).collect();
                let expected = [1, 2, 3, 4].map(|number| (json!("retry"), json!(format!("try {number}"))));
                assert_eq!(words, expected.iter().map(|(one, other)| (one, other)).collect::<Vec<_>>());
            }
        }
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["retried", "dead_lettered"].map(|key| count(&status, key)), [3, 1]);
    });
}

#[test]
fn a_message_whose_last_lease_ran_out_says_so_among_the_dead_letters() {
    over_both(|home| {
        let mut gateway = home.start("[queues.jobs]\nprocessor = 'pull'\nretry.schedule = []\n", &[]);
        gateway.publish("jobs", &[], b"x");
        let path = message_path(&lease_one(&gateway, &json!({"lease": "1s"})));
        gateway.wait_until_message_is("dead", &path, WITHIN);
        let letters = gateway.request("GET", "/v1/queues/jobs/dead", &[], b"").json();
        let letter = &letters["items"][0];
        assert_eq!(letter["reason"], "poison", "{letter}");
        assert_eq!(letter["detail"], "nobody settled its last lease in time", "{letter}");
        let path = path.replace("/messages/", "/dead/");
        assert_eq!(gateway.request("GET", &path, &[], b"").json()["detail"], letter["detail"]);
    });
}

#[test]
fn a_retry_waits_as_long_as_its_consumer_says_and_a_reject_is_for_ever() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"later");
        let message = lease_one(&gateway, &json!({}));
        let retry = json!({"retry": [{"receipt": receipt(&message), "delay": "1h"}]});
        assert_eq!(settle(&gateway, &retry), ["settled"]);
        let shown = look(&gateway, &message);
        assert_eq!(
            (&shown["state"], &shown["attempts"][0]["outcome"]),
            (&json!("scheduled"), &json!("retry"))
        );
        let due = posthaste_time(shown["next_attempt_at"].as_str().expect("a time")).expect("valid");
        let left = due - posthaste_time(message["published_at"].as_str().expect("a time")).expect("valid");
        assert!((3_600_000..3_700_000).contains(&left), "{left}");

        gateway.publish("jobs", &[], b"never");
        let message = lease_one(&gateway, &json!({}));
        let reject = json!({"reject": [{"receipt": receipt(&message), "reason": "no such customer"}]});
        assert_eq!(settle(&gateway, &reject), ["settled"]);
        let dead = gateway.wait_until_message_is("dead", &message_path(&message), WITHIN);
        assert_eq!(dead["reason"], "rejected");
        let attempt = &dead["attempts"][0];
        assert_eq!(
            (&attempt["outcome"], &attempt["error"]),
            (&json!("rejected"), &json!("no such customer"))
        );

        gateway.publish("jobs", &[], b"nor this");
        let message = lease_one(&gateway, &json!({}));
        let reject = json!({"reject": [{"receipt": receipt(&message), "reason": ""}]});
        assert_eq!(settle(&gateway, &reject), ["settled"]);
        let dead = gateway.wait_until_message_is("dead", &message_path(&message), WITHIN);
        assert_eq!(dead["attempts"][0].get("error"), None, "an empty reason is none: {dead}");
        let letter = message_path(&message).replace("/messages/", "/dead/");
        let letter = gateway.request("GET", &letter, &[], b"").json();
        let list = gateway.request("GET", "/v1/queues/jobs/dead", &[], b"").json();
        for letter in [&letter, &list["items"][1]] {
            assert_eq!((&letter["id"], letter.get("detail")), (&message["id"], None), "{letter}");
        }
    });
}

#[test]
fn what_is_released_comes_again_first_and_counts_no_attempt() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        for body in [b"1", b"2", b"3"] {
            gateway.publish("jobs", &[], body);
        }
        let first = lease(&gateway, &json!({"max": 2}));
        assert_eq!(
            settle(&gateway, &json!({"release": [receipt(&first[0]), receipt(&first[1])]})),
            ["settled"; 2]
        );
        let all = lease(&gateway, &json!({"max": 10}));
        let payloads: Vec<_> = all.iter().map(|message| message["payload"].as_str().expect("text")).collect();
        assert_eq!(payloads, ["1", "2", "3"]);
        assert!(all.iter().all(|message| message["attempt"] == 1), "{all:?}");
        let status = gateway.status();
        assert_eq!(["leased", "retried", "recovered"].map(|key| count(&status, key)), [3, 0, 0]);
        // Each with an end of its own, in one request, answered in the order in which they stand there.
        let [one, two, three] = [0, 1, 2].map(|place| receipt(&all[place]).to_owned());
        let unknown = "0".repeat(66);
        let body = format!(
            r#"{{"release":["{three}","{unknown}"],"reject":[{{"receipt":"{two}"}}],"ack":["{one}"]}}"#
        );
        let path = "/v1/queues/jobs/leases/settle";
        let answer = gateway.request("POST", path, &[("Content-Type", "application/json")], body.as_bytes());
        let results = [(&three, "settled"), (&unknown, "lost"), (&two, "settled"), (&one, "settled")];
        let results = results.map(|(receipt, result)| json!({"receipt": receipt, "result": result}));
        assert_eq!(answer.json(), json!({"results": results}));
        gateway.wait_for("each has ended so", WITHIN, |gateway| {
            let status = gateway.status();
            (["delivered", "dead", "pending"].map(|key| count(&status, key)) == [1; 3]).then_some(())
        });
    });
}

#[test]
fn a_lease_that_ran_out_is_lost_and_one_that_is_extended_is_not() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"late");
        gateway.publish("jobs", &[], b"kept");
        let late = lease_one(&gateway, &json!({"lease": "1s"}));
        let kept = lease_one(&gateway, &json!({"lease": "1s"}));
        let extended =
            told(&gateway.address(), "/extend", &json!({"receipts": [receipt(&kept)], "lease": "10m"}));
        let result = &extended["results"][0];
        assert_eq!((&result["receipt"], &result["result"]), (&kept["receipt"], &json!("extended")));
        let until = |message: &Value| {
            posthaste_time(message["lease_until"].as_str().expect("a time")).expect("valid")
        };
        let longer = until(result) - until(&kept);
        assert!((500_000..700_000).contains(&longer), "{longer}");
        // It never becomes shorter.
        let again =
            told(&gateway.address(), "/extend", &json!({"receipts": [receipt(&kept)], "lease": "1s"}));
        assert_eq!(again["results"][0]["lease_until"], result["lease_until"]);

        let again = lease_one(&gateway, &json!({"wait": "30s"}));
        assert_eq!((&again["id"], &again["attempt"]), (&late["id"], &json!(2)), "the lost one came again");
        let body = json!({"ack": [receipt(&late), receipt(&kept)]});
        assert_eq!(settle(&gateway, &body), ["lost", "settled"]);
        let answer = told(&gateway.address(), "/extend", &json!({"receipts": [receipt(&late)]}));
        assert_eq!(answer, json!({"results": [{"receipt": receipt(&late), "result": "lost"}]}));
        assert_eq!(settle(&gateway, &json!({"ack": [receipt(&again)]})), ["settled"]);
        let ended = gateway.wait_until_message_is("delivered", &message_path(&late), WITHIN);
        let outcomes: Vec<_> = (0..2).map(|place| ended["attempts"][place]["outcome"].clone()).collect();
        assert_eq!(outcomes, ["lost", "delivered"], "{ended}");
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["delivered", "recovered"].map(|key| count(&status, key)), [2, 1]);
    });
}

#[test]
fn a_receipt_is_good_in_its_own_queue_only() {
    over_both(|home| {
        let two = format!("{QUEUE}[queues.other]\nprocessor = 'pull'\n");
        let mut gateway = home.start(&two, &[]);
        gateway.publish("jobs", &[], b"mine");
        let message = lease_one(&gateway, &json!({}));
        for what in ["/settle", "/extend"] {
            let key = if what == "/settle" { "ack" } else { "receipts" };
            let answer = post(&gateway.address(), "other", what, &json!({key: [receipt(&message)]}));
            assert_eq!(answer.json()["results"][0]["result"], "lost", "{}", answer.text());
        }
        // Another token, and a place that the batch does not have.
        let text = receipt(&message);
        let other = if text.as_bytes()[40] == b'0' { "1" } else { "0" };
        let forged = format!("{}{other}{}", &text[..40], &text[41..]);
        let beyond = format!("{}0001{}", &text[..48], &text[52..]);
        assert_eq!(settle(&gateway, &json!({"ack": [forged, beyond, text]})), ["lost", "lost", "settled"]);
        gateway.wait_until_drained(WITHIN);
    });
}

#[test]
fn a_receipt_settled_in_one_way_is_lost_for_another_and_settled_for_the_same() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"1");
        gateway.publish("jobs", &[], b"2");
        let long = json!({"max": 2, "lease": "10m", "wait": "30s"});
        let mine = lease(&gateway, &long);
        let say = |way: &str, message: &Value| {
            let body = match way {
                "ack" | "release" => json!({way: [receipt(message)]}),
                _ => json!({way: [{"receipt": receipt(message), "reason": "said once more"}]}),
            };
            settle(&gateway, &body).concat()
        };
        // Given back, and with somebody else: as long as the batch lives, and after its end.
        assert_eq!(say("release", &mine[0]), "settled");
        let theirs = lease_one(&gateway, &long);
        assert_eq!(theirs["id"], mine[0]["id"]);
        for ended in [false, true] {
            for (way, result) in
                [("ack", "lost"), ("reject", "lost"), ("retry", "lost"), ("release", "settled")]
            {
                assert_eq!(say(way, &mine[0]), result, "{way} of what was released, batch ended: {ended}");
            }
            if !ended {
                assert_eq!(say("reject", &mine[1]), "settled");
            }
            for (way, result) in
                [("ack", "lost"), ("retry", "lost"), ("release", "lost"), ("reject", "settled")]
            {
                assert_eq!(say(way, &mine[1]), result, "{way} of what was rejected");
            }
        }
        let states = [&theirs, &mine[1]].map(|message| look(&gateway, message)["state"].clone());
        assert_eq!(states, ["leased", "dead"]);
        // A retry with another delay is the same way: the first delay stands.
        let retry = json!({"retry": [{"receipt": receipt(&theirs), "delay": "10ms"}]});
        assert_eq!(settle(&gateway, &retry), ["settled"]);
        let later = json!({"retry": [{"receipt": receipt(&theirs), "delay": "1h"}]});
        assert_eq!(settle(&gateway, &later), ["settled"]);
        let again = lease_one(&gateway, &long);
        assert_eq!((&again["id"], &again["attempt"]), (&theirs["id"], &json!(2)));
        assert_eq!(say("ack", &theirs), "lost");
        assert_eq!(look(&gateway, &theirs)["state"], "leased");
        assert_eq!([say("ack", &again), say("ack", &again)], ["settled"; 2]);
        let status = gateway.status();
        assert_eq!(["delivered", "dead", "leased"].map(|key| count(&status, key)), [1, 1, 0]);
    });
}

#[test]
fn a_settled_receipt_is_not_extended_though_others_of_its_answer_are() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        gateway.publish("jobs", &[], b"1");
        gateway.publish("jobs", &[], b"2");
        let mine = lease(&gateway, &json!({"max": 2, "lease": "10m"}));
        assert_eq!(settle(&gateway, &json!({"release": [receipt(&mine[0])]})), ["settled"]);
        let theirs = lease_one(&gateway, &json!({"lease": "10m"}));
        assert_eq!(theirs["id"], mine[0]["id"]);
        let both = json!({"receipts": [receipt(&mine[0]), receipt(&mine[1])], "lease": "20m"});
        assert_eq!(fates(&told(&gateway.address(), "/extend", &both)), ["lost", "extended"]);
        let one = json!({"receipts": [receipt(&mine[0])], "lease": "1h"});
        assert_eq!(fates(&told(&gateway.address(), "/extend", &one)), ["lost"]);
        let acks = json!({"ack": [receipt(&theirs), receipt(&mine[1])]});
        assert_eq!(settle(&gateway, &acks), ["settled"; 2]);
    });
}

#[test]
fn what_is_leased_is_extended_and_settled_whatever_works_for_the_queue_now() {
    over_both(|home| {
        // Of the API, so that the API may change it.
        let mut gateway = home.start("", &[]);
        let queue = |method, body: Value| {
            let headers = [("Content-Type", "application/json")];
            let answer = gateway.request(method, "/v1/queues/jobs", &headers, body.to_string().as_bytes());
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        };
        queue("PUT", json!({"processor": "pull"}));
        gateway.publish("jobs", &[], b"mine");
        let message = lease_one(&gateway, &json!({"lease": "10m"}));
        queue("PATCH", json!({"processor": "log"}));
        let extended = told(&gateway.address(), "/extend", &json!({"receipts": [receipt(&message)]}));
        assert_eq!(extended["results"][0]["result"], "extended", "{extended}");
        assert_eq!(settle(&gateway, &json!({"ack": [receipt(&message)]})), ["settled"]);
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["delivered", "recovered", "retried"].map(|key| count(&status, key)), [1, 0, 0]);
    });
}

#[test]
fn who_waits_gets_what_comes_and_a_paused_queue_gives_nothing() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        let began = Instant::now();
        assert_eq!(lease(&gateway, &json!({"wait": "300ms"})), Vec::<Value>::new());
        assert!(began.elapsed() >= Duration::from_millis(300), "it waited for as long as it was asked to");
        let mut waiting = super::ask(&gateway.address(), &json!({"wait": "30s", "max": 5}));
        gateway.publish("jobs", &[("Posthaste-Delay", "200ms")], b"in a while");
        let answer = waiting.answer(false).expect("an answer").json();
        assert_eq!(answer["items"][0]["payload"], "in a while");
    });
}

#[test]
fn answers_of_one_queue_that_are_not_taken_hold_up_no_other_queue() {
    over_both(|home| {
        let settings = format!(
            "{QUEUE}[queues.jobs.limits]\npayload_max = '16MiB'\n[queues.other]\nprocessor = 'pull'\n\
             [server.limits]\nanswers_bytes_max = '24MiB'\n"
        );
        let mut gateway = home.start(&settings, &[]);
        // More than the sockets hold.
        gateway.publish("jobs", &[], &vec![b'x'; 12 << 20]);
        gateway.publish("jobs", &[], b"next");
        gateway.publish("other", &[], b"small");
        let slow = ask(&gateway.address(), &json!({"lease": "10m"}));
        wait_until_leased(&mut gateway, 1);
        let behind = ask(&gateway.address(), &json!({"wait": "60s"}));
        let refused = post(&gateway.address(), "jobs", "", &json!({}));
        assert_eq!(refused.status, 503, "{}", refused.text());
        let refused = refused.json();
        assert_eq!(
            (&refused["code"], &refused["setting"]),
            (&json!("overloaded"), &json!("server.limits.answers_bytes_max"))
        );
        let answer = post(&gateway.address(), "other", "", &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["items"][0]["payload"], "small");
        drop((slow, behind));
    });
}
