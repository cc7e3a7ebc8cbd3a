//! What one lane knows, and who may pass: the decisions of a lane behind its lock. Pure but for who waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Tick;
use crate::pipeline::lanes::breaker::{Admitted, Breaker, Change, Health, PROBE_LOOK, Phase};
use crate::pipeline::lanes::claims::{Claims, Standing};
use crate::pipeline::lanes::concurrency::{Limit, Load};
use crate::pipeline::lanes::judge::Judgement;
use crate::pipeline::lanes::lane::Pass;
use crate::pipeline::lanes::line::Line;
use crate::pipeline::mean;
use crate::pipeline::pace::Pace;

/// How far ahead of its turn a message may be leased where there is a rate.
const AHEAD: Duration = Duration::from_millis(50);
/// How long a message may wait in hand for its lane.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Of one queue with many destinations that many may wait for a lane in hand: they keep places of their queue from messages to
/// other lanes.
const ROW_MAX: usize = 4;
/// The errors shown are about this long.
const CAUSE_BYTES_MAX: usize = 120;

/// Somebody who wants to pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Which queue: the address of its share.
    pub(super) queue: usize,
    /// Whether it is another than the first attempt.
    pub(super) is_retry: bool,
    /// Whether it was booked: its queue sends here only.
    pub(super) is_booked: bool,
    /// What its queue may still have in flight anywhere.
    pub(super) free: usize,
}

/// A queue that sends here only and would lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Which queue: the address of its share.
    pub(super) queue: usize,
    /// Messages that it has leased.
    pub(super) own: usize,
    /// Messages that it would lease besides.
    pub(super) wanted: usize,
    /// Of `at_once` that it may have in flight that many more may be leased before they have a place.
    pub(super) early: usize,
    pub(super) at_once: usize,
}

/// What a passage is ended with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    pub(super) ask: Ask,
    admitted: Admitted,
    limit_epoch: u32,
    generation: u32,
}

/// The answer to who wants to pass.
pub(super) enum Answer {
    /// It may, after that long.
    Pass(Passage, Duration),
    /// It is told when it may.
    Wait(oneshot::Receiver<Pass>),
    /// Nobody may now.
    Shut,
    /// Others are before it.
    Busy,
}

/// What is to be said of the end of a passage.
pub(super) struct Ended {
    pub(super) change: Change,
    /// Until when the lane is held from now on, when it was not before.
    pub(super) held_until: Option<Tick>,
}

/// Somebody who waits in hand.
pub(super) struct Waiter {
    ask: Ask,
    told: oneshot::Sender<Pass>,
}

/// What one queue has in a lane.
struct Row {
    queue: usize,
    in_flight: usize,
    waiters: VecDeque<Waiter>,
}

/// Why a lane is shut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its breaker is open; what happened last.
    Breaker(String),
    /// Its breaker is half open, and an attempt under way finds out; what happened last.
    Probe(String),
    /// The destination asked for a pause.
    Held,
    /// Its rate is used up.
    Rate,
}

pub(super) struct Gate {
    breaker: Breaker,
    pub(super) limit: Limit,
    pub(super) pace: Option<Pace>,
    hold: Option<Tick>,
    most: u32,
    /// Grows when the lane is shut: what is in flight then counts for [`Gate::most`] only.
    generation: u32,
    /// Of this generation.
    in_flight: u32,
    retries: u32,
    pub(super) in_flight_of_all: u32,
    rows: VecDeque<Row>,
    /// Queues that send here only and want more than they got.
    pub(super) claims: Claims,
    line: Line,
    /// How long an attempt takes, microseconds, as a moving mean; 0 before the first.
    attempt_us: u64,
    probe_booked: Option<Tick>,
    cause: String,
    pub(super) used_at: Tick,
}

