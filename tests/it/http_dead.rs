//! Dead letters by API, on each kind of store: browsed, counted, replayed, discarded.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Connection};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::{assert_laws, count};
use crate::support::sink::{Answer as SinkAnswer, Sink};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_mins(1);
const JSON: (&str, &str) = ("Content-Type", "application/json");
const DEAD: &str = "/v1/queues/orders/dead";

on_both_stores! {
    they_are_listed_and_found_by_what_is_known_of_them
    they_are_shown_in_full_and_counted
    they_are_replayed_by_id_and_by_filter
    a_replay_stops_at_the_limits_of_its_queue
    a_replay_takes_ten_thousand_and_says_that_there_are_more
    they_are_discarded_one_some_and_all
    what_is_asked_wrongly_is_refused_and_changes_nothing
    who_goes_away_leaves_the_rest_where_it_was
}

/// A gateway whose receiver answers each message with the status that is its payload.
struct Scene {
    gateway: Gateway,
    sink: Sink,
}

impl Scene {
    /// Starts one with the queue `orders`, in which nothing is tried twice.
    fn start(home: &Home, settings: &Value) -> Self {
        let sink = Sink::start(|request| {
            let payload = request.body.as_deref().unwrap_or_default();
            let status = std::str::from_utf8(payload).ok().and_then(|text| text.get(..3)?.parse().ok());
            SinkAnswer::body(status.unwrap_or(200), "so be it")
        });
        let gateway = home.start("", &["--dev"]);
        let mut queue = json!({
            "processor": "http", "destination": sink.url("/hook?token=s3cret"), "retry": {"schedule": []},
        });
        let settings = settings.as_object().expect("settings").clone();
        queue.as_object_mut().expect("an object").extend(settings);
        let made = gateway.request("PUT", "/v1/queues/orders", &[JSON], queue.to_string().as_bytes());
        assert_eq!(made.status, 201, "{}", made.text());
        Self { gateway, sink }
    }

    /// Publishes messages that are answered so, and waits until all are dead. Gives their ids.
    fn bury(&self, statuses: &[&str]) -> Vec<String> {
        let before = self.dead();
        let ids = statuses.iter().map(|status| self.publish(&[], status)).collect();
        self.wait_for_dead(before + statuses.len() as u64);
        ids
    }

    fn publish(&self, headers: &[(&str, &str)], payload: &str) -> String {
        let path = self.gateway.publish("orders", headers, payload.as_bytes());
        path.rsplit('/').next().expect("an id").to_owned()
    }

    fn status(&self) -> Value {
        let status = self.gateway.status();
        assert_laws(&status);
        status
    }

    fn dead(&self) -> u64 {
        count(&self.status(), "dead")
    }

