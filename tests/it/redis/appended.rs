//! Many messages without options at once, which Redis appends by itself: nothing is appended where its script did not count it.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::message::Priority;
use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::error::StoreError;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, draft, ids, refusal};
use crate::support::redis::RedisServer;

/// Enough for it.
const MANY: usize = 30;

/// Whether a list has the name of a call still.
fn is_left(server: &RedisServer) -> bool {
    !ask::<Vec<String>>(server, &[b"KEYS", key("orders", "e:*:w").as_bytes()]).is_empty()
}

#[test]
fn many_messages_are_appended_by_redis_and_lie_there_like_all_others() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let mut published = stand.publish_plain(&queue, 1).await;
        assert_eq!(server.calls("rpushx"), 0);
        published.extend(stand.publish_plain(&queue, 5_000).await);
        let singles: Vec<_> = (0..MANY).map(|_| stand.group(&queue, &[draft()])).collect();
        published.extend(singles.iter().map(|group| group.messages[0].id));
        assert_eq!(stand.enqueue(singles).await, vec![GroupResult::Accepted; MANY]);
        assert_eq!((server.calls("rpushx"), is_left(&server)), (2, false));
        let batches: Vec<_> = [1, 300, 1].map(|count| stand.group(&queue, &vec![draft(); count])).into();
        published.extend(batches.iter().flat_map(|group| group.messages.iter().map(|message| message.id)));
        assert_eq!(stand.enqueue(batches).await, vec![GroupResult::Accepted; 3]);
        assert_eq!(server.calls("rpushx"), 3);
        let low = Draft { priority: Priority::Low, ..draft() };
        let low = stand.publish(&queue, &vec![low; MANY]).await;
        assert_eq!(server.calls("rpushx"), 4);
        let stats = stand.stats(&queue).await;
        let all = (published.len() + low.len()) as u64;
        assert_eq!((stats.counters.accepted, stats.gauges.pending), (all, all));
        for id in [published[0], published[1], published[2_500], published[5_000], low[MANY - 1]] {
            assert!(stand.find(&queue, id).await.is_some());
        }
        stand.check().await;
        let mut leased = Vec::new();
        for _ in 0..6 {
            leased.extend(ids(&stand.lease(&queue, 1_000).await));
        }
        // The wheel of the priorities mixes those two.
        let (fresh, lowest): (Vec<_>, Vec<_>) = leased.into_iter().partition(|id| !low.contains(id));
        assert_eq!((fresh, lowest), (published, low));
        stand.check().await;
    });
}

#[test]
fn in_one_call_each_queue_is_answered_for_its_own() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let many = stand.queue("orders").await;
        let few = stand.queue("few").await;
        let full = stand.queue_with("full", |settings| settings.limits.length_max = 10).await;
        let gone = stand.queue("gone").await;
        stand.connection.delete_queue(gone.clone(), true).await.expect("it is deleted");
        let group = |queue, count| stand.group(queue, &vec![draft(); count]);
        let groups =
            vec![group(&full, MANY), group(&few, 2), group(&many, MANY), group(&gone, MANY), group(&few, 1)];
        let too_many = GroupResult::QueueFull { setting: "limits.length_max", limit: 10 };
        let accepted = GroupResult::Accepted;
        let expected = [too_many, accepted.clone(), accepted.clone(), GroupResult::Gone, accepted];
        assert_eq!(stand.enqueue(groups).await, expected);
        for (queue, count) in [(&many, MANY), (&few, 3), (&full, 0)] {
            assert_eq!(stand.stats(queue).await.gauges.pending, count as u64);
        }
        stand.check().await;
    });
}

#[test]
fn who_waits_is_told_of_them() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let told = server.calls("publish");
        stand.publish_plain(&queue, MANY).await;
        assert_eq!(server.calls("publish"), told + 1);
        stand.publish_plain(&queue, MANY).await;
        assert_eq!(server.calls("publish"), told + 1, "some wait already");
    });
}

#[test]
fn scripts_that_redis_forgot_leave_nothing_appended_that_was_not_counted() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for already in [0, 1] {
            stand.publish_plain(&queue, already).await;
            ask::<String>(&server, &[b"SCRIPT", b"FLUSH"]);
            let published = stand.publish_plain(&queue, MANY).await;
            assert!(!is_left(&server));
            stand.check().await;
            assert_eq!(stand.drain(&queue).await[already..], published);
        }
        assert!(server.calls("rpushx") > 0);
    });
}

