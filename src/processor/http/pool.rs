//! What is kept for later and for how long: idle connections, by origin, the least used given up first.
//!
//! Each has a descriptor, and descriptors are the process's: each thread has its part of one [`Room`], so that none takes the places
//! of another. A thread that would keep more lets go of what was used once, the oldest first: what was taken up again shows that
//! somebody comes back for it, and has half of the places for itself. So whoever sends to ever new origins leaves to others what
//! they use.

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

/// Kept by one thread, at most.
pub(super) const POOL_MAX: usize = 2_048;

/// The part of the process's descriptors that may be kept idle: deliveries in flight and clients need the others.
const DESCRIPTORS_PART: u64 = 8;

/// How long something is kept. Many receivers close what is idle after a minute; closing first avoids the race.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Entries of the order that are looked at before those are swept out that say nothing any more.
const ORDER_MIN: usize = 64;

/// How much may be kept in this process, by how many threads, and how often it was short of descriptors.
pub(super) struct Room {
    most: usize,
    pools: AtomicUsize,
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
        Self { most, pools: AtomicUsize::new(0), shortages: AtomicUsize::new(0) }
    }

    /// How much each thread may keep.
    fn share(&self) -> usize {
        (self.most / self.pools.load(Ordering::Relaxed).max(1)).min(POOL_MAX)
    }
}

/// What one thread keeps.
pub(super) struct Pool<T> {
    room: Arc<Room>,
    once: Row<T>,
    again: Row<T>,
    serial: Cell<u64>,
    shortages: Cell<usize>,
}

/// What was used equally often.
struct Row<T> {
    /// What was kept when, oldest first; some of it may have been taken up since.
    order: RefCell<VecDeque<(u64, Weak<Shelf<T>>)>>,
    kept: Cell<usize>,
}

/// What it keeps for one origin.
pub(super) struct Shelf<T> {
    pool: Rc<Pool<T>>,
    /// Oldest first.
    kept: RefCell<VecDeque<Kept<T>>>,
}

struct Kept<T> {
    serial: u64,
    is_again: bool,
    since: Instant,
    what: T,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self { order: RefCell::default(), kept: Cell::default() }
    }
}

impl<T> Row<T> {
    /// When its oldest was kept.
    fn oldest(&self) -> Option<u64> {
        let mut order = self.order.borrow_mut();
        let is_gone = |(serial, shelf): &mut (u64, Weak<Shelf<T>>)| {
            shelf.upgrade().is_none_or(|shelf| shelf.position(*serial).is_none())
        };
        while order.pop_front_if(is_gone).is_some() {}
        order.front().map(|(serial, _)| *serial)
    }

    /// Lets go of its oldest; whether there was one.
    fn drop_oldest(&self) -> bool {
        let Some(_) = self.oldest() else { return false };
        let oldest = self.order.borrow_mut().pop_front();
        let found = oldest.and_then(|(serial, shelf)| {
            let shelf = shelf.upgrade()?;
            let position = shelf.position(serial)?;
            shelf.kept.borrow_mut().remove(position)
        });
        self.kept.set(self.kept.get() - usize::from(found.is_some()));
        found.is_some()
    }

    fn note(&self, serial: u64, shelf: &Rc<Shelf<T>>) {
        self.kept.set(self.kept.get() + 1);
        let mut order = self.order.borrow_mut();
        if order.len() >= ORDER_MIN.max(2 * self.kept.get()) {
            order.retain(|(serial, shelf)| {
                shelf.upgrade().is_some_and(|shelf| shelf.position(*serial).is_some())
            });
        }
        order.push_back((serial, Rc::downgrade(shelf)));
    }
}

