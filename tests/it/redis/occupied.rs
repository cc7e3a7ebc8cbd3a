//! A key of a queue is for a while of another type, in the middle of life: whatever is done meanwhile is done whole or not at all, and
//! once the junk is gone every message ends as it should.

use std::collections::HashSet;
use std::sync::Arc;

use posthaste::clock::Clock;
use posthaste::domain::id::MessageId;
use posthaste::domain::message::Priority;
use posthaste::domain::outcome::DeadReason;
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, Selection};
use posthaste::store::enqueue::{CallId, Due, Group, GroupResult, IdempotencyKey};
use posthaste::store::error::StoreError;
use posthaste::store::health::{FOREIGN_BESIDE, FOREIGN_TYPE};
use posthaste::store::lease::{BatchId, LeaseRequest, Leased, Settled, Settlement};
use posthaste::store::stats::{Cancelled, QueueStats};
use posthaste::store::{QueueRef, Scheduled};

use super::{ask, key, run, stand_at};
use crate::conformance::stand::{
    Draft, START, Stand, attempt, dead, draft, ids, request, retry_after, seconds, settlement,
};
use crate::support::redis::RedisServer;

/// What stands still when it is somebody else's. `x` and `xe` are the lists of the batches.
const NEEDED: &str = "c ps ph p0 p1 p2 r0 r1 r2 s sb o d dm db b l z i0 i1 x xe";
/// What messages do without.
const BESIDE: &str = "m mr mt bi a f y0 y1 y2 j";

/// What is done while a key is somebody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Enqueue,
    EnqueuePlain,
    EnqueueMany,
    EnqueueLater,
    Lease,
    LeaseSuspects,
    LeaseDamaged,
    Acknowledge,
    AcknowledgeAll,
    Settle,
    RetryNow,
    Extend,
    Sweep,
    SweepLate,
    Replay,
    Discard,
    CancelPending,
    CancelScheduled,
    Promote,
    Purge,
    Find,
}

const OPERATIONS: [Operation; 21] = [
    Operation::Enqueue,
    Operation::EnqueuePlain,
    Operation::EnqueueMany,
    Operation::EnqueueLater,
    Operation::Lease,
    Operation::LeaseSuspects,
    Operation::LeaseDamaged,
    Operation::Acknowledge,
    Operation::AcknowledgeAll,
    Operation::Settle,
    Operation::RetryNow,
    Operation::Extend,
    Operation::Sweep,
    Operation::SweepLate,
    Operation::Replay,
    Operation::Discard,
    Operation::CancelPending,
    Operation::CancelScheduled,
    Operation::Promote,
    Operation::Purge,
    Operation::Find,
];

/// A queue in the middle of life, and what became of its messages.
struct Life<'a> {
    server: &'a RedisServer,
    stand: &'a Stand,
    queue: &'a QueueRef,
    accepted: Vec<MessageId>,
    delivered: Vec<MessageId>,
    cancelled: Vec<MessageId>,
    held: Leased,
    over: Leased,
    /// What ends all of `over`, by the short way.
    ends: Vec<(MessageId, Settlement)>,
    pending: MessageId,
    scheduled: MessageId,
    before: QueueStats,
}

fn large() -> Draft {
    Draft { payload: vec![7; 40_000], ..draft() }
}

async fn lease(stand: &Stand, queue: &QueueRef, max: u16, span: u64) -> Leased {
    stand.take(LeaseRequest { max, suspects: false, lease: seconds(span), ..request(queue) }).await
}

