//! Publishes are shed before Redis is full, and what is in it can always be worked on.

use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::DeadLetter;
use posthaste::store::error::StoreError;

use super::{Arc, Duration, Put, RedisServer, Rig, plain_settings, run, strict, until};
use crate::conformance::stand::{Draft, attempt, draft, settlements};
use crate::support::redis::STRICT;

/// What Redis may use: it begins with about 1 MB.
const MEMORY_BYTES: u64 = 32 << 20;

fn small() -> RedisServer {
    RedisServer::start(&[&STRICT[..], &["--maxmemory", &MEMORY_BYTES.to_string()]].concat())
}

async fn fill(rig: &Rig) -> usize {
    let draft = Draft { payload: vec![7; 200], ..draft() };
    let mut stored = 0;
    loop {
        match rig.offer(&vec![draft.clone(); 500]).await {
            Ok(()) => stored += 500,
            Err(StoreError::Full(why)) => {
                assert!(why.contains("store.full_at_percent"), "refused by us and not by Redis: {why}");
                return stored;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_redis_sheds_publishes_and_its_backlog_drains_though_half_of_it_is_retried() {
    let server = small();
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        let stored = fill(&rig).await;
        assert!(stored > 20_000, "{stored}");
        assert!(rig.health().await.full.is_some());
        let (mut retried, mut delivered, mut peak) = (0, 0, 0);
        while retried < stored / 2 {
            retried += rig.work(1_000, Verdict::Retry { delay: Duration::from_millis(200) }).await.len();
            peak = peak.max(server.info("used_memory"));
        }
        while delivered < stored {
            rig.connection.sweep().await.expect("sweeping goes on");
            delivered += rig.work(1_000, Verdict::Ack).await.len();
            peak = peak.max(server.info("used_memory"));
        }
        assert!(peak <= MEMORY_BYTES, "Redis would have refused: {peak}");
        let stats = rig.stats().await;
        assert_eq!(
            (stats.counters.delivered, stats.gauges.pending, stats.gauges.scheduled),
            (stored as u64, 0, 0)
        );
        assert_eq!(rig.health().await.full, None);
        rig.publish().await;
    });
}

/// The words that a consumer may give.
fn rejected() -> Verdict {
    Verdict::Dead { reason: DeadReason::Rejected, detail: Some("r".repeat(1_024)) }
}

#[test]
fn a_backlog_of_which_nothing_is_delivered_stays_below_maxmemory_however_it_dies() {
    let server = small();
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        let destination = format!("http://receiver.example/{}", "d".repeat(1_500));
        let mut settings = plain_settings();
        settings.destination = Some(destination.parse().expect("a destination"));
        let put = rig.connection.put_queue(rig.queue.name.clone(), Arc::new(settings)).await;
        let Ok(Put::Updated(entry)) = put else { panic!("{put:?}") };
        let rig = Rig { queue: entry.queue_ref(), ..rig };
        let letter = async |id| -> DeadLetter {
            let letter = rig.connection.dead(rig.queue.clone(), id).await;
            letter.expect("Redis answers").expect("it is dead")
        };
        rig.publish().await;
        let before = letter(rig.work(1, rejected()).await[0]).await;
        assert_eq!(before.detail.map(|detail| detail.len()), Some(1_024));
        assert_eq!(before.destination.as_deref(), Some(&*destination));

        let stored = fill(&rig).await;
        let (mut peak, mut scheduled, mut dead, mut first) = (0, 0, 0, None);
        while scheduled < stored / 2 {
            scheduled += rig.work(1_000, Verdict::Retry { delay: Duration::from_millis(200) }).await.len();
            peak = peak.max(server.info("used_memory"));
            rig.health().await;
        }
        while dead < stored {
            rig.connection.sweep().await.expect("sweeping goes on");
            let ids = rig.work(1_000, rejected()).await;
            dead += ids.len();
            first = first.or(ids.first().copied());
            peak = peak.max(server.info("used_memory"));
            rig.health().await;
        }
        assert!(peak <= MEMORY_BYTES + MEMORY_BYTES / 20, "{peak} bytes for {stored} dead letters");
        let gauges = rig.stats().await.gauges;
        assert_eq!((gauges.pending, gauges.scheduled, gauges.dead), (0, 0, stored as u64 + 1));
        let first = letter(first.expect("all died")).await;
        assert_eq!((first.reason, first.detail, first.destination), (DeadReason::Rejected, None, None));
    });
}

#[test]
fn messages_that_nobody_looks_for_count_as_well() {
    let server = small();
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        let stored = fill(&rig).await;
        // As a queue that is held leaves the index after a minute.
        assert_eq!(server.ask(&["ZREM", "ph:{0}:due", "orders"]), ":1\r\n");
        let put =
            rig.connection.put_queue("others".parse().expect("a name"), Arc::new(plain_settings())).await;
        let Ok(Put::Created(entry)) = put else { panic!("{put:?}") };
        let other =
            Rig { queue: entry.queue_ref(), store: Arc::clone(&rig.store), connection: rig.store.connect() };
        let more = fill(&other).await;
        assert!(more < stored / 10, "{more} more than {stored}");
    });
}

#[test]
fn attempts_are_not_remembered_while_there_is_no_room() {
    let server = small();
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        rig.publish().await;
        let fail = async |rig: &Rig| {
            let leased = rig.lease(1).await;
            let batch = leased.batch.clone();
            let mut settlements = settlements(leased, &Verdict::Retry { delay: Duration::from_mins(1) });
            for settlement in &mut settlements {
                settlement.attempt = Some(attempt(1, 500));
            }
            rig.connection.settle(batch, settlements.into()).await.expect("settling goes on");
        };
        fail(&rig).await;
        assert_eq!(server.ask(&["HLEN", "ph:{orders#0}:a"]), ":1\r\n");
        fill(&rig).await;
        fail(&rig).await;
        assert_eq!(server.ask(&["HLEN", "ph:{orders#0}:a"]), ":1\r\n");
    });
}

#[test]
fn one_large_publish_does_not_go_beyond_the_room() {
    let server = small();
    run(async {
        let rig = Rig::open(&strict(&server)).await;
        let large = Draft { payload: vec![7; 1 << 20], ..draft() };
        assert!(matches!(rig.offer(&vec![large.clone(); 28]).await, Err(StoreError::Full(_))));
        rig.offer(&vec![large; 20]).await.expect("there is room for that");
        // From 8.0 on what scripts left behind counts until they are called some more times.
        until("it is within the room", async || {
            rig.stats().await;
            (server.info("used_memory") < MEMORY_BYTES).then_some(())
        })
        .await;
    });
}
