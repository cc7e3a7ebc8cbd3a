//! The dead letters of one queue: browsing, counting, replaying, discarding.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use redis::Cmd;

use crate::domain::id::MessageId;
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::error::StoreError;
use crate::store::redis::answer::{Answer, unexpected};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::{Effect, of_key};
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::lookup::record_of;
use crate::store::redis::pack::Letter;
use crate::store::redis::{pack, script};
use crate::store::{QueueRef, SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// Messages that a page, a replay or a discard step takes at most.
const STEP_MESSAGES_MAX: usize = 1_000;

/// A place in the order of deaths: when, and which number.
type Place = (Timestamp, u64);

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

/// The place behind which a page begins.
fn read_cursor(cursor: &str) -> Option<Place> {
    let (died_ms, number) = cursor.split_once('-')?;
    Some((Timestamp::from_millis(died_ms.parse().ok()?), number.parse().ok()?))
}

impl Connection {
    /// The letters among so many behind a place, oldest death first, and the place to go on behind; `None` when those are all. What
    /// is damaged is left out, so that there may be none.
    async fn letters(
        &self,
        queue: &QueueRef,
        behind: Option<Place>,
        at_most: usize,
    ) -> Result<(Vec<Letter>, Option<Place>), StoreError> {
        let mut call = Call::of_queue(&self.state, script::LETTERS, queue, None);
        match behind {
            Some((died_at, number)) => call.push(died_at.as_millis()).push(number),
            None => call.push("").push(0),
        };
        call.push(at_most).push(SWEEP_BYTES_MAX);
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?)?;
        let (more, place) = (answer.yes()?, (answer.moment()?, answer.number()?));
        let mut letters = Vec::with_capacity(answer.left() / 3);
        while answer.left() > 0 {
            let id =
                answer.bytes()?.as_ref().try_into().map(MessageId::from_bytes).map_err(|_| unexpected())?;
            let (letter, head) = (answer.bytes()?, answer.bytes()?);
            letters.push(pack::letter(id, &letter, &head).ok_or_else(unexpected)?);
        }
        Ok((letters, Some(place).filter(|_| more)))
    }

    pub(super) async fn page_of_letters(
        &self,
        queue: QueueRef,
        filter: DeadFilter,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<DeadPage, StoreError> {
        self.state.check_open()?;
        let mut page = DeadPage::default();
        let behind = match cursor.as_deref().map(read_cursor) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return Ok(page),
        };
        let limit = limit.clamp(1, STEP_MESSAGES_MAX);
        let (letters, next) = self.letters(&queue, behind, SWEEP_MESSAGES_MAX).await?;
        let mut last = behind.unwrap_or_default();
        for Letter { number, letter } in letters {
            if page.letters.len() == limit {
                page.cursor = Some(format!("{}-{}", last.0.as_millis(), last.1));
                return Ok(page);
            }
            last = (letter.died_at, number);
            if names(&filter, &letter) {
                page.letters.push(letter);
            }
        }
        let mut next = next;
        while let Some(place) = next {
            let (letters, behind) = self.letters(&queue, Some(place), STEP_MESSAGES_MAX).await?;
            if !letters.is_empty() {
                page.cursor = Some(format!("{}-{}", place.0.as_millis(), place.1));
                break;
            }
            next = behind;
        }
        Ok(page)
    }

    pub(super) async fn dead_letter(
        &self,
        queue: QueueRef,
        id: MessageId,
    ) -> Result<Option<DeadLetter>, StoreError> {
        self.state.check_open()?;
        let mut call = Call::of_queue(&self.state, script::FIND, &queue, None);
        let batches = Names::batches(&call.base);
        // Not among those that ended.
        call.push(&id.as_bytes()[..]).push(batches).push(0).push(0).push(0);
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?)?;
        if &*answer.bytes()? != b"dead" {
            return Ok(None);
        }
        let (record, own, log, body) = (answer.bytes()?, answer.bytes()?, answer.bytes()?, answer.bytes()?);
        let mut letter = pack::letter(id, &own, &record).ok_or_else(unexpected)?.letter;
        letter.record = record_of(record, &body);
        letter.history = pack::attempts(&log);
        Ok(Some(letter))
    }

    pub(super) async fn groups_of_letters(
        &self,
        queue: QueueRef,
        by: DeadGrouping,
    ) -> Result<Vec<DeadGroup>, StoreError> {
        self.state.check_open()?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut behind = None;
        loop {
            let (letters, next) = self.letters(&queue, behind, STEP_MESSAGES_MAX).await?;
            for Letter { letter, .. } in letters {
                let key = match by {
                    DeadGrouping::Reason => letter.reason.as_str().to_owned(),
                    DeadGrouping::Status => {
                        letter.status.map(|status| status.to_string()).unwrap_or_default()
                    }
                    DeadGrouping::Destination => letter.destination.unwrap_or_default(),
                };
                *counts.entry(key).or_default() += 1;
            }
            if next.is_none() {
                break;
            }
            behind = next;
        }
        let mut groups: Vec<_> = counts.into_iter().map(|(key, count)| DeadGroup { key, count }).collect();
        groups.sort_by_key(|group| Reverse(group.count));
        Ok(groups)
    }

    /// The next so many ids that a filter names, oldest death first.
    async fn chosen(
        &self,
        queue: &QueueRef,
        filter: &DeadFilter,
        at_most: usize,
    ) -> Result<Vec<MessageId>, StoreError> {
        let (mut ids, mut behind) = (Vec::new(), None);
        loop {
            let (letters, next) = self.letters(queue, behind, STEP_MESSAGES_MAX).await?;
            for Letter { letter, .. } in letters {
                if names(filter, &letter) && ids.len() < at_most {
                    ids.push(letter.id);
                }
            }
            if next.is_none() || ids.len() == at_most {
                return Ok(ids);
            }
            behind = next;
        }
    }

    /// The ids that a selection names and that are dead, in its order.
    async fn select(
        &self,
        queue: &QueueRef,
        selection: &Selection,
        at_most: usize,
    ) -> Result<Vec<MessageId>, StoreError> {
        match selection {
            Selection::Filter(filter) => self.chosen(queue, filter, at_most).await,
            Selection::Ids(ids) => {
                let mut seen = HashSet::new();
                let ids: Vec<_> = ids.iter().filter(|id| seen.insert(**id)).copied().collect();
                let mut dead = Vec::new();
                for part in ids.chunks(STEP_MESSAGES_MAX) {
                    for (id, record) in part.iter().zip(self.dead_records(queue, part).await?) {
                        if record.is_some() && dead.len() < at_most {
                            dead.push(*id);
                        }
                    }
                }
                Ok(dead)
            }
        }
    }

    /// The elements of dead letters, by id.
    async fn dead_records(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let base = self.state.names.of_queue(&queue.name);
        let mut command = Cmd::new();
        let key = Names::in_queue(&base, Key::DeadRecords);
        command.arg("HMGET").arg(&key);
        for id in ids {
            command.arg(&id.as_bytes()[..]);
        }
        let records = self.link.send(&command, Effect::Reads).await;
        let mut answer = Answer::of(records.map_err(|error| of_key(error, &key))?)?;
        let elements = ids
            .iter()
            .map(|_| answer.bytes().map(|element| Some(element).filter(|element| !element.is_empty())));
        elements.collect()
    }

    pub(super) async fn replay_letters(
        &self,
        queue: QueueRef,
        selection: Selection,
        dry_run: bool,
    ) -> Result<Replayed, StoreError> {
        self.state.check_open()?;
        if dry_run {
            let matched = self.select(&queue, &selection, usize::MAX).await?.len() as u64;
            // Also refuses a queue that is gone.
            self.letters(&queue, None, 1).await?;
            return Ok(Replayed { matched, ..Replayed::default() });
        }
        let mut done = Replayed::default();
        let all = self.select(&queue, &selection, usize::MAX).await?;
        let mut sound = Vec::new();
        for part in all.chunks(STEP_MESSAGES_MAX) {
            let elements = self.dead_records(&queue, part).await?;
            for (id, element) in part.iter().zip(elements) {
                let Some(element) = element else { continue };
                if pack::is_apart(&element) || Record::decode(element).is_ok() {
                    if sound.len() == STEP_MESSAGES_MAX {
                        done.more = true;
                        break;
                    }
                    sound.push(*id);
                } else {
                    done.matched += 1;
                }
            }
            if done.more {
                break;
            }
        }
        if !sound.is_empty() {
            self.mark_work(&queue.name, true, None).await;
        }
        let mut call = Call::of_queue(&self.state, script::REPLAY, &queue, None);
        call.push(sound.len());
        for id in &sound {
            call.push(&id.as_bytes()[..]);
        }
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let woken = answer.yes()?;
        done.matched += answer.number()?;
        done.replayed = answer.number()?;
        done.full = answer.yes()?;
        done.more &= !done.full;
        let unparked = answer.yes()?;
        self.tell(&queue.name, woken, None);
        if unparked {
            self.touch().await;
        }
        Ok(done)
    }

    pub(super) async fn discard_letters(
        &self,
        queue: QueueRef,
        selection: Selection,
    ) -> Result<u64, StoreError> {
        self.state.check_open()?;
        let ids = self.select(&queue, &selection, STEP_MESSAGES_MAX).await?;
        let mut call = Call::of_queue(&self.state, script::DISCARD, &queue, None);
        call.push(ids.len());
        for id in &ids {
            call.push(&id.as_bytes()[..]);
        }
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Writes).await?)?;
        let (woken, discarded, unparked) = (answer.yes()?, answer.number()?, answer.yes()?);
        self.tell(&queue.name, woken, None);
        // Also when nothing is woken: who observes looks at what the index says.
        self.mark_work(&queue.name, true, None).await;
        if unparked {
            self.touch().await;
        }
        Ok(discarded)
    }
}
