//! Who is let in: users with too few rights, URLs that say more than is understood, what the log and `/status` say of it.

use std::fs;
use std::path::Path;

use posthaste::store::error::StoreError;

use super::{RedisServer, Rig, StoreSettings, WITHIN, open, refusal, relaxed, run, strict, until};
use crate::conformance::stand::draft;
use crate::support::command::posthaste;
use crate::support::gateway::Gateway;
use crate::support::redis::STRICT;

/// A server with the user of the document, without the words that are taken away.
fn guarded(without: &[&str]) -> (RedisServer, StoreSettings) {
    let server = RedisServer::start(&STRICT);
    let settings =
        StoreSettings { url: format!("{}?user=posthaste&pass=secret", server.url()), ..strict(&server) };
    grant(&server, without);
    (server, settings)
}

fn grant(server: &RedisServer, without: &[&str]) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md"));
    let text = text.expect("the document is there");
    let line = text.lines().find(|line| line.starts_with("ACL SETUSER posthaste ")).expect("it has the line");
    let words = line.split(' ').filter(|word| !without.contains(word));
    server.order(&words.collect::<Vec<_>>().join(" ").replace("PASSWORD", "secret"));
}

fn words() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md"));
    let text = text.expect("the document is there");
    let line = text.lines().find(|line| line.starts_with("ACL SETUSER posthaste ")).expect("it has the line");
    line.split(' ').filter(|word| word.starts_with('+')).map(str::to_owned).collect()
}

#[test]
fn each_right_that_is_missing_stops_the_start_and_is_named() {
    // Without these all goes on, and it is said on /status; or they are asked for where they are needed.
    let spared = [
        "+bgrewriteaof",
        "+config|get",
        "+info",
        "+subscribe",
        "+unsubscribe",
        "+wait",
        "+select",
        "+script|load",
    ];
    let (server, settings) = guarded(&[]);
    open(&settings).expect("the user of the document may come in");
    for word in words().iter().filter(|word| !spared.contains(&word.as_str())) {
        grant(&server, &[word]);
        let why = refusal(&settings);
        assert!(why.contains(word.trim_start_matches('+')), "{word}: {why}");
        assert!(why.contains("docs/OPERATIONS.md") && why.contains("ACL SETUSER"), "{word}: {why}");
        assert!(!why.contains("secret"), "{why}");
    }
    grant(&server, &["+script|load"]);
    server.order("SCRIPT FLUSH");
    assert!(refusal(&settings).contains("script|load"));
    grant(&server, &["~ph:*"]);
    assert!(refusal(&settings).contains("~ph:*"));
    grant(&server, &["&ph:wake"]);
    assert!(refusal(&settings).contains("+publish"));
    grant(&server, &[]);
    let why = refusal(&StoreSettings { prefix: "other".to_owned(), ..settings });
    assert!(why.contains("~other:* &other:wake"), "{why}");
}

#[test]
fn a_right_that_is_taken_away_while_it_runs_is_said_once() {
    let (server, settings) = guarded(&[]);
    let mut gateway =
        Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &[]).wrapped(vec![], &settings.url);
    gateway.launch_until_ready();
    server.order("ACL SETUSER posthaste -hget -hgetall -hmget -zadd");
    let refused = gateway.wait_for("it is refused", WITHIN, |gateway| {
        Some(gateway.request("POST", "/v1/queues/orders/messages", &[], b"x"))
            .filter(|answer| answer.status == 503)
    });
    assert!(
        refused.text().contains("ACL SETUSER") || refused.text().contains("did not confirm"),
        "{}",
        refused.text()
    );
    let said = |gateway: &Gateway| gateway.log().matches("its user has too few rights").count();
    gateway.wait_for("it is said", WITHIN, |gateway| (said(gateway) > 0).then_some(()));
    let before = server.info("total_error_replies");
    gateway.wait_for("it was refused often", WITHIN, |_| {
        (server.info("total_error_replies") > before + 20).then_some(())
    });
    assert!(said(&gateway) <= 6, "{}", gateway.log());
    assert!(!gateway.log().contains("somebody else's keys"), "{}", gateway.log());
}

#[test]
fn a_user_who_may_not_listen_is_warned_once_and_knocks_ever_more_seldom() {
    let (server, settings) = guarded(&["+subscribe"]);
    let mut gateway =
        Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &[]).wrapped(vec![], &settings.url);
    gateway.launch_until_ready();
    gateway.publish("orders", &[], b"x");
    gateway.wait_for("it is warned of", WITHIN, |gateway| {
        let status = gateway.status();
        let warnings = status["store"]["warnings"].as_array()?.clone();
        warnings.iter().any(|warning| warning["code"] == "wakes_unheard").then_some(())
    });
    let log = gateway.log();
    assert_eq!(log.matches("nothing is heard of other gateways").count(), 1, "{log}");
    grant(&server, &[]);
    gateway.wait_for("it is heard", WITHIN, |gateway| {
        let status = gateway.status();
        let warnings = status["store"]["warnings"].as_array()?.clone();
        (!warnings.iter().any(|warning| warning["code"] == "wakes_unheard")).then_some(())
    });
    assert_eq!(gateway.log().matches("nothing is heard of other gateways").count(), 1);
    gateway.stop();
}

