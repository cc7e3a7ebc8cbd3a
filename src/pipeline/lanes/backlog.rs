//! What a lane put off because its destination did not answer: it is brought forward when that answers again, at the pace of the
//! lane, not left to the moment it was put off until. Pure: time comes in.
//!
//! What is not remembered here, because there are too many or the gateway was started anew, comes back by itself when it is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Tick;
use crate::store::{QueueRef, Scheduled};

/// Messages that all lanes together remember: 56 bytes each.
const WAITING_MAX: usize = 50_000;
/// Of them one lane.
const WAITING_OF_LANE_MAX: usize = 10_000;
/// How long a message that was put off may be on its way to the store.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// How often a message is brought forward that the store does not find.
const TRIES_MAX: u8 = 3;
/// How often a backlog that is full is looked through for those that came back by themselves.
const SWEEP: Duration = Duration::from_millis(500);

/// A message that was put off.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Waiting {
    pub(in crate::pipeline) message: Scheduled,
    /// When it was put off, or looked for in vain.
    since: Tick,
    /// When it comes by itself.
    due: Tick,
    tries: u8,
}

/// How many wait, over all lanes.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<AtomicUsize>);

/// Those of one lane.
pub(super) struct Backlog {
    crowd: Crowd,
    /// In turn.
    queues: VecDeque<(QueueRef, VecDeque<Waiting>)>,
    count: usize,
    swept_at: Tick,
    /// Whether somebody brings them forward.
    is_followed: bool,
}

impl Backlog {
    pub(super) fn new(crowd: Crowd) -> Self {
        Self { crowd, queues: VecDeque::new(), count: 0, swept_at: Tick::default(), is_followed: false }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Remembers a message that was put off for so long.
    pub(super) fn add(&mut self, now: Tick, queue: &QueueRef, message: Scheduled, delay: Duration) {
        self.put(now, queue, Waiting { message, since: now, due: now.after(delay), tries: 0 });
    }

    /// Remembers one again that could not be brought forward; where the store did not find it, it may be on its way still: not for
    /// ever.
    pub(super) fn keep(&mut self, now: Tick, queue: &QueueRef, waiting: Waiting, is_missing: bool) {
        let tries = waiting.tries + u8::from(is_missing);
        if tries < TRIES_MAX && now < waiting.due {
            self.put(now, queue, Waiting { since: now, tries, ..waiting });
        }
    }

    fn put(&mut self, now: Tick, queue: &QueueRef, waiting: Waiting) {
        let is_full = |this: &Self| {
            this.count >= WAITING_OF_LANE_MAX || this.crowd.0.load(Ordering::Relaxed) >= WAITING_MAX
        };
        if is_full(self) && now.since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.queues.iter_mut().for_each(|(_, waiting)| waiting.retain(|waiting| now < waiting.due));
            self.tidy();
        }
        if is_full(self) {
            return;
        }
        match self.queues.iter_mut().find(|(known, _)| known == queue) {
            Some((_, all)) => all.push_back(waiting),
            None => self.queues.push_back((queue.clone(), [waiting].into())),
        }
        self.recount(self.count + 1);
    }

    /// Takes up to `most`, queues in turn and of each those first that wait longest.
    pub(super) fn draw(&mut self, now: Tick, most: usize) -> Vec<(QueueRef, Vec<Waiting>)> {
        let (mut drawn, mut left) = (Vec::new(), most);
        // Who comes first next time is another one.
        self.queues.rotate_left(usize::from(self.queues.len() > 1));
        let queues = self.queues.len();
        for (place, (queue, waiting)) in self.queues.iter_mut().enumerate() {
            let part = left.div_ceil(queues - place);
            let mut of_queue = Vec::new();
            while of_queue.len() < part
                && let Some(first) = waiting.front()
                && (first.since.after(ON_THE_WAY) <= now || first.due <= now)
            {
                of_queue.extend(waiting.pop_front().filter(|first| now < first.due));
            }
            left -= of_queue.len();
            if !of_queue.is_empty() {
                drawn.push((queue.clone(), of_queue));
            }
        }
        self.tidy();
        drawn
    }

    /// Whether they are to be brought forward now by who asks: there are some, and nobody else does.
    pub(super) fn follow(&mut self) -> bool {
        self.count > 0 && !std::mem::replace(&mut self.is_followed, true)
    }

    /// Notes that nobody brings them forward any more.
    pub(super) fn leave(&mut self) {
        self.is_followed = false;
    }

    fn tidy(&mut self) {
        self.queues.retain(|(_, waiting)| !waiting.is_empty());
        self.recount(self.queues.iter().map(|(_, waiting)| waiting.len()).sum());
    }

