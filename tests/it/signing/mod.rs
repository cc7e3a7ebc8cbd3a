//! Signed deliveries, from the real binary over real sockets: verified by a computation of this file's own.

mod declared;
mod files;
mod keys;
mod rotation;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Home};
use crate::support::sink::{self, Received, Sink};

const WITHIN: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Secrets of callers: 24 and 64 bytes.
const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECOND: &str =
    "whsec_DRQbIikwNz5FTFNaYWhvdn2Ei5KZoKeutbzDytHY3+bt9PsCCRAXHiUsMzpBSE9WXWRrcnmAh46VnKOqsbi/xg==";
/// A line of the configuration that names the file with the master key.
const WITH_KEY: &str = "[secrets]\nmaster_key_file = 'master.key'\n";

/// HMAC-SHA256 (RFC 2104), written out.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    assert!(key.len() <= 64, "a longer one would be hashed first");
    let pad = |byte: u8| -> Vec<u8> {
        (0..64).map(|place| key.get(place).copied().unwrap_or_default() ^ byte).collect()
    };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).into()
}

/// The one signature that a receiver with this secret expects of a request.
fn signature(secret: &str, received: &Received) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("its prefix")).expect("base64");
    let header = |name: &str| received.header(name).expect(name).as_bytes().to_vec();
    let body = received.body.as_ref().expect("it was kept");
    let signed = [&header("webhook-id")[..], b".", &header("webhook-timestamp"), b".", body].concat();
    format!("v1,{}", STANDARD.encode(hmac(&key, &signed)))
}

/// A request is signed with these secrets, in this order, and with no others.
fn assert_signed(received: &Received, secrets: &[&str]) {
    let expected: Vec<_> = secrets.iter().map(|secret| signature(secret, received)).collect();
    assert_eq!(received.header("webhook-signature"), Some(expected.join(" ").as_str()), "{received:?}");
}

/// A gateway with a master key, not started.
fn prepare(home: &Home, settings: &str) -> Gateway {
    let gateway = home.prepare(&format!("{WITH_KEY}{settings}"), &["--dev"]);
    write_key(&gateway, 1);
    gateway
}

fn write_key(gateway: &Gateway, number: u8) {
    fs::write(gateway.folder().join("master.key"), STANDARD.encode([number; 32])).expect("the key");
}

fn start(home: &Home, settings: &str) -> Gateway {
    let mut gateway = prepare(home, settings);
    gateway.launch_until_ready();
    gateway
}

fn sink() -> Sink {
    Sink::start(|_| sink::Answer::status(200))
}

fn send(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Answer {
    gateway.request(method, &format!("/v1/queues/{path}"), &[JSON], body.to_string().as_bytes())
}

/// The same; it is answered 200 or 201. Gives the answer.
fn done(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let answer = send(gateway, method, path, body);
    assert!([200, 201].contains(&answer.status), "{method} {path}: {}", answer.text());
    answer.json()
}

/// It is refused so; gives the detail.
fn refused(answer: &Answer, status: u16, code: &str) -> String {
    let problem = answer.json();
    assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{problem}");
    problem["detail"].as_str().expect("a detail").to_owned()
}

/// Makes a queue that pushes to the sink.
fn make(gateway: &Gateway, sink: &Sink) {
    done(gateway, "PUT", "orders", &pushing(sink));
}

fn pushing(sink: &Sink) -> Value {
    json!({"processor": "http", "destination": sink.url("/hook")})
}

/// Publishes one message; gives it as it arrives.
fn deliver(gateway: &Gateway, sink: &Sink, payload: &[u8]) -> Arc<Received> {
    let before = sink.count();
    gateway.publish("orders", &[], payload);
    let received = sink.wait_for(before + 1, WITHIN).pop().expect("one more");
    assert_eq!(received.body.as_deref(), Some(payload));
    received
}

/// Why the queue `orders` does not move, once it does not.
fn stalled(gateway: &mut Gateway) -> String {
    gateway.wait_for("it is stalled", WITHIN, |gateway| {
        let status = gateway.status();
        let queue = status["queues"].as_array()?.iter().find(|queue| queue["name"] == "orders")?.clone();
        assert_eq!(queue["signed"], true, "{queue}");
        let stalled = &queue["stalled"];
        (stalled["code"] == "no_worker").then(|| stalled["detail"].as_str().expect("a detail").to_owned())
    })
}

/// All files below a folder that have one of these in them.
fn files_with(folder: &Path, needles: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, needles));
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("a file");
            let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
            if needles.iter().any(|needle| has(needle)) {
                found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// The files of a gateway and its store that have one of these secrets in them, written or raw.
fn leaks(home: &Home, gateway: &Gateway, secrets: &[&str]) -> Vec<String> {
    let raw: Vec<Vec<u8>> = secrets
        .iter()
        .map(|secret| STANDARD.decode(secret.split_once('_').expect("a prefix").1).expect("base64"))
        .collect();
    let text = secrets.iter().map(|secret| secret.split_once('_').expect("a prefix").1.as_bytes());
    let needles: Vec<&[u8]> = text.chain(raw.iter().map(Vec::as_slice)).collect();
    let mut found = files_with(gateway.folder(), &needles);
    if let Home::Redis(redis) = home {
        redis.order("SAVE");
        let socket = redis.socket();
        let folder = socket.parent().expect("its folder");
        assert!(folder.join("dump.rdb").is_file(), "there is something to look at");
        found.extend(files_with(folder, &needles));
    }
    found
}
