//! Lanes between the store and the processors: what is leased, what is put off, and who goes on meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::peer::Call;
use super::rig::{Bed, Crowd, Rig, build, message_with, until};
use crate::domain::destination::Destination;
use crate::domain::message::Headers;
use crate::domain::outcome::{Outcome, RetryHint};
use crate::domain::phases::Phases;
use crate::domain::queue::{DestinationOverride, QueueSettings};
use crate::pipeline::lanes::settings::OriginSettings;
use crate::pipeline::lanes::{Phase, Why};
use crate::processor::{Build, Delivery, Report, Signal};
use crate::store::QueueEntry;
use crate::store::enqueue::{Group, NewMessage};
use crate::store::stats::QueueStats;

const OK: Report = Report {
    outcome: Outcome::Done,
    status: None,
    error: None,
    excerpt: None,
    is_gone: false,
    signal: Signal::Answered { status: 200, hold: None },
    phases: Phases::NONE,
};

fn no_answer() -> Report {
    Report { error: Some("connect: refused".to_owned()), signal: Signal::NoAnswer, ..Outcome::retry().into() }
}

fn pause(span: Duration) -> Report {
    let hold = Some(RetryHint::After(span));
    Report { signal: Signal::Answered { status: 429, hold }, ..Outcome::retry().into() }
}

/// Sends to one destination; what fails is soon tried again.
fn to(destination: &str) -> impl FnOnce(&mut QueueSettings) + use<> {
    let destination = destination.parse().expect("a destination");
    |settings: &mut QueueSettings| {
        settings.destination = Some(destination);
        settings.retry.schedule = vec![Duration::from_millis(1); 99];
    }
}

fn bringing(rig: &Rig, destination: &str) -> NewMessage {
    let headers = Headers { destination: Some(destination.to_owned()), ..Headers::default() };
    message_with(&rig.clock, 3, &headers.encode().expect("small"), b"{}")
}

fn destination(delivery: &Delivery) -> String {
    let own = delivery.settings.destination.as_ref();
    let destination = Destination::of_message(delivery.headers.destination.as_deref(), own);
    destination.expect("it goes somewhere").url().host_str().expect("a host").to_owned()
}

fn leases(rig: &Rig, queue: &QueueEntry) -> usize {
    rig.peer.count(|call| matches!(call, Call::Lease { queue: of, .. } if *of == queue.name.as_str()))
}

#[tokio::test]
async fn a_queue_whose_lane_is_shut_is_not_leased_and_goes_on_when_a_probe_succeeds() {
    let mut bed = Bed::new();
    let (is_down, attempts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let process = {
        let (is_down, attempts) = (is_down.clone(), attempts.clone());
        build(move |_| {
            attempts.fetch_add(1, Ordering::SeqCst);
            let report = if is_down.load(Ordering::SeqCst) { no_answer() } else { OK };
            Box::pin(async { report })
        })
    };
    let queue = bed.queue_with("orders", process, to("https://shop.example/hook")).await;
    let rig = bed.start();
    rig.publish(&queue, 200).await;
    let is_open = || matches!(rig.pipeline.lanes().all()[0].breaker, Phase::Open(_));
    until("the breaker is open", || rig.pipeline.lanes().all().len() == 1 && is_open()).await;
    // What was in hand has gone back.
    rig.until(&queue, "nothing is leased", |stats| stats.gauges.leased == 0).await;
    let (leased, attempted) = (leases(&rig, &queue), attempts.load(Ordering::SeqCst));
    rig.publish(&queue, 200).await;
    while is_open() {
        assert_eq!((leases(&rig, &queue), attempts.load(Ordering::SeqCst)), (leased, attempted));
        tokio::time::sleep(Duration::from_millis(5)).await;
        if leases(&rig, &queue) > leased {
            // It opened between the two looks.
            assert!(!is_open() || attempts.load(Ordering::SeqCst) <= attempted + 1);
            break;
        }
    }
    is_down.store(false, Ordering::SeqCst);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 400).await;
    let stats = rig.stats(&queue).await.counters;
    assert_eq!((stats.deferred, stats.dead_lettered), (0, 0), "they waited where they were");
    rig.stop().await;
}

