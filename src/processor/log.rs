//! Writes one line a message to the log: what a queue does until it is told otherwise.
//!
//! The line names the message, its queue and its size, never the payload. A log is no place for a flood: in a second there are
//! at most [`LINES_PER_S_MAX`] of a gateway, and one more that counts the rest.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{LocalBoxFuture, ready};

use crate::clock::Clock;
use crate::domain::outcome::Outcome;
use crate::processor::lines::Lines;
use crate::processor::{Build, Context, Delivery, Processor, Report};

/// Lines a gateway writes in a second before it only counts.
pub const LINES_PER_S_MAX: u32 = 10;

const TARGET: &str = "posthaste::processor::log";

/// The `log` processor. All threads of a gateway share its pace.
#[derive(Clone)]
pub struct Log {
    clock: Clock,
    pace: Arc<Mutex<Lines>>,
}

/// How `log` is built on each thread.
pub(super) fn build(context: &Context) -> Build {
    let log = Log::new(context.clock.clone());
    Arc::new(move || Rc::new(log.clone()))
}

impl Log {
    /// A processor; its clones share the pace.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let pace = Lines::new(LINES_PER_S_MAX, clock.tick());
        Self { clock, pace: Arc::new(Mutex::new(pace)) }
    }

    fn write(&self, logger: &dyn log::Log, delivery: &Delivery) {
        let (unlogged, admitted) = {
            let mut pace = self.pace();
            (pace.turn(self.clock.tick()), pace.admit())
        };
        count(logger, unlogged);
        if admitted {
            let payload_bytes = delivery.record.payload().len();
            log::info!(
                logger: logger, target: TARGET,
                "message.id":% = delivery.record.id(), "queue.name":% = delivery.queue, "payload_bytes" = payload_bytes;
                "message"
            );
        }
    }

    fn look(&self, logger: &dyn log::Log) {
        let unlogged = self.pace().turn(self.clock.tick());
        count(logger, unlogged);
    }

    fn pace(&self) -> MutexGuard<'_, Lines> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(logger: &dyn log::Log, unlogged: u64) {
    if unlogged > 0 {
        log::info!(logger: logger, target: TARGET, "messages" = unlogged; "more messages than lines");
    }
}

impl Processor for Log {
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report> {
        self.write(log::logger(), &delivery);
        Box::pin(ready(Outcome::Done.into()))
    }

    fn tick(&self) {
        self.look(log::logger());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let unlogged = self.pace().take_counted();
        count(log::logger(), unlogged);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::sync::Mutex;
    use std::time::Duration;

    use log::kv::{self, Key, Value, VisitSource};

    use super::*;
    use crate::domain::timestamp::Timestamp;
    use crate::processor::fixture;

    /// Keeps what is written, as `message key=value …`.
    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    struct Line(String);

    impl<'v> VisitSource<'v> for Line {
        fn visit_pair(&mut self, key: Key<'v>, value: Value<'v>) -> Result<(), kv::Error> {
            write!(self.0, " {key}={value}").map_err(kv::Error::from)
        }
    }

    impl log::Log for Kept {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            assert_eq!((record.level(), record.target()), (log::Level::Info, TARGET));
            let mut line = Line(record.args().to_string());
            record.key_values().visit(&mut line).expect("nothing fails");
            self.0.lock().expect("not poisoned").push(line.0);
        }

        fn flush(&self) {}
    }

    impl Kept {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().expect("not poisoned"))
        }
    }

    #[test]
    fn a_line_names_the_message_and_never_shows_its_payload() {
        log::set_max_level(log::LevelFilter::Info);
        let (kept, log) = (Kept::default(), Log::new(Clock::manual(Timestamp::default())));
        let delivery = fixture::delivery("orders", b"a secret payload");
        log.write(&kept, &delivery);
        let expected =
            format!("message message.id={} queue.name=orders payload_bytes=16", delivery.record.id());
        assert_eq!(kept.take(), [expected]);
    }

    #[test]
    fn beyond_ten_lines_a_second_the_rest_is_counted() {
        log::set_max_level(log::LevelFilter::Info);
        let clock = Clock::manual(Timestamp::default());
        let (kept, log) = (Kept::default(), Log::new(clock.clone()));
        let delivery = fixture::delivery("orders", b"x");
        let write = |times: u32| (0..times).for_each(|_| log.write(&kept, &delivery));
        write(50);
        assert_eq!(kept.take().len(), 10);
        clock.advance(Duration::from_millis(999));
        write(2);
        log.look(&kept);
        assert_eq!(kept.take(), Vec::<String>::new(), "the second is not over");
        clock.advance(Duration::from_millis(1));
        log.look(&kept);
        assert_eq!(
            kept.take(),
            ["more messages than lines messages=42"],
            "the count needs no further message"
        );
        write(10);
        assert_eq!(kept.take().len(), 10);
        clock.advance(Duration::from_secs(1));
        write(1);
        let lines = kept.take();
        assert_eq!(lines.len(), 1, "a second that was not exceeded is not counted: {lines:?}");
    }

    #[test]
    fn a_message_is_done_once_it_is_logged() {
        let log = Log::new(Clock::manual(Timestamp::default()));
        let report = futures_util::FutureExt::now_or_never(log.process(fixture::delivery("orders", b"x")));
        assert_eq!(report, Some(Outcome::Done.into()));
    }
}
