//! What time brings: the due index says which queues are to be looked at, a script looks at each.
//!
//! The index holds, for each queue, the earliest moment when there may be something to do. Whoever makes work writes it
//! there *before* (a command of its own: another slot); only a sweep moves it on. A sweep first puts the queues it takes
//! off a little, then looks, then sets their next moment if nobody wrote another meanwhile. A queue without work is looked
//! at once more a minute later before it leaves the index, or its next moment lies further away: whoever wrote to the
//! index just before the first look has long written the message by then. What a sweep took and could not finish, because Redis
//! went away, is due at once in the next one. A few queues are looked at in turn whatever the index says, so that nothing waits
//! for ever for an entry that was lost: those that hold something are put back into it.
//!
//! A queue for workers is looked at again at once while it has something to lease: it is posted until they have it all. One from
//! which consumers pull may have it for days, so it is looked at now and then, and every gateway is told, since its consumers may
//! wait at any of them.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use redis::Cmd;

use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;
use crate::store::health::{COUNTERS_DIFFER, FOREIGN_BESIDE, FOREIGN_TYPE};
use crate::store::redis::answer::{Answer, read_count};
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::{Effect, FORBIDDEN};
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::publish::millis;
use crate::store::redis::state::lock;
use crate::store::redis::stats::{LAW_FIELDS, is_sound_and_empty, read_park};
use crate::store::redis::{pack, script};
use crate::store::stats::Swept;
use crate::store::{QueueEntry, SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// How far a queue is put off while it is looked at, milliseconds: longer than a look takes as a rule. One that takes longer is
/// looked at twice, which does no harm; one whose gateway was killed meanwhile is not left alone for longer.
const PUT_OFF_MS: u64 = 2_000;
/// When a queue without work is looked at again, milliseconds: longer than a call may take.
const QUIET_MS: u64 = 60_000;
/// When a queue with messages for consumers is looked at again, milliseconds: whoever makes more work in it says so, and consumers
/// look for themselves when they come.
const PULL_MS: u64 = 10_000;
/// Queues that one round takes from the index.
const QUEUES_MAX: usize = 1_000;
/// Queues that are looked at in turn in each round: one command each while they are empty.
const TURN_QUEUES: usize = 4;
/// How long after the store was away no lease of a queue is taken back, beyond a third of the queue's lease, milliseconds: within
/// that third whoever holds one extends it.
const GRACE_MS: u64 = 5_000;

/// What a sweeper remembers from round to round.
#[derive(Default)]
pub(super) struct Rounds {
    /// The next moment of each queue, as the last look at it said.
    next: HashMap<QueueName, Timestamp>,
    turn: usize,
    /// Queues whose hash has other settings than their entry: since when, and what is said of it.
    pub(super) strange: HashMap<QueueName, (Instant, Option<String>)>,
    /// When the keys that all queues share were looked at.
    pub(super) shared_seen: Option<Instant>,
    /// What was taken from the index and not given back: how far it was put off, and the queues.
    unfinished: Option<(u64, Vec<QueueName>)>,
    /// When it was last said of a queue that it was mended.
    pub(super) mended_said: HashMap<QueueName, Instant>,
}

impl Rounds {
    /// Notes whether a queue's hash has other settings than its entry; gives what is said of it.
    fn note_settings(&mut self, queue: &QueueName, are_strange: bool) -> Option<String> {
        if !are_strange {
            self.strange.remove(queue);
            return None;
        }
        let (_, detail) = self.strange.entry(queue.clone()).or_insert_with(|| (Instant::now(), None));
        detail.clone()
    }
}

/// What the index gave.
struct Due {
    now_ms: u64,
    /// The last look before the store was away or its clock was set, and when that was found; 0: never.
    gap_ms: (u64, u64),
    /// Name, and whether this is the second look at a queue without work.
    queues: Vec<(QueueName, bool)>,
    /// What is no name of a queue.
    junk: Vec<Bytes>,
}

/// What a look at a queue found.
struct Look {
    ready: bool,
    more: bool,
    next: Option<Timestamp>,
    again: Option<Timestamp>,
    /// Whether every gateway is to hear that there is something for consumers.
    is_told: bool,
}

/// What it found besides.
struct Beside {
    /// The queue is held in another way than was known.
    is_held_otherwise: bool,
    /// Its gauges and keys say different things.
    differs: bool,
    /// The settings in its hash are others than those of its entry.
    has_other_settings: bool,
}

impl Look {
    /// The same of a queue from which consumers pull: what is ready there is no reason to look again soon.
    fn for_consumers(self, now_ms: u64) -> Self {
        if !self.ready {
            return self;
        }
        let later = Timestamp::from_millis(now_ms + PULL_MS);
        let sooner = |moment: Option<Timestamp>| Some(moment.map_or(later, |moment| moment.min(later)));
        let again = sooner(self.again.or(self.next));
        Self { ready: false, next: sooner(self.next), again, is_told: true, ..self }
    }
}

impl Connection {
    /// Says that there may be something to do for these queues now. Refused when memory is full.
    pub(super) fn mark_due<'q>(&self, queues: impl IntoIterator<Item = &'q QueueName>) -> Cmd {
        let mut command = Cmd::new();
        command.arg("ZADD").arg(self.state.names.of_store(Key::Due)).arg("LT");
        for queue in queues {
            command.arg(0).arg(queue.as_str());
        }
        command
    }

    /// Tells every gateway that there is something to lease.
    async fn tell_all(&self, queue: &QueueName) {
        let mut command = Cmd::new();
        command.arg("PUBLISH").arg(&self.state.wake_channel).arg(queue.as_str());
        if let Err(error) = self.link.send(&command, Effect::Reads).await {
            log::debug!("cause" = error.to_string().as_str(); "the other gateways were not told");
        }
    }

    /// Says so after a call that found it out by its answer.
    pub(super) async fn mark_work(&self, queue: &QueueName, now: bool, soonest: Option<Timestamp>) {
        let at_ms = if now { Some(0) } else { soonest.map(Timestamp::as_millis) };
        let Some(at_ms) = at_ms else { return };
        let mut mark = Call::of_store(&self.state, script::MARK);
        mark.push(queue.as_str()).push(at_ms);
        if let Err(error) = self.link.send(&mark.finish(), Effect::Reads).await {
            log::debug!("cause" = error.to_string().as_str(); "the due index was not told");
        }
    }

    pub(super) async fn sweep_all(&self) -> Result<Swept, StoreError> {
        self.state.check_open()?;
        let swept = self.sweep_once().await;
        match &swept {
            Ok(_) => {
                self.state.note_unswept(None);
                self.state.refused.written();
            }
            Err(error @ StoreError::Timeout(_)) => {
                // One that answers nobody is away, and told so.
                if self.still_answers().await {
                    self.state.refused.unanswered(error);
                    self.state.note_unswept(Some(error.clone()));
                }
            }
            Err(error) => {
                self.state.note_unswept(Some(error.clone()));
                if matches!(error, StoreError::Foreign(_) | StoreError::Internal(_)) {
                    self.rounds.borrow_mut().shared_seen = None;
                }
            }
        }
        swept
    }

    async fn sweep_once(&self) -> Result<Swept, StoreError> {
        self.look_at_shared().await?;
        self.sweep_round().await
    }

    async fn sweep_round(&self) -> Result<Swept, StoreError> {
        let entries = self.listed().await?;
        let due = self.begin_round().await?;
        let looks = self.looks(&entries, &due).await?;
        let mut swept = Swept { more: due.queues.len() + due.junk.len() == QUEUES_MAX, ..Swept::default() };
        let commands = looks.iter().map(|(entry, _)| self.look(entry, &due)).collect();
        let answers = self.link.send_each(commands, Effect::Reads).await?;
        let mut again = Call::of_store(&self.state, script::DUE_AGAIN);
        again.push(due.now_ms + PUT_OFF_MS);
        let (mut any, mut failed, mut sound) = (false, None, 0);
        for ((entry, taken), answer) in looks.iter().zip(answers) {
            let look = match answer.and_then(|answer| self.read_look(entry, answer, &mut swept)) {
                Ok((look, beside)) => Some(self.see_to(entry, look, &beside, &mut swept).await),
                Err(StoreError::Gone) => {
                    self.note_generation(&entry.name).await?;
                    None
                }
                // It stays put off; its neighbours must not wait for it.
                Err(error) => {
                    // One that broke off behind its first write says so in its own words.
                    if let StoreError::Foreign(detail) | StoreError::Internal(detail) = &error
                        && !detail.contains(FORBIDDEN)
                    {
                        self.state.troubled(&entry.name, Some((FOREIGN_TYPE, detail.clone())));
                    }
                    failed = Some(error);
                    continue;
                }
            };
            sound += 1;
            let look =
                look.map(|look| if entry.settings.is_pull() { look.for_consumers(due.now_ms) } else { look });
            if look.as_ref().is_some_and(|look| look.is_told) {
                self.tell_all(&entry.name).await;
            }
            if let (None, Some(look)) = (taken, &look) {
                // The index may not say what it holds.
                self.mark_work(&entry.name, look.ready || look.more, look.next).await;
            }
            if let Some(is_second) = taken {
                any = true;
                again.push(entry.name.as_str()).push(next_look(look.as_ref(), *is_second, due.now_ms));
            }
        }
        // What is in the index and is no queue any more.
        let known: HashSet<_> = entries.iter().map(|entry| &entry.name).collect();
        any |= self.let_go(&due, &known, &mut again);
        if any {
            self.link.send(&again.finish(), Effect::Reads).await?;
            self.rounds.borrow_mut().unfinished = None;
        }
        if let Some(error) = failed.filter(|_| sound == 0) {
            return Err(error);
        }
        swept.ready.sort_unstable();
        let mut rounds = self.rounds.borrow_mut();
        rounds.next.retain(|name, _| known.contains(name));
        rounds.strange.retain(|name, _| known.contains(name));
        rounds.mended_said.retain(|name, _| known.contains(name));
        lock(&self.state.troubles).retain(|name, _| known.contains(name));
        lock(&self.state.recovering).retain(|name, _| known.contains(name));
        swept.next_at = rounds.next.values().min().copied();
        self.state.is_next(swept.next_at);
        Ok(swept)
    }

    /// Does what a look calls for besides.
    async fn see_to(&self, entry: &QueueEntry, mut look: Look, beside: &Beside, swept: &mut Swept) -> Look {
        if beside.is_held_otherwise {
            self.touch().await;
        }
        if beside.has_other_settings {
            self.look_at_settings(entry).await;
            look.more = true;
        }
        if beside.differs {
            // A step of it, then another look.
            match self.repair(entry).await {
                Ok(more) => swept.more |= more,
                Err(error) => {
                    log::debug!("queue.name" = entry.name.as_str(), "cause" = error.to_string().as_str(); "a queue was not mended");
                }
            }
            look.more = true;
        }
        look
    }

    /// Takes what is due from the index, when all is given back that the last round took.
    async fn begin_round(&self) -> Result<Due, StoreError> {
        self.finish_last_round().await?;
        let due = self.due().await?;
        if !due.queues.is_empty() {
            let taken = due.queues.iter().map(|(name, _)| name.clone()).collect();
            self.rounds.borrow_mut().unfinished = Some((due.now_ms + PUT_OFF_MS, taken));
        }
        Ok(due)
    }

    /// Says of what was due and is no queue that it is to be forgotten; whether there was any.
    fn let_go(&self, due: &Due, known: &HashSet<&QueueName>, again: &mut Call) -> bool {
        let mut any = false;
        for (name, _) in due.queues.iter().filter(|(name, _)| !known.contains(name)) {
            any = true;
            again.push(name.as_str());
            // One that cannot be read here is somebody else's to look at.
            match self.state.why_unreadable(name.as_str()) {
                Some(_) => again.push(due.now_ms),
                None => again.push(""),
            };
        }
        for name in &due.junk {
            again.push(&name[..]).push("");
        }
        any || !due.junk.is_empty()
    }

    /// Makes due at once what the last round took and did not give back.
    async fn finish_last_round(&self) -> Result<(), StoreError> {
        let Some((put_off, names)) = self.rounds.borrow().unfinished.clone() else { return Ok(()) };
        let mut again = Call::of_store(&self.state, script::DUE_AGAIN);
        again.push(put_off);
        for name in &names {
            again.push(name.as_str()).push(0);
        }
        self.link.send(&again.finish(), Effect::Reads).await?;
        self.rounds.borrow_mut().unfinished = None;
        Ok(())
    }

    /// The queues to look at: those that are due, with whether it is their second look, and those whose turn it is that hold
    /// something or are parked.
    async fn looks(
        &self,
        entries: &[QueueEntry],
        due: &Due,
    ) -> Result<Vec<(QueueEntry, Option<bool>)>, StoreError> {
        let by_name: HashMap<_, _> = entries.iter().map(|entry| (&entry.name, entry)).collect();
        let taken = due.queues.iter().filter_map(|(name, is_second)| {
            by_name.get(name).map(|entry| ((*entry).clone(), Some(*is_second)))
        });
        let mut looks: Vec<_> = taken.collect();
        let taken: HashSet<_> = due.queues.iter().map(|(name, _)| name).collect();
        let turn = self.rounds.borrow().turn;
        let turns = (0..TURN_QUEUES.min(entries.len())).map(|step| &entries[(turn + step) % entries.len()]);
        let turns: Vec<_> = turns.filter(|entry| !taken.contains(&entry.name)).collect();
        self.rounds.borrow_mut().turn = (turn + TURN_QUEUES) % entries.len().max(1);
        let commands = turns.iter().map(|entry| {
            let mut command = Cmd::new();
            let base = self.state.names.of_queue(&entry.name);
            command.arg("HMGET").arg(Names::in_queue(&base, Key::Counters));
            command.arg(&LAW_FIELDS).arg(&["parked", "gen"]);
            command
        });
        let gauges = self.link.send_each(commands.collect(), Effect::Reads).await?;
        for (entry, gauges) in turns.into_iter().zip(gauges) {
            // What cannot be read is somebody else's, and what is gone may be made anew: a look finds out, and tells.
            let Ok(gauges) = gauges else {
                looks.push((entry.clone(), None));
                continue;
            };
            let mut gauges = Answer::of(gauges)?;
            let mut numbers = [None; LAW_FIELDS.len()];
            for number in &mut numbers {
                *number = read_count(&gauges.bytes()?);
            }
            let is_parked = !gauges.bytes()?.is_empty();
            if !is_sound_and_empty(numbers) || is_parked || gauges.bytes()?.is_empty() {
                looks.push((entry.clone(), None));
            } else {
                self.rounds.borrow_mut().next.remove(&entry.name);
            }
        }
        Ok(looks)
    }

    async fn due(&self) -> Result<Due, StoreError> {
        let mut call = Call::of_store(&self.state, script::DUE);
        // Under a clock that is handed in nobody was away.
        let notices = !self.state.clock.is_manual();
        call.push(self.state.time_ms()).push(PUT_OFF_MS).push(QUEUES_MAX).push(u8::from(notices));
        let mut answer = Answer::of(self.link.send(&call.finish(), Effect::Reads).await?)?;
        let (now_ms, gap_ms) = (answer.number()?, (answer.number()?, answer.number()?));
        lock(&self.state.calls).heard(now_ms, self.state.clock.tick());
        if gap_ms.1 == now_ms {
            let (since, now) = (Timestamp::from_millis(gap_ms.0), Timestamp::from_millis(now_ms));
            log::warn!("since" = since.to_string().as_str(), "until" = now.to_string().as_str(); "Redis was away, its clock was set, or no gateway ran: leases that ran out are kept for a while");
        }
        let (mut queues, mut junk) = (Vec::with_capacity(answer.left() / 2), Vec::new());
        while answer.left() > 0 {
            let (name, score) = (answer.bytes()?, answer.bytes()?);
            match std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok()) {
                Some(name) => queues.push((name, score.ends_with(b".5"))),
                None => junk.push(name),
            }
        }
        Ok(Due { now_ms, gap_ms, queues, junk })
    }

    fn look(&self, entry: &QueueEntry, due: &Due) -> Cmd {
        let queue = entry.queue_ref();
        let mut call = Call::of_queue(&self.state, script::SWEEP, &queue, None);
        let batches = Names::batches(&call.base);
        call.push(SWEEP_MESSAGES_MAX).push(SWEEP_BYTES_MAX).push(due.now_ms).push(batches);
        call.push(due.gap_ms.0).push(due.gap_ms.1).push(millis(entry.settings.lease() / 3) + GRACE_MS);
        call.push(pack::settings(&entry.settings)).push(u8::from(self.is_shedding()));
        call.finish()
    }

    /// Reads what a look found.
    fn read_look(
        &self,
        entry: &QueueEntry,
        answer: redis::Value,
        swept: &mut Swept,
    ) -> Result<(Look, Beside), StoreError> {
        let mut answer = Answer::ok(answer)?;
        let woken = answer.yes()?;
        swept.promoted += answer.number()?;
        swept.reaped += answer.number()?;
        swept.expired += answer.number()?;
        swept.discarded += answer.number()?;
        let (more, ready) = (answer.yes()?, answer.yes()?);
        let (next, again) = (answer.moment_or_none()?, answer.moment_or_none()?);
        let held = answer.bytes()?;
        let (foreign, difference) = (answer.text()?, answer.text()?);
        let differs = !difference.is_empty();
        self.state.note_recovering(&entry.name, answer.moment_or_none()?);
        let has_other_settings = answer.yes()?;
        let mut rounds = self.rounds.borrow_mut();
        let strange = rounds.note_settings(&entry.name, has_other_settings);
        self.state.troubled(
            &entry.name,
            match (&*foreign, &*difference) {
                ("", "") => strange.map(|detail| (FOREIGN_BESIDE, detail)),
                ("", _) => Some((COUNTERS_DIFFER, difference)),
                _ => Some((FOREIGN_BESIDE, foreign)),
            },
        );
        let (paused, parked) = (&*held == b"paused", read_park(&held));
        let is_held_otherwise = paused != entry.paused || (!paused && parked != entry.parked);
        swept.more |= more;
        if ready {
            swept.ready.push(entry.name.clone());
        }
        self.tell(&entry.name, woken, None);
        match next {
            Some(next) => rounds.next.insert(entry.name.clone(), next),
            None => rounds.next.remove(&entry.name),
        };
        Ok((
            Look { ready, more, next, again, is_told: false },
            Beside { is_held_otherwise, differs, has_other_settings },
        ))
    }
}

