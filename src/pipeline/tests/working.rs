//! Working: bounds, panics, time-outs, lost workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::peer::{Act, Call, Kind};
use super::rig::{Bed, Crowd, Inside, Seen, build, build_done, message, message_with, until};
use crate::domain::outcome::{AttemptOutcome, DeadReason, Outcome, RetryHint};
use crate::domain::phases::Phases;
use crate::domain::queue::ParkReason;
use crate::pipeline::phase;
use crate::processor::{Build, Report};
use crate::store::enqueue::Group;
use crate::store::error::StoreError;

/// Holds each attempt until the gate has a permit for it.
fn build_gated(crowd: &Crowd, gate: &Arc<Semaphore>) -> Build {
    let (crowd, gate) = (crowd.clone(), gate.clone());
    build(move |_| {
        let (inside, gate): (Inside, _) = (crowd.enter(), gate.clone());
        Box::pin(async move {
            gate.acquire().await.expect("the gate stays").forget();
            drop(inside);
            Outcome::Done.into()
        })
    })
}

#[tokio::test]
async fn no_more_attempts_run_on_a_thread_than_its_concurrency() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 8;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let queue = bed.queue("orders", build_gated(&crowd, &gate)).await;
    let rig = bed.start();
    rig.publish(&queue, 100).await;
    // One slot is kept for another queue.
    until("the slots are taken", || crowd.inside() == 7).await;
    gate.add_permits(100);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 100).await;
    assert_eq!(crowd.most(), 7);
    rig.stop().await;
}

#[tokio::test]
async fn a_queues_concurrency_holds_over_all_threads() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let queue = bed.queue_with("orders", process, |settings| settings.delivery.concurrency_max = 5).await;
    let rig = bed.start();
    rig.publish(&queue, 200).await;
    until("the lane is full", || crowd.inside() == 5).await;
    for _ in 0..200 {
        gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 200).await;
    assert_eq!(crowd.most(), 5);
    rig.stop().await;
}

