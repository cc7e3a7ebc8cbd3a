//! Storing the messages of one publish: idempotency, limits, write.

use crate::domain::id::MessageId;
use crate::domain::record::{self, Record};
use crate::store::enqueue::{CallId, Due, Group, GroupResult, IdempotencyKey, NewMessage};
use crate::store::error::StoreError;
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::moves::Target;
use crate::store::sqlite::state::Moving;
use crate::store::sqlite::work::{Sql, Work, kept_ms, one};
use crate::store::turns::List;

const READ_KEY: &str = "SELECT fingerprint, ids FROM keys WHERE queue = ?1 AND key = ?2 AND until_ms > ?3";
const REMEMBER_KEY: &str = "
INSERT INTO keys (queue, key, until_ms, fingerprint, ids) VALUES (?1, ?2, ?3, ?4, ?5)";
const FORGET_KEY: &str = "DELETE FROM keys WHERE queue = ?1 AND key = ?2";
const FORGET_KEYS: &str = "
DELETE FROM keys WHERE (queue, key) IN
    (SELECT queue, key FROM keys WHERE queue = ?1 AND until_ms <= ?2 ORDER BY until_ms LIMIT ?3)";
const FIRST_KEY: &str = "SELECT until_ms FROM keys WHERE queue = ?1 ORDER BY until_ms LIMIT 1";
/// Idempotency keys that are over and that one step removes at most.
const KEYS_STEP_MAX: usize = 2_000;

impl Work<'_> {
    /// Stores one group of a call of `count`, unless it is known what became of it.
    pub(super) fn enqueue(
        &mut self,
        call: CallId,
        index: usize,
        count: usize,
        group: &Group,
    ) -> Sql<GroupResult> {
        self.effects.durable = true;
        if let Some(result) = self.calls.result(call, index, self.now) {
            return Ok(result);
        }
        let result = match self.number_of(&group.queue) {
            Some(number) => self.store_group(number, group)?,
            None => GroupResult::Gone,
        };
        self.calls.stage(call, index, count, result.clone(), self.now);
        Ok(result)
    }

    fn store_group(&mut self, number: QueueNumber, group: &Group) -> Sql<GroupResult> {
        if let Some(key) = &group.key
            && let Some(known) = self.known_key(number, key)?
        {
            return Ok(known);
        }
        let bytes = group.messages.iter().map(|message| record::charged_bytes(&message.record)).sum();
        if let Some((setting, limit)) =
            self.queue(number).limit_exceeded_by(group.messages.len() as u64, bytes)
        {
            return Ok(GroupResult::QueueFull { setting, limit });
        }
        if group.key.is_some()
            && let Some(limit) = self.keys_at_limit(number)?
        {
            return Ok(GroupResult::QueueFull { setting: "idempotency.keys_max", limit });
        }
        if let Some(full) = self.full {
            return Ok(GroupResult::Failed(StoreError::Full(full.to_owned())));
        }
        if let Some(key) = &group.key {
            self.remember_key(number, key, &group.messages)?;
        }
        for message in group.messages.iter() {
            self.store(number, message)?;
        }
        Ok(GroupResult::Accepted)
    }

    fn store(&mut self, number: QueueNumber, new: &NewMessage) -> Sql<()> {
        let wall = self.now.wall;
        let due = match new.due {
            Due::Now => wall,
            Due::After(delay) => wall.saturating_add(delay),
            Due::At(at) => at,
        };
        let target = if due > wall {
            Target::Scheduled(due)
        } else {
            if !self.queue(number).waits(false) {
                self.wake(number);
            }
            Target::List(List::Fresh(new.priority), false)
        };
        let accepted_at = Record::peek_accepted_at(&new.record).unwrap_or(wall);
        let moving = Moving {
            id: new.id,
            priority: new.priority,
            accepted_ms: accepted_at.as_millis(),
            charged: record::charged_bytes(&new.record),
            suspect: false,
        };
        self.queue_mut(number).tally.counters.accepted += 1;
        self.add(number, &moving, target, &new.record)
    }

    fn known_key(&self, number: QueueNumber, key: &IdempotencyKey) -> Sql<Option<GroupResult>> {
        let mut statement = self.sql.prepare_cached(READ_KEY)?;
        let known = statement.query_row((number, &key.key, kept_ms(self.now.wall)), |row| {
            let same = row.get_ref(0)?.as_blob()? == key.fingerprint;
            let ids = row.get_ref(1)?.as_blob()?;
            Ok(if same { GroupResult::Duplicate(unpack_ids(ids)) } else { GroupResult::KeyReused })
        });
        one(known)
    }

    fn remember_key(
        &mut self,
        number: QueueNumber,
        key: &IdempotencyKey,
        messages: &[NewMessage],
    ) -> Sql<()> {
        let forgotten = self.sql.prepare_cached(FORGET_KEY)?.execute((number, &key.key))? as u64;
        let window = self.queue(number).entry.settings.idempotency.window;
        let until = kept_ms(self.now.wall.saturating_add(window));
        let ids: Vec<u8> = messages.iter().flat_map(|message| *message.id.as_bytes()).collect();
        let kept = (number, &key.key, until, key.fingerprint, ids);
        self.sql.prepare_cached(REMEMBER_KEY)?.execute(kept)?;
        let queue = self.queue_mut(number);
        queue.tally.keys = queue.tally.keys + 1 - forgotten;
        queue.oldest.key = queue.oldest.key.min(until.unsigned_abs());
        Ok(())
    }

    /// The limit of idempotency keys, if there are as many.
    fn keys_at_limit(&mut self, number: QueueNumber) -> Sql<Option<u64>> {
        let limit = self.queue(number).entry.settings.idempotency.keys_max;
        if self.queue(number).tally.keys >= limit {
            self.forget_keys(number)?;
        }
        Ok((self.queue(number).tally.keys >= limit).then_some(limit))
    }

    /// Removes idempotency keys whose time is over, a bounded number of them; gives whether more may be over.
    pub(super) fn forget_keys(&mut self, number: QueueNumber) -> Sql<bool> {
        let now_ms = self.now.wall.as_millis();
        let queue = self.queue(number);
        if queue.tally.keys == 0 || queue.oldest.key > now_ms {
            return Ok(false);
        }
        let step = (number, kept_ms(self.now.wall), KEYS_STEP_MAX);
        let forgotten = self.sql.prepare_cached(FORGET_KEYS)?.execute(step)?;
        let first: Option<u64> =
            one(self.sql.prepare_cached(FIRST_KEY)?.query_row([number], |row| row.get(0)))?;
        let queue = self.queue_mut(number);
        queue.tally.keys -= forgotten as u64;
        queue.oldest.key = first.unwrap_or(u64::MAX);
        Ok(forgotten == KEYS_STEP_MAX)
    }
}

fn unpack_ids(bytes: &[u8]) -> Vec<MessageId> {
    let (ids, _) = bytes.as_chunks::<16>();
    ids.iter().map(|id| MessageId::from_bytes(*id)).collect()
}
