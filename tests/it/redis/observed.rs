//! Who observes asks only where something may have happened, and is never wrong.

use posthaste::clock::Clock;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;

use posthaste::store::Hold;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::Due;

use super::{run, stand_at};
use crate::conformance::stand::{Draft, START, dead, draft, retry_after, seconds, settlements};
use crate::support::redis::RedisServer;

/// Far more than are looked at in turn.
const QUEUES: usize = 100;
const STEPS: usize = 400;

#[test]
fn what_is_observed_is_what_is_there_whatever_was_done_and_by_whom() {
    run(async || {
        let server = RedisServer::start(&[]);
        let clock = Clock::manual(START);
        let (stand, other) = (stand_at(server.url(), &clock), stand_at(server.url(), &clock));
        let mut queues = Vec::new();
        for number in 0..QUEUES {
            queues.push(stand.queue(&format!("q{number}")).await);
        }
        let (mut random, mut held) = (fastrand::Rng::with_seed(17), Vec::new());
        for step in 0..STEPS {
            // A few queues have all the work: what was observed of one is soon out of date.
            let queue = &queues[random.usize(..8) * 11];
            match random.u8(..10) {
                0 | 1 => drop(stand.publish_plain(queue, 3).await),
                2 => drop(stand.publish_one(queue, Draft { due: Due::After(seconds(30)), ..draft() }).await),
                3 | 4 => held.push(stand.lease(queue, 2).await),
                5 | 6 if !held.is_empty() => {
                    let verdicts =
                        [Verdict::Ack, retry_after(seconds(5)), dead(DeadReason::Rejected), Verdict::Release];
                    let verdict = verdicts[random.usize(..verdicts.len())].clone();
                    let leased = held.swap_remove(random.usize(..held.len()));
                    let batch = leased.batch.clone();
                    let sent = settlements(leased, &verdict);
                    drop(stand.settle(&batch, sent).await);
                }
                7 => drop(stand.connection.purge(queue.clone()).await.expect("Redis answers")),
                8 => drop(
                    stand
                        .connection
                        .discard(queue.clone(), Selection::Filter(DeadFilter::default()))
                        .await
                        .expect("Redis answers"),
                ),
                9 => {
                    stand.hold(queue, if random.bool() { Hold::Pause } else { Hold::Resume }).await;
                }
                _ => {}
            }
            if random.bool() {
                stand.pass(seconds(random.u64(..20))).await;
            }
            if random.bool() {
                let observed = other.connection.observe().await.expect("Redis answers");
                let live = other.connection.stats(None).await.expect("Redis answers");
                assert_eq!(observed, live, "step {step}");
            }
        }
    });
}
