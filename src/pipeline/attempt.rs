//! One attempt: from its turn to the report, and from the report to what is settled.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};

use crate::actor::{Guard, panic_text};
use crate::clock::Clock;
use crate::domain::message::Headers;
use crate::domain::outcome::{Attempt, AttemptOutcome, DeadReason, Outcome};
use crate::domain::phases::Phases;
use crate::domain::retry::{RetryPolicy, Verdict, decide};
use crate::domain::timestamp::Timestamp;
use crate::pipeline::batch::{Batch, Ended, Taken};
use crate::pipeline::lanes::{Lane, Left, NoWay, Pass, Recall, Recent};
use crate::pipeline::slots::Slots;
use crate::processor::{Delivery, Processor, Processors, Report, Signal};
use crate::store::Scheduled;

/// How long after a message's time-out its attempt is ended from outside: a processor that keeps its time knows more
/// of why than we do.
pub(super) const MARGIN: Duration = Duration::from_millis(500);

/// How long a message may wait in hand for its turn by its queue's rate.
const TURN_MAX: Duration = Duration::from_secs(1);

/// One lease on a thread: the serial of its batch there, and its index in the batch.
pub(super) type Key = (u64, u16);

/// What the attempts of a thread share.
pub(super) struct Bench {
    pub(super) clock: Clock,
    pub(super) processors: Processors,
    /// One for each attempt that may be under way.
    pub(super) slots: Rc<Slots>,
    /// The lanes of destinations that messages bring.
    pub(super) recent: Recent,
    /// Every lease that has not ended.
    pub(super) in_hand: RefCell<Guard<Key, Taken>>,
}

/// How an attempt ended.
pub(super) enum Finished {
    /// The lease had ended while the attempt waited for its turn.
    NotBegun,
    /// There was no way for it now: it goes back to the head of its queue.
    NoWay,
    /// There was none in its lane: it is put off for that long.
    PutOff(NoWay, Duration),
    /// Its headers are not readable.
    Damaged,
    /// This thread has no such processor.
    NoProcessor,
    /// The processor reported, or was ended.
    Made {
        /// What it reported.
        report: Report,
        /// When it began.
        at: Timestamp,
        /// How long it took.
        took: Duration,
        /// The right to bring forward what waits for the same lane.
        recall: Option<Recall>,
    },
}

impl Finished {
    /// Takes out what is to be done besides ending the lease.
    pub(super) fn take_recall(&mut self) -> Option<Recall> {
        if let Self::Made { recall, .. } = self { recall.take() } else { None }
    }
}

/// Where a message goes.
struct Course {
    /// The lane, if it goes through one.
    lane: Option<Arc<Lane>>,
    /// Whether it was booked there when it was leased: its queue sends there only.
    is_booked: bool,
    /// Whether it is another than the first attempt.
    is_retry: bool,
}

enum Beginning {
    Not(Finished),
    Now(Rc<dyn Processor>, Delivery),
}

/// Waits for its turn, makes the attempt, and tells how it ended.
pub(super) async fn attempt(bench: Rc<Bench>, batch: Arc<Batch>, key: Key) -> (Key, Finished) {
    let Some(course) = bench.course(&batch, &key) else { return (key, Finished::NotBegun) };
    if let Some(lane) = course.lane.as_ref().filter(|_| !course.is_booked) {
        lane.hear(&batch.share).await;
    }
    // The share and the lane first: what waits for them must not keep a slot from another queue's message.
    let _in_flight = batch.share.enter().await;
    let pass = match bench.pass(&batch, &key, course).await {
        Ok(pass) => pass,
        Err(finished) => return (key, finished),
    };
    let _probing = pass.as_ref().filter(|pass| pass.is_probe()).map(|_| batch.share.met.probing());
    let _slot = bench.slots.take(&batch).await;
    let (processor, delivery) = match bench.begin(&batch, &key) {
        Beginning::Now(processor, delivery) => (processor, delivery),
        Beginning::Not(finished) => return (key, finished),
    };
    let (at, began) = (delivery.at, bench.clock.tick());
    let report = make(processor, delivery).await;
    let took = bench.clock.tick().since(began);
    batch.share.took(took);
    let recall = pass.and_then(|pass| {
        let is_booked = pass.is_booked();
        let Left { shut, recall } = pass.end(report.signal, report.error.as_deref(), took);
        if !is_booked {
            let is_tried_again = matches!(report.outcome, Outcome::Retry { .. });
            let shut = shut.filter(|_| is_tried_again);
            batch.share.met.ended(bench.clock.tick(), report.signal, shut);
        }
        recall
    });
    (key, Finished::Made { report, at, took, recall })
}

