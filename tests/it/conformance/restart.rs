//! What the next process finds. Stores that keep nothing pass by having nothing to show; for those that gateways share, a
//! process that ends means nothing by itself, see the tests of Redis.

use posthaste::domain::message::{Priority, State};
use posthaste::domain::outcome::{AttemptOutcome, DeadReason};
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::{Due, GroupResult};
use posthaste::store::lease::{Extended, LeaseRequest, Settled};

use super::stand::{
    Draft, START, Stand, attempt, dead, draft, ids, pull_request, request, retry_after, seconds, settlement,
};

pub(super) async fn what_was_accepted_is_there_after_a_restart(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let later = Draft { due: Due::After(seconds(50)), ..draft() };
    let published = stand.publish(&queue, &[draft(), later, draft()]).await;
    let died = stand.publish_plain(&queue, 1).await;
    stand.run(&queue, 1, retry_after(seconds(20))).await;
    let leased = stand.lease(&queue, 2).await;
    let sent = vec![settlement(0, dead(DeadReason::Rejected)), settlement(1, Verdict::Ack)];
    stand.settle(&leased.batch, sent).await;
    let before = stand.stats(&queue).await;
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.stats(&queue).await, before);
    stand.check().await;
    let states = [
        (published[0], State::Scheduled),
        (published[1], State::Scheduled),
        (published[2], State::Dead),
        (died[0], State::Delivered),
    ];
    for (id, state) in states {
        let found = stand.find(&queue, id).await.expect("it is there");
        assert_eq!((found.state, found.record.is_some()), (state, state != State::Delivered));
    }
    assert_eq!(stand.pass(seconds(49)).await.promoted, 1);
    assert_eq!(stand.pass(seconds(1)).await.promoted, 1);
    assert_eq!(stand.drain(&queue).await, published[..2]);
}

pub(super) async fn old_connections_are_of_no_use_after_a_restart(stand: &mut Stand) {
    let old = std::rc::Rc::clone(&stand.connection);
    if stand.restart().await {
        assert!(old.stats(None).await.is_err());
        assert!(stand.connection.stats(None).await.is_ok());
    }
}

pub(super) async fn what_workers_had_is_taken_back_at_once(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    let published = stand
        .publish(
            &queue,
            &[draft(), Draft { attempts_max: 2, ..draft() }, Draft { attempts_max: 1, ..draft() }],
        )
        .await;
    stand.clock.advance(seconds(5));
    let leased = stand.lease(&queue, 3).await;
    stand.clock.advance(seconds(2));
    if !stand.restart().await {
        return;
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.leased, stats.gauges.pending, stats.gauges.dead), (0, 2, 1));
    assert_eq!((stats.counters.recovered, stats.counters.retried, stats.counters.dead_lettered), (3, 2, 1));
    let letter =
        stand.connection.dead(queue.clone(), published[2]).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Poison, 1));
    let history = stand.find(&queue, published[0]).await.expect("it is there").history;
    let shown: Vec<_> =
        history.iter().map(|lost| (lost.number, lost.outcome, lost.at, lost.duration_ms)).collect();
    assert_eq!(shown, [(1, AttemptOutcome::Lost, START.saturating_add(seconds(5)), 2_000)]);
    assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
    assert_eq!(stand.connection.extend(leased.batch, seconds(30)).await, Ok(Extended::Lost));
    stand.publish_plain(&queue, 1).await;
    for expected in &published[..2] {
        let leased = stand.lease(&queue, 10).await;
        let record = &leased.leases[0].record;
        assert_eq!((ids(&leased), record.losses(), record.is_suspect()), (vec![*expected], 1, true));
        stand.settle_all(leased, Verdict::Ack).await;
    }
}

pub(super) async fn what_a_worker_settled_is_not_lost(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    stand
        .settle(&leased.batch, vec![settlement(0, Verdict::Ack), settlement(2, retry_after(seconds(0)))])
        .await;
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.stats(&queue).await.counters.recovered, 1);
    assert_eq!(stand.find(&queue, published[0]).await.expect("it is remembered").state, State::Delivered);
    for (place, losses) in [(1, 1), (2, 0)] {
        let leased = stand.lease(&queue, 10).await;
        assert_eq!((ids(&leased), leased.leases[0].record.losses()), (vec![published[place]], losses));
    }
}

