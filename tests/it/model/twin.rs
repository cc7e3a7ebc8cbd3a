//! A store under test beside the model: the same operations on both, the same answers from both.

use std::collections::HashMap;
use std::fmt::Debug;
use std::mem::discriminant;
use std::sync::Arc;

use posthaste::clock::{Clock, Tick};
use posthaste::domain::id::MessageId;
use posthaste::domain::outcome::{Attempt, AttemptOutcome};
use posthaste::domain::phases::Phases;
use posthaste::domain::queue::{Generation, QueueSettings};
use posthaste::domain::retry::Verdict;
use posthaste::store::dead::{DeadFilter, DeadGrouping, DeadLetter, Selection};
use posthaste::store::enqueue::{CallId, Group, GroupResult, IdempotencyKey, NewMessage};
use posthaste::store::error::StoreError;
use posthaste::store::lease::{
    BatchId, BatchRef, Gist, LeaseRequest, Leased, Settled, Settlement, Token, Way,
};
use posthaste::store::stats::{Counters, QueueStats};
use posthaste::store::{CALL_MEMORY, Put, QueueEntry, QueueRef, Scheduled};

use super::operations::{Chosen, Offer, Operation, Past, Pick, QUEUES, Sent};
use crate::conformance::Fixture;
use crate::conformance::fixtures::MemoryFixture;
use crate::conformance::stand::{START, Stand};

/// Something of both stores.
#[derive(Clone, Debug)]
struct Both<T> {
    subject: T,
    model: T,
}

/// An `enqueue` call as it was sent, and when.
struct Call {
    id: CallId,
    groups: Both<Arc<Vec<Group>>>,
    at: Tick,
}

/// A batch as it was asked for, and how each store names it.
struct Batch {
    request: Both<LeaseRequest>,
    names: Both<BatchRef>,
    places: u16,
    gists: Gists,
}

/// By place in the batch.
type Gists = HashMap<u16, Option<Gist>>;

/// Both stores and what was done so far.
pub(super) struct Twin {
    stands: Both<Stand>,
    /// The makings of each queue; the last one may be deleted as well.
    queues: [Vec<Both<QueueRef>>; QUEUES.len()],
    messages: Vec<(usize, MessageId)>,
    batches: Vec<Batch>,
    /// In which way each lease was settled first: the one at that place of the batch with that token in the model.
    ways: HashMap<(Token, u16), Way>,
    call: Option<Call>,
}

/// What the operations of one case came to, to see that they reach everything.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Reached {
    pub(super) counters: Counters,
    pub(super) parked: u64,
    pub(super) duplicates: u64,
    pub(super) full: u64,
    pub(super) gone: u64,
    pub(super) restarts: u64,
    /// Messages that were brought forward, and that were not although they were named.
    pub(super) promoted: u64,
    pub(super) not_promoted: u64,
    /// Settlements of what was settled before: in the same way, and in another.
    pub(super) settled_again: u64,
    pub(super) settled_otherwise: u64,
}

/// Both answers, which must be the same up to the words of an error.
fn same<T: PartialEq + Debug>(
    what: &str,
    subject: Result<T, StoreError>,
    model: Result<T, StoreError>,
) -> Option<T> {
    match (subject, model) {
        (Ok(subject), Ok(model)) => {
            assert_eq!(subject, model, "{what}: the store under test, and the model");
            Some(subject)
        }
        (Err(subject), Err(model)) => {
            assert_eq!(discriminant(&subject), discriminant(&model), "{what}: {subject:?} and {model:?}");
            None
        }
        (subject, model) => panic!("{what}: {subject:?}, and the model {model:?}"),
    }
}

fn without_generation(entry: &QueueEntry) -> QueueEntry {
    QueueEntry { generation: Generation(0), ..entry.clone() }
}

/// What two leases must agree in: everything but the names of the batch.
fn comparable(leased: &Leased) -> String {
    let until = (!leased.leases.is_empty()).then_some(leased.until);
    let shown: Vec<_> = leased.leases.iter().map(|lease| (lease.index, lease.record.bytes())).collect();
    format!("{shown:?}, until {until:?}, more {}", leased.more)
}

