//! Message ids: version 7 UUIDs (RFC 9562) whose last 10 bits name the shard.
//!
//! The first 48 bits are the millisecond of acceptance, so ids sort roughly by age and index pages stay warm.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::domain::timestamp::Timestamp;

/// Bits of an id that name the shard.
pub const SHARD_BITS: u32 = 10;
const SHARD_MASK: u16 = (1 << SHARD_BITS) - 1;

/// One of at most 1,024 parts of a queue. There is one, number 0, today.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Shard(u16);

impl Shard {
    /// The shard of this number; `None` from 1,024 on.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= SHARD_MASK { Some(Self(number)) } else { None }
    }

    /// Its number, 0–1,023.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The id of a message: the same on every attempt, in every answer and in every log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

/// A text that is no message id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message id is a version 7 UUID such as 0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400")]
pub struct IdError;

impl MessageId {
    /// Makes the id of a message accepted `at`, from 80 random bits of which the last 10 are replaced by the shard.
    #[must_use]
    pub fn new(at: Timestamp, random: [u8; 10], shard: Shard) -> Self {
        let mut bytes =
            *uuid::Builder::from_unix_timestamp_millis(at.as_millis(), &random).as_uuid().as_bytes();
        let tail = u16::from_be_bytes([bytes[14], bytes[15]]) & !SHARD_MASK | shard.0;
        bytes[14..].copy_from_slice(&tail.to_be_bytes());
        Self(bytes)
    }

    /// The id with exactly these bytes, unchecked: for what the store kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes, big-endian as in the text form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The shard that holds the message.
    #[must_use]
    pub const fn shard(&self) -> Shard {
        Shard(u16::from_be_bytes([self.0[14], self.0[15]]) & SHARD_MASK)
    }

    /// The millisecond the id was made.
    #[must_use]
    pub const fn made_at(&self) -> Timestamp {
        let b = &self.0;
        Timestamp::from_millis(u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]))
    }

    /// Writes the 36 characters of the text form into `buffer` and returns them.
    pub fn encode<'b>(&self, buffer: &'b mut [u8; 36]) -> &'b str {
        Uuid::from_bytes(self.0).as_hyphenated().encode_lower(buffer)
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 36 {
            return Err(IdError);
        }
        let uuid = Uuid::try_parse(text).map_err(|_| IdError)?;
        if uuid.get_version_num() == 7 { Ok(Self(*uuid.as_bytes())) } else { Err(IdError) }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.encode(&mut [0; 36]))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 36]))
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_keeps_its_time_and_shard(ms in 0_u64..(1 << 48), random in any::<[u8; 10]>(), shard in 0_u16..1024) {
            let shard = Shard::new(shard).expect("below 1,024");
            let id = MessageId::new(Timestamp::from_millis(ms), random, shard);
            prop_assert_eq!(id.shard(), shard);
            prop_assert_eq!(id.made_at(), Timestamp::from_millis(ms));
            prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
        }

        #[test]
        fn junk_is_no_id(text in ".{0,64}") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn only_version_7_with_hyphens_is_an_id() {
        assert_eq!("0192f0c1-5e3a-4c4d-9b21-3f6a52e8d400".parse::<MessageId>(), Err(IdError));
        assert_eq!("0192f0c15e3a7c4d9b213f6a52e8d400".parse::<MessageId>(), Err(IdError));
        assert!("0192F0C1-5E3A-7C4D-9B21-3F6A52E8D400".parse::<MessageId>().is_ok());
        assert!(Shard::new(1024).is_none());
    }
}
