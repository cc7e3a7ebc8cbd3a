//! Emptying queues: a purge and a deletion take hold at once, their rows go in steps.
//!
//! A purge writes the running number up to which everything that waits is gone. What waits later has a greater number, and
//! what was leased at that moment gets a new one whenever it comes back, so the number alone tells them apart. A deleted
//! queue leaves its number in `graves` until none of its rows is left; only then is the number given again.

use rusqlite::Row;

use crate::domain::id::MessageId;
use crate::domain::record::{self, Record};
use crate::store::SWEEP_BYTES_MAX;
use crate::store::sqlite::key::{Band, QueueNumber, Seq, places};
use crate::store::sqlite::state::Front;
use crate::store::sqlite::work::{Sql, Work};

const PURGED_DUE: &str = "
SELECT due.due_ms, due.seq, messages.record FROM due JOIN messages ON messages.seq = due.seq
WHERE due.queue = ?1 AND due.seq <= ?2 ORDER BY due.due_ms, due.seq";
const PURGED_ROWS: &str = "SELECT seq, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
const REMOVE_MESSAGE: &str = "DELETE FROM messages WHERE seq = ?1";
const BURIED_ROWS: &str =
    "SELECT seq, length(record) FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3";
const REMOVE_BURIED_ROWS: &str = "DELETE FROM messages WHERE seq BETWEEN ?1 AND ?2";
const BURIED_DEAD: &str = "
SELECT place, length(record) FROM dead_records WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3";
const REMOVE_BURIED_DEAD: &str = "DELETE FROM dead_records WHERE place BETWEEN ?1 AND ?2";
/// The small rows of a deleted queue, a step of each table.
const REMOVE_BURIED: [&str; 5] = [
    "DELETE FROM ids WHERE queue = ?1 AND id IN (SELECT id FROM ids WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM due WHERE (queue, due_ms, seq) IN (SELECT queue, due_ms, seq FROM due WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM attempts WHERE queue = ?1 AND id IN (SELECT id FROM attempts WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM keys WHERE queue = ?1 AND key IN (SELECT key FROM keys WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM dead WHERE place IN (SELECT place FROM dead WHERE queue = ?1 LIMIT ?2)",
];
/// The rows of a deleted queue whose keys are its places.
const REMOVE_BURIED_PLACES: [&str; 2] = [
    "DELETE FROM finished WHERE place IN (SELECT place FROM finished WHERE place BETWEEN ?1 AND ?2 LIMIT ?3)",
    "DELETE FROM batches WHERE place IN (SELECT place FROM batches WHERE place BETWEEN ?1 AND ?2 LIMIT ?3)",
];
const FILL_GRAVE: &str = "DELETE FROM graves WHERE queue = ?1";
/// Rows that one transaction removes at most.
const ROWS_STEP_MAX: usize = 2_000;

/// What a step may still remove.
struct Step {
    rows: usize,
    bytes: u64,
}

impl Step {
    const fn new() -> Self {
        Self { rows: 0, bytes: 0 }
    }

    /// Whether one more row of this size may go. The first one always may.
    fn take(&mut self, bytes: u64) -> bool {
        let fits = self.rows < ROWS_STEP_MAX && self.bytes + bytes <= SWEEP_BYTES_MAX;
        if fits || self.rows == 0 {
            self.rows += 1;
            self.bytes += bytes;
            return true;
        }
        false
    }
}

