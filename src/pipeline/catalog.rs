//! The queues as this process knows them, for everything that must not ask the store first.
//!
//! Changed by whoever learns something (a route that put a queue, the prober every second) and read on each publish:
//! a [`CatalogView`] costs one atomic load and one look into a map as long as nothing changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::domain::queue::QueueName;
use crate::store::QueueEntry;

type Entries = HashMap<QueueName, Arc<QueueEntry>>;

/// The queues that are known. Clones share them; usable from any thread.
#[derive(Clone)]
pub struct Catalog(Arc<Shared>);

struct Shared {
    entries: RwLock<Arc<Entries>>,
    // Written under the lock; read without it.
    version: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Catalog {
    fn default() -> Self {
        let (entries, version, changed) = (RwLock::default(), AtomicU64::new(0), watch::Sender::new(0));
        Self(Arc::new(Shared { entries, version, changed }))
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Catalog").field("queues", &self.all().len()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// The queue of this name. On a path where it counts, ask a [`Catalog::view`].
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<QueueEntry>> {
        self.entries().get(name).cloned()
    }

    /// All queues, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<QueueEntry>> {
        let mut all: Vec<_> = self.entries().values().cloned().collect();
        all.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Tells of changes, each by its version.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// A reader for one thread.
    #[must_use]
    pub fn view(&self) -> CatalogView {
        let (entries, version) = self.0.snapshot();
        CatalogView { catalog: self.clone(), version: Cell::new(version), entries: RefCell::new(entries) }
    }

    /// Adds a queue, or replaces what is known of it.
    pub fn put(&self, entry: QueueEntry) {
        self.0.change(|entries| {
            if entries.get(&entry.name).is_some_and(|known| **known == entry) {
                return false;
            }
            Arc::make_mut(entries).insert(entry.name.clone(), Arc::new(entry));
            true
        });
    }

    /// Forgets a queue.
    pub fn remove(&self, name: &QueueName) {
        self.0.change(|entries| entries.contains_key(name) && Arc::make_mut(entries).remove(name).is_some());
    }

    /// Replaces all that is known. What is the same stays the same entry.
    pub fn replace_all(&self, all: Vec<QueueEntry>) {
        self.0.change(|entries| replace(entries, all));
    }

    /// The same as [`Catalog::replace_all`] for a list that was asked for at that version: does nothing, and answers
    /// false, when something changed since, for then the list may be older than what is known.
    #[must_use = "false means that the list was dropped"]
    pub fn replace_all_since(&self, version: u64, all: Vec<QueueEntry>) -> bool {
        let mut is_current = false;
        self.0.change(|entries| {
            is_current = self.version() == version;
            is_current && replace(entries, all)
        });
        is_current
    }

    fn entries(&self) -> Arc<Entries> {
        self.0.snapshot().0
    }
}

fn replace(entries: &mut Arc<Entries>, all: Vec<QueueEntry>) -> bool {
    let keep = |entry: QueueEntry| match entries.get(&entry.name) {
        Some(known) if **known == entry => (entry.name, known.clone()),
        _ => (entry.name.clone(), Arc::new(entry)),
    };
    let new: Entries = all.into_iter().map(keep).collect();
    let same = new.len() == entries.len()
        && new.iter().all(|(name, entry)| entries.get(name).is_some_and(|known| Arc::ptr_eq(known, entry)));
    if !same {
        *entries = Arc::new(new);
    }
    !same
}

impl Shared {
    fn snapshot(&self) -> (Arc<Entries>, u64) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        (entries.clone(), self.version.load(Ordering::Acquire))
    }

    /// Lets `change` work on the entries; it says whether it did anything.
    fn change(&self, change: impl FnOnce(&mut Arc<Entries>) -> bool) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if change(&mut entries) {
            let version = self.version.fetch_add(1, Ordering::AcqRel) + 1;
            self.changed.send_replace(version);
        }
    }
}

/// A reader of the catalog for one thread, which looks at the shared one only after a change.
#[derive(Debug)]
pub struct CatalogView {
    catalog: Catalog,
    version: Cell<u64>,
    entries: RefCell<Arc<Entries>>,
}

impl CatalogView {
    /// The queue of this name, as known now.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<QueueEntry>> {
        if self.catalog.version() != self.version.get() {
            let (entries, version) = self.catalog.0.snapshot();
            self.entries.replace(entries);
            self.version.set(version);
        }
        self.entries.borrow().get(name).cloned()
    }

    /// What it reads from.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::{Generation, Source};

    fn entry(name: &str, generation: u64) -> QueueEntry {
        QueueEntry {
            name: name.parse().expect("a name"),
            generation: Generation(generation),
            source: Source::Api,
            settings: Arc::default(),
            paused: false,
            parked: None,
        }
    }

    fn names(catalog: &Catalog) -> Vec<String> {
        catalog.all().iter().map(|entry| entry.name.to_string()).collect()
    }

    #[test]
    fn a_view_sees_every_change_and_only_changes_move_the_version() {
        let catalog = Catalog::default();
        let view = catalog.view();
        assert!(view.find("b").is_none());
        catalog.put(entry("b", 1));
        catalog.put(entry("a", 1));
        assert_eq!((names(&catalog), catalog.version()), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert_eq!(view.find("b").map(|found| found.generation), Some(Generation(1)));
        catalog.put(entry("b", 1));
        catalog.remove(&"c".parse().expect("a name"));
        assert_eq!(catalog.version(), 2);
        catalog.put(entry("b", 2));
        assert_eq!(view.find("b").map(|found| found.generation), Some(Generation(2)));
        catalog.remove(&"b".parse().expect("a name"));
        assert!(view.find("b").is_none() && catalog.find("a").is_some());
    }

    #[test]
    fn a_list_keeps_what_is_the_same_and_one_that_is_older_than_a_change_is_dropped() {
        let catalog = Catalog::default();
        catalog.replace_all(vec![entry("a", 1), entry("b", 1)]);
        let kept = catalog.find("a").expect("known");
        let asked_at = catalog.version();
        assert!(catalog.replace_all_since(asked_at, vec![entry("b", 1), entry("a", 1)]));
        assert_eq!(catalog.version(), asked_at, "nothing changed");
        assert!(catalog.replace_all_since(asked_at, vec![entry("a", 1)]));
        assert!(Arc::ptr_eq(&kept, &catalog.find("a").expect("known")));
        let asked_at = catalog.version();
        catalog.put(entry("new", 1));
        assert!(!catalog.replace_all_since(asked_at, vec![entry("a", 1)]));
        assert_eq!(names(&catalog), ["a", "new"]);
    }

    #[tokio::test]
    async fn a_change_wakes_who_waits_for_one() {
        let catalog = Catalog::default();
        let mut changes = catalog.changes();
        catalog.put(entry("a", 1));
        changes.changed().await.expect("the catalog lives");
        assert_eq!(*changes.borrow_and_update(), 1);
    }
}
