//! The queues themselves: one hash holds their entries, each queue's own hash its generation, settings and holds.
//!
//! The entry is the authority on which making of a queue there is; the queue's hash follows it, also when the gateway that
//! made it died in between: whoever puts or declares the queue next makes it whole. A number that counts every change
//! tells a gateway whether its list is the latest.
//!
//! Who changes an entry and who deletes the queue may come at once. The script that adopts an entry is told what the queue's hash
//! was when the entry was written, and adopts nothing when it is another: a queue that was deleted meanwhile is made anew,
//! with another generation, and one that was made anew meanwhile is not swept away by a gateway that stood still.
//!
//! An entry that cannot be read, because a newer version or somebody else wrote it, takes only its own queue out: it is not served,
//! not changed and not deleted, and its work stays in the due index for those who can read it.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Value};
use serde::{Deserialize, Serialize};

use crate::domain::queue::{Generation, ParkReason, QueueName, QueueSettings, Source};
use crate::store::error::StoreError;
use crate::store::health::FOREIGN_TYPE;
use crate::store::redis::answer::{Answer, read_count};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::{Effect, of_key};
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::stats::read_park;
use crate::store::redis::{pack, script, url};
use crate::store::{Changed, Deleted, Hold, Put, QueueEntry, QueueRef};

/// Times that a change is tried anew because somebody else's came first.
const TRIES_MAX: usize = 20;

/// An entry at rest. What a later version adds must not be lost when this one writes it: it is refused.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    generation: Generation,
    source: Source,
    pub(super) settings: Arc<QueueSettings>,
}

impl Kept {
    /// Reads an entry; an error says why it cannot be, without what it holds.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let all = |error: serde_json::Error| {
            let words = error.to_string();
            // Every setting that this version knows follows.
            words.split(", expected").next().unwrap_or_default().to_owned()
        };
        serde_json::from_slice(bytes).map_err(all)
    }

    /// Whether a file declares it.
    pub(super) const fn is_declared(&self) -> bool {
        matches!(self.source, Source::File)
    }

    pub(super) fn write(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::Internal(error.to_string()))
    }

    pub(super) fn of(entry: QueueEntry) -> Self {
        let QueueEntry { generation, source, settings, .. } = entry;
        Self { generation, source, settings }
    }

    pub(super) fn entry(self, name: QueueName, paused: bool, parked: Option<ParkReason>) -> QueueEntry {
        let Self { generation, source, settings } = self;
        QueueEntry { name, generation, source, settings, paused, parked }
    }
}

