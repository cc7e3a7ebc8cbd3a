//! `posthaste queue`.

use std::fs;

use serde_json::json;

use super::{ask, on_each_store, tell, tell_json};

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
