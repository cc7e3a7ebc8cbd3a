//! Those that wait for one queue, first come first served.
//!
//! A look is a lease call for the one at the head. After a look that found nothing more, those behind have been looked for as
//! well, and nobody asks again before there is a reason to: word of new work, or somebody who came since. Word is worth one look,
//! whatever the number of those that wait; a look that says that there is more is worth two, up to [`CALLS_MAX`] at once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::queue::Generation;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::consumers::{Arrival, Place, Refused, Reply, Wish};

/// Lease calls of one queue under way at once: enough that a store that commits many together has something to gather.
pub(super) const CALLS_MAX: usize = 8;
/// How long it is believed without a look that a queue is empty of which no word came: a word may be lost on its way from another
/// gateway.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// How long beyond its own time one waits for the memory of its answer: calls under way hold more than they need for a moment.
const MEMORY_WITHIN: Duration = Duration::from_secs(1);
/// How often those are looked at who wait for memory.
const MEMORY_LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause before a queue is looked at again that gave nothing and said that there is more.
const NOTHING_OF_MORE: Duration = Duration::from_millis(10);

/// One that waits.
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) wish: Wish,
    pub(super) reply: oneshot::Sender<Reply>,
    pub(super) place: Place,
    /// Whether no look that began after it came has ended yet.
    is_unseen: bool,
}

impl Waiter {
    /// Tells it that there is nothing.
    pub(super) fn tell(self, reply: Reply) {
        // It may have gone.
        drop(self.reply.send(reply));
    }
}

/// When a look began.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Those that came before it have lower numbers.
    before: u64,
    at: Instant,
}

/// The line of one queue.
pub(super) struct Line {
    pub(super) generation: Generation,
    waiters: BTreeMap<u64, Waiter>,
    newest: u64,
    calls: usize,
    /// Looks that are worth making now.
    worth: usize,
    seen_empty: Option<Instant>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// Whether the last look could not be made for want of memory.
    is_starved: bool,
}

