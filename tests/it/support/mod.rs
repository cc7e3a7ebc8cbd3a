//! What the scenarios stand on.

pub(crate) mod delivery;
pub(crate) mod sink;
