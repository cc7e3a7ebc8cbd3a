//! A connection that was closed while nothing was sent on it.

use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::message::State;
use posthaste::store::enqueue::{CallId, GroupResult};

use super::{ask, run, stand_at};
use crate::conformance::stand::{START, draft};
use crate::support::gateway::Gateway;
use crate::support::redis::{RedisServer, STRICT};

#[test]
fn what_only_looks_does_not_notice_that_its_connection_was_closed() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let published = stand.publish_plain(&queue, 1).await;
        for _ in 0..5 {
            let hang_up =
                || ask::<i64>(&server, &[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]);
            assert!(hang_up() > 0);
            let found = stand.connection.find(queue.clone(), published[0]).await.expect("it is looked up");
            assert_eq!(found.map(|found| found.state), Some(State::Pending));
            hang_up();
            stand.connection.stats(None).await.expect("numbers are read");
            hang_up();
            stand.connection.sweep().await.expect("a sweep goes on");
            hang_up();
            stand.connection.health().await.expect("it is looked at");
        }
        let groups = Arc::new(vec![stand.group(&queue, &[draft()])]);
        let accepted = Ok(vec![GroupResult::Accepted]);
        assert_eq!(stand.connection.enqueue(CallId::random(), groups).await, accepted);
    });
}

#[test]
fn a_gateway_whose_redis_closes_what_is_idle_answers_and_warns_of_nothing() {
    let server = RedisServer::start(&STRICT);
    let mut gateway = Gateway::prepare("[queues.orders]\nprocessor = 'pull'\n", &[]).over(&server);
    gateway.launch_until_ready();
    let path = gateway.publish("orders", &[], b"first");
    for _ in 0..5 {
        server.hang_up();
        let found = gateway.request("GET", &path, &[], b"");
        assert_eq!(found.status, 200, "{}", found.text());
        server.hang_up();
        gateway.publish("orders", &[], b"again");
    }
    let log = gateway.log();
    assert!(!log.contains("does not take publishes") && !log.contains("cannot be reached"), "{log}");
    gateway.stop();
}
