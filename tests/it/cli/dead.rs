//! `posthaste dead`.

use std::time::Duration;

use serde_json::json;

use super::{ask, command, feed, on_each_store, tell, tell_json};
use crate::support::gateway::Gateway;
use crate::support::sink::{Answer, Sink};
use crate::support::terminal::{Channel, Terminal};

/// Makes dead letters: as many as said are rejected by 400, and one is exhausted by 503. Gives their ids, by reason.
fn bury(gateway: &Gateway, receiver: &Sink, rejected: usize) -> (Vec<String>, String) {
    let set = |name: &str| {
        let destination = format!("destination={}", receiver.url(&format!("/{name}")));
        tell(gateway, &["queue", "set", "orders", "processor=http", "retry.schedule=", &destination]);
    };
    set("reject");
    let lines = "x\n".repeat(rejected);
    let published =
        feed(gateway, &["publish", "orders", "--lines", "--content-type", "text/plain"], lines.as_bytes());
    assert_eq!(published.code, Some(0), "{published:?}");
    wait_for_dead(gateway, rejected);
    set("fail");
    let exhausted = tell(gateway, &["publish", "orders", "late"]).trim_end().to_owned();
    wait_for_dead(gateway, rejected + 1);
    (published.stdout.lines().map(str::to_owned).collect(), exhausted)
}

fn wait_for_dead(gateway: &Gateway, count: usize) {
    crate::support::wait_until(&format!("{count} are dead"), Duration::from_secs(30), || {
        (dead(gateway) == count as u64).then_some(())
    });
}

fn dead(gateway: &Gateway) -> u64 {
    gateway.status()["totals"]["dead"].as_u64().expect("a count")
}

fn receiver() -> Sink {
    Sink::start(|received| Answer::body(if received.target == "/reject" { 400 } else { 503 }, "no, thanks"))
}

/// Plays a scenario over each kind of store, with a gateway that may deliver to this machine.
fn with_receiver(scenario: impl Fn(&Gateway, &Sink)) {
    for home in [crate::support::gateway::Home::Sqlite, crate::support::gateway::Home::redis()] {
        scenario(&home.start("", &["--dev"]), &receiver());
    }
}

#[test]
fn dead_letters_are_listed_shown_and_counted() {
    with_receiver(|gateway, receiver| {
        let (rejected, exhausted) = bury(gateway, receiver, 3);
        let text = tell(gateway, &["dead", "list", "orders"]);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.starts_with("ID ") && text.contains(" rejected ") && text.contains(" 400 "), "{text}");
        let some = tell_json(gateway, &["dead", "list", "orders", "--status", "503", "--json"]);
        assert_eq!(
            (some["items"].as_array().map(Vec::len), &some["items"][0]["id"]),
            (Some(1), &json!(exhausted))
        );
        let page =
            tell_json(gateway, &["dead", "list", "orders", "--reason", "rejected", "--limit", "2", "--json"]);
        let cursor = page["cursor"].as_str().expect("there is more");
        let rest = ["dead", "list", "orders", "--reason", "rejected", "--cursor", cursor, "--json"];
        assert_eq!(tell_json(gateway, &rest)["items"].as_array().map(Vec::len), Some(1));
        let text = tell(gateway, &["dead", "show", "orders", &exhausted]);
        for word in [exhausted.as_str(), "exhausted", "503", "no, thanks", "ATTEMPT"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(tell(gateway, &["dead", "show", "orders", &rejected[0], "--payload"]), "x");
        assert_eq!(
            tell_json(gateway, &["dead", "show", "orders", &rejected[0], "--json"])["reason"],
            "rejected"
        );
        let groups = tell(gateway, &["dead", "groups", "orders", "--by", "status"]);
        let lines: Vec<Vec<&str>> = groups.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["DEAD", "STATUS"], ["3", "400"], ["1", "503"]]);
        let groups = tell_json(gateway, &["dead", "groups", "orders", "--json"]);
        assert_eq!((&groups["by"], &groups["items"][0]["count"]), (&json!("reason"), &json!(3)));
    });
}

#[test]
fn dead_letters_are_replayed_by_id_or_by_what_they_have_in_common() {
    with_receiver(|gateway, receiver| {
        let (rejected, _) = bury(gateway, receiver, 5);
        // What goes back stays there, to be counted.
        tell(gateway, &["queue", "set", "orders", "processor=pull"]);
        assert_eq!(tell(gateway, &["dead", "replay", "orders", "--reason", "rejected", "--dry-run"]), "5\n");
        assert_eq!(dead(gateway), 6, "it only counts");
        let by_id = ["dead", "replay", "orders", &rejected[0], &rejected[1]];
        assert_eq!((tell(gateway, &by_id).as_str(), dead(gateway)), ("2\n", 4));
        assert_eq!(tell(gateway, &by_id), "0\n", "they are not dead any more");
        assert_eq!(
            (tell(gateway, &["dead", "replay", "orders", "--status", "400"]).as_str(), dead(gateway)),
            ("3\n", 1)
        );
        assert_eq!(
            (tell(gateway, &["dead", "replay", "orders", "--all"]).as_str(), dead(gateway)),
            ("1\n", 0)
        );
        assert_eq!(gateway.status()["totals"]["pending"], 6);
    });
}

