//! What can be seen of the store without asking its writer: stats and health, as of the last commit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::queue::QueueName;
use crate::store::health::{Durability, StoreHealth, Warning};
use crate::store::settings::RequiredDurability;
use crate::store::stats::QueueStats;

/// The last commit's view. Every read is one lock held for a copy.
pub(super) struct Vitals {
    durability: RequiredDurability,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    stats: BTreeMap<QueueName, QueueStats>,
    newer: BTreeMap<QueueName, String>,
    away: Option<String>,
    latency: Option<Duration>,
    full: Option<String>,
    warnings: BTreeMap<&'static str, String>,
}

impl Vitals {
    /// Of a store whose 202 is to mean this.
    pub(super) fn new(durability: RequiredDurability) -> Self {
        Self { durability, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what a commit changed.
    pub(super) fn publish(&self, stats: Vec<QueueStats>, deleted: &[QueueName]) {
        let mut seen = self.lock();
        for name in deleted {
            seen.stats.remove(name);
            seen.newer.remove(name);
        }
        for queue in stats {
            match seen.stats.get_mut(&queue.name) {
                Some(shown) => *shown = queue,
                None => {
                    seen.stats.insert(queue.name.clone(), queue);
                }
            }
        }
    }

    /// Shows every queue anew.
    pub(super) fn republish(&self, stats: Vec<QueueStats>) {
        self.lock().stats = stats.into_iter().map(|queue| (queue.name.clone(), queue)).collect();
    }

    /// Shows whether a queue holds what a newer version wrote.
    pub(super) fn newer(&self, name: &QueueName, detail: Option<&String>) {
        let mut seen = self.lock();
        match detail {
            Some(detail) => drop(seen.newer.insert(name.clone(), detail.clone())),
            None => drop(seen.newer.remove(name)),
        }
    }

    /// Shows how long the last durable write took.
    pub(super) fn took(&self, latency: Duration) {
        self.lock().latency = Some(latency);
    }

    /// Shows why the file cannot be used; none when it can.
    pub(super) fn away(&self, why: Option<String>) {
        self.lock().away = why;
    }

    /// Shows why nothing new is taken; none when it is.
    pub(super) fn full(&self, why: Option<&str>) {
        let mut seen = self.lock();
        if seen.full.as_deref() != why {
            seen.full = why.map(str::to_owned);
        }
    }

    /// Shows a warning, or takes it back.
    pub(super) fn warn(&self, code: &'static str, detail: Option<String>) {
        let mut seen = self.lock();
        match detail {
            Some(detail) => drop(seen.warnings.insert(code, detail)),
            None => drop(seen.warnings.remove(code)),
        }
    }

    /// Stats of all queues, or of those named that exist, by name.
    pub(super) fn stats(&self, names: Option<&[QueueName]>) -> Vec<QueueStats> {
        let seen = self.lock();
        let wanted = |queue: &&QueueStats| names.is_none_or(|names| names.contains(&queue.name));
        seen.stats.values().filter(wanted).cloned().collect()
    }

    /// Health as of now; `astray` says why what is written will not be found again.
    pub(super) fn health(&self, is_closed: bool, astray: Option<String>) -> StoreHealth {
        let seen = self.lock();
        let away = if is_closed { Some("the store is closed".to_owned()) } else { seen.away.clone() };
        let mut reasons = match self.durability {
            RequiredDurability::Strict => Vec::new(),
            RequiredDurability::Relaxed | RequiredDurability::None => {
                vec!["store.durability is relaxed: SQLite flushes at checkpoints, a power loss may undo the last moments".to_owned()]
            }
        };
        let durability = match &astray {
            _ if away.is_some() => Durability::Unknown,
            Some(_) => Durability::None,
            None => self.durability.into(),
        };
        reasons.extend(astray);
        let mut warnings: Vec<_> =
            seen.warnings.iter().map(|(code, detail)| Warning { code, detail: detail.clone() }).collect();
        warnings.extend(away.iter().map(|why| Warning { code: "store_away", detail: why.clone() }));
        StoreHealth {
            reachable: away.is_none(),
            latency: seen.latency,
            durability,
            durability_reasons: reasons,
            full: seen.full.clone(),
            newer: seen.newer.values().next().cloned(),
            unswept: None,
            warnings,
            troubles: Vec::new(),
        }
    }
}
