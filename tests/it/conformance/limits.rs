//! What a queue and a store may hold, and that what is full can always be emptied.

use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::{Due, GroupResult};
use posthaste::store::error::{StoreError, Stored};
use posthaste::store::lease::Settled;

use super::stand::{Draft, Stand, dead, draft, ids, retry_after, seconds, settlement};

const LENGTH_FULL: GroupResult = GroupResult::QueueFull { setting: "limits.length_max", limit: 3 };

pub(super) async fn the_length_counts_what_is_pending_scheduled_and_leased(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 3).await;
    stand.publish_plain(&queue, 1).await;
    let leased = stand.lease(&queue, 1).await;
    stand.publish_one(&queue, Draft { due: Due::After(seconds(60)), ..draft() }).await;
    stand.publish_plain(&queue, 1).await;
    assert_eq!(stand.offer(stand.group(&queue, &[draft()])).await, LENGTH_FULL);
    stand.settle_all(leased, dead(DeadReason::Rejected)).await;
    assert_eq!(
        stand.offer(stand.group(&queue, &[draft()])).await,
        GroupResult::Accepted,
        "dead letters do not count"
    );
    assert_eq!(stand.offer(stand.group(&queue, &[draft()])).await, LENGTH_FULL);
}

pub(super) async fn the_bytes_count_payload_and_headers_exactly(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.bytes_max = 100).await;
    let of = |bytes: usize| Draft { payload: vec![1; bytes], ..draft() };
    stand.publish(&queue, &[of(40), of(60)]).await;
    let full = GroupResult::QueueFull { setting: "limits.bytes_max", limit: 100 };
    assert_eq!(stand.offer(stand.group(&queue, &[of(1)])).await, full);
    assert_eq!(stand.offer(stand.group(&queue, &[of(0)])).await, GroupResult::Accepted);
    let leased = stand.lease(&queue, 1).await;
    assert_eq!(stand.offer(stand.group(&queue, &[of(1)])).await, full, "what is leased counts");
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.bytes_leased, stats.gauges.bytes_waiting), (40, 60));
    stand.settle_all(leased, Verdict::Ack).await;
    let mut with_headers = of(30);
    with_headers.headers.content_type.push_str("seven");
    assert_eq!(stand.offer(stand.group(&queue, &[with_headers.clone()])).await, GroupResult::Accepted);
    assert_eq!(
        stand.stats(&queue).await.gauges.bytes_waiting,
        60 + 30 + 8,
        "three bytes name and measure the header"
    );
    assert_eq!(stand.offer(stand.group(&queue, &[with_headers])).await, full);
}

pub(super) async fn a_group_beyond_a_limit_is_refused_whole(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 3).await;
    assert_eq!(stand.offer(stand.group(&queue, &vec![draft(); 4])).await, LENGTH_FULL);
    assert_eq!(stand.stats(&queue).await.counters.accepted, 0);
    stand.publish_plain(&queue, 3).await;
}

pub(super) async fn messages_that_ended_make_room(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 3).await;
    for _ in 0..50 {
        stand.publish_plain(&queue, 3).await;
        assert_eq!(stand.drain(&queue).await.len(), 3);
    }
    let stats = stand.stats(&queue).await;
    assert_eq!(
        (stats.counters.delivered, stats.gauges.bytes_waiting, stats.gauges.bytes_leased),
        (150, 0, 0)
    );
}

pub(super) async fn a_full_queue_can_be_worked_on_in_every_way(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| {
        settings.limits.length_max = 3;
        settings.limits.bytes_max = 30;
    });
    let queue = queue.await;
    stand.publish_plain(&queue, 3).await;
    let verdicts = [
        Verdict::Release,
        retry_after(seconds(0)),
        Verdict::Defer { delay: seconds(0) },
        retry_after(seconds(5)),
    ];
    for verdict in verdicts {
        assert_eq!(stand.run(&queue, 3, verdict.clone()).await.len(), 3, "{verdict:?}");
        assert_eq!(stand.offer(stand.group(&queue, &[draft()])).await, LENGTH_FULL);
    }
    assert_eq!(stand.pass(seconds(5)).await.promoted, 3);
    let leased = stand.lease(&queue, 3).await;
    assert_eq!(stand.pass(seconds(60)).await.reaped, 3);
    assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
    assert_eq!(stand.drain(&queue).await.len(), 3);
}

