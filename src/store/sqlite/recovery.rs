//! Building the cache from the file: at start, and again after every rollback.
//!
//! The file alone says what is true; this is the one path from it to memory. What the file does not have is carried over
//! from the cache that is dropped: where the wheels stand, how far workers have extended their leases, and the marks of
//! workers' batches, less those that the undone transaction had set. Nothing here reads messages that wait: the cost is that of
//! the queues and of what is leased.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Row};

use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::lease::{BatchId, LeaseKind, Token};
use crate::store::sqlite::batch::{Batch, Fate, Held, KeptSlot, Mark, Slot, unpack_slots};
use crate::store::sqlite::counts;
use crate::store::sqlite::key::{Band, QueueNumber, Seq, number_of_place, places};
use crate::store::sqlite::state::{Now, Queue, State};
use crate::store::sqlite::work::{Sql, Work, one};

const READ_TRANSACTIONS: &str = "SELECT transactions FROM meta";
const READ_GRAVES: &str = "SELECT queue FROM graves";
const READ_BATCHES: &str = "
SELECT place, batch, token, pull, leased_ms, begun_ms, deadline_ms, ended_ms, slots FROM batches
WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
const READ_RECORD: &str = "SELECT record FROM messages WHERE seq = ?1";
const READ_APART: &str = "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
const FIRST_DUE: &str = "SELECT min(due_ms) FROM due WHERE queue = ?1";

/// The number of the last transaction that is in the file.
pub(super) fn last_transaction(sql: &Connection) -> Sql<u64> {
    sql.query_row(READ_TRANSACTIONS, [], |row| row.get(0))
}

/// Builds the cache anew; the old one must be without the marks that do not hold. On an error it stays.
pub(super) fn rebuild(sql: &Connection, cache: &mut State, now: Now) -> Sql<()> {
    let mut state =
        State { transactions: last_transaction(sql)?, next_at: cache.next_at, ..State::default() };
    let mut graves = sql.prepare_cached(READ_GRAVES)?;
    for grave in graves.query_map([], |row| row.get(0))? {
        state.graves.insert(grave?);
    }
    for mut queue in counts::read_queues(sql)? {
        read_batches(sql, &mut queue, &mut state)?;
        read_apart(sql, &mut queue, &state)?;
        if queue.tally.gauges.scheduled > 0 {
            let due: Option<u64> =
                sql.prepare_cached(FIRST_DUE)?.query_row([queue.number], |row| row.get(0))?;
            queue.next_due = due.map(Timestamp::from_millis);
        }
        state.names.insert(queue.entry.name.clone(), queue.number);
        state.queues.insert(queue.number, queue);
    }
    for (number, old) in std::mem::take(&mut cache.queues) {
        let same = |queue: &&mut Queue| queue.entry.generation == old.entry.generation;
        if let Some(queue) = state.queues.get_mut(&number).filter(same) {
            carry_over(queue, old, now);
        }
    }
    *cache = state;
    Ok(())
}

fn carry_over(queue: &mut Queue, old: Queue, now: Now) {
    queue.turns = old.turns;
    (queue.newer, queue.newer_shown) = (old.newer, old.newer_shown);
    let living = old.living.iter().map(|(id, batch)| (*id, batch.deadline));
    for (id, deadline) in living.chain(old.undone) {
        if let Some(batch) = queue.living.get_mut(&id) {
            batch.deadline = batch.deadline.max(deadline);
        }
    }
    let workers = old.marks.into_iter().filter(|(id, mark)| {
        mark.kind == LeaseKind::Worker && !mark.is_forgotten(now) && !queue.living.contains_key(id)
    });
    queue.marks.extend(workers.collect::<Vec<_>>());
}

/// One row of `batches`.
struct KeptBatch {
    number: u64,
    id: BatchId,
    token: Token,
    kind: LeaseKind,
    leased_at: Timestamp,
    begun: Duration,
    deadline: Duration,
    ended: Option<Duration>,
    slots: Vec<KeptSlot>,
}

fn read_batch(row: &Row<'_>) -> Sql<KeptBatch> {
    let reading = |column: usize| row.get(column).map(Duration::from_millis);
    Ok(KeptBatch {
        number: number_of_place(row.get(0)?),
        id: BatchId(u128::from_be_bytes(row.get(1)?)),
        token: Token(row.get::<_, i64>(2)?.cast_unsigned()),
        kind: if row.get(3)? { LeaseKind::Pull } else { LeaseKind::Worker },
        leased_at: Timestamp::from_millis(row.get(4)?),
        begun: reading(5)?,
        deadline: reading(6)?,
        ended: row.get::<_, Option<u64>>(7)?.map(Duration::from_millis),
        slots: unpack_slots(row.get_ref(8)?.as_blob()?),
    })
}