impl<T> Pool<T> {
    /// An empty one.
    pub(super) fn new(room: Arc<Room>) -> Rc<Self> {
        room.pools.fetch_add(1, Ordering::Relaxed);
        let shortages = Cell::new(room.shortages.load(Ordering::Relaxed));
        Rc::new(Self {
            room,
            once: Row::default(),
            again: Row::default(),
            serial: Cell::default(),
            shortages,
        })
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
            while self.drop_least() {}
        }
    }

    /// Lets go of what is least likely to be used again; whether there was anything.
    fn drop_least(&self) -> bool {
        let (once, again) = (self.once.kept.get(), self.again.kept.get());
        // Serials grow with time, so the smaller one was kept longer.
        let is_older =
            || self.again.oldest().is_some_and(|at| self.once.oldest().is_none_or(|once| at < once));
        let is_again = once == 0 || (again > once && is_older());
        self.row(is_again).drop_oldest()
    }

    fn kept(&self) -> usize {
        self.once.kept.get() + self.again.kept.get()
    }

    const fn row(&self, is_again: bool) -> &Row<T> {
        if is_again { &self.again } else { &self.once }
    }

    fn gone(&self, kept: &Kept<T>) {
        let row = self.row(kept.is_again);
        row.kept.set(row.kept.get() - 1);
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.room.pools.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Shelf<T> {
    /// The pool that it is in.
    pub(super) fn pool(&self) -> &Pool<T> {
        &self.pool
    }

    /// Whether nothing is kept here.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.borrow().is_empty()
    }

    /// Takes what was kept last.
    pub(super) fn take(&self) -> Option<T> {
        let last = self.kept.borrow_mut().pop_back()?;
        self.pool.gone(&last);
        Some(last.what)
    }

    /// Keeps it for later, unless there is enough here or no room on this thread. `is_again` when it was taken up from here before.
    pub(super) fn keep(self: &Rc<Self>, what: T, is_again: bool) {
        let pool = &self.pool;
        if self.kept.borrow().len() >= SHELF_MAX {
            return;
        }
        let most = pool.room.share();
        while pool.kept() >= most {
            if !pool.drop_least() {
                return;
            }
        }
        let serial = pool.serial.replace(pool.serial.get() + 1);
        self.kept.borrow_mut().push_back(Kept { serial, is_again, since: Instant::now(), what });
        pool.row(is_again).note(serial, self);
    }

    /// Lets go of what was kept for long enough, and of what is good for nothing any more.
    pub(super) fn sweep(&self, mut is_good: impl FnMut(&mut T) -> bool) {
        self.kept.borrow_mut().retain_mut(|kept| {
            let stays = kept.since.elapsed() < KEPT_FOR && is_good(&mut kept.what);
            if !stays {
                self.pool.gone(kept);
            }
            stays
        });
    }

    fn position(&self, serial: u64) -> Option<usize> {
        self.kept.borrow().binary_search_by_key(&serial, |kept| kept.serial).ok()
    }
}

