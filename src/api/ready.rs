//! Whether the gateway can accept and serve, as `/ready` says it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The answer of `/ready`: 200 when ready, else 503.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Whether it can.
    pub ready: bool,
    /// Why it cannot; left out when it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// One reason why the gateway cannot accept or serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// A stable word: `store_unavailable`, `store_newer`, `not_swept`, `not_durable`, `draining`, `actor_gave_up`, `queue_stalled`.
    pub code: Cow<'static, str>,
    /// What it is about.
    pub detail: String,
}
