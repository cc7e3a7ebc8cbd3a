//! In which order messages come.

use posthaste::domain::id::MessageId;
use posthaste::domain::message::Priority;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::Due;
use posthaste::store::lease::{LeaseKind, LeaseRequest};

use super::stand::{Draft, Stand, dead, draft, ids, pull_request, request, retry_after, seconds, settlement};

fn of(priority: Priority) -> Draft {
    Draft { priority, ..draft() }
}

pub(super) async fn messages_of_one_priority_come_first_in_first_out(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut published = stand.publish_plain(&queue, 10).await;
    published.extend(stand.publish_plain(&queue, 10).await);
    let mut taken = ids(&stand.lease(&queue, 7).await);
    taken.extend(ids(&stand.lease(&queue, 100).await));
    assert_eq!(taken, published);
}

/// Publishes so many of each priority, low ones first.
async fn publish_mixed(stand: &Stand, queue: &QueueRef, each: usize) {
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        stand.publish(queue, &vec![of(priority); each]).await;
    }
}

fn count(leased: &posthaste::store::lease::Leased) -> [usize; 3] {
    Priority::ALL
        .map(|priority| leased.leases.iter().filter(|lease| lease.record.priority() == priority).count())
}

pub(super) async fn priorities_are_drawn_16_to_4_to_1(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    publish_mixed(stand, &queue, 100).await;
    for _ in 0..3 {
        assert_eq!(count(&stand.lease(&queue, 21).await), [16, 4, 1]);
    }
}

pub(super) async fn the_wheel_turns_on_from_lease_to_lease(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    publish_mixed(stand, &queue, 100).await;
    let mut sum = [0; 3];
    for _ in 0..42 {
        for (sum, more) in sum.iter_mut().zip(count(&stand.lease(&queue, 1).await)) {
            *sum += more;
        }
    }
    assert_eq!(sum, [32, 8, 2], "low is never starved by leases of one");
}

pub(super) async fn an_empty_priority_passes_its_turns_on(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish(&queue, &vec![of(Priority::Low); 30]).await;
    assert_eq!(count(&stand.lease(&queue, 21).await), [0, 0, 21]);
    stand.publish(&queue, &vec![of(Priority::Normal); 30]).await;
    assert_eq!(count(&stand.lease(&queue, 20).await), [0, 16, 4]);
}

pub(super) async fn a_message_that_did_not_fit_a_batch_keeps_its_turn(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let large = Draft { payload: vec![1; 100], ..of(Priority::Normal) };
    stand.publish(&queue, &[large.clone(), large]).await;
    stand.publish(&queue, &vec![of(Priority::High); 30]).await;
    // Four high ones, then the turn of a normal one, which does not fit.
    let leased = stand.take(LeaseRequest { bytes_max: 100, ..request(&queue) }).await;
    assert_eq!(count(&leased), [4, 0, 0]);
    assert_eq!(count(&stand.lease(&queue, 6).await), [4, 2, 0]);
}

pub(super) async fn an_expired_message_uses_up_its_turn(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let short = Draft { ttl: Some(seconds(1)), ..of(Priority::Normal) };
    stand.publish(&queue, &[short, of(Priority::Normal)]).await;
    stand.publish(&queue, &vec![of(Priority::High); 30]).await;
    stand.clock.advance(seconds(1));
    assert_eq!(count(&stand.lease(&queue, 8).await), [8, 0, 0]);
    assert_eq!(count(&stand.lease(&queue, 1).await), [0, 1, 0]);
}

pub(super) async fn returned_and_fresh_messages_take_turns(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let returned = stand.publish_plain(&queue, 3).await;
    stand.run(&queue, 3, retry_after(seconds(0))).await;
    let fresh = stand.publish_plain(&queue, 5).await;
    let taken = stand.drain(&queue).await;
    let places: Vec<usize> = returned.iter().map(|id| place(&taken, *id)).collect();
    assert!(places.is_sorted() && places[2] <= 5, "one of each as long as both have some: {places:?}");
    let places: Vec<usize> = fresh.iter().map(|id| place(&taken, *id)).collect();
    assert!(places.is_sorted() && places[2] <= 5, "one of each as long as both have some: {places:?}");
}

fn place(taken: &[MessageId], id: MessageId) -> usize {
    taken.iter().position(|other| *other == id).expect("it came")
}

