//! The list of queues: entries that cannot be read, changes that were interrupted, changes that come at once.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::queue::QueueName;
use posthaste::store::error::StoreError;
use posthaste::store::{Deleted, Put, QueueEntry, QueueRef};

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{START, Stand, plain_settings};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, STRICT};

const LIST: &[u8] = b"ph:queues";

fn name(text: &str) -> QueueName {
    text.parse().expect("a name")
}

fn entry(server: &RedisServer, queue: &str) -> Option<String> {
    ask(server, &[b"HGET", LIST, queue.as_bytes()])
}

/// Writes an entry as another gateway would, and tells of it.
fn set_entry(server: &RedisServer, field: &[u8], value: &str) {
    ask::<i64>(server, &[b"HSET", LIST, field, value.as_bytes()]);
    ask::<i64>(server, &[b"INCR", b"ph:changes"]);
    ask::<i64>(server, &[b"PUBLISH", b"ph:wake", b"*"]);
}

async fn put(stand: &Stand, queue: &str) -> QueueEntry {
    match stand.connection.put_queue(name(queue), Arc::new(plain_settings())).await {
        Ok(Put::Created(entry) | Put::Updated(entry)) => entry,
        other => panic!("{other:?}"),
    }
}

async fn listed(stand: &Stand) -> Vec<QueueRef> {
    let entries = stand.connection.queues().await.expect("the queues are listed");
    entries.iter().map(QueueEntry::queue_ref).collect()
}

/// What a later version may have written into the entry of a queue.
fn later(sound: &str) -> String {
    let changed = sound.replacen("\"settings\":{", "\"settings\":{\"brand_new\":1,", 1);
    assert_ne!(changed, sound);
    changed
}

#[test]
fn an_entry_that_cannot_be_read_takes_only_its_own_queue_out_and_is_never_touched() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let good = stand.queue("good").await;
        let sound = entry(&server, "good").expect("it is there");
        let with_more = format!("{},\"brand_new\":1}}", &sound[..sound.len() - 1]);
        let bad = [
            ("later", later(&sound)),
            ("more", with_more),
            ("junk", "junk".to_owned()),
            ("empty", String::new()),
        ];
        for (queue, value) in &bad {
            set_entry(&server, queue.as_bytes(), value);
            ask::<i64>(&server, &[b"ZADD", b"ph:{0}:due", b"0", queue.as_bytes()]);
        }
        set_entry(&server, b"bad name!", "{}");
        set_entry(&server, &[0xFF, 0xFE], "{}");
        for stand in [&stand, &stand_at(server.url(), &Clock::manual(START))] {
            assert_eq!(listed(stand).await, std::slice::from_ref(&good));
            let published = stand.publish_plain(&good, 1).await;
            assert!(stand.sweep().await.ready.contains(&good.name));
            assert_eq!(stand.drain(&good).await, published);
            let health = stand.connection.health().await.expect("it answers");
            let told: Vec<_> =
                health.warnings.iter().filter(|warning| warning.code == "queue_unreadable").collect();
            assert_eq!(told.len(), bad.len() + 2, "{told:?}");
            assert!(
                told.iter().any(|warning| warning.detail.contains("unknown field `brand_new`")),
                "{told:?}"
            );
            assert!(told.iter().all(|warning| warning.detail.contains("ph:queues")), "{told:?}");
            for (queue, _) in &bad {
                assert!(matches!(stand.connection.unserved(queue), Some(StoreError::Newer(_))), "{queue}");
                let put = stand.connection.put_queue(name(queue), Arc::new(plain_settings())).await;
                assert!(matches!(put, Err(StoreError::Newer(_))), "{queue}: {put:?}");
                let queue = QueueRef { name: name(queue), ..good.clone() };
                let deleted = stand.connection.delete_queue(queue, true).await;
                assert!(matches!(deleted, Err(StoreError::Newer(_))), "{deleted:?}");
            }
            assert_eq!(stand.connection.unserved("good"), None);
            let queues =
                vec![(name("junk"), Arc::new(plain_settings())), (name("good"), Arc::new(plain_settings()))];
            let (all, _) = stand.connection.declare(queues).await.expect("the others are declared");
            assert_eq!(all.len(), 1);
        }
        for (queue, value) in &bad {
            assert_eq!(entry(&server, queue).as_ref(), Some(value));
            let score: Option<String> = ask(&server, &[b"ZSCORE", b"ph:{0}:due", queue.as_bytes()]);
            assert!(score.is_some(), "{queue}: its work is still known to those who can read it");
        }
        ask::<i64>(
            &server,
            &[b"HDEL", LIST, b"later", b"more", b"junk", b"empty", b"bad name!", &[0xFF, 0xFE]],
        );
        ask::<i64>(&server, &[b"INCR", b"ph:changes"]);
        listed(&stand).await;
        assert_eq!(stand.connection.unserved("junk"), None);
        put(&stand, "junk").await;
    });
}