pub(super) async fn what_pulling_consumers_have_stays_theirs_until_the_moment_told(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 4).await;
    let wanted = LeaseRequest { max: 2, ..pull_request(&queue) };
    let (first, second) = (stand.take(wanted.clone()).await, stand.take(pull_request(&queue)).await);
    stand.settle(&first.batch, vec![settlement(0, Verdict::Ack)]).await;
    stand.clock.advance(seconds(10));
    if !stand.restart().await {
        return;
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.leased, stats.gauges.pending, stats.counters.recovered), (3, 0, 0));
    let again = stand.take(wanted).await;
    assert_eq!(
        (ids(&again), again.batch.token, again.until),
        (vec![published[1]], first.batch.token, first.until)
    );
    assert_eq!(again.leases[0].index, 1);
    let until = stand.now().saturating_add(seconds(100));
    assert_eq!(stand.connection.extend(first.batch.clone(), seconds(100)).await, Ok(Extended::Until(until)));
    assert_eq!(stand.pass(seconds(19)).await.reaped, 0);
    assert_eq!(stand.pass(seconds(1)).await.reaped, 2, "the other one ends when it was told");
    let both = vec![settlement(0, Verdict::Ack), settlement(1, Verdict::Ack)];
    assert_eq!(stand.settle(&first.batch, both.clone()).await, [Settled::Settled; 2]);
    assert_eq!(stand.settle(&second.batch, both).await, [Settled::Lost; 2]);
    assert_eq!(stand.stats(&queue).await.counters.delivered, 2);
    let leased = stand.lease(&queue, 10).await;
    assert_eq!(ids(&leased), published[2..]);
    assert!(leased.leases.iter().all(|lease| !lease.record.is_suspect()));
}

pub(super) async fn a_pulling_consumers_settle_sent_again_after_a_restart_holds(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    let leased = stand.take(pull_request(&queue)).await;
    let both = vec![settlement(0, Verdict::Ack), settlement(1, retry_after(seconds(500)))];
    stand.settle(&leased.batch, both.clone()).await;
    let before = stand.stats(&queue).await;
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.settle(&leased.batch, both.clone()).await, [Settled::Settled; 2]);
    assert_eq!(stand.stats(&queue).await, before);
    stand.clock.advance(seconds(61));
    assert_eq!(stand.settle(&leased.batch, both).await, [Settled::Lost; 2]);
}

pub(super) async fn in_which_way_a_consumer_settled_is_known_after_a_restart(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 11).await;
    let whole = stand.take(LeaseRequest { max: 5, ..pull_request(&queue) }).await;
    let part = stand.take(LeaseRequest { max: 6, ..pull_request(&queue) }).await;
    let defer = Verdict::Defer { delay: seconds(500) };
    let ways = [Verdict::Ack, retry_after(seconds(500)), dead(DeadReason::Rejected), defer, Verdict::Release];
    let sent: Vec<_> = (0..).zip(&ways).map(|(place, way)| settlement(place, way.clone())).collect();
    for batch in [&whole.batch, &part.batch] {
        assert_eq!(stand.settle(batch, sent.clone()).await, [Settled::Settled; 5]);
    }
    let before = stand.stats(&queue).await;
    if !stand.restart().await {
        return;
    }
    for batch in [&whole.batch, &part.batch] {
        assert_eq!(stand.settle(batch, sent.clone()).await, [Settled::Settled; 5]);
        for turn in 1..ways.len() {
            let other = (0..).zip(ways.iter().cycle().skip(turn)).take(ways.len());
            let other = other.map(|(place, way)| settlement(place, way.clone())).collect();
            assert_eq!(stand.settle(batch, other).await, [Settled::Lost; 5]);
        }
    }
    assert_eq!(stand.stats(&queue).await, before);
    assert_eq!(stand.settle(&part.batch, vec![settlement(5, Verdict::Ack)]).await, [Settled::Settled]);
}

pub(super) async fn a_lease_that_ran_out_while_the_process_was_away_is_taken_back(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 2).await;
    stand.take(pull_request(&queue)).await;
    stand.clock.advance(seconds(3_600));
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.sweep().await.reaped, 2);
    assert_eq!(ids(&stand.lease(&queue, 10).await), published);
}

pub(super) async fn one_killer_takes_no_innocent_with_it_over_restarts(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    let published = stand.publish(&queue, &vec![Draft { attempts_max: 3, ..draft() }; 30]).await;
    let killer = published[7];
    for _ in 0..200 {
        let leased = stand.lease(&queue, 64).await;
        if leased.leases.is_empty() {
            break;
        }
        if !ids(&leased).contains(&killer) {
            stand.settle_all(leased, Verdict::Ack).await;
        } else if !stand.restart().await {
            return;
        }
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.delivered, stats.gauges.dead, stats.gauges.pending), (29, 1, 0));
    let letter = stand.connection.dead(queue.clone(), killer).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Poison, 3));
}

