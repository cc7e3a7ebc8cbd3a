//! A drop guard for work taken by an actor: a panic or a cancellation gives back what remains.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::{self, AssertUnwindSafe};

/// What a [`Guard`] still held when it was dropped, each part in the order it was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfinished<T> {
    /// Work somebody may already have acted on.
    pub started: Vec<T>,
    /// Work nobody has touched.
    pub not_started: Vec<T>,
}

struct Held<T> {
    order: u64,
    started: bool,
    item: T,
}

/// Owns items of work by key, from being taken until being finished.
///
/// When it is dropped with items left, be it by a panic, by a cancellation or at the end of a
/// function, they go to the closure it was made with, once. Nothing goes to it when none is left.
pub struct Guard<K, T> {
    held: HashMap<K, Held<T>>,
    taken: u64,
    give_back: Option<Box<dyn FnOnce(Unfinished<T>)>>,
}

impl<K, T> fmt::Debug for Guard<K, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guard").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, T> Guard<K, T> {
    /// Makes an empty guard; `give_back` must not block, and a panic of it is caught and logged.
    pub fn new(give_back: impl FnOnce(Unfinished<T>) + 'static) -> Self {
        Self { held: HashMap::new(), taken: 0, give_back: Some(Box::new(give_back)) }
    }

    /// Takes an item in, not started; answers the item that had this key, if there was one.
    pub fn take(&mut self, key: K, item: T) -> Option<T> {
        let held = Held { order: self.taken, started: false, item };
        self.taken += 1;
        self.held.insert(key, held).map(|before| before.item)
    }

    /// Marks an item as started and shows it; `None` when it is not here.
    pub fn start(&mut self, key: &K) -> Option<&T> {
        let held = self.held.get_mut(key)?;
        held.started = true;
        Some(&held.item)
    }

    /// Shows an item; `None` when it is not here.
    pub fn show(&self, key: &K) -> Option<&T> {
        self.held.get(key).map(|held| &held.item)
    }

    /// Ends the guard's care for an item and hands it out; `None` when it is not here.
    pub fn finish(&mut self, key: &K) -> Option<T> {
        self.held.remove(key).map(|held| held.item)
    }

    /// Hands out all that was not started, in the order it was taken.
    pub fn finish_not_started(&mut self) -> Vec<T> {
        in_order(self.held.extract_if(|_, held| !held.started).map(|(_, held)| held).collect())
    }

    /// Items held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl<K, T> Drop for Guard<K, T> {
    fn drop(&mut self) {
        let Some(give_back) = self.give_back.take() else { return };
        if self.held.is_empty() {
            return;
        }
        let (started, not_started) = self.held.drain().map(|(_, held)| held).partition(|held| held.started);
        let unfinished = Unfinished { started: in_order(started), not_started: in_order(not_started) };
        // We may be here because of a panic already: a second one must not get out and abort.
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| give_back(unfinished))) {
            let cause = super::panic_text(panic.as_ref());
            log::error!("cause" = cause.as_str(); "giving back unfinished work panicked");
        }
    }
}

fn in_order<T>(mut held: Vec<Held<T>>) -> Vec<T> {
    held.sort_unstable_by_key(|held| held.order);
    held.into_iter().map(|held| held.item).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    type Given = Rc<RefCell<Vec<Unfinished<char>>>>;

    fn guard_of(items: &str) -> (Guard<u32, char>, Given) {
        let given = Given::default();
        let mut guard = Guard::new({
            let given = given.clone();
            move |unfinished| given.borrow_mut().push(unfinished)
        });
        for (key, item) in (0..).zip(items.chars()) {
            assert_eq!(guard.take(key, item), None);
        }
        (guard, given)
    }

    #[test]
    fn a_dropped_guard_tells_started_from_not_started_in_the_order_taken() {
        let (mut guard, given) = guard_of("abcdefgh");
        assert_eq!(guard.start(&5), Some(&'f'));
        assert_eq!(guard.start(&1), Some(&'b'));
        assert_eq!(guard.start(&3), Some(&'d'));
        assert_eq!(guard.finish(&3), Some('d'));
        assert_eq!(guard.finish(&0), Some('a'));
        drop(guard);
        let expected = Unfinished { started: vec!['b', 'f'], not_started: vec!['c', 'e', 'g', 'h'] };
        assert_eq!(given.take(), [expected]);
    }

    #[test]
    fn a_guard_with_nothing_left_gives_nothing_back() {
        let (mut guard, given) = guard_of("ab");
        assert_eq!(guard.len(), 2);
        assert_eq!(guard.start(&0), Some(&'a'));
        assert_eq!(guard.finish(&0), Some('a'));
        assert_eq!(guard.finish_not_started(), ['b']);
        assert!(guard.is_empty());
        drop(guard);
        assert_eq!(given.take(), []);
    }

    #[test]
    fn a_guard_does_not_know_what_it_never_took_or_has_finished() {
        let (mut guard, _given) = guard_of("a");
        assert_eq!(guard.start(&7), None);
        assert_eq!(guard.finish(&7), None);
        assert_eq!(guard.finish(&0), Some('a'));
        assert_eq!(guard.finish(&0), None);
    }

    #[test]
    fn an_item_taken_under_a_key_in_use_hands_out_the_one_before() {
        let (mut guard, given) = guard_of("a");
        assert_eq!(guard.start(&0), Some(&'a'));
        assert_eq!(guard.take(0, 'b'), Some('a'));
        drop(guard);
        assert_eq!(given.take(), [Unfinished { started: vec![], not_started: vec!['b'] }]);
    }

    #[test]
    fn a_panic_gives_back_what_is_left() {
        let (mut guard, given) = guard_of("ab");
        let ended = panic::catch_unwind(AssertUnwindSafe(move || {
            assert_eq!(guard.start(&1), Some(&'b'));
            panic!("while at b");
        }));
        assert!(ended.is_err());
        assert_eq!(given.take(), [Unfinished { started: vec!['b'], not_started: vec!['a'] }]);
    }

    #[test]
    fn a_panic_while_giving_back_during_a_panic_does_not_abort() {
        let ended = panic::catch_unwind(|| {
            let mut guard = Guard::new(|_: Unfinished<char>| panic!("while giving back"));
            assert_eq!(guard.take(1, 'a'), None);
            panic!("the first");
        });
        let text = super::super::panic_text(ended.expect_err("it panicked").as_ref());
        assert_eq!(text, "the first");
    }
}
