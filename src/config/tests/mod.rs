//! Layers, origins, and the exact words of each kind of problem.

use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::domain::queue::DestinationOverride;
use crate::store::settings::RequiredDurability;
use crate::telemetry::LogFormat;

mod manual;
mod printing;
mod refusals;
mod secrets;

/// A file, variables and flags to load.
#[derive(Default)]
struct Given<'a> {
    file: &'a str,
    environment: &'a [(&'a str, &'a str)],
    flags: Flags,
}

impl Given<'_> {
    /// Loads it; a problem shows the file as `posthaste.toml`.
    fn load(self) -> Result<Settings, Vec<String>> {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("posthaste.toml");
        std::fs::write(&path, self.file).expect("the file is written");
        let inside = format!("{}/", folder.path().display());
        let result = Settings::load(&[path], self.environment.iter().copied(), &self.flags);
        result.map_err(|problems| problems.iter().map(|one| one.to_string().replace(&inside, "")).collect())
    }

    fn settings(self) -> Settings {
        self.load().expect("the settings are valid")
    }

    fn problems(self) -> Vec<String> {
        self.load().expect_err("must be refused")
    }
}

fn file(text: &str) -> Given<'_> {
    Given { file: text, ..Given::default() }
}

fn environment<'a>(variables: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given { environment: variables, ..Given::default() }
}

fn set(assignments: &[&str]) -> Given<'static> {
    let set = assignments.iter().map(|&assignment| assignment.to_owned()).collect();
    Given { flags: Flags { set, ..Flags::default() }, ..Given::default() }
}

fn queue<'a>(settings: &'a Settings, name: &str) -> &'a QueueSettings {
    settings.queues.get(name).expect("the queue is declared")
}

#[test]
fn each_layer_overrides_those_before_it_key_by_key() {
    let text = "server.grace = '1s'\nserver.threads = 1\nserver.listen = '127.0.0.1:1'\nworkers.threads = 1";
    let given = Given {
        file: text,
        environment: &[("POSTHASTE__SERVER__THREADS", "2"), ("POSTHASTE__SERVER__LISTEN", "127.0.0.1:2")],
        flags: Flags { listen: Some("127.0.0.1:3".to_owned()), ..Flags::default() },
    };
    let settings = given.settings();
    assert_eq!(settings.server.grace, Duration::from_secs(1));
    assert_eq!(settings.server.threads, 2);
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:3");
    assert_eq!(settings.workers.threads, 1);
    assert_eq!(settings.workers.concurrency, 256);
}

#[test]
fn a_later_file_overrides_an_earlier_one() {
    let folder = TempDir::new().expect("a temporary folder");
    let files = ["server = { grace = '1s', threads = 1 }", "[server]\ngrace = '2s'"].map(|text| {
        let path = folder.path().join(format!("{}.toml", text.len()));
        std::fs::write(&path, text).expect("the file is written");
        path
    });
    let nothing: [(&str, &str); 0] = [];
    let settings = Settings::load(&files, nothing, &Flags::default()).expect("the settings are valid");
    assert_eq!((settings.server.grace, settings.server.threads), (Duration::from_secs(2), 1));
}

#[test]
fn dotted_keys_sub_tables_and_inline_tables_are_the_same() {
    for text in [
        "[queues.mail]\nprocessor = 'pull'\nretry.jitter = 0.5",
        "[queues.mail]\nprocessor = 'pull'\n[queues.mail.retry]\njitter = 0.5",
        "[queues]\nmail = { processor = 'pull', retry = { jitter = 0.5 } }",
        "queues.mail.processor = 'pull'\nqueues.\"mail\".retry.jitter = 0.5",
    ] {
        let settings = file(text).settings();
        assert_eq!(queue(&settings, "mail").retry.jitter.to_string(), "0.5", "{text}");
    }
}

#[test]
fn a_queue_is_laid_over_the_defaults() {
    let text = "
        [queue_defaults]
        processor = 'pull'
        timeout = '1m'
        delivery.headers = { x-a = 'defaults', x-b = 'defaults' }
        delivery.reject = [400, 404]
        [queues.mail]
        delivery.headers.x-a = 'mail'
        delivery.reject = [410]
        [queues.'a.b']
        processor = 'log'
        ttl = '1h'";
    let settings = file(text).settings();
    let mail = queue(&settings, "mail");
    assert_eq!((mail.processor.as_str(), mail.timeout), ("pull", Duration::from_mins(1)));
    assert_eq!(mail.delivery.headers["x-a"], "mail");
    assert_eq!(mail.delivery.headers["x-b"], "defaults");
    assert_eq!(mail.delivery.reject, [410]);
    let other = queue(&settings, "a.b");
    assert_eq!((other.processor.as_str(), other.ttl), ("log", Some(Duration::from_hours(1))));
    assert_eq!(settings.queues.len(), 3, "default stays");
    assert_eq!(settings.queue_defaults.processor, "pull");
}

