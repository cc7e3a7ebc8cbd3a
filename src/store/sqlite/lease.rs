//! Leasing: which messages are drawn, and the batch they become.
//!
//! A lease plans first and changes nothing while it does: it walks the lists in the order of [`Turns`], each list a range
//! of the table read from its front on. Then the plan is carried out: what was found dead is buried, what was taken is
//! leased. Rows that are leased stay where they are; one row for the batch says who has them.

use std::collections::HashSet;

use bytes::Bytes;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::{CachedStatement, Connection, Rows};

use crate::domain::outcome::DeadReason;
use crate::domain::record::{self, Record, RecordError};
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::lease::{BatchRef, Lease, LeaseKind, LeaseRequest, Leased, Token};
use crate::store::sqlite::batch::{Batch, Held, Slot};
use crate::store::sqlite::dead::Dying;
use crate::store::sqlite::key::{Band, QueueNumber, Seq, place};
use crate::store::sqlite::moves::Place;
use crate::store::sqlite::state::{Apart, Front, Moving, Queue};
use crate::store::sqlite::work::{Sql, Work, kept_ms, kept_reading, one};
use crate::store::turns::{List, Turns};
use crate::store::{SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// One text for each list, so that each has a prepared statement of its own and all six can be read side by side.
const SCAN: [&str; 6] = [
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- fresh, high",
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- fresh, normal",
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- fresh, low",
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- returned, high",
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- returned, normal",
    "SELECT seq, at_ms, record FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq -- returned, low",
];
const READ_ONE: &str = "SELECT record FROM messages WHERE seq = ?1";
const ADD_BATCH: &str = "
INSERT INTO batches (place, batch, token, pull, leased_ms, begun_ms, deadline_ms, ended_ms, slots)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8)";

/// What a lease will do, before anything is changed.
struct Plan {
    take: Vec<(Seq, Record)>,
    taken_bytes: u64,
    die: Vec<(Seq, u64, Bytes, DeadReason, Option<String>)>,
    die_bytes: u64,
    turns: Turns,
    suspects_drawn: usize,
    head_drawn: usize,
    fronts: [Front; 6],
}

/// What is to be done with a message whose turn it is.
enum Fate {
    Taken(Record),
    Dead(DeadReason, Option<String>),
    /// Nobody may touch it: its version.
    Newer(u8),
}

fn judge(bytes: &Bytes, now: Timestamp) -> Fate {
    match Record::decode(bytes.clone()) {
        Ok(record) if record.is_expired(now) => Fate::Dead(DeadReason::Expired, None),
        Ok(record) => Fate::Taken(record),
        Err(error @ RecordError::Damaged(_)) => Fate::Dead(DeadReason::Damaged, Some(error.to_string())),
        Err(RecordError::Newer(version)) => Fate::Newer(version),
    }
}

