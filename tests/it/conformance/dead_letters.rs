//! Dead letters: browsing, limits, parking and trimming.

use std::sync::Arc;

use posthaste::domain::id::MessageId;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::queue::{ParkReason, QueueSettings, WhenFull};
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, Selection};
use posthaste::store::lease::LeaseKind;
use posthaste::store::{Hold, QueueRef};

use super::stand::{
    Draft, START, Stand, attempt, dead, draft, ids, pull_request, request, retry_after, seconds, settlement,
};

const ALL: DeadFilter = DeadFilter { reason: None, status: None, destination: None, from: None, to: None };

/// All dead letters that a filter names, page by page.
async fn pages(stand: &Stand, queue: &QueueRef, filter: DeadFilter, limit: usize) -> Vec<DeadLetter> {
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = stand.connection.list_dead(queue.clone(), filter.clone(), cursor, limit).await;
        let page = page.expect("the store answers");
        assert!(page.letters.len() <= limit);
        all.extend(page.letters);
        cursor = page.cursor;
        if cursor.is_none() {
            return all;
        }
    }
    panic!("the pages never end");
}

async fn listed(stand: &Stand, queue: &QueueRef, filter: DeadFilter) -> Vec<MessageId> {
    pages(stand, queue, filter, 100).await.into_iter().map(|letter| letter.id).collect()
}

async fn letter(stand: &Stand, queue: &QueueRef, id: MessageId) -> DeadLetter {
    stand.connection.dead(queue.clone(), id).await.expect("the store answers").expect("it is dead")
}

/// Publishes a message that dies of `reason` after an attempt with `status`.
async fn die(stand: &Stand, queue: &QueueRef, reason: DeadReason, status: u16) -> MessageId {
    let id = stand.publish_plain(queue, 1).await[0];
    let leased = stand.lease(queue, 1).await;
    let batch = leased.batch.clone();
    let settled = leased.leases.into_iter().map(|lease| lease.settle(dead(reason), Some(attempt(1, status))));
    stand.settle(&batch, settled.collect()).await;
    stand.clock.advance(seconds(1));
    id
}

pub(super) async fn dead_letters_are_listed_oldest_first_and_without_payload(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut died = Vec::new();
    for _ in 0..3 {
        died.extend(stand.publish_dead(&queue, 1).await);
        stand.clock.advance(seconds(1));
    }
    let letters = pages(stand, &queue, ALL, 100).await;
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), died);
    for (place, letter) in letters.iter().enumerate() {
        assert_eq!((letter.record.as_ref(), letter.history.len(), letter.charged_bytes), (None, 0, 10));
        assert_eq!(letter.died_at, START.saturating_add(seconds(place as u64)));
    }
    assert_eq!(
        stand.connection.list_dead(queue, ALL, None, 2).await.expect("it answers").letters,
        letters[..2]
    );
}

pub(super) async fn pages_follow_each_other_without_gap_or_repeat(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    // Many at one moment, many moments.
    let mut died = Vec::new();
    for count in [5, 1, 7, 2] {
        died.extend(stand.publish_dead(&queue, count).await);
        stand.clock.advance(seconds(1));
    }
    died.sort_unstable();
    for limit in [1, 2, 3, 4, 15, 16] {
        let mut seen: Vec<_> =
            pages(stand, &queue, ALL, limit).await.iter().map(|letter| letter.id).collect();
        seen.sort_unstable();
        assert_eq!(seen, died, "limit {limit}");
    }
}

pub(super) async fn letters_that_leave_between_two_pages_disturb_nobody(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut died = Vec::new();
    for _ in 0..6 {
        died.extend(stand.publish_dead(&queue, 1).await);
        stand.clock.advance(seconds(1));
    }
    let page = stand.connection.list_dead(queue.clone(), ALL, None, 2).await.expect("it answers");
    let gone = Selection::Ids(vec![died[0], died[1], died[3]]);
    assert_eq!(stand.connection.discard(queue.clone(), gone).await, Ok(3));
    let page = stand.connection.list_dead(queue.clone(), ALL, page.cursor, 10).await.expect("it answers");
    assert_eq!(page.letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [died[2], died[4], died[5]]);
}

