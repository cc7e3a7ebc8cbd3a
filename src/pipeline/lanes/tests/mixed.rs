//! Queues whose messages bring their destinations, at the lanes they meet.

use std::pin::Pin;

use tokio::task::unconstrained;

use super::*;
use crate::pipeline::share::InFlight;

/// A message under way, with its place in its queue.
type Inside = (InFlight<'static>, Pass);
/// Somebody who wants to pass and has not yet.
type Entering = Pin<Box<dyn Future<Output = Result<Inside, NoWay>>>>;

/// The share of a queue that lives as long as the tests do.
fn mixed() -> &'static Arc<Share> {
    Box::leak(Box::new(Arc::new(Share::new(64, 1))))
}

/// A message of a queue with many destinations.
fn entering(lane: &Arc<Lane>, share: &'static Arc<Share>) -> Entering {
    let lane = lane.clone();
    // A test is one task, which tokio would make pause after some of these.
    Box::pin(unconstrained(async move {
        let place = share.enter().await;
        Ok((place, lane.enter(share, false, false).await?))
    }))
}

/// Lets those enter who may; gives them and those who are put off.
fn enter(waiting: &mut Vec<Entering>) -> (Vec<Inside>, Vec<NoWay>) {
    let (mut entered, mut put_off) = (Vec::new(), Vec::new());
    waiting.retain_mut(|entering| {
        let ended = entering.now_or_never();
        let is_waiting = ended.is_none();
        match ended {
            Some(Ok(inside)) => entered.push(inside),
            Some(Err(no_way)) => put_off.push(no_way),
            None => {}
        }
        is_waiting
    });
    (entered, put_off)
}

/// Lets one more enter that does not wait, if it may.
fn at_once(lane: &Arc<Lane>, share: &'static Arc<Share>) -> (Vec<Inside>, Vec<NoWay>) {
    let all = enter(&mut vec![entering(lane, share)]);
    tidy(lane, share);
    all
}

/// Takes those out of the row who were dropped.
fn tidy(lane: &Arc<Lane>, share: &Arc<Share>) {
    lane.gate().tidy(lane.clock.tick(), Arc::as_ptr(share).addr(), false);
}

