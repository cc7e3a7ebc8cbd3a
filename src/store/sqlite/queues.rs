//! Queues as wholes: made, changed, held, deleted.

use std::sync::Arc;

use crate::domain::queue::{Generation, QueueName, QueueSettings, Source};
use crate::store::error::StoreError;
use crate::store::sqlite::batch::Slot;
use crate::store::sqlite::counts;
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::work::{Sql, Work};
use crate::store::{Changed, Deleted, Hold, Put, QueueEntry, QueueRef};

const DIG_GRAVE: &str = "INSERT INTO graves (queue) VALUES (?1)";

impl Work<'_> {
    /// All queues, by name.
    pub(super) fn entries(&self) -> Vec<QueueEntry> {
        let mut entries: Vec<_> = self.state.queues.values().map(|queue| queue.entry.clone()).collect();
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        entries
    }

    /// Pauses, resumes or parks a queue.
    pub(super) fn hold(&mut self, queue: &QueueRef, hold: &Hold) -> Result<QueueEntry, StoreError> {
        self.effects.durable = true;
        let number = self.number_of(queue).ok_or(StoreError::Gone)?;
        let queue = self.queue_mut(number);
        let goes_on = queue.entry.hold(hold);
        let entry = queue.entry.clone();
        if goes_on && queue.waits(true) {
            self.wake(number);
        }
        Ok(entry)
    }

    fn make(&mut self, name: QueueName, settings: Arc<QueueSettings>, source: Source) -> Sql<QueueEntry> {
        let number = self.free_number()?;
        let generation = Generation(fastrand::u64(1..));
        let entry =
            QueueEntry { name: name.clone(), generation, source, settings, paused: false, parked: None };
        let queue = counts::make(self.sql, number, entry.clone())?;
        self.state.queues.insert(number, queue);
        self.state.names.insert(name, number);
        self.queue_mut(number);
        Ok(entry)
    }

    /// The lowest number of which no row is left.
    fn free_number(&self) -> Sql<QueueNumber> {
        let taken = |number: &QueueNumber| {
            self.state.queues.contains_key(number) || self.state.graves.contains(number)
        };
        (0..=QueueNumber::MAX).find(|number| !taken(number)).ok_or_else(|| {
            let words = "the store holds as many queues as it can number: 65,536".to_owned();
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG);
            rusqlite::Error::SqliteFailure(code, Some(words))
        })
    }

    fn set(&mut self, number: QueueNumber, settings: Arc<QueueSettings>, source: Source) -> Sql<QueueEntry> {
        let queue = self.queue_mut(number);
        let lookup_before = queue.entry.settings.lookup;
        queue.entry.source = source;
        if queue.entry.set(settings) && queue.waits(true) {
            self.wake(number);
        }
        self.unpark_when_below(number);
        let entry = self.queue(number).entry.clone();
        counts::write_settings(self.sql, number, &entry)?;
        if entry.settings.lookup != lookup_before {
            self.reindex(number, entry.settings.lookup)?;
        }
        Ok(entry)
    }

    /// Makes a queue by API, or replaces the settings of one.
    pub(super) fn put_queue(&mut self, name: &QueueName, settings: &Arc<QueueSettings>) -> Sql<Put> {
        self.effects.durable = true;
        let Some(number) = self.state.names.get(name).copied() else {
            return Ok(Put::Created(self.make(name.clone(), Arc::clone(settings), Source::Api)?));
        };
        if self.queue(number).entry.source == Source::File {
            return Ok(Put::DeclaredInFile);
        }
        let settings = Arc::clone(settings).keeping_secret_of(&self.queue(number).entry.settings);
        Ok(Put::Updated(self.set(number, settings, Source::Api)?))
    }

    /// Replaces the settings of a queue by API if they still are what the caller read.
    pub(super) fn change_queue(
        &mut self,
        queue: &QueueRef,
        was: &QueueSettings,
        settings: &Arc<QueueSettings>,
    ) -> Sql<Result<Changed, StoreError>> {
        self.effects.durable = true;
        let Some(number) = self.number_of(queue) else { return Ok(Err(StoreError::Gone)) };
        Ok(Ok(match &self.queue(number).entry {
            entry if entry.source == Source::File => Changed::DeclaredInFile,
            entry if *entry.settings != *was => Changed::Otherwise(Arc::clone(&entry.settings)),
            _ => Changed::Changed(self.set(number, Arc::clone(settings), Source::Api)?),
        }))
    }

    /// Applies an operator's file.
    pub(super) fn declare(
        &mut self,
        declared: &[(QueueName, Arc<QueueSettings>)],
    ) -> Sql<(Vec<QueueEntry>, Vec<QueueEntry>)> {
        self.effects.durable = true;
        let mut differing = Vec::new();
        for entry in self.entries() {
            match declared.iter().find(|(name, _)| *name == entry.name) {
                None if entry.source == Source::File => {
                    let number = self.state.names[&entry.name];
                    self.set(number, entry.settings, Source::Api)?;
                }
                Some((_, settings)) if *settings != entry.settings => differing.push(entry),
                _ => {}
            }
        }
        for (name, settings) in declared {
            match self.state.names.get(name).copied() {
                None => {
                    self.make(name.clone(), Arc::clone(settings), Source::File)?;
                }
                Some(number) => {
                    let entry = &self.queue(number).entry;
                    if entry.source != Source::File || entry.settings != *settings {
                        self.set(number, Arc::clone(settings), Source::File)?;
                    }
                }
            }
        }
        for number in self.state.queues.keys().copied().collect::<Vec<_>>() {
            self.unpark_when_below(number);
        }
        Ok((self.entries(), differing))
    }

    /// Deletes a queue by API: it is gone at once, its rows follow.
    pub(super) fn delete_queue(&mut self, queue: &QueueRef, force: bool) -> Sql<Result<Deleted, StoreError>> {
        self.effects.durable = true;
        let Some(number) = self.number_of(queue) else { return Ok(Err(StoreError::Gone)) };
        let known = self.queue(number);
        if known.entry.source == Source::File {
            return Ok(Ok(Deleted::DeclaredInFile));
        }
        let gauges = &known.tally.gauges;
        if !force && gauges.pending + gauges.scheduled + gauges.leased + gauges.dead > 0 {
            return Ok(Ok(Deleted::NotEmpty));
        }
        if let Some(gone) = self.state.queues.remove(&number) {
            for slot in gone.living.values().flat_map(|batch| &batch.slots) {
                if let Slot::Leased(held) = slot {
                    self.state.leased.remove(&held.seq);
                }
            }
        }
        self.state.names.remove(&queue.name);
        counts::remove(self.sql, number)?;
        self.sql.prepare_cached(DIG_GRAVE)?.execute([number])?;
        self.state.graves.insert(number);
        self.effects.deleted.push(queue.name.clone());
        self.dig()?;
        Ok(Ok(Deleted::Deleted))
    }
}
