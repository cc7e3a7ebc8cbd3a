//! Counters and gauges, and the recount that they are held against.
//!
//! Who observes, again and again, asks anew only of the queues in which something may have happened: those whose entry in
//! the due index is another than last time, since whatever changes a number writes there or happens to what is leased; those
//! that had something leased or to lease; and a few in turn, whatever the index says. An entry outlives what made it by a minute,
//! so who has not looked for half of that asks of all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Cmd;

use crate::clock::Tick;
use crate::domain::queue::{Generation, ParkReason, QueueName};
use crate::domain::timestamp::Timestamp;
use crate::store::QueueEntry;
use crate::store::error::StoreError;
use crate::store::redis::answer::{Answer, read_count, read_number};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::script;
use crate::store::redis::state::lock;
use crate::store::stats::{Counters, Gauges, QueueStats};

/// After so long without a look all queues are asked: entries of the due index may have come and gone.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Queues that are asked in turn each time.
const TURN_QUEUES: usize = 16;

/// What an observer remembers from one look to the next.
#[derive(Default)]
pub(super) struct Observed {
    stats: HashMap<QueueName, QueueStats>,
    /// The due index as it was.
    index: HashMap<QueueName, Bytes>,
    turn: usize,
    at: Option<Tick>,
}

impl Observed {
    /// The queues to ask anew, now that the index is this.
    fn choose(
        &mut self,
        entries: &[QueueEntry],
        index: &HashMap<QueueName, Bytes>,
        now: Timestamp,
    ) -> Vec<QueueName> {
        let count = entries.len().max(1);
        let turn = self.turn % count;
        self.turn = (turn + TURN_QUEUES) % count;
        let is_chosen = |(place, entry): &(usize, &QueueEntry)| {
            let name = &entry.name;
            let known = self.stats.get(name).filter(|stats| stats.generation == entry.generation);
            let entry_now = index.get(name);
            let is_held = entry.paused || entry.parked.is_some();
            let moves = |gauges: &Gauges| gauges.leased > 0 || (gauges.pending > 0 && !is_held);
            known.is_none_or(|stats| moves(&stats.gauges))
                || self.index.get(name) != entry_now
                // What happens before the next sweep, or in the very moment it names, changes nothing there any more.
                || entry_now.is_some_and(|score| is_due(score, now))
                || (place + count - turn) % count < TURN_QUEUES
        };
        entries.iter().enumerate().filter(is_chosen).map(|(_, entry)| entry.name.clone()).collect()
    }

    /// The numbers of all queues, with those that were asked anew.
    fn note(
        &mut self,
        entries: &[QueueEntry],
        index: HashMap<QueueName, Bytes>,
        new: Vec<QueueStats>,
    ) -> Vec<QueueStats> {
        self.index = index;
        let mut known = std::mem::take(&mut self.stats);
        known.extend(new.into_iter().map(|stats| (stats.name.clone(), stats)));
        for entry in entries {
            let stats = known.remove(&entry.name);
            if let Some(mut stats) = stats.filter(|stats| stats.generation == entry.generation) {
                (stats.paused, stats.parked) = (entry.paused, entry.parked);
                self.stats.insert(entry.name.clone(), stats);
            }
        }
        entries.iter().filter_map(|entry| self.stats.get(&entry.name).cloned()).collect()
    }
}

impl Connection {
    pub(super) async fn observe_all(&self) -> Result<Vec<QueueStats>, StoreError> {
        self.state.check_open()?;
        // Lost with an error, and with it all that was remembered.
        let mut observed = self.observed.take();
        let now = self.state.clock.tick();
        if observed.at.is_none_or(|at| now.since(at) >= FORGET_AFTER) {
            observed = Observed::default();
        }
        observed.at = Some(now);
        let entries = self.listed().await?;
        let index = self.due_index().await?;
        let names = observed.choose(&entries, &index, self.state.clock.now());
        let new = self.stats_of(Some(names)).await?;
        let all = observed.note(&entries, index, new);
        lock(&self.state.vitals)
            .retain(|name| entries.binary_search_by(|entry| entry.name.cmp(name)).is_ok());
        self.observed.replace(observed);
        Ok(all)
    }

    async fn due_index(&self) -> Result<HashMap<QueueName, Bytes>, StoreError> {
        let mut command = Cmd::new();
        command.arg("ZRANGE").arg(self.state.names.of_store(Key::Due)).arg(&["0", "-1", "WITHSCORES"]);
        let mut answer = Answer::of(self.link.send(&command, Effect::Reads).await?)?;
        let mut index = HashMap::with_capacity(answer.left() / 2);
        while answer.left() > 0 {
            let (name, score) = (answer.text()?, answer.bytes()?);
            index.extend(name.parse().ok().map(|name| (name, score)));
        }
        Ok(index)
    }

