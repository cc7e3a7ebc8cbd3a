//! Publishing: gathering, sending again, refusing.

use std::sync::mpsc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::peer::{Act, Kind};
use super::rig::{Bed, PATIENCE, Rig, build_done, group, soon, until};
use crate::pipeline::ingester::Refused;
use crate::pipeline::phase;
use crate::pipeline::settings::IngestSettings;
use crate::store::QueueEntry;
use crate::store::enqueue::GroupResult;
use crate::store::error::{StoreError, Stored};

async fn rig(ingest: IngestSettings) -> (Rig, QueueEntry) {
    let mut bed = Bed::new();
    bed.ingest = ingest;
    let queue = bed.queue("orders", build_done(|_| {})).await;
    (bed.start(), queue)
}

/// What calls carry when so many publish in each turn of their thread; the rows follow each other, answered in between.
async fn carried(rows: &'static [&'static [usize]]) -> Vec<usize> {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let (done, is_done) = mpsc::sync_channel(1);
    let (pipeline, clock, queue_there) = (rig.pipeline.clone(), rig.clock.clone(), queue.clone());
    let arbiter = rig.supervisor.arbiter("one-thread");
    assert!(arbiter.spawn("publish", move || async move {
        let ingester = pipeline.ingester();
        // What a socket brings is seen a turn of the thread later, as the next requests are.
        let (mut near, mut far) = UnixStream::pair().unwrap();
        for row in rows {
            let mut publishes = Vec::new();
            for count in *row {
                publishes
                    .extend((0..*count).map(|_| ingester.publish(group(&clock, &queue_there, 1), soon())));
                assert!(far.try_read(&mut [0]).is_err());
                near.write_all(b"x").await.unwrap();
                far.read_exact(&mut [0]).await.unwrap();
            }
            let answers = join_all(publishes).await;
            assert_eq!(answers, vec![Ok(GroupResult::Accepted); row.iter().sum()]);
        }
        done.send(()).unwrap();
    }));
    is_done.recv_timeout(PATIENCE).unwrap();
    let carried = rig.peer.enqueues().iter().map(|(_, queues)| queues.len()).collect();
    rig.stop().await;
    carried
}

#[tokio::test]
async fn publishes_that_are_ready_together_become_one_call() {
    assert_eq!(carried(&[&[64]]).await, [64]);
}

#[tokio::test]
async fn a_small_call_waits_for_those_who_come_a_turn_later_and_one_that_is_not_small_does_not() {
    assert_eq!(carried(&[&[1, 1, 1, 1]]).await, [4]);
    let calls = carried(&[&[64, 1, 1, 1, 1, 1, 1, 1]]).await;
    assert!(calls.len() > 1 && (64..=66).contains(&calls[0]), "{calls:?}");
}

#[tokio::test]
async fn a_call_waits_some_turns_for_nobody_only_where_the_last_one_carried_more() {
    assert_eq!(carried(&[&[4], &[1, 0, 0, 3]]).await, [4, 4]);
    let calls = carried(&[&[4], &[1, 0, 0, 0, 0, 0, 0, 0, 3]]).await;
    assert_eq!(calls[..2], [4, 1], "{calls:?}");
    let calls = carried(&[&[1], &[1, 0, 0, 3]]).await;
    assert_eq!(calls[..2], [1, 1], "{calls:?}");
}

#[tokio::test]
async fn a_call_that_is_not_small_leaves_before_those_of_the_last_one_are_heard_again() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let (done, is_done) = mpsc::sync_channel(1);
    let (pipeline, clock, peer, queue_there) =
        (rig.pipeline.clone(), rig.clock.clone(), rig.peer.clone(), queue.clone());
    let arbiter = rig.supervisor.arbiter("one-thread");
    assert!(arbiter.spawn("publish", move || async move {
        let ingester = pipeline.ingester();
        let publish = || ingester.publish(group(&clock, &queue_there, 1), soon());
        let gate = peer.hold(Kind::Enqueue);
        let first = publish();
        until("the first call is with the store", || peer.enqueues().len() == 1).await;
        let others = join_all((0..64).map(|_| publish()));
        gate.add_permits(1);
        // Whoever was answered publishes again at once.
        let again = async {
            assert_eq!(first.await, Ok(GroupResult::Accepted));
            publish().await
        };
        let (others, again) = futures_util::future::join(others, again).await;
        assert!(others.into_iter().chain([again]).all(|answer| answer == Ok(GroupResult::Accepted)));
        done.send(()).unwrap();
    }));
    is_done.recv_timeout(PATIENCE).unwrap();
    let calls: Vec<_> = rig.peer.enqueues().iter().map(|(_, queues)| queues.len()).collect();
    assert_eq!(calls, [1, 64, 1]);
    rig.stop().await;
}

