//! A key that all queues share is overwritten by somebody else: both gateways say so, and the cure that they print brings back
//! everything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Home};
use crate::support::redis::RedisServer;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(20);
const SETTINGS: &str = "[queues.orders]\nprocessor = 'log'\n[queues.jobs]\nprocessor = 'pull'\n";

/// Two gateways, with a queue each from file and by API.
fn pair() -> (RedisServer, [Gateway; 2]) {
    let redis = RedisServer::start_durable();
    let gateways = [(); 2].map(|()| {
        let mut gateway = Gateway::prepare(SETTINGS, &[]).over(&redis);
        gateway.launch_until_ready();
        gateway
    });
    assert_eq!(put(&gateways[0], "made").status, 201);
    (redis, gateways)
}

fn put(gateway: &Gateway, name: &str) -> crate::support::client::Answer {
    let headers = [("Content-Type", "application/json")];
    gateway.request("PUT", &format!("/v1/queues/{name}"), &headers, br#"{"processor":"pull"}"#)
}

fn pending(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.status();
    let queues = status["queues"].as_array().cloned().unwrap_or_default();
    let queue = queues.into_iter().find(|queue| queue["name"] == name);
    queue.unwrap_or_else(|| panic!("{status}"))["pending"].clone()
}

/// Overwrites the key, waits until both gateways name it, and gives what the warning says.
fn overwrite(redis: &RedisServer, gateways: &[Gateway; 2], key: &str) -> String {
    redis.order(&format!("SET {key} junk"));
    let told = |gateway: &Gateway| {
        let status = gateway.status();
        let warnings = status["store"]["warnings"].as_array()?.clone();
        let details = warnings.into_iter().filter(|warning| warning["code"] == "foreign_type");
        details
            .filter_map(|warning| warning["detail"].as_str().map(str::to_owned))
            .find(|detail| detail.contains(&format!("the key {key} ")))
    };
    let [first, second] = gateways;
    wait_until("both say so", WITHIN, || told(first).and(told(second)))
}

/// Does what the warning says, and waits until both gateways are content.
fn cure(redis: &RedisServer, gateways: &[Gateway; 2], key: &str, detail: &str) {
    assert!(detail.contains("redis-cli ") && detail.ends_with(&format!(" DEL {key:?}")), "{detail}");
    redis.ask(&["DEL", key]);
    wait_until("both are content", WITHIN, || {
        let content = |gateway: &Gateway| {
            let is_ready = gateway.request("GET", "/ready", &[], b"").status == 200;
            (is_ready && !gateway.status()["store"]["warnings"].to_string().contains("foreign_type"))
                .then_some(())
        };
        content(&gateways[0]).and(content(&gateways[1]))
    });
}

fn wait_until_ready_says_not_swept(gateways: &[Gateway; 2], key: &str) {
    for gateway in gateways {
        wait_until("/ready says so", WITHIN, || {
            let ready = gateway.request("GET", "/ready", &[], b"");
            let reason = ready.json()["reasons"][0].clone();
            let names_it = reason["detail"].as_str().is_some_and(|detail| detail.contains(key));
            (ready.status == 503 && reason["code"] == "not_swept" && names_it).then_some(())
        });
    }
}

fn lease(gateway: &Gateway) -> Value {
    let headers = [("Content-Type", "application/json")];
    let leased = gateway.request("POST", "/v1/queues/jobs/leases", &headers, br#"{"max":1,"lease":"1s"}"#);
    assert_eq!(leased.status, 200, "{}", leased.text());
    leased.json()["items"].clone()
}

fn nothing_is_swept_until_it_is_cured(key: &str) {
    let (redis, mut gateways) = pair();
    let delayed = gateways[0].publish("orders", &[("Posthaste-Delay", "2s")], b"early");
    gateways[0].publish("jobs", &[], b"job");
    assert_eq!(lease(&gateways[0]).as_array().map(Vec::len), Some(1));
    let detail = overwrite(&redis, &gateways, key);
    wait_until_ready_says_not_swept(&gateways, key);
    let late = gateways[1].publish("orders", &[("Posthaste-Delay", "1s")], b"late");
    let fresh = gateways[1].publish("orders", &[], b"fresh");
    gateways[1].wait_until_message_is("delivered", &fresh, WITHIN);
    cure(&redis, &gateways, key, &detail);
    for path in [delayed, late] {
        gateways[0].wait_until_message_is("delivered", &path, WITHIN);
    }
    wait_until("the lost lease is taken back", WITHIN, || {
        (!lease(&gateways[1]).as_array()?.is_empty()).then_some(())
    });
    gateways.iter_mut().for_each(Gateway::stop);
}

#[test]
fn the_index_of_what_is_due_is_made_anew_from_the_list_of_queues() {
    nothing_is_swept_until_it_is_cured("ph:{0}:due");
}

#[test]
fn the_clock_of_the_sweeps_is_made_anew() {
    nothing_is_swept_until_it_is_cured("ph:{0}:clock");
}

#[test]
fn the_count_of_changes_goes_on_without_a_number_twice_and_no_change_is_missed() {
    let (redis, mut gateways) = pair();
    let count = || {
        let answer = redis.ask(&["GET", "ph:changes"]);
        answer.lines().nth(1).and_then(|number| number.parse::<u64>().ok())
    };
    let before = count().expect("it counts");
    let is_paused = |gateway: &Gateway, wanted: bool| {
        let queue = gateway.request("GET", "/v1/queues", &[], b"").json();
        let orders = queue["items"].as_array()?.iter().find(|queue| queue["name"] == "orders")?.clone();
        (orders["paused"] == json!(wanted)).then_some(())
    };
    let hold = |gateway: &Gateway, word: &str| {
        let held = gateway.request("POST", &format!("/v1/queues/orders/{word}"), &[], b"");
        assert_eq!(held.status, 200, "{}", held.text());
    };
    let detail = overwrite(&redis, &gateways, "ph:changes");
    hold(&gateways[0], "pause");
    wait_until("the other sees it", WITHIN, || is_paused(&gateways[1], true));
    assert_eq!(put(&gateways[0], "later").status, 201);
    let answer = gateways[1].request("POST", "/v1/queues/later/messages", &[], b"x");
    assert_eq!(answer.status, 202, "{}", answer.text());
    redis.ask(&["DEL", "ph:changes"]);
    redis.ask(&["LPUSH", "ph:changes", "junk"]);
    hold(&gateways[0], "resume");
    wait_until("the other sees it as well", WITHIN, || is_paused(&gateways[1], false));
    cure(&redis, &gateways, "ph:changes", &detail);
    let after = wait_until("it counts again", WITHIN, count);
    assert!(after > before, "{before} {after}");
    // Gone once more, while nobody looks: the next number is none that was there.
    redis.ask(&["DEL", "ph:changes"]);
    hold(&gateways[0], "pause");
    wait_until("the other sees it at once", WITHIN, || is_paused(&gateways[1], true));
    assert!(count().is_some_and(|count| count > after));
    gateways.iter_mut().for_each(Gateway::stop);
}

#[test]
fn the_list_of_queues_is_written_anew_from_what_gateways_know() {
    let (redis, mut gateways) = pair();
    gateways[0].publish("made", &[], b"kept");
    let entries = redis.ask(&["HLEN", "ph:queues"]);
    let detail = overwrite(&redis, &gateways, "ph:queues");
    let refused = put(&gateways[0], "later");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("ph:queues"), "{}", refused.text());
    let path = gateways[1].publish("orders", &[], b"served");
    gateways[1].wait_until_message_is("delivered", &path, WITHIN);
    cure(&redis, &gateways, "ph:queues", &detail);
    wait_until("it is written", WITHIN, || (redis.ask(&["HLEN", "ph:queues"]) == entries).then_some(()));
    assert_eq!(put(&gateways[0], "later").status, 201);
    gateways[1].restart();
    assert_eq!(pending(&gateways[1], "made"), json!(1));
    gateways.iter_mut().for_each(Gateway::stop);
}

#[test]
fn queues_whose_list_is_lost_while_no_gateway_runs_go_on_when_they_are_made_again() {
    let home = Home::redis();
    let mut gateway = home.start(SETTINGS, &[]);
    put(&gateway, "made");
    gateway.publish("made", &[], b"kept");
    gateway.publish("jobs", &[], b"kept");
    gateway.stop();
    let Home::Redis(redis) = &home else { panic!("it is") };
    redis.ask(&["DEL", "ph:queues"]);
    gateway.launch_until_ready();
    assert_eq!(put(&gateway, "made").status, 201);
    for name in ["made", "jobs"] {
        assert_eq!(pending(&gateway, name), json!(1), "{name}");
    }
    gateway.stop();
}

#[test]
fn the_list_of_gateways_is_made_anew() {
    let (redis, mut gateways) = pair();
    let detail = overwrite(&redis, &gateways, "ph:instances");
    cure(&redis, &gateways, "ph:instances", &detail);
    wait_until("both are there", WITHIN, || {
        (gateways[1].status()["instances"].as_array()?.len() == 2).then_some(())
    });
    gateways.iter_mut().for_each(Gateway::stop);
}

#[test]
fn the_mark_of_the_store_is_put_back_as_the_warning_says() {
    for is_list in [false, true] {
        let (redis, mut gateways) = pair();
        let own = redis.ask(&["GET", "ph:epoch"]).lines().nth(1).expect("there is one").to_owned();
        if is_list {
            redis.ask(&["DEL", "ph:epoch"]);
            redis.ask(&["LPUSH", "ph:epoch", "junk"]);
        } else {
            redis.order("SET ph:epoch junk");
        }
        for gateway in &gateways {
            let command = format!("SET ph:epoch {own}");
            wait_until("it says how to put it back", WITHIN, || {
                let status = gateway.status();
                let warning = status["store"]["warnings"].as_array()?.iter().find(|warning| {
                    warning["code"] == "foreign_type"
                        && warning["detail"].as_str().is_some_and(|detail| detail.ends_with(&command))
                });
                warning.map(|_| ())
            });
            let ready = gateway.request("GET", "/ready", &[], b"");
            assert!(ready.status == 503 && ready.text().contains(&command), "{}", ready.text());
        }
        redis.order(&format!("SET ph:epoch {own}"));
        for gateway in &mut gateways {
            gateway.wait_until_ready(WITHIN);
            let path = gateway.publish("orders", &[], b"x");
            gateway.wait_until_message_is("delivered", &path, WITHIN);
        }
        gateways.iter_mut().for_each(Gateway::stop);
    }
}
