//! A lane as its users see it, with a clock moved by hand.

mod mixed;

use futures_util::FutureExt as _;

use super::settings::OriginSettings;
use super::*;
use crate::domain::id::MessageId;
use crate::domain::outcome::RetryHint;
use crate::domain::queue::Generation;
use crate::domain::timestamp::Timestamp;
use crate::pipeline::share::Share;
use crate::processor::Signal;
use crate::store::{QueueRef, Scheduled};

const KEY: &str = "https://shop.example";
const OK: Signal = Signal::Answered { status: 200, hold: None };
const TOOK: Duration = Duration::from_millis(10);

fn lanes(most: u32, rate: Option<&str>) -> (Lanes, Clock) {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let mut settings = LaneSettings { concurrency_max: most, ..LaneSettings::default() };
    let rate = rate.map(|rate| rate.parse().expect("a rate"));
    settings.origins.insert(KEY.to_owned(), OriginSettings { rate, concurrency_max: None });
    (Lanes::new(settings, clock.clone()), clock)
}

fn shares(count: usize) -> Vec<Arc<Share>> {
    (0..count).map(|_| Arc::new(Share::new(64, 1))).collect()
}

/// A first attempt of a queue that sends here only.
fn pass(lane: &Arc<Lane>, share: &Arc<Share>) -> Result<Pass, NoWay> {
    lane.enter(share, false, true).now_or_never().expect("it need not wait")
}

fn break_it(lane: &Arc<Lane>, share: &Arc<Share>) {
    for _ in 0..5 {
        pass(lane, share).expect("closed").end(Signal::NoAnswer, Some("connect: refused"), TOOK);
    }
}

