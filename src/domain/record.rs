//! The bytes of a message at rest, version 1: the same in every store.
//!
//! Big-endian, fixed offsets, and a length that never changes, so that a retry rewrites a few bytes in place:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | version, 1 |
//! | 1–16 | id |
//! | 17 · 18 | attempts counted · of them lost leases |
//! | 19 · 20 | attempts allowed · priority |
//! | 21 | flags: 1 suspect, 2 replayed |
//! | 22–27 · 28–33 · 34–39 | accepted, TTL (0 none), expiry (0 none), milliseconds |
//! | 40–41 | length of the headers |
//! | 42… | headers, payload |
//! | last 4 | CRC-32C of bytes 1 up to here without those that change in place: 17, 18, 21 and 34–39 |
//!
//! The expiry is outside the checksum because a replay starts the TTL anew inside stores that cannot compute one;
//! unless the record says that it was replayed, the expiry must equal acceptance + TTL, so damage shows all the same.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::id::MessageId;
use crate::domain::message::Priority;
use crate::domain::timestamp::Timestamp;

/// The version this program writes.
pub const VERSION: u8 = 1;
/// Bytes before the headers.
pub const FIXED_BYTES: usize = 42;
/// Bytes of the checksum at the end.
pub const CHECKSUM_BYTES: usize = 4;
/// A 48-bit number of milliseconds reaches the year 10889.
pub const MILLIS_MAX: u64 = (1 << 48) - 1;

const ID: usize = 1;
const ATTEMPTS: usize = 17;
const LOSSES: usize = 18;
const ATTEMPTS_MAX: usize = 19;
const PRIORITY: usize = 20;
const FLAGS: usize = 21;
const ACCEPTED: usize = 22;
const TTL: usize = 28;
const EXPIRES: usize = 34;
const HEADER_LENGTH: usize = 40;
const SUSPECT: u8 = 1;
const REPLAYED: u8 = 2;

/// Lost leases from which on a suspect is tried alone, however many attempts it has left.
pub const ALONE_LOSSES: u8 = 2;

/// What a new message's record says before any attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The message.
    pub id: MessageId,
    /// Attempts allowed, 1–255.
    pub attempts_max: u8,
    /// Its priority.
    pub priority: Priority,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How long it may wait for an attempt; `None` for ever.
    pub ttl: Option<Duration>,
}

/// Why bytes are no record that this program can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer version: not damage, hands off.
    #[error("the record is of version {0}, this program reads version 1")]
    Newer(u8),
    /// Too short, inconsistent, or the checksum differs.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
}

/// A record that was read and checked. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record(Bytes);

