//! Destinations that nobody may reach, by every spelling and trick: refused when a queue is made or changed, when a message
//! brings one, alone and in a batch, when one that lies in the store is delivered, and when it is replayed.

use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::id::{MessageId, Shard};
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::queue::{DestinationOverride, QueueSettings};
use posthaste::domain::record::{self, Head};
use posthaste::store::enqueue::{CallId, Due, Group, GroupResult, NewMessage};
use posthaste::store::settings::StoreSettings;
use posthaste::store::{self, Put};
use serde_json::{Value, json};

use super::{Canary, Names, call, http, put, start};
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;
use crate::support::invariants::count;
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);

on_both_stores! {
    what_may_not_be_reached_is_refused_wherever_it_is_said
    what_lies_in_the_store_is_neither_delivered_nor_replayed
    public_destinations_are_taken
}

/// Every way to say a place that must not be reached; `PORT` is the canary's.
const VECTORS: &[&str] = &[
    // This machine: decimal, short, whole, octal, hexadecimal, mixed, full-width, ideographic stops, escapes, a dot at the end.
    "http://127.0.0.1:PORT/",
    "https://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://017700000001:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0x7f.0x0.0x0.0x1:PORT/",
    "http://0177.0.0x0.1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://127.255.255.254:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://127%2e0%2e0%2e1:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "http://\t127.0.0.1:PORT/",
    "HTTP://127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:127.0.0.1:PORT",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/",
    "http://0.0.0.0:PORT/",
    "http://0:PORT/",
    "http://0x0:PORT/",
    "http://[::]:PORT/",
    "http://[::ffff:0.0.0.0]:PORT/",
    // Private networks.
    "http://10.0.0.1:PORT/",
    "http://167772161:PORT/",
    "http://012.0.0.1:PORT/",
    "http://172.16.0.1:PORT/",
    "http://172.31.255.255:PORT/",
    "http://192.168.1.1:PORT/",
    "http://0xc0a80101:PORT/",
    "http://[fc00::1]:PORT/",
    "http://[fd12:3456:789a::1]:PORT/",
    "http://[::ffff:10.0.0.1]:PORT/",
    // Where clouds serve credentials, and link-local.
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://metadata.google.internal/",
    "http://169.254.1.1:PORT/",
    "http://[fe80::1]:PORT/",
    // Ranges that no public server has.
    "http://100.64.0.1:PORT/",
    "http://192.0.0.1:PORT/",
    "http://192.0.2.1:PORT/",
    "http://198.18.0.1:PORT/",
    "http://192.88.99.1:PORT/",
    "http://224.0.0.1:PORT/",
    "http://240.0.0.1:PORT/",
    "http://255.255.255.255:PORT/",
    "http://[fec0::1]:PORT/",
    "http://[ff02::1]:PORT/",
    "http://[100::1]:PORT/",
    "http://[2001:db8::1]:PORT/",
    "http://[5f00::1]:PORT/",
    // IPv4 inside IPv6: compatible, NAT64, its local prefix, 6to4, Teredo, ISATAP, translated.
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b:1::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:808:808::80ff:fffe]:PORT/",
    "http://[2a00::5efe:127.0.0.1]:PORT/",
    "http://[::ffff:0:127.0.0.1]:PORT/",
    // Names of this machine and of inner networks.
    "http://localhost:PORT/",
    "http://LOCALHOST:PORT/",
    "http://localhost.:PORT/",
    "http://a.localhost:PORT/",
    "http://printer.local:PORT/",
    "http://nas.home.arpa:PORT/",
    "http://redis:PORT/",
    "http://public.example.:PORT/",
    // Names that lead there: alone, among public addresses of either family, hidden in IPv6.
    "http://loopback.example:PORT/",
    "http://loopback6.example:PORT/",
    "http://private.example:PORT/",
    "http://mixed.example:PORT/",
    "http://mixed6.example:PORT/",
    "http://nat64.example:PORT/",
    "http://metadata.example:PORT/",
    "http://unspecified.example:PORT/",
    "http://LOOPBACK.example:PORT/",
    // Ports of services.
    "http://public.example:22/",
    "http://public.example:25/",
    "http://public.example:6379/",
    "https://public.example:2375/",
    "http://93.184.216.34:11211/",
];

/// What is not even a destination, whatever a header or a file can hold of it.
const NO_DESTINATIONS: &[&str] = &[
    "http://user@127.0.0.1:PORT/",
    "http://public.example@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/#@public.example/",
    "http://127.0.0.1%00.public.example:PORT/",
    "http://[fe80::1%25eth0]:PORT/",
    "http://256.256.256.256:PORT/",
    "gopher://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "//127.0.0.1:PORT/",
    "http://public.example:0/",
];

