//! What an attempt showed of its destination, for whoever spares destinations that are down or busy.

use crate::domain::outcome::RetryHint;

/// What an attempt showed of its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Signal {
    /// Nothing: there is no destination, or it was not asked.
    #[default]
    Nothing,
    /// No answer came: the name does not resolve, no connection, no TLS, not in time, not HTTP.
    NoAnswer,
    /// It answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// Before when it wants to hear of nothing more; said with 429 and 503 only.
        hold: Option<RetryHint>,
    },
}
