//! Ends leases: what became of each message is told to the store, a batch at a time.
//!
//! # What it does
//! Gathers the settlements of each batch on a sheet. A sheet goes to the store when its batch is whole; one whose batch
//! has a straggler goes as it is after `workers.settle_wait`, so that a slow message never holds back its mates. All
//! verdicts of a sheet, acks, retries and deaths alike, are one call.
//!
//! # What it waits for
//! The worker; the oldest sheet's time; the store. `workers.settle_calls_max` calls are under way at a time.
//!
//! # What it guarantees
//! Every settlement that it took is sent until its outcome is known or its lease is over. To send it again changes
//! nothing: the store counts it once. Sheets outlive a panic of the actor. Its mailbox has room for all that a worker
//! holds, and nothing is leased while more than `workers.unsettled_max` wait here.
//!
//! # When it fails
//! With the store away it tries again, ever more slowly, until [`AFTER_LEASE`] beyond the end of the lease; then the
//! sheet is dropped with a warning: the store gives those messages out again. At the deadline of its shutdown phase it
//! drops what is left, in the same way.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use crate::actor::{Actor, Exit, Inbox, Life};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::batch::{Batch, Ended, Held};
use crate::pipeline::settings::WorkerSettings;
use crate::pipeline::{after, is_late, until_late};
use crate::store::MessageStore;
use crate::store::error::StoreError;
use crate::store::lease::{BatchId, Settled, Settlement};

/// How long after its end a lease is still worth settling: the store judges by its own clock, and may have stood
/// still itself. A settlement that comes too late is answered `lost` and changes nothing.
const AFTER_LEASE: Duration = Duration::from_secs(5);
/// Messages taken from the mailbox in one go.
const TAKE_MAX: usize = 1_024;

/// The settlements of one batch.
struct Sheet {
    batch: Arc<Batch>,
    /// Leases of the batch of which nothing was heard yet.
    open: usize,
    gathered: Vec<Settlement>,
    /// What a call under way carries.
    sent: Option<Arc<Vec<Settlement>>>,
}

/// All sheets of a thread; they outlive the actor.
#[derive(Default)]
pub(super) struct Sheets {
    by_batch: HashMap<BatchId, Sheet>,
    /// When which sheet is to be sent, whole or not; in the order of time.
    due: VecDeque<(Instant, BatchId)>,
    /// Whole ones, to be sent at once.
    whole: VecDeque<BatchId>,
    settlements: usize,
}

impl Sheets {
    fn add(&mut self, ended: Ended, due_at: Instant) {
        let id = ended.batch.name.batch;
        let sheet = self.by_batch.entry(id).or_insert_with(|| {
            let open = usize::from(ended.batch.size);
            Sheet { gathered: Vec::with_capacity(open), open, sent: None, batch: ended.batch }
        });
        sheet.open = sheet.open.saturating_sub(1);
        if let Some(settlement) = ended.settlement {
            if sheet.gathered.is_empty() && sheet.open > 0 {
                self.due.push_back((due_at, id));
            }
            sheet.gathered.push(settlement);
            self.settlements += 1;
        }
        if sheet.open == 0 {
            self.whole.push_back(id);
        }
    }

    /// The next sheet to send: a whole one, else one whose time has come; with `all` set, any that has something.
    fn next(&mut self, now: Instant, all: bool) -> Option<BatchId> {
        while let Some(id) = self.whole.pop_front() {
            if self.is_sendable(id) {
                return Some(id);
            }
        }
        while let Some((_, id)) = self.due.pop_front_if(|(at, _)| all || *at <= now) {
            if self.is_sendable(id) {
                return Some(id);
            }
        }
        None
    }

    /// Whether there is something to send and no call of the same batch under way; forgets the batch when it is over.
    fn is_sendable(&mut self, id: BatchId) -> bool {
        let Some(sheet) = self.by_batch.get(&id) else { return false };
        if sheet.sent.is_some() {
            return false;
        }
        if sheet.gathered.is_empty() && sheet.open == 0 {
            self.by_batch.remove(&id);
            return false;
        }
        !sheet.gathered.is_empty()
    }

    /// Takes what is to be sent of a sheet.
    fn send(&mut self, id: BatchId) -> Option<(Arc<Batch>, Arc<Vec<Settlement>>)> {
        let sheet = self.by_batch.get_mut(&id)?;
        let settlements = Arc::new(std::mem::take(&mut sheet.gathered));
        sheet.sent = Some(settlements.clone());
        Some((sheet.batch.clone(), settlements))
    }

    /// Notes that a call is over, whatever came of it.
    fn sent(&mut self, id: BatchId, now: Instant) {
        let Some(sheet) = self.by_batch.get_mut(&id) else { return };
        self.settlements -= sheet.sent.take().map_or(0, |settlements| settlements.len());
        if sheet.open == 0 {
            self.whole.push_back(id);
        } else if !sheet.gathered.is_empty() {
            self.due.push_back((now, id));
        }
    }
}

/// What a call came to.
enum Outcome {
    Settled {
        lost: usize,
    },
    /// The queue is no more.
    Gone,
    GivenUp(StoreError),
}

type Call = LocalBoxFuture<'static, (BatchId, Outcome)>;

