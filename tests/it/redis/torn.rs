//! A Redis that ended while it wrote a transaction to its append-only file: the half that is there is never carried out.
//!
//! Redis before a repair of 2026 (valkey-io/valkey#4342) cuts only the last command off, leaves the `MULTI` before it where it is, and
//! at the start after this one carries the half out with the first transaction that was written behind it.

use std::time::{Duration, Instant};

use posthaste::clock::Clock;
use posthaste::store::QueueRef;
use posthaste::store::error::StoreError;
use posthaste::store::lease::{LeaseRequest, Leased};

use super::{run, stand_at};
use crate::conformance::stand::{Stand, ids, request, seconds};
use crate::support::redis::{RedisServer, STRICT};

/// How the last transaction may be cut: bytes that are missing at its end, of which `EXEC` has fourteen.
const MISSING: [u64; 4] = [3, 17, 60, 1_000];
const MESSAGES: usize = 30;
const LEASED: u16 = 8;

/// Ends the server as a crash does that comes while it writes its file, and starts it again.
fn crash(server: &mut RedisServer, missing_bytes: u64) {
    server.kill();
    if missing_bytes > 0 {
        let file = server.append_only_file();
        let length = file.metadata().expect("it is there").len();
        file.set_len(length - missing_bytes).expect("it can be cut");
    }
    server.launch();
}

/// What a call gives once the store is back.
async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < seconds(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn lease(stand: &Stand, queue: &QueueRef, max: u16) -> Leased {
    again(async || stand.connection.lease(LeaseRequest { max, ..request(queue) }).await).await
}

#[test]
fn half_a_lease_takes_no_message_away() {
    run(async || {
        for missing in MISSING {
            let mut server = RedisServer::start(&STRICT);
            let stand = stand_at(server.url(), &Clock::system());
            let queue = stand.queue("orders").await;
            let mut published = stand.publish_plain(&queue, MESSAGES).await;
            lease(&stand, &queue, LEASED).await;
            crash(&mut server, missing);
            let mut found = ids(&lease(&stand, &queue, LEASED).await);
            crash(&mut server, 0);
            found.extend(ids(&lease(&stand, &queue, 1_000).await));
            found.sort_unstable();
            published.sort_unstable();
            assert_eq!(found, published, "with {missing} bytes missing");
            assert_eq!(stand.connection.audit().await.expect("it is read"), [] as [String; 0]);
        }
    });
}

#[test]
fn half_a_publish_stores_nothing() {
    run(async || {
        for missing in MISSING {
            let mut server = RedisServer::start(&STRICT);
            let stand = stand_at(server.url(), &Clock::system());
            let queue = stand.queue("orders").await;
            let mut published = stand.publish_plain(&queue, 2).await;
            stand.publish_plain(&queue, MESSAGES).await;
            crash(&mut server, missing);
            again(async || stand.connection.queues().await).await;
            published.extend(stand.publish_plain(&queue, 3).await);
            crash(&mut server, 0);
            let stats = again(async || stand.connection.stats(None).await).await;
            assert_eq!(
                (stats[0].counters.accepted, stats[0].gauges.pending),
                (5, 5),
                "with {missing} bytes missing"
            );
            assert_eq!(ids(&lease(&stand, &queue, 1_000).await), published);
        }
    });
}

#[test]
fn where_redis_may_not_be_asked_to_write_its_file_anew_that_is_said_until_it_did() {
    run(async || {
        let mut server = RedisServer::start(&STRICT);
        stand_at(server.url(), &Clock::system()).queue("orders").await;
        crash(&mut server, 0);
        server.order("ACL SETUSER default -bgrewriteaof");
        let stand = stand_at(server.url(), &Clock::system());
        let says = async || {
            let health = again(async || stand.connection.health().await).await;
            health.warnings.into_iter().find(|warning| warning.code == "aof_not_rewritten")
        };
        let detail = says().await.expect("a warning").detail;
        assert!(detail.contains("permissions") && detail.contains("+bgrewriteaof"), "{detail}");
        server.order("ACL SETUSER default +bgrewriteaof");
        assert!(server.ask(&["BGREWRITEAOF"]).starts_with("+Background"));
        // The next connection sees it.
        server.hang_up();
        assert_eq!(says().await, None);
    });
}

#[test]
fn each_start_of_redis_costs_one_rewrite_and_the_first_none() {
    run(async || {
        let mut server = RedisServer::start(&STRICT);
        let stand = stand_at(server.url(), &Clock::system());
        let queue = stand.queue("orders").await;
        for starts in 0..3 {
            for _ in 0..3 {
                server.hang_up();
                lease(&stand, &queue, 1).await;
            }
            // So that there is something behind what was written anew.
            stand.publish_plain(&queue, 1).await;
            assert_eq!(server.calls("bgrewriteaof"), u64::from(starts > 0));
            crash(&mut server, 0);
        }
    });
}
