//! `posthaste status` and `posthaste ready`.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ask, command, on_each_store, tell, tell_json};
use crate::support::gateway::Gateway;
use crate::support::wait_until;

const QUEUES: &str = "[queues.kept]\nprocessor = 'pull'\n[queues.other]\nprocessor = 'pull'\n";

#[test]
fn the_status_shows_what_is_where() {
    on_each_store(QUEUES, |gateway| {
        for _ in 0..3 {
            tell(gateway, &["publish", "kept", "x"]);
        }
        let text = tell(gateway, &["status"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(concat!("posthaste ", env!("CARGO_PKG_VERSION"), ", up ")), "{text}");
        assert!(lines[1].contains(": strict"), "{text}");
        let titles = lines.iter().position(|line| line.starts_with("QUEUE ")).expect("a table");
        let kept = lines.iter().find(|line| line.starts_with("kept ")).expect("a row");
        let end = lines[titles].find("PENDING").expect("a column") + "PENDING".len();
        assert_eq!(&kept[end - 3..end], "  3", "numbers stand right: {text}");
        assert!(lines.iter().any(|line| line.starts_with("total ")), "{text}");
        assert!(!text.contains('\u{1b}'), "no colours without a terminal: {text:?}");
        let one = tell(gateway, &["status", "--queue", "other"]);
        assert!(one.contains("other") && !one.contains("kept") && !one.contains("total"), "{one}");
        let status = tell_json(gateway, &["status", "--json"]);
        assert_eq!(status["totals"]["pending"], 3);
        assert!(status["queues"][0]["stalled"].is_null(), "what is not known is null, not left out");
        let unknown = ask(gateway, &["status", "--queue", "nope"]);
        assert_eq!(unknown.code, Some(3), "{unknown:?}");
    });
}

#[test]
fn ready_says_so_as_text_or_json() {
    on_each_store(QUEUES, |gateway| {
        assert_eq!(tell(gateway, &["ready"]), "ready\n");
        assert_eq!(tell(gateway, &["ready", "--work"]), "ready\n");
        assert_eq!(tell_json(gateway, &["ready", "--json"])["ready"], true);
    });
}

#[test]
fn a_status_that_is_watched_comes_again_and_survives_the_gateway() {
    let mut gateway = Gateway::start(QUEUES, &[]);
    let (output, talk) = (gateway.folder().join("watched"), gateway.folder().join("talk"));
    let mut watcher = command(&["status", "--watch", "--every", "100ms", "--json", "--timeout", "5s"])
        .env("POSTHASTE_URL", format!("http://{}", gateway.address()))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&output).expect("a file"))
        .stderr(std::fs::File::create(&talk).expect("a file"))
        .spawn()
        .expect("it starts");
    let read = |path| std::fs::read_to_string(path).expect("a text");
    wait_until("it came three times", Duration::from_secs(30), || {
        (read(&output).lines().count() >= 3).then_some(())
    });
    gateway.stop();
    wait_until("it is missed", Duration::from_secs(30), || {
        read(&talk).contains("no gateway answers").then_some(())
    });
    assert!(watcher.try_wait().expect("its state").is_none(), "it waits for it to come back");
    for line in read(&output).lines() {
        super::json(line);
    }
    kill(Pid::from_raw(i32::try_from(watcher.id()).expect("an id")), Signal::SIGINT).expect("a signal");
    watcher.wait().expect("it ends");
}