pub(super) async fn dead_letters_can_be_chosen_by_reason_status_and_time(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let rejected = die(stand, &queue, DeadReason::Rejected, 400).await;
    let exhausted = die(stand, &queue, DeadReason::Exhausted, 503).await;
    let both = die(stand, &queue, DeadReason::Rejected, 503).await;
    let at = |count: u64| Some(START.saturating_add(seconds(count)));
    let cases = [
        (ALL, vec![rejected, exhausted, both]),
        (DeadFilter { reason: Some(DeadReason::Rejected), ..ALL }, vec![rejected, both]),
        (DeadFilter { status: Some(503), ..ALL }, vec![exhausted, both]),
        (DeadFilter { reason: Some(DeadReason::Rejected), status: Some(503), ..ALL }, vec![both]),
        (DeadFilter { from: at(1), ..ALL }, vec![exhausted, both]),
        (DeadFilter { to: at(1), ..ALL }, vec![rejected]),
        (DeadFilter { from: at(1), to: at(2), ..ALL }, vec![exhausted]),
        (DeadFilter { reason: Some(DeadReason::Damaged), ..ALL }, vec![]),
        (DeadFilter { destination: Some("http://nowhere.example/".to_owned()), ..ALL }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(stand, &queue, filter.clone()).await, expected, "{filter:?}");
    }
    let chosen = Selection::Filter(DeadFilter { status: Some(503), ..ALL });
    assert_eq!(stand.connection.discard(queue.clone(), chosen).await, Ok(2));
    assert_eq!(listed(stand, &queue, ALL).await, [rejected]);
}

pub(super) async fn a_filter_finds_its_letters_among_many_others(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..2 {
        stand.publish_dead(&queue, 1_000).await;
    }
    let wanted = die(stand, &queue, DeadReason::Exhausted, 500).await;
    assert_eq!(listed(stand, &queue, DeadFilter { status: Some(500), ..ALL }).await, [wanted]);
}

pub(super) async fn a_dead_letter_knows_where_it_was_sent(stand: &mut Stand) {
    let target = "https://shop.example/hook";
    let queue = stand.queue_with("orders", |settings| {
        "http".clone_into(&mut settings.processor);
        settings.destination = Some(target.parse().expect("a destination"));
    });
    let queue = queue.await;
    let sent = die(stand, &queue, DeadReason::Exhausted, 500).await;
    let never = stand.publish_one(&queue, Draft { ttl: Some(seconds(1)), ..draft() }).await;
    stand.clock.advance(seconds(1));
    stand.lease(&queue, 1).await;
    assert_eq!(letter(stand, &queue, sent).await.destination.as_deref(), Some(target));
    assert_eq!(letter(stand, &queue, never).await.destination, None, "it was never attempted");
    let filter = DeadFilter { destination: Some(target.to_owned()), ..ALL };
    assert_eq!(listed(stand, &queue, filter).await, [sent]);
    let groups = stand.connection.dead_groups(queue, DeadGrouping::Destination).await.expect("it answers");
    assert_eq!(
        groups,
        [DeadGroup { key: String::new(), count: 1 }, DeadGroup { key: target.to_owned(), count: 1 }]
    );
}

pub(super) async fn dead_letters_are_counted_in_groups_most_numerous_first(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for (reason, status) in [
        (DeadReason::Rejected, 400),
        (DeadReason::Exhausted, 503),
        (DeadReason::Exhausted, 400),
        (DeadReason::Exhausted, 500),
    ] {
        die(stand, &queue, reason, status).await;
    }
    let groups = async |by| {
        let groups = stand.connection.dead_groups(queue.clone(), by).await.expect("the store answers");
        groups.into_iter().map(|group| (group.key, group.count)).collect::<Vec<_>>()
    };
    assert_eq!(groups(DeadGrouping::Reason).await, [("exhausted".to_owned(), 3), ("rejected".to_owned(), 1)]);
    let by_status = [("400".to_owned(), 2), ("500".to_owned(), 1), ("503".to_owned(), 1)];
    assert_eq!(groups(DeadGrouping::Status).await, by_status);
    assert_eq!(groups(DeadGrouping::Destination).await, [(String::new(), 4)]);
}

