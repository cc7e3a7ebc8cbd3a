//! `lease`, `settle`, `extend`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;

use crate::domain::queue::QueueName;
use crate::domain::record::{Record, RecordError};
use crate::domain::retry::Verdict;
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::lease::{
    BatchRef, Extended, Lease, LeaseKind, LeaseRequest, Leased, Settled, Settlement, Token,
};
use crate::store::redis::answer::{Answer, unexpected};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::{Effect, of_key};
use crate::store::redis::keys::{Key, Names, hex};
use crate::store::redis::publish::millis;
use crate::store::redis::state::lock;
use crate::store::redis::{pack, script};
use crate::store::{CALL_MEMORY, LEASE_LIFE_MAX, SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// Times that a lease is repeated because all it took was damaged.
const DAMAGED_ROUNDS_MAX: usize = 100;

/// A batch as the script gave it.
struct Taken {
    batch: BatchRef,
    until: Timestamp,
    more: bool,
    elements: Vec<(u16, Bytes)>,
}

impl Connection {
    pub(super) async fn lease_batch(&self, request: LeaseRequest) -> Result<Leased, StoreError> {
        self.state.check_open()?;
        for _ in 0..DAMAGED_ROUNDS_MAX {
            let mut taken = self.take(&request).await?;
            let found = taken.elements.len();
            self.complete(&request.queue.name, &mut taken).await?;
            let (leases, damaged) = judge(taken.elements);
            if !damaged.is_empty() {
                let left = self.quarantine(&taken.batch, &damaged).await?;
                if left == 0 && damaged.len() == found {
                    continue;
                }
            }
            return Ok(Leased { batch: taken.batch, until: taken.until, leases, more: taken.more });
        }
        Err(StoreError::Internal(format!("queue {} holds nothing but damage", request.queue.name)))
    }

    async fn take(&self, request: &LeaseRequest) -> Result<Taken, StoreError> {
        let (queue, batch) = (&request.queue, hex(request.batch));
        let own = Names::batch(&self.state.names.of_queue(&queue.name), request.batch);
        let mut call = Call::of_queue(&self.state, script::LEASE, queue, Some(&own));
        let kind = match request.kind {
            LeaseKind::Worker => "W",
            LeaseKind::Pull => "P",
        };
        let token = fastrand::u64(1..);
        call.push(batch).push(&token.to_be_bytes()[..]).push(kind).push(request.max).push(request.bytes_max);
        call.push(millis(request.lease)).push(millis(LEASE_LIFE_MAX)).push(u8::from(request.suspects));
        call.push(millis(CALL_MEMORY)).push(SWEEP_MESSAGES_MAX).push(SWEEP_BYTES_MAX);
        call.push(u8::from(self.is_shedding()));
        let mut answer = Answer::of(self.link.send(&call.finish(), Effect::Writes).await?)?;
        match &*answer.bytes()? {
            b"ok" => {}
            b"gone" => return Err(StoreError::Gone),
            b"newer" => {
                let detail = format!("queue {} holds a record of version {}", queue.name, answer.number()?);
                lock(&self.state.newer).insert(queue.name.clone(), detail.clone());
                return Err(StoreError::Newer(detail));
            }
            _ => return Err(unexpected()),
        }
        lock(&self.state.newer).remove(&queue.name);
        let token = answer.bytes()?.as_ref().try_into().map_or(0, u64::from_be_bytes);
        let batch = BatchRef { queue: queue.clone(), batch: request.batch, token: Token(token) };
        let until = answer.moment()?;
        if token > 0 && until.as_millis() > 0 {
            self.state.post_time(until);
        }
        let more = answer.yes()?;
        self.tell_parked(&answer.bytes()?).await;
        let mut elements = Vec::with_capacity(answer.left());
        for index in 0..u16::try_from(answer.left()).map_err(|_| unexpected())? {
            let element = answer.bytes()?;
            // What was settled or lost stands there as a mark.
            if element.len() > 1 {
                elements.push((index, element));
            }
        }
        Ok(Taken { batch, until, more, elements })
    }

    /// Fetches the payloads that lie apart.
    async fn complete(&self, queue: &QueueName, taken: &mut Taken) -> Result<(), StoreError> {
        let apart = |(_, element): &&mut (u16, Bytes)| pack::is_apart(element);
        let waiting: Vec<_> = taken.elements.iter_mut().filter(apart).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let mut command = Cmd::new();
        let base = self.state.names.of_queue(queue);
        let key = Names::in_queue(&base, Key::Bodies);
        command.arg("HMGET").arg(&key);
        for (_, element) in &waiting {
            command.arg(element.get(1..17).unwrap_or_default());
        }
        let bodies = self.link.send(&command, Effect::Reads).await;
        let mut bodies = Answer::of(bodies.map_err(|error| of_key(error, &key))?)?;
        for (_, element) in waiting {
            *element = pack::whole(element, &bodies.bytes()?);
        }
        Ok(())
    }

    /// Puts what cannot be read into the dead letters; gives how many leases are left.
    async fn quarantine(&self, batch: &BatchRef, damaged: &[(u16, String)]) -> Result<u64, StoreError> {
        let queue = &batch.queue;
        let own = Names::batch(&self.state.names.of_queue(&queue.name), batch.batch);
        let mut call = Call::of_queue(&self.state, script::QUARANTINE, queue, Some(&own));
        call.push(hex(batch.batch)).push(&batch.token.0.to_be_bytes()[..]);
        call.push(u8::from(self.is_shedding())).push(damaged.len());
        for (index, words) in damaged {
            call.push(*index).push(words);
        }
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let (woken, left) = (answer.yes()?, answer.number()?);
        self.tell(&queue.name, woken, None);
        self.tell_parked(&answer.bytes()?).await;
        Ok(left)
    }

    pub(super) async fn settle_batch(
        &self,
        batch: BatchRef,
        settlements: Arc<Vec<Settlement>>,
    ) -> Result<Vec<Settled>, StoreError> {
        self.state.check_open()?;
        let order = Order::of(&settlements);
        let own = Names::batch(&self.state.names.of_queue(&batch.queue.name), batch.batch);
        let mut call = Call::of_queue(&self.state, script::SETTLE, &batch.queue, Some(&own));
        call.push(hex(batch.batch)).push(&batch.token.0.to_be_bytes()[..]).push(millis(CALL_MEMORY));
        // What is remembered of attempts and the words of a death are the first things to go without.
        let forgets = self.is_shedding();
        call.push(u8::from(forgets))
            .push(order.acknowledgements(&settlements, forgets))
            .push(order.others.len());
        order.others.iter().for_each(|place| push_settlement(&mut call, &settlements[*place], forgets));
        if !settlements.is_empty()
            && order.others.is_empty()
            && let Some((charged_bytes, entries)) = entries(&settlements, forgets)
        {
            let count = settlements.len();
            let are_first = settlements.iter().all(|settlement| usize::from(settlement.index) < count);
            call.push(count).push(charged_bytes).push(entries).push(u8::from(are_first));
        }
        let answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?);
        let mut answer = match answer {
            Err(StoreError::Gone) => return Ok(vec![Settled::Lost; settlements.len()]),
            other => other?,
        };
        let (woken, soonest) = (answer.yes()?, answer.moment_or_none()?);
        self.tell(&batch.queue.name, woken, soonest);
        self.mark_work(&batch.queue.name, woken, soonest).await;
        self.tell_parked(&answer.bytes()?).await;
        self.has_spent(answer.number()?);
        order.results(&answer.bytes()?, settlements.len())
    }

    pub(super) async fn extend_batch(
        &self,
        batch: BatchRef,
        lease: Duration,
    ) -> Result<Extended, StoreError> {
        self.state.check_open()?;
        let own = Names::batch(&self.state.names.of_queue(&batch.queue.name), batch.batch);
        let mut call = Call::of_queue(&self.state, script::EXTEND, &batch.queue, Some(&own));
        call.push(hex(batch.batch)).push(&batch.token.0.to_be_bytes()[..]).push(millis(lease)).push("");
        let mut answer = Answer::of(self.link.send(&call.finish(), Effect::Reads).await?)?;
        match &*answer.bytes()? {
            b"ok" => answer.moment().map(Extended::Until),
            _ => Ok(Extended::Lost),
        }
    }

    pub(super) async fn extend_some(
        &self,
        batch: BatchRef,
        indices: Arc<[u16]>,
        lease: Duration,
    ) -> Result<Vec<Extended>, StoreError> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        self.state.check_open()?;
        let own = Names::batch(&self.state.names.of_queue(&batch.queue.name), batch.batch);
        let mut call = Call::of_queue(&self.state, script::EXTEND, &batch.queue, Some(&own));
        let packed: Vec<u8> = indices.iter().flat_map(|index| index.to_be_bytes()).collect();
        call.push(hex(batch.batch)).push(&batch.token.0.to_be_bytes()[..]).push(millis(lease)).push(packed);
        let mut answer = Answer::of(self.link.send(&call.finish(), Effect::Reads).await?)?;
        if *answer.bytes()? != *b"ok" {
            return Ok(vec![Extended::Lost; indices.len()]);
        }
        let (until, letters) = (answer.moment()?, answer.bytes()?);
        if letters.len() != indices.len() {
            return Err(unexpected());
        }
        let told = |letter: &u8| if *letter == b'E' { Extended::Until(until) } else { Extended::Lost };
        Ok(letters.iter().map(told).collect())
    }
}

