//! Dead letters leave: back into the queue, or for good.
//!
//! Which ones are meant is looked up first and done then, so many at a time, each of them whole or not at all. So a letter that
//! dies anew meanwhile is not taken again, and whoever goes away in between finds the rest where it was.

use std::sync::Arc;
use std::time::Duration;

use actix_http::StatusCode;
use tokio::time::Instant;

use super::Call;
use super::dead::{Wanted, filter, unknown};
use super::queues::target;
use super::reach::Reach;
use crate::api::code::Code;
use crate::api::dead::{Discard, Filter, Replay, ReplayRequest, ReplaySelection, Stopped};
use crate::api::{Problem, json};
use crate::domain::id::MessageId;
use crate::domain::outcome::DeadReason;
use crate::http::answer::{self, Answer};
use crate::http::body::SizeLimit;
use crate::http::error::{Refusal, of_store};
use crate::http::extract::parameters;
use crate::store::dead::{DeadPage, Selection};
use crate::store::error::StoreError;
use crate::store::{QueueEntry, QueueRef, SWEEP_BYTES_MAX, SWEEP_MESSAGES_MAX};

/// Bytes of a replay's body: as many ids as are taken, several times as long as they are.
const REPLAY_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 1 << 20, setting: None };
/// The longest that one request may go on: less than the patience of most clients.
const GOES_ON_MAX: Duration = Duration::from_secs(20);

/// Puts dead letters back into their queue, or counts those that would be.
pub(super) async fn replay(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    let body = call.json(REPLAY_BYTES_MAX).await?;
    let body = json::parse(&body).map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
    let ReplayRequest { selection, dry_run } = ReplayRequest::read(&body)?;
    let mut work = Work::new(&call, name.as_str()).await?;
    let done = match selection {
        ReplaySelection::Ids(ids) => work.replay_ids(ids, dry_run).await?,
        ReplaySelection::Filter(filter) => work.replay_filter(filter.into(), dry_run).await?,
    };
    match work.refused {
        // Where some were replayed the answer counts the others.
        Some(why) if done.replayed == 0 && !dry_run => Err(Refusal::new(Code::DestinationRefused, why)),
        _ => Ok(answer::json(StatusCode::OK, &done)),
    }
}

/// Removes dead letters for good: all, or those that a filter names.
pub(super) async fn discard(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &Filter::FIELDS)?;
    let filter = parameters(call.request.uri(), &Filter::FIELDS).and_then(|given| filter(&given));
    let wanted = call.unread(filter)?.into();
    // What is said in a body must not be taken for "all".
    call.nothing().await?;
    let done = Work::new(&call, name.as_str()).await?.discard_filter(&wanted).await?;
    Ok(answer::json(StatusCode::OK, &done))
}

/// Removes one dead letter for good.
pub(super) async fn discard_one(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    call.nothing().await?;
    let desk = &call.desk;
    let text = call.segment("id");
    let Ok(id) = text.parse::<MessageId>() else {
        return Err(unknown(&*desk.queue_in_store(name.as_str()).await?, text));
    };
    let act =
        async |entry: &QueueEntry| desk.store.discard(entry.queue_ref(), Selection::Ids(vec![id])).await;
    match desk.on_queue(name.as_str(), act).await? {
        (_, 1..) => Ok(answer::nothing()),
        (entry, 0) => Err(unknown(&entry, text)),
    }
}

/// Something done to many dead letters of a queue for one request.
struct Work<'c> {
    call: &'c Call,
    entry: Arc<QueueEntry>,
    queue: QueueRef,
    deadline: Instant,
    /// What is against the first destination that may not be reached.
    refused: Option<String>,
}

impl<'c> Work<'c> {
    /// Begins it, on the queue that the store has now.
    async fn new(call: &'c Call, name: &str) -> Result<Self, Refusal> {
        let look = async |entry: &QueueEntry| {
            call.desk
                .store
                .list_dead(entry.queue_ref(), Wanted::from(Filter::default()).filter, None, 1)
                .await
        };
        let (entry, _) = call.desk.on_queue(name, look).await?;
        let (queue, deadline) = (entry.queue_ref(), Instant::now() + GOES_ON_MAX);
        Ok(Self { call, entry, queue, deadline, refused: None })
    }

