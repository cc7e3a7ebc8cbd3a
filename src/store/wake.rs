//! The board on which a store posts that a queue has work.
//!
//! A post is a hint: it may come twice or for nothing, and a look at the store from time to time is the safety net.
//! Each subscriber has a set of names, so the board is bounded by the number of queues, whatever the traffic.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::domain::queue::QueueName;

/// Where wake-ups are posted. Clones share the board.
#[derive(Clone, Default)]
pub struct WakeBoard(Arc<Mutex<Vec<Weak<Subscriber>>>>);

#[derive(Default)]
struct Subscriber {
    posted: Mutex<Posted>,
    notify: Notify,
    interest: Interest,
    /// The queues that [`Interest::Named`] is about.
    names: Mutex<HashSet<QueueName>>,
}

/// What a subscriber wants to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Interest {
    /// Queues with work, and time.
    #[default]
    Work,
    /// What becomes due sooner.
    Time,
    /// Queues that were made, changed, held or deleted.
    Changes,
    /// Work in the queues that are watched; and changes of any, since what was missed before is told by one.
    Named,
}

#[derive(Default)]
struct Posted {
    queues: HashSet<QueueName>,
    time_changed: bool,
    queues_changed: bool,
}

/// One listener's end. Dropping it unsubscribes.
pub struct WakeSubscription(Arc<Subscriber>);

/// What was posted since the last look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wakes {
    /// Queues that got something to lease.
    pub queues: HashSet<QueueName>,
    /// Whether the next due moment may have come nearer.
    pub time_changed: bool,
    /// Whether a queue was made, changed, held or deleted by another gateway.
    pub queues_changed: bool,
}

impl WakeBoard {
    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> WakeSubscription {
        self.add(Subscriber::default())
    }

    /// Listens from now on for what becomes due sooner, and is not woken for queues.
    #[must_use]
    pub fn subscribe_time(&self) -> WakeSubscription {
        self.add(Subscriber { interest: Interest::Time, ..Subscriber::default() })
    }

    /// Listens from now on for changes of the queues themselves that other gateways make, and is woken for nothing else.
    #[must_use]
    pub fn subscribe_changes(&self) -> WakeSubscription {
        self.add(Subscriber { interest: Interest::Changes, ..Subscriber::default() })
    }

    /// Listens from now on for work in the queues that [`WakeSubscription::watch`] names, and for changes as
    /// [`WakeBoard::subscribe_changes`] does. Work elsewhere does not wake it.
    #[must_use]
    pub fn subscribe_named(&self) -> WakeSubscription {
        self.add(Subscriber { interest: Interest::Named, ..Subscriber::default() })
    }

    fn add(&self, subscriber: Subscriber) -> WakeSubscription {
        let subscriber = Arc::new(subscriber);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&subscriber));
        WakeSubscription(subscriber)
    }

    /// Says that `queue` got something to lease.
    pub fn post(&self, queue: &QueueName) {
        let told = |subscriber: &Subscriber| match subscriber.interest {
            Interest::Work => true,
            Interest::Named => subscriber.names().contains(queue),
            Interest::Time | Interest::Changes => false,
        };
        self.tell(told, |posted| {
            if !posted.queues.contains(queue) {
                posted.queues.insert(queue.clone());
            }
        });
    }

    /// Says that something became due sooner than known before.
    pub fn post_time(&self) {
        let told = |subscriber: &Subscriber| matches!(subscriber.interest, Interest::Work | Interest::Time);
        self.tell(told, |posted| posted.time_changed = true);
    }

    /// Says that another gateway made, changed, held or deleted a queue.
    pub fn post_change(&self) {
        let told =
            |subscriber: &Subscriber| matches!(subscriber.interest, Interest::Changes | Interest::Named);
        self.tell(told, |posted| posted.queues_changed = true);
    }

    fn tell(&self, told: impl Fn(&Subscriber) -> bool, what: impl Fn(&mut Posted)) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for subscriber in all.iter().filter_map(Weak::upgrade).filter(|subscriber| told(subscriber)) {
            what(&mut subscriber.posted.lock().unwrap_or_else(PoisonError::into_inner));
            subscriber.notify.notify_one();
        }
    }
}