    fn wait_for_dead(&self, dead: u64) {
        wait_until("they are dead", WITHIN, || (self.dead() == dead).then_some(()));
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.gateway.request("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The ids of a page, and its cursor.
    fn list(&self, query: &str) -> (Vec<String>, Option<String>) {
        let page = self.get(&format!("{DEAD}{query}"));
        let items = page["items"].as_array().expect("items");
        let ids = items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect();
        (ids, page["cursor"].as_str().map(str::to_owned))
    }

    /// The ids of every page.
    fn list_all(&self, query: &str) -> Vec<String> {
        let (mut all, mut cursor) = self.list(query);
        while let Some(at) = cursor {
            let mark = if query.is_empty() { '?' } else { '&' };
            let (more, next) = self.list(&format!("{query}{mark}cursor={at}"));
            all.extend(more);
            cursor = next;
        }
        all
    }

    fn try_replay(&self, body: &Value) -> Answer {
        self.gateway.request("POST", &format!("{DEAD}/replay"), &[JSON], body.to_string().as_bytes())
    }

    fn replay(&self, body: &Value) -> Value {
        let answer = self.try_replay(body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    }

    fn delete(&self, path: &str) -> Answer {
        self.gateway.request("DELETE", &format!("{DEAD}{path}"), &[], b"")
    }

    fn hold(&self, what: &str) {
        let answer = self.gateway.request("POST", &format!("/v1/queues/orders/{what}"), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn they_are_listed_and_found_by_what_is_known_of_them(home: &Home) {
    let scene = Scene::start(home, &json!({}));
    assert_eq!(scene.get(DEAD), json!({"items": []}));
    let rejected = scene.bury(&["400", "400", "413"]);
    let exhausted = scene.bury(&["503", "500"]);
    let expired = scene.publish(&[("Posthaste-TTL", "1ms"), ("Posthaste-Delay", "50ms")], "200");
    scene.wait_for_dead(6);
    let all = scene.list_all("");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 6);
    assert_eq!(scene.list_all("?limit=1"), all, "the order is the same whatever the pages");
    assert_eq!(scene.list_all("?limit=4"), all);
    assert_eq!(scene.list("?limit=6"), (all.clone(), None));

    let items = scene.get(DEAD)["items"].clone();
    let items = items.as_array().expect("items");
    let died_at: Vec<_> = items.iter().map(|item| item["died_at"].as_str().expect("a time")).collect();
    assert!(died_at.is_sorted(), "{died_at:?}");
    let item = |id: &String| items.iter().find(|item| item["id"] == **id).expect("it is listed").clone();
    let shown = scene.sink.url("/hook?token=***");
    let first = item(&exhausted[0]);
    for (key, value) in [
        ("queue", json!("orders")),
        ("state", json!("dead")),
        ("reason", json!("exhausted")),
        ("status", json!(503)),
        ("destination", json!(shown)),
        ("attempt_count", json!(1)),
    ] {
        assert_eq!(first[key], value, "{key}: {first}");
    }
    assert!(first["bytes"].as_u64() >= Some(3) && first["published_at"].is_string(), "{first}");
    let never_tried = item(&expired);
    assert_eq!((&never_tried["reason"], &never_tried["attempt_count"]), (&json!("expired"), &json!(0)));
    assert!(never_tried.get("status").is_none() && never_tried.get("destination").is_none());

    let set = |ids: &[String]| ids.iter().cloned().collect::<HashSet<_>>();
    let found = |query: &str| set(&scene.list_all(query));
    let encoded = |text: &str| text.replace(':', "%3A").replace('&', "%26").replace('?', "%3F");
    let moment = encoded(item(&all[3])["died_at"].as_str().expect("a time"));
    for (query, expected) in [
        ("?reason=rejected".to_owned(), set(&rejected)),
        ("?reason=exhausted&status=500".to_owned(), set(&exhausted[1..])),
        ("?reason=poison".to_owned(), set(&[])),
        ("?status=413&limit=1".to_owned(), set(&rejected[2..])),
        ("?status=200".to_owned(), set(&[])),
        (format!("?destination={}", encoded(&shown)), set(&all[..5])),
        (format!("?destination={}", encoded(&scene.sink.url("/hook?token=s3cret"))), set(&all[..5])),
        (format!("?destination={}", encoded(&scene.sink.url("/other"))), set(&[])),
        (
            format!("?from={moment}"),
            set(&all).difference(&found(&format!("?to={moment}"))).cloned().collect(),
        ),
        ("?from=2000-01-01T00:00:00%2B02:00&to=9999-01-01T00:00:00Z".to_owned(), set(&all)),
        ("?to=2000-01-01T00:00:00Z".to_owned(), set(&[])),
    ] {
        assert_eq!(found(&query), expected, "{query}");
    }
    let cursor = scene.list("?limit=1").1.expect("there are more");
    for query in [
        format!("?cursor={cursor}&reason=expired"),
        format!("?cursor={cursor}x"),
        "?cursor=".to_owned(),
        "?cursor=MTctNA".to_owned(),
    ] {
        let refused = scene.gateway.request("GET", &format!("{DEAD}{query}"), &[], b"");
        let problem = refused.json();
        assert_eq!((refused.status, &problem["parameter"]), (400, &json!("cursor")), "{query}: {problem}");
    }
}

fn they_are_shown_in_full_and_counted(home: &Home) {
    let scene = Scene::start(home, &json!({}));
    let id =
        scene.publish(&[("Content-Type", "text/plain"), ("Posthaste-Priority", "high")], "503 \"quoted\"\n");
    scene.wait_for_dead(1);
    scene.bury(&["400", "400"]);
    let letter = scene.get(&format!("{DEAD}/{id}"));
    for (key, value) in [
        ("id", json!(id)),
        ("queue", json!("orders")),
        ("state", json!("dead")),
        ("reason", json!("exhausted")),
        ("priority", json!("high")),
        ("content_type", json!("text/plain")),
        ("payload", json!("503 \"quoted\"\n")),
        ("payload_bytes", json!(13)),
        ("attempt_count", json!(1)),
        ("max_attempts", json!(1)),
        ("status", json!(503)),
        ("destination", json!(scene.sink.url("/hook?token=***"))),
    ] {
        assert_eq!(letter[key], value, "{key}: {letter}");
    }
    assert_eq!(letter["attempts"][0]["excerpt"], "so be it", "{letter}");
    assert!(letter["died_at"].is_string() && letter["published_at"].is_string());
    let head = scene.gateway.request("HEAD", &format!("{DEAD}/{id}"), &[], b"");
    let length = letter.to_string().len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));

    let group = |key: &str, count: u64| json!({"key": key, "count": count});
    let groups = |by: &str| scene.get(&format!("{DEAD}/groups?by={by}"));
    let of = |by: &str, items: Value| json!({"by": by, "items": items});
    assert_eq!(groups("reason"), of("reason", json!([group("rejected", 2), group("exhausted", 1)])));
    assert_eq!(groups("status"), of("status", json!([group("400", 2), group("503", 1)])));
    scene.publish(&[("Posthaste-TTL", "1ms"), ("Posthaste-Delay", "50ms")], "200");
    scene.wait_for_dead(4);
    let shown = scene.sink.url("/hook?token=***");
    let expected = json!([group(&shown, 3), {"count": 1}]);
    assert_eq!(groups("destination"), of("destination", expected), "one was never tried");
}

fn they_are_replayed_by_id_and_by_filter(home: &Home) {
    let scene = Scene::start(home, &json!({}));
    let rejected = scene.bury(&["400", "400", "413"]);
    let exhausted = scene.bury(&["503"]);
    scene.hold("pause");
    let gone = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";
    let some = json!({"ids": [rejected[2], gone, rejected[0], rejected[2]]});
    let mut dry = some.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(scene.replay(&dry), json!({"matched": 2, "replayed": 0}));
    assert_eq!(scene.dead(), 4, "a dry run changes nothing");
    assert_eq!(scene.replay(&some), json!({"matched": 2, "replayed": 2}));
    assert_eq!(scene.replay(&some), json!({"matched": 0, "replayed": 0}), "they are no longer dead");
    let filter = json!({"filter": {"reason": "rejected", "destination": scene.sink.url("/hook?token=***")}});
    assert_eq!(scene.replay(&filter), json!({"matched": 1, "replayed": 1}));
    assert_eq!(scene.list_all(""), exhausted);
    let status = scene.status();
    assert_eq!(["replayed", "pending", "dead"].map(|key| count(&status, key)), [3, 3, 1], "{status}");
    let path = format!("/v1/queues/orders/messages/{}", rejected[0]);
    let message = scene.get(&path);
    assert_eq!((&message["state"], &message["attempt_count"]), (&json!("pending"), &json!(0)), "anew");
    assert_eq!(message["attempts"].as_array().map(Vec::len), Some(1), "its history stays: {message}");

    // They die again, each once more and not for ever: what was replayed is not taken again.
    scene.hold("resume");
    scene.wait_for_dead(4);
    assert_eq!(scene.get(&path)["attempts"].as_array().map(Vec::len), Some(2));
    let all = scene.replay(&json!({"filter": {}}));
    assert_eq!(all, json!({"matched": 4, "replayed": 4}));
    scene.wait_for_dead(4);
    assert_eq!(count(&scene.status(), "replayed"), 7);
}

fn a_replay_stops_at_the_limits_of_its_queue(home: &Home) {
    let scene = Scene::start(home, &json!({"limits": {"length_max": 3}}));
    let ids: Vec<_> = (0..5).flat_map(|_| scene.bury(&["400"])).collect();
    scene.hold("pause");
    scene.publish(&[], "200");
    for body in [json!({"filter": {}}), json!({"ids": ids})] {
        let done = scene.replay(&body);
        let left = done["matched"].as_u64().expect("a count");
        assert_eq!(
            (&done["replayed"], &done["stopped"]["code"]),
            (&json!(2), &json!("queue_full")),
            "{done}"
        );
        assert!(done["stopped"]["detail"].as_str().is_some_and(|why| why.contains("limits.length_max")));
        assert_eq!(scene.dead(), left - 2);
        let purged = scene.gateway.request("POST", "/v1/queues/orders/purge", &[], b"").json();
        assert_eq!(purged, json!({"purged": 3}));
        scene.publish(&[], "200");
    }
    let done = scene.replay(&json!({"filter": {}}));
    assert_eq!(done, json!({"matched": 1, "replayed": 1}));
}

fn a_replay_takes_ten_thousand_and_says_that_there_are_more(home: &Home) {
    const LETTERS: u64 = 10_050;
    let scene = Scene::start(home, &json!({}));
    // They expire as soon as their turn comes, which is later.
    scene.hold("pause");
    let address = scene.gateway.address();
    std::thread::scope(|scope| {
        for client in 0..32 {
            let address = &address;
            scope.spawn(move || {
                let mut connection = Connection::open(address).expect("a connection");
                for _ in (client..LETTERS).step_by(32) {
                    let path = "/v1/queues/orders/messages";
                    let sent = connection.request("POST", path, &[("Posthaste-TTL", "1ms")], b"200");
                    assert_eq!(sent.expect("an answer").status, 202);
                }
            });
        }
    });
    scene.hold("resume");
    scene.wait_for_dead(LETTERS);
    let dry = scene.replay(&json!({"filter": {}, "dry_run": true}));
    assert_eq!(dry, json!({"matched": LETTERS, "replayed": 0}));
    scene.hold("pause");
    let done = scene.replay(&json!({"filter": {"reason": "expired"}}));
    assert_eq!((&done["matched"], &done["replayed"]), (&json!(LETTERS), &json!(10_000)), "{done}");
    assert_eq!(done["stopped"]["code"], "too_many", "{done}");
    assert_eq!(scene.replay(&json!({"filter": {}})), json!({"matched": 50, "replayed": 50}));
    let status = scene.status();
    assert_eq!(["replayed", "dead"].map(|key| count(&status, key)), [LETTERS, 0]);
    scene.hold("resume");
    scene.wait_for_dead(LETTERS);
    let ids = scene.list_all("?limit=1000");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len() as u64, LETTERS, "each once");
    let done = scene.gateway.request("DELETE", DEAD, &[], b"").json();
    assert_eq!(done, json!({"discarded": LETTERS}));
}

fn they_are_discarded_one_some_and_all(home: &Home) {
    let scene = Scene::start(home, &json!({}));
    let rejected = scene.bury(&["400", "413", "415"]);
    scene.bury(&["503", "500"]);
    let one = format!("/{}", rejected[0]);
    let gone = scene.delete(&one);
    assert_eq!((gone.status, gone.body.len(), gone.header("content-type")), (204, 0, None));
    for path in [&one, "/0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400", "/x", "/%00"] {
        let unknown = scene.delete(path);
        assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("message_unknown")), "{path}");
    }
    assert_eq!(scene.gateway.request("GET", &format!("{DEAD}{one}"), &[], b"").status, 404);
    assert_eq!(scene.delete("?status=413").json(), json!({"discarded": 1}));
    assert_eq!(scene.delete("?reason=poison").json(), json!({"discarded": 0}));
    let encoded = scene.sink.url("/hook?token=***").replace('?', "%3F");
    assert_eq!(scene.delete(&format!("?status=500&destination={encoded}")).json(), json!({"discarded": 1}));
    assert_eq!(scene.dead(), 2);
    assert_eq!(scene.delete("").json(), json!({"discarded": 2}));
    assert_eq!(scene.delete("").json(), json!({"discarded": 0}));
    let status = scene.status();
    let counts = ["dead_lettered", "discarded", "trimmed", "dead"].map(|key| count(&status, key));
    assert_eq!(counts, [5, 5, 0, 0], "{status}");
}