impl Work<'_> {
    /// Empties pending and scheduled; gives how many. What fits one step is removed at once.
    pub(super) fn purge(&mut self, number: QueueNumber) -> Sql<u64> {
        self.effects.durable = true;
        let queue = self.queue_mut(number);
        let gauges = &mut queue.tally.gauges;
        let purged = gauges.pending + gauges.scheduled;
        if purged == 0 {
            return Ok(0);
        }
        (gauges.pending, gauges.scheduled, gauges.bytes_waiting) = (0, 0, 0);
        queue.tally.counters.purged += purged;
        queue.tally.purged_to = queue.tally.last_number;
        queue.fronts = [Front::Empty; 6];
        queue.head.clear();
        queue.suspects.clear();
        queue.next_due = None;
        queue.purge_from = None;
        self.purge_step(number)?;
        Ok(purged)
    }

    /// Removes a step of purged rows; gives whether there are more.
    pub(super) fn purge_step(&mut self, number: QueueNumber) -> Sql<bool> {
        let mut step = Step::new();
        if self.purge_scheduled(number, &mut step)? && self.purge_pending(number, &mut step)? {
            let queue = self.queue_mut(number);
            queue.tally.purged_to = 0;
            queue.purge_from = None;
            return Ok(false);
        }
        Ok(true)
    }

    /// Removes purged rows of the schedule; gives whether none is left.
    fn purge_scheduled(&mut self, number: QueueNumber, step: &mut Step) -> Sql<bool> {
        let last = Seq::range_up_to(number, Band::Scheduled, self.queue(number).tally.purged_to).1;
        let mut gone = Vec::new();
        let mut done = true;
        {
            let mut statement = self.sql.prepare_cached(PURGED_DUE)?;
            let mut rows = statement.query((number, last))?;
            while let Some(row) = rows.next()? {
                let record = row.get_ref(2)?.as_blob()?;
                if !step.take(record::charged_bytes(record)) {
                    done = false;
                    break;
                }
                let due_ms: u64 = row.get(0)?;
                gone.push((due_ms, row.get::<_, Seq>(1)?, Record::peek_id(record)));
            }
        }
        for (due_ms, seq, id) in gone {
            self.remove_due(seq, due_ms)?;
            self.remove_purged(seq, id)?;
        }
        Ok(done)
    }

    /// Removes purged rows of the lists, passing over what is leased; gives whether none is left.
    fn purge_pending(&mut self, number: QueueNumber, step: &mut Step) -> Sql<bool> {
        let from = self.queue(number).purge_from.unwrap_or(Seq::range_of_queue(number).0);
        for band in Band::ALL.into_iter().filter(|band| *band != Band::Scheduled) {
            let (first, last) = Seq::range_up_to(number, band, self.queue(number).tally.purged_to);
            let mut gone = Vec::new();
            let mut full_at = None;
            if last >= from {
                let mut statement = self.sql.prepare_cached(PURGED_ROWS)?;
                let mut rows = statement.query((first.max(from), last))?;
                while let Some(row) = rows.next()? {
                    let seq: Seq = row.get(0)?;
                    if self.state.leased.contains(&seq) {
                        continue;
                    }
                    let record = row.get_ref(1)?.as_blob()?;
                    if !step.take(record::charged_bytes(record)) {
                        full_at = Some(seq);
                        break;
                    }
                    gone.push((seq, Record::peek_id(record)));
                }
            }
            for (seq, id) in gone {
                self.remove_purged(seq, id)?;
            }
            if full_at.is_some() {
                self.queue_mut(number).purge_from = full_at;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remove_purged(&mut self, seq: Seq, id: Option<MessageId>) -> Sql<()> {
        self.sql.prepare_cached(REMOVE_MESSAGE)?.execute([seq])?;
        if let Some(id) = id {
            self.unindex(seq, id)?;
            self.log_of_leaving(seq, id)?;
        }
        Ok(())
    }

    /// Removes a step of the rows of deleted queues; gives whether there are more.
    pub(super) fn dig(&mut self) -> Sql<bool> {
        let Some(number) = self.state.graves.first().copied() else { return Ok(false) };
        let (first, last) = Seq::range_of_queue(number);
        let (place_first, place_last) = places(number);
        let mut more = self.dig_range(BURIED_ROWS, REMOVE_BURIED_ROWS, first.to_bits(), last.to_bits())?;
        more |= self.dig_range(BURIED_DEAD, REMOVE_BURIED_DEAD, place_first, place_last)?;
        for text in REMOVE_BURIED {
            more |= self.sql.prepare_cached(text)?.execute((number, ROWS_STEP_MAX))? == ROWS_STEP_MAX;
        }
        for text in REMOVE_BURIED_PLACES {
            let step = (place_first, place_last, ROWS_STEP_MAX);
            more |= self.sql.prepare_cached(text)?.execute(step)? == ROWS_STEP_MAX;
        }
        if !more {
            self.sql.prepare_cached(FILL_GRAVE)?.execute([number])?;
            self.state.graves.remove(&number);
        }
        Ok(more || !self.state.graves.is_empty())
    }

    /// Removes the first rows of a range of keys, up to a step's rows and bytes; gives whether there are more.
    fn dig_range(&self, look: &str, remove: &str, first: i64, last: i64) -> Sql<bool> {
        let mut step = Step::new();
        let mut until = None;
        let mut more = false;
        {
            let mut statement = self.sql.prepare_cached(look)?;
            let key_and_length = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?));
            for row in statement.query_map((first, last, ROWS_STEP_MAX + 1), key_and_length)? {
                let (key, length) = row?;
                if !step.take(length) {
                    more = true;
                    break;
                }
                until = Some(key);
            }
        }
        if let Some(until) = until {
            self.sql.prepare_cached(remove)?.execute((first, until))?;
        }
        Ok(more)
    }
}