pub(super) async fn neither_fresh_nor_returned_ones_starve_the_others(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let (old, new) = (stand.publish_plain(&queue, 2).await, 20);
    for round in 0..new {
        // Something fresh comes all the time, and what fails comes back at once.
        stand.publish_plain(&queue, 1).await;
        let leased = stand.lease(&queue, 1).await;
        let was_old = ids(&leased).iter().any(|id| old.contains(id));
        stand.settle_all(leased, if was_old { retry_after(seconds(0)) } else { Verdict::Ack }).await;
        let stats = stand.stats(&queue).await;
        if stats.counters.delivered >= 4 && stats.counters.retried >= 4 {
            return;
        }
        assert!(round + 1 < new, "one kind starves the other: {stats:?}");
        // Those with attempts left only.
        assert_eq!(stats.gauges.dead, 0);
    }
}

pub(super) async fn what_is_released_comes_first_again_and_in_its_order(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut drafts = vec![of(Priority::Low); 4];
    drafts.extend(vec![of(Priority::High); 4]);
    stand.publish(&queue, &drafts).await;
    let leased = stand.lease(&queue, 6).await;
    let (batch, taken) = (leased.batch.clone(), ids(&leased));
    // Named in any order, in one call.
    let released = [3, 0, 5, 1, 4].map(|place| settlement(place, Verdict::Release)).to_vec();
    stand.settle(&batch, released).await;
    let again = ids(&stand.lease(&queue, 5).await);
    assert_eq!(again, [taken[0], taken[1], taken[3], taken[4], taken[5]]);
}

pub(super) async fn batches_released_the_youngest_first_come_back_in_order(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 6).await;
    let (first, second) = (stand.lease(&queue, 2).await, stand.lease(&queue, 2).await);
    stand.settle_all(second, Verdict::Release).await;
    stand.settle_all(first, Verdict::Release).await;
    assert_eq!(stand.drain(&queue).await, published);
}

pub(super) async fn what_pulling_consumers_lost_comes_first_again_and_in_its_order(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 7).await;
    for max in [2, 3] {
        stand.take(LeaseRequest { max, ..pull_request(&queue) }).await;
    }
    assert_eq!(stand.pass(seconds(30)).await.reaped, 5);
    assert_eq!(ids(&stand.take(pull_request(&queue)).await), published);
}

pub(super) async fn scheduled_messages_come_in_the_order_of_their_moments_and_ties_in_the_order_given(
    stand: &mut Stand,
) {
    let queue = stand.queue("orders").await;
    let after = |count: u64| Draft { due: Due::After(seconds(count)), ..draft() };
    let published =
        stand.publish(&queue, &[after(30), after(10), after(20), after(10), after(30), after(20)]).await;
    assert_eq!(stand.pass(seconds(60)).await.promoted, 6);
    assert_eq!(stand.drain(&queue).await, [1, 3, 2, 5, 0, 4].map(|place: usize| published[place]));
}

pub(super) async fn retried_messages_come_in_the_order_settled(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    let retried = [2, 0, 1].map(|place| settlement(place, retry_after(seconds(0)))).to_vec();
    stand.settle(&leased.batch, retried).await;
    assert_eq!(stand.drain(&queue).await, [2, 0, 1].map(|place: usize| published[place]));
}

pub(super) async fn replayed_messages_come_oldest_death_first_after_what_returned_before(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut died = Vec::new();
    for _ in 0..3 {
        died.extend(stand.publish_dead(&queue, 2).await);
        stand.clock.advance(seconds(1));
    }
    let retried = stand.publish_plain(&queue, 1).await;
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    stand
        .connection
        .replay(queue.clone(), Selection::Filter(DeadFilter::default()), false)
        .await
        .expect("it answers");
    let taken = stand.drain(&queue).await;
    assert_eq!((taken[0], &taken[1..]), (retried[0], died.as_slice()));
}

pub(super) async fn a_high_message_overtakes_a_backlog(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 500).await;
    let urgent = stand.publish_one(&queue, of(Priority::High)).await;
    let taken = ids(&stand.lease(&queue, 3).await);
    assert!(taken.contains(&urgent), "within the first few turns");
}

pub(super) async fn a_replayed_or_retried_message_keeps_its_priority(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let urgent = stand.publish_one(&queue, of(Priority::High)).await;
    stand.run(&queue, 1, retry_after(seconds(0))).await;
    stand.run(&queue, 1, dead(DeadReason::Rejected)).await;
    stand.publish_plain(&queue, 50).await;
    stand.connection.replay(queue.clone(), Selection::Ids(vec![urgent]), false).await.expect("it answers");
    let leased = stand.take(LeaseRequest { max: 2, kind: LeaseKind::Pull, ..pull_request(&queue) }).await;
    assert!(ids(&leased).contains(&urgent));
    assert_eq!(count(&leased)[0], 1);
}
