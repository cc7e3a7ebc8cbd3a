//! Whether Redis is fit for what a 202 promises.
//!
//! | file | noun |
//! |---|---|
//! | `seen` | what Redis is asked about itself: `INFO`, `CONFIG GET` |
//! | `version` | which server it is |
//! | `judge` | what that means, pure |
//! | `epoch` | the mark of this very Redis |
//! | `server` | which server a connection leads to |
//! | `rights` | what the user may |
//! | `refused` | writes that it refuses, or does not answer |
//! | `room` | whether there is room for more, pure |
//! | `vitals` | what the last looks found, shared by all connections |
//! | `tail` | what its append-only file may end with |
//! | `opening` | the look at start |
//!
//! Everything is looked at on each new connection before the first publish leaves on it, and every 30 s; every second while it is unfit.
//! What is found holds for the server that was looked at: a publish is judged by what is known of the one that it travels to. Health
//! looks at memory and epoch each time: two commands. While there are publishes memory is looked at once a second, and after each
//! 4 MiB.

mod epoch;
mod judge;
pub(super) mod opening;
mod refused;
mod rights;
mod room;
mod seen;
mod server;
mod tail;
mod version;
mod vitals;

use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::time::timeout;

use crate::store::error::StoreError;
use crate::store::health::{StoreHealth, Trouble};
use crate::store::redis::answer::{Answer, read_count, unexpected};
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::link::Link;
use crate::store::redis::probe::epoch::Epoch;
use crate::store::redis::probe::room::{Backlog, Room};
use crate::store::redis::probe::seen::{Memory, Seen, ask_info, ask_memory, ask_settings};
use crate::store::redis::probe::server::Met;
use crate::store::redis::probe::version::WAITAOF_FROM;
use crate::store::redis::state::lock;
use crate::store::redis::url;

pub(super) use refused::Refused;
pub(super) use server::Server;
pub(super) use tail::Tails;
pub(super) use version::Version;
pub(super) use vitals::Vitals;

/// Connections that are tried for one publish.
const TRIES_MAX: usize = 3;
/// Queues whose messages are counted by commands that travel together.
const COUNTED_AT_ONCE: usize = 1_000;
/// The longest look that is taken for an answer when a write had none.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long replicas may take to acknowledge.
const REPLICAS_WITHIN: Duration = Duration::from_secs(2);

/// What a look found beside what it noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
    /// So little is used that messages need no counting.
    Far,
    /// Messages need counting: they may come to use all there is.
    Near,
    /// Its address may lead elsewhere by now: nothing was noted, and the connection was given up.
    Moved,
}

impl Connection {
    /// Makes sure that what is written next will be kept as promised; gives the connection of `sending` that was judged.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] when it would not.
    pub(super) async fn fit_to_write(&self) -> Result<u64, StoreError> {
        for _ in 0..TRIES_MAX {
            let before = self.sending.made();
            let made = self.sending.ready().await?;
            let known = self.sending.server(made);
            if known.is_none_or(|server| lock(&self.state.vitals).is_old(&server)) {
                let looked = self.look_at_everything(&self.sending, made, made != before, true).await?;
                if looked == Looked::Moved {
                    continue;
                }
            }
            // Who looked may have come to another connection.
            let Some(server) = self.sending.server(made) else { continue };
            lock(&self.state.vitals).check(&server)?;
            if self.sending.is_on(made) {
                return Ok(made);
            }
        }
        Err(StoreError::Unavailable("Redis: one connection after another is lost".to_owned()))
    }

    /// Why a call of so many messages finds no room; looks when what is known is too old.
    pub(super) async fn why_full(
        &self,
        record_bytes: u64,
        messages: u64,
    ) -> Result<Option<String>, StoreError> {
        let cost_bytes = Room::cost_bytes(record_bytes, messages);
        if lock(&self.state.vitals).room.is_to_be_seen(cost_bytes) {
            self.look_at_room().await?;
        }
        let mut vitals = lock(&self.state.vitals);
        let why = vitals.room.why_full(cost_bytes);
        if why.is_none() {
            vitals.room.take(cost_bytes);
        }
        Ok(why)
    }

