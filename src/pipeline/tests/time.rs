//! What time brings: due moments, lost leases, wake-ups.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::rig::{Bed, build_done, group, put, until};
use crate::domain::timestamp::Timestamp;
use crate::store::Store as _;
use crate::store::enqueue::Due;

#[tokio::test]
async fn what_is_delayed_is_processed_when_it_is_due_and_not_before() {
    let mut bed = Bed::new();
    let begun: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let process = build_done({
        let begun = begun.clone();
        move |delivery| begun.lock().unwrap().push(delivery.at)
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    let mut first = group(&rig.clock, &queue, 1);
    Arc::make_mut(&mut first.messages)[0].due = Due::After(Duration::from_mins(10));
    rig.publish_group(first).await;
    let mut second = group(&rig.clock, &queue, 1);
    let due = rig.clock.now().saturating_add(Duration::from_millis(200));
    Arc::make_mut(&mut second.messages)[0].due = Due::At(due);
    rig.publish_group(second).await;
    rig.until(&queue, "one is delivered", |stats| stats.counters.delivered == 1).await;
    assert_eq!(rig.stats(&queue).await.gauges.scheduled, 1);
    assert!(begun.lock().unwrap()[0] >= due);
    rig.stop().await;
}

#[tokio::test]
async fn a_retry_comes_after_its_delay() {
    let mut bed = Bed::new();
    let begun: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let process = super::rig::build({
        let begun = begun.clone();
        move |delivery| {
            begun.lock().unwrap().push(delivery.at);
            Box::pin(async { crate::domain::outcome::Outcome::retry().into() })
        }
    });
    let change = |settings: &mut crate::domain::queue::QueueSettings| {
        settings.retry.schedule = vec![Duration::from_millis(100), Duration::from_millis(200)];
        settings.retry.jitter = 0.0;
    };
    let queue = bed.queue_with("orders", process, change).await;
    let rig = bed.start();
    rig.publish(&queue, 1).await;
    rig.until(&queue, "it is dead", |stats| stats.gauges.dead == 1).await;
    let begun = begun.lock().unwrap().clone();
    let [first, second, third] = begun[..] else { panic!("three attempts: {begun:?}") };
    assert!(second.since(first) >= Duration::from_millis(100), "{begun:?}");
    assert!(third.since(second) >= Duration::from_millis(200), "{begun:?}");
    rig.stop().await;
}

#[tokio::test]
async fn the_store_is_looked_at_and_queues_that_others_made_become_known() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let rig = bed.start();
    until("the store was looked at", || rig.pipeline.store_watch().now().reachable).await;
    let state = rig.pipeline.store_watch().now();
    assert!(state.error.is_none() && state.checked_at.is_some() && state.health.is_some());
    let store = rig.peer.connect();
    // Another gateway makes a queue that our processor drains, and deletes it again.
    let other = put(&*store, "other", (*queue.settings).clone()).await;
    until("it is known", || rig.catalog.find("other").is_some()).await;
    rig.publish(&other, 3).await;
    rig.until(&other, "all are delivered", |stats| stats.counters.delivered == 3).await;
    store.delete_queue(other.queue_ref(), false).await.expect("deleted");
    until("it is forgotten", || rig.catalog.find("other").is_none()).await;
    rig.stop().await;
}
