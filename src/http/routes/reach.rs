//! Whether dead letters may go where a replay would send them: to the destination that came with them, else to their queue's own as
//! it is now.

use std::collections::HashMap;
use std::sync::Arc;

use super::Call;
use crate::domain::destination::Destination;
use crate::domain::id::MessageId;
use crate::domain::message::Headers;
use crate::domain::queue::HTTP;
use crate::http::destination::BROUGHT_WITHIN;
use crate::http::error::{Refusal, of_store};
use crate::http::state::Occasion;
use crate::store::QueueEntry;

type Judged = Result<(), String>;

/// Judges the letters of one replay: each destination once.
pub(super) struct Reach<'c> {
    call: &'c Call,
    entry: Arc<QueueEntry>,
    /// Of the queue's own destination; `None` when it has none.
    own: Option<Judged>,
    judged: HashMap<String, Judged>,
}

impl<'c> Reach<'c> {
    /// For the letters of a queue. Judges its own destination by where it leads now.
    pub(super) async fn new(call: &'c Call, entry: Arc<QueueEntry>) -> Self {
        let own = entry.settings.destination.as_ref().filter(|_| entry.settings.processor == HTTP);
        let own = match own {
            Some(own) => Some(judge(call, own, Occasion::Set).await),
            None => None,
        };
        Self { call, entry, own, judged: HashMap::new() }
    }

    /// Why a letter may not be sent again; `None` when nothing is against it, or when it is no more.
    pub(super) async fn refusal(&mut self, id: MessageId) -> Result<Option<String>, Refusal> {
        let settings = &self.entry.settings;
        let own_passes = matches!(self.own, Some(Ok(())));
        let may_be_brought = settings.takes_destinations();
        // What was brought when that was still allowed is judged at its delivery.
        if settings.processor != HTTP || (own_passes && !may_be_brought) {
            return Ok(None);
        }
        let (state, queue) = (&self.call.desk.state, self.entry.queue_ref());
        let looking = state.begin_look_up(settings.limits.payload_max).await?;
        let letter = self.call.desk.store.dead(queue, id).await.map_err(|error| of_store(&error))?;
        let Some(record) = letter.and_then(|letter| letter.record) else { return Ok(None) };
        let brought = Headers::destination_in(&record.headers()).map(str::to_owned);
        drop((record, looking));
        match brought {
            Some(brought) => Ok(self.brought(brought).await.err()),
            None => Ok(self.own.clone().and_then(Judged::err)),
        }
    }

    async fn brought(&mut self, brought: String) -> Judged {
        if let Some(judged) = self.judged.get(&brought) {
            return judged.clone();
        }
        let judged = match brought.parse() {
            Ok(destination) => {
                judge(self.call, &destination, Occasion::Publish { within: BROUGHT_WITHIN }).await
            }
            Err(_) => Err("the destination that came with the message cannot be read".to_owned()),
        };
        self.judged.insert(brought, judged.clone());
        judged
    }
}

async fn judge(call: &Call, destination: &Destination, occasion: Occasion) -> Judged {
    (call.desk.state.gateway.judge_destination)(destination.clone(), occasion).await.map(drop)
}