fn read_batches(sql: &Connection, queue: &mut Queue, state: &mut State) -> Sql<()> {
    let (first, last) = places(queue.number);
    let mut statement = sql.prepare_cached(READ_BATCHES)?;
    for kept in statement.query_map((first, last), read_batch)? {
        let kept = kept?;
        if let Some(ended) = kept.ended {
            let fate = |slot: &KeptSlot| match slot {
                KeptSlot::Settled(way) => Fate::Settled(*way),
                KeptSlot::Leased(_) | KeptSlot::Lost => Fate::Lost,
            };
            let fates = kept.slots.iter().map(fate).collect();
            let KeptBatch { token, kind, number, deadline, .. } = kept;
            queue.marks.insert(kept.id, Mark { token, kind, number, deadline, ended, fates });
            continue;
        }
        let slots = kept.slots.iter().map(|slot| read_slot(sql, *slot)).collect::<Sql<Vec<_>>>()?;
        let leased = |slot: &Slot| if let Slot::Leased(held) = slot { Some(held.seq) } else { None };
        state.leased.extend(slots.iter().filter_map(leased));
        let batch = Batch {
            token: kept.token,
            kind: kept.kind,
            number: kept.number,
            leased_at: kept.leased_at,
            begun: kept.begun,
            deadline: kept.deadline,
            live: slots.iter().filter_map(leased).count(),
            slots,
        };
        queue.living.insert(kept.id, batch);
    }
    Ok(())
}

fn read_slot(sql: &Connection, slot: KeptSlot) -> Sql<Slot> {
    let seq = match slot {
        KeptSlot::Settled(way) => return Ok(Slot::Settled(way)),
        KeptSlot::Lost => return Ok(Slot::Lost),
        KeptSlot::Leased(seq) => seq,
    };
    let record = sql
        .prepare_cached(READ_RECORD)?
        .query_row([seq], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)));
    let Some(bytes) = one(record)? else {
        log::error!("a leased message has no row: the file was changed from outside or is damaged");
        return Ok(Slot::Lost);
    };
    Ok(Slot::Leased(match Record::decode(bytes.clone()) {
        Ok(record) => Held::new(seq, &record),
        Err(_) => Held::unreadable(seq, &bytes),
    }))
}

/// The head and the suspects, in their order.
fn read_apart(sql: &Connection, queue: &mut Queue, state: &State) -> Sql<()> {
    let (first, last) = Seq::range(queue.number, Band::Apart);
    let mut statement = sql.prepare_cached(READ_APART)?;
    let mut rows = statement.query((first, last))?;
    while let Some(row) = rows.next()? {
        let seq: Seq = row.get(0)?;
        if state.leased.contains(&seq) || queue.is_purged(seq) {
            continue;
        }
        let record = Record::decode(Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?));
        let suspect = record.is_ok_and(|record| record.is_suspect());
        let apart = (seq, row.get(1)?);
        if suspect { queue.suspects.push_back(apart) } else { queue.head.push_back(apart) }
    }
    Ok(())
}

/// The queues of which workers hold something.
pub(super) fn queues_with_workers(state: &State) -> Vec<QueueNumber> {
    let has_workers = |queue: &&Queue| queue.living.values().any(|batch| batch.kind == LeaseKind::Worker);
    state.queues.values().filter(has_workers).map(|queue| queue.number).collect()
}

impl Work<'_> {
    /// Takes back what the workers of a process that ended had of a queue, the youngest batch first; leaves no mark of
    /// them. Gives whether there is more than this step could do.
    pub(super) fn take_back_workers(&mut self, number: QueueNumber, most: usize) -> Sql<bool> {
        let mut left = most;
        for id in self.batches_youngest_first(number, |batch| batch.kind == LeaseKind::Worker) {
            if left == 0 {
                return Ok(true);
            }
            self.take_back(number, id, |_| true)?;
            left = left.saturating_sub(self.queue(number).marks.get(&id).map_or(1, |mark| mark.fates.len()));
            self.queue_mut(number).marks.remove(&id);
        }
        Ok(false)
    }
}
