//! Consumers: what is leased for whom when the store's answers are lost, and when they go.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::peer::{Act, Call, Kind};
use super::rig::{Bed, PATIENCE, Rig, message, put, until};
use crate::domain::queue::{PULL, QueueSettings};
use crate::pipeline::consumers::{ConsumerLimits, Refused, Wish};
use crate::store::enqueue::Group;
use crate::store::error::StoreError;
use crate::store::lease::BatchId;
use crate::store::{QueueEntry, Store as _};

const LEASE: Duration = Duration::from_mins(10);

async fn stand() -> (Rig, QueueEntry) {
    stand_with(ConsumerLimits::default()).await
}

async fn stand_with(consumers: ConsumerLimits) -> (Rig, QueueEntry) {
    let mut bed = Bed::new();
    bed.consumers = consumers;
    let settings = QueueSettings { processor: PULL.to_owned(), ..QueueSettings::default() };
    let queue = put(&*bed.peer.connect(), "jobs", settings).await;
    bed.catalog.put(queue.clone());
    (bed.start(), queue)
}

fn wish(queue: &QueueEntry, max: u16, wait: Duration) -> Wish {
    let until = Instant::now() + wait;
    Wish { queue: queue.queue_ref(), max, message_bytes_max: 1 << 20, lease: LEASE, until }
}

