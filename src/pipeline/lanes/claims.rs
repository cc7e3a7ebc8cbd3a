//! Queues that asked a lane for room lately and did not get all they wanted: while there are several, each has its part. Pure: time
//! comes in.
//!
//! Places are parted by what each queue has of them, so one whose attempts take long has no more than its part of them; what cannot
//! be parted (fewer places than queues, turns of a rate) goes round: in each round every queue has its turn once. Who gets all that
//! it wants, or whose messages are all leased, claims nothing, and what it leaves is for whoever asks.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Tick;

/// How long a claim holds after it was made last: a little longer than a queue rests whose lane has no turn for it.
const LATELY: Duration = Duration::from_millis(1_500);
/// How often old claims are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// The claims of a lane. An ask costs about the same however many there are.
#[derive(Default)]
pub(super) struct Claims {
    by_queue: HashMap<usize, Claim>,
    round: u64,
    /// Claims that have not had their turn in this round: at least one, unless there are none.
    left: usize,
    /// The most that one of them leases before there is a place.
    early: usize,
    /// When the last one was made.
    claimed_at: Tick,
    swept_at: Tick,
}

struct Claim {
    asked_at: Tick,
    /// The round of which `taken` is said.
    round: u64,
    taken: usize,
    /// Whether it has had its turn in that round.
    is_done: bool,
}

/// How a queue stands among those that claim room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    /// Others that claim room.
    pub(super) others: usize,
    /// Whether its turn in this round is still to come.
    pub(super) is_next: bool,
    /// What it took of that turn.
    pub(super) taken: usize,
    /// The most that one of the others leases before there is a place.
    pub(super) early: usize,
}

impl Standing {
    /// What one of those that claim may have of so many.
    pub(super) fn part(&self, of: usize) -> usize {
        of / (self.others + 1)
    }

    /// How many more places it may have who has `own` of all `capacity`: its part, or one more when its turn is still to come.
    pub(super) fn places(&self, capacity: usize, own: usize) -> usize {
        if self.others == 0 {
            return usize::MAX;
        }
        self.part(capacity).saturating_sub(own).max(usize::from(self.is_next))
    }

    /// How many turns of a rate it may have that lets `burst` come at once.
    pub(super) fn turns(&self, burst: usize) -> usize {
        match self.others {
            0 => usize::MAX,
            _ if self.is_next => self.part(burst).max(1).saturating_sub(self.taken),
            _ => 0,
        }
    }
}

impl Claims {
    /// How this queue stands.
    pub(super) fn standing(&mut self, now: Tick, queue: usize) -> Standing {
        self.sweep(now);
        let others = self.others(now, queue);
        let claim = self.by_queue.get(&queue);
        let current = claim.filter(|claim| claim.round == self.round);
        Standing {
            others,
            // Who comes when others wait already waits for them to have had their turn.
            is_next: others == 0 || (claim.is_some() && !current.is_some_and(|claim| claim.is_done)),
            taken: current.map_or(0, |claim| claim.taken),
            early: if others == 0 { 0 } else { self.early },
        }
    }

    /// Queues besides this one that claim room.
    pub(super) fn others(&self, now: Tick, queue: usize) -> usize {
        if self.by_queue.is_empty() || now.since(self.claimed_at) > LATELY {
            return 0;
        }
        self.by_queue.len() - usize::from(self.by_queue.contains_key(&queue))
    }

    /// Whether this queue claims room.
    pub(super) fn has(&self, queue: usize) -> bool {
        self.by_queue.contains_key(&queue)
    }

    /// Notes that a queue took so many, whether its turn is over, and that it wants more.
    pub(super) fn wants_more(&mut self, now: Tick, queue: usize, took: usize, is_done: bool, early: usize) {
        self.claimed_at = now;
        self.early = self.early.max(early);
        let is_first = self.by_queue.is_empty();
        let round = self.round;
        let claim = self.by_queue.entry(queue).or_insert_with(|| {
            self.left += usize::from(is_first);
            Claim { asked_at: now, round, taken: 0, is_done: !is_first }
        });
        claim.asked_at = now;
        if claim.round != round {
            (claim.round, claim.taken, claim.is_done) = (round, 0, false);
        }
        claim.taken += took;
        if is_done && !claim.is_done {
            claim.is_done = true;
            self.left -= 1;
        }
        self.begin_round();
    }

    /// Notes that a queue wants no more.
    pub(super) fn has_enough(&mut self, queue: usize) {
        if let Some(claim) = self.by_queue.remove(&queue)
            && !(claim.is_done && claim.round == self.round)
        {
            self.left -= 1;
        }
        self.begin_round();
    }