#[tokio::test]
async fn a_pause_holds_all_queues_that_send_there_and_no_other() {
    let mut bed = Bed::new();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let process = |seen: &Arc<Mutex<Vec<String>>>| {
        let seen = seen.clone();
        build(move |delivery| {
            let host = destination(&delivery);
            let is_first = !seen.lock().unwrap().contains(&host);
            seen.lock().unwrap().push(host.clone());
            let report = if host == "busy.example" && is_first { pause(Duration::from_hours(1)) } else { OK };
            Box::pin(async { report })
        })
    };
    let first = bed.queue_with("first", process(&seen), to("https://busy.example/a")).await;
    let second = bed.queue_with("second", process(&seen), to("https://busy.example/b")).await;
    let other = bed.queue_with("other", process(&seen), to("https://other.example/")).await;
    let rig = bed.start();
    rig.publish(&first, 1).await;
    rig.until(&first, "it is retried", |stats| stats.counters.retried == 1).await;
    let leased = leases(&rig, &second);
    rig.publish(&second, 10).await;
    rig.publish(&other, 10).await;
    rig.until(&other, "the others are delivered", |stats| stats.counters.delivered == 10).await;
    assert_eq!(rig.stats(&second).await.gauges.pending, 10);
    assert_eq!(leases(&rig, &second), leased, "its lane was shut before it had anything");
    rig.stop().await;
}

#[tokio::test]
async fn in_a_queue_with_many_destinations_the_healthy_ones_go_on_while_others_are_shut_or_hang() {
    let mut bed = Bed::new();
    let hanging = Crowd::default();
    let process = {
        let hanging = hanging.clone();
        build(move |delivery| match destination(&delivery).as_str() {
            "dead.example" => Box::pin(async { no_answer() }),
            "hangs.example" => {
                let inside = hanging.enter();
                Box::pin(async move {
                    let _inside = inside;
                    std::future::pending().await
                })
            }
            _ => Box::pin(async { OK }),
        })
    };
    let change = |settings: &mut QueueSettings| {
        settings.destination_override = DestinationOverride::Any;
        settings.timeout = Duration::from_mins(10);
        settings.retry.schedule = vec![Duration::from_hours(1); 5];
    };
    let queue = bed.queue_with("mixed", process, change).await;
    let rig = bed.start();
    let mut messages = Vec::new();
    for number in 0..100 {
        messages.push(bringing(&rig, "https://dead.example/"));
        messages.push(bringing(&rig, "https://hangs.example/"));
        messages.extend((0..17).map(|host| bringing(&rig, &format!("https://{host}.example/{number}"))));
    }
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: messages.into() }).await;
    rig.until(&queue, "the healthy ones are delivered", |stats| stats.counters.delivered == 1_700).await;
    let stats = rig.stats(&queue).await.counters;
    assert!(stats.deferred > 0 && stats.dead_lettered == 0, "{stats:?}");
    assert!(hanging.most() <= 8, "{} of its 64 places hang", hanging.most());
    let dead = rig.pipeline.lanes().all().into_iter().find(|lane| &*lane.key == "https://dead.example");
    assert!(dead.is_some_and(|lane| lane.breaker != Phase::Closed));
    rig.supervisor.shutdown(Some(Duration::from_millis(100))).await;
}

