//! Moving messages between places: rows, indexes, fronts and gauges change here and only here.
//!
//! A move is one `UPDATE` of the row's key, so a message is never in two places and never in none. Whoever moves a message
//! out of a place lowers that place's gauges first ([`Work::leave`]); the functions here raise those of where it goes.

use crate::domain::id::MessageId;
use crate::domain::record::{self, Record};
use crate::domain::timestamp::Timestamp;
use crate::store::sqlite::key::{Band, QueueNumber, Seq};
use crate::store::sqlite::state::{Front, Moving};
use crate::store::sqlite::work::{Sql, Work, hot, kept_ms, one};
use crate::store::turns::List;

const INSERT_MESSAGE: &str = "INSERT INTO messages (seq, at_ms, record) VALUES (?1, ?2, ?3)";
const MOVE_MESSAGE: &str = "UPDATE messages SET seq = ?2, at_ms = ?3 WHERE seq = ?1";
const REWRITE_MESSAGE: &str = "UPDATE messages SET seq = ?2, at_ms = ?3, record = ?4 WHERE seq = ?1";
const REMOVE_MESSAGE: &str = "DELETE FROM messages WHERE seq = ?1";
const READ_MESSAGE: &str = "SELECT at_ms, record FROM messages WHERE seq = ?1";
const ENTER_ID: &str = "
INSERT INTO ids (queue, id, seq) VALUES (?1, ?2, ?3) ON CONFLICT (queue, id) DO UPDATE SET seq = excluded.seq";
const REMOVE_ID: &str = "DELETE FROM ids WHERE queue = ?1 AND id = ?2 AND seq = ?3";
const FIND_ID: &str = "SELECT seq FROM ids WHERE queue = ?1 AND id = ?2";
const ID_OF: &str = "SELECT id FROM ids WHERE queue = ?1 AND seq = ?2";
const ENTER_DUE: &str = "INSERT INTO due (queue, due_ms, seq) VALUES (?1, ?2, ?3)";
const REMOVE_DUE: &str = "DELETE FROM due WHERE queue = ?1 AND due_ms = ?2 AND seq = ?3";

/// A place that a message leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// One of the lists.
    Pending,
    /// The schedule.
    Scheduled,
    /// A batch.
    Leased,
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Behind all others of a list, or before them.
    List(List, bool),
    /// Waits for its time.
    Scheduled(Timestamp),
}

impl Moving {
    /// What is known of a message from its row, readable or not.
    pub(super) fn of_row(seq: Seq, at_ms: u64, id: MessageId, bytes: &[u8], suspect: bool) -> Self {
        let in_record = Record::peek_priority(bytes).unwrap_or_default();
        let (priority, accepted_ms) = match seq.band() {
            Band::Fresh(priority) | Band::Returned(priority) => (priority, at_ms),
            Band::Apart => (in_record, at_ms),
            Band::Scheduled => {
                (in_record, Record::peek_accepted_at(bytes).map_or(at_ms, Timestamp::as_millis))
            }
        };
        Self { id, priority, accepted_ms, charged: record::charged_bytes(bytes), suspect }
    }
}

