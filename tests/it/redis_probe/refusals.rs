//! What stops a start, what is printed of it, and that the printed cure cures.

use posthaste::store::error::StoreError;

use super::{Durability, RedisServer, Rig, StoreSettings, open, refusal, relaxed, run, strict, until};
use crate::conformance::stand::draft;
use crate::support::command::posthaste;
use crate::support::redis::STRICT;

/// How `redis-cli` is called for that server.
fn client(server: &RedisServer) -> String {
    format!("redis-cli -s {}", server.socket().display())
}

/// Gives every command of a refusal to the server, as an operator would.
fn take_cure(server: &RedisServer, why: &str) {
    let client = client(server);
    let commands = why.lines().filter_map(|line| line.trim().strip_prefix(&client)).map(str::trim);
    for command in commands.filter(|command| *command != "CONFIG REWRITE") {
        server.order(command);
    }
}

#[test]
fn strict_refuses_what_may_lose_an_acknowledged_message_and_the_printed_cure_cures() {
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &["CONFIG SET appendonly yes", "CONFIG SET appendfsync always"]),
        (&["--appendonly", "yes"], &["CONFIG SET appendfsync always"]),
        (&["--appendonly", "yes", "--appendfsync", "no"], &["CONFIG SET appendfsync always"]),
        (
            &["--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "yes"],
            &["CONFIG SET no-appendfsync-on-rewrite no"],
        ),
    ];
    for (options, cures) in cases {
        let server = RedisServer::start(options);
        let why = refusal(&strict(&server));
        for cure in cures {
            let line = format!("{} {cure}", client(&server));
            assert!(why.lines().any(|found| found.trim() == line), "{options:?}: {why}");
        }
        assert_eq!(why.matches(" CONFIG SET ").count(), cures.len(), "nothing else is wrong: {why}");
        assert!(why.contains(" CONFIG REWRITE") && why.contains("--durability relaxed"), "{why}");
        run(async {
            let rig = Rig::open(&relaxed(&server)).await;
            rig.publish().await;
            let health = rig.health().await;
            assert!(matches!(health.durability, Durability::Relaxed | Durability::None), "{health:?}");
            assert_eq!(health.durability_reasons.len(), cures.len(), "{health:?}");
        });
        take_cure(&server, &why);
        run(async {
            let rig = Rig::open(&strict(&server)).await;
            rig.publish().await;
            let health = rig.health().await;
            assert_eq!((health.durability, health.durability_reasons), (Durability::Strict, vec![]));
        });
    }
}

#[test]
fn what_throws_messages_away_is_refused_even_when_relaxed_and_the_printed_cure_cures() {
    let server = RedisServer::start(&[&STRICT[..], &["--maxmemory-policy", "allkeys-lru"]].concat());
    for settings in [strict(&server), relaxed(&server)] {
        let why = refusal(&settings);
        let line = format!("{} CONFIG SET maxmemory-policy noeviction", client(&server));
        assert!(why.lines().any(|found| found.trim() == line), "{why}");
        assert!(!why.contains("--durability relaxed"), "it is no way out: {why}");
    }
    take_cure(&server, &refusal(&strict(&server)));
    open(&strict(&server)).expect("it is fit");
}

#[test]
fn a_replica_is_refused_and_names_its_master() {
    let (_master, port) = RedisServer::start_on_port(&STRICT);
    let replica = RedisServer::start(&[&STRICT[..], &["--replicaof", "127.0.0.1", &port]].concat());
    let why = refusal(&relaxed(&replica));
    assert!(why.contains(&format!("name 127.0.0.1:{port} in store.url")), "{why}");
    assert!(why.contains(&format!("{} REPLICAOF NO ONE", client(&replica))), "{why}");
    replica.order("REPLICAOF NO ONE");
    open(&relaxed(&replica)).expect("it is the master now");
}

#[test]
fn a_node_of_a_cluster_is_refused() {
    let server = RedisServer::start(&[&STRICT[..], &["--cluster-enabled", "yes"]].concat());
    assert!(refusal(&relaxed(&server)).contains("node of a cluster"));
}

#[test]
fn a_newer_format_and_a_strangers_key_are_refused() {
    let server = RedisServer::start(&STRICT);
    for (epoch, expected) in [("2:abc", "are of format 2"), ("hello", "something of somebody else")] {
        server.order(&format!("SET ph:epoch {epoch}"));
        let why = refusal(&strict(&server));
        assert!(why.contains(expected) && why.contains("store.prefix"), "{why}");
        let own = StoreSettings { prefix: "own".to_owned(), ..strict(&server) };
        open(&own).expect("another prefix is another store");
    }
}

