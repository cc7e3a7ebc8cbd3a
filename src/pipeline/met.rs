//! Which lanes put the messages of one queue off, for whoever asks why it does not move.
//!
//! Only what finds no way is noted, and of what is answered the time. A lane is remembered until the last message that it put off is
//! due again, [`LANES_MAX`] of them: when there are more, those that are due last.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Tick;
use crate::processor::Signal;

/// Lanes that are remembered.
const LANES_MAX: usize = 64;
/// How much later than it is due a message that was put off may be back.
const LATE_MAX: Duration = Duration::from_secs(2);
/// For how long a queue moves that had an answer.
const MOVES: Duration = Duration::from_secs(10);

/// What messages of one queue met.
#[derive(Default)]
pub(super) struct Met {
    /// Each with the time until which it put messages off.
    lanes: Mutex<Vec<(Arc<str>, Tick)>>,
    /// Attempts under way that find out for their lanes whether there is an answer.
    probes: AtomicUsize,
    /// When a lane that is open answered last, microseconds of the clock; 0 before.
    answered_us: AtomicU64,
}

/// A probe under way.
pub(super) struct Probing<'m>(&'m Met);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.probes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Met {
    /// Notes that a message is put off by a lane until then.
    pub(super) fn put_off(&self, lane: &Arc<str>, now: Tick, until: Tick) {
        let mut lanes = self.lanes();
        if let Some((_, known)) = lanes.iter_mut().find(|(key, _)| key == lane) {
            *known = until.max(*known);
            return;
        }
        if lanes.len() >= LANES_MAX {
            lanes.retain(|(_, until)| is_awaited(now, *until));
        }
        if lanes.len() >= LANES_MAX
            && let Some(soonest) = (0..lanes.len()).min_by_key(|place| lanes[*place].1)
        {
            lanes.swap_remove(soonest);
        }
        lanes.push((lane.clone(), until));
    }

    /// Notes how an attempt ended, and of which lane its message waits where that is `shut` now, until when.
    pub(super) fn ended(&self, now: Tick, signal: Signal, shut: Option<(Arc<str>, Tick)>) {
        match shut {
            Some((lane, until)) => self.put_off(&lane, now, until),
            None if matches!(signal, Signal::Answered { .. }) => {
                let now_us = u64::try_from(now.since(Tick::default()).as_micros()).unwrap_or(u64::MAX);
                self.answered_us.store(now_us.max(1), Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// Notes that a probe is under way until the guard is dropped.
    pub(super) fn probing(&self) -> Probing<'_> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        Probing(self)
    }

    /// The lanes that its messages wait for, when so many are in flight; none while it moves: something is under way that is no
    /// probe, or was answered within [`MOVES`].
    pub(super) fn waits_for(&self, now: Tick, in_flight: usize) -> Vec<Arc<str>> {
        let answered_us = self.answered_us.load(Ordering::Relaxed);
        let answered_at = Tick::new(Duration::from_micros(answered_us));
        let is_moving = answered_us != 0 && now.since(answered_at) < MOVES;
        if is_moving || in_flight > self.probes.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let lanes = self.lanes();
        let awaited = lanes.iter().filter(|(_, until)| is_awaited(now, *until));
        awaited.map(|(lane, _)| lane.clone()).collect()
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<(Arc<str>, Tick)>> {
        // Nothing that can panic is done under this lock.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_awaited(now: Tick, until: Tick) -> bool {
    now <= until.after(LATE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Signal = Signal::Answered { status: 200, hold: None };

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    fn lane(number: usize) -> Arc<str> {
        format!("https://{number}.example").into()
    }

    #[test]
    fn a_queue_waits_for_the_lanes_that_put_it_off_until_what_they_put_off_is_due() {
        let met = Met::default();
        met.put_off(&lane(1), at(0), at(1_000));
        met.put_off(&lane(2), at(0), at(5_000));
        met.put_off(&lane(1), at(0), at(500));
        met.ended(at(0), Signal::NoAnswer, Some((lane(2), at(3_000))));
        assert_eq!(met.waits_for(at(3_000), 0), [lane(1), lane(2)]);
        assert_eq!(met.waits_for(at(3_001), 0), [lane(2)]);
        assert!(met.waits_for(at(7_001), 0).is_empty());
    }

    #[test]
    fn a_queue_moves_while_something_is_under_way_that_is_no_probe_and_a_while_after_an_answer() {
        let met = Met::default();
        met.put_off(&lane(1), at(0), at(60_000));
        let probing = met.probing();
        assert_eq!((met.waits_for(at(1), 1).len(), met.waits_for(at(1), 2).len()), (1, 0));
        drop(probing);
        assert!(met.waits_for(at(1), 1).is_empty());
        met.ended(at(2), Signal::NoAnswer, None);
        assert_eq!(met.waits_for(at(2), 0), [lane(1)], "nobody was there");
        met.ended(at(3), OK, None);
        assert!(met.waits_for(at(10_002), 0).is_empty());
        assert_eq!(met.waits_for(at(10_003), 0), [lane(1)]);
    }

    #[test]
    fn of_many_lanes_those_are_remembered_that_are_due_last() {
        let met = Met::default();
        for number in 0..1_000 {
            met.put_off(&lane(number), at(0), at(number as u64));
        }
        let known = met.waits_for(at(1_000), 0);
        assert_eq!(known.len(), LANES_MAX);
        assert!((1_000 - LANES_MAX..1_000).all(|number| known.contains(&lane(number))));
        met.put_off(&lane(1), at(10_000), at(10_000));
        assert_eq!(met.waits_for(at(10_000), 0), [lane(1)], "the others are back");
    }
}
