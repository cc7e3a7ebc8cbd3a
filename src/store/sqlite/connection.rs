//! One thread's connection: hands calls to the writer or the reader and waits for their answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::domain::id::MessageId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::StoreError;
use crate::store::health::StoreHealth;
use crate::store::lease::{BatchRef, Extended, LeaseKind, LeaseRequest, Leased, Settled, Settlement};
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::operation::{Enqueue, Job, Rank, Reply, Weight};
use crate::store::sqlite::reader;
use crate::store::sqlite::sweep::SweepStep;
use crate::store::sqlite::work::{Sql, Work};
use crate::store::sqlite::{Handle, audit, history, letters};
use crate::store::stats::{Cancelled, Found, QueueStats, Swept};
use crate::store::{
    Answer, Changed, Deleted, Hold, MessageStore, PROMOTED_MAX, Put, QueueEntry, QueueRef, Scheduled,
};

/// How long a call waits for its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long an audit, which looks at every message, waits for its answer.
const AUDIT_DEADLINE: Duration = Duration::from_mins(10);
/// How long the end of the store is waited for.
const CLOSE_DEADLINE: Duration = Duration::from_mins(1);

/// A connection. Holds no resource of its own.
pub(super) struct Connection(pub(super) Arc<Handle>);

async fn answer<T>(reply: Reply<T>, deadline: Duration) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, reply).await {
        Ok(Ok(outcome)) => outcome,
        // It was taken and not answered: the writer ended in the midst of it.
        Ok(Err(_)) => Err(StoreError::Unknown("the store ended before it answered".to_owned())),
        Err(_) => Err(StoreError::Timeout(deadline)),
    }
}

impl Connection {
    /// Has the writer do something.
    async fn write<T: Send + 'static>(
        &self,
        rank: Rank,
        messages: usize,
        is_durable: bool,
        work: impl FnMut(&mut Work<'_>) -> Sql<Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let weight = Weight { messages, bytes: 0 };
        let asked = self.0.shared.clock.tick();
        let (job, reply) = Job::with_reply(rank, weight, is_durable, asked, work);
        self.0.shared.inbox.push(job)?;
        answer(reply, DEADLINE).await
    }

    /// Has the writer do something with a queue.
    async fn write_queue<T: Send + 'static>(
        &self,
        queue: QueueRef,
        is_durable: bool,
        mut work: impl FnMut(&mut Work<'_>, QueueNumber) -> Sql<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(Rank::Rest, 1, is_durable, move |writer| match writer.number_of(&queue) {
            Some(number) => work(writer, number).map(Ok),
            None => Ok(Err(StoreError::Gone)),
        })
        .await
    }

    /// Has the reader look something up in a queue.
    async fn read_queue<T: Send + 'static>(
        &self,
        queue: QueueRef,
        read: impl FnOnce(&rusqlite::Connection, QueueNumber) -> Sql<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reply = self.0.shared.reader()?.read(move |sql| match reader::number_of(sql, &queue)? {
            Ok(number) => read(sql, number).map(Ok),
            Err(error) => Ok(Err(error)),
        })?;
        answer(reply, DEADLINE).await
    }

    /// One transaction's part of a sweep. When that fails, queue by queue, passing over the one at fault.
    async fn sweep_step(&self, from: QueueNumber) -> Result<SweepStep, StoreError> {
        let sweep = |from, most| self.write(Rank::Rest, 1, false, move |work| work.sweep(from, most).map(Ok));
        match sweep(from, usize::MAX).await {
            Err(StoreError::Internal(_)) => {}
            outcome => return outcome,
        }
        match sweep(from, 1).await {
            Err(StoreError::Internal(_)) => {}
            outcome => return outcome,
        }
        // What failed was logged where it happened, and is shown by the store's health.
        let first = self.write(Rank::Rest, 1, false, move |work| Ok(Ok(work.queue_from(from)))).await?;
        let next = first.and_then(|first| first.checked_add(1)).unwrap_or(QueueNumber::MAX);
        sweep(next, 0).await
    }

    async fn sweep_all(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut from = 0;
        loop {
            let step = self.sweep_step(from).await?;
            swept.promoted += step.swept.promoted;
            swept.reaped += step.swept.reaped;
            swept.expired += step.swept.expired;
            swept.discarded += step.swept.discarded;
            swept.more |= step.swept.more;
            match step.next {
                Some(next) => from = next,
                None => return Ok(Swept { ready: step.swept.ready, next_at: step.swept.next_at, ..swept }),
            }
        }
    }

    async fn find_anywhere(&self, queue: QueueRef, id: MessageId) -> Result<Option<Found>, StoreError> {
        let found = self.write_queue(queue.clone(), false, move |work, number| work.find(number, id)).await?;
        match found {
            Some(found) => Ok(Some(found)),
            // What is nowhere now either ended before, which stays so, or never was.
            None => self.read_queue(queue, move |sql, number| history::find_finished(sql, number, id)).await,
        }
    }

    async fn cancel_anywhere(&self, queue: QueueRef, id: MessageId) -> Result<Cancelled, StoreError> {
        match self.write_queue(queue.clone(), true, move |work, number| work.cancel(number, id)).await? {
            Cancelled::Unknown => {}
            known => return Ok(known),
        }
        let finished =
            self.read_queue(queue, move |sql, number| history::find_finished(sql, number, id)).await?;
        Ok(if finished.is_some() { Cancelled::Finished } else { Cancelled::Unknown })
    }
}

