//! What is kept for later and for how long: idle connections, by origin, the least used given up first.
//!
//! Each has a descriptor, and descriptors are the process's: all threads share one [`Room`]. A thread that would keep more
//! lets go of the one that it has kept for longest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::time::Instant;

/// Kept per shelf: as many as a lane has slots.
const SHELF_MAX: usize = 64;

/// Kept in a process, at most: each takes some 20 KiB of buffers beside its descriptor.
const ROOM_MAX: usize = 4_096;

/// The part of the process's descriptors that may be kept idle: deliveries in flight and clients need the others.
const DESCRIPTORS_PART: u64 = 8;

/// How long something is kept. Many receivers close what is idle after a minute; closing first avoids the race.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Entries of the order that are looked at before those are swept out that say nothing any more.
const ORDER_MIN: usize = 64;

/// How much may be kept in this process, and how often it was short of descriptors.
pub(super) struct Room {
    kept: AtomicUsize,
    most: usize,
    shortages: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        Self::of(usize::try_from(descriptors / DESCRIPTORS_PART).unwrap_or(ROOM_MAX).min(ROOM_MAX))
    }
}

impl Room {
    const fn of(most: usize) -> Self {
        Self { kept: AtomicUsize::new(0), most, shortages: AtomicUsize::new(0) }
    }