impl Work<'_> {
    /// Leases messages as a batch.
    pub(super) fn lease(&mut self, request: &LeaseRequest) -> Sql<Result<Leased, StoreError>> {
        let Some(number) = self.number_of(&request.queue) else { return Ok(Err(StoreError::Gone)) };
        let now = self.now;
        let queue = self.queue(number);
        let more = queue.waits(request.suspects) && !queue.is_held();
        let named = |token| BatchRef { queue: request.queue.clone(), batch: request.batch, token };
        if let Some(mark) = queue.marks.get(&request.batch).filter(|mark| !mark.is_forgotten(now)) {
            return Ok(Ok(Leased {
                batch: named(mark.token),
                until: mark.until(now),
                leases: Vec::new(),
                more: false,
            }));
        }
        if let Some(batch) = queue.living.get(&request.batch) {
            let (token, until) = (batch.token, batch.until(now));
            let leases = self.leases_again(batch)?;
            return Ok(Ok(Leased { batch: named(token), until, leases, more }));
        }
        let nothing = |more| Leased { batch: named(Token(0)), until: now.wall, leases: Vec::new(), more };
        if queue.is_held() {
            return Ok(Ok(nothing(false)));
        }
        let plan = match plan(self.sql, queue, &self.state.leased, request, now.wall)? {
            Ok(plan) => plan,
            Err(version) => {
                let detail = format!("queue {} holds a record of version {version}", request.queue.name);
                self.queue_mut(number).newer = Some(detail.clone());
                return Ok(Err(StoreError::Newer(detail)));
            }
        };
        self.queue_mut(number).newer = None;
        let taken = self.carry_out(number, plan)?;
        let queue = self.queue(number);
        let more = queue.waits(request.suspects) && !queue.is_held();
        if taken.is_empty() {
            return Ok(Ok(nothing(more)));
        }
        let (batch, until) = self.add_batch(number, request, &taken)?;
        let lease = |(index, (_, record))| Lease { index, record };
        let leases = (0..).zip(taken).map(lease).collect();
        Ok(Ok(Leased { batch: named(batch), until, leases, more }))
    }

    /// What is left of a batch that is asked for again.
    fn leases_again(&self, batch: &Batch) -> Sql<Vec<Lease>> {
        let mut leases = Vec::with_capacity(batch.live);
        for (index, slot) in (0..).zip(&batch.slots) {
            if let Slot::Leased(held) = slot {
                let bytes = self.read_row(held.seq)?.map(|(_, bytes)| Bytes::from(bytes)).unwrap_or_default();
                // What was damaged since stays leased; its settlement finds out.
                if let Ok(record) = Record::decode(bytes) {
                    leases.push(Lease { index, record });
                }
            }
        }
        Ok(leases)
    }

    fn carry_out(&mut self, number: QueueNumber, plan: Plan) -> Sql<Vec<(Seq, Record)>> {
        let queue = self.queue_mut(number);
        queue.turns = plan.turns;
        queue.fronts = plan.fronts;
        queue.suspects.drain(..plan.suspects_drawn);
        queue.head.drain(..plan.head_drawn);
        for (seq, at_ms, bytes, reason, detail) in plan.die {
            let id = self.true_id(seq, &bytes)?;
            let moving = Moving::of_row(seq, at_ms, id, &bytes, false);
            let status = self.last_status(seq, id)?;
            self.bury(Dying { from: seq, place: Place::Pending, moving, bytes, reason, detail, status })?;
        }
        let bytes = plan.take.iter().map(|(_, record)| record.charged_bytes()).sum();
        let messages = plan.take.len() as u64;
        if messages > 0 {
            self.leave(number, Place::Pending, messages, bytes);
            let gauges = &mut self.queue_mut(number).tally.gauges;
            gauges.leased += messages;
            gauges.bytes_leased += bytes;
            self.state.leased.extend(plan.take.iter().map(|(seq, _)| *seq));
        }
        Ok(plan.take)
    }

    fn add_batch(
        &mut self,
        number: QueueNumber,
        request: &LeaseRequest,
        taken: &[(Seq, Record)],
    ) -> Sql<(Token, Timestamp)> {
        let now = self.now;
        let begun = now.reading(request.kind);
        let slots: Vec<Slot> =
            taken.iter().map(|(seq, record)| Slot::Leased(Held::new(*seq, record))).collect();
        let batch = Batch {
            token: Token(fastrand::u64(1..)),
            kind: request.kind,
            number: self.next_number(number)?,
            leased_at: now.wall,
            begun,
            deadline: begun.saturating_add(request.lease),
            live: slots.len(),
            slots,
        };
        // That a message is started at most so often must survive a power loss; so must what a consumer was promised.
        let is_last = |record: &Record| record.attempts().saturating_add(1) >= record.attempts_max();
        self.effects.durable |=
            request.kind == LeaseKind::Pull || taken.iter().any(|(_, record)| is_last(record));
        self.sql.prepare_cached(ADD_BATCH)?.execute((
            place(number, batch.number),
            request.batch.0.to_be_bytes(),
            batch.token.0.cast_signed(),
            request.kind == LeaseKind::Pull,
            kept_ms(batch.leased_at),
            kept_reading(batch.begun),
            kept_reading(batch.deadline),
            batch.slots_packed(),
        ))?;
        let named = (batch.token, batch.until(now));
        self.queue_mut(number).living.insert(request.batch, batch);
        self.comes(named.1);
        Ok(named)
    }
}

