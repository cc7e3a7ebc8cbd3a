//! Counters and gauges, and the recount that they are held against.

use std::time::Instant;

use redis::Cmd;

use crate::domain::queue::{Generation, ParkReason, QueueName};
use crate::store::error::StoreError;
use crate::store::redis::answer::{Answer, read_number};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::Names;
use crate::store::redis::script;
use crate::store::redis::state::lock;
use crate::store::stats::{Counters, Gauges, QueueStats};

impl Connection {
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
                Err(StoreError::Internal(_)) if many => {}
                answer => all.extend(read(name, &mut Answer::ok(answer?)?)?),
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
    };
    if answer.left() == 0 {
        return Ok(None);
    }
    while answer.left() > 0 {
        let (field, value) = (answer.bytes()?, answer.bytes()?);
        let number = || read_number(&value);
        let (counters, gauges) = (&mut stats.counters, &mut stats.gauges);
        match &*field {
            b"gen" => stats.generation = Generation(number()),
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