    /// Counts what settling made Redis remember beside the messages, so that it ends before the next look as well.
    pub(super) fn has_spent(&self, bytes: u64) {
        lock(&self.state.vitals).room.take(bytes);
    }

    /// Whether what may be shed is shed: the log of attempts, and what a dead letter has beside its message and its reason.
    pub(super) fn is_shedding(&self) -> bool {
        lock(&self.state.vitals).room.why_full(0).is_some()
    }

    /// Looks anew whether this still is the Redis that it was, and fit for what a 202 promises.
    pub(super) async fn check_epoch(&self) -> Result<(), StoreError> {
        let server = self.look_at_epoch().await?;
        lock(&self.state.vitals).check(&server)
    }

    /// Looks anew whether this still is the Redis that it was, whatever else may be against it: nothing that it says of queues
    /// counts otherwise.
    pub(super) async fn check_home(&self) -> Result<(), StoreError> {
        let server = self.look_at_epoch().await?;
        lock(&self.state.vitals).check_home(&server)
    }

    /// Looks at the epoch by `link`; gives the server that has it.
    async fn look_at_epoch(&self) -> Result<Server, StoreError> {
        for _ in 0..TRIES_MAX {
            let before = self.link.made();
            let made = self.link.ready().await?;
            if let Some(server) = self.link.server(made) {
                let (on, mut answers) = self.link.send_numbered(vec![self.ask_epoch()], Effect::Asks).await?;
                let found = of_any_type(answers.pop().unwrap_or_else(|| Err(unexpected())))?;
                if on == made {
                    self.found_epoch(&self.link, made, &server, found).await?;
                    return Ok(server);
                }
            } else if self.look_at_everything(&self.link, made, made != before, true).await? != Looked::Moved
                && let Some(server) = self.link.server(made)
            {
                return Ok(server);
            }
        }
        Err(StoreError::Unavailable("Redis: one connection after another is lost".to_owned()))
    }

    pub(super) async fn look_at_health(&self) -> Result<StoreHealth, StoreError> {
        self.state.check_open()?;
        let asked = Instant::now();
        if self.state.refused.is_news() {
            lock(&self.state.vitals).doubt_all();
        }
        let looked = self.look_at_what_is_old().await.inspect_err(|_| self.state.is_away())?;
        let latency = asked.elapsed();
        if looked == Looked::Near {
            self.count_backlog().await?;
        }
        let mut vitals = lock(&self.state.vitals);
        vitals.took(latency);
        let newer = lock(&self.state.newer).values().min().cloned();
        let mut health = vitals.health(newer);
        drop(vitals);
        health.warnings.extend(self.state.warnings());
        self.state.refused.add_to(&mut health, &url::client(&self.state.settings.url, false));
        health.unswept = self.state.unswept();
        let troubles = lock(&self.state.troubles);
        health.troubles = troubles
            .iter()
            .map(|(queue, (code, detail))| Trouble { queue: queue.clone(), code, detail: detail.clone() })
            .collect();
        Ok(health)
    }

    /// Looks at everything on a new connection and where what is known is old, else at what changes from one moment to the next.
    async fn look_at_what_is_old(&self) -> Result<Looked, StoreError> {
        if lock(&self.state.vitals).is_of_several() {
            // Whether it still is, a connection that is open does not tell.
            self.link.give_up();
        }
        for _ in 0..TRIES_MAX {
            let before = self.link.made();
            let made = self.link.ready().await?;
            let server = self.link.server(made);
            let is_old = |server: &Server| lock(&self.state.vitals).is_old(server);
            if let Some(server) = server.as_ref().filter(|server| !is_old(server)) {
                return self.look_briefly(made, server).await;
            }
            let is_at_home =
                server.as_ref().is_some_and(|server| lock(&self.state.vitals).is_at_home(server));
            let looked = self.look_at_everything(&self.link, made, made != before, !is_at_home).await?;
            if looked != Looked::Moved {
                return Ok(looked);
            }
        }
        Err(StoreError::Unavailable("Redis: its address leads to one server after another".to_owned()))
    }