impl<'a> Life<'a> {
    /// Messages of every kind: dead, finished, leased, with a lease that is soon over, suspect, promoted, released, pending, expired,
    /// scheduled.
    async fn begin(server: &'a RedisServer, stand: &'a Stand, queue: &'a QueueRef) -> Self {
        let before = stand.stats(queue).await;
        let mut accepted = stand.publish(queue, &[draft(), large()]).await;
        let died = lease(stand, queue, 2, 30).await;
        let (batch, attempt) = (died.batch.clone(), attempt(1, 500));
        let dies = |index| {
            let verdict = dead(DeadReason::Rejected);
            Settlement { index, verdict, attempt: Some(attempt.clone()), gist: None }
        };
        stand.settle(&batch, vec![dies(0), dies(1)]).await;
        accepted.extend(stand.publish_plain(queue, 1).await);
        let mut delivered = stand.run(queue, 1, Verdict::Ack).await;
        delivered.truncate(1);
        accepted.extend(stand.publish_plain(queue, 1).await);
        assert_eq!(lease(stand, queue, 1, 1).await.leases.len(), 1);
        accepted.extend(stand.publish(queue, &[draft(), large(), draft(), draft(), draft()]).await);
        let held = lease(stand, queue, 5, 30).await;
        stand.pass(seconds(1)).await;
        accepted.extend(stand.publish_plain(queue, 2).await);
        let mut over = lease(stand, queue, 2, 5).await;
        let leases = std::mem::take(&mut over.leases);
        let ends = leases.into_iter().map(|lease| (lease.record.id(), lease.settle(Verdict::Ack, None)));
        let ends: Vec<_> = ends.collect();
        accepted.extend(stand.publish_plain(queue, 2).await);
        let back = lease(stand, queue, 2, 30).await;
        let ways = vec![settlement(0, retry_after(seconds(1))), settlement(1, Verdict::Release)];
        stand.settle(&back.batch, ways).await;
        stand.pass(seconds(1)).await;
        let low = Draft { priority: Priority::Low, ..draft() };
        let short = Draft { ttl: Some(seconds(1)), ..draft() };
        let later = |span| Draft { due: Due::After(seconds(span)), ..draft() };
        let drafts = [draft(), large(), low, short, draft(), later(5), later(3_600)];
        let published = stand.publish(queue, &drafts).await;
        accepted.extend(&published);
        assert_eq!((held.leases.len(), ends.len(), back.leases.len()), (5, 2, 2));
        let (pending, scheduled) = (published[4], published[6]);
        let cancelled = Vec::new();
        Self {
            server,
            stand,
            queue,
            accepted,
            delivered,
            cancelled,
            held,
            over,
            ends,
            pending,
            scheduled,
            before,
        }
    }

    /// The key by the name that the table has for it.
    fn key(&self, name: &str) -> String {
        let batch = |leased: &Leased| key("orders", &format!("x:{:032x}", leased.batch.batch.0));
        match name {
            "x" => batch(&self.held),
            "xe" => batch(&self.over),
            name => key("orders", name),
        }
    }

    async fn letters(&self) -> Vec<MessageId> {
        let page = self.stand.connection.list_dead(self.queue.clone(), DeadFilter::default(), None, 1_000);
        page.await.expect("the store answers").letters.into_iter().map(|letter| letter.id).collect()
    }

