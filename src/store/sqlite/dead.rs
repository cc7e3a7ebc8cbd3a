//! Dead letters as the writer sees them: dying, trimming, replaying, discarding.

use bytes::Bytes;
use rusqlite::{Connection, Row, params_from_iter};

use crate::domain::id::MessageId;
use crate::domain::message::Headers;
use crate::domain::outcome::DeadReason;
use crate::domain::queue::ParkReason;
use crate::domain::record::Record;
use crate::store::dead::{Replayed, Selection};
use crate::store::sqlite::key::{QueueNumber, Seq, place};
use crate::store::sqlite::letters::Choice;
use crate::store::sqlite::moves::{Place, Target};
use crate::store::sqlite::state::Moving;
use crate::store::sqlite::work::{Sql, Work, kept_ms, one};
use crate::store::turns::List;
use crate::store::{SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

const ADD_DEAD: &str = "
INSERT INTO dead (place, queue, id, died_ms, reason, detail, status, destination, attempts, bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const ADD_DEAD_RECORD: &str = "INSERT INTO dead_records (place, record) VALUES (?1, ?2)";
const READ_DEAD_RECORD: &str = "SELECT record FROM dead_records WHERE place = ?1";
const REMOVE_DEAD: &str = "DELETE FROM dead WHERE place = ?1";
const REMOVE_DEAD_RECORD: &str = "DELETE FROM dead_records WHERE place = ?1";
const OLDEST_DEAD: &str = "
SELECT place, id, died_ms, bytes, reason FROM dead WHERE queue = ?1 ORDER BY died_ms, place LIMIT 1";
const DEAD_BY_ID: &str = "
SELECT place, id, died_ms, bytes, reason FROM dead WHERE queue = ?1 AND id = ?2 ORDER BY place DESC LIMIT 1";
const DEAD_WHERE: &str = "SELECT place, id, died_ms, bytes, reason FROM dead WHERE";
/// Messages that a replay or a discard step takes at most.
const STEP_MESSAGES_MAX: u64 = 1_000;

/// A message on its way into the dead letters.
pub(super) struct Dying {
    /// Its row.
    pub(super) from: Seq,
    /// The place it leaves.
    pub(super) place: Place,
    /// What is known of it.
    pub(super) moving: Moving,
    /// Its record as it is to be kept.
    pub(super) bytes: Bytes,
    /// Why.
    pub(super) reason: DeadReason,
    /// In the words of who decided it.
    pub(super) detail: Option<String>,
    /// The last attempt's HTTP status.
    pub(super) status: Option<u16>,
}

/// A dead letter as its row says, without what is only shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Corpse {
    /// Its row.
    pub(super) place: i64,
    /// The message.
    pub(super) id: MessageId,
    /// When it died, milliseconds.
    pub(super) died_ms: u64,
    /// What it counts against the limits.
    pub(super) charged: u64,
    /// Whether its record cannot be read.
    pub(super) damaged: bool,
}

impl Corpse {
    /// Reads the columns place, id, `died_ms`, bytes, reason.
    pub(super) fn read(row: &Row<'_>) -> Sql<Self> {
        Ok(Self {
            place: row.get(0)?,
            id: MessageId::from_bytes(row.get(1)?),
            died_ms: row.get(2)?,
            charged: row.get(3)?,
            damaged: row.get::<_, u8>(4)? == DeadReason::Damaged.index(),
        })
    }
}

impl Work<'_> {
    /// Puts a message into the dead letters, which may park the queue or push out the oldest of them.
    pub(super) fn bury(&mut self, dying: Dying) -> Sql<()> {
        let Dying { from, place: left, moving, bytes, reason, detail, status } = dying;
        let number = from.queue();
        let record = Record::decode(bytes.clone()).ok();
        let attempts = record.as_ref().map_or(0, Record::attempts);
        let destination = record.filter(|_| attempts > 0).and_then(|record| {
            let brought = Headers::decode(&record.headers()).and_then(|headers| headers.destination);
            let own = self.queue(number).entry.settings.destination.as_ref();
            brought.or_else(|| own.map(|destination| destination.as_str().to_owned()))
        });
        self.remove_row(from, moving.id)?;
        self.leave(number, left, 1, moving.charged);
        let place = place(number, self.next_number(number)?);
        let died_ms = kept_ms(self.now.wall);
        let (id, charged) = (moving.id.as_bytes(), moving.charged);
        let row =
            (place, number, id, died_ms, reason.index(), detail, status, destination, attempts, charged);
        self.sql.prepare_cached(ADD_DEAD)?.execute(row)?;
        self.sql.prepare_cached(ADD_DEAD_RECORD)?.execute((place, &bytes[..]))?;
        let queue = self.queue_mut(number);
        queue.tally.counters.dead_lettered += 1;
        queue.tally.gauges.dead += 1;
        queue.tally.gauges.bytes_dead += moving.charged;
        queue.oldest.death = queue.oldest.death.min(died_ms.unsigned_abs());
        let mut trimmed = 0;
        while trimmed < SWEEP_MESSAGES_MAX && self.queue(number).dead_exceed() {
            self.trim_oldest(number)?;
            trimmed += 1;
        }
        let queue = self.queue_mut(number);
        if queue.dead_full(0, 0) && queue.entry.parked.is_none() {
            queue.entry.parked = Some(ParkReason::DeadFull);
        }
        Ok(())
    }

    /// The dead letter that died first.
    pub(super) fn oldest_dead(&self, number: QueueNumber) -> Sql<Option<Corpse>> {
        one(self.sql.prepare_cached(OLDEST_DEAD)?.query_row([number], Corpse::read))
    }

    fn trim_oldest(&mut self, number: QueueNumber) -> Sql<()> {
        if let Some(oldest) = self.oldest_dead(number)? {
            self.remove_dead(number, &oldest, true)?;
            self.count_trimmed(number, 1);
        }
        Ok(())
    }

    /// Counts dead letters that limit or retention removed.
    pub(super) fn count_trimmed(&mut self, number: QueueNumber, letters: u64) {
        let counters = &mut self.queue_mut(number).tally.counters;
        counters.discarded += letters;
        counters.trimmed += letters;
    }

    /// Removes a dead letter; its attempts too when the message is gone for good.
    pub(super) fn remove_dead(&mut self, number: QueueNumber, corpse: &Corpse, for_good: bool) -> Sql<()> {
        self.sql.prepare_cached(REMOVE_DEAD)?.execute([corpse.place])?;
        self.sql.prepare_cached(REMOVE_DEAD_RECORD)?.execute([corpse.place])?;
        let gauges = &mut self.queue_mut(number).tally.gauges;
        gauges.dead -= 1;
        gauges.bytes_dead -= corpse.charged;
        if for_good {
            self.forget_attempts(number, corpse.id)?;
        }
        Ok(())
    }

    /// Lets the queue go on when it had parked itself for dead letters that are now below their limits.
    pub(super) fn unpark_when_below(&mut self, number: QueueNumber) {
        let queue = self.queue(number);
        if queue.entry.parked == Some(ParkReason::DeadFull) && !queue.dead_full(0, 0) {
            self.queue_mut(number).entry.parked = None;
            self.wake(number);
        }
    }

    /// Moves a step of dead letters back to pending, as long as the limits of the queue allow. A step ends at
    /// [`STEP_MESSAGES_MAX`] messages or [`SWEEP_BYTES_MAX`]; one message may exceed the bytes alone.
    pub(super) fn replay(&mut self, number: QueueNumber, selection: &Selection) -> Sql<Replayed> {
        let mut done = Replayed::default();
        let mut bytes = 0;
        // One beyond the step tells whether there is more.
        let enough = reaching(STEP_MESSAGES_MAX + 1, |corpse| !corpse.damaged);
        for corpse in select(self.sql, number, selection, enough)? {
            let record = if corpse.damaged { None } else { self.read_dead(corpse.place)? };
            let Some(record) = record else {
                done.matched += 1;
                continue;
            };
            let budget_over = done.replayed > 0 && bytes + corpse.charged > SWEEP_BYTES_MAX;
            if done.replayed == STEP_MESSAGES_MAX || budget_over {
                done.more = true;
                break;
            }
            done.matched += 1;
            if self.queue(number).limit_exceeded_by(1, corpse.charged).is_some() {
                done.full = true;
                break;
            }
            bytes += corpse.charged;
            self.remove_dead(number, &corpse, false)?;
            let moving = Moving {
                id: corpse.id,
                priority: record.priority(),
                accepted_ms: record.accepted_at().as_millis(),
                charged: corpse.charged,
                suspect: false,
            };
            let target = Target::List(List::Returned(moving.priority), false);
            self.add(number, &moving, target, &record.after_replay(self.now.wall))?;
            self.queue_mut(number).tally.counters.replayed += 1;
            self.wake(number);
            done.replayed += 1;
        }
        self.unpark_when_below(number);
        Ok(done)
    }

    fn read_dead(&self, place: i64) -> Sql<Option<Record>> {
        let mut statement = self.sql.prepare_cached(READ_DEAD_RECORD)?;
        let record = statement.query_row([place], |row| {
            Ok(Record::decode(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)).ok())
        });
        Ok(one(record)?.flatten())
    }

    /// Removes a step of dead letters; gives how many.
    pub(super) fn discard(&mut self, number: QueueNumber, selection: &Selection) -> Sql<u64> {
        let mut discarded = 0;
        let mut bytes = 0;
        for corpse in select(self.sql, number, selection, reaching(STEP_MESSAGES_MAX, |_| true))? {
            if discarded > 0 && bytes + corpse.charged > SWEEP_BYTES_MAX {
                break;
            }
            bytes += corpse.charged;
            self.remove_dead(number, &corpse, true)?;
            discarded += 1;
        }
        self.queue_mut(number).tally.counters.discarded += discarded;
        self.unpark_when_below(number);
        Ok(discarded)
    }
}

