//! Storing each item for itself: a group each, so many under way at once.

use std::collections::VecDeque;
use std::sync::Arc;

use actix_http::StatusCode;
use tokio::time::Instant;

use crate::api::batch::{ItemProblem, ItemPublished, ItemsPublished};
use crate::api::code::Code;
use crate::domain::id::MessageId;
use crate::http::answer::{self, Answer};
use crate::http::batch::array::{Field, pointer};
use crate::http::batch::reader::{Items, Made, Origin, remake};
use crate::http::batch::{Batch, Plan, empty, gone};
use crate::http::error::{Accepted, NotAccepted, Refusal, of_publish};
use crate::http::pace::Pace;
use crate::http::publish::PUBLISH_TIMEOUT;
use crate::pipeline::ingester::Publishing;
use crate::store::enqueue::{Group, IdempotencyKey, NewMessage};
use crate::store::error::Stored;

/// Items of a batch that wait for the store at once: enough to fill half of a call, so that the other half is for others.
const UNDER_WAY_MAX: usize = 1_000;

/// What became of an item.
enum Fate {
    /// It is this message.
    Kept { id: MessageId, duplicate: bool },
    /// It was refused.
    Refused { refusal: Refusal, is_keyed: bool },
    /// Its queue is no more.
    Gone(Sent),
}

/// An item that the store was asked to keep.
struct Sent {
    /// The one message.
    messages: Arc<[NewMessage]>,
    key: Option<IdempotencyKey>,
    origin: Origin,
}

/// An item on its way.
struct UnderWay {
    place: usize,
    sent: Sent,
    publishing: Publishing,
}

impl Batch<'_> {
    /// Publishes each item for itself. A queue that was deleted and made again meanwhile is tried once more.
    pub(super) async fn publish_each(&mut self, mut plan: Plan, items: Items) -> Result<Answer, Refusal> {
        let desk = self.desk;
        let _in_flight = desk.state.begin_publish()?;
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let refused = |refusal| Fate::Refused { refusal, is_keyed: false };
        let items = items.read.into_iter().map(|read| read.map_err(refused)).collect();
        let mut fates = self.store(&plan, items, deadline).await;
        if fates.iter().any(|fate| matches!(fate, Fate::Gone(_)))
            && let Ok(entry) = self.made_again(&plan).await
        {
            plan.entry = entry;
            fates = self.store(&plan, made_again(&plan, fates).await, deadline).await;
        }
        let fates: Vec<Fate> = fates.into_iter().map(Fate::named).collect();
        if fates.iter().any(|fate| !fate.cannot_now()) {
            return Ok(self.answer(fates));
        }
        self.is_keyed = fates.iter().all(|fate| matches!(fate, Fate::Refused { is_keyed: true, .. }));
        Err(of_all(fates))
    }

    /// Stores the items whose fate is not known yet.
    async fn store(&self, plan: &Plan, items: Vec<Result<Made, Fate>>, deadline: Instant) -> Vec<Fate> {
        let mut fates: Vec<Option<Fate>> = Vec::with_capacity(items.len());
        let (mut items, mut under_way) = (items.into_iter().enumerate(), VecDeque::new());
        loop {
            while under_way.len() < UNDER_WAY_MAX
                && let Some((place, item)) = items.next()
            {
                match item {
                    Ok(made) => {
                        under_way.push_back(self.send(plan, place, made, deadline));
                        fates.push(None);
                    }
                    Err(fate) => fates.push(Some(fate)),
                }
            }
            let Some(UnderWay { place, sent, publishing }) = under_way.pop_front() else {
                return fates.into_iter().flatten().collect();
            };
            let is_keyed = sent.key.is_some();
            fates[place] = Some(match of_publish(publishing.await) {
                Ok(Accepted::New) => Fate::Kept { id: sent.messages[0].id, duplicate: false },
                Ok(Accepted::Duplicate(first)) => Fate::Kept { id: first[0], duplicate: true },
                Err(NotAccepted::Refused(refusal)) if refusal.code() == Code::IdempotencyKeyReused => {
                    let key = pointer(place as u64, Field::IdempotencyKey);
                    Fate::Refused { refusal: refusal.in_body(key), is_keyed }
                }
                Err(NotAccepted::Refused(refusal)) => Fate::Refused { refusal, is_keyed },
                Err(NotAccepted::Gone) => Fate::Gone(sent),
            });
        }
    }

    fn send(&self, plan: &Plan, place: usize, made: Made, deadline: Instant) -> UnderWay {
        let Made { message, key, origin } = made;
        let sent = Sent { messages: Arc::new([message]), key, origin };
        let (key, messages) = (sent.key.clone(), sent.messages.clone());
        let group = Group { queue: plan.entry.queue_ref(), key, messages };
        UnderWay { place, sent, publishing: self.desk.ingester.publish(group, deadline) }
    }

    fn answer(&self, fates: Vec<Fate>) -> Answer {
        let mut answer = ItemsPublished { accepted: 0, duplicates: 0, refused: 0, items: Vec::new() };
        answer.items.reserve(fates.len());
        for (index, fate) in (0..).zip(fates) {
            let item = match fate {
                Fate::Kept { id, duplicate } => {
                    answer.duplicates += u64::from(duplicate);
                    answer.accepted += u64::from(!duplicate);
                    ItemPublished::Kept { id, duplicate }
                }
                Fate::Refused { refusal, is_keyed } => {
                    answer.refused += 1;
                    self.refused(refusal.index(index), is_keyed)
                }
                Fate::Gone(sent) => self.refused(gone().index(index), sent.key.is_some()),
            };
            answer.items.push(item);
        }
        answer::json(StatusCode::ACCEPTED, &answer)
    }

    fn refused(&self, refusal: Refusal, is_keyed: bool) -> ItemPublished {
        let stored = refusal.stored(is_keyed).as_str().to_owned();
        let refusal = refusal.of_publish(is_keyed);
        refusal.log(self.id.as_str());
        let (mut problem, _, _) = refusal.into_parts();
        self.id.as_str().clone_into(&mut problem.request_id);
        ItemPublished::Refused { error: Box::new(ItemProblem { problem, stored }) }
    }
}

