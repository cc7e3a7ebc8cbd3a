//! A key of a queue was overwritten and then removed by hand, as the warning says: the queue mends itself, what is left of its messages
//! ends as it should, and both laws hold.

use std::collections::HashSet;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::QueueRef;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::{Due, Group, GroupResult, IdempotencyKey};
use posthaste::store::health::FOREIGN_BESIDE;
use posthaste::store::stats::QueueStats;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{
    Draft, START, Stand, attempt, dead, draft, pull_request, request, retry_after, seconds, settlement,
};
use crate::support::redis::RedisServer;

/// Every key of a queue; `x` is the list of a batch.
const NAMES: &str = "c ps ph p0 p1 p2 r0 r1 r2 s sb o d dm db b l x z m mr mt bi a f y0 y1 y2 j i0 i1";

/// Messages in every place there is: how many lie under each key that can lose some.
struct Life {
    accepted: Vec<MessageId>,
    delivered: usize,
    batch: String,
}

async fn live(stand: &Stand, queue: &QueueRef, name: &str) -> Life {
    let large = || Draft { payload: vec![7; 40_000], ..draft() };
    let mut accepted = stand.publish(queue, &[draft(), large(), draft()]).await;
    let died = stand.lease(queue, 2).await;
    let batch = died.batch.clone();
    let dies = |index| posthaste::store::lease::Settlement {
        attempt: Some(attempt(1, 503)),
        ..settlement(index, dead(DeadReason::Rejected))
    };
    stand.settle(&batch, vec![dies(0), dies(1)]).await;
    stand.run(queue, 1, Verdict::Ack).await;
    // Suspect, at the head, come back, leased, scheduled, fresh.
    accepted.extend(stand.publish_plain(queue, 1).await);
    stand.take(posthaste::store::lease::LeaseRequest { lease: seconds(1), ..request(queue) }).await;
    stand.pass(seconds(2)).await;
    accepted.extend(stand.publish(queue, &[draft(), draft(), large(), draft(), large()]).await);
    let some = stand.take(posthaste::store::lease::LeaseRequest { max: 5, ..pull_request(queue) }).await;
    let ways = vec![
        settlement(0, Verdict::Release),
        settlement(1, retry_after(seconds(0))),
        settlement(2, retry_after(seconds(60))),
    ];
    stand.settle(&some.batch, ways).await;
    let later = Draft { due: Due::After(seconds(60)), ..large() };
    accepted.extend(stand.publish(queue, &[draft(), large(), later.clone(), Draft { ..later }]).await);
    let own = IdempotencyKey { key: name.as_bytes().to_vec(), fingerprint: [1; 16] };
    let group = Group { key: Some(own), ..stand.group(queue, &[draft()]) };
    accepted.extend(group.messages.iter().map(|message| message.id));
    assert_eq!(stand.offer(group).await, GroupResult::Accepted);
    Life { accepted, delivered: 1, batch: format!("x:{:032x}", some.batch.batch.0) }
}

async fn codes(stand: &Stand, queue: &QueueRef) -> Vec<(&'static str, String)> {
    let health = stand.connection.health().await.expect("the store answers");
    let own = health.troubles.into_iter().filter(|trouble| trouble.queue == queue.name);
    own.map(|trouble| (trouble.code, trouble.detail)).collect()
}

async fn letters(stand: &Stand, queue: &QueueRef) -> Vec<MessageId> {
    let page = stand.connection.list_dead(queue.clone(), DeadFilter::default(), None, 1_000);
    page.await.expect("the store answers").letters.into_iter().map(|letter| letter.id).collect()
}

/// Some sweeps, a second apart.
async fn mend(stand: &Stand) {
    for _ in 0..4 {
        stand.clock.advance(seconds(1));
        drop(stand.connection.sweep().await);
    }
}

