//! `posthaste sink`: a receiver with scripted answers.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{command, tell};
use crate::support::client;
use crate::support::gateway::Home;
use crate::support::wait_until;

const WITHIN: Duration = Duration::from_secs(30);

/// A running `posthaste sink`.
struct Receiver {
    folder: tempfile::TempDir,
    process: Child,
    address: String,
}

impl Receiver {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name| File::create(folder.path().join(name)).expect("a file");
        let mut process = command(&["sink", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("it starts");
        let said = folder.path().join("stderr");
        let address = wait_until("it listens", WITHIN, || {
            assert!(process.try_wait().expect("its state").is_none(), "it ended");
            let text = fs::read_to_string(&said).expect("a text");
            Some(text.split_once("http://")?.1.split_once('\n')?.0.to_owned())
        });
        Self { folder, process, address }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("stdout")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("a text")
    }

    fn lines(&self, count: usize) -> Vec<String> {
        wait_until(&format!("{count} lines came"), WITHIN, || {
            let lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> u16 {
        client::request(&self.address, "POST", "/in?a=b", headers, body).expect("an answer").status
    }

    /// Ends it by a signal; it ends in order.
    fn stop(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(i32::try_from(self.process.id()).expect("an id")), signal).expect("a signal");
        let status = wait_until("it ends", WITHIN, || self.process.try_wait().expect("its state"));
        assert_eq!(status.code(), Some(0));
        fs::read_to_string(self.folder.path().join("stderr")).expect("a text")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

#[test]
fn answers_are_given_in_turn_over_and_over() {
    let receiver = Receiver::start(&["--answer", "503,503,200"]);
    let answers: Vec<u16> = (0..7).map(|_| receiver.post(&[], b"x")).collect();
    assert_eq!(answers, [503, 503, 200, 503, 503, 200, 503]);
    let lines = receiver.lines(7);
    assert!(lines[0].starts_with("1 2") && lines[0].contains(" POST /in?a=b 503 1 bytes"), "{lines:?}");
    assert!(lines[2].starts_with("3 ") && lines[2].contains(" 200 "), "{lines:?}");
    let said = receiver.stop(Signal::SIGINT);
    assert!(said.contains("7 requests came"), "{said}");
}

#[test]
fn a_line_is_a_json_document_with_what_came() {
    let receiver = Receiver::start(&["--json", "--body", "--answer", "204"]);
    assert_eq!(receiver.post(&[("X-A", "1"), ("X-A", "2"), ("Content-Type", "text/plain")], b"hello"), 204);
    assert_eq!(receiver.post(&[], b"\xff"), 204);
    let lines: Vec<Value> = receiver.lines(2).iter().map(|line| super::json(line)).collect();
    assert_eq!((&lines[0]["number"], &lines[0]["status"]), (&1.into(), &204.into()));
    assert_eq!((&lines[0]["method"], &lines[0]["path"]), (&"POST".into(), &"/in?a=b".into()));
    assert_eq!((&lines[0]["headers"]["x-a"], &lines[0]["body"]), (&"1, 2".into(), &"hello".into()));
    assert_eq!((&lines[1]["body_base64"], &lines[1]["body_bytes"]), (&"/w==".into(), &1.into()));
    assert!(lines[1].get("body").is_none());
    drop(receiver.stop(Signal::SIGTERM));
}

#[test]
fn strangers_write_no_orders_into_its_lines() {
    let receiver = Receiver::start(&[]);
    receiver.post(&[("webhook-id", "a\u{9b}2Jb"), ("content-type", "x\u{85}y")], b"\x1b[2J");
    let text = receiver.lines(1).join("\n");
    assert!(text.contains("2Jb") && text.chars().all(|character| !character.is_control()), "{text:?}");
}

#[test]
fn a_part_fails_and_a_delay_is_waited_for() {
    let receiver = Receiver::start(&["--fail-rate", "1", "--delay", "20ms"]);
    let began = std::time::Instant::now();
    assert_eq!(receiver.post(&[], b""), 503);
    assert!(began.elapsed() >= Duration::from_millis(20));
    drop(receiver);
    let receiver = Receiver::start(&["--fail-rate", "0"]);
    assert!((0..20).all(|_| receiver.post(&[], b"") == 200));
}

#[test]
fn a_large_body_is_taken_and_one_larger_than_any_message_is_not() {
    let receiver = Receiver::start(&[]);
    assert_eq!(receiver.post(&[], &vec![b'x'; 16 << 20]), 200);
    assert!(receiver.lines(1)[0].contains("16777216 bytes"));
    let refused = client::request(&receiver.address, "POST", "/", &[], &vec![b'x'; 18 << 20]);
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 413));
    assert_eq!(receiver.post(&[], b"still there"), 200);
}

#[test]
fn what_cannot_be_is_refused() {
    let cases: [(&[&str], i32); 5] = [
        (&["sink", "--answer", "99"], 2),
        (&["sink", "--answer", "200,x"], 2),
        (&["sink", "--fail-rate", "2"], 2),
        (&["sink", "--delay", "5"], 2),
        (&["sink", "--listen", "nowhere"], 2),
    ];
    for (arguments, code) in cases {
        assert_eq!(command(arguments).output().expect("it runs").status.code(), Some(code), "{arguments:?}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    let ended = command(&["sink", "--listen", &taken]).output().expect("it runs");
    drop(listener);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains(&taken), "{ended:?}");
}

#[test]
fn a_gateway_delivers_to_it_until_it_is_satisfied() {
    for home in [Home::Sqlite, Home::redis()] {
        let receiver = Receiver::start(&["--answer", "503,200", "--json", "--body"]);
        let gateway = home.start("", &["--dev"]);
        let destination = format!("destination=http://{}/orders", receiver.address);
        tell(
            &gateway,
            &["queue", "set", "orders", "--replace", "processor=http", &destination, "retry.schedule=100ms"],
        );
        let id = tell(&gateway, &["publish", "orders", "{\"order\":17}", "--header", "x-shop=7"]);
        let lines: Vec<Value> = receiver.lines(2).iter().map(|line| super::json(line)).collect();
        for line in &lines {
            assert_eq!(
                (&line["headers"]["webhook-id"], &line["headers"]["x-shop"]),
                (&id.trim_end().into(), &"7".into())
            );
            assert_eq!(line["body"], "{\"order\":17}");
        }
        assert_eq!((&lines[0]["status"], &lines[1]["status"]), (&503.into(), &200.into()));
        assert_eq!(lines[1]["headers"]["posthaste-attempt"], "2");
    }
}

#[test]
fn it_ends_when_nobody_reads_it() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let folder = tempfile::tempdir().expect("a folder");
    let said = folder.path().join("stderr");
    let mut process = command(&["sink", "--listen", "127.0.0.1:0"])
        .stdout(std::os::fd::OwnedFd::from(writer))
        .stderr(File::create(&said).expect("a file"))
        .spawn()
        .expect("it starts");
    let address = wait_until("it listens", WITHIN, || {
        let text = fs::read_to_string(&said).expect("a text");
        Some(text.split_once("http://")?.1.split_once('\n')?.0.to_owned())
    });
    drop(reader);
    drop(client::request(&address, "POST", "/", &[], b""));
    let status = wait_until("it ends", WITHIN, || process.try_wait().expect("its state"));
    assert_eq!(status.code(), Some(0));
}
