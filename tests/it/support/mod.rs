//! What the scenarios stand on.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod delivery;
pub(crate) mod embedded;
pub(crate) mod gateway;
pub(crate) mod invariants;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod routes;
pub(crate) mod sink;
pub(crate) mod small_disk;
pub(crate) mod stores;
pub(crate) mod terminal;
pub(crate) mod tls;

use std::thread;
use std::time::{Duration, Instant};

/// Waits before the next look: little at first, and more for what takes long, since each look is work for a machine that many share.
pub(crate) fn pause_before_next_look(begun: Instant) {
    let is_soon = begun.elapsed() < Duration::from_secs(1);
    thread::sleep(Duration::from_millis(if is_soon { 5 } else { 25 }));
}

/// Polls until `look` gives something; fails when the time is over.
pub(crate) fn wait_until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < within, "waiting until {what}: not within {within:?}");
        pause_before_next_look(begun);
    }
}
