//! Slots: what is left for others while the attempts of some do not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::rig::{Bed, Crowd, Inside, Rig, build, build_done, group, message, until, until_still};
use crate::domain::outcome::Outcome;
use crate::domain::queue::QueueSettings;
use crate::processor::Build;
use crate::store::enqueue::{CallId, Group};
use crate::store::{QueueEntry, Store as _};

/// Messages of a queue whose attempts do not end: more than it may have in flight.
const MANY: usize = 100;

/// Holds each attempt that begins while `hangs` is set until the gate has a permit for it.
fn build_hanging(crowd: &Crowd, gate: &Arc<Semaphore>, hangs: &Arc<AtomicBool>) -> Build {
    let (crowd, gate, hangs) = (crowd.clone(), gate.clone(), hangs.clone());
    build(move |_| {
        let (inside, gate): (Inside, _) = (crowd.enter(), gate.clone());
        let hangs = hangs.load(Ordering::SeqCst);
        Box::pin(async move {
            if hangs {
                gate.acquire().await.expect("the gate stays").forget();
            }
            drop(inside);
            Outcome::Done.into()
        })
    })
}

/// Attempts take as long as the test does; one that is lost is soon made again.
fn patient(settings: &mut QueueSettings) {
    settings.timeout = Duration::from_mins(10);
    settings.lease = Some(Duration::from_secs(3));
    settings.retry.schedule = vec![Duration::from_millis(1); 2];
}

struct Hanging {
    crowd: Crowd,
    gate: Arc<Semaphore>,
    hangs: Arc<AtomicBool>,
    queues: Vec<QueueEntry>,
}

impl Hanging {
    /// Queues whose attempts hang from the first on, or from when they are told, up to 64 of each at once.
    async fn make(bed: &mut Bed, count: usize, from_the_first: bool) -> Self {
        Self::make_with(bed, count, from_the_first, 64).await
    }

    async fn make_with(bed: &mut Bed, count: usize, from_the_first: bool, at_once: u32) -> Self {
        let (crowd, gate) = (Crowd::default(), Arc::new(Semaphore::new(0)));
        let hangs = Arc::new(AtomicBool::new(from_the_first));
        let mut queues = Vec::new();
        for number in 0..count {
            let process = build_hanging(&crowd, &gate, &hangs);
            let change = |settings: &mut QueueSettings| {
                patient(settings);
                settings.delivery.concurrency_max = at_once;
            };
            queues.push(bed.queue_with(&format!("hanging-{number}"), process, change).await);
        }
        Self { crowd, gate, hangs, queues }
    }

    /// Waits until no more of their attempts begin; gives how many have.
    async fn settled(&self) -> usize {
        until_still("all attempts have begun that may", || self.crowd.inside()).await
    }

    /// Lets all go.
    async fn end(self, rig: Rig, delivered: u64) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        for queue in &self.queues {
            rig.until(queue, "all are delivered", |stats| stats.counters.delivered == delivered).await;
        }
        rig.stop().await;
    }
}

/// A message of a queue that has nothing under way is delivered while the others hang.
async fn assert_served(rig: &Rig, healthy: &QueueEntry) {
    let before = rig.stats(healthy).await.counters.delivered;
    rig.publish(healthy, 1).await;
    rig.until(healthy, "it is delivered", |stats| stats.counters.delivered == before + 1).await;
}

#[tokio::test]
async fn a_queue_is_served_while_ten_others_hang() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 64;
    let hanging = Hanging::make(&mut bed, 10, true).await;
    let healthy = bed.queue("healthy", build_done(|_| {})).await;
    let store = bed.peer.connect();
    for queue in &hanging.queues {
        let groups = Arc::new(vec![group(&bed.clock, queue, MANY)]);
        store.enqueue(CallId::random(), groups).await.expect("stored");
    }
    let rig = bed.start();
    let inside = hanging.settled().await;
    assert!((48..64).contains(&inside), "{inside} of 64");
    for _ in 0..3 {
        assert_served(&rig, &healthy).await;
    }
    // Of many it takes more than one slot at a time, but not all there are.
    rig.publish(&healthy, 200).await;
    rig.until(&healthy, "these as well", |stats| stats.counters.delivered == 203).await;
    assert_eq!(hanging.crowd.inside(), inside, "none of the others ended, and none more began");
    hanging.end(rig, MANY as u64).await;
}

