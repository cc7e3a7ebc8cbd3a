//! Leasing: what a batch is, when it is found again, what is never handed out.

use std::sync::Arc;

use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::ParkReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::Hold;
use posthaste::store::enqueue::GroupResult;
use posthaste::store::error::{StoreError, Stored};
use posthaste::store::lease::{BatchId, LeaseRequest, Settled};
use posthaste::store::stats::Cancelled;

use super::stand::{
    Draft, Stand, draft, ids, pull_request, refusal, request, retry_after, seconds, settlement,
};

pub(super) async fn an_empty_queue_gives_an_empty_lease_and_no_batch(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let wanted = request(&queue);
    let leased = stand.take(wanted.clone()).await;
    assert!(leased.leases.is_empty() && !leased.more);
    assert_eq!(stand.settle(&leased.batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Lost]);
    let published = stand.publish_plain(&queue, 1).await;
    assert_eq!(ids(&stand.take(wanted).await), published, "its batch id is still free");
}

pub(super) async fn a_lease_takes_at_most_what_was_asked_for_and_says_whether_there_is_more(
    stand: &mut Stand,
) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 5).await;
    for (taken, more) in [(0..2, true), (2..4, true), (4..5, false)] {
        let leased = stand.lease(&queue, 2).await;
        assert_eq!((ids(&leased).as_slice(), leased.more), (&published[taken], more));
        let places: Vec<u16> = leased.leases.iter().map(|lease| lease.index).collect();
        assert_eq!(places, [0, 1][..places.len()]);
    }
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.leased), (0, 5));
    assert_eq!((stats.gauges.bytes_waiting, stats.gauges.bytes_leased), (0, 50));
}

pub(super) async fn a_lease_ends_at_its_bytes_but_the_first_message_may_exceed_them_alone(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let of = |bytes: usize| Draft { payload: vec![1; bytes], ..draft() };
    stand.publish(&queue, &[of(60), of(40), of(1), of(500), of(5), of(95), of(1)]).await;
    for expected in [&[60, 40][..], &[1], &[500], &[5, 95], &[1]] {
        let leased = stand.take(LeaseRequest { bytes_max: 100, ..request(&queue) }).await;
        let bytes: Vec<usize> = leased.leases.iter().map(|lease| lease.record.payload().len()).collect();
        assert_eq!(bytes, expected);
    }
}

pub(super) async fn a_leased_message_is_nobody_elses(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    for connection in [std::rc::Rc::clone(&stand.connection), stand.store.connect()] {
        for wanted in [request(&queue), pull_request(&queue)] {
            assert!(connection.lease(wanted).await.expect("the store answers").leases.is_empty());
        }
    }
    // Sweeps do not take it either, as long as the lease lasts.
    assert_eq!(stand.pass(seconds(29)).await.reaped, 0);
    assert!(stand.lease(&queue, 3).await.leases.is_empty());
    stand.settle_all(leased, Verdict::Ack).await;
}

pub(super) async fn a_lease_sent_again_finds_its_batch(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 5).await;
    let wanted = LeaseRequest { max: 3, ..request(&queue) };
    let first = stand.take(wanted.clone()).await;
    let stats = stand.stats(&queue).await;
    stand.clock.advance(seconds(10));
    let again = stand.store.connect().lease(wanted.clone()).await.expect("the store answers");
    assert_eq!((&again.leases, &again.batch, again.until), (&first.leases, &first.batch, first.until));
    assert_eq!(stand.stats(&queue).await, stats);
    let larger = stand.take(LeaseRequest { max: 5, ..wanted.clone() }).await;
    assert_eq!(larger.leases.len(), 3, "whatever it asks for now");
    stand.hold(&queue, Hold::Pause).await;
    assert_eq!(stand.take(wanted).await.leases, first.leases, "also of a queue that is held");
}

pub(super) async fn a_lease_sent_again_gives_what_is_left_of_its_batch(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let published = stand.publish_plain(&queue, 3).await;
    let wanted = request(&queue);
    let first = stand.take(wanted.clone()).await;
    stand.settle(&first.batch, vec![settlement(1, Verdict::Ack)]).await;
    let again = stand.take(wanted).await;
    assert_eq!(again.batch, first.batch);
    let places: Vec<u16> = again.leases.iter().map(|lease| lease.index).collect();
    assert_eq!((places, ids(&again)), (vec![0, 2], vec![published[0], published[2]]));
}

