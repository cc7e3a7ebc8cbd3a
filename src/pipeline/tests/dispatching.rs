//! Leasing: what, how much, and from whom in turn.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::peer::{Act, Call, Kind};
use super::rig::{Bed, Crowd, Seen, build, build_done, put, until};
use crate::clock::Clock;
use crate::domain::outcome::Outcome;
use crate::domain::queue::{PULL, ParkReason, QueueSettings};
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::lease::{BatchId, LeaseKind, LeaseRequest};
use crate::store::{Hold, MessageStore, QueueEntry, Store as _};

/// How many attempts each thread began.
type Threads = Arc<Mutex<HashMap<String, usize>>>;

#[tokio::test]
async fn a_message_published_to_an_idle_gateway_is_never_forgotten() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    let seen = Seen::default();
    let process = build_done({
        let seen = seen.clone();
        move |delivery| seen.add(delivery)
    });
    let queue = bed.queue("orders", process).await;
    let rig = bed.start();
    for round in 1..=200 {
        rig.publish(&queue, 1).await;
        until("it was processed", || seen.len() == round).await;
    }
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 200).await;
    let ids: HashSet<_> = seen.all().into_iter().collect();
    assert_eq!(ids.len(), 200, "each once, as attempt 1");
    rig.stop().await;
}

#[tokio::test]
async fn queues_are_leased_from_in_turn() {
    let mut bed = Bed::new();
    bed.workers.lease_max = 4;
    let busy = bed.queue("busy", build_done(|_| {})).await;
    let quiet = bed.queue("quiet", build_done(|_| {})).await;
    let store = bed.peer.connect();
    for (queue, count) in [(&busy, 100), (&quiet, 8)] {
        let group = super::rig::group(&bed.clock, queue, count);
        store.enqueue(crate::store::enqueue::CallId::random(), Arc::new(vec![group])).await.expect("stored");
    }
    let rig = bed.start();
    rig.until(&busy, "all are delivered", |stats| stats.counters.delivered == 100).await;
    let leases: Vec<_> = rig
        .peer
        .calls()
        .into_iter()
        .filter_map(|call| if let Call::Lease { queue, .. } = call { Some(queue) } else { None })
        .take(4)
        .collect();
    let quiet_ones = leases.iter().filter(|queue| *queue == "quiet").count();
    assert_eq!(quiet_ones, 2, "{leases:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_queue_whose_leases_stay_unknown_holds_up_no_other() {
    let mut bed = Bed::new();
    let broken = bed.queue("broken", build_done(|_| {})).await;
    let sound = bed.queue("sound", build_done(|_| {})).await;
    let store = bed.peer.connect();
    let waiting = super::rig::group(&bed.clock, &broken, 3);
    store.enqueue(crate::store::enqueue::CallId::random(), Arc::new(vec![waiting])).await.expect("stored");
    bed.peer.blind(Some("broken"));
    let rig = bed.start();
    let asked = || rig.peer.count(|call| matches!(call, Call::Lease { queue, .. } if queue == "broken"));
    until("it is asked for again and again", || asked() > 3).await;
    for round in 1..=20 {
        rig.publish(&sound, 1).await;
        rig.until(&sound, "the others are delivered", |stats| stats.counters.delivered == round).await;
    }
    rig.peer.blind(None);
    rig.until(&broken, "all are delivered", |stats| stats.counters.delivered == 3).await;
    rig.stop().await;
}

#[tokio::test]
async fn settings_that_change_while_a_lease_is_asked_for_hold_for_what_it_brings() {
    let (mut bed, seen) = (Bed::new(), Arc::new(Mutex::new(Vec::new())));
    let note = seen.clone();
    let build = build_done(move |delivery| note.lock().unwrap().push(delivery.settings.timeout));
    let queue = bed.queue("orders", build).await;
    let gate = bed.peer.hold(Kind::Lease);
    let rig = bed.start();
    until("a lease is asked for", || rig.peer.count(|call| matches!(call, Call::Lease { .. })) > 0).await;
    let timeout = queue.settings.timeout + Duration::from_secs(1);
    let settings = QueueSettings { timeout, ..QueueSettings::clone(&queue.settings) };
    rig.catalog.put(put(&*rig.peer.connect(), "orders", settings).await);
    rig.publish(&queue, 3).await;
    gate.add_permits(1);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 3).await;
    assert_eq!(*seen.lock().unwrap(), [timeout; 3]);
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.counters.retried, stats.counters.recovered), (0, 0), "nothing is counted");
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_whose_answer_is_lost_is_asked_for_again_under_its_batch_id() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    bed.peer.tell(Kind::Lease, [Act::LoseAnswer, Act::LoseAnswer, Act::LoseAnswer]);
    let rig = bed.start();
    rig.publish(&queue, 5).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 5).await;
    let stats = rig.stats(&queue).await;
    assert_eq!((stats.counters.retried, stats.counters.recovered, stats.gauges.leased), (0, 0, 0));
    let batches: Vec<_> = rig
        .peer
        .calls()
        .into_iter()
        .filter_map(|call| if let Call::Lease { batch, .. } = call { Some(batch) } else { None })
        .take(4)
        .collect();
    assert_eq!(batches, vec![batches[0]; 4]);
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_that_a_store_may_have_given_before_it_went_away_is_asked_for_until_it_is_back() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let away = || Act::Refuse(StoreError::Unavailable("it restarts".to_owned()));
    bed.peer.tell(Kind::Lease, [Act::LoseAnswer, away(), away()]);
    let store = bed.peer.connect();
    let group = super::rig::group(&bed.clock, &queue, 5);
    store.enqueue(crate::store::enqueue::CallId::random(), Arc::new(vec![group])).await.expect("stored");
    let rig = bed.start();
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 5).await;
    assert_eq!(rig.stats(&queue).await.counters.recovered, 0, "no lease was left to run out");
    rig.stop().await;
}

