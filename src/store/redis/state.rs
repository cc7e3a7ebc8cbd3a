//! What all connections of one store share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Client;

use crate::clock::Clock;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::health::{FOREIGN_TYPE, Warning};
use crate::store::redis::calls::Calls;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::listing::Listing;
use crate::store::redis::probe::{Refused, Tails, Vitals};
use crate::store::redis::repair::Mended;
use crate::store::redis::url;
use crate::store::settings::StoreSettings;
use crate::store::wake::WakeBoard;

/// Entries that cannot be read, and queues that lost messages, that `/status` names.
const UNREADABLE_SHOWN_MAX: usize = 10;
/// How long no sweep may succeed before that is said.
const UNSWEPT_MAX: Duration = Duration::from_secs(3);

/// Shared by every connection.
pub(super) struct State {
    /// What it is called as long as nobody has looked.
    pub(super) id: Arc<str>,
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) settings: StoreSettings,
    pub(super) clock: Clock,
    pub(super) wakes: WakeBoard,
    /// Where scripts say that a queue has work.
    pub(super) wake_channel: String,
    /// What the last look at Redis found.
    pub(super) vitals: Mutex<Vitals>,
    /// Whose append-only file was found whole.
    pub(super) tails: Arc<Tails>,
    /// Whether Redis refuses to write.
    pub(super) refused: Arc<Refused>,
    /// The queues as they were listed last.
    pub(super) listing: Mutex<Option<Listing>>,
    /// Queues whose next message is of a newer version, and what was said of it.
    pub(super) newer: Mutex<HashMap<QueueName, String>>,
    /// Entries of the list of queues that cannot be read, and why.
    unreadable: Mutex<BTreeMap<String, String>>,
    /// Why nothing is heard of other gateways.
    unheard: Mutex<Option<String>>,
    /// Queues that the sweeps found in trouble: which, and what was said of it.
    pub(super) troubles: Mutex<HashMap<QueueName, (&'static str, String)>>,
    /// Calls of unknown fate, and the server's clock.
    pub(super) calls: Mutex<Calls>,
    /// Queues of which leases that ran out are kept for a while, and until when.
    pub(super) recovering: Mutex<HashMap<QueueName, Timestamp>>,
    /// What the repairs of queues found to be gone.
    mended: Mutex<BTreeMap<QueueName, Mended>>,
    /// Keys that all queues share and somebody else overwrote, and what is said of each.
    pub(super) shared: Mutex<BTreeMap<String, String>>,
    /// Since when no sweep succeeds, and why.
    unswept: Mutex<Option<(Instant, StoreError)>>,
    /// Who looks through the messages that ended: one at a time, so that it disturbs nobody else.
    pub(super) history: tokio::sync::Mutex<()>,
    /// The name under which this gateway was announced.
    pub(super) announced: Mutex<Option<Arc<str>>>,
    /// Connections that were given up, of all links: whoever holds one that says nothing of itself learns that it may be dead.
    pub(super) broken: Arc<AtomicU64>,
    /// Times that the server at the other end was found to be no master any more, or the address to lead elsewhere: what was
    /// connected before leads there.
    pub(super) moves: Arc<AtomicU64>,
    /// Connections that were begun, of all links.
    pub(super) begun: Arc<AtomicU64>,
    /// The next moment that the last sweep, or a call since, named.
    next_at: Mutex<Option<Timestamp>>,
    is_closed: AtomicBool,
}

