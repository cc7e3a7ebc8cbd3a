//! Lost leases: what is counted, who is a suspect, who is poison.

use posthaste::domain::message::State;
use posthaste::domain::outcome::{AttemptOutcome, DeadReason};
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::enqueue::GroupResult;
use posthaste::store::lease::{Extended, LeaseKind, LeaseRequest, Settled};
use posthaste::store::{SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

use super::stand::{
    Draft, START, Stand, draft, ids, pull_request, request, retry_after, seconds, settlement,
};

pub(super) async fn a_lost_lease_counts_an_attempt_and_a_loss(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_plain(&queue, 1).await[0];
    stand.clock.advance(seconds(3));
    stand.take(pull_request(&queue)).await;
    let swept = stand.pass(seconds(30)).await;
    assert_eq!((swept.reaped, swept.expired), (1, 0));
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.recovered, stats.counters.retried, stats.counters.dead_lettered), (1, 1, 0));
    assert_eq!((stats.gauges.pending, stats.gauges.leased, stats.gauges.bytes_waiting), (1, 0, 10));
    let found = stand.find(&queue, id).await.expect("it is there");
    let [lost] = &found.history[..] else { panic!("{:?}", found.history) };
    assert_eq!((lost.number, lost.outcome, lost.status), (1, AttemptOutcome::Lost, None));
    assert_eq!((lost.at, lost.duration_ms), (START.saturating_add(seconds(3)), 30_000));
    let leased = stand.take(pull_request(&queue)).await;
    assert_eq!((leased.leases[0].record.attempts(), leased.leases[0].record.losses()), (1, 1));
    assert_eq!(leased.leases[0].attempt_number(), 2);
}

pub(super) async fn a_lost_lease_is_taken_back_exactly_at_its_deadline(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        stand.take(LeaseRequest { max: 1, ..wanted }).await;
    }
    assert_eq!(stand.pass(std::time::Duration::from_millis(29_999)).await.reaped, 0);
    assert_eq!(stand.pass(std::time::Duration::from_millis(1)).await.reaped, 2);
}

pub(super) async fn what_was_lost_can_no_longer_be_settled(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [pull_request(&queue), request(&queue)] {
        let wanted = LeaseRequest { max: 1, ..wanted };
        let leased = stand.take(wanted.clone()).await;
        stand.pass(seconds(30)).await;
        let stats = stand.stats(&queue).await;
        assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
        assert_eq!(stand.connection.extend(leased.batch, seconds(30)).await, Ok(Extended::Lost));
        assert!(stand.take(wanted).await.leases.is_empty(), "nor leased again under that name");
        assert_eq!(stand.stats(&queue).await, stats);
    }
}

pub(super) async fn a_late_settlement_does_not_touch_the_next_lease_of_the_message(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_plain(&queue, 1).await[0];
    let late = stand.take(pull_request(&queue)).await;
    stand.pass(seconds(30)).await;
    let current = stand.take(pull_request(&queue)).await;
    assert_eq!(stand.settle(&late.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
    assert_eq!(stand.find(&queue, id).await.expect("it is there").state, State::Leased);
    stand.settle_all(current, Verdict::Ack).await;
}

pub(super) async fn only_what_was_not_settled_is_lost(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 4).await;
    let leased = stand.take(pull_request(&queue)).await;
    stand
        .settle(&leased.batch, vec![settlement(0, Verdict::Ack), settlement(2, retry_after(seconds(900)))])
        .await;
    assert_eq!(stand.pass(seconds(30)).await.reaped, 2);
    let again = [0, 1, 2, 3].map(|place| settlement(place, Verdict::Ack)).to_vec();
    let expected = [Settled::Settled, Settled::Lost, Settled::Lost, Settled::Lost];
    assert_eq!(stand.settle(&leased.batch, again).await, expected);
    let again = [0, 1, 2, 3].map(|place| settlement(place, retry_after(seconds(900)))).to_vec();
    let expected = [Settled::Lost, Settled::Lost, Settled::Settled, Settled::Lost];
    assert_eq!(stand.settle(&leased.batch, again).await, expected);
    assert_eq!(ids(&stand.take(pull_request(&queue)).await), [published[1], published[3]]);
}

pub(super) async fn after_one_loss_all_that_was_in_flight_is_leased_together_again(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 64).await;
    let in_flight = stand.lease(&queue, 64).await;
    let more = stand.publish_plain(&queue, 3).await;
    stand.pass(seconds(30)).await;
    let again = stand.lease(&queue, 1_000).await;
    assert_eq!((in_flight.leases.len(), ids(&again)), (64, published), "what was first is first again");
    assert!(again.leases.iter().all(|lease| lease.record.is_suspect() && lease.record.losses() == 1));
    assert_eq!(ids(&stand.lease(&queue, 1_000).await), more, "those that were never lost are not among them");
}

