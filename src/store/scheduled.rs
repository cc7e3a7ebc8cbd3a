//! Messages that wait for their time, as a call names them that brings them forward.

use crate::domain::id::MessageId;

/// A scheduled message as it was when it was put off. The count of attempts tells it from the same message retried in between, which
/// waits for a reason of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scheduled {
    /// Which.
    pub id: MessageId,
    /// Attempts that its record counted then.
    pub attempts: u8,
}
