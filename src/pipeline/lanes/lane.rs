//! One lane: everything that this gateway sends to one origin.

use std::fmt;
use std::pin::pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::{Clock, Tick};
use crate::domain::format::duration;
use crate::pipeline::lanes::ask::{Answer, Ask, Ended, Passage, Wish};
use crate::pipeline::lanes::backlog::Backlog;
use crate::pipeline::lanes::breaker::{Change, Phase};
use crate::pipeline::lanes::gate::Gate;
use crate::pipeline::lanes::judge::judge;
use crate::pipeline::lanes::openings::Openings;
use crate::pipeline::lanes::recall::Recall;
use crate::pipeline::lanes::row::{Turn, WAIT_MAX};
use crate::pipeline::lanes::why::Why;
use crate::pipeline::pace::Pace;
use crate::pipeline::places::Places;
use crate::pipeline::share::Share;
use crate::processor::Signal;
use crate::store::{QueueRef, Scheduled};

/// One lane. On its way through it a message takes its lock twice, once more where nobody ever answered, each time for some
/// arithmetic.
pub(in crate::pipeline) struct Lane {
    pub(in crate::pipeline) key: Arc<str>,
    pub(super) clock: Clock,
    openings: Arc<Openings>,
    gate: Mutex<Gate>,
    /// Messages leased of queues that send here only, and those of others in flight.
    booked: AtomicUsize,
    /// Whether anybody ever answered there, and its breaker has not opened since.
    is_heard: AtomicBool,
    /// Rung when that changes, and when the breaker does.
    heard: Notify,
    backlog: Mutex<Backlog>,
    /// Whether there is something in it.
    has_backlog: AtomicBool,
}

impl fmt::Debug for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lane").field("key", &self.key).finish_non_exhaustive()
    }
}

/// There is no way through a lane now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::pipeline) enum NoWay {
    /// Nobody may pass.
    Shut,
    /// Others are before it.
    Busy,
}

/// What an attempt that ended leaves to do.
pub(in crate::pipeline) struct Left {
    /// The key of its lane where that is shut now, and until when.
    pub(in crate::pipeline) shut: Option<(Arc<str>, Tick)>,
    /// The right to bring forward what the lane put off, where there is something and the destination answered.
    pub(in crate::pipeline) recall: Option<Recall>,
}

/// The right to make one attempt. Whoever drops it without telling how it ended has learnt nothing.
pub(in crate::pipeline) struct Pass {
    lane: Arc<Lane>,
    passage: Passage,
    wait: Duration,
    is_ended: bool,
}

