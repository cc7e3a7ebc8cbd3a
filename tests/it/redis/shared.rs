//! Two gateways on one Redis: what one holds and loses, and whose turn it is.

use std::collections::HashMap;

use posthaste::clock::Clock;
use posthaste::domain::message::Priority;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::lease::LeaseRequest;

use super::{run, stand_at};
use crate::conformance::stand::{Draft, START, draft, ids, request, seconds};
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