pub(super) async fn a_late_lease_of_a_batch_that_ended_takes_nothing_until_its_mark_is_gone(
    stand: &mut Stand,
) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 4).await;
    let mut marks = Vec::new();
    for wanted in [request(&queue), pull_request(&queue)] {
        let wanted = LeaseRequest { max: 1, ..wanted };
        let leased = stand.take(wanted.clone()).await;
        stand.settle_all(leased, Verdict::Ack).await;
        marks.push(wanted);
    }
    stand.pass(seconds(59)).await;
    for wanted in &marks {
        let late = stand.take(wanted.clone()).await;
        assert!(late.leases.is_empty() && !late.more);
    }
    assert_eq!(stand.stats(&queue).await.gauges.leased, 0);
    stand.pass(seconds(2)).await;
    for wanted in marks {
        assert_eq!(stand.take(wanted).await.leases.len(), 1);
    }
}

pub(super) async fn a_new_connection_does_not_steal_live_leases(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    let leased = stand.lease(&queue, 2).await;
    for _ in 0..3 {
        let other = stand.store.connect();
        other.sweep().await.expect("the store answers");
        assert!(other.lease(request(&queue)).await.expect("the store answers").leases.is_empty());
    }
    assert_eq!(stand.stats(&queue).await.counters.recovered, 0);
    stand.settle_all(leased, Verdict::Ack).await;
    assert_eq!(stand.stats(&queue).await.counters.delivered, 2);
}

pub(super) async fn a_lease_names_the_moment_it_ends(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 2).await;
    for wanted in [request(&queue), pull_request(&queue)] {
        let leased = stand.take(LeaseRequest { max: 1, lease: seconds(77), ..wanted }).await;
        assert_eq!(leased.until, stand.now().saturating_add(seconds(77)));
    }
}

pub(super) async fn every_lease_knows_the_number_of_its_attempt(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 1).await;
    for number in 1..=4 {
        let leased = stand.lease(&queue, 1).await;
        assert_eq!(leased.leases[0].attempt_number(), number);
        stand.settle_all(leased, Verdict::Release).await;
        let leased = stand.lease(&queue, 1).await;
        assert_eq!(leased.leases[0].attempt_number(), number, "a release counts nothing");
        stand.settle_all(leased, retry_after(seconds(0))).await;
    }
}

pub(super) async fn a_held_queue_accepts_and_never_leases_and_nothing_vanishes(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let holds = [Hold::Pause, Hold::Park(ParkReason::DestinationGone), Hold::Park(ParkReason::EgressRefused)];
    let mut published = stand.publish_plain(&queue, 1).await;
    for hold in holds {
        stand.hold(&queue, hold.clone()).await;
        published.extend(stand.publish_plain(&queue, 1).await);
        for wanted in [request(&queue), pull_request(&queue)] {
            let leased = stand.take(wanted).await;
            assert!(leased.leases.is_empty() && !leased.more, "{hold:?}");
        }
        assert_eq!(stand.sweep().await.ready, []);
        stand.hold(&queue, Hold::Resume).await;
        assert_eq!(stand.sweep().await.ready, std::slice::from_ref(&queue.name));
    }
    assert_eq!(stand.drain(&queue).await, published);
}

pub(super) async fn what_was_leased_when_a_queue_was_held_can_be_settled(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    stand.hold(&queue, Hold::Pause).await;
    stand.hold(&queue, Hold::Park(ParkReason::DestinationGone)).await;
    let verdicts = [Verdict::Ack, retry_after(seconds(5)), Verdict::Release];
    let settled = (0..).zip(verdicts).map(|(place, verdict)| settlement(place, verdict)).collect();
    assert_eq!(stand.settle(&leased.batch, settled).await, [Settled::Settled; 3]);
    stand.pass(seconds(5)).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.counters.delivered), (2, 1), "time goes on for it");
}

pub(super) async fn an_expired_message_dies_when_its_turn_comes_and_is_never_handed_out(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let short = stand.publish_one(&queue, Draft { ttl: Some(seconds(10)), ..draft() }).await;
    let lasting = stand.publish_one(&queue, Draft { ttl: Some(seconds(11)), ..draft() }).await;
    stand.clock.advance(seconds(10));
    assert_eq!(stand.stats(&queue).await.gauges.pending, 2, "pending until its turn");
    let leased = stand.lease(&queue, 10).await;
    assert_eq!(ids(&leased), [lasting]);
    let letter = stand.connection.dead(queue.clone(), short).await.expect("it answers").expect("it is dead");
    assert_eq!((letter.reason, letter.attempts, letter.died_at), (DeadReason::Expired, 0, stand.now()));
    assert_eq!(stand.stats(&queue).await.counters.dead_lettered, 1);
}