    pub(super) async fn stats_of(
        &self,
        names: Option<Vec<QueueName>>,
    ) -> Result<Vec<QueueStats>, StoreError> {
        self.state.check_open()?;
        let is_of_all = names.is_none();
        let names = match names {
            Some(mut names) => {
                names.sort_unstable();
                names.dedup();
                names
            }
            None => self.listed().await?.iter().map(|entry| entry.name.clone()).collect(),
        };
        let commands: Vec<Cmd> =
            names.iter().map(|name| Call::of_name(&self.state, script::STATS, name, None).finish()).collect();
        let asked_at = Instant::now();
        let answers = self.link.send_each(commands, Effect::Reads).await?;
        let many = names.len() > 1;
        let mut all: Vec<QueueStats> = Vec::with_capacity(names.len());
        for (name, answer) in names.into_iter().zip(answers) {
            // One queue whose keys are somebody else's must not hide the others.
            match answer {
                Err(StoreError::Internal(_) | StoreError::Foreign(_)) if many => {}
                answer => {
                    let stats = read(name, &mut Answer::ok(answer?)?)?;
                    all.extend(stats.map(|stats| QueueStats {
                        recovering_until: self.state.recovering_until(&stats.name),
                        ..stats
                    }));
                }
            }
        }
        let mut vitals = lock(&self.state.vitals);
        for stats in &all {
            vitals.compare(stats, asked_at);
        }
        if is_of_all {
            vitals.retain(|name| all.binary_search_by(|stats| stats.name.cmp(name)).is_ok());
        }
        drop(vitals);
        Ok(all)
    }

    pub(super) async fn audit_all(&self) -> Result<Vec<String>, StoreError> {
        self.state.check_open()?;
        let mut differences = Vec::new();
        for entry in self.listed().await? {
            let queue = entry.queue_ref();
            let mut call = Call::of_queue(&self.state, script::AUDIT, &queue, None);
            let batches = Names::batches(&call.base);
            call.push(batches);
            let answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?);
            let mut answer = match answer {
                Err(StoreError::Gone) => continue,
                other => other?,
            };
            while answer.left() > 0 {
                differences.push(answer.text()?);
            }
        }
        Ok(differences)
    }
}

/// What both laws are about, as the hash of a queue has it.
pub(super) const LAW_FIELDS: [&str; 11] = [
    "pending",
    "scheduled",
    "leased",
    "dead",
    "accepted",
    "replayed",
    "delivered",
    "dead_lettered",
    "cancelled",
    "purged",
    "discarded",
];

/// Whether a queue holds nothing but dead letters and both laws hold, by [`LAW_FIELDS`]; what is no number is unsound.
pub(super) fn is_sound_and_empty(numbers: [Option<u64>; LAW_FIELDS.len()]) -> bool {
    let [
        Some(pending),
        Some(scheduled),
        Some(leased),
        Some(dead),
        Some(accepted),
        Some(replayed),
        Some(delivered),
        Some(dead_lettered),
        Some(cancelled),
        Some(purged),
        Some(discarded),
    ] = numbers
    else {
        return false;
    };
    let gauges = Gauges { pending, scheduled, leased, dead, ..Gauges::default() };
    let counters = Counters {
        accepted,
        delivered,
        dead_lettered,
        replayed,
        cancelled,
        purged,
        discarded,
        ..Counters::default()
    };
    pending + scheduled + leased == 0 && counters.laws_hold(&gauges)
}

/// Whether a sweep takes that entry now.
fn is_due(score: &[u8], now: Timestamp) -> bool {
    let whole = score.split(|byte| *byte == b'.').next().unwrap_or_default();
    read_number(whole) <= now.as_millis()
}

/// The reason of a park as the counters name it.
pub(super) fn read_park(word: &[u8]) -> Option<ParkReason> {
    let word = std::str::from_utf8(word).ok()?;
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// A queue's numbers; `None` when there is no such queue.
fn read(name: QueueName, answer: &mut Answer) -> Result<Option<QueueStats>, StoreError> {
    let mut stats = QueueStats {
        name,
        generation: Generation(0),
        counters: Counters::default(),
        gauges: Gauges::default(),
        oldest_pending_at: answer.moment_or_none()?,
        paused: false,
        parked: None,
        foreign: 0,
        recovering_until: None,
    };
    if answer.left() == 0 {
        return Ok(None);
    }
    while answer.left() > 0 {
        let (field, value) = (answer.bytes()?, answer.bytes()?);
        let number = || read_count(&value).unwrap_or_default();
        let (counters, gauges) = (&mut stats.counters, &mut stats.gauges);
        match &*field {
            b"gen" => stats.generation = Generation(read_number(&value)),
            b"paused" => stats.paused = true,
            b"parked" => stats.parked = read_park(&value),
            b"foreign" => stats.foreign = number(),
            b"accepted" => counters.accepted = number(),
            b"delivered" => counters.delivered = number(),
            b"retried" => counters.retried = number(),
            b"dead_lettered" => counters.dead_lettered = number(),
            b"replayed" => counters.replayed = number(),
            b"cancelled" => counters.cancelled = number(),
            b"purged" => counters.purged = number(),
            b"discarded" => counters.discarded = number(),
            b"trimmed" => counters.trimmed = number(),
            b"recovered" => counters.recovered = number(),
            b"deferred" => counters.deferred = number(),
            b"pending" => gauges.pending = number(),
            b"scheduled" => gauges.scheduled = number(),
            b"leased" => gauges.leased = number(),
            b"dead" => gauges.dead = number(),
            b"bytes_waiting" => gauges.bytes_waiting = number(),
            b"bytes_leased" => gauges.bytes_leased = number(),
            b"bytes_dead" => gauges.bytes_dead = number(),
            _ => {}
        }
    }
    Ok((stats.generation.0 > 0).then_some(stats))
}
