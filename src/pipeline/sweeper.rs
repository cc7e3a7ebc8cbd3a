//! Does what time brings: promotes what is due, takes back lost leases, expires, enforces retention.
//!
//! # What it does
//! Lets the store sweep, round after round while a round ends for its budget, and posts on the wake board which queues
//! have something to lease.
//!
//! # What it waits for
//! The next moment that the store named, a second at most (spread by a tenth, so that several gateways do not look at
//! one store in step); or the word that something became due sooner.
//!
//! # What it guarantees
//! A queue with something to lease is posted at least about once a second, whatever became of earlier posts: this is
//! the safety net under every wake-up. A round is bounded by the store; between rounds the thread serves others.
//!
//! # When it fails
//! With the store away it tries again, ever more slowly, up to once a second.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use crate::actor::{Actor, Exit, Inbox, Life};
use crate::clock::Clock;
use crate::pipeline::backoff::Backoff;
use crate::store::error::StoreError;
use crate::store::stats::Swept;
use crate::store::wake::{WakeBoard, WakeSubscription};
use crate::store::{MessageStore, Store};

/// The longest time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The actor.
pub(super) struct Sweeper {
    store: Rc<dyn MessageStore>,
    wakes: WakeBoard,
    subscription: WakeSubscription,
    clock: Clock,
    backoff: Backoff,
}

impl Actor for Sweeper {
    // Time tells it what to do.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let mut stopping = pin!(life.stopping());
        loop {
            life.beat();
            if life.is_stopping() {
                return Exit::Done;
            }
            // What is posted during the sweep may be too late for it: it ends the wait after it.
            drop(self.subscription.take());
            let swept = tokio::select! {
                biased;
                () = &mut stopping => return Exit::Done,
                swept = self.store.sweep() => swept,
            };
            let pause = self.swept(swept);
            if pause.is_zero() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = &mut stopping => {}
                () = self.subscription.posted() => {}
                () = sleep(pause) => {}
            }
        }
    }
}

impl Sweeper {
    pub(super) fn new(store: &dyn Store, clock: Clock) -> Self {
        let (wakes, subscription) = (store.wakes().clone(), store.wakes().subscribe_time());
        Self { store: store.connect(), wakes, subscription, clock, backoff: Backoff::default() }
    }

    /// Tells of what a round found; gives the pause until the next one.
    fn swept(&mut self, swept: Result<Swept, StoreError>) -> Duration {
        let swept = match swept {
            Ok(swept) => swept,
            Err(error) => {
                if !self.backoff.is_failing() {
                    log::warn!("cause" = error.to_string().as_str(); "the store does not sweep");
                }
                return self.backoff.failed();
            }
        };
        if self.backoff.succeeded() {
            log::info!("the store sweeps again");
        }
        if swept.reaped > 0 {
            log::info!("count" = swept.reaped; "lost leases were taken back");
        }
        for queue in &swept.ready {
            self.wakes.post(queue);
        }
        if swept.more {
            return Duration::ZERO;
        }
        let longest = SWEEP_EVERY.mul_f64(0.9 + fastrand::f64() / 5.0);
        let next = swept.next_at.map_or(longest, |at| at.since(self.clock.now()));
        // A moment that has passed without anything to do for it must not make this spin.
        next.clamp(Duration::from_millis(1), longest)
    }
}
