//! Where output goes, and what happens when it cannot.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use super::{command, tell};
use crate::support::gateway::Gateway;
use crate::support::terminal::{Channel, Terminal};

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    OwnedFd::from(writer).into()
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let gateway = Gateway::start("", &[]);
    let url = format!("http://{}", gateway.address());
    let commands = [
        &["status"][..],
        &["status", "--json"],
        &["queue", "show", "default"],
        &["--help"],
        &["completions", "bash"],
    ];
    for arguments in commands {
        let output =
            command(arguments).env("POSTHASTE_URL", &url).stdout(closed_pipe()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
    let output =
        command(&["publish", "default", "x"]).env("POSTHASTE_URL", &url).stdout(closed_pipe()).output();
    assert_eq!(output.expect("it runs").status.code(), Some(0));
    assert_eq!(gateway.status()["totals"]["accepted"], 1, "it is published all the same");
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    let gateway = Gateway::start("", &[]);
    for arguments in [&["status"][..], &["--version"]] {
        let full = File::options().write(true).open("/dev/full").expect("the device that is always full");
        let mut command = command(arguments);
        command.env("POSTHASTE_URL", format!("http://{}", gateway.address())).stdout(full);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("stdout cannot be written"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_the_gateway_says_gives_the_terminal_no_orders() {
    let gateway = Gateway::start("", &[]);
    let id = tell(&gateway, &["publish", "default", "x", "--content-type", "text/plain"]);
    let shown = tell(&gateway, &["message", "show", "default", id.trim_end()]);
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
}

#[test]
fn a_terminal_sees_colours_unless_they_are_not_wanted() {
    let gateway = Gateway::start("", &[]);
    for (no_color, colours) in [(None, true), (Some("1"), false)] {
        let mut status = command(&["status"]);
        status.env("POSTHASTE_URL", format!("http://{}", gateway.address())).env("TERM", "xterm");
        status.envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut terminal = Terminal::start(status, &[Channel::Stdout]);
        assert_eq!(terminal.wait_for_exit().code(), Some(0));
        terminal.wait_for("default");
        assert_eq!(terminal.screen().contains("\u{1b}[32m"), colours, "{:?}", terminal.screen());
    }
}