    /// Does it; what it says.
    async fn operate(
        &mut self,
        operation: Operation,
        letters: &[MessageId],
        group: &Group,
    ) -> Result<(), StoreError> {
        let (stand, queue) = (self.stand, || self.queue.clone());
        let call = CallId(u128::from(self.stand.now().as_millis()));
        match operation {
            Operation::Enqueue
            | Operation::EnqueuePlain
            | Operation::EnqueueMany
            | Operation::EnqueueLater => {
                let results = stand.connection.enqueue(call, Arc::new(vec![group.clone()])).await?;
                assert_eq!(results, [GroupResult::Accepted]);
                self.accepted.extend(group.messages.iter().map(|message| message.id));
                Ok(())
            }
            Operation::Lease | Operation::LeaseDamaged => {
                let request =
                    LeaseRequest { suspects: false, batch: BatchId::random(), ..request(self.queue) };
                stand.connection.lease(request).await.map(drop)
            }
            Operation::LeaseSuspects => stand.connection.lease(request(self.queue)).await.map(drop),
            Operation::Acknowledge => self.settle(vec![Verdict::Ack; 5]).await,
            Operation::AcknowledgeAll => {
                let (ids, all): (Vec<_>, Vec<_>) = self.ends.iter().cloned().unzip();
                assert!(all.iter().all(|end| end.gist.is_some()));
                let settled = stand.connection.settle(self.over.batch.clone(), Arc::new(all)).await?;
                assert_eq!(settled, [Settled::Settled; 2]);
                self.delivered.extend(ids);
                Ok(())
            }
            Operation::Settle => {
                let dies = dead(DeadReason::Rejected);
                let later = retry_after(seconds(9));
                let defer = Verdict::Defer { delay: seconds(9) };
                self.settle(vec![Verdict::Ack, later, dies, defer, Verdict::Release]).await
            }
            Operation::RetryNow => self.settle(vec![retry_after(seconds(0)); 5]).await,
            Operation::Extend => {
                stand.connection.extend(self.held.batch.clone(), seconds(60)).await.map(drop)
            }
            Operation::Sweep | Operation::SweepLate => stand.connection.sweep().await.map(drop),
            Operation::Replay => {
                stand.connection.replay(queue(), Selection::Ids(letters.to_vec()), false).await.map(drop)
            }
            Operation::Discard => {
                stand.connection.discard(queue(), Selection::Ids(letters[..1].to_vec())).await.map(drop)
            }
            Operation::CancelPending => self.cancel(self.pending).await,
            Operation::CancelScheduled => self.cancel(self.scheduled).await,
            Operation::Promote => {
                let named = [self.pending, self.scheduled].map(|id| Scheduled { id, attempts: 0 });
                let promoted = stand.connection.promote(queue(), Arc::new(named)).await?;
                assert!(!promoted[0], "it was pending");
                Ok(())
            }
            Operation::Purge => stand.connection.purge(queue()).await.map(drop),
            Operation::Find => stand.connection.find(queue(), MessageId::from_bytes([1; 16])).await.map(drop),
        }
    }

    async fn settle(&mut self, verdicts: Vec<Verdict>) -> Result<(), StoreError> {
        let all = (0..).zip(verdicts.clone()).map(|(index, verdict)| settlement(index, verdict)).collect();
        let settled = self.stand.connection.settle(self.held.batch.clone(), Arc::new(all)).await?;
        for ((id, verdict), settled) in ids(&self.held).into_iter().zip(verdicts).zip(settled) {
            assert_eq!(settled, Settled::Settled);
            if verdict == Verdict::Ack {
                self.delivered.push(id);
            }
        }
        Ok(())
    }

    async fn cancel(&mut self, id: MessageId) -> Result<(), StoreError> {
        if self.stand.connection.cancel(self.queue.clone(), id).await? == Cancelled::Cancelled {
            self.cancelled.push(id);
        }
        Ok(())
    }

    /// Lets everything come to its end, and holds what became of each message against what was done.
    async fn end(mut self, what: &str) {
        for _ in 0..8 {
            self.stand.pass(seconds(40)).await;
            self.delivered.extend(self.stand.drain(self.queue).await);
        }
        self.stand.pass(seconds(3_600)).await;
        self.delivered.extend(self.stand.drain(self.queue).await);
        self.stand.sweep().await;
        self.stand.check().await;
        let (now, letters) = (self.stand.stats(self.queue).await, self.letters().await);
        let (gauges, mut seen) = (now.gauges, HashSet::new());
        assert_eq!((gauges.pending, gauges.scheduled, gauges.leased), (0, 0, 0), "{what}: {now:?}");
        for id in self.delivered.iter().chain(&self.cancelled).chain(&letters) {
            assert!(self.accepted.contains(id), "{what}: an unknown message");
            assert!(seen.insert(*id), "{what}: a message ended twice");
        }
        let purged = now.counters.purged - self.before.counters.purged;
        let discarded = now.counters.discarded - self.before.counters.discarded;
        assert_eq!(
            seen.len() as u64 + purged + discarded,
            self.accepted.len() as u64,
            "{what}: a message was lost"
        );
        self.stand
            .connection
            .discard(self.queue.clone(), Selection::Ids(letters))
            .await
            .expect("the store answers");
    }
}

