//! `enqueue`: the groups of a call, by queue, all sent together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;

use crate::domain::id::MessageId;
use crate::domain::record::{self, CHECKSUM_BYTES, FIXED_BYTES, Record};
use crate::store::enqueue::{CallId, Group, GroupResult, NewMessage};
use crate::store::error::{StoreError, Stored};
use crate::store::health::FOREIGN_TYPE;
use crate::store::redis::answer::{Answer, unexpected};
use crate::store::redis::appended::{self, Fate};
use crate::store::redis::call::Call;
use crate::store::redis::calls::Sending;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::Names;
use crate::store::redis::lots::{Lot, lots};
use crate::store::redis::spread::{self, Share};
use crate::store::redis::state::lock;
use crate::store::redis::{pack, script};
use crate::store::{CALL_MEMORY, QueueRef};

/// Said of a sending that came when it could not be known any more what became of an earlier one.
const LATE: &str =
    "Redis: it came so late, by the clock of Redis, that an earlier sending may have been forgotten";

/// The groups of one queue: their places in the call.
struct Part {
    queue: QueueRef,
    places: Vec<usize>,
}

impl Part {
    fn of<'g>(&self, groups: &'g [Group]) -> Vec<&'g Group> {
        self.places.iter().map(|place| &groups[*place]).collect()
    }
}

