//! Recounting a queue message by message.

use std::collections::HashSet;

use crate::store::memory::batch::Slot;
use crate::store::memory::lists::Seq;
use crate::store::memory::queue::{Place, Queue, gauges_of};
use crate::store::stats::Gauges;
use crate::store::turns::List;

impl Queue {
    /// Each difference between what is counted and what is there.
    pub(super) fn audit(&self) -> Vec<String> {
        let mut found = Vec::new();
        let name = &self.entry.name;
        let mut hold = |holds: bool, what: String| {
            if !holds {
                found.push(format!("queue {name}: {what}"));
            }
        };
        let mut recounted = Gauges::default();
        for message in self.messages.values() {
            let (count, bytes) = gauges_of(&mut recounted, &message.place);
            *count += 1;
            *bytes += message.charged_bytes();
        }
        hold(recounted == self.gauges, format!("recounted {recounted:?}, kept {:?}", self.gauges));
        hold(self.counters.laws_hold(&recounted), format!("the laws are broken: {:?}", self.counters));

        let waiting: Vec<Seq> = List::ALL.iter().flat_map(|list| self.lists.of(*list)).copied().collect();
        let dead: Vec<Seq> = self.dead.values().copied().collect();
        let scheduled: Vec<Seq> = self.scheduled.values().copied().collect();
        let slots = self.batches.living().flat_map(|(_, batch)| &batch.slots);
        let leased: Vec<Seq> =
            slots.filter_map(|slot| if let Slot::Leased(seq) = slot { Some(*seq) } else { None }).collect();
        let word_of = |place: &Place| match place {
            Place::Pending(_) => "pending",
            Place::Scheduled { .. } => "scheduled",
            Place::Leased => "leased",
            Place::Dead(_) => "dead",
        };
        for (word, listed) in
            [("pending", waiting), ("scheduled", scheduled), ("leased", leased), ("dead", dead)]
        {
            let there = self.messages.iter().filter(|(_, message)| word_of(&message.place) == word);
            let there: HashSet<Seq> = there.map(|(seq, _)| *seq).collect();
            let once: HashSet<Seq> = listed.iter().copied().collect();
            hold(once.len() == listed.len(), format!("a message is {word} twice"));
            hold(once == there, format!("{} messages are {word}, {} are listed", there.len(), once.len()));
        }
        let by_id = self
            .by_id
            .iter()
            .all(|(id, seq)| self.messages.get(seq).is_some_and(|message| message.id == *id));
        hold(by_id, "an id names another message".to_owned());
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use bytes::Bytes;

    use crate::domain::id::MessageId;
    use crate::domain::message::Priority;
    use crate::domain::queue::{Generation, QueueSettings, Source};
    use crate::domain::timestamp::Timestamp;
    use crate::store::QueueEntry;
    use crate::store::memory::lists::End;
    use crate::store::memory::queue::{Message, Place, Queue};
    use crate::store::turns::List;

    /// What is done to a queue behind its back.
    type Tamper = (&'static str, fn(&mut Queue));

    const FRESH: List = List::Fresh(Priority::Normal);

    fn queue_of_two() -> Queue {
        let mut queue = Queue::new(QueueEntry {
            name: "orders".parse().expect("a name"),
            generation: Generation(1),
            source: Source::Api,
            settings: Arc::new(QueueSettings::default()),
            paused: false,
            parked: None,
        });
        for number in 0..2 {
            queue.counters.accepted += 1;
            queue.add(Message {
                id: MessageId::from_bytes([number; 16]),
                priority: Priority::Normal,
                accepted_at: Timestamp::default(),
                bytes: Bytes::from_static(&[0; 100]),
                log: VecDeque::new(),
                place: Place::Pending(FRESH),
            });
        }
        queue
    }

    #[test]
    fn an_audit_names_whatever_is_tampered_with() {
        assert_eq!(queue_of_two().audit(), Vec::<String>::new());
        let tampers: [Tamper; 7] = [
            ("a gauge", |queue| queue.gauges.pending += 1),
            ("bytes", |queue| queue.gauges.bytes_waiting -= 1),
            ("a counter", |queue| queue.counters.accepted -= 1),
            ("a list that names one twice", |queue| queue.lists.put(FRESH, 1, End::Back)),
            ("a list that lost one", |queue| queue.lists.remove(FRESH, 2)),
            ("a message that vanished", |queue| drop(queue.messages.remove(&2))),
            ("an id of another", |queue| queue.by_id.values_mut().for_each(|seq| *seq = 2)),
        ];
        for (what, tamper) in tampers {
            let mut queue = queue_of_two();
            tamper(&mut queue);
            assert_ne!(queue.audit(), Vec::<String>::new(), "{what}");
        }
    }
}