/// The batches that were asked for in the queue of consumers.
fn batches(rig: &Rig) -> Vec<BatchId> {
    let of = |call| match call {
        Call::Lease { batch, queue } if queue == "jobs" => Some(batch),
        _ => None,
    };
    rig.peer.calls().into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_is_asked_for_again_by_its_name() {
    let (rig, queue) = stand().await;
    rig.publish(&queue, 3).await;
    rig.peer.tell(Kind::Lease, [Act::LoseAnswer, Act::Refuse(StoreError::Unavailable("away".to_owned()))]);
    let consumers = rig.pipeline.consumers();
    let waiting = consumers.ask(wish(&queue, 2, Duration::ZERO)).expect("it is taken");
    let parcel = waiting.await.expect("an answer").expect("messages");
    assert_eq!(parcel.leases.len(), 2);
    let batches = batches(&rig);
    assert!(batches.len() == 3 && batches.iter().all(|batch| *batch == batches[0]), "{batches:?}");
    parcel.hold.arrived();
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.gauges.leased, stats.gauges.pending), (2, 1));
    until("its place is given back", || consumers.under_way() == 0).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_is_leased_for_one_that_has_left_meanwhile_goes_back() {
    let (rig, queue) = stand().await;
    rig.publish(&queue, 3).await;
    let consumers = rig.pipeline.consumers();
    for act in [None, Some(Act::LoseAnswer)] {
        let calls = batches(&rig).len();
        let gate = rig.peer.hold(Kind::Lease);
        rig.peer.tell(Kind::Lease, act);
        let waiting = consumers.ask(wish(&queue, 3, PATIENCE)).expect("it is taken");
        until("the store was asked", || batches(&rig).len() > calls).await;
        drop(waiting);
        gate.add_permits(1);
        until("nobody has a place any more", || consumers.under_way() == 0).await;
        rig.until(&queue, "all is pending again", |stats| stats.gauges.pending == 3).await;
        let stats = rig.stats(&queue).await;
        assert_eq!((stats.counters.retried, stats.counters.recovered), (0, 0), "nothing is counted");
    }
    assert!(rig.peer.count(|call| matches!(call, Call::Settle { count: 3 })) >= 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_parcel_that_does_not_arrive_is_given_back_even_when_the_store_fails_at_first() {
    let (rig, queue) = stand().await;
    rig.publish(&queue, 1).await;
    let consumers = rig.pipeline.consumers();
    let parcel = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken").await.expect("an answer");
    rig.peer.tell(Kind::Settle, [Act::Refuse(StoreError::Unavailable("away".to_owned())), Act::LoseAnswer]);
    drop(parcel.expect("a message"));
    rig.until(&queue, "it is pending again", |stats| stats.gauges.pending == 1).await;
    until("its place is given back", || consumers.under_way() == 0).await;
    rig.stop().await;
}

#[tokio::test]
async fn who_can_wait_waits_for_a_store_that_is_away_and_who_cannot_is_told() {
    let (rig, queue) = stand().await;
    let away = || Act::Refuse(StoreError::Unavailable("away".to_owned()));
    rig.peer.tell(Kind::Lease, [away()]);
    let consumers = rig.pipeline.consumers();
    let told = consumers.ask(wish(&queue, 1, Duration::ZERO)).expect("taken").await;
    let Err(Refused::Store(StoreError::Unavailable(_))) = told else { panic!("{told:?}") };
    rig.peer.tell(Kind::Lease, [away(), away(), away()]);
    let waiting = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken");
    rig.publish(&queue, 1).await;
    let parcel = waiting.await.expect("an answer").expect("a message");
    assert_eq!(parcel.leases[0].attempt_number(), 1);
    parcel.hold.arrived();
    rig.stop().await;
}

#[tokio::test]
async fn a_panic_ends_the_waiting_and_who_comes_next_is_served() {
    let (rig, queue) = stand().await;
    rig.peer.tell(Kind::Lease, [Act::Panic]);
    let consumers = rig.pipeline.consumers();
    let broken = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken").await;
    assert!(matches!(broken, Err(Refused::Broken)), "{broken:?}");
    rig.publish(&queue, 1).await;
    let parcel = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken").await.expect("an answer");
    parcel.expect("a message").hold.arrived();
    until("no place is lost", || consumers.under_way() == 0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_queue_that_goes_away_ends_the_waiting() {
    let (rig, queue) = stand().await;
    let consumers = rig.pipeline.consumers();
    let waiting = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken");
    until("the store was asked", || !batches(&rig).is_empty()).await;
    // Of the store as well: who reads its list would find the queue there, and make it known again.
    rig.peer.connect().delete_queue(queue.queue_ref(), true).await.expect("deleted");
    rig.catalog.remove(&queue.name);
    assert!(matches!(waiting.await, Err(Refused::Gone)));
    let refused = consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken").await;
    assert!(matches!(refused, Err(Refused::Gone)), "{refused:?}");
    rig.stop().await;
}

#[tokio::test]
async fn at_the_end_all_are_answered_and_nobody_is_taken_any_more() {
    let (rig, queue) = stand().await;
    let consumers = rig.pipeline.consumers().clone();
    let waiting: Vec<_> =
        (0..100).map(|_| consumers.ask(wish(&queue, 1, PATIENCE)).expect("taken")).collect();
    consumers.shut();
    for waiting in waiting {
        assert!(matches!(waiting.await, Ok(None)));
    }
    assert!(matches!(consumers.ask(wish(&queue, 1, PATIENCE)), Err(Refused::ShuttingDown)));
    rig.stop().await;
}

#[tokio::test]
async fn answers_that_are_not_taken_yet_hold_up_those_to_come() {
    let (rig, queue) = stand_with(ConsumerLimits { consumers_max: 3, answers_bytes_max: 2 << 10 }).await;
    rig.publish(&queue, 2).await;
    let consumers = rig.pipeline.consumers();
    let wish = || Wish { message_bytes_max: 2 << 10, ..wish(&queue, 1, PATIENCE) };
    let first = consumers.ask(wish()).expect("taken").await.expect("an answer").expect("a message");
    let mut second = consumers.ask(wish()).expect("taken");
    assert!(timeout(Duration::from_millis(50), &mut second).await.is_err(), "there is no memory for it");
    let told = consumers.ask(Wish { until: Instant::now(), ..wish() }).expect("taken").await;
    assert!(matches!(told, Err(Refused::AnswersFull)), "who cannot wait is told what is missing: {told:?}");
    assert_eq!(batches(&rig).len(), 1, "the store was not asked");
    first.hold.arrived();
    second.await.expect("an answer").expect("a message").hold.arrived();
    rig.stop().await;
}

#[tokio::test]
async fn answers_of_one_queue_that_nobody_takes_hold_up_no_other_queue() {
    let (rig, queue) = stand_with(ConsumerLimits { consumers_max: 50, answers_bytes_max: 64 << 10 }).await;
    let settings = QueueSettings { processor: PULL.to_owned(), ..QueueSettings::default() };
    let other = put(&*rig.peer.connect(), "others", settings).await;
    rig.catalog.put(other.clone());
    let messages = (0..100).map(|_| message(&rig.clock, 3, &[b'x'; 1_000])).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.publish(&other, 3).await;
    let consumers = rig.pipeline.consumers();
    let wish = |queue, wait| Wish { message_bytes_max: 1 << 10, ..wish(queue, 1_000, wait) };
    let mut held = Vec::new();
    loop {
        match consumers.ask(wish(&queue, Duration::ZERO)).expect("taken").await {
            Ok(parcel) => held.push(parcel.expect("there are messages left")),
            Err(refused) => break assert_eq!(refused, Refused::AnswersFull),
        }
    }
    let parcel = consumers.ask(wish(&other, Duration::ZERO)).expect("taken").await.expect("an answer");
    let parcel = parcel.expect("messages");
    assert_eq!(parcel.leases.len(), 3);
    parcel.hold.arrived();
    // And its own go on as soon as something of theirs was taken.
    let waiting = consumers.ask(wish(&queue, PATIENCE)).expect("taken");
    held.swap_remove(0).hold.arrived();
    waiting.await.expect("an answer").expect("messages").hold.arrived();
    rig.stop().await;
}
