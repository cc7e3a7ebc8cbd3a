//! Large batches, and absurd ones: taken or refused as a whole, while other requests of the thread are served.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{JSON, NDJSON, ids, look, over_both, post};
use crate::support::client::{Answer, Connection};
use crate::support::gateway::{Gateway, Home};
use crate::support::invariants::count;
use crate::support::redis::{RedisServer, STRICT};
use crate::support::sink::{self, Keep, Sink};

const WITHIN: Duration = Duration::from_mins(1);
/// How long a script may keep Redis from answering anybody (its `busy-reply-threshold`), microseconds.
const SCRIPT_MAX_US: &str = "5000000";
const SETTINGS: &str = "[server]\nthreads = 1\n[server.limits]\nbatch_messages_max = 10000\nbatch_bytes_max = '64MiB'\n\
                        bodies_bytes_max = '256MiB'\nbody_timeout = '1m'\n[queues.kept]\nprocessor = 'pull'\nlimits.payload_max = '16MiB'\n\
                        [queues.beside]\nprocessor = 'pull'\n";

fn start(home: &Home) -> Gateway {
    home.start(SETTINGS, &["--dev"])
}

/// Ten thousand short lines.
fn lines() -> Vec<u8> {
    let mut text = String::new();
    for item in 0..10_000 {
        writeln!(text, "{{\"item\":{item}}}").expect("a string grows");
    }
    text.into_bytes()
}

#[test]
fn ten_thousand_messages_are_one_unit_and_no_script_holds_redis_for_long() {
    let slowlog = ["--slowlog-log-slower-than", SCRIPT_MAX_US];
    let homes = [Home::Sqlite, Home::Redis(RedisServer::start(&[&STRICT[..], &slowlog].concat()))];
    for home in homes {
        let mut gateway = start(&home);
        let apart = format!("\"{}\"\n", "x".repeat(5_000)).repeat(10_000);
        for (name, headers, body) in [
            ("pending", &[NDJSON][..], lines()),
            ("keyed", &[NDJSON, ("Idempotency-Key", "k")], lines()),
            ("scheduled", &[NDJSON, ("Posthaste-Delay", "1h")], lines()),
            ("50 MB", &[NDJSON], apart.into_bytes()),
        ] {
            let begun = Instant::now();
            let answer = post(&gateway, "kept", "", headers, &body);
            println!("{name}: {:?}", begun.elapsed());
            assert_eq!((answer.status, ids(&answer).len()), (202, 10_000), "{name}: {:.300}", answer.text());
        }
        let again = post(&gateway, "kept", "", &[NDJSON, ("Idempotency-Key", "k")], &lines());
        assert_eq!((again.status, ids(&again).len()), (200, 10_000), "{:.300}", again.text());
        let status = gateway.status();
        let counts = ["accepted", "pending", "scheduled"].map(|key| count(&status, key));
        assert_eq!(counts, [40_000, 30_000, 10_000]);
        assert_eq!(look(&gateway, "kept", &ids(&again)[9_999])["payload"], "{\"item\":9999}");
        if let Home::Redis(redis) = &home {
            println!(
                "{}",
                redis
                    .ask(&["INFO", "commandstats"])
                    .lines()
                    .filter(|line| line.contains("eval"))
                    .collect::<String>()
            );
            assert_eq!(redis.ask(&["SLOWLOG", "LEN"]), ":0\r\n", "{}", redis.ask(&["SLOWLOG", "GET", "1"]));
        }
        gateway.restart();
        assert_eq!(count(&gateway.status(), "accepted"), 40_000);
        gateway.stop();
    }
}

/// Posts a batch; gives its answer and how many single publishes of one client were answered meanwhile.
fn beside(gateway: &Gateway, headers: &[(&str, &str)], body: &[u8]) -> (Answer, u32) {
    let (is_over, address) = (AtomicBool::new(false), gateway.address());
    thread::scope(|scope| {
        let singles = scope.spawn(|| {
            let mut connection = Connection::open(&address).expect("it listens");
            let mut answered = 0;
            while !is_over.load(Ordering::SeqCst) {
                let answer =
                    connection.request("POST", "/v1/queues/beside/messages", &[], b"x").expect("an answer");
                assert_eq!(answer.status, 202, "{}", answer.text());
                answered += 1;
            }
            answered
        });
        let answer = post(gateway, "kept", "", headers, body);
        is_over.store(true, Ordering::SeqCst);
        (answer, singles.join().expect("the singles"))
    })
}

