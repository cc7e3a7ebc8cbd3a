//! Few messages each into many queues at once, which one script stores: each queue is as it would be alone.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::store::QueueRef;
use posthaste::store::enqueue::{CallId, Group, GroupResult};
use posthaste::store::error::StoreError;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{START, Stand, draft};
use crate::support::redis::RedisServer;

/// More queues than one call of the script takes.
const QUEUES: usize = 150;

async fn queues(stand: &Stand, count: usize) -> Vec<QueueRef> {
    let mut queues = Vec::new();
    for number in 0..count {
        queues.push(stand.queue(&format!("queue-{number}")).await);
    }
    queues
}

fn to_each(stand: &Stand, queues: &[QueueRef]) -> Vec<Group> {
    queues.iter().map(|queue| stand.group(queue, &[draft()])).collect()
}

#[test]
fn what_goes_into_many_queues_takes_a_call_for_many_of_them_and_is_found_in_each() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queues = queues(&stand, QUEUES).await;
        // Those scripts are loaded by now.
        stand.enqueue(to_each(&stand, &queues[..2])).await;
        let before = server.calls("evalsha");
        let groups = to_each(&stand, &queues);
        let published: Vec<_> = groups.iter().map(|group| group.messages[0].id).collect();
        assert_eq!(stand.enqueue(groups).await, vec![GroupResult::Accepted; QUEUES]);
        assert_eq!(server.calls("evalsha") - before, 3);
        for (place, (queue, id)) in queues.iter().zip(published).enumerate() {
            assert!(stand.find(queue, id).await.is_some());
            assert_eq!(stand.drain(queue).await.last(), Some(&id));
            let accepted = stand.stats(queue).await.counters.accepted;
            assert_eq!(accepted, if place < 2 { 2 } else { 1 });
        }
        stand.check().await;
    });
}

#[test]
fn each_queue_of_them_is_answered_for_its_own() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let mut queues = queues(&stand, 6).await;
        queues[1] = stand.queue_with("full", |settings| settings.limits.length_max = 1).await;
        stand.publish_plain(&queues[1], 1).await;
        stand.connection.delete_queue(queues[2].clone(), true).await.expect("it is deleted");
        let name = queues[3].name.as_str().to_owned();
        ask::<i64>(&server, &[b"HSET", key(&name, "p1").as_bytes(), b"somebody", b"else"]);
        let results = stand.enqueue(to_each(&stand, &queues)).await;
        let too_many = GroupResult::QueueFull { setting: "limits.length_max", limit: 1 };
        for place in [0, 4, 5] {
            assert_eq!(results[place], GroupResult::Accepted);
            assert_eq!(stand.stats(&queues[place]).await.gauges.pending, 1);
        }
        assert_eq!(results[1..3], [too_many, GroupResult::Gone]);
        let foreign =
            matches!(&results[3], GroupResult::Failed(StoreError::Foreign(words)) if words.contains("p1"));
        assert!(foreign, "{:?}", results[3]);
        ask::<i64>(&server, &[b"DEL", key(&name, "p1").as_bytes()]);
        stand.check().await;
    });
}

#[test]
fn sent_again_and_after_redis_forgot_its_scripts_they_are_stored_once() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let other = stand_at(server.url(), &Clock::manual(START));
        let queues = queues(&stand, QUEUES).await;
        for _ in 0..2 {
            ask::<String>(&server, &[b"SCRIPT", b"FLUSH"]);
            let (call, groups) = (CallId::random(), Arc::new(to_each(&stand, &queues)));
            // For the other connection it is the first sending as well.
            for connection in [&stand.connection, &stand.connection, &other.connection] {
                let answer = connection.enqueue(call, Arc::clone(&groups)).await;
                assert_eq!(answer, Ok(vec![GroupResult::Accepted; QUEUES]));
            }
        }
        for queue in &queues {
            assert_eq!(stand.stats(queue).await.gauges.pending, 2);
        }
        stand.check().await;
    });
}
