//! The keys that all queues share, looked at now and then: what somebody else made of one is told, and once it is removed, what it
//! held is made anew: the index of what is due from the list of queues, the list from what this gateway knows of it.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, Value};

use crate::store::error::StoreError;
use crate::store::redis::answer::unexpected;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::Key;
use crate::store::redis::listing::read_count;
use crate::store::redis::probe::is_epoch;
use crate::store::redis::state::lock;
use crate::store::redis::url;

/// How often they are looked at, unless something was found.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What scripts use of them, and what it is for.
const KEYS: [(Key, &str); 5] = [
    (Key::Due, "nothing is done that time brings"),
    (Key::DueClock, "nothing is done that time brings"),
    (Key::Changes, "every look at the queues reads all of them"),
    (Key::Queues, "no queue can be made, changed or deleted"),
    (Key::Instances, "no gateway says that it lives"),
];
/// Marks of the index that travel together.
const MARKS_AT_ONCE: usize = 1_000;

impl Connection {
    /// Looks at the keys that all queues share when it is time to, or something was wrong with one.
    pub(super) async fn look_at_shared(&self) -> Result<(), StoreError> {
        let is_recent = |seen: std::time::Instant| seen.elapsed() < LOOK_EVERY;
        if self.rounds.borrow().shared_seen.is_some_and(is_recent) && lock(&self.state.shared).is_empty() {
            return Ok(());
        }
        let now = self.foreign_shared().await?;
        let before: Vec<String> = lock(&self.state.shared).keys().cloned().collect();
        for key in before.iter().filter(|key| !now.contains_key(*key)) {
            self.make_anew(key).await?;
        }
        self.state.note_shared(now);
        self.rounds.borrow_mut().shared_seen = Some(std::time::Instant::now());
        Ok(())
    }

    /// Which of them are somebody else's, and what is said of each.
    async fn foreign_shared(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let names = &self.state.names;
        let ask = |word: &str, key: &str| {
            let mut command = Cmd::new();
            command.arg(word).arg(key);
            command
        };
        let (changes, epoch) = (names.of_store(Key::Changes), names.plain("epoch"));
        let mut commands: Vec<_> = KEYS.iter().map(|(key, _)| ask("TYPE", &names.of_store(*key))).collect();
        commands.push(ask("GET", &changes));
        commands.push(ask("GET", &epoch));
        let mut answers = self.link.send_each(commands, Effect::Asks).await?.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Err(unexpected()));
        let mut found = BTreeMap::new();
        for (key, effect) in KEYS {
            let name = names.of_store(key);
            let Value::SimpleString(is) = next()? else { return Err(unexpected()) };
            if is != "none" && is != key.kind() {
                let what = format!("holds a {is} instead of a {}", key.kind());
                found.insert(name.clone(), self.about(&name, &what, effect));
            }
        }
        if let Ok(Value::BulkString(bytes)) = next()
            && read_count(&bytes).is_none()
        {
            let about = self.about(&changes, "holds no number", KEYS[2].1);
            found.insert(changes, about);
        }
        let is_ours = match next() {
            Ok(Value::BulkString(bytes)) => is_epoch(&bytes),
            answer => answer.is_ok(),
        };
        if !is_ours && let Some(own) = lock(&self.state.vitals).own_epoch() {
            let client = url::client(&self.state.settings.url, true);
            let detail = format!(
                "the key {epoch} holds something of somebody else: publishes are refused. Put back what was there, and all goes on: \
                 {client} SET {epoch} {own}"
            );
            found.insert(epoch, detail);
        }
        Ok(found)
    }

    /// Notes that the list of queues was found to be somebody else's.
    pub(super) fn list_is_overwritten(&self) {
        if !self.state.is_overwritten(Key::Queues) {
            let key = self.state.names.of_store(Key::Queues);
            let mut now = lock(&self.state.shared).clone();
            now.insert(key.clone(), self.about(&key, "holds no list of queues", KEYS[3].1));
            self.state.note_shared(now);
        }
    }

    fn about(&self, key: &str, what: &str, effect: &str) -> String {
        let client = url::client(&self.state.settings.url, true);
        format!(
            "the key {key} {what}: {effect}. Remove it, and what it held is made anew: {client} DEL {key:?}"
        )
    }

    /// Makes anew what a key held that was somebody else's and is so no more. What was put back is left as it is.
    async fn make_anew(&self, key: &str) -> Result<(), StoreError> {
        let is = |of: Key| key == self.state.names.of_store(of);
        if is(Key::Queues) {
            self.restore_list().await?;
        } else if is(Key::Changes) {
            self.touch().await;
        } else if is(Key::Due) {
            for entries in self.listed().await?.chunks(MARKS_AT_ONCE) {
                let mark = self.mark_due(entries.iter().map(|entry| &entry.name));
                self.link.send(&mark, Effect::Reads).await?;
            }
        }
        Ok(())
    }
}
