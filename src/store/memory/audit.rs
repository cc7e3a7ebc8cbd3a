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
