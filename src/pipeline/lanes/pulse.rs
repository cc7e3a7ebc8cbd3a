//! Whether the destination of a lane answers, and how long that takes. Pure: time comes in.

use std::time::Duration;

use crate::clock::Tick;
use crate::pipeline::lanes::line::Moves;
use crate::pipeline::lanes::row::{AHEAD, BRIEFLY, WAIT_MAX};
use crate::pipeline::mean;
use crate::pipeline::places::Trust;

/// How long the first answer is waited for without a place: longer than those of most receivers take, and too short for who hangs to
/// be felt by the others.
const HEARING: Duration = Duration::from_millis(100);
/// Who does not answer what is in flight for so long, or for twice as long as its answers take, is believed to hang.
const STUCK: Duration = Duration::from_secs(1);

/// What is known of the destination.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// How long an attempt takes, microseconds, as a moving mean; 0 before the first.
    attempt_us: u64,
    /// The same of those that are answered.
    answer_us: u64,
    /// When somebody waited in vain who was to pass soon, until it answered a while later.
    late_at: Option<Tick>,
    /// When it answered last, unless its breaker opened since.
    answered_at: Option<Tick>,
    /// When what is in flight began to wait for an answer: with the first attempt, or since the last answer to another one.
    quiet_since: Option<Tick>,
}

impl Pulse {
    /// How long an attempt takes, microseconds; 0 before the first.
    pub(super) fn attempt_us(&self) -> u64 {
        self.attempt_us
    }

    /// For how long a destination may be quiet that answers.
    fn grace(&self) -> Duration {
        Duration::from_micros(self.answer_us).saturating_mul(2).max(BRIEFLY)
    }

    /// Whether it ever answered, and its breaker has not opened since.
    pub(super) fn has_answered(&self) -> bool {
        self.answered_at.is_some()
    }

    /// Whether it never answered, or not lately although something is in flight.
    pub(super) fn is_quiet(&self, now: Tick) -> bool {
        !self.has_answered() || self.quiet_since.is_some_and(|since| now.since(since) > self.grace())
    }

    /// Whether it is believed to hang.
    pub(super) fn is_stuck(&self, now: Tick) -> bool {
        self.quiet_since.is_some_and(|since| now.since(since) >= STUCK.max(self.grace()))
    }

    /// When more will be known of one that never answered what is in flight.
    pub(super) fn known_at(&self) -> Option<Tick> {
        self.quiet_since.filter(|_| !self.has_answered()).map(|since| since.after(STUCK))
    }

    /// How the lines before it move when it has room so often and is shut until then.
    pub(super) fn moves(&self, now: Tick, shut_until: Option<Tick>, each: Duration) -> Moves {
        let is_unknown = self.known_at().is_some();
        if is_unknown || shut_until.is_some() || self.is_stuck(now) { Moves::Not } else { Moves::Each(each) }
    }

    /// How far it is trusted with places of a queue with many destinations.
    pub(super) fn trust(&self, now: Tick) -> Trust {
        match () {
            () if !self.is_quiet(now) => Trust::Answers,
            () if self.has_answered() || self.attempt_us > 0 => Trust::Doubtful,
            () => Trust::Untried,
        }
    }

    /// How much longer the first answer is worth waiting for: somebody tries, and has not for long. `None` where it is not, and once
    /// there was one.
    pub(super) fn unheard(&self, now: Tick) -> Option<Duration> {
        let tried = self.quiet_since.filter(|_| !self.has_answered())?;
        Some(HEARING.saturating_sub(now.since(tried))).filter(|rest| !rest.is_zero())
    }

    /// Whether it answered a moment ago.
    pub(super) fn is_moving(&self, now: Tick) -> bool {
        self.answered_at.is_some_and(|at| now.since(at) <= AHEAD)
    }

    /// Whether hopes to pass soon were in vain of late.
    pub(super) fn is_late(&self) -> bool {
        self.late_at.is_some()
    }

    /// How long somebody may wait at most for an answer to what is in flight; `None` when nothing moves there.
    pub(super) fn patience(&self, now: Tick) -> Option<Duration> {
        match self.quiet_since {
            Some(since) if now.since(since) > self.grace() => None,
            Some(_) if !self.has_answered() && self.unheard(now).is_none() => None,
            _ if self.is_quiet(now) => Some(self.grace().min(WAIT_MAX)),
            _ => Some(WAIT_MAX),
        }
    }

