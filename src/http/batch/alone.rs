//! Storing each item for itself: a group each, so many under way at once.

use std::collections::VecDeque;

use actix_http::StatusCode;
use tokio::time::Instant;

use crate::api::batch::{ItemProblem, ItemPublished, ItemsPublished};
use crate::api::code::Code;
use crate::domain::id::MessageId;
use crate::http::answer::{self, Answer};
use crate::http::batch::array::{Field, pointer};
use crate::http::batch::reader::Made;
use crate::http::batch::{Batch, Plan, empty, gone};
use crate::http::body::Body;
use crate::http::error::{Accepted, NotAccepted, Refusal, of_publish};
use crate::http::pace::Pace;
use crate::http::publish::PUBLISH_TIMEOUT;
use crate::pipeline::ingester::Publishing;
use crate::store::enqueue::Group;
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
    Gone { is_keyed: bool },
}

/// An item on its way.
struct UnderWay {
    place: usize,
    id: MessageId,
    is_keyed: bool,
    publishing: Publishing,
}

impl Batch<'_> {
    /// Publishes each item for itself. A queue that was deleted and made again meanwhile is tried once more.
    pub(super) async fn publish_each(&mut self, mut plan: Plan, body: &Body) -> Result<Answer, Refusal> {
        let desk = self.desk;
        let _in_flight = desk.state.begin_publish()?;
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let mut fates = self.store(&plan, body, Vec::new(), deadline).await?;
        if fates.is_empty() {
            return Err(empty());
        }
        if fates.iter().any(|fate| matches!(fate, Fate::Gone { .. }))
            && let Ok(entry) = self.made_again(&plan).await
        {
            plan.entry = entry;
            fates = self.store(&plan, body, fates, deadline).await?;
        }
        let fates: Vec<Fate> = fates.into_iter().map(Fate::named).collect();
        if fates.iter().any(|fate| !fate.cannot_now()) {
            return Ok(self.answer(fates));
        }
        self.is_keyed = fates.iter().all(|fate| matches!(fate, Fate::Refused { is_keyed: true, .. }));
        Err(of_all(fates))
    }

    /// Stores the items of which nothing is known yet, or whose queue was gone.
    async fn store(
        &self,
        plan: &Plan,
        body: &Body,
        mut fates: Vec<Fate>,
        deadline: Instant,
    ) -> Result<Vec<Fate>, Refusal> {
        let mut items = VecDeque::from(self.items(plan, body).await?);
        let is_first = fates.is_empty();
        let (mut under_way, mut place) = (VecDeque::new(), 0);
        loop {
            while under_way.len() < UNDER_WAY_MAX
                && let Some(item) = items.pop_front()
            {
                let is_wanted = is_first || matches!(fates[place], Fate::Gone { .. });
                match item {
                    Ok(made) if is_wanted => {
                        let (id, is_keyed) = (made.message.id, made.key.is_some());
                        let group = Group {
                            queue: plan.entry.queue_ref(),
                            key: made.key,
                            messages: vec![made.message],
                        };
                        let publishing = self.desk.ingester.publish(group, deadline);
                        under_way.push_back(UnderWay { place, id, is_keyed, publishing });
                        if is_first {
                            // Until its answer is there.
                            fates.push(Fate::Gone { is_keyed });
                        }
                    }
                    Err(refusal) if is_wanted => {
                        let fate = Fate::Refused { refusal, is_keyed: false };
                        if is_first { fates.push(fate) } else { fates[place] = fate }
                    }
                    _ => {}
                }
                place += 1;
            }
            let Some(UnderWay { place, id, is_keyed, publishing }) = under_way.pop_front() else {
                return Ok(fates);
            };
            fates[place] = match of_publish(publishing.await) {
                Ok(Accepted::New) => Fate::Kept { id, duplicate: false },
                Ok(Accepted::Duplicate(first)) => Fate::Kept { id: first[0], duplicate: true },
                Err(NotAccepted::Refused(refusal)) if refusal.code() == Code::IdempotencyKeyReused => {
                    let key = pointer(place as u64, Field::IdempotencyKey);
                    Fate::Refused { refusal: refusal.in_body(key), is_keyed }
                }
                Err(NotAccepted::Refused(refusal)) => Fate::Refused { refusal, is_keyed },
                Err(NotAccepted::Gone) => Fate::Gone { is_keyed },
            };
        }
    }

    /// All items, or the refusal of a body that cannot be read through: then nothing of it is stored.
    async fn items(&self, plan: &Plan, body: &Body) -> Result<Vec<Result<Made, Refusal>>, Refusal> {
        let (mut reader, mut pace, mut items) = (self.reader(plan, body)?, Pace::default(), Vec::new());
        while let Some(item) = reader.next(&mut pace).await? {
            items.push(item);
        }
        Ok(items)
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
                Fate::Gone { is_keyed } => self.refused(gone().index(index), is_keyed),
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
            Self::Gone { is_keyed } => Self::Refused { refusal: gone(), is_keyed },
            fate => fate,
        }
    }

    /// Whether the gateway, its store or the queue could not take it, whatever it says.
    fn cannot_now(&self) -> bool {
        match self {
            Self::Kept { .. } => false,
            Self::Refused { refusal, .. } => matches!(refusal.code().status(), 404 | 429 | 500..),
            Self::Gone { .. } => true,
        }
    }
}

/// The refusal of a batch of which no item was taken: the first one that may have been stored, else the first.
fn of_all(fates: Vec<Fate>) -> Refusal {
    let refusals = fates.into_iter().filter_map(|fate| match fate {
        Fate::Refused { refusal, is_keyed } => Some((refusal.stored(is_keyed), refusal)),
        Fate::Kept { .. } | Fate::Gone { .. } => None,
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