impl<T> Drop for Shelf<T> {
    fn drop(&mut self) {
        for kept in self.kept.get_mut().drain(..) {
            self.pool.gone(&kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(most: usize) -> Rc<Pool<u32>> {
        Pool::new(Arc::new(Room::of(most)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_last_is_taken_first_and_what_is_old_goes() {
        let pool = pool(10);
        let shelf = pool.shelf();
        for what in [1, 2, 3] {
            shelf.keep(what, false);
        }
        assert_eq!(shelf.take(), Some(3));
        tokio::time::advance(KEPT_FOR / 2).await;
        shelf.keep(4, true);
        shelf.sweep(|what| *what != 2);
        tokio::time::advance(KEPT_FOR / 2).await;
        shelf.sweep(|_| true);
        assert_eq!((shelf.take(), shelf.take(), pool.kept()), (Some(4), None, 0));
        assert!(shelf.is_empty());
    }

    #[tokio::test]
    async fn where_there_is_no_room_the_oldest_of_the_thread_makes_way() {
        let own = pool(6);
        let other: Rc<Pool<u32>> = Pool::new(own.room.clone());
        let shelves = [own.shelf(), own.shelf()];
        for (shelf, what) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
            shelves[shelf].keep(what, false);
        }
        assert_eq!((shelves[0].take(), shelves[0].take()), (Some(3), None), "1 made way");
        assert_eq!((shelves[1].take(), shelves[1].take()), (Some(4), Some(2)));
        (1..=9).for_each(|what| shelves[0].keep(what, false));
        let shelf = other.shelf();
        (1..=3).for_each(|what| shelf.keep(what, false));
        assert_eq!((other.kept(), own.kept()), (3, 3), "each has its part");
        drop((shelf, other));
        (1..=9).for_each(|what| shelves[0].keep(what, false));
        assert_eq!(own.kept(), 6, "one that is alone has it all");
        drop(shelves);
        assert_eq!(own.kept(), 0);
    }

    #[tokio::test]
    async fn a_thread_that_comes_later_has_its_part_too() {
        let own = pool(6);
        let shelf = own.shelf();
        (1..=6).for_each(|what| shelf.keep(what, false));
        let _other: Rc<Pool<u32>> = Pool::new(own.room.clone());
        shelf.keep(7, false);
        assert_eq!(own.kept(), 3);
        assert_eq!((shelf.take(), shelf.take(), shelf.take()), (Some(7), Some(6), Some(5)));
    }

    #[tokio::test]
    async fn what_somebody_comes_back_for_stays_while_many_others_come_once() {
        let pool = pool(8);
        let busy = pool.shelf();
        (0..4).for_each(|what| busy.keep(what, false));
        for round in 0..100 {
            let taken: Vec<_> = (0..4).map(|_| busy.take().expect("it was kept")).collect();
            let strangers: Vec<_> = (0..20).map(|_| pool.shelf()).collect();
            for shelf in &strangers {
                shelf.keep(round, false);
            }
            for what in taken {
                busy.keep(what, true);
            }
            for shelf in &strangers {
                shelf.keep(round, false);
            }
            assert_eq!(pool.kept(), 8);
        }
        assert_eq!(pool.again.kept.get(), 4);
    }

    #[tokio::test]
    async fn what_was_used_once_has_half_of_the_places_where_it_is_the_younger() {
        let pool = pool(8);
        let (busy, others) = (pool.shelf(), pool.shelf());
        (0..8).for_each(|what| busy.keep(what, true));
        (10..30).for_each(|what| others.keep(what, false));
        assert_eq!((pool.again.kept.get(), pool.once.kept.get()), (4, 4));
        assert_eq!((busy.take(), others.take()), (Some(7), Some(29)));
        (40..44).for_each(|what| busy.keep(what, true));
        let left = (pool.again.kept.get(), pool.once.kept.get());
        assert_eq!(left, (5, 3), "beyond its half the oldest makes way, whichever it is");
    }

    #[tokio::test]
    async fn a_shelf_holds_so_many_and_the_order_does_not_grow() {
        let pool = pool(1_000);
        let (busy, quiet) = (pool.shelf(), pool.shelf());
        quiet.keep(7, true);
        for what in 0..10_000 {
            busy.keep(what, true);
            busy.take();
        }
        assert!(pool.again.order.borrow().len() <= ORDER_MIN + 1, "{}", pool.again.order.borrow().len());
        (0..100).for_each(|what| busy.keep(what, true));
        assert_eq!(pool.kept(), SHELF_MAX + 1);
        assert!(pool.drop_least());
        assert_eq!((quiet.take(), pool.kept()), (None, SHELF_MAX), "it was the oldest");
    }

    #[tokio::test]
    async fn a_shortage_on_one_thread_empties_all() {
        let own = pool(10);
        let other: Rc<Pool<u32>> = Pool::new(own.room.clone());
        let shelves = [own.shelf(), other.shelf()];
        for shelf in &shelves {
            shelf.keep(1, false);
            shelf.keep(2, true);
        }
        own.is_short();
        assert_eq!((own.kept(), other.kept()), (0, 2));
        other.heed_shortage();
        assert_eq!((other.kept(), shelves[1].take()), (0, None));
        shelves[1].keep(2, false);
        other.heed_shortage();
        assert_eq!(shelves[1].take(), Some(2), "it is over");
    }
}