impl<T> Both<T> {
    fn each<U>(&self, of: impl Fn(&T) -> U) -> Both<U> {
        Both { subject: of(&self.subject), model: of(&self.model) }
    }
}

impl Twin {
    pub(super) fn new(fixture: Box<dyn Fixture>) -> Self {
        let clock = Clock::manual(START);
        let subject = Stand::with_clock(fixture, &clock);
        let model = Stand::with_clock(Box::<MemoryFixture>::default(), &clock);
        Self {
            stands: Both { subject, model },
            queues: Default::default(),
            messages: Vec::new(),
            batches: Vec::new(),
            ways: HashMap::new(),
            call: None,
        }
    }

    /// Calls both stores and compares what they say.
    async fn ask<T: PartialEq + Debug>(
        &self,
        what: &str,
        queue: &Both<QueueRef>,
        call: impl AsyncFn(&Stand, QueueRef) -> Result<T, StoreError>,
    ) -> Option<T> {
        let subject = call(&self.stands.subject, queue.subject.clone()).await;
        let model = call(&self.stands.model, queue.model.clone()).await;
        same(what, subject, model)
    }

    /// The queue that an operation names; `None` when it was never made.
    fn queue(&self, pick: Pick) -> Option<Both<QueueRef>> {
        let makings = &self.queues[pick.queue];
        let before_last = pick.old && makings.len() > 1;
        makings.get(makings.len().checked_sub(1 + usize::from(before_last))?).cloned()
    }

    fn now(&self) -> posthaste::domain::timestamp::Timestamp {
        self.stands.model.now()
    }

    /// Does one operation on both stores, then compares all that can be seen from outside.
    pub(super) async fn apply(&mut self, operation: &Operation, reached: &mut Reached) {
        self.perform(operation, reached).await;
        let stats = Both {
            subject: self.stands.subject.connection.stats(None).await,
            model: self.stands.model.connection.stats(None).await,
        };
        let comparable = |stats: Result<Vec<QueueStats>, StoreError>| {
            let plain = |stats: QueueStats| {
                assert!(stats.laws_hold(), "the laws are broken: {stats:?}");
                // The age is best effort: only whether there is one is compared.
                let oldest_pending_at = stats.oldest_pending_at.map(|_| START);
                QueueStats { generation: Generation(0), oldest_pending_at, ..stats }
            };
            stats.map(|all| all.into_iter().map(plain).collect::<Vec<_>>())
        };
        for stats in same("stats", comparable(stats.subject), comparable(stats.model)).into_iter().flatten() {
            reached.parked += u64::from(stats.parked.is_some());
        }
    }

    async fn perform(&mut self, operation: &Operation, reached: &mut Reached) {
        match operation {
            Operation::Enqueue(offers) => self.enqueue(offers, reached).await,
            Operation::EnqueueAgain => self.enqueue_again().await,
            Operation::Lease { queue, kind, max, bytes_max, lease, suspects } => {
                let Some(queue) = self.queue(*queue) else { return };
                let batch = BatchId::random();
                let request = queue.each(|queue| LeaseRequest {
                    queue: queue.clone(),
                    batch,
                    kind: *kind,
                    max: *max,
                    bytes_max: *bytes_max,
                    lease: *lease,
                    suspects: *suspects,
                });
                self.lease(request).await;
            }
            Operation::LeaseAgain(past) => {
                let Some(batch) = past.of(&self.batches) else { return };
                self.lease(batch.request.clone()).await;
            }
            Operation::Settle { batch, wrong, sent } => {
                let Some(batch) = batch.of(&self.batches) else { return };
                let names = named(&batch.names, *wrong);
                self.settle(names, &batch.gists.clone(), sent, reached).await;
            }
            Operation::SettleAll { batch, verdict } => {
                let Some(batch) = batch.of(&self.batches) else { return };
                let sent = |place| Sent { place, verdict: verdict.clone(), status: None };
                let sent: Vec<_> = (0..batch.places).map(sent).collect();
                self.settle(batch.names.clone(), &batch.gists.clone(), &sent, reached).await;
            }
            Operation::Extend { batch, wrong, lease } => {
                let Some(batch) = batch.of(&self.batches) else { return };
                let names = named(&batch.names, *wrong);
                let subject = self.stands.subject.connection.extend(names.subject, *lease).await;
                let model = self.stands.model.connection.extend(names.model, *lease).await;
                same("extend", subject, model);
            }
            Operation::Sweep => {
                let (subject, model) = (self.stands.subject.sweep().await, self.stands.model.sweep().await);
                assert_eq!(subject, model, "sweep: the store under test, and the model");
            }
            Operation::Advance(span) => self.stands.model.clock.advance(*span),
            // What gateways share goes by its own clock: a step of that one is for the tests of that store.
            Operation::Jump { .. } if self.stands.subject.is_shared() => {}
            Operation::Jump { back, span } => {
                let now = self.now();
                let then = if *back { now.saturating_sub(*span) } else { now.saturating_add(*span) };
                self.stands.model.clock.set_wall(then);
            }
            Operation::Promote(named) => self.promote(named, reached).await,
            Operation::Restart => self.restart(reached).await,
            Operation::Put { queue, settings } => self.put(*queue, settings).await,
            Operation::Delete { queue, force } => self.delete(*queue, *force, reached).await,
            other => self.look_after(other).await,
        }
    }

