//! Wake-ups: hints that a queue has work, or that time brings something sooner.

use std::sync::Arc;

use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::Due;
use posthaste::store::lease::LeaseRequest;
use posthaste::store::wake::WakeSubscription;
use posthaste::store::{Hold, QueueRef, Scheduled};

use super::stand::{Draft, Stand, dead, draft, pull_request, request, retry_after, seconds, within};

/// Waits until the queue is posted.
async fn woken(subscription: &WakeSubscription, queue: &QueueRef, what: &str) {
    within(what, async {
        loop {
            subscription.posted().await;
            if subscription.take().queues.contains(&queue.name) {
                return;
            }
        }
    })
    .await;
}

/// Waits until it is posted that time may bring something sooner.
async fn told(subscription: &WakeSubscription, what: &str) {
    within(what, async {
        loop {
            subscription.posted().await;
            if subscription.take().time_changed {
                return;
            }
        }
    })
    .await;
}

/// Forgets what was posted so far.
fn forget(subscription: &WakeSubscription) {
    drop(subscription.take());
}

pub(super) async fn a_publish_into_an_empty_queue_wakes_every_listener(stand: &mut Stand) {
    let (queue, other) = (stand.queue("orders").await, stand.queue("mails").await);
    let subscriptions = [stand.store.wakes().subscribe(), stand.store.wakes().subscribe()];
    for round in 0..3 {
        stand.publish_plain(&queue, 1).await;
        for subscription in &subscriptions {
            woken(subscription, &queue, &format!("publish {round}")).await;
        }
        stand.drain(&queue).await;
        subscriptions.iter().for_each(forget);
    }
    stand.publish_plain(&other, 1).await;
    woken(&subscriptions[0], &other, "another queue").await;
}

pub(super) async fn a_publish_behind_suspects_wakes_too(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_suspects(&queue, 1).await;
    let subscription = stand.store.wakes().subscribe();
    stand.publish_plain(&queue, 1).await;
    woken(&subscription, &queue, "who may take no suspect had nothing before").await;
}

pub(super) async fn a_promotion_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish(&queue, &[Draft { due: Due::After(seconds(10)), ..draft() }]).await;
    let subscription = stand.store.wakes().subscribe();
    stand.pass(seconds(10)).await;
    woken(&subscription, &queue, "promotion").await;
}

pub(super) async fn bringing_messages_forward_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { due: Due::After(seconds(10)), ..draft() }).await;
    let subscription = stand.store.wakes().subscribe();
    forget(&subscription);
    for (attempts, promoted) in [(1, false), (0, true)] {
        assert!(!subscription.take().queues.contains(&queue.name), "nothing came up before");
        let named = Arc::new([Scheduled { id, attempts }]);
        assert_eq!(stand.connection.promote(queue.clone(), named).await, Ok(vec![promoted]));
    }
    woken(&subscription, &queue, "bringing forward").await;
}

pub(super) async fn a_lost_lease_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        stand.take(LeaseRequest { max: 1, ..wanted }).await;
        let subscription = stand.store.wakes().subscribe();
        stand.pass(seconds(30)).await;
        woken(&subscription, &queue, "a lease taken back").await;
    }
}

pub(super) async fn what_is_put_back_at_once_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    let subscription = stand.store.wakes().subscribe();
    for verdict in [Verdict::Release, retry_after(seconds(0)), Verdict::Defer { delay: seconds(0) }] {
        let leased = stand.lease(&queue, 1).await;
        forget(&subscription);
        stand.settle_all(leased, verdict.clone()).await;
        woken(&subscription, &queue, &format!("{verdict:?}")).await;
    }
}

pub(super) async fn resuming_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.hold(&queue, Hold::Pause).await;
    stand.publish_plain(&queue, 1).await;
    let subscription = stand.store.wakes().subscribe();
    stand.hold(&queue, Hold::Resume).await;
    woken(&subscription, &queue, "resume").await;
}

pub(super) async fn a_replay_wakes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_dead(&queue, 1).await;
    let subscription = stand.store.wakes().subscribe();
    stand
        .connection
        .replay(queue.clone(), Selection::Filter(DeadFilter::default()), false)
        .await
        .expect("it answers");
    woken(&subscription, &queue, "replay").await;
}

pub(super) async fn a_queue_that_goes_on_by_itself_wakes(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.dead.length_max = 1).await;
    stand.publish_plain(&queue, 2).await;
    assert_eq!(stand.run(&queue, 1, dead(DeadReason::Rejected)).await.len(), 1);
    let subscription = stand.store.wakes().subscribe();
    assert_eq!(
        stand.connection.discard(queue.clone(), Selection::Filter(DeadFilter::default())).await,
        Ok(1)
    );
    woken(&subscription, &queue, "below the limit of dead letters").await;
    stand.publish_plain(&queue, 1).await;
    assert_eq!(stand.run(&queue, 1, dead(DeadReason::Rejected)).await.len(), 1);
    forget(&subscription);
    stand.change(&queue, |settings| settings.dead.length_max = 2).await;
    woken(&subscription, &queue, "a raised limit").await;
}

pub(super) async fn what_becomes_due_sooner_than_known_is_told(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let subscription = stand.store.wakes().subscribe();
    stand.publish(&queue, &[Draft { due: Due::After(seconds(900)), ..draft() }, draft()]).await;
    told(&subscription, "a delayed message").await;
    stand.sweep().await;
    let leased = stand.lease(&queue, 1).await;
    told(&subscription, "a lease that ends before").await;
    stand.sweep().await;
    stand.settle_all(leased, retry_after(seconds(7))).await;
    told(&subscription, "a retry that is due before").await;
}