#[test]
fn others_are_served_while_sixty_four_mebibytes_are_read_through() {
    over_both(|home| {
        let gateway = start(home);
        let blank = b" \t\r\n".repeat(16 << 20);
        let wrong_first = [b"{\n".to_vec(), b"\"x\"\n".repeat((16 << 20) - 1)].concat();
        let mut items = Vec::with_capacity(64 << 20);
        items.push(b'[');
        let item = format!("{{\"payload\":\"{}\\n\"}},", "y".repeat(13_000));
        while items.len() + 2 * item.len() < 64 << 20 {
            items.extend_from_slice(item.as_bytes());
        }
        items.pop();
        items.push(b']');
        let one_number = [b"1".repeat((16 << 20) + 1), b"\n".to_vec()].concat();
        // The number is a quarter of the others, and given up at its limit: soon, also where little is served meanwhile.
        for (name, headers, body, status, code, beside_min) in [
            ("blank lines", &[NDJSON][..], &blank, 400, Some("invalid_value"), 11),
            ("wrong from the first line on", &[NDJSON], &wrong_first, 400, Some("malformed"), 11),
            ("one long number", &[NDJSON], &one_number, 413, Some("payload_too_large"), 3),
            ("items", &[JSON], &items, 202, None, 11),
        ] {
            let begun = Instant::now();
            let (answer, singles) = beside(&gateway, headers, body);
            let process =
                std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap_or_default();
            let most = process.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
            println!("{name}: {:?}, {singles} beside it, {most}", begun.elapsed());
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (status, code),
                "{name}: {:.300}",
                answer.text()
            );
            assert!(singles >= beside_min, "{name}: {singles} beside it");
        }
    });
}

#[test]
fn one_item_of_sixteen_mebibytes_is_delivered_whole_in_every_form() {
    over_both(|home| {
        let sink = Sink::keeping(Keep::Digests, |_| sink::Answer::status(200));
        let settings = format!(
            "{SETTINGS}[queues.pushed]\nprocessor = 'http'\ndestination = '{}'\nlimits.payload_max = '16MiB'\n",
            sink.url("/")
        );
        let mut gateway = home.start(&settings, &["--dev"]);
        let bytes: Vec<u8> =
            (0..16_usize << 20).map(|place| place.to_le_bytes()[0] ^ place.to_le_bytes()[1]).collect();
        let text = "\n\u{1}é".repeat((16 << 20) / 4);
        let line = [b"[".to_vec(), b"1,".repeat((8 << 20) - 2), b"12]".to_vec()].concat();
        let bodies = [
            (JSON, json!([{"payload_base64": STANDARD.encode(&bytes)}]).to_string().into_bytes(), &bytes[..]),
            (JSON, json!([{"payload": text}]).to_string().into_bytes(), text.as_bytes()),
            (NDJSON, line.clone(), &line),
        ];
        for (number, (form, body, payload)) in bodies.into_iter().enumerate() {
            let answer = post(&gateway, "pushed", "", &[form], &body);
            assert_eq!(answer.status, 202, "{number}: {:.300}", answer.text());
            let received = sink.wait_for(number + 1, WITHIN)[number].clone();
            let expected: [u8; 32] = Sha256::digest(payload).into();
            assert!(received.body_bytes == payload.len() && received.sha256 == expected, "{number}");
        }
        gateway.wait_until_drained(WITHIN);
        gateway.stop();
    });
}

#[test]
fn what_is_absurd_is_refused_and_the_next_is_served() {
    over_both(|home| {
        let gateway = start(home);
        let long = 2 << 20;
        for (name, form, body) in [
            ("open arrays", NDJSON, b"[".repeat(long)),
            ("open arrays in an array", JSON, b"[".repeat(long)),
            ("open objects", JSON, [b"[{\"payload_json\":".to_vec(), b"{\"a\":".repeat(long / 5)].concat()),
            ("closed deep", NDJSON, [b"[".repeat(129), b"]".repeat(129)].concat()),
            ("quotes", NDJSON, b"\"".repeat(long)),
            ("backslashes", JSON, [b"[{\"".to_vec(), b"\\".repeat(long)].concat()),
            ("a long name", JSON, [b"[{\"".to_vec(), b"x".repeat(long), b"\":1}]".to_vec()].concat()),
            (
                "many names",
                JSON,
                [b"[{".to_vec(), b"\"a\":1,".repeat(long / 6), b"\"b\":2}]".to_vec()].concat(),
            ),
            ("zeros", JSON, vec![0; long]),
            ("not UTF-8", NDJSON, [b"\"".to_vec(), b"\xff".repeat(long), b"\"".to_vec()].concat()),
            ("byte order mark", NDJSON, b"\xef\xbb\xbf{}".to_vec()),
            ("UTF-16", JSON, b"\xff\xfe[\0]\0".to_vec()),
            ("commas", JSON, [b"[".to_vec(), b",".repeat(long)].concat()),
            (
                "headers",
                JSON,
                json!([{"payload": "", "headers": {"a": "x".repeat(100_000)}}]).to_string().into_bytes(),
            ),
        ] {
            let answer = post(&gateway, "kept", "", &[form], &body);
            assert!((400..500).contains(&answer.status), "{name}: {:.300}", answer.text());
            assert_eq!(answer.header("posthaste-stored"), Some("no"), "{name}");
            assert!(answer.body.len() < 1_000, "{name}: {:.300}", answer.text());
            assert_eq!(post(&gateway, "kept", "", &[NDJSON], b"1").status, 202, "after {name}");
        }
        assert_eq!(count(&gateway.status(), "accepted"), 14);
    });
}
