//! What the scenarios stand on.

pub(crate) mod client;
pub(crate) mod delivery;
pub(crate) mod gateway;
pub(crate) mod invariants;
pub(crate) mod sink;
