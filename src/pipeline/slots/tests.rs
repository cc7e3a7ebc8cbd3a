//! Who may take a slot: the rule, and what comes of it when queues come one after the other.

use proptest::prelude::*;

use super::*;

/// What queues have of a thread's slots when they come one after the other, each takes what it is given, up to `most`,
/// and none gives anything back.
fn come(all: usize, queues: usize, most: usize) -> Vec<usize> {
    let mut own: Vec<usize> = Vec::new();
    for _ in 0..queues {
        let free = all - own.iter().sum::<usize>();
        own.push(takes(all, free, 0, own.len() + 1, most));
    }
    own
}

#[test]
fn a_queue_that_is_alone_may_take_all_but_a_sixteenth_and_leaves_one_at_least() {
    let taken = |all| takes(all, all, 0, 1, usize::MAX);
    assert_eq!([1, 8, 15, 16, 64, 256].map(taken), [1, 7, 14, 15, 60, 240]);
}

#[test]
fn a_queue_that_has_none_may_take_any_slot_that_is_free() {
    for (all, queues) in [(1, 1), (1, 50), (256, 1), (256, 2), (256, 1_000)] {
        assert!(may_take(all, 1, 0, queues) && !may_take(all, 0, 0, queues), "{all} {queues}");
    }
}

#[test]
fn queues_that_hang_leave_slots_for_those_that_come_after_them() {
    assert_eq!(come(256, 10, 32), [32, 32, 32, 32, 32, 32, 7, 6, 5, 5]);
    let queues = |all, most| come(all, 1_000, most).iter().take_while(|own| **own > 0).count();
    assert_eq!((queues(256, 32), queues(256, 256), queues(64, 8)), (35, 17, 22));
    let with_one_message = come(256, 6, 32).into_iter().chain(std::iter::repeat_n(1, 64));
    assert_eq!(with_one_message.sum::<usize>(), 256, "each of 64 finds one");
}

#[test]
fn what_nobody_else_wants_is_used() {
    let few_of_others = 9;
    let taken = takes(256, 256 - few_of_others, 0, 10, usize::MAX);
    assert!(taken > 100, "{taken} of 256");
    assert!(!may_take(256, 256 - few_of_others - taken, taken, 10));
}

#[test]
fn all_that_want_slots_have_the_same_after_their_attempts_have_ended_once() {
    let (all, queues) = (256, 10);
    let mut own = come(all, queues, 32);
    // Queue after queue ends an attempt; the others are asked first who wants the slot.
    for turn in (0..queues).cycle().take(queues * 40) {
        own[turn] = own[turn].saturating_sub(1);
        for other in (turn + 1..=turn + queues).map(|place| place % queues) {
            let free = all - own.iter().sum::<usize>();
            own[other] += takes(all, free, own[other], queues, 32 - own[other]);
        }
    }
    let (least, most) = (own.iter().min().copied(), own.iter().max().copied());
    assert!(least >= Some(16) && most <= Some(20), "{own:?}");
    assert!(own.iter().sum::<usize>() >= 192 - queues, "{own:?}");
}

proptest! {
    #[test]
    fn no_more_are_given_than_there_are(
        all in 1_usize..600, taken in 0_usize..600, own in 0_usize..600, queues in 0_usize..600, wanted in 0_usize..600,
    ) {
        let free = all.saturating_sub(taken);
        let given = takes(all, free, own, queues, wanted);
        prop_assert!(given <= free.min(wanted));
        prop_assert!(own > 0 || free == 0 || wanted == 0 || given > 0);
        prop_assert!(may_take(all, free, own, queues) || given == 0);
    }

    #[test]
    fn more_that_is_free_or_less_that_it_has_never_takes_a_slot_from_a_queue(
        all in 1_usize..600, free in 0_usize..600, own in 0_usize..600, queues in 1_usize..600,
    ) {
        let free = free.min(all);
        if may_take(all, free, own, queues) {
            prop_assert!(may_take(all, (free + 1).min(all), own, queues));
            prop_assert!(may_take(all, free, own.saturating_sub(1), queues));
        }
    }

    #[test]
    fn one_queue_for_every_sixteen_slots_may_hang_with_an_eighth_of_them_each(
        all in 1_usize..600, queues in 0_usize..40, most in 1_usize..80,
    ) {
        let (queues, most) = (queues.min(all / 16), most.min((all / 8).max(1)));
        let own = come(all, queues, most);
        prop_assert!(own.iter().sum::<usize>() < all, "{:?}", own);
    }
}