impl Fate {
    /// With a queue that is no more as the refusal that it is.
    fn named(self) -> Self {
        match self {
            Self::Gone(sent) => Self::Refused { refusal: gone(), is_keyed: sent.key.is_some() },
            fate => fate,
        }
    }

    /// Whether the gateway, its store or the queue could not take it, whatever it says.
    fn cannot_now(&self) -> bool {
        match self {
            Self::Kept { .. } => false,
            Self::Refused { refusal, .. } => matches!(refusal.code().status(), 404 | 429 | 500..),
            Self::Gone(_) => true,
        }
    }
}

/// What is to be stored of items whose queue was made again: those that it did not hear of.
async fn made_again(plan: &Plan, fates: Vec<Fate>) -> Vec<Result<Made, Fate>> {
    let (mut pace, mut items) = (Pace::default(), Vec::with_capacity(fates.len()));
    for (index, fate) in (0..).zip(fates) {
        items.push(match fate {
            Fate::Gone(Sent { messages, key, origin }) => {
                match remake(plan, &messages[0], &origin, index, &mut pace).await {
                    Ok(message) => Ok(Made { message, key, origin }),
                    Err(refusal) => Err(Fate::Refused { refusal, is_keyed: key.is_some() }),
                }
            }
            fate => Err(fate),
        });
    }
    items
}

/// The refusal of a batch of which no item was taken: the first one that may have been stored, else the first.
fn of_all(fates: Vec<Fate>) -> Refusal {
    let refusals = fates.into_iter().filter_map(|fate| match fate {
        Fate::Refused { refusal, is_keyed } => Some((refusal.stored(is_keyed), refusal)),
        Fate::Kept { .. } | Fate::Gone(_) => None,
    });
    let mut first: Option<(Stored, Refusal)> = None;
    for (stored, refusal) in refusals {
        let is_worse =
            first.as_ref().is_none_or(|(before, _)| *before == Stored::No && stored == Stored::Unknown);
        if is_worse {
            first = Some((stored, refusal));
        }
    }
    let (stored, refusal) = first.unwrap_or_else(|| (Stored::No, empty()));
    refusal.known(stored)
}
