//! Everything `/status` says. What is not known is null here, not left out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::queue::{ParkReason, QueueName, Source};
use crate::domain::timestamp::Timestamp;

/// The answer of `/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// The gateway that answers.
    pub instance: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// How long ago that is, by a clock that never jumps.
    pub uptime_s: u64,
    /// The moment of the counts; null when there never were any.
    pub as_of: Option<Timestamp>,
    /// Whether both laws of counting hold in every queue shown; null when the store is away.
    pub consistent: Option<bool>,
    /// The gateways on this store.
    pub instances: Vec<Instance>,
    /// The store.
    pub store: StoreStatus,
    /// The sum of the queues shown.
    pub totals: Totals,
    /// The queues, by name.
    pub queues: Vec<QueueStatus>,
    /// The actors of this gateway.
    pub actors: Vec<ActorStatus>,
    /// The lanes of this gateway.
    pub lanes: Vec<LaneStatus>,
    /// This process.
    pub process: ProcessStatus,
}

/// A gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// Its name: random, new at each start.
    pub id: String,
    /// Its version.
    pub version: String,
    /// When it was last heard of.
    pub last_seen: Timestamp,
}

/// The store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `sqlite`, `memory`, …
    pub kind: String,
    /// Whether it answers.
    pub reachable: bool,
    /// How long the last durable write took, queueing included; null before the first.
    pub latency_ms: Option<f64>,
    /// What a 202 means.
    pub durability: DurabilityStatus,
    /// What an operator should look at.
    pub warnings: Vec<Warning>,
}

/// What a 202 means.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DurabilityStatus {
    /// What was asked for: `strict`, `relaxed`, `none`.
    pub configured: String,
    /// What is: `strict`, `relaxed`, `none`, `assumed`, `unknown`.
    pub now: String,
    /// Why it is not as configured.
    pub reasons: Vec<String>,
}

/// Something an operator should look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Warning {
    /// A stable word.
    pub code: Cow<'static, str>,
    /// What it is about, and what to do.
    pub detail: String,
}

/// The counts of a queue, or of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Messages waiting for their turn.
    pub pending: Option<u64>,
    /// Messages waiting for their time.
    pub scheduled: Option<u64>,
    /// Messages with a worker or consumer.
    pub leased: Option<u64>,
    /// Dead letters.
    pub dead: Option<u64>,
    /// Payload and header bytes pending, scheduled and leased.
    pub bytes: Option<u64>,
}

/// What has happened since a queue was made; only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Stored by publish.
    pub accepted: Option<u64>,
    /// Processed.
    pub delivered: Option<u64>,
    /// Attempts followed by another.
    pub retried: Option<u64>,
    /// Put into the dead letters.
    pub dead_lettered: Option<u64>,
    /// Put back from the dead letters.
    pub replayed: Option<u64>,
    /// Cancelled by id.
    pub cancelled: Option<u64>,
    /// Removed by purge.
    pub purged: Option<u64>,
    /// Left the dead letters otherwise than by replay.
    pub discarded: Option<u64>,
    /// Of the discarded, by limit or retention.
    pub trimmed: Option<u64>,
    /// Leases lost.
    pub recovered: Option<u64>,
    /// Put back for a shut lane.
    pub deferred: Option<u64>,
}

/// The sum of the queues shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// What is there.
    #[serde(flatten)]
    pub counts: Counts,
    /// What happened.
    #[serde(flatten)]
    pub history: History,
}

/// Messages a second, over the last minute and the last five; null until there is enough to measure.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Accepted, over a minute.
    pub accepted_per_s_1m: Option<f64>,
    /// Accepted, over five minutes.
    pub accepted_per_s_5m: Option<f64>,
    /// Delivered, over a minute.
    pub delivered_per_s_1m: Option<f64>,
    /// Delivered, over five minutes.
    pub delivered_per_s_5m: Option<f64>,
}

