//! Time as a value that is handed in: wall time for due moments, a monotonic reading for leases and deadlines.
//!
//! Only this file reads the machine's clocks. Everything that decides takes the reading as an argument, so a test
//! may step, jump and freeze time with [`Clock::manual`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::timestamp::Timestamp;

/// A monotonic reading: time since this clock was made. Never goes back, whatever happens to the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(Duration);

impl Tick {
    /// A reading at this distance from the making of the clock.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The reading `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time from `earlier` to this reading; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A clock that can be cloned and sent to any thread; all clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    wall_ms: AtomicU64,
    tick_ms: AtomicU64,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still at `start` until it is moved with [`Clock::advance`] or [`Clock::set_wall`].
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let manual = Manual { wall_ms: AtomicU64::new(start.as_millis()), tick_ms: AtomicU64::new(0) };
        Self(Source::Manual(Arc::new(manual)))
    }

    /// Whether it is moved by hand.
    #[must_use]
    pub const fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }

    /// The wall time, milliseconds since the Unix epoch. May jump either way when an operator sets the clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(_) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this is the one place that reads the wall clock"
                )]
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual(manual) => Timestamp::from_millis(manual.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// The monotonic reading.
    #[must_use]
    pub fn tick(&self) -> Tick {
        match &self.0 {
            Source::System(start) => Tick(start.elapsed()),
            Source::Manual(manual) => Tick(Duration::from_millis(manual.tick_ms.load(Ordering::SeqCst))),
        }
    }

    /// Lets `span` pass on a manual clock, wall and monotonic alike. Does nothing to the system's clock.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            manual.wall_ms.fetch_add(span_ms, Ordering::SeqCst);
            manual.tick_ms.fetch_add(span_ms, Ordering::SeqCst);
        }
    }

    /// Sets the wall time of a manual clock, as an operator or NTP may; the monotonic reading stays.
    pub fn set_wall(&self, wall: Timestamp) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall_ms.store(wall.as_millis(), Ordering::SeqCst);
        }
    }
}
