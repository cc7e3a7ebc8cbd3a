//! `posthaste queue`.

use std::fs;

use serde_json::json;

use super::{ask, command, feed, on_each_store, tell, tell_json};
use crate::support::gateway::{Gateway, Home};
use crate::support::terminal::{Channel, Terminal};

#[test]
fn a_queue_is_shown_with_its_settings() {
    on_each_store("[queues.orders]\nprocessor = 'log'\nretry.schedule = ['1s', '2m']\n", |gateway| {
        let text = tell(gateway, &["queue", "show", "orders"]);
        for line in ["source", "file", "retry.schedule", "1s,2m", "limits.length_max"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let shown = tell_json(gateway, &["queue", "show", "orders", "--json"]);
        assert_eq!((&shown["name"], &shown["retry"]["schedule"]), (&json!("orders"), &json!(["1s", "2m"])));
        let missing = ask(gateway, &["queue", "show", "oders"]);
        assert_eq!((missing.code, missing.stdout.as_str()), (Some(3), ""), "{missing:?}");
        assert!(missing.stderr.contains("posthaste queue set"), "how to make one: {missing:?}");
        assert_eq!(ask(gateway, &["queue", "show", "-a"]).code, Some(2));
    });
}

#[test]
fn a_queue_is_made_from_settings_typed_or_in_a_file() {
    on_each_store("[queues.declared]\nprocessor = 'log'\n", |gateway| {
        let arguments = [
            "queue",
            "set",
            "typed",
            "--replace",
            "--json",
            "processor=pull",
            "limits.length_max=7",
            "ttl=1d",
        ];
        let made = tell_json(gateway, &arguments);
        assert_eq!((&made["processor"], &made["limits"]["length_max"]), (&json!("pull"), &json!(7)));
        let file = gateway.folder().join("queue.toml");
        fs::write(&file, "processor = 'log'\nretry.schedule = ['1s']\nlookup = false\n").expect("a file");
        let file = file.to_str().expect("a path");
        let made = tell_json(
            gateway,
            &["queue", "set", "filed", "--replace", "--file", file, "lookup=true", "--json"],
        );
        assert_eq!((&made["lookup"], &made["retry"]["schedule"]), (&json!(true), &json!(["1s"])));
        let declared = ask(gateway, &["queue", "set", "declared", "--replace", "processor=pull"]);
        assert_eq!(declared.code, Some(3), "{declared:?}");
        assert!(declared.stderr.contains("queue_declared_in_file (409)"), "{declared:?}");
        let wrong =
            ask(gateway, &["queue", "set", "typed", "--replace", "processor=pull", "limits.lenght_max=7"]);
        assert_eq!(wrong.code, Some(3), "{wrong:?}");
        assert!(
            wrong.stderr.contains("field: /limits/lenght_max") && wrong.stderr.contains("length_max"),
            "{wrong:?}"
        );
        for usage in [&["queue", "set", "typed"][..], &["queue", "set", "typed", "processor"]] {
            assert_eq!(ask(gateway, usage).code, Some(2), "{usage:?}");
        }
        assert_eq!(ask(gateway, &["queue", "set", "typed", "--file", "no-such-file"]).code, Some(1));
    });
}

#[test]
fn what_is_not_named_stays_unless_all_is_replaced() {
    on_each_store("[queues.declared]\nprocessor = 'log'\n", |gateway| {
        let set = |arguments: &[&str]| {
            tell_json(gateway, &[&["queue", "set", "orders", "--json"], arguments].concat())
        };
        set(&["processor=pull", "ttl=1d", "limits.length_max=7"]);
        let changed = set(&["limits.length_max=8"]);
        assert_eq!((&changed["processor"], &changed["ttl"]), (&json!("pull"), &json!("1d")));
        assert_eq!(changed["limits"]["length_max"], 8);
        assert!(set(&["ttl=null"]).get("ttl").is_none());
        let replaced = set(&["--replace", "processor=pull"]);
        assert_eq!(replaced["limits"]["length_max"], 1_000_000);
        let new = ask(gateway, &["queue", "set", "new", "ttl=1d"]);
        assert_eq!(new.code, Some(3), "a new queue has a processor: {new:?}");
        assert!(new.stderr.contains("processor"), "{new:?}");
        let shown = tell(gateway, &["queue", "set", "orders", "ttl=2h"]);
        assert!(shown.contains("ttl ") && shown.contains("2h"), "{shown}");
    });
}

#[test]
fn a_warning_is_printed_beside_what_was_set() {
    on_each_store("", |gateway| {
        let set = ["queue", "set", "orders", "processor=http", "destination=http://orders.invalid/"];
        for arguments in [&set[..], &[&set[..], &["--replace", "--json"]].concat()] {
            let ended = ask(gateway, arguments);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stderr.starts_with("posthaste: destination_unresolved: "), "{ended:?}");
            assert!(
                ended.stderr.contains("orders.invalid") && ended.stderr.lines().count() == 1,
                "{ended:?}"
            );
            assert!(ended.stdout.contains("orders.invalid"), "what was asked for: {ended:?}");
        }
        assert_eq!(gateway.log().matches("a destination does not resolve now").count(), 2);
        let shown = ask(gateway, &["queue", "show", "orders"]);
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{shown:?}");
        let changed = ask(gateway, &["queue", "set", "orders", "timeout=3s"]);
        assert_eq!((changed.code, changed.stderr.as_str()), (Some(0), ""), "{changed:?}");
    });
}