#[test]
fn a_replay_into_a_full_queue_says_what_is_left() {
    with_receiver(|gateway, receiver| {
        bury(gateway, receiver, 5);
        tell(gateway, &["queue", "set", "orders", "processor=pull", "limits.length_max=2"]);
        let ended = ask(gateway, &["dead", "replay", "orders", "--all"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "2\n"), "{ended:?}");
        for word in ["code: queue_full", "2 of 6 are replayed"] {
            assert!(ended.stderr.contains(word), "{word}: {ended:?}");
        }
        assert_eq!(dead(gateway), 4);
    });
}

#[test]
fn more_than_one_request_replays_or_discards_are_done_all_the_same() {
    let (gateway, receiver) = (Gateway::start("", &["--dev"]), receiver());
    let destination = format!("destination={}", receiver.url("/reject"));
    let many = ["queue", "set", "orders", "processor=http", "delivery.concurrency_max=256", &destination];
    tell(&gateway, &many);
    let published = feed(&gateway, &["publish", "orders", "--lines"], "x\n".repeat(10_500).as_bytes());
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    crate::support::wait_until("all are dead", Duration::from_mins(2), || {
        (dead(&gateway) == 10_500).then_some(())
    });
    tell(&gateway, &["queue", "set", "orders", "processor=pull"]);
    assert_eq!(tell(&gateway, &["dead", "replay", "orders", "--all"]), "10500\n");
    assert_eq!((dead(&gateway), gateway.status()["totals"]["pending"].as_u64()), (0, Some(10_500)));
}

#[test]
fn dead_letters_are_thrown_away_for_good() {
    with_receiver(|gateway, receiver| {
        let (rejected, exhausted) = bury(gateway, receiver, 5);
        assert_eq!(tell(gateway, &["dead", "discard", "orders", &rejected[0], &exhausted]), "2\n");
        let again = ask(gateway, &["dead", "discard", "orders", &rejected[0], &rejected[1]]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(3), "1\n"), "{again:?}");
        assert!(again.stderr.contains("message_unknown (404)"), "{again:?}");
        assert_eq!(tell(gateway, &["dead", "discard", "orders", "--status", "503"]), "0\n");
        assert_eq!(tell(gateway, &["dead", "discard", "orders", "--all"]), "3\n");
        assert_eq!(gateway.status()["totals"]["discarded"], 6);
    });
}

#[test]
fn a_person_is_asked_before_dead_letters_are_thrown_away() {
    let (gateway, receiver) = (Gateway::start("", &["--dev"]), receiver());
    bury(&gateway, &receiver, 1);
    let mut discard = command(&["dead", "discard", "orders", "--all"]);
    discard.env("POSTHASTE_URL", format!("http://{}", gateway.address()));
    let mut terminal = Terminal::start(discard, &[Channel::Stdin, Channel::Stdout, Channel::Stderr]);
    terminal.wait_for("throw away all dead letters of orders for good? [y/N]");
    terminal.type_text("n\n");
    assert_eq!((terminal.wait_for_exit().code(), dead(&gateway)), (Some(1), 2));
}

#[test]
fn what_is_meant_must_be_said_and_be_possible() {
    on_each_store("", |gateway| {
        let id = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";
        let usage: [&[&str]; 9] = [
            &["dead", "replay", "default"],
            &["dead", "discard", "default"],
            &["dead", "replay", "default", id, "--status", "503"],
            &["dead", "replay", "default", id, "--all"],
            &["dead", "discard", "default", "--all", "--status", "503"],
            &["dead", "list", "default", "--status", "99"],
            &["dead", "list", "default", "--reason", "exhuasted"],
            &["dead", "list", "default", "--from", "2026-11-22T13:25:00Z", "--to", "2026-11-22T13:24:59Z"],
            &["dead", "groups", "default", "--by", "age"],
        ];
        for arguments in usage {
            let ended = ask(gateway, arguments);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        }
        let nearest = ask(gateway, &["dead", "list", "default", "--reason", "exhuasted"]);
        assert!(nearest.stderr.contains("did you mean \"exhausted\""), "{nearest:?}");
        assert_eq!(ask(gateway, &["dead", "show", "default", id]).code, Some(3));
        assert_eq!(tell(gateway, &["dead", "list", "default"]).lines().count(), 1, "titles only");
    });
}
