//! The dead letters of one queue: browsing, counting, replaying, discarding.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use crate::domain::id::MessageId;
use crate::domain::timestamp::Timestamp;
use crate::store::SWEEP_MESSAGES_MAX;
use crate::store::dead::{DeadFilter, DeadGroup, DeadGrouping, DeadLetter, DeadPage, Replayed, Selection};
use crate::store::memory::Now;
use crate::store::memory::lists::{End, Seq};
use crate::store::memory::queue::{Death, Message, Place, Queue};
use crate::store::turns::List;

/// Messages that a page, a replay or a discard step takes at most.
const STEP_MESSAGES_MAX: usize = 1_000;

/// A dead message with its death.
fn dead_of(message: &Message) -> Option<(&Message, &Death)> {
    match &message.place {
        Place::Dead(death) => Some((message, death)),
        _ => None,
    }
}

fn names(filter: &DeadFilter, death: &Death) -> bool {
    filter.reason.is_none_or(|reason| death.reason == reason)
        && filter.status.is_none_or(|status| death.status == Some(status))
        && filter
            .destination
            .as_ref()
            .is_none_or(|destination| death.destination.as_ref() == Some(destination))
        && filter.from.is_none_or(|from| death.died_at >= from)
        && filter.to.is_none_or(|to| death.died_at < to)
}

fn letter(message: &Message, death: &Death) -> DeadLetter {
    DeadLetter {
        id: message.id,
        reason: death.reason,
        detail: death.detail.clone(),
        died_at: death.died_at,
        status: death.status,
        destination: death.destination.clone(),
        attempts: death.attempts,
        charged_bytes: message.charged_bytes(),
        record: None,
        history: Vec::new(),
    }
}

/// The place in the order of deaths behind which a page begins.
fn read_cursor(cursor: Option<&str>) -> Option<(Timestamp, u64)> {
    let Some(text) = cursor else { return Some((Timestamp::default(), 0)) };
    let (died_ms, number) = text.split_once('-')?;
    Some((Timestamp::from_millis(died_ms.parse().ok()?), number.parse().ok()?))
}

impl Queue {
    /// One page, oldest death first. A cursor that is none of ours is past the end.
    pub(super) fn list_dead(&self, filter: &DeadFilter, cursor: Option<&str>, limit: usize) -> DeadPage {
        let mut page = DeadPage::default();
        let Some(after) = read_cursor(cursor) else { return page };
        let mut last = after;
        let behind = self.dead.range((Bound::Excluded(after), Bound::Unbounded));
        for (looked_at, (key, seq)) in behind.enumerate() {
            if page.letters.len() == limit.clamp(1, STEP_MESSAGES_MAX) || looked_at == SWEEP_MESSAGES_MAX {
                page.cursor = Some(format!("{}-{}", last.0.as_millis(), last.1));
                break;
            }
            last = *key;
            if let Some((message, death)) =
                dead_of(self.message(*seq)).filter(|(_, death)| names(filter, death))
            {
                page.letters.push(letter(message, death));
            }
        }
        page
    }

    /// One dead letter, whole.
    pub(super) fn dead_letter(&self, id: MessageId) -> Option<DeadLetter> {
        let seq = self.by_id.get(&id)?;
        let (message, death) = dead_of(self.message(*seq))?;
        let history = message.log.iter().cloned().collect();
        Some(DeadLetter { record: message.record().ok(), history, ..letter(message, death) })
    }

    /// Counts of dead letters, most numerous first, ties by key.
    pub(super) fn dead_groups(&self, by: DeadGrouping) -> Vec<DeadGroup> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (_, death) in self.dead.values().filter_map(|seq| dead_of(self.message(*seq))) {
            let key = match by {
                DeadGrouping::Reason => death.reason.as_str().to_owned(),
                DeadGrouping::Status => death.status.map(|status| status.to_string()).unwrap_or_default(),
                DeadGrouping::Destination => death.destination.clone().unwrap_or_default(),
            };
            *counts.entry(key).or_default() += 1;
        }
        let mut groups: Vec<_> = counts.into_iter().map(|(key, count)| DeadGroup { key, count }).collect();
        groups.sort_by_key(|group| Reverse(group.count));
        groups
    }

    /// What a selection names: ids in the order given, else oldest death first.
    fn select(&self, selection: &Selection) -> Vec<Seq> {
        match selection {
            Selection::Ids(ids) => {
                let mut seen = HashSet::new();
                let known = ids.iter().filter(|id| seen.insert(**id)).filter_map(|id| self.by_id.get(id));
                known.filter(|seq| dead_of(self.message(**seq)).is_some()).copied().collect()
            }
            Selection::Filter(filter) => {
                let chosen =
                    |seq: &&Seq| dead_of(self.message(**seq)).is_some_and(|(_, death)| names(filter, death));
                self.dead.values().filter(chosen).copied().collect()
            }
        }
    }

    /// Moves a step of dead letters back to pending, as long as the limits of the queue allow.
    pub(super) fn replay(&mut self, selection: &Selection, dry_run: bool, now: Now) -> Replayed {
        let selected = self.select(selection);
        if dry_run {
            return Replayed { matched: selected.len() as u64, ..Replayed::default() };
        }
        let mut done = Replayed::default();
        for seq in selected {
            let message = self.message(seq);
            let Ok(record) = message.record() else {
                done.matched += 1;
                continue;
            };
            if done.replayed == STEP_MESSAGES_MAX as u64 {
                done.more = true;
                break;
            }
            done.matched += 1;
            if self.limit_exceeded_by(1, message.charged_bytes()).is_some() {
                done.full = true;
                break;
            }
            let returned = Place::Pending(List::Returned(message.priority));
            self.rewrite(seq, record.after_replay(now.wall));
            self.move_to(seq, returned, End::Back);
            self.counters.replayed += 1;
            self.woken = true;
            done.replayed += 1;
        }
        self.unpark_when_below();
        done
    }

    /// Removes a step of dead letters; gives how many.
    pub(super) fn discard(&mut self, selection: &Selection) -> u64 {
        let mut selected = self.select(selection);
        selected.truncate(STEP_MESSAGES_MAX);
        for seq in &selected {
            self.remove(*seq);
        }
        self.counters.discarded += selected.len() as u64;
        self.unpark_when_below();
        selected.len() as u64
    }
}