#[test]
fn queues_are_listed_a_page_at_a_time() {
    on_each_store("[queues.a1]\nprocessor = 'pull'\n[queues.a2]\nprocessor = 'pull'\n", |gateway| {
        tell(gateway, &["queue", "set", "b1", "processor=http", "destination=https://a.example/?token=x"]);
        tell(gateway, &["queue", "pause", "a2"]);
        let text = tell(gateway, &["queue", "list"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("QUEUE "), "{text}");
        let names: Vec<&str> = lines[1..].iter().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["a1", "a2", "b1", "default"]);
        assert!(lines[2].contains("paused") && lines[1].contains("open"), "{text}");
        assert!(text.contains("https://a.example/") && !text.contains("token=x"), "{text}");
        let first = ask(gateway, &["queue", "list", "--limit", "3", "--json"]);
        let page = super::json(&first.stdout);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(3));
        let cursor = page["cursor"].as_str().expect("there is more");
        let rest = tell_json(gateway, &["queue", "list", "--cursor", cursor, "--json"]);
        assert_eq!((&rest["items"][0]["name"], rest.get("cursor")), (&json!("default"), None));
        let more = ask(gateway, &["queue", "list", "--limit", "1"]);
        assert!(more.stderr.contains("there may be more: --cursor "), "{more:?}");
        assert_eq!(ask(gateway, &["queue", "list", "--limit", "0"]).code, Some(2));
        assert_eq!(ask(gateway, &["queue", "list", "--cursor", "junk"]).code, Some(3));
    });
}

#[test]
fn a_queue_is_held_emptied_and_deleted() {
    on_each_store("[queues.kept]\nprocessor = 'pull'\n", |gateway| {
        let state = || tell_json(gateway, &["queue", "show", "kept", "--json"])["paused"].clone();
        assert_eq!((tell(gateway, &["queue", "pause", "kept"]).as_str(), state()), ("", json!(true)));
        assert_eq!((tell(gateway, &["queue", "resume", "kept"]).as_str(), state()), ("", json!(false)));
        for _ in 0..3 {
            tell(gateway, &["publish", "kept", "x"]);
        }
        assert_eq!(tell(gateway, &["queue", "purge", "kept"]), "3\n", "a script is not asked");
        tell(gateway, &["queue", "set", "gone", "processor=pull"]);
        tell(gateway, &["publish", "gone", "x"]);
        let refused = ask(gateway, &["queue", "delete", "gone"]);
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(
            refused.stderr.contains("queue_not_empty (409)") && refused.stderr.contains("--force"),
            "{refused:?}"
        );
        tell(gateway, &["queue", "delete", "gone", "--force"]);
        assert_eq!(ask(gateway, &["queue", "show", "gone"]).code, Some(3));
        assert_eq!(ask(gateway, &["queue", "delete", "kept"]).code, Some(3), "a declared one stays");
    });
}