/// Beyond ASCII: a header cannot carry it, JSON can.
const BEYOND_ASCII: &[&str] = &[
    "http://１２７.０.０.１:PORT/",
    "http://127。0。0。1:PORT/",
    "http://ｌocalhost:PORT/",
    "http://①②⑦.⓪.⓪.①:PORT/",
];

const CONTROL: &[&str] = &[
    "http://public.example/",
    "https://public.example/hook?a=1",
    "https://public.example:8443/",
    "http://PUBLIC.example:3000/",
    "http://1.1.1.1/",
    "https://93.184.216.34/",
    "http://134744072/",
    "http://0x08080808/",
    "http://[2606:4700:4700::1111]/",
    "http://[::ffff:8.8.8.8]/",
    "http://172.32.0.1/",
    "http://100.128.0.1/",
    "http://bücher.example/",
    "http://localhost.example.com/",
    "http://unknown.example/",
];

fn names() -> Names {
    let names = Names::default();
    for (name, addresses) in [
        ("public.example", &["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"][..]),
        ("loopback.example", &["127.0.0.1"]),
        ("loopback6.example", &["::1"]),
        ("private.example", &["10.0.0.7"]),
        ("mixed.example", &["93.184.216.34", "1.1.1.1", "127.0.0.1"]),
        ("mixed6.example", &["2606:2800:220:1:248:1893:25c8:1946", "::ffff:127.0.0.1"]),
        ("nat64.example", &["64:ff9b::7f00:1"]),
        ("metadata.example", &["169.254.169.254"]),
        ("unspecified.example", &["0.0.0.0"]),
        ("xn--bcher-kva.example", &["93.184.216.34"]),
        ("localhost.example.com", &["93.184.216.34"]),
    ] {
        names.set(name, addresses);
    }
    names
}

fn all(canary: &Canary, groups: &[&[&str]]) -> Vec<String> {
    let port = canary.port().to_string();
    groups.iter().flat_map(|group| group.iter()).map(|text| text.replace("PORT", &port)).collect()
}

/// It says which rule is broken and, where something does, what would allow it.
fn assert_refused(status: u16, problem: &Value, text: &str) {
    let (code, detail) = (&problem["code"], problem["detail"].as_str().expect("a detail"));
    match (status, code.as_str()) {
        (422, Some("destination_refused")) => {
            assert!(detail.contains("would allow it with egress.allow = ["), "{text}: {detail}");
        }
        (400 | 422, Some("invalid_value" | "setting_out_of_range" | "destination_not_allowed")) => {}
        _ => panic!("{text}: {status} {problem}"),
    }
}

fn what_may_not_be_reached_is_refused_wherever_it_is_said(home: &Home) {
    let (canary, names) = (Canary::start(), names());
    let vectors = all(&canary, &[VECTORS, NO_DESTINATIONS, BEYOND_ASCII]);
    assert!(vectors.len() >= 100, "{}", vectors.len());
    let gateway = start(home, &names, |_| {});
    assert_eq!(put(&gateway, "kept", &http("https://public.example/")).status, 201);
    let mut open = http("https://public.example/");
    open["destination_override"] = json!("any");
    assert_eq!(put(&gateway, "open", &open).status, 201);
    let mut items = Vec::new();
    for text in &vectors {
        let answer = put(&gateway, "new", &http(text));
        assert_refused(answer.status, &answer.json(), text);
        let answer = call(&gateway, "PATCH", "/v1/queues/kept", &json!({"destination": text}));
        assert_refused(answer.status, &answer.json(), text);
        if text.is_ascii() && !text.contains('\t') {
            let answer =
                gateway.request("POST", "/v1/queues/open/messages", &[("Posthaste-Destination", text)], b"x");
            assert_refused(answer.status, &answer.json(), text);
            assert_eq!(answer.header("posthaste-stored"), Some("no"), "{text}");
        }
        items.push(json!({"payload": "x", "destination": text}));
    }
    assert_eq!(gateway.request("GET", "/v1/queues/new", &[], b"").status, 404);
    let kept = gateway.request("GET", "/v1/queues/kept", &[], b"").json();
    assert_eq!(kept["destination"], "https://public.example/");

    let path = "/v1/queues/open/messages/batch";
    let whole = call(&gateway, "POST", path, &json!([{"payload": "x"}, items[0]]));
    assert_eq!((whole.status, &whole.json()["index"]), (422, &json!(1)), "{}", whole.text());
    assert_eq!(whole.json()["pointer"], "/1/destination");
    let each = call(&gateway, "POST", &format!("{path}?atomic=false"), &Value::Array(items)).json();
    assert_eq!((&each["accepted"], &each["refused"]), (&json!(0), &json!(vectors.len())), "{each}");
    for (text, item) in vectors.iter().zip(each["items"].as_array().expect("items")) {
        let status = item["error"]["status"].as_u64().expect("a status");
        assert_refused(u16::try_from(status).expect("a status"), &item["error"], text);
    }
    assert_eq!(count(&gateway.status(), "accepted"), 0);
    canary.assert_untouched();
    gateway.stop();
}

