//! The whole store: its queues, the calls it remembers, and what concerns more than one queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Tick;
use crate::domain::queue::{Generation, QueueName, QueueSettings, Source};
use crate::domain::timestamp::Timestamp;
use crate::store::enqueue::{CallId, Group, GroupResult};
use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth};
use crate::store::lease::{LeaseRequest, Leased};
use crate::store::memory::Now;
use crate::store::memory::queue::Queue;
use crate::store::stats::{QueueStats, Swept};
use crate::store::wake::WakeBoard;
use crate::store::{CALL_MEMORY, Changed, Deleted, Hold, Put, QueueEntry, QueueRef};

/// Everything.
#[derive(Default)]
pub(super) struct State {
    queues: BTreeMap<QueueName, Queue>,
    calls: HashMap<CallId, Vec<GroupResult>>,
    calls_by_age: VecDeque<(Tick, CallId)>,
    /// The most payload and header bytes kept, dead letters included; `None` without end.
    bytes_max: Option<u64>,
    /// Why a 202 means less than `store.durability` says.
    not_as_configured: Option<String>,
    /// The next moment that the last sweep, or a post since, named.
    next_at: Option<Timestamp>,
}

impl State {
    pub(super) fn new(bytes_max: Option<u64>, not_as_configured: Option<String>) -> Self {
        Self { bytes_max, not_as_configured, ..Self::default() }
    }

    /// The queue that a call means.
    pub(super) fn queue(&mut self, queue: &QueueRef) -> Result<&mut Queue, StoreError> {
        let known = self.queues.get_mut(&queue.name);
        known.filter(|known| known.entry.generation == queue.generation).ok_or(StoreError::Gone)
    }

    /// Posts what came up since the last time.
    pub(super) fn post(&mut self, wakes: &WakeBoard) {
        for (name, queue) in &mut self.queues {
            if std::mem::take(&mut queue.woken) && queue.gauges.pending > 0 {
                wakes.post(name);
            }
            if let Some(soonest) = queue.soonest.take()
                && self.next_at.is_none_or(|known| soonest < known)
            {
                self.next_at = Some(soonest);
                wakes.post_time();
            }
        }
    }

    pub(super) fn enqueue(&mut self, call: CallId, groups: &[Group], now: Now) -> Vec<GroupResult> {
        self.forget_calls(now);
        if let Some(results) = self.calls.get(&call) {
            return results.clone();
        }
        let results: Vec<GroupResult> = groups.iter().map(|group| self.store_group(group, now)).collect();
        self.calls.insert(call, results.clone());
        self.calls_by_age.push_back((now.tick, call));
        results
    }

    fn forget_calls(&mut self, now: Now) {
        while let Some((at, call)) = self.calls_by_age.front()
            && now.tick.since(*at) >= CALL_MEMORY
        {
            self.calls.remove(call);
            self.calls_by_age.pop_front();
        }
    }

    fn store_group(&mut self, group: &Group, now: Now) -> GroupResult {
        let full = self.full();
        match self.queue(&group.queue) {
            Ok(queue) => queue.store_group(group, full.as_deref(), now),
            Err(_) => GroupResult::Gone,
        }
    }

    /// Why nothing more is taken: from the moment on when `store.bytes_max` is reached.
    fn full(&self) -> Option<String> {
        let bytes_max = self.bytes_max?;
        let kept =
            |queue: &Queue| queue.gauges.bytes_waiting + queue.gauges.bytes_leased + queue.gauges.bytes_dead;
        let kept: u64 = self.queues.values().map(kept).sum();
        (kept >= bytes_max).then(|| format!("{kept} bytes are kept, store.bytes_max is {bytes_max}"))
    }

    pub(super) fn lease(&mut self, request: &LeaseRequest, now: Now) -> Result<Leased, StoreError> {
        let queue = self.queue(&request.queue)?;
        match queue.lease(request, now) {
            Ok(leased) => {
                queue.newer = None;
                Ok(leased)
            }
            Err(version) => {
                let detail = format!("queue {} holds a record of version {version}", queue.entry.name);
                queue.newer = Some(detail.clone());
                Err(StoreError::Newer(detail))
            }
        }
    }

    pub(super) fn sweep(&mut self, now: Now) -> Swept {
        let mut swept = Swept::default();
        for queue in self.queues.values_mut() {
            queue.sweep(now, &mut swept);
            queue.soonest = None;
        }
        let ready = |queue: &&Queue| queue.gauges.pending > 0 && !queue.is_held();
        swept.ready = self.queues.values().filter(ready).map(|queue| queue.entry.name.clone()).collect();
        swept.next_at = self.queues.values().filter_map(|queue| queue.next_at(now)).min();
        self.next_at = swept.next_at;
        self.forget_calls(now);
        swept
    }

