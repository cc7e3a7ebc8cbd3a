//! A large message, whose payload lies apart: with it in every state, and gone with it.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::State;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::Selection;
use posthaste::store::enqueue::Due;
use posthaste::store::stats::Cancelled;
use posthaste::store::{QueueRef, Scheduled};

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{Draft, START, Stand, dead, draft, retry_after, seconds};
use crate::support::redis::RedisServer;

const PAYLOAD_BYTES: usize = 100_000;

fn large() -> Draft {
    Draft { payload: (0..PAYLOAD_BYTES).map(|place| place.to_le_bytes()[0]).collect(), ..draft() }
}

fn bodies(server: &RedisServer) -> i64 {
    ask(server, &[b"HLEN", key("orders", "o").as_bytes()])
}

/// It is found where it should be, with its payload.
async fn assert_there(stand: &Stand, queue: &QueueRef, id: MessageId, state: State) {
    let found = stand.find(queue, id).await.expect("it is found");
    assert_eq!(found.state, state);
    assert_eq!(found.record.expect("it is kept").payload(), large().payload);
}

#[test]
fn a_large_message_has_its_payload_in_every_state_and_leaves_nothing_behind() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let id = stand.publish_one(&queue, large()).await;
        assert_there(&stand, &queue, id, State::Pending).await;
        assert!(ask::<i64>(&server, &[b"MEMORY", b"USAGE", key("orders", "p1").as_bytes()]) < 1_000);
        let leased = stand.lease(&queue, 1).await;
        assert_eq!(leased.leases[0].record.payload(), large().payload);
        assert_there(&stand, &queue, id, State::Leased).await;
        stand.settle_all(leased, retry_after(seconds(60))).await;
        assert_there(&stand, &queue, id, State::Scheduled).await;
        stand.pass(seconds(60)).await;
        assert_there(&stand, &queue, id, State::Pending).await;
        // Put off, and brought forward.
        stand.run(&queue, 1, Verdict::Defer { delay: seconds(60) }).await;
        let named = Arc::new([Scheduled { id, attempts: 1 }]);
        assert_eq!(stand.connection.promote(queue.clone(), named).await, Ok(vec![true]));
        assert_there(&stand, &queue, id, State::Pending).await;
        stand.run(&queue, 1, dead(DeadReason::Rejected)).await;
        assert_there(&stand, &queue, id, State::Dead).await;
        let replayed = stand.connection.replay(queue.clone(), Selection::Ids(vec![id]), false).await;
        assert_eq!(replayed.expect("the store answers").replayed, 1);
        assert_there(&stand, &queue, id, State::Pending).await;
        // Lost, and taken back.
        stand.lease(&queue, 1).await;
        assert_eq!(stand.pass(seconds(30)).await.reaped, 1);
        assert_there(&stand, &queue, id, State::Pending).await;
        assert_eq!(bodies(&server), 1);
        let leased = stand.lease(&queue, 1).await;
        assert_eq!(leased.leases[0].record.payload(), large().payload);
        stand.settle_all(leased, Verdict::Ack).await;
        assert_eq!(bodies(&server), 0);
        assert_eq!(stand.find(&queue, id).await.expect("it is remembered").state, State::Delivered);
        stand.check().await;
    });
}

#[test]
fn a_large_message_that_is_cancelled_discarded_expired_or_purged_leaves_nothing_behind() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let pending = stand.publish_one(&queue, large()).await;
        let scheduled = stand.publish_one(&queue, Draft { due: Due::After(seconds(60)), ..large() }).await;
        for id in [pending, scheduled] {
            assert_eq!(stand.connection.cancel(queue.clone(), id).await, Ok(Cancelled::Cancelled));
        }
        assert_eq!(bodies(&server), 0);
        stand.publish_one(&queue, Draft { ttl: Some(seconds(1)), ..large() }).await;
        stand.clock.advance(seconds(2));
        assert!(stand.lease(&queue, 1).await.leases.is_empty());
        assert_eq!(bodies(&server), 1);
        let all = Selection::Filter(posthaste::store::dead::DeadFilter::default());
        assert_eq!(stand.connection.discard(queue.clone(), all).await, Ok(1));
        assert_eq!(bodies(&server), 0);
        // Purged while a neighbour is leased, whose payload stays.
        let kept = stand.publish_one(&queue, large()).await;
        let leased = stand.lease(&queue, 1).await;
        stand.publish_one(&queue, large()).await;
        stand.publish_one(&queue, Draft { due: Due::After(seconds(60)), ..large() }).await;
        assert_eq!(stand.connection.purge(queue.clone()).await, Ok(2));
        stand.sweep().await;
        assert_eq!(bodies(&server), 1);
        assert_there(&stand, &queue, kept, State::Leased).await;
        stand.settle_all(leased, Verdict::Ack).await;
        assert_eq!(bodies(&server), 0);
        stand.check().await;
    });
}
