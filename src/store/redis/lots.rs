//! Groups as the script `enqueue` takes them: those that need no look at each go together in one lot. Most are: each single message
//! without options. What a script does for a message of its own costs more than all that Redis does for it besides.

use crate::domain::message::Priority;
use crate::domain::record;
use crate::store::enqueue::{Due, Group, NewMessage};
use crate::store::redis::call::Call;
use crate::store::redis::pack;
use crate::store::redis::publish::millis;

/// Bytes of an id that name its moment, a quarter of a second: the index of what is pending has one entry for each.
const MOMENT_BYTES: usize = 5;

/// What is taken in at once.
pub(super) enum Lot<'g> {
    /// A group of whatever kind.
    Group(&'g Group),
    /// Messages without key, due now, of one priority and one moment; whether they are one group or each is its own.
    Plain(Vec<&'g NewMessage>, bool),
}

/// The groups of one queue in lots, in their order.
pub(super) fn lots<'g>(groups: &[&'g Group]) -> Vec<Lot<'g>> {
    let mut lots: Vec<Lot<'g>> = Vec::new();
    for group in groups {
        match (&group.messages[..], lots.last_mut()) {
            _ if !is_plain(group) => lots.push(Lot::Group(group)),
            ([message], Some(Lot::Plain(messages, false))) if are_alike(messages[0], message) => {
                messages.push(message);
            }
            (messages, _) => lots.push(Lot::Plain(messages.iter().collect(), messages.len() > 1)),
        }
    }
    lots
}

fn is_plain(group: &Group) -> bool {
    let Some(first) = group.messages.first() else { return false };
    group.key.is_none()
        && group
            .messages
            .iter()
            .all(|message| message.due == Due::Now && are_alike(first, message) && pack::is_element(message))
}

/// Whether they are of one priority and one moment.
pub(super) fn are_alike(one: &NewMessage, other: &NewMessage) -> bool {
    let moment = |message: &NewMessage| -> [u8; MOMENT_BYTES] {
        std::array::from_fn(|place| message.id.as_bytes()[place])
    };
    one.priority == other.priority && moment(one) == moment(other)
}

impl Lot<'_> {
    /// Adds it to the arguments.
    pub(super) fn push_to(&self, call: &mut Call) {
        match self {
            Self::Group(group) => push_group(call, group),
            Self::Plain(messages, is_one) => {
                push_plain(call, if *is_one { "b" } else { "p" }, messages, messages.len());
            }
        }
    }
}

/// Adds plain messages, and so many of their records.
pub(super) fn push_plain(call: &mut Call, kind: &str, messages: &[&NewMessage], records: usize) {
    let priority = messages.first().map_or(Priority::Normal, |message| message.priority);
    call.push(kind).push(messages.len());
    call.push(charged(messages.iter().copied())).push(priority.index()).push(ids(messages));
    for message in &messages[..records] {
        call.push(&message.record[..]);
    }
}

fn push_group(call: &mut Call, group: &Group) {
    call.push("g");
    match &group.key {
        Some(key) => call.push(&key.key[..]).push(&key.fingerprint[..]),
        None => call.push("").push(""),
    };
    let elements: Vec<_> =
        group.messages.iter().map(|message| (message.due, pack::element(message))).collect();
    let apart = elements.iter().filter(|(_, (_, body))| body.is_some()).count();
    call.push(elements.len()).push(elements.len() * 2 + apart).push(charged(&*group.messages));
    for (due, (record, body)) in &elements {
        match due {
            Due::Now => call.push(""),
            Due::After(delay) => call.push(format!("+{}", millis(*delay))),
            Due::At(at) => call.push(format!("@{}", at.as_millis())),
        };
        call.push(&**record);
        if let Some(body) = body {
            call.push(*body);
        }
    }
}

/// Their ids, one behind the other.
pub(super) fn ids(messages: &[&NewMessage]) -> Vec<u8> {
    messages.iter().flat_map(|message| *message.id.as_bytes()).collect()
}

/// What they count in `limits.bytes_max`.
pub(super) fn charged<'g>(messages: impl IntoIterator<Item = &'g NewMessage>) -> u64 {
    messages.into_iter().map(|message| record::charged_bytes(&message.record)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{MessageId, Shard};
    use crate::domain::queue::Generation;
    use crate::domain::record::Head;
    use crate::domain::timestamp::Timestamp;
    use crate::store::QueueRef;
    use crate::store::enqueue::IdempotencyKey;

    fn message(at_ms: u64, priority: Priority, due: Due) -> NewMessage {
        let at = Timestamp::from_millis(at_ms);
        let id = MessageId::new(at, [7; 10], Shard::default());
        let head = Head { id, attempts_max: 3, priority, accepted_at: at, ttl: None };
        NewMessage { id, priority, due, record: record::encode(&head, &[], b"{}") }
    }

    fn plain(at_ms: u64) -> NewMessage {
        message(at_ms, Priority::Normal, Due::Now)
    }

    fn group(messages: Vec<NewMessage>) -> Group {
        let queue = QueueRef { name: "orders".parse().expect("a name"), generation: Generation(1) };
        Group { queue, key: None, messages: messages.into() }
    }

    /// How many messages each lot has, 0 for a group that is looked at by itself.
    fn sizes(groups: &[Group]) -> Vec<usize> {
        let size = |lot: &Lot<'_>| match lot {
            Lot::Group(_) => 0,
            Lot::Plain(messages, _) => messages.len(),
        };
        lots(&groups.iter().collect::<Vec<_>>()).iter().map(size).collect()
    }

    #[test]
    fn single_messages_without_options_go_together_while_priority_and_moment_are_the_same() {
        // A moment is 256 ms.
        let mut groups: Vec<_> = [0, 1, 255, 256, 300].map(|at_ms| group(vec![plain(at_ms)])).into();
        groups.push(group(vec![message(300, Priority::High, Due::Now)]));
        assert_eq!(sizes(&groups), [3, 2, 1]);
    }

    #[test]
    fn what_has_options_is_looked_at_by_itself_and_keeps_its_place() {
        let key = IdempotencyKey { key: vec![1; 16], fingerprint: [2; 16] };
        let keyed = Group { key: Some(key), ..group(vec![plain(0)]) };
        let junk = NewMessage { record: b"junk".to_vec(), ..plain(0) };
        let large = record::encode(
            &Head {
                id: plain(0).id,
                attempts_max: 3,
                priority: Priority::Normal,
                accepted_at: Timestamp::from_millis(0),
                ttl: None,
            },
            &[],
            &vec![0; 1 << 20],
        );
        let large = NewMessage { record: large, ..plain(0) };
        let delayed = message(0, Priority::Normal, Due::At(Timestamp::from_millis(9)));
        for other in [keyed, group(vec![junk]), group(vec![large]), group(vec![delayed])] {
            assert_eq!(sizes(&[group(vec![plain(0)]), other, group(vec![plain(0)])]), [1, 0, 1]);
        }
    }

    #[test]
    fn a_batch_is_a_lot_of_its_own() {
        let batch = || group((0..10).map(|_| plain(0)).collect());
        assert_eq!(sizes(&[group(vec![plain(0)]), batch(), batch(), group(vec![plain(0)])]), [1, 10, 10, 1]);
        let of_two = group(vec![plain(0), message(0, Priority::Low, Due::Now)]);
        assert_eq!(sizes(&[of_two, group(vec![plain(0), plain(300)])]), [0, 0]);
    }
}
