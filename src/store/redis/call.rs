//! A call of a script, put together argument by argument.

use redis::{Cmd, ToRedisArgs};

use crate::domain::queue::QueueName;
use crate::store::QueueRef;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::script::{ALL, LOADED};
use crate::store::redis::state::State;

/// A command that is being put together.
pub(super) struct Call {
    command: Cmd,
    /// What all keys of the queue begin with; empty for a call that is of no queue.
    pub(super) base: String,
}

impl Call {
    /// Begins a call of a script that is of no queue.
    pub(super) fn of_store(state: &State, script: usize) -> Self {
        let mut call = Self::of_keys(script, ALL[script].keys.len());
        for key in ALL[script].keys {
            call.push(state.names.of_store(*key));
        }
        call
    }

    /// Begins a call of a script of a queue, without the arguments that begin most of them. `own` is the key that a batch or an
    /// `enqueue` has for itself.
    pub(super) fn of_name(state: &State, script: usize, queue: &QueueName, own: Option<&str>) -> Self {
        let base = state.names.of_queue(queue);
        let mut call = Self { base, ..Self::of_keys(script, ALL[script].keys.len()) };
        for key in ALL[script].keys {
            match (key, own) {
                (Key::Batch | Key::Call, Some(own)) => call.command.arg(own),
                (Key::Appended, Some(own)) => call.command.arg(Names::appended(own)),
                _ => call.command.arg(Names::in_queue(&call.base, *key)),
            };
        }
        call
    }

    /// Begins a call of a script of a queue: the time, the generation, where wake-ups go.
    pub(super) fn of_queue(state: &State, script: usize, queue: &QueueRef, own: Option<&str>) -> Self {
        let mut call = Self::of_name(state, script, &queue.name, own);
        call.push(state.time_ms()).push(queue.generation.0).push(&state.wake_channel);
        call.push(queue.name.as_str());
        call
    }

    /// Begins a call with so many keys, which are to follow.
    pub(super) fn of_keys(script: usize, keys: usize) -> Self {
        let mut command = Cmd::new();
        let reads = LOADED[script].is_read_only;
        command.arg(if reads { "EVALSHA_RO" } else { "EVALSHA" });
        command.arg(&LOADED[script].hash).arg(keys);
        Self { command, base: String::new() }
    }

    /// Adds an argument.
    pub(super) fn push(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// The command.
    pub(super) fn finish(self) -> Cmd {
        self.command
    }
}
