//! Many calls in one transaction, and what is answered when a COMMIT fails.

use futures_util::future::join_all;

use super::*;
use crate::store::error::Stored;
use crate::store::sqlite::fault::{CommitFault, fail_commit, limit_pages};

/// The number of the last transaction that is in the file.
fn transactions(stand: &Stand) -> u64 {
    let sql = super::super::schema::open_reader(&stand.path()).expect("a reader");
    super::super::recovery::last_transaction(&sql).expect("a number")
}

fn numbered(queue: &QueueRef, number: u64) -> Arc<Vec<Group>> {
    Arc::new(vec![group(queue, vec![message(number, b"payload")])])
}

#[test]
fn what_gathers_during_a_commit_becomes_one_transaction() {
    run(async {
        let stand = Stand::new(Clock::system());
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        let before = transactions(&stand);
        let gate = stand.gate();
        let calls = (0..500).map(|number| connection.enqueue(CallId::random(), numbered(&queue, number)));
        let open = async {
            tokio::task::yield_now().await;
            drop(gate);
        };
        for results in futures_util::future::join(join_all(calls), open).await.0 {
            assert_eq!(results, Ok(vec![GroupResult::Accepted]));
        }
        assert_eq!(transactions(&stand) - before, 1);
        assert_eq!(stats(&connection, &queue).await.gauges.pending, 500);
        assert_sound(&connection).await;
    });
}

/// Everybody of a transaction whose COMMIT failed is told so; the same calls sent again give the truth.
async fn a_failed_commit_is_unknown(fault: CommitFault) {
    let stand = Stand::new(Clock::manual(START));
    let connection = stand.connect();
    let queue = make_queue(&connection, "orders", settings()).await;
    publish(&connection, &queue, 0, 20, 10).await;
    let held = connection.lease(request(&queue, LeaseKind::Worker, 5)).await.expect("leased");
    fail_commit(&stand.path(), 0, fault);
    let calls: Vec<(CallId, Arc<Vec<Group>>)> =
        (100..103).map(|number| (CallId::random(), numbered(&queue, number))).collect();
    let sent = || calls.iter().map(|(call, groups)| connection.enqueue(*call, Arc::clone(groups)));
    let failed = join_all(sent()).await;
    let unknown =
        failed.iter().filter(|results| matches!(results, Err(error) if error.stored() == Stored::Unknown));
    assert!(unknown.count() >= 1, "{failed:?}");
    for results in join_all(sent()).await {
        assert_eq!(results, Ok(vec![GroupResult::Accepted]));
    }
    let now = stats(&connection, &queue).await;
    assert_eq!(
        (now.counters.accepted, now.gauges.pending, now.gauges.leased),
        (23, 18, 5),
        "each is stored once"
    );
    // What was leased before is leased still, and can be settled.
    let settled = connection.settle(held.batch.clone(), acknowledge(&held)).await.expect("settled");
    assert_eq!(settled, [Settled::Settled; 5]);
    assert_eq!(connection.health().await.map(|health| health.reachable), Ok(true));
    assert_sound(&connection).await;
}

#[test]
fn a_commit_that_fails_before_it_happened_is_unknown_and_can_be_sent_again() {
    run(a_failed_commit_is_unknown(CommitFault::Before));
}

#[test]
fn a_commit_that_fails_after_it_happened_is_unknown_and_counts_once() {
    run(a_failed_commit_is_unknown(CommitFault::After));
}

async fn a_settle_of_unknown_fate_counts_once(fault: CommitFault) {
    let stand = Stand::new(Clock::manual(START));
    let connection = stand.connect();
    let queue = make_queue(&connection, "orders", settings()).await;
    publish(&connection, &queue, 0, 10, 10).await;
    for kind in [LeaseKind::Worker, LeaseKind::Pull] {
        let held = connection.lease(request(&queue, kind, 5)).await.expect("leased");
        // A worker's deadline is known to this process only.
        let extended = connection.extend(held.batch.clone(), Duration::from_mins(5)).await;
        fail_commit(&stand.path(), 0, fault);
        let answer = connection.settle(held.batch.clone(), acknowledge(&held)).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        if fault == CommitFault::Before {
            let until = Extended::Until(START.saturating_add(Duration::from_mins(5)));
            assert_eq!(extended, Ok(until));
            assert_eq!(connection.extend(held.batch.clone(), Duration::from_secs(1)).await, Ok(until));
        }
        let again = connection.settle(held.batch.clone(), acknowledge(&held)).await.expect("settled");
        assert_eq!(again, [Settled::Settled; 5]);
    }
    let now = stats(&connection, &queue).await;
    assert_eq!((now.counters.delivered, now.gauges.leased, now.gauges.pending), (10, 0, 0));
    assert_sound(&connection).await;
}