/// Does one thing while one key is somebody else's.
async fn suffer(mut life: Life<'_>, operation: Operation, name: &str, junk: &[&[u8]]) {
    let what = format!("{operation:?} while {name} is {:?}", String::from_utf8_lossy(junk[0]));
    let (server, stand, broken) = (life.server, life.stand, life.key(name));
    let letters = life.letters().await;
    let due = if operation == Operation::EnqueueLater { Due::After(seconds(3)) } else { Due::Now };
    let drafts = [draft(), large()].map(|draft| Draft { due, ..draft });
    let own = IdempotencyKey { key: what.as_bytes().to_vec(), fingerprint: [1; 16] };
    let group = match operation {
        Operation::EnqueuePlain => stand.group(life.queue, &[draft(), draft()]),
        Operation::EnqueueMany => stand.group(life.queue, &vec![draft(); 30]),
        _ => Group { key: Some(own), ..stand.group(life.queue, &drafts) },
    };
    match operation {
        Operation::Lease => stand.clock.advance(seconds(2)),
        Operation::Sweep => stand.clock.advance(seconds(6)),
        Operation::SweepLate => stand.clock.advance(seconds(7_200)),
        Operation::LeaseDamaged => {
            let list = key("orders", "p1");
            let mut element: Vec<u8> = ask(server, &[b"LINDEX", list.as_bytes(), b"0"]);
            element[50] ^= 1;
            ask::<String>(server, &[b"LSET", list.as_bytes(), b"0", &element]);
        }
        _ => {}
    }
    let aside = format!("{broken}:aside");
    let was_there = ask::<i64>(server, &[b"EXISTS", broken.as_bytes()]) == 1;
    if was_there {
        ask::<String>(server, &[b"RENAME", broken.as_bytes(), aside.as_bytes()]);
    }
    let mut put = vec![junk[0], broken.as_bytes()];
    put.extend(&junk[1..]);
    ask::<redis::Value>(server, &put);
    let before = stand.connection.stats(Some(vec![life.queue.name.clone()])).await;
    let result = life.operate(operation, &letters, &group).await;
    let after = stand.connection.stats(Some(vec![life.queue.name.clone()])).await;
    if let Err(error) = &result {
        assert!(matches!(error, StoreError::Foreign(_)), "{what}: {error:?}");
        assert!(error.to_string().contains(&broken), "{what}: {error:?}");
        let is_needed = NEEDED.split(' ').any(|needed| needed == name);
        assert!(is_needed || operation == Operation::Find, "{what}: {error:?}");
        assert!(operation == Operation::LeaseDamaged || before == after, "{what}: {before:?} {after:?}");
    }
    drop(stand.connection.sweep().await);
    ask::<i64>(server, &[b"DEL", broken.as_bytes()]);
    if was_there {
        ask::<String>(server, &[b"RENAME", aside.as_bytes(), broken.as_bytes()]);
    }
    if NEEDED.split(' ').any(|needed| needed == name) {
        stand.check().await;
        if result.is_err() && operation != Operation::Sweep {
            // What was refused is done when it is asked for again; that some is leased or over by now is as well.
            drop(life.operate(operation, &letters, &group).await);
        }
    }
    life.end(&what).await;
}

async fn suffer_all(junk_of: impl Fn(&str) -> Vec<&'static [u8]>, names: &str) {
    let server = RedisServer::start(&[]);
    let stand = stand_at(server.url(), &Clock::manual(START));
    let queue = stand.queue_with("orders", |settings| settings.dead.retention = seconds(7_000)).await;
    for name in names.split(' ') {
        for operation in OPERATIONS {
            let life = Life::begin(&server, &stand, &queue).await;
            suffer(life, operation, name, &junk_of(name)).await;
        }
    }
}

fn a_string(_: &str) -> Vec<&'static [u8]> {
    vec![b"SET", b"mine"]
}

