//! Finding and cancelling what is in batches, in every change of their state.

use posthaste::domain::id::MessageId;
use posthaste::domain::message::{Priority, State};
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::dead::Selection;
use posthaste::store::lease::LeaseRequest;
use posthaste::store::stats::Cancelled;

use super::stand::{Draft, Stand, dead, draft, ids, pull_request, request, retry_after, seconds, settlement};

/// Each is found in its state, with its own record while it is kept, and cannot be cancelled where it is not at rest.
async fn assert_all(stand: &Stand, queue: &QueueRef, expected: &[(MessageId, State)]) {
    for (place, (id, state)) in expected.iter().enumerate() {
        let found = stand.find(queue, *id).await.unwrap_or_else(|| panic!("message {place} is not found"));
        assert_eq!(found.state, *state, "message {place}");
        assert!(found.record.is_none_or(|record| record.id() == *id), "message {place}");
        let answer = match state {
            State::Leased => Cancelled::Leased,
            State::Dead | State::Delivered | State::Cancelled => Cancelled::Finished,
            State::Pending | State::Scheduled | State::Purged => continue,
        };
        assert_eq!(stand.connection.cancel(queue.clone(), *id).await, Ok(answer), "message {place}");
    }
}

pub(super) async fn what_was_in_a_batch_is_found_wherever_it_went(stand: &mut Stand) {
    use State::{Dead, Delivered, Leased, Pending, Scheduled};
    let queue = stand.queue("orders").await;
    let all = stand.publish_plain(&queue, 8).await;
    let states = |states: [State; 8]| all.iter().copied().zip(states).collect::<Vec<_>>();
    let first_request = LeaseRequest { max: 5, ..request(&queue) };
    let first = stand.take(first_request.clone()).await;
    let second = stand.take(LeaseRequest { max: 2, ..pull_request(&queue) }).await;
    let now = [Leased, Leased, Leased, Leased, Leased, Leased, Leased, Pending];
    assert_all(stand, &queue, &states(now)).await;
    // The one batch is settled in part and the other one is not.
    let sent = vec![
        settlement(0, Verdict::Ack),
        settlement(1, Verdict::Release),
        settlement(2, retry_after(seconds(0))),
        settlement(3, retry_after(seconds(5))),
    ];
    stand.settle(&first.batch, sent).await;
    let now = [Delivered, Pending, Pending, Scheduled, Leased, Leased, Leased, Pending];
    assert_all(stand, &queue, &states(now)).await;
    // What is left of a batch is given again to who asks again, and is where it was.
    assert_eq!(ids(&stand.take(first_request).await), [all[4]]);
    assert_all(stand, &queue, &states(now)).await;
    // What came back is in another batch now.
    let third = stand.lease(&queue, 2).await;
    assert_eq!(ids(&third)[0], all[1]);
    let taken = ids(&third)[1];
    let mut expected = states(now);
    for (id, state) in &mut expected {
        if *id == all[1] || *id == taken {
            *state = Leased;
        }
    }
    assert_all(stand, &queue, &expected).await;
    stand.settle_all(third, Verdict::Release).await;
    assert_all(stand, &queue, &states(now)).await;
    // The first batch is lost, then the other one; what is due comes back.
    let died = all[6];
    stand.settle(&second.batch, vec![settlement(1, dead(DeadReason::Rejected))]).await;
    stand.pass(seconds(30)).await;
    let now = [Delivered, Pending, Pending, Pending, Pending, Pending, Dead, Pending];
    assert_all(stand, &queue, &states(now)).await;
    let suspects = stand.lease(&queue, 10).await;
    assert_eq!(ids(&suspects), [all[4]], "a worker lost it");
    let replayed = stand.connection.replay(queue.clone(), Selection::Ids(vec![died]), false).await;
    assert_eq!(replayed.expect("the store answers").replayed, 1);
    let now = [Delivered, Pending, Pending, Pending, Leased, Pending, Pending, Pending];
    assert_all(stand, &queue, &states(now)).await;
    for id in [all[1], all[2], all[3], all[5], all[6], all[7]] {
        let cancelled = stand.connection.cancel(queue.clone(), id).await;
        assert_eq!(cancelled, Ok(Cancelled::Cancelled));
    }
    let gone = State::Cancelled;
    let now = [Delivered, gone, gone, gone, Leased, gone, gone, gone];
    assert_all(stand, &queue, &states(now)).await;
    stand.settle_all(suspects, Verdict::Ack).await;
    let stats = stand.stats(&queue).await;
    assert_eq!((stats.gauges.pending, stats.gauges.leased, stats.gauges.scheduled), (0, 0, 0));
}

pub(super) async fn every_one_of_hundreds_is_found_where_it_is(stand: &mut Stand) {
    let queue = stand.queue("orders").await;
    let mut expected = Vec::new();
    for count in [1, 126, 1, 127, 128, 3, 255] {
        let of = |step: usize| [Priority::High, Priority::Normal, Priority::Normal, Priority::Low][step % 4];
        let drafts: Vec<Draft> = (0..count).map(|step| Draft { priority: of(step), ..draft() }).collect();
        expected.extend(stand.publish(&queue, &drafts).await.into_iter().map(|id| (id, State::Pending)));
        stand.clock.advance(seconds(1));
    }
    for (id, state) in expected.iter_mut().step_by(7) {
        let cancelled = stand.connection.cancel(queue.clone(), *id).await;
        assert_eq!(cancelled, Ok(Cancelled::Cancelled));
        *state = State::Cancelled;
    }
    let mut become_of = |leased: &[MessageId], becomes: State| {
        for (id, state) in &mut expected {
            if leased.contains(id) {
                *state = becomes;
            }
        }
    };
    become_of(&stand.run(&queue, 150, Verdict::Ack).await, State::Delivered);
    become_of(&stand.run(&queue, 20, Verdict::Release).await, State::Pending);
    become_of(&stand.run(&queue, 60, retry_after(seconds(0))).await, State::Pending);
    for _ in 0..2 {
        become_of(&ids(&stand.lease(&queue, 40).await), State::Leased);
    }
    assert_all(stand, &queue, &expected).await;
    stand.check().await;
    for (id, state) in &expected {
        if *state == State::Pending {
            assert_eq!(stand.connection.cancel(queue.clone(), *id).await, Ok(Cancelled::Cancelled));
        }
    }
    assert!(stand.lease(&queue, 1_000).await.leases.is_empty());
}

pub(super) async fn while_batches_are_taken_back_in_steps_each_message_is_found_where_it_is(
    stand: &mut Stand,
) {
    let queue = stand.queue("orders").await;
    let drafts = vec![Draft { payload: vec![b'x'; 200_000], ..draft() }; 20];
    let mut all = Vec::new();
    for _ in 0..3 {
        all.extend(stand.publish(&queue, &drafts).await);
        stand.take(LeaseRequest { max: 20, ..pull_request(&queue) }).await;
    }
    stand.clock.advance(seconds(30));
    loop {
        let more = stand.connection.sweep().await.expect("the store answers").more;
        let gauges = stand.stats(&queue).await.gauges;
        let (mut pending, mut leased) = (0, 0);
        for id in &all {
            match stand.find(&queue, *id).await.expect("it is there").state {
                State::Pending => pending += 1,
                State::Leased => leased += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((pending, leased), (gauges.pending, gauges.leased));
        stand.check().await;
        if !more {
            assert_eq!((pending, leased), (60, 0));
            return;
        }
    }
}
