//! How a store is, and what a 202 means at this moment.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;

/// What a 202 means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written and fsynced.
    Strict,
    /// Written; the store flushes when it sees fit.
    Relaxed,
    /// In memory only.
    None,
    /// Strict as far as can be seen, by the operator's word.
    Assumed,
    /// It cannot be seen.
    Unknown,
}

/// Something an operator should look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Warning {
    /// A stable word.
    pub code: &'static str,
    /// What it is about, and what to do.
    pub detail: String,
}

/// A store's state, from live checks.
#[derive(Clone, PartialEq, Debug)]
pub struct StoreHealth {
    /// Whether it answers.
    pub reachable: bool,
    /// How long the last durable write took, queueing included; `None` before the first.
    pub latency: Option<Duration>,
    /// What a 202 means now.
    pub durability: Durability,
    /// Why it is not as configured; empty when it is.
    pub durability_reasons: Vec<String>,
    /// Why publishes are refused with `store_full`; `None` when they are not.
    pub full: Option<String>,
    /// Why the store may not be leased from: it holds what a newer version wrote.
    pub newer: Option<String>,
    /// Why nothing is done that time brings: no retry, no delay that ends, no lost lease, no expiry.
    pub unswept: Option<String>,
    /// What an operator should look at.
    pub warnings: Vec<Warning>,
    /// Queues whose part of the store is not as it should be.
    pub troubles: Vec<Trouble>,
}

/// A key of a queue holds what is not ours: the queue stands still.
pub const FOREIGN_TYPE: &str = "foreign_type";
/// The same of a key that messages do not need: they go their way, without history or what they are looked up by.
pub const FOREIGN_BESIDE: &str = "foreign_beside";
/// Gauges of a queue say something else than it holds.
pub const COUNTERS_DIFFER: &str = "counters_differ";

/// What is wrong with a queue's part of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The queue.
    pub queue: QueueName,
    /// A stable word: [`FOREIGN_TYPE`], [`FOREIGN_BESIDE`] or [`COUNTERS_DIFFER`].
    pub code: &'static str,
    /// What was found, and where.
    pub detail: String,
}

/// A gateway that works on a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// Its name: new at each start.
    pub id: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// When it was heard of last.
    pub last_seen: Timestamp,
}
