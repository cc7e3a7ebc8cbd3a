//! Many messages that Redis appends by itself: Lua would copy and hash each byte of what it only hands on.
//!
//! One transaction. The script checks and counts as for any lot; it appends the first record, and gives the list a name of this
//! call. `RPUSHX` appends the others under that name, and `RENAMENX` gives the list its own back. So nothing is appended where the
//! script refused, or was not there: then nothing has that name. What was not stored that way is sent again with all its records, as
//! a script alone, which also says what is the matter.
//!
//! Between the commands nobody else may come. So nothing of this is sent on a connection that did not carry an empty transaction out,
//! and the script asks for the rights to all of it, which Redis looks at again when it carries a transaction out.

use redis::{Cmd, Value};

use crate::domain::message::Priority;
use crate::store::enqueue::NewMessage;
use crate::store::error::StoreError;
use crate::store::redis::call::Call;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::lots::{Lot, are_alike, push_plain};

/// Below so many messages the commands around the script cost what they save.
pub(super) const MESSAGES_MIN: usize = 24;

/// The commands of one such transaction.
pub(super) const COMMANDS: usize = 5;

/// What became of a transaction.
#[derive(PartialEq, Debug)]
pub(super) enum Fate {
    /// The script answered so, or with an error; where it stored, all is stored.
    Told(Value),
    /// Nothing was done.
    Undone,
    /// It was no transaction, or none that is over: nothing more is to be sent behind it.
    Unclear(StoreError),
}

/// The messages that Redis can append by itself: enough of them, all without anything that is worth a look, of one kind. Where there
/// is room for all of them each group gets the same answer, however many they are.
pub(super) fn of<'g>(lots: &[Lot<'g>]) -> Option<Vec<&'g NewMessage>> {
    let mut all: Vec<&NewMessage> = Vec::new();
    for lot in lots {
        let Lot::Plain(messages, _) = lot else { return None };
        if all.first().is_some_and(|first| !are_alike(first, messages[0])) {
            return None;
        }
        all.extend(messages);
    }
    (all.len() >= MESSAGES_MIN).then_some(all)
}

/// The transaction that stores them, by a call of the script that has all arguments before its lots, and of which `own` is the key.
pub(super) fn transaction(mut script: Call, own: &str, messages: &[&NewMessage]) -> [Cmd; COMMANDS] {
    let priority = messages.first().map_or(Priority::Normal, |message| message.priority);
    let appended = Names::appended(own);
    let list = Names::in_queue(&script.base, Key::List(2 + priority.index()));
    push_plain(script.push(1), "a", messages, 1);
    let (mut push, mut rename) = (redis::cmd("RPUSHX"), redis::cmd("RENAMENX"));
    push.arg(&appended);
    for message in &messages[1..] {
        push.arg(&message.record[..]);
    }
    rename.arg(&appended).arg(list);
    [redis::cmd("MULTI"), script.finish(), push, rename, redis::cmd("EXEC")]
}

/// What Redis made of it, by its answers.
pub(super) fn fate(answers: impl Iterator<Item = Value>) -> Fate {
    let answers = <[Value; COMMANDS]>::try_from(answers.collect::<Vec<_>>());
    let results = match answers {
        Ok([.., Value::Array(results)]) => results,
        Ok([.., Value::ServerError(error)]) if error.code() == "EXECABORT" => return Fate::Undone,
        // It was not begun: each was answered for itself.
        Ok([Value::ServerError(_), told, appended, renamed, _]) => vec![told, appended, renamed],
        other => return unclear(&format!("a transaction was answered with {other:?}")),
    };
    let Ok([told, appended, renamed]) = <[Value; 3]>::try_from(results) else {
        return unclear("a transaction gave something else");
    };
    let is_there = renamed == Value::Int(1) || matches!(&appended, Value::Int(length) if *length > 0);
    let is_whole = renamed == Value::Int(1) && matches!(&appended, Value::Int(length) if *length > 0);
    match (first_word(&told), is_there) {
        // The last thing that the script does is to wake others: that may have been refused.
        (Some(b"ok") | None, _) if is_whole => Fate::Told(told),
        (Some(b"ok"), _) | (_, true) => unclear(&format!("half of a transaction was carried out: {told:?}")),
        (Some(b"long") | None, _) => Fate::Undone,
        (Some(_), _) => Fate::Told(told),
    }
}