fn shown(lanes: &Lanes) -> LaneStatus {
    let all = lanes.all();
    assert_eq!(all.len(), 1);
    all[0].clone()
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_breaks_is_not_leased_for_until_it_may_be_probed_and_then_for_one() {
    let ((lanes, clock), share) = (lanes(8, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    assert_eq!(lane.book(share, 100, 0), Ok(8));
    lane.give_back(8);
    break_it(&lane, share);
    assert_eq!(pass(&lane, share).err(), Some(NoWay::Shut));
    let (wait, why) = lanes.why_shut(KEY).expect("shut");
    assert!(wait <= Duration::from_secs(1) && wait >= Duration::from_millis(750), "{wait:?}");
    assert_eq!(why, Why::Breaker("connect: refused".to_owned()));
    assert_eq!(lane.book(share, 100, 0), Err(wait));
    // By hand it moves by whole milliseconds.
    clock.advance(wait + Duration::from_millis(1));
    assert_eq!(lane.book(share, 100, 0), Ok(1));
    assert_eq!(lane.book(share, 100, 0), Err(Duration::from_secs(1)), "somebody fetches one");
    let probe = pass(&lane, share).expect("a probe");
    assert_eq!(pass(&lane, share).err(), Some(NoWay::Shut));
    assert_eq!(shown(&lanes).breaker, Phase::HalfOpen);
    probe.end(OK, None, TOOK);
    assert_eq!((shown(&lanes).breaker, shown(&lanes).limit), (Phase::Closed, 2), "the probe was the first");
}

#[tokio::test(start_paused = true)]
async fn several_lanes_are_shut_while_none_is_open_and_the_one_that_opens_first_is_named() {
    let ((lanes, clock), share) = (lanes(8, None), &shares(1)[0]);
    let names = [KEY, "https://second.example", "https://third.example"];
    let keys = names.map(Arc::from);
    let [first, second, third] = names.map(|key| lanes.of(key));
    assert_eq!(lanes.why_all_shut(&keys), None);
    break_it(&first, share);
    let hold = Some(RetryHint::After(Duration::from_mins(1)));
    pass(&second, share).expect("room").end(Signal::Answered { status: 429, hold }, None, TOOK);
    assert_eq!(lanes.why_all_shut(&keys), None, "the third is open");
    assert_eq!(lanes.why_all_shut(&["https://unknown.example".into()]), None);
    let held = lanes.why_all_shut(&keys[1..2]).expect("it is held");
    assert_eq!((held.others, held.why, held.wait), (0, Why::Held, Duration::from_mins(1)));
    clock.advance(Duration::from_millis(500));
    break_it(&third, share);
    let all = lanes.why_all_shut(&keys).expect("all are shut");
    assert_eq!((&*all.key, all.others), (KEY, 2));
    assert_eq!(Some((all.wait, all.why)), lanes.why_shut(KEY));
    // The first may be probed, and nobody does.
    clock.advance(Duration::from_millis(501));
    let all = lanes.why_all_shut(&keys[..1]).expect("it is not known to answer");
    assert_eq!((all.why, lanes.why_shut(KEY)), (Why::Probe(String::new()), None));
    let probe = pass(&first, share).expect("a probe");
    assert!(probe.is_probe());
    assert_eq!(lanes.why_all_shut(&keys[..1]).map(|all| all.why), lanes.why_shut(KEY).map(|(_, why)| why));
    assert_eq!(probe.end(OK, None, TOOK).shut, None);
    assert_eq!(lanes.why_all_shut(&keys), None, "the first answers again");
}

#[tokio::test(start_paused = true)]
async fn after_a_break_it_begins_with_one_and_never_has_more_than_its_most_in_flight() {
    let ((lanes, clock), share) = (lanes(8, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    // Some hang while it breaks.
    let mut hanging: Vec<_> = (0..3).map(|_| pass(&lane, share).expect("room")).collect();
    break_it(&lane, share);
    clock.advance(Duration::from_secs(1));
    pass(&lane, share).expect("a probe").end(OK, None, TOOK);
    let mut under_way = Vec::new();
    let mut most = 0;
    for _ in 0..200 {
        while let Some(Ok(pass)) = lane.enter(share, false, true).now_or_never() {
            under_way.push(pass);
        }
        let limit = shown(&lanes).limit as usize;
        assert!(under_way.len() <= limit && under_way.len() + hanging.len() <= 8);
        most = most.max(under_way.len());
        under_way.remove(0).end(OK, None, TOOK);
    }
    assert_eq!(most, 5, "three places are taken");
    hanging.clear();
    for _ in 0..200 {
        while let Some(Ok(pass)) = lane.enter(share, false, true).now_or_never() {
            under_way.push(pass);
        }
        assert!(under_way.len() <= 8);
        under_way.remove(0).end(OK, None, TOOK);
    }
    assert_eq!((shown(&lanes).limit, shown(&lanes).in_flight), (8, 7));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_asked_for_holds_everything_sent_there() {
    let ((lanes, clock), queues) = (lanes(8, None), shares(2));
    let lane = lanes.of(KEY);
    let hold = Some(RetryHint::After(Duration::from_mins(1)));
    let other = pass(&lane, &queues[1]).expect("room");
    pass(&lane, &queues[0]).expect("room").end(Signal::Answered { status: 429, hold }, None, TOOK);
    assert_eq!(pass(&lane, &queues[1]).err(), Some(NoWay::Shut));
    assert_eq!(lanes.why_shut(KEY), Some((Duration::from_mins(1), Why::Held)));
    assert_eq!(lane.book(&queues[0], 1, 0), Err(Duration::from_mins(1)));
    other.end(OK, None, TOOK);
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(pass(&lane, &queues[1]).err(), Some(NoWay::Shut), "an answer to an earlier one ends no pause");
    clock.advance(Duration::from_millis(1));
    assert_eq!(lanes.why_shut(KEY), None);
    let _first = pass(&lane, &queues[1]).expect("the pause is over");
    assert!(lane.enter(&queues[1], false, true).now_or_never().is_none(), "it begins with one");
}

#[tokio::test(start_paused = true)]
async fn queues_that_share_a_lane_take_turns() {
    let ((lanes, _clock), queues) = (lanes(1, None), shares(3));
    let lane = lanes.of(KEY);
    let mut inside = Some(pass(&lane, &queues[0]).expect("room"));
    // The first queue has many waiting before the others come.
    let order = [0, 0, 0, 0, 1, 2, 1, 2];
    let mut waiting: Vec<_> = order
        .iter()
        .map(|&queue| {
            let (lane, share) = (lane.clone(), queues[queue].clone());
            let mut entering = Box::pin(async move { lane.enter(&share, false, true).await.ok() });
            assert!((&mut entering).now_or_never().is_none());
            (queue, entering)
        })
        .collect();
    let mut entered = Vec::new();
    while !waiting.is_empty() {
        inside.take().expect("one is inside").end(OK, None, TOOK);
        let place = (0..waiting.len()).find(|place| {
            inside = (&mut waiting[*place].1).now_or_never().flatten();
            inside.is_some()
        });
        entered.push(waiting.remove(place.expect("the next one enters")).0);
    }
    assert_eq!(entered.iter().filter(|queue| **queue == 0).count(), 4);
    let first: Vec<_> = entered[..6].iter().collect();
    for queue in 0..3 {
        assert_eq!(first.iter().filter(|entered| ***entered == queue).count(), 2, "{entered:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_books_all_of_a_lane_leaves_others_their_part_as_soon_as_they_ask_and_takes_what_they_leave() {
    let ((lanes, clock), queues) = (lanes(8, None), shares(3));
    let lane = lanes.of(KEY);
    let book = |queue: usize, wanted| {
        queues[queue].reserve_anyway(0, wanted);
        let booked = lane.book(&queues[queue], wanted, 0).expect("open");
        queues[queue].give_back(0, wanted - booked);
        booked
    };
    let give_back = |queue: usize, count| {
        queues[queue].give_back(0, count);
        lane.give_back(count);
    };
    let leased = || queues.iter().map(|queue| queue.leased()).collect::<Vec<_>>();
    assert_eq!([0, 1, 2].map(|queue| book(queue, 100)), [8, 0, 0]);
    // The one with the most work is the first to see each place that is free; it has one more while the places do not part evenly.
    for _ in 0..20 {
        let most = leased().into_iter().max();
        let queue = leased().iter().position(|leased| Some(*leased) == most).expect("one has the most");
        give_back(queue, 1);
        let booked: usize = [0, 1, 2].map(|queue| book(queue, 100)).into_iter().sum();
        assert_eq!(booked, 1, "no place is left free");
    }
    assert!(leased().iter().all(|leased| (2..=4).contains(leased)), "{:?}", leased());
    // Of the second one nothing is left to be leased.
    let (second, third) = (leased()[1], leased()[2]);
    lane.has_enough(&queues[1]);
    give_back(1, second);
    let part = 4 - leased()[0];
    assert!((part..=part + 1).contains(&book(0, 100)), "half of it");
    give_back(2, third);
    lane.has_enough(&queues[2]);
    let left = 8 - leased()[0];
    assert_eq!(book(0, 100), left);
    assert_eq!((book(1, 100), book(2, 100)), (0, 0));
    give_back(0, 8);
    assert_eq!(book(0, 100), 2);
    clock.advance(Duration::from_secs(2));
    assert_eq!(book(0, 100), 6, "the others have not asked lately");
}

#[tokio::test(start_paused = true)]
async fn turns_of_a_rate_go_round_among_the_queues_that_wait_for_them() {
    let ((lanes, clock), queues) = (lanes(64, Some("10/s")), shares(3));
    let lane = lanes.of(KEY);
    let mut had = [0_usize; 3];
    for _ in 0..400 {
        for (queue, share) in queues.iter().enumerate() {
            // The first one asks first.
            let booked = lane.book(share, 10, 0).unwrap_or(0);
            had[queue] += booked;
            for _ in 0..booked {
                if let Some(Ok(pass)) = lane.enter(share, false, true).now_or_never() {
                    pass.end(OK, None, TOOK);
                }
            }
            lane.give_back(booked);
        }
        clock.advance(Duration::from_millis(25));
    }
    assert!(had.iter().sum::<usize>() >= 95, "{had:?}");
    assert!(had.iter().all(|had| had.abs_diff(33) <= 3), "{had:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_with_many_destinations_leaves_their_part_to_those_that_send_here_only() {
    let ((lanes, _clock), shares) = (lanes(8, None), shares(2));
    let lane = lanes.of(KEY);
    let enter = || lane.enter(&shares[0], false, false).now_or_never().and_then(Result::ok);
    enter().expect("a way").end(OK, None, TOOK);
    let mut inside: Vec<_> = std::iter::from_fn(enter).collect();
    assert_eq!((inside.len(), lane.book(&shares[1], 100, 0)), (8, Ok(0)));
    inside.drain(..2);
    assert!(enter().is_none());
    assert_eq!(lane.book(&shares[1], 100, 0), Ok(2));
    lane.has_enough(&shares[1]);
    inside.drain(..4);
    assert!(enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn retries_leave_room_for_first_attempts() {
    let ((lanes, _clock), share) = (lanes(8, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    let retry = || lane.enter(share, true, true).now_or_never();
    let retries: Vec<_> = (0..6).map(|_| retry().expect("at once").expect("room")).collect();
    assert!(retry().is_none(), "two are kept");
    let _first = (pass(&lane, share).expect("kept for it"), pass(&lane, share).expect("kept for it"));
    assert!(lane.enter(share, false, true).now_or_never().is_none());
    drop(retries);
    assert!(retry().is_some_and(|pass| pass.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_rate_lets_no_more_be_leased_than_begin() {
    let ((lanes, clock), share) = (lanes(64, Some("100/s")), &shares(1)[0]);
    let lane = lanes.of(KEY);
    assert_eq!(lane.book(share, 100, 0), Ok(15), "ten at once, and what comes within 50 ms");
    assert!(lane.book(share, 100, 0).is_err(), "those have not begun");
    let begun: Vec<_> = (0..10).map(|_| pass(&lane, share).expect("a turn")).collect();
    for pass in begun {
        pass.end(OK, None, TOOK);
    }
    lane.give_back(15);
    assert_eq!(lane.book(share, 100, 0), Ok(5));
    lane.give_back(5);
    clock.advance(Duration::from_secs(10));
    assert_eq!(lane.book(share, 100, 0), Ok(15));
    assert_eq!(shown(&lanes).rate, "100/s".parse().ok());
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_shuts_the_lane_until_the_next_turn() {
    let ((lanes, clock), share) = (lanes(64, Some("5/h")), &shares(1)[0]);
    let lane = lanes.of(KEY);
    assert_eq!(lane.book(share, 100, 0), Ok(1));
    pass(&lane, share).expect("a turn").end(OK, None, TOOK);
    lane.give_back(1);
    let interval = Duration::from_mins(12);
    assert_eq!(lane.book(share, 100, 0), Err(interval));
    assert_eq!(lanes.why_shut(KEY), Some((interval, Why::Rate)));
    assert_eq!(pass(&lane, share).err(), Some(NoWay::Shut));
    clock.advance(interval);
    assert_eq!(lane.book(share, 100, 0), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_without_an_end_frees_its_place_and_the_probe() {
    let ((lanes, clock), share) = (lanes(1, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    drop(pass(&lane, share).expect("room"));
    break_it(&lane, share);
    clock.advance(Duration::from_secs(1));
    drop(pass(&lane, share).expect("a probe"));
    pass(&lane, share).expect("another probe").end(OK, None, TOOK);
    assert_eq!((shown(&lanes).breaker, shown(&lanes).in_flight), (Phase::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_hand_for_longer_than_a_second_and_a_lane_that_shuts_sends_all_away() {
    let ((lanes, _clock), share) = (lanes(1, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    let hanging = pass(&lane, share).expect("room");
    assert_eq!(lane.enter(share, false, true).await.err(), Some(NoWay::Busy));
    let (lane, share) = (lane.clone(), share.clone());
    let waiting = tokio::join!(
        async { lane.enter(&share, false, true).await.err() },
        async { lane.enter(&share, false, true).await.err() },
        async {
            let hold = Some(RetryHint::After(Duration::from_mins(1)));
            hanging.end(Signal::Answered { status: 503, hold }, None, TOOK);
        }
    );
    assert_eq!((waiting.0, waiting.1), (Some(NoWay::Shut), Some(NoWay::Shut)));
    assert_eq!(shown(&lanes).waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn lanes_are_forgotten_when_there_are_too_many_and_what_is_known_of_bad_ones_last() {
    let ((lanes, _clock), share) = (lanes(8, None), &shares(1)[0]);
    let bad = "https://bad.example";
    break_it(&lanes.of(bad), share);
    let held = pass(&lanes.of("https://busy.example"), share).expect("room");
    for number in 0..25_000 {
        drop(lanes.of(&format!("https://{number}.example")));
        assert!(number % 1_000 > 0 || lanes.all().len() <= LANES_MAX);
    }
    assert!(lanes.all().len() <= LANES_MAX);
    assert!(lanes.why_shut(bad).is_some(), "it is still known to be bad");
    held.end(OK, None, TOOK);
    assert_eq!(lanes.all().iter().filter(|lane| &*lane.key == "https://busy.example").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_rate_let_through_is_known_as_long_as_it_counts_however_many_lanes_there_are() {
    let ((lanes, clock), share) = (lanes(8, Some("1/h")), &shares(1)[0]);
    pass(&lanes.of(KEY), share).expect("a turn").end(OK, None, TOOK);
    clock.advance(Duration::from_mins(11));
    for number in 0..25_000 {
        drop(lanes.of(&format!("https://{number}.example")));
    }
    assert_eq!(pass(&lanes.of(KEY), share).err(), Some(NoWay::Shut));
    clock.advance(Duration::from_mins(49));
    assert!(pass(&lanes.of(KEY), share).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_known_until_it_is_over_however_many_lanes_there_are() {
    let ((lanes, clock), share) = (lanes(8, None), &shares(1)[0]);
    let held = "https://held.example";
    let hold = Some(RetryHint::After(Duration::from_hours(1)));
    pass(&lanes.of(held), share).expect("room").end(Signal::Answered { status: 429, hold }, None, TOOK);
    for round in 0..3 {
        clock.advance(Duration::from_mins(15));
        // These are bad ones: what is known of all of them is forgotten.
        for number in 0..11_000 {
            break_it(&lanes.of(&format!("https://{round}-{number}.example")), share);
        }
        assert_eq!(lanes.why_shut(held).map(|(_, why)| why), Some(Why::Held));
    }
    assert!(lanes.all().len() <= LANES_MAX);
}

#[tokio::test(start_paused = true)]
async fn how_long_nobody_answered_says_nothing_of_how_long_answers_take() {
    let ((lanes, clock), share) = (lanes(64, None), &shares(1)[0]);
    let lane = lanes.of(KEY);
    for _ in 0..5 {
        pass(&lane, share).expect("closed").end(Signal::NoAnswer, Some("timeout"), Duration::from_secs(15));
    }
    clock.advance(Duration::from_secs(2));
    pass(&lane, share).expect("half open").end(OK, None, TOOK);
    let queue = QueueRef { name: "orders".parse().expect("a name"), generation: Generation(1) };
    let mut put_off = |number| {
        let message = Scheduled { id: MessageId::from_bytes([number; 16]), attempts: 0 };
        lane.put_off(share, &queue, message)
    };
    let longest = (0..60).map(&mut put_off).max().expect("there are some");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_put_off_for_long_is_remembered_whatever_for_but_not_where_there_is_a_rate() {
    for (rate, has_backlog) in [(None, true), (Some("1/s"), false)] {
        let ((lanes, clock), share) = (lanes(1, rate), &shares(1)[0]);
        let lane = lanes.of(KEY);
        // It takes two seconds for an answer.
        pass(&lane, share).expect("closed").end(OK, None, Duration::from_secs(2));
        clock.advance(Duration::from_secs(2));
        let queue = QueueRef { name: "orders".parse().expect("a name"), generation: Generation(1) };
        let message = Scheduled { id: MessageId::from_bytes([1; 16]), attempts: 0 };
        let delay = lane.put_off(share, &queue, message);
        assert!(delay >= Duration::from_secs(1), "{delay:?}");
        let left = pass(&lane, share).expect("closed").end(OK, None, TOOK);
        assert_eq!(left.recall.is_some(), has_backlog, "{rate:?}");
    }
}
