//! The list of queues, as a gateway has it: read anew when something changed.

use std::collections::BTreeMap;

use redis::{Cmd, Value};

use crate::domain::queue::QueueName;
use crate::store::QueueEntry;
use crate::store::error::StoreError;
use crate::store::redis::answer::Answer;
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::{Effect, of_key};
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::listener::CHANGED;
use crate::store::redis::queues::Kept;
use crate::store::redis::script;
use crate::store::redis::state::lock;
use crate::store::redis::stats::read_park;

/// The queues as they were at a count of changes.
#[derive(Clone)]
pub(super) struct Listing {
    /// `None` where the key of the count is somebody else's.
    changes: Option<u64>,
    /// The epoch that had been found by then: the count begins anew in a Redis that was emptied.
    epoch: Option<Box<str>>,
    pub(super) entries: Vec<QueueEntry>,
}

impl Connection {
    /// Tells every gateway that the list of queues or one of its holds changed.
    pub(super) async fn touch(&self) {
        let mut touch = Call::of_store(&self.state, script::TOUCH);
        // A hint: who does not hear it finds the count changed when it looks.
        touch.push(&self.state.wake_channel).push(CHANGED);
        // Whoever sweeps the queue next sees the difference and tells.
        if let Err(error) = self.link.send(&touch.finish(), Effect::Reads).await {
            log::debug!("cause" = error.to_string().as_str(); "a change of a queue was not told");
        }
    }

    /// After a script that may have parked the queue.
    pub(super) async fn tell_parked(&self, parked: &[u8]) {
        if !parked.is_empty() {
            self.touch().await;
        }
    }

    /// All queues, by name: asked for only when something changed since the last time.
    pub(super) async fn listed(&self) -> Result<Vec<QueueEntry>, StoreError> {
        let changes = self.changes().await?;
        let epoch = lock(&self.state.vitals).found_epoch();
        let is_latest =
            |listing: &&Listing| changes.is_some() && listing.changes == changes && listing.epoch == epoch;
        if let Some(listing) = lock(&self.state.listing).as_ref().filter(is_latest) {
            return Ok(listing.entries.clone());
        }
        // An emptied or swapped Redis knows nothing of our queues: what was listed before stands.
        if let Err(error) = self.check_home().await {
            let listing = lock(&self.state.listing);
            let known = listing.as_ref().filter(|_| matches!(error, StoreError::NotDurable(_)));
            return known.map(|listing| listing.entries.clone()).ok_or(error);
        }
        let entries = self.list().await;
        if matches!(entries, Err(StoreError::Foreign(_))) {
            self.list_is_overwritten();
        }
        // Somebody overwrote the list: what is known stands until it is written anew.
        let is_lost = match &entries {
            Ok(_) => self.state.is_overwritten(Key::Queues),
            Err(error) => matches!(error, StoreError::Foreign(_)),
        };
        let known = lock(&self.state.listing).clone().filter(|_| is_lost);
        if let Some(known) = known {
            return Ok(known.entries);
        }
        let entries = entries?;
        *lock(&self.state.listing) = Some(Listing { changes, epoch, entries: entries.clone() });
        Ok(entries)
    }

    /// The count of changes; `None` where its key holds something else, so that nobody counts.
    async fn changes(&self) -> Result<Option<u64>, StoreError> {
        let mut command = Cmd::new();
        command.arg("GET").arg(self.state.names.of_store(Key::Changes));
        match self.link.send(&command, Effect::Asks).await {
            Ok(Value::BulkString(bytes)) => Ok(read_count(&bytes)),
            Ok(_) => Ok(Some(0)),
            Err(StoreError::Internal(words)) if words.contains("WRONGTYPE") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes into the list what is known here and is not in it: somebody overwrote it and it was removed. Each gateway does, for one
    /// may have heard of a queue that another had not.
    pub(super) async fn restore_list(&self) -> Result<(), StoreError> {
        let Some(known) = lock(&self.state.listing).clone() else { return Ok(()) };
        for entry in known.entries {
            let name = entry.name.clone();
            let written = Kept::of(entry).write()?;
            self.replace(&name, b"", &written).await?;
        }
        self.touch().await;
        Ok(())
    }

    /// Notes a queue that was made or changed, so that what is known stands should Redis be emptied before the next look.
    pub(super) fn note_listed(&self, entry: &QueueEntry) {
        if let Some(listing) = lock(&self.state.listing).as_mut() {
            match listing.entries.binary_search_by(|known| known.name.cmp(&entry.name)) {
                Ok(place) => listing.entries[place] = entry.clone(),
                Err(place) => listing.entries.insert(place, entry.clone()),
            }
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<QueueEntry>, StoreError> {
        let mut command = Cmd::new();
        let key = self.state.names.of_store(Key::Queues);
        command.arg("HGETALL").arg(&key);
        let answer = self.link.send(&command, Effect::Reads).await.map_err(|error| of_key(error, &key))?;
        let mut answer = Answer::of(answer)?;
        let mut all = Vec::with_capacity(answer.left() / 2);
        let mut unreadable = BTreeMap::new();
        while answer.left() > 0 {
            let (field, kept) = (answer.bytes()?, answer.bytes()?);
            let field = String::from_utf8_lossy(&field).into_owned();
            match (field.parse::<QueueName>(), Kept::read(&kept)) {
                (Ok(name), Ok(kept)) => all.push((name, kept)),
                (Ok(_), Err(why)) => _ = unreadable.insert(field, why),
                (Err(_), _) => _ = unreadable.insert(field, "that is no name of a queue".to_owned()),
            }
        }
        self.state.note_unreadable(unreadable);
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let holds = all.iter().map(|(name, _)| {
            let mut command = Cmd::new();
            let base = self.state.names.of_queue(name);
            command.arg("HMGET").arg(Names::in_queue(&base, Key::Counters)).arg(&["paused", "parked"]);
            command
        });
        let holds = self.link.send_each(holds.collect(), Effect::Reads).await?;
        let entries = all.into_iter().zip(holds).map(|((name, kept), held)| {
            // A queue whose counters are somebody else's key must not hide the others.
            let (paused, parked) = match held {
                Err(StoreError::Internal(_) | StoreError::Foreign(_)) => (false, None),
                held => {
                    let mut held = Answer::of(held?)?;
                    (!held.bytes()?.is_empty(), read_park(&held.bytes()?))
                }
            };
            Ok(kept.entry(name, paused, parked))
        });
        entries.collect()
    }
}

/// A count of changes; `None` for what is none.
pub(super) fn read_count(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