/// Ends one that is under way.
fn end((place, pass): Inside) {
    pass.end(OK, None, TOOK);
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn of_a_queue_with_many_destinations_all_wait_in_hand_for_a_lane_that_is_quick() {
    let ((lanes, _clock), share) = (lanes(64, None), mixed());
    let lane = lanes.of(KEY);
    let (mut inside, mut passed) = (Vec::new(), 0);
    let mut waiting: Vec<_> = (0..64).map(|_| entering(&lane, share)).collect();
    while passed < 1_000 {
        let (entered, put_off) = enter(&mut waiting);
        assert_eq!(put_off, []);
        inside.extend(entered);
        // A burst to one that never answered is small until it does.
        let places = if passed == 0 { 4..=4 } else { 28..=33 };
        assert!(places.contains(&inside.len()), "{} of 64 places", inside.len());
        end(inside.remove(0));
        passed += 1;
        waiting.push(entering(&lane, share));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_lane_that_hangs_and_few_for_one_that_was_late() {
    let ((lanes, clock), share) = (lanes(64, None), mixed());
    let lane = lanes.of(KEY);
    let mut waiting: Vec<_> = (0..64).map(|_| entering(&lane, share)).collect();
    let (mut inside, put_off) = enter(&mut waiting);
    assert_eq!((inside.len(), put_off.len(), waiting.len()), (4, 0, 60));
    let elapse = async |ms| {
        clock.advance(Duration::from_millis(ms));
        tokio::time::advance(Duration::from_millis(ms)).await;
    };
    elapse(201).await;
    assert_eq!(enter(&mut waiting).1.len(), 60);
    let wait = |waiting: &mut Vec<Entering>| {
        waiting.extend((0..20).map(|_| entering(&lane, share)));
        enter(waiting)
    };
    assert_eq!((wait(&mut waiting).1.len(), shown(&lanes).waiting), (20, 0));
    // It answers again; who answers for as long as a message may wait is quick again.
    for (after_ms, most) in [(0, 4), (100, 4), (900, 20)] {
        elapse(after_ms).await;
        end(inside.remove(0));
        while inside.len() < 32 {
            waiting.push(entering(&lane, share));
            inside.extend(enter(&mut waiting).0);
        }
        assert_eq!(wait(&mut waiting).1.len(), 20 - most, "{after_ms}");
        waiting.clear();
        tidy(&lane, share);
    }
}

#[tokio::test(start_paused = true)]
async fn for_the_first_answer_one_waits_without_a_place_and_for_a_moment_only() {
    let ((lanes, clock), share) = (lanes(64, None), mixed());
    let lane = lanes.of(KEY);
    assert!(lane.hear(share).now_or_never().is_some(), "nobody has tried yet");
    let mut inside: Vec<_> = (0..4).flat_map(|_| at_once(&lane, share).0).collect();
    let elapse = async |ms| {
        clock.advance(Duration::from_millis(ms));
        tokio::time::advance(Duration::from_millis(ms)).await;
    };
    let mut hearing = Box::pin(lane.hear(share));
    assert!((&mut hearing).now_or_never().is_none());
    assert!(lane.hear(mixed()).now_or_never().is_some(), "nothing of another queue is under way");
    elapse(99).await;
    assert!((&mut hearing).now_or_never().is_none());
    elapse(1).await;
    assert!(hearing.now_or_never().is_some() && lane.hear(share).now_or_never().is_some());
    assert_eq!(at_once(&lane, share).1, [NoWay::Busy], "nobody waits in hand for it");
    drop(std::mem::take(&mut inside));
    inside.extend((0..4).flat_map(|_| at_once(&lane, share).0));
    let mut hearing = Box::pin(lane.hear(share));
    assert!((&mut hearing).now_or_never().is_none());
    end(inside.remove(0));
    assert!(hearing.now_or_never().is_some() && lane.hear(share).now_or_never().is_some(), "it answered");
}

#[tokio::test(start_paused = true)]
async fn those_that_hang_never_have_more_than_half_of_a_queue_and_one_that_answered_passes_at_once() {
    let ((lanes, clock), share) = (lanes(64, None), mixed());
    let (healthy, mut inside) = (lanes.of(KEY), Vec::new());
    end(at_once(&healthy, share).0.remove(0));
    let bad: Vec<_> = (0..20).map(|number| lanes.of(&format!("https://{number}.example"))).collect();
    for _ in 0..5 {
        for _ in 0..10 {
            inside.extend(bad.iter().flat_map(|lane| at_once(lane, share).0));
        }
        assert!((28..=32).contains(&inside.len()), "{} of 64 places", inside.len());
        clock.advance(Duration::from_secs(1));
        let put_off: Vec<_> = bad.iter().flat_map(|lane| at_once(lane, share).1).collect();
        assert_eq!(put_off, [NoWay::Busy; 20], "nobody waits in hand");
        end(at_once(&healthy, share).0.remove(0));
    }
    // All of the other half is for who answers.
    let burst: Vec<_> = (0..40).flat_map(|_| at_once(&healthy, share).0).collect();
    assert!((16..=18).contains(&burst.len()), "{}: half of what is left", burst.len());
    // What hangs frees its places when it ends.
    inside.clear();
    assert_eq!(share.places().unanswered, 0);
    assert_eq!(at_once(&bad[0], share).0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_well_and_hangs_counts_among_those_that_hang() {
    let ((lanes, clock), share) = (lanes(64, None), mixed());
    let (lane, other) = (lanes.of(KEY), lanes.of("https://other.example"));
    let passes = |lane: &Arc<Lane>| at_once(lane, share).0;
    end(passes(&lane).remove(0));
    let mut inside: Vec<_> = (0..40).flat_map(|_| passes(&lane)).collect();
    assert_eq!((inside.len(), share.places().unanswered), (32, 0));
    clock.advance(Duration::from_secs(1));
    assert_eq!((passes(&lane).len(), share.places().unanswered), (0, 32));
    assert_eq!(passes(&other).len(), 0);
    end(inside.remove(0));
    assert_eq!((share.places().unanswered, passes(&other).len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn while_new_destinations_answer_more_new_ones_wait_in_hand_for_a_place() {
    let ((lanes, clock), share) = (lanes(64, None), mixed());
    let new = |number: usize| entering(&lanes.of(&format!("https://{number}.example")), share);
    let mut waiting: Vec<_> = (0..33).map(&new).collect();
    let (mut inside, put_off) = enter(&mut waiting);
    assert_eq!((inside.len(), put_off), (32, vec![NoWay::Busy]), "none has answered yet");
    end(inside.remove(0));
    waiting.extend((100..113).map(&new));
    for number in 200..1_000 {
        let (entered, put_off) = enter(&mut waiting);
        inside.extend(entered);
        assert_eq!((inside.len(), waiting.len(), put_off.len()), (32, 12, 0));
        end(inside.remove(0));
        waiting.push(new(number));
        clock.advance(Duration::from_millis(11));
        tokio::time::advance(Duration::from_millis(11)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn queues_with_many_destinations_have_their_part_of_a_lane_whoever_has_more_waiting() {
    let ((lanes, _clock), queues) = (lanes(8, None), [mixed(), mixed(), mixed()]);
    let lane = lanes.of(KEY);
    let mut waiting = [Vec::new(), Vec::new(), Vec::new()];
    let mut inside = Vec::new();
    let mut had = [0_usize; 3];
    for (round, few) in (0..300).flat_map(|round| [(round, 1), (round, 2)]) {
        for (queue, most) in [(0, 20), (1, few), (2, few)] {
            // The first one has been there for long, and asks first.
            while waiting[queue].len() < most && (queue == 0 || round > 20) {
                waiting[queue].push(entering(&lane, queues[queue]));
            }
            let (entered, put_off) = enter(&mut waiting[queue]);
            assert_eq!(put_off, []);
            had[queue] += if round > 30 { entered.len() } else { 0 };
            inside.extend(entered);
        }
        end(inside.remove(0));
    }
    let of_all: usize = had.iter().sum();
    assert!(had.iter().all(|had| had.abs_diff(of_all / 3) <= of_all / 20), "{had:?}");
}

#[tokio::test(start_paused = true)]
async fn turns_of_a_rate_go_round_among_queues_with_many_destinations_and_those_that_send_here_only() {
    for (rate, turns) in [("20/s", 320), ("100/s", 1_600)] {
        let ((lanes, clock), queues) = (lanes(64, Some(rate)), [mixed(), mixed(), mixed()]);
        let (lane, mut had) = (lanes.of(KEY), [0_usize; 3]);
        let mut waiting = [Vec::new(), Vec::new()];
        for step in 0..2_000 {
            // The first one has a long backlog, the second one little, and comes later, as does the one that sends here only.
            for (queue, most) in [(0, 40), (1, 8)] {
                while waiting[queue].len() < most && (queue == 0 || step > 100) {
                    waiting[queue].push(entering(&lane, queues[queue]));
                }
                let entered = enter(&mut waiting[queue]).0;
                had[queue] += if step > 400 { entered.len() } else { 0 };
                entered.into_iter().for_each(end);
            }
            let booked = if step > 100 { lane.book(queues[2], 10, 0).unwrap_or(0) } else { 0 };
            had[2] += if step > 400 { booked } else { 0 };
            for _ in 0..booked {
                drop(lane.enter(queues[2], false, true).now_or_never());
            }
            lane.give_back(booked);
            clock.advance(Duration::from_millis(10));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let of_all: usize = had.iter().sum();
        assert!(of_all >= turns * 9 / 10, "{had:?} of {turns} turns");
        assert!(had.iter().all(|had| had.abs_diff(of_all / 3) <= of_all / 10), "{had:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_queue_with_many_destinations_one_lane_never_has_all_places() {
    let ((lanes, _clock), share) = (lanes(64, None), Arc::new(Share::new(8, 1)));
    let (hanging, other) = (lanes.of(KEY), lanes.of("https://other.example"));
    let mut inside = Vec::new();
    hanging.enter(&share, false, false).now_or_never().expect("at once").expect("room").end(OK, None, TOOK);
    for _ in 0..8 {
        let Some(place) = share.enter().now_or_never() else { break };
        match hanging.enter(&share, false, false).now_or_never() {
            Some(Ok(pass)) => inside.push((place, pass)),
            Some(Err(_)) | None => break,
        }
    }
    assert_eq!(inside.len(), 4, "half of the places");
    let _place = share.enter().now_or_never().expect("a place");
    assert!(other.enter(&share, false, false).now_or_never().is_some_and(|pass| pass.is_ok()));
}