fn what_lies_in_the_store_is_neither_delivered_nor_replayed(home: &Home) {
    let (canary, names) = (Canary::start(), names());
    let vectors = all(&canary, &[VECTORS, NO_DESTINATIONS, BEYOND_ASCII]);
    let gateway = start(home, &names, |settings| {
        // As a gateway with other rules, or an older one, may have left them.
        leave(&settings.store, &vectors);
    });
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(count(&status, "dead"), vectors.len() as u64);
    let dead = gateway.request("GET", "/v1/queues/left/dead?limit=1000", &[], b"").json();
    let letters = dead["items"].as_array().expect("letters");
    assert_eq!(letters.len(), vectors.len());
    for letter in letters {
        assert_eq!(letter["reason"], "undeliverable", "{letter}");
    }
    let replay = |body: &Value| call(&gateway, "POST", "/v1/queues/left/dead/replay", body);
    let counted = replay(&json!({"filter": {}, "dry_run": true})).json();
    assert_eq!(counted, json!({"matched": vectors.len(), "replayed": 0, "refused": vectors.len()}));
    let id = |letter: &Value| letter["id"].clone();
    for body in [json!({"filter": {}}), json!({"ids": letters.iter().map(id).collect::<Vec<_>>()})] {
        let answer = replay(&body);
        assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("destination_refused")));
    }
    for letter in letters.iter().take(10) {
        assert_eq!(replay(&json!({"ids": [id(letter)]})).status, 422, "{letter}");
    }
    let status = gateway.status();
    assert_eq!((count(&status, "dead"), count(&status, "replayed")), (vectors.len() as u64, 0));
    canary.assert_untouched();
    gateway.stop();
}

/// Puts messages with these destinations into a store, past every gateway.
fn leave(settings: &StoreSettings, destinations: &[String]) {
    let clock = Clock::system();
    let store = store::open(settings, &clock).expect("it opens");
    let work = async {
        let connection = store.connect();
        let queue = QueueSettings {
            processor: "http".to_owned(),
            destination_override: DestinationOverride::Any,
            ..QueueSettings::default()
        };
        let made = connection.put_queue("left".parse().expect("a name"), queue.into()).await;
        let Ok(Put::Created(entry)) = made else { panic!("{made:?}") };
        let messages = destinations.iter().map(|destination| {
            let headers = Headers { destination: Some(destination.clone()), ..Headers::default() };
            let random = std::array::from_fn(|_| fastrand::u8(..));
            let id = MessageId::new(clock.now(), random, Shard::default());
            let (priority, accepted_at) = (Priority::Normal, clock.now());
            let head = Head { id, attempts_max: 1, priority, accepted_at, ttl: None };
            let record = record::encode(&head, &headers.encode().expect("small"), b"x");
            NewMessage { id, priority, due: Due::Now, record }
        });
        let group = Group { queue: entry.queue_ref(), key: None, messages: messages.collect() };
        let stored = connection.enqueue(CallId::random(), vec![group].into()).await;
        assert_eq!(stored, Ok(vec![GroupResult::Accepted]));
        connection.close().await.expect("it closes");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

fn public_destinations_are_taken(home: &Home) {
    let gateway = start(home, &names(), |_| {});
    for (number, text) in CONTROL.iter().enumerate() {
        let queue = format!("q{number}");
        let made = put(&gateway, &queue, &http(text));
        assert_eq!(made.status, 201, "{text}: {}", made.text());
        accepted(&gateway, &queue, text);
    }
    gateway.stop();
}

/// A paused queue takes the destination from a message as well.
fn accepted(gateway: &Embedded, queue: &str, text: &str) {
    let path = format!("/v1/queues/{queue}");
    assert_eq!(call(gateway, "PATCH", &path, &json!({"destination_override": "any"})).status, 200);
    assert_eq!(gateway.request("POST", &format!("{path}/pause"), &[], b"").status, 200);
    let items = json!([{"payload": "x", "destination": text}]);
    let answer = call(gateway, "POST", &format!("{path}/messages/batch"), &items);
    assert_eq!(answer.status, 202, "{text}: {}", answer.text());
}
