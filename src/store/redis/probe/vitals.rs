//! What the looks at Redis found: shared by every connection, each of which may bring something newer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::queue::{Generation, QueueName};
use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth, Warning};
use crate::store::redis::probe::epoch::{Epoch, FORMAT};
use crate::store::redis::probe::judge::{Flaw, Judgement, judge};
use crate::store::redis::probe::room::Room;
use crate::store::redis::probe::seen::{Aof, Seen};
use crate::store::settings::StoreSettings;
use crate::store::stats::QueueStats;

/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The same while it is unfit, so that a cure is seen soon.
const LOOK_AT_UNFIT_EVERY: Duration = Duration::from_secs(1);

/// What the last look at Redis found.
#[derive(Default)]
pub(in crate::store::redis) struct Vitals {
    judged: Option<(Instant, Judgement)>,
    /// Something happened that this judgement does not explain.
    is_doubted: bool,
    /// An AOF that was seen turned off is not complete before a rewrite ended.
    aof_was_off: bool,
    /// The epoch that this process adopted.
    epoch: Option<Epoch>,
    /// The beginning of what was found last under the key of the epoch.
    found: Option<Box<str>>,
    /// What is wrong with the epoch that was found last.
    estranged: Option<Flaw>,
    /// What a newer version requires.
    newer: Option<String>,
    pub(super) room: Room,
    queues: HashMap<QueueName, Known>,
    /// What was accepted and is not known any more.
    fell: Option<String>,
    /// How long the last answer took.
    latency: Option<Duration>,
    /// What was said of it in the log.
    told: Option<String>,
    /// Whether this is the look at start, which says what it finds in its own way.
    is_opening: bool,
}

/// What is known of a queue.
struct Known {
    generation: Generation,
    accepted: u64,
    foreign: u64,
    answered_at: Instant,
}

impl Vitals {
    /// Says nothing in the log from now on.
    pub(super) fn open(&mut self) {
        self.is_opening = true;
    }

    /// Says what there is to say, and goes on to.
    pub(super) fn opened(&mut self) {
        self.is_opening = false;
        self.tell();
    }

    /// Notes what was seen.
    pub(super) fn see(&mut self, mut seen: Seen, settings: &StoreSettings) {
        match seen.aof {
            Some(Aof::Off | Aof::Starting) => self.aof_was_off = true,
            Some(Aof::On) if seen.is_rewriting && self.aof_was_off => seen.aof = Some(Aof::Starting),
            Some(Aof::On) => self.aof_was_off = false,
            None => {}
        }
        self.judged = Some((Instant::now(), judge(&seen, settings)));
        self.is_doubted = false;
        self.tell();
    }