#[tokio::test]
async fn a_dispatcher_that_breaks_gets_the_batch_that_it_had_asked_for() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let store = bed.peer.connect();
    let group = super::rig::group(&bed.clock, &queue, 5);
    store.enqueue(crate::store::enqueue::CallId::random(), Arc::new(vec![group])).await.expect("stored");
    bed.peer.tell(Kind::Lease, [Act::Panic]);
    let rig = bed.start();
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 5).await;
    let counters = rig.stats(&queue).await.counters;
    assert_eq!((counters.retried, counters.recovered), (0, 0));
    assert!(rig.supervisor.watch().iter().any(|actor| actor.name == "dispatcher-0" && actor.restarts == 1));
    rig.stop().await;
}

#[tokio::test]
async fn leasing_goes_on_by_itself_when_the_store_is_back() {
    let mut bed = Bed::new();
    let queue = bed.queue("orders", build_done(|_| {})).await;
    let away = Act::Refuse(StoreError::Unavailable("told so".to_owned()));
    bed.peer.tell(Kind::Lease, vec![away; 4]);
    let rig = bed.start();
    rig.publish(&queue, 5).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 5).await;
    rig.stop().await;
}

#[tokio::test]
async fn only_queues_that_a_worker_may_drain_are_leased_from() {
    let mut bed = Bed::new();
    let (paused, parked) =
        (bed.queue("paused", build_done(|_| {})).await, bed.queue("parked", build_done(|_| {})).await);
    let store = bed.peer.connect();
    let pull = QueueSettings { processor: PULL.to_owned(), ..QueueSettings::default() };
    let unknown = QueueSettings { processor: "nobody".to_owned(), ..QueueSettings::default() };
    let (pull, unknown) = (put(&*store, "pull", pull).await, put(&*store, "unknown", unknown).await);
    let hold = async |queue: &QueueEntry, how| store.hold(queue.queue_ref(), how).await.expect("held");
    let entries = [
        hold(&paused, Hold::Pause).await,
        hold(&parked, Hold::Park(ParkReason::DestinationGone)).await,
        pull.clone(),
        unknown.clone(),
    ];
    for entry in entries {
        bed.catalog.put(entry);
    }
    let drained = bed.queue("drained", build_done(|_| {})).await;
    let rig = bed.start();
    for queue in [&paused, &parked, &pull, &unknown] {
        rig.publish(queue, 1).await;
        rig.peer.wakes().post(&queue.name);
    }
    // When the second of these is delivered, all that was posted before the first has been looked at.
    for count in 1..=2 {
        rig.publish(&drained, 1).await;
        rig.until(&drained, "it is delivered", |stats| stats.counters.delivered == count).await;
    }
    let of_others = |call: &Call| matches!(call, Call::Lease { queue, .. } if queue != "drained");
    assert_eq!(rig.peer.count(of_others), 0);
    for queue in [&paused, &parked] {
        rig.catalog.put(hold(queue, Hold::Resume).await);
        rig.until(queue, "it is delivered", |stats| stats.counters.delivered == 1).await;
    }
    assert_eq!((rig.stats(&pull).await.gauges.pending, rig.stats(&unknown).await.gauges.pending), (1, 1));
    rig.stop().await;
}