/// Decides what a lease takes and what it finds dead. The inner error is the version of a record that nobody may touch.
fn plan(
    sql: &Connection,
    queue: &Queue,
    leased: &HashSet<Seq>,
    request: &LeaseRequest,
    now: Timestamp,
) -> Sql<Result<Plan, u8>> {
    let mut plan = Plan {
        take: Vec::new(),
        taken_bytes: 0,
        die: Vec::new(),
        die_bytes: 0,
        turns: queue.turns,
        suspects_drawn: 0,
        head_drawn: 0,
        fronts: queue.fronts,
    };
    if request.suspects {
        for apart in &queue.suspects {
            if plan.must_end(queue) {
                return Ok(Ok(plan));
            }
            let bytes = read_one(sql, apart.0)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            match judge(&bytes, now) {
                Fate::Newer(version) => return Ok(Err(version)),
                Fate::Dead(reason, detail) => plan.bury(*apart, bytes, reason, detail),
                Fate::Taken(record) => {
                    let alone = record.must_be_alone();
                    let total = plan.taken_bytes + record.charged_bytes();
                    if !plan.take.is_empty() && (alone || total > request.bytes_max) {
                        return Ok(Ok(plan));
                    }
                    plan.taken_bytes = total;
                    plan.take.push((apart.0, record));
                    if alone || plan.take.len() == usize::from(request.max) {
                        plan.suspects_drawn += 1;
                        return Ok(Ok(plan));
                    }
                }
            }
            plan.suspects_drawn += 1;
        }
        if !plan.take.is_empty() {
            return Ok(Ok(plan));
        }
    }
    let mut statements: [Option<CachedStatement<'_>>; 6] = [const { None }; 6];
    let mut draws = Draws::open(sql, queue, leased, &mut statements)?;
    while plan.take.len() < usize::from(request.max) && !plan.must_end(queue) {
        let mut turns = plan.turns;
        let Some(list) = turns.draw(|list| draws.waits(list)) else { break };
        let (apart, bytes) = draws.first(list)?;
        match judge(&bytes, now) {
            Fate::Newer(version) => return Ok(Err(version)),
            Fate::Dead(reason, detail) => plan.bury(apart, bytes, reason, detail),
            Fate::Taken(record) => {
                let total = plan.taken_bytes + record.charged_bytes();
                if total > request.bytes_max && !plan.take.is_empty() {
                    break;
                }
                plan.taken_bytes = total;
                plan.take.push((apart.0, record));
            }
        }
        plan.turns = turns;
        draws.pass(list)?;
    }
    plan.head_drawn = draws.head_drawn;
    plan.fronts = draws.fronts();
    Ok(Ok(plan))
}

impl Plan {
    fn bury(&mut self, (seq, at_ms): Apart, bytes: Bytes, reason: DeadReason, detail: Option<String>) {
        self.die_bytes += record::charged_bytes(&bytes);
        self.die.push((seq, at_ms, bytes, reason, detail));
    }

    /// Whether so many died that the call must end, or that the queue will be parked.
    fn must_end(&self, queue: &Queue) -> bool {
        let budget_over = self.die.len() >= SWEEP_MESSAGES_MAX || self.die_bytes >= SWEEP_BYTES_MAX;
        budget_over || (!self.die.is_empty() && queue.dead_full(self.die.len() as u64, self.die_bytes))
    }
}

fn read_one(sql: &Connection, seq: Seq) -> Sql<Option<Bytes>> {
    let mut statement = sql.prepare_cached(READ_ONE)?;
    one(statement.query_row([seq], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?))))
}