/// Tells what is sound from what is damaged, and why.
fn judge(elements: Vec<(u16, Bytes)>) -> (Vec<Lease>, Vec<(u16, String)>) {
    let (mut leases, mut damaged) = (Vec::with_capacity(elements.len()), Vec::new());
    for (index, element) in elements {
        match Record::decode(element) {
            Ok(record) => leases.push(Lease { index, record }),
            // The script looked at the version: here it would be damage.
            Err(error @ (RecordError::Damaged(_) | RecordError::Newer(_))) => {
                damaged.push((index, error.to_string()));
            }
        }
    }
    (leases, damaged)
}

/// Which settlements go as acknowledgements, packed, and which one by one.
struct Order {
    acknowledged: Vec<usize>,
    others: Vec<usize>,
}

impl Order {
    /// Acknowledgements go first, unless an index is named twice: then the order given decides.
    fn of(settlements: &[Settlement]) -> Self {
        let mut seen = HashSet::with_capacity(settlements.len());
        let is_plain = settlements.iter().all(|settlement| seen.insert(settlement.index));
        let is_ack = |place: &usize| is_plain && settlements[*place].verdict == Verdict::Ack;
        let (acknowledged, others) = (0..settlements.len()).partition(is_ack);
        Self { acknowledged, others }
    }

