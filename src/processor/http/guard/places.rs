//! How many names are looked up at once, so that those of a dead name server leave room for others.
//!
//! A lookup begins in one of a few quick places. When it has lasted for [`SLOW_AFTER`] it moves to one of many slow places, as long
//! as there is one, and its quick place is free for the next.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How long a lookup may last in a quick place: name servers that are well answer within some hundred milliseconds.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(1);

/// The longest wait for a place: what is in the quick ones has left them by then, where it can.
pub(super) const PLACE_TIMEOUT: Duration = Duration::from_secs(2);

/// Places for lookups; each is a thread.
pub(super) struct Places {
    quick: Arc<Semaphore>,
    slow_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// In the order in which they were taken.
    quick: BTreeMap<u64, (Instant, OwnedSemaphorePermit)>,
    slow: usize,
    taken: u64,
}

/// A place that is held; dropping it gives it back.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// So many of each kind.
    pub(super) fn new(quick: usize, slow_max: usize) -> Arc<Self> {
        Arc::new(Self { quick: Arc::new(Semaphore::new(quick)), slow_max, held: Mutex::default() })
    }

    /// Waits for a quick place, first come, first served; `None` when there was none within [`PLACE_TIMEOUT`].
    pub(super) async fn place(self: &Arc<Self>) -> Option<Place> {
        let until = Instant::now() + PLACE_TIMEOUT;
        let mut permit = pin!(self.quick.clone().acquire_owned());
        loop {
            // Whoever waits makes the slow ones move: no task has to.
            let now = Instant::now();
            let next = self.held().move_slow(self.slow_max, now).unwrap_or(now + SLOW_AFTER);
            match timeout_at(next.min(until), &mut permit).await {
                Ok(permit) => return Some(self.take(permit.expect("the semaphore is never closed"))),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => {}
            }
        }
    }

    fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let mut held = self.held();
        let number = held.taken;
        held.taken += 1;
        held.quick.insert(number, (Instant::now(), permit));
        Place { places: self.clone(), number }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Moves what is slow by now, as long as there is room; gives when the next one will be, if that can help.
    fn move_slow(&mut self, slow_max: usize, now: Instant) -> Option<Instant> {
        while self.slow < slow_max
            && let Some(oldest) = self.quick.first_entry()
        {
            let slow_at = oldest.get().0 + SLOW_AFTER;
            if slow_at > now {
                return Some(slow_at);
            }
            drop(oldest.remove());
            self.slow += 1;
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if held.quick.remove(&self.number).is_none() {
            held.slow -= 1;
            held.move_slow(self.places.slow_max, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use tokio::time::advance;

    use super::*;

    /// As many as there are at once.
    async fn take(places: &Arc<Places>, count: usize) -> Vec<Place> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(places.place().await.expect("a place"));
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_leaves_its_place_to_the_next_as_long_as_there_is_room_for_the_slow() {
        let places = Places::new(2, 3);
        let began = Instant::now();
        let mut taken = take(&places, 2).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        taken.extend(take(&places, 2).await);
        assert_eq!(began.elapsed(), SLOW_AFTER);
        taken.extend(take(&places, 1).await);
        assert_eq!(began.elapsed(), SLOW_AFTER * 2, "one more is slow, and the room for those is full");
        assert!(places.place().await.is_none(), "two in quick places, three in slow ones");
        assert_eq!(began.elapsed(), SLOW_AFTER * 2 + PLACE_TIMEOUT);
        // A slow one that ends makes room for another that is slow.
        taken.remove(0);
        taken.extend(take(&places, 1).await);
        drop(taken);
        let held = places.held();
        assert_eq!((held.quick.len(), held.slow, places.quick.available_permits()), (0, 0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_first_is_served_first_and_who_leaves_takes_nothing() {
        let places = Places::new(1, 0);
        let only = take(&places, 1).await;
        {
            let mut first = pin!(places.place());
            let mut second = Box::pin(places.place());
            let mut third = pin!(places.place());
            assert!(poll_immediate(first.as_mut()).await.is_none());
            assert!(poll_immediate(second.as_mut()).await.is_none());
            assert!(poll_immediate(third.as_mut()).await.is_none());
            advance(SLOW_AFTER).await;
            drop((only, second));
            assert!(poll_immediate(third.as_mut()).await.is_none(), "it is not its turn");
            let place = first.await.expect("its turn");
            drop(place);
            assert!(third.await.is_some());
        }
        assert_eq!(places.quick.available_permits(), 1);
    }
}
