//! The queues that a dispatcher believes to have work: those that wait for their turn, and those that rest.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use crate::domain::queue::QueueName;

/// Queues that wait for their turn, each once, and queues that are not to be looked at before a moment.
#[derive(Default)]
pub(super) struct Ring {
    turns: VecDeque<QueueName>,
    members: HashSet<QueueName>,
    resting: HashMap<QueueName, Instant>,
}

impl Ring {
    /// Queues that wait for their turn.
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Lets a queue wait for its turn.
    pub(super) fn add(&mut self, name: &QueueName) {
        if !self.members.contains(name) {
            self.members.insert(name.clone());
            self.turns.push_back(name.clone());
        }
    }

    /// Takes the queue whose turn it is.
    pub(super) fn next(&mut self) -> Option<QueueName> {
        let name = self.turns.pop_front()?;
        self.members.remove(&name);
        Some(name)
    }

    /// Lets a queue rest until then.
    pub(super) fn rest(&mut self, name: QueueName, until: Instant) {
        self.resting.insert(name, until);
    }

    /// Whether a queue rests: its turn comes by itself.
    pub(super) fn is_resting(&self, name: &QueueName) -> bool {
        self.resting.contains_key(name)
    }

    /// When the first one has rested.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.resting.values().min().copied()
    }

    /// Lets those wait for their turn that have rested.
    pub(super) fn wake(&mut self, now: Instant) {
        let rested: Vec<_> =
            self.resting.extract_if(|_, until| *until <= now).map(|(name, _)| name).collect();
        for name in &rested {
            self.add(name);
        }
    }

    /// Lets a queue wait for its turn, whether it rests or not.
    pub(super) fn rouse(&mut self, name: &QueueName) {
        self.resting.remove(name);
        self.add(name);
    }

    /// Forgets that queues rest which are no more.
    pub(super) fn keep(&mut self, is_known: impl Fn(&QueueName) -> bool) {
        self.resting.retain(|name, _| is_known(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_rests_has_no_turn_before_its_time_unless_it_is_roused() {
        let [first, second]: [QueueName; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let (mut ring, now) = (Ring::default(), Instant::now());
        ring.rest(first.clone(), now + Duration::from_secs(2));
        ring.rest(second.clone(), now + Duration::from_secs(1));
        assert_eq!((ring.len(), ring.rests_until()), (0, Some(now + Duration::from_secs(1))));
        ring.wake(now + Duration::from_secs(1));
        assert_eq!((ring.next(), ring.next()), (Some(second.clone()), None));
        assert!(ring.is_resting(&first) && !ring.is_resting(&second));
        ring.rouse(&first);
        ring.add(&first);
        assert_eq!((ring.next(), ring.next(), ring.is_resting(&first)), (Some(first.clone()), None, false));
        ring.rest(first, now);
        ring.keep(|_| false);
        assert_eq!(ring.rests_until(), None);
    }
}