    /// The operations on messages that are not leased, by id or by queue.
    async fn look_after(&self, operation: &Operation) {
        match operation {
            Operation::Find(past) => {
                let Some(message) = past.of(&self.messages) else { return };
                self.find(*message).await;
            }
            Operation::Cancel(past) => {
                let Some((queue, id)) = past.of(&self.messages).copied() else { return };
                let Some(queue) = self.queue(Pick { queue, old: false }) else { return };
                self.ask("cancel", &queue, async |stand, queue| stand.connection.cancel(queue, id).await)
                    .await;
            }
            Operation::Purge(pick) => {
                let Some(queue) = self.queue(*pick) else { return };
                self.ask("purge", &queue, async |stand, queue| stand.connection.purge(queue).await).await;
            }
            Operation::Hold { queue, hold } => {
                let Some(queue) = self.queue(*queue) else { return };
                let hold = async |stand: &Stand, queue| {
                    stand.connection.hold(queue, hold.clone()).await.map(|entry| without_generation(&entry))
                };
                self.ask("hold", &queue, hold).await;
            }
            Operation::Replay { queue, chosen, dry_run } => {
                let Some(queue) = self.queue(*queue) else { return };
                let selection = self.selection(chosen);
                let replay = async |stand: &Stand, queue| {
                    stand.connection.replay(queue, selection.clone(), *dry_run).await
                };
                self.ask("replay", &queue, replay).await;
            }
            Operation::Discard { queue, chosen } => {
                let Some(queue) = self.queue(*queue) else { return };
                let selection = self.selection(chosen);
                let discard =
                    async |stand: &Stand, queue| stand.connection.discard(queue, selection.clone()).await;
                self.ask("discard", &queue, discard).await;
            }
            Operation::Browse(pick) => self.browse(*pick).await,
            _ => {}
        }
    }

    /// Brings messages of one queue forward: of the one that the first of them was published to.
    async fn promote(&self, named: &[(Past, u8)], reached: &mut Reached) {
        let known =
            || named.iter().filter_map(|(past, attempts)| Some((past.of(&self.messages)?, *attempts)));
        let Some(place) = known().map(|((place, _), _)| *place).next() else { return };
        let Some(queue) = self.queue(Pick { queue: place, old: false }) else { return };
        let of_queue = known().filter(|((of, _), _)| *of == place);
        let scheduled: Arc<[Scheduled]> =
            of_queue.map(|((_, id), attempts)| Scheduled { id: *id, attempts }).collect();
        let promote =
            async |stand: &Stand, queue| stand.connection.promote(queue, Arc::clone(&scheduled)).await;
        let promoted = self.ask("promote", &queue, promote).await.unwrap_or_default();
        reached.promoted += promoted.iter().filter(|promoted| **promoted).count() as u64;
        reached.not_promoted += promoted.iter().filter(|promoted| !**promoted).count() as u64;
    }