    /// Looks at everything by a connection, which is fresh when it was made just now: only then what it finds is what the address
    /// leads to.
    async fn look_at_everything(
        &self,
        link: &Link,
        made: u64,
        is_fresh: bool,
        asks_epoch: bool,
    ) -> Result<Looked, StoreError> {
        let mut commands = vec![ask_info(), ask_settings()];
        if asks_epoch {
            commands.push(self.ask_epoch());
        }
        let (on, answers) = link.send_numbered(commands, Effect::Asks).await?;
        let is_fresh = is_fresh || on != made;
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Err(unexpected()));
        let (info, settings) = (permitted(next())?, permitted(next())?);
        let seen = Seen::of(info.as_ref(), settings.as_ref());
        if seen.is_loading {
            return Err(StoreError::Unavailable("Redis is loading its data".to_owned()));
        }
        let is_replica = seen.is_replica();
        if is_replica && !is_fresh {
            link.has_moved(on);
            return Ok(Looked::Moved);
        }
        if link.made() != on {
            return Ok(Looked::Moved);
        }
        let begun = link.begun();
        let server = seen.run.clone().map_or(Server::Nameless(begun), Server::Run);
        let met = lock(&self.state.vitals).meet(&server, begun);
        match met {
            Met::Same => {}
            Met::Moved => link.is_first(on),
            Met::Left => {
                link.is_broken(on);
                return Ok(Looked::Moved);
            }
        }
        self.version.set(seen.version);
        let memory = seen.memory;
        self.state.tails.see(&seen);
        lock(&self.state.vitals).see(&server, seen, &self.state.settings);
        if asks_epoch {
            self.found_epoch(link, on, &server, of_any_type(next())?).await?;
        }
        link.leads_to(on, server);
        if is_replica && link.is_on(on) {
            // The address may lead to the master soon: nobody waits for that on this connection.
            link.give_up();
        }
        Ok(self.see_memory(memory))
    }

    /// Looks at what changes from one moment to the next.
    async fn look_briefly(&self, made: u64, server: &Server) -> Result<Looked, StoreError> {
        let commands = vec![ask_memory(), self.ask_epoch()];
        let (on, answers) = self.link.send_numbered(commands, Effect::Asks).await?;
        if on != made {
            return self.look_at_everything(&self.link, on, true, true).await;
        }
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Err(unexpected()));
        let memory = permitted(next())?.as_ref().and_then(seen::memory);
        self.found_epoch(&self.link, made, server, of_any_type(next())?).await?;
        Ok(self.see_memory(memory))
    }

    async fn look_at_room(&self) -> Result<(), StoreError> {
        let answer = permitted(self.link.send(&ask_memory(), Effect::Asks).await)?;
        if self.see_memory(answer.as_ref().and_then(seen::memory)) == Looked::Near {
            self.count_backlog().await?;
        }
        Ok(())
    }

    fn see_memory(&self, memory: Option<Memory>) -> Looked {
        let memory = memory.unwrap_or_default();
        let is_near = lock(&self.state.vitals).room.see(memory, &self.state.settings);
        if is_near { Looked::Near } else { Looked::Far }
    }

    /// Counts what is pending, leased and scheduled, in all queues: also where it waits for days, without any work.
    async fn count_backlog(&self) -> Result<(), StoreError> {
        let mut backlog = Backlog::default();
        for entries in self.listed().await?.chunks(COUNTED_AT_ONCE) {
            let commands = entries.iter().map(|entry| {
                let key = Names::in_queue(&self.state.names.of_queue(&entry.name), Key::Counters);
                let mut command = Cmd::new();
                command.arg("HMGET").arg(key).arg(&["pending", "leased", "scheduled"]);
                command
            });
            for answer in self.link.send_each(commands.collect(), Effect::Asks).await? {
                // What cannot be read is somebody else's.
                let Ok(gauges) = answer else { continue };
                let mut gauges = Answer::of(gauges)?;
                let mut next = || Ok::<_, StoreError>(read_count(&gauges.bytes()?).unwrap_or_default());
                let (pending, leased) = (next()?, next()?);
                backlog.waiting = backlog.waiting.saturating_add(pending).saturating_add(leased);
                backlog.scheduled = backlog.scheduled.saturating_add(next()?);
            }
        }
        lock(&self.state.vitals).room.count(backlog);
        Ok(())
    }

    /// Whether Redis answers at once who only looks.
    pub(super) async fn still_answers(&self) -> bool {
        let answer = timeout(LOOK_WITHIN, self.link.send(&self.ask_epoch(), Effect::Asks)).await;
        matches!(answer, Ok(Ok(_) | Err(StoreError::Internal(_))))
    }

    fn ask_epoch(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("GET").arg(self.state.names.plain("epoch"));
        command
    }

    /// Judges the epoch that was found; makes one where nothing was and nothing else is against it.
    async fn found_epoch(
        &self,
        link: &Link,
        made: u64,
        server: &Server,
        found: Value,
    ) -> Result<(), StoreError> {
        let key = self.state.names.plain("epoch");
        let is_to_be_made = {
            let mut vitals = lock(&self.state.vitals);
            vitals.find_epoch(server, &key, bytes_of(&found)) && vitals.check(server).is_ok()
        };
        if !is_to_be_made {
            return Ok(());
        }
        let own = Epoch::random().to_string();
        let mut command = Cmd::new();
        command.arg("SET").arg(&key).arg(&own).arg("NX").arg("GET");
        let before = link.send_on(made, &command, Effect::Reads).await?;
        let is = bytes_of(&before).unwrap_or(own.as_bytes());
        lock(&self.state.vitals).find_epoch(server, &key, Some(is));
        Ok(())
    }

    /// Waits until enough replicas have what was written on the connection for publishes.
    ///
    /// # Errors
    /// [`StoreError::Unacknowledged`] when too few have; [`StoreError::Unknown`] when they could not be asked, or the connection is
    /// another than the one that wrote.
    pub(super) async fn await_replicas(&self, made: u64) -> Result<(), StoreError> {
        let wanted = u64::from(self.state.settings.replicas_ack);
        if wanted == 0 {
            return Ok(());
        }
        let fsynced = self.version.get().is_some_and(|version| version >= WAITAOF_FROM);
        let mut command = Cmd::new();
        if fsynced {
            command.arg("WAITAOF").arg(0).arg(wanted);
        } else {
            command.arg("WAIT").arg(wanted);
        }
        command.arg(REPLICAS_WITHIN.as_millis().to_string());
        let have = match self.sending.send_on(made, &command, Effect::Asks).await {
            Ok(Value::Int(count)) => u64::try_from(count).unwrap_or(0),
            // How many fsynced: this server, its replicas.
            Ok(Value::Array(counts)) => match counts.get(1) {
                Some(Value::Int(count)) => u64::try_from(*count).unwrap_or(0),
                _ => 0,
            },
            Ok(_) => 0,
            Err(error) => {
                return Err(StoreError::Unknown(format!("Redis: replicas could not be asked: {error}")));
            }
        };
        if have >= wanted {
            return Ok(());
        }
        // Whether there still are as many is looked at before the next publish.
        if let Some(server) = self.sending.server(made) {
            lock(&self.state.vitals).doubt(&server);
        }
        let done = if fsynced { "fsynced it (each needs appendonly yes)" } else { "acknowledged it" };
        Err(StoreError::Unacknowledged(format!(
            "Redis: within {REPLICAS_WITHIN:?} {have} of {wanted} replicas (store.replicas_ack) {done}"
        )))
    }
}

/// Whether these bytes are the mark of a Redis.
pub(super) fn is_epoch(bytes: &[u8]) -> bool {
    Epoch::read(bytes).is_some()
}

/// An answer, or nothing where it was refused.
fn permitted(answer: Result<Value, StoreError>) -> Result<Option<Value>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(StoreError::Internal(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What lies under the key of the epoch; of another type it is none.
fn of_any_type(answer: Result<Value, StoreError>) -> Result<Value, StoreError> {
    match answer {
        Err(StoreError::Internal(words)) if words.contains("WRONGTYPE") => Ok(Value::BulkString(Vec::new())),
        answer => answer,
    }
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
