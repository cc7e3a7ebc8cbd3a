//! The attempt log and the finished messages: what is remembered beside the messages, and may be shed.
//!
//! A message's attempts are one row for as long as it is in the queue or dead; when it ends well they go with it into the
//! page of what finished in the same settlement, together with the attempt that ended it, which has no row of its own. Pages are numbered by their first entry, so that exactly the last
//! `history.finished_max` count, wherever in a page the bound falls.

use std::collections::VecDeque;

use rusqlite::{Connection, Row};

use crate::domain::id::MessageId;
use crate::domain::message::State;
use crate::domain::outcome::Attempt;
use crate::domain::timestamp::Timestamp;
use crate::store::sqlite::key::{Band, QueueNumber, Seq, number_of_place, place, places};
use crate::store::sqlite::pack::{Ending, pack_attempts, pack_ending, unpack_attempts, unpack_endings};
use crate::store::sqlite::work::{Sql, Work, kept_ms, one};
use crate::store::stats::Found;

const READ_LOG: &str = "SELECT log FROM attempts WHERE queue = ?1 AND id = ?2";
const WRITE_LOG: &str = "
INSERT INTO attempts (queue, id, log) VALUES (?1, ?2, ?3) ON CONFLICT (queue, id) DO UPDATE SET log = excluded.log";
const REMOVE_LOG: &str = "DELETE FROM attempts WHERE queue = ?1 AND id = ?2";
const ADD_PAGE: &str = "
INSERT INTO finished (place, ended_ms, entries, id_first, id_last, pack) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const REMOVE_PAGES: &str = "
DELETE FROM finished WHERE place IN
    (SELECT place FROM finished WHERE place BETWEEN ?1 AND ?2 AND place + entries <= ?3 ORDER BY place LIMIT ?4)
RETURNING length(pack)";
const OLDEST_PAGE: &str =
    "SELECT place, ended_ms, entries FROM finished WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT 1";
const FIND_PAGES: &str = "
SELECT place, ended_ms, pack FROM finished
WHERE place BETWEEN ?1 AND ?2 AND ?3 BETWEEN id_first AND id_last ORDER BY place DESC";
const READ_FLOOR: &str = "SELECT finished_floor FROM counts WHERE queue = ?1";
/// Bytes of a queue's attempt log, beyond which attempts are not remembered; and of its finished messages, beyond which the
/// oldest are forgotten.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Pages that are removed in one step at most.
const PAGES_STEP_MAX: u32 = 64;

/// What is remembered of the attempts of a message that is in the queue or dead, oldest first.
pub(super) fn attempts_of(sql: &Connection, number: QueueNumber, id: MessageId) -> Sql<Vec<Attempt>> {
    let mut statement = sql.prepare_cached(READ_LOG)?;
    let log =
        statement.query_row((number, id.as_bytes()), |row| Ok(unpack_attempts(row.get_ref(0)?.as_blob()?)));
    Ok(one(log)?.unwrap_or_default())
}

/// What is remembered of a message that was delivered or cancelled.
pub(super) fn find_finished(sql: &Connection, number: QueueNumber, id: MessageId) -> Sql<Option<Found>> {
    let floor: Option<u64> = one(sql.prepare_cached(READ_FLOOR)?.query_row([number], |row| row.get(0)))?;
    let Some(floor) = floor else { return Ok(None) };
    let (first, last) = places(number);
    let mut statement = sql.prepare_cached(FIND_PAGES)?;
    let mut rows = statement.query((first, last, id.as_bytes()))?;
    while let Some(row) = rows.next()? {
        let page = number_of_place(row.get(0)?);
        let ended_at = Timestamp::from_millis(row.get(1)?);
        let mut endings = unpack_endings(row.get_ref(2)?.as_blob()?).rev();
        if let Some((_, ending)) = endings.find(|(index, ending)| ending.id == id && page + index >= floor) {
            return Ok(Some(found(ending, ended_at)));
        }
    }
    Ok(None)
}

fn found(ending: Ending, ended_at: Timestamp) -> Found {
    Found {
        state: if ending.delivered { State::Delivered } else { State::Cancelled },
        reason: None,
        detail: None,
        ended_at: Some(ended_at),
        due_at: None,
        record: None,
        finished: Some(ending.finished),
        history: ending.log,
    }
}