    fn selection(&self, chosen: &Chosen) -> Selection {
        match chosen {
            Chosen::All => Selection::Filter(DeadFilter::default()),
            Chosen::Reason(reason) => {
                Selection::Filter(DeadFilter { reason: Some(*reason), ..DeadFilter::default() })
            }
            Chosen::Messages(pasts) => {
                let known = pasts.iter().filter_map(|past| past.of(&self.messages));
                Selection::Ids(known.map(|(_, id)| *id).collect())
            }
        }
    }

    async fn enqueue(&mut self, offers: &[Offer], reached: &mut Reached) {
        let mut groups = Both { subject: Vec::new(), model: Vec::new() };
        let now = self.now();
        for offer in offers {
            let Some(queue) = self.queue(offer.queue) else { continue };
            let messages: Vec<NewMessage> = offer.drafts.iter().map(|draft| draft.build(now)).collect();
            self.messages.extend(messages.iter().map(|message| (offer.queue.queue, message.id)));
            let key = offer
                .key
                .map(|(key, fingerprint)| IdempotencyKey { key: vec![key], fingerprint: [fingerprint; 16] });
            groups.subject.push(Group {
                queue: queue.subject,
                key: key.clone(),
                messages: messages.clone().into(),
            });
            groups.model.push(Group { queue: queue.model, key, messages: messages.into() });
        }
        let groups = Both { subject: Arc::new(groups.subject), model: Arc::new(groups.model) };
        self.call = Some(Call { id: CallId::random(), groups, at: self.stands.model.clock.tick() });
        for result in self.send().await {
            reached.duplicates += u64::from(matches!(result, GroupResult::Duplicate(_)));
            reached.full += u64::from(matches!(result, GroupResult::QueueFull { .. }));
            reached.gone += u64::from(matches!(result, GroupResult::Gone));
        }
    }

    /// Sends the last call again, as long as it is certainly remembered.
    async fn enqueue_again(&self) {
        let tick = self.stands.model.clock.tick();
        if self.call.as_ref().is_some_and(|call| tick.since(call.at) < CALL_MEMORY) {
            self.send().await;
        }
    }

    async fn send(&self) -> Vec<GroupResult> {
        let Some(call) = &self.call else { return Vec::new() };
        let subject = self.stands.subject.connection.enqueue(call.id, Arc::clone(&call.groups.subject)).await;
        let model = self.stands.model.connection.enqueue(call.id, Arc::clone(&call.groups.model)).await;
        same("enqueue", subject, model).unwrap_or_default()
    }

    async fn lease(&mut self, request: Both<LeaseRequest>) {
        let subject = self.stands.subject.connection.lease(request.subject.clone()).await;
        let model = self.stands.model.connection.lease(request.model.clone()).await;
        same(
            "lease",
            subject.as_ref().map(comparable).map_err(Clone::clone),
            model.as_ref().map(comparable).map_err(Clone::clone),
        );
        let (Ok(subject), Ok(model)) = (subject, model) else { return };
        let Some(last) = model.leases.last() else { return };
        let places = last.index + 1;
        let ends = subject.leases.into_iter().map(|lease| lease.settle(Verdict::Ack, None));
        let gists = ends.map(|end| (end.index, end.gist)).collect();
        let names = Both { subject: subject.batch, model: model.batch };
        self.batches.push(Batch { request, names, places, gists });
    }

    async fn settle(&mut self, names: Both<BatchRef>, gists: &Gists, sent: &[Sent], reached: &mut Reached) {
        let now = self.now();
        let settlement = |sent: &Sent| Settlement {
            index: sent.place,
            verdict: sent.verdict.clone(),
            attempt: sent.status.map(|status| Attempt {
                number: 1,
                at: now,
                duration_ms: 3,
                outcome: AttemptOutcome::Retry,
                status: Some(status),
                error: None,
                excerpt: None,
                phases: Phases::NONE,
                next_at: None,
            }),
            gist: gists.get(&sent.place).cloned().flatten().filter(|_| sent.verdict == Verdict::Ack),
        };
        let settlements: Arc<Vec<Settlement>> = Arc::new(sent.iter().map(settlement).collect());
        let subject =
            self.stands.subject.connection.settle(names.subject.clone(), Arc::clone(&settlements)).await;
        let model = self.stands.model.connection.settle(names.model.clone(), settlements).await;
        let results = same("settle", subject, model).unwrap_or_default();
        for (sent, result) in sent.iter().zip(results) {
            let (lease, way) = ((names.model.token, sent.place), Way::of(&sent.verdict));
            match (self.ways.get(&lease), result) {
                (None, Settled::Settled) => drop(self.ways.insert(lease, way)),
                (Some(first), Settled::Settled) => {
                    assert_eq!(way, *first, "what was settled otherwise is not settled so");
                    reached.settled_again += 1;
                }
                (Some(first), Settled::Lost) => reached.settled_otherwise += u64::from(way != *first),
                (None, Settled::Lost) => {}
            }
        }
    }