#[tokio::test]
async fn in_a_queue_with_many_destinations_one_that_answered_is_sent_to_at_once_while_eight_hang() {
    let mut bed = Bed::new();
    let hanging = Crowd::default();
    let process = {
        let hanging = hanging.clone();
        build(move |delivery| {
            let inside = destination(&delivery).starts_with("hangs").then(|| hanging.enter());
            Box::pin(async move {
                if inside.is_some() {
                    std::future::pending::<()>().await;
                }
                OK
            })
        })
    };
    let change = |settings: &mut QueueSettings| {
        bring(settings);
        settings.timeout = Duration::from_mins(10);
    };
    let queue = bed.queue_with("mixed", process, change).await;
    let rig = bed.start();
    let publish = async |messages| {
        rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    };
    publish(Arc::new([bringing(&rig, "https://healthy.example/")])).await;
    rig.until(&queue, "it has answered", |stats| stats.counters.delivered == 1).await;
    let to_hanging = |number| bringing(&rig, &format!("https://hangs-{}.example/", number % 8));
    publish((0..1_600).map(to_hanging).collect()).await;
    let is_done = |stats: &QueueStats| stats.gauges.pending == 0 && stats.gauges.leased <= 34;
    rig.until(&queue, "all have met their lane once", is_done).await;
    assert_eq!(rig.stats(&queue).await.counters.deferred, 0, "their lanes are open");
    for number in 0..10 {
        publish(Arc::new([bringing(&rig, "https://healthy.example/")])).await;
        rig.until(&queue, "it is delivered", |stats| stats.counters.delivered == 2 + number).await;
    }
    let (inside, most) = (hanging.inside(), hanging.most());
    assert!(
        inside == most && (16..=34).contains(&most),
        "{inside} and {most}: of 64 places half, and none has ended"
    );
    rig.supervisor.shutdown(Some(Duration::from_millis(100))).await;
}

#[tokio::test]
async fn a_queue_with_many_destinations_waits_for_them_only_while_all_are_shut_and_nothing_is_under_way() {
    let mut bed = Bed::new();
    let hanging = Crowd::default();
    let process = {
        let hanging = hanging.clone();
        build(move |delivery| {
            let inside = destination(&delivery).starts_with("hangs").then(|| hanging.enter());
            let report = if destination(&delivery).starts_with("dead") { no_answer() } else { OK };
            Box::pin(async move {
                if inside.is_some() {
                    std::future::pending::<()>().await;
                }
                report
            })
        })
    };
    let change = |settings: &mut QueueSettings| {
        bring(settings);
        settings.timeout = Duration::from_mins(10);
    };
    let queue = bed.queue_with("mixed", process, change).await;
    let rig = bed.start();
    let (lanes, shares) = (rig.pipeline.lanes(), rig.pipeline.shares());
    let awaited = || shares.waits_for(&queue.name, lanes.now());
    assert_eq!((awaited(), lanes.why_all_shut(&[])), (vec![], None));
    let to_dead = |number| bringing(&rig, &format!("https://dead-{}.example/", number % 2));
    let messages = (0..100).map(to_dead).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    let seen = Mutex::default();
    until("it waits for both", || {
        let all = lanes.why_all_shut(&awaited());
        let all = all.filter(|all| all.others == 1 && matches!(all.why, Why::Breaker(_)));
        *seen.lock().unwrap() = all;
        seen.lock().unwrap().is_some()
    })
    .await;
    let all = seen.into_inner().unwrap().expect("it was seen");
    assert!(all.key.starts_with("https://dead-"), "{all:?}");
    assert_eq!(all.why, Why::Breaker("connect: refused".to_owned()));
    let one = vec![bringing(&rig, "https://hangs.example/")];
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages: one.into() }).await;
    until("another one is under way", || hanging.inside() == 1).await;
    assert_eq!(lanes.why_all_shut(&awaited()), None);
    rig.supervisor.shutdown(Some(Duration::from_millis(100))).await;
}

