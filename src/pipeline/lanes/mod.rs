//! Lanes: everything that this gateway sends to one origin, so that one bad destination slows nobody else.
//!
//! | file | noun |
//! |---|---|
//! | `judge` | what the end of an attempt means: a table |
//! | `breaker` | whether a lane lets attempts through |
//! | `concurrency` | how many may be in flight |
//! | `claims` | which queues want more than there is, and the part of each |
//! | `line` | when a message that found no room is worth another look |
//! | `backlog` | what was put off and is brought forward when somebody answers |
//! | `recall` | the right to do so |
//! | `row` | who waits in hand, and for how long that is worth it |
//! | `pulse` | whether the destination answers, and how long that takes |
//! | `ask` | who wants to pass or to lease, and what it is told |
//! | `why` | why nothing passes |
//! | `gate` | these together, and who waits |
//! | `lane` | a gate that is shared, and the right to pass it |
//! | `openings` | what the log says of breakers that open |
//! | `settings` | `[lanes]` |
//!
//! A queue that sends to one destination is not leased while its lane is shut or full; a queue whose messages bring their own is,
//! and what meets such a lane is put off ([`Verdict::Defer`](crate::domain::retry::Verdict)). What a queue may have in flight by
//! its own settings is its [`Share`](crate::pipeline::share), which comes on top.

mod ask;
mod backlog;
mod breaker;
mod claims;
mod concurrency;
mod gate;
mod judge;
mod lane;
mod line;
mod openings;
mod pulse;
mod recall;
mod recent;
mod row;
pub mod settings;
#[cfg(test)]
mod tests;
mod why;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use self::backlog::Waiting;
use self::backlog::{Backlog, Crowd};
pub use self::breaker::Phase;
pub(super) use self::lane::{Lane, Left, NoWay, Pass};
use self::openings::Openings;
pub(super) use self::recall::{EVERY, Recall, Step};
pub(super) use self::recent::Recent;
use self::settings::LaneSettings;
pub use self::why::{AllShut, Why};
use crate::clock::{Clock, Tick};
use crate::domain::format::Rate;
use crate::domain::queue::QueueSettings;
use crate::pipeline::pace::Pace;

/// Lanes that are remembered. Messages may bring any destination; a lane takes about half a kilobyte, so this is 5 MB, and it is far
/// more than can be in flight at once.
const LANES_MAX: usize = 10_000;
/// How long a lane is remembered that is not used and has nothing to remember.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// How long nothing more is forgotten after hardly anything could be: to look through all of them takes a millisecond.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// All lanes of this gateway. Clones share them; usable from any thread.
#[derive(Clone)]
pub struct Lanes(Arc<Shared>);

struct Shared {
    settings: LaneSettings,
    clock: Clock,
    openings: Arc<Openings>,
    crowd: Crowd,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<Arc<str>, Arc<Lane>>,
    swept_at: Tick,
    /// Whether hardly any could be forgotten then.
    is_crowded: bool,
}

/// A snapshot of one lane.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneStatus {
    /// The origin.
    pub key: Arc<str>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// Attempts that may be in flight now.
    pub limit: u32,
    /// Its rate, if it has one.
    pub rate: Option<Rate>,
    /// What lets attempts through; a lane that its destination asked to pause shows as open.
    pub breaker: Phase,
    /// Messages leased for it that are not in flight.
    pub waiting: usize,
}

/// Where the messages of a queue go.
pub(super) struct Way {
    /// The lane of its own destination.
    pub(super) lane: Option<Arc<Lane>>,
    /// Whether messages may bring others.
    pub(super) is_mixed: bool,
}

impl Way {
    /// The lane in which leases of the queue are booked.
    pub(super) fn booked(&self) -> Option<&Arc<Lane>> {
        self.lane.as_ref().filter(|_| !self.is_mixed)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lanes").field("known", &self.known().by_key.len()).finish_non_exhaustive()
    }
}