/// Puts junk under a key, waits until it is told, removes it, and lets everything end; gives the numbers.
async fn suffer(
    server: &RedisServer,
    stand: &Stand,
    name: &str,
    junk: &[&[u8]],
    remove: &[&str],
) -> QueueStats {
    let queue = stand.queue(&format!("of-{name}")).await;
    let mut life = live(stand, &queue, name).await;
    let of = |name: &str| key(queue.name.as_str(), if name == "x" { &life.batch } else { name });
    let broken = of(name);
    ask::<i64>(server, &[b"DEL", broken.as_bytes()]);
    let mut put = vec![junk[0], broken.as_bytes()];
    put.extend(&junk[1..]);
    ask::<redis::Value>(server, &put);
    mend(stand).await;
    let told = codes(stand, &queue).await;
    // The list of a batch is looked at when its lease is over.
    let is_told = told.iter().any(|(_, detail)| detail.contains(&broken));
    assert!(is_told || name.starts_with(['x', 'i', 'y', 'o']), "{name}: {told:?}");
    let stops = told.iter().any(|(code, _)| *code != FOREIGN_BESIDE);
    for name in remove {
        ask::<i64>(server, &[b"DEL", of(name).as_bytes()]);
    }
    mend(stand).await;
    assert_eq!(codes(stand, &queue).await, [], "{name} (stopped it: {stops})");
    let stats = stand.stats(&queue).await;
    assert!(stats.laws_hold(), "{name}: {stats:?}");
    life.accepted.extend(stand.publish_plain(&queue, 2).await);
    for _ in 0..6 {
        stand.pass(seconds(40)).await;
        life.delivered += stand.drain(&queue).await.len();
    }
    let letters = letters(stand, &queue).await;
    let stats = stand.stats(&queue).await;
    assert!(stats.laws_hold(), "{name}: {stats:?}");
    let gauges = &stats.gauges;
    assert_eq!((gauges.pending, gauges.scheduled, gauges.leased), (0, 0, 0), "{name}: {stats:?}");
    assert_eq!(gauges.dead, letters.len() as u64, "{name}");
    assert_eq!(letters.iter().collect::<HashSet<_>>().len(), letters.len(), "{name}");
    let gone = stats.counters.purged + stats.counters.discarded;
    assert_eq!(
        life.accepted.len(),
        life.delivered + letters.len() + usize::try_from(gone).expect("small"),
        "{name}: {stats:?}"
    );
    assert_eq!(codes(stand, &queue).await, [], "{name}");
    let discarded = stand.connection.discard(queue, Selection::Ids(letters)).await;
    discarded.expect("the store answers");
    stand.check().await;
    stats
}

/// How many messages and dead letters are gone with a key, which nothing else leads to.
fn lost_with(name: &str) -> (u64, u64) {
    match name {
        "ps" | "ph" | "r1" => (1, 0),
        "p1" | "sb" => (3, 0),
        "x" => (2, 0),
        "db" => (0, 2),
        _ => (0, 0),
    }
}

async fn suffer_all(junk_of: impl Fn(&str) -> Vec<&'static [u8]>) {
    let server = RedisServer::start(&[]);
    let stand = stand_at(server.url(), &Clock::manual(START));
    for name in NAMES.split(' ') {
        let stats = suffer(&server, &stand, name, &junk_of(name), &[name]).await;
        let lost = (stats.counters.purged, stats.counters.discarded);
        assert_eq!(lost, lost_with(name), "{name}: {stats:?}");
    }
}

#[test]
fn a_queue_mends_itself_when_a_string_under_any_of_its_keys_was_removed() {
    run(async || suffer_all(|_| vec![b"SET", b"junk"]).await);
}

#[test]
fn a_queue_mends_itself_when_another_type_under_any_of_its_keys_was_removed() {
    let junk_of = |name: &str| -> Vec<&'static [u8]> {
        let is_set = matches!(name, "s" | "d" | "l");
        if is_set { vec![b"RPUSH", b"junk"] } else { vec![b"ZADD", b"1", b"junk"] }
    };
    run(async || suffer_all(junk_of).await);
}

