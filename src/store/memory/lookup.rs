//! Finding, cancelling and purging messages of one queue.

use crate::domain::id::MessageId;
use crate::domain::message::State;
use crate::store::memory::Now;
use crate::store::memory::lists::Seq;
use crate::store::memory::queue::{Place, Queue};
use crate::store::stats::{Cancelled, Found};

impl Queue {
    /// A message by its id, where the settings let it be found.
    fn look_up(&self, id: MessageId) -> Option<Seq> {
        let seq = *self.by_id.get(&id)?;
        let indexed = matches!(self.message(seq).place, Place::Scheduled { .. } | Place::Dead(_));
        (self.entry.settings.lookup || indexed).then_some(seq)
    }

    /// Finds a message, wherever it is.
    pub(super) fn find(&self, id: MessageId) -> Option<Found> {
        let Some(seq) = self.look_up(id) else { return self.find_ended(id) };
        let message = self.message(seq);
        let mut found = Found {
            state: State::Pending,
            reason: None,
            detail: None,
            ended_at: None,
            due_at: None,
            record: message.record().ok(),
            finished: None,
            history: message.log.iter().cloned().collect(),
        };
        match &message.place {
            Place::Pending(_) => {}
            Place::Leased => found.state = State::Leased,
            Place::Scheduled { due, .. } => (found.state, found.due_at) = (State::Scheduled, Some(*due)),
            Place::Dead(death) => {
                (found.state, found.reason) = (State::Dead, Some(death.reason));
                (found.detail, found.ended_at) = (death.detail.clone(), Some(death.died_at));
            }
        }
        Some(found)
    }

    fn find_ended(&self, id: MessageId) -> Option<Found> {
        let ended = self.endings.of(id)?;
        Some(Found {
            state: if ended.delivered { State::Delivered } else { State::Cancelled },
            reason: None,
            detail: None,
            ended_at: Some(ended.at),
            due_at: None,
            record: None,
            finished: Some(ended.finished.clone()),
            history: ended.log.iter().cloned().collect(),
        })
    }

    /// Cancels a message that is not leased.
    pub(super) fn cancel(&mut self, id: MessageId, now: Now) -> Cancelled {
        let Some(seq) = self.look_up(id) else {
            return if self.endings.of(id).is_some() { Cancelled::Finished } else { Cancelled::Unknown };
        };
        match self.message(seq).place {
            Place::Leased => Cancelled::Leased,
            Place::Dead(_) => Cancelled::Finished,
            Place::Pending(_) | Place::Scheduled { .. } => {
                self.counters.cancelled += 1;
                self.finish(seq, false, now);
                Cancelled::Cancelled
            }
        }
    }

    /// Removes what is pending and scheduled; gives how many.
    pub(super) fn purge(&mut self) -> u64 {
        let waits = |place: &Place| matches!(place, Place::Pending(_) | Place::Scheduled { .. });
        let all: Vec<Seq> =
            self.messages.iter().filter(|(_, message)| waits(&message.place)).map(|(seq, _)| *seq).collect();
        for seq in &all {
            self.remove(*seq);
        }
        self.counters.purged += all.len() as u64;
        all.len() as u64
    }
}
