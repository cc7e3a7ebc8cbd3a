//! Idempotency keys.

use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{Group, GroupResult};

use super::stand::{Stand, dead, draft, seconds};

fn id_of(group: &Group) -> Vec<posthaste::domain::id::MessageId> {
    group.messages.iter().map(|message| message.id).collect()
}

pub(super) async fn a_key_used_again_for_the_same_gives_the_first_ids(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let key = stand.keyed(&queue, "k", 1).key;
    let first = Group { key: key.clone(), ..stand.group(&queue, &[draft(), draft()]) };
    let ids = id_of(&first);
    assert_eq!(stand.offer(first).await, GroupResult::Accepted);
    let second = Group { key, ..stand.group(&queue, &[draft(), draft()]) };
    assert_eq!(stand.offer(second).await, GroupResult::Duplicate(ids.clone()));
    assert_eq!(stand.stats(&queue).await.counters.accepted, 2);
    assert_eq!(stand.drain(&queue).await, ids);
}

pub(super) async fn a_key_used_for_something_else_is_refused(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Accepted);
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 2)).await, GroupResult::KeyReused);
    assert_eq!(stand.offer(stand.keyed(&queue, "K", 2)).await, GroupResult::Accepted);
    assert_eq!(stand.stats(&queue).await.counters.accepted, 2);
}

pub(super) async fn a_key_is_any_bytes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for key in [vec![0], vec![0, 0], vec![255; 256], b"%_'\"".to_vec(), "schlüssel".as_bytes().to_vec()] {
        for expected_accepted in [true, false] {
            let mut group = stand.keyed(&queue, "", 1);
            group.key.as_mut().expect("it has one").key.clone_from(&key);
            assert_eq!(stand.offer(group).await == GroupResult::Accepted, expected_accepted, "{key:?}");
        }
    }
    assert_eq!(stand.stats(&queue).await.counters.accepted, 5);
}

pub(super) async fn a_key_is_checked_against_earlier_groups_of_the_same_call(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let groups: Vec<_> = [1, 1, 2].map(|fingerprint| stand.keyed(&queue, "k", fingerprint)).to_vec();
    let first = id_of(&groups[0]);
    let results = stand.enqueue(groups).await;
    assert_eq!(results, [GroupResult::Accepted, GroupResult::Duplicate(first), GroupResult::KeyReused]);
    assert_eq!(stand.stats(&queue).await.counters.accepted, 1);
}

pub(super) async fn a_refused_group_uses_up_no_key(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1).await;
    stand.publish_plain(&queue, 1).await;
    let refused = stand.offer(stand.keyed(&queue, "k", 1)).await;
    assert_eq!(refused, GroupResult::QueueFull { setting: "limits.length_max", limit: 1 });
    stand.drain(&queue).await;
    assert_eq!(
        stand.offer(stand.keyed(&queue, "k", 2)).await,
        GroupResult::Accepted,
        "even for something else"
    );
}

pub(super) async fn a_keyed_retry_of_what_is_stored_is_a_duplicate_and_never_full(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| {
        settings.limits.length_max = 1;
        settings.idempotency.keys_max = 1;
    });
    let queue = queue.await;
    let first = stand.keyed(&queue, "k", 1);
    let ids = id_of(&first);
    assert_eq!(stand.offer(first).await, GroupResult::Accepted);
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Duplicate(ids));
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 2)).await, GroupResult::KeyReused);
}

pub(super) async fn the_window_runs_from_the_first_acceptance_and_does_not_slide(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.idempotency.window = seconds(100)).await;
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Accepted);
    for _ in 0..3 {
        stand.pass(seconds(33)).await;
        assert!(matches!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Duplicate(_)));
    }
    // No sweep in between: a key that is over does not count, removed or not.
    stand.clock.advance(seconds(1));
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 2)).await, GroupResult::Accepted);
    assert_eq!(
        stand.offer(stand.keyed(&queue, "k", 1)).await,
        GroupResult::KeyReused,
        "its window began anew"
    );
    stand.pass(seconds(99)).await;
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::KeyReused);
    stand.pass(seconds(1)).await;
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Accepted);
}

pub(super) async fn keys_have_a_limit_of_their_own(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| {
        settings.idempotency.keys_max = 2;
        settings.idempotency.window = seconds(100);
    });
    let queue = queue.await;
    let full = GroupResult::QueueFull { setting: "idempotency.keys_max", limit: 2 };
    let groups = ["a", "b", "c"].map(|key| stand.keyed(&queue, key, 1)).to_vec();
    assert_eq!(stand.enqueue(groups).await, [GroupResult::Accepted, GroupResult::Accepted, full]);
    assert_eq!(
        stand.offer(stand.group(&queue, &[draft()])).await,
        GroupResult::Accepted,
        "without a key there is room"
    );
    // Without a sweep as well.
    stand.clock.advance(seconds(100));
    assert_eq!(stand.offer(stand.keyed(&queue, "c", 1)).await, GroupResult::Accepted);
}

pub(super) async fn keys_of_two_queues_are_apart(stand: &mut Stand) {
    let (first, second) = (stand.queue("orders").await, stand.queue("mails").await);
    let groups = vec![stand.keyed(&first, "k", 1), stand.keyed(&second, "k", 2)];
    assert_eq!(stand.enqueue(groups).await, [GroupResult::Accepted, GroupResult::Accepted]);
}

pub(super) async fn a_key_stands_whatever_became_of_its_message(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for (key, verdict) in [("delivered", Verdict::Ack), ("dead", dead(DeadReason::Rejected))] {
        assert_eq!(stand.offer(stand.keyed(&queue, key, 1)).await, GroupResult::Accepted);
        stand.run(&queue, 10, verdict).await;
        assert!(matches!(stand.offer(stand.keyed(&queue, key, 1)).await, GroupResult::Duplicate(_)), "{key}");
    }
    let cancelled = stand.keyed(&queue, "cancelled", 1);
    let id = id_of(&cancelled)[0];
    assert_eq!(stand.offer(cancelled).await, GroupResult::Accepted);
    stand.connection.cancel(queue.clone(), id).await.expect("the store answers");
    assert_eq!(stand.offer(stand.keyed(&queue, "purged", 1)).await, GroupResult::Accepted);
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(1));
    for key in ["cancelled", "purged"] {
        assert!(matches!(stand.offer(stand.keyed(&queue, key, 1)).await, GroupResult::Duplicate(_)), "{key}");
    }
    assert_eq!(stand.stats(&queue).await.gauges.pending, 0);
}

pub(super) async fn keys_end_with_their_queue(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Accepted);
    stand.connection.delete_queue(queue, true).await.expect("the store answers");
    let again = stand.queue("orders").await;
    assert_eq!(stand.offer(stand.keyed(&again, "k", 2)).await, GroupResult::Accepted);
}