#[tokio::test]
async fn what_was_put_off_comes_forward_when_its_destination_answers_again() {
    let mut bed = Bed::new();
    let is_down = Arc::new(AtomicBool::new(true));
    let process = {
        let is_down = is_down.clone();
        build(move |_| {
            let report = if is_down.load(Ordering::SeqCst) { no_answer() } else { OK };
            Box::pin(async { report })
        })
    };
    let change = |settings: &mut QueueSettings| {
        settings.destination_override = DestinationOverride::Any;
        settings.retry.schedule = vec![Duration::from_millis(100); 99];
    };
    let queue = bed.queue_with("mixed", process, change).await;
    let rig = bed.start();
    // By themselves they would come fifty a second.
    let count = 2_000;
    let messages = (0..count).map(|_| bringing(&rig, "https://back.example/")).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.until(&queue, "all are put off", |stats| stats.gauges.scheduled > count - 100).await;
    is_down.store(false, Ordering::SeqCst);
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == count).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_is_put_off_counts_no_attempt_and_comes_back() {
    let mut bed = Bed::new();
    let attempts: Arc<Mutex<Vec<u8>>> = Arc::default();
    let process = {
        let attempts = attempts.clone();
        build(move |delivery| {
            let is_first = attempts.lock().unwrap().is_empty();
            attempts.lock().unwrap().push(delivery.attempt);
            let report = if is_first { pause(Duration::from_millis(700)) } else { OK };
            Box::pin(async { report })
        })
    };
    let change = |settings: &mut QueueSettings| {
        to("https://busy.example/")(settings);
        settings.destination_override = DestinationOverride::Any;
    };
    let queue = bed.queue_with("mixed", process, change).await;
    let rig = bed.start();
    rig.publish(&queue, 1).await;
    rig.until(&queue, "it is retried", |stats| stats.counters.retried == 1).await;
    let ids = rig.publish(&queue, 1).await;
    rig.until(&queue, "it is put off", |stats| stats.counters.deferred >= 1).await;
    let found = rig.find(&queue, ids[0]).await;
    assert_eq!((found.history.len(), found.reason), (0, None));
    rig.until(&queue, "both are delivered", |stats| stats.counters.delivered == 2).await;
    let mut attempts = attempts.lock().unwrap().clone();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 2]);
    rig.stop().await;
}

#[tokio::test]
async fn no_more_of_a_queue_begin_than_its_rate_allows() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    let begun: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let process = {
        let begun = begun.clone();
        build(move |_| {
            begun.lock().unwrap().push(Instant::now());
            Box::pin(async { OK })
        })
    };
    let rate = "100/s".parse().expect("a rate");
    let queue = bed.queue_with("orders", process, |settings| settings.delivery.rate = Some(rate)).await;
    let rig = bed.start();
    rig.publish(&queue, 60).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 60).await;
    let begun = begun.lock().unwrap().clone();
    // Ten at once after a pause, then one each ten milliseconds; what is late is late, never early.
    let least = Duration::from_millis(10) * (60 - 10 - 1);
    assert!(begun[59].duration_since(begun[0]) >= least, "{:?}", begun[59].duration_since(begun[0]));
    rig.stop().await;
}

#[tokio::test]
async fn a_lane_bounds_what_all_queues_and_threads_have_in_flight_there() {
    let mut bed = Bed::new();
    bed.workers.threads = 2;
    bed.lanes.concurrency_max = 4;
    let crowd = Crowd::default();
    let process = |crowd: &Crowd| {
        let crowd = crowd.clone();
        build(move |_| {
            let inside = crowd.enter();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                drop(inside);
                OK
            })
        })
    };
    let first = bed.queue_with("first", process(&crowd), to("https://shop.example/a")).await;
    let second = bed.queue_with("second", process(&crowd), to("https://shop.example/b")).await;
    let rig = bed.start();
    rig.publish(&first, 100).await;
    rig.publish(&second, 100).await;
    for queue in [&first, &second] {
        rig.until(queue, "all are delivered", |stats| stats.counters.delivered == 100).await;
    }
    assert_eq!(crowd.most(), 4);
    rig.stop().await;
}

/// Lets messages bring their destinations.
fn bring(settings: &mut QueueSettings) {
    settings.destination_override = DestinationOverride::Any;
}

/// Builds a processor that is done after so long.
fn taking(took: Duration) -> Build {
    build(move |_| {
        Box::pin(async move {
            tokio::time::sleep(took).await;
            OK
        })
    })
}