/// A call of the script with all of its lots.
fn whole(mut script: Call, lots: &[Lot<'_>]) -> Cmd {
    script.push(lots.len());
    for lot in lots {
        lot.push_to(&mut script);
    }
    script.finish()
}

impl Connection {
    pub(super) async fn enqueue_groups(
        &self,
        call: CallId,
        groups: Arc<Vec<Group>>,
    ) -> Result<Vec<GroupResult>, StoreError> {
        self.state.check_open()?;
        let begun = Instant::now();
        let parts = parts(&groups);
        let messages = groups.iter().flat_map(|group| group.messages.iter());
        let record_bytes = messages.clone().map(|message| message.record.len() as u64).sum();
        let full = self.why_full(record_bytes, messages.count() as u64).await?;
        let made = self.fit_to_write().await?;
        let sending = self.leaves(call);
        let told = self.send_parts((made, call, sending, full.is_some()), &parts, &groups).await?;
        let (mut gone, mut late) = (Vec::<usize>::new(), 0);
        let mut results: Vec<GroupResult> = vec![GroupResult::Gone; groups.len()];
        for (part, answer) in parts.iter().zip(told) {
            match answer.and_then(|answer| self.read(part, answer, full.as_deref()).map_err(misread)) {
                Ok(read) => part.places.iter().zip(read).for_each(|(place, result)| results[*place] = result),
                Err(StoreError::Gone) => gone.extend(&part.places),
                // What is unknown here is the fate of this queue's groups: Redis answered.
                Err(error) if parts.len() == 1 && error.stored() == Stored::No => {
                    if sending.is_first {
                        lock(&self.state.calls).closed(call);
                    }
                    return Err(error);
                }
                Err(error) => {
                    late += usize::from(is_late(&error));
                    part.places.iter().for_each(|place| results[*place] = GroupResult::Failed(error.clone()));
                }
            }
        }
        // With an emptied Redis every queue is gone: that is not what a publisher is to hear. What was stored beside it is not
        // touched by the answer.
        if !gone.is_empty()
            && let Err(error) = self.check_epoch().await
        {
            for place in gone {
                results[place] = GroupResult::Failed(error.clone());
            }
        }
        // One that is listed and whose hash is somebody else's is not gone.
        for (result, group) in results.iter_mut().zip(&*groups) {
            if *result == GroupResult::Gone
                && let Some((FOREIGN_TYPE, detail)) = lock(&self.state.troubles).get(&group.queue.name)
            {
                *result = GroupResult::Failed(StoreError::Foreign(detail.clone()));
            }
        }
        let is_stored =
            |result: &&mut GroupResult| matches!(result, GroupResult::Accepted | GroupResult::Duplicate(_));
        if results.iter_mut().any(|result| is_stored(&result))
            && let Err(error) = self.await_replicas(made).await
        {
            let stored = results.iter_mut().filter(is_stored);
            stored.for_each(|result| *result = GroupResult::Failed(error.clone()));
        }
        // Where no sending was carried out the next one is as good as the first.
        let is_known = |result: &GroupResult| match result {
            GroupResult::Failed(error) => sending.is_first && error.stored() == Stored::No,
            _ => true,
        };
        if (sending.is_first && late == parts.len()) || results.iter().all(is_known) {
            lock(&self.state.calls).closed(call);
        }
        self.took(begun.elapsed(), &results);
        Ok(results)
    }

    /// Sends the parts together; what the script says of each.
    async fn send_parts(
        &self,
        (made, call, sending, is_full): (u64, CallId, Sending, bool),
        parts: &[Part],
        groups: &[Group],
    ) -> Result<Vec<Result<redis::Value, StoreError>>, StoreError> {
        let own = |part: &Part| {
            Names::call(&self.state.names.of_queue(&part.queue.name), call, part.queue.generation)
        };
        let script_of = |part: &Part| {
            let own = own(part);
            let mut script = Call::of_queue(&self.state, script::ENQUEUE, &part.queue, Some(&own));
            script.push(millis(CALL_MEMORY)).push(u8::from(is_full)).push(sending.until_ms);
            (script, own)
        };
        let is_plain = sending.is_first && !is_full;
        let may_append = is_plain && self.sending.transacts(made);
        let all_lots: Vec<Vec<Lot<'_>>> = parts.iter().map(|part| lots(&part.of(groups))).collect();
        let mut shares = Vec::new();
        if is_plain && parts.len() > 1 {
            let all = parts.iter().zip(&all_lots).enumerate();
            shares.extend(all.filter_map(|(at, (part, lots))| Share::of(at, &part.queue, own(part), lots)));
        }
        let spread = spread::calls(&self.state, &shares, sending.until_ms);
        let (calls, spread): (Vec<_>, Vec<_>) = spread.into_iter().unzip();
        let is_shared = |place| shares.binary_search_by_key(&place, |share| share.place).is_ok();
        let mut commands = vec![self.mark_due(parts.iter().map(|part| &part.queue.name))];
        commands.extend(calls);
        let mut are_appended = Vec::new();
        for (place, (part, lots)) in
            parts.iter().zip(&all_lots).enumerate().filter(|(place, _)| !is_shared(*place))
        {
            let appended = may_append.then(|| appended::of(lots)).flatten();
            are_appended.push((place, appended.is_some()));
            let (script, own) = script_of(part);
            match appended {
                Some(messages) => commands.extend(appended::transaction(script, &own, &messages)),
                None => commands.push(whole(script, lots)),
            }
        }
        let mut answers = self.sending.exchange_on(made, commands, Effect::Writes).await?.into_iter();
        let fate = |answer| self.sending.fate(answer, made, Effect::Writes);
        let marked = answers.next().and_then(fate);
        let mut told: Vec<Option<Result<redis::Value, StoreError>>> = vec![None; parts.len()];
        for shares in spread {
            let Some(answer) = answers.next() else { break };
            for (share, answer) in shares.iter().zip(spread::told(answer, shares.len())) {
                told[share.place] = answer.and_then(fate);
            }
        }
        for (place, is_appended) in are_appended {
            told[place] = if is_appended {
                self.fate_of_appended(made, answers.by_ref().take(appended::COMMANDS))
            } else {
                answers.next().and_then(fate)
            };
        }
        // What is not known yet was not carried out.
        let left: Vec<usize> = (0..parts.len()).filter(|place| told[*place].is_none()).collect();
        if let (false, true, Some(Err(error))) = (left.is_empty(), !self.sending.is_on(made), marked) {
            // Why that connection was given up.
            for place in left {
                told[place] = Some(Err(error.clone()));
            }
        } else if !left.is_empty() {
            let whole =
                left.iter().map(|place| whole(script_of(&parts[*place]).0, &all_lots[*place])).collect();
            for (place, fate) in left.iter().zip(self.send_whole(made, whole).await) {
                told[*place] = Some(fate);
            }
        }
        Ok(told.into_iter().map(|told| told.unwrap_or_else(|| Err(unexpected()))).collect())
    }

    /// Sends calls of the script together; where it is not there, loads it and sends each once more.
    async fn send_whole(&self, made: u64, calls: Vec<Cmd>) -> Vec<Result<redis::Value, StoreError>> {
        let answers = match &calls[..] {
            [_] => vec![None],
            _ => match self.sending.exchange_on(made, calls.clone(), Effect::Writes).await {
                Ok(answers) => answers
                    .into_iter()
                    .map(|answer| self.sending.fate(answer, made, Effect::Writes))
                    .collect(),
                Err(error) => vec![Some(Err(error)); calls.len()],
            },
        };
        let mut told = Vec::with_capacity(calls.len());
        for (call, answer) in calls.iter().zip(answers) {
            told.push(match answer {
                Some(known) => known,
                None => self.sending.send_on(made, call, Effect::Writes).await,
            });
        }
        told
    }

    /// Notes that Redis answered, and whether it wrote.
    fn took(&self, span: Duration, results: &[GroupResult]) {
        if results.contains(&GroupResult::Accepted) {
            self.state.refused.written();
        }
        lock(&self.state.vitals).took(span);
    }

    /// What a call is told that is about to leave.
    fn leaves(&self, call: CallId) -> Sending {
        let (mut calls, now) = (lock(&self.state.calls), self.state.clock.tick());
        if self.state.clock.is_manual() {
            calls.heard(self.state.time_ms(), now);
        }
        calls.sending(call, now)
    }

    /// What became of a lot that Redis was to append by itself; `None` when it is to be sent whole.
    fn fate_of_appended(
        &self,
        made: u64,
        answers: impl Iterator<Item = redis::Value>,
    ) -> Option<Result<redis::Value, StoreError>> {
        match appended::fate(answers) {
            Fate::Told(told) => self.sending.fate(told, made, Effect::Writes),
            Fate::Undone => None,
            Fate::Unclear(error) => {
                log::error!("cause" = error.to_string().as_str(); "Redis did not carry a transaction out as one");
                self.sending.tore(made);
                Some(Err(error))
            }
        }
    }

    fn read(
        &self,
        part: &Part,
        answer: redis::Value,
        full: Option<&str>,
    ) -> Result<Vec<GroupResult>, StoreError> {
        let mut answer = Answer::of(answer)?;
        let results = match &*answer.bytes()? {
            b"gone" => return Err(StoreError::Gone),
            b"again" => answer.bytes()?,
            b"late" => {
                lock(&self.state.calls).heard(answer.number()?, self.state.clock.tick());
                return Err(StoreError::Unknown(LATE.to_owned()));
            }
            _ => {
                let (woken, soonest) = (answer.yes()?, answer.moment_or_none()?);
                self.tell(&part.queue.name, woken, soonest);
                answer.bytes()?
            }
        };
        if &*results == b"A" {
            return Ok(vec![GroupResult::Accepted; part.places.len()]);
        }
        let results: Vec<_> =
            pack::results(&results).map(|result| read_result(result, full)).collect::<Result<_, _>>()?;
        if results.len() == part.places.len() { Ok(results) } else { Err(unexpected()) }
    }
}

fn is_late(error: &StoreError) -> bool {
    matches!(error, StoreError::Unknown(words) if words == LATE)
}

/// An answer that is none of ours tells nothing of what the script did.
fn misread(error: StoreError) -> StoreError {
    match error {
        StoreError::Internal(words) => StoreError::Unknown(words),
        error => error,
    }
}

fn parts(groups: &[Group]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        match parts.iter_mut().find(|part| part.queue == group.queue) {
            Some(part) => part.places.push(place),
            None => parts.push(Part { queue: group.queue.clone(), places: vec![place] }),
        }
    }
    parts
}