    pub(super) fn hold(&mut self, queue: &QueueRef, hold: &Hold) -> Result<QueueEntry, StoreError> {
        let queue = self.queue(queue)?;
        queue.woken |= queue.entry.hold(hold);
        Ok(queue.entry.clone())
    }

    pub(super) fn entries(&self) -> Vec<QueueEntry> {
        self.queues.values().map(|queue| queue.entry.clone()).collect()
    }

    fn make(&mut self, name: QueueName, settings: Arc<QueueSettings>, source: Source) -> QueueEntry {
        let generation = Generation(fastrand::u64(1..));
        let entry =
            QueueEntry { name: name.clone(), generation, source, settings, paused: false, parked: None };
        self.queues.insert(name, Queue::new(entry.clone()));
        entry
    }

    pub(super) fn put_queue(&mut self, name: QueueName, settings: Arc<QueueSettings>) -> Put {
        match self.queues.get_mut(&name) {
            None => Put::Created(self.make(name, settings, Source::Api)),
            Some(queue) if queue.entry.source == Source::File => Put::DeclaredInFile,
            Some(queue) => {
                queue.set(settings.keeping_secret_of(&queue.entry.settings));
                Put::Updated(queue.entry.clone())
            }
        }
    }

    pub(super) fn change_queue(
        &mut self,
        queue: &QueueRef,
        was: &QueueSettings,
        settings: Arc<QueueSettings>,
    ) -> Result<Changed, StoreError> {
        let queue = self.queue(queue)?;
        Ok(match &queue.entry {
            entry if entry.source == Source::File => Changed::DeclaredInFile,
            entry if *entry.settings != *was => Changed::Otherwise(Arc::clone(&entry.settings)),
            _ => {
                queue.set(settings);
                Changed::Changed(queue.entry.clone())
            }
        })
    }

    pub(super) fn declare(
        &mut self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> (Vec<QueueEntry>, Vec<QueueEntry>) {
        let mut differing = Vec::new();
        for queue in self.queues.values_mut() {
            match queues.iter().find(|(name, _)| *name == queue.entry.name) {
                None => queue.entry.source = Source::Api,
                Some((_, settings)) if *settings != queue.entry.settings => {
                    differing.push(queue.entry.clone());
                }
                Some(_) => {}
            }
        }
        for (name, settings) in queues {
            match self.queues.get_mut(&name) {
                None => {
                    self.make(name, settings, Source::File);
                }
                Some(queue) => {
                    queue.entry.source = Source::File;
                    queue.set(settings);
                }
            }
        }
        self.queues.values_mut().for_each(Queue::unpark_when_below);
        (self.entries(), differing)
    }

    pub(super) fn delete_queue(&mut self, queue: &QueueRef, force: bool) -> Result<Deleted, StoreError> {
        let known = self.queue(queue)?;
        if known.entry.source == Source::File {
            return Ok(Deleted::DeclaredInFile);
        }
        if !force && !known.messages.is_empty() {
            return Ok(Deleted::NotEmpty);
        }
        self.queues.remove(&queue.name);
        Ok(Deleted::Deleted)
    }

    pub(super) fn stats(&self, names: Option<&[QueueName]>) -> Vec<QueueStats> {
        let wanted = |queue: &&Queue| names.is_none_or(|names| names.contains(&queue.entry.name));
        self.queues.values().filter(wanted).map(Queue::stats).collect()
    }

    pub(super) fn health(&self) -> StoreHealth {
        StoreHealth {
            reachable: true,
            latency: None,
            durability: Durability::None,
            durability_reasons: self.not_as_configured.iter().cloned().collect(),
            full: self.full(),
            newer: self.queues.values().find_map(|queue| queue.newer.clone()),
            unswept: None,
            warnings: Vec::new(),
            troubles: Vec::new(),
        }
    }

    pub(super) fn audit(&self) -> Vec<String> {
        self.queues.values().flat_map(Queue::audit).collect()
    }

    /// What a restart of the process means.
    pub(super) fn reopen(&mut self, now: Now) {
        self.calls.clear();
        self.calls_by_age.clear();
        self.next_at = None;
        for queue in self.queues.values_mut() {
            queue.reopen(now);
        }
    }
}
