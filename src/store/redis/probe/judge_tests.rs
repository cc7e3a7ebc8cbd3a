//! Each flaw alone makes the difference that it should.

use super::*;
use crate::store::redis::probe::seen::tests::sound;
use crate::store::redis::probe::version::Version;

fn strict() -> StoreSettings {
    StoreSettings::default()
}

fn relaxed() -> StoreSettings {
    StoreSettings { durability: RequiredDurability::Relaxed, ..StoreSettings::default() }
}

fn assuming() -> StoreSettings {
    StoreSettings { durability_assume: true, ..StoreSettings::default() }
}

fn codes(judgement: &Judgement) -> Vec<&str> {
    judgement.warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn a_sound_redis_is_strict_without_a_word() {
    let found = judge(&sound(), &strict());
    assert_eq!((found.durability, found.refusals, found.reasons), (Durability::Strict, vec![], vec![]));
    assert_eq!(found.warnings, []);
    assert_eq!(judge(&sound(), &relaxed()).durability, Durability::Strict, "what is, not what is asked for");
}

#[test]
fn what_strict_refuses_is_taken_by_relaxed_and_has_its_cure() {
    let flaws: [(Seen, &str); 5] = [
        (
            Seen { aof: Some(Aof::Off), has_snapshots: Some(true), ..sound() },
            "redis-cli CONFIG SET appendonly yes",
        ),
        (Seen { aof: Some(Aof::Starting), ..sound() }, "aof_rewrite_in_progress:0"),
        (Seen { fsync: Some("everysec".to_owned()), ..sound() }, "redis-cli CONFIG SET appendfsync always"),
        (Seen { fsync_pauses: Some(true), ..sound() }, "redis-cli CONFIG SET no-appendfsync-on-rewrite no"),
        (Seen { aof_is_written: false, ..sound() }, "make room on its disk"),
    ];
    for (seen, cure) in flaws {
        let found = judge(&seen, &strict());
        let [refusal] = &found.refusals[..] else { panic!("{found:?}") };
        assert!(refusal.cure.contains(cure), "{refusal:?}");
        assert_eq!((found.durability, found.reasons.len()), (Durability::Relaxed, 1), "{seen:?}");
        assert!(found.is_fit_for_relaxed);
        assert_eq!(judge(&seen, &assuming()).refusals.len(), 1, "what is seen is not assumed away");
        let found = judge(&seen, &relaxed());
        assert_eq!((found.durability, found.refusals), (Durability::Relaxed, vec![]), "{seen:?}");
    }
}

#[test]
fn what_is_always_refused_has_its_cure() {
    let flaws: [(Seen, &str); 5] = [
        (Seen { version: Version::read("6.2.7"), ..sound() }, "install a newer one"),
        (Seen { role: Some(Role::Replica("db:6379".to_owned())), ..sound() }, "redis-cli REPLICAOF NO ONE"),
        (Seen { is_cluster: true, ..sound() }, "cluster-enabled no"),
        (
            Seen { eviction: Some("allkeys-lru".to_owned()), ..sound() },
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        ),
        (unable_to_snapshot(), "redis-cli CONFIG SET stop-writes-on-bgsave-error no"),
    ];
    for (seen, cure) in flaws {
        for settings in [strict(), relaxed(), assuming()] {
            let found = judge(&seen, &settings);
            let [refusal] = &found.refusals[..] else { panic!("{found:?}") };
            assert!(refusal.cure.contains(cure), "{refusal:?}");
            assert_eq!((found.durability, found.is_fit_for_relaxed), (Durability::Unknown, false));
        }
    }
}

/// A Redis whose last snapshot failed, and which takes that for a reason to write nothing.
fn unable_to_snapshot() -> Seen {
    Seen { snapshot_failed: true, has_snapshots: Some(true), stops_without_snapshots: Some(true), ..sound() }
}

#[test]
fn a_snapshot_that_failed_matters_only_where_writes_end_with_it() {
    for seen in [
        Seen { has_snapshots: Some(false), ..unable_to_snapshot() },
        Seen { stops_without_snapshots: Some(false), ..unable_to_snapshot() },
        Seen { stops_without_snapshots: None, ..unable_to_snapshot() },
        Seen { snapshot_failed: false, ..unable_to_snapshot() },
    ] {
        assert_eq!(judge(&seen, &strict()).refusals, vec![], "{seen:?}");
    }
}

#[test]
fn fewer_replicas_than_redis_wants_for_a_write_are_told_with_what_would_do() {
    let short = Seen { replicas_min: Some(2), replicas_good: Some(1), ..sound() };
    for settings in [strict(), relaxed()] {
        let found = judge(&short, &settings);
        let [refusal] = &found.refusals[..] else { panic!("{found:?}") };
        assert!(refusal.passes && refusal.cure.ends_with("redis-cli CONFIG SET min-replicas-to-write 1"));
        assert_eq!(found.durability, Durability::Unknown);
    }
    for seen in [Seen { replicas_good: Some(2), ..short.clone() }, Seen { replicas_good: None, ..short }] {
        assert_eq!(judge(&seen, &strict()).refusals, vec![], "{seen:?}");
    }
}

#[test]
fn what_cures_names_the_redis_that_it_is_for() {
    let seen = Seen { aof: Some(Aof::Off), memory: Some(Memory::default()), ..sound() };
    let elsewhere = StoreSettings { url: "redis://db:1/2".to_owned(), ..strict() };
    let found = judge(&seen, &elsewhere);
    let warning = found.warnings[0].detail.as_str();
    for text in [found.refusals[0].cure.as_str(), found.reasons[0].as_str(), warning] {
        assert!(text.contains("redis-cli -h db -p 1 CONFIG SET "), "{text}");
    }
}

#[test]
fn what_may_not_be_seen_must_be_vouched_for() {
    let seen = Seen { fsync: None, fsync_pauses: None, ..sound() };
    let found = judge(&seen, &strict());
    let [refusal] = &found.refusals[..] else { panic!("{found:?}") };
    assert!(
        refusal.what.contains("appendfsync") && refusal.cure.contains("store.durability_assume = true"),
        "{refusal:?}"
    );
    assert_eq!(found.durability, Durability::Unknown);
    let found = judge(&seen, &assuming());
    assert_eq!((found.durability, found.refusals), (Durability::Assumed, vec![]));
    assert!(found.reasons[0].contains("vouches"), "{:?}", found.reasons);
    let found = judge(&seen, &relaxed());
    assert_eq!((found.durability, found.refusals), (Durability::Relaxed, vec![]));
    let blind = judge(&Seen::of(None, None), &strict());
    assert_eq!(blind.refusals.len(), 2, "{blind:?}");
    assert_eq!(judge(&Seen::of(None, None), &assuming()).durability, Durability::Assumed);
}

#[test]
fn without_aof_and_snapshots_a_202_is_in_memory_only() {
    let seen = Seen { aof: Some(Aof::Off), ..sound() };
    assert_eq!(judge(&seen, &relaxed()).durability, Durability::None);
}

#[test]
fn each_warning_comes_alone() {
    let memory = sound().memory.expect("seen");
    let cases: [(Seen, StoreSettings, &str); 4] = [
        (Seen { memory: Some(Memory { bytes_max: 0, ..memory }), ..sound() }, strict(), "maxmemory_none"),
        (
            Seen { memory: Some(Memory { bytes_max: 9_700_000_000, ..memory }), ..sound() },
            strict(),
            "maxmemory_high",
        ),
        (Seen { replicas: Some(0), ..sound() }, strict(), "replica_none"),
        (Seen { version: Version::read("7.0.15"), ..sound() }, strict(), "version_vulnerable"),
    ];
    for (seen, settings, code) in cases {
        let found = judge(&seen, &settings);
        assert_eq!((codes(&found), &found.refusals), (vec![code], &vec![]));
    }
    let found = judge(&Seen { memory: Some(Memory { bytes_max: 0, ..memory }), ..sound() }, &strict());
    assert!(found.warnings[0].detail.ends_with("redis-cli CONFIG SET maxmemory 9600000000"), "{found:?}");
}

#[test]
fn fewer_replicas_than_must_have_a_publish_are_refused_until_they_come() {
    for settings in [strict(), relaxed()] {
        let found = judge(&sound(), &StoreSettings { replicas_ack: 2, ..settings.clone() });
        let [refusal] = &found.refusals[..] else { panic!("{found:?}") };
        assert!(refusal.passes && refusal.what.starts_with("1 of 2 replicas"), "{refusal:?}");
        assert_eq!((found.durability, codes(&found)), (Durability::Unknown, vec!["replicas_missing"]));
        let hidden = Seen { replicas: None, ..sound() };
        assert_eq!(judge(&hidden, &StoreSettings { replicas_ack: 2, ..settings }).refusals, vec![]);
    }
}

#[test]
fn the_room_is_a_share_of_the_lesser_limit() {
    let memory = |bytes_max| Memory { used_bytes: 0, bytes_max, machine_bytes: 0 };
    let own = |bytes_max| StoreSettings { bytes_max, full_at_percent: 80, ..StoreSettings::default() };
    assert_eq!(room_bytes(memory(1_000), &own(None)), Some(800));
    assert_eq!(room_bytes(memory(1_000), &own(Some(500))), Some(400));
    assert_eq!(room_bytes(memory(400), &own(Some(500))), Some(320));
    assert_eq!(room_bytes(memory(0), &own(Some(500))), Some(400));
    assert_eq!(room_bytes(memory(0), &own(None)), None);
}
