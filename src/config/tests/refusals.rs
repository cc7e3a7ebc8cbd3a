//! Each kind of problem with its exact words.

use std::io::Write as _;

use super::*;

#[test]
fn an_unknown_key_names_the_nearest_and_what_is_allowed() {
    assert_eq!(
        file("\n[server]\nlistn = '127.0.0.1:80'").problems(),
        ["posthaste.toml:3: server.listn: no such key, the nearest is server.listen; \
             [server] has grace, insecure_no_auth, limits, listen, threads"]
    );
    assert_eq!(
        file("[sever]\nlisten = '127.0.0.1:80'").problems(),
        ["posthaste.toml:1: sever: no such key, the nearest is server; \
             the sections are egress, ingest, lanes, log, queue_defaults, queues, secrets, server, store, workers"]
    );
    assert_eq!(
        file("zzz = 1").problems(),
        ["posthaste.toml:1: zzz: no such key; \
             the sections are egress, ingest, lanes, log, queue_defaults, queues, secrets, server, store, workers"]
    );
}

#[test]
fn an_origin_takes_its_own_keys_in_its_one_spelling() {
    let problems = |text: &str| file(text).problems();
    assert_eq!(
        problems("[lanes.'https://a.example']\nrate = '5/s'\nconcurency = 1"),
        ["posthaste.toml:3: lanes.\"https://a.example\".concurency: no such key, \
             the nearest is lanes.\"https://a.example\".concurrency_max; \
             [lanes.\"https://a.example\"] has concurrency_max, rate"]
    );
    let refused = problems("[lanes.'https://A.example:443/x']\nrate = '5/s'");
    assert!(refused[0].contains("is no origin in its one spelling"), "{refused:?}");
    assert_eq!(problems("[lanes.'https://a.example']\nconcurrency_max = 0\nrate = 'fast'").len(), 2);
    let refused = problems("[lanes.'https://a.example']\nconcurrency_max = 0");
    assert_eq!(
        refused,
        ["posthaste.toml:2: lanes.\"https://a.example\".concurrency_max: 0 is out of range: 1 to 65536"]
    );
    let refused = problems("[lanes]\n'https://a.example' = 5");
    assert!(refused[0].contains("must be a table"), "{refused:?}");
    let settings = file("[lanes]\nconcurrency_max = 9\n'https://a.example' = { rate = '5/s' }").settings();
    assert_eq!(settings.lanes.of("https://a.example"), ("5/s".parse().ok(), 9));
    let printed = settings.print();
    assert!(printed.contains("\"https://a.example\".rate = \"5/s\"  # "), "{printed}");
    assert!(settings.print_json().contains("\"https://a.example\": {"));
}

#[test]
fn an_unknown_key_of_a_queue_is_named_in_full() {
    let text = "[queues.mail]\nprocessor = 'log'\njitter = 0.1\nretry.jiter = 0.1\n[queues.'a.b'.limits]\nlength = 1\n\
                [queues.'a.b']\nprocessor = 'log'";
    let problems = file(text).problems();
    let beginnings: Vec<_> = problems.iter().map(|one| one.split(';').next().expect("a text")).collect();
    assert_eq!(
        beginnings,
        [
            "posthaste.toml:3: queues.mail.jitter: no such key, the nearest is queues.mail.retry.jitter",
            "posthaste.toml:4: queues.mail.retry.jiter: no such key, the nearest is queues.mail.retry.jitter",
            "posthaste.toml:6: queues.\"a.b\".limits.length: no such key, \
             the nearest is queues.\"a.b\".limits.length_max",
        ]
    );
    assert!(problems[1].ends_with("; [queues.mail.retry] has jitter, schedule"), "{}", problems[1]);
    assert!(problems[0].contains("; [queues.mail] has answer, connect_timeout, dead, "), "{}", problems[0]);
}