pub(super) async fn the_lists_keep_their_order_over_a_restart(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 9).await;
    // 0 and 1 are lost by a worker, 2 and 3 retried, 4 and 5 released, the others fresh.
    let (lost, retried, released) =
        (stand.lease(&queue, 2).await, stand.lease(&queue, 2).await, stand.lease(&queue, 2).await);
    stand.settle_all(retried, retry_after(seconds(0))).await;
    stand.settle_all(released, Verdict::Release).await;
    drop(lost);
    let more = stand.publish(&queue, &[Draft { due: Due::After(seconds(5)), ..draft() }, draft()]).await;
    stand.pass(seconds(5)).await;
    if !stand.restart().await {
        return;
    }
    let drained = stand.drain(&queue).await;
    assert_eq!(drained[..4], [published[0], published[1], published[4], published[5]]);
    let of = |wanted: &[usize]| wanted.iter().map(|place| published[*place]).collect::<Vec<_>>();
    let fresh = [of(&[6, 7, 8]), vec![more[1]]].concat();
    let returned = [of(&[2, 3]), vec![more[0]]].concat();
    let kept = |wanted: &[posthaste::domain::id::MessageId]| {
        drained.iter().filter(|id| wanted.contains(id)).copied().collect::<Vec<_>>()
    };
    assert_eq!((kept(&fresh), kept(&returned)), (fresh.clone(), returned.clone()));
    assert_eq!(drained.len(), 11);
}

pub(super) async fn the_wheel_starts_anew_with_the_process(stand: &mut Stand) {
    if stand.is_shared() {
        return;
    }
    let queue = stand.queue("orders").await;
    for priority in Priority::ALL {
        stand.publish(&queue, &vec![Draft { priority, ..draft() }; 20]).await;
    }
    for _ in 0..3 {
        let leased = stand.take(LeaseRequest { max: 5, ..pull_request(&queue) }).await;
        let priorities: Vec<_> = leased.leases.iter().map(|lease| lease.record.priority()).collect();
        let (high, normal) = (Priority::High, Priority::Normal);
        assert_eq!(priorities, [high, high, high, high, normal]);
        stand.take(LeaseRequest { max: 2, ..pull_request(&queue) }).await;
        if !stand.restart().await {
            return;
        }
    }
}

pub(super) async fn keys_attempts_and_purges_survive_a_restart(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.idempotency.window = seconds(100)).await;
    let keyed = stand.keyed(&queue, "k", 1);
    let first = keyed.messages[0].id;
    assert_eq!(stand.offer(keyed).await, GroupResult::Accepted);
    assert_eq!(stand.connection.purge(queue.clone()).await, Ok(1));
    let id = stand.publish_plain(&queue, 1).await[0];
    let leased = stand.lease(&queue, 1).await;
    let batch = leased.batch.clone();
    let failed =
        leased.leases.into_iter().map(|lease| lease.settle(retry_after(seconds(0)), Some(attempt(1, 500))));
    stand.settle(&batch, failed.collect()).await;
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.find(&queue, first).await, None, "what was purged does not come back");
    assert_eq!(stand.stats(&queue).await.gauges.pending, 1);
    assert_eq!(
        stand.find(&queue, id).await.expect("it is there").history,
        [attempt(1, 500).followed_at(Some(START))]
    );
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 1)).await, GroupResult::Duplicate(vec![first]));
    stand.clock.advance(seconds(100));
    assert_eq!(stand.offer(stand.keyed(&queue, "k", 2)).await, GroupResult::Accepted);
}

pub(super) async fn deleted_queues_stay_deleted_over_a_restart(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..3 {
        stand.publish_plain(&queue, 1_000).await;
    }
    stand.connection.delete_queue(queue.clone(), true).await.expect("the store answers");
    if !stand.restart().await {
        return;
    }
    assert_eq!(stand.connection.queues().await, Ok(vec![]));
    let again = stand.queue("orders").await;
    assert_ne!(again.generation, queue.generation);
    assert!(stand.take(request(&again)).await.leases.is_empty());
    stand.pass(seconds(1)).await;
    assert_eq!(stand.stats(&again).await.gauges.pending, 0);
}

pub(super) async fn dead_letters_survive_restarts_and_can_be_replayed(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.dead.length_max = 3).await;
    let died = stand.publish_dead(&queue, 3).await;
    if !stand.restart().await {
        return;
    }
    assert!(stand.entry(&queue).await.parked.is_some(), "it is still parked");
    let page = stand
        .connection
        .list_dead(queue.clone(), posthaste::store::dead::DeadFilter::default(), None, 10)
        .await;
    assert_eq!(page.expect("it answers").letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), died);
    let selection = posthaste::store::dead::Selection::Ids(died.clone());
    assert_eq!(
        stand.connection.replay(queue.clone(), selection, false).await.expect("it answers").replayed,
        3
    );
    assert_eq!(stand.drain(&queue).await, died);
}