pub(super) async fn a_full_store_refuses_publishes_and_can_be_emptied(stand: &mut Stand) {
    let enough = stand.open_small().await;
    let queue = stand.queue("orders").await;
    let large = Draft { payload: vec![3; 64 << 10], ..draft() };
    let mut stored = Vec::new();
    let refused = loop {
        let mut group = stand.group(&queue, std::slice::from_ref(&large));
        group.key = stand.keyed(&queue, &stored.len().to_string(), 1).key;
        let id = group.messages[0].id;
        match stand.offer(group).await {
            GroupResult::Accepted => stored.push(id),
            refused => break refused,
        }
        assert!(stored.len() as u64 * (64 << 10) <= enough + (1 << 20), "it never becomes full");
    };
    let GroupResult::Failed(error) = refused else { panic!("{refused:?}") };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert_eq!(error.stored(), Stored::No);
    assert!(stand.connection.health().await.expect("it answers").full.is_some());
    let duplicate = stand.keyed(&queue, "0", 1);
    assert_eq!(
        stand.offer(duplicate).await,
        GroupResult::Duplicate(vec![stored[0]]),
        "never full for what is stored"
    );

    let half = u16::try_from(stored.len() / 2 + 1).expect("a few");
    assert_eq!(stand.run(&queue, half, retry_after(seconds(1))).await.len(), usize::from(half));
    stand.pass(seconds(1)).await;
    let mut delivered = stand.drain(&queue).await;
    delivered.sort_unstable();
    let mut expected = stored.clone();
    expected.sort_unstable();
    assert_eq!(delivered, expected, "the backlog drains to nothing");
    stand.sweep().await;
    assert_eq!(stand.connection.health().await.expect("it answers").full, None);
    let mut group = stand.group(&queue, &[large]);
    group.key = stand.keyed(&queue, &stored.len().to_string(), 2).key;
    assert_eq!(stand.offer(group).await, GroupResult::Accepted, "publishing resumes and no key was used up");
}

pub(super) async fn dead_letters_that_left_leave_no_bytes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 6).await;
    assert_eq!(stand.stats(&queue).await.gauges.bytes_dead, 60);
    let replayed = Selection::Ids(died[..2].to_vec());
    stand.connection.replay(queue.clone(), replayed, false).await.expect("the store answers");
    assert_eq!(stand.connection.discard(queue.clone(), Selection::Ids(died[2..5].to_vec())).await, Ok(3));
    assert_eq!(stand.stats(&queue).await.gauges.bytes_dead, 10);
    assert_eq!(
        stand.connection.discard(queue.clone(), Selection::Filter(DeadFilter::default())).await,
        Ok(1)
    );
    let gauges = stand.stats(&queue).await.gauges;
    assert_eq!((gauges.dead, gauges.bytes_dead, gauges.bytes_waiting), (0, 0, 20));
}

pub(super) async fn looking_at_a_full_queue_changes_nothing(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.limits.length_max = 1).await;
    let published = stand.publish_plain(&queue, 1).await;
    let before = stand.stats(&queue).await;
    for _ in 0..3 {
        stand.find(&queue, published[0]).await.expect("it is there");
        stand.connection.queues().await.expect("the store answers");
        stand.connection.health().await.expect("the store answers");
        stand
            .connection
            .dead_groups(queue.clone(), posthaste::store::dead::DeadGrouping::Reason)
            .await
            .expect("it answers");
        let page = stand.connection.list_dead(queue.clone(), DeadFilter::default(), None, 10).await;
        assert_eq!(page.expect("it answers").letters, []);
    }
    assert_eq!(stand.stats(&queue).await, before);
    assert_eq!(ids(&stand.lease(&queue, 1).await), published);
}
