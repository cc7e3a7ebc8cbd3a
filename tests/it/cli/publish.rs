//! `posthaste publish`.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use super::{ask, ask_at, feed, on_each_store, tell, tell_json};
use crate::support::client;
use crate::support::gateway::{Gateway, Home};
use crate::support::sink::{Answer, Sink};

const WITHIN: Duration = Duration::from_mins(1);
/// A queue in which messages stay.
const KEPT: &str = "[queues.kept]\nprocessor = 'pull'\nlimits.payload_max = '2MiB'\n";

fn payload(gateway: &Gateway, id: &str) -> Vec<u8> {
    let path = format!("/v1/queues/kept/messages/{id}?payload=true");
    let message = gateway.request("GET", &path, &[], b"").json();
    message["payload"].as_str().expect("a text").as_bytes().to_vec()
}

#[test]
fn an_argument_a_file_and_stdin_are_published_byte_for_byte() {
    on_each_store(KEPT, |gateway| {
        let file = gateway.folder().join("payload");
        fs::write(&file, "of a file\n").expect("a file");
        let file = file.to_str().expect("a path");
        let id = tell(gateway, &["publish", "kept", "an argument"]);
        assert_eq!(payload(gateway, id.trim_end()), b"an argument");
        let id = tell(gateway, &["publish", "kept", "--file", file]);
        assert_eq!(payload(gateway, id.trim_end()), b"of a file\n");
        for arguments in [&["publish", "kept", "-"][..], &["publish", "kept"]] {
            let ended = feed(gateway, arguments, b"of\nstdin\r\n");
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
            assert_eq!(payload(gateway, ended.stdout.trim_end()), b"of\nstdin\r\n");
        }
        let empty = tell(gateway, &["publish", "kept", ""]);
        assert_eq!(payload(gateway, empty.trim_end()), b"");
        let published = tell_json(gateway, &["publish", "kept", "x", "--json"]);
        assert_eq!(published["queue"], "kept");
        assert_eq!(gateway.status()["totals"]["accepted"], 6);
    });
}

#[test]
fn every_option_reaches_the_message() {
    on_each_store(KEPT, |gateway| {
        let options = [
            "publish",
            "kept",
            "{}",
            "--content-type",
            "application/json",
            "--delay",
            "1h",
            "--ttl",
            "2h",
            "--priority",
            "high",
            "--max-attempts",
            "3",
            "--header",
            "X-Album=a=b",
            "--header",
            "x-two=",
        ];
        let id = tell(gateway, &options);
        let shown = tell_json(gateway, &["message", "show", "kept", id.trim_end(), "--json"]);
        assert_eq!((&shown["state"], &shown["priority"]), (&"scheduled".into(), &"high".into()));
        assert_eq!((&shown["max_attempts"], &shown["content_type"]), (&3.into(), &"application/json".into()));
        assert!(shown["expires_at"].is_string() && shown["deliver_at"].is_string(), "{shown}");
        let id = tell(gateway, &["publish", "kept", "x", "--deliver-at", "2001-12-24T18:00:00+01:00"]);
        let shown = tell_json(gateway, &["message", "show", "kept", id.trim_end(), "--json"]);
        assert_eq!(
            (&shown["state"], &shown["deliver_at"]),
            (&"pending".into(), &"2001-12-24T17:00:00.000Z".into())
        );
        let far = ask(gateway, &["publish", "kept", "x", "--delay", "31d"]);
        assert_eq!(far.code, Some(3), "{far:?}");
        assert!(far.stderr.contains("header: Posthaste-Delay"), "{far:?}");
    });
}

#[test]
fn how_an_attempt_is_made_is_said_of_one_message_and_of_each_line() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let options = ["--method", "PUT", "--attempt-timeout", "400ms"];
    let trace = ["--traceparent", PARENT, "--tracestate", "vendor=seven"];
    for home in [Home::Sqlite, Home::redis()] {
        let receiver = Sink::start(|received| match received.body.as_deref() {
            Some(b"slow") => Answer::HangBeforeHead,
            _ => Answer::status(200),
        });
        let settings = format!(
            "[queues.pushed]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = []\n",
            receiver.url("/")
        );
        let mut gateway = home.start(&settings, &["--dev"]);
        tell(&gateway, &[&["publish", "pushed", "one"][..], &options, &trace].concat());
        let lines = [&["publish", "pushed", "--lines"][..], &options, &trace].concat();
        assert_eq!(feed(&gateway, &lines, b"first\nsecond\n").code, Some(0));
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(status["totals"]["delivered"], 3, "{status}");
        let received = receiver.received();
        assert_eq!(received.len(), 3);
        for request in &received {
            let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
            assert_eq!(request.method, "PUT", "{request:?}");
            assert_eq!(header("traceparent")[..36], PARENT[..36], "{request:?}");
            assert_eq!(header("tracestate"), "vendor=seven", "{request:?}");
        }
        let id = tell(&gateway, &[&["publish", "pushed", "slow"][..], &options].concat());
        gateway.wait_until_drained(WITHIN);
        let shown = tell_json(&gateway, &["dead", "show", "pushed", id.trim_end(), "--json"]);
        let took = shown["attempts"][0]["duration_ms"].as_u64();
        assert!(took.is_some_and(|took| (400..15_000).contains(&took)), "{shown}");
        assert_eq!(shown["detail"], shown["attempts"][0]["error"], "what was wrong at the last: {shown}");
        for (option, value, words) in [
            ("--method", "put", "POST, PUT, PATCH, DELETE or GET"),
            ("--attempt-timeout", "5", "5s"),
            ("--traceparent", "00-1-2-3", "32 hex digits"),
            ("--tracestate", "x=1", "--traceparent"),
        ] {
            let refused = ask(&gateway, &["publish", "pushed", "x", option, value]);
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
            assert!(refused.stderr.contains(words), "{words}: {refused:?}");
        }
        let short = ask(&gateway, &["publish", "pushed", "x", "--attempt-timeout", "1ms"]);
        assert_eq!(short.code, Some(3), "{short:?}");
        assert!(short.stderr.contains("header: Posthaste-Timeout"), "{short:?}");
    }
}