pub(super) async fn one_dead_letter_is_shown_whole(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let id = die(stand, &queue, DeadReason::Rejected, 422).await;
    let letter = letter(stand, &queue, id).await;
    assert_eq!((letter.id, letter.status, letter.attempts), (id, Some(422), 1));
    assert_eq!(letter.record.expect("it is sound").payload(), b"0123456789".as_slice());
    assert_eq!(letter.history, [attempt(1, 422)]);
    let pending = stand.publish_plain(&queue, 1).await[0];
    for id in [pending, draft().build(START).id] {
        assert_eq!(stand.connection.dead(queue.clone(), id).await, Ok(None));
    }
}

pub(super) async fn discarding_takes_a_bounded_step_until_nothing_is_left(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    for _ in 0..3 {
        stand.publish_dead(&queue, 800).await;
    }
    let mut discarded = 0;
    loop {
        let step =
            stand.connection.discard(queue.clone(), Selection::Filter(ALL)).await.expect("the store answers");
        assert!(step <= 1_000);
        if step == 0 {
            break;
        }
        discarded += step;
        stand.check().await;
    }
    let stats = stand.stats(&queue).await;
    assert_eq!(
        (discarded, stats.counters.discarded, stats.counters.trimmed, stats.gauges.dead),
        (2_400, 2_400, 0, 0)
    );
}

pub(super) async fn discarding_by_id_leaves_the_others_and_what_is_not_dead(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let died = stand.publish_dead(&queue, 3).await;
    let pending = stand.publish_plain(&queue, 1).await[0];
    let chosen = Selection::Ids(vec![died[1], pending, draft().build(START).id, died[1]]);
    assert_eq!(stand.connection.discard(queue.clone(), chosen.clone()).await, Ok(1));
    assert_eq!(stand.connection.discard(queue.clone(), chosen).await, Ok(0));
    assert_eq!(listed(stand, &queue, ALL).await, [died[0], died[2]]);
    assert_eq!(stand.drain(&queue).await, [pending]);
}

async fn parking_queue(stand: &Stand) -> QueueRef {
    stand.queue_with("orders", |settings| settings.dead.length_max = 3).await
}

pub(super) async fn full_dead_letters_park_the_queue_and_publishing_goes_on(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_dead(&queue, 2).await;
    assert_eq!(stand.entry(&queue).await.parked, None);
    stand.publish_dead(&queue, 1).await;
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
    assert_eq!(stand.stats(&queue).await.parked, Some(ParkReason::DeadFull));
    let waiting = stand.publish_plain(&queue, 2).await;
    assert!(stand.lease(&queue, 10).await.leases.is_empty());
    assert_eq!(stand.connection.discard(queue.clone(), Selection::Filter(ALL)).await, Ok(3));
    assert_eq!(stand.entry(&queue).await.parked, None, "it goes on by itself");
    assert_eq!(stand.drain(&queue).await, waiting);
}

pub(super) async fn full_bytes_of_dead_letters_park_the_queue_too(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| settings.dead.bytes_max = 25).await;
    stand.publish_dead(&queue, 2).await;
    assert_eq!(stand.entry(&queue).await.parked, None);
    stand.publish_dead(&queue, 1).await;
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
}

pub(super) async fn what_dies_in_flight_still_goes_into_full_dead_letters(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_plain(&queue, 8).await;
    let (first, second) = (stand.lease(&queue, 4).await, stand.lease(&queue, 4).await);
    stand.settle_all(first, dead(DeadReason::Rejected)).await;
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
    stand.settle_all(second, dead(DeadReason::Rejected)).await;
    assert_eq!(stand.stats(&queue).await.gauges.dead, 8);
    // Not before they are below the limit, not at it.
    assert_eq!(
        stand
            .connection
            .discard(queue.clone(), Selection::Ids(listed(stand, &queue, ALL).await[..5].to_vec()))
            .await,
        Ok(5)
    );
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
    assert_eq!(
        stand
            .connection
            .discard(queue.clone(), Selection::Ids(listed(stand, &queue, ALL).await[..1].to_vec()))
            .await,
        Ok(1)
    );
    assert_eq!(stand.entry(&queue).await.parked, None);
}

