//! What one lane knows, and who may pass: the decisions of a lane behind its lock. Pure but for who waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Tick;
use crate::pipeline::lanes::ask::{Answer, Ask, Ended, Passage, Wish};
use crate::pipeline::lanes::breaker::{Breaker, Change, Health, PROBE_LOOK, Phase};
use crate::pipeline::lanes::claims::{Claims, Standing};
use crate::pipeline::lanes::concurrency::{Limit, Load};
use crate::pipeline::lanes::judge::Judgement;
use crate::pipeline::lanes::lane::Pass;
use crate::pipeline::lanes::line::{Line, Moves};
use crate::pipeline::lanes::pulse::Pulse;
use crate::pipeline::lanes::row::{AHEAD, BRIEFLY, Row, Turn, WAIT_MAX, Waiter, passes_at, patience};
use crate::pipeline::lanes::why::Why;
use crate::pipeline::pace::Pace;
use crate::pipeline::places::{InHand, Places, Unanswered};
use crate::pipeline::share::Share;

/// How soon who waits for a turn of the rate, or for a place of its queue, looks for it.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// Who is put off for so long is remembered: how soon there is room changes within less.
const LONG: Duration = Duration::from_secs(1);
/// The errors shown are about this long.
const CAUSE_BYTES_MAX: usize = 120;

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
    pub(super) pulse: Pulse,
    /// Whether what is in flight is counted as unanswered.
    is_quiet: bool,
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
            pulse: Pulse::default(),
            is_quiet: true,
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

    /// Lets somebody of that queue pass, or says what to do.
    pub(super) fn ask(&mut self, now: Tick, ask: Ask, share: &Arc<Share>) -> Answer {
        self.used_at = now;
        if self.shut_until(now).is_some() {
            return Answer::Shut;
        }
        if self.is_its_turn(now, ask) && self.has_room(now, ask) {
            let Some((passage, wait)) = self.pass(now, ask) else { return Answer::Shut };
            if !ask.is_booked {
                self.row(ask.queue).unanswered.get_or_insert_with(|| Unanswered::new(share));
            }
            self.count(now, ask);
            return Answer::Pass(passage, wait);
        }
        self.count(now, ask);
        let wait = self.pace.as_ref().filter(|_| !ask.is_booked).map(|pace| pace.wait(now));
        let is_patient = ask.is_booked && !ask.is_retry;
        let patience = if is_patient { Some(WAIT_MAX) } else { self.patience(now, ask) };
        let Some(patience) = patience else { return Answer::Busy };
        let by_itself = if self.waits_for_others(now, ask) { Some(Duration::ZERO) } else { wait };
        let look = by_itself.map_or(patience, |wait| wait.clamp(LOOK_MIN, WAIT_MAX));
        let (told, turn) = oneshot::channel();
        let in_hand = (!ask.is_booked).then(|| InHand::new(share));
        let row = self.row(ask.queue);
        if !ask.is_booked {
            row.unanswered.get_or_insert_with(|| Unanswered::new(share));
        }
        row.waiters.push_back(Waiter { ask, told, in_hand });
        Answer::Wait(Turn { told: turn, patience, look })
    }

    /// Whether no queue that wants turns of the rate as well is before one with many destinations. Who has its turn and no room for
    /// it lets the others go on.
    fn is_its_turn(&mut self, now: Tick, ask: Ask) -> bool {
        // Who was booked had its turn when it was leased.
        let Some(pace) = self.pace.as_ref().filter(|_| !ask.is_booked) else { return true };
        let standing = self.claims.standing(now, ask.queue);
        if standing.others == 0 {
            return true;
        }
        let burst = pace.burst(AHEAD);
        let is_its_turn = pace.wait(now) <= AHEAD && standing.turns(burst) > 0;
        let has_room = self.has_room(now, ask);
        if !(is_its_turn && has_room) {
            let is_over = is_its_turn || standing.taken >= standing.part(burst).max(1);
            self.claims.wants_more(now, ask.queue, 0, is_over, 0);
        }
        is_its_turn
    }

    /// Notes whether a queue with many destinations took a turn of the rate, and if it wants more of them.
    fn claim(&mut self, now: Tick, ask: Ask, has_taken: bool) {
        let Some(pace) = self.pace.as_ref().filter(|_| !ask.is_booked) else { return };
        let waits = self.rows.iter().any(|row| row.queue == ask.queue && !row.waiters.is_empty());
        if has_taken && !waits && !self.line.has(now, ask.queue) {
            self.claims.has_enough(ask.queue);
            return;
        }
        let standing = self.claims.standing(now, ask.queue);
        let taken = usize::from(has_taken);
        let is_over = standing.taken + taken >= standing.part(pace.burst(AHEAD)).max(1);
        self.claims.wants_more(now, ask.queue, taken, is_over, 0);
    }

    /// Lets somebody pass whom nothing but breaker and rate can keep from it now.
    fn pass(&mut self, now: Tick, ask: Ask) -> Option<(Passage, Duration)> {
        let wait = match self.pace.as_mut().map(|pace| pace.take(now, WAIT_MAX)) {
            Some(wait) => {
                self.claim(now, ask, wait.is_ok());
                wait.ok()?
            }
            None => Duration::ZERO,
        };
        let admitted = self.breaker.admit(now).ok()?;
        self.in_flight += 1;
        self.in_flight_of_all += 1;
        self.retries += u32::from(ask.is_retry);
        self.row(ask.queue).in_flight += 1;
        self.pulse.began(now.after(wait));
        self.limit.in_flight(self.in_flight);
        let (limit_epoch, generation) = (self.limit.epoch(), self.generation);
        Some((Passage { ask, admitted, limit_epoch, generation }, wait))
    }

    /// Whether one more may be in flight. Of a queue with many destinations a lane may have what its [`Places`](crate::pipeline::places::Places) say.
    fn has_room(&self, now: Tick, ask: Ask) -> bool {
        if self.in_flight_of_all >= self.most {
            return false;
        }
        let is_half_open = self.breaker.phase(now) == Phase::HalfOpen;
        let is_below =
            || self.in_flight < self.limit.now() && (!ask.is_retry || self.retries < self.limit.of_retries());
        let has_place = || {
            let own = self.rows.iter().find(|row| row.queue == ask.queue).map_or(0, |row| row.in_flight);
            let (own, part) = if is_half_open { (0, usize::MAX) } else { (own, self.part(now, ask.queue)) };
            ask.places.has_one_more(own, part, self.pulse.trust(now))
        };
        (is_half_open || is_below()) && (ask.is_booked || has_place())
    }

    /// Whether it is only other lanes that keep this one from passing.
    fn waits_for_others(&self, now: Tick, ask: Ask) -> bool {
        !ask.is_booked && self.in_flight_of_all == 0 && !self.has_room(now, ask)
    }

    /// What a queue with many destinations may have in flight here: all, unless others want more, be it that they claim room or
    /// that they wait in hand.
    fn part(&self, now: Tick, queue: usize) -> usize {
        let claims = self.claims.others(now, queue);
        let is_other = |row: &&Row| {
            row.queue != queue && !self.claims.has(row.queue) && (claims > 0 || !row.waiters.is_empty())
        };
        match claims + self.rows.iter().filter(is_other).count() {
            0 => usize::MAX,
            others => self.limit.now() as usize / (1 + others),
        }
    }

    /// How long who joins the row of its queue waits there at most; `None` where it is put off instead.
    fn patience(&self, now: Tick, ask: Ask) -> Option<Duration> {
        if self.waits_for_others(now, ask) {
            return ask.places.is_moving(now).then_some(BRIEFLY);
        }
        let most = if ask.is_booked { WAIT_MAX } else { self.pulse.patience(now)? };
        let own = self.rows.iter().find(|row| row.queue == ask.queue).map_or(0, |row| row.waiters.len());
        let others = self.rows.iter().filter(|row| row.queue != ask.queue).map(|row| row.waiters.len());
        let place = u32::try_from(passes_at(own, others)).unwrap_or(u32::MAX);
        let by_places =
            Duration::from_micros(self.pulse.attempt_us()).saturating_mul(place) / self.in_flight.max(1);
        let by_rate = self.pace.as_ref().filter(|_| !ask.is_booked).map_or(Duration::ZERO, |pace| {
            pace.wait(now).saturating_add(pace.rate().interval().saturating_mul(place - 1))
        });
        patience(own, ask.is_booked, by_places.max(by_rate), self.pulse.is_late()).map(|wait| wait.min(most))
    }

    /// How long who comes from that queue waits, before it takes a place of its queue, for the first answer to what the queue has in
    /// flight here; `None` where it need not.
    pub(super) fn unheard(&self, now: Tick, queue: usize, all: usize) -> Option<Duration> {
        let rest = self.pulse.unheard(now)?;
        let own = self.rows.iter().find(|row| row.queue == queue)?;
        let has_enough = own.in_flight + own.waiters.len() >= Places::of_unknown(all);
        (has_enough && self.shut_until(now).is_none()).then_some(rest)
    }

    fn row(&mut self, queue: usize) -> &mut Row {
        // Rows exist for queues with something in flight or waiting: a few.
        let place = self.rows.iter().position(|row| row.queue == queue).unwrap_or_else(|| {
            self.rows.push_back(Row::new(queue));
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
            row.tidy();
            if row.is_idle() {
                continue;
            }
            let asks = row.asks();
            self.rows.push_back(row);
            let Some(place) = self.first_with_room(now, &asks) else { continue };
            let (passage, wait) = self.pass(now, asks[place])?;
            let waiter = self.row(asks[place].queue).waiters.remove(place)?;
            self.count(now, waiter.ask);
            return Some((passage, wait, waiter.told));
        }
        None
    }

    /// The first of one queue's who may pass.
    fn first_with_room(&mut self, now: Tick, asks: &[Ask]) -> Option<usize> {
        if !self.is_its_turn(now, *asks.first()?) {
            return None;
        }
        asks.iter().position(|ask| self.has_room(now, *ask))
    }

    /// Counts what is in flight as unanswered, or no more: of all queues when that changed, else of the one that asks.
    fn count(&mut self, now: Tick, ask: Ask) {
        let is_quiet = self.pulse.is_quiet(now);
        if self.is_quiet != is_quiet {
            self.is_quiet = is_quiet;
            self.rows.iter_mut().for_each(|row| row.count(is_quiet));
        } else if !ask.is_booked
            && let Some(row) = self.rows.iter_mut().find(|row| row.queue == ask.queue)
        {
            row.count(is_quiet);
        }
    }

    /// Takes those out of a queue's row who wait no more; `in_vain` when one of them gave up.
    pub(super) fn tidy(&mut self, now: Tick, queue: usize, in_vain: bool) {
        if in_vain {
            self.pulse.was_late(now);
        }
        if let Some(place) = self.rows.iter().position(|row| row.queue == queue) {
            self.rows[place].tidy();
            if self.rows[place].is_idle() {
                self.rows.remove(place);
            }
        }
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
        let Judgement { health, load, hold } = judgement;
        if health == Health::Alive && !self.pulse.has_answered() {
            self.rows.iter().filter_map(|row| row.unanswered.as_ref()).for_each(|of| of.is_new(now));
        }
        self.leave(passage);
        self.pulse.ended(now, health == Health::Alive, self.in_flight_of_all, took);
        self.limit.ended(passage.limit_epoch, load, took);
        let change = self.breaker.ended(now, passage.admitted, health, random);
        if load != Load::Unknown {
            self.pulse.took(took);
        }
        if health == Health::Alive {
            self.line.moved();
        }
        match change {
            Change::None => {}
            Change::Closed => self.probe_booked = None,
            Change::Opened | Change::OpenedAgain => {
                self.pulse.broke();
                self.shut();
            }
        }
        self.count(now, passage.ask);
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
            if row.is_idle() {
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

    /// How long a message is put off that met this lane without room, and whether it may be worth coming before that: when somebody
    /// answers, or answers sooner than it was reckoned with.
    pub(super) fn put_off(&mut self, now: Tick, queue: usize, random: f64) -> (Duration, bool) {
        let wait = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.wait(now));
        let shut_until = self.shut_until(now);
        let opens = shut_until.unwrap_or(now).max(now.after(wait));
        let is_held = self.held_until(now).is_some();
        let each = self.each();
        let moves = if is_held { Moves::Each(each) } else { self.pulse.moves(now, shut_until, each) };
        let opens = opens.max(self.pulse.known_at().unwrap_or(opens));
        let delay = self.line.put_off(now, queue, opens, moves, random);
        let may_open_sooner = moves == Moves::Not || (!is_held && self.pace.is_none() && delay >= LONG);
        (delay, may_open_sooner)
    }

    /// How often it has room.
    fn each(&self) -> Duration {
        let by_places = Duration::from_micros(self.pulse.attempt_us() / u64::from(self.limit.now()));
        by_places.max(self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.rate().interval()))
    }

    /// How many more it could take within `span`, none where some wait in hand already; `None` while it does not move.
    pub(super) fn takes_within(&self, now: Tick, span: Duration) -> Option<usize> {
        let is_moving = self.shut_until(now).is_none() && !self.pulse.is_quiet(now);
        let turns = span.as_nanos() / self.each().as_nanos().max(1);
        let turns = usize::try_from(turns).unwrap_or(usize::MAX).max(1);
        is_moving.then_some(if self.is_waited_for() { 0 } else { turns })
    }

    /// Whether it may be forgotten: nothing is under way, it is not held, its rate has nothing to be paid back, and it is as good
    /// as new; or, when `also_shut`, whatever it knows of its destination.
    pub(super) fn is_idle(&self, now: Tick, also_shut: bool) -> bool {
        self.in_flight_of_all == 0
            && !self.is_waited_for()
            && self.held_until(now).is_none()
            && self.pace.as_ref().is_none_or(|pace| pace.is_full(now))
            && (also_shut || (self.phase(now) == Phase::Closed && self.limit.now() == self.most))
    }
}
