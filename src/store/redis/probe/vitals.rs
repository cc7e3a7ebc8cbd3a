//! What the looks at Redis found, server by server: shared by every connection, each of which may bring something newer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::queue::{Generation, QueueName};
use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth, Warning};
use crate::store::redis::probe::epoch::{Epoch, FORMAT};
use crate::store::redis::probe::judge::{Flaw, Judgement, REFUSES_ALL, judge};
use crate::store::redis::probe::room::Room;
use crate::store::redis::probe::seen::{Aof, Seen};
use crate::store::redis::probe::server::{Address, Met, Server};
use crate::store::redis::url;
use crate::store::settings::StoreSettings;
use crate::store::stats::QueueStats;

/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The same while it is unfit, so that a cure is seen soon.
const LOOK_AT_UNFIT_EVERY: Duration = Duration::from_secs(1);

/// Said of an address behind which several servers stand.
const OF_SEVERAL: (&str, &str) = (
    "its address leads now to one server, now to another: what is written to one is looked for at the other",
    "let store.url name one master, or what leads to none but the master",
);

/// What the looks at Redis found.
#[derive(Default)]
pub(in crate::store::redis) struct Vitals {
    /// How `redis-cli` is called for it.
    client: String,
    /// Where connections lead, and what is known of each server there.
    address: Address,
    servers: HashMap<Server, Looked>,
    /// The epoch that this process adopted.
    epoch: Option<Epoch>,
    /// The beginning of what was found last under the key of the epoch.
    found: Option<Box<str>>,
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

/// What looks at one server found.
#[derive(Default)]
struct Looked {
    judged: Option<(Instant, Judgement)>,
    /// Something happened that this judgement does not explain.
    is_doubted: bool,
    /// An AOF that was seen turned off is not complete before a rewrite ended.
    aof_was_off: bool,
    /// What is wrong with the epoch that was found last.
    estranged: Option<Flaw>,
    /// What a newer version requires.
    newer: Option<String>,
}

impl Looked {
    fn is_old(&self) -> bool {
        self.is_doubted
            || self.judged.as_ref().is_none_or(|(at, judgement)| {
                let every = if judgement.refusals.is_empty() { LOOK_EVERY } else { LOOK_AT_UNFIT_EVERY };
                at.elapsed() >= every
            })
    }

    /// What is against writing, the epoch first.
    fn refusals(&self) -> impl Iterator<Item = &Flaw> {
        self.estranged.iter().chain(self.judged.iter().flat_map(|(_, judgement)| &judgement.refusals))
    }

    fn was_seen_within(&self, span: Duration) -> bool {
        self.judged.as_ref().is_some_and(|(at, _)| at.elapsed() < span)
    }
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

    /// Notes where a connection leads.
    pub(super) fn meet(&mut self, server: &Server, connection: u64) -> Met {
        let met = self.address.meet(server, connection, Instant::now());
        if met == Met::Moved {
            log::info!("the address of Redis leads to another server: every connection is made anew");
        }
        met
    }

    /// Whether its address leads to several servers.
    pub(super) fn is_of_several(&self) -> bool {
        self.address.is_of_several(Instant::now())
    }

    /// Notes what was seen of a server.
    pub(super) fn see(&mut self, server: &Server, mut seen: Seen, settings: &StoreSettings) {
        let newest = self.address.newest();
        self.servers.retain(|other, looked| {
            Some(other) == newest || other == server || looked.was_seen_within(LOOK_EVERY * 2)
        });
        let looked = self.servers.entry(server.clone()).or_default();
        match seen.aof {
            Some(Aof::Off | Aof::Starting) => looked.aof_was_off = true,
            Some(Aof::On) if seen.is_rewriting && looked.aof_was_off => seen.aof = Some(Aof::Starting),
            Some(Aof::On) => looked.aof_was_off = false,
            None => {}
        }
        self.client = url::client(&settings.url, true);
        looked.judged = Some((Instant::now(), judge(&seen, settings)));
        looked.is_doubted = false;
        self.tell();
    }

    /// Lets everything be looked at before the next publish.
    pub(super) fn doubt(&mut self, server: &Server) {
        self.servers.entry(server.clone()).or_default().is_doubted = true;
    }

    /// Lets everything be looked at again: something happened that no judgement explains.
    pub(super) fn doubt_all(&mut self) {
        self.servers.values_mut().for_each(|looked| looked.is_doubted = true);
    }

    /// Notes what lies under the key of the epoch; gives whether one is to be made.
    pub(super) fn find_epoch(&mut self, server: &Server, key: &str, found: Option<&[u8]>) -> bool {
        let read = found.map(Epoch::read);
        self.found = found.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into());
        let looked = self.servers.entry(server.clone()).or_default();
        looked.newer = None;
        looked.estranged = match (&self.epoch, read) {
            (None, None) => return true,
            (_, Some(Some(epoch))) if epoch.format_min > FORMAT => {
                let what = format!(
                    "{key} says that its keys are of format {}, and this version reads up to {FORMAT}",
                    epoch.format_min
                );
                looked.newer = Some(what.clone());
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
                let cure = format!(
                    "bring the old one back, or restart every gateway to adopt this one; where it is the old one and only this \
                     key was touched, {} SET {key} {known}",
                    self.client
                );
                Some(Flaw::new(what, cure))
            }
        };
        self.tell();
        false
    }

