//! The places of a queue whose messages bring their destinations: how many of them one lane may have, so that those that hang never
//! have all.
//!
//! | a lane | may have |
//! |---|---|
//! | that answered lately | as many places as it leaves for others: the first one half of them |
//! | where no attempt has ended yet | a sixteenth of the queue's, while all that do not answer have less than half together |
//! | that has not answered for what is in flight there, or never | the same, an eighth of all left for those of the line above |
//!
//! So whoever brings destinations that hang keeps no other waiting than one that never answered before. A burst to a new one has
//! a sixteenth until the first answer comes, and half from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Tick;
use crate::pipeline::share::Share;

/// While a destination answered for the first time so lately, others that never did wait in hand for a place.
const NEW_LATELY: Duration = Duration::from_millis(200);

/// How far a lane is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// It answered lately.
    Answers,
    /// No attempt there has ended yet.
    Untried,
    /// It does not answer, or did not when it was tried last.
    Doubtful,
}

/// What a share counts of its queue's messages in flight.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// They wait in hand for one of many lanes.
    in_hand: AtomicUsize,
    /// They are in lanes that have not answered.
    unanswered: AtomicUsize,
    /// When a destination answered for the first time last, microseconds of the clock; 0 before.
    new_us: AtomicU64,
}

/// How the places of a queue are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Places {
    /// What may be in flight.
    pub(super) all: usize,
    /// Places that nobody has, and those of who only waits in hand.
    pub(super) free: usize,
    /// In flight in lanes that have not answered.
    pub(super) unanswered: usize,
    /// When a destination answered for the first time last.
    pub(super) new_at: Option<Tick>,
}

impl Places {
    /// Those of a queue that sends to one destination: they bound nothing.
    pub(super) const ENOUGH: Self = Self { all: usize::MAX, free: usize::MAX, unanswered: 0, new_at: None };

    /// Whether a lane that has `own` of them may have one more, when others leave it `part`.
    pub(super) fn has_one_more(self, own: usize, part: usize, trust: Trust) -> bool {
        let most = self.free.min(part);
        let all = match trust {
            Trust::Answers => return own == 0 || own < most,
            // Who was tried in vain leaves some to who comes anew.
            Trust::Doubtful => self.all / 2 - self.all / 8,
            Trust::Untried => self.all / 2,
        };
        let left = all.max(1).saturating_sub(self.unanswered);
        left > 0 && (own == 0 || own < most.min(left).min(Self::of_unknown(self.all)))
    }

    /// How many of `all` places a lane may have that does not answer, or never did.
    pub(super) fn of_unknown(all: usize) -> usize {
        (all / 16).max(1)
    }

    /// Whether places of those that never answered become free as it goes.
    pub(super) fn is_moving(self, now: Tick) -> bool {
        self.new_at.is_some_and(|at| now.since(at) <= NEW_LATELY)
    }
}

impl Counts {
    /// How the places are taken when so many may be in flight and so many are.
    pub(super) fn places(&self, all: usize, in_flight: usize) -> Places {
        let in_hand = self.in_hand.load(Ordering::Relaxed);
        let new_us = self.new_us.load(Ordering::Relaxed);
        Places {
            all,
            free: (all + in_hand).saturating_sub(in_flight),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            new_at: (new_us > 0).then(|| Tick::new(Duration::from_micros(new_us))),
        }
    }
}

/// The place of a message that waits in hand.
pub(super) struct InHand(Arc<Share>);

impl InHand {
    /// Notes that a message which has its right to be in flight waits in hand until this is dropped.
    pub(super) fn new(share: &Arc<Share>) -> Self {
        share.counts.in_hand.fetch_add(1, Ordering::Relaxed);
        Self(share.clone())
    }

    /// How the places of its queue are taken.
    pub(super) fn places(&self) -> Places {
        self.0.places()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.counts.in_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a queue has in flight in one lane while that has not answered; nothing once this is dropped.
pub(super) struct Unanswered {
    share: Arc<Share>,
    count: usize,
}

impl Unanswered {
    pub(super) fn new(share: &Arc<Share>) -> Self {
        Self { share: share.clone(), count: 0 }
    }

    /// Notes that it is so many now.
    pub(super) fn set(&mut self, count: usize) {
        let unanswered = &self.share.counts.unanswered;
        if count > self.count {
            unanswered.fetch_add(count - self.count, Ordering::Relaxed);
        } else if count < self.count {
            unanswered.fetch_sub(self.count - count, Ordering::Relaxed);
        }
        self.count = count;
    }

    /// Notes that the destination answered for the first time.
    pub(super) fn is_new(&self, now: Tick) {
        let now_us = u64::try_from(now.since(Tick::default()).as_micros()).unwrap_or(u64::MAX);
        self.share.counts.new_us.store(now_us.max(1), Ordering::Relaxed);
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets lanes take what they may of 64 places, one after another.
    fn taken_by(lanes: usize, trust: Trust, mut places: Places) -> Vec<usize> {
        let take = |_| {
            let mut own = 0;
            while places.free > 0 && places.has_one_more(own, usize::MAX, trust) {
                own += 1;
                places.free -= 1;
                places.unanswered += usize::from(trust != Trust::Answers);
            }
            own
        };
        (0..lanes).map(take).collect()
    }

    fn places(all: usize) -> Places {
        Places { all, free: all, unanswered: 0, new_at: None }
    }

    #[test]
    fn lanes_that_do_not_answer_have_a_sixteenth_each_and_half_together_however_many_they_are() {
        assert_eq!(taken_by(12, Trust::Untried, places(64)), [4, 4, 4, 4, 4, 4, 4, 2, 1, 1, 0, 0]);
        assert_eq!(taken_by(6, Trust::Untried, places(8)), [1, 1, 1, 1, 0, 0]);
        let two = |all| taken_by(2, Trust::Untried, places(all));
        assert_eq!((two(1), two(2)), (vec![1, 0], vec![1, 0]));
        assert_eq!(taken_by(9, Trust::Doubtful, places(64)), [4, 4, 4, 4, 4, 2, 1, 1, 0]);
        let tried = Places { unanswered: 24, ..places(64) };
        assert_eq!(
            taken_by(4, Trust::Untried, tried),
            [4, 2, 1, 1],
            "an eighth is for who was not tried yet"
        );
    }

    #[test]
    fn those_that_answer_part_the_others_though_half_of_them_hang() {
        assert_eq!(taken_by(4, Trust::Answers, places(64)), [32, 16, 8, 4]);
        let hanging = Places { free: 32, unanswered: 32, ..places(64) };
        assert_eq!(taken_by(4, Trust::Answers, hanging), [16, 8, 4, 2]);
        assert!(Places::ENOUGH.has_one_more(1_000, usize::MAX, Trust::Answers));
    }

    #[test]
    fn a_share_counts_what_is_unanswered_until_it_is_answered_or_over() {
        let share = Arc::new(Share::new(64, 1));
        let (mut one, mut other) = (Unanswered::new(&share), Unanswered::new(&share));
        one.set(5);
        other.set(3);
        let in_hand = InHand::new(&share);
        assert_eq!((share.places().unanswered, share.places().free), (8, 65));
        one.set(0);
        assert_eq!(share.places().unanswered, 3);
        drop((other, in_hand));
        assert_eq!(share.places(), places(64));
        let at = |ms| Tick::new(Duration::from_millis(ms));
        one.is_new(at(1_000));
        assert_eq!([1_000, 1_200, 1_201].map(|ms| share.places().is_moving(at(ms))), [true, true, false]);
    }
}