impl Bench {
    /// Waits for the turn of a message by its queue's rate and then for its lane, if it goes through one.
    async fn pass(&self, batch: &Arc<Batch>, key: &Key, course: Course) -> Result<Option<Pass>, Finished> {
        let has_rate = batch.entry.settings.delivery.rate.is_some();
        if has_rate {
            match batch.share.take_turn(self.clock.tick(), TURN_MAX) {
                Ok(Duration::ZERO) => {}
                Ok(wait) => sleep(wait).await,
                Err(_) => return Err(Finished::NoWay),
            }
        }
        let Course { lane, is_booked, is_retry } = course;
        let Some(lane) = lane else { return Ok(None) };
        match lane.enter(&batch.share, is_retry, is_booked).await {
            Ok(pass) => Ok(Some(pass)),
            Err(no_way) => {
                if has_rate {
                    batch.share.give_back_turn();
                }
                Err(match no_way {
                    NoWay::Shut if is_booked => Finished::NoWay,
                    NoWay::Busy if is_booked && !is_retry => {
                        // Attempts take at least this long now: nothing is leased early.
                        batch.share.took(TURN_MAX);
                        Finished::NoWay
                    }
                    _ => self.put_off(batch, key, &lane, is_booked, no_way),
                })
            }
        }
    }

    fn put_off(&self, batch: &Batch, key: &Key, lane: &Lane, is_booked: bool, no_way: NoWay) -> Finished {
        let message = {
            let in_hand = self.in_hand.borrow();
            let Some(taken) = in_hand.show(key) else { return Finished::NotBegun };
            Scheduled { id: taken.lease.record.id(), attempts: taken.lease.record.attempts() }
        };
        let delay = lane.put_off(&batch.share, &batch.name.queue, message);
        if !is_booked {
            let now = self.clock.tick();
            batch.share.met.put_off(&lane.key, now, now.after(delay));
        }
        Finished::PutOff(no_way, delay)
    }

    /// Where a message goes; `None` when its lease has ended.
    fn course(&self, batch: &Batch, key: &Key) -> Option<Course> {
        let own = |is_retry| Course { lane: batch.lane.clone(), is_booked: batch.is_booked, is_retry };
        let settings = &batch.entry.settings;
        if batch.lane.is_none() && !settings.takes_destinations() {
            return Some(own(false));
        }
        let in_hand = self.in_hand.borrow();
        let lease = &in_hand.show(key)?.lease;
        let is_retry = lease.attempt_number() > 1;
        let headers = lease.record.headers();
        let Some(brought) = Headers::destination_in(&headers) else { return Some(own(is_retry)) };
        Some(Course { lane: self.recent.of(brought), is_booked: false, is_retry })
    }

    fn begin(&self, batch: &Batch, key: &Key) -> Beginning {
        if batch.is_gone.load(Ordering::Relaxed) {
            return Beginning::Not(Finished::NotBegun);
        }
        let mut in_hand = self.in_hand.borrow_mut();
        let Some(taken) = in_hand.start(key) else { return Beginning::Not(Finished::NotBegun) };
        let settings = &batch.entry.settings;
        let Some(processor) = self.processors.named(&settings.processor) else {
            return Beginning::Not(Finished::NoProcessor);
        };
        let Some(headers) = Headers::decode(&taken.lease.record.headers()) else {
            return Beginning::Not(Finished::Damaged);
        };
        let delivery = Delivery {
            record: taken.lease.record.clone(),
            headers,
            queue: batch.entry.name.clone(),
            settings: settings.clone(),
            attempt: taken.lease.attempt_number(),
            at: self.clock.now(),
        };
        Beginning::Now(processor.clone(), delivery)
    }
}