#[test]
fn a_key_in_the_wrong_place_is_told_the_right_one() {
    let nearest = |text: &str| {
        let problem = file(text).problems().remove(0);
        problem.split(';').next().expect("a text").to_owned()
    };
    assert_eq!(
        nearest("listen = '127.0.0.1:80'"),
        "posthaste.toml:1: listen: no such key, the nearest is server.listen"
    );
    assert_eq!(
        nearest("[server]\nbatch_bytes_max = 1"),
        "posthaste.toml:2: server.batch_bytes_max: no such key, the nearest is server.limits.batch_bytes_max"
    );
    assert_eq!(
        nearest("[queue.mail]\nprocessor = 'log'"),
        "posthaste.toml:1: queue: no such key, the nearest is queues"
    );
    assert_eq!(
        nearest("[queue_defaults]\n'retry.jitter' = 0.1"),
        "posthaste.toml:2: queue_defaults.\"retry.jitter\": no such key, the nearest is queue_defaults.retry.jitter"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_the_right_one() {
    for (text, expected) in [
        ("server.threads = 'many'", "server.threads: must be a whole number from 0 to 512, not \"many\""),
        ("server.threads = 70000", "server.threads: must be a whole number from 0 to 512, not 70000"),
        ("server.threads = -1", "server.threads: must be a whole number from 0 to 512, not -1"),
        ("server.threads = 1.5", "server.threads: must be a whole number from 0 to 512, not 1.5"),
        ("server.insecure_no_auth = 1", "server.insecure_no_auth: must be true or false, not 1"),
        (
            "queue_defaults.limits.length_max = '5'",
            "queue_defaults.limits.length_max: must be a whole number from 1 to 1000000000, not \"5\"",
        ),
        (
            "queues.default.history.attempts = 300",
            "queues.default.history.attempts: must be a whole number from 0 to 100, not 300",
        ),
        (
            "queue_defaults.dead.when_full = 'drop'",
            "queue_defaults.dead.when_full: must be one of park, trim, not \"drop\"",
        ),
        ("server.listen = 8080", "server.listen: must be a string, not 8080"),
        ("server.listen.ip = '::1'", "server.listen: must be a string, not a table"),
        (
            "server.grace = 1979-05-27",
            "server.grace: must be a duration like 15s, 500ms, 2m, 1h30m or 7d, not a date without quotes",
        ),
        ("server = 5", "server: must be a table: [server]"),
        ("queues = []", "queues: must be a table: [queues]"),
        ("queues.mail = 'log'", "queues.mail: must be a table: [queues.mail]"),
        ("queue_defaults.retry = '5s'", "queue_defaults.retry: must be a table: [queue_defaults.retry]"),
        ("queue_defaults.retry.jitter = 'x'", "queue_defaults.retry.jitter: must be a number, not \"x\""),
        ("egress.allow = '10.0.0.1'", "egress.allow: must be a list, not \"10.0.0.1\""),
        ("queue_defaults.delivery.headers = 1", "queue_defaults.delivery.headers: must be a table, not 1"),
        (
            "queue_defaults.delivery.headers.x-a = 1",
            "queue_defaults.delivery.headers.x-a: must be a string, not 1",
        ),
        ("store.durability = 1", "store.durability: must be one of strict, relaxed, none"),
        (
            "queue_defaults.destination_override = 'all'",
            "queue_defaults.destination_override: must be none, any or a list of origins, not \"all\"",
        ),
    ] {
        assert_eq!(file(text).problems(), [format!("posthaste.toml:1: {expected}")], "{text}");
    }
}

#[test]
fn a_value_that_is_written_wrongly_is_told_how_to_write_it() {
    for (text, expected) in [
        ("server.grace = 15", "server.grace: 15 has no unit: write 15s, 500ms, 2m, 1h30m or 7d"),
        ("server.grace = '15'", "server.grace: \"15\" has no unit: write 15s, 500ms, 2m, 1h30m or 7d"),
        (
            "server.limits.batch_bytes_max = '1MB'",
            "server.limits.batch_bytes_max: \"1MB\" has an unknown unit: \
             write a whole number of bytes, or 64KiB, 8MiB, 1GiB or 1TiB",
        ),
        (
            "server.limits.batch_bytes_max = -1",
            "server.limits.batch_bytes_max: -1 is negative: \
             write a whole number of bytes, or 64KiB, 8MiB, 1GiB or 1TiB",
        ),
        (
            "server.listen = 'localhost:80'",
            "server.listen: \"localhost:80\" is not an address to listen on: \
             write ip:port, like 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "store.durability = 'strickt'",
            "store.durability: must be one of strict, relaxed, none, not \"strickt\"; the nearest is strict",
        ),
        (
            "queue_defaults.priority = 'urgent'",
            "queue_defaults.priority: must be one of high, normal, low, not \"urgent\"",
        ),
        (
            "queue_defaults.delivery.rate = '5'",
            "queue_defaults.delivery.rate: \"5\" has no period: write 100/s, 600/m or 5/h",
        ),
        (
            "log.level = 'inof'",
            "log.level: \"inof\" has no level \"inof\": \
             write off, error, warn, info, debug or trace, or warn,posthaste=debug",
        ),
        (
            "queue_defaults.destination = 'ftp://a'",
            "queue_defaults.destination: the scheme \"ftp\" is not allowed: \
             a destination starts with http:// or https://",
        ),
        (
            "queues.'a b'.processor = 'log'",
            "queues.\"a b\": is no queue: a queue name is a letter or digit followed by up to 127 letters, digits, \
             dots, hyphens or underscores",
        ),
    ] {
        assert_eq!(file(text).problems(), [format!("posthaste.toml:1: {expected}")], "{text}");
    }
}

#[test]
fn an_entry_of_a_list_is_named_with_its_own_line() {
    let text = "[egress]\nallow = [\n  '10.0.0.1',\n  'here',\n]\n";
    assert_eq!(
        file(text).problems(),
        ["posthaste.toml:4: egress.allow: entry 2: \"here\" is not an address, a network or an origin: \
             write 10.0.0.5, 10.0.0.0/8 or https://service.example:8443"]
    );
    assert_eq!(
        file("queue_defaults.retry.schedule = ['5s', 30]").problems(),
        ["posthaste.toml:1: queue_defaults.retry.schedule: entry 2: 30 has no unit: \
             write 15s, 500ms, 2m, 1h30m or 7d"]
    );
}

#[test]
fn a_value_out_of_range_is_told_the_range() {
    for (text, expected) in [
        ("server.grace = '2h'", "server.grace: 2h is out of range: 0s to 1h"),
        (
            "server.limits.head_headers_max = 97",
            "server.limits.head_headers_max: 97 is out of range: 1 to 96",
        ),
        (
            "server.limits.batch_bytes_max = '65MiB'",
            "server.limits.batch_bytes_max: 65MiB is out of range: 1KiB to 64MiB",
        ),
        ("store.full_at_percent = 100", "store.full_at_percent: 100 is out of range: 1 to 99"),
        ("workers.concurrency = 0", "workers.concurrency: 0 is out of range: 1 to 65536"),
        ("queue_defaults.retry.jitter = 2", "queue_defaults.retry.jitter: 2 is out of range: 0 to 1"),
        ("queue_defaults.ttl = '31d'", "queue_defaults.ttl: 31d is out of range: 1ms to 30d"),
        ("queues.default.timeout = '1h'", "queues.default.timeout: 1h is out of range: 100ms to 15m"),
        ("queues.default.shards = 2", "queues.default.shards: 2 is not possible: only 1 in this version"),
    ] {
        assert_eq!(file(text).problems(), [format!("posthaste.toml:1: {expected}")], "{text}");
    }
}

#[test]
fn what_a_queue_lacks_is_told_at_the_line_of_the_queue() {
    assert_eq!(
        file("[server]\n[queues.mail]\nretry.jitter = 0\n[queues.news]\nprocessor = 'http'").problems(),
        [
            "posthaste.toml:2: queues.mail.processor: is required: log, http, pull, or a registered name",
            "posthaste.toml:4: queues.news.destination: is required by processor \"http\": \
             a URL such as https://example.com/hook",
        ]
    );
}

#[test]
fn what_is_wrong_with_the_defaults_is_told_once_and_not_again_for_every_queue() {
    let text = "[queue_defaults]\nretry.jitter = 2\ntimeout = 5\n[queues.mail]\nprocessor = 'log'";
    assert_eq!(
        file(text).problems(),
        [
            "posthaste.toml:2: queue_defaults.retry.jitter: 2 is out of range: 0 to 1",
            "posthaste.toml:3: queue_defaults.timeout: 5 has no unit: write 15s, 500ms, 2m, 1h30m or 7d",
        ]
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_layers_and_lines() {
    let given = Given {
        file: "[workers]\nthreads = 'x'\n[server]\nthreads = 2000\nfoo = 1\ngrace = 1\n[queues.mail]\nttl = 1",
        environment: &[("POSTHASTE__SERVER__LIMITS__TTL_MAX", "never"), ("POSTHASTE__FOO", "1")],
        flags: Flags {
            durability: Some("never".to_owned()),
            set: vec!["nonsense".to_owned(), "a.b=1".to_owned()],
            ..Flags::default()
        },
    };
    let problems = given.problems();
    let beginnings: Vec<_> =
        problems.iter().map(|one| one.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        beginnings,
        [
            "posthaste.toml:2: workers.threads",
            "posthaste.toml:4: server.threads",
            "posthaste.toml:5: server.foo",
            "posthaste.toml:6: server.grace",
            "posthaste.toml:7: queues.mail.processor",
            "posthaste.toml:8: queues.mail.ttl",
            "POSTHASTE__FOO: foo",
            "POSTHASTE__SERVER__LIMITS__TTL_MAX: server.limits.ttl_max",
            "--durability: store.durability",
            "--set: is not section.key=value, like --set server.grace=5s (the value is not shown)",
            "--set a.b: a",
        ]
    );
}

#[test]
fn what_is_set_wrongly_on_the_command_line_is_named_once() {
    for (assignment, expected) in [
        (
            "queue_defaults.limits.length_max=x",
            "--set queue_defaults.limits.length_max: must be a whole number from 1 to 1000000000, not \"x\"",
        ),
        (
            "queue_defaults.dead.when_full=drop",
            "--set queue_defaults.dead.when_full: must be one of park, trim, not \"drop\"",
        ),
        ("server.grace=2h", "--set server.grace: 2h is out of range: 0s to 1h"),
        (
            "queue_defaults.retry={ jitter = 2 }",
            "--set queue_defaults.retry: queue_defaults.retry.jitter: 2 is out of range: 0 to 1",
        ),
        ("server.listn=1", "--set server.listn: no such key, the nearest is server.listen"),
    ] {
        let problems = set(&[assignment]).problems();
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    for (variable, expected) in [
        (
            ("POSTHASTE__SERVER__THREADS", "x"),
            "server.threads: must be a whole number from 0 to 512, not \"x\"",
        ),
        (
            ("POSTHASTE__SERVER__THREADS", ""),
            "server.threads: must be a whole number from 0 to 512, not \"\"",
        ),
        (
            ("POSTHASTE__SERVER__INSECURE_NO_AUTH", "yes"),
            "server.insecure_no_auth: must be true or false, not \"yes\"",
        ),
        (
            ("POSTHASTE__EGRESS__ALLOW", "10.0.0.1"),
            "egress.allow: must be a list, written as TOML: [400, 404], [\"a\", \"b\"] or { a = \"b\" }",
        ),
        (("POSTHASTE__STORE", "x"), "store: must be a table, written as TOML: { key = \"value\" }"),
        (
            ("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS", "x"),
            "queue_defaults.delivery.headers: must be a table, written as TOML: { key = \"value\" }",
        ),
        (
            ("POSTHASTE__QUEUES__mail__RETRY__JITTER", "2"),
            "queues.mail.processor: is required: log, http, pull, or a registered name",
        ),
    ] {
        let problems = environment(&[variable]).problems();
        assert_eq!(problems[0], format!("{}: {expected}", variable.0));
    }
    assert_eq!(
        environment(&[("POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS__A__B", "x")]).problems(),
        ["POSTHASTE__QUEUE_DEFAULTS__DELIVERY__HEADERS__A__B: queue_defaults.delivery.headers.a.b: \
             no such key, the nearest is queue_defaults.delivery.headers; there is nothing below this"]
    );
    assert_eq!(
        environment(&[("POSTHASTE__", "x")]).problems(),
        ["POSTHASTE__: names no key: write POSTHASTE__SECTION__KEY, like POSTHASTE__SERVER__LISTEN"]
    );
    assert_eq!(
        environment(&[("POSTHASTE__SERVER__GRACE", "1s"), ("POSTHASTE__server__grace", "2s")]).problems(),
        ["POSTHASTE__server__grace: server.grace: is set by POSTHASTE__SERVER__GRACE as well"]
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named_without_its_value() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(vec![0xff, b's']);
    let variables = [(std::ffi::OsString::from("POSTHASTE__SERVER__LISTEN"), value)];
    let problems = Settings::load(&[], variables, &Flags::default()).expect_err("must be refused");
    assert_eq!(problems.to_string(), "POSTHASTE__SERVER__LISTEN: server.listen: is not valid UTF-8");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let nothing: [(&str, &str); 0] = [];
    let load =
        |path: &str| Settings::load(&[path.into()], nothing, &Flags::default()).expect_err("must be refused");
    let problems = load("no/such/file.toml");
    assert_eq!(
        problems.to_string(),
        "no/such/file.toml: cannot be read: No such file or directory (os error 2)"
    );
    assert!(load("src").to_string().starts_with("src: cannot be read: "));
    assert_eq!(
        file(&"# long\n".repeat(200_000)).problems(),
        ["posthaste.toml: cannot be read: it is larger than 1MiB"]
    );
}

#[test]
fn a_file_that_is_no_text_is_told_its_line() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"[server]\n# gr\xfcn\n").expect("it is written");
    let nothing: [(&str, &str); 0] = [];
    let refused = Settings::load(&[file.path().into()], nothing, &Flags::default()).expect_err("refused");
    assert_eq!(refused.to_string(), format!("{}:2: is not valid UTF-8", file.path().display()));
}

#[test]
fn a_value_that_cannot_be_read_is_not_missing_besides() {
    let text = "[queues.mail]\nprocessor = 'http'\ndestination = 'https://user:secret@mail.example/'";
    let problems = file(text).problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("posthaste.toml:3: queues.mail.destination: "), "{problems:?}");
}

#[test]
fn a_number_of_the_wrong_kind_is_told_the_range_that_is_held_to() {
    let mut counted = 0;
    for key in super::super::KEYS.iter().filter(|key| !key.starts_with("queue_defaults.")) {
        let of = |value: &str| file(&format!("{key} = {value}")).load().err().unwrap_or_default();
        let Some(told) = of("'many'").into_iter().find_map(|problem| {
            problem.split_once(": must be a whole number from ").map(|(_, range)| range.to_owned())
        }) else {
            continue;
        };
        let told = told.split(", ").next().expect("a range").to_owned();
        let most = told.split_once(" to ").map_or_else(|| panic!("{key}: {told}"), |(_, most)| most);
        let beyond = most.parse::<u64>().expect("a number") + 1;
        let expected = format!("{beyond} is out of range: {told}");
        let refused = of(&beyond.to_string());
        // What its type has no room for is told the same.
        let same = format!("must be a whole number from {told}, not {beyond}");
        let is_told = |problem: &String| problem.ends_with(&expected) || problem.ends_with(&same);
        assert!(refused.iter().any(is_told), "{key}: {refused:?}");
        assert_eq!(of(most).iter().filter(|problem| is_told(problem)).count(), 0, "{key} = {most}");
        counted += 1;
    }
    assert!(counted >= 17, "{counted}");
}

#[test]
fn a_file_that_is_no_toml_is_told_each_line() {
    let given = Given {
        file: "[server]\ngrace = \nlisten = '0.0.0.0:80\n",
        // That `mail` lacks a processor may be the fault of the file, and is not told.
        environment: &[("POSTHASTE__SERVER__THREADS", "x"), ("POSTHASTE__QUEUES__mail__TTL", "1d")],
        ..Given::default()
    };
    let problems = given.problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].starts_with("posthaste.toml:2: is no valid TOML: "), "{problems:#?}");
    assert!(problems[1].starts_with("posthaste.toml:3: is no valid TOML: "), "{problems:#?}");
    assert!(problems[2].starts_with("POSTHASTE__SERVER__THREADS: server.threads: "), "{problems:#?}");
}

#[test]
fn listening_beyond_loopback_without_keys_is_refused() {
    let reach = "can be reached from other machines, and nobody is asked for a key: listen on 127.0.0.1, \
                 or set server.insecure_no_auth = true (--insecure-no-auth) where the network keeps strangers out";
    assert_eq!(
        file("server.listen = '0.0.0.0:80'").problems(),
        [format!("posthaste.toml:1: server.listen: 0.0.0.0:80 {reach}")]
    );
    let flags = Flags { listen: Some("[::]:80".to_owned()), ..Flags::default() };
    assert_eq!(
        Given { flags, ..Given::default() }.problems(),
        [format!("--listen: server.listen: [::]:80 {reach}")]
    );
    file("server.listen = '0.0.0.0:80'\nserver.insecure_no_auth = true").settings();
}

#[test]
fn dev_beyond_loopback_is_refused() {
    let flags = Flags { dev: true, insecure_no_auth: true, ..Flags::default() };
    assert_eq!(
        Given { file: "server.listen = '10.0.0.1:80'", flags, ..Given::default() }.problems(),
        [
            "posthaste.toml:1: server.listen: --dev opens loopback destinations and so needs a loopback address, \
             not 10.0.0.1:80"
        ]
    );
}

#[test]
fn a_store_that_is_not_in_this_version_is_refused_without_its_password() {
    assert_eq!(
        environment(&[("POSTHASTE__STORE__URL", "redis+cluster://user:s3cret@host/0")]).problems(),
        ["POSTHASTE__STORE__URL: store.url: \"redis+cluster://user:***@host/0\" is not in this version: \
             write sqlite:PATH, like sqlite:data/posthaste.db, redis://HOST:PORT, or memory:"]
    );
}

#[test]
fn memory_and_durability_none_belong_together() {
    let flags = Flags { store: Some("memory:".to_owned()), ..Flags::default() };
    assert_eq!(
        Given { flags, ..Given::default() }.problems(),
        ["--store: store.durability: \"strict\" is not possible with memory:, \
             which forgets all when it ends: write none"]
    );
}