fn what_is_asked_wrongly_is_refused_and_changes_nothing(home: &Home) {
    let scene = Scene::start(home, &json!({}));
    let ids = scene.bury(&["400"]);
    let replay = format!("POST {DEAD}/replay");
    let get = |query: &str| format!("GET {DEAD}{query}");
    let delete = |query: &str| format!("DELETE {DEAD}{query}");
    let none = "";
    for (line, body, status, code) in [
        (get("?limit=0"), none, 400, "invalid_value"),
        (get("?limit=1001"), none, 400, "invalid_value"),
        (get("?limit=x"), none, 400, "invalid_value"),
        (get("?limit=5&limit=5"), none, 400, "contradictory_options"),
        (get("?reson=rejected"), none, 400, "unknown_parameter"),
        (get("?reason=rejceted"), none, 400, "invalid_value"),
        (get("?reason=rejected&reason=expired"), none, 400, "contradictory_options"),
        (get("?status=99"), none, 400, "invalid_value"),
        (get("?status=4000"), none, 400, "invalid_value"),
        (get("?destination=nowhere"), none, 400, "invalid_value"),
        (get("?from=yesterday"), none, 400, "invalid_value"),
        (get("?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"), none, 400, "contradictory_options"),
        (get("/groups"), none, 400, "invalid_value"),
        (get("/groups?by=reasons"), none, 400, "invalid_value"),
        (get("/groups?by=reason&limit=1"), none, 400, "unknown_parameter"),
        (get("/nothing"), none, 404, "message_unknown"),
        (get(&format!("/{}?payload=true", ids[0])), none, 400, "unknown_parameter"),
        (delete("?limit=1"), none, 400, "unknown_parameter"),
        (delete("?reason=rejceted"), none, 400, "invalid_value"),
        (delete(""), r#"{"filter":{"reason":"expired"}}"#, 400, "unknown_field"),
        (delete(""), "[]", 400, "invalid_value"),
        (delete(""), "x", 400, "malformed"),
        (delete(&format!("/{}", ids[0])), r#"{"force":true}"#, 400, "unknown_field"),
        (replay.clone(), none, 400, "malformed"),
        (replay.clone(), "{}", 400, "invalid_value"),
        (replay.clone(), r#"{"ids":[],"ids":[]}"#, 400, "malformed"),
        (replay.clone(), r#"{"ids":["x"]}"#, 400, "invalid_value"),
        (replay.clone(), r#"{"ids":[],"filter":{}}"#, 400, "contradictory_options"),
        (replay.clone(), r#"{"filter":{"status":"400"}}"#, 400, "invalid_value"),
        (replay.clone(), r#"{"filter":{},"dry-run":true}"#, 400, "unknown_field"),
        (replay.clone(), r#"{"filter":{},"rate":"5/s"}"#, 422, "setting_out_of_range"),
        (format!("{replay}?dry_run=true"), r#"{"filter":{}}"#, 400, "unknown_parameter"),
        (replay.replace("orders", "nothing"), r#"{"filter":{}}"#, 404, "queue_unknown"),
    ] {
        let (method, path) = line.split_once(' ').expect("a method");
        let answer = scene.gateway.request(method, path, &[JSON], body.as_bytes());
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{line} {body}: {}",
            answer.text()
        );
    }
    let unescaped = format!("{DEAD}?from=2026-01-01T00:00:00+01:00");
    let unescaped = scene.gateway.request("GET", &unescaped, &[], b"").json();
    assert_eq!((&unescaped["code"], &unescaped["parameter"]), (&json!("invalid_value"), &json!("from")));
    assert!(unescaped["detail"].as_str().is_some_and(|why| why.contains("%2B")), "{unescaped}");
    let plain = scene.gateway.request("POST", &format!("{DEAD}/replay"), &[], br#"{"filter":{}}"#);
    assert_eq!((plain.status, &plain.json()["code"]), (415, &json!("unsupported_media_type")));
    let large = scene.gateway.request("POST", &format!("{DEAD}/replay"), &[JSON], &vec![b' '; (1 << 20) + 1]);
    assert_eq!((large.status, &large.json()["limit"]), (413, &json!(1 << 20)));
    assert_eq!(scene.list_all(""), ids);
}

fn who_goes_away_leaves_the_rest_where_it_was(home: &Home) {
    use std::io::Write as _;
    use std::net::{Shutdown, TcpStream};
    const LETTERS: usize = 3_000;
    let scene = Scene::start(home, &json!({}));
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let mut connection = Connection::open(&scene.gateway.address()).expect("a connection");
                for _ in 0..LETTERS / 30 {
                    let path = "/v1/queues/orders/messages";
                    let sent = connection.request("POST", path, &[], b"400");
                    assert_eq!(sent.expect("an answer").status, 202);
                }
            });
        }
    });
    scene.wait_for_dead(LETTERS as u64);
    scene.hold("pause");
    // Its side is ended before the request is read, so nothing is done at all, or a step at most.
    let mut client = TcpStream::connect(scene.gateway.address()).expect("a connection");
    write!(client, "DELETE {DEAD} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    client.shutdown(Shutdown::Write).expect("ended");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client, &mut answer).expect("an answer");
    assert!(answer.contains("\"stopped\":{\"code\":\"connection_ended\""), "{answer}");
    let left = scene.dead();
    assert!(left >= LETTERS as u64 - 1_000, "{left} are left");
    assert_eq!(scene.replay(&json!({"filter": {}})), json!({"matched": left, "replayed": left}));
}