impl Work<'_> {
    /// Whether a message may have attempts in the log: what was never leased has none.
    fn may_be_logged(&self, seq: Seq) -> bool {
        !matches!(seq.band(), Band::Fresh(_)) && self.queue(seq.queue()).tally.log_bytes > 0
    }

    /// The HTTP status of the last attempt that is remembered.
    pub(super) fn last_status(&self, seq: Seq, id: MessageId) -> Sql<Option<u16>> {
        if !self.may_be_logged(seq) {
            return Ok(None);
        }
        Ok(attempts_of(self.sql, seq.queue(), id)?.last().and_then(|attempt| attempt.status))
    }

    /// Remembers an attempt of a message, unless there is no room for it.
    pub(super) fn log(&mut self, number: QueueNumber, id: MessageId, attempt: Attempt) -> Sql<()> {
        let most = usize::from(self.queue(number).entry.settings.history.attempts);
        if self.shed || self.queue(number).tally.log_bytes >= LOG_BYTES_MAX {
            return Ok(());
        }
        let before = self.take_log(number, id)?;
        let mut log: VecDeque<Attempt> = before.into();
        log.push_back(attempt);
        while log.len() > most {
            log.pop_front();
        }
        if !log.is_empty() {
            let mut bytes = Vec::new();
            pack_attempts(&mut bytes, log.make_contiguous());
            self.sql.prepare_cached(WRITE_LOG)?.execute((number, id.as_bytes(), &bytes))?;
            self.queue_mut(number).tally.log_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Removes the log of a message and gives it.
    fn take_log(&mut self, number: QueueNumber, id: MessageId) -> Sql<Vec<Attempt>> {
        let mut statement = self.sql.prepare_cached(READ_LOG)?;
        let log = one(statement.query_row((number, id.as_bytes()), |row| {
            let bytes = row.get_ref(0)?.as_blob()?;
            Ok((bytes.len() as u64, unpack_attempts(bytes)))
        }))?;
        let Some((bytes, log)) = log else { return Ok(Vec::new()) };
        self.sql.prepare_cached(REMOVE_LOG)?.execute((number, id.as_bytes()))?;
        self.queue_mut(number).tally.log_bytes -= bytes;
        Ok(log)
    }

    /// Removes what is remembered of the attempts of a message that is gone for good.
    pub(super) fn forget_attempts(&mut self, number: QueueNumber, id: MessageId) -> Sql<()> {
        if self.queue(number).tally.log_bytes > 0 {
            self.take_log(number, id)?;
        }
        Ok(())
    }

    /// The log of a message that leaves its row for good, to go with it.
    pub(super) fn log_of_leaving(&mut self, seq: Seq, id: MessageId) -> Sql<Vec<Attempt>> {
        if self.may_be_logged(seq) { self.take_log(seq.queue(), id) } else { Ok(Vec::new()) }
    }

    /// Remembers messages that were delivered or cancelled just now, as one page.
    pub(super) fn remember(&mut self, number: QueueNumber, endings: &[Ending]) -> Sql<()> {
        let most = self.queue(number).entry.settings.history.finished_max;
        if self.shed || most == 0 || endings.is_empty() {
            return Ok(());
        }
        let mut pack = Vec::with_capacity(endings.len() * 96);
        for ending in endings {
            pack_ending(&mut pack, ending);
        }
        let ids = || endings.iter().map(|ending| ending.id);
        let (id_first, id_last) = (ids().min().unwrap_or_else(none), ids().max().unwrap_or_else(none));
        let ended_ms = kept_ms(self.now.wall);
        let tally = &mut self.queue_mut(number).tally;
        let page = tally.finished_next;
        tally.finished_next += endings.len() as u64;
        tally.finished_floor = tally.finished_floor.max(tally.finished_next.saturating_sub(most));
        tally.finished_bytes += pack.len() as u64;
        let row =
            (place(number, page), ended_ms, endings.len(), id_first.as_bytes(), id_last.as_bytes(), pack);
        self.sql.prepare_cached(ADD_PAGE)?.execute(row)?;
        self.remove_pages(number)?;
        if self.queue(number).tally.finished_bytes > LOG_BYTES_MAX {
            self.forget_pages(number, |_| true, 1)?;
        }
        let oldest = &mut self.queue_mut(number).oldest;
        oldest.finish = oldest.finish.min(ended_ms.unsigned_abs());
        Ok(())
    }

    /// Removes pages that lie below the floor, a bounded number of them.
    fn remove_pages(&mut self, number: QueueNumber) -> Sql<()> {
        let (first, last) = places(number);
        let floor = place(number, self.queue(number).tally.finished_floor);
        let mut statement = self.sql.prepare_cached(REMOVE_PAGES)?;
        let removed = statement
            .query_map((first, last.min(floor), floor, PAGES_STEP_MAX), |row| row.get::<_, u64>(0))?;
        let bytes: u64 = removed.sum::<Sql<u64>>()?;
        self.queue_mut(number).tally.finished_bytes -= bytes;
        Ok(())
    }

    /// Forgets finished messages that are beyond their number or their time, a bounded number of pages.
    pub(super) fn forget_finished(&mut self, number: QueueNumber) -> Sql<()> {
        let queue = self.queue(number);
        let history = &queue.entry.settings.history;
        let past_ms = self.now.wall.saturating_sub(history.retention).as_millis();
        let floor = queue.tally.finished_next.saturating_sub(history.finished_max);
        if floor > queue.tally.finished_floor {
            self.queue_mut(number).tally.finished_floor = floor;
            self.remove_pages(number)?;
        }
        if self.queue(number).oldest.finish <= past_ms {
            self.forget_pages(number, |ended_ms| ended_ms <= past_ms, PAGES_STEP_MAX)?;
        }
        Ok(())
    }

    /// Forgets up to `most` pages, oldest first, as long as they are `over`.
    fn forget_pages(&mut self, number: QueueNumber, over: impl Fn(u64) -> bool, most: u32) -> Sql<()> {
        let (first, last) = places(number);
        for _ in 0..most {
            let read =
                |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?));
            let oldest = one(self.sql.prepare_cached(OLDEST_PAGE)?.query_row((first, last), read))?;
            let queue = self.queue_mut(number);
            match oldest {
                Some((page, ended_ms, entries)) if over(ended_ms) => {
                    let floor = number_of_place(page) + entries;
                    queue.tally.finished_floor = queue.tally.finished_floor.max(floor);
                    self.remove_pages(number)?;
                }
                other => {
                    queue.oldest.finish = other.map_or(u64::MAX, |(_, ended_ms, _)| ended_ms);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

const fn none() -> MessageId {
    MessageId::from_bytes([0; 16])
}
