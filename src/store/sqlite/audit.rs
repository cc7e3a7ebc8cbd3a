//! Recounting everything: what the file holds against what it says it holds, and the cache against both.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use rusqlite::Connection;

use crate::domain::record::{self, Record};
use crate::store::sqlite::batch::{KeptSlot, Slot, unpack_slots};
use crate::store::sqlite::counts;
use crate::store::sqlite::key::{Band, QueueNumber, Seq, places};
use crate::store::sqlite::state::{Front, Queue};
use crate::store::sqlite::work::{Sql, Work};
use crate::store::stats::Gauges;

const BATCHES: &str = "SELECT slots FROM batches WHERE place BETWEEN ?1 AND ?2 AND ended_ms IS NULL";
const MESSAGES: &str = "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
const DEAD: &str = "
SELECT count(*), ifnull(sum(bytes), 0), ifnull(sum(length(record) IS NULL), 0)
FROM dead LEFT JOIN dead_records USING (place) WHERE queue = ?1";
const DEAD_RECORDS: &str = "SELECT count(*) FROM dead_records WHERE place BETWEEN ?1 AND ?2";
const IDS: &str = "SELECT id, seq FROM ids WHERE queue = ?1";
const DUE: &str = "SELECT due_ms, seq FROM due WHERE queue = ?1";
const KEYS: &str = "SELECT count(*) FROM keys WHERE queue = ?1";
const LOGS: &str = "SELECT ifnull(sum(length(log)), 0) FROM attempts WHERE queue = ?1";
const PAGES: &str = "SELECT ifnull(sum(length(pack)), 0) FROM finished WHERE place BETWEEN ?1 AND ?2";

/// Each difference found, with the queue it was found in.
struct Findings<'q> {
    queue: &'q Queue,
    found: Vec<String>,
}

impl Findings<'_> {
    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(format!("queue {}: {}", self.queue.entry.name, what()));
        }
    }
}

/// Compares the file's numbers with a recount of everything in it, in one snapshot.
pub(super) fn of_file(sql: &Connection) -> Sql<Vec<String>> {
    let mut found = Vec::new();
    for queue in counts::read_queues(sql)? {
        let mut findings = Findings { queue: &queue, found: Vec::new() };
        recount(sql, &mut findings)?;
        found.append(&mut findings.found);
    }
    Ok(found)
}

fn recount(sql: &Connection, findings: &mut Findings<'_>) -> Sql<()> {
    let queue = findings.queue;
    let number = queue.number;
    let mut gauges = Gauges::default();
    let leased = leased_rows(sql, number)?;
    let rows = recount_messages(sql, queue, &leased, &mut gauges)?;
    let missing = leased.iter().filter(|seq| !rows.contains_key(seq)).count();
    findings.hold(missing == 0, || format!("{missing} leased messages have no row"));
    let (dead, bytes_dead, without): (u64, u64, u64) =
        sql.query_row(DEAD, [number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    (gauges.dead, gauges.bytes_dead) = (dead, bytes_dead);
    findings.hold(without == 0, || format!("{without} dead letters have no record"));
    let records: u64 = sql.query_row(DEAD_RECORDS, places(number), |row| row.get(0))?;
    findings.hold(records == dead, || format!("{dead} dead letters have {records} records"));
    let tally = &queue.tally;
    findings.hold(gauges == tally.gauges, || format!("recounted {gauges:?}, kept {:?}", tally.gauges));
    let laws_hold = tally.counters.laws_hold(&gauges);
    findings.hold(laws_hold, || format!("the laws are broken: {:?} with {gauges:?}", tally.counters));
    recount_ids(sql, findings, &rows)?;
    recount_due(sql, findings, &rows)?;
    let kept = [
        ("keys", tally.keys),
        ("bytes of attempts", tally.log_bytes),
        ("bytes of history", tally.finished_bytes),
    ];
    let counted: [u64; 3] = [
        sql.query_row(KEYS, [number], |row| row.get(0))?,
        sql.query_row(LOGS, [number], |row| row.get(0))?,
        sql.query_row(PAGES, places(number), |row| row.get(0))?,
    ];
    for ((what, kept), counted) in kept.into_iter().zip(counted) {
        findings.hold(kept == counted, || format!("recounted {counted} {what}, kept {kept}"));
    }
    Ok(())
}

fn leased_rows(sql: &Connection, number: QueueNumber) -> Sql<HashSet<Seq>> {
    let mut statement = sql.prepare_cached(BATCHES)?;
    let slots = statement.query_map(places(number), |row| Ok(unpack_slots(row.get_ref(0)?.as_blob()?)))?;
    let mut leased = HashSet::new();
    for slot in slots.collect::<Sql<Vec<_>>>()?.into_iter().flatten() {
        if let KeptSlot::Leased(seq) = slot {
            leased.insert(seq);
        }
    }
    Ok(leased)
}

/// What was found in a row: when it is due or was accepted, and the id in its record.
type Row = (u64, Option<[u8; 16]>);

/// Counts the rows of a queue that were not purged, and gives them.
fn recount_messages(
    sql: &Connection,
    queue: &Queue,
    leased: &HashSet<Seq>,
    gauges: &mut Gauges,
) -> Sql<BTreeMap<Seq, Row>> {
    let mut rows = BTreeMap::new();
    let mut statement = sql.prepare_cached(MESSAGES)?;
    let mut messages = statement.query(Seq::range_of_queue(queue.number))?;
    while let Some(message) = messages.next()? {
        let seq: Seq = message.get(0)?;
        let bytes = message.get_ref(2)?.as_blob()?;
        let is_leased = leased.contains(&seq);
        if queue.is_purged(seq) && !is_leased {
            continue;
        }
        let (count, charged) = match seq.band() {
            _ if is_leased => (&mut gauges.leased, &mut gauges.bytes_leased),
            Band::Scheduled => (&mut gauges.scheduled, &mut gauges.bytes_waiting),
            Band::Fresh(_) | Band::Returned(_) | Band::Apart => {
                (&mut gauges.pending, &mut gauges.bytes_waiting)
            }
        };
        *count += 1;
        *charged += record::charged_bytes(bytes);
        let id = Record::decode(Bytes::copy_from_slice(bytes)).ok().map(|record| *record.id().as_bytes());
        rows.insert(seq, (message.get(1)?, id));
    }
    Ok(rows)
}

fn recount_ids(sql: &Connection, findings: &mut Findings<'_>, rows: &BTreeMap<Seq, Row>) -> Sql<()> {
    let queue = findings.queue;
    let mut statement = sql.prepare_cached(IDS)?;
    let entries =
        statement.query_map([queue.number], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Seq>(1)?)))?;
    let entries = entries.collect::<Sql<Vec<_>>>()?;
    let named: HashSet<Seq> = entries.iter().map(|(_, seq)| *seq).collect();
    for (id, seq) in entries {
        let agrees = match rows.get(&seq) {
            Some((_, in_record)) => in_record.is_none_or(|in_record| in_record == id),
            None => queue.is_purged(seq),
        };
        findings.hold(agrees, || format!("the id index names a wrong row {seq:?}"));
    }
    let must_be_named = |seq: &Seq| queue.entry.settings.lookup || seq.band() == Band::Scheduled;
    if queue.tally.indexing == crate::store::sqlite::state::Indexing::Done {
        let unnamed = rows.keys().filter(|seq| must_be_named(seq) && !named.contains(seq)).count();
        findings.hold(unnamed == 0, || format!("{unnamed} messages are not in the id index"));
        let too_many = named.iter().filter(|seq| !must_be_named(seq)).count();
        findings.hold(too_many == 0, || format!("{too_many} messages are in the id index and should not be"));
    }
    Ok(())
}