#[tokio::test]
async fn the_next_call_leaves_when_the_previous_has_returned_and_carries_all_that_came_meanwhile() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let others: Vec<_> =
        (0..63).map(|_| rig.ingester.publish(group(&rig.clock, &queue, 1), soon())).collect();
    assert_eq!(rig.ingester.depth().0, 63);
    assert_eq!(rig.peer.enqueues().len(), 1);
    gate.add_permits(1);
    assert_eq!(first.await, Ok(GroupResult::Accepted));
    assert_eq!(join_all(others).await, vec![Ok(GroupResult::Accepted); 63]);
    let calls: Vec<_> = rig.peer.enqueues().iter().map(|(_, queues)| queues.len()).collect();
    assert_eq!(calls, [1, 63]);
    rig.stop().await;
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_sent_again_by_its_id_and_stored_once() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    rig.peer.tell(Kind::Enqueue, [Act::LoseAnswer, Act::LoseAnswer]);
    rig.publish(&queue, 3).await;
    let calls = rig.peer.enqueues();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|(id, _)| *id == calls[0].0));
    assert_eq!(rig.stats(&queue).await.counters.accepted, 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_store_that_goes_away_after_it_may_have_stored_is_asked_until_it_is_back() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let away = || Act::Refuse(StoreError::Unavailable("it restarts".to_owned()));
    rig.peer.tell(Kind::Enqueue, [Act::LoseAnswer, away(), away()]);
    // Told "nothing was stored" its client would send it again, and it would be there twice.
    rig.publish(&queue, 3).await;
    let calls = rig.peer.enqueues();
    assert!(calls.len() == 4 && calls.iter().all(|(id, _)| *id == calls[0].0), "{calls:?}");
    assert_eq!(rig.stats(&queue).await.counters.accepted, 3);
    rig.stop().await;
}

