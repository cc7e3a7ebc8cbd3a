//! The rows that hold a queue's settings and numbers: read when the cache is built, written when a transaction ends.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use crate::domain::queue::{Generation, QueueName, QueueSettings};
use crate::store::QueueEntry;
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::state::{Indexing, Queue, Tally};
use crate::store::sqlite::work::Sql;
use crate::store::stats::{Counters, Gauges};

const READ_QUEUES: &str = "
SELECT number, name, generation, source, settings, paused, parked,
    accepted, delivered, retried, dead_lettered, replayed, cancelled, purged, discarded, trimmed, recovered, deferred,
    pending, scheduled, leased, dead, bytes_waiting, bytes_leased, bytes_dead,
    last_number, keys, log_bytes, finished_bytes, finished_next, finished_floor, purged_to, indexing
FROM queues JOIN counts ON counts.queue = queues.number ORDER BY number";
const MAKE_QUEUE: &str = "
INSERT INTO queues (number, name, generation, source, settings, paused, parked) VALUES (?1, ?2, ?3, ?4, ?5, 0, NULL)";
const MAKE_COUNTS: &str = "
INSERT INTO counts VALUES (?1, 0,0,0,0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0, 0, 0, 0, 0, ?2, ?2, 0, 0)";
const WRITE_COUNTS: &str = "
UPDATE counts SET
    accepted = ?2, delivered = ?3, retried = ?4, dead_lettered = ?5, replayed = ?6, cancelled = ?7,
    purged = ?8, discarded = ?9, trimmed = ?10, recovered = ?11, deferred = ?12,
    pending = ?13, scheduled = ?14, leased = ?15, dead = ?16,
    bytes_waiting = ?17, bytes_leased = ?18, bytes_dead = ?19,
    last_number = ?20, keys = ?21, log_bytes = ?22, finished_bytes = ?23, finished_next = ?24, finished_floor = ?25,
    purged_to = ?26, indexing = ?27
WHERE queue = ?1";
const WRITE_HOLD: &str = "UPDATE queues SET paused = ?2, parked = ?3 WHERE number = ?1";
const WRITE_SETTINGS: &str = "UPDATE queues SET source = ?2, settings = ?3 WHERE number = ?1";
const REMOVE_QUEUE: &str = "DELETE FROM queues WHERE number = ?1";
const REMOVE_COUNTS: &str = "DELETE FROM counts WHERE queue = ?1";

/// The number that the first finished message gets.
const FIRST_FINISHED: u64 = 1;

/// Every queue as the file has it.
pub(super) fn read_queues(sql: &Connection) -> Sql<Vec<Queue>> {
    let mut statement = sql.prepare_cached(READ_QUEUES)?;
    let queues = statement.query_map([], read_queue)?;
    queues.collect()
}

fn read_queue(row: &Row<'_>) -> Sql<Queue> {
    let number: QueueNumber = row.get(0)?;
    let name: QueueName = parsed(row, 1)?;
    let generation = Generation(row.get::<_, i64>(2)?.cast_unsigned());
    let settings: QueueSettings = from_json(row, 4)?;
    let entry = QueueEntry {
        name,
        generation,
        source: word(row, 3)?,
        settings: Arc::new(settings),
        paused: row.get(5)?,
        parked: if row.get_ref(6)? == rusqlite::types::ValueRef::Null { None } else { Some(word(row, 6)?) },
    };
    let counters = Counters {
        accepted: row.get(7)?,
        delivered: row.get(8)?,
        retried: row.get(9)?,
        dead_lettered: row.get(10)?,
        replayed: row.get(11)?,
        cancelled: row.get(12)?,
        purged: row.get(13)?,
        discarded: row.get(14)?,
        trimmed: row.get(15)?,
        recovered: row.get(16)?,
        deferred: row.get(17)?,
    };
    let gauges = Gauges {
        pending: row.get(18)?,
        scheduled: row.get(19)?,
        leased: row.get(20)?,
        dead: row.get(21)?,
        bytes_waiting: row.get(22)?,
        bytes_leased: row.get(23)?,
        bytes_dead: row.get(24)?,
    };
    let tally = Tally {
        counters,
        gauges,
        last_number: row.get(25)?,
        keys: row.get(26)?,
        log_bytes: row.get(27)?,
        finished_bytes: row.get(28)?,
        finished_next: row.get(29)?,
        finished_floor: row.get(30)?,
        purged_to: row.get(31)?,
        indexing: Indexing::from_index(row.get(32)?),
    };
    Ok(Queue::new(number, entry, tally))
}

