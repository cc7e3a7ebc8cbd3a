//! What `/status` says of the lanes, and of a queue whose lane is shut.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use crate::api::status::LaneStatus;
use crate::domain::destination::Destination;
use crate::domain::queue::QueueSettings;
use crate::domain::timestamp::Timestamp;
use crate::http::state::State;
use crate::pipeline::lanes::{AllShut, Phase, Why};
use crate::store::QueueEntry;

/// Lanes shown: there may be ten thousand, and nobody reads so many. Those that are shut come first, then those with most under way.
const SHOWN_MAX: usize = 1_000;
/// A rate that lets a message begin within this holds nothing up.
const HELD_UP_MIN: Duration = Duration::from_secs(1);

/// The lane through which all messages of a queue go.
pub(super) fn only_lane(settings: &QueueSettings) -> Option<String> {
    let is_mixed = settings.is_pull() || settings.takes_destinations();
    settings.destination.as_ref().filter(|_| !is_mixed).map(Destination::lane_key)
}

/// The lanes by key, to the waiting of which those are added that wait in the store.
pub(super) fn all(state: &State, pending: &HashMap<String, u64>) -> Vec<LaneStatus> {
    let lanes = &state.gateway.lanes;
    let mut all = lanes.all();
    if all.len() > SHOWN_MAX {
        all.sort_by_key(|lane| {
            (lane.breaker == Phase::Closed, Reverse(lane.waiting + lane.in_flight as usize))
        });
        all.truncate(SHOWN_MAX);
        all.sort_by(|left, right| left.key.cmp(&right.key));
    }
    let (now, tick) = (state.gateway.clock.now(), lanes.now());
    let shown = all.into_iter().map(|lane| {
        let (breaker, open_until) = match lane.breaker {
            Phase::Closed => ("closed", None),
            Phase::Open(until) => ("open", Some(now.saturating_add(until.since(tick)))),
            Phase::HalfOpen => ("half_open", None),
        };
        let in_store = pending.get(&*lane.key).copied().unwrap_or(0);
        LaneStatus {
            key: lane.key.to_string(),
            in_flight: lane.in_flight,
            limit: lane.limit,
            rate: lane.rate.map(|rate| rate.to_string()),
            breaker: breaker.into(),
            open_until,
            waiting: in_store.saturating_add(u64::try_from(lane.waiting).unwrap_or(u64::MAX)),
        }
    });
    shown.collect()
}

/// What is said of a queue that waits for this lane.
fn shut(key: &str, why: &Why, until: Timestamp) -> (&'static str, String) {
    match why {
        Why::Breaker(cause) => ("breaker_open", format!("breaker open until {until}: {key} fails ({cause})")),
        Why::Probe(cause) => {
            let cause = if cause.is_empty() { String::new() } else { format!(" ({cause})") };
            let said =
                format!("breaker half open, one delivery finds out whether {key} answers again{cause}");
            ("breaker_open", said)
        }
        Why::Held => ("rate_limited", format!("{key} asked for a pause (Retry-After) until {until}")),
        Why::Rate => ("rate_limited", format!("the rate of {key} is used up until {until}")),
    }
}

/// Why a queue does not move: the only lane of its messages is shut, or all that they wait for are, or its rate is used up.
pub(super) fn stalled(state: &State, entry: &QueueEntry) -> Option<(&'static str, String)> {
    let gateway = &state.gateway;
    let moment = |wait| -> Timestamp { gateway.clock.now().saturating_add(wait) };
    if let Some(key) = only_lane(&entry.settings)
        && let Some((wait, why)) = gateway.lanes.why_shut(&key)
    {
        return Some(shut(&key, &why, moment(wait)));
    }
    if entry.settings.takes_destinations()
        && let awaited = gateway.shares.waits_for(&entry.name, gateway.lanes.now())
        && let Some(AllShut { key, wait, why, others }) = gateway.lanes.why_all_shut(&awaited)
    {
        let (code, detail) = shut(&key, &why, moment(wait));
        return Some(match others {
            0 => (code, detail),
            1 => (code, format!("{detail}; one other destination of its messages is shut as well")),
            _ => (code, format!("{detail}; {others} other destinations of its messages are shut as well")),
        });
    }
    let rate = entry.settings.delivery.rate?;
    let wait = gateway.shares.wait(&entry.name, gateway.lanes.now());
    (wait > HELD_UP_MIN)
        .then(|| ("rate_limited", format!("delivery.rate, {rate}, is used up until {}", moment(wait))))
}