/// The score under which a queue is looked at again; empty: never.
fn next_look(look: Option<&Look>, is_second: bool, now_ms: u64) -> String {
    let Some(look) = look else { return String::new() };
    if look.ready || look.more {
        return now_ms.to_string();
    }
    let again = look.again.or(look.next).map(Timestamp::as_millis);
    let quiet = now_ms + QUIET_MS;
    match again {
        Some(again) if is_second || again <= quiet => again.to_string(),
        None if is_second => String::new(),
        _ => format!("{quiet}.5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ready: bool, again: Option<u64>) -> Look {
        let again = again.map(Timestamp::from_millis);
        Look { ready, more: false, next: None, again, is_told: false }
    }

    #[test]
    fn a_queue_with_work_stays_due_and_one_without_leaves_at_the_second_look() {
        assert_eq!(next_look(Some(&look(true, Some(9_000))), false, 5_000), "5000");
        assert_eq!(next_look(Some(&look(false, Some(9_000))), false, 5_000), "9000");
        assert_eq!(next_look(Some(&look(false, Some(900_000))), false, 5_000), "65000.5");
        assert_eq!(next_look(Some(&look(false, Some(900_000))), true, 5_000), "900000");
        assert_eq!(next_look(Some(&look(false, None)), false, 5_000), "65000.5");
        assert_eq!(next_look(Some(&look(false, None)), true, 5_000), "");
        assert_eq!(next_look(None, false, 5_000), "");
    }

    #[test]
    fn a_queue_for_consumers_is_looked_at_now_and_then_and_when_something_is_due() {
        let next = |ready, again| next_look(Some(&look(ready, again).for_consumers(5_000)), false, 5_000);
        assert_eq!(next(true, None), "15000");
        assert_eq!(next(true, Some(900_000)), "15000");
        assert_eq!(next(true, Some(9_000)), "9000");
        assert_eq!(next(false, Some(9_000)), "9000");
        assert_eq!(next(false, None), "65000.5");
        let unfinished = Look { more: true, ..look(true, None) };
        assert_eq!(next_look(Some(&unfinished.for_consumers(5_000)), false, 5_000), "5000");
        assert!(look(true, None).for_consumers(1).is_told && !look(false, None).for_consumers(1).is_told);
    }
}
