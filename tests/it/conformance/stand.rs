//! What a behaviour stands on: a store, a clock it moves, and the few words that most of them need.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use posthaste::clock::Clock;
use posthaste::domain::id::{MessageId, Shard};
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use posthaste::domain::phases::Phases;
use posthaste::domain::queue::QueueSettings;
use posthaste::domain::record::{self, Head};
use posthaste::domain::retry::Verdict;
use posthaste::domain::timestamp::Timestamp;
use posthaste::store::enqueue::{CallId, Due, Group, GroupResult, IdempotencyKey, NewMessage};
use posthaste::store::error::StoreError;
use posthaste::store::lease::{BatchId, BatchRef, LeaseKind, LeaseRequest, Leased, Settled, Settlement};
use posthaste::store::stats::{Found, QueueStats, Swept};
use posthaste::store::{Hold, MessageStore, Put, QueueEntry, QueueRef, Store};

use super::Fixture;

/// When every behaviour begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A store under test.
pub(crate) struct Stand {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) connection: Rc<dyn MessageStore>,
    fixture: Box<dyn Fixture>,
    closed: bool,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) priority: Priority,
    pub(crate) attempts_max: u8,
    pub(crate) ttl: Option<Duration>,
    pub(crate) due: Due,
    pub(crate) headers: Headers,
    pub(crate) payload: Vec<u8>,
}

/// A plain message: normal priority, five attempts, no TTL, due now, a payload of ten bytes and no headers.
pub(crate) fn draft() -> Draft {
    Draft {
        priority: Priority::Normal,
        attempts_max: 5,
        ttl: None,
        due: Due::Now,
        headers: Headers::default(),
        payload: b"0123456789".to_vec(),
    }
}

impl Draft {
    pub(crate) fn build(&self, now: Timestamp) -> NewMessage {
        let id = MessageId::new(now, std::array::from_fn(|_| fastrand::u8(..)), Shard::default());
        let head = Head {
            id,
            attempts_max: self.attempts_max,
            priority: self.priority,
            accepted_at: now,
            ttl: self.ttl,
        };
        let headers = self.headers.encode().expect("the headers of a draft are small");
        let record = record::encode(&head, &headers, &self.payload);
        NewMessage { id, priority: self.priority, due: self.due, record }
    }
}

/// A worker's request for everything, for 30 s, suspects allowed.
pub(crate) fn request(queue: &QueueRef) -> LeaseRequest {
    LeaseRequest {
        queue: queue.clone(),
        batch: BatchId::random(),
        kind: LeaseKind::Worker,
        max: 1_000,
        bytes_max: 64 << 20,
        lease: seconds(30),
        suspects: true,
    }
}

/// A pulling consumer's request for everything, for 30 s.
pub(crate) fn pull_request(queue: &QueueRef) -> LeaseRequest {
    LeaseRequest { kind: LeaseKind::Pull, suspects: false, ..request(queue) }
}

/// The ids of what was leased, in order.
pub(crate) fn ids(leased: &Leased) -> Vec<MessageId> {
    leased.leases.iter().map(|lease| lease.record.id()).collect()
}

/// The same settlement for every lease of a batch.
pub(crate) fn settlements(leased: Leased, verdict: &Verdict) -> Vec<Settlement> {
    leased.leases.into_iter().map(|lease| lease.settle(verdict.clone(), None)).collect()
}

/// One settlement without its lease, as a late or repeated call sends it.
pub(crate) fn settlement(index: u16, verdict: Verdict) -> Settlement {
    Settlement { index, verdict, attempt: None, gist: None }
}

/// Where the time of an attempt went that [`attempt`] makes.
pub(crate) const PHASES: Phases = Phases {
    dns: None,
    connect: Some(Duration::from_micros(640)),
    wait: Some(Duration::from_micros(5_900)),
    body: Some(Duration::from_micros(12)),
};

/// An attempt that failed with a status.
pub(crate) fn attempt(number: u8, status: u16) -> Attempt {
    let (at, outcome) = (START, AttemptOutcome::Retry);
    Attempt {
        number,
        at,
        duration_ms: 7,
        outcome,
        status: Some(status),
        error: None,
        excerpt: None,
        phases: PHASES,
        next_at: None,
    }
}

pub(crate) const fn retry_after(delay: Duration) -> Verdict {
    Verdict::Retry { delay }
}

pub(crate) const fn dead(reason: DeadReason) -> Verdict {
    Verdict::Dead { reason, detail: None }
}

/// The settings of a queue for tests: plain, with the `log` processor.
pub(crate) fn plain_settings() -> QueueSettings {
    QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() }
}

