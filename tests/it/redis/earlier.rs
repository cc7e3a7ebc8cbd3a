//! What earlier versions left: they did not say in which way a lease had been settled.

use posthaste::clock::Clock;
use posthaste::domain::retry::Verdict;
use posthaste::store::lease::Settled;

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{START, pull_request, retry_after, seconds, settlement};
use crate::support::redis::RedisServer;

/// Bytes of a mark before the words that say what became of which lease.
const MARK_BYTES: usize = 16;

/// The mark of the one batch that ended: where it is, and what it says.
fn mark(server: &RedisServer) -> (String, Vec<u8>, Vec<u8>) {
    let keys = ["y0", "y1", "y2"].map(|name| key("orders", name));
    let all = keys.into_iter().map(|key| {
        let fields: Vec<Vec<u8>> = ask(server, &[b"HGETALL", key.as_bytes()]);
        (key, fields)
    });
    let (key, mut fields) = all.into_iter().find(|(_, fields)| !fields.is_empty()).expect("a mark");
    assert_eq!(fields.len(), 2, "one batch");
    let kept = fields.pop().expect("two");
    (key, fields.pop().expect("one"), kept)
}

#[test]
fn of_what_an_earlier_version_settled_every_verdict_is_told_that_it_is_settled() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 3).await;
        let batch = stand.take(pull_request(&queue)).await.batch;
        let each = |verdict: &Verdict| -> Vec<_> {
            (0..3).map(|place| settlement(place, verdict.clone())).collect()
        };
        assert_eq!(stand.settle(&batch, vec![settlement(0, Verdict::Release)]).await, [Settled::Settled]);
        // While it lives.
        let lists: Vec<String> =
            ask(&server, &[b"KEYS", key("orders", "x:*").replace('{', "\\{").as_bytes()]);
        let list = lists.first().expect("the batch").as_bytes();
        assert_eq!(ask::<String>(&server, &[b"LINDEX", list, b"0"]), "l");
        ask::<String>(&server, &[b"LSET", list, b"0", b""]);
        assert_eq!(stand.settle(&batch, vec![settlement(0, Verdict::Ack)]).await, [Settled::Settled]);
        assert_eq!(stand.stats(&queue).await.counters.delivered, 0, "and nothing is done");
        stand.settle(&batch, vec![settlement(1, retry_after(seconds(500)))]).await;
        // One that was settled by two versions, and of which one lease was lost.
        assert_eq!(stand.pass(seconds(30)).await.reaped, 1);
        assert_eq!(
            stand.settle(&batch, each(&Verdict::Ack)).await,
            [Settled::Settled, Settled::Lost, Settled::Lost]
        );
        let (marks, name, kept) = mark(&server);
        assert!(kept.len() > MARK_BYTES);
        // As an earlier one wrote it: only what was lost is named.
        let earlier = [&kept[..MARK_BYTES], &[0, 2]].concat();
        ask::<i64>(&server, &[b"HSET", marks.as_bytes(), &name, &earlier]);
        for verdict in [Verdict::Ack, Verdict::Release, retry_after(seconds(1))] {
            assert_eq!(
                stand.settle(&batch, each(&verdict)).await,
                [Settled::Settled, Settled::Settled, Settled::Lost]
            );
        }
        stand.check().await;
    });
}

#[test]
fn the_mark_of_a_batch_that_ended_in_one_way_is_small() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        stand.publish_plain(&queue, 1_000).await;
        let leased = stand.lease(&queue, 1_000).await;
        stand.settle_all(leased, retry_after(seconds(500))).await;
        assert_eq!(mark(&server).2.len(), MARK_BYTES + 2);
    });
}