    /// Lets everything be looked at before the next publish.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Notes what lies under the key of the epoch; gives whether one is to be made.
    pub(super) fn find_epoch(&mut self, key: &str, found: Option<&[u8]>) -> bool {
        let read = found.map(Epoch::read);
        self.found = found.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into());
        self.newer = None;
        self.estranged = match (&self.epoch, read) {
            (None, None) => return true,
            (_, Some(Some(epoch))) if epoch.format_min > FORMAT => {
                let what = format!(
                    "{key} says that its keys are of format {}, and this version reads up to {FORMAT}",
                    epoch.format_min
                );
                self.newer = Some(what.clone());
                Some(Flaw::new(what, "run a newer version, or give this one a store.prefix of its own"))
            }
            (None, Some(Some(epoch))) => {
                self.epoch = Some(epoch);
                None
            }
            (None, Some(None)) => Some(Flaw::new(
                format!("{key} holds something of somebody else"),
                "choose another store.prefix",
            )),
            (Some(known), Some(Some(epoch))) if *known == epoch => None,
            (Some(known), other) => {
                let is = match other {
                    None => "gone".to_owned(),
                    Some(None) => "overwritten".to_owned(),
                    Some(Some(epoch)) => epoch.to_string(),
                };
                let what =
                    format!("its epoch is {is} and was {known}: it was emptied or swapped for another");
                Some(Flaw::new(what, "bring the old one back, or restart every gateway to adopt this one"))
            }
        };
        self.tell();
        false
    }

    /// What was found last under the key of the epoch.
    pub(in crate::store::redis) fn found_epoch(&self) -> Option<Box<str>> {
        self.found.clone()
    }

    /// What tells this Redis from every other, once it is known.
    pub(in crate::store::redis) fn id(&self) -> Option<Arc<str>> {
        self.epoch.as_ref().map(|epoch| Arc::clone(&epoch.mark))
    }

    /// Whether an epoch was adopted, and is what was found last.
    pub(super) fn is_at_home(&self) -> bool {
        self.epoch.is_some() && self.estranged.is_none()
    }

    /// Whether everything is to be looked at again.
    pub(super) fn is_old(&self) -> bool {
        self.is_doubted
            || self.judged.as_ref().is_none_or(|(at, judgement)| {
                let every = if judgement.refusals.is_empty() { LOOK_EVERY } else { LOOK_AT_UNFIT_EVERY };
                at.elapsed() >= every
            })
    }

    /// What is against writing, the epoch first.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &Flaw> {
        let judged = self.judged.iter().flat_map(|(_, judgement)| &judgement.refusals);
        self.estranged.iter().chain(judged)
    }

    /// Whether `store.durability = "relaxed"` would do.
    pub(super) fn is_fit_for_relaxed(&self) -> bool {
        self.estranged.is_none()
            && self.judged.as_ref().is_some_and(|(_, judgement)| judgement.is_fit_for_relaxed)
    }

    /// Refuses to write where it would not be kept as promised.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.why_unfit() {
            Some(why) => Err(StoreError::NotDurable(why)),
            None => Ok(()),
        }
    }

    fn why_unfit(&self) -> Option<String> {
        let lines: Vec<_> = self.refusals().map(Flaw::line).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Says in the log that something changed, once.
    fn tell(&mut self) {
        let why = self.why_unfit();
        if self.is_opening || why == self.told {
            return;
        }
        match &why {
            Some(why) => {
                log::error!("cause" = why.as_str(); "Redis does not keep what a 202 promises: publishes are refused, delivering goes on");
            }
            None => log::info!("Redis keeps what a 202 promises again: publishes are taken"),
        }
        self.told = why;
    }

    /// Notes how long an answer took.
    pub(in crate::store::redis) fn took(&mut self, latency: Duration) {
        self.latency = Some(latency);
    }

    /// Compares a queue's counters, which were asked for at that time, to what was known of them.
    pub(in crate::store::redis) fn compare(&mut self, stats: &QueueStats, asked_at: Instant) {
        let accepted = stats.counters.accepted;
        if let Some(known) = self.queues.get(&stats.name) {
            // Answers to two threads may be read in another order than they were given in.
            if known.answered_at > asked_at {
                return;
            }
            if known.generation == stats.generation && accepted < known.accepted {
                let (name, before) = (&stats.name, known.accepted);
                let detail = format!(
                    "queue {name} had accepted {before} messages and now says {accepted}: Redis lost what it had acknowledged"
                );
                log::error!("queue.name" = name.as_str(), "before" = before, "now" = accepted; "Redis lost what it had acknowledged");
                self.fell = Some(detail);
            }
        }
        let (generation, foreign, answered_at) = (stats.generation, stats.foreign, Instant::now());
        self.queues.insert(stats.name.clone(), Known { generation, accepted, foreign, answered_at });
    }

    /// Forgets the queues that are no more.
    pub(in crate::store::redis) fn retain(&mut self, is_there: impl Fn(&QueueName) -> bool) {
        self.queues.retain(|name, _| is_there(name));
    }

    /// How it is, as of the last look.
    pub(super) fn health(&self, newer: Option<String>) -> StoreHealth {
        let judgement = self.judged.as_ref().map(|(_, judgement)| judgement);
        let mut reasons: Vec<String> = self.estranged.iter().map(Flaw::line).collect();
        reasons.extend(judgement.iter().flat_map(|judgement| judgement.reasons.iter().cloned()));
        let durability = match judgement {
            Some(judgement) if self.estranged.is_none() => judgement.durability,
            _ => Durability::Unknown,
        };
        let mut warnings = judgement.map(|judgement| judgement.warnings.clone()).unwrap_or_default();
        warnings
            .extend(self.fell.iter().map(|detail| Warning { code: "accepted_fell", detail: detail.clone() }));
        warnings.extend(self.foreign_keys());
        StoreHealth {
            reachable: true,
            latency: self.latency,
            durability,
            durability_reasons: reasons,
            full: self.room.why_full(0),
            newer: self.newer.clone().or(newer),
            warnings,
            troubles: Vec::new(),
        }
    }

    fn foreign_keys(&self) -> Option<Warning> {
        let mut names: Vec<_> = self.queues.iter().filter(|(_, known)| known.foreign > 0).collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let (name, known) = names.first()?;
        let (queues, count) = (names.len(), known.foreign);
        let detail = format!(
            "{queues} queues hold what is no message of ours, {name} {count} times: somebody else writes under store.prefix"
        );
        Some(Warning { code: "foreign_keys", detail })
    }
}

#[cfg(test)]
#[path = "vitals_tests.rs"]
mod tests;
