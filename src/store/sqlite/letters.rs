//! Dead letters as a reader sees them: pages, one in full, counts. Nothing here changes the file.

use std::collections::HashSet;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use crate::domain::id::MessageId;
use crate::domain::outcome::DeadReason;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::SWEEP_MESSAGES_MAX;
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Selection};
use crate::store::sqlite::history;
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::work::{Sql, kept_ms, one};

const COLUMNS: &str = "place, id, died_ms, reason, detail, status, destination, attempts, bytes";
const BY_ID: &str = "
SELECT place, id, died_ms, reason, detail, status, destination, attempts, bytes FROM dead
WHERE queue = ?1 AND id = ?2 ORDER BY place DESC LIMIT 1";
const RECORD_OF: &str = "SELECT record FROM dead_records WHERE place = ?1";
const BY_REASON: &str = "SELECT reason, count(*) FROM dead WHERE queue = ?1 GROUP BY reason";
const BY_STATUS: &str =
    "SELECT ifnull(cast(status AS TEXT), ''), count(*) FROM dead WHERE queue = ?1 GROUP BY status";
const BY_DESTINATION: &str =
    "SELECT ifnull(destination, ''), count(*) FROM dead WHERE queue = ?1 GROUP BY destination";
/// Letters on a page at most.
const PAGE_LETTERS_MAX: usize = 1_000;

/// A selection as SQL sees it.
pub(super) enum Choice {
    /// These, each once, in this order.
    Ids(Vec<MessageId>),
    /// A condition on `dead`, and its values.
    Filter(String, Vec<Value>),
}

impl Choice {
    /// What a selection names in a queue.
    pub(super) fn of(number: QueueNumber, selection: &Selection) -> Self {
        match selection {
            Selection::Ids(ids) => {
                let mut seen = HashSet::new();
                Self::Ids(ids.iter().filter(|id| seen.insert(**id)).copied().collect())
            }
            Selection::Filter(filter) => {
                let (condition, values) = condition_of(number, filter);
                Self::Filter(condition, values)
            }
        }
    }
}

fn condition_of(number: QueueNumber, filter: &DeadFilter) -> (String, Vec<Value>) {
    let mut condition = "queue = ?".to_owned();
    let mut values = vec![Value::from(number)];
    let mut also = |what: &str, value: Option<Value>| {
        if let Some(value) = value {
            condition.push_str(what);
            values.push(value);
        }
    };
    also(" AND reason = ?", filter.reason.map(|reason| Value::from(reason.index())));
    also(" AND status = ?", filter.status.map(Value::from));
    also(" AND destination = ?", filter.destination.clone().map(Value::from));
    also(" AND died_ms >= ?", filter.from.map(|from| Value::from(kept_ms(from))));
    also(" AND died_ms < ?", filter.to.map(|to| Value::from(kept_ms(to))));
    (condition, values)
}

/// A dead letter without its record and attempts, and its place.
fn letter(row: &Row<'_>) -> Sql<(i64, DeadLetter)> {
    let reason = DeadReason::from_index(row.get(3)?).unwrap_or(DeadReason::Damaged);
    let letter = DeadLetter {
        id: MessageId::from_bytes(row.get(1)?),
        reason,
        detail: row.get(4)?,
        died_at: Timestamp::from_millis(row.get(2)?),
        status: row.get(5)?,
        destination: row.get(6)?,
        attempts: row.get(7)?,
        charged_bytes: row.get(8)?,
        record: None,
        history: Vec::new(),
    };
    Ok((row.get(0)?, letter))
}

/// The place in the order of deaths behind which a page begins.
fn read_cursor(cursor: Option<&str>) -> Option<(i64, i64)> {
    let Some(text) = cursor else { return Some((-1, -1)) };
    let (died_ms, place) = text.split_once('-')?;
    Some((died_ms.parse().ok()?, place.parse().ok()?))
}