async fn make(processor: Rc<dyn Processor>, delivery: Delivery) -> Report {
    let longest = delivery.timeout() + MARGIN;
    // Everything of the processor's runs inside: its call, its future, and the drop of it.
    let attempt = async move { timeout(longest, async move { processor.process(delivery).await }).await };
    match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(Ok(report)) => report,
        Ok(Err(_elapsed)) => Report { signal: Signal::NoAnswer, ..failed("timeout".to_owned()) },
        Err(panic) => failed(format!("panic: {}", panic_text(panic.as_ref()))),
    }
}

fn failed(error: String) -> Report {
    Report { error: Some(error), ..Outcome::retry().into() }
}

/// Turns how an attempt ended into how its lease ends.
pub(super) fn settle(taken: Taken, finished: Finished, now: Timestamp) -> Ended {
    let (report, at, took) = match finished {
        Finished::Made { report, at, took, .. } => (report, at, took),
        Finished::NotBegun | Finished::NoProcessor | Finished::NoWay => return taken.release(),
        Finished::PutOff(NoWay::Shut, delay) => return end(taken, Verdict::Defer { delay }, None),
        Finished::PutOff(NoWay::Busy, delay) => return end(taken, Verdict::Postpone { delay }, None),
        Finished::Damaged => {
            let detail = Some("its headers cannot be read".to_owned());
            return end(taken, Verdict::Dead { reason: DeadReason::Damaged, detail }, None);
        }
    };
    let note = note(taken.lease.attempt_number(), at, took, &report);
    let verdict = follows(&taken, report.outcome, now);
    end(taken, verdict, note)
}

/// How the lease of a message ends whose attempt was under way when its worker broke.
pub(super) fn lost(taken: Taken, now: Timestamp) -> Ended {
    let verdict = match follows(&taken, Outcome::retry(), now) {
        Verdict::Dead { detail, .. } => Verdict::Dead { reason: DeadReason::Poison, detail },
        other => other,
    };
    let attempt = Attempt {
        number: taken.lease.attempt_number(),
        at: now,
        duration_ms: 0,
        outcome: AttemptOutcome::Lost,
        status: None,
        error: Some("the worker broke".to_owned()),
        excerpt: None,
        phases: Phases::NONE,
        next_at: None,
    };
    end(taken, verdict, Some(attempt))
}

fn follows(taken: &Taken, outcome: Outcome, now: Timestamp) -> Verdict {
    let policy = RetryPolicy::of(&taken.seat.batch.entry.settings, taken.lease.record.attempts_max());
    decide(outcome, taken.lease.attempt_number(), policy, now, fastrand::f64())
}

fn note(number: u8, at: Timestamp, took: Duration, report: &Report) -> Option<Attempt> {
    let (outcome, reason) = match &report.outcome {
        Outcome::Done => (AttemptOutcome::Delivered, None),
        Outcome::Retry { .. } => (AttemptOutcome::Retry, None),
        Outcome::Reject { reason } => (AttemptOutcome::Rejected, Some(reason)),
        Outcome::Undeliverable { reason } => (AttemptOutcome::Undeliverable, Some(reason)),
        Outcome::Deferred { .. } => return None,
    };
    Some(Attempt {
        number,
        at,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        outcome,
        status: report.status,
        error: report.error.as_ref().or(reason).cloned(),
        excerpt: report.excerpt.clone(),
        phases: report.phases,
        next_at: None,
    })
}

fn end(taken: Taken, mut verdict: Verdict, attempt: Option<Attempt>) -> Ended {
    if let Verdict::Dead { reason: DeadReason::Exhausted, detail: detail @ None } = &mut verdict {
        *detail = attempt.as_ref().and_then(|attempt| attempt.error.clone());
    }
    let settlement = Some(taken.lease.settle(verdict, attempt));
    Ended { batch: taken.seat.batch.clone(), settlement }
}