impl Gate {
    pub(super) fn new(most: u32, pace: Option<Pace>, now: Tick) -> Self {
        Self {
            breaker: Breaker::default(),
            limit: Limit::new(most),
            pace,
            hold: None,
            most: most.max(1),
            generation: 0,
            in_flight: 0,
            retries: 0,
            in_flight_of_all: 0,
            rows: VecDeque::new(),
            claims: Claims::default(),
            line: Line::default(),
            attempt_us: 0,
            probe_booked: None,
            cause: String::new(),
            used_at: now,
        }
    }

    /// What is shown of the breaker: a lane that is held is as good as open.
    pub(super) fn phase(&self, now: Tick) -> Phase {
        match self.held_until(now) {
            Some(until) => Phase::Open(until),
            None => self.breaker.phase(now),
        }
    }

    pub(super) fn held_until(&self, now: Tick) -> Option<Tick> {
        self.hold.filter(|until| now < *until)
    }

    /// Before when nothing may pass, if that is so.
    pub(super) fn shut_until(&self, now: Tick) -> Option<Tick> {
        self.held_until(now).max(self.breaker.shut_until(now))
    }

    /// Why, and until when.
    pub(super) fn why_shut(&self, now: Tick) -> Option<(Tick, Why)> {
        if let Some(until) = self.held_until(now) {
            return Some((until, Why::Held));
        }
        if let Some(until) = self.breaker.shut_until(now) {
            let cause = self.cause.clone();
            let is_open = matches!(self.breaker.phase(now), Phase::Open(_));
            return Some((until, if is_open { Why::Breaker(cause) } else { Why::Probe(cause) }));
        }
        let wait = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.wait(now));
        (wait > WAIT_MAX).then(|| (now.after(wait), Why::Rate))
    }

    /// How many messages may be leased for this lane when `booked` are already; else before when it is in vain to ask. While
    /// several queues want more than there is, each may have its part.
    pub(super) fn bookable(&mut self, now: Tick, booked: usize, wish: Wish) -> Result<usize, Tick> {
        if let Some(until) = self.shut_until(now) {
            return Err(until);
        }
        if self.breaker.phase(now) == Phase::HalfOpen {
            // One finds out; a queue that turns out to be empty keeps the others waiting for no longer than this.
            if let Some(until) = self.probe_booked.map(|at| at.after(PROBE_LOOK)).filter(|until| now < *until)
            {
                return Err(until);
            }
            self.probe_booked = Some(now);
            return Ok(wish.wanted.min(1));
        }
        let limit = self.limit.now() as usize;
        let early = wish.early.min(wish.early * limit / wish.at_once.max(1));
        let standing = self.claims.standing(now, wish.queue);
        // All come to the same receiver: who never sent to it leases as far ahead as the others do.
        let capacity = limit + early.max(standing.early);
        let left_over = (self.in_flight_of_all - self.in_flight) as usize;
        let own = booked.saturating_sub(left_over);
        let most = self.most as usize + capacity - limit;
        let room = capacity.saturating_sub(own).min(most.saturating_sub(booked));
        let turns = self.turns(now, booked, standing);
        let count = room.min(wish.wanted).min(standing.places(capacity, wish.own)).min(turns);
        if count == wish.wanted {
            self.claims.has_enough(wish.queue);
        } else {
            let is_done = match &self.pace {
                Some(pace) => standing.taken + count >= standing.part(pace.burst(AHEAD)).max(1),
                None => count > 0 && wish.own + count > standing.part(capacity),
            };
            self.claims.wants_more(now, wish.queue, count, is_done, early);
        }
        match &self.pace {
            Some(pace) if turns == 0 && room > 0 => Err(now.after(pace.wait(now).max(AHEAD / 5))),
            _ => Ok(count),
        }
    }

    /// Turns of the rate that are for who stands like this.
    fn turns(&self, now: Tick, booked: usize, standing: Standing) -> usize {
        let Some(pace) = &self.pace else { return usize::MAX };
        let not_begun = booked.saturating_sub(self.in_flight_of_all as usize);
        pace.turns(now, AHEAD).saturating_sub(not_begun).min(standing.turns(pace.burst(AHEAD)))
    }

    /// Lets somebody pass, or says what to do.
    pub(super) fn ask(&mut self, now: Tick, ask: Ask) -> Answer {
        self.used_at = now;
        if self.shut_until(now).is_some() {
            return Answer::Shut;
        }
        if self.has_room(now, ask) {
            return match self.pass(now, ask) {
                Some((passage, wait)) => Answer::Pass(passage, wait),
                None => Answer::Shut,
            };
        }
        let is_patient = ask.is_booked && !ask.is_retry;
        if !is_patient && !self.is_soon(ask) {
            return Answer::Busy;
        }
        let (told, turn) = oneshot::channel();
        self.row(ask.queue).waiters.push_back(Waiter { ask, told });
        Answer::Wait(turn)
    }

    /// Lets somebody pass whom nothing but breaker and rate can keep from it now.
    fn pass(&mut self, now: Tick, ask: Ask) -> Option<(Passage, Duration)> {
        let wait = match &mut self.pace {
            Some(pace) => pace.take(now, WAIT_MAX).ok()?,
            None => Duration::ZERO,
        };
        let admitted = self.breaker.admit(now).ok()?;
        self.in_flight += 1;
        self.in_flight_of_all += 1;
        self.retries += u32::from(ask.is_retry);
        self.row(ask.queue).in_flight += 1;
        self.limit.in_flight(self.in_flight);
        let (limit_epoch, generation) = (self.limit.epoch(), self.generation);
        Some((Passage { ask, admitted, limit_epoch, generation }, wait))
    }

    /// Whether one more may be in flight. Of a queue with many destinations a lane may have as many as the queue has places left for
    /// others, so the first one may have half of them.
    fn has_room(&self, now: Tick, ask: Ask) -> bool {
        if self.in_flight_of_all >= self.most {
            return false;
        }
        if self.breaker.phase(now) == Phase::HalfOpen {
            return true;
        }
        let own = self.rows.iter().find(|row| row.queue == ask.queue).map_or(0, |row| row.in_flight);
        self.in_flight < self.limit.now()
            && (!ask.is_retry || self.retries < self.limit.of_retries())
            && (ask.is_booked || own == 0 || own < ask.free.min(self.part(now, ask.queue)))
    }

    /// What a queue with many destinations may have in flight here: all, unless queues that send here only want more.
    fn part(&self, now: Tick, queue: usize) -> usize {
        let claims = self.claims.others(now, queue);
        if claims == 0 {
            return usize::MAX;
        }
        let is_other = |row: &&Row| row.queue != queue && !self.claims.has(row.queue);
        self.limit.now() as usize / (1 + claims + self.rows.iter().filter(is_other).count())
    }

    /// Whether who joins the row of a queue passes before long, as far as one can know.
    fn is_soon(&self, ask: Ask) -> bool {
        let waiting = |row: &Row| row.waiters.iter().filter(|waiter| !waiter.told.is_closed()).count();
        let own = self.rows.iter().find(|row| row.queue == ask.queue).map_or(0, waiting);
        let before = u64::try_from(self.waiting() + 1).unwrap_or(u64::MAX);
        let wait_us = before.saturating_mul(self.attempt_us) / u64::from(self.limit.now());
        (ask.is_booked || own < ROW_MAX) && u128::from(wait_us) <= WAIT_MAX.as_micros()
    }

    fn row(&mut self, queue: usize) -> &mut Row {
        // Rows exist for queues with something in flight or waiting: a few.
        let place = self.rows.iter().position(|row| row.queue == queue).unwrap_or_else(|| {
            self.rows.push_back(Row { queue, in_flight: 0, waiters: VecDeque::new() });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// Who waits in hand.
    pub(super) fn waiting(&self) -> usize {
        self.rows.iter().map(|row| row.waiters.len()).sum()
    }

    /// The next who may pass, queues in turn, first attempts before others where these have their part.
    pub(super) fn next(&mut self, now: Tick) -> Option<(Passage, Duration, oneshot::Sender<Pass>)> {
        if self.shut_until(now).is_some() {
            return None;
        }
        for _ in 0..self.rows.len() {
            let mut row = self.rows.pop_front()?;
            row.waiters.retain(|waiter| !waiter.told.is_closed());
            if row.waiters.is_empty() && row.in_flight == 0 {
                continue;
            }
            let asks: Vec<Ask> = row.waiters.iter().map(|waiter| waiter.ask).collect();
            self.rows.push_back(row);
            let Some(place) = asks.iter().position(|ask| self.has_room(now, *ask)) else { continue };
            let (passage, wait) = self.pass(now, asks[place])?;
            let waiter = self.row(asks[place].queue).waiters.remove(place)?;
            return Some((passage, wait, waiter.told));
        }
        None
    }

    /// Whether anybody waits in hand.
    pub(super) fn is_waited_for(&self) -> bool {
        self.rows.iter().any(|row| !row.waiters.is_empty())
    }

    /// Takes in the end of a passage.
    pub(super) fn ended(
        &mut self,
        now: Tick,
        passage: &Passage,
        judgement: Judgement,
        took: Duration,
        random: f64,
    ) -> Ended {
        self.leave(passage);
        let Judgement { health, load, hold } = judgement;
        self.limit.ended(passage.limit_epoch, load, took);
        let change = self.breaker.ended(now, passage.admitted, health, random);
        if load != Load::Unknown {
            self.attempt_us = mean::with(self.attempt_us, took);
        }
        if health == Health::Alive {
            self.line.moved();
        }
        match change {
            Change::None => {}
            Change::Closed => self.probe_booked = None,
            Change::Opened | Change::OpenedAgain => self.shut(),
        }
        let held_until =
            hold.map(|hold| now.after(hold)).filter(|until| self.hold.is_none_or(|held| held < *until));
        let was_held = self.held_until(now).is_some();
        if let Some(until) = held_until {
            self.hold = Some(until);
            self.shut();
        }
        Ended { change, held_until: held_until.filter(|_| !was_held) }
    }

    fn leave(&mut self, passage: &Passage) {
        self.in_flight_of_all -= 1;
        if passage.generation == self.generation {
            self.in_flight -= 1;
            self.retries -= u32::from(passage.ask.is_retry);
        }
        let place = self.rows.iter().position(|row| row.queue == passage.ask.queue);
        if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
            row.in_flight -= 1;
            if row.in_flight == 0 && row.waiters.is_empty() {
                self.rows.remove(place.expect("it was just found"));
            }
        }
    }

    /// Nothing passes from now on; after that it begins with one.
    fn shut(&mut self) {
        self.limit.restart();
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        self.retries = 0;
        self.probe_booked = None;
    }

    /// Those who waited when it was shut; they look again when this is dropped.
    pub(super) fn waiters_of_shut(&mut self, now: Tick) -> Vec<Waiter> {
        if self.shut_until(now).is_none() {
            return Vec::new();
        }
        self.rows.iter_mut().flat_map(|row| row.waiters.drain(..)).collect()
    }

    /// Notes what went wrong.
    pub(super) fn note(&mut self, cause: &str) {
        let mut end = cause.len().min(CAUSE_BYTES_MAX);
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        self.cause.clear();
        self.cause.push_str(&cause[..end]);
    }

    /// How long a message is put off that met this lane without room.
    pub(super) fn put_off(&mut self, now: Tick, random: f64) -> Duration {
        let wait = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.wait(now));
        let opens = self.shut_until(now).unwrap_or(now).max(now.after(wait));
        let each_us = self.attempt_us / u64::from(self.limit.now());
        let interval = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.rate().interval());
        self.line.put_off(now, opens, Duration::from_micros(each_us).max(interval), random)
    }

    /// Whether it may be forgotten: nothing is under way, and it is as good as new; or, when `also_shut`, whatever it knows.
    pub(super) fn is_idle(&self, now: Tick, also_shut: bool) -> bool {
        self.in_flight_of_all == 0
            && !self.is_waited_for()
            && (also_shut || (self.phase(now) == Phase::Closed && self.limit.now() == self.most))
    }
}
