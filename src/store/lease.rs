//! Leasing and settling: batches, tokens, receipts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::domain::message::Headers;
use crate::domain::outcome::Attempt;
use crate::domain::record::{MILLIS_MAX, Record};
use crate::domain::retry::Verdict;
use crate::domain::timestamp::Timestamp;
use crate::store::QueueRef;

/// The longest content type that a [`Gist`] has: what waits to be settled is not counted by its bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Bytes of a [`Gist`]'s head: from the id to the moment of acceptance.
pub const GIST_BYTES: usize = 27;

/// Names a batch of leases. Chosen at random by the claimer, so that a lost `lease` can be sent again; 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(pub u128);

impl BatchId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Drawn by the store for each batch: who does not know it holds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

/// Who leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseKind {
    /// A worker of a gateway: when it is lost, its messages become suspects; a restart of the embedded store takes them back at once.
    Worker,
    /// A pulling consumer, which may outlive the gateway: its batches survive a restart with their deadlines.
    Pull,
}

/// What to lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRequest {
    /// From where.
    pub queue: QueueRef,
    /// As which batch.
    pub batch: BatchId,
    /// For whom.
    pub kind: LeaseKind,
    /// Messages at most, 1–1,000.
    pub max: u16,
    /// Payload and header bytes at most; one message may exceed it alone.
    pub bytes_max: u64,
    /// Until when from now, 1 s–12 h.
    pub lease: Duration,
    /// Whether suspects may be handed out. They go before all others and share a batch with none of those; one that
    /// [`must_be_alone`](crate::domain::record::Record::must_be_alone) is a batch of its own.
    pub suspects: bool,
}

/// A batch as settle and extend name it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BatchRef {
    /// Its queue.
    pub queue: QueueRef,
    /// Its id.
    pub batch: BatchId,
    /// Its token.
    pub token: Token,
}

/// The right to process one message until the batch's deadline. Not `Clone`: it ends in exactly one settlement, or expires.
#[derive(PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its place in the batch.
    pub index: u16,
    /// The message.
    pub record: Record,
}

impl Lease {
    /// The number of the attempt that this lease is for, from 1.
    #[must_use]
    pub fn attempt_number(&self) -> u8 {
        self.record.attempts().saturating_add(1)
    }

    /// Ends the lease.
    #[must_use]
    pub fn settle(self, verdict: Verdict, attempt: Option<Attempt>) -> Settlement {
        let gist = if verdict == Verdict::Ack { Gist::of(&self.record) } else { None };
        Settlement { index: self.index, verdict, attempt, gist }
    }
}

/// What a lease request took.
#[derive(PartialEq, Eq, Debug)]
pub struct Leased {
    /// How to name the batch; of no use when nothing was taken.
    pub batch: BatchRef,
    /// Until when by the store's clock.
    pub until: Timestamp,
    /// The leases, in the order of the queue.
    pub leases: Vec<Lease>,
    /// Whether the queue had more to lease for the same request at that moment.
    pub more: bool,
}

/// How one lease of a batch ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// The lease's place in its batch.
    pub index: u16,
    /// What becomes of the message.
    pub verdict: Verdict,
    /// What to remember of the attempt; may be shed. `None` when there was none. Of one that delivered its message a store
    /// remembers [`Attempt::of_delivered`], with the message's end and not in the log of attempts, so that delivering costs no
    /// write of its own.
    pub attempt: Option<Attempt>,
    /// Of a delivered message: what spares a store looking at it once more. It may be missing.
    pub gist: Option<Gist>,
}

/// What is remembered of a message that its first attempt delivered, as whoever leased it knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gist {
    /// What its record begins with.
    pub head: [u8; GIST_BYTES],
    /// Bytes of payload and headers.
    pub charged_bytes: u64,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Its content type; empty where it has none.
    pub content_type: Box<[u8]>,
}

impl Gist {
    /// That of a message without a log of attempts that would have to be cut, and with a content type of common length.
    fn of(record: &Record) -> Option<Self> {
        if record.attempts() > 0 || record.is_replayed() {
            return None;
        }
        let headers = record.headers();
        let content_type = Headers::peek_content_type(&headers);
        if content_type.len() > CONTENT_TYPE_BYTES_MAX {
            return None;
        }
        let charged_bytes = record.charged_bytes();
        Some(Self {
            head: *record.bytes()[1..].first_chunk()?,
            charged_bytes,
            payload_bytes: charged_bytes - headers.len() as u64,
            content_type: content_type.into(),
        })
    }
}