/// A list where there should be none, and a hash where there should be a list.
fn another_type(name: &str) -> Vec<&'static [u8]> {
    let is_list =
        matches!(name, "ps" | "ph" | "p0" | "p1" | "p2" | "r0" | "r1" | "r2" | "f" | "j" | "z" | "x" | "xe");
    if is_list { vec![b"HSET", b"mine", b"1"] } else { vec![b"RPUSH", b"mine"] }
}

#[test]
fn a_string_under_a_key_that_is_needed_loses_nothing_and_bends_no_counter() {
    run(async || suffer_all(a_string, NEEDED).await);
}

#[test]
fn another_type_under_a_key_that_is_needed_loses_nothing_and_bends_no_counter() {
    run(async || suffer_all(another_type, NEEDED).await);
}

#[test]
fn a_string_under_a_key_that_messages_do_without_stops_nobody() {
    run(async || suffer_all(a_string, BESIDE).await);
}

#[test]
fn another_type_under_a_key_that_messages_do_without_stops_nobody() {
    run(async || suffer_all(another_type, BESIDE).await);
}

#[test]
fn a_key_of_another_type_is_told_until_it_is_gone() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue("orders").await;
        let told = async || {
            stand.clock.advance(seconds(3));
            drop(stand.connection.sweep().await);
            let health = stand.connection.health().await.expect("the store answers");
            let told = health.troubles.into_iter().map(|trouble| (trouble.code, trouble.detail));
            told.collect::<Vec<_>>()
        };
        for (name, code) in [("r1", FOREIGN_TYPE), ("s", FOREIGN_TYPE), ("f", FOREIGN_BESIDE)] {
            stand.publish_plain(&queue, 1).await;
            let broken = key("orders", name);
            ask::<i64>(&server, &[b"DEL", broken.as_bytes()]);
            ask::<String>(&server, &[b"SET", broken.as_bytes(), b"mine"]);
            let found = told().await;
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].0 == code && found[0].1.contains(&broken), "{name}: {found:?}");
            ask::<i64>(&server, &[b"DEL", broken.as_bytes()]);
            assert_eq!(told().await, [], "{name}");
        }
        stand.drain(&queue).await;
        stand.check().await;
    });
}

#[test]
fn junk_of_the_right_type_breaks_nothing_off() {
    run(async || {
        let server = RedisServer::start(&[]);
        let stand = stand_at(server.url(), &Clock::manual(START));
        let queue = stand.queue_with("orders", |settings| settings.dead.retention = seconds(7_000)).await;
        let hashes = ["sb", "m", "mr", "mt", "bi", "o", "dm", "db", "a", "b", "y0"];
        for operation in OPERATIONS {
            let mut life = Life::begin(&server, &stand, &queue).await;
            let letters = life.letters().await;
            for name in hashes {
                ask::<i64>(&server, &[b"HSET", key("orders", name).as_bytes(), b"junk", b"x"]);
            }
            for name in ["s", "d", "l"] {
                ask::<i64>(&server, &[b"ZADD", key("orders", name).as_bytes(), b"1", b"junk"]);
            }
            for name in ["f", "z", "x", "xe", "p2", "r2"] {
                ask::<i64>(&server, &[b"RPUSH", life.key(name).as_bytes(), b"junk"]);
            }
            for field in ["number", "turn", "finished"] {
                ask::<i64>(&server, &[b"HSET", key("orders", "c").as_bytes(), field.as_bytes(), b"junk"]);
            }
            let group = match operation {
                Operation::EnqueueMany => stand.group(&queue, &vec![draft(); 30]),
                _ => stand.group(&queue, &[draft(), large()]),
            };
            let done = life.operate(operation, &letters, &group).await;
            assert!(done.is_ok(), "{operation:?}: {done:?}");
            stand.sweep().await;
            for name in hashes {
                ask::<i64>(&server, &[b"HDEL", key("orders", name).as_bytes(), b"junk"]);
            }
            for name in ["s", "d", "l"] {
                ask::<i64>(&server, &[b"ZREM", key("orders", name).as_bytes(), b"junk"]);
            }
            life.end(&format!("{operation:?}")).await;
        }
    });
}
