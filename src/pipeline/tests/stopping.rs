//! Stopping: what has begun ends, what has not goes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::peer::{Act, Call, Kind};
use super::rig::{Bed, Crowd, PATIENCE, Rig, Seen, build, build_done, message, until};
use crate::domain::outcome::Outcome;
use crate::pipeline::phase;
use crate::store::QueueEntry;
use crate::store::enqueue::Group;

/// One attempt under way, three messages leased early that have not begun.
async fn one_of_four(grace: Duration) -> (Rig, QueueEntry, Arc<Semaphore>, Crowd) {
    let mut bed = Bed::new();
    bed.workers.concurrency = 1;
    bed.grace = grace;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(1)));
    let process = {
        let (crowd, gate) = (crowd.clone(), gate.clone());
        build(move |_| {
            let (inside, gate) = (crowd.enter(), gate.clone());
            Box::pin(async move {
                gate.acquire().await.expect("the gate stays").forget();
                drop(inside);
                Outcome::Done.into()
            })
        })
    };
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    // A first, short attempt: from then on some are leased early.
    rig.publish(&queue, 1).await;
    rig.until(&queue, "the first is delivered", |stats| stats.counters.delivered == 1).await;
    rig.publish(&queue, 4).await;
    rig.until(&queue, "all are leased", |stats| stats.gauges.leased == 4).await;
    until("one runs", || crowd.inside() == 1).await;
    (rig, queue, gate, crowd)
}

#[tokio::test]
async fn what_has_not_begun_is_handed_back_and_what_has_runs_to_its_end() {
    let (rig, queue, gate, crowd) = one_of_four(PATIENCE).await;
    let deadline = rig.supervisor.begin_phase(phase::DISPATCH, PATIENCE);
    assert_eq!(rig.supervisor.wait_phase(phase::DISPATCH, deadline).await, []);
    rig.until(&queue, "the others are back", |stats| (stats.gauges.leased, stats.gauges.pending) == (1, 3))
        .await;
    gate.add_permits(4);
    let store = rig.peer.clone();
    rig.shut_down().await;
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges.pending, stats.gauges.leased), (2, 3, 0));
    assert_eq!((stats.counters.retried, stats.counters.recovered, crowd.most()), (0, 0, 1));
    assert!(store.count(|call| matches!(call, Call::Settle { .. })) >= 2);
    rig.stop().await;
}

#[tokio::test]
async fn what_runs_at_the_end_of_the_grace_is_left_to_the_end_of_its_lease() {
    let (rig, queue, _gate, crowd) = one_of_four(Duration::from_millis(300)).await;
    rig.shut_down().await;
    assert_eq!(crowd.inside(), 0, "it was abandoned");
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.gauges.leased, stats.gauges.pending, stats.counters.delivered), (1, 3, 1));
}

#[tokio::test]
async fn settlements_are_sent_before_the_end_although_their_batch_is_not_whole() {
    let mut bed = Bed::new();
    bed.workers.settle_wait = Duration::from_secs(1);
    bed.grace = Duration::from_millis(300);
    let done = Seen::default();
    let process = {
        let done = done.clone();
        build(move |delivery| {
            let done = done.clone();
            Box::pin(async move {
                if &delivery.record.payload()[..] == b"slow" {
                    std::future::pending::<()>().await;
                }
                done.add(&delivery);
                Outcome::Done.into()
            })
        })
    };
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    rig.peer.tell(Kind::Settle, [Act::LoseAnswer]);
    let messages = [&b"fast"[..], b"slow", b"fast"].map(|payload| message(&rig.clock, 3, payload)).to_vec();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: messages.into() }).await;
    until("the fast ones are done", || done.len() == 2).await;
    rig.shut_down().await;
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges.leased), (2, 1));
}

#[tokio::test]
async fn a_lease_under_way_when_the_gateway_stops_is_handed_back() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let rig = bed.start();
    until("the first look is over", || rig.peer.count(|call| matches!(call, Call::Leased { .. })) == 1).await;
    let gate = rig.peer.hold(Kind::Lease);
    rig.publish(&queue, 5).await;
    until("a lease is under way", || rig.peer.count(|call| matches!(call, Call::Lease { .. })) == 2).await;
    rig.supervisor.begin_phase(phase::DISPATCH, PATIENCE);
    gate.add_permits(1);
    rig.shut_down().await;
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.leased, stats.counters.delivered), (5, 0, 0));
    rig.stop().await;
}

#[tokio::test]
async fn under_load_a_shutdown_loses_nothing_and_repeats_nothing() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    let seen = Seen::default();
    let process = build({
        let seen = seen.clone();
        move |delivery| {
            seen.add(&delivery);
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..5))).await;
                Outcome::Done.into()
            })
        }
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    for _ in 0..50 {
        rig.publish(&queue, 100).await;
    }
    until("it is in full swing", || seen.len() > 500).await;
    rig.shut_down().await;
    let stats = rig.stats(&queue).await;
    let begun = u64::try_from(seen.len()).expect("not that many");
    assert_eq!((stats.counters.delivered, stats.gauges.leased), (begun, 0));
    assert_eq!(stats.gauges.pending, 5_000 - begun);
    rig.stop().await;
}