fn recount_due(sql: &Connection, findings: &mut Findings<'_>, rows: &BTreeMap<Seq, Row>) -> Sql<()> {
    let queue = findings.queue;
    let mut statement = sql.prepare_cached(DUE)?;
    let entries =
        statement.query_map([queue.number], |row| Ok((row.get::<_, Seq>(1)?, row.get::<_, u64>(0)?)))?;
    let entries = entries.collect::<Sql<BTreeMap<_, _>>>()?;
    for (seq, due_ms) in &entries {
        let agrees = rows.get(seq).map_or(queue.is_purged(*seq), |(at_ms, _)| at_ms == due_ms);
        findings.hold(agrees, || format!("the schedule names a wrong row {seq:?}"));
    }
    let waits = |seq: &&Seq| seq.band() == Band::Scheduled && !entries.contains_key(seq);
    let unnamed = rows.keys().filter(waits).count();
    findings.hold(unnamed == 0, || format!("{unnamed} messages are not in the schedule"));
    Ok(())
}

/// Compares the cache with the gauges it must agree with.
pub(super) fn of_cache(work: &Work<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut leased_in_all = 0;
    for queue in work.state.queues.values() {
        let mut findings = Findings { queue, found: Vec::new() };
        let gauges = &queue.tally.gauges;
        let slots = || queue.living.values().flat_map(|batch| &batch.slots);
        let leased = slots().filter(|slot| matches!(slot, Slot::Leased(_))).count();
        leased_in_all += leased;
        findings.hold(leased as u64 == gauges.leased, || {
            format!("{leased} leases are known, {} are counted", gauges.leased)
        });
        let live: usize = queue.living.values().map(|batch| batch.live).sum();
        findings.hold(live == leased, || format!("batches say that {live} leases live, {leased} do"));
        let apart = queue.head.len() + queue.suspects.len();
        findings.hold(apart as u64 <= gauges.pending, || {
            format!("{apart} wait apart of {} pending", gauges.pending)
        });
        let fronts = queue.fronts.iter().any(|front| *front != Front::Empty);
        let waits = fronts || apart > 0;
        findings.hold(waits || gauges.pending == 0, || format!("{} are pending in no list", gauges.pending));
        let due = queue.next_due.is_some();
        findings.hold(due == (gauges.scheduled > 0), || {
            format!("{} are scheduled for no moment", gauges.scheduled)
        });
        found.append(&mut findings.found);
    }
    if leased_in_all != work.state.leased.len() {
        found.push(format!("{leased_in_all} rows are leased, {} are known to be", work.state.leased.len()));
    }
    found
}
