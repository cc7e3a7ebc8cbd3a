//! What docs/OPERATIONS.md says of Redis, taken at its word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, DeadGrouping, Selection};
use posthaste::store::{Deleted, Hold, Scheduled};

use super::{Durability, Duration, RedisServer, Rig, StoreSettings, run, strict};
use crate::conformance::stand::{dead, draft};
use crate::support::command::posthaste;
use crate::support::redis::STRICT;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).expect("the document is there")
}

/// The line of the document that makes the user.
fn acl_line() -> String {
    let text = document("docs/OPERATIONS.md");
    let mut lines = text.lines().filter(|line| line.starts_with("ACL SETUSER posthaste "));
    let line = lines.next().expect("the document has the line");
    assert_eq!(lines.next(), None, "it has it once");
    line.to_owned()
}

/// A server that only the user of the document may use, and the settings of that user.
fn guarded() -> (RedisServer, StoreSettings) {
    let server = RedisServer::start(&[&STRICT[..], &["--maxmemory", "268435456"]].concat());
    server.order(&acl_line().replace("PASSWORD", "secret"));
    let url = format!("{}?user=posthaste&pass=secret", server.url());
    let settings = StoreSettings { url, ..strict(&server) };
    (server, settings)
}

#[test]
fn the_user_of_the_document_may_do_all_that_is_needed() {
    let (mut server, settings) = guarded();
    run(async {
        let rig = Rig::open(&settings).await;
        let health = rig.health().await;
        assert_eq!((health.durability, health.durability_reasons), (Durability::Strict, vec![]));
        for _ in 0..4 {
            rig.publish().await;
        }
        assert_eq!(rig.work(1, Verdict::Ack).await.len(), 1);
        assert_eq!(rig.work(1, Verdict::Retry { delay: Duration::ZERO }).await.len(), 1);
        let died = rig.work(1, dead(posthaste::domain::outcome::DeadReason::Rejected)).await;
        let (connection, queue) = (&rig.connection, || rig.queue.clone());
        connection.sweep().await.expect("sweep");
        connection.find(queue(), died[0]).await.expect("find").expect("it is there");
        connection.list_dead(queue(), DeadFilter::default(), None, 10).await.expect("list");
        connection.dead_groups(queue(), DeadGrouping::Reason).await.expect("groups");
        connection.dead(queue(), died[0]).await.expect("dead").expect("it is there");
        connection.replay(queue(), Selection::Ids(died.clone()), false).await.expect("replay");
        connection.discard(queue(), Selection::Ids(died)).await.expect("discard");
        let leased = rig.lease(1).await;
        connection.extend(leased.batch.clone(), Duration::from_mins(1)).await.expect("extend");
        connection.cancel(queue(), leased.leases[0].record.id()).await.expect("cancel");
        let named = Arc::new([Scheduled { id: leased.leases[0].record.id(), attempts: 0 }]);
        connection.promote(queue(), named).await.expect("promote");
        connection.hold(queue(), Hold::Pause).await.expect("pause");
        connection.hold(queue(), Hold::Resume).await.expect("resume");
        connection.queues().await.expect("queues");
        connection.purge(queue()).await.expect("purge");
        assert_eq!(connection.audit().await.expect("audit"), Vec::<String>::new());
        assert_eq!(connection.delete_queue(queue(), true).await, Ok(Deleted::Deleted));
        let replicated = Rig::open(&StoreSettings { replicas_ack: 1, ..settings.clone() }).await;
        let error = replicated.offer(&[draft()]).await.expect_err("there is no replica");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
        assert_eq!(server.ask(&["ACL", "DRYRUN", "posthaste", "WAIT", "1", "100"]), "+OK\r\n", "it may ask");
        let denied = server.ask(&["ACL", "LOG"]);
        assert_eq!(denied, "*0\r\n", "nothing was denied");
        // It begins from its file, without its users.
        server.kill();
        server.launch();
        server.order(&acl_line().replace("PASSWORD", "secret"));
        Rig::open(&settings).await;
        assert_eq!(server.calls("bgrewriteaof"), 1);
    });
}

/// What is sent beside the scripts.
const SENT: &[&str] = &[
    "bgrewriteaof",
    "config|get",
    "evalsha",
    "evalsha_ro",
    "exec",
    "get",
    "hget",
    "hgetall",
    "hmget",
    "incr",
    "info",
    "multi",
    "ping",
    "renamenx",
    "rpushx",
    "script|load",
    "select",
    "set",
    "subscribe",
    "unsubscribe",
    "wait",
    "zadd",
    "zrange",
];

/// The commands that the scripts call.
fn called() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis/script");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder).expect("the scripts are there") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a script");
        for begin in ["call('", "try('"] {
            let calls = text.split(begin).skip(1).filter_map(|rest| rest.split('\'').next());
            found.extend(calls.map(str::to_lowercase));
        }
    }
    found
}

#[test]
fn the_user_of_the_document_has_no_command_too_few_or_too_many() {
    let line = acl_line();
    let given: BTreeSet<_> =
        line.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    let needed: BTreeSet<_> = called().into_iter().chain(SENT.iter().map(|&name| name.to_owned())).collect();
    assert!(needed.len() > 40, "{needed:?}");
    assert_eq!(given, needed);
}

#[test]
fn the_user_of_the_document_may_do_nothing_else() {
    let (server, _) = guarded();
    let denied = |command: &[&str]| {
        let answer = server.ask(&[&["ACL", "DRYRUN", "posthaste"], command].concat());
        assert!(answer.contains("no permissions"), "{command:?}: {answer}");
    };
    denied(&["FLUSHALL"]);
    denied(&["CONFIG", "SET", "appendfsync", "no"]);
    denied(&["KEYS", "*"]);
    denied(&["DEBUG", "SLEEP", "1"]);
    denied(&["GET", "other:key"]);
    denied(&["PUBLISH", "other", "x"]);
}

#[test]
fn the_example_settings_are_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("redis.toml"), document("config/redis.toml")).expect("the file");
    let checked = posthaste(folder.path(), &["config", "check", "--config", "redis.toml"], &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let printed = posthaste(folder.path(), &["config", "print", "--config", "redis.toml"], &[]);
    assert!(printed.stdout.contains("redis://"), "{printed:?}");
}