/// A span in milliseconds, as scripts take it.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(record::MILLIS_MAX).min(record::MILLIS_MAX)
}

fn read_result(result: &[u8], full: Option<&str>) -> Result<GroupResult, StoreError> {
    let (word, rest) = result.split_first().ok_or_else(unexpected)?;
    let limit = || pack::u48(rest);
    Ok(match word {
        b'A' => GroupResult::Accepted,
        b'R' => GroupResult::KeyReused,
        b'D' => GroupResult::Duplicate(
            rest.chunks_exact(16).map(|id| MessageId::from_bytes(id.try_into().expect("16 bytes"))).collect(),
        ),
        b'L' => GroupResult::QueueFull { setting: "limits.length_max", limit: limit() },
        b'B' => GroupResult::QueueFull { setting: "limits.bytes_max", limit: limit() },
        b'K' => GroupResult::QueueFull { setting: "idempotency.keys_max", limit: limit() },
        b'F' => {
            let why = full.unwrap_or("its memory is as full as may be");
            GroupResult::Failed(StoreError::Full(why.to_owned()))
        }
        _ => return Err(unexpected()),
    })
}

/// The least that a list element has, so that scripts may read its head.
pub(super) const ELEMENT_BYTES_MIN: usize = FIXED_BYTES + CHECKSUM_BYTES;

/// Whether scripts can read the head of these bytes as that of this message.
pub(super) fn has_head(message: &NewMessage) -> bool {
    let bytes = &message.record;
    bytes.len() >= ELEMENT_BYTES_MIN
        && bytes[0] > 0
        && Record::peek_id(bytes) == Some(message.id)
        && Record::peek_priority(bytes) == Some(message.priority)
        && FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[40], bytes[41]])) + CHECKSUM_BYTES
            <= bytes.len()
}