/// Draws from the lists without taking: the head from memory, each other list from its range of the table.
struct Draws<'s> {
    sql: &'s Connection,
    leased: &'s HashSet<Seq>,
    queue: &'s Queue,
    head_drawn: usize,
    scans: [Option<Scan<'s>>; 6],
}

/// A list being read: its next row, if there is one.
struct Scan<'s> {
    rows: Rows<'s>,
    next: Option<Apart>,
}

impl Scan<'_> {
    /// Goes on to the next row that is not leased.
    fn advance(&mut self, leased: &HashSet<Seq>) -> Sql<()> {
        self.next = None;
        loop {
            self.rows.advance()?;
            let Some(row) = self.rows.get() else { return Ok(()) };
            let seq = row.get(0)?;
            if !leased.contains(&seq) {
                self.next = Some((seq, row.get(1)?));
                return Ok(());
            }
        }
    }
}

impl<'s> Draws<'s> {
    fn open<'c: 's>(
        sql: &'c Connection,
        queue: &'s Queue,
        leased: &'s HashSet<Seq>,
        statements: &'s mut [Option<CachedStatement<'c>>; 6],
    ) -> Sql<Self> {
        let mut scans = [const { None }; 6];
        for (index, slot) in statements.iter_mut().enumerate() {
            let (Front::At(from, _) | Front::From(from)) = queue.fronts[index] else { continue };
            let statement = slot.insert(sql.prepare_cached(SCAN[index])?);
            let rows = statement.query((from, Seq::range(queue.number, Band::ALL[index]).1))?;
            let mut scan = Scan { rows, next: None };
            scan.advance(leased)?;
            scans[index] = Some(scan);
        }
        Ok(Self { sql, leased, queue, head_drawn: 0, scans })
    }

    fn scan(&self, list: List) -> Option<&Scan<'s>> {
        scan_index(list).and_then(|index| self.scans[index].as_ref())
    }

    /// Whether a list has a message that was not drawn.
    fn waits(&self, list: List) -> bool {
        match list {
            List::Head => self.queue.head.len() > self.head_drawn,
            _ => self.scan(list).is_some_and(|scan| scan.next.is_some()),
        }
    }

    /// The first message of a list that has one.
    fn first(&self, list: List) -> Sql<(Apart, Bytes)> {
        if list == List::Head {
            let apart = self.queue.head[self.head_drawn];
            let bytes = read_one(self.sql, apart.0)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            return Ok((apart, bytes));
        }
        let scan = self.scan(list).expect("a list that takes turns has a scan");
        let row = scan.rows.get().expect("the list waits, so the scan stands on a row");
        let apart = scan.next.expect("the list waits");
        Ok((apart, Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?)))
    }

    /// Goes on behind the first message of a list.
    fn pass(&mut self, list: List) -> Sql<()> {
        if let Some(scan) = scan_index(list).and_then(|index| self.scans[index].as_mut()) {
            return scan.advance(self.leased);
        }
        self.head_drawn += 1;
        Ok(())
    }

    /// Where each list begins behind what was drawn.
    fn fronts(&self) -> [Front; 6] {
        let front = |scan: &Option<Scan<'_>>| match scan.as_ref().and_then(|scan| scan.next) {
            Some((seq, accepted_ms)) => Front::At(seq, accepted_ms),
            None => Front::Empty,
        };
        std::array::from_fn(|index| front(&self.scans[index]))
    }
}

fn scan_index(list: List) -> Option<usize> {
    match list {
        List::Fresh(priority) => Some(usize::from(priority.index())),
        List::Returned(priority) => Some(3 + usize::from(priority.index())),
        List::Head | List::Suspects => None,
    }
}