impl Subscriber {
    fn names(&self) -> MutexGuard<'_, HashSet<QueueName>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WakeSubscription {
    /// Hears of work in this queue from now on; of one that was subscribed by name.
    pub fn watch(&self, queue: &QueueName) {
        self.0.names().insert(queue.clone());
    }

    /// Hears of it no more.
    pub fn unwatch(&self, queue: &QueueName) {
        self.0.names().remove(queue);
    }

    /// Waits until something is posted; at once when something was since the last [`WakeSubscription::take`]. Cancelling loses nothing.
    pub async fn posted(&self) {
        loop {
            let notified = self.0.notify.notified();
            {
                let posted = self.0.posted.lock().unwrap_or_else(PoisonError::into_inner);
                if posted.time_changed || posted.queues_changed || !posted.queues.is_empty() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Takes what was posted.
    #[must_use]
    pub fn take(&self) -> Wakes {
        let mut posted = self.0.posted.lock().unwrap_or_else(PoisonError::into_inner);
        Wakes {
            queues: std::mem::take(&mut posted.queues),
            time_changed: std::mem::take(&mut posted.time_changed),
            queues_changed: std::mem::take(&mut posted.queues_changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_posted_before_the_wait_ends_it_at_once_and_is_taken_once() {
        let board = WakeBoard::default();
        let subscription = board.subscribe();
        let name: QueueName = "orders".parse().expect("a name");
        board.post(&name);
        board.post(&name);
        board.post_time();
        subscription.posted().await;
        let wakes = subscription.take();
        assert_eq!((wakes.queues.len(), wakes.time_changed), (1, true));
        assert_eq!(subscription.take(), Wakes::default());
    }

    #[tokio::test]
    async fn who_listens_for_time_only_is_not_told_of_queues() {
        let board = WakeBoard::default();
        let subscription = board.subscribe_time();
        board.post(&"orders".parse().expect("a name"));
        assert_eq!(subscription.take(), Wakes::default());
        board.post_time();
        subscription.posted().await;
        assert!(subscription.take().time_changed);
    }

    #[tokio::test]
    async fn who_listens_for_changes_only_is_told_of_nothing_else() {
        let board = WakeBoard::default();
        let (changes, work) = (board.subscribe_changes(), board.subscribe());
        board.post(&"orders".parse().expect("a name"));
        board.post_time();
        assert_eq!(changes.take(), Wakes::default());
        assert!(work.take().time_changed);
        board.post_change();
        changes.posted().await;
        assert!(changes.take().queues_changed);
        assert_eq!(work.take(), Wakes::default());
    }

    #[tokio::test]
    async fn who_watches_a_queue_is_told_of_that_one_and_of_changes() {
        let board = WakeBoard::default();
        let subscription = board.subscribe_named();
        let (orders, other): (QueueName, QueueName) =
            ("orders".parse().expect("a name"), "other".parse().expect("a name"));
        board.post(&orders);
        subscription.watch(&orders);
        board.post(&other);
        board.post_time();
        assert_eq!(subscription.take(), Wakes::default());
        board.post(&orders);
        board.post_change();
        subscription.posted().await;
        let wakes = subscription.take();
        assert_eq!((wakes.queues, wakes.queues_changed), (HashSet::from([orders.clone()]), true));
        subscription.unwatch(&orders);
        board.post(&orders);
        assert_eq!(subscription.take(), Wakes::default());
    }

    #[tokio::test]
    async fn every_subscriber_is_told_and_one_that_left_is_forgotten() {
        let board = WakeBoard::default();
        let (first, second) = (board.subscribe(), board.subscribe());
        drop(first);
        board.post(&"orders".parse().expect("a name"));
        second.posted().await;
        assert_eq!(second.take().queues.len(), 1);
        let _third = board.subscribe();
        assert_eq!(board.0.lock().expect("the board").len(), 2);
    }
}