/// The word with which a script says how it went; `None` when it broke off.
fn first_word(told: &Value) -> Option<&[u8]> {
    let Value::Array(words) = told else { return None };
    match words.first()? {
        Value::BulkString(word) => Some(word),
        _ => None,
    }
}

fn unclear(words: &str) -> Fate {
    Fate::Unclear(StoreError::Unknown(format!("Redis: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    /// The answers to a transaction whose commands gave these.
    fn answers(results: Vec<Value>) -> std::vec::IntoIter<Value> {
        let queued = || Value::SimpleString("QUEUED".to_owned());
        vec![Value::Okay, queued(), queued(), queued(), Value::Array(results)].into_iter()
    }

    fn refused(words: &str) -> Value {
        let error = redis::parse_redis_value(format!("-{words}\r\n").as_bytes());
        error.expect("an error reply is a value")
    }

    #[test]
    fn what_the_script_stored_is_stored_when_the_commands_behind_it_did_their_part() {
        let told = words(&["ok", "1", "0", "A"]);
        let all = vec![told.clone(), Value::Int(300), Value::Int(1)];
        assert_eq!(fate(answers(all)), Fate::Told(told.clone()));
        for (appended, renamed) in [(0, 1), (300, 0), (0, 0)] {
            let half = vec![told.clone(), Value::Int(appended), Value::Int(renamed)];
            assert!(matches!(fate(answers(half)), Fate::Unclear(_)), "{appended} {renamed}");
        }
    }

    #[test]
    fn a_script_that_could_not_wake_others_stored_nevertheless() {
        let told = refused("NOPERM this user has no permissions to access one of the channels");
        let all = vec![told.clone(), Value::Int(300), Value::Int(1)];
        assert_eq!(fate(answers(all)), Fate::Told(told));
    }

    #[test]
    fn where_the_script_did_nothing_nothing_was_done() {
        let none = || refused("ERR no such key");
        for told in [words(&["long"]), refused("NOSCRIPT No matching script."), refused("FOREIGNKEY the key")]
        {
            assert_eq!(fate(answers(vec![told, Value::Int(0), none()])), Fate::Undone);
        }
        let again = words(&["again", "A"]);
        assert_eq!(fate(answers(vec![again.clone(), Value::Int(0), none()])), Fate::Told(again));
    }

    #[test]
    fn what_was_refused_from_the_beginning_was_not_done() {
        let mut all = vec![Value::Okay; COMMANDS];
        all[2] = refused("OOM command not allowed");
        all[4] = refused("EXECABORT Transaction discarded because of previous errors.");
        assert_eq!(fate(all.into_iter()), Fate::Undone);
        let no = || refused("NOAUTH Authentication required.");
        assert_eq!(fate(std::iter::repeat_with(no).take(COMMANDS)), Fate::Undone);
        let none = refused("ERR no such key");
        let alone = [refused("NOPERM multi"), words(&["long"]), Value::Int(0), none, refused("ERR no MULTI")];
        assert_eq!(fate(alone.into_iter()), Fate::Undone);
    }

    #[test]
    fn what_is_no_answer_to_a_transaction_leaves_it_open() {
        let no_exec = refused("NOPERM this user has no permissions to run the 'exec' command");
        for last in [no_exec, Value::Nil, Value::Array(Vec::new()), Value::Okay] {
            let mut all: Vec<Value> = answers(Vec::new()).collect();
            all[4] = last;
            assert!(matches!(fate(all.into_iter()), Fate::Unclear(_)));
        }
        assert!(matches!(fate(std::iter::empty()), Fate::Unclear(_)));
    }
}