#[test]
fn what_config_hides_must_be_vouched_for() {
    let renamed = RedisServer::start(&[&STRICT[..], &["--rename-command", "CONFIG", ""]].concat());
    let forbidden = RedisServer::start(&STRICT);
    forbidden.order("ACL SETUSER default -config");
    let blind = RedisServer::start(&STRICT);
    blind.order("ACL SETUSER default -config -info");
    for (server, hidden) in [(renamed, "CONFIG GET"), (forbidden, "CONFIG GET"), (blind, "INFO")] {
        let why = refusal(&strict(&server));
        assert!(why.contains(hidden) && why.contains("store.durability_assume = true"), "{why}");
        assert!(why.contains("--durability relaxed"), "{why}");
        run(async {
            let vouched = StoreSettings { durability_assume: true, ..strict(&server) };
            let rig = Rig::open(&vouched).await;
            rig.publish().await;
            assert_eq!(rig.health().await.durability, Durability::Assumed);
            let rig = Rig::open(&relaxed(&server)).await;
            rig.publish().await;
            assert_eq!(rig.health().await.durability, Durability::Relaxed);
        });
    }
}

#[test]
fn nothing_is_vouched_for_that_is_seen_to_be_otherwise() {
    let server = RedisServer::start(&["--rename-command", "CONFIG", ""]);
    let vouched = StoreSettings { durability_assume: true, ..strict(&server) };
    assert!(refusal(&vouched).contains(" CONFIG SET appendonly yes"));
}

#[test]
fn a_redis_that_is_not_there_is_no_reason_to_stop() {
    let mut server = RedisServer::start(&STRICT);
    let settings = strict(&server);
    server.kill();
    run(async {
        let store = open(&settings).expect("it may come");
        let connection = store.connect();
        assert!(matches!(connection.health().await, Err(StoreError::Unavailable(_))));
        server.launch();
        let rig = Rig::open(&settings).await;
        let rig = Rig { connection, ..rig };
        rig.offer_when_connected().await.expect("it is there, and fit");
    });
}

#[test]
fn one_that_comes_unfit_takes_no_publishes() {
    let mut server = RedisServer::start(&STRICT);
    let settings = strict(&server);
    run(async {
        let rig = Rig::open(&settings).await;
        rig.publish().await;
        server.kill();
        let opened = open(&settings).expect("it may come");
        server.spawn(&["--appendfsync", "everysec"]);
        let rig = Rig { connection: opened.connect(), ..rig };
        let why = super::not_durable(rig.offer_when_connected().await);
        assert!(why.contains("appendfsync is everysec"), "{why}");
    });
}

#[test]
fn who_may_not_come_in_is_told_so_without_the_password() {
    let server = RedisServer::start(&STRICT);
    server.order("CONFIG SET requirepass hunter2");
    assert!(refusal(&strict(&server)).contains("wants a password"));
    let url = format!("{}?pass=hunter3", server.url());
    let why = refusal(&StoreSettings { url, ..strict(&server) });
    assert!(why.contains("does not know that user or password") && !why.contains("hunter3"), "{why}");
    let url = format!("{}?pass=hunter2", server.url());
    open(&StoreSettings { url, ..strict(&server) }).expect("it may come in");
}

#[test]
fn the_start_waits_for_a_redis_that_is_loading() {
    let mut server = RedisServer::start(&["--appendonly", "no"]);
    run(async {
        let settings = relaxed(&server);
        let before = Rig::open(&settings).await;
        for _ in 0..20 {
            before.offer(&vec![draft(); 100]).await.expect("it is accepted");
        }
        // Keys that are read slowly: messages of one list are one key.
        server.ask(&[
            "EVAL",
            "for i = 1, 1500 do redis.call('SET', 'k' .. i, string.rep('x', 200)) end",
            "0",
        ]);
        server.order("SAVE");
        server.kill();
        server.spawn(&["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]);
        until("it is loading", async || match before.connection.health().await {
            Err(StoreError::Unavailable(why)) => why.contains("loading").then_some(()),
            other => panic!("it loaded unseen: {other:?}"),
        })
        .await;
        assert!(matches!(before.offer(&[draft()]).await, Err(StoreError::Unavailable(_))));
        let after = Rig::open(&settings).await;
        assert_eq!(after.health().await.durability_reasons.len(), 2, "it was seen");
        assert_eq!(after.stats().await.gauges.pending, 2_000);
        before.offer_when_connected().await.expect("it is accepted again");
    });
}

#[test]
fn the_command_ends_with_78_and_prints_the_cure() {
    let server = RedisServer::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let url = server.url();
    let ended = posthaste(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", &url], &[]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for line in [" CONFIG SET appendonly yes", " CONFIG SET appendfsync always", "--durability relaxed"] {
        assert!(ended.stderr.contains(line), "{}", ended.stderr);
    }
}