impl Lane {
    pub(super) fn new(
        key: &str,
        most: u32,
        pace: Option<Pace>,
        clock: Clock,
        openings: Arc<Openings>,
        backlog: Backlog,
    ) -> Self {
        let gate = Mutex::new(Gate::new(most, pace, clock.tick()));
        Self {
            key: key.into(),
            clock,
            openings,
            gate,
            booked: AtomicUsize::new(0),
            is_heard: AtomicBool::new(false),
            heard: Notify::new(),
            backlog: Mutex::new(backlog),
            has_backlog: AtomicBool::new(false),
        }
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing that can panic is done under this lock.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to lease up to `wanted` messages of a queue for this lane, which its share counts already, of them up to
    /// `early` before they have a place there; gives how many, or how long it is in vain to ask.
    pub(in crate::pipeline) fn book(
        &self,
        share: &Share,
        wanted: usize,
        early: usize,
    ) -> Result<usize, Duration> {
        let now = self.clock.tick();
        let wish = Wish {
            queue: key(share),
            own: share.leased().saturating_sub(wanted),
            wanted,
            early,
            at_once: share.limit(),
        };
        let mut gate = self.gate();
        let booked = self.booked.load(Ordering::Acquire);
        let count = gate.bookable(now, booked, wish).map_err(|until| until.since(now))?;
        // Under the lock nobody else adds.
        self.booked.fetch_add(count, Ordering::AcqRel);
        Ok(count)
    }

    /// Notes that a queue has nothing more to lease now: others need not leave its part to it.
    pub(in crate::pipeline) fn has_enough(&self, share: &Share) {
        self.gate().claims.has_enough(key(share));
    }

    /// Takes the right to lease so many, whatever holds.
    pub(in crate::pipeline) fn book_anyway(&self, count: usize) {
        self.booked.fetch_add(count, Ordering::AcqRel);
    }

    /// Gives back the right to lease so many.
    pub(in crate::pipeline) fn give_back(&self, count: usize) {
        self.booked.fetch_sub(count, Ordering::AcqRel);
    }

    /// Messages leased for it, or in flight.
    pub(super) fn booked(&self) -> usize {
        self.booked.load(Ordering::Relaxed)
    }

    /// Waits for a moment while what that queue has in flight here is to show whether anybody answers. Who waits here has no place of
    /// its queue yet: those go to lanes of which more is known.
    pub(in crate::pipeline) async fn hear(&self, share: &Share) {
        if self.is_heard.load(Ordering::Relaxed) {
            return;
        }
        let mut heard = pin!(self.heard.notified());
        // Before the look, so that no word is lost between.
        heard.as_mut().enable();
        let rest = { self.gate().unheard(self.clock.tick(), key(share), share.limit()) };
        if let Some(rest) = rest {
            // What it finds out then is the gate's to say.
            drop(timeout(rest, heard).await);
        }
    }

    /// Waits for the right to make an attempt of a message of that queue, for as long as it may be waited for in hand.
    pub(in crate::pipeline) async fn enter(
        self: &Arc<Self>,
        share: &Arc<Share>,
        is_retry: bool,
        is_booked: bool,
    ) -> Result<Pass, NoWay> {
        loop {
            let places = if is_booked { Places::ENOUGH } else { share.places() };
            let ask = Ask { queue: key(share), is_retry, is_booked, places };
            let answer = self.gate().ask(self.clock.tick(), ask, share);
            let pass = match answer {
                Answer::Pass(passage, wait) => Pass::new(self, passage, wait),
                Answer::Shut => return Err(NoWay::Shut),
                Answer::Busy => return Err(NoWay::Busy),
                Answer::Wait(turn) => match self.wait(turn).await {
                    Some(Ok(pass)) => pass,
                    // It was shut meanwhile.
                    Some(Err(_)) => continue,
                    None => {
                        self.gate().tidy(self.clock.tick(), ask.queue, !is_booked);
                        return Err(NoWay::Busy);
                    }
                },
            };
            if !pass.wait.is_zero() {
                sleep(pass.wait).await;
            }
            return Ok(pass);
        }
    }

    fn is_moving(&self) -> bool {
        self.gate().pulse.is_moving(self.clock.tick())
    }

    /// Waits in hand for a turn; `None` when it takes too long.
    async fn wait(self: &Arc<Self>, turn: Turn) -> Option<Result<Pass, RecvError>> {
        let Turn { mut told, patience, look } = turn;
        let mut until = Instant::now() + patience;
        let mut was_extended = false;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            match timeout(rest.min(look), &mut told).await {
                Ok(told) => return Some(told),
                // A turn of the rate comes by itself, not when an attempt ends.
                Err(_) if look < rest => self.hand_out(),
                // It may be this gateway that stood still.
                Err(_) if !was_extended && patience < WAIT_MAX && self.is_moving() => {
                    was_extended = true;
                    until = Instant::now() + patience;
                }
                Err(_) => return None,
            }
        }
    }

    /// How long a message of that queue is put off that found no way. Where that is because nobody answers it is remembered.
    pub(in crate::pipeline) fn put_off(
        &self,
        share: &Share,
        queue: &QueueRef,
        message: Scheduled,
    ) -> Duration {
        let now = self.clock.tick();
        let (delay, is_unanswered) = { self.gate().put_off(now, key(share), fastrand::f64()) };
        if is_unanswered {
            let mut backlog = self.backlog();
            backlog.add(now, queue, message, delay);
            self.has_backlog.store(!backlog.is_empty(), Ordering::Relaxed);
        }
        delay
    }

    /// The right to bring forward what it put off, if there is something and nobody has it.
    fn recall(self: &Arc<Self>) -> Option<Recall> {
        (self.has_backlog.load(Ordering::Relaxed) && self.backlog().follow()).then(|| Recall::of(self))
    }

    /// Gives back the right to bring messages forward.
    pub(super) fn leave_backlog(&self) {
        let mut backlog = self.backlog();
        backlog.leave();
        self.has_backlog.store(!backlog.is_empty(), Ordering::Relaxed);
    }

    pub(super) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        // Nothing that can panic is done under this lock.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing passes, and until when.
    pub(super) fn why_shut(&self) -> Option<(Tick, Why)> {
        self.gate().why_shut(self.clock.tick())
    }