impl Line {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            waiters: BTreeMap::new(),
            newest: 0,
            calls: 0,
            worth: 0,
            seen_empty: None,
            backoff: Backoff::default(),
            retry_at: None,
            is_starved: false,
        }
    }

    /// Whether nobody waits and no call is under way.
    pub(super) fn is_over(&self) -> bool {
        self.waiters.is_empty() && self.calls == 0
    }

    /// When it is to be looked at again by itself.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.waiters.is_empty() && self.worth > 0)
    }

    /// Takes one in at its place.
    pub(super) fn arrive(&mut self, arrival: Arrival, now: Instant) {
        let Arrival { number, wish, reply, place } = arrival;
        let is_quiet = self.calls == 0 && self.worth == 0;
        let is_known_empty = is_quiet && self.seen_empty.is_some_and(|at| now < at + EMPTY_FOR);
        let is_unseen = wish.until <= now || !is_known_empty;
        if is_unseen && self.calls == 0 {
            self.worth = self.worth.max(1);
        }
        self.newest = self.newest.max(number);
        self.waiters.insert(number, Waiter { number, wish, reply, place, is_unseen });
    }

    /// Lets one go.
    pub(super) fn leave(&mut self, number: u64) {
        self.waiters.remove(&number);
    }

    /// Word came that there may be work.
    pub(super) fn woken(&mut self) {
        self.worth = self.worth.max(1);
    }

    /// The one for whom a look is to be made now.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Waiter, Look)> {
        if self.worth == 0 || self.calls >= CALLS_MAX || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let waiter = loop {
            let (_, waiter) = self.waiters.pop_first()?;
            if !waiter.reply.is_closed() {
                break waiter;
            }
        };
        (self.worth, self.calls, self.retry_at) = (self.worth - 1, self.calls + 1, None);
        self.is_starved = false;
        Some((waiter, Look { before: self.newest + 1, at: now }))
    }

    /// There is no memory for the answer of that one, so its look is not made now. Gives those that waited too long for it.
    pub(super) fn starved(&mut self, waiter: Waiter, now: Instant) -> Vec<Waiter> {
        self.calls = self.calls.saturating_sub(1);
        self.waiters.insert(waiter.number, waiter);
        self.worth += 1;
        self.is_starved = true;
        self.retry_at = Some(now + MEMORY_LOOK_EVERY);
        self.take(|waiter| waiter.wish.until + MEMORY_WITHIN <= now)
    }

    /// There is memory again.
    pub(super) fn fed(&mut self) {
        if self.is_starved {
            self.retry_at = None;
        }
    }

    /// A look found something.
    pub(super) fn found(&mut self, look: Look, more: bool, now: Instant) -> Vec<Waiter> {
        self.calls = self.calls.saturating_sub(1);
        self.backoff.succeeded();
        self.looked(look, more, now)
    }

    /// A look found nothing for that one, who goes on waiting if there is time, and if it has not left.
    pub(super) fn found_nothing(
        &mut self,
        waiter: Option<Waiter>,
        look: Look,
        more: bool,
        now: Instant,
    ) -> Vec<Waiter> {
        self.calls = self.calls.saturating_sub(1);
        self.backoff.succeeded();
        if let Some(waiter) = waiter {
            self.waiters.insert(waiter.number, waiter);
        }
        if more {
            self.retry_at = Some(now + NOTHING_OF_MORE);
        }
        self.looked(look, more, now)
    }

    /// Gives those whose time is over and for whom was looked.
    fn looked(&mut self, look: Look, more: bool, now: Instant) -> Vec<Waiter> {
        if more {
            self.worth = (self.worth + 2).min(CALLS_MAX);
            return Vec::new();
        }
        self.seen_empty = Some(look.at);
        for (_, waiter) in self.waiters.range_mut(..look.before) {
            waiter.is_unseen = false;
        }
        // Who came since then must not wait for word that may have come before.
        if self.waiters.range(look.before..).any(|(_, waiter)| waiter.is_unseen) {
            self.worth = self.worth.max(1);
        }
        self.take(|waiter| !waiter.is_unseen && waiter.wish.until <= now)
    }

    /// A look failed and nothing was leased, for sure. Gives those that cannot wait until it is tried again.
    pub(super) fn failed(&mut self, waiter: Option<Waiter>, look: Look, now: Instant) -> Vec<Waiter> {
        self.calls = self.calls.saturating_sub(1);
        if let Some(waiter) = waiter {
            self.waiters.insert(waiter.number, waiter);
        }
        self.worth = self.worth.max(1);
        self.retry_at = Some(now + self.backoff.failed());
        self.take(|waiter| waiter.number < look.before && waiter.wish.until <= now)
    }

    /// A call ended that leaves nothing to do here.
    pub(super) fn ended(&mut self) {
        self.calls = self.calls.saturating_sub(1);
        // Those behind it have not been looked for.
        self.worth = self.worth.max(1);
    }

    /// The time of that one is over: gives it, unless a look for it is still to come or only memory is missing.
    pub(super) fn expire(&mut self, number: u64) -> Option<Waiter> {
        if self.is_starved || self.waiters.get(&number)?.is_unseen {
            return None;
        }
        self.waiters.remove(&number)
    }

    /// All that wait.
    pub(super) fn take_all(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }

    fn take(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        self.waiters.extract_if(.., |_, waiter| which(waiter)).map(|(_, waiter)| waiter).collect()
    }
}