#[tokio::test]
async fn one_group_whose_answer_is_lost_is_asked_for_again_and_the_others_need_not_wait() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let again = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    rig.peer.tell(Kind::Enqueue, [Act::LoseGroup(1), Act::Hold(again.clone())]);
    let known = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    let unknown = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    gate.add_permits(1);
    assert_eq!(first.await, Ok(GroupResult::Accepted));
    assert_eq!(known.await, Ok(GroupResult::Accepted));
    again.add_permits(1);
    assert_eq!(unknown.await, Ok(GroupResult::Accepted));
    let calls = rig.peer.enqueues();
    assert_eq!((calls.len(), calls[1].0), (3, calls[2].0));
    assert_eq!(rig.stats(&queue).await.counters.accepted, 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_queue_whose_fate_stays_unknown_holds_up_no_other() {
    let mut bed = Bed::new();
    let broken = bed.queue("broken", build_done(|_| {})).await;
    let sound = bed.queue("sound", build_done(|_| {})).await;
    let rig = bed.start();
    rig.peer.blind(Some("broken"));
    let first = rig.ingester.publish(group(&rig.clock, &broken, 1), soon());
    let second = rig.ingester.publish(group(&rig.clock, &broken, 1), soon());
    until("its fate was asked for again", || rig.peer.enqueues().len() > 3).await;
    let brief = Instant::now() + Duration::from_millis(30);
    let behind = rig.ingester.publish(group(&rig.clock, &broken, 1), brief);
    for _ in 0..100 {
        rig.publish(&sound, 1).await;
    }
    // The store was not asked for it while the fate of those before it was open.
    assert_eq!(behind.await, Err(Refused::TimedOut { stored: Stored::No }));
    rig.peer.blind(None);
    assert_eq!((first.await, second.await), (Ok(GroupResult::Accepted), Ok(GroupResult::Accepted)));
    rig.publish(&broken, 1).await;
    assert_eq!(rig.stats(&broken).await.counters.accepted, 3);
    let calls = rig.peer.enqueues();
    let to_broken: std::collections::HashSet<_> = calls
        .iter()
        .filter(|(_, queues)| queues.contains(&"broken".to_owned()))
        .map(|(id, _)| id.0)
        .collect();
    assert!(to_broken.len() <= 3, "always the same calls: {calls:?}");
    rig.stop().await;
}

#[tokio::test]
async fn what_waits_for_the_fate_of_others_leaves_room_for_the_other_queues() {
    let mut bed = Bed::new();
    bed.ingest = IngestSettings { waiting_messages_max: 8, ..IngestSettings::default() };
    let broken = bed.queue("broken", build_done(|_| {})).await;
    let sound = bed.queue("sound", build_done(|_| {})).await;
    let rig = bed.start();
    rig.peer.blind(Some("broken"));
    let first = rig.ingester.publish(group(&rig.clock, &broken, 1), soon());
    until("its fate was asked for again", || rig.peer.enqueues().len() > 3).await;
    let mut behind: Vec<_> =
        (0..3).map(|_| rig.ingester.publish(group(&rig.clock, &broken, 1), soon())).collect();
    let refused = behind.pop().expect("three").await;
    assert!(matches!(refused, Err(Refused::Overloaded { limit: 2, .. })), "{refused:?}");
    rig.publish(&sound, 1).await;
    rig.peer.blind(None);
    assert_eq!(first.await, Ok(GroupResult::Accepted));
    assert_eq!(join_all(behind).await, vec![Ok(GroupResult::Accepted); 2]);
    rig.stop().await;
}

#[tokio::test]
async fn at_its_deadline_a_waiter_is_told_whether_the_store_was_asked() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let brief = || Instant::now() + Duration::from_millis(30);
    let asked = rig.ingester.publish(group(&rig.clock, &queue, 1), brief());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let not_asked = rig.ingester.publish(group(&rig.clock, &queue, 1), brief());
    assert_eq!(not_asked.await, Err(Refused::TimedOut { stored: Stored::No }));
    assert_eq!(asked.await, Err(Refused::TimedOut { stored: Stored::Unknown }));
    gate.add_permits(1);
    rig.publish(&queue, 1).await;
    assert_eq!(rig.stats(&queue).await.counters.accepted, 2, "what was not asked for was not stored");
    rig.stop().await;
}

#[tokio::test]
async fn what_stays_unknown_ends_at_the_deadline_and_the_next_call_leaves() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    rig.peer.tell(Kind::Enqueue, vec![Act::LoseAnswer; 10_000]);
    let unknown = rig.ingester.publish(group(&rig.clock, &queue, 1), Instant::now() + Duration::from_secs(1));
    assert_eq!(unknown.await, Err(Refused::TimedOut { stored: Stored::Unknown }));
    let tries = rig.peer.enqueues();
    assert!(tries.len() > 1 && tries.iter().all(|(id, _)| *id == tries[0].0));
    rig.peer.tell_no_more();
    rig.publish(&queue, 1).await;
    assert_ne!(rig.peer.enqueues().last().map(|(id, _)| *id), Some(tries[0].0));
    rig.stop().await;
}