#[test]
fn a_settle_whose_commit_failed_is_counted_once_whatever_became_of_it() {
    run(a_settle_of_unknown_fate_counts_once(CommitFault::Before));
    run(a_settle_of_unknown_fate_counts_once(CommitFault::After));
}

#[test]
fn a_lease_whose_commit_failed_can_be_sent_again() {
    run(async {
        for fault in [CommitFault::Before, CommitFault::After] {
            let stand = Stand::new(Clock::manual(START));
            let connection = stand.connect();
            let queue = make_queue(&connection, "orders", settings()).await;
            publish(&connection, &queue, 0, 10, 10).await;
            let request = request(&queue, LeaseKind::Worker, 4);
            fail_commit(&stand.path(), 0, fault);
            let answer = connection.lease(request.clone()).await;
            assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
            let leased = connection.lease(request).await.expect("leased");
            assert_eq!(leased.leases.len(), 4);
            assert_eq!(stats(&connection, &queue).await.gauges.leased, 4);
            assert_sound(&connection).await;
        }
    });
}

#[test]
fn commits_that_fail_again_and_again_lose_and_double_nothing() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        for number in 0..40 {
            let fault = if fastrand::bool() { CommitFault::Before } else { CommitFault::After };
            fail_commit(&stand.path(), fastrand::u32(0..2), fault);
            let (call, groups) = (CallId::random(), numbered(&queue, number));
            let mut results = connection.enqueue(call, Arc::clone(&groups)).await;
            while let Err(error) = &results {
                assert_eq!(error.stored(), Stored::Unknown, "{error}");
                results = connection.enqueue(call, Arc::clone(&groups)).await;
            }
            assert_eq!(results, Ok(vec![GroupResult::Accepted]));
        }
        let now = stats(&connection, &queue).await;
        assert_eq!((now.counters.accepted, now.gauges.pending), (40, 40));
        assert_sound(&connection).await;
    });
}

#[test]
fn a_group_for_which_there_is_no_room_is_refused_alone() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 10, 10).await;
        let pages = std::fs::metadata(stand.path()).map(|file| file.len() / 4_096).expect("the file");
        limit_pages(&stand.path(), u32::try_from(pages).expect("few") + 40);
        let large = group(&queue, vec![message(100, &vec![7; 1 << 20])]);
        let small = |number| group(&queue, vec![message(number, b"small")]);
        let groups = vec![small(101), large, small(102)];
        let results = connection.enqueue(CallId::random(), Arc::new(groups)).await.expect("an answer");
        assert_eq!((&results[0], &results[2]), (&GroupResult::Accepted, &GroupResult::Accepted));
        let GroupResult::Failed(error) = &results[1] else { panic!("{results:?}") };
        assert!(matches!(error, StoreError::Full(_)) && error.stored() == Stored::No, "{error:?}");
        assert_eq!(stats(&connection, &queue).await.gauges.pending, 12);
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 100)).await.expect("leased");
        let settled = connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        assert_eq!(settled, [Settled::Settled; 12]);
        assert_sound(&connection).await;
    });
}

#[test]
fn an_operation_that_panics_is_refused_alone_and_the_writer_lives() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        let gate = stand.gate();
        let panics = stand.push::<()>(|_| panic!("a defect, on purpose"));
        let stored = connection.enqueue(CallId::random(), numbered(&queue, 1));
        let open = async {
            tokio::task::yield_now().await;
            drop(gate);
        };
        let (stored, ()) = futures_util::future::join(stored, open).await;
        assert_eq!(stored, Ok(vec![GroupResult::Accepted]));
        let refused = panics.await.expect("an answer");
        assert!(
            matches!(&refused, Err(error @ StoreError::Internal(_)) if error.stored() == Stored::No),
            "{refused:?}"
        );
        assert_eq!(stats(&connection, &queue).await.gauges.pending, 1);
        assert_sound(&connection).await;
    });
}
