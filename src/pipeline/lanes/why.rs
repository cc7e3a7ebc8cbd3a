//! Why nothing passes: one lane, and several.

use std::sync::Arc;
use std::time::Duration;

/// Why a lane is shut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its breaker is open; what happened last.
    Breaker(String),
    /// Its breaker is half open, and an attempt under way finds out; what happened last.
    Probe(String),
    /// The destination asked for a pause.
    Held,
    /// Its rate is used up.
    Rate,
}

impl Why {
    /// What is said before what, when there are several.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Breaker(_) => 0,
            Self::Probe(_) => 1,
            Self::Held => 2,
            Self::Rate => 3,
        }
    }
}

/// Why several lanes let nothing pass: one of them, and how many others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllShut {
    /// Of those that are shut by a breaker, if any is, the one that opens first.
    pub key: Arc<str>,
    /// How long that one is shut.
    pub wait: Duration,
    /// Why.
    pub why: Why,
    /// How many others are.
    pub others: usize,
}