#[tokio::test]
async fn a_burst_to_a_healthy_destination_is_put_back_no_more_than_twice_whether_it_is_new_or_has_rested() {
    let mut bed = Bed::new();
    let queue = bed.queue_with("mixed", taking(Duration::from_millis(50)), bring).await;
    let rig = bed.start();
    for burst in 1..=2 {
        let messages = (0..200).map(|_| bringing(&rig, "https://shop.example/")).collect();
        rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
        rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == burst * 200).await;
        let settled = rig.peer.settlements();
        assert!(settled <= 3 * 200 * usize::try_from(burst).unwrap(), "{settled} settlements");
        // Longer than a destination may be quiet that is at work.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn of_a_queue_with_many_destinations_nothing_is_put_back_while_the_lanes_are_open_and_quick() {
    let mut bed = Bed::new();
    let queue = bed.queue_with("mixed", taking(Duration::from_millis(2)), bring).await;
    let rig = bed.start();
    let messages = (0..2_000).map(|_| bringing(&rig, "https://shop.example/")).collect();
    rig.publish_group(Group { queue: queue.queue_ref(), key: None, messages }).await;
    rig.until(&queue, "all are delivered", |stats| stats.counters.delivered == 2_000).await;
    assert_eq!(rig.peer.settlements(), 2_000, "each once");
    rig.stop().await;
}

/// Lets one queue with a long backlog and two with `few` messages send to one receiver, `mixed` of which bring their destinations;
/// gives how many attempts of the first were made while the others waited for theirs.
async fn attempts_of_a_backlog_meanwhile(
    mut bed: Bed,
    few: usize,
    took: Duration,
    mixed: [bool; 3],
) -> usize {
    bed.workers.threads = 2;
    let begun: Arc<[AtomicUsize; 3]> = Arc::default();
    let mut queues = Vec::new();
    for (number, is_mixed) in mixed.into_iter().enumerate() {
        let begun = begun.clone();
        let process = build(move |_| {
            begun[number].fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::time::sleep(took).await;
                OK
            })
        });
        let to = to(&format!("https://shop.example/{number}"));
        let change = |settings: &mut QueueSettings| {
            to(settings);
            if is_mixed {
                bring(settings);
            }
        };
        queues.push(bed.queue_with(&format!("queue-{number}"), process, change).await);
    }
    let rig = bed.start();
    for _ in 0..10 {
        rig.publish(&queues[0], 1_000).await;
    }
    until("the first has all of the lane", || begun[0].load(Ordering::SeqCst) >= few).await;
    let before = begun[0].load(Ordering::SeqCst);
    for queue in &queues[1..] {
        rig.publish(queue, few).await;
    }
    until("the others are done", || begun[1..].iter().all(|begun| begun.load(Ordering::SeqCst) == few)).await;
    let meanwhile = begun[0].load(Ordering::SeqCst) - before;
    rig.supervisor.shutdown(Some(Duration::from_millis(100))).await;
    meanwhile
}

/// Which of three queues bring their destinations, that with the backlog first.
const MIXED: [[bool; 3]; 3] = [[false; 3], [true; 3], [true, true, false]];

#[tokio::test]
async fn a_queue_with_a_backlog_leaves_others_that_send_to_the_same_receiver_their_part() {
    // What is put off comes back no sooner than in a quarter of a second: the backlog has the lane meanwhile.
    for (mixed, took_ms, most) in
        [(MIXED[0], 2, 500), (MIXED[0], 20, 500), (MIXED[1], 20, 1_000), (MIXED[2], 20, 1_000)]
    {
        let mut bed = Bed::new();
        bed.lanes.concurrency_max = 16;
        let took = Duration::from_millis(took_ms);
        let meanwhile = attempts_of_a_backlog_meanwhile(bed, 100, took, mixed).await;
        assert!(meanwhile <= most, "{mixed:?}: {meanwhile} of the backlog, 100 of the others");
    }
}

#[tokio::test]
async fn a_queue_with_a_backlog_leaves_others_their_turns_of_the_rate() {
    for (mixed, most) in [(MIXED[0], 80), (MIXED[1], 120), (MIXED[2], 120)] {
        let mut bed = Bed::new();
        let origin = OriginSettings { rate: "100/s".parse().ok(), concurrency_max: None };
        bed.lanes.origins.insert("https://shop.example".to_owned(), origin);
        let meanwhile = attempts_of_a_backlog_meanwhile(bed, 20, Duration::from_millis(1), mixed).await;
        assert!(meanwhile <= most, "{mixed:?}: {meanwhile} of the backlog, 20 of the others");
    }
}
