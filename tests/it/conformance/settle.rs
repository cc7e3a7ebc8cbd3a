//! Settling and extending: each verdict, what is sent twice, what comes too late.

use std::sync::Arc;

use posthaste::domain::message::State;
use posthaste::domain::outcome::{Attempt, DeadReason};
use posthaste::domain::retry::Verdict;
use posthaste::store::LEASE_LIFE_MAX;
use posthaste::store::lease::{BatchId, BatchRef, Extended, LeaseRequest, Settled, Settlement, Token};

use super::stand::{
    Draft, Stand, attempt, dead, draft, ids, pull_request, request, retry_after, seconds, settlement,
    settlements,
};

use Settled::{Lost, Settled as Held};

pub(super) async fn an_acknowledged_message_is_delivered_and_gone(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 4).await;
    assert_eq!(stand.run(&queue, 4, Verdict::Ack).await, published);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges), (4, posthaste::store::stats::Gauges::default()));
    stand.pass(seconds(3_600)).await;
    assert!(stand.lease(&queue, 4).await.leases.is_empty());
}

pub(super) async fn a_retry_counts_an_attempt_and_waits_its_delay(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 1).await;
    stand.run(&queue, 1, retry_after(seconds(10))).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.retried, stats.gauges.scheduled, stats.gauges.bytes_waiting), (1, 1, 10));
    let found = stand.find(&queue, published[0]).await.expect("it is there");
    assert_eq!(
        (found.state, found.due_at),
        (State::Scheduled, Some(stand.now().saturating_add(seconds(10))))
    );
    assert_eq!(stand.pass(seconds(9)).await.promoted, 0);
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    assert_eq!(stand.pass(seconds(1)).await.promoted, 1);
    let leased = stand.lease(&queue, 1).await;
    assert_eq!((leased.leases[0].record.attempts(), leased.leases[0].record.losses()), (1, 0));
}

pub(super) async fn a_retry_without_delay_is_pending_at_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.scheduled, stats.counters.retried), (1, 0, 1));
    assert_eq!(stand.lease(&queue, 1).await.leases[0].attempt_number(), 2);
}

pub(super) async fn a_retry_of_the_last_attempt_is_dead(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_one(&queue, Draft { attempts_max: 2, ..draft() }).await;
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    let leased = stand.lease(&queue, 1).await;
    let last = Attempt { error: Some("no \u{1f9ea} left".to_owned()), ..attempt(2, 503) };
    let last = Settlement { attempt: Some(last), ..settlement(0, retry_after(seconds(5))) };
    assert_eq!(stand.settle(&leased.batch, vec![last]).await, [Held]);
    let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Exhausted, 2));
    assert_eq!(letter.detail.as_deref(), Some("no \u{1f9ea} left"), "what was wrong at the last");
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.retried, stats.counters.dead_lettered), (1, 1));
}

pub(super) async fn a_death_keeps_its_reason_and_its_words_and_counts_the_attempt(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for reason in [DeadReason::Rejected, DeadReason::Exhausted, DeadReason::Undeliverable] {
        let id = stand.publish_plain(&queue, 1).await[0];
        let detail = Some(format!("because of \u{1f9ea} {reason:?}"));
        stand.run(&queue, 1, Verdict::Dead { reason, detail: detail.clone() }).await;
        let letter = stand.connection.dead(queue.clone(), id).await.expect("it answers").expect("it is dead");
        assert_eq!((letter.reason, &letter.detail, letter.attempts), (reason, &detail, 1));
        let found = stand.find(&queue, id).await.expect("it is there");
        assert_eq!((found.state, found.reason, found.detail), (State::Dead, Some(reason), detail));
        assert_eq!(found.ended_at, Some(stand.now()));
    }
}

pub(super) async fn a_deferred_message_waits_and_counts_no_attempt(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    for round in 1..=7 {
        stand.run(&queue, 1, Verdict::Defer { delay: seconds(3) }).await;
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.deferred, stats.counters.retried, stats.gauges.scheduled), (round, 0, 1));
        assert_eq!(stand.pass(seconds(3)).await.promoted, 1);
    }
    assert_eq!(stand.lease(&queue, 1).await.leases[0].record.attempts(), 0);
}