    fn begin_round(&mut self) {
        if self.left == 0 {
            self.round += 1;
            self.left = self.by_queue.len();
        }
    }

    fn sweep(&mut self, now: Tick) {
        if now.since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        // Who leases ahead says so again with its next ask.
        self.early = 0;
        self.by_queue.retain(|_, claim| now.since(claim.asked_at) <= LATELY);
        let is_left = |claim: &&Claim| claim.round != self.round || !claim.is_done;
        self.left = self.by_queue.values().filter(is_left).count();
        self.begin_round();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::new(Duration::from_millis(ms))
    }

    #[test]
    fn who_asks_alone_may_have_everything() {
        let mut claims = Claims::default();
        for ms in 0..10 {
            let standing = claims.standing(at(ms), 1);
            assert_eq!(
                (standing.others, standing.places(8, 8), standing.turns(5)),
                (0, usize::MAX, usize::MAX)
            );
            claims.wants_more(at(ms), 1, 3, false, 0);
        }
    }

    #[test]
    fn those_that_claim_have_equal_parts_until_one_has_enough_or_asks_no_more() {
        let mut claims = Claims::default();
        for queue in 1..=3 {
            claims.wants_more(at(1_000), queue, 0, false, 0);
        }
        let may_have = |claims: &mut Claims, ms| claims.standing(at(ms), 1).places(64, 10);
        assert_eq!(may_have(&mut claims, 1_000), 21 - 10);
        claims.has_enough(2);
        assert_eq!(may_have(&mut claims, 1_000), 32 - 10);
        claims.wants_more(at(2_000), 1, 0, false, 0);
        assert_eq!(may_have(&mut claims, 2_500), 32 - 10);
        assert_eq!(may_have(&mut claims, 2_800), usize::MAX, "the third has not asked lately");
    }

    #[test]
    fn who_comes_while_others_wait_has_its_turn_after_them_and_so_when_it_comes_again() {
        let mut claims = Claims::default();
        claims.wants_more(at(0), 1, 0, false, 0);
        let mut had = [0_usize; 3];
        for _ in 0..100 {
            // The second one always asks first, and wants one each time.
            if claims.standing(at(0), 2).turns(1) > 0 {
                had[2] += 1;
                claims.has_enough(2);
                continue;
            }
            claims.wants_more(at(0), 2, 0, false, 0);
            if claims.standing(at(0), 1).turns(1) > 0 {
                had[1] += 1;
                claims.wants_more(at(0), 1, 1, true, 0);
            }
        }
        assert!(had[1] + had[2] >= 90 && had[1].abs_diff(had[2]) <= 10, "{had:?}");
    }

    proptest! {
        #[test]
        fn of_those_that_want_more_and_more_each_has_as_many_turns_as_the_others_whoever_asks_first(
            queues in 2_usize..8, burst in 1_usize..40, asks in prop::collection::vec((0_usize..8, 1_usize..50), 50..300),
        ) {
            let (mut claims, mut had) = (Claims::default(), vec![0; queues]);
            let turn = (burst / queues).max(1);
            for queue in 0..queues {
                claims.wants_more(at(0), queue, 0, false, 0);
            }
            for (first, free) in asks {
                // All ask, in an order that favours some.
                for offset in 0..queues {
                    let queue = (first + offset) % queues;
                    let standing = claims.standing(at(0), queue);
                    let took = standing.turns(burst).min(free);
                    had[queue] += took;
                    claims.wants_more(at(0), queue, took, standing.taken + took >= turn, 0);
                }
                let (least, most) = (had.iter().min().expect("some"), had.iter().max().expect("some"));
                prop_assert!(most - least <= 2 * turn, "{:?}", had);
            }
            prop_assert!(had.iter().all(|had| *had > 0));
        }

        #[test]
        fn somebody_always_may(steps in prop::collection::vec((0_usize..5, 0_u8..4, 0_u64..400), 1..200)) {
            let (mut claims, mut now) = (Claims::default(), 0);
            for (queue, what, ms) in steps {
                now += ms;
                match what {
                    0 => claims.has_enough(queue),
                    1 => claims.wants_more(at(now), queue, 0, false, 0),
                    _ => claims.wants_more(at(now), queue, 1, true, 0),
                }
                claims.sweep(at(now));
                let known: Vec<_> = claims.by_queue.keys().copied().collect();
                let may = known.iter().any(|queue| claims.standing(at(now), *queue).turns(1) > 0);
                prop_assert!(may || known.is_empty());
            }
        }
    }
}
