//! What every command does when the gateway is away, refuses, or is none.

use super::{ask_at, on_each_store};
use crate::support::gateway::Gateway;
use crate::support::sink::{Answer, Sink};

const ID: &str = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";

/// Every command that makes one call.
const COMMANDS: [&[&str]; 19] = [
    &["publish", "q", "x"],
    &["status"],
    &["ready"],
    &["queue", "list"],
    &["queue", "show", "q"],
    &["queue", "set", "q", "processor=log"],
    &["queue", "set", "q", "processor=log", "--replace"],
    &["queue", "pause", "q"],
    &["queue", "resume", "q"],
    &["queue", "purge", "q"],
    &["queue", "delete", "q"],
    &["message", "show", "q", ID],
    &["message", "cancel", "q", ID],
    &["dead", "list", "q"],
    &["dead", "show", "q", ID],
    &["dead", "groups", "q"],
    &["dead", "replay", "q", "--all"],
    &["dead", "discard", "q", ID],
    &["lease", "q"],
];

#[test]
fn a_gateway_that_is_away_is_named_with_what_to_look_at() {
    // Nobody listens on a port that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}", free.expect("an address"));
    for arguments in COMMANDS {
        let ended = ask_at(&url, arguments, b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{arguments:?}: {ended:?}");
        for word in [url.as_str(), "refused", "posthaste serve", "POSTHASTE_URL"] {
            assert!(ended.stderr.contains(word), "{arguments:?}: {word}: {ended:?}");
        }
    }
}

#[test]
fn a_gateway_that_refuses_is_quoted() {
    on_each_store("", |gateway: &Gateway| {
        let url = format!("http://{}", gateway.address());
        let asks = COMMANDS.iter().filter(|words| words.contains(&"q") && !words.contains(&"set"));
        for arguments in asks {
            let words = arguments.iter().map(|&word| if word == "q" { "nope" } else { word });
            let arguments = &words.collect::<Vec<&str>>()[..];
            let ended = ask_at(&url, arguments, b"");
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{arguments:?}: {ended:?}");
            for word in ["\"nope\"", "code: queue_unknown (404)", "hint: ", "request: "] {
                assert!(ended.stderr.contains(word), "{arguments:?}: {word}: {ended:?}");
            }
        }
    });
}

#[test]
fn what_is_no_gateway_is_called_so() {
    let answers = [Answer::body(200, "<html>"), Answer::body(404, "not here"), Answer::Endless(200)];
    let page = "{\"items\":[{\"name\":\"of something else\"}]}";
    let answers = answers.into_iter().chain([Answer::body(200, page)]);
    for answer in answers {
        let sink = Sink::start(move |_| answer.clone());
        for arguments in COMMANDS {
            let ended = ask_at(&sink.url(""), &[arguments, &["--timeout", "5s"]].concat(), b"");
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains("no answer of a gateway"), "{ended:?}");
        }
    }
}

#[test]
fn every_call_has_a_deadline() {
    for (answer, has_head) in [(Answer::HangBeforeHead, false), (Answer::HangAfterHead(200), true)] {
        let sink = Sink::start(move |_| answer.clone());
        for arguments in COMMANDS {
            // What is answered without a body has been answered.
            if has_head && arguments.iter().any(|word| ["delete", "cancel", "discard"].contains(word)) {
                continue;
            }
            let timeout = ["--timeout", "200ms", "--retry-for", "0s"];
            let given = if arguments[0] == "publish" { &timeout[..] } else { &timeout[..2] };
            let ended = ask_at(&sink.url(""), &[arguments, given].concat(), b"");
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains("no answer within"), "{arguments:?}: {ended:?}");
        }
    }
}