    /// Why not to go on.
    fn stop(&self) -> Option<Stopped> {
        let stopped = |code: &str, detail: &str| {
            Some(Stopped { code: code.to_owned(), detail: format!("{detail}: ask again for the rest") })
        };
        if self.call.connection.has_ended() {
            return stopped("connection_ended", "the client ended its side of the connection");
        }
        if self.call.desk.state.is_draining() {
            return stopped(Code::ShuttingDown.word(), "this gateway is shutting down");
        }
        if Instant::now() >= self.deadline {
            return stopped("too_long", &format!("it took longer than {} s", GOES_ON_MAX.as_secs()));
        }
        None
    }

    /// A page of those that the store finds, the oldest death first.
    async fn page(&self, wanted: &Wanted, cursor: Option<String>) -> Result<DeadPage, StoreError> {
        let (queue, filter) = (self.queue.clone(), wanted.filter.clone());
        let mut page = self.call.desk.store.list_dead(queue, filter, cursor, SWEEP_MESSAGES_MAX).await?;
        page.letters.retain(|letter| wanted.names(letter));
        Ok(page)
    }

    /// Whether a letter may go where it would go; counts it where it may not.
    async fn may_go(
        &mut self,
        reach: &mut Reach<'_>,
        id: MessageId,
        done: &mut Replay,
    ) -> Result<bool, Refusal> {
        let Some(why) = reach.refusal(id).await? else { return Ok(true) };
        done.refused += 1;
        self.refused.get_or_insert(why);
        Ok(false)
    }