/// Builds the bytes of a new message.
///
/// `headers` has at most 65,535 bytes (`Headers::encode` sees to it; more would be cut), times at most [`MILLIS_MAX`].
#[must_use]
pub fn encode(head: &Head, headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + headers.len() + payload.len() + CHECKSUM_BYTES);
    let accepted_ms = head.accepted_at.as_millis().min(MILLIS_MAX);
    let ttl_ms = head.ttl.map_or(0, |ttl| millis(ttl).clamp(1, MILLIS_MAX));
    let expires_ms = if ttl_ms == 0 { 0 } else { (accepted_ms + ttl_ms).min(MILLIS_MAX) };
    let header_length = u16::try_from(headers.len()).unwrap_or(u16::MAX);
    let headers = &headers[..usize::from(header_length)];
    out.push(VERSION);
    out.extend_from_slice(head.id.as_bytes());
    out.extend_from_slice(&[0, 0, head.attempts_max, head.priority.index(), 0]);
    for value in [accepted_ms, ttl_ms, expires_ms] {
        out.extend_from_slice(&value.to_be_bytes()[2..]);
    }
    out.extend_from_slice(&header_length.to_be_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    let checksum = checksum(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(MILLIS_MAX)
}

/// CRC-32C of a record without its last four bytes, leaving out what changes in place.
fn checksum(body: &[u8]) -> u32 {
    let mut sum = crc32c::crc32c(&body[ID..ATTEMPTS]);
    sum = crc32c::crc32c_append(sum, &body[ATTEMPTS_MAX..FLAGS]);
    sum = crc32c::crc32c_append(sum, &body[ACCEPTED..EXPIRES]);
    crc32c::crc32c_append(sum, &body[HEADER_LENGTH..])
}

fn u48(bytes: &[u8], at: usize) -> u64 {
    let b = &bytes[at..at + 6];
    u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
}

impl Record {
    /// Reads and checks a record.
    ///
    /// # Errors
    /// [`RecordError::Newer`] for another version than 1 in bytes that could be a record, [`RecordError::Damaged`] for all else.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() < FIXED_BYTES + CHECKSUM_BYTES {
            return Err(RecordError::Damaged("it is too short"));
        }
        if bytes[0] == 0 {
            return Err(RecordError::Damaged("it has no version"));
        }
        if bytes[0] != VERSION {
            return Err(RecordError::Newer(bytes[0]));
        }
        let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if checksum(body).to_be_bytes() != sum {
            return Err(RecordError::Damaged("its checksum differs"));
        }
        let record = Self(bytes);
        if record.header_length() + FIXED_BYTES + CHECKSUM_BYTES > record.0.len() {
            return Err(RecordError::Damaged("its headers end beyond it"));
        }
        if Priority::from_index(record.0[PRIORITY]).is_none() {
            return Err(RecordError::Damaged("its priority is unknown"));
        }
        if record.losses() > record.attempts() {
            return Err(RecordError::Damaged("it counts more losses than attempts"));
        }
        let expires_ms = u48(&record.0, EXPIRES);
        let ttl_ms = u48(&record.0, TTL);
        let due_ms = if ttl_ms == 0 { 0 } else { (u48(&record.0, ACCEPTED) + ttl_ms).min(MILLIS_MAX) };
        if expires_ms != due_ms && !record.is_replayed() {
            return Err(RecordError::Damaged("its expiry does not follow from its TTL"));
        }
        Ok(record)
    }

    /// The id in bytes that may be damaged, for naming them; `None` when they are too short.
    #[must_use]
    pub fn peek_id(bytes: &[u8]) -> Option<MessageId> {
        bytes.get(ID..ATTEMPTS)?.try_into().ok().map(MessageId::from_bytes)
    }

    /// The priority in bytes that may be damaged; `None` when they are too short or it is none.
    #[must_use]
    pub fn peek_priority(bytes: &[u8]) -> Option<Priority> {
        bytes.get(PRIORITY).copied().and_then(Priority::from_index)
    }

    /// The moment of acceptance in bytes that may be damaged; `None` when they are too short.
    #[must_use]
    pub fn peek_accepted_at(bytes: &[u8]) -> Option<Timestamp> {
        (bytes.len() >= FIXED_BYTES).then(|| Timestamp::from_millis(u48(bytes, ACCEPTED)))
    }

    /// The whole record as stored.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The message.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[ID..ATTEMPTS]);
        MessageId::from_bytes(bytes)
    }

    /// Attempts counted so far, lost leases included.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.0[ATTEMPTS]
    }

    /// Of the attempts, those whose lease was lost.
    #[must_use]
    pub fn losses(&self) -> u8 {
        self.0[LOSSES]
    }

    /// Attempts allowed.
    #[must_use]
    pub fn attempts_max(&self) -> u8 {
        self.0[ATTEMPTS_MAX]
    }

    /// Its priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        Priority::from_index(self.0[PRIORITY]).unwrap_or_default()
    }

    /// Whether a worker that had it was lost, and no attempt has ended since: it is leased with other suspects only, one batch of
    /// them at a time in a process.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.0[FLAGS] & SUSPECT != 0
    }

    /// Whether it came back from the dead letters.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.0[FLAGS] & REPLAYED != 0
    }

    /// When it was accepted.
    #[must_use]
    pub fn accepted_at(&self) -> Timestamp {
        Timestamp::from_millis(u48(&self.0, ACCEPTED))
    }

    /// How long it may wait for an attempt.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        Some(u48(&self.0, TTL)).filter(|ttl_ms| *ttl_ms > 0).map(Duration::from_millis)
    }

    /// When it expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        Some(u48(&self.0, EXPIRES)).filter(|expires_ms| *expires_ms > 0).map(Timestamp::from_millis)
    }

    /// Whether its time is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at().is_some_and(|expires_at| expires_at <= now)
    }

    fn header_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[HEADER_LENGTH], self.0[HEADER_LENGTH + 1]]))
    }

    /// The headers, shared with the record.
    #[must_use]
    pub fn headers(&self) -> Bytes {
        self.0.slice(FIXED_BYTES..FIXED_BYTES + self.header_length())
    }

    /// The payload, shared with the record.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.0.slice(FIXED_BYTES + self.header_length()..self.0.len() - CHECKSUM_BYTES)
    }

    /// What it counts against a queue's `limits.bytes_max`: headers and payload.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        charged_bytes(&self.0)
    }

    /// Whether a suspect is a batch of its own: it was lost at least [`ALONE_LOSSES`] times, or its next attempt is its last.
    ///
    /// The first loss is no reason, for one kill takes everything along that was under way. What is only ever lost makes its
    /// last attempt alone, so that it cannot die for another's fault.
    #[must_use]
    pub fn must_be_alone(&self) -> bool {
        self.losses() >= ALONE_LOSSES || self.attempts().saturating_add(1) >= self.attempts_max()
    }

    /// The bytes after one more attempt. `suspect` says whether it is to be leased alone from now on.
    #[must_use]
    pub fn after_attempt(&self, lost: bool, suspect: bool) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes[ATTEMPTS] = bytes[ATTEMPTS].saturating_add(1);
        bytes[LOSSES] = bytes[LOSSES].saturating_add(u8::from(lost)).min(bytes[ATTEMPTS]);
        bytes[FLAGS] = if suspect { bytes[FLAGS] | SUSPECT } else { bytes[FLAGS] & !SUSPECT };
        bytes
    }

    /// The bytes of the message replayed at `now`: attempts, losses and TTL start anew.
    #[must_use]
    pub fn after_replay(&self, now: Timestamp) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes[ATTEMPTS] = 0;
        bytes[LOSSES] = 0;
        bytes[FLAGS] = REPLAYED;
        if let Some(ttl) = self.ttl() {
            let expires_ms = now.saturating_add(ttl).as_millis().min(MILLIS_MAX);
            bytes[EXPIRES..HEADER_LENGTH].copy_from_slice(&expires_ms.to_be_bytes()[2..]);
        }
        bytes
    }
}