/// The actor.
pub(super) struct Settler {
    pub(super) store: Rc<dyn MessageStore>,
    pub(super) settings: Arc<WorkerSettings>,
    pub(super) sheets: Arc<Mutex<Sheets>>,
    pub(super) held: Arc<Held>,
}

impl Actor for Settler {
    type Message = Ended;

    async fn run(&mut self, inbox: &mut Inbox<Ended>, life: &Life) -> Exit {
        let mut calls = FuturesUnordered::new();
        let unfinished: Vec<BatchId> = {
            let sheets = self.sheets();
            sheets.by_batch.iter().filter(|(_, sheet)| sheet.sent.is_some()).map(|(id, _)| *id).collect()
        };
        for id in unfinished {
            // The life before this one broke while it was with the store: once more does no harm.
            let sheet =
                self.sheets().by_batch.get(&id).map(|sheet| (sheet.batch.clone(), sheet.sent.clone()));
            if let Some((batch, Some(settlements))) = sheet {
                calls.push(self.call(batch, settlements));
            }
        }
        let mut ended = Vec::with_capacity(TAKE_MAX);
        let (mut stopping, mut late) = (pin!(life.stopping()), pin!(until_late(life)));
        // Once nobody can send any more, waiting for batch mates is in vain, as it is when stopping.
        let mut is_closed = false;
        loop {
            life.beat();
            let is_stopping = life.is_stopping();
            self.start_calls(&mut calls, is_stopping || is_closed);
            let (left, next_due) = {
                let sheets = self.sheets();
                self.held.unsettled_are(sheets.settlements + inbox.depth());
                (sheets.settlements, sheets.due.front().map(|(at, _)| *at))
            };
            let is_done = left == 0 && inbox.depth() == 0;
            if (is_done && (is_stopping || is_closed)) || is_late(life) {
                if left > 0 {
                    log::warn!("count" = left; "the store did not take the last settlements in time");
                }
                return Exit::Done;
            }
            let may_call = calls.len() < usize::from(self.settings.settle_calls_max);
            tokio::select! {
                biased;
                Some((id, outcome)) = calls.next(), if !calls.is_empty() => self.ended(id, outcome),
                count = inbox.next_many(&mut ended, TAKE_MAX), if !is_closed => {
                    is_closed = count == 0;
                    self.add(&mut ended);
                }
                () = after(next_due), if may_call => {}
                () = &mut stopping, if !is_stopping => {}
                () = &mut late => {}
            }
        }
    }
}

impl Settler {
    fn add(&self, ended: &mut Vec<Ended>) {
        let due_at = Instant::now() + self.settings.settle_wait;
        let mut sheets = self.sheets();
        for ended in ended.drain(..) {
            sheets.add(ended, due_at);
        }
    }

    fn start_calls(&self, calls: &mut FuturesUnordered<Call>, all: bool) {
        let now = Instant::now();
        while calls.len() < usize::from(self.settings.settle_calls_max) {
            let next = {
                let mut sheets = self.sheets();
                sheets.next(now, all).and_then(|id| sheets.send(id))
            };
            let Some((batch, settlements)) = next else { return };
            calls.push(self.call(batch, settlements));
        }
    }

    fn ended(&self, id: BatchId, outcome: Outcome) {
        let mut sheets = self.sheets();
        if let Some(sheet) = sheets.by_batch.get(&id) {
            let (queue, count) =
                (sheet.batch.entry.name.as_str(), sheet.sent.as_ref().map_or(0, |sent| sent.len()));
            match outcome {
                Outcome::Settled { lost: 0 } => {}
                Outcome::Settled { lost } => {
                    log::info!("queue.name" = queue, "lost" = lost; "leases were over before they could be settled");
                }
                Outcome::Gone => {
                    log::debug!("queue.name" = queue, "count" = count; "settled for a queue that is gone");
                }
                Outcome::GivenUp(error) => {
                    let cause = error.to_string();
                    log::warn!(
                        "queue.name" = queue, "count" = count, "cause" = cause.as_str();
                        "leases ended before the store took their settlement: the messages are given out again"
                    );
                }
            }
        }
        sheets.sent(id, Instant::now());
        drop(sheets);
        self.held.freed.notify_one();
    }

    fn call(&self, batch: Arc<Batch>, settlements: Arc<Vec<Settlement>>) -> Call {
        let store = self.store.clone();
        Box::pin(async move {
            let mut backoff = Backoff::default();
            let outcome = loop {
                match store.settle(batch.name.clone(), settlements.clone()).await {
                    Ok(results) => {
                        let lost = results.iter().filter(|result| **result == Settled::Lost).count();
                        break Outcome::Settled { lost };
                    }
                    Err(StoreError::Gone) => break Outcome::Gone,
                    Err(error) if Instant::now() >= batch.until.now() + AFTER_LEASE => {
                        break Outcome::GivenUp(error);
                    }
                    Err(error) => {
                        if !backoff.is_failing() {
                            let cause = error.to_string();
                            log::debug!("cause" = cause.as_str(); "a settlement is sent again");
                        }
                        sleep(backoff.failed()).await;
                    }
                }
            };
            (batch.name.batch, outcome)
        })
    }

    fn sheets(&self) -> MutexGuard<'_, Sheets> {
        self.sheets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