#[tokio::test]
async fn a_destination_that_is_gone_parks_its_queue_and_what_has_not_begun_goes_back_uncounted() {
    let mut bed = Bed::new();
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let (inside, permits) = (crowd.clone(), gate.clone());
    let process = build(move |_| {
        let (inside, permits): (Inside, _) = (inside.enter(), permits.clone());
        Box::pin(async move {
            permits.acquire().await.expect("the gate stays").forget();
            drop(inside);
            Report { is_gone: true, ..Outcome::reject("410").into() }
        })
    });
    let queue = bed
        .queue_with("orders", process, |settings| {
            settings.delivery.concurrency_max = 1;
            settings.destination = Some("https://gone.example/".parse().expect("a URL"));
        })
        .await;
    // The first word of it is lost: it is said again.
    bed.peer.tell(Kind::Hold, [Act::Refuse(StoreError::Unavailable("away".to_owned()))]);
    let rig = bed.start();
    rig.publish(&queue, 20).await;
    until("one is under way", || crowd.inside() == 1).await;
    gate.add_permits(1);
    rig.until(&queue, "the queue is parked", |stats| stats.parked == Some(ParkReason::DestinationGone)).await;
    // What had begun by then ends as it does.
    gate.add_permits(20);
    rig.until(&queue, "the others went back", |stats| stats.gauges.leased == 0).await;
    let stats = rig.stats(&queue).await;
    assert!((1..=2).contains(&stats.counters.dead_lettered), "{stats:?}");
    assert_eq!(stats.gauges.pending + stats.counters.dead_lettered, 20);
    assert_eq!(stats.counters.retried, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_full_lane_keeps_no_slot_from_another_queue() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 8;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let slow = bed.queue_with("slow", process, |settings| settings.delivery.concurrency_max = 2).await;
    let fast = bed.queue("fast", build_done(|_| {})).await;
    let rig = bed.start();
    rig.publish(&slow, 50).await;
    until("the lane is full", || crowd.inside() == 2).await;
    rig.publish(&fast, 100).await;
    rig.until(&fast, "the others are delivered", |stats| stats.counters.delivered == 100).await;
    assert_eq!(crowd.inside(), 2);
    gate.add_permits(50);
    rig.until(&slow, "these as well", |stats| stats.counters.delivered == 50).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_message_whose_processor_panics_is_dead_after_its_attempts_and_the_others_are_delivered() {
    let mut bed = Bed::new();
    let seen = Seen::default();
    let process = {
        let seen = seen.clone();
        build(move |delivery| {
            seen.add(&delivery);
            let is_bad = &delivery.record.payload()[..] == b"bad";
            assert!(!is_bad || delivery.attempt == 1, "at once");
            Box::pin(async move {
                assert!(!is_bad, "in its future");
                Outcome::Done.into()
            })
        })
    };
    let schedule = vec![Duration::from_millis(1); 2];
    let queue = bed.queue_with("orders", process, |settings| settings.retry.schedule = schedule).await;
    let rig = bed.start();
    let mut messages = Vec::new();
    for payload in [b"good", b"bad_" as &[u8; 4], b"good"] {
        let payload = payload.strip_suffix(b"_").unwrap_or(payload);
        messages.push(message(&rig.clock, 3, payload));
    }
    let group = Group { queue: queue.queue_ref(), key: None, messages: messages.into() };
    let ids = rig.publish_group(group).await;
    rig.until(&queue, "one is dead", |stats| stats.gauges.dead == 1 && stats.counters.delivered == 2).await;
    let found = rig.find(&queue, ids[1]).await;
    assert_eq!(found.reason, Some(DeadReason::Exhausted));
    let attempts: Vec<_> = found
        .history
        .iter()
        .map(|attempt| (attempt.number, attempt.error.clone().unwrap_or_default()))
        .collect();
    let [first, second, third] = &attempts[..] else { panic!("three attempts: {attempts:?}") };
    assert_eq!((first.0, &first.1[..]), (1, "panic: in its future"));
    assert_eq!((second.0, &second.1[..]), (2, "panic: at once"));
    assert_eq!((third.0, &third.1[..]), (3, "panic: at once"));
    assert_eq!(seen.all().iter().filter(|(id, _)| *id == ids[1]).count(), 3);
    assert!(rig.supervisor.watch().iter().all(|actor| actor.restarts == 0));
    rig.stop().await;
}

#[tokio::test]
async fn every_outcome_reaches_the_store() {
    let mut bed = Bed::new();
    let phases = Phases { wait: Some(Duration::from_millis(3)), ..Phases::NONE };
    let process = build(move |delivery| {
        let report = match &delivery.record.payload()[..] {
            b"reject" => Report { status: Some(422), ..Outcome::reject("not mine").into() },
            b"nowhere" => Outcome::Undeliverable { reason: "no address".to_owned() }.into(),
            b"defer" => Outcome::Deferred { until: RetryHint::After(Duration::from_secs(200)) }.into(),
            b"retry" => Report { error: Some("not now".to_owned()), phases, ..Outcome::retry().into() },
            _ => Outcome::Done.into(),
        };
        Box::pin(async { report })
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    let payloads: [&[u8]; 5] = [b"reject", b"nowhere", b"defer", b"retry", b"done"];
    let messages = payloads.iter().map(|payload| message(&rig.clock, 3, payload)).collect();
    let ids = rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.until(&queue, "all are settled", |stats| stats.gauges.pending + stats.gauges.leased == 0).await;
    let stats = rig.stats(&queue).await.counters;
    assert_eq!((stats.delivered, stats.retried, stats.deferred, stats.dead_lettered), (1, 1, 1, 2));
    let rejected = rig.find(&queue, ids[0]).await;
    assert_eq!((rejected.reason, rejected.detail.as_deref()), (Some(DeadReason::Rejected), Some("not mine")));
    assert_eq!(rejected.history[0].status, Some(422));
    assert_eq!(rejected.history[0].error.as_deref(), Some("not mine"));
    assert_eq!(rig.find(&queue, ids[1]).await.reason, Some(DeadReason::Undeliverable));
    assert_eq!(rig.find(&queue, ids[2]).await.history, [], "nothing was attempted");
    let retried = rig.find(&queue, ids[3]).await;
    assert_eq!(retried.history[0].outcome, AttemptOutcome::Retry);
    assert_eq!(retried.history[0].error.as_deref(), Some("not now"));
    assert_eq!((retried.history[0].phases, retried.history[0].next_at), (phases, retried.due_at));
    rig.stop().await;
}

#[tokio::test]
async fn an_attempt_that_does_not_end_is_ended_after_its_time_out() {
    let mut bed = Bed::new();
    let process = build(|_| Box::pin(std::future::pending()));
    let timeout = Duration::from_millis(100);
    let queue = bed.queue_with("orders", process, |settings| settings.timeout = timeout).await;
    let rig = bed.start();
    let ids = rig.publish(&queue, 1).await;
    rig.until(&queue, "it is retried", |stats| stats.counters.retried == 1).await;
    let found = rig.find(&queue, ids[0]).await;
    assert_eq!(found.history[0].error.as_deref(), Some("timeout"));
    assert!(found.history[0].duration_ms >= 100);
    rig.stop().await;
}

#[tokio::test]
async fn headers_that_cannot_be_read_are_damage_and_the_neighbours_are_delivered() {
    let mut bed = Bed::new();
    let seen = Seen::default();
    let process = build_done({
        let seen = seen.clone();
        move |delivery| seen.add(delivery)
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    let messages = vec![message(&rig.clock, 3, b""), message_with(&rig.clock, 3, &[1, 0], b"")];
    let ids =
        rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: messages.into() }).await;
    rig.until(&queue, "both have ended", |stats| stats.gauges.dead + stats.counters.delivered == 2).await;
    assert_eq!(rig.find(&queue, ids[1]).await.reason, Some(DeadReason::Damaged));
    assert_eq!(seen.all(), [(ids[0], 1)]);
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_is_extended_for_as_long_as_its_message_is_in_work() {
    let mut bed = Bed::new();
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let second = Duration::from_secs(1);
    let queue = bed.queue_with("orders", process, |settings| settings.lease = Some(second)).await;
    let rig = bed.start();
    // A store that does not answer an extension is asked again.
    rig.peer.tell(Kind::Extend, [Act::Refuse(StoreError::Unavailable("told so".to_owned()))]);
    rig.publish(&queue, 1).await;
    until("it was extended often", || rig.peer.count(|call| matches!(call, Call::Extend)) >= 7).await;
    gate.add_permits(1);
    rig.until(&queue, "it is delivered", |stats| stats.counters.delivered == 1).await;
    let stats = rig.stats(&queue).await.counters;
    assert_eq!((stats.recovered, stats.retried, crowd.most()), (0, 0, 1));
    rig.stop().await;
}

#[tokio::test]
async fn what_an_extension_finds_lost_is_neither_begun_nor_settled() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 1;
    bed.workers.lease_max = 3;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let second = Duration::from_secs(1);
    let queue = bed.queue_with("orders", process, |settings| settings.lease = Some(second)).await;
    let rig = bed.start();
    // An extension that is refused because the queue is gone ends the batch here while the store still has it.
    rig.peer.tell(Kind::Extend, [Act::Refuse(StoreError::Gone)]);
    rig.publish(&queue, 1).await;
    rig.until(&queue, "its lease was lost", |stats| stats.counters.recovered == 1).await;
    assert_eq!(rig.peer.count(|call| matches!(call, Call::Settle { .. })), 0);
    gate.add_permits(2);
    rig.until(&queue, "the second attempt delivers it", |stats| stats.counters.delivered == 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_worker_that_breaks_counts_what_had_begun_and_gives_back_the_rest() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 1;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let change = |settings: &mut crate::domain::queue::QueueSettings| {
        settings.lease = Some(Duration::from_secs(1));
        settings.retry.schedule = vec![Duration::from_millis(1); 2];
    };
    let queue = bed.queue_with("orders", process, change).await;
    let rig = bed.start();
    // The first attempt ends fast, so that some are leased early; the second one stays.
    gate.add_permits(1);
    rig.publish(&queue, 1).await;
    rig.until(&queue, "the first is delivered", |stats| stats.counters.delivered == 1).await;
    rig.peer.tell(Kind::Extend, [Act::Panic]);
    let ids = rig.publish(&queue, 4).await;
    rig.until(&queue, "one runs and some wait", |stats| stats.gauges.leased == 4 && crowd.inside() == 1)
        .await;
    let is_restarted =
        || rig.supervisor.watch().iter().any(|actor| actor.name == "worker-0" && actor.restarts == 1);
    until("the worker broke", is_restarted).await;
    gate.add_permits(10);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 5).await;
    let stats = rig.stats(&queue).await.counters;
    assert_eq!((stats.retried, stats.recovered), (1, 0), "one had begun");
    let outcomes = async |id| -> Vec<_> {
        rig.find(&queue, id).await.history.iter().map(|attempt| attempt.outcome).collect()
    };
    assert_eq!(outcomes(ids[0]).await, [AttemptOutcome::Lost, AttemptOutcome::Delivered]);
    assert_eq!(outcomes(ids[1]).await, [AttemptOutcome::Delivered], "one try was enough for it");
    rig.stop().await;
}

#[tokio::test]
async fn a_message_that_used_up_its_attempts_when_its_worker_broke_is_poison() {
    let mut bed = Bed::new();
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = build_gated(&crowd, &gate);
    let second = Duration::from_secs(1);
    let queue = bed.queue_with("orders", process, |settings| settings.lease = Some(second)).await;
    let rig = bed.start();
    rig.peer.tell(Kind::Extend, [Act::Panic]);
    let messages = vec![message(&rig.clock, 1, b"")];
    let ids =
        rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: messages.into() }).await;
    rig.until(&queue, "it is dead", |stats| stats.gauges.dead == 1).await;
    assert_eq!(rig.find(&queue, ids[0]).await.reason, Some(DeadReason::Poison));
    rig.stop().await;
}

#[tokio::test]
async fn bytes_in_hand_are_bounded() {
    let mut bed = Bed::new();
    bed.workers.held_bytes_max = 64 << 10;
    let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let queue = bed.queue("orders", build_gated(&crowd, &gate)).await;
    let rig = bed.start();
    let messages = (0..20).map(|_| message(&rig.clock, 3, &vec![0; 40 << 10])).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    until("some run", || crowd.inside() > 0).await;
    gate.add_permits(20);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 20).await;
    assert!(crowd.most() <= 2, "{} of 40 KiB were in hand", crowd.most());
    rig.stop().await;
}

#[tokio::test]
async fn the_phases_are_those_of_the_house_in_their_order() {
    let names: Vec<_> = phase::all(Duration::from_secs(20)).iter().map(|phase| phase.name).collect();
    assert_eq!(names, ["accept", "ingest", "dispatch", "work", "settle", "sweep", "store"]);
}