/// What stored bytes count against a queue's `limits.bytes_max`, damaged ones too.
#[must_use]
pub fn charged_bytes(bytes: &[u8]) -> u64 {
    bytes.len().saturating_sub(FIXED_BYTES + CHECKSUM_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::Shard;

    fn head(ttl_ms: Option<u64>) -> Head {
        Head {
            id: MessageId::new(Timestamp::from_millis(1_700_000_000_000), [7; 10], Shard::default()),
            attempts_max: 12,
            priority: Priority::Low,
            accepted_at: Timestamp::from_millis(1_700_000_000_000),
            ttl: ttl_ms.map(Duration::from_millis),
        }
    }

    proptest! {
        #[test]
        fn a_record_survives_the_store(
            ttl_ms in prop::option::of(1_u64..(1 << 40)),
            headers in prop::collection::vec(any::<u8>(), 0..300),
            payload in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let head = head(ttl_ms);
            let record = Record::decode(encode(&head, &headers, &payload).into()).expect("sound");
            prop_assert_eq!(record.id(), head.id);
            prop_assert!(record.headers() == headers[..]);
            prop_assert!(record.payload() == payload[..]);
            prop_assert_eq!(record.ttl(), head.ttl);
            prop_assert_eq!(record.expires_at(), head.ttl.map(|ttl| head.accepted_at.saturating_add(ttl)));
            prop_assert_eq!((record.attempts(), record.losses(), record.attempts_max()), (0, 0, 12));
            prop_assert_eq!(record.priority(), Priority::Low);
            prop_assert_eq!(record.charged_bytes(), (headers.len() + payload.len()) as u64);
        }

        #[test]
        fn counting_an_attempt_keeps_the_record_sound(lost in any::<bool>(), suspect in any::<bool>(), times in 1_u8..100) {
            let mut record = Record::decode(encode(&head(Some(5)), b"h", b"payload").into()).expect("sound");
            for _ in 0..times {
                record = Record::decode(record.after_attempt(lost, suspect).into()).expect("sound");
            }
            prop_assert_eq!(record.attempts(), times);
            prop_assert_eq!(record.losses(), if lost { times } else { 0 });
            prop_assert_eq!(record.is_suspect(), suspect);
            let again = Record::decode(record.after_replay(Timestamp::from_millis(1_800_000_000_000)).into()).expect("sound");
            prop_assert_eq!((again.attempts(), again.losses(), again.is_suspect()), (0, 0, false));
            prop_assert_eq!(again.expires_at(), Some(Timestamp::from_millis(1_800_000_000_005)));
        }

        #[test]
        fn a_flipped_bit_is_seen(payload in prop::collection::vec(any::<u8>(), 0..100), place in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode(&head(Some(60_000)), b"headers", &payload);
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let read = Record::decode(bytes.into());
            // Attempts and flags change in place and are judged by the counters they must agree with.
            prop_assume!(place != ATTEMPTS && place != FLAGS);
            prop_assert!(read.is_err(), "byte {} bit {}", place, bit);
        }

        #[test]
        fn junk_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Record::decode(bytes.into()).is_err());
        }

        #[test]
        fn a_cut_record_is_refused(payload in prop::collection::vec(any::<u8>(), 0..100), keep in any::<prop::sample::Index>()) {
            let bytes = encode(&head(None), b"", &payload);
            let cut = bytes[..keep.index(bytes.len())].to_vec();
            prop_assert!(Record::decode(cut.into()).is_err());
        }
    }

    fn lost(attempts: u8, losses: u8, attempts_max: u8) -> Record {
        let mut bytes = encode(&Head { attempts_max, ..head(None) }, b"", b"x");
        (bytes[ATTEMPTS], bytes[LOSSES]) = (attempts, losses);
        Record::decode(bytes.into()).expect("sound")
    }

    #[test]
    fn what_was_lost_twice_or_has_one_attempt_left_must_be_alone() {
        for (attempts, losses, attempts_max, alone) in [
            (1, 1, 12, false),
            (10, 1, 12, false),
            (2, 2, 12, true),
            (7, 3, 12, true),
            (11, 1, 12, true),
            (1, 1, 3, false),
            (1, 1, 2, true),
            (2, 1, 3, true),
            (255, 1, 255, true),
        ] {
            let record = lost(attempts, losses, attempts_max);
            assert_eq!(
                record.must_be_alone(),
                alone,
                "{attempts} attempts, {losses} lost, of {attempts_max}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_only_ever_lost_makes_its_last_attempt_alone(attempts_max in 2_u8..=255) {
            let last = attempts_max - 1;
            prop_assert!(lost(last, last, attempts_max).must_be_alone());
        }
    }

    #[test]
    fn another_version_is_not_damage() {
        let mut bytes = encode(&head(None), b"", b"x");
        bytes[0] = 2;
        assert_eq!(Record::decode(bytes.into()), Err(RecordError::Newer(2)));
    }
}
