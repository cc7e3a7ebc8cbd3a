//! A queue whose keys say different things, since somebody overwrote or removed one of them: it is mended.
//!
//! A sweep sees it by the sizes of the keys. What is left leads to the rest: records to their places, lists of batches to their
//! batches. What nothing leads to is gone, and is counted and told.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use crate::domain::queue::QueueName;
use crate::store::error::StoreError;
use crate::store::redis::answer::Answer;
use crate::store::redis::call::Call;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::Effect;
use crate::store::redis::keys::{Key, Names};
use crate::store::redis::publish::millis;
use crate::store::redis::queues::Kept;
use crate::store::redis::script;
use crate::store::{QueueEntry, SWEEP_MESSAGES_MAX};

/// How long a queue's hash may have other settings than its entry: whoever changes them writes one after the other.
const CHANGING_MAX: Duration = Duration::from_secs(3);
/// How long nothing more is said of a queue that is mended again.
const SAID_AGAIN: Duration = Duration::from_mins(1);
/// Bytes that one step reads, beyond those of one piece.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// Keys of which one at least is left where a queue held or remembered anything.
const LASTING: [Key; 16] = [
    Key::List(0),
    Key::List(1),
    Key::List(2),
    Key::List(3),
    Key::List(4),
    Key::List(5),
    Key::List(6),
    Key::List(7),
    Key::Scheduled,
    Key::ScheduledRecords,
    Key::Batches,
    Key::Deadlines,
    Key::Dead,
    Key::Letters,
    Key::DeadRecords,
    Key::Finished,
];

/// What was counted as lost or found again in the repairs of a queue.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Mended {
    /// Messages that were pending, scheduled or leased.
    pub(super) gone: u64,
    pub(super) letters_gone: u64,
}

impl Connection {
    /// Settings that scripts go by are others than those of the queue's entry: when that lasts, says so from the next look on.
    pub(super) async fn look_at_settings(&self, entry: &QueueEntry) {
        let is_lasting =
            |(since, detail): &(Instant, Option<String>)| since.elapsed() >= CHANGING_MAX && detail.is_none();
        if !self.rounds.borrow().strange.get(&entry.name).is_some_and(is_lasting) {
            return;
        }
        let Ok((_, Some(kept))) = self.kept(&entry.name).await else { return };
        let key = Names::in_queue(&self.state.names.of_queue(&entry.name), Key::Counters);
        let detail = format!(
            "the field settings of the key {key} is not what the queue's entry says: limits go by it, and nothing is discarded for its \
             age; PUT the settings of the queue again, or start a gateway that declares it anew"
        );
        let is_changed = kept.settings != entry.settings;
        if let Some((since, told)) = self.rounds.borrow_mut().strange.get_mut(&entry.name) {
            if is_changed {
                *since = Instant::now();
            } else {
                *told = Some(detail);
            }
        }
        if is_changed {
            // Whoever changed them was ended before it could say so.
            self.touch().await;
        }
    }

    /// Does one step of it; whether there are more.
    pub(super) async fn repair(&self, entry: &QueueEntry) -> Result<bool, StoreError> {
        let mut call = Call::of_queue(&self.state, script::REPAIR, &entry.queue_ref(), None);
        let batches = Names::batches(&call.base);
        call.push(SWEEP_MESSAGES_MAX).push(STEP_BYTES_MAX).push(millis(entry.settings.lease())).push(batches);
        let mut answer = Answer::ok(self.link.send(&call.finish(), Effect::Reads).await?)?;
        let (woken, more) = (answer.yes()?, answer.yes()?);
        let (gone, found) = (answer.number()?, answer.number()?);
        let (letters_gone, letters_found) = (answer.number()?, answer.number()?);
        let raised = answer.text()?;
        self.tell(&entry.name, woken, None);
        if !more {
            let mended = Mended { gone, letters_gone };
            let level = self.level_of(&entry.name, mended);
            log::log!(
                level, "queue.name" = entry.name.as_str(), "gone" = gone, "found" = found,
                "dead_gone" = letters_gone, "dead_found" = letters_found, "counters" = raised.as_str();
                "the keys of a queue were mended: somebody overwrote or removed one"
            );
            self.state.mended(&entry.name, mended);
        }
        Ok(more)
    }

    /// How it is said that a queue was mended: what is overwritten again and again, and nothing gone with it, is said now and then.
    fn level_of(&self, queue: &QueueName, mended: Mended) -> log::Level {
        let mut rounds = self.rounds.borrow_mut();
        let is_new = rounds.mended_said.get(queue).is_none_or(|said| said.elapsed() >= SAID_AGAIN);
        if !is_new && mended == Mended::default() {
            return log::Level::Debug;
        }
        rounds.mended_said.insert(queue.clone(), Instant::now());
        log::Level::Warn
    }

    /// Gives a queue its hash again when that was removed and the queue was not: a deletion leaves no other key of it, and none
    /// deletes what a file declares. The sweeps then count what is there. Whether it did.
    pub(super) async fn revive(&self, name: &QueueName, kept: &Kept) -> Result<bool, StoreError> {
        let base = self.state.names.of_queue(name);
        let mut command = Cmd::new();
        command.arg("EXISTS");
        for key in LASTING {
            command.arg(Names::in_queue(&base, key));
        }
        let is_left = match self.link.send(&command, Effect::Reads).await? {
            Value::Int(count) => count > 0,
            _ => false,
        };
        if !is_left && !kept.is_declared() {
            return Ok(false);
        }
        // Not in another Redis.
        if self.check_home().await.is_err() {
            return Ok(false);
        }
        match self.adopt(name, kept, None, None).await {
            // Somebody was first.
            Err(StoreError::Gone) => return Ok(false),
            adopted => drop(adopted?),
        }
        log::warn!("queue.name" = name.as_str(); "the hash of a queue was gone and is made anew: its counters and holds begin anew");
        self.mark_work(name, true, None).await;
        self.touch().await;
        Ok(true)
    }
}
