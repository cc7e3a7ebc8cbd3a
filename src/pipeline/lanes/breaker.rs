//! Whether a lane lets attempts through. Pure: time and chance come in.
//!
//! | state | lets through | until |
//! |---|---|---|
//! | closed | all | [`FAILURES_MAX`] attempts in a row without an answer; half of [`WINDOW_MIN`] or more in a window failed, or so many in a row |
//! | open | none | its time is over: [`OPEN_FIRST`], doubled each time up to [`OPEN_MAX`], less up to a quarter by chance |
//! | half open | one at a time | the first that says something: with an answer it closes, else it opens for longer |
//!
//! What began before the breaker last changed its state says nothing any more: those attempts were on their way when it opened.

use std::time::Duration;

use crate::clock::Tick;

/// Attempts in a row that found nobody, after which nobody is believed to be there.
pub(super) const FAILURES_MAX: u32 = 5;
/// The time over which attempts are counted for their ratio.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Attempts of a window below which a ratio says little.
pub(super) const WINDOW_MIN: u32 = 20;
/// How long it stays open the first time: a receiver that restarts is back by then.
pub(super) const OPEN_FIRST: Duration = Duration::from_secs(1);
/// The longest that it stays open: a receiver that is back waits no longer than this.
pub(super) const OPEN_MAX: Duration = Duration::from_mins(5);
/// When a lane is worth another look whose probe has not ended.
pub(super) const PROBE_LOOK: Duration = Duration::from_secs(1);
/// The part of an open time that chance may take away, so that lanes that failed together do not come back together.
const JITTER: f64 = 0.25;

/// What the end of an attempt says of its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// It answers.
    Alive,
    /// Something before it answers in its place: counted for the ratio.
    Failing,
    /// Nobody answers.
    Silent,
    /// Nothing.
    Unknown,
}

/// The right to attempt, as the breaker gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Admitted {
    epoch: u32,
    pub(super) is_probe: bool,
}

/// What is shown of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// All is well.
    Closed,
    /// Nothing passes before that moment.
    Open(Tick),
    /// One attempt at a time finds out.
    HalfOpen,
}

/// What the end of an attempt did to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It was closed, and opened.
    Opened,
    /// A probe failed: it is open again.
    OpenedAgain,
    /// It closed.
    Closed,
}

/// The breaker of one lane.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Grows with each change of the state.
    epoch: u32,
    silent_in_a_row: u32,
    /// Attempts in a row that failed, of one window.
    in_a_row: Window,
    window: Window,
    /// How long it was open last, without jitter; zero when it never was.
    opened_for: Duration,
    closed_at: Tick,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Tick },
    HalfOpen { is_probed: bool },
}

#[derive(Debug, Default)]
struct Window {
    since: Tick,
    attempts: u32,
    failed: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            silent_in_a_row: 0,
            in_a_row: Window::default(),
            window: Window::default(),
            opened_for: Duration::ZERO,
            closed_at: Tick::default(),
        }
    }
}

impl Breaker {
    /// What it is at that moment.
    pub(super) fn phase(&self, now: Tick) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { until } if now < until => Phase::Open(until),
            State::Open { .. } | State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Until when nothing may pass; `None` when something may.
    pub(super) fn shut_until(&self, now: Tick) -> Option<Tick> {
        match self.state {
            State::Closed | State::HalfOpen { is_probed: false } => None,
            State::Open { until } => Some(until).filter(|until| now < *until),
            State::HalfOpen { is_probed: true } => Some(now.after(PROBE_LOOK)),
        }
    }

    /// Lets an attempt through, or says when to come again.
    pub(super) fn admit(&mut self, now: Tick) -> Result<Admitted, Tick> {
        if let Some(until) = self.shut_until(now) {
            return Err(until);
        }
        let is_probe = !matches!(self.state, State::Closed);
        if is_probe {
            if matches!(self.state, State::Open { .. }) {
                self.epoch = self.epoch.wrapping_add(1);
            }
            self.state = State::HalfOpen { is_probed: true };
        }
        Ok(Admitted { epoch: self.epoch, is_probe })
    }

    /// Takes in how an attempt ended; `random` is at least 0 and below 1.
    pub(super) fn ended(&mut self, now: Tick, admitted: Admitted, health: Health, random: f64) -> Change {
        if admitted.epoch != self.epoch {
            return Change::None;
        }
        if !admitted.is_probe {
            return if self.counts(now, health) {
                self.open(now, random, Change::Opened)
            } else {
                Change::None
            };
        }
        match health {
            Health::Unknown => {
                self.state = State::HalfOpen { is_probed: false };
                Change::None
            }
            Health::Alive => {
                self.enter(State::Closed);
                self.closed_at = now;
                Change::Closed
            }
            Health::Failing | Health::Silent => self.open(now, random, Change::OpenedAgain),
        }
    }

