//! Whose turn it is: the order in which every backend draws the pending messages of a queue.

use crate::domain::message::Priority;

/// Where a pending message waits. Every list is first in, first out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum List {
    /// What a worker lost: leased alone, before all others, and only when the request allows it.
    Suspects,
    /// Released, or lost by a pulling consumer: drawn before the lists below, and uses up no turn.
    Head,
    /// Never leased and not delayed.
    Fresh(Priority),
    /// Retried, deferred, promoted, replayed.
    Returned(Priority),
}

impl List {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Suspects,
        Self::Head,
        Self::Fresh(Priority::High),
        Self::Fresh(Priority::Normal),
        Self::Fresh(Priority::Low),
        Self::Returned(Priority::High),
        Self::Returned(Priority::Normal),
        Self::Returned(Priority::Low),
    ];

    /// Its place in [`List::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Suspects => 0,
            Self::Head => 1,
            Self::Fresh(priority) => 2 + priority.index() as usize,
            Self::Returned(priority) => 5 + priority.index() as usize,
        }
    }
}

const H: Priority = Priority::High;
const N: Priority = Priority::Normal;
const L: Priority = Priority::Low;

/// 16 : 4 : 1, spread so that no priority waits longer than it must.
const WHEEL: [Priority; 21] = [H, H, H, H, N, H, H, H, H, N, H, H, H, H, N, H, H, H, H, N, L];

/// Where a queue's wheel stands. Starts anew when the store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Turns {
    slot: usize,
    returned_next: [bool; 3],
}

impl Turns {
    /// The list to draw the next message from, when `waits` says which of them have one; `None` when none of those
    /// that take turns has.
    ///
    /// The head goes first. Else the wheel moves on to the first slot whose priority has a message and beyond it; within
    /// the priority fresh and returned alternate: what was drawn last goes second, unless the other one is empty.
    pub(crate) fn draw(&mut self, waits: impl Fn(List) -> bool) -> Option<List> {
        if waits(List::Head) {
            return Some(List::Head);
        }
        for distance in 0..WHEEL.len() {
            let slot = (self.slot + distance) % WHEEL.len();
            let priority = WHEEL[slot];
            let returned_next = &mut self.returned_next[usize::from(priority.index())];
            let mut order = [List::Fresh(priority), List::Returned(priority)];
            if *returned_next {
                order.reverse();
            }
            if let Some(list) = order.into_iter().find(|list| waits(*list)) {
                *returned_next = list == List::Fresh(priority);
                self.slot = (slot + 1) % WHEEL.len();
                return Some(list);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(turns: &mut Turns, count: usize, waits: impl Fn(List) -> bool) -> Vec<List> {
        (0..count).map_while(|_| turns.draw(&waits)).collect()
    }

    #[test]
    fn every_list_knows_its_place() {
        assert_eq!(List::ALL.map(List::index), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn full_lists_are_drawn_16_to_4_to_1_and_half_of_each_is_fresh() {
        let mut turns = Turns::default();
        let drawn = draws(&mut turns, 42, |list| list != List::Head);
        let count = |wanted: List| drawn.iter().filter(|list| **list == wanted).count();
        for (priority, half) in [(H, 16), (N, 4), (L, 1)] {
            assert_eq!((count(List::Fresh(priority)), count(List::Returned(priority))), (half, half));
        }
        assert_eq!(turns, Turns::default(), "two rounds bring the wheel back to its beginning");
        let longest_wait =
            drawn.split(|list| matches!(list, List::Fresh(N) | List::Returned(N))).map(<[_]>::len).max();
        assert_eq!(longest_wait, Some(5), "normal never waits for more than four of high and one of low");
    }

    #[test]
    fn an_empty_list_passes_its_turn_on_and_no_turn_is_lost_to_an_empty_queue() {
        let mut turns = Turns::default();
        assert_eq!(turns.draw(|_| false), None);
        assert_eq!(turns, Turns::default());
        assert_eq!(draws(&mut turns, 3, |list| list == List::Returned(L)), [List::Returned(L); 3]);
        assert_eq!(turns.draw(|list| list != List::Head), Some(List::Fresh(H)));
    }

    #[test]
    fn the_head_goes_before_all_and_uses_up_no_turn() {
        let mut turns = Turns::default();
        assert_eq!(draws(&mut turns, 2, |_| true), [List::Head; 2]);
        assert_eq!(turns, Turns::default());
    }

    #[test]
    fn after_a_passed_turn_the_other_list_is_next_again() {
        let mut turns = Turns::default();
        let only = |wanted: List| move |list: List| list == wanted;
        assert_eq!(turns.draw(only(List::Returned(N))), Some(List::Returned(N)));
        let both = |list: List| matches!(list, List::Fresh(N) | List::Returned(N));
        assert_eq!(draws(&mut turns, 3, both), [List::Fresh(N), List::Returned(N), List::Fresh(N)]);
    }
}
