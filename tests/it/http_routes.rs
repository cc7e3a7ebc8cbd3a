//! What holds for every route there is: a new one is looked at by itself.

use std::time::{Duration, Instant};

use posthaste::http::routes;
use serde_json::json;

use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Home};
use crate::support::redis::RedisServer;
use crate::support::routes::{Sample, sample};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

/// What a store that does not answer is waited for, at most, on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(25);
const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    what_is_not_known_is_refused_by_name
    head_works_on_every_get_and_every_other_method_is_refused
    no_route_takes_a_queue_that_cannot_be
}

fn samples(queue: &str) -> Vec<(&'static str, Sample)> {
    routes().map(|(path, method)| (path, sample(path, method, queue))).collect()
}

fn send(gateway: &Gateway, sample: &Sample) -> Answer {
    gateway.request(sample.method, &sample.target, &sample.headers, sample.body.as_bytes())
}

fn assert_refused(answer: &Answer, status: u16, code: &str, what: &str) {
    let found = (answer.status, answer.json()["code"].clone());
    assert_eq!(found, (status, json!(code)), "{what}: {}", answer.text());
}

fn with_parameter(target: &str, parameter: &str) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    format!("{target}{mark}{parameter}")
}

fn what_is_not_known_is_refused_by_name(home: &Home) {
    let gateway = home.start("", &[]);
    for (path, mut sample) in samples("default") {
        let what = format!("{} {path}", sample.method);
        let mut headers = sample.headers.clone();
        headers.push(("Posthaste-Dealy", "1s"));
        let refused = gateway.request(sample.method, &sample.target, &headers, sample.body.as_bytes());
        assert_refused(&refused, 400, "unknown_header", &what);
        let problem = refused.json();
        assert!(problem["header"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("posthaste-dealy")));
        assert!(
            problem["detail"].as_str().is_some_and(|why| why.contains("Posthaste-Delay")),
            "{what}: {problem}"
        );

        let target = std::mem::take(&mut sample.target);
        sample.target = with_parameter(&target, "xqz=1");
        let refused = send(&gateway, &sample);
        assert_refused(&refused, 400, "unknown_parameter", &what);
        assert_eq!(refused.json()["parameter"], "xqz", "{what}");
        let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
        if let Some((_, taken)) = detail.split_once("taken here: ") {
            let known = taken.split([',', ';']).next().expect("a name").trim();
            let slip = format!("{known}s");
            sample.target = with_parameter(&target, &format!("{slip}=1"));
            let refused = send(&gateway, &sample).json();
            let hint = format!("did you mean {known:?}?");
            assert!(refused["detail"].as_str().is_some_and(|why| why.contains(&hint)), "{what}: {refused}");
        }
        // What a publish brings is anything, and so is each line of a batch.
        if sample.method != "POST" || !path.contains("/messages") {
            let json = [("Content-Type", "application/json")];
            let refused = gateway.request(sample.method, &target, &json, br#"{"xqz":1}"#);
            assert_refused(&refused, 400, "unknown_field", &what);
            assert_eq!(refused.json()["pointer"], "/xqz", "{what}");
        }
    }
    let totals = gateway.status()["totals"].clone();
    assert_eq!(
        (&totals["accepted"], &totals["purged"]),
        (&json!(0), &json!(0)),
        "nothing was done: {totals}"
    );
}

fn head_works_on_every_get_and_every_other_method_is_refused(home: &Home) {
    let gateway = home.start("", &[]);
    let all: Vec<_> = routes().collect();
    for (path, sample) in samples("default") {
        if sample.method == "GET" {
            let got = send(&gateway, &sample);
            let head = gateway.request("HEAD", &sample.target, &[], b"");
            let json = [("Content-Type", "application/json")];
            for (body, status) in [("{}", got.status), (" ", got.status), (r#"{"reason":"poison"}"#, 400)] {
                let answer = gateway.request("GET", &sample.target, &json, body.as_bytes());
                assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
                let head = gateway.request("HEAD", &sample.target, &json, body.as_bytes());
                assert_eq!((head.status, head.body.len()), (status, 0), "HEAD {path} {body}");
            }
            assert_eq!((head.status, head.body.len()), (got.status, 0), "{path}");
            assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
            assert!(head.header("content-length").is_some(), "{path}");
        }
        let mut allowed: Vec<&str> =
            all.iter().filter(|(other, _)| *other == path).map(|(_, method)| *method).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        for method in ["BREW", "OPTIONS", "GET", "PUT", "PATCH", "POST", "DELETE"] {
            if allowed.contains(&method) {
                continue;
            }
            let refused = gateway.request(method, &sample.target, &[], b"");
            assert_refused(&refused, 405, "method_not_allowed", path);
            let mut said: Vec<_> = refused.header("allow").expect("Allow").split(", ").collect();
            said.sort_unstable();
            assert_eq!(said, allowed, "{method} {path}");
        }
    }
}

fn no_route_takes_a_queue_that_cannot_be(home: &Home) {
    let gateway = home.start("", &[]);
    for queue in ["-", "%2e%2e", "a%2Fb", "a%00b", "%ff", "a%20b"] {
        for (path, sample) in samples(queue) {
            if path.contains("{queue}") {
                assert_refused(
                    &send(&gateway, &sample),
                    400,
                    "invalid_queue_name",
                    &format!("{path} {queue}"),
                );
            }
        }
    }
    for (path, sample) in samples("nothing") {
        if path.contains("{queue}") && sample.method != "PUT" {
            let what = format!("{} {path}", sample.method);
            let refused = send(&gateway, &sample);
            assert_refused(&refused, 404, "queue_unknown", &what);
            let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
            assert!(detail.contains("PUT /v1/queues/nothing"), "{what} says how to make it: {detail}");
        }
    }
}

/// Which routes answer without the store, and how.
fn without_the_store(path: &str, method: &str) -> Option<u16> {
    match (method, path) {
        // What is known of a queue is shown.
        ("GET", "/" | "/health" | "/status" | "/v1/queues/{queue}") => Some(200),
        // Of this queue, which has workers, nobody leases, whatever the store says.
        ("POST", "/v1/queues/{queue}/leases") => Some(409),
        _ => None,
    }
}

fn assert_each_route_says_that_the_store_is_away(gateway: &Gateway) {
    // All at once: each may take its time.
    std::thread::scope(|scope| {
        for (path, sample) in samples("default") {
            scope.spawn(move || assert_says_that_the_store_is_away(gateway, path, &sample));
        }
        scope.spawn(|| assert_status_takes_its_time_once(gateway));
    });
    wait_until("it is not ready", WITHIN, || {
        let ready = gateway.request("GET", "/ready", &[], b"");
        (ready.status == 503).then_some(())
    });
    // Whoever asks the store now would wait, and hear that it did not answer in time: nobody asks it.
    for (path, sample) in samples("default") {
        let code = assert_says_that_the_store_is_away(gateway, path, &sample);
        assert!(code.is_none_or(|code| code == "store_unavailable"), "{} {path}", sample.method);
    }
    assert_status_takes_its_time_once(gateway);
    let unknown = gateway.request("GET", "/v1/queues/nothing", &[], b"");
    assert_eq!(unknown.status, 503, "it may be there: {}", unknown.text());
}

/// However many queues are asked for that nobody here knows.
fn assert_status_takes_its_time_once(gateway: &Gateway) {
    let names: Vec<_> = (0..100).map(|number| format!("queue=unknown{number}")).collect();
    let begun = Instant::now();
    let status = gateway.request("GET", &format!("/status?{}", names.join("&")), &[], b"");
    assert_eq!((status.status, &status.json()["queues"]), (200, &json!([])), "{}", status.text());
    assert!(begun.elapsed() < ANSWERED_WITHIN, "it took {:?}", begun.elapsed());
}

/// Gives the code of the refusal, where it is one.
fn assert_says_that_the_store_is_away(gateway: &Gateway, path: &str, sample: &Sample) -> Option<String> {
    let (what, begun) = (format!("{} {path}", sample.method), Instant::now());
    let answer = send(gateway, sample);
    assert!(begun.elapsed() < ANSWERED_WITHIN, "{what} took {:?}", begun.elapsed());
    if let Some(status) = without_the_store(path, sample.method) {
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        return None;
    }
    if path == "/ready" {
        // It says what was seen last, within a second or two.
        return None;
    }
    let problem = answer.json();
    assert_eq!(answer.status, 503, "{what}: {problem}");
    let code = problem["code"].as_str().expect("a code");
    // Two publishes go to the store one after the other where they do not come in the same moment: then it does not get to the second.
    let is_behind = code == "overloaded" && sample.method == "POST" && path.contains("/messages");
    assert!(matches!(code, "store_unavailable" | "store_timeout") || is_behind, "{what}: {problem}");
    assert!(answer.header("retry-after").is_some(), "{what}");
    Some(code.to_owned())
}

fn over(redis: &RedisServer) -> Gateway {
    let mut gateway = Gateway::prepare("", &[]).over(redis);
    gateway.launch_until_ready();
    gateway
}

#[test]
fn with_redis_gone_every_route_says_so() {
    let mut redis = RedisServer::start_durable();
    let mut gateway = over(&redis);
    redis.kill();
    assert_each_route_says_that_the_store_is_away(&gateway);
    redis.launch();
    gateway.wait_until_ready(WITHIN);
    assert_eq!(gateway.request("POST", "/v1/queues/default/resume", &[], b"").status, 200);
}

#[test]
fn with_redis_frozen_no_route_hangs() {
    let redis = RedisServer::start_durable();
    let mut gateway = over(&redis);
    redis.freeze();
    assert_each_route_says_that_the_store_is_away(&gateway);
    redis.thaw();
    gateway.wait_until_ready(WITHIN);
}

/// Two gateways on one Redis: what one is told of a queue, the other goes by.
#[test]
fn every_route_knows_a_queue_that_another_gateway_made_or_deleted() {
    let redis = RedisServer::start_durable();
    let [first, second] = [over(&redis), over(&redis)];
    for (number, (path, method)) in routes().enumerate() {
        if !path.contains("{queue}") {
            continue;
        }
        let (name, what) = (format!("q{number}"), format!("{method} {path}"));
        let make = sample("/v1/queues/{queue}", "PUT", &name);
        assert_eq!(send(&first, &make).status, 201, "{what}");
        // At once: the store is asked before a 404.
        let sample = sample(path, method, &name);
        let answer = send(&second, &sample);
        let unknown = answer.status == 404 && answer.json()["code"] == "queue_unknown";
        assert!(!unknown, "{what}: {}", answer.text());
        if (method, path) == ("PUT", "/v1/queues/{queue}") {
            assert_eq!(answer.status, 200, "it was there");
            continue;
        }
        let deleted = first.request("DELETE", &format!("/v1/queues/{name}?force=true"), &[], b"");
        let expected = if (method, path) == ("DELETE", "/v1/queues/{queue}") { 404 } else { 204 };
        assert_eq!(deleted.status, expected, "{what}: {}", deleted.text());
        let gone = || {
            let answer = send(&second, &sample);
            let is_gone = answer.status == 404 && answer.json()["code"] == "queue_unknown";
            // What only shows what is known, or says that a receipt is lost, may be a second behind; whatever does something is not.
            let may_lag = [
                ("GET", "/v1/queues/{queue}"),
                ("POST", "/v1/queues/{queue}/leases/extend"),
                ("POST", "/v1/queues/{queue}/leases/settle"),
            ];
            assert!(is_gone || may_lag.contains(&(method, path)), "{what}: {}", answer.text());
            is_gone.then_some(())
        };
        wait_until("it is gone here too", Duration::from_secs(2), gone);
    }
}