pub(super) async fn a_postponed_message_waits_and_is_counted_nowhere(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    let (postpone, defer) = (Verdict::Postpone { delay: seconds(3) }, Verdict::Defer { delay: seconds(3) });
    for round in 1..=3 {
        let leased = stand.lease(&queue, 2).await;
        let sent = vec![settlement(0, postpone.clone()), settlement(1, defer.clone())];
        // Which of them it was is forgotten: what comes again holds, whichever it says, and counts once.
        let again = vec![settlement(0, defer.clone()), settlement(1, postpone.clone())];
        for sent in [sent, again] {
            assert_eq!(stand.settle(&leased.batch, sent).await, [Held; 2]);
        }
        let stats = stand.stats(&queue).await;
        assert_eq!((stats.counters.deferred, stats.counters.retried, stats.gauges.scheduled), (round, 0, 2));
        assert_eq!(stand.pass(seconds(3)).await.promoted, 2);
    }
    let first = stand.lease(&queue, 2).await;
    assert!(first.leases.iter().all(|lease| lease.record.attempts() == 0));
    stand.settle(&first.batch, vec![settlement(0, postpone), settlement(1, Verdict::Ack)]).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.deferred, stats.gauges.scheduled), (3, 1));
}

pub(super) async fn a_released_message_is_as_if_never_leased(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    let before = stand.stats(&queue).await;
    for _ in 0..10 {
        stand.run(&queue, 2, Verdict::Release).await;
    }
    assert_eq!(stand.stats(&queue).await, before);
    let leased = stand.lease(&queue, 3).await;
    assert_eq!(ids(&leased), published);
    assert!(leased.leases.iter().all(|lease| lease.record.attempts() == 0));
}

pub(super) async fn each_settlement_of_a_call_has_its_own_result(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    let ack = |place| settlement(place, Verdict::Ack);
    assert_eq!(
        stand.settle(&leased.batch, vec![ack(9), ack(1), ack(1), ack(3), ack(0)]).await,
        [Lost, Held, Held, Lost, Held]
    );
    assert_eq!(stand.stats(&queue).await.counters.delivered, 2);
}

pub(super) async fn a_slow_message_does_not_hold_its_batch_mates(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 5).await;
    let leased = stand.lease(&queue, 5).await;
    let fast = [0, 1, 3, 4].map(|place| settlement(place, Verdict::Ack)).to_vec();
    assert_eq!(stand.settle(&leased.batch, fast).await, [Held; 4]);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges.leased, stats.gauges.bytes_leased), (4, 1, 10));
    stand.clock.advance(seconds(20));
    assert!(matches!(extend(stand, &leased.batch, 30).await, Extended::Until(_)));
    assert_eq!(stand.pass(seconds(20)).await.reaped, 0);
    assert_eq!(stand.settle(&leased.batch, vec![settlement(2, Verdict::Ack)]).await, [Held]);
}

pub(super) async fn a_settle_sent_again_holds_and_counts_once(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 4).await;
    let leased = stand.lease(&queue, 4).await;
    let batch = leased.batch.clone();
    let verdicts = [Verdict::Ack, retry_after(seconds(500)), dead(DeadReason::Rejected), Verdict::Release];
    let sent: Vec<_> = (0..).zip(verdicts).map(|(place, verdict)| settlement(place, verdict)).collect();
    // While the batch lives, and after its end.
    assert_eq!(stand.settle(&batch, sent[..2].to_vec()).await, [Held; 2]);
    assert_eq!(stand.settle(&batch, sent[..2].to_vec()).await, [Held; 2]);
    assert_eq!(stand.settle(&batch, sent.clone()).await, [Held; 4]);
    let stats = stand.stats(&queue).await;
    stand.clock.advance(seconds(59));
    assert_eq!(stand.settle(&batch, sent.clone()).await, [Held; 4]);
    assert_eq!(stand.stats(&queue).await, stats);
    assert_eq!(
        stand.settle(&batch, vec![settlement(4, Verdict::Ack)]).await,
        [Lost],
        "it was never part of it"
    );
    stand.clock.advance(seconds(2));
    assert_eq!(stand.settle(&batch, sent).await, [Lost; 4], "nobody remembers");
    assert_eq!(stand.stats(&queue).await, stats);
}