pub(super) async fn a_lease_puts_only_so_many_expired_messages_away(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..3 {
        stand.publish(&queue, &vec![Draft { ttl: Some(seconds(10)), ..draft() }; 700]).await;
    }
    let last = stand.publish_one(&queue, draft()).await;
    stand.clock.advance(seconds(10));
    let mut died = 0;
    for _ in 0..100 {
        let leased = stand.lease(&queue, 1).await;
        let dead = stand.stats(&queue).await.gauges.dead;
        assert!(dead - died <= 1_000, "{} at once", dead - died);
        died = dead;
        if !leased.leases.is_empty() {
            assert_eq!((ids(&leased), died), (vec![last], 2_100));
            return;
        }
        assert!(leased.more, "there is more to look at");
    }
    panic!("the message behind the expired ones never came");
}

pub(super) async fn a_damaged_record_dies_alone_and_its_neighbours_stay(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut group = stand.group(&queue, &vec![draft(); 5]);
    let messages = Arc::make_mut(&mut group.messages);
    messages[1].record[50] ^= 4;
    messages[2].record.truncate(50);
    messages[3].record = b"junk".to_vec();
    let all: Vec<_> = group.messages.iter().map(|message| message.id).collect();
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    assert_eq!(stand.drain(&queue).await, [all[0], all[4]]);
    for (place, bytes) in [(1, 10), (2, 4), (3, 0)] {
        let letter =
            stand.connection.dead(queue.clone(), all[place]).await.expect("it answers").expect("it is dead");
        assert_eq!((letter.reason, letter.record, letter.attempts), (DeadReason::Damaged, None, 0));
        assert_eq!(letter.charged_bytes, bytes);
    }
}

pub(super) async fn a_record_of_a_newer_version_stops_the_lease_and_stays_where_it_is(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let expired = stand.publish_one(&queue, Draft { ttl: Some(seconds(1)), ..draft() }).await;
    let mut group = stand.group(&queue, &vec![draft(); 3]);
    Arc::make_mut(&mut group.messages)[1].record[0] = 2;
    let all: Vec<_> = group.messages.iter().map(|message| message.id).collect();
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    stand.clock.advance(seconds(1));
    let before = stand.stats(&queue).await;
    let wanted = request(&queue);
    for batch in [wanted.batch, BatchId::random(), wanted.batch] {
        let error = refusal(stand.connection.lease(LeaseRequest { batch, ..wanted.clone() }).await);
        assert!(matches!(error, StoreError::Newer(_)), "{error:?}");
        assert_eq!(error.stored(), Stored::No);
    }
    assert_eq!(stand.stats(&queue).await, before, "nothing was changed");
    assert!(stand.connection.health().await.expect("it answers").newer.is_some());
    let other = stand.queue("mails").await;
    stand.publish_plain(&other, 1).await;
    assert_eq!(stand.lease(&other, 1).await.leases.len(), 1, "another queue goes on");

    assert_eq!(stand.connection.cancel(queue.clone(), all[1]).await, Ok(Cancelled::Cancelled));
    assert_eq!(ids(&stand.take(wanted).await), [all[0], all[2]]);
    let letter = stand.connection.dead(queue.clone(), expired).await.expect("it answers");
    assert_eq!(letter.expect("it is dead").reason, DeadReason::Expired);
    assert_eq!(stand.connection.health().await.expect("it answers").newer, None);
}

pub(super) async fn leases_of_many_connections_at_once_never_overlap(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut published = stand.publish_plain(&queue, 100).await;
    let leases = (0..30).map(|_| {
        let (connection, wanted) = (stand.store.connect(), LeaseRequest { max: 4, ..request(&queue) });
        async move { connection.lease(wanted).await }
    });
    let mut taken = Vec::new();
    for leased in futures_util::future::join_all(leases).await {
        taken.extend(ids(&leased.expect("the store answers")));
    }
    taken.sort_unstable();
    published.sort_unstable();
    assert_eq!(taken, published);
}