    /// An attempt began.
    pub(super) fn began(&mut self, now: Tick) {
        self.quiet_since.get_or_insert(now);
    }

    /// Notes how long an attempt took.
    pub(super) fn took(&mut self, took: Duration) {
        self.attempt_us = mean::with(self.attempt_us, took);
    }

    /// An attempt ended after that long, answered or not, and so many are in flight still.
    pub(super) fn ended(&mut self, now: Tick, is_answered: bool, left: u32, took: Duration) {
        if is_answered {
            if !self.has_answered() {
                // How long nobody answered says nothing of how long answers take.
                (self.attempt_us, self.answer_us) = (0, 0);
            }
            self.answer_us = mean::with(self.answer_us, took);
            self.answered_at = Some(now);
            self.late_at = self.late_at.filter(|at| now.since(*at) < WAIT_MAX);
            self.quiet_since = Some(now);
        }
        if left == 0 {
            self.quiet_since = None;
        }
    }

    /// Somebody waited in vain.
    pub(super) fn was_late(&mut self, now: Tick) {
        self.late_at = Some(now);
    }

    /// Its breaker opened: it has to show again that it answers.
    pub(super) fn broke(&mut self) {
        self.answered_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(10);

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    #[test]
    fn who_never_answered_is_quiet_and_so_is_who_does_not_answer_what_is_in_flight() {
        let mut pulse = Pulse::default();
        assert!(pulse.is_quiet(at(0)) && !pulse.has_answered());
        pulse.began(at(0));
        pulse.ended(at(10), true, 7, TOOK);
        assert!(!pulse.is_quiet(at(210)) && pulse.is_quiet(at(211)), "seven are in flight");
        pulse.ended(at(300), false, 0, TOOK);
        assert!(!pulse.is_quiet(at(60_000)), "nothing is in flight");
        pulse.began(at(60_000));
        assert!(!pulse.is_quiet(at(60_200)) && pulse.is_quiet(at(60_201)), "nobody asked it meanwhile");
        assert!(!pulse.is_stuck(at(60_999)) && pulse.is_stuck(at(61_000)));
        pulse.ended(at(60_001), true, 0, TOOK);
        pulse.began(at(60_002));
        assert!(!pulse.is_quiet(at(60_003)), "it answered a moment ago");
        pulse.broke();
        assert!(pulse.is_quiet(at(60_003)));
    }

    #[test]
    fn the_first_answer_is_waited_for_briefly_and_only_while_somebody_tries() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.unheard(at(0)), None, "nobody tries");
        pulse.began(at(100));
        let rest = |pulse: &Pulse, ms| pulse.unheard(at(ms)).map(|rest| rest.as_millis());
        assert_eq!([100, 195, 199, 200].map(|ms| rest(&pulse, ms)), [Some(100), Some(5), Some(1), None]);
        assert_eq!([199, 200].map(|ms| pulse.patience(at(ms)).is_some()), [true, false]);
        pulse.ended(at(150), true, 3, TOOK);
        assert_eq!((rest(&pulse, 150), pulse.patience(at(150))), (None, Some(WAIT_MAX)), "it answered");
        pulse.broke();
        assert_eq!(rest(&pulse, 151), Some(99), "what it answered before its breaker opened says nothing");
    }

    #[test]
    fn who_is_slow_may_be_quiet_for_longer() {
        let mut pulse = Pulse::default();
        pulse.began(at(0));
        pulse.ended(at(3_000), true, 1, Duration::from_secs(3));
        assert!(!pulse.is_quiet(at(9_000)) && pulse.is_quiet(at(9_001)));
        assert_eq!(pulse.patience(at(9_000)), Some(WAIT_MAX));
        assert_eq!(pulse.patience(at(9_001)), None);
    }

    #[test]
    fn nobody_waits_for_one_where_nothing_moves() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.patience(at(0)), Some(BRIEFLY), "it may be quick");
        pulse.began(at(0));
        assert_eq!(
            (pulse.patience(at(99)), pulse.patience(at(100))),
            (Some(BRIEFLY), None),
            "nobody answered yet"
        );
        pulse.ended(at(300), true, 3, TOOK);
        assert_eq!((pulse.patience(at(500)), pulse.patience(at(501))), (Some(WAIT_MAX), None));
    }
}