pub(super) async fn a_lease_that_fills_the_dead_letters_ends_there(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    let first = stand.publish_plain(&queue, 1).await;
    stand.publish(&queue, &vec![Draft { ttl: Some(seconds(1)), ..draft() }; 10]).await;
    stand.publish_plain(&queue, 1).await;
    stand.clock.advance(seconds(1));
    let leased = stand.lease(&queue, 100).await;
    assert_eq!((ids(&leased), leased.more), (first, false));
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.dead, stats.gauges.pending), (3, 8));
    assert_eq!(stats.parked, Some(ParkReason::DeadFull));
}

pub(super) async fn resuming_lets_a_parked_queue_go_on_until_the_next_death(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_dead(&queue, 3).await;
    let entry = stand.hold(&queue, Hold::Resume).await;
    assert_eq!((entry.parked, entry.paused), (None, false));
    stand.publish_plain(&queue, 2).await;
    assert_eq!(stand.run(&queue, 1, Verdict::Ack).await.len(), 1);
    assert_eq!(stand.entry(&queue).await.parked, None);
    assert_eq!(stand.run(&queue, 1, dead(DeadReason::Rejected)).await.len(), 1);
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
}

pub(super) async fn replay_and_retention_let_a_parked_queue_go_on(stand: &mut Stand) {
    let queue = stand.queue_with("orders", |settings| {
        settings.dead.length_max = 2;
        settings.dead.retention = seconds(100);
    });
    let queue = queue.await;
    let died = stand.publish_dead(&queue, 2).await;
    stand
        .connection
        .replay(queue.clone(), Selection::Ids(died[..1].to_vec()), false)
        .await
        .expect("it answers");
    assert_eq!(stand.entry(&queue).await.parked, None);
    assert_eq!(stand.run(&queue, 1, dead(DeadReason::Rejected)).await, died[..1]);
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DeadFull));
    stand.publish_plain(&queue, 1).await;
    let swept = stand.pass(seconds(100)).await;
    assert_eq!((swept.discarded, stand.entry(&queue).await.parked), (2, None));
    assert_eq!(swept.ready, std::slice::from_ref(&queue.name));
}

pub(super) async fn raised_limits_let_a_parked_queue_go_on(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    let change = async |stand: &Stand, length_max, when_full| {
        let change = |settings: &mut QueueSettings| {
            (settings.dead.length_max, settings.dead.when_full) = (length_max, when_full);
        };
        stand.change(&queue, change).await;
        stand.entry(&queue).await.parked
    };
    let parked = Some(ParkReason::DeadFull);
    stand.publish_dead(&queue, 3).await;
    assert_eq!(change(stand, 3, WhenFull::Park).await, parked, "they are still at the limit");
    assert_eq!(change(stand, 4, WhenFull::Park).await, None);
    stand.publish_dead(&queue, 1).await;
    assert_eq!(stand.entry(&queue).await.parked, parked);
    if stand.restart().await {
        stand.sweep().await;
        assert_eq!(stand.entry(&queue).await.parked, parked, "neither a restart nor a sweep is a reason");
    }
    assert_eq!(change(stand, 4, WhenFull::Trim).await, None, "what is trimmed parks nothing");
}

pub(super) async fn a_file_that_raises_the_limit_lets_a_parked_queue_go_on(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_dead(&queue, 3).await;
    let mut settings = QueueSettings::clone(&stand.entry(&queue).await.settings);
    settings.dead.length_max = 4;
    let declared = vec![(queue.name.clone(), std::sync::Arc::new(settings))];
    let (entries, _) = stand.connection.declare(declared).await.expect("the store answers");
    assert_eq!((entries.len(), entries[0].parked), (1, None));
}

pub(super) async fn a_sweep_lets_a_queue_go_on_that_is_parked_for_nothing(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_dead(&queue, 2).await;
    stand.hold(&queue, Hold::Park(ParkReason::DeadFull)).await;
    stand.publish_plain(&queue, 1).await;
    assert!(stand.lease(&queue, 1).await.leases.is_empty());
    assert_eq!(stand.sweep().await.ready, std::slice::from_ref(&queue.name));
    assert_eq!(stand.entry(&queue).await.parked, None);
}