impl State {
    pub(super) fn new(settings: &StoreSettings, client: Client, clock: &Clock) -> Self {
        let names = Names::new(&settings.prefix);
        let wake_channel = names.plain("wake");
        Self {
            id: format!("{:016x}", fastrand::u64(..)).into(),
            client,
            names,
            settings: settings.clone(),
            clock: clock.clone(),
            wakes: WakeBoard::default(),
            wake_channel,
            vitals: Mutex::default(),
            tails: Arc::default(),
            refused: Arc::default(),
            listing: Mutex::default(),
            newer: Mutex::default(),
            unreadable: Mutex::default(),
            unheard: Mutex::default(),
            troubles: Mutex::default(),
            calls: Mutex::default(),
            recovering: Mutex::default(),
            mended: Mutex::default(),
            shared: Mutex::default(),
            unswept: Mutex::default(),
            history: tokio::sync::Mutex::default(),
            announced: Mutex::default(),
            broken: Arc::default(),
            moves: Arc::default(),
            begun: Arc::default(),
            next_at: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The time to tell scripts, milliseconds: 0 lets them ask the server, whose clock is the one that all gateways share.
    pub(super) fn time_ms(&self) -> u64 {
        if self.clock.is_manual() { self.clock.now().as_millis() } else { 0 }
    }

    /// Posts that something becomes due, when that is sooner than what is known.
    pub(super) fn post_time(&self, at: Timestamp) {
        let mut next_at = lock(&self.next_at);
        if next_at.is_none_or(|known| at < known) {
            *next_at = Some(at);
            drop(next_at);
            self.wakes.post_time();
        }
    }

    /// What a sweep found to be wrong with a queue; `None` when all is well. Said once in the log.
    pub(super) fn troubled(&self, queue: &QueueName, trouble: Option<(&'static str, String)>) {
        let mut troubles = lock(&self.troubles);
        if troubles.get(queue) == trouble.as_ref() {
            return;
        }
        let name = queue.as_str();
        let Some((code, detail)) = trouble else {
            log::info!("queue.name" = name; "the keys of a queue are sound again");
            troubles.remove(queue);
            return;
        };
        log::error!("queue.name" = name, "code" = code, "cause" = detail.as_str(); "something is wrong with the keys of a queue");
        troubles.insert(queue.clone(), (code, detail));
    }

    /// Notes what a repair found to be gone.
    pub(super) fn mended(&self, queue: &QueueName, now: Mended) {
        if now == Mended::default() {
            return;
        }
        let mut known = lock(&self.mended);
        let sum = known.entry(queue.clone()).or_default();
        sum.gone += now.gone;
        sum.letters_gone += now.letters_gone;
    }

    /// Notes until when leases of a queue are kept that ran out while Redis was away; `None`: there are none.
    pub(super) fn note_recovering(&self, queue: &QueueName, until: Option<Timestamp>) {
        let mut recovering = lock(&self.recovering);
        match until {
            Some(until) => recovering.insert(queue.clone(), until),
            None => recovering.remove(queue),
        };
    }

    /// The same, as the last sweep found it, while it is to come.
    pub(super) fn recovering_until(&self, queue: &QueueName) -> Option<Timestamp> {
        lock(&self.recovering).get(queue).copied().filter(|until| *until > self.clock.now())
    }

    /// What a sweep found to be next.
    pub(super) fn is_next(&self, at: Option<Timestamp>) {
        *lock(&self.next_at) = at;
    }

    /// Notes which entries of the list of queues cannot be read; says so once of each.
    pub(super) fn note_unreadable(&self, now: BTreeMap<String, String>) {
        let mut known = lock(&self.unreadable);
        for (name, why) in now.iter().filter(|(name, why)| known.get(*name) != Some(*why)) {
            let detail = self.unreadable_entry(name, why);
            log::warn!("queue.name" = name.as_str(), "cause" = detail.as_str(); "a queue is not served");
        }
        *known = now;
    }

    /// Notes which of the keys that all queues share are somebody else's; says so when that changes.
    pub(super) fn note_shared(&self, now: BTreeMap<String, String>) {
        let mut known = lock(&self.shared);
        for (key, detail) in now.iter().filter(|(key, _)| !known.contains_key(*key)) {
            log::error!("key" = key.as_str(), "cause" = detail.as_str(); "a key that all queues share is somebody else's");
        }
        for key in known.keys().filter(|key| !now.contains_key(*key)) {
            log::info!("key" = key.as_str(); "a key that all queues share is sound again");
        }
        *known = now;
    }

    /// Whether a key that all queues share was found to be somebody else's, and was not made anew since.
    pub(super) fn is_overwritten(&self, key: Key) -> bool {
        lock(&self.shared).contains_key(&self.names.of_store(key))
    }

    /// Notes that a sweep succeeded, or why it did not.
    pub(super) fn note_unswept(&self, why: Option<StoreError>) {
        let mut known = lock(&self.unswept);
        let since = known.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *known = why.map(|why| (since, why));
    }

    /// Notes that Redis is away: that it was not swept meanwhile is no news.
    pub(super) fn is_away(&self) {
        let by_being_away = |(_, why): &mut (Instant, StoreError)| {
            matches!(why, StoreError::Unavailable(_) | StoreError::Timeout(_))
        };
        lock(&self.unswept).take_if(by_being_away);
    }

    /// Why nothing is done that time brings, when that is so for some seconds.
    pub(super) fn unswept(&self) -> Option<String> {
        let known = lock(&self.unswept);
        let (_, why) = known.as_ref().filter(|(since, _)| since.elapsed() >= UNSWEPT_MAX)?;
        let why = match why {
            StoreError::Foreign(why) | StoreError::Internal(why) => why.clone(),
            other => other.to_string(),
        };
        Some(format!("no message is promoted, retried, taken back or expired: {why}"))
    }

    /// Notes that wake-ups of other gateways are heard, or why they are not; says so when it changes.
    pub(super) fn note_unheard(&self, now: Option<String>) {
        let mut known = lock(&self.unheard);
        match &now {
            Some(why) if known.as_ref() != Some(why) => {
                let channel = self.wake_channel.as_str();
                log::warn!("channel" = channel, "cause" = why.as_str(); "nothing is heard of other gateways: their messages wait for the next sweep");
            }
            None if known.is_some() => log::info!("other gateways are heard again"),
            _ => {}
        }
        *known = now;
    }

    /// Why the queue of this name is not served although it is listed; `None` when it is not among those.
    pub(super) fn why_unreadable(&self, name: &str) -> Option<String> {
        lock(&self.unreadable).get(name).map(|why| self.unreadable_entry(name, why))
    }

    /// What an operator is to know of those, and of what is not heard.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let known = lock(&self.unreadable);
        let detail = |(name, why): (&String, &String)| self.unreadable_entry(name, why);
        let all = known.iter().take(UNREADABLE_SHOWN_MAX).map(detail);
        let mut warnings: Vec<_> = all.map(|detail| Warning { code: "queue_unreadable", detail }).collect();
        drop(known);
        warnings.extend(lock(&self.mended).iter().take(UNREADABLE_SHOWN_MAX).map(|(name, mended)| {
            let Mended { gone, letters_gone } = mended;
            let detail = format!(
                "queue {name}: {gone} messages and {letters_gone} dead letters are gone with keys that somebody overwrote or removed; \
                 they count as purged and discarded"
            );
            Warning { code: "messages_gone", detail }
        }));
        let shared = lock(&self.shared);
        warnings.extend(shared.values().map(|detail| Warning { code: FOREIGN_TYPE, detail: detail.clone() }));
        drop(shared);
        warnings.extend(lock(&self.unheard).iter().map(|why| {
            let channel = &self.wake_channel;
            let detail = format!(
                "Redis does not let the user of store.url listen to {channel} (+subscribe +unsubscribe &{channel}): messages of other \
                 gateways wait for the next sweep ({why})"
            );
            Warning { code: "wakes_unheard", detail }
        }));
        let client = url::client(&self.settings.url, false);
        warnings.extend(self.tails.warning().map(|warning| {
            let detail = url::addressed(&warning.detail, &client);
            Warning { detail, ..warning }
        }));
        warnings
    }

    /// What is said of an entry that cannot be read.
    pub(super) fn unreadable_entry(&self, name: &str, why: &str) -> String {
        let (list, client) = (self.names.of_store(Key::Queues), url::client(&self.settings.url, true));
        format!(
            "the entry {name:?} of {list} cannot be read ({why}): a newer version or somebody else wrote it. It is left as it is: \
             run the newer version, or remove it with {client} HDEL {list} {name:?}"
        )
    }

    /// Refuses what comes after the store was closed.
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

/// Locks what no panic can leave half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
