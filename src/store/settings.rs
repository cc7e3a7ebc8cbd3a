//! `[store]`: which store, and what a 202 must mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::format::{bytes, duration};
use crate::store::health::Durability;

/// `store.durability`: what a 202 must mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequiredDurability {
    /// Written and fsynced; a store that cannot is refused.
    #[default]
    Strict,
    /// As the store does it.
    Relaxed,
    /// Kept in memory: for `memory:` only.
    None,
}

impl From<RequiredDurability> for Durability {
    fn from(required: RequiredDurability) -> Self {
        match required {
            RequiredDurability::Strict => Self::Strict,
            RequiredDurability::Relaxed => Self::Relaxed,
            RequiredDurability::None => Self::None,
        }
    }
}

/// The settings of the store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `sqlite:PATH` or `memory:`.
    pub url: String,
    /// What a 202 must mean.
    pub durability: RequiredDurability,
    /// How long to wait at start for another process to let go of the file.
    #[serde(with = "duration")]
    pub lock_wait: Duration,
    /// The most bytes the store may use; absent: 80 % of what was free at start.
    #[serde(with = "bytes::option", skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "sqlite:data/posthaste.db".to_owned(),
            durability: RequiredDurability::Strict,
            lock_wait: Duration::from_secs(30),
            bytes_max: None,
        }
    }
}
