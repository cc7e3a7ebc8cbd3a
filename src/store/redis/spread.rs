//! Few messages each into many queues: one call of a script for a number of queues. What a call costs by itself, for its keys and the
//! beginning of its script, is more than all that it does for one message.
//!
//! Each queue is as it would be alone: refused, broken or stored by itself, and its results are kept under a key of its own. What is
//! not plain there is sent again as a call of `enqueue`, which also says what is the matter. So is all that is sent anew.

use redis::{Cmd, Value};

use crate::domain::message::Priority;
use crate::store::enqueue::NewMessage;
use crate::store::redis::appended;
use crate::store::redis::call::Call;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::lots::{Lot, charged, ids};
use crate::store::redis::publish::millis;
use crate::store::redis::script;
use crate::store::redis::state::State;
use crate::store::{CALL_MEMORY, QueueRef};

/// The most queues of one call: with a message each, Redis does nothing else for about a millisecond.
const QUEUES_MAX: usize = 64;

/// The keys that the script takes for a queue, but for that of the call.
const fn keys(list: u8) -> [Key; 5] {
    [Key::Counters, Key::List(list), Key::List(0), Key::Runs, Key::Moments]
}

/// What goes into one queue.
pub(super) struct Share<'g> {
    /// Where the queue stands among those of the call.
    pub(super) place: usize,
    queue: &'g QueueRef,
    /// The key under which its results are kept.
    own: String,
    messages: Vec<&'g NewMessage>,
}

impl<'g> Share<'g> {
    /// What can be stored together with that of other queues: one lot of messages that need no look at each, too few for Redis to
    /// append them by itself.
    pub(super) fn of(place: usize, queue: &'g QueueRef, own: String, lots: &[Lot<'g>]) -> Option<Self> {
        match lots {
            [Lot::Plain(messages, _)] if messages.len() < appended::MESSAGES_MIN => {
                Some(Self { place, queue, own, messages: messages.clone() })
            }
            _ => None,
        }
    }

    fn push_keys(&self, state: &State, call: &mut Call) {
        let base = state.names.of_queue(&self.queue.name);
        for key in keys(self.list()) {
            call.push(Names::in_queue(&base, key));
        }
        call.push(&self.own);
    }

    fn push_arguments(&self, call: &mut Call) {
        call.push(self.queue.name.as_str()).push(self.queue.generation.0).push(self.list());
        call.push(self.messages.len()).push(charged(self.messages.iter().copied())).push(ids(&self.messages));
        for message in &self.messages {
            call.push(&message.record[..]);
        }
    }

    fn list(&self) -> u8 {
        2 + self.messages.first().map_or(Priority::Normal, |message| message.priority).index()
    }
}

/// The calls for these shares, each with those that it stores. `until_ms` as for `enqueue`.
pub(super) fn calls<'s, 'g>(
    state: &State,
    shares: &'s [Share<'g>],
    until_ms: u64,
) -> Vec<(Cmd, &'s [Share<'g>])> {
    let call = |some: &'s [Share<'g>]| {
        let mut call = Call::of_keys(script::SPREAD, some.len() * (keys(0).len() + 1));
        for share in some {
            share.push_keys(state, &mut call);
        }
        call.push(state.time_ms()).push(millis(CALL_MEMORY)).push(until_ms).push(&state.wake_channel);
        for share in some {
            share.push_arguments(&mut call);
        }
        (call.finish(), some)
    };
    shares.chunks(QUEUES_MAX).map(call).collect()
}

/// What the script says of each of so many queues, as `enqueue` would say it; `None` of what is to be sent to that.
pub(super) fn told(answer: Value, count: usize) -> Vec<Option<Value>> {
    let words = match answer {
        Value::Array(words) if words.len() == count => words,
        // An error in place of all, or what is no answer of ours.
        other => return vec![Some(other); count],
    };
    let word = |word| match word {
        Value::Int(woken @ (0 | 1)) => {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            Some(Value::Array(vec![text("ok"), Value::Int(woken), Value::Int(0), text("A")]))
        }
        Value::Int(-1) => None,
        other => Some(other),
    };
    words.into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_did_not_do_is_left_and_what_broke_off_is_told_of_its_queue_alone() {
        let error =
            redis::parse_redis_value(b"-WRONGTYPE it is somebody's\r\n").expect("an error reply is a value");
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let stored =
            |woken| Some(Value::Array(vec![text("ok"), Value::Int(woken), Value::Int(0), text("A")]));
        let answer = Value::Array(vec![Value::Int(1), Value::Int(-1), error.clone(), Value::Int(0)]);
        assert_eq!(told(answer, 4), [stored(1), None, Some(error.clone()), stored(0)]);
        assert_eq!(told(error.clone(), 2), [Some(error.clone()), Some(error)]);
    }

    #[test]
    fn an_answer_that_is_none_of_ours_leaves_it_open_what_was_done() {
        for answer in [Value::Nil, Value::Array(vec![Value::Int(1)]), Value::Int(-1)] {
            let all = told(answer, 2);
            assert!(
                all.len() == 2 && all.iter().all(|told| !matches!(told, None | Some(Value::ServerError(_))))
            );
        }
    }
}