#[tokio::test]
async fn what_the_store_refuses_for_sure_is_not_tried_again() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let error = StoreError::Full("the disk".to_owned());
    rig.peer.tell(Kind::Enqueue, [Act::Refuse(error.clone())]);
    let answer = rig.ingester.publish(group(&rig.clock, &queue, 1), soon()).await;
    assert_eq!(answer, Ok(GroupResult::Failed(error)));
    assert_eq!(rig.peer.enqueues().len(), 1);
    rig.publish(&queue, 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_waiter_that_is_dropped_changes_nothing() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let on_its_way = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let waiting = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    drop((on_its_way, waiting));
    gate.add_permits(1);
    rig.until(&queue, "both are stored", |stats| stats.counters.accepted == 2).await;
    // The places of those two are used again.
    for _ in 0..4 {
        rig.publish(&queue, 1).await;
    }
    assert_eq!(rig.stats(&queue).await.counters.accepted, 6);
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_larger_than_a_call_counts_as_one_and_leaves_alone() {
    let bounds =
        IngestSettings { call_messages_max: 10, waiting_messages_max: 40, ..IngestSettings::default() };
    let (rig, queue) = rig(bounds).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let singles: Vec<_> =
        (0..15).map(|_| rig.ingester.publish(group(&rig.clock, &queue, 1), soon())).collect();
    let batch = rig.ingester.publish(group(&rig.clock, &queue, 1_000), soon());
    let more: Vec<_> = (0..15).map(|_| rig.ingester.publish(group(&rig.clock, &queue, 1), soon())).collect();
    assert_eq!(rig.ingester.depth().0, 40);
    let refused = rig.ingester.publish(group(&rig.clock, &queue, 1), soon()).await;
    assert_eq!(refused, Err(Refused::Overloaded { setting: "ingest.waiting_messages_max", limit: 40 }));
    gate.add_permits(1);
    assert_eq!((first.await, batch.await), (Ok(GroupResult::Accepted), Ok(GroupResult::Accepted)));
    assert_eq!(join_all(singles).await, vec![Ok(GroupResult::Accepted); 15]);
    assert_eq!(join_all(more).await, vec![Ok(GroupResult::Accepted); 15]);
    let groups: Vec<_> = rig.peer.enqueues().iter().map(|(_, queues)| queues.len()).collect();
    assert_eq!(groups, [1, 10, 5, 1, 10, 5], "in the order they came");
    assert_eq!((rig.stats(&queue).await.counters.accepted, rig.ingester.depth()), (1_031, (0, 0)));
    rig.stop().await;
}

#[tokio::test]
async fn beyond_its_bounds_an_ingester_refuses_and_names_the_setting() {
    let bounds =
        IngestSettings { waiting_messages_max: 10, waiting_bytes_max: 64 << 10, ..IngestSettings::default() };
    let (rig, queue) = rig(bounds).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let full = rig.ingester.publish(group(&rig.clock, &queue, 10), soon());
    let refused = rig.ingester.publish(group(&rig.clock, &queue, 1), soon()).await;
    assert_eq!(refused, Err(Refused::Overloaded { setting: "ingest.waiting_messages_max", limit: 10 }));
    assert_eq!(refused.map_err(|refused| refused.stored()), Err(Stored::No));
    gate.add_permits(1);
    assert_eq!((first.await, full.await), (Ok(GroupResult::Accepted), Ok(GroupResult::Accepted)));
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the call is with the store", || rig.peer.enqueues().len() == 3).await;
    let mut large = group(&rig.clock, &queue, 0);
    large.messages = std::sync::Arc::new([super::rig::message(&rig.clock, 3, &vec![0; 100 << 10])]);
    let large = rig.ingester.publish(large, soon());
    let refused = rig.ingester.publish(group(&rig.clock, &queue, 1), soon()).await;
    assert_eq!(refused, Err(Refused::Overloaded { setting: "ingest.waiting_bytes_max", limit: 64 << 10 }));
    gate.add_permits(1);
    assert_eq!(first.await, Ok(GroupResult::Accepted));
    assert_eq!(large.await, Ok(GroupResult::Accepted), "one group may exceed the bounds alone");
    assert_eq!(rig.stats(&queue).await.counters.accepted, 13);
    rig.stop().await;
}

#[tokio::test]
async fn queues_take_turns_when_not_all_that_waits_fits_one_call() {
    let mut bed = Bed::new();
    bed.ingest.call_messages_max = 10;
    let busy = bed.queue("busy", build_done(|_| {})).await;
    let quiet = bed.queue("quiet", build_done(|_| {})).await;
    let rig = bed.start();
    let gate = rig.peer.hold(Kind::Enqueue);
    let mut publishes = vec![rig.ingester.publish(group(&rig.clock, &busy, 1), soon())];
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    publishes.extend((0..50).map(|_| rig.ingester.publish(group(&rig.clock, &busy, 1), soon())));
    publishes.extend((0..2).map(|_| rig.ingester.publish(group(&rig.clock, &quiet, 1), soon())));
    publishes.push(rig.ingester.publish(group(&rig.clock, &quiet, 30), soon()));
    gate.add_permits(1);
    assert_eq!(join_all(publishes).await, vec![Ok(GroupResult::Accepted); 54]);
    let calls = rig.peer.enqueues();
    let of = |call: usize, name: &str| calls[call].1.iter().filter(|queue| *queue == name).count();
    assert_eq!((of(1, "busy"), of(1, "quiet")), (8, 2), "the quiet queue did not wait for the busy one");
    let alone = calls.iter().position(|(_, queues)| queues == &["quiet"]);
    assert!(alone.is_some(), "a group beyond the bound is a call of its own: {calls:?}");
    rig.stop().await;
}

#[tokio::test]
async fn an_ingester_that_panics_asks_for_the_same_call_again() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    rig.peer.tell(Kind::Enqueue, [Act::Panic]);
    rig.publish(&queue, 2).await;
    let calls = rig.peer.enqueues();
    assert_eq!((calls.len(), calls[0].0), (2, calls[1].0));
    assert_eq!(rig.stats(&queue).await.counters.accepted, 2);
    rig.stop().await;
}

