//! Finding, cancelling, bringing forward and purging messages of one queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::domain::id::MessageId;
use crate::domain::message::State;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::redis::answer::{Answer, read_number, unexpected};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::Names;
use crate::store::redis::{pack, script};
use crate::store::stats::{Cancelled, Found};
use crate::store::{PROMOTED_MAX, QueueRef, SWEEP_BYTES_MAX, Scheduled};

/// Elements of the history that the first look takes, and each one behind it: a fraction of a millisecond of Redis.
const FIRST_ELEMENTS: u64 = 192;
const STEP_ELEMENTS: u64 = 512;
/// How many times as long as a step took, and how long at most, whoever looks further rests.
const RESTS: u32 = 4;
const REST_MAX: Duration = Duration::from_millis(50);
/// The longest wait for the turn to look further.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// The record of an element, with the payload that lies apart; `None` when it is damaged.
pub(super) fn record_of(element: Bytes, body: &Bytes) -> Option<Record> {
    let element = if pack::is_apart(&element) { pack::whole(&element, body) } else { element };
    Record::decode(element).ok()
}

impl Connection {
    pub(super) async fn find_message(
        &self,
        queue: QueueRef,
        id: MessageId,
    ) -> Result<Option<Found>, StoreError> {
        self.state.check_open()?;
        let Some((place, mut answer)) = self.look_for(&queue, id).await? else { return Ok(None) };
        let (record, own, log, body) = (answer.bytes()?, answer.bytes()?, answer.bytes()?, answer.bytes()?);
        let mut found = Found {
            state: State::Pending,
            reason: None,
            detail: None,
            ended_at: None,
            due_at: None,
            record: None,
            finished: None,
            history: pack::attempts(&log),
        };
        match &*place {
            b"pending" => {}
            b"leased" => found.state = State::Leased,
            b"scheduled" => {
                found.state = State::Scheduled;
                found.due_at = Some(Timestamp::from_millis(read_number(&own)));
            }
            b"dead" => {
                let letter = pack::letter(id, &own, &record).ok_or_else(unexpected)?.letter;
                found.state = State::Dead;
                (found.reason, found.detail) = (Some(letter.reason), letter.detail);
                found.ended_at = Some(letter.died_at);
            }
            b"ended" => {
                let (is_delivered, finished, last) = pack::finished(&record).ok_or_else(unexpected)?;
                found.state = if is_delivered { State::Delivered } else { State::Cancelled };
                found.ended_at = Some(Timestamp::from_millis(pack::u48(&own)));
                found.history.extend(last);
                found.finished = Some(finished);
                return Ok(Some(found));
            }
            _ => return Err(unexpected()),
        }
        found.record = record_of(record, &body);
        Ok(Some(found))
    }

    /// Where a message is, and what the script said of it; `None` when it is nowhere.
    ///
    /// What is leased is looked through in steps, then what ended, from the end. Behind the first one goes whoever has the turn, and rests after each
    /// for longer than it took: who asks for what was never there costs the others a part of Redis that is small and does not grow.
    async fn look_for(&self, queue: &QueueRef, id: MessageId) -> Result<Option<(Bytes, Answer)>, StoreError> {
        let (mut elements, mut messages, mut turn) = (0, 0, None);
        let mut leases = Bytes::from_static(b"0");
        loop {
            let mut call = Call::of_queue(&self.state, script::FIND, queue, None);
            let batches = Names::batches(&call.base);
            call.push(&id.as_bytes()[..]).push(batches).push(elements).push(messages);
            call.push(if elements == 0 { FIRST_ELEMENTS } else { STEP_ELEMENTS }).push(&leases[..]);
            let began = Instant::now();
            let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?)?;
            let place = answer.bytes()?;
            match &*place {
                b"nowhere" => return Ok(None),
                b"leases" => leases = answer.bytes()?,
                b"further" => {
                    (elements, messages) = (answer.number()?, answer.number()?);
                    leases = Bytes::new();
                }
                _ => return Ok(Some((place, answer))),
            }
            if turn.is_some() {
                sleep((began.elapsed() * RESTS).min(REST_MAX)).await;
            } else {
                let waited = timeout(TURN_WITHIN, self.state.history.lock()).await;
                turn = Some(waited.map_err(|_| {
                    StoreError::Unavailable("many look through the messages that ended".to_owned())
                })?);
            }
        }
    }

    pub(super) async fn cancel_message(
        &self,
        queue: QueueRef,
        id: MessageId,
    ) -> Result<Cancelled, StoreError> {
        self.state.check_open()?;
        let mut call = Call::of_queue(&self.state, script::CANCEL, &queue, None);
        call.push(&id.as_bytes()[..]);
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let said = answer.bytes()?;
        if &*said == b"cancelled" {
            // Who observes looks at what the index says.
            self.mark_work(&queue.name, true, None).await;
        }
        Ok(match &*said {
            b"cancelled" => Cancelled::Cancelled,
            b"finished" => Cancelled::Finished,
            _ => match self.find_message(queue, id).await? {
                Some(found) if matches!(found.state, State::Delivered | State::Cancelled | State::Dead) => {
                    Cancelled::Finished
                }
                // Or was, a moment ago: it may be tried again.
                Some(_) => Cancelled::Leased,
                None => Cancelled::Unknown,
            },
        })
    }

    pub(super) async fn promote_scheduled(
        &self,
        queue: QueueRef,
        scheduled: Arc<[Scheduled]>,
    ) -> Result<Vec<bool>, StoreError> {
        self.state.check_open()?;
        let most = scheduled.len().min(PROMOTED_MAX);
        let mut promoted = Vec::with_capacity(scheduled.len());
        loop {
            let rest = &scheduled[promoted.len()..most];
            let named: Vec<u8> = rest
                .iter()
                .flat_map(|one| one.id.as_bytes().iter().chain([&one.attempts]))
                .copied()
                .collect();
            let mut call = Call::of_queue(&self.state, script::PROMOTE, &queue, None);
            call.push(SWEEP_BYTES_MAX).push(&named[..]);
            let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
            let (woken, told) = (answer.yes()?, answer.bytes()?);
            if told.len() > rest.len() || (told.is_empty() && !rest.is_empty()) {
                return Err(unexpected());
            }
            self.tell(&queue.name, woken, None);
            // Who observes looks at what the index says. Where this gets lost, it says when they would have been due.
            self.mark_work(&queue.name, told.contains(&b'1'), None).await;
            promoted.extend(told.iter().map(|letter| *letter == b'1'));
            if promoted.len() >= most {
                promoted.resize(scheduled.len(), false);
                return Ok(promoted);
            }
        }
    }

    pub(super) async fn purge_queue(&self, queue: QueueRef) -> Result<u64, StoreError> {
        self.state.check_open()?;
        let mut call = Call::of_queue(&self.state, script::PURGE, &queue, None);
        let purged = Names::purged(&call.base);
        call.push(purged);
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let purged = answer.number()?;
        if purged > 0 {
            // The sweeps give the space up.
            self.mark_work(&queue.name, true, None).await;
        }
        Ok(purged)
    }
}
