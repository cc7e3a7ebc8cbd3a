//! One call with groups for several queues, each with a fate of its own.

use std::sync::Arc;

use posthaste::store::enqueue::{CallId, GroupResult};
use posthaste::store::error::{StoreError, Stored};

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{START, draft};
use crate::support::redis::RedisServer;
use posthaste::clock::Clock;

#[test]
fn a_queue_that_is_gone_takes_nothing_from_what_was_stored_beside_it() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let (kept, gone) = (stand.queue("kept").await, stand.queue("gone").await);
        stand.publish_plain(&kept, 1).await;
        ask::<i64>(&server, &[b"DEL", key("gone", "c").as_bytes()]);
        // Found unfit only after the call was sent.
        ask::<String>(&server, &[b"SET", b"ph:epoch", b"1:other"]);
        let groups = vec![stand.group(&kept, &[draft()]), stand.group(&gone, &[draft()])];
        let results = stand.connection.enqueue(CallId::random(), Arc::new(groups)).await;
        let results = results.expect("each group has its own result");
        assert_eq!(results[0], GroupResult::Accepted);
        let GroupResult::Failed(error) = &results[1] else { panic!("{results:?}") };
        assert!(matches!(error, StoreError::NotDurable(why) if why.contains("1:other")), "{error:?}");
        assert_eq!(error.stored(), Stored::No);
        assert_eq!(stand.stats(&kept).await.counters.accepted, 2);
    });
}
