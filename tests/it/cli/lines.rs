//! `posthaste publish --lines`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::Value;

use super::{ask_at, command, feed, on_each_store, publish::pass_on};
use crate::support::gateway::{Gateway, Home};
use crate::support::sink::{Answer, Sink};
use crate::support::terminal::{Channel, Terminal};

const KEPT: &str = "[queues.kept]\nprocessor = 'pull'\nlimits.payload_max = '1KiB'\n";

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address())
}

fn numbered(count: usize) -> String {
    (1..=count).fold(String::new(), |mut text, number| {
        writeln!(text, "line {number}").expect("a string grows");
        text
    })
}

fn accepted(gateway: &Gateway) -> u64 {
    gateway.status()["totals"]["accepted"].as_u64().expect("a count")
}

fn message(gateway: &Gateway, id: &str) -> Value {
    gateway.request("GET", &format!("/v1/queues/kept/messages/{id}?payload=true"), &[], b"").json()
}

#[test]
fn ten_thousand_lines_of_stdin_are_ten_thousand_messages_in_their_order() {
    on_each_store(KEPT, |gateway| {
        let ended = feed(gateway, &["publish", "kept", "--lines"], numbered(10_000).as_bytes());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("10000 messages are published to kept, in "), "{}", ended.stderr);
        let ids: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (10_000, 10_000));
        for number in [1, 999, 1_000, 1_001, 10_000] {
            assert_eq!(message(gateway, ids[number - 1])["payload"], format!("line {number}"));
        }
        assert_eq!(accepted(gateway), 10_000);
    });
}

#[test]
fn what_is_said_holds_for_each_line() {
    on_each_store(KEPT, |gateway| {
        let arguments = [
            "publish",
            "kept",
            "--lines",
            "--json",
            "--content-type",
            "text/plain",
            "--delay",
            "1h",
            "--priority",
            "low",
        ];
        let ended = feed(gateway, &arguments, b"\xff\xfe\r\n\n\"b\"");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let answer = super::json(&ended.stdout);
        assert_eq!(answer["accepted"], 2);
        let first = message(gateway, answer["ids"][0].as_str().expect("an id"));
        assert_eq!(
            (&first["payload_base64"], &first["content_type"]),
            (&"//4=".into(), &"text/plain".into())
        );
        assert_eq!((&first["state"], &first["priority"]), (&"scheduled".into(), &"low".into()));
        assert_eq!(message(gateway, answer["ids"][1].as_str().expect("an id"))["payload"], "\"b\"");
        let nothing = feed(gateway, &["publish", "kept", "--lines", "-"], b"\n\n");
        assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""), "{nothing:?}");
        assert!(nothing.stderr.contains("0 messages"), "{nothing:?}");
    });
}

#[test]
fn a_line_that_is_refused_is_named_and_the_rest_is_not_published() {
    on_each_store(KEPT, |gateway| {
        let file = gateway.folder().join("lines");
        let text = format!("{}\n{}\nlast\n", numbered(24), "x".repeat(1_025));
        fs::write(&file, text).expect("a file");
        let file = file.to_str().expect("a path");
        let ended = super::ask(gateway, &["publish", "kept", "--lines", "--file", file, "--batch", "10"]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert_eq!((ended.stdout.lines().count(), accepted(gateway)), (20, 20));
        for words in ["code: payload_too_large (413)", "line: 26", "all before line 21, nothing from it on"] {
            assert!(ended.stderr.contains(words), "{words}: {ended:?}");
        }
    });
}

#[test]
fn the_same_file_with_the_same_key_stores_no_line_twice() {
    on_each_store(KEPT, |gateway| {
        let lines = numbered(25);
        let arguments = ["publish", "kept", "--lines", "--batch", "10", "--key", "k"];
        let first = feed(gateway, &arguments, lines.as_bytes());
        assert_eq!((first.code, accepted(gateway)), (Some(0), 25), "{first:?}");
        let again = feed(gateway, &arguments, lines.as_bytes());
        assert_eq!((again.code, &again.stdout, accepted(gateway)), (Some(0), &first.stdout, 25), "{again:?}");
        assert!(again.stderr.contains("25 of them before"), "{again:?}");
    });
}

#[test]
fn a_batch_whose_answer_is_lost_is_stored_once() {
    on_each_store(KEPT, |gateway| {
        let address = gateway.address();
        let between = Sink::start(move |received| {
            let answer = pass_on(&address, received);
            if received.order == 1 { Answer::CloseEarly } else { answer }
        });
        let arguments = ["publish", "kept", "--lines", "--batch", "10"];
        let ended = ask_at(&between.url(""), &arguments, numbered(30).as_bytes());
        assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 30), "{ended:?}");
        assert_eq!((accepted(gateway), between.count()), (30, 4));
        assert!(ended.stderr.contains("trying again with the same key"), "{ended:?}");
    });
}