    /// The same; also said of one that is half open and not probed at this moment.
    pub(super) fn why_put_off(&self) -> Option<(Tick, Why)> {
        let (gate, now) = (self.gate(), self.clock.tick());
        let is_half_open = gate.phase(now) == Phase::HalfOpen;
        gate.why_shut(now).or_else(|| is_half_open.then(|| (now, Why::Probe(String::new()))))
    }

    /// Gives what is shown of its breaker from now on.
    fn end(
        self: &Arc<Self>,
        passage: &Passage,
        signal: Signal,
        error: Option<&str>,
        took: Duration,
    ) -> Phase {
        let judgement = judge(signal, self.clock.now());
        let now = self.clock.tick();
        let (ended, shut, phase, is_waited_for) = {
            let mut gate = self.gate();
            let ended = gate.ended(now, passage, judgement, took, fastrand::f64());
            if let Some(error) = error.filter(|_| signal == Signal::NoAnswer) {
                gate.note(error);
            } else if let Signal::Answered { status, .. } = signal
                && ended.change != Change::None
            {
                gate.note(&format!("status {status}"));
            }
            let shut = gate.waiters_of_shut(now);
            let is_heard = gate.pulse.has_answered();
            if is_heard != self.is_heard.load(Ordering::Relaxed) || ended.change != Change::None {
                self.is_heard.store(is_heard, Ordering::Relaxed);
                self.heard.notify_waiters();
            }
            (ended, shut, gate.phase(now), gate.is_waited_for())
        };
        if !passage.ask.is_booked {
            self.give_back(1);
        }
        drop(shut);
        if is_waited_for {
            self.hand_out();
        }
        self.tell(&ended, error, phase, now);
        phase
    }

    /// Lets those in who wait, as far as there is room.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let next = { self.gate().next(self.clock.tick()) };
            let Some((passage, wait, told)) = next else { return };
            // Who has gone meanwhile gives it back here, outside of the lock.
            drop(told.send(Pass::new(self, passage, wait)));
        }
    }

    fn tell(&self, ended: &Ended, error: Option<&str>, phase: Phase, now: Tick) {
        let key = &*self.key;
        match ended.change {
            Change::Opened => {
                let open_for = if let Phase::Open(until) = phase { until.since(now) } else { Duration::ZERO };
                let cause = error.unwrap_or("it answers that it cannot");
                self.openings.say(log::logger(), now, key, cause, open_for);
            }
            Change::OpenedAgain => log::debug!("lane.key" = key; "a probe failed: the breaker stays open"),
            Change::Closed => log::info!("lane.key" = key; "a breaker closed: the destination answers again"),
            Change::None => self.openings.look(log::logger(), now),
        }
        if let Some(until) = ended.held_until {
            let held_for = duration::show(Duration::from_millis(millis(until.since(now))));
            log::info!("lane.key" = key, "for" = held_for.as_str(); "a destination asked for a pause: nothing is sent there meanwhile");
        }
    }
}

impl Pass {
    fn new(lane: &Arc<Lane>, passage: Passage, wait: Duration) -> Self {
        if !passage.ask.is_booked {
            lane.book_anyway(1);
        }
        Self { lane: lane.clone(), passage, wait, is_ended: false }
    }

    /// Whether it was booked: its queue sends there only.
    pub(in crate::pipeline) fn is_booked(&self) -> bool {
        self.passage.ask.is_booked
    }

    /// Whether the attempt finds out if there is an answer again.
    pub(in crate::pipeline) fn is_probe(&self) -> bool {
        self.passage.admitted.is_probe
    }

    /// Tells how the attempt ended; gives what is left to do.
    pub(in crate::pipeline) fn end(mut self, signal: Signal, error: Option<&str>, took: Duration) -> Left {
        self.is_ended = true;
        let shut = match self.lane.end(&self.passage, signal, error, took) {
            Phase::Open(until) => Some((self.lane.key.clone(), until)),
            Phase::Closed | Phase::HalfOpen => None,
        };
        let is_answered = matches!(signal, Signal::Answered { .. });
        let recall = if is_answered && shut.is_none() { self.lane.recall() } else { None };
        Left { shut, recall }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_ended {
            self.lane.end(&self.passage, Signal::Nothing, None, Duration::ZERO);
        }
    }
}

/// What names a queue: where its share is, of which it has one as long as anything of it is under way.
fn key(share: &Share) -> usize {
    ptr::from_ref(share).addr()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