/// One page, oldest death first. A cursor that is none of ours is past the end.
pub(super) fn page(
    sql: &Connection,
    number: QueueNumber,
    filter: &DeadFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Sql<DeadPage> {
    let mut page = DeadPage::default();
    let Some((died_ms, place)) = read_cursor(cursor) else { return Ok(page) };
    // The filter is judged here and not by SQLite, so that a page looks at a bounded number of letters.
    let text = format!(
        "SELECT {COLUMNS} FROM dead WHERE queue = ?1 AND (died_ms, place) > (?2, ?3) ORDER BY died_ms, place"
    );
    let mut statement = sql.prepare_cached(&text)?;
    let mut rows = statement.query((number, died_ms, place))?;
    let (mut looked_at, mut last) = (0, (died_ms, place));
    while let Some(row) = rows.next()? {
        if page.letters.len() == limit.clamp(1, PAGE_LETTERS_MAX) || looked_at == SWEEP_MESSAGES_MAX {
            page.cursor = Some(format!("{}-{}", last.0, last.1));
            break;
        }
        looked_at += 1;
        let (place, letter) = letter(row)?;
        last = (kept_ms(letter.died_at), place);
        if names(filter, &letter) {
            page.letters.push(letter);
        }
    }
    Ok(page)
}

fn names(filter: &DeadFilter, letter: &DeadLetter) -> bool {
    filter.reason.is_none_or(|reason| letter.reason == reason)
        && filter.status.is_none_or(|status| letter.status == Some(status))
        && filter
            .destination
            .as_ref()
            .is_none_or(|destination| letter.destination.as_ref() == Some(destination))
        && filter.from.is_none_or(|from| letter.died_at >= from)
        && filter.to.is_none_or(|to| letter.died_at < to)
}

/// One dead letter, whole.
pub(super) fn whole(sql: &Connection, number: QueueNumber, id: MessageId) -> Sql<Option<DeadLetter>> {
    let found = one(sql.prepare_cached(BY_ID)?.query_row((number, id.as_bytes()), letter))?;
    let Some((place, mut letter)) = found else { return Ok(None) };
    let record = sql.prepare_cached(RECORD_OF)?.query_row([place], |row| {
        Ok(Record::decode(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)).ok())
    });
    letter.record = one(record)?.flatten();
    letter.history = history::attempts_of(sql, number, id)?;
    Ok(Some(letter))
}

/// Counts, most numerous first, ties by key.
pub(super) fn groups(sql: &Connection, number: QueueNumber, by: DeadGrouping) -> Sql<Vec<DeadGroup>> {
    let text = match by {
        DeadGrouping::Reason => BY_REASON,
        DeadGrouping::Status => BY_STATUS,
        DeadGrouping::Destination => BY_DESTINATION,
    };
    let mut statement = sql.prepare_cached(text)?;
    let group = |row: &Row<'_>| {
        let key = match by {
            DeadGrouping::Reason => {
                DeadReason::from_index(row.get(0)?).map_or("", DeadReason::as_str).to_owned()
            }
            DeadGrouping::Status | DeadGrouping::Destination => row.get(0)?,
        };
        Ok(DeadGroup { key, count: row.get(1)? })
    };
    let mut groups = statement.query_map([number], group)?.collect::<Sql<Vec<_>>>()?;
    groups.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.key.cmp(&other.key)));
    Ok(groups)
}

/// How many a selection names.
pub(super) fn count(sql: &Connection, number: QueueNumber, selection: &Selection) -> Sql<u64> {
    match Choice::of(number, selection) {
        Choice::Ids(ids) => {
            let mut statement = sql.prepare_cached(BY_ID)?;
            let mut count = 0;
            for id in ids {
                count += u64::from(statement.exists((number, id.as_bytes()))?);
            }
            Ok(count)
        }
        Choice::Filter(condition, values) => {
            let text = format!("SELECT count(*) FROM dead WHERE {condition}");
            sql.prepare_cached(&text)?.query_row(params_from_iter(values), |row| row.get(0))
        }
    }
}