    fn acknowledgements(&self, settlements: &[Settlement], forgets: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.acknowledged.len() * 24);
        for place in &self.acknowledged {
            let settlement = &settlements[*place];
            out.extend_from_slice(&settlement.index.to_be_bytes());
            match settlement.attempt.as_ref().filter(|_| !forgets) {
                Some(attempt) => out.extend_from_slice(&pack::attempt(&attempt.of_delivered())),
                None => out.extend_from_slice(&[0, 0]),
            }
        }
        out
    }

    fn results(&self, letters: &[u8], count: usize) -> Result<Vec<Settled>, StoreError> {
        let mut results = vec![Settled::Lost; count];
        if letters.len() != count {
            return Err(unexpected());
        }
        for (place, letter) in self.acknowledged.iter().chain(&self.others).zip(letters) {
            if *letter == b'S' {
                results[*place] = Settled::Settled;
            }
        }
        Ok(results)
    }
}

/// What all of them are charged, and what is remembered of each: where all were delivered by first attempts, and none lies apart.
fn entries(settlements: &[Settlement], forgets: bool) -> Option<(u64, Vec<u8>)> {
    let (mut charged_bytes, mut out) = (0, Vec::with_capacity(settlements.len() * 80));
    for settlement in settlements {
        let gist = settlement.gist.as_ref().filter(|gist| pack::is_together(gist.charged_bytes))?;
        charged_bytes += gist.charged_bytes;
        pack::push_finished(&mut out, gist, settlement.attempt.as_ref().filter(|_| !forgets));
    }
    Some((charged_bytes, out))
}

fn push_settlement(call: &mut Call, settlement: &Settlement, forgets: bool) {
    let attempt = settlement.attempt.as_ref();
    let (letter, amount, words) = match &settlement.verdict {
        Verdict::Ack => ("a", 0, ""),
        // For the case that it was the last attempt.
        Verdict::Retry { delay } => {
            let words = attempt.and_then(|attempt| attempt.error.as_deref());
            ("r", millis(*delay), words.unwrap_or_default())
        }
        Verdict::Dead { reason, detail } => {
            ("x", u64::from(reason.index()), detail.as_deref().unwrap_or_default())
        }
        Verdict::Defer { delay } => ("d", millis(*delay), ""),
        Verdict::Postpone { delay } => ("p", millis(*delay), ""),
        Verdict::Release => ("l", 0, ""),
    };
    let status = attempt.and_then(|attempt| attempt.status).unwrap_or_default();
    let words = if forgets { "" } else { words };
    call.push(settlement.index).push(letter).push(amount).push(words).push(status);
    let remembered = attempt.filter(|_| !forgets).map(|attempt| match settlement.verdict {
        Verdict::Ack => pack::attempt(&attempt.of_delivered()),
        // The script writes there when that will be.
        Verdict::Retry { .. } => pack::attempt(&attempt.followed_at(Some(Timestamp::default()))),
        _ => pack::attempt(&attempt.followed_at(None)),
    });
    call.push(remembered.unwrap_or_default());
}
