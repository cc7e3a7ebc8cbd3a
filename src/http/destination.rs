//! The destination that a message brings: whether its queue takes it, and whether it may be reached.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::code::Code;
use crate::domain::destination::Destination;
use crate::domain::queue::{DestinationOverride, HTTP};
use crate::http::error::Refusal;
use crate::http::options::Options;
use crate::http::state::{Occasion, State};
use crate::store::QueueEntry;

/// How long is waited to hear where a destination leads that comes with a message. What is not known by then is taken: the delivery
/// asks again.
pub(super) const BROUGHT_WITHIN: Duration = Duration::from_secs(1);
/// The name of the option.
const HEADER: &str = "Posthaste-Destination";

/// Refuses a destination that the queue takes from no message.
pub(super) fn allow(options: &Options, entry: &QueueEntry) -> Result<(), Refusal> {
    let (allowed, queue) = (&entry.settings.destination_override, &entry.name);
    let Some(destination) = options.destination.as_ref().filter(|brought| !allowed.allows(brought)) else {
        return Ok(());
    };
    let detail = match allowed {
        DestinationOverride::Origins(_) => {
            let origin = destination.origin();
            format!("the queue {queue} takes destinations of some origins only, and {origin} is none of them")
        }
        _ => format!("the queue {queue} takes no destination with a message"),
    };
    let refusal = Refusal::new(Code::DestinationNotAllowed, detail).header(HEADER);
    Err(refusal.setting("destination_override", None))
}

/// Refuses a message that would have nowhere to go.
pub(super) fn need(options: &Options, entry: &QueueEntry) -> Result<(), Refusal> {
    let settings = &entry.settings;
    if settings.processor != HTTP || settings.destination.is_some() || options.destination.is_some() {
        return Ok(());
    }
    let detail = format!("{HEADER}: the queue {} has no destination of its own: send one", entry.name);
    Err(Refusal::new(Code::InvalidValue, detail).header(HEADER))
}

/// Refuses a destination that the egress guard does not let through, as far as that is known soon.
pub(super) async fn reach(state: &State, options: &Options) -> Result<(), Refusal> {
    let Some(destination) = &options.destination else { return Ok(()) };
    let judged = judge(state, destination, BROUGHT_WITHIN).await;
    judged.map_err(refused)
}

async fn judge(state: &State, destination: &Destination, within: Duration) -> Result<(), String> {
    (state.gateway.judge_destination)(destination.clone(), Occasion::Publish { within }).await.map(drop)
}

fn refused(why: String) -> Refusal {
    Refusal::new(Code::DestinationRefused, why).header(HEADER)
}

/// Judges the destinations of a batch: each origin once, and all of them within the time of one.
pub(super) struct Reach<'s> {
    state: &'s State,
    until: Instant,
    judged: HashMap<String, Result<(), String>>,
}

impl<'s> Reach<'s> {
    /// For a batch whose destinations are judged from now on.
    pub(super) fn new(state: &'s State) -> Self {
        Self { state, until: Instant::now() + BROUGHT_WITHIN, judged: HashMap::new() }
    }

    /// As [`reach`].
    pub(super) async fn reach(&mut self, options: &Options) -> Result<(), Refusal> {
        let Some(destination) = &options.destination else { return Ok(()) };
        let origin = destination.origin();
        if let Some(judged) = self.judged.get(&origin) {
            return judged.clone().map_err(refused);
        }
        let within = self.until.saturating_duration_since(Instant::now());
        let judged = judge(self.state, destination, within).await;
        self.judged.insert(origin, judged.clone());
        judged.map_err(refused)
    }
}
