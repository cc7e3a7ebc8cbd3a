//! Settling: whole batches, sent again, kept within bounds.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::peer::{Act, Call, Kind};
use super::rig::{Bed, build, build_done, message};
use crate::domain::outcome::Outcome;
use crate::store::enqueue::Group;
use crate::store::error::StoreError;

#[tokio::test]
async fn a_settlement_whose_answer_is_lost_is_sent_again_and_counts_once() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let rig = bed.start();
    let refusal = Act::Refuse(StoreError::Unavailable("told so".to_owned()));
    rig.peer.tell(Kind::Settle, [Act::LoseAnswer, refusal, Act::LoseAnswer]);
    rig.publish(&queue, 10).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 10).await;
    super::rig::until("it was sent again", || {
        rig.peer.count(|call| matches!(call, Call::Settle { .. })) >= 4
    })
    .await;
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.counters.recovered, stats.gauges.leased), (10, 0, 0));
    rig.stop().await;
}

#[tokio::test]
async fn a_settler_that_breaks_loses_nothing_that_it_took() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let rig = bed.start();
    rig.peer.tell(Kind::Settle, [Act::Panic]);
    rig.publish(&queue, 10).await;
    let settled = || rig.peer.count(|call| matches!(call, Call::Settle { .. })) >= 2;
    super::rig::until("the next life sent it again", settled).await;
    rig.publish(&queue, 10).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 20).await;
    assert_eq!(rig.stats(&queue).await.counters.recovered, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_is_settled_in_one_call_with_all_its_verdicts() {
    let mut bed = Bed::new();
    let process = build(|delivery| {
        let outcome = if delivery.record.payload().is_empty() { Outcome::Done } else { Outcome::retry() };
        Box::pin(async { outcome.into() })
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    let payload = |index: usize| if index.is_multiple_of(2) { &b""[..] } else { b"again" };
    let messages = (0..40).map(|index| message(&rig.clock, 3, payload(index))).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.until(&queue, "all are settled", |stats| {
        stats.counters.delivered == 20 && stats.counters.retried == 20
    })
    .await;
    let settles: Vec<_> =
        rig.peer.calls().into_iter().filter(|call| matches!(call, Call::Settle { .. })).collect();
    assert!(matches!(settles[..], [Call::Settle { count: 40 }]), "{settles:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_slow_message_does_not_hold_back_its_batch_mates() {
    let mut bed = Bed::new();
    let gate = Arc::new(Semaphore::new(0));
    let process = {
        let gate = gate.clone();
        build(move |delivery| {
            let gate = gate.clone();
            Box::pin(async move {
                if &delivery.record.payload()[..] == b"slow" {
                    gate.acquire().await.expect("the gate stays").forget();
                }
                Outcome::Done.into()
            })
        })
    };
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    let payloads: [&[u8]; 4] = [b"fast", b"slow", b"fast", b"fast"];
    let messages = payloads.iter().map(|payload| message(&rig.clock, 3, payload)).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.until(&queue, "the fast ones are delivered", |stats| stats.counters.delivered == 3).await;
    assert_eq!(rig.stats(&queue).await.gauges.leased, 1);
    gate.add_permits(1);
    rig.until(&queue, "the slow one as well", |stats| stats.counters.delivered == 4).await;
    rig.stop().await;
}

#[tokio::test]
async fn nothing_is_leased_while_too_many_attempts_wait_to_be_settled() {
    let mut bed = Bed::new();
    bed.workers.unsettled_max = 20;
    bed.workers.lease_max = 10;
    bed.workers.prefetch = 0;
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let rig = bed.start();
    let gate = Arc::new(Semaphore::new(0));
    rig.peer.tell(Kind::Settle, vec![Act::Hold(gate.clone()); 100]);
    rig.publish(&queue, 200).await;
    rig.until(&queue, "some are leased", |stats| stats.gauges.leased >= 20).await;
    // Time enough to lease all of them, were it not for the bound.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let leased = rig.stats(&queue).await.gauges.leased;
    assert!(
        leased <= 20 + 64 + 10,
        "{leased} are leased: more than wait to be settled, run, and are one lease"
    );
    gate.add_permits(1_000);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 200).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_can_never_be_settled_ends_by_its_lost_leases_and_the_gateway_lives() {
    let mut bed = Bed::new();
    let second = std::time::Duration::from_secs(1);
    let queue = bed.queue_with("orders", build_done(|_| {}), |settings| settings.lease = Some(second)).await;
    let rig = bed.start();
    let away = Act::Refuse(StoreError::Unavailable("told so".to_owned()));
    rig.peer.tell(Kind::Settle, vec![away; 10_000]);
    let messages = vec![message(&rig.clock, 2, b"")];
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: messages.into() }).await;
    rig.until(&queue, "it is dead", |stats| stats.gauges.dead == 1 && stats.counters.recovered == 2).await;
    assert!(rig.supervisor.watch().iter().all(|actor| actor.restarts == 0));
    rig.stop().await;
}