    fn take(&self) -> bool {
        let more = |kept: usize| (kept < self.most).then_some(kept + 1);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, count: usize) {
        self.kept.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What one thread keeps.
pub(super) struct Pool<T> {
    room: Arc<Room>,
    /// What was kept when, oldest first; some of it may have been taken up since.
    order: RefCell<VecDeque<(u64, Weak<Shelf<T>>)>>,
    serial: Cell<u64>,
    kept: Cell<usize>,
    shortages: Cell<usize>,
}

/// What it keeps for one origin.
pub(super) struct Shelf<T> {
    pool: Rc<Pool<T>>,
    /// Oldest first.
    kept: RefCell<VecDeque<Kept<T>>>,
}

struct Kept<T> {
    serial: u64,
    since: Instant,
    what: T,
}

impl<T> Pool<T> {
    /// An empty one.
    pub(super) fn new(room: Arc<Room>) -> Rc<Self> {
        let shortages = Cell::new(room.shortages.load(Ordering::Relaxed));
        let (order, serial, kept) = (RefCell::default(), Cell::default(), Cell::default());
        Rc::new(Self { room, order, serial, kept, shortages })
    }

    /// A shelf in it.
    pub(super) fn shelf(self: &Rc<Self>) -> Rc<Shelf<T>> {
        Rc::new(Shelf { pool: self.clone(), kept: RefCell::default() })
    }

    /// The process is short of descriptors: every thread lets go of what it keeps.
    pub(super) fn is_short(&self) {
        self.room.shortages.fetch_add(1, Ordering::Relaxed);
        self.heed_shortage();
    }

    /// Lets go of everything if there was a shortage since the last time.
    pub(super) fn heed_shortage(&self) {
        let shortages = self.room.shortages.load(Ordering::Relaxed);
        if self.shortages.replace(shortages) != shortages {
            while self.drop_oldest() {}
        }
    }

    /// Lets go of what was kept for longest; whether there was anything.
    fn drop_oldest(&self) -> bool {
        loop {
            let Some((serial, shelf)) = self.order.borrow_mut().pop_front() else { return false };
            let Some(shelf) = shelf.upgrade() else { continue };
            let oldest = shelf.kept.borrow_mut().pop_front_if(|kept| kept.serial == serial);
            if oldest.is_some() {
                self.gone(1);
                return true;
            }
        }
    }

    fn gone(&self, count: usize) {
        self.kept.set(self.kept.get() - count);
        self.room.give_back(count);
    }

    fn note(&self, serial: u64, shelf: &Rc<Shelf<T>>) {
        let mut order = self.order.borrow_mut();
        if order.len() >= ORDER_MIN.max(2 * self.kept.get()) {
            order.retain(|(serial, shelf)| shelf.upgrade().is_some_and(|shelf| shelf.has(*serial)));
        }
        order.push_back((serial, Rc::downgrade(shelf)));
    }
}

impl<T> Shelf<T> {
    /// The pool that it is in.
    pub(super) fn pool(&self) -> &Pool<T> {
        &self.pool
    }

    /// Takes what was kept last.
    pub(super) fn take(&self) -> Option<T> {
        let last = self.kept.borrow_mut().pop_back()?;
        self.pool.gone(1);
        Some(last.what)
    }

    /// Keeps it for later, unless there is enough here or no room in the process.
    pub(super) fn keep(self: &Rc<Self>, what: T) {
        let pool = &self.pool;
        if self.kept.borrow().len() >= SHELF_MAX || !(pool.room.take() || pool.make_room()) {
            return;
        }
        pool.kept.set(pool.kept.get() + 1);
        let serial = pool.serial.replace(pool.serial.get() + 1);
        pool.note(serial, self);
        self.kept.borrow_mut().push_back(Kept { serial, since: Instant::now(), what });
    }

    /// Lets go of what was kept for long enough, and of what is good for nothing any more.
    pub(super) fn sweep(&self, mut is_good: impl FnMut(&mut T) -> bool) {
        let mut kept = self.kept.borrow_mut();
        let before = kept.len();
        kept.retain_mut(|kept| kept.since.elapsed() < KEPT_FOR && is_good(&mut kept.what));
        self.pool.gone(before - kept.len());
    }

    fn has(&self, serial: u64) -> bool {
        self.kept.borrow().binary_search_by_key(&serial, |kept| kept.serial).is_ok()
    }
}

impl<T> Pool<T> {
    fn make_room(&self) -> bool {
        self.drop_oldest() && self.room.take()
    }
}

impl<T> Drop for Shelf<T> {
    fn drop(&mut self) {
        self.pool.gone(self.kept.borrow().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(most: usize) -> (Rc<Pool<u32>>, Arc<Room>) {
        let room = Arc::new(Room::of(most));
        (Pool::new(room.clone()), room)
    }

    fn kept(room: &Room) -> usize {
        room.kept.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_last_is_taken_first_and_what_is_old_goes() {
        let (pool, room) = pool(10);
        let shelf = pool.shelf();
        for what in [1, 2, 3] {
            shelf.keep(what);
        }
        assert_eq!(shelf.take(), Some(3));
        tokio::time::advance(KEPT_FOR / 2).await;
        shelf.keep(4);
        shelf.sweep(|what| *what != 2);
        tokio::time::advance(KEPT_FOR / 2).await;
        shelf.sweep(|_| true);
        assert_eq!((shelf.take(), shelf.take(), kept(&room)), (Some(4), None, 0));
    }

    #[tokio::test]
    async fn where_there_is_no_room_the_oldest_of_the_thread_makes_way() {
        let (own, room) = pool(3);
        let other: Rc<Pool<u32>> = Pool::new(room.clone());
        let shelves = [own.shelf(), own.shelf()];
        shelves[0].keep(1);
        shelves[1].keep(2);
        shelves[0].keep(3);
        shelves[1].keep(4);
        assert_eq!((shelves[0].take(), shelves[0].take()), (Some(3), None), "1 made way");
        assert_eq!((shelves[1].take(), shelves[1].take()), (Some(4), Some(2)));
        (1..=3).for_each(|what| shelves[0].keep(what));
        let shelf = other.shelf();
        shelf.keep(9);
        assert_eq!((shelf.take(), kept(&room)), (None, 3), "another thread has it all");
        drop(shelves);
        assert_eq!(kept(&room), 0);
        shelf.keep(9);
        assert_eq!(shelf.take(), Some(9));
    }

    #[tokio::test]
    async fn a_shelf_holds_so_many_and_the_order_does_not_grow() {
        let (pool, room) = pool(1_000);
        let (busy, quiet) = (pool.shelf(), pool.shelf());
        quiet.keep(7);
        for what in 0..10_000 {
            busy.keep(what);
            busy.take();
        }
        assert!(pool.order.borrow().len() <= ORDER_MIN + 1, "{}", pool.order.borrow().len());
        (0..100).for_each(|what| busy.keep(what));
        assert_eq!(kept(&room), SHELF_MAX + 1);
        assert!(pool.drop_oldest());
        assert_eq!((quiet.take(), kept(&room)), (None, SHELF_MAX), "it was the oldest");
    }

    #[tokio::test]
    async fn a_shortage_on_one_thread_empties_all() {
        let (own, room) = pool(10);
        let other: Rc<Pool<u32>> = Pool::new(room.clone());
        let shelves = [own.shelf(), other.shelf()];
        for shelf in &shelves {
            shelf.keep(1);
        }
        own.is_short();
        assert_eq!(kept(&room), 1);
        other.heed_shortage();
        assert_eq!((kept(&room), shelves[1].take()), (0, None));
        shelves[1].keep(2);
        other.heed_shortage();
        assert_eq!(shelves[1].take(), Some(2), "it is over");
    }
}