pub(super) async fn what_has_one_attempt_left_is_tried_alone_after_one_loss(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let others = stand.publish_plain(&queue, 2).await;
    let of_two = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    let of_three = stand.publish_one(&queue, Draft { attempts_max: 3, ..draft() }).await;
    let leased = stand.lease(&queue, 4).await;
    stand.settle(&leased.batch, vec![settlement(3, retry_after(seconds(0)))]).await;
    let again = stand.lease(&queue, 4).await;
    assert_eq!((ids(&again), again.leases[0].record.attempts()), (vec![of_three], 1));
    stand.pass(seconds(30)).await;
    for expected in [others, vec![of_two], vec![of_three]] {
        let leased = stand.lease(&queue, 4).await;
        assert_eq!(ids(&leased), expected);
        assert!(leased.leases.iter().all(|lease| lease.record.is_suspect() && lease.record.losses() == 1));
        stand.settle_all(leased, Verdict::Ack).await;
    }
}

pub(super) async fn what_workers_lost_twice_is_leased_alone_and_before_all_others(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let lost = stand.publish_suspects(&queue, 3).await;
    let fresh = stand.publish_plain(&queue, 2).await;
    assert_eq!(stand.stats(&queue).await.gauges.pending, 5);
    let without = LeaseRequest { suspects: false, ..request(&queue) };
    assert_eq!(ids(&stand.take(LeaseRequest { max: 1, ..without.clone() }).await), fresh[..1], "passed over");
    for suspect in lost {
        let leased = stand.lease(&queue, 10).await;
        assert_eq!(ids(&leased), [suspect]);
        assert!(leased.leases[0].record.is_suspect() && leased.more);
        stand.settle_all(leased, Verdict::Ack).await;
    }
    let leased = stand.lease(&queue, 10).await;
    assert_eq!((ids(&leased).as_slice(), leased.more), (&fresh[1..], false));
}

pub(super) async fn a_request_without_suspects_finds_nothing_where_only_suspects_wait(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_suspects(&queue, 2).await;
    let leased = stand.take(LeaseRequest { suspects: false, ..request(&queue) }).await;
    assert!(leased.leases.is_empty() && !leased.more);
    assert!(stand.lease(&queue, 2).await.more, "one of two");
}

pub(super) async fn what_a_pulling_consumer_lost_is_no_suspect(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    for _ in 0..4 {
        stand.take(pull_request(&queue)).await;
        stand.pass(seconds(30)).await;
    }
    let leased = stand.lease(&queue, 10).await;
    assert_eq!((ids(&leased), leased.leases[0].record.losses()), (published, 4));
    assert!(leased.leases.iter().all(|lease| !lease.record.is_suspect()));
}

pub(super) async fn a_suspect_is_cleared_by_an_attempt_that_ended(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_suspects(&queue, 3).await;
    for _ in 0..3 {
        assert_eq!(stand.run(&queue, 10, retry_after(seconds(0))).await.len(), 1);
    }
    assert_eq!(ids(&stand.lease(&queue, 10).await), published, "together again");
}

pub(super) async fn a_suspect_stays_one_while_no_attempt_was_made(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let suspect = stand.publish_suspects(&queue, 1).await;
    stand.publish_plain(&queue, 3).await;
    for verdict in
        [Verdict::Release, Verdict::Defer { delay: seconds(0) }, Verdict::Defer { delay: seconds(5) }]
    {
        assert_eq!(stand.run(&queue, 10, verdict).await, suspect);
        stand.pass(seconds(5)).await;
    }
    assert_eq!(ids(&stand.lease(&queue, 10).await), suspect);
}

pub(super) async fn a_released_suspect_goes_before_other_suspects(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let lost = stand.publish_suspects(&queue, 2).await;
    assert_eq!(stand.run(&queue, 10, Verdict::Release).await, lost[..1]);
    assert_eq!(stand.drain(&queue).await, lost);
}

pub(super) async fn a_message_whose_last_attempt_was_lost_is_poison(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 3, ..draft() }).await;
    for attempt in 1..=3 {
        let leased = stand.lease(&queue, 1).await;
        assert_eq!(leased.leases[0].attempt_number(), attempt);
        stand.pass(seconds(30)).await;
    }
    let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts, letter.status), (DeadReason::Poison, 3, None));
    assert_eq!(letter.history.len(), 3);
    let counters = stand.stats(&queue).await.counters;
    assert_eq!((counters.recovered, counters.retried, counters.dead_lettered), (3, 2, 1));
}

