//! Answers that never came, connections that were cut, scripts that were forgotten.

use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::retry::Verdict;
use posthaste::store::Scheduled;
use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::error::{StoreError, Stored};
use posthaste::store::lease::{Extended, Settled};

use super::{ask, run, stand_at};
use crate::conformance::stand::{START, Stand, draft, ids, refusal, request, seconds, settlements};
use crate::support::proxy::{Fault, Proxy};
use crate::support::redis::RedisServer;

const CUTS: [Fault; 3] = [Fault::LoseRequest, Fault::LoseAnswer, Fault::HalveAnswer];

/// A store behind a proxy, every script of it loaded.
async fn behind_a_proxy(server: &RedisServer) -> (Proxy, Stand) {
    let proxy = Proxy::start(server.socket());
    let stand = stand_at(proxy.url(), &Clock::manual(START));
    let queue = stand.queue("warm").await;
    stand.publish_plain(&queue, 1).await;
    stand.run(&queue, 1, Verdict::Ack).await;
    (proxy, stand)
}

#[test]
fn a_publish_whose_answer_is_lost_is_unknown_and_sent_again_stored_once() {
    run(async || {
        let server = RedisServer::start(&[]);
        let (proxy, stand) = behind_a_proxy(&server).await;
        // Few as one script, many as a transaction.
        for (count, fault) in [2, 40].into_iter().flat_map(|count| CUTS.map(|fault| (count, fault))) {
            let queue = stand.queue(&format!("{count}-{fault:?}").to_lowercase()).await;
            let (call, groups) =
                (CallId::random(), Arc::new(vec![stand.group(&queue, &vec![draft(); count])]));
            proxy.arm(fault);
            let error = refusal(stand.connection.enqueue(call, Arc::clone(&groups)).await);
            assert!(proxy.has_struck(), "{fault:?}");
            assert!(matches!(error, StoreError::Unknown(_)), "{fault:?}: {error:?}");
            for _ in 0..2 {
                let again = stand.connection.enqueue(call, Arc::clone(&groups)).await;
                assert_eq!(again, Ok(vec![GroupResult::Accepted]), "{fault:?}");
            }
            let stats = stand.stats(&queue).await;
            let count = count as u64;
            assert_eq!((stats.counters.accepted, stats.gauges.pending), (count, count), "{fault:?}");
        }
        stand.check().await;
    });
}

#[test]
fn a_publish_whose_answer_is_lost_is_stored_once_whatever_becomes_of_the_clock_of_redis() {
    run(async || {
        let server = RedisServer::start(&[]);
        let (proxy, stand) = behind_a_proxy(&server).await;
        let queue = stand.queue("orders").await;
        for (fault, stored, in_the_end) in [(Fault::LoseAnswer, 1, 2), (Fault::LoseRequest, 2, 4)] {
            let (call, groups) = (CallId::random(), Arc::new(vec![stand.group(&queue, &[draft()])]));
            proxy.arm(fault);
            refusal(stand.connection.enqueue(call, Arc::clone(&groups)).await);
            let before = stand.now();
            stand.clock.set_wall(before.saturating_add(seconds(61)));
            for _ in 0..2 {
                let again = stand.connection.enqueue(call, Arc::clone(&groups)).await.expect("an answer");
                let [GroupResult::Failed(error)] = &again[..] else { panic!("{fault:?}: {again:?}") };
                assert_eq!(error.stored(), Stored::Unknown, "{fault:?}: {error:?}");
                assert_eq!(stand.stats(&queue).await.counters.accepted, stored, "{fault:?}");
            }
            // What is published then is taken as ever.
            let next = vec![stand.group(&queue, &[draft()])];
            assert_eq!(stand.enqueue(next).await, [GroupResult::Accepted]);
            stand.run(&queue, 10, Verdict::Ack).await;
            // And the clock set back tells what is remembered.
            stand.clock.set_wall(before);
            let again = stand.connection.enqueue(call, groups).await;
            assert_eq!(again, Ok(vec![GroupResult::Accepted]), "{fault:?}");
            let accepted = stand.stats(&queue).await.counters.accepted;
            assert_eq!(accepted, in_the_end, "{fault:?}");
        }
        stand.check().await;
    });
}

#[test]
fn an_answer_that_comes_too_late_is_unknown() {
    run(async || {
        let server = RedisServer::start(&[]);
        let (proxy, stand) = behind_a_proxy(&server).await;
        let queue = stand.queue("orders").await;
        let (call, groups) = (CallId::random(), Arc::new(vec![stand.group(&queue, &[draft()])]));
        proxy.arm(Fault::DelayAnswer(Duration::from_millis(100)));
        assert_eq!(
            stand.connection.enqueue(call, Arc::clone(&groups)).await,
            Ok(vec![GroupResult::Accepted])
        );
        let (call, groups) = (CallId::random(), Arc::new(vec![stand.group(&queue, &[draft()])]));
        proxy.arm(Fault::DelayAnswer(seconds(7)));
        let error = refusal(stand.connection.enqueue(call, Arc::clone(&groups)).await);
        assert_eq!(error.stored(), Stored::Unknown, "{error:?}");
        assert_eq!(stand.connection.enqueue(call, groups).await, Ok(vec![GroupResult::Accepted]));
        assert_eq!(stand.stats(&queue).await.counters.accepted, 2);
        stand.check().await;
    });
}

