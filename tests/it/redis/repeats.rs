//! Calls that are sent twice, late, and over two connections, in every order.

use std::rc::Rc;
use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::retry::Verdict;
use posthaste::store::MessageStore;
use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::lease::{BatchRef, Extended, Settled, Token};

use super::{run, stand_at};
use crate::conformance::stand::{START, Stand, draft, request, seconds, settlement};
use crate::support::redis::RedisServer;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    Enqueue,
    Lease,
    Extend,
    Settle,
}

/// Every order of two of each.
fn orders() -> Vec<Vec<Call>> {
    fn go_on(left: [u8; 4], so_far: &mut Vec<Call>, all: &mut Vec<Vec<Call>>) {
        if left == [0; 4] {
            all.push(so_far.clone());
        }
        for (place, call) in [Call::Enqueue, Call::Lease, Call::Extend, Call::Settle].into_iter().enumerate()
        {
            if left[place] > 0 {
                let mut rest = left;
                rest[place] -= 1;
                so_far.push(call);
                go_on(rest, so_far, all);
                so_far.pop();
            }
        }
    }
    let mut all = Vec::new();
    go_on([2; 4], &mut Vec::new(), &mut all);
    all
}

/// What a message and its batch have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Nowhere,
    Pending,
    Leased,
    Ended,
}

/// Sends the calls of one order, each copy over another connection, and looks at every answer.
async fn walk(stand: &Stand, connections: &[Rc<dyn MessageStore>; 2], name: &str, order: &[Call]) {
    let queue = stand.queue(name).await;
    let (call, groups) = (CallId::random(), Arc::new(vec![stand.group(&queue, &[draft()])]));
    let request = request(&queue);
    let mut batch = BatchRef { queue: queue.clone(), batch: request.batch, token: Token(1) };
    let mut stage = Stage::Nowhere;
    let mut sent = [0; 4];
    for step in order {
        let connection = &connections[sent[*step as usize]];
        sent[*step as usize] += 1;
        match step {
            Call::Enqueue => {
                let answer = connection.enqueue(call, Arc::clone(&groups)).await;
                assert_eq!(answer, Ok(vec![GroupResult::Accepted]), "{order:?}");
                if stage == Stage::Nowhere {
                    stage = Stage::Pending;
                }
            }
            Call::Lease => {
                let leased = connection.lease(request.clone()).await.expect("the store answers");
                let finds = matches!(stage, Stage::Pending | Stage::Leased);
                assert_eq!(leased.leases.len(), usize::from(finds), "{order:?}");
                if finds {
                    (batch, stage) = (leased.batch, Stage::Leased);
                }
            }
            Call::Extend => {
                let extended =
                    connection.extend(batch.clone(), seconds(60)).await.expect("the store answers");
                assert_eq!(extended != Extended::Lost, stage == Stage::Leased, "{order:?}");
            }
            Call::Settle => {
                let all = Arc::new(vec![settlement(0, Verdict::Ack)]);
                let settled = connection.settle(batch.clone(), all).await.expect("the store answers");
                let holds = matches!(stage, Stage::Leased | Stage::Ended);
                assert_eq!(settled, [if holds { Settled::Settled } else { Settled::Lost }], "{order:?}");
                if holds {
                    stage = Stage::Ended;
                }
            }
        }
    }
    let stats = stand.stats(&queue).await;
    assert_eq!(stats.counters.accepted, 1, "{order:?}");
    assert_eq!(stats.counters.delivered, u64::from(stage == Stage::Ended), "{order:?}");
}

#[test]
fn calls_sent_twice_and_late_over_two_connections_count_once_in_every_order() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let connections = [stand.store.connect(), stand.store.connect()];
        let orders = orders();
        assert_eq!(orders.len(), 2_520);
        for (number, order) in orders.iter().enumerate() {
            walk(&stand, &connections, &format!("q{number}"), order).await;
        }
        stand.check().await;
    });
}