pub(super) async fn a_queue_parked_for_another_reason_stays_parked(stand: &mut Stand) {
    let queue = parking_queue(stand).await;
    stand.publish_plain(&queue, 3).await;
    let leased = stand.lease(&queue, 3).await;
    stand.hold(&queue, Hold::Park(ParkReason::DestinationGone)).await;
    stand.settle_all(leased, dead(DeadReason::Rejected)).await;
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DestinationGone), "the first reason stays");
    assert_eq!(stand.connection.discard(queue.clone(), Selection::Filter(ALL)).await, Ok(3));
    stand.change(&queue, |settings| settings.dead.length_max = 100).await;
    stand.sweep().await;
    assert_eq!(stand.entry(&queue).await.parked, Some(ParkReason::DestinationGone));
}

async fn trimming_queue(stand: &Stand, length_max: u64, bytes_max: u64) -> QueueRef {
    stand
        .queue_with("orders", |settings| {
            (settings.dead.length_max, settings.dead.bytes_max) = (length_max, bytes_max);
            settings.dead.when_full = WhenFull::Trim;
        })
        .await
}

pub(super) async fn trimming_discards_the_oldest_and_its_bytes(stand: &mut Stand) {
    let queue = trimming_queue(stand, 3, 1 << 30).await;
    let mut died = Vec::new();
    for _ in 0..5 {
        died.extend(stand.publish_dead(&queue, 1).await);
        stand.clock.advance(seconds(1));
    }
    assert_eq!(listed(stand, &queue, ALL).await, died[2..]);
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.dead_lettered, stats.counters.discarded, stats.counters.trimmed), (5, 2, 2));
    assert_eq!((stats.gauges.dead, stats.gauges.bytes_dead, stats.parked), (3, 30, None));
    for id in &died[..2] {
        assert_eq!(stand.find(&queue, *id).await, None);
        assert_eq!(stand.connection.dead(queue.clone(), *id).await, Ok(None));
    }
}

pub(super) async fn trimming_keeps_to_the_bytes_but_keeps_the_last(stand: &mut Stand) {
    let queue = trimming_queue(stand, 100, 25).await;
    let died = stand.publish_dead(&queue, 3).await;
    assert_eq!(listed(stand, &queue, ALL).await, died[1..]);
    let large = stand.publish_one(&queue, Draft { payload: vec![1; 100], ..draft() }).await;
    stand.run(&queue, 1, dead(DeadReason::Rejected)).await;
    assert_eq!(listed(stand, &queue, ALL).await, [large], "one may exceed the bytes alone");
    assert_eq!(stand.stats(&queue).await.gauges.bytes_dead, 100);
}

pub(super) async fn a_lowered_limit_is_trimmed_to_by_the_sweep(stand: &mut Stand) {
    let queue = trimming_queue(stand, 100, 1 << 30).await;
    let mut died = Vec::new();
    for _ in 0..6 {
        died.extend(stand.publish_dead(&queue, 1).await);
        stand.clock.advance(seconds(1));
    }
    stand.change(&queue, |settings| settings.dead.length_max = 2).await;
    assert_eq!(stand.sweep().await.discarded, 4);
    assert_eq!(listed(stand, &queue, ALL).await, died[4..]);
}

pub(super) async fn the_dead_of_every_kind_obey_both_laws(stand: &mut Stand) {
    let queue = trimming_queue(stand, 2, 1 << 30).await;
    let short = Draft { ttl: Some(seconds(5)), attempts_max: 1, ..draft() };
    let mut group = stand.group(&queue, &vec![short; 6]);
    Arc::make_mut(&mut group.messages)[0].record[50] ^= 1;
    assert_eq!(stand.offer(group).await, posthaste::store::enqueue::GroupResult::Accepted);
    let leased = stand.take(posthaste::store::lease::LeaseRequest { max: 3, ..request(&queue) }).await;
    let verdicts = [retry_after(seconds(0)), dead(DeadReason::Undeliverable)];
    let sent = (0..).zip(verdicts).map(|(place, verdict)| settlement(place, verdict)).collect();
    stand.settle(&leased.batch, sent).await;
    stand.check().await;
    stand.pass(seconds(30)).await;
    stand.check().await;
    let wanted = pull_request(&queue);
    assert_eq!(wanted.kind, LeaseKind::Pull);
    assert!(stand.take(wanted).await.leases.is_empty());
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.counters.dead_lettered, stats.counters.trimmed, stats.gauges.dead), (6, 4, 2));
}