#[test]
fn what_is_lost_for_good_is_said_with_the_way_on() {
    let gone = Sink::start(|_| Answer::CloseEarly);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("lines"), "a\nb\n").expect("a file");
    let file = folder.path().join("lines");
    let file = file.to_str().expect("a path");
    let arguments = ["publish", "q", "--lines", "--file", file, "--key", "k", "--retry-for", "300ms"];
    let ended = ask_at(&gone.url(""), &arguments, b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{ended:?}");
    let words = "all before line 1, of 1 to 2 nobody knows; the same again with --key k stores no line twice";
    assert!(ended.stderr.contains(words), "{ended:?}");
    assert!(gone.received().iter().all(|request| request.header("idempotency-key") == Some("k.1")));
}

#[test]
fn a_line_is_not_held_back_until_others_come() {
    let gateway = Gateway::start(KEPT, &[]);
    let mut process = command(&["publish", "kept", "--lines"])
        .env("POSTHASTE_URL", url(&gateway))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = process.stdin.take().expect("a pipe");
    let mut ids = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    for line in ["first", "second"] {
        writeln!(stdin, "{line}").expect("it reads");
        let id = ids.next().expect("a line").expect("text");
        assert_eq!(message(&gateway, &id)["payload"], line);
    }
    drop(stdin);
    assert_eq!(process.wait().expect("it ends").code(), Some(0));
}

#[test]
fn all_is_published_also_when_nobody_reads_the_ids() {
    let gateway = Gateway::start(KEPT, &[]);
    let file = gateway.folder().join("lines");
    fs::write(&file, numbered(3_000)).expect("a file");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command(&["publish", "kept", "--lines"])
        .env("POSTHASTE_URL", url(&gateway))
        .stdin(File::open(&file).expect("a file"))
        .stdout(std::os::fd::OwnedFd::from(writer))
        .output()
        .expect("it runs");
    assert_eq!((output.status.code(), accepted(&gateway)), (Some(0), 3_000), "{output:?}");
}

#[test]
fn a_line_larger_than_a_batch_goes_alone() {
    for home in [Home::Sqlite, Home::redis()] {
        let gateway = home.start("[queues.kept]\nprocessor = 'pull'\nlimits.payload_max = '16MiB'\n", &[]);
        let lines = [b"a\n".as_slice(), &vec![b'x'; 16 << 20], b"\nb\n"].concat();
        let ended = feed(&gateway, &["publish", "kept", "--lines"], &lines);
        assert_eq!((ended.code, accepted(&gateway)), (Some(0), 3), "{ended:?}");
        let ids: Vec<&str> = ended.stdout.lines().collect();
        let largest =
            gateway.request("GET", &format!("/v1/queues/kept/messages/{}", ids[1]), &[], b"").json();
        assert_eq!(largest["payload_bytes"], 16 << 20);
    }
}

#[test]
fn a_terminal_shows_how_far_it_is_and_nothing_else_does() {
    let gateway = Gateway::start(KEPT, &[]);
    let file = gateway.folder().join("lines");
    fs::write(&file, numbered(5_000)).expect("a file");
    let file = file.to_str().expect("a path");
    let arguments = ["publish", "kept", "--lines", "--batch", "10", "--file", file];
    let mut watched = command(&arguments);
    watched
        .env("POSTHASTE_URL", url(&gateway))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut terminal = Terminal::start(watched, &[Channel::Stderr]);
    assert_eq!(terminal.wait_for_exit().code(), Some(0));
    terminal.wait_for("5000 messages are published");
    assert!(terminal.screen().contains("% ") && terminal.screen().contains('\r'), "{:?}", terminal.screen());
    let ended = super::ask(&gateway, &arguments);
    assert!(!ended.stderr.contains('\r') && ended.stderr.lines().count() == 1, "{ended:?}");
}

#[test]
fn what_cannot_be_read_as_lines_is_refused() {
    let sink = Sink::start(|_| Answer::status(200));
    let usage: [&[&str]; 4] = [
        &["publish", "q", "text", "--lines"],
        &["publish", "q", "--lines", "--batch", "0"],
        &["publish", "q", "--lines", "--batch", "10001"],
        &["publish", "q", "--batch", "10"],
    ];
    for arguments in usage {
        assert_eq!(ask_at(&sink.url(""), arguments, b"a\n").code, Some(2), "{arguments:?}");
    }
    let large = vec![b'x'; (16 << 20) + 1];
    assert_eq!(ask_at(&sink.url(""), &["publish", "q", "--lines"], &large).code, Some(2));
    assert_eq!(
        ask_at(&sink.url(""), &["publish", "q", "--lines", "--file", "/dev/null/x"], b"").code,
        Some(1)
    );
    assert_eq!(sink.count(), 0);
}