#[tokio::test]
async fn queues_that_begin_to_hang_when_much_is_leased_early_leave_slots_too() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 64;
    let hanging = Hanging::make_with(&mut bed, 10, false, 32).await;
    let healthy = bed.queue("healthy", build_done(|_| {})).await;
    let rig = bed.start();
    for queue in &hanging.queues {
        rig.publish(queue, MANY).await;
        rig.until(queue, "they were fast", |stats| stats.counters.delivered == MANY as u64).await;
    }
    hanging.hangs.store(true, Ordering::SeqCst);
    for queue in &hanging.queues {
        rig.publish(queue, MANY).await;
    }
    hanging.settled().await;
    assert_served(&rig, &healthy).await;
    hanging.end(rig, 2 * MANY as u64).await;
}

#[tokio::test]
async fn a_queue_that_is_alone_has_all_slots_but_a_few_for_who_comes_next() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 32;
    let hanging = Hanging::make(&mut bed, 1, true).await;
    let healthy = bed.queue("healthy", build_done(|_| {})).await;
    let rig = bed.start();
    rig.publish(&hanging.queues[0], MANY).await;
    assert_eq!(hanging.settled().await, 30);
    assert_served(&rig, &healthy).await;
    hanging.end(rig, MANY as u64).await;
}

#[tokio::test]
async fn slots_are_shared_anew_as_attempts_end() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 64;
    let (first, second) = (Hanging::make(&mut bed, 1, true).await, Crowd::default());
    let process = build_hanging(&second, &first.gate, &first.hangs);
    let late = bed.queue_with("late", process, patient).await;
    let rig = bed.start();
    rig.publish(&first.queues[0], MANY).await;
    assert_eq!(first.settled().await, 60);
    rig.publish(&late, MANY).await;
    until("it has one", || second.inside() >= 1).await;
    // An attempt that ends makes room for the queue that has less, until both have the same.
    let mut ended = 0;
    while second.inside() < 24 {
        assert!(ended < MANY, "{} and {}", first.crowd.inside(), second.inside());
        first.gate.add_permits(1);
        ended += 1;
        until_still("the slot is taken", || (first.crowd.inside(), second.inside())).await;
    }
    let (first_has, second_has) = (first.settled().await, second.inside());
    assert!(first_has <= 26 && second_has <= 26, "{first_has} and {second_has} of 64");
    rig.until(&late, "it is in work", |stats| stats.gauges.leased >= 24).await;
    first.gate.add_permits(2 * MANY);
    rig.until(&late, "all are delivered", |stats| stats.counters.delivered == MANY as u64).await;
    first.end(rig, MANY as u64).await;
}

#[tokio::test]
async fn bytes_are_left_for_a_queue_that_holds_nothing() {
    let mut bed = Bed::new();
    bed.workers.held_bytes_max = 64 << 10;
    let hanging = Hanging::make(&mut bed, 1, true).await;
    let healthy = bed.queue("healthy", build_done(|_| {})).await;
    let rig = bed.start();
    let messages = (0..20).map(|_| message(&rig.clock, 3, &vec![0; 10 << 10])).collect();
    let large = Group { queue: hanging.queues[0].queue_ref(), key: None, messages };
    rig.publish_group(large).await;
    assert_eq!(hanging.settled().await, 6);
    assert_served(&rig, &healthy).await;
    hanging.end(rig, 20).await;
}

#[tokio::test]
async fn what_waits_for_a_slot_when_its_worker_breaks_is_given_back() {
    let mut bed = Bed::new();
    bed.workers.concurrency = 16;
    let hanging = Hanging::make(&mut bed, 3, true).await;
    let rig = bed.start();
    for queue in &hanging.queues {
        rig.publish(queue, MANY).await;
    }
    hanging.settled().await;
    rig.peer.tell(super::peer::Kind::Extend, [super::peer::Act::Panic]);
    let is_restarted =
        || rig.supervisor.watch().iter().any(|actor| actor.name == "worker-0" && actor.restarts == 1);
    until("the worker broke", is_restarted).await;
    hanging.hangs.store(false, Ordering::SeqCst);
    hanging.end(rig, MANY as u64).await;
}
