//! Finding and cancelling one message by its id, and bringing scheduled ones forward.

use bytes::Bytes;

use crate::domain::id::MessageId;
use crate::domain::message::{Headers, State as MessageState};
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::sqlite::history::attempts_of;
use crate::store::sqlite::key::{Band, QueueNumber, Seq};
use crate::store::sqlite::letters;
use crate::store::sqlite::moves::Place;
use crate::store::sqlite::pack::Ending;
use crate::store::sqlite::state::Moving;
use crate::store::sqlite::work::{Sql, Work};
use crate::store::stats::{Cancelled, Finished, Found};
use crate::store::{SWEEP_BYTES_MAX, Scheduled};

impl Work<'_> {
    /// The row of a message where the settings let it be found.
    fn look_up(&self, number: QueueNumber, id: MessageId) -> Sql<Option<Seq>> {
        let queue = self.queue(number);
        let lookup = queue.entry.settings.lookup;
        let is_there = |seq: &Seq| self.state.leased.contains(seq) || !queue.is_purged(*seq);
        let row = self.find_row(number, id)?;
        Ok(row.filter(is_there).filter(|seq| lookup || seq.band() == Band::Scheduled))
    }

    /// Finds a message that is in the queue or dead; what ended is found by a reader.
    pub(super) fn find(&self, number: QueueNumber, id: MessageId) -> Sql<Option<Found>> {
        let row = match self.look_up(number, id)? {
            Some(seq) => self.read_row(seq)?.map(|row| (seq, row)),
            None => None,
        };
        let Some((seq, (at_ms, bytes))) = row else { return self.find_dead(number, id) };
        let (state, due_at) = if self.state.leased.contains(&seq) {
            (MessageState::Leased, None)
        } else if seq.band() == Band::Scheduled {
            (MessageState::Scheduled, Some(Timestamp::from_millis(at_ms)))
        } else {
            (MessageState::Pending, None)
        };
        Ok(Some(Found {
            state,
            reason: None,
            detail: None,
            ended_at: None,
            due_at,
            record: Record::decode(bytes.into()).ok(),
            finished: None,
            history: attempts_of(self.sql, number, id)?,
        }))
    }

    fn find_dead(&self, number: QueueNumber, id: MessageId) -> Sql<Option<Found>> {
        let letter = letters::whole(self.sql, number, id)?;
        Ok(letter.map(|letter| Found {
            state: MessageState::Dead,
            reason: Some(letter.reason),
            detail: letter.detail,
            ended_at: Some(letter.died_at),
            due_at: None,
            record: letter.record,
            finished: None,
            history: letter.history,
        }))
    }

    /// Cancels a message that is not leased. Whether an unknown one is finished is for a reader to say.
    pub(super) fn cancel(&mut self, number: QueueNumber, id: MessageId) -> Sql<Cancelled> {
        self.effects.durable = true;
        let row = match self.look_up(number, id)? {
            Some(seq) if self.state.leased.contains(&seq) => return Ok(Cancelled::Leased),
            Some(seq) => self.read_row(seq)?.map(|row| (seq, row)),
            None => None,
        };
        let Some((seq, (at_ms, bytes))) = row else {
            let dead = letters::whole(self.sql, number, id)?.is_some();
            return Ok(if dead { Cancelled::Finished } else { Cancelled::Unknown });
        };
        let moving = Moving::of_row(seq, at_ms, id, &bytes, false);
        let log = self.log_of_leaving(seq, id)?;
        self.remove_row(seq, id)?;
        if seq.band() == Band::Scheduled {
            self.remove_due(seq, at_ms)?;
            self.leave(number, Place::Scheduled, 1, moving.charged);
            if self.queue(number).next_due == Some(Timestamp::from_millis(at_ms)) {
                self.look_for_due(number)?;
            }
        } else {
            self.unlist(seq);
            self.leave(number, Place::Pending, 1, moving.charged);
        }
        self.queue_mut(number).tally.counters.cancelled += 1;
        let finished = cancelled(&moving, Record::decode(Bytes::from(bytes)).ok().as_ref());
        self.remember(number, &[Ending { id, delivered: false, finished, log }])?;
        Ok(Cancelled::Cancelled)
    }

    /// Makes scheduled messages pending before their time, until enough was read; gives which of those that were looked at. What a
    /// power loss undoes comes when it is due.
    pub(super) fn bring_forward(&mut self, number: QueueNumber, scheduled: &[Scheduled]) -> Sql<Vec<bool>> {
        let next_due = self.queue(number).next_due;
        let (mut promoted, mut bytes_read, mut was_next) = (Vec::with_capacity(scheduled.len()), 0, false);
        for one in scheduled {
            if bytes_read >= SWEEP_BYTES_MAX {
                break;
            }
            let Some((seq, due_ms, bytes)) = self.read_scheduled(number, one.id)? else {
                promoted.push(false);
                continue;
            };
            bytes_read += bytes.len() as u64;
            let record = Record::decode(bytes.into()).ok();
            let is_meant =
                |record: &Record| record.attempts() == one.attempts && !record.is_expired(self.now.wall);
            let record = record.filter(is_meant);
            promoted.push(record.is_some());
            if let Some(record) = record {
                let moving = Moving::of_row(seq, due_ms, one.id, record.bytes(), record.is_suspect());
                self.remove_due(seq, due_ms)?;
                self.leave(number, Place::Scheduled, 1, moving.charged);
                self.put_back(seq, &moving, None)?;
                was_next |= next_due == Some(Timestamp::from_millis(due_ms));
            }
        }
        if was_next {
            self.look_for_due(number)?;
        }
        Ok(promoted)
    }

    /// The row of a scheduled message, when it is due, and its record.
    fn read_scheduled(&self, number: QueueNumber, id: MessageId) -> Sql<Option<(Seq, u64, Vec<u8>)>> {
        let queue = self.queue(number);
        let row = self.find_row(number, id)?;
        let Some(seq) = row.filter(|seq| seq.band() == Band::Scheduled && !queue.is_purged(*seq)) else {
            return Ok(None);
        };
        Ok(self.read_row(seq)?.map(|(due_ms, bytes)| (seq, due_ms, bytes)))
    }
}

/// What the history is to say of a cancelled message, whose record may be damaged.
fn cancelled(moving: &Moving, record: Option<&Record>) -> Finished {
    let headers = record.and_then(|record| Headers::decode(&record.headers()));
    Finished {
        accepted_at: Timestamp::from_millis(moving.accepted_ms),
        attempts: record.map_or(0, Record::attempts),
        attempts_max: record.map_or(0, Record::attempts_max),
        priority: moving.priority,
        payload_bytes: record.map_or(0, |record| record.payload().len() as u64),
        content_type: headers.map(|headers| headers.content_type).unwrap_or_default(),
    }
}