/// Makes the rows of a new queue.
pub(super) fn make(sql: &Connection, number: QueueNumber, entry: QueueEntry) -> Sql<Queue> {
    let generation = entry.generation.0.cast_signed();
    let settings = to_json(&*entry.settings)?;
    let made = params![number, entry.name.as_str(), generation, as_word(&entry.source)?, settings];
    sql.prepare_cached(MAKE_QUEUE)?.execute(made)?;
    sql.prepare_cached(MAKE_COUNTS)?.execute((number, FIRST_FINISHED))?;
    let tally = Tally { finished_next: FIRST_FINISHED, finished_floor: FIRST_FINISHED, ..Tally::default() };
    Ok(Queue::new(number, entry, tally))
}

/// Writes who declared a queue and its settings.
pub(super) fn write_settings(sql: &Connection, number: QueueNumber, entry: &QueueEntry) -> Sql<()> {
    let settings = to_json(&*entry.settings)?;
    sql.prepare_cached(WRITE_SETTINGS)?.execute((number, as_word(&entry.source)?, settings))?;
    Ok(())
}

/// Removes the rows of a queue.
pub(super) fn remove(sql: &Connection, number: QueueNumber) -> Sql<()> {
    sql.prepare_cached(REMOVE_QUEUE)?.execute([number])?;
    sql.prepare_cached(REMOVE_COUNTS)?.execute([number])?;
    Ok(())
}

/// Writes what changed of a queue's numbers, pause and park. A queue where nothing changed is not written.
pub(super) fn keep(sql: &Connection, queue: &mut Queue) -> Sql<()> {
    queue.touched = false;
    let hold = (queue.entry.paused, queue.entry.parked);
    if hold != queue.kept_hold {
        let parked = queue.entry.parked.as_ref().map(as_word).transpose()?;
        sql.prepare_cached(WRITE_HOLD)?.execute((queue.number, queue.entry.paused, parked))?;
        queue.kept_hold = hold;
    }
    if queue.tally == queue.kept {
        return Ok(());
    }
    let Tally { counters, gauges, .. } = queue.tally;
    let tally = &queue.tally;
    sql.prepare_cached(WRITE_COUNTS)?.execute(params![
        queue.number,
        counters.accepted,
        counters.delivered,
        counters.retried,
        counters.dead_lettered,
        counters.replayed,
        counters.cancelled,
        counters.purged,
        counters.discarded,
        counters.trimmed,
        counters.recovered,
        counters.deferred,
        gauges.pending,
        gauges.scheduled,
        gauges.leased,
        gauges.dead,
        gauges.bytes_waiting,
        gauges.bytes_leased,
        gauges.bytes_dead,
        tally.last_number,
        tally.keys,
        tally.log_bytes,
        tally.finished_bytes,
        tally.finished_next,
        tally.finished_floor,
        tally.purged_to,
        tally.indexing.index(),
    ])?;
    queue.kept = queue.tally;
    Ok(())
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn parsed<T>(row: &Row<'_>, column: usize) -> Sql<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| unreadable(column, error))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Sql<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(column, error))
}

fn to_json<T: serde::Serialize>(value: &T) -> Sql<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A word such as `file` or `dead_full`, kept without the quotes of JSON.
fn word<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Sql<T> {
    let word = row.get_ref(column)?.as_str()?.to_owned();
    serde_json::from_value(serde_json::Value::String(word)).map_err(|error| unreadable(column, error))
}

fn as_word<T: serde::Serialize>(value: &T) -> Sql<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(rusqlite::Error::ToSqlConversionFailure(format!("{other:?} is no word").into())),
    }
}