/// Tells them all the same.
pub(super) fn tell_all(waiters: Vec<Waiter>, refused: Option<&Refused>) {
    for waiter in waiters {
        waiter.tell(refused.map_or(Ok(None), |refused| Err(refused.clone())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::QueueRef;

    struct Stand {
        line: Line,
        now: Instant,
        answers: Vec<(u64, oneshot::Receiver<Reply>)>,
    }

    impl Stand {
        fn new() -> Self {
            Self { line: Line::new(Generation(1)), now: Instant::now(), answers: Vec::new() }
        }

        fn arrive(&mut self, number: u64, wait_s: u64) {
            let (reply, answer) = oneshot::channel();
            let wish = Wish {
                queue: QueueRef { name: "q".parse().expect("a name"), generation: Generation(1) },
                max: 1,
                message_bytes_max: 1,
                lease: Duration::from_secs(30),
                until: self.now + Duration::from_secs(wait_s),
            };
            let place = Place(Arc::default());
            self.line.arrive(Arrival { number, wish, reply, place }, self.now);
            self.answers.push((number, answer));
        }

        fn looks(&mut self) -> Vec<(Waiter, Look)> {
            std::iter::from_fn(|| self.line.next(self.now)).collect()
        }

        /// The one look that is worth making.
        fn look(&mut self) -> (Waiter, Look) {
            let mut looks = self.looks();
            assert_eq!(looks.len(), 1, "one look at a time");
            looks.pop().expect("one")
        }

        fn finds_nothing(&mut self, (waiter, look): (Waiter, Look)) -> Vec<u64> {
            let over = self.line.found_nothing(Some(waiter), look, false, self.now);
            over.iter().map(|waiter| waiter.number).collect()
        }
    }

    #[tokio::test]
    async fn one_look_serves_a_crowd_and_word_of_work_wakes_one() {
        let mut stand = Stand::new();
        (1..=1_000).for_each(|number| stand.arrive(number, 30));
        let look = stand.look();
        assert_eq!(look.0.number, 1, "first come, first served");
        assert_eq!(stand.finds_nothing(look), Vec::<u64>::new());
        assert!(stand.looks().is_empty(), "nobody asks again without a reason");
        stand.arrive(1_001, 30);
        assert!(stand.looks().is_empty(), "who comes and waits believes what is known");
        stand.line.woken();
        stand.line.woken();
        let (first, look) = stand.look();
        assert_eq!(first.number, 1);
        assert!(stand.line.found(look, false, stand.now).is_empty());
        assert!(stand.looks().is_empty());
    }

    #[tokio::test]
    async fn more_makes_more_looks_up_to_the_bound() {
        let mut stand = Stand::new();
        (1..=100).for_each(|number| stand.arrive(number, 30));
        let mut under_way = vec![stand.look()];
        let mut most = 0;
        for _ in 0..20 {
            let (_, look) = under_way.remove(0);
            assert!(stand.line.found(look, true, stand.now).is_empty());
            under_way.extend(stand.looks());
            most = most.max(under_way.len());
        }
        assert_eq!(most, CALLS_MAX);
    }

    #[tokio::test]
    async fn who_does_not_wait_is_looked_for_after_it_came() {
        let mut stand = Stand::new();
        stand.arrive(1, 30);
        let first = stand.look();
        stand.arrive(2, 0);
        assert!(stand.looks().is_empty());
        assert_eq!(stand.finds_nothing(first), Vec::<u64>::new(), "that look began before it came");
        let second = stand.look();
        stand.arrive(3, 0);
        assert_eq!(stand.finds_nothing(second), [2]);
        let third = stand.look();
        assert_eq!(stand.finds_nothing(third), [3]);
        assert!(stand.looks().is_empty() && !stand.line.is_over(), "the first one waits on");
        assert_eq!(stand.line.expire(1).map(|waiter| waiter.number), Some(1));
        assert!(stand.line.is_over());
    }

    #[tokio::test]
    async fn an_old_look_is_not_believed_for_ever() {
        let mut stand = Stand::new();
        stand.arrive(1, 60);
        let look = stand.look();
        stand.finds_nothing(look);
        stand.now += EMPTY_FOR;
        stand.arrive(2, 30);
        let look = stand.look();
        stand.finds_nothing(look);
    }

    #[tokio::test]
    async fn a_store_that_fails_is_asked_again_later_and_who_has_no_time_is_told() {
        let mut stand = Stand::new();
        stand.arrive(1, 30);
        stand.arrive(2, 0);
        let (waiter, look) = stand.look();
        let told = stand.line.failed(Some(waiter), look, stand.now);
        assert_eq!(told.iter().map(|waiter| waiter.number).collect::<Vec<_>>(), [2]);
        assert!(stand.looks().is_empty());
        stand.now = stand.line.retry_at().expect("it is tried again");
        assert_eq!(stand.look().0.number, 1);
    }

    #[tokio::test]
    async fn who_left_is_passed_over() {
        let mut stand = Stand::new();
        (1..=3).for_each(|number| stand.arrive(number, 30));
        stand.answers.retain(|(number, _)| *number != 1);
        stand.line.leave(2);
        assert_eq!(stand.look().0.number, 3);
    }
}