/// The word that a queue's hash has for it.
fn word_of(reason: ParkReason) -> String {
    let word = serde_json::to_value(reason).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Connection {
    /// One entry as it is at rest, and read.
    pub(super) async fn kept(&self, name: &QueueName) -> Result<(Vec<u8>, Option<Kept>), StoreError> {
        let mut command = Cmd::new();
        let key = self.state.names.of_store(Key::Queues);
        command.arg("HGET").arg(&key).arg(name.as_str());
        match self.link.send(&command, Effect::Reads).await.map_err(|error| of_key(error, &key))? {
            Value::BulkString(bytes) => {
                let kept = Kept::read(&bytes)
                    .map_err(|why| StoreError::Newer(self.state.unreadable_entry(name.as_str(), &why)))?;
                Ok((bytes, Some(kept)))
            }
            _ => Ok((Vec::new(), None)),
        }
    }

    /// Replaces an entry if it still is what it was; false when somebody was first.
    pub(super) async fn replace(&self, name: &QueueName, was: &[u8], is: &[u8]) -> Result<bool, StoreError> {
        let mut call = Call::of_store(&self.state, script::REGISTRY);
        call.push(name.as_str()).push(was).push(is);
        let mut answer = Answer::of(self.link.send(&call.finish(), Effect::Writes).await?)?;
        Ok(&*answer.bytes()? == b"ok")
    }

    /// The generation that the queue's own hash has; `None` when there is no such hash.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] when what stands there is no generation: the queue may hold messages, so it is left as it is.
    async fn adopted(&self, name: &QueueName) -> Result<Option<Generation>, StoreError> {
        let mut command = Cmd::new();
        let key = Names::in_queue(&self.state.names.of_queue(name), Key::Counters);
        command.arg("HGET").arg(&key).arg("gen");
        let Value::BulkString(bytes) = self.link.send(&command, Effect::Reads).await? else {
            return Ok(None);
        };
        let generation = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        generation.map(|generation| Some(Generation(generation))).ok_or_else(|| {
            StoreError::Foreign(format!("the field gen of the key {key} is no generation of a queue"))
        })
    }

    /// Notes why nothing can be done with a queue that is listed, and whose hash is of another generation although it holds messages.
    pub(super) async fn note_generation(&self, name: &QueueName) -> Result<(), StoreError> {
        let key = Names::in_queue(&self.state.names.of_queue(name), Key::Counters);
        let (is, held) = self.held(name).await?;
        let (_, kept) = self.kept(name).await?;
        let Some(kept) = kept.filter(|kept| kept.generation.0.to_string().as_bytes() != &*is) else {
            return Ok(());
        };
        if is.is_empty() {
            return self.revive(name, &kept).await.map(drop);
        }
        if held == 0 {
            return Ok(());
        }
        let (is, generation) = (String::from_utf8_lossy(&is).into_owned(), kept.generation.0);
        let client = url::client(&self.state.settings.url, true);
        let detail = format!(
            "the field gen of the key {key} is {is:?}, and its entry says {generation}: it holds {held} messages, which are left as \
             they are; if they are those of the queue, {client} HSET {key} gen {generation}, and it goes on"
        );
        self.state.troubled(name, Some((FOREIGN_TYPE, detail)));
        Ok(())
    }

    /// What the queue's own hash has for its generation, and how many messages it counts.
    async fn held(&self, name: &QueueName) -> Result<(Vec<u8>, u64), StoreError> {
        let key = Names::in_queue(&self.state.names.of_queue(name), Key::Counters);
        let mut command = Cmd::new();
        command.arg("HMGET").arg(&key).arg(&["gen", "pending", "scheduled", "leased", "dead"]);
        let mut fields = Answer::of(self.link.send(&command, Effect::Reads).await?)?;
        let generation = fields.bytes()?.to_vec();
        let mut held = 0;
        while fields.left() > 0 {
            // What is no number may stand for many.
            held += read_count(&fields.bytes()?).unwrap_or(1);
        }
        Ok((generation, held))
    }

    /// Gives the queue's own hash the generation and the settings of its entry.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the hash has neither this generation nor the one that it is expected to have;
    /// [`StoreError::Foreign`] when it has another and holds messages: whose they are, an operator decides.
    pub(super) async fn adopt(
        &self,
        name: &QueueName,
        kept: &Kept,
        was: Option<&Kept>,
        expected: Option<Generation>,
    ) -> Result<QueueEntry, StoreError> {
        let mut call = Call::of_name(&self.state, script::ADOPT, name, None);
        let batches = Names::batches(&call.base);
        call.push(kept.generation.0).push(pack::settings(&kept.settings));
        call.push(u8::from(kept.settings.lookup)).push(batches);
        call.push(&self.state.wake_channel).push(name.as_str());
        call.push(expected.map_or_else(String::new, |generation| generation.0.to_string()));
        let adopted = self.link.send(&call.finish(), Effect::Writes).await;
        if let Err(StoreError::Foreign(detail)) = &adopted {
            self.state.troubled(name, Some((FOREIGN_TYPE, detail.clone())));
        }
        let mut answer = Answer::ok(adopted?)?;
        let (paused, parked) = (answer.yes()?, read_park(&answer.bytes()?));
        let woken = answer.yes()?;
        self.tell(name, woken, None);
        // Other limits may give a sweep something to do; a queue that is new, or the same as before, does not.
        let is_changed = was.is_some_and(|was| was.settings != kept.settings);
        self.mark_work(name, woken || is_changed, None).await;
        Ok(kept.clone().entry(name.clone(), paused, parked))
    }

    /// Makes a queue, or gives it other settings, when `change` says so; gives what there was, unless this call made it.
    async fn change(
        &self,
        name: &QueueName,
        change: impl Fn(Option<&Kept>) -> Option<Kept>,
    ) -> Result<(Option<Kept>, Option<QueueEntry>), StoreError> {
        let mut made = None;
        for _ in 0..TRIES_MAX {
            let adopted = self.adopted(name).await?;
            let (bytes, was) = self.kept(name).await?;
            let Some(mut kept) = change(was.as_ref()) else { return Ok((was, None)) };
            if was.is_none()
                && let Some(adopted) = adopted
                && self.held(name).await?.1 > 0
            {
                // Its entry was lost, and no deletion leaves messages behind: they are its own.
                kept.generation = adopted;
            }
            if was.is_some() {
                // Without its hash the entry is left of a deletion or a making that was interrupted: nothing of it counts. With
                // another in it, its entry was taken for such a one while it was finished: it may hold messages, and goes on.
                kept.generation = adopted.unwrap_or_else(|| Generation(fastrand::u64(1..)));
            }
            let written = kept.write()?;
            if !self.replace(name, &bytes, &written).await? {
                continue;
            }
            let entry = match self.adopt(name, &kept, was.as_ref(), adopted).await {
                Err(StoreError::Gone) => continue,
                entry => entry?,
            };
            let is_new = adopted != Some(kept.generation);
            if is_new {
                made = Some(kept.generation);
            }
            let was = was.filter(|_| made != Some(kept.generation));
            match self.adopt_newest(name, kept, written, entry).await? {
                (entry, true) => return Ok((was, Some(entry))),
                // A deletion that found an entry without its hash leaves a hash without its entry.
                (entry, false) if !is_new => return Ok((was, Some(entry))),
                _ => {}
            }
        }
        Err(StoreError::Unavailable(format!("queue {name} is changed by others all the time")))
    }

    /// Somebody else's change may have come after ours and been adopted before it: the last one is to stand. Gives the queue, and
    /// whether it is still of this making.
    async fn adopt_newest(
        &self,
        name: &QueueName,
        mut kept: Kept,
        mut written: Vec<u8>,
        mut entry: QueueEntry,
    ) -> Result<(QueueEntry, bool), StoreError> {
        for _ in 0..TRIES_MAX {
            let (bytes, newest) = self.kept(name).await?;
            if bytes == written {
                break;
            }
            let Some(newest) = newest.filter(|newest| newest.generation == kept.generation) else {
                return Ok((entry, false));
            };
            entry = match self.adopt(name, &newest, Some(&kept), Some(kept.generation)).await {
                Err(StoreError::Gone) => return Ok((entry, false)),
                entry => entry?,
            };
            (kept, written) = (newest, bytes);
        }
        Ok((entry, true))
    }

    pub(super) async fn put(&self, name: QueueName, settings: Arc<QueueSettings>) -> Result<Put, StoreError> {
        self.state.check_open()?;
        self.check_home().await?;
        let made = Generation(fastrand::u64(1..));
        let (was, entry) = self
            .change(&name, |was| match was {
                Some(kept) if kept.source == Source::File => None,
                Some(kept) => {
                    let settings = Arc::clone(&settings).keeping_secret_of(&kept.settings);
                    Some(Kept { settings, ..kept.clone() })
                }
                None => Some(Kept { generation: made, source: Source::Api, settings: Arc::clone(&settings) }),
            })
            .await?;
        let Some(entry) = entry else { return Ok(Put::DeclaredInFile) };
        self.note_listed(&entry);
        self.touch().await;
        Ok(if was.is_some() { Put::Updated(entry) } else { Put::Created(entry) })
    }

    pub(super) async fn change_settings(
        &self,
        queue: QueueRef,
        was: Arc<QueueSettings>,
        settings: Arc<QueueSettings>,
    ) -> Result<Changed, StoreError> {
        self.state.check_open()?;
        self.check_home().await?;
        let (found, entry) = self
            .change(&queue.name, |kept| {
                let kept = kept.filter(|kept| {
                    kept.generation == queue.generation && kept.source == Source::Api && kept.settings == was
                })?;
                Some(Kept { settings: Arc::clone(&settings), ..kept.clone() })
            })
            .await?;
        if let Some(entry) = entry {
            self.touch().await;
            return Ok(Changed::Changed(entry));
        }
        let found = found.filter(|kept| kept.generation == queue.generation).ok_or(StoreError::Gone)?;
        Ok(if found.source == Source::File {
            Changed::DeclaredInFile
        } else {
            Changed::Otherwise(found.settings)
        })
    }

    pub(super) async fn declare_all(
        &self,
        queues: Vec<(QueueName, Arc<QueueSettings>)>,
    ) -> Result<(Vec<QueueEntry>, Vec<QueueEntry>), StoreError> {
        self.state.check_open()?;
        let mut differing = Vec::new();
        let before = self.list().await?;
        let declared: HashMap<_, _> = queues.iter().map(|(name, settings)| (name, settings)).collect();
        for entry in &before {
            if entry.source == Source::File && !declared.contains_key(&entry.name) {
                let let_go =
                    |was: Option<&Kept>| was.map(|kept| Kept { source: Source::Api, ..kept.clone() });
                self.change(&entry.name, let_go).await?;
            }
        }
        for (name, settings) in &queues {
            let made = Generation(fastrand::u64(1..));
            let declared = self
                .change(name, |was| {
                    let generation = was.map_or(made, |kept| kept.generation);
                    Some(Kept { generation, source: Source::File, settings: Arc::clone(settings) })
                })
                .await;
            let (was, _) = match declared {
                // That one is left as it is; the others are served.
                Err(StoreError::Newer(_) | StoreError::Foreign(_)) => continue,
                declared => declared?,
            };
            if let Some(was) = was.filter(|was| was.settings != *settings) {
                let held = before.iter().find(|entry| entry.name == *name);
                let (paused, parked) = held.map_or((false, None), |entry| (entry.paused, entry.parked));
                differing.push(was.entry(name.clone(), paused, parked));
            }
        }
        self.touch().await;
        differing.sort_unstable_by(|one: &QueueEntry, other| one.name.cmp(&other.name));
        Ok((self.listed().await?, differing))
    }

    pub(super) async fn delete(&self, queue: QueueRef, force: bool) -> Result<Deleted, StoreError> {
        self.state.check_open()?;
        self.check_home().await?;
        // Of several who delete it at once one did, as the entry has it: whoever takes that away.
        let mut is_wiped = false;
        for _ in 0..TRIES_MAX {
            let (bytes, kept) = self.kept(&queue.name).await?;
            let is_anew = kept.as_ref().is_some_and(|kept| kept.generation != queue.generation);
            let Some(kept) = kept.filter(|_| !is_anew) else {
                // Whoever changed the entry meanwhile made the queue anew, or deleted it as well.
                return if is_wiped && is_anew { Ok(Deleted::Deleted) } else { Err(StoreError::Gone) };
            };
            if kept.source == Source::File {
                return Ok(Deleted::DeclaredInFile);
            }
            let mut call = Call::of_queue(&self.state, script::DELETE, &queue, None);
            let batches = Names::batches(&call.base);
            call.push(u8::from(force)).push(batches);
            match Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?) {
                // A deletion before this one got no further than that: its entry is what is left.
                Err(StoreError::Gone) => {}
                answer => {
                    if !answer?.yes()? {
                        return Ok(Deleted::NotEmpty);
                    }
                    is_wiped = true;
                }
            }
            if self.replace(&queue.name, &bytes, b"").await? {
                self.touch().await;
                return Ok(Deleted::Deleted);
            }
        }
        Err(StoreError::Unavailable(format!("queue {} is changed by others all the time", queue.name)))
    }

    pub(super) async fn hold_queue(&self, queue: QueueRef, hold: Hold) -> Result<QueueEntry, StoreError> {
        self.state.check_open()?;
        self.check_home().await?;
        let mut call = Call::of_queue(&self.state, script::HOLD, &queue, None);
        match hold {
            Hold::Pause => call.push("pause"),
            Hold::Resume => call.push("resume"),
            Hold::Park(reason) => call.push("park").push(word_of(reason)),
            Hold::Gone(destination) => {
                call.push("gone").push(word_of(ParkReason::DestinationGone)).push(destination.as_str())
            }
            Hold::Unpark(reason) => call.push("unpark").push(word_of(reason)),
        };
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let woken = answer.yes()?;
        let (paused, parked) = (answer.yes()?, read_park(&answer.bytes()?));
        self.tell(&queue.name, woken, None);
        // A sweep looks whether what it parked for has passed already.
        self.mark_work(&queue.name, woken || parked.is_some(), None).await;
        self.touch().await;
        let (_, kept) = self.kept(&queue.name).await?;
        let kept = kept.filter(|kept| kept.generation == queue.generation).ok_or(StoreError::Gone)?;
        Ok(kept.entry(queue.name, paused, parked))
    }
}