    /// What was found last under the key of the epoch.
    pub(in crate::store::redis) fn found_epoch(&self) -> Option<Box<str>> {
        self.found.clone()
    }

    /// What lies under the key of the epoch as this process adopted it.
    pub(in crate::store::redis) fn own_epoch(&self) -> Option<String> {
        self.epoch.as_ref().map(ToString::to_string)
    }

    /// What tells this Redis from every other, once it is known.
    pub(in crate::store::redis) fn id(&self) -> Option<Arc<str>> {
        self.epoch.as_ref().map(|epoch| Arc::clone(&epoch.mark))
    }

    /// Whether an epoch was adopted, and is what was found there last.
    pub(super) fn is_at_home(&self, server: &Server) -> bool {
        self.epoch.is_some() && self.servers.get(server).is_some_and(|looked| looked.estranged.is_none())
    }

    /// Whether everything there is to be looked at again.
    pub(super) fn is_old(&self, server: &Server) -> bool {
        self.servers.get(server).is_none_or(Looked::is_old)
    }

    /// What is known of the server where the youngest connection leads.
    fn newest(&self) -> Option<&Looked> {
        self.servers.get(self.address.newest()?)
    }

    /// What is against writing where the youngest connection leads.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &Flaw> {
        self.newest().into_iter().flat_map(Looked::refusals)
    }

    /// Whether `store.durability = "relaxed"` would do.
    pub(super) fn is_fit_for_relaxed(&self) -> bool {
        self.newest().is_some_and(|looked| {
            looked.estranged.is_none()
                && looked.judged.as_ref().is_some_and(|(_, judgement)| judgement.is_fit_for_relaxed)
        })
    }

    /// Refuses to write to a server where it would not be kept as promised.
    pub(super) fn check(&self, server: &Server) -> Result<(), StoreError> {
        match self.why_unfit(server) {
            Some(why) => Err(StoreError::NotDurable(why)),
            None => Ok(()),
        }
    }

    /// Refuses where it is another Redis than the one that was adopted.
    pub(super) fn check_home(&self, server: &Server) -> Result<(), StoreError> {
        match self.servers.get(server).and_then(|looked| looked.estranged.as_ref()) {
            Some(flaw) => Err(StoreError::NotDurable(flaw.line())),
            None => Ok(()),
        }
    }

    fn why_unfit(&self, server: &Server) -> Option<String> {
        let several = self.is_of_several().then(|| Flaw::new(OF_SEVERAL.0, OF_SEVERAL.1));
        let mut lines: Vec<_> = several.iter().map(Flaw::line).collect();
        // Which of those without names are one and the same nobody knows: what was seen of one just now holds for all.
        let are_meant = |(other, looked): &(&Server, &Looked)| {
            let are_nameless = matches!((other, server), (Server::Nameless(_), Server::Nameless(_)));
            *other == server || are_nameless && looked.was_seen_within(LOOK_AT_UNFIT_EVERY * 3)
        };
        let looked = self.servers.iter().filter(are_meant);
        for line in looked.flat_map(|(_, looked)| looked.refusals()).map(Flaw::line) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Says in the log that something changed, once.
    fn tell(&mut self) {
        let why = self.address.newest().and_then(|server| self.why_unfit(server));
        if self.is_opening || why == self.told {
            return;
        }
        match &why {
            Some(why) if why.contains(REFUSES_ALL) => {
                log::error!("cause" = why.as_str(); "Redis takes no writes: nothing is published, leased or settled");
            }
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
        let looked = self.newest();
        let judgement = looked.and_then(|looked| looked.judged.as_ref()).map(|(_, judgement)| judgement);
        let several = self.is_of_several().then(|| Flaw::new(OF_SEVERAL.0, OF_SEVERAL.1));
        let estranged = looked.and_then(|looked| looked.estranged.as_ref());
        let mut reasons: Vec<String> = several.iter().chain(estranged).map(Flaw::line).collect();
        reasons.extend(judgement.iter().flat_map(|judgement| judgement.reasons.iter().cloned()));
        let durability = match judgement {
            Some(judgement) if estranged.is_none() && several.is_none() => judgement.durability,
            _ => Durability::Unknown,
        };
        let mut warnings = judgement.map(|judgement| judgement.warnings.clone()).unwrap_or_default();
        warnings.extend(several.map(|flaw| Warning { code: "servers_differ", detail: flaw.line() }));
        warnings
            .extend(self.fell.iter().map(|detail| Warning { code: "accepted_fell", detail: detail.clone() }));
        warnings.extend(self.foreign_keys());
        StoreHealth {
            reachable: true,
            latency: self.latency,
            durability,
            durability_reasons: reasons,
            full: self.room.why_full(0),
            newer: looked.and_then(|looked| looked.newer.clone()).or(newer),
            unswept: None,
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