impl Work<'_> {
    /// Adds the row of a new message.
    pub(super) fn add(
        &mut self,
        number: QueueNumber,
        moving: &Moving,
        target: Target,
        bytes: &[u8],
    ) -> Sql<()> {
        let (seq, at_ms) = self.key_for(number, moving, target)?;
        hot(&mut self.hot.insert_message, self.sql, INSERT_MESSAGE)?.execute((seq, at_ms, bytes))?;
        self.arrive(number, moving, target, seq)?;
        self.index(moving.id, None, seq)
    }

    /// Moves the row of a message that left its place; with `bytes`, its record is these from now on.
    pub(super) fn move_row(
        &mut self,
        from: Seq,
        moving: &Moving,
        target: Target,
        bytes: Option<&[u8]>,
    ) -> Sql<()> {
        let (seq, at_ms) = self.key_for(from.queue(), moving, target)?;
        match bytes {
            None => hot(&mut self.hot.move_message, self.sql, MOVE_MESSAGE)?.execute((from, seq, at_ms))?,
            Some(bytes) => self.sql.prepare_cached(REWRITE_MESSAGE)?.execute((from, seq, at_ms, bytes))?,
        };
        self.arrive(from.queue(), moving, target, seq)?;
        self.index(moving.id, Some(from), seq)
    }

    /// Makes a message pending again that is not fresh any more: a suspect apart, all others in the returned list.
    pub(super) fn put_back(&mut self, from: Seq, moving: &Moving, bytes: Option<&[u8]>) -> Sql<()> {
        let list = if moving.suspect { List::Suspects } else { List::Returned(moving.priority) };
        self.wake(from.queue());
        self.move_row(from, moving, Target::List(list, false), bytes)
    }

    /// Makes a message pending again before all others of its kind.
    pub(super) fn put_first(&mut self, from: Seq, moving: &Moving, bytes: Option<&[u8]>) -> Sql<()> {
        let list = if moving.suspect { List::Suspects } else { List::Head };
        self.wake(from.queue());
        self.move_row(from, moving, Target::List(list, true), bytes)
    }

    /// Makes a message wait until `due`; not at all when that is now or over.
    pub(super) fn schedule(
        &mut self,
        from: Seq,
        moving: &Moving,
        due: Timestamp,
        bytes: Option<&[u8]>,
    ) -> Sql<()> {
        if due <= self.now.wall {
            return self.put_back(from, moving, bytes);
        }
        self.move_row(from, moving, Target::Scheduled(due), bytes)
    }

    /// Lowers the gauges of a place for so many messages that leave it.
    pub(super) fn leave(&mut self, number: QueueNumber, place: Place, messages: u64, bytes: u64) {
        let gauges = &mut self.queue_mut(number).tally.gauges;
        let (count, charged) = match place {
            Place::Pending => (&mut gauges.pending, &mut gauges.bytes_waiting),
            Place::Scheduled => (&mut gauges.scheduled, &mut gauges.bytes_waiting),
            Place::Leased => (&mut gauges.leased, &mut gauges.bytes_leased),
        };
        *count -= messages;
        *charged -= bytes;
    }

    fn key_for(&mut self, number: QueueNumber, moving: &Moving, target: Target) -> Sql<(Seq, i64)> {
        let running = self.next_number(number)?;
        let accepted_ms = i64::try_from(moving.accepted_ms).unwrap_or(i64::MAX);
        Ok(match target {
            Target::List(list, first) => (Seq::in_list(number, list, running, first), accepted_ms),
            Target::Scheduled(due) => (Seq::scheduled(number, running), kept_ms(due)),
        })
    }

    fn arrive(&mut self, number: QueueNumber, moving: &Moving, target: Target, seq: Seq) -> Sql<()> {
        let queue = self.queue_mut(number);
        let gauges = &mut queue.tally.gauges;
        gauges.bytes_waiting += moving.charged;
        let (list, first) = match target {
            Target::Scheduled(due) => {
                gauges.scheduled += 1;
                queue.next_due = Some(queue.next_due.map_or(due, |next| next.min(due)));
                hot(&mut self.hot.enter_due, self.sql, ENTER_DUE)?.execute((number, kept_ms(due), seq))?;
                self.comes(due);
                return Ok(());
            }
            Target::List(list, first) => (list, first),
        };
        gauges.pending += 1;
        let apart = (seq, moving.accepted_ms);
        let waiting = match list {
            List::Suspects => &mut queue.suspects,
            List::Head => &mut queue.head,
            List::Fresh(_) | List::Returned(_) => {
                if let Some(front @ Front::Empty) = queue.front_mut(list) {
                    *front = Front::At(seq, moving.accepted_ms);
                }
                return Ok(());
            }
        };
        if first {
            waiting.push_front(apart);
        } else {
            waiting.push_back(apart);
        }
        Ok(())
    }

    /// Brings the id index in line with a row that went from `from` to `to`.
    fn index(&mut self, id: MessageId, from: Option<Seq>, to: Seq) -> Sql<()> {
        let is_indexed = self.queue(to.queue()).is_indexed();
        if is_indexed || to.band() == Band::Scheduled {
            hot(&mut self.hot.enter_id, self.sql, ENTER_ID)?.execute((to.queue(), id.as_bytes(), to))?;
        } else if let Some(from) = from.filter(|from| from.band() == Band::Scheduled) {
            self.remove_id(from, id)?;
        }
        Ok(())
    }

    /// Removes the entry of a row from the id index, if it may have one.
    pub(super) fn unindex(&mut self, seq: Seq, id: MessageId) -> Sql<()> {
        if self.queue(seq.queue()).is_indexed() || seq.band() == Band::Scheduled {
            self.remove_id(seq, id)?;
        }
        Ok(())
    }

    fn remove_id(&mut self, seq: Seq, id: MessageId) -> Sql<()> {
        hot(&mut self.hot.remove_id, self.sql, REMOVE_ID)?.execute((seq.queue(), id.as_bytes(), seq))?;
        Ok(())
    }

    /// The row that the id index names.
    pub(super) fn find_row(&self, number: QueueNumber, id: MessageId) -> Sql<Option<Seq>> {
        one(self.sql.prepare_cached(FIND_ID)?.query_row((number, id.as_bytes()), |row| row.get(0)))
    }

    /// A row: when it is due or was accepted, and its record.
    pub(super) fn read_row(&self, seq: Seq) -> Sql<Option<(u64, Vec<u8>)>> {
        one(self.sql.prepare_cached(READ_MESSAGE)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))))
    }

    /// Removes the row of a message and its entry in the id index. Its attempts stay.
    pub(super) fn remove_row(&mut self, seq: Seq, id: MessageId) -> Sql<()> {
        hot(&mut self.hot.remove_message, self.sql, REMOVE_MESSAGE)?.execute([seq])?;
        self.unindex(seq, id)
    }

    /// Removes the entry of a scheduled row from the schedule.
    pub(super) fn remove_due(&mut self, seq: Seq, due_ms: u64) -> Sql<()> {
        hot(&mut self.hot.remove_due, self.sql, REMOVE_DUE)?.execute((seq.queue(), due_ms, seq))?;
        Ok(())
    }

    /// Forgets that a pending row is the front of its list, or that it waits apart.
    pub(super) fn unlist(&mut self, seq: Seq) {
        let queue = self.queue_mut(seq.queue());
        let list = match seq.band() {
            Band::Fresh(priority) => List::Fresh(priority),
            Band::Returned(priority) => List::Returned(priority),
            Band::Apart => {
                queue.head.retain(|(other, _)| *other != seq);
                queue.suspects.retain(|(other, _)| *other != seq);
                return;
            }
            Band::Scheduled => return,
        };
        if let Some(front) = queue.front_mut(list)
            && matches!(*front, Front::At(first, _) if first == seq)
        {
            *front = Front::From(seq.next());
        }
    }

    /// The id of a row whose record may be damaged: what its bytes say if the id index agrees or knows nothing, else what
    /// the index says.
    pub(super) fn true_id(&self, seq: Seq, bytes: &[u8]) -> Sql<MessageId> {
        let said = Record::peek_id(bytes);
        if let Some(id) = said
            && self.find_row(seq.queue(), id)? == Some(seq)
        {
            return Ok(id);
        }
        let entered = self.sql.prepare_cached(ID_OF)?.query_row((seq.queue(), seq), |row| row.get(0));
        let nameless = || {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&seq.to_bits().to_be_bytes());
            MessageId::from_bytes(id)
        };
        Ok(one(entered)?.map(MessageId::from_bytes).or(said).unwrap_or_else(nameless))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Priority;

    #[test]
    fn what_is_known_of_a_row_comes_from_its_key_first() {
        let seq = Seq::in_list(1, List::Returned(Priority::Low), 5, false);
        let moving = Moving::of_row(seq, 77, MessageId::from_bytes([1; 16]), b"junk", false);
        assert_eq!((moving.priority, moving.accepted_ms, moving.charged), (Priority::Low, 77, 0));
        let scheduled =
            Moving::of_row(Seq::scheduled(1, 6), 78, MessageId::from_bytes([1; 16]), b"junk", true);
        assert_eq!(
            (scheduled.priority, scheduled.accepted_ms, scheduled.suspect),
            (Priority::Normal, 78, true)
        );
    }
}
