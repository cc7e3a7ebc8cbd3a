//! Saying that breakers opened: whoever brings destinations can make any number of them, and a log is no place for a flood.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lane::millis;
use crate::clock::Tick;
use crate::processor::lines::Lines;

/// Breakers of a gateway that are named in a second before they are only counted.
const LINES_PER_S_MAX: u32 = 10;

/// What was said of the breakers of a gateway within this second. All its lanes share it.
pub(super) struct Openings {
    lines: Mutex<Lines>,
    /// Whether some are counted, so that looking costs next to nothing.
    is_behind: AtomicBool,
}

impl Openings {
    pub(super) fn new(now: Tick) -> Self {
        Self { lines: Mutex::new(Lines::new(LINES_PER_S_MAX, now)), is_behind: AtomicBool::new(false) }
    }

    /// The breaker of this lane opened, for so long.
    pub(super) fn say(&self, logger: &dyn log::Log, now: Tick, key: &str, cause: &str, open_for: Duration) {
        let (counted, is_admitted) = {
            let mut lines = self.lines();
            let told = (lines.turn(now), lines.admit());
            self.is_behind.store(!told.1, Ordering::Relaxed);
            told
        };
        count(logger, counted);
        if is_admitted {
            log::warn!(logger: logger, "lane.key" = key, "cause" = cause, "open_ms" = millis(open_for); "a breaker opened: nothing is sent there until it is probed");
        }
    }

    /// Tells how many were not named, once their second is over.
    pub(super) fn look(&self, logger: &dyn log::Log, now: Tick) {
        if !self.is_behind.load(Ordering::Relaxed) {
            return;
        }
        let counted = {
            let mut lines = self.lines();
            let counted = lines.turn(now);
            if counted > 0 {
                self.is_behind.store(false, Ordering::Relaxed);
            }
            counted
        };
        count(logger, counted);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Nothing that can panic is done under this lock.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Openings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Openings").field("lines", &*self.lines()).finish_non_exhaustive()
    }
}

impl Drop for Openings {
    fn drop(&mut self) {
        let counted = self.lines().take_counted();
        count(log::logger(), counted);
    }
}

fn count(logger: &dyn log::Log, counted: u64) {
    if counted > 0 {
        log::warn!(logger: logger, "lanes" = counted; "more breakers opened than are named: /status has them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::timestamp::Timestamp;

    /// Keeps what is written, and the number of lanes in it.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(String, Option<u64>)>>);

    impl log::Log for Kept {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let lanes = record.key_values().get("lanes".into()).and_then(|lanes| lanes.to_u64());
            self.0.lock().expect("not poisoned").push((record.args().to_string(), lanes));
        }

        fn flush(&self) {}
    }

    impl Kept {
        /// Lines that name a breaker, and what was counted.
        fn take(&self) -> (usize, Vec<u64>) {
            let all = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
            let named = all.iter().filter(|(line, _)| line.starts_with("a breaker opened")).count();
            (named, all.into_iter().filter_map(|(_, lanes)| lanes).collect())
        }
    }

    #[test]
    fn of_a_thousand_breakers_ten_a_second_are_named_and_the_rest_is_counted() {
        log::set_max_level(log::LevelFilter::Info);
        let clock = Clock::manual(Timestamp::default());
        let (kept, openings) = (Kept::default(), Openings::new(clock.tick()));
        let say = |times: u32| {
            for _ in 0..times {
                openings.say(&kept, clock.tick(), "https://shop.example", "connect: refused", Duration::ZERO);
            }
        };
        say(1_000);
        openings.look(&kept, clock.tick());
        assert_eq!(kept.take(), (10, vec![]), "the second is not over");
        clock.advance(Duration::from_secs(1));
        openings.look(&kept, clock.tick());
        openings.look(&kept, clock.tick());
        assert_eq!(kept.take(), (0, vec![990]), "the count needs no further breaker, and is told once");
        say(11);
        assert_eq!(kept.take(), (10, vec![]));
        clock.advance(Duration::from_secs(1));
        say(1);
        assert_eq!(kept.take(), (1, vec![1]));
        clock.advance(Duration::from_secs(1));
        openings.look(&kept, clock.tick());
        assert_eq!(kept.take(), (0, vec![]), "a second that was not exceeded is not counted");
    }
}