    fn recount(&mut self, count: usize) {
        if count > self.count {
            self.crowd.0.fetch_add(count - self.count, Ordering::Relaxed);
        } else {
            self.crowd.0.fetch_sub(self.count - count, Ordering::Relaxed);
        }
        self.count = count;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.recount(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::MessageId;
    use crate::domain::queue::Generation;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    fn queue(name: &str) -> QueueRef {
        QueueRef { name: name.parse().expect("a name"), generation: Generation(1) }
    }

    fn message(number: u8) -> Scheduled {
        Scheduled { id: MessageId::from_bytes([number; 16]), attempts: number }
    }

    fn numbers(drawn: &[(QueueRef, Vec<Waiting>)]) -> Vec<u8> {
        drawn.iter().flat_map(|(_, drawn)| drawn).map(|waiting| waiting.message.attempts).collect()
    }

    #[test]
    fn who_waits_longest_is_drawn_first_and_each_queue_has_its_part() {
        let mut backlog = Backlog::new(Crowd::default());
        for number in 0..7 {
            backlog.add(at(0), &queue(if number < 5 { "a" } else { "b" }), message(number), MINUTE);
        }
        assert!(backlog.draw(at(99), 2).is_empty(), "it may be on its way");
        let drawn: Vec<_> = (0..5).map(|_| numbers(&backlog.draw(at(100), 2))).collect();
        assert_eq!(drawn, [vec![0, 5], vec![6, 1], vec![2, 3], vec![4], vec![]]);
        assert_eq!((backlog.count, backlog.queues.len()), (0, 0));
    }

    #[test]
    fn many_queues_are_served_at_once() {
        let mut backlog = Backlog::new(Crowd::default());
        for number in 0..200 {
            backlog.add(at(0), &queue(&format!("queue-{number}")), message(number), MINUTE);
        }
        assert_eq!(numbers(&backlog.draw(at(100), 150)).len(), 150);
        assert_eq!(numbers(&backlog.draw(at(100), 150)).len(), 50);
        assert!(numbers(&backlog.draw(at(100), 0)).is_empty());
    }

    #[test]
    fn what_came_back_by_itself_is_not_drawn() {
        let mut backlog = Backlog::new(Crowd::default());
        for number in 0..4 {
            let delay = if number % 2 == 0 { MINUTE } else { MINUTE / 4 };
            backlog.add(at(0), &queue("a"), message(number), delay);
        }
        assert_eq!(numbers(&backlog.draw(at(15_000), 10)), [0, 2]);
        assert_eq!(backlog.count, 0);
    }

    #[test]
    fn one_that_is_not_found_is_looked_for_three_times_and_no_longer_than_until_it_is_due() {
        let mut backlog = Backlog::new(Crowd::default());
        backlog.add(at(0), &queue("a"), message(1), MINUTE);
        backlog.add(at(0), &queue("a"), message(2), Duration::from_millis(150));
        for (round, drawn_of) in [(1, &[1, 2][..]), (2, &[1]), (3, &[1]), (4, &[])] {
            let now = at(100 * round);
            let drawn = backlog.draw(now, 10);
            assert_eq!(numbers(&drawn), *drawn_of, "{round}");
            for waiting in drawn.into_iter().flat_map(|(_, drawn)| drawn) {
                backlog.keep(now, &queue("a"), waiting, true);
            }
        }
    }

    #[test]
    fn while_the_store_is_away_nothing_is_forgotten_that_is_not_due() {
        let mut backlog = Backlog::new(Crowd::default());
        backlog.add(at(0), &queue("a"), message(1), MINUTE);
        for round in 1..600 {
            let drawn = backlog.draw(at(100 * round), 10);
            assert_eq!(numbers(&drawn), [1], "{round}");
            backlog.keep(at(100 * round), &queue("a"), drawn[0].1[0], false);
        }
        assert!(backlog.draw(at(60_000), 10).is_empty());
    }

    #[test]
    fn lanes_share_what_they_may_remember_and_give_it_back() {
        let crowd = Crowd::default();
        let mut lanes: Vec<_> = (0..6).map(|_| Backlog::new(crowd.clone())).collect();
        for lane in &mut lanes {
            for _ in 0..=WAITING_OF_LANE_MAX {
                lane.add(at(0), &queue("a"), message(1), MINUTE);
            }
        }
        let counts: Vec<_> = lanes.iter().map(|lane| lane.count).collect();
        assert_eq!(counts, [10_000, 10_000, 10_000, 10_000, 10_000, 0]);
        lanes[0].add(at(60_000), &queue("a"), message(1), MINUTE);
        assert_eq!(lanes[0].count, 1, "those that came back make room");
        drop(lanes);
        assert_eq!(crowd.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_at_a_time_brings_them_forward() {
        let mut backlog = Backlog::new(Crowd::default());
        assert!(!backlog.follow(), "there is nothing");
        backlog.add(at(0), &queue("a"), message(1), MINUTE);
        assert!(backlog.follow() && !backlog.follow());
        backlog.leave();
        assert!(backlog.follow());
    }
}