impl Lanes {
    /// No lanes yet.
    pub(super) fn new(settings: LaneSettings, clock: Clock) -> Self {
        let openings = Arc::new(Openings::new(clock.tick()));
        let crowd = Crowd::default();
        Self(Arc::new(Shared { settings, clock, openings, crowd, known: Mutex::default() }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic is done under this lock.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of this key. When so many are in use that none can be forgotten, it is one that nobody else has.
    pub(super) fn of(&self, key: &str) -> Arc<Lane> {
        let mut known = self.known();
        if let Some(lane) = known.by_key.get(key) {
            return lane.clone();
        }
        let now = self.0.clock.tick();
        known.forget_idle(now, &self.0.settings);
        let (rate, most) = self.0.settings.of(key);
        let (clock, openings) = (self.0.clock.clone(), self.0.openings.clone());
        let backlog = Backlog::new(self.0.crowd.clone());
        let lane = Arc::new(Lane::new(key, most, rate.map(Pace::new), clock, openings, backlog));
        // The operator's are few, and their rates hold whatever else is known.
        if known.by_key.len() < LANES_MAX || self.0.settings.origins.contains_key(key) {
            known.by_key.insert(lane.key.clone(), lane.clone());
        }
        lane
    }

    /// Where the messages of a queue with these settings go.
    pub(super) fn way(&self, settings: &QueueSettings) -> Way {
        let lane = settings.destination.as_ref().map(|destination| self.of(&destination.lane_key()));
        Way { lane, is_mixed: settings.takes_destinations() }
    }

    /// Why the lane of this key is shut, and for how long; `None` when it is not.
    #[must_use]
    pub fn why_shut(&self, key: &str) -> Option<(Duration, Why)> {
        let lane = self.known().by_key.get(key).cloned()?;
        let (until, why) = lane.why_shut()?;
        Some((until.since(self.0.clock.tick()), why))
    }

    /// Why none of these lanes lets messages pass; `None` when one of them does, and of no lanes.
    #[must_use]
    pub fn why_all_shut(&self, keys: &[Arc<str>]) -> Option<AllShut> {
        let lanes: Option<Vec<_>> = {
            let known = self.known();
            keys.iter().map(|key| known.by_key.get(key).cloned()).collect()
        };
        let shut = |lane: Arc<Lane>| lane.why_put_off().map(|(until, why)| (lane.key.clone(), until, why));
        let all: Vec<_> = lanes?.into_iter().map(shut).collect::<Option<_>>()?;
        let count = all.len();
        let (key, until, why) = all.into_iter().min_by_key(|(_, until, why)| (why.rank(), *until))?;
        Some(AllShut { key, wait: until.since(self.0.clock.tick()), why, others: count - 1 })
    }

    /// The reading of the clock to which [`Phase::Open`] refers.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.0.clock.tick()
    }

    /// All lanes, by key.
    #[must_use]
    pub fn all(&self) -> Vec<LaneStatus> {
        let lanes: Vec<_> = self.known().by_key.values().cloned().collect();
        let now = self.now();
        self.0.openings.look(log::logger(), now);
        let mut all: Vec<_> = lanes.iter().map(|lane| status(lane, now)).collect();
        all.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        all
    }
}

fn status(lane: &Lane, now: Tick) -> LaneStatus {
    let gate = lane.gate();
    let in_flight = gate.in_flight_of_all;
    // Who waits in hand and was not booked is not among those.
    let waiting = lane.booked().saturating_sub(in_flight as usize).max(gate.waiting());
    LaneStatus {
        key: lane.key.clone(),
        in_flight,
        limit: gate.limit.now(),
        rate: gate.pace.as_ref().map(Pace::rate),
        breaker: gate.phase(now),
        waiting,
    }
}

impl Known {
    /// Forgets what is not used: now and then, and when there are too many. Never those that settings name, nor what is held.
    fn forget_idle(&mut self, now: Tick, settings: &LaneSettings) {
        let is_full = self.by_key.len() >= LANES_MAX;
        let pause = match () {
            () if !is_full => IDLE_MAX,
            () if self.is_crowded => CROWDED_PAUSE,
            () => Duration::ZERO,
        };
        if now.since(self.swept_at) < pause {
            return;
        }
        self.swept_at = now;
        let mut forget = |unused_for: Duration, also_shut: bool| {
            self.by_key.retain(|_, lane| {
                let gate = lane.gate();
                let is_used = Arc::strong_count(lane) > 1 || now.since(gate.used_at) < unused_for;
                is_used || settings.origins.contains_key(&*lane.key) || !gate.is_idle(now, also_shut)
            });
            self.by_key.len()
        };
        let mut left = forget(if is_full { Duration::ZERO } else { IDLE_MAX }, false);
        // Not for a few, or the next ones would look through all of them again.
        if is_full && left > LANES_MAX / 8 * 7 {
            left = forget(Duration::ZERO, true);
        }
        self.is_crowded = left > LANES_MAX / 8 * 7;
    }
}