#[test]
fn a_lease_a_settlement_and_an_extension_are_sent_again_until_they_are_known() {
    run(async || {
        let server = RedisServer::start(&[]);
        let (proxy, stand) = behind_a_proxy(&server).await;
        let queue = stand.queue("orders").await;
        for (round, fault) in (1..).zip(CUTS) {
            let published = stand.publish_plain(&queue, 3).await;
            let request = request(&queue);
            proxy.arm(fault);
            refusal(stand.connection.lease(request.clone()).await);
            let leased = stand.take(request.clone()).await;
            assert_eq!(ids(&leased), published, "{fault:?}");
            assert_eq!(ids(&stand.take(request).await), published, "{fault:?}");
            proxy.arm(fault);
            // An extension changes nothing when it comes twice: it is sent again at once.
            let first = stand.connection.extend(leased.batch.clone(), seconds(40)).await;
            assert!(matches!(first, Ok(Extended::Until(_))), "{fault:?}: {first:?}");
            let extended = stand.connection.extend(leased.batch.clone(), seconds(40)).await;
            assert_eq!(extended, Ok(Extended::Until(stand.now().saturating_add(seconds(40)))), "{fault:?}");
            let (batch, all) = (leased.batch.clone(), Arc::new(settlements(leased, &Verdict::Ack)));
            proxy.arm(fault);
            refusal(stand.connection.settle(batch.clone(), Arc::clone(&all)).await);
            assert!(proxy.has_struck());
            for _ in 0..2 {
                let again = stand.connection.settle(batch.clone(), Arc::clone(&all)).await;
                assert_eq!(again, Ok(vec![Settled::Settled; 3]), "{fault:?}");
            }
            let stats = stand.stats(&queue).await;
            assert_eq!((stats.counters.delivered, stats.gauges.leased), (round * 3, 0), "{fault:?}");
        }
        stand.check().await;
    });
}

#[test]
fn a_connection_that_redis_closes_costs_one_call_at_most() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        for round in 1..=5 {
            let (call, groups) = (CallId::random(), Arc::new(vec![stand.group(&queue, &[draft()])]));
            ask::<i64>(&server, &[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
            let first = stand.connection.enqueue(call, Arc::clone(&groups)).await;
            let lost = matches!(&first, Err(StoreError::Unknown(_) | StoreError::Unavailable(_)));
            assert!(first.is_ok() || lost, "{first:?}");
            assert_eq!(stand.connection.enqueue(call, groups).await, Ok(vec![GroupResult::Accepted]));
            assert_eq!(stand.stats(&queue).await.counters.accepted, round);
        }
        stand.check().await;
    });
}

#[test]
fn scripts_that_redis_forgets_are_loaded_again_at_any_moment() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let forget = || ask::<String>(&server, &[b"SCRIPT", b"FLUSH"]);
        forget();
        let queue = stand.queue("orders").await;
        let other = stand.queue("others").await;
        forget();
        let groups = vec![stand.group(&queue, &[draft(); 1]), stand.group(&other, &[draft(); 1])];
        assert_eq!(stand.enqueue(groups).await, [GroupResult::Accepted, GroupResult::Accepted]);
        forget();
        let leased = stand.lease(&queue, 1).await;
        forget();
        let extended = stand.connection.extend(leased.batch.clone(), seconds(40)).await;
        assert!(matches!(extended, Ok(Extended::Until(_))), "{extended:?}");
        forget();
        stand.settle_all(leased, Verdict::Retry { delay: seconds(5) }).await;
        forget();
        assert_eq!(stand.pass(seconds(5)).await.promoted, 1);
        forget();
        assert_eq!(stand.stats(&queue).await.gauges.pending, 1);
        forget();
        assert_eq!(stand.run(&queue, 1, Verdict::Ack).await.len(), 1);
        forget();
        assert_eq!(stand.connection.purge(other).await, Ok(1));
        forget();
        stand.check().await;
    });
}

#[test]
fn bringing_messages_forward_may_be_asked_for_again_when_the_answer_was_lost() {
    run(async || {
        let server = RedisServer::start(&[]);
        let (proxy, stand) = behind_a_proxy(&server).await;
        let queue = stand.queue("orders").await;
        for fault in CUTS {
            let all = stand.publish_plain(&queue, 2).await;
            stand.run(&queue, 2, Verdict::Defer { delay: seconds(60) }).await;
            let named: Arc<[Scheduled]> = all.iter().map(|id| Scheduled { id: *id, attempts: 0 }).collect();
            // Known by the server before, so that one command is all there is.
            let warm = stand.connection.promote(queue.clone(), Arc::new([])).await;
            assert_eq!(warm, Ok(vec![]));
            proxy.arm(fault);
            let error = refusal(stand.connection.promote(queue.clone(), Arc::clone(&named)).await);
            assert!(proxy.has_struck(), "{fault:?}");
            assert!(matches!(error, StoreError::Unknown(_)), "{fault:?}: {error:?}");
            let again = stand.connection.promote(queue.clone(), named).await;
            let is_done = fault != Fault::LoseRequest;
            assert_eq!(again, Ok(vec![!is_done; 2]), "{fault:?}");
            assert_eq!(stand.stats(&queue).await.gauges.pending, 2, "{fault:?}");
            assert_eq!(stand.drain(&queue).await, all, "{fault:?}");
        }
        stand.check().await;
    });
}