#[test]
fn what_has_no_room_is_refused_whole_or_one_by_one() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 40).await;
        stand.publish_plain(&queue, MANY).await;
        let full = GroupResult::QueueFull { setting: "limits.length_max", limit: 40 };
        assert_eq!(stand.offer(stand.group(&queue, &vec![draft(); MANY])).await, full);
        assert_eq!(stand.stats(&queue).await.gauges.pending, 30);
        let singles = (0..MANY).map(|_| stand.group(&queue, &[draft()])).collect();
        let results = stand.enqueue(singles).await;
        assert_eq!(results[..10], vec![GroupResult::Accepted; 10]);
        assert_eq!(results[10..], vec![full; MANY - 10]);
        assert_eq!((stand.stats(&queue).await.gauges.pending, is_left(&server)), (40, false));
        stand.check().await;
    });
}

/// Publishes many while something is not as it should be; gives what the store said.
async fn publish(stand: &Stand, queue: &posthaste::store::QueueRef) -> Result<Vec<GroupResult>, StoreError> {
    let group = stand.group(queue, &vec![draft(); MANY]);
    stand.connection.enqueue(CallId::random(), Arc::new(vec![group])).await
}

#[test]
fn what_is_refused_while_the_transaction_is_put_together_is_refused_whole() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, MANY).await;
        server.order("CONFIG SET maxmemory 1mb");
        let error = refusal(publish(&stand, &queue).await);
        assert!(matches!(&error, StoreError::Full(why) if why.contains("no memory left")), "{error:?}");
        server.order("CONFIG SET maxmemory 0");
        assert_eq!((stand.stats(&queue).await.gauges.pending, is_left(&server)), (30, false));
        assert_eq!(publish(&stand, &queue).await, Ok(vec![GroupResult::Accepted]));
        stand.check().await;
    });
}

#[test]
fn without_a_right_to_any_of_it_they_are_stored_all_the_same() {
    run(async || {
        let server = RedisServer::start(&[]);
        server.order("ACL SETUSER gateway on >first ~* &* +@all");
        let stand = stand_at(format!("{}?user=gateway&pass=first", server.url()), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, MANY).await;
        for command in ["multi", "exec", "rename", "rpushx", "renamenx", "bgrewriteaof"] {
            server.order(&format!("ACL SETUSER gateway -{command}"));
            let published = publish(&stand, &queue).await;
            assert_eq!(published, Ok(vec![GroupResult::Accepted]), "{command}");
            server.order(&format!("ACL SETUSER gateway +{command}"));
        }
        server.order("ACL SETUSER gateway -rpush");
        let refused = publish(&stand, &queue).await;
        assert!(refused != Ok(vec![GroupResult::Accepted]), "{refused:?}");
        server.order("ACL SETUSER gateway +rpush");
        assert_eq!((stand.stats(&queue).await.gauges.pending, is_left(&server)), (210, false));
        stand.check().await;
    });
}

#[test]
fn sent_again_they_are_stored_once() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let other = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let (call, group) = (CallId::random(), stand.group(&queue, &vec![draft(); MANY]));
        let groups = Arc::new(vec![group]);
        // For the other connection it is the first sending as well.
        for connection in [&stand.connection, &stand.connection, &other.connection] {
            let answer = connection.enqueue(call, Arc::clone(&groups)).await;
            assert_eq!(answer, Ok(vec![GroupResult::Accepted]));
        }
        assert_eq!(stand.stats(&queue).await.gauges.pending, 30);
        stand.check().await;
    });
}

#[test]
fn where_the_file_cannot_be_asked_to_be_written_anew_no_list_goes_by_another_name() {
    run(async || {
        let server = RedisServer::start(&["--rename-command", "BGREWRITEAOF", ""]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 2 * MANY).await;
        let scripts = server.calls("evalsha");
        stand.publish_plain(&queue, MANY).await;
        assert_eq!((server.calls("rename"), is_left(&server)), (0, false));
        assert!(server.calls("evalsha") <= scripts + 2);
        stand.check().await;
    });
}