impl Stand {
    pub(crate) fn new(fixture: Box<dyn Fixture>) -> Self {
        Self::with_clock(fixture, &Clock::manual(START))
    }

    /// On a clock that another store goes by as well.
    pub(crate) fn with_clock(mut fixture: Box<dyn Fixture>, clock: &Clock) -> Self {
        let store = fixture.open(clock, None);
        let connection = store.connect();
        Self { clock: clock.clone(), store, connection, fixture, closed: false }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.fixture.kind()
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.fixture.is_shared()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Starts anew on a store that takes very little; gives how many payload bytes more than fill it.
    pub(crate) async fn open_small(&mut self) -> u64 {
        self.connection.close().await.expect("a store can be closed");
        let (bytes_max, enough) = self.fixture.small();
        self.store = self.fixture.open(&self.clock, Some(bytes_max));
        self.connection = self.store.connect();
        enough
    }

    /// Ends the process, as far as the store is concerned, and begins a new one. False when the store keeps nothing.
    pub(crate) async fn restart(&mut self) -> bool {
        let Some(store) = self.fixture.reopen().await else { return false };
        self.store = store;
        self.connection = self.store.connect();
        true
    }

    pub(crate) async fn close(&mut self) {
        self.connection.close().await.expect("a store can be closed");
        self.closed = true;
    }

    /// What holds after every behaviour: both laws for every queue, and a recount that agrees.
    pub(crate) async fn check(&self) {
        if self.closed {
            return;
        }
        for stats in self.connection.stats(None).await.expect("the store answers") {
            assert!(stats.laws_hold(), "the laws are broken: {stats:?}");
        }
        let differences = self.connection.audit().await.expect("the store answers");
        assert_eq!(differences, Vec::<String>::new(), "the recount differs");
    }

    pub(crate) async fn queue(&self, name: &str) -> QueueRef {
        self.queue_with(name, |_| {}).await
    }

    /// Makes a queue with some settings changed.
    pub(crate) async fn queue_with(&self, name: &str, change: impl FnOnce(&mut QueueSettings)) -> QueueRef {
        let mut settings = plain_settings();
        change(&mut settings);
        let put = self.connection.put_queue(name.parse().expect("a name"), Arc::new(settings));
        match put.await.expect("the store answers") {
            Put::Created(entry) => entry.queue_ref(),
            other => panic!("the queue {name} was there: {other:?}"),
        }
    }

    /// Replaces the settings of a queue.
    pub(crate) async fn change(&self, queue: &QueueRef, change: impl FnOnce(&mut QueueSettings)) {
        let mut settings = QueueSettings::clone(&self.entry(queue).await.settings);
        change(&mut settings);
        let put = self.connection.put_queue(queue.name.clone(), Arc::new(settings));
        let put = put.await.expect("the store answers");
        assert!(matches!(put, Put::Updated(_)), "{put:?}");
    }

    pub(crate) async fn entry(&self, queue: &QueueRef) -> QueueEntry {
        let all = self.connection.queues().await.expect("the store answers");
        all.into_iter().find(|entry| entry.queue_ref() == *queue).expect("the queue is there")
    }

    pub(crate) async fn hold(&self, queue: &QueueRef, hold: Hold) -> QueueEntry {
        self.connection.hold(queue.clone(), hold).await.expect("the store answers")
    }

    pub(crate) async fn enqueue(&self, groups: Vec<Group>) -> Vec<GroupResult> {
        self.connection.enqueue(CallId::random(), Arc::new(groups)).await.expect("the store answers")
    }

    /// A group of drafts.
    pub(crate) fn group(&self, queue: &QueueRef, drafts: &[Draft]) -> Group {
        let messages = drafts.iter().map(|draft| draft.build(self.now())).collect();
        Group { queue: queue.clone(), key: None, messages }
    }

    /// A group of one plain message with a key; the fingerprint is sixteen times the same byte.
    pub(crate) fn keyed(&self, queue: &QueueRef, key: &str, fingerprint: u8) -> Group {
        let key = IdempotencyKey { key: key.as_bytes().to_vec(), fingerprint: [fingerprint; 16] };
        Group { key: Some(key), ..self.group(queue, &[draft()]) }
    }

    /// What becomes of one group.
    pub(crate) async fn offer(&self, group: Group) -> GroupResult {
        self.enqueue(vec![group]).await.pop().expect("one result for one group")
    }

    /// Publishes drafts as one group, which must be accepted.
    pub(crate) async fn publish(&self, queue: &QueueRef, drafts: &[Draft]) -> Vec<MessageId> {
        let group = self.group(queue, drafts);
        let ids = group.messages.iter().map(|message| message.id).collect();
        assert_eq!(self.offer(group).await, GroupResult::Accepted);
        ids
    }

    /// Publishes so many plain messages.
    pub(crate) async fn publish_plain(&self, queue: &QueueRef, count: usize) -> Vec<MessageId> {
        self.publish(queue, &vec![draft(); count]).await
    }

    /// Publishes one message.
    pub(crate) async fn publish_one(&self, queue: &QueueRef, draft: Draft) -> MessageId {
        self.publish(queue, &[draft]).await[0]
    }

    pub(crate) async fn take(&self, request: LeaseRequest) -> Leased {
        self.connection.lease(request).await.expect("the store answers")
    }

    /// Leases up to `max` messages as a worker.
    pub(crate) async fn lease(&self, queue: &QueueRef, max: u16) -> Leased {
        self.take(LeaseRequest { max, ..request(queue) }).await
    }

    pub(crate) async fn settle(&self, batch: &BatchRef, settlements: Vec<Settlement>) -> Vec<Settled> {
        let count = settlements.len();
        let settled =
            self.connection.settle(batch.clone(), Arc::new(settlements)).await.expect("the store answers");
        assert_eq!(settled.len(), count, "one result for each settlement");
        settled
    }

    /// Settles a whole batch with one verdict, which must hold.
    pub(crate) async fn settle_all(&self, leased: Leased, verdict: Verdict) {
        let batch = leased.batch.clone();
        let settled = self.settle(&batch, settlements(leased, &verdict)).await;
        assert!(settled.iter().all(|settled| *settled == Settled::Settled), "{settled:?}");
    }

    /// Leases up to `max` messages and settles them all with one verdict; gives their ids.
    pub(crate) async fn run(&self, queue: &QueueRef, max: u16, verdict: Verdict) -> Vec<MessageId> {
        let leased = self.lease(queue, max).await;
        let ids = ids(&leased);
        self.settle_all(leased, verdict).await;
        ids
    }

    /// Delivers all that is pending, one lease a message; gives the ids in the order in which they came.
    pub(crate) async fn drain(&self, queue: &QueueRef) -> Vec<MessageId> {
        let mut all = Vec::new();
        loop {
            let delivered = self.run(queue, 1, Verdict::Ack).await;
            if delivered.is_empty() {
                return all;
            }
            all.extend(delivered);
        }
    }

    /// Publishes so many messages, which must be all that is pending, and has workers lose them until each must be alone; two of
    /// their five attempts are then counted.
    pub(crate) async fn publish_suspects(&self, queue: &QueueRef, count: usize) -> Vec<MessageId> {
        let published = self.publish_plain(queue, count).await;
        for _ in 0..2 {
            let leased = self.take(request(queue)).await;
            assert_eq!(ids(&leased), published);
            self.pass(seconds(30)).await;
        }
        published
    }

    /// Publishes so many messages and lets them die; gives their ids.
    pub(crate) async fn publish_dead(&self, queue: &QueueRef, count: usize) -> Vec<MessageId> {
        let ids = self.publish_plain(queue, count).await;
        assert_eq!(self.run(queue, 1_000, dead(DeadReason::Rejected)).await, ids);
        ids
    }

    /// Sweeps until there is nothing left to do; gives the sum, and the last round's word on what is next.
    pub(crate) async fn sweep(&self) -> Swept {
        let mut sum = Swept::default();
        loop {
            let round = self.connection.sweep().await.expect("the store answers");
            sum.promoted += round.promoted;
            sum.reaped += round.reaped;
            sum.expired += round.expired;
            sum.discarded += round.discarded;
            (sum.ready, sum.next_at) = (round.ready, round.next_at);
            if !round.more {
                return sum;
            }
        }
    }

    /// Lets time pass, and sweeps.
    pub(crate) async fn pass(&self, span: Duration) -> Swept {
        self.clock.advance(span);
        self.sweep().await
    }

    pub(crate) async fn stats(&self, queue: &QueueRef) -> QueueStats {
        let all = self.connection.stats(Some(vec![queue.name.clone()])).await.expect("the store answers");
        all.into_iter().next().expect("the queue is there")
    }

    pub(crate) async fn find(&self, queue: &QueueRef, id: MessageId) -> Option<Found> {
        self.connection.find(queue.clone(), id).await.expect("the store answers")
    }
}

/// Waits for something that the store does on a thread of its own.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(10), future).await.unwrap_or_else(|_| panic!("{what}: not within 10 s"))
}

/// The error of a call that must be refused.
pub(crate) fn refusal<T>(result: Result<T, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(error) => error,
    }
}
