//! What one look after another adds up to.

use super::*;
use crate::store::redis::probe::seen::tests::sound;
use crate::store::stats::{Counters, Gauges};

const KEY: &str = "ph:epoch";

fn here() -> Server {
    Server::Run("5f0c".into())
}

fn looked() -> Vitals {
    let mut vitals = Vitals::default();
    vitals.meet(&here(), 1);
    vitals.see(&here(), sound(), &StoreSettings::default());
    vitals
}

fn stats(accepted: u64, foreign: u64) -> QueueStats {
    QueueStats {
        name: "orders".parse().expect("a name"),
        generation: Generation(1),
        counters: Counters { accepted, ..Counters::default() },
        gauges: Gauges::default(),
        oldest_pending_at: None,
        recovering_until: None,
        paused: false,
        parked: None,
        foreign,
    }
}

fn codes(vitals: &Vitals) -> Vec<&'static str> {
    vitals.health(None).warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn the_first_epoch_is_adopted_and_another_one_refuses_publishes() {
    let mut vitals = looked();
    assert!(vitals.find_epoch(&here(), KEY, None), "one is to be made");
    assert!(!vitals.find_epoch(&here(), KEY, Some(b"1:aa")));
    assert_eq!((vitals.id().as_deref(), vitals.check(&here())), (Some("aa"), Ok(())));
    for (found, said) in
        [(Some(&b"1:bb"[..]), "1:bb and was 1:aa"), (None, "gone and was 1:aa"), (Some(b"?"), "overwritten")]
    {
        assert!(!vitals.find_epoch(&here(), KEY, found), "nothing is made in its place");
        let Err(StoreError::NotDurable(why)) = vitals.check(&here()) else { panic!("{found:?}") };
        assert!(why.contains(said) && why.contains("restart"), "{why}");
        assert_eq!(vitals.health(None).durability, Durability::Unknown);
        assert_eq!(vitals.id().as_deref(), Some("aa"));
    }
    vitals.find_epoch(&here(), KEY, Some(b"1:aa"));
    assert_eq!(vitals.check(&here()), Ok(()), "the old one is back");
}

#[test]
fn a_newer_format_is_refused_whether_known_or_not() {
    for known in [None, Some(&b"1:aa"[..])] {
        let mut vitals = looked();
        vitals.find_epoch(&here(), KEY, known);
        vitals.find_epoch(&here(), KEY, Some(b"2:aa"));
        assert!(vitals.check(&here()).is_err());
        assert!(vitals.health(None).newer.expect("said").contains("format 2"));
        assert!(!vitals.is_fit_for_relaxed());
    }
}

#[test]
fn an_aof_that_was_turned_on_counts_when_its_rewrite_ended() {
    let mut vitals = looked();
    let see = |vitals: &mut Vitals, aof, is_rewriting| {
        vitals.see(&here(), Seen { aof: Some(aof), is_rewriting, ..sound() }, &StoreSettings::default());
        vitals.check(&here()).is_ok()
    };
    assert!(see(&mut vitals, Aof::On, true), "an ordinary rewrite is no flaw");
    assert!(!see(&mut vitals, Aof::Off, false));
    assert!(!see(&mut vitals, Aof::On, true), "publishes went into it meanwhile, so it does not look new");
    assert!(see(&mut vitals, Aof::On, false));
}

#[test]
fn counters_that_fall_are_warned_of_unless_they_were_read_out_of_order() {
    let mut vitals = looked();
    let early = Instant::now();
    vitals.compare(&stats(10, 0), early);
    vitals.compare(&stats(9, 0), early);
    assert_eq!(codes(&vitals), [""; 0], "it was asked before the other was answered");
    vitals.compare(&stats(9, 0), Instant::now());
    assert_eq!(codes(&vitals), ["accepted_fell"]);
}

#[test]
fn a_queue_that_was_made_anew_counts_from_the_beginning() {
    let mut vitals = looked();
    vitals.compare(&stats(10, 0), Instant::now());
    vitals.compare(&QueueStats { generation: Generation(2), ..stats(0, 0) }, Instant::now());
    assert_eq!(codes(&vitals), [""; 0]);
}

#[test]
fn junk_is_warned_of_until_its_queue_is_gone() {
    let mut vitals = looked();
    vitals.compare(&stats(10, 3), Instant::now());
    assert_eq!(codes(&vitals), ["foreign_keys"]);
    vitals.retain(|_| false);
    assert_eq!(codes(&vitals), [""; 0]);
}

#[test]
fn each_server_is_judged_for_itself() {
    let mut vitals = looked();
    vitals.find_epoch(&here(), KEY, Some(b"1:aa"));
    let there = Server::Run("b".into());
    assert_eq!(vitals.meet(&there, 2), Met::Moved);
    assert!(vitals.is_old(&there) && !vitals.is_old(&here()));
    vitals.see(&there, Seen { aof: Some(Aof::Off), ..sound() }, &StoreSettings::default());
    vitals.find_epoch(&there, KEY, None);
    // Who still is on the other one says nothing of this one.
    vitals.see(&here(), sound(), &StoreSettings::default());
    vitals.find_epoch(&here(), KEY, Some(b"1:aa"));
    let Err(StoreError::NotDurable(why)) = vitals.check(&there) else { panic!("it is unfit") };
    assert!(why.contains("appendonly is no") && why.contains("its epoch is gone"), "{why}");
    assert_eq!(vitals.check(&here()), Ok(()));
    assert_eq!(vitals.health(None).durability, Durability::Unknown, "the address leads to the unfit one");
}

#[test]
fn an_address_of_several_servers_takes_no_publishes() {
    let mut vitals = looked();
    let there = Server::Run("b".into());
    for (connection, server) in (2..).zip([&there, &here(), &there, &here()]) {
        vitals.meet(server, connection);
        vitals.see(server, sound(), &StoreSettings::default());
    }
    let Err(StoreError::NotDurable(why)) = vitals.check(&here()) else { panic!("it is taken") };
    assert!(why.contains("now to one server, now to another"), "{why}");
    assert!(codes(&vitals).contains(&"servers_differ"));
    assert_eq!(vitals.health(None).durability, Durability::Unknown);
}

#[test]
fn what_one_connection_sees_of_a_server_without_a_name_refuses_on_all() {
    let mut vitals = Vitals::default();
    let unfit = || Seen { fsync: Some("no".to_owned()), ..sound() };
    vitals.see(&Server::Nameless(1), sound(), &StoreSettings::default());
    assert_eq!(vitals.check(&Server::Nameless(1)), Ok(()));
    vitals.see(&Server::Nameless(2), unfit(), &StoreSettings::default());
    assert!(vitals.check(&Server::Nameless(1)).is_err() && vitals.is_old(&Server::Nameless(3)));
}
