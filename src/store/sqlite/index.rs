//! Bringing the id index of a queue in line when `lookup` is switched, in bounded steps.

use rusqlite::Row;

use crate::domain::record::Record;
use crate::store::sqlite::key::{Band, QueueNumber, Seq};
use crate::store::sqlite::state::{IndexFrom, Indexing};
use crate::store::sqlite::work::{Sql, Work};

const ROWS: &str = "SELECT seq, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3";
const ENTER: &str = "INSERT INTO ids (queue, id, seq) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const ENTRIES: &str = "SELECT id, seq FROM ids WHERE queue = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const REMOVE: &str = "DELETE FROM ids WHERE queue = ?1 AND id = ?2";
/// Rows or entries that one step looks at.
const STEP_MAX: usize = 2_000;
/// Bytes of records that one step reads; one record may exceed them alone.
const STEP_BYTES_MAX: usize = 4 << 20;

impl Work<'_> {
    /// Notes that `lookup` was switched, and takes the first step.
    pub(super) fn reindex(&mut self, number: QueueNumber, lookup: bool) -> Sql<()> {
        let queue = self.queue_mut(number);
        queue.tally.indexing = if lookup { Indexing::Filling } else { Indexing::Clearing };
        queue.index_from = IndexFrom::default();
        self.index_step(number)?;
        Ok(())
    }

    /// Takes one step; gives whether there are more.
    pub(super) fn index_step(&mut self, number: QueueNumber) -> Sql<bool> {
        let done = match self.queue(number).tally.indexing {
            Indexing::Done => true,
            Indexing::Filling => self.fill_index(number)?,
            Indexing::Clearing => self.clear_index(number)?,
        };
        if done {
            self.queue_mut(number).tally.indexing = Indexing::Done;
        }
        Ok(!done)
    }

    fn fill_index(&mut self, number: QueueNumber) -> Sql<bool> {
        let (first, last) = Seq::range_of_queue(number);
        let from = self.queue(number).index_from.row.unwrap_or(first);
        let mut statement = self.sql.prepare_cached(ROWS)?;
        let mut rows = statement.query((from, last, STEP_MAX))?;
        let (mut looked_at, mut bytes, mut next) = (0, 0, from);
        while let Some(row) = rows.next()? {
            let seq: Seq = row.get(0)?;
            let record = row.get_ref(1)?.as_blob()?;
            let waits_in_vain = self.queue(number).is_purged(seq) && !self.state.leased.contains(&seq);
            if let Some(id) = Record::peek_id(record).filter(|_| !waits_in_vain) {
                self.sql.prepare_cached(ENTER)?.execute((number, id.as_bytes(), seq))?;
            }
            looked_at += 1;
            bytes += record.len();
            next = seq.next();
            if bytes >= STEP_BYTES_MAX {
                break;
            }
        }
        let done = looked_at < STEP_MAX && bytes < STEP_BYTES_MAX;
        drop(rows);
        drop(statement);
        self.queue_mut(number).index_from.row = Some(next);
        Ok(done)
    }

    fn clear_index(&mut self, number: QueueNumber) -> Sql<bool> {
        let from = self.queue(number).index_from.id;
        let entry = |row: &Row<'_>| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Seq>(1)?));
        let mut statement = self.sql.prepare_cached(ENTRIES)?;
        let entries: Vec<_> = statement.query_map((number, from, STEP_MAX), entry)?.collect::<Sql<_>>()?;
        for (id, seq) in &entries {
            if seq.band() != Band::Scheduled {
                self.sql.prepare_cached(REMOVE)?.execute((number, id))?;
            }
        }
        drop(statement);
        if let Some((id, _)) = entries.last() {
            self.queue_mut(number).index_from.id = *id;
        }
        Ok(entries.len() < STEP_MAX)
    }
}
