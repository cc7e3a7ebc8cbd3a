//! The commands that talk to a gateway: the real binary, a real gateway, both kinds of store.

mod bench;
mod dead;
mod failures;
mod help;
mod lease;
mod lines;
mod messages;
mod output;
mod publish;
mod queues;
mod sink;
mod status;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::command::{self, Ended};
use crate::support::gateway::{Gateway, Home};

/// Plays a scenario with a gateway over each kind of store.
fn on_each_store(settings: &str, scenario: impl Fn(&Gateway)) {
    for home in [Home::Sqlite, Home::redis()] {
        scenario(&home.start(settings, &[]));
    }
}

/// `posthaste` with these arguments, not started, without what the surroundings of the test say of gateways.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(arguments).env_remove("POSTHASTE_URL").env_remove("POSTHASTE_KEY").env_remove("NO_COLOR");
    command
}

/// Runs `posthaste` with these arguments and this to read until it ends, for the gateway at that URL.
fn ask_at(url: &str, arguments: &[&str], stdin: &[u8]) -> Ended {
    let mut command = command(arguments);
    command.env("POSTHASTE_URL", url);
    command::run_fed(Path::new(env!("CARGO_TARGET_TMPDIR")), command, stdin)
}

/// Runs `posthaste` with these arguments and this to read until it ends, for that gateway.
fn feed(gateway: &Gateway, arguments: &[&str], stdin: &[u8]) -> Ended {
    ask_at(&format!("http://{}", gateway.address()), arguments, stdin)
}

/// Runs `posthaste` with these arguments until it ends, for that gateway.
fn ask(gateway: &Gateway, arguments: &[&str]) -> Ended {
    feed(gateway, arguments, b"")
}

/// The same; it does what it was asked. Gives what is on stdout.
fn tell(gateway: &Gateway, arguments: &[&str]) -> String {
    let ended = ask(gateway, arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// The same, where stdout is one JSON document.
fn tell_json(gateway: &Gateway, arguments: &[&str]) -> Value {
    json(&tell(gateway, arguments))
}

/// A text that is one JSON document on one line.
fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}
