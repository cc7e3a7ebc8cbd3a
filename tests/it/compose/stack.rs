//! The stack of the compose file without containers: the same flags, the same settings, other addresses.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{compose, read, strings};
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::sink::{Answer, Sink};
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);
/// What would not be strict: each of these has to be said otherwise by the compose file.
const UNFIT: [&str; 10] = [
    "--appendonly",
    "no",
    "--appendfsync",
    "everysec",
    "--no-appendfsync-on-rewrite",
    "yes",
    "--maxmemory-policy",
    "allkeys-lru",
    "--maxmemory",
    "1mb",
];

/// A Redis with the flags of the compose file.
fn redis(compose: &Value) -> RedisServer {
    let command = strings(&compose["services"]["redis"]["command"]);
    assert_eq!(command[0], "redis-server");
    RedisServer::start(&[&UNFIT, &command[1..]].concat())
}

/// A gateway with the settings of the compose file, which finds the receiver at that address.
fn gateway(redis: &RedisServer, receiver: &str) -> Gateway {
    let settings = read("deploy/compose.toml").replace("http://receiver:9000", &format!("http://{receiver}"));
    Gateway::prepare(&settings, &[]).over(redis)
}

#[test]
fn redis_with_its_flags_there_is_what_strict_asks_for() {
    let sink = Sink::start(|_| Answer::status(204));
    let redis = redis(&compose());
    let mut gateway = gateway(&redis, &sink.address().to_string());
    gateway.launch_until_ready();
    let store = gateway.status()["store"].clone();
    assert_eq!(store["durability"]["now"], "strict", "{store}");
    assert_eq!(store["durability"]["reasons"], serde_json::json!([]), "{store}");
    // One Redis has no replica, and the one of this machine may be old: neither is of the flags.
    let expected = ["replica_none", "version_vulnerable"];
    for warning in store["warnings"].as_array().expect("warnings") {
        assert!(expected.contains(&warning["code"].as_str().expect("a code")), "{store}");
    }
    gateway.publish("orders", &[], b"one");
    gateway.publish("jobs", &[], b"kept for a consumer");
    let came = sink.wait_for(1, WITHIN);
    assert_eq!((came[0].target.as_str(), came[0].body.as_deref()), ("/orders", Some(&b"one"[..])));
    assert!(redis.ask(&["CONFIG", "GET", "save"]).ends_with("$0\r\n\r\n"), "no snapshots");
}

#[test]
fn without_one_of_its_flags_redis_would_be_refused() {
    let compose = compose();
    let command = strings(&compose["services"]["redis"]["command"]);
    for flag in ["--appendonly", "--appendfsync", "--no-appendfsync-on-rewrite", "--maxmemory-policy"] {
        let at = command.iter().position(|word| *word == flag).unwrap_or_else(|| panic!("no {flag}"));
        let others = [&command[1..at], &command[at + 2..]].concat();
        let redis = RedisServer::start(&[&UNFIT, &others[..]].concat());
        let mut gateway = gateway(&redis, "127.0.0.1:9");
        gateway.spawn();
        assert_eq!(gateway.wait_for_exit(WITHIN).code(), Some(78), "without {flag}: {}", gateway.log());
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

#[test]
fn the_receiver_takes_and_prints_what_the_gateway_pushes() {
    let compose = compose();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port").to_string();
    let command = strings(&compose["services"]["receiver"]["command"]);
    let words = command.iter().map(|word| if *word == "0.0.0.0:9000" { address.as_str() } else { word });
    let words: Vec<&str> = words.collect();
    assert!(words.contains(&address.as_str()), "{words:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let printed = folder.path().join("printed");
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(words).current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(File::create(&printed).expect("a file")).stderr(Stdio::null());
    let mut receiver = Running(command.spawn().expect("it starts"));
    wait_until("the receiver listens", WITHIN, || {
        assert!(receiver.0.try_wait().expect("its state").is_none(), "the receiver ended");
        TcpStream::connect(&address).ok().map(drop)
    });

    let redis = redis(&compose);
    let mut gateway = gateway(&redis, &address);
    gateway.launch_until_ready();
    let path = gateway.publish("orders", &[("Content-Type", "application/json")], br#"{"order":17}"#);
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    let id = path.rsplit_once('/').expect("a path").1;
    wait_until("the message is printed", WITHIN, || {
        fs::read_to_string(&printed).ok().filter(|printed| printed.contains(id))
    });
}