#[test]
fn a_url_that_says_more_than_is_understood_ends_with_78_and_shows_no_password() {
    let folder = tempfile::tempdir().expect("a folder");
    for (url, said) in [
        ("redis://127.0.0.1:17301/0?db=3&pass=hunter2", "takes no parameters"),
        ("rediss://host/#insecure", "nothing may follow"),
        ("redis://host/-1", "0 or more"),
        ("redis://:hunter2#x@host", "%23"),
        ("redis+unix:///s?pass=hunter2&pass=hunter2", "pass twice"),
        ("redis+unix:///s?foo=hunter2", "db, user and pass"),
        ("redis://u:hunter2/0", "redis://HOST:PORT"),
    ] {
        for command in [&["config", "check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
            let ended = posthaste(folder.path(), &[command, &["--store", url]].concat(), &[]);
            assert_eq!(ended.code, Some(78), "{url}: {ended:?}");
            assert!(ended.stderr.contains(said), "{url}: {ended:?}");
            assert!(
                !ended.stderr.contains("hunter2") && !ended.stdout.contains("hunter2"),
                "{url}: {ended:?}"
            );
        }
    }
}

#[test]
fn a_sudden_password_is_named_whatever_command_met_it() {
    let server = RedisServer::start(&STRICT);
    run(async {
        let with_database = StoreSettings { url: format!("{}?db=8", server.url()), ..strict(&server) };
        let rig = Rig::open(&with_database).await;
        rig.publish().await;
        server.order("CONFIG SET requirepass hunter2");
        server.hang_up_as("hunter2");
        for settings in [&with_database, &strict(&server)] {
            assert!(refusal(settings).contains("wants a password: write redis://USER:PASSWORD@HOST:PORT"));
        }
        until("it is said while running as well", async || match rig.offer(&[draft()]).await {
            Err(StoreError::Unavailable(why)) if why.contains("wants a password") => Some(()),
            _ => None,
        })
        .await;
    });
}

#[test]
fn what_info_hides_is_not_shed_and_warned_of() {
    let server = RedisServer::start(&STRICT);
    server.order("ACL SETUSER default -info");
    run(async {
        let vouched = StoreSettings { durability_assume: true, bytes_max: Some(1 << 20), ..strict(&server) };
        let rig = Rig::open(&vouched).await;
        rig.publish().await;
        let warnings = rig.warnings().await;
        for code in ["memory_unseen", "server_unseen"] {
            assert!(warnings.contains(&code), "{code} is not among {warnings:?}");
        }
    });
}

#[test]
fn a_start_that_is_refused_says_so_once() {
    let server = RedisServer::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--store", &server.url()];
    let ended = posthaste(folder.path(), &arguments, &[]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(!ended.stderr.contains("delivering goes on"), "{}", ended.stderr);
    for line in ["SET appendonly yes", "SET appendfsync always", "REWRITE"] {
        let call = format!("redis-cli -s {} CONFIG {line}", server.socket().display());
        assert!(ended.stderr.contains(&call), "{}", ended.stderr);
    }
}

#[test]
fn a_redis_that_takes_no_tls_where_it_is_expected_is_said_to() {
    let (_server, port) = RedisServer::start_on_port(&STRICT);
    run(async {
        let url = format!("rediss://127.0.0.1:{port}");
        let store = open(&StoreSettings { url, ..StoreSettings::default() }).expect("it may come");
        let error = store.connect().health().await.expect_err("it cannot be reached");
        assert!(error.to_string().contains("write redis:// in store.url"), "{error}");
    });
}

#[test]
fn a_relaxed_start_says_what_cures_and_the_port_of_that_redis() {
    let (server, port) = RedisServer::start_on_port(&STRICT);
    server.order("CONFIG SET maxmemory-policy allkeys-lru");
    let settings = StoreSettings { url: format!("redis://127.0.0.1:{port}/3"), ..relaxed(&server) };
    let why = refusal(&settings);
    for order in ["SET maxmemory-policy noeviction", "REWRITE"] {
        let line = format!("redis-cli -h 127.0.0.1 -p {port} CONFIG {order}");
        assert!(why.lines().any(|found| found.trim() == line), "{why}");
    }
}