/// What a settlement came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It holds; also when it is sent again within [`CALL_MEMORY`](crate::store::CALL_MEMORY) of the batch's end, or while the
    /// batch lives.
    Settled,
    /// The lease was over, was settled in another [`Way`], or never was: nothing was changed.
    Lost,
}

/// In which way a lease was settled: as much of a verdict as is remembered, to tell one that is sent again from another one.
/// Delays, reasons and words are not compared: those that came first stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// [`Verdict::Ack`].
    Acknowledged,
    /// [`Verdict::Retry`], also where the message died of it.
    Retried,
    /// [`Verdict::Dead`].
    Buried,
    /// [`Verdict::Defer`] and [`Verdict::Postpone`].
    Deferred,
    /// [`Verdict::Release`].
    Released,
}

impl Way {
    /// All of them; a store may keep the place in here.
    pub const ALL: [Self; 5] =
        [Self::Acknowledged, Self::Retried, Self::Buried, Self::Deferred, Self::Released];

    /// The way that a verdict is.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Ack => Self::Acknowledged,
            Verdict::Retry { .. } => Self::Retried,
            Verdict::Dead { .. } => Self::Buried,
            Verdict::Defer { .. } | Verdict::Postpone { .. } => Self::Deferred,
            Verdict::Release => Self::Released,
        }
    }

    /// What a settlement comes to whose lease was settled before in the way `was`; `None` where nobody remembers which.
    #[must_use]
    pub fn settled_again(was: Option<Self>, verdict: &Verdict) -> Settled {
        if was.is_none_or(|way| way == Self::of(verdict)) { Settled::Settled } else { Settled::Lost }
    }
}

/// What an extension came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extended {
    /// The batch is held until then, by the store's clock.
    Until(Timestamp),
    /// The batch was over, or never was.
    Lost,
}

/// A lease as a pulling consumer holds it: an opaque text of at most 256 bytes. It names batch, token and place, and says what
/// only the answer to the lease knew: which attempt it is, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Receipt {
    /// The batch.
    pub batch: BatchId,
    /// Its token.
    pub token: Token,
    /// The lease's place in it.
    pub index: u16,
    /// The number of the attempt, from 1.
    pub attempt: u8,
    /// When it was leased, by the store's clock.
    pub leased_at: Timestamp,
}

/// A text that is no receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a receipt is the text that a lease gave, unchanged")]
pub struct ReceiptError;

impl fmt::Display for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (batch, token) = (self.batch.0, self.token.0);
        let leased_at = self.leased_at.as_millis() & MILLIS_MAX;
        write!(formatter, "{batch:032x}{token:016x}{:04x}{:02x}{leased_at:012x}", self.index, self.attempt)
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 66 || !text.bytes().all(lower_hex) {
            return Err(ReceiptError);
        }
        let number = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| ReceiptError);
        let batch = u128::from_str_radix(&text[..32], 16).map_err(|_| ReceiptError)?;
        let leased_at = number(&text[54..])?;
        Ok(Self {
            batch: BatchId(batch),
            token: Token(number(&text[32..48])?),
            index: u16::try_from(number(&text[48..52])?).map_err(|_| ReceiptError)?,
            attempt: u8::try_from(number(&text[52..54])?).map_err(|_| ReceiptError)?,
            leased_at: Timestamp::from_millis(leased_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_receipt_survives_its_text(
            batch in any::<u128>(), token in any::<u64>(), index in any::<u16>(), attempt in any::<u8>(), at in 0..=MILLIS_MAX,
        ) {
            let leased_at = Timestamp::from_millis(at);
            let receipt = Receipt { batch: BatchId(batch), token: Token(token), index, attempt, leased_at };
            prop_assert!(receipt.to_string().len() <= 256);
            prop_assert_eq!(receipt.to_string().parse::<Receipt>(), Ok(receipt));
        }

        #[test]
        fn junk_is_no_receipt(text in ".{0,80}") {
            if let Ok(receipt) = text.parse::<Receipt>() {
                prop_assert_eq!(receipt.to_string(), text);
            }
        }
    }
}
