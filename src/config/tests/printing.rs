//! What `config print` shows.

use super::super::layers::BUILT_IN;
use super::*;

#[test]
fn what_is_printed_names_the_origin_of_each_value() {
    let given = Given {
        file: "[server]\ngrace = '90s'\n[queues.mail]\nprocessor = 'pull'\nretry.schedule = ['5s', '24h']",
        environment: &[
            ("POSTHASTE__SERVER__LIMITS__BATCH_BYTES_MAX", "1048576"),
            ("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS", "{ x-team = 'mail' }"),
        ],
        flags: Flags {
            listen: Some("127.0.0.1:9000".to_owned()),
            set: vec!["egress.allow=['10.0.0.1']".to_owned()],
            ..Flags::default()
        },
    };
    let settings = given.settings();
    let text = settings.print();
    let has = |line: &str| assert!(text.lines().any(|printed| printed == line), "no {line:?} in\n{text}");
    has("[server]");
    has("listen = \"127.0.0.1:9000\"  # --listen");
    has("limits.batch_bytes_max = \"1MiB\"  # POSTHASTE__SERVER__LIMITS__BATCH_BYTES_MAX");
    let built_in = |start: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in\n{text}"));
        let (_, number) = line.split_once("  # built-in default.toml:").expect(line);
        // The manual says more at that line.
        let key =
            start.split([' ', '.']).find(|word| !matches!(*word, "limits" | "delivery")).expect("a key");
        let manual =
            BUILT_IN.lines().nth(number.parse::<usize>().expect("a line") - 1).expect("it has that line");
        assert!(manual.starts_with(key), "{line}: {manual}");
    };
    built_in("limits.bodies_bytes_max = \"64MiB\"");
    has("allow = [\"10.0.0.1\"]  # --set egress.allow");
    has("delivery.headers.x-team = \"mail\"  # POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS");
    built_in("delivery.reject = [400, 413, 415, 422, 451]");
    has("[queues.default]");
    built_in("processor = \"log\"");
    has("[queues.mail]");
    let line = text.lines().find(|line| line.starts_with("grace")).expect("it is printed");
    assert!(line.starts_with("grace = \"1m30s\"  # ") && line.ends_with("posthaste.toml:2"), "{line}");
    let line =
        text.lines().find(|line| line.starts_with("retry.schedule = [\"5s\", \"1d\"]")).expect("printed");
    assert!(line.ends_with("posthaste.toml:5"), "{line}");
}

#[test]
fn what_is_printed_reads_back_as_the_same_settings() {
    let text = "
        [server]
        listen = '0.0.0.0:1'
        insecure_no_auth = true
        [store]
        url = 'sqlite:/srv/it is \"here\".db'
        bytes_max = 1048577
        [log]
        level = 'warn,posthaste=debug'
        [queue_defaults]
        destination_override = ['https://a.example']
        delivery.rate = '5/m'
        delivery.headers.\"x.y\" = 'z'
        [queues.'a.b']
        processor = 'http'
        destination = 'https://a.example/hook?x=1'
        lease = '1h'
        [queues.mail]
        processor = 'pull'
        retry.jitter = 1";
    for text in ["", text] {
        let first = file(text).settings();
        let second = file(&first.print()).settings();
        assert_eq!(first.server, second.server);
        assert_eq!(first.store, second.store);
        assert_eq!(first.workers, second.workers);
        assert_eq!(first.egress, second.egress);
        assert_eq!(first.log, second.log);
        assert_eq!(first.queue_defaults, second.queue_defaults);
        assert_eq!(first.queues, second.queues);
    }
}

#[test]
fn an_unset_variable_is_not_printed_and_dev_is() {
    let given = Given {
        file: "store.bytes_max = '1GiB'",
        environment: &[("POSTHASTE__STORE__BYTES_MAX", "")],
        flags: Flags { dev: true, ..Flags::default() },
    };
    let text = given.settings().print();
    assert!(!text.contains("\nbytes_max"), "{text}");
    assert!(text.starts_with("# --dev: loopback destinations are allowed\n\n[egress]\n"), "{text}");
    assert!(text.contains("level = \"info,posthaste=debug\"  # --dev\n"), "{text}");
}

#[test]
fn no_secret_is_printed() {
    let text = "
        [queue_defaults]
        delivery.headers = { Authorization = 'Bearer s3cret', X-Custom-Auth = 's3cret', X-Team = 'mail' }
        [secrets]
        master_key = 's3cret'
        [queues.orders]
        processor = 'log'
        secret = 'whsec_s3crets3crets3crets3crets3crets3'";
    let mut settings = file(text).settings();
    settings.store.url = "redis://user:s3cret@host:6379/0".to_owned();
    let json = settings.print_json();
    assert!(!json.contains("s3cret"), "{json}");
    let text = settings.print();
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains("delivery.headers.Authorization = \"***\""), "{text}");
    assert!(text.contains("\nmaster_key = \"***\"") && text.contains("\nsecret = \"***\""), "{text}");
    assert!(text.contains("delivery.headers.X-Team = \"mail\""), "{text}");
    assert!(text.contains("url = \"redis://user:***@host:6379/0\""), "{text}");
    assert!(!format!("{settings:?}").contains("s3cret"), "not even for debugging");
}

#[test]
fn the_json_has_what_the_toml_has() {
    let text = "
        [server]
        grace = '90s'
        [queue_defaults]
        delivery.headers = { Authorization = 'Bearer s3cret', X-Team = 'mail' }
        [queues.mail]
        processor = 'http'
        destination = 'https://a.example:1/@me?x=1&token=s3cret'";
    let settings = file(text).settings();
    let json: serde_json::Value = serde_json::from_str(&settings.print_json()).expect("JSON");
    let toml: toml::Table = settings.print().parse().expect("TOML");
    assert_eq!(json, serde_json::to_value(toml).expect("TOML's values are JSON's"));
    for (pointer, value) in [
        ("/server/grace", "1m30s"),
        ("/server/listen", "127.0.0.1:8080"),
        ("/queue_defaults/delivery/headers/Authorization", "***"),
        ("/queue_defaults/delivery/headers/X-Team", "mail"),
        ("/queues/default/processor", "log"),
        ("/queues/mail/destination", "https://a.example:1/@me?x=1&token=***"),
    ] {
        assert_eq!(json.pointer(pointer).and_then(serde_json::Value::as_str), Some(value), "{pointer}");
    }
}