    async fn replay_filter(&mut self, wanted: Wanted, dry_run: bool) -> Result<Replay, Refusal> {
        let mut reach = Reach::new(self.call, self.entry.clone()).await;
        let (mut done, mut steps, mut chosen) = (Replay::default(), Steps::default(), 0);
        let mut cursor = None;
        loop {
            let page = self.page(&wanted, cursor).await.map_err(|error| of_store(&error))?;
            for letter in &page.letters {
                done.matched += 1;
                if letter.reason == DeadReason::Damaged {
                    done.damaged += 1;
                } else if chosen < ReplayRequest::MESSAGES_MAX
                    && self.may_go(&mut reach, letter.id, &mut done).await?
                {
                    chosen += 1;
                    steps.add(letter.id, letter.charged_bytes);
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
            if let Some(stopped) = self.stop() {
                return Ok(Replay { stopped: Some(stopped), ..done });
            }
        }
        if dry_run {
            return Ok(done);
        }
        let is_all = done.matched - done.damaged - done.refused == chosen as u64;
        self.replay_steps(steps.0, &mut done).await?;
        if done.stopped.is_none() && !is_all && self.is_left(&wanted).await? {
            let most = ReplayRequest::MESSAGES_MAX;
            let detail = format!("at most {most} are replayed at a time: ask again for the rest");
            done.stopped = Some(Stopped { code: "too_many".to_owned(), detail });
        }
        Ok(done)
    }

    /// Whether any letter is left to replay: others may have taken what this call left.
    async fn is_left(&self, wanted: &Wanted) -> Result<bool, Refusal> {
        let page = self.page(wanted, None).await.map_err(|error| of_store(&error))?;
        Ok(page.cursor.is_some() || page.letters.iter().any(|letter| letter.reason != DeadReason::Damaged))
    }

    async fn replay_ids(&mut self, mut ids: Vec<MessageId>, dry_run: bool) -> Result<Replay, Refusal> {
        let store = &self.call.desk.store;
        let counted = store.replay(self.queue.clone(), Selection::Ids(ids.clone()), true).await;
        let matched = counted.map_err(|error| of_store(&error))?.matched;
        let mut done = Replay { matched, ..Replay::default() };
        let (mut reach, all) = (Reach::new(self.call, self.entry.clone()).await, std::mem::take(&mut ids));
        for id in all {
            done.stopped = self.stop();
            if done.stopped.is_some() {
                return Ok(done);
            }
            if self.may_go(&mut reach, id, &mut done).await? {
                ids.push(id);
            }
        }
        if !dry_run {
            let steps = ids.chunks(SWEEP_MESSAGES_MAX).map(<[_]>::to_vec).collect();
            self.replay_steps(steps, &mut done).await?;
        }
        Ok(done)
    }

    /// Replays one step after the other. What fails when something was done already ends it there, and is told of with that.
    async fn replay_steps(&self, steps: Vec<Vec<MessageId>>, done: &mut Replay) -> Result<(), Refusal> {
        // Those that a filter names were counted as they were looked up.
        let counts_damaged = done.damaged == 0;
        for mut ids in steps {
            while !ids.is_empty() {
                done.stopped = self.stop();
                if done.stopped.is_some() {
                    return Ok(());
                }
                let selection = Selection::Ids(ids.clone());
                let step = match self.call.desk.store.replay(self.queue.clone(), selection, false).await {
                    Ok(step) => step,
                    Err(error) if done.replayed == 0 => return Err(of_store(&error)),
                    Err(error) => {
                        done.stopped = Some(failed(&error));
                        return Ok(());
                    }
                };
                done.replayed += step.replayed;
                let left = step.matched.saturating_sub(step.replayed + u64::from(step.full));
                done.damaged += if counts_damaged { left } else { 0 };
                if step.full {
                    done.stopped = Some(full());
                    return Ok(());
                }
                if !step.more {
                    break;
                }
                // A step takes the ids in their order, so as many of the first as it matched are behind it.
                let behind = usize::try_from(step.matched.max(1)).unwrap_or(usize::MAX).min(ids.len());
                ids.drain(..behind);
            }
        }
        Ok(())
    }

    async fn discard_filter(&self, wanted: &Wanted) -> Result<Discard, Refusal> {
        let (mut done, mut cursor) = (Discard::default(), None);
        loop {
            let page = match self.page(wanted, cursor).await {
                Ok(page) => page,
                Err(error) if done.discarded == 0 => return Err(of_store(&error)),
                Err(error) => return Ok(Discard { stopped: Some(failed(&error)), ..done }),
            };
            cursor = page.cursor;
            let ids: Vec<_> = page.letters.iter().map(|letter| letter.id).collect();
            let mut left = ids.len() as u64;
            while left > 0 {
                if let Some(stopped) = self.stop() {
                    return Ok(Discard { stopped: Some(stopped), ..done });
                }
                let selection = Selection::Ids(ids.clone());
                match self.call.desk.store.discard(self.queue.clone(), selection).await {
                    // The others left meanwhile, by somebody else's hand.
                    Ok(0) => break,
                    Ok(discarded) => {
                        done.discarded += discarded;
                        left = left.saturating_sub(discarded);
                    }
                    Err(error) if done.discarded == 0 => return Err(of_store(&error)),
                    Err(error) => return Ok(Discard { stopped: Some(failed(&error)), ..done }),
                }
            }
            if cursor.is_none() {
                return Ok(done);
            }
        }
    }
}

/// Ids in steps that a store does in one go.
#[derive(Default)]
struct Steps(Vec<Vec<MessageId>>, u64);

impl Steps {
    fn add(&mut self, id: MessageId, bytes: u64) {
        self.1 += bytes;
        match self.0.last_mut() {
            Some(last) if last.len() < SWEEP_MESSAGES_MAX && self.1 <= SWEEP_BYTES_MAX => last.push(id),
            _ => {
                self.0.push(vec![id]);
                self.1 = bytes;
            }
        }
    }
}

fn full() -> Stopped {
    let detail = "the queue is at limits.length_max or limits.bytes_max: ask again when it has room";
    Stopped { code: Code::QueueFull.word().to_owned(), detail: detail.to_owned() }
}

/// What stopped it after something was done. Of a step whose outcome is unknown nothing is counted.
fn failed(error: &StoreError) -> Stopped {
    let (Problem { code, detail, .. }, _, _) = of_store(error).into_parts();
    Stopped { code: code.into_owned(), detail: format!("{detail}: ask again for the rest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_holds_what_a_store_does_in_one_go() {
        let mut steps = Steps::default();
        for number in 0..=SWEEP_MESSAGES_MAX {
            steps.add(MessageId::from_bytes([u8::try_from(number % 256).expect("a byte"); 16]), 1);
        }
        assert_eq!(steps.0.iter().map(Vec::len).collect::<Vec<_>>(), [SWEEP_MESSAGES_MAX, 1]);
        let mut steps = Steps::default();
        for bytes in [SWEEP_BYTES_MAX - 1, 1, 1, SWEEP_BYTES_MAX + 1, 1] {
            steps.add(MessageId::from_bytes([0; 16]), bytes);
        }
        assert_eq!(steps.0.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
    }
}