#[test]
fn a_person_is_asked_before_something_is_destroyed() {
    let gateway = Gateway::start("[queues.kept]\nprocessor = 'pull'\n", &[]);
    tell(&gateway, &["publish", "kept", "x"]);
    let purge = |arguments: &[&str]| {
        let mut purge = command(&[&["queue", "purge", "kept"], arguments].concat());
        purge.env("POSTHASTE_URL", format!("http://{}", gateway.address()));
        Terminal::start(purge, &[Channel::Stdin, Channel::Stdout, Channel::Stderr])
    };
    for answer in ["\n", "n\n", "yes!\n"] {
        let mut terminal = purge(&[]);
        terminal.wait_for("[y/N]");
        terminal.type_text(answer);
        assert_eq!(terminal.wait_for_exit().code(), Some(1));
        terminal.wait_for("nothing was done");
        assert_eq!(gateway.status()["totals"]["pending"], 1, "{answer:?}");
    }
    let mut terminal = purge(&[]);
    terminal.wait_for("[y/N]");
    terminal.type_text("y\n");
    assert_eq!(terminal.wait_for_exit().code(), Some(0));
    assert_eq!(gateway.status()["totals"]["purged"], 1);
    let mut terminal = purge(&["--yes"]);
    assert_eq!(terminal.wait_for_exit().code(), Some(0));
    assert!(!terminal.screen().contains("[y/N]"));
}

#[test]
fn a_secret_is_made_or_given_and_printed_once() {
    for home in [Home::Sqlite, Home::redis()] {
        let mut gateway = home.prepare("[secrets]\nmaster_key_file = 'master.key'\n", &[]);
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        fs::write(gateway.folder().join("master.key"), key).expect("a file");
        gateway.launch_until_ready();
        tell(&gateway, &["queue", "set", "orders", "processor=pull"]);
        let made = tell(&gateway, &["queue", "secret", "orders"]);
        assert!(made.starts_with("whsec_") && made.lines().count() == 1, "{made}");
        let given =
            feed(&gateway, &["queue", "secret", "orders", "--stdin", "--overlap", "1h"], made.as_bytes());
        assert_eq!((given.code, given.stdout.as_str()), (Some(0), ""), "{given:?}");
        let ed25519 = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let given = ask(&gateway, &["queue", "secret", "orders", "--secret", ed25519]);
        assert_eq!((given.code, given.stdout.as_str()), (Some(0), ""), "{given:?}");
        assert!(given.stderr.contains("whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="), "{given:?}");
        assert!(given.stderr.contains("until 2"), "{given:?}");
        let made = tell_json(&gateway, &["queue", "secret", "orders", "--json"]);
        assert!(
            made["secret"].as_str().is_some_and(|made| made.starts_with("whsk_")),
            "of the same kind: {made}"
        );
        let shown = tell(&gateway, &["queue", "show", "orders"]);
        assert!(shown.contains("secret_set") && !shown.contains("whs"), "{shown}");
        for usage in [&["--secret", ed25519, "--stdin"][..], &["--overlap", "7"], &["--stdin"]] {
            let ended = ask(&gateway, &[&["queue", "secret", "orders"], usage].concat());
            assert_eq!(ended.code, Some(2), "{ended:?}");
        }
    }
}