/// What a selection names, until one was `enough`: ids in the order given, else oldest death first.
fn select(
    sql: &Connection,
    number: QueueNumber,
    selection: &Selection,
    mut enough: impl FnMut(&Corpse) -> bool,
) -> Sql<Vec<Corpse>> {
    let mut chosen = Vec::new();
    match Choice::of(number, selection) {
        Choice::Ids(ids) => {
            let mut statement = sql.prepare_cached(DEAD_BY_ID)?;
            for id in ids {
                let found: Option<Corpse> = one(statement.query_row((number, id.as_bytes()), Corpse::read))?;
                chosen.extend(found);
                if found.is_some_and(|corpse| enough(&corpse)) {
                    break;
                }
            }
        }
        Choice::Filter(condition, values) => {
            let text = format!("{DEAD_WHERE} {condition} ORDER BY died_ms, place");
            let mut statement = sql.prepare_cached(&text)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let corpse = Corpse::read(row)?;
                chosen.push(corpse);
                if enough(&corpse) {
                    break;
                }
            }
        }
    }
    Ok(chosen)
}

/// Says when it was called `count` times for what `counts`.
fn reaching(count: u64, counts: impl Fn(&Corpse) -> bool) -> impl FnMut(&Corpse) -> bool {
    let mut seen = 0;
    move |corpse| {
        seen += u64::from(counts(corpse));
        seen >= count
    }
}