pub(super) async fn the_first_verdict_stands(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 2).await;
    let leased = stand.lease(&queue, 2).await;
    let twice = vec![settlement(0, Verdict::Ack), settlement(0, dead(DeadReason::Rejected))];
    assert_eq!(stand.settle(&leased.batch, twice).await, [Held, Lost]);
    stand.settle(&leased.batch, vec![settlement(1, retry_after(seconds(9)))]).await;
    assert_eq!(stand.settle(&leased.batch, vec![settlement(1, Verdict::Ack)]).await, [Lost]);
    let states = [stand.find(&queue, published[0]).await, stand.find(&queue, published[1]).await];
    assert_eq!(
        states.map(|found| found.map(|found| found.state)),
        [Some(State::Delivered), Some(State::Scheduled)]
    );
}

/// Each way to end a lease.
fn ways() -> [Verdict; 5] {
    let defer = Verdict::Defer { delay: seconds(400) };
    [Verdict::Ack, retry_after(seconds(500)), dead(DeadReason::Rejected), defer, Verdict::Release]
}

/// The same ways, with other delays and words.
fn same_ways() -> [Verdict; 5] {
    let death = Verdict::Dead { reason: DeadReason::Undeliverable, detail: Some("other words".to_owned()) };
    let defer = Verdict::Defer { delay: seconds(1) };
    [Verdict::Ack, retry_after(seconds(0)), death, defer, Verdict::Release]
}

/// What each lease is told by each verdict, in one call a verdict and in one for all.
async fn expect_first_way_stands(stand: &Stand, batch: &BatchRef, first: &[Option<usize>]) {
    let told = |place: usize, way| if first[place] == Some(way) { Held } else { Lost };
    let place_of = |place| u16::try_from(place).expect("few places");
    for verdicts in [ways(), same_ways()] {
        let mut all = Vec::new();
        for (way, verdict) in verdicts.into_iter().enumerate() {
            let one: Vec<_> =
                (0..first.len()).map(|place| settlement(place_of(place), verdict.clone())).collect();
            let expected: Vec<_> = (0..first.len()).map(|place| told(place, way)).collect();
            assert_eq!(stand.settle(batch, one.clone()).await, expected, "{verdict:?}");
            all.extend(one.into_iter().zip(expected));
        }
        let (all, expected): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        assert_eq!(stand.settle(batch, all).await, expected);
    }
}

pub(super) async fn what_was_settled_is_so_by_the_same_verdict_and_lost_for_another(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for wanted in [request(&queue), pull_request(&queue)] {
        for only in 0..5 {
            stand.publish_plain(&queue, 2).await;
            let leased =
                stand.take(LeaseRequest { batch: BatchId::random(), max: 2, ..wanted.clone() }).await;
            let sent = [0, 1].map(|place| settlement(place, ways()[only].clone()));
            assert_eq!(stand.settle(&leased.batch, sent.to_vec()).await, [Held; 2]);
            expect_first_way_stands(stand, &leased.batch, &[Some(only); 2]).await;
            stand.connection.purge(queue.clone()).await.expect("the store answers");
        }
        stand.publish_plain(&queue, 6).await;
        let leased = stand.take(LeaseRequest { max: 6, ..wanted }).await;
        for (place, way) in (0..).zip(ways()) {
            assert_eq!(stand.settle(&leased.batch, vec![settlement(place, way)]).await, [Held]);
        }
        let mut first = (0..5).map(Some).collect::<Vec<_>>();
        expect_first_way_stands(stand, &leased.batch, &first).await;
        assert_eq!(stand.pass(seconds(30)).await.reaped, 1);
        first.push(None);
        let stats = stand.stats(&queue).await;
        expect_first_way_stands(stand, &leased.batch, &first).await;
        assert_eq!(stand.stats(&queue).await, stats, "nothing was changed");
        stand.connection.purge(queue.clone()).await.expect("the store answers");
    }
}

pub(super) async fn a_batch_that_ends_in_two_calls_remembers_both(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 40).await;
    let leased = stand.take(LeaseRequest { max: 40, ..pull_request(&queue) }).await;
    // The second call ends little of a large batch.
    let sent = |places: std::ops::Range<u16>, verdict: &Verdict| -> Vec<_> {
        places.map(|place| settlement(place, verdict.clone())).collect()
    };
    let (retry, ack) = (retry_after(seconds(500)), Verdict::Ack);
    assert_eq!(stand.settle(&leased.batch, sent(0..37, &ack)).await, [Held; 37]);
    assert_eq!(stand.settle(&leased.batch, sent(37..39, &retry)).await, [Held; 2]);
    assert_eq!(stand.settle(&leased.batch, sent(39..40, &Verdict::Release)).await, [Held]);
    let expected = |places: std::ops::Range<usize>| -> Vec<_> {
        (0..40).map(|place| if places.contains(&place) { Held } else { Lost }).collect()
    };
    assert_eq!(stand.settle(&leased.batch, sent(0..40, &ack)).await, expected(0..37));
    assert_eq!(stand.settle(&leased.batch, sent(0..40, &retry)).await, expected(37..39));
    assert_eq!(stand.settle(&leased.batch, sent(0..40, &Verdict::Release)).await, expected(39..40));
}