/// Makes suspects that must be alone of all that is pending in a queue: leases it and lets the leases run out, twice.
async fn lose(store: &dyn MessageStore, clock: &Clock, queue: &QueueEntry, count: usize) {
    for _ in 0..2 {
        let request = LeaseRequest {
            queue: queue.queue_ref(),
            batch: BatchId::random(),
            kind: LeaseKind::Worker,
            max: 1_000,
            bytes_max: 1 << 30,
            lease: Duration::from_secs(1),
            suspects: true,
        };
        assert_eq!(store.lease(request).await.expect("leased").leases.len(), count);
        clock.advance(Duration::from_secs(2));
        assert_eq!(store.sweep().await.expect("swept").reaped, count as u64);
    }
}

#[tokio::test]
async fn suspects_are_leased_alone_and_one_at_a_time_in_the_whole_process() {
    let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let mut bed = Bed::with(clock.clone());
    bed.workers.threads = 2;
    let (suspects_inside, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
    let process = {
        let (crowd, gate) = (suspects_inside.clone(), gate.clone());
        build(move |delivery| {
            let inside = delivery.record.is_suspect().then(|| crowd.enter());
            let gate = gate.clone();
            Box::pin(async move {
                if inside.is_some() {
                    gate.acquire().await.expect("the gate stays").forget();
                }
                drop(inside);
                Outcome::Done.into()
            })
        })
    };
    let (one, other) = (bed.queue("one", process.clone()).await, bed.queue("other", process).await);
    let store = bed.peer.connect();
    for queue in [&one, &other] {
        let group = super::rig::group(&clock, queue, 20);
        store.enqueue(crate::store::enqueue::CallId::random(), Arc::new(vec![group])).await.expect("stored");
        lose(&*store, &clock, queue, 20).await;
    }
    let with_others = |call: &Call| matches!(call, Call::Leased { taken, suspect: true } if *taken != 1);
    let made_so = bed.peer.count(with_others);
    let rig = bed.start();
    for queue in [&one, &other] {
        rig.publish(queue, 50).await;
        rig.until(queue, "the healthy ones are delivered", |stats| stats.counters.delivered >= 50).await;
    }
    until("a suspect runs", || suspects_inside.inside() == 1).await;
    gate.add_permits(40);
    for queue in [&one, &other] {
        rig.until(queue, "the suspects are delivered", |stats| stats.counters.delivered == 70).await;
    }
    assert_eq!(suspects_inside.most(), 1);
    assert_eq!(rig.peer.count(with_others), made_so);
    rig.stop().await;
}

#[tokio::test]
async fn idle_threads_share_the_work_of_a_queue() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    let (crowd, gate, threads) = (Crowd::default(), Arc::new(Semaphore::new(0)), Threads::default());
    let process = {
        let (crowd, gate, threads) = (crowd.clone(), gate.clone(), threads.clone());
        build(move |_| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            *threads.lock().unwrap().entry(name).or_default() += 1;
            let (inside, gate) = (crowd.enter(), gate.clone());
            Box::pin(async move {
                gate.acquire().await.expect("the gate stays").forget();
                drop(inside);
                Outcome::Done.into()
            })
        })
    };
    let queue = bed.queue_with("orders", process, |settings| settings.delivery.concurrency_max = 10).await;
    let rig = bed.start();
    rig.publish(&queue, 10).await;
    until("all run", || crowd.inside() == 10).await;
    let counts: Vec<_> = threads.lock().unwrap().values().copied().collect();
    assert_eq!(counts, [5, 5]);
    gate.add_permits(10);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 10).await;
    rig.stop().await;
}
