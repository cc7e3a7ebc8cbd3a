//! The command line of the real binary: what it says, and the code it ends with.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::command::{Ended, posthaste};
use crate::support::gateway::Gateway;
use crate::support::sink::{Answer, Sink};

/// Runs `posthaste` in a folder of its own with this text as its `posthaste.toml`.
fn with_file(settings: &str, arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("posthaste.toml"), settings).expect("a file");
    posthaste(folder.path(), arguments, &[])
}

#[test]
fn ready_tells_by_its_exit_code_whether_a_gateway_is() {
    let mut gateway = Gateway::start("", &[]);
    let url = format!("http://{}", gateway.address());
    let ended = posthaste(gateway.folder(), &["ready"], &[("POSTHASTE_URL", &url)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    gateway.stop();
    let ended = posthaste(gateway.folder(), &["ready"], &[("POSTHASTE_URL", &url)]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.is_empty() && ended.stderr.contains(&url), "{ended:?}");
}

#[test]
fn ready_says_why_a_gateway_is_not() {
    let gateway = Gateway::start("", &[]);
    // What a gateway says that is about to end, in the form of one that is ready.
    let mut unready = gateway.request("GET", "/ready", &[], b"").json();
    unready["ready"] = json!(false);
    unready["reasons"] = json!([{"code": "shutting_down", "detail": "the gateway is about to end"}]);
    let sink = Sink::start(move |_| Answer::body(503, unready.to_string()));
    let ended = posthaste(gateway.folder(), &["ready"], &[("POSTHASTE_URL", &sink.url(""))]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("about to end"), "{ended:?}");
    assert_eq!(sink.only().target, "/ready");
}

#[test]
fn ready_gives_up_on_a_gateway_that_accepts_and_never_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["ready"][..], &["ready", "--work", "--json", "--timeout", "100ms"]] {
        let begun = Instant::now();
        let ended = posthaste(folder.path(), arguments, &[("POSTHASTE_URL", &url)]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{arguments:?} took {:?}", begun.elapsed());
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert!(ended.stdout.is_empty() && ended.stderr.contains(&url), "{ended:?}");
    }
    let refused = posthaste(folder.path(), &["ready", "--timeout", "3"], &[]);
    assert_eq!(refused.code, Some(2), "a duration has a unit: {refused:?}");
}

#[test]
fn a_wrong_key_is_named_with_its_file_its_line_and_the_nearest_key() {
    let settings = "[server]\ngrace = '5s'\n\n[queues.mail]\nprocessor = 'log'\nretry.shedule = []\n";
    for arguments in [&["config", "check", "--config", "posthaste.toml"][..], &["--config", "posthaste.toml"]]
    {
        let ended = with_file(settings, arguments);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let line = "posthaste.toml:6: queues.mail.retry.shedule";
        assert!(ended.stderr.contains(line), "{ended:?}");
        assert!(ended.stderr.contains("queues.mail.retry.schedule"), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
    let sound = with_file("[server]\ngrace = '5s'\n", &["config", "check", "--config", "posthaste.toml"]);
    assert_eq!(sound.code, Some(0), "{sound:?}");
}

#[test]
fn everything_that_is_wrong_is_named_at_once_whoever_finds_it() {
    let settings = "[server]\nthreads = 513\n[queues.a]\nprocessor = 'pul'\n[queues.b]\nprocessor = 'http'\n\
                    destination = 'http://127.0.0.1:1/'\n[queues.c]\nprocessor = 'log'\ntimeout = '1h'\n\
                    [queues.d]\nprocessor = 7\n";
    let checked = with_file(settings, &["config", "check", "--config", "posthaste.toml"]);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    let lines: Vec<_> = checked.stderr.lines().skip(1).collect();
    let expected = [
        "posthaste.toml:2: server.threads: 513 is out of range: 0 to 512",
        "posthaste.toml:4: queues.a.processor: \"pul\" is not one of http, log, pull",
        "posthaste.toml:7: queues.b.destination: http://127.0.0.1:1 is refused",
        "posthaste.toml:10: queues.c.timeout: 1h is out of range",
        "posthaste.toml:12: queues.d.processor: must be a string",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, beginning) in lines.iter().zip(expected) {
        assert!(line.starts_with(beginning), "{line}");
    }
    // By an egress section that is not as it was meant no destination is judged.
    let settings = "[egress]\nallow = ['nonsense']\n[queues.b]\nprocessor = 'http'\ndestination = 'http://127.0.0.1:1/'\n";
    let checked = with_file(settings, &["config", "check", "--config", "posthaste.toml"]);
    assert_eq!(checked.stderr.lines().count(), 2, "{checked:?}");
}

/// Files that cannot be, each with the beginning of what is said against it.
const REFUSED: [(&str, &str); 13] = [
    ("[server]\nlistn = 1", "posthaste.toml:2: server.listn: no such key"),
    ("server.grace = '2h'", "posthaste.toml:1: server.grace: 2h is out of range"),
    (
        "store.bytes_max = '1023KiB'",
        "posthaste.toml:1: store.bytes_max: 1023KiB is out of range: 1MiB to 1024TiB",
    ),
    ("store.url = 'sqlite:data/'", "posthaste.toml:1: store.url: \"sqlite:data/\" names no file"),
    ("store.url = 'memory:'", "posthaste.toml:1: store.durability: \"strict\" is not possible with memory:"),
    (
        "server.listen = '0.0.0.0:0'",
        "posthaste.toml:1: server.listen: 0.0.0.0:0 can be reached from other machines",
    ),
    (
        "[queues.a]\n\nprocessor = 'nope'",
        "posthaste.toml:3: queues.a.processor: \"nope\" is not one of http, log, pull",
    ),
    ("[queues.a]\nprocessor = 'http'", "posthaste.toml:1: queues.a.destination: is required"),
    (
        "[queues.a]\nprocessor = 'http'\ndestination = 'http://10.0.0.1/'",
        "posthaste.toml:3: queues.a.destination: http://10.0.0.1 is refused: the address 10.0.0.1 is private",
    ),
    (
        "[queues.a]\nprocessor = 'http'\n[queue_defaults]\ndestination = 'http://localhost/'",
        "posthaste.toml:4: queue_defaults.destination: http://localhost is refused",
    ),
    (
        "[queue_defaults]\nprocessor = 'nope'",
        "posthaste.toml:2: queue_defaults.processor: \"nope\" is not one of",
    ),
    (
        "[queues.a]\nprocessor = 'log'\ndelivery.headers = { X-A = 'a', Host = 'b' }",
        "posthaste.toml:3: queues.a.delivery.headers.Host: is not for a queue to set",
    ),
    (
        "[queue_defaults]\ndelivery.headers.Host = 'b'\n[queues.a]\nprocessor = 'log'",
        "posthaste.toml:2: queue_defaults.delivery.headers.Host: is not for a queue to set",
    ),
];

#[test]
fn check_and_serve_refuse_the_same_files_with_the_same_words() {
    for (settings, beginning) in REFUSED {
        let checked = with_file(settings, &["config", "check", "--config", "posthaste.toml"]);
        assert_eq!(checked.code, Some(78), "{settings}: {checked:?}");
        let words = checked.stderr.strip_prefix("posthaste: configuration:\n").expect("what it is about");
        assert!(words.starts_with(beginning), "{settings}: {words}");
        assert_eq!(words.lines().count(), 1, "once: {words}");
        let served =
            with_file(settings, &["serve", "--config", "posthaste.toml", "--set", "store.lock_wait=0s"]);
        assert_eq!((served.code, &served.stderr), (checked.code, &checked.stderr), "{settings}");
        assert!(checked.stdout.is_empty() && served.stdout.is_empty(), "{settings}");
    }
}

#[test]
fn what_is_sound_at_the_edge_of_a_range_is_served() {
    let settings = "[store]\nbytes_max = '1MiB'\n";
    let checked = with_file(settings, &["config", "check", "--config", "posthaste.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let gateway = Gateway::start(settings, &[]);
    let answer = gateway.request("POST", "/v1/queues/default/messages", &[], b"one");
    assert_eq!(answer.status, 202, "the smallest store takes messages: {answer:?}");
}

#[test]
fn what_is_printed_is_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = posthaste(folder.path(), &["config", "print", "--set", "server.grace=7s"], &[]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("grace = \"7s\""), "{printed:?}");
    fs::write(folder.path().join("posthaste.toml"), &printed.stdout).expect("a file");
    let arguments = ["config", "print", "--config", "posthaste.toml"];
    let again = posthaste(folder.path(), &arguments, &[("POSTHASTE__SERVER__THREADS", "3")]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("grace = \"7s\"") && again.stdout.contains("threads = 3"), "{again:?}");
    let json = posthaste(folder.path(), &[&arguments[..], &["--json"]].concat(), &[]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON alone on stdout");
    assert_eq!(
        (&json["server"]["grace"], &json["queues"]["default"]["processor"]),
        (&json!("7s"), &json!("log"))
    );
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    for arguments in [&["--no-such-flag"][..], &["serve", "--no-such-flag"], &["no-such-command"]] {
        let ended = with_file("", arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.is_empty() && ended.stderr.contains("no-such"), "{arguments:?}: {ended:?}");
    }
    let version = with_file("", &["--version"]);
    assert_eq!(
        (version.code, version.stdout),
        (Some(0), concat!("posthaste ", env!("CARGO_PKG_VERSION"), "\n").into())
    );
    assert_eq!(with_file("", &["--help"]).code, Some(0));
}

#[test]
fn listening_beyond_loopback_needs_an_explicit_word() {
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--store", "memory:", "--durability", "none"];
    let refused = with_file("", &arguments);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("server.listen"), "{refused:?}");
    assert!(refused.stderr.contains("insecure"), "the way out is named: {refused:?}");
    let checked = with_file("", &["config", "check", "--listen", "0.0.0.0:0", "--insecure-no-auth"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn a_store_of_a_later_version_is_refused_without_showing_its_password() {
    let ended = with_file("", &["serve", "--store", "redis+sentinel://user:hunter2@127.0.0.1:6379/0"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("not in this version"), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
}