    async fn put(&mut self, place: usize, settings: &QueueSettings) {
        let settings = Arc::new(settings.clone());
        let put = async |stand: &Stand| {
            let name = QUEUES[place].parse().expect("a name");
            match stand.connection.put_queue(name, Arc::clone(&settings)).await.expect("the store answers") {
                Put::Created(entry) => (true, entry),
                Put::Updated(entry) => (false, entry),
                Put::DeclaredInFile => panic!("no file declares it"),
            }
        };
        let (subject, model) = (put(&self.stands.subject).await, put(&self.stands.model).await);
        assert_eq!(
            (subject.0, without_generation(&subject.1)),
            (model.0, without_generation(&model.1)),
            "put"
        );
        if model.0 {
            self.queues[place].push(Both { subject: subject.1.queue_ref(), model: model.1.queue_ref() });
        }
    }

    async fn delete(&mut self, pick: Pick, force: bool, reached: &mut Reached) {
        let Some(queue) = self.queue(pick) else { return };
        let delete = async |stand: &Stand, queue| stand.connection.delete_queue(queue, force).await;
        reached.gone += u64::from(self.ask("delete", &queue, delete).await.is_none());
    }

    async fn restart(&mut self, reached: &mut Reached) {
        if self.stands.subject.is_shared() {
            // Another gateway takes over, and finds everything as it was.
            assert!(self.stands.subject.restart().await, "it keeps everything");
            reached.restarts += 1;
            self.stands.subject.check().await;
        } else if self.stands.subject.restart().await {
            assert!(self.stands.model.restart().await, "the model can");
            // Whether a call is remembered by the next process is left open.
            self.call = None;
            reached.restarts += 1;
            self.stands.subject.check().await;
        }
    }

    async fn find(&self, (queue, id): (usize, MessageId)) {
        let Some(queue) = self.queue(Pick { queue, old: false }) else { return };
        self.ask("find", &queue, async |stand, queue| stand.connection.find(queue, id).await).await;
        self.ask("dead", &queue, async |stand, queue| stand.connection.dead(queue, id).await).await;
    }

    async fn browse(&self, pick: Pick) {
        let Some(queue) = self.queue(pick) else { return };
        let list = async |stand: &Stand, queue: QueueRef| {
            let (mut all, mut cursor): (Vec<DeadLetter>, _) = (Vec::new(), None);
            loop {
                let page =
                    stand.connection.list_dead(queue.clone(), DeadFilter::default(), cursor, 2).await?;
                all.extend(page.letters);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(all);
                }
            }
        };
        self.ask("list dead", &queue, list).await;
        for by in [DeadGrouping::Reason, DeadGrouping::Status] {
            self.ask("groups", &queue, async |stand, queue| stand.connection.dead_groups(queue, by).await)
                .await;
        }
    }

    /// What holds at the end: every message is where the model has it, and a recount agrees.
    pub(super) async fn finish(&self, reached: &mut Reached) {
        for message in &self.messages {
            self.find(*message).await;
        }
        for queue in 0..QUEUES.len() {
            self.browse(Pick { queue, old: false }).await;
        }
        self.stands.subject.check().await;
        self.stands.model.check().await;
        for stats in self.stands.model.connection.stats(None).await.expect("the model answers") {
            reached.counters.add(&stats.counters);
        }
    }
}

/// The names of a batch, or such that nobody knows.
fn named(names: &Both<BatchRef>, wrong: bool) -> Both<BatchRef> {
    if wrong {
        names.each(|name| BatchRef { token: Token(!name.token.0), ..name.clone() })
    } else {
        names.clone()
    }
}