pub(super) async fn who_gave_a_message_back_is_not_told_that_it_settled_what_another_has(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = stand.publish_plain(&queue, 1).await[0];
    for given_back in [Verdict::Release, retry_after(seconds(0)), Verdict::Defer { delay: seconds(0) }] {
        let mine = stand.take(pull_request(&queue)).await;
        assert_eq!(ids(&mine), [id]);
        assert_eq!(stand.settle(&mine.batch, vec![settlement(0, given_back.clone())]).await, [Held]);
        stand.sweep().await;
        let theirs = stand.take(pull_request(&queue)).await;
        assert_eq!(ids(&theirs), [id]);
        assert_eq!(stand.settle(&mine.batch, vec![settlement(0, Verdict::Ack)]).await, [Lost]);
        assert_eq!(stand.settle(&mine.batch, vec![settlement(0, given_back)]).await, [Held], "sent again");
        assert_eq!(stand.find(&queue, id).await.expect("it is there").state, State::Leased);
        stand.settle_all(theirs, Verdict::Release).await;
    }
}

pub(super) async fn who_does_not_know_the_token_holds_nothing(stand: &mut Stand) {
    let (queue, other) = (stand.queue("orders").await, stand.queue("mails").await);
    stand.publish_plain(&queue, 2).await;
    stand.publish_plain(&other, 1).await;
    let held = stand.lease(&queue, 2).await.batch;
    let others = stand.lease(&other, 1).await.batch;
    let wrong = [
        BatchRef { token: Token(held.token.0.wrapping_add(1)), ..held.clone() },
        BatchRef { token: Token(0), ..held.clone() },
        BatchRef { token: others.token, ..held.clone() },
        BatchRef { batch: BatchId::random(), ..held.clone() },
        BatchRef { batch: others.batch, ..held.clone() },
        BatchRef { queue: other.clone(), ..held.clone() },
    ];
    let before = stand.stats(&queue).await;
    for batch in wrong {
        for verdict in [Verdict::Ack, Verdict::Release, dead(DeadReason::Rejected)] {
            assert_eq!(stand.settle(&batch, vec![settlement(0, verdict)]).await, [Lost], "{batch:?}");
        }
        assert_eq!(extend(stand, &batch, 60).await, Extended::Lost);
    }
    assert_eq!(stand.stats(&queue).await, before);
    assert_eq!(
        stand.settle(&held, vec![settlement(0, Verdict::Ack), settlement(1, Verdict::Ack)]).await,
        [Held; 2]
    );
}

pub(super) async fn tokens_differ_from_batch_to_batch(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 50).await;
    let mut tokens = std::collections::HashSet::new();
    for _ in 0..50 {
        assert!(tokens.insert(stand.lease(&queue, 1).await.batch.token));
    }
}

pub(super) async fn a_lease_is_over_when_it_is_taken_back_and_not_before(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 4).await;
    let (settled, extended) = (stand.lease(&queue, 2).await, stand.lease(&queue, 2).await);
    stand.clock.advance(seconds(40));
    // Nobody swept: nobody else can have them.
    stand.settle_all(settled, Verdict::Ack).await;
    let until = stand.now().saturating_add(seconds(30));
    assert_eq!(extend(stand, &extended.batch, 30).await, Extended::Until(until));
    assert_eq!(stand.sweep().await.reaped, 0);
    stand.settle_all(extended, Verdict::Ack).await;
    assert_eq!(stand.stats(&queue).await.counters.delivered, 4);
}

