//! Lookups that answer, fail, hang and are told to: what is shared, kept and given up.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use futures_util::future::{join, join_all, poll_immediate};

use super::*;
use crate::processor::http::guard::cache::{KEPT_FAILED, KEPT_MAX, KEPT_STALE};
use crate::processor::http::guard::places::SLOW_AFTER;

/// Whoever takes nothing that was found before.
const NOW: Duration = Duration::ZERO;

/// A lookup that counts itself and answers when told to.
fn gated() -> (Lookups, Arc<AtomicUsize>, SyncSender<()>) {
    let (open, gate): (SyncSender<()>, Receiver<()>) = sync_channel(1_000);
    let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Mutex::new(gate));
    let counted = calls.clone();
    let lookups = Lookups::new(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        lock(&gate).recv().expect("the test opens the gate");
        Ok(vec![IpAddr::from([8, 8, 8, 8])])
    }));
    (lookups, calls, open)
}

#[tokio::test]
async fn whoever_asks_for_the_same_name_shares_one_lookup() {
    let (lookups, calls, open) = gated();
    let asked = join_all((0..50).map(|_| lookups.addresses("a.example", NOW)));
    // Polled in this order, so all have asked before the gate opens.
    let (found, ()) = join(asked, async { open.send(()).expect("room") }).await;
    assert!(found.iter().all(|found| found.as_ref().is_ok_and(|addresses| addresses.len() == 1)));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(lock(&lookups.shares).is_empty() && lock(&lookups.threads).is_empty(), "nothing is left of it");
    open.send(()).expect("room");
    lookups.addresses("a.example", NOW).await.expect("found");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "who wants to know what is now is told what is now");
}