#[test]
fn a_variable_is_read_by_the_type_of_its_key() {
    let settings = environment(&[
        ("POSTHASTE__SERVER__INSECURE_NO_AUTH", "true"),
        ("POSTHASTE__SERVER__LISTEN", "[::1]:9000"),
        ("POSTHASTE__SERVER__LIMITS__BODIES_BYTES_MAX", "128MiB"),
        ("POSTHASTE__SERVER__LIMITS__BATCH_BYTES_MAX", "1048576"),
        ("POSTHASTE__STORE__DURABILITY", "relaxed"),
        ("POSTHASTE__STORE__FULL_AT_PERCENT", "70"),
        ("POSTHASTE__EGRESS__ALLOW", r#"["10.0.0.0/8", "http://localhost:3000"]"#),
        ("POSTHASTE__LOG__FORMAT", "json"),
        ("POSTHASTE__QUEUE_DEFAULTS__RETRY__SCHEDULE", r#"["1s", "2m"]"#),
        ("POSTHASTE__QUEUE_DEFAULTS__RETRY__JITTER", "0"),
        ("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__REJECT", "[400, 404]"),
        ("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS", r#"{ "X-Team" = "mail" }"#),
        ("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__RATE", "5/m"),
        ("POSTHASTE__QUEUE_DEFAULTS__DESTINATION_OVERRIDE", r#"["https://a.example"]"#),
        ("POSTHASTE__QUEUE_DEFAULTS__PRIORITY", "low"),
    ])
    .settings();
    assert!(settings.server.insecure_no_auth);
    assert_eq!(settings.server.listen.to_string(), "[::1]:9000");
    assert_eq!(settings.server.limits.bodies_bytes_max, 128 << 20);
    assert_eq!(settings.server.limits.batch_bytes_max, 1 << 20);
    assert_eq!(settings.store.durability, RequiredDurability::Relaxed);
    assert_eq!(settings.store.full_at_percent, 70);
    assert_eq!(settings.egress.allow.len(), 2);
    assert_eq!(settings.log.format, LogFormat::Json);
    let defaults = &settings.queue_defaults;
    assert_eq!(defaults.retry.schedule, [Duration::from_secs(1), Duration::from_mins(2)]);
    assert_eq!(defaults.retry.jitter.to_string(), "0");
    assert_eq!(defaults.delivery.reject, [400, 404]);
    assert_eq!(defaults.delivery.headers["X-Team"], "mail");
    assert_eq!(defaults.delivery.rate.map(|rate| rate.to_string()).as_deref(), Some("5/m"));
    let origins = vec!["https://a.example".to_owned()];
    assert_eq!(defaults.destination_override, DestinationOverride::Origins(origins));
    assert_eq!(queue(&settings, "default").priority, defaults.priority);
}

#[test]
fn a_variable_names_keys_in_any_case_and_queues_as_they_are_written() {
    let settings = environment(&[
        ("POSTHASTE__server__Grace", "3s"),
        ("POSTHASTE__QUEUES__Mail__PROCESSOR", "pull"),
        ("POSTHASTE__QUEUES__Mail__RETRY__JITTER", "1"),
        ("POSTHASTE__QUEUES__news", r#"{ processor = "pull", retry.jitter = 0.5 }"#),
        ("POSTHASTE__QUEUES__news__RETRY", "{ jitter = 0.25 }"),
        ("POSTHASTE_URL", "not ours"),
        ("HOME", "not ours"),
    ])
    .settings();
    assert_eq!(settings.server.grace, Duration::from_secs(3));
    assert_eq!(queue(&settings, "Mail").retry.jitter.to_string(), "1");
    assert_eq!(queue(&settings, "news").retry.jitter.to_string(), "0.25", "the single key holds");
    assert!(!settings.queues.contains_key("mail"));
}

#[test]
fn an_empty_variable_unsets_what_may_be_absent() {
    let given = Given {
        file: "store.bytes_max = '1GiB'\nqueue_defaults.ttl = '1h'",
        environment: &[("POSTHASTE__STORE__BYTES_MAX", ""), ("POSTHASTE__QUEUE_DEFAULTS__TTL", "")],
        ..Given::default()
    };
    let settings = given.settings();
    assert_eq!((settings.store.bytes_max, settings.queue_defaults.ttl), (None, None));
}

#[test]
fn each_flag_sets_its_key() {
    let flags = Flags {
        listen: Some("0.0.0.0:0".to_owned()),
        store: Some("memory:".to_owned()),
        durability: Some("none".to_owned()),
        log: Some("warn".to_owned()),
        insecure_no_auth: true,
        ..Flags::default()
    };
    let settings = Given { flags, ..Given::default() }.settings();
    assert_eq!(settings.server.listen.to_string(), "0.0.0.0:0");
    assert!(settings.server.insecure_no_auth);
    assert_eq!(
        (settings.store.url.as_str(), settings.store.durability),
        ("memory:", RequiredDurability::None)
    );
    assert_eq!(settings.log.level, "warn");
}

#[test]
fn set_takes_any_key_with_quotes_where_toml_needs_them() {
    let settings = set(&[
        "server.grace=1s",
        "server.grace=2s",
        "queues.\"a.b\".processor=pull",
        " queues.mail = { processor = \"pull\" }",
        "queues.mail.delivery.headers.\"X.Y\"=a=b",
        "store.url=sqlite:a=b.db",
        "egress.allow=[\"10.0.0.1\"]",
    ])
    .settings();
    assert_eq!(settings.server.grace, Duration::from_secs(2), "the last one holds");
    assert_eq!(queue(&settings, "a.b").processor, "pull");
    assert_eq!(queue(&settings, "mail").delivery.headers["X.Y"], "a=b");
    assert_eq!(settings.store.url, "sqlite:a=b.db");
    assert_eq!(settings.egress.allow.len(), 1);
}

#[test]
fn dev_logs_more_as_text_and_the_log_flag_is_stronger() {
    let dev = Flags { dev: true, ..Flags::default() };
    let given = Given { file: "log.format = 'json'", flags: dev.clone(), ..Given::default() };
    let settings = given.settings();
    assert!(settings.dev);
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("info,posthaste=debug", LogFormat::Text));
    let flags = Flags { log: Some("error".to_owned()), ..dev };
    assert_eq!(Given { flags, ..Given::default() }.settings().log.level, "error");
    assert!(!Settings::default().dev);
}

/// Pieces of keys and values, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    const PIECES: [&str; 35] = [
        "server",
        "queues",
        "queue_defaults",
        "mail",
        "retry",
        "delivery",
        "headers",
        "listen",
        "grace",
        "a b",
        "''",
        "store",
        "url",
        "processor",
        "=",
        "= 1",
        "= '5s'",
        "= []",
        "= {}",
        "= true",
        "= 1.5",
        "= 'log'",
        "= 1979-05-27",
        "[400]",
        "{ a = 'b' }",
        ".",
        "[",
        "]",
        "\n",
        "\"",
        "#",
        "__",
        "\0",
        "1",
        "5s",
    ];
    prop_oneof![9 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned), 1 => ".{0,3}"]
}

proptest! {
    #[test]
    fn nothing_that_is_given_panics_and_what_is_loaded_can_be_printed_and_loaded_again(
        lines in prop::collection::vec(prop::collection::vec(piece(), 0..6), 0..6),
        name in prop::collection::vec(piece(), 0..4),
        value in piece(),
        assignment in prop::collection::vec(piece(), 0..6),
    ) {
        let text = lines.iter().map(|line| line.concat()).collect::<Vec<_>>().join("\n");
        let variable = format!("POSTHASTE__{}", name.join("__"));
        let flags = Flags { set: vec![assignment.concat()], ..Flags::default() };
        for file in [text.as_str(), ""] {
            let environment = [(variable.as_str(), value.as_str())];
            for environment in [&environment[..], &[]] {
                match (Given { file, environment, flags: flags.clone() }).load() {
                    Ok(settings) => {
                        let printed = settings.print();
                        prop_assert!(super::tests::file(&printed).load().is_ok(), "{}", printed);
                    }
                    Err(problems) => prop_assert!(!problems.is_empty()),
                }
            }
        }
    }

    #[test]
    fn a_known_key_is_accepted_or_refused_by_its_own_name(index: prop::sample::Index, value in piece()) {
        let key = index.get(&KEYS);
        let variable = format!("POSTHASTE__{}", key.to_uppercase().replace('.', "__"));
        if let Err(problems) = environment(&[(variable.as_str(), value.as_str())]).load() {
            prop_assert_eq!(problems.len(), 1);
            // A processor may ask for a destination as well, and a lease follows from the time-out.
            let named = format!("{variable}: {key}: ");
            prop_assert!(problems[0].starts_with(&named), "{:?}", problems);
        }
    }
}