impl Connection {
    /// Brings scheduled messages forward, in as many transactions as their bytes ask for.
    async fn bring_forward(
        &self,
        queue: QueueRef,
        scheduled: Arc<[Scheduled]>,
    ) -> Result<Vec<bool>, StoreError> {
        let most = scheduled.len().min(PROMOTED_MAX);
        let mut promoted = Vec::with_capacity(scheduled.len());
        loop {
            let (queue, all, from) = (queue.clone(), Arc::clone(&scheduled), promoted.len());
            let work = move |work: &mut Work<'_>| match work.number_of(&queue) {
                Some(number) => work.bring_forward(number, &all[from..most]).map(Ok),
                None => Ok(Err(StoreError::Gone)),
            };
            promoted.extend(self.write(Rank::Rest, most - from, false, work).await?);
            if promoted.len() >= most {
                promoted.resize(scheduled.len(), false);
                return Ok(promoted);
            }
        }
    }
}

impl MessageStore for Connection {
    fn enqueue(&self, call: CallId, groups: Arc<Vec<Group>>) -> Answer<'_, Vec<GroupResult>> {
        async move {
            let (job, reply) = Enqueue::with_reply(call, groups, self.0.shared.clock.tick());
            self.0.shared.inbox.push(job)?;
            answer(reply, DEADLINE).await
        }
        .boxed_local()
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, Leased> {
        let is_durable = request.kind == LeaseKind::Pull;
        let messages = usize::from(request.max);
        self.write(Rank::Lease, messages, is_durable, move |work| work.lease(&request)).boxed_local()
    }