pub(super) async fn an_expired_message_that_is_put_back_dies_at_its_next_turn(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish(&queue, &vec![Draft { ttl: Some(seconds(10)), ..draft() }; 3]).await;
    let leased = stand.lease(&queue, 3).await;
    stand.clock.advance(seconds(10));
    let verdicts = [retry_after(seconds(5)), Verdict::Defer { delay: seconds(5) }, Verdict::Release];
    let sent = (0..).zip(verdicts).map(|(place, verdict)| settlement(place, verdict)).collect();
    assert_eq!(stand.settle(&leased.batch, sent).await, [Held; 3]);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.scheduled, stats.gauges.pending, stats.gauges.dead), (2, 1, 0));
    assert!(stand.lease(&queue, 3).await.leases.is_empty());
    assert_eq!(stand.pass(seconds(5)).await.expired, 2);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.dead, stats.gauges.pending, stats.gauges.scheduled), (3, 0, 0));
}

pub(super) async fn time_to_live_is_not_judged_while_leased(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_one(&queue, Draft { ttl: Some(seconds(10)), ..draft() }).await;
    let leased = stand.take(LeaseRequest { lease: seconds(100), ..request(&queue) }).await;
    stand.pass(seconds(50)).await;
    stand.settle_all(leased, Verdict::Ack).await;
    assert_eq!(stand.stats(&queue).await.counters.delivered, 1);
}

async fn extend(stand: &Stand, batch: &BatchRef, count: u64) -> Extended {
    stand.connection.extend(batch.clone(), seconds(count)).await.expect("the store answers")
}

pub(super) async fn an_extension_moves_the_deadline_of_the_whole_batch(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 6).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        let leased = stand.take(LeaseRequest { max: 3, ..wanted.clone() }).await;
        for _ in 0..5 {
            stand.clock.advance(seconds(20));
            let until = stand.now().saturating_add(seconds(30));
            assert_eq!(extend(stand, &leased.batch, 30).await, Extended::Until(until));
            assert_eq!(stand.sweep().await.reaped, 0);
            assert_eq!(stand.take(wanted.clone()).await.until, until);
        }
        stand.settle_all(leased, Verdict::Ack).await;
    }
}

pub(super) async fn an_extension_never_shortens(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        let leased = stand.take(LeaseRequest { max: 1, ..wanted }).await;
        let until = stand.now().saturating_add(seconds(30));
        assert_eq!(extend(stand, &leased.batch, 5).await, Extended::Until(until));
        assert_eq!(stand.pass(seconds(29)).await.reaped, 0);
        assert_eq!(stand.pass(seconds(1)).await.reaped, 1);
    }
}

pub(super) async fn a_batch_lives_twelve_hours_at_most(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        let leased = stand.take(LeaseRequest { max: 1, ..wanted }).await;
        let last = stand.now().saturating_add(LEASE_LIFE_MAX);
        let step = LEASE_LIFE_MAX.as_secs() / 4;
        for _ in 0..3 {
            assert_eq!(
                extend(stand, &leased.batch, step + 60).await,
                Extended::Until(stand.now().saturating_add(seconds(step + 60)))
            );
            stand.pass(seconds(step)).await;
        }
        assert_eq!(extend(stand, &leased.batch, 2 * step).await, Extended::Until(last));
        assert_eq!(stand.pass(seconds(step - 1)).await.reaped, 0);
        assert_eq!(extend(stand, &leased.batch, step).await, Extended::Until(last));
        assert_eq!(stand.pass(seconds(1)).await.reaped, 1);
    }
}

pub(super) async fn what_ended_cannot_be_extended(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    let (settled, lost) = (stand.lease(&queue, 1).await, stand.lease(&queue, 1).await);
    let (settled_batch, lost_batch) = (settled.batch.clone(), lost.batch);
    stand.settle_all(settled, Verdict::Ack).await;
    stand.pass(seconds(30)).await;
    for batch in [settled_batch, lost_batch] {
        assert_eq!(extend(stand, &batch, 30).await, Extended::Lost);
    }
}

pub(super) async fn a_thousand_settlements_in_one_call(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 1_000).await;
    let leased = stand.lease(&queue, 1_000).await;
    assert_eq!(ids(&leased), published);
    let batch = leased.batch.clone();
    let sent = Arc::new(settlements(leased, &Verdict::Ack));
    let settled = stand.connection.settle(batch, sent).await.expect("the store answers");
    assert_eq!(settled, vec![Held; 1_000]);
    assert_eq!(stand.stats(&queue).await.counters.delivered, 1_000);
}
