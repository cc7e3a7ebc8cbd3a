//! Tells when arrivals are due, to some ten microseconds: the timers of the runtime are of a millisecond.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::schedule::Schedule;

/// How long it sleeps at most before it looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A thread that gives a permit for each arrival when it is due. Dropping it ends it.
pub(super) struct Pacer {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Begins; behind the last arrival it gives so many permits more, for those who wait for one that does not come.
    pub(super) fn start(
        schedule: Schedule,
        began: Instant,
        due: Arc<Semaphore>,
        waiting: usize,
    ) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let run = move || {
            for at in schedule {
                if !sleep_until(began + at, &seen) {
                    return;
                }
                due.add_permits(1);
            }
            due.add_permits(waiting);
        };
        let thread = thread::Builder::new().name("pacer".to_owned()).spawn(run)?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Sleeps until then; `false` where it is over before.
fn sleep_until(then: Instant, is_over: &AtomicBool) -> bool {
    loop {
        if is_over.load(Ordering::Relaxed) {
            return false;
        }
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}