#[test]
fn a_gateway_goes_on_beside_a_queue_that_a_later_version_made() {
    let server = RedisServer::start(&STRICT);
    let mut gateway = Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &[]).over(&server);
    gateway.launch_until_ready();
    let sound = entry(&server, "orders").expect("it is there");
    set_entry(&server, b"other", &later(&sound));
    set_entry(&server, b"bad name!", "{}");
    let refused = gateway.request("POST", "/v1/queues/other/messages", &[], b"x");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    assert!(
        refused.text().contains("brand_new") && !refused.text().contains("expected"),
        "{}",
        refused.text()
    );
    let json = [("Content-Type", "application/json")];
    for (method, headers, body) in [("GET", &[][..], ""), ("PUT", &json[..], r#"{"processor":"log"}"#)] {
        let refused = gateway.request(method, "/v1/queues/other", headers, body.as_bytes());
        assert_eq!(refused.status, 503, "{method}: {}", refused.text());
    }
    for round in 0..2 {
        gateway.publish("orders", &[], b"x");
        gateway.wait_for("it is warned of", super::TEST_MAX, |gateway| {
            let status = gateway.status();
            let names: Vec<_> =
                status["queues"].as_array().into_iter().flatten().map(|queue| &queue["name"]).collect();
            assert_eq!(names, ["default", "orders"], "{status}");
            let warnings = status["store"]["warnings"].as_array().expect("warnings").clone();
            let told = warnings.iter().filter(|warning| warning["code"] == "queue_unreadable").count();
            (told == 2).then_some(())
        });
        assert_eq!(gateway.request("GET", "/ready", &[], b"").status, 200);
        let log = gateway.log();
        assert_eq!(log.matches("a queue is not served").count(), 2, "{log}");
        if round == 0 {
            gateway.restart();
        }
    }
    gateway.stop();
}

#[test]
fn a_deletion_that_was_interrupted_is_finished_by_the_next() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        // Its gateway died between the two steps.
        ask::<i64>(&server, &[b"DEL", key("orders", "c").as_bytes()]);
        assert_eq!(stand.connection.delete_queue(queue.clone(), false).await, Ok(Deleted::Deleted));
        assert_eq!(stand.connection.delete_queue(queue, false).await, Err(StoreError::Gone));
        assert_eq!((listed(&stand).await, entry(&server, "orders")), (vec![], None));
        assert_eq!(super::lasting_keys(&server), ["ph:changes", "ph:epoch"]);
    });
}

#[test]
fn a_queue_whose_deletion_was_interrupted_is_made_anew_by_a_put() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        stand.drain(&queue).await;
        stand.stats(&queue).await;
        ask::<i64>(&server, &[b"DEL", key("orders", "c").as_bytes()]);
        let made = put(&stand, "orders").await.queue_ref();
        assert_ne!(made.generation, queue.generation, "counters that begin anew are those of another queue");
        stand.publish_plain(&made, 1).await;
        let health = stand.connection.health().await.expect("it answers");
        assert!(health.warnings.iter().all(|warning| warning.code != "accepted_fell"), "{health:?}");
    });
}