/// Begins to look up so many names, and leaves.
async fn abandon(lookups: &Lookups, count: usize, suffix: &str) {
    for number in 0..count {
        let name = format!("{number}.{suffix}");
        assert!(poll_immediate(pin!(lookups.addresses(&name, NOW))).await.is_none(), "the gate is shut");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_bound_are_looked_up_at_once_even_when_nobody_waits_any_longer() {
    let (lookups, calls, open) = gated();
    let threads = || lock(&lookups.threads).len();
    for (step, most) in [24, 48, 72, 96, 120, 144, 168, 192, 192, 192].into_iter().enumerate() {
        abandon(&lookups, 200, "example").await;
        assert_eq!(threads(), most, "after {step} s: those of before are slow, and their places free");
        tokio::time::advance(SLOW_AFTER).await;
    }
    let waiting = lock(&lookups.shares).len();
    assert!(waiting <= SHARES_MAX + 200, "abandoned waits are swept out: {waiting}");
    let short = LookupError::Short {
        name: "last.example".into(),
        cause: "too many others are being looked up".into(),
    };
    assert!(lookups.is_without_place("last.example"));
    assert_eq!(lookups.addresses("last.example", NOW).await, Err(short));
    assert!(!lookups.is_without_place("0.example"), "a thread is at it");
    for _ in 0..193 {
        open.send(()).expect("room");
    }
    tokio::time::resume();
    lookups.addresses("last.example", NOW).await.expect("places are given back");
    assert!(!lookups.is_without_place("last.example"), "it is known");
    // Some threads may only begin now.
    while !lock(&lookups.threads).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 193, "no name twice");
}

#[tokio::test(start_paused = true)]
async fn names_that_hang_leave_room_for_others_within_a_second_or_two() {
    let (gate, shut) = sync_channel::<()>(0);
    let shut = Mutex::new(shut);
    let lookups = Lookups::new(Arc::new(move |name| {
        if name.ends_with("slow.example") {
            lock(&shut).recv().expect_err("the gate is never opened");
        }
        Ok(vec![IpAddr::from([8, 8, 8, 8])])
    }));
    abandon(&lookups, 40, "slow.example").await;
    // The first 24 hang, and so may whoever comes before this one.
    let mut hanging = Box::pin(lookups.addresses("late.slow.example", NOW));
    assert!(poll_immediate(&mut hanging).await.is_none());
    // A clock that stands still while the thread of this one works would not move for the others either.
    let fresh = async {
        tokio::time::advance(SLOW_AFTER).await;
        tokio::time::resume();
        lookups.addresses("fresh.example", NOW).await
    };
    fresh.await.expect("it has a place");
    drop((hanging, gate));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_answers_is_given_up() {
    let (lookups, _, open) = gated();
    assert_eq!(lookups.addresses("a.example", NOW).await, Err(LookupError::TimedOut("a.example".into())));
    drop(open);
}

#[tokio::test]
async fn what_is_found_when_nobody_waits_any_longer_is_kept() {
    let (lookups, calls, open) = gated();
    abandon(&lookups, 1, "example").await;
    open.send(()).expect("room");
    while lookups.is_without_place("0.example") || !lock(&lookups.threads).is_empty() {
        tokio::task::yield_now().await;
    }
    lookups.addresses("0.example", KEPT_FOUND).await.expect("kept");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// What a scripted lookup does next.
#[derive(Clone, Copy)]
enum Does {
    Find(u8),
    Fail,
    Unknown,
    Empty,
    Hang,
}

/// A lookup that does what it is told, and counts itself. What hangs does so until the sender is dropped.
fn told(first: Does) -> (Lookups, Arc<Mutex<Does>>, Arc<AtomicUsize>, SyncSender<()>) {
    let (gate, shut) = sync_channel::<()>(0);
    let (does, calls, shut) = (Arc::new(Mutex::new(first)), Arc::new(AtomicUsize::new(0)), Mutex::new(shut));
    let (script, counted) = (does.clone(), calls.clone());
    let lookups = Lookups::new(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let does = *lock(&script);
        match does {
            Does::Find(last) => Ok(vec![IpAddr::from([8, 8, 8, last])]),
            Does::Fail => Err(io::Error::other("no such name")),
            Does::Unknown => Err(io::Error::new(io::ErrorKind::NotFound, "Name or service not known")),
            Does::Empty => Ok(Vec::new()),
            Does::Hang => {
                lock(&shut).recv().expect_err("the gate is never opened");
                Err(io::Error::other("given up"))
            }
        }
    }));
    (lookups, does, calls, gate)
}

/// Lets so much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time + Duration::from_millis(2)).await;
    tokio::time::resume();
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what may fail")]
fn found(last: u8) -> Found {
    Ok([IpAddr::from([8, 8, 8, last])].into())
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_any_longer_keeps_its_addresses_for_ten_minutes() {
    for outage in [Does::Fail, Does::Hang] {
        let (lookups, does, calls, gate) = told(Does::Find(1));
        assert_eq!(lookups.addresses_lately("a.example").await, found(1));
        *lock(&does) = outage;
        pass(KEPT_FOUND).await;
        for _ in 0..10 {
            assert_eq!(lookups.addresses_lately("a.example").await, found(1));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2, "asked for once, and then left alone for a moment");
        pass(KEPT_FAILED).await;
        assert_eq!(lookups.addresses_lately("a.example").await, found(1));
        let asked = if matches!(outage, Does::Hang) { 2 } else { 3 };
        assert_eq!(calls.load(Ordering::SeqCst), asked, "asked for again, unless a thread is still at it");
        pass(KEPT_STALE).await;
        tokio::time::pause();
        drop(gate);
        assert!(lookups.addresses_lately("a.example").await.is_err(), "ten minutes are over");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn newer_addresses_are_taken_as_soon_as_there_are_any() {
    let (lookups, does, _, gate) = told(Does::Find(1));
    assert_eq!(lookups.addresses_lately("a.example").await, found(1));
    *lock(&does) = Does::Find(2);
    pass(KEPT_FOUND).await;
    assert_eq!(lookups.addresses_lately("a.example").await, found(2), "at once where they come at once");
    // Late, when everybody has gone on with the old ones.
    *lock(&does) = Does::Hang;
    pass(KEPT_FOUND).await;
    assert_eq!(lookups.addresses_lately("a.example").await, found(2));
    *lock(&does) = Does::Find(3);
    drop(gate);
    while !lock(&lookups.threads).is_empty() {
        tokio::task::yield_now().await;
    }
    pass(KEPT_FAILED).await;
    assert_eq!(lookups.addresses_lately("a.example").await, found(3));
    *lock(&does) = Does::Empty;
    pass(KEPT_FOUND).await;
    let empty = Err(LookupError::Empty("a.example".into()));
    assert_eq!(lookups.addresses_lately("a.example").await, empty, "its name server took them back");
    assert_eq!(lookups.addresses_lately("a.example").await, empty);
}

#[tokio::test]
async fn a_name_that_its_servers_say_is_gone_has_no_addresses_from_then_on() {
    for gone in [Does::Unknown, Does::Empty] {
        let (lookups, does, _, gate) = told(Does::Find(1));
        assert_eq!(lookups.addresses_lately("a.example").await, found(1));
        *lock(&does) = Does::Fail;
        pass(KEPT_FOUND).await;
        assert_eq!(lookups.addresses_lately("a.example").await, found(1), "nobody can say");
        *lock(&does) = gone;
        pass(KEPT_FAILED).await;
        let said = lookups.addresses_lately("a.example").await;
        assert!(said.is_err() && is_answer(&said), "{said:?}");
        assert_eq!(lookups.addresses_lately("a.example").await, said);
        *lock(&does) = Does::Fail;
        pass(KEPT_FAILED).await;
        let failed = lookups.addresses_lately("a.example").await;
        assert!(
            matches!(failed, Err(LookupError::Failed { .. })),
            "what was is not served again: {failed:?}"
        );
        *lock(&does) = Does::Find(2);
        pass(KEPT_FAILED).await;
        assert_eq!(lookups.addresses_lately("a.example").await, found(2), "it is back");
        drop(gate);
    }
}

#[test]
fn the_system_says_which_names_there_cannot_be_and_which_it_could_not_ask_for() {
    let name: Arc<str> = "no such name".into();
    // No name server is asked for what is no name of a host.
    let error = judge(&name, system()(&name)).expect_err("not a name of a host");
    assert!(matches!(error, LookupError::Unknown { .. }), "{error:?}");
    // That a file of the resolver is not there says nothing of the name.
    let error = judge(&name, Err(io::Error::from_raw_os_error(2))).expect_err("failed");
    assert!(matches!(error, LookupError::Failed { .. }), "{error:?}");
}

#[tokio::test]
async fn who_wants_to_know_what_is_now_gets_no_old_addresses() {
    let (lookups, does, _, gate) = told(Does::Find(1));
    assert_eq!(lookups.addresses_lately("a.example").await, found(1));
    *lock(&does) = Does::Fail;
    let failed = lookups.addresses("a.example", NOW).await;
    assert!(matches!(failed, Err(LookupError::Failed { .. })), "{failed:?}");
    assert_eq!(lookups.addresses_lately("a.example").await, found(1));
    assert_eq!(
        lookups.addresses("a.example", KEPT_FAILED).await,
        failed,
        "nor who wants to know what was just now"
    );
    drop(gate);
}

#[tokio::test(start_paused = true)]
async fn names_that_are_known_have_places_of_their_own() {
    let (lookups, does, _, gate) = told(Does::Find(1));
    tokio::time::resume();
    assert_eq!(lookups.addresses_lately("a.example").await, found(1));
    *lock(&does) = Does::Hang;
    for _ in 0..9 {
        abandon(&lookups, 200, "slow.example").await;
        pass(SLOW_AFTER).await;
    }
    assert_eq!(lock(&lookups.threads).len(), 192, "no place is left for others");
    *lock(&does) = Does::Find(2);
    pass(KEPT_FOUND).await;
    assert_eq!(lookups.addresses_lately("a.example").await, found(2));
    drop(gate);
}

#[tokio::test]
async fn failures_and_empty_answers_are_told_apart() {
    let lookups = Lookups::new(Arc::new(|name| match name {
        "empty.example" => Ok(Vec::new()),
        "short.example" => Err(io::Error::from_raw_os_error(24)),
        "panics.example" => panic!("a resolver that panics"),
        _ => Err(io::Error::other("no such name")),
    }));
    let error = lookups.addresses("none.example", NOW).await.expect_err("fails").to_string();
    assert_eq!(error, r#"the name "none.example" does not resolve: no such name"#);
    assert_eq!(
        lookups.addresses("empty.example", NOW).await,
        Err(LookupError::Empty("empty.example".into()))
    );
    let error = lookups.addresses("short.example", NOW).await.expect_err("fails");
    assert!(matches!(error, LookupError::Short { .. }), "{error:?}");
    assert!(lookups.addresses("panics.example", NOW).await.is_err());
}

#[tokio::test]
async fn the_system_knows_this_machine() {
    let found = Lookups::new(system()).addresses("localhost", NOW).await.expect("in every hosts file");
    assert!(found.iter().all(IpAddr::is_loopback));
}

/// A lookup that counts itself: names that begin with `no` have no address, and for one this machine is short.
fn counted() -> (Lookups, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let lookups = Lookups::new(Arc::new(move |name| {
        counted.fetch_add(1, Ordering::SeqCst);
        match name {
            "short.example" => Err(io::Error::from_raw_os_error(24)),
            name if name.starts_with("no") => Err(io::Error::other("no such name")),
            _ => Ok(vec![IpAddr::from([8, 8, 8, 8])]),
        }
    }));
    (lookups, calls)
}

#[tokio::test]
async fn what_was_found_is_kept_for_a_while_and_failures_for_less() {
    let (lookups, calls) = counted();
    let mut expected = 0;
    for (name, kept) in
        [("a.example", KEPT_FOUND), ("no.example", KEPT_FAILED), ("short.example", Duration::ZERO)]
    {
        let first = lookups.addresses(name, KEPT_FOUND).await;
        expected += 1;
        tokio::time::pause();
        if !kept.is_zero() {
            tokio::time::advance(kept.mul_f64(0.5)).await;
            assert_eq!(lookups.addresses(name, KEPT_FOUND).await, first, "{name}");
            assert_eq!(calls.load(Ordering::SeqCst), expected, "{name} is kept");
        }
        tokio::time::advance(kept + Duration::from_millis(2)).await;
        tokio::time::resume();
        drop(lookups.addresses(name, KEPT_FOUND).await);
        expected += 1;
        assert_eq!(calls.load(Ordering::SeqCst), expected, "{name} is asked for again");
    }
    drop(lookups.addresses("a.example", NOW).await);
    assert_eq!(calls.load(Ordering::SeqCst), expected + 1, "what is kept is not what is now");
}

#[tokio::test]
async fn no_more_names_than_the_bound_are_kept() {
    let (lookups, calls) = counted();
    for number in 0..KEPT_MAX + 10 {
        drop(lookups.addresses(&format!("{number}.example"), KEPT_FOUND).await);
    }
    assert_eq!((lookups.cache.len(), calls.load(Ordering::SeqCst)), (KEPT_MAX, KEPT_MAX + 10));
}