pub(super) async fn one_attempt_means_started_at_most_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish(&queue, &vec![Draft { attempts_max: 1, ..draft() }; 4]).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        assert_eq!(stand.take(LeaseRequest { max: 2, ..wanted }).await.leases.len(), 2);
    }
    stand.pass(seconds(30)).await;
    assert!(stand.lease(&queue, 10).await.leases.is_empty());
    assert_eq!(stand.stats(&queue).await.gauges.dead, 4);
}

pub(super) async fn a_lost_message_that_expired_is_dead(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { ttl: Some(seconds(20)), ..draft() }).await;
    let last = Draft { ttl: Some(seconds(20)), attempts_max: 1, ..draft() };
    let poison = stand.publish_one(&queue, last).await;
    stand.lease(&queue, 2).await;
    let swept = stand.pass(seconds(30)).await;
    assert_eq!((swept.reaped, swept.expired), (2, 1));
    for (id, reason) in [(id, DeadReason::Expired), (poison, DeadReason::Poison)] {
        let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
        assert_eq!((letter.reason, letter.attempts), (reason, 1));
    }
    let counters = stand.stats(&queue).await.counters;
    assert_eq!((counters.recovered, counters.retried, counters.dead_lettered), (2, 0, 2));
}

pub(super) async fn one_killer_takes_no_innocent_with_it(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish(&queue, &vec![Draft { attempts_max: 4, ..draft() }; 64]).await;
    let killer = published[20];
    for _ in 0..200 {
        let leased = stand.lease(&queue, 64).await;
        if leased.leases.is_empty() {
            break;
        }
        // The process dies with everything it had when it meets the killer.
        if ids(&leased).contains(&killer) {
            stand.pass(seconds(30)).await;
        } else {
            stand.settle_all(leased, Verdict::Ack).await;
        }
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges.dead, stats.gauges.pending), (63, 1, 0));
    let letter = stand.connection.dead(queue.clone(), killer).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Poison, 4));
}

pub(super) async fn a_clock_that_is_set_takes_no_workers_lease_away(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    let leased = stand.lease(&queue, 1).await;
    for wall in [START.saturating_add(seconds(86_400)), START.saturating_sub(seconds(86_400)), START] {
        stand.clock.set_wall(wall);
        assert_eq!(stand.sweep().await.reaped, 0);
    }
    stand.clock.set_wall(START.saturating_sub(seconds(86_400)));
    let swept = stand.pass(seconds(29)).await;
    assert_eq!((swept.reaped, swept.next_at), (0, Some(stand.now().saturating_add(seconds(1)))));
    assert_eq!(stand.pass(seconds(1)).await.reaped, 1);
    assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
}

pub(super) async fn a_pulling_consumers_lease_lasts_until_the_moment_it_was_told(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    let leased = stand.take(pull_request(&queue)).await;
    stand.clock.set_wall(Timestamp::from_millis(leased.until.as_millis() - 1));
    assert_eq!(stand.sweep().await.reaped, 0);
    stand.clock.set_wall(leased.until);
    assert_eq!(stand.sweep().await.reaped, 1);
}

pub(super) async fn a_sweep_takes_only_so_many_lost_messages_back_at_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..3 {
        stand.publish_plain(&queue, 800).await;
        stand.take(LeaseRequest { kind: LeaseKind::Pull, ..request(&queue) }).await;
    }
    stand.clock.advance(seconds(30));
    let (mut reaped, mut rounds) = (0, 0);
    loop {
        let swept = stand.connection.sweep().await.expect("the store answers");
        assert!(swept.reaped <= SWEEP_MESSAGES_MAX as u64, "{swept:?}");
        stand.check().await;
        (reaped, rounds) = (reaped + swept.reaped, rounds + 1);
        assert!(rounds < 100, "it never ends");
        if !swept.more {
            break;
        }
    }
    assert_eq!((reaped, stand.stats(&queue).await.counters.recovered), (2_400, 2_400));
    assert_eq!(stand.lease(&queue, 1_000).await.leases.len(), 1_000);
}

pub(super) async fn a_sweep_takes_only_so_many_lost_bytes_back_at_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let large = Draft { payload: vec![7; 3 << 20], ..draft() };
    let group = stand.group(&queue, &vec![large; 4]);
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    let leased = stand.lease(&queue, 4).await;
    stand.clock.advance(seconds(30));
    let each = leased.leases[0].record.charged_bytes();
    assert!(2 * each > SWEEP_BYTES_MAX);
    let first = stand.connection.sweep().await.expect("the store answers");
    assert_eq!((first.reaped, first.more), (1, true));
    stand.check().await;
    assert_eq!(stand.sweep().await.reaped, 3);
}