    fn settle(&self, batch: BatchRef, settlements: Arc<Vec<Settlement>>) -> Answer<'_, Vec<Settled>> {
        let messages = settlements.len();
        let work = move |work: &mut Work<'_>| work.settle(&batch, &settlements).map(Ok);
        self.write(Rank::Settle, messages, true, work).boxed_local()
    }

    fn extend(&self, batch: BatchRef, lease: Duration) -> Answer<'_, Extended> {
        self.write(Rank::Extend, 1, false, move |work| work.extend(&batch, lease).map(Ok)).boxed_local()
    }

    fn extend_leases(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Answer<'_, Vec<Extended>> {
        let work = move |work: &mut Work<'_>| work.extend_leases(&batch, &indices, lease).map(Ok);
        self.write(Rank::Extend, 1, false, work).boxed_local()
    }

    fn sweep(&self) -> Answer<'_, Swept> {
        self.sweep_all().boxed_local()
    }

    fn find(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<Found>> {
        self.find_anywhere(queue, id).boxed_local()
    }

    fn cancel(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Cancelled> {
        self.cancel_anywhere(queue, id).boxed_local()
    }

    fn promote(&self, queue: QueueRef, scheduled: Arc<[Scheduled]>) -> Answer<'_, Vec<bool>> {
        self.bring_forward(queue, scheduled).boxed_local()
    }

    fn list_dead(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, DeadPage> {
        self.read_queue(queue, move |sql, number| {
            letters::page(sql, number, &filter, cursor.as_deref(), limit)
        })
        .boxed_local()
    }

    fn dead(&self, queue: QueueRef, id: MessageId) -> Answer<'_, Option<DeadLetter>> {
        self.read_queue(queue, move |sql, number| letters::whole(sql, number, id)).boxed_local()
    }

    fn dead_groups(&self, queue: QueueRef, by: DeadGrouping) -> Answer<'_, Vec<DeadGroup>> {
        self.read_queue(queue, move |sql, number| letters::groups(sql, number, by)).boxed_local()
    }

    fn replay(&self, queue: QueueRef, selection: Selection, dry_run: bool) -> Answer<'_, Replayed> {
        async move {
            if dry_run {
                let count = move |sql: &rusqlite::Connection, number| letters::count(sql, number, &selection);
                let matched = self.read_queue(queue, count).await?;
                return Ok(Replayed { matched, ..Replayed::default() });
            }
            self.write_queue(queue, true, move |work, number| work.replay(number, &selection)).await
        }
        .boxed_local()
    }

    fn discard(&self, queue: QueueRef, selection: Selection) -> Answer<'_, u64> {
        self.write_queue(queue, true, move |work, number| work.discard(number, &selection)).boxed_local()
    }

    fn purge(&self, queue: QueueRef) -> Answer<'_, u64> {
        let purge = |work: &mut Work<'_>, number| work.purge(number);
        self.write_queue(queue, true, purge).boxed_local()
    }

    fn hold(&self, queue: QueueRef, hold: Hold) -> Answer<'_, QueueEntry> {
        self.write(Rank::Rest, 1, true, move |work| Ok(work.hold(&queue, &hold))).boxed_local()
    }

    fn queues(&self) -> Answer<'_, Vec<QueueEntry>> {
        self.write(Rank::Rest, 1, false, |work| Ok(Ok(work.entries()))).boxed_local()
    }

    fn put_queue(&self, name: QueueName, settings: Arc<QueueSettings>) -> Answer<'_, Put> {
        self.write(Rank::Rest, 1, true, move |work| work.put_queue(&name, &settings).map(Ok)).boxed_local()
    }

    fn change_queue(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Answer<'_, Changed> {
        let change = move |work: &mut Work<'_>| work.change_queue(&queue, &was, &settings);
        self.write(Rank::Rest, 1, true, change).boxed_local()
    }

    fn declare(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Answer<'_, (Vec<QueueEntry>, Vec<QueueEntry>)> {
        self.write(Rank::Rest, 1, true, move |work| work.declare(&queues).map(Ok)).boxed_local()
    }

    fn delete_queue(&self, queue: QueueRef, force: bool) -> Answer<'_, Deleted> {
        self.write(Rank::Rest, 1, true, move |work| work.delete_queue(&queue, force)).boxed_local()
    }

    fn stats(&self, names: Option<Vec<QueueName>>) -> Answer<'_, Vec<QueueStats>> {
        async move {
            self.0.shared.refuse_when_closed()?;
            Ok(self.0.shared.vitals.stats(names.as_deref()))
        }
        .boxed_local()
    }

    fn health(&self) -> Answer<'_, StoreHealth> {
        async move {
            let shared = &self.0.shared;
            let is_closed = shared.inbox.is_closed();
            let astray = if is_closed { None } else { shared.whereabouts.astray() };
            Ok(shared.vitals.health(is_closed, astray))
        }
        .boxed_local()
    }

    fn audit(&self) -> Answer<'_, Vec<String>> {
        async move {
            let mut found = self.write(Rank::Rest, 1, false, |work| Ok(Ok(audit::of_cache(work)))).await?;
            let reply = self.0.shared.reader()?.read(|sql| audit::of_file(sql).map(Ok))?;
            found.extend(answer(reply, AUDIT_DEADLINE).await?);
            Ok(found)
        }
        .boxed_local()
    }

    fn close(&self) -> Answer<'_, ()> {
        async move {
            let (closer, ended) = oneshot::channel();
            self.0.shared.inbox.close(Some(closer));
            match tokio::time::timeout(CLOSE_DEADLINE, ended).await {
                // The writer drops what it was given when it has ended.
                Ok(_) => Ok(()),
                Err(_) => Err(StoreError::Timeout(CLOSE_DEADLINE)),
            }
        }
        .boxed_local()
    }
}