#[test]
fn a_key_makes_the_same_command_harmless() {
    on_each_store(KEPT, |gateway| {
        let first = tell(gateway, &["publish", "kept", "x", "--key", "k"]);
        let again = ask(gateway, &["publish", "kept", "x", "--key", "k"]);
        assert_eq!((again.code, &again.stdout), (Some(0), &first), "{again:?}");
        assert!(again.stderr.contains("used before"), "{again:?}");
        let other = ask(gateway, &["publish", "kept", "y", "--key", "k"]);
        assert_eq!((other.code, other.stdout.as_str()), (Some(3), ""), "{other:?}");
        for word in ["idempotency_key_reused (422)", "hint: ", "request: "] {
            assert!(other.stderr.contains(word), "{word}: {other:?}");
        }
        assert_ne!(tell(gateway, &["publish", "kept", "x"]), tell(gateway, &["publish", "kept", "x"]));
        assert_eq!(gateway.status()["totals"]["accepted"], 3);
    });
}

/// Passes a request on to the gateway; gives its answer, and hangs up where there is none.
pub(super) fn pass_on(address: &str, received: &crate::support::sink::Received) -> Answer {
    let headers: Vec<(&str, &str)> = received
        .headers
        .iter()
        .filter(|(name, _)| !["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let body = received.body.clone().unwrap_or_default();
    match client::request(address, &received.method, &received.target, &headers, &body) {
        Ok(answer) => Answer::body(answer.status, answer.body),
        Err(_) => Answer::CloseEarly,
    }
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_key_and_said_so() {
    on_each_store(KEPT, |gateway| {
        let address = gateway.address();
        let between = Sink::start(move |received| {
            let answer = pass_on(&address, received);
            if received.order == 0 { Answer::CloseEarly } else { answer }
        });
        let ended = ask_at(&between.url(""), &["publish", "kept", "once"], b"");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("trying again with the same key"), "{ended:?}");
        assert!(!ended.stdout.trim_end().is_empty());
        assert_eq!(between.count(), 2);
        assert_eq!(gateway.status()["totals"]["accepted"], 1, "it is stored once");
    });
}

#[test]
fn what_is_not_known_in_the_end_names_the_key_that_makes_it_harmless() {
    let problem = r#"{"type":"t","title":"x","status":503,"detail":"late","code":"store_timeout","retryable":true,"request_id":"r"}"#;
    let gateway = Sink::start(move |_| Answer::Whole {
        status: 503,
        headers: vec![("posthaste-stored", "unknown".to_owned()), ("retry-after", "0".to_owned())],
        body: problem.into(),
    });
    let ended = ask_at(&gateway.url(""), &["publish", "q", "x", "--key", "k1", "--retry-for", "1s"], b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("--key k1 cannot store it twice"), "{ended:?}");
    assert!(gateway.count() > 1);
    assert!(gateway.received().iter().all(|request| request.header("idempotency-key") == Some("k1")));
}

#[test]
fn a_refusal_that_promises_that_nothing_was_stored_ends_it_at_once() {
    let problem = r#"{"type":"t","title":"x","status":429,"detail":"full","code":"queue_full","retryable":true,"request_id":"r"}"#;
    let gateway = Sink::start(move |_| Answer::Whole {
        status: 429,
        headers: vec![("posthaste-stored", "no".to_owned()), ("retry-after", "2".to_owned())],
        body: problem.into(),
    });
    let ended = ask_at(&gateway.url(""), &["publish", "q", "x"], b"");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("again: in 2s"), "{ended:?}");
    assert_eq!(gateway.count(), 1);
}

#[test]
fn what_cannot_be_published_is_refused_before_anything_is_sent() {
    let sink = Sink::start(|_| Answer::status(200));
    let large = vec![b'x'; (16 << 20) + 1];
    let cases: [(&[&str], &[u8], i32); 9] = [
        (&["publish"], b"", 2),
        (&["publish", ".."], b"", 2),
        (&["publish", "q", "x", "--file", "y"], b"", 2),
        (&["publish", "q", "x", "--delay", "5"], b"", 2),
        (&["publish", "q", "x", "--delay", "5s", "--deliver-at", "2199-01-01T00:00:00Z"], b"", 2),
        (&["publish", "q", "x", "--header", "no value"], b"", 2),
        (&["publish", "q", "x", "--priority", "urgent"], b"", 2),
        (&["publish", "q", "--file", "no-such-file"], b"", 1),
        (&["publish", "q"], &large, 2),
    ];
    for (arguments, stdin, code) in cases {
        let ended = ask_at(&sink.url(""), arguments, stdin);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(sink.count(), 0);
}

#[test]
fn the_key_of_the_caller_is_shown_to_the_gateway() {
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let sink = Sink::start(move |received| {
        noted.lock().expect("no panic").push(received.header("authorization").map(str::to_owned));
        Answer::status(500)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = super::command(&["status"]);
    command.env("POSTHASTE_URL", sink.url("")).env("POSTHASTE_KEY", "k-17");
    let ended = crate::support::command::run(folder.path(), command);
    assert_eq!(ended.code, Some(1), "what answers is no gateway: {ended:?}");
    sink.wait_for(1, Duration::from_secs(10));
    assert_eq!(*seen.lock().expect("no panic"), [Some("Bearer k-17".to_owned())]);
}