#[tokio::test]
async fn an_ingester_that_gives_up_leaves_nobody_waiting() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    rig.peer.tell(Kind::Enqueue, vec![Act::Panic; 10]);
    let asked = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let unknown = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    gate.add_permits(1);
    assert_eq!(asked.await, Ok(GroupResult::Accepted));
    until("the second call is with the store", || rig.peer.enqueues().len() == 2).await;
    let not_asked = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    assert!(matches!(unknown.await, Ok(GroupResult::Failed(error)) if error.stored() == Stored::Unknown));
    assert_eq!(not_asked.await, Err(Refused::ShuttingDown));
    let late = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    assert_eq!(late.await, Err(Refused::ShuttingDown));
    assert!(rig.supervisor.gave_up().is_some_and(|name| name.starts_with("ingester-")));
}

#[tokio::test]
async fn at_shutdown_what_waits_is_stored_and_what_comes_later_is_refused() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let gate = rig.peer.hold(Kind::Enqueue);
    let first = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let waiting = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    let deadline = rig.supervisor.begin_phase(phase::INGEST, PATIENCE);
    gate.add_permits(1);
    assert_eq!((first.await, waiting.await), (Ok(GroupResult::Accepted), Ok(GroupResult::Accepted)));
    assert_eq!(rig.supervisor.wait_phase(phase::INGEST, deadline).await, []);
    let late = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    assert_eq!(late.await, Err(Refused::ShuttingDown));
    rig.stop().await;
}

#[tokio::test]
async fn at_the_deadline_of_the_shutdown_those_who_wait_are_told_the_truth() {
    let (rig, queue) = rig(IngestSettings::default()).await;
    let _gate = rig.peer.hold(Kind::Enqueue);
    let asked = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    until("the first call is with the store", || rig.peer.enqueues().len() == 1).await;
    let not_asked = rig.ingester.publish(group(&rig.clock, &queue, 1), soon());
    let deadline = rig.supervisor.begin_phase(phase::INGEST, Duration::from_millis(200));
    assert!(matches!(asked.await, Ok(GroupResult::Failed(error)) if error.stored() == Stored::Unknown));
    assert_eq!(not_asked.await, Err(Refused::ShuttingDown));
    assert_eq!(rig.supervisor.wait_phase(phase::INGEST, deadline + PATIENCE).await, []);
    rig.stop().await;
}