    /// Counts an attempt; says whether that was one failure too many.
    fn counts(&mut self, now: Tick, health: Health) -> bool {
        if now.since(self.window.since) >= WINDOW {
            self.window = Window { since: now, ..Window::default() };
        }
        match health {
            Health::Unknown => return false,
            Health::Alive => (self.silent_in_a_row, self.in_a_row) = (0, Window::default()),
            Health::Failing => {}
            Health::Silent => self.silent_in_a_row += 1,
        }
        if health != Health::Alive {
            if self.in_a_row.failed == 0 || now.since(self.in_a_row.since) >= WINDOW {
                self.in_a_row = Window { since: now, ..Window::default() };
            }
            self.in_a_row.failed += 1;
            self.window.failed += 1;
        }
        self.window.attempts += 1;
        let Window { attempts, failed, .. } = self.window;
        let half_failed = attempts >= WINDOW_MIN && failed >= attempts - failed;
        // However many were answered before in this window: what fails now fails.
        let is_failing = half_failed || self.in_a_row.failed >= WINDOW_MIN;
        self.silent_in_a_row >= FAILURES_MAX || (is_failing && health != Health::Alive)
    }

    fn open(&mut self, now: Tick, random: f64, change: Change) -> Change {
        // Twice as long well as it was shut last: what happens now is another matter.
        let is_new =
            change == Change::Opened && now.since(self.closed_at) >= self.opened_for.saturating_mul(2);
        let longer = self.opened_for.saturating_mul(2).clamp(OPEN_FIRST, OPEN_MAX);
        self.opened_for = if is_new { OPEN_FIRST } else { longer };
        let open_for = self.opened_for.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0));
        self.enter(State::Open { until: now.after(open_for) });
        change
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        (self.silent_in_a_row, self.in_a_row) = (0, Window::default());
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    fn make(breaker: &mut Breaker, now: Tick, health: Health) -> Change {
        let admitted = breaker.admit(now).expect("it lets one through");
        breaker.ended(now, admitted, health, 0.0)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        let changes: Vec<_> = (0..5).map(|_| make(&mut breaker, at(0), Health::Silent)).collect();
        assert_eq!(changes, [Change::None, Change::None, Change::None, Change::None, Change::Opened]);
        breaker
    }

    #[test]
    fn five_in_a_row_without_an_answer_open_it_and_one_answer_between_does_not() {
        let breaker = opened();
        assert_eq!(breaker.phase(at(0)), Phase::Open(at(1_000)));
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 0..4 {
                make(&mut breaker, at(0), Health::Silent);
            }
            // So few in each window that the ratio says nothing.
            breaker.window = Window::default();
            assert_eq!(make(&mut breaker, at(0), Health::Alive), Change::None);
        }
        assert_eq!(breaker.phase(at(0)), Phase::Closed);
    }

    #[test]
    fn half_of_a_window_that_failed_opens_it() {
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            assert_eq!(make(&mut breaker, at(0), Health::Alive), Change::None);
            assert_eq!(make(&mut breaker, at(0), Health::Failing), Change::None);
        }
        assert_eq!(make(&mut breaker, at(0), Health::Alive), Change::None);
        assert_eq!(make(&mut breaker, at(0), Health::Failing), Change::Opened);
        let mut breaker = Breaker::default();
        for second in 0..100 {
            // One a second: never twenty within ten.
            assert_eq!(make(&mut breaker, at(second * 1_000), Health::Failing), Change::None);
        }
    }

    #[test]
    fn twenty_that_failed_in_a_row_open_it_however_many_were_answered_before() {
        let mut breaker = Breaker::default();
        for _ in 0..10_000 {
            make(&mut breaker, at(0), Health::Alive);
        }
        for _ in 0..19 {
            assert_eq!(make(&mut breaker, at(100), Health::Failing), Change::None);
        }
        assert_eq!(make(&mut breaker, at(100), Health::Failing), Change::Opened);
    }

    #[test]
    fn an_open_breaker_lets_nothing_through_before_its_time_and_then_one_at_a_time() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(999)), Err(at(1_000)));
        assert_eq!(breaker.phase(at(1_000)), Phase::HalfOpen);
        let probe = breaker.admit(at(1_000)).expect("a probe");
        assert_eq!(breaker.admit(at(1_500)), Err(at(2_500)), "it is probed");
        assert_eq!(breaker.ended(at(3_000), probe, Health::Unknown, 0.0), Change::None);
        let probe = breaker.admit(at(3_000)).expect("the first said nothing");
        assert_eq!(breaker.ended(at(3_000), probe, Health::Alive, 0.0), Change::Closed);
        assert_eq!(breaker.phase(at(3_000)), Phase::Closed);
    }

    #[test]
    fn each_probe_that_fails_doubles_the_time_up_to_five_minutes() {
        let mut breaker = opened();
        let mut now = at(1_000);
        for seconds in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert_eq!(make(&mut breaker, now, Health::Silent), Change::OpenedAgain);
            let until = now.after(Duration::from_secs(seconds));
            assert_eq!(breaker.phase(now), Phase::Open(until));
            now = until;
        }
        assert_eq!(make(&mut breaker, now, Health::Alive), Change::Closed);
        // Soon after, it is the same trouble.
        for _ in 0..5 {
            make(&mut breaker, now, Health::Silent);
        }
        assert_eq!(breaker.phase(now), Phase::Open(now.after(OPEN_MAX)));
        now = now.after(OPEN_MAX);
        assert_eq!(make(&mut breaker, now, Health::Alive), Change::Closed);
        // Long after, it is another one.
        now = now.after(OPEN_MAX * 2);
        for _ in 0..5 {
            make(&mut breaker, now, Health::Silent);
        }
        assert_eq!(breaker.phase(now), Phase::Open(now.after(OPEN_FIRST)));
    }

    #[test]
    fn what_began_before_it_opened_says_nothing_any_more() {
        let mut breaker = Breaker::default();
        let early = breaker.admit(at(0)).expect("closed");
        for _ in 0..5 {
            make(&mut breaker, at(0), Health::Silent);
        }
        assert_eq!(breaker.ended(at(500), early, Health::Alive, 0.0), Change::None);
        assert_eq!(breaker.ended(at(500), early, Health::Silent, 0.0), Change::None);
        let probe = breaker.admit(at(1_000)).expect("a probe");
        assert_eq!(breaker.ended(at(1_000), early, Health::Silent, 0.0), Change::None);
        assert_eq!(breaker.ended(at(1_000), probe, Health::Alive, 0.0), Change::Closed);
        assert_eq!(breaker.ended(at(1_000), probe, Health::Silent, 0.0), Change::None);
    }

    proptest! {
        /// Nobody there: however often it is asked, attempts are as rare as the open times say.
        #[test]
        fn a_dead_destination_is_attempted_as_rarely_as_the_open_times_say(steps in prop::collection::vec(1_u64..2_000, 1..400), random in 0.0_f64..1.0) {
            let (mut breaker, mut now, mut attempts) = (Breaker::default(), at(0), 0_u32);
            for step_ms in steps {
                now = now.after(Duration::from_millis(step_ms));
                if let Ok(admitted) = breaker.admit(now) {
                    attempts += 1;
                    breaker.ended(now, admitted, Health::Silent, random);
                }
            }
            // After the first five, attempt n comes no sooner than three quarters of 1 + 2 + 4 … seconds later.
            let (mut allowed, mut least, mut open) = (FAILURES_MAX, Duration::ZERO, OPEN_FIRST);
            while least + open.mul_f64(0.75) <= now.since(at(0)) {
                least += open.mul_f64(0.75);
                open = (open * 2).min(OPEN_MAX);
                allowed += 1;
            }
            prop_assert!(attempts <= allowed, "{} attempts, {} allowed", attempts, allowed);
        }

        #[test]
        fn at_most_one_probe_is_under_way_and_no_order_of_ends_wedges_it(ends in prop::collection::vec((0_usize..4, 0_u64..3_000, 0_usize..4), 1..300)) {
            let healths = [Health::Alive, Health::Failing, Health::Silent, Health::Unknown];
            let (mut breaker, mut now, mut under_way) = (Breaker::default(), at(0), Vec::new());
            for (health, step_ms, place) in ends {
                now = now.after(Duration::from_millis(step_ms));
                if let Ok(admitted) = breaker.admit(now) {
                    under_way.push(admitted);
                }
                let probes = under_way.iter().filter(|one| one.is_probe && one.epoch == breaker.epoch).count();
                prop_assert!(probes <= 1);
                if place < under_way.len() {
                    let admitted = under_way.swap_remove(place);
                    breaker.ended(now, admitted, healths[health], 0.5);
                }
            }
            for admitted in under_way {
                breaker.ended(now, admitted, Health::Unknown, 0.5);
            }
            prop_assert!(breaker.admit(now.after(OPEN_MAX)).is_ok(), "once nothing is under way, its time comes");
        }
    }
}
