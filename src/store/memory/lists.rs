//! The pending messages of one queue, in lists, and how they are drawn.

use std::collections::VecDeque;

use crate::store::turns::{List, Turns};

/// A message's number in its queue: given when it is stored, never again.
pub(super) type Seq = u64;

/// At which end of a list a message is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Drawn next.
    Front,
    /// Drawn after all that wait now.
    Back,
}

/// One list for each of [`List::ALL`], and the wheel over them.
#[derive(Default, Debug)]
pub(super) struct Lists {
    lists: [VecDeque<Seq>; List::ALL.len()],
    /// Where the wheel stands.
    pub(super) turns: Turns,
}

impl Lists {
    /// One list, front first.
    pub(super) fn of(&self, list: List) -> &VecDeque<Seq> {
        &self.lists[list.index()]
    }

    /// Puts a message into a list.
    pub(super) fn put(&mut self, list: List, seq: Seq, end: End) {
        match end {
            End::Front => self.lists[list.index()].push_front(seq),
            End::Back => self.lists[list.index()].push_back(seq),
        }
    }

    /// Takes a message out of its list.
    pub(super) fn remove(&mut self, list: List, seq: Seq) {
        let list = &mut self.lists[list.index()];
        // What is leased lies at the front; only a cancelled message is searched for.
        let place = list.iter().position(|other| *other == seq);
        list.remove(place.expect("a pending message is in its list"));
    }

    /// Whether a request would find something: suspects count only when it allows them.
    pub(super) fn wait(&self, suspects: bool) -> bool {
        List::ALL.iter().any(|list| (suspects || *list != List::Suspects) && !self.of(*list).is_empty())
    }

    /// The messages in the order in which they would be drawn, suspects aside. Takes nothing.
    pub(super) fn draws(&self) -> Draws<'_> {
        Draws { lists: self, turns: self.turns, drawn: [0; List::ALL.len()] }
    }
}

/// Draws from lists without taking.
pub(super) struct Draws<'a> {
    lists: &'a Lists,
    /// Where the wheel stands after what was drawn so far.
    pub(super) turns: Turns,
    drawn: [usize; List::ALL.len()],
}

impl Iterator for Draws<'_> {
    type Item = Seq;

    fn next(&mut self) -> Option<Seq> {
        let list = self.turns.draw(|list| self.lists.of(list).len() > self.drawn[list.index()])?;
        let place = &mut self.drawn[list.index()];
        *place += 1;
        self.lists.of(list).get(*place - 1).copied()
    }
}
