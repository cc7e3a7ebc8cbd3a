//! Two gateways on one Redis: what one holds and loses, and whose turn it is.

use std::collections::HashMap;

use posthaste::clock::Clock;
use posthaste::domain::message::Priority;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::enqueue::GroupResult;
use posthaste::store::error::StoreError;
use posthaste::store::lease::{Extended, LeaseRequest, Settled};
use posthaste::store::{Deleted, Hold};

use super::{run, stand_at};
use crate::conformance::stand::{Draft, START, draft, ids, refusal, request, seconds, settlements};
use crate::support::redis::RedisServer;

#[test]
fn what_a_gone_gateway_held_returns_at_its_deadline_and_dies_alone_when_that_goes_on() {
    run(async || {
        let server = RedisServer::start(&[]);
        let clock = Clock::manual(START);
        let survivor = stand_at(server.url(), &clock);
        let queue = survivor.queue("orders").await;
        let published = survivor.publish(&queue, &vec![Draft { attempts_max: 3, ..draft() }; 4]).await;
        for lost in 1..=2 {
            let gone = stand_at(server.url(), &clock);
            assert_eq!(ids(&gone.take(request(&queue)).await), published[lost - 1..]);
            drop(gone);
            assert_eq!(survivor.pass(seconds(29)).await.reaped, 0);
            let reaped = survivor.pass(seconds(1)).await.reaped;
            assert_eq!(reaped, if lost == 1 { 4 } else { 3 });
            if lost == 1 {
                // After the first loss they go together: one of them comes to its end, the others are lost again.
                let leased = survivor.take(LeaseRequest { max: 1, ..request(&queue) }).await;
                assert_eq!(ids(&leased), published[..1]);
                survivor.settle_all(leased, Verdict::Ack).await;
            }
        }
        // Now each is leased alone, and what is lost a third time is poison.
        let leased = survivor.take(LeaseRequest { suspects: false, ..request(&queue) }).await;
        assert!(leased.leases.is_empty());
        let gone = stand_at(server.url(), &clock);
        assert_eq!(ids(&gone.take(request(&queue)).await), published[1..2]);
        drop(gone);
        survivor.pass(seconds(30)).await;
        let letter = survivor.connection.dead(queue.clone(), published[1]).await.expect("the store answers");
        assert_eq!(letter.expect("it is dead").reason, DeadReason::Poison);
        assert_eq!(survivor.drain(&queue).await, published[2..]);
        survivor.check().await;
    });
}

#[test]
fn gateways_turn_one_wheel_together() {
    run(async || {
        let server = RedisServer::start(&[]);
        let clock = Clock::manual(START);
        let gateways = [stand_at(server.url(), &clock), stand_at(server.url(), &clock)];
        let queue = gateways[0].queue("orders").await;
        let mut priorities = HashMap::new();
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            for id in gateways[0].publish(&queue, &vec![Draft { priority, ..draft() }; 42]).await {
                priorities.insert(id, priority);
            }
        }
        let mut drawn = HashMap::new();
        for turn in 0..42 {
            let leased = gateways[turn % 2].lease(&queue, 1).await;
            *drawn.entry(priorities[&ids(&leased)[0]]).or_insert(0) += 1;
            gateways[turn % 2].settle_all(leased, Verdict::Ack).await;
        }
        assert_eq!((drawn[&Priority::High], drawn[&Priority::Normal], drawn[&Priority::Low]), (32, 8, 2));
        gateways[0].check().await;
    });
}

#[test]
fn a_queue_that_one_gateway_pauses_is_paused_for_the_other_at_its_next_call() {
    run(async || {
        let server = RedisServer::start(&[]);
        let clock = Clock::manual(START);
        let [one, other] = [(); 2].map(|()| stand_at(server.url(), &clock));
        let queue = one.queue("orders").await;
        let published = one.publish_plain(&queue, 3).await;
        // The other has worked on it before, and holds a message all the while.
        let held = other.lease(&queue, 1).await;
        for _ in 0..3 {
            one.hold(&queue, Hold::Pause).await;
            assert_eq!(other.lease(&queue, 1).await.leases, []);
            assert!(other.entry(&queue).await.paused);
            one.hold(&queue, Hold::Resume).await;
            let leased = other.lease(&queue, 1).await;
            assert_eq!(ids(&leased), published[1..2]);
            other.settle_all(leased, Verdict::Release).await;
        }
        one.hold(&queue, Hold::Pause).await;
        other.settle_all(held, Verdict::Ack).await;
        // What is paused takes messages, from whomever.
        other.publish_plain(&queue, 1).await;
        one.hold(&queue, Hold::Resume).await;
        assert_eq!(other.drain(&queue).await.len(), 3);
        one.check().await;
    });
}

#[test]
fn a_queue_that_one_gateway_deletes_is_gone_for_the_other_at_its_next_call_and_anew_is_another() {
    run(async || {
        let server = RedisServer::start(&[]);
        let clock = Clock::manual(START);
        let [one, other] = [(); 2].map(|()| stand_at(server.url(), &clock));
        let queue = one.queue("orders").await;
        other.publish_plain(&queue, 3).await;
        let held = other.lease(&queue, 1).await;
        assert_eq!(one.connection.delete_queue(queue.clone(), true).await, Ok(Deleted::Deleted));
        let keyed = || other.keyed(&queue, "key", 1);
        let assert_gone = async || {
            assert_eq!(other.offer(other.group(&queue, &[draft()])).await, GroupResult::Gone);
            assert_eq!(other.offer(keyed()).await, GroupResult::Gone);
            assert_eq!(refusal(other.connection.lease(request(&queue)).await), StoreError::Gone);
            assert_eq!(refusal(other.connection.purge(queue.clone()).await), StoreError::Gone);
            assert_eq!(refusal(other.connection.hold(queue.clone(), Hold::Pause).await), StoreError::Gone);
        };
        assert_gone().await;
        let (batch, all) = (held.batch.clone(), settlements(held, &Verdict::Ack).into());
        assert_eq!(other.connection.settle(batch.clone(), all).await, Ok(vec![Settled::Lost]));
        assert_eq!(other.connection.extend(batch, seconds(60)).await, Ok(Extended::Lost));
        // Another of the same name begins empty; who knows only the old one stays outside.
        let anew = one.queue("orders").await;
        assert_gone().await;
        let counters = one.stats(&anew).await.counters;
        assert_eq!((counters.accepted, counters.delivered), (0, 0));
        other.publish_plain(&anew, 1).await;
        assert_eq!(one.drain(&anew).await.len(), 1);
        one.check().await;
    });
}