#[test]
fn a_queue_mends_itself_when_several_of_its_keys_were_removed() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        for (remove, lost) in [
            // What the other names is found by what is beside it.
            (&["b", "l"][..], (0, 0)),
            (&["c", "l"], (0, 0)),
            (&["d", "dm"], (0, 0)),
            (&["c", "m", "mr", "mt"], (0, 0)),
            (&["db", "d", "dm"], (0, 2)),
            (&["s", "sb"], (3, 0)),
            (&["b", "l", "bi"], (2, 0)),
            (&["p1", "r1", "sb", "db"], (7, 2)),
        ] {
            let stats = suffer(&server, &stand, remove[0], &[b"SET", b"junk"], remove).await;
            assert_eq!((stats.counters.purged, stats.counters.discarded), lost, "{remove:?}: {stats:?}");
            let queue = stand.entry(&QueueRef { name: stats.name, generation: stats.generation }).await;
            let deleted = stand.connection.delete_queue(queue.queue_ref(), true).await;
            deleted.expect("the store answers");
        }
    });
}

#[test]
fn dead_letters_whose_reasons_were_removed_can_be_seen_and_replayed() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let died = stand.publish_dead(&queue, 3).await;
        ask::<i64>(&server, &[b"DEL", key("orders", "dm").as_bytes()]);
        mend(&stand).await;
        assert_eq!(letters(&stand, &queue).await, died);
        let letter = stand.connection.dead(queue.clone(), died[0]).await.expect("the store answers");
        let letter = letter.expect("it is dead");
        assert_eq!((letter.reason, letter.attempts), (DeadReason::Rejected, 1));
        assert!(letter.detail.expect("a detail").contains("overwritten"));
        let replayed = stand.connection.replay(queue.clone(), Selection::Ids(died.clone()), false).await;
        assert_eq!(replayed.expect("the store answers").replayed, 3);
        assert_eq!(stand.drain(&queue).await, died);
        stand.check().await;
    });
}

#[test]
fn what_is_mended_of_a_long_queue_is_mended_in_many_small_calls() {
    const COUNT: usize = 5_000;
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for _ in 0..COUNT / 1_000 {
            stand.publish(&queue, &vec![Draft { due: Due::After(seconds(3_600)), ..draft() }; 1_000]).await;
            stand.publish_plain(&queue, 1_000).await;
        }
        stand.run(&queue, 500, retry_after(seconds(0))).await;
        let lives = stand.take(pull_request(&queue)).await.leases.len();
        let waited = COUNT - lives;
        for name in ["s", "l", "p1"] {
            ask::<i64>(&server, &[b"DEL", key("orders", name).as_bytes()]);
        }
        for _ in 0..20 {
            stand.publish_plain(&queue, 100).await;
        }
        let before = server.calls("hscan");
        stand.connection.sweep().await.expect("the store answers");
        let first = server.calls("hscan") - before;
        assert!((1..=100).contains(&first), "{first} pieces in the first step");
        assert_eq!(ask::<i64>(&server, &[b"HEXISTS", key("orders", "c").as_bytes(), b"mending"]), 1);
        stand.pass(seconds(1)).await;
        stand.pass(seconds(1)).await;
        assert_eq!(codes(&stand, &queue).await, []);
        let stats = stand.stats(&queue).await;
        let gauges = stats.gauges;
        assert_eq!((gauges.scheduled, gauges.leased), (COUNT as u64, lives as u64));
        assert!(stats.laws_hold(), "{stats:?}");
        let mut delivered = 0;
        for _ in 0..4 {
            stand.pass(seconds(1_800)).await;
            loop {
                let some = stand.run(&queue, 1_000, Verdict::Ack).await.len();
                if some == 0 {
                    break;
                }
                delivered += some;
            }
        }
        let stats = stand.stats(&queue).await;
        assert_eq!(stats.counters.delivered, delivered as u64);
        let gone = usize::try_from(stats.counters.purged).expect("small");
        assert_eq!(delivered, 2 * COUNT + 2_000 - gone);
        assert!((waited - 500..=waited).contains(&gone), "{gone} of {waited}: {stats:?}");
        stand.check().await;
    });
}

#[test]
fn a_publish_to_a_queue_whose_gauge_is_wrong_wakes_who_waits() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        ask::<i64>(&server, &[b"DEL", key("orders", "p1").as_bytes()]);
        let subscription = stand.store.wakes().subscribe();
        drop(subscription.take());
        let published = stand.publish_plain(&queue, 1).await;
        assert!(subscription.take().queues.contains(&queue.name));
        assert_eq!(stand.drain(&queue).await, published);
    });
}