#[test]
fn one_of_two_puts_at_once_makes_the_queue_and_both_mean_the_same() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stands =
            [stand_at(server.url(), &Clock::manual(START)), stand_at(server.url(), &Clock::manual(START))];
        for round in 0..200 {
            let both = stands.each_ref().map(|stand| {
                let later = async move {
                    // Each round one of them comes at another moment.
                    for _ in 0..round % 7 {
                        tokio::task::yield_now().await;
                    }
                    stand.connection.put_queue(name("orders"), Arc::new(plain_settings())).await
                };
                Box::pin(later)
            });
            let [one, other] = both;
            let (one, other) = futures_util::future::join(one, other).await;
            let made = [&one, &other].into_iter().filter(|put| matches!(put, Ok(Put::Created(_)))).count();
            assert_eq!(made, 1, "round {round}: {one:?} {other:?}");
            let queues = [one, other].map(|put| match put {
                Ok(Put::Created(entry) | Put::Updated(entry)) => entry.queue_ref(),
                other => panic!("{other:?}"),
            });
            assert_eq!(queues[0], queues[1], "round {round}");
            assert_eq!(listed(&stands[0]).await, [queues[0].clone()]);
            stands[0].publish_plain(&queues[1], 1).await;
            let deleted = stands[round % 2].connection.delete_queue(queues[0].clone(), true).await;
            assert_eq!(deleted, Ok(Deleted::Deleted));
        }
    });
}

#[test]
fn messages_outlive_a_generation_that_was_overwritten() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        let hash = key("orders", "c");
        ask::<i64>(&server, &[b"HSET", hash.as_bytes(), b"gen", b"junk"]);
        let refused = stand.connection.put_queue(name("orders"), Arc::new(plain_settings())).await;
        assert!(matches!(&refused, Err(StoreError::Foreign(why)) if why.contains("gen")), "{refused:?}");
        let declared = stand.connection.declare(vec![(name("orders"), Arc::new(plain_settings()))]).await;
        assert!(declared.is_ok(), "a start leaves it as it is: {declared:?}");
        ask::<i64>(&server, &[b"HSET", hash.as_bytes(), b"gen", b"12345"]);
        let again = put(&stand, "orders").await.queue_ref();
        assert_eq!(again.generation.0, 12_345, "it goes on as what it is now");
        assert_eq!(stand.stats(&again).await.gauges.pending, 3);
    });
}

#[test]
fn a_put_and_a_deletion_at_once_leave_all_of_a_queue_or_nothing() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stands =
            [stand_at(server.url(), &Clock::manual(START)), stand_at(server.url(), &Clock::manual(START))];
        for round in 0..300 {
            let queue = put(&stands[0], "orders").await.queue_ref();
            let (put, deleted) = futures_util::future::join(put(&stands[round % 2], "orders"), async {
                // Each round it comes at another moment.
                for _ in 0..round % 7 {
                    ask::<String>(&server, &[b"PING"]);
                    tokio::task::yield_now().await;
                }
                stands[(round + 1) % 2].connection.delete_queue(queue.clone(), true).await
            })
            .await;
            assert!(matches!(deleted, Ok(Deleted::Deleted) | Err(StoreError::Gone)), "{deleted:?}");
            let kept = entry(&server, "orders");
            let generation: Option<String> = ask(&server, &[b"HGET", key("orders", "c").as_bytes(), b"gen"]);
            assert_eq!(
                kept.is_some(),
                generation.is_some(),
                "round {round}: {kept:?} {generation:?} {put:?}"
            );
            if let (Some(kept), Some(generation)) = (kept, generation) {
                assert!(kept.contains(&generation), "round {round}: {kept} {generation}");
                assert_ne!(generation, queue.generation.0.to_string(), "round {round}: it was deleted");
            }
        }
    });
}

#[test]
fn a_redis_that_others_emptied_and_filled_changes_no_list_before_a_restart() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        assert_eq!(listed(&stand).await, std::slice::from_ref(&queue));
        let changes: String = ask(&server, &[b"GET", b"ph:changes"]);
        server.order("FLUSHALL");
        let other = stand_at(server.url(), &Clock::manual(START));
        let made = other.queue("orders").await;
        // Whatever it counts: the same number of changes, or another.
        for changes in [changes.as_str(), "77"] {
            ask::<String>(&server, &[b"SET", b"ph:changes", changes.as_bytes()]);
            assert_eq!(listed(&stand).await, std::slice::from_ref(&queue));
            stand.connection.health().await.expect("it answers");
            assert_eq!(listed(&stand).await, std::slice::from_ref(&queue));
        }
        let adopted = stand_at(server.url(), &Clock::manual(START));
        assert_eq!(listed(&adopted).await, [made]);
    });
}