/// One queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: QueueName,
    /// What is done with its messages.
    pub processor: String,
    /// Who declared it.
    pub source: Source,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Whether it parked itself, and why.
    pub parked: Option<ParkReason>,
    /// Whether its deliveries are signed.
    pub signed: bool,
    /// What is there.
    #[serde(flatten)]
    pub counts: Counts,
    /// The most messages it takes.
    pub length_max: u64,
    /// The most bytes it takes.
    pub bytes_max: u64,
    /// What happened.
    #[serde(flatten)]
    pub history: History,
    /// How fast.
    #[serde(flatten)]
    pub rates: Rates,
    /// How long ago the message at its head was accepted; null when nothing is pending.
    pub oldest_pending_ms: Option<u64>,
    /// Until when leases are kept that ran out while the store was away; null when there are none.
    pub recovering_until: Option<Timestamp>,
    /// Whether both laws of counting hold; null when the store is away.
    pub consistent: Option<bool>,
    /// Why it does not move; null when nothing holds it.
    pub stalled: Option<Stalled>,
}

/// Why a queue does not move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stalled {
    /// A stable word.
    pub code: Cow<'static, str>,
    /// What it is about, and what to do.
    pub detail: String,
    /// Since when this gateway has seen it so.
    pub since: Timestamp,
}

/// An actor of this gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActorStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `running`, `restarting`, `stopping`, `stopped`, `gave_up`.
    pub state: Cow<'static, str>,
    /// Restarts since it was started.
    pub restarts: u32,
    /// Messages in its mailbox.
    pub mailbox_depth: usize,
    /// The most messages its mailbox holds.
    pub mailbox_capacity: usize,
    /// How long ago it last showed that it lives.
    pub beat_age_ms: u64,
}

/// A lane of this gateway: everything sent to one origin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaneStatus {
    /// The origin.
    pub key: String,
    /// Deliveries in flight.
    pub in_flight: u32,
    /// The most there may be now.
    pub limit: u32,
    /// Its rate, if it has one.
    pub rate: Option<String>,
    /// `closed`, `open`, `half_open`.
    pub breaker: Cow<'static, str>,
    /// When an open breaker lets a probe through.
    pub open_until: Option<Timestamp>,
    /// Messages waiting for it.
    pub waiting: u64,
}

/// This process, as its system tells; null where it does not.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Memory in use.
    pub rss_bytes: Option<u64>,
    /// Open file descriptors.
    pub fds_open: Option<u64>,
    /// The most there may be.
    pub fds_max: Option<u64>,
    /// Processor time used, user and system.
    pub cpu_s: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(value: &impl Serialize) -> Vec<String> {
        let value = serde_json::to_value(value).expect("serialises");
        let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    }

    fn sorted(text: &str) -> Vec<String> {
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    }

    const COUNTS: &str =
        "pending scheduled leased dead bytes accepted delivered retried dead_lettered replayed
        cancelled purged discarded trimmed recovered deferred";

    #[test]
    fn what_is_not_known_is_null_and_no_field_is_missing() {
        let queue = QueueStatus {
            name: "orders".parse().expect("a name"),
            processor: "log".to_owned(),
            source: Source::File,
            paused: false,
            parked: None,
            signed: false,
            counts: Counts::default(),
            length_max: 1,
            bytes_max: 2,
            history: History::default(),
            rates: Rates::default(),
            oldest_pending_ms: None,
            recovering_until: None,
            consistent: None,
            stalled: None,
        };
        let expected = format!(
            "name processor source paused parked signed length_max bytes_max {COUNTS} accepted_per_s_1m
            accepted_per_s_5m delivered_per_s_1m delivered_per_s_5m oldest_pending_ms recovering_until consistent stalled"
        );
        assert_eq!(keys(&queue), sorted(&expected));
        assert_eq!(keys(&Totals::default()), sorted(COUNTS));
        assert_eq!(keys(&ProcessStatus::default()), sorted("rss_bytes fds_open fds_max cpu_s"));
        let text = serde_json::to_string(&queue).expect("serialises");
        assert_eq!(serde_json::from_str::<QueueStatus>(&text).expect("valid"), queue);
    }
}
