//! Where the time of an attempt went.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long each phase of an attempt took; absent is what did not happen, or was not reached.
///
/// Written as microseconds, and kept so: what is shorter is cut off, and what is longer than 71 minutes is kept as that.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Finding the addresses of the destination's name; absent where they were known.
    #[serde(with = "micros", skip_serializing_if = "Option::is_none")]
    pub dns: Option<Duration>,
    /// Connecting, with the TLS handshake; absent on a connection that was kept.
    #[serde(with = "micros", skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// From the first byte of the request to the head of the answer.
    #[serde(with = "micros", skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
    /// Reading what is read of the answer's body.
    #[serde(with = "micros", skip_serializing_if = "Option::is_none")]
    pub body: Option<Duration>,
}

impl Phases {
    /// Nothing is known.
    pub const NONE: Self = Self { dns: None, connect: None, wait: None, body: None };
    /// The most bytes that [`Phases::pack`] appends.
    pub const BYTES_MAX: usize = 1 + 4 * 5;

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// Appends them as they are at rest: a byte that says which are there, then each in as few bytes as its microseconds need,
    /// seven bits a byte, the lowest first.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let which = out.len();
        out.push(0);
        for (place, phase) in [self.dns, self.connect, self.wait, self.body].into_iter().enumerate() {
            let Some(phase) = phase else { continue };
            out[which] |= 1 << place;
            let mut rest = micros_of(phase);
            while rest >= 0x80 {
                out.push(rest.to_le_bytes()[0] | 0x80);
                rest >>= 7;
            }
            out.push(rest.to_le_bytes()[0]);
        }
    }

    /// Reads them from the beginning of `bytes` and goes past them; `None` when they are cut or junk.
    #[must_use]
    pub fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let which = next(bytes)?;
        let mut phases = [None; 4];
        for (place, phase) in phases.iter_mut().enumerate() {
            if which & 1 << place != 0 {
                *phase = Some(Duration::from_micros(varint(bytes)?));
            }
        }
        let [dns, connect, wait, body] = phases;
        Some(Self { dns, connect, wait, body })
    }
}

fn micros_of(phase: Duration) -> u32 {
    u32::try_from(phase.as_micros()).unwrap_or(u32::MAX)
}

fn next(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// A number of at most 35 bits.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = next(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

mod micros {
    use super::{Deserialize as _, Deserializer, Duration, Serialize as _, Serializer, micros_of};

    #[expect(clippy::ref_option, reason = "serde hands the field over like that")]
    pub(super) fn serialize<S: Serializer>(
        phase: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        phase.map(micros_of).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u32>::deserialize(deserializer)?.map(|micros| Duration::from_micros(micros.into())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any phases, as they are kept.
    pub(crate) fn some_phases() -> impl Strategy<Value = Phases> {
        let phase = || prop::option::of(prop_oneof![0_u32..20_000, any::<u32>()]);
        let of = |micros: Option<u32>| micros.map(|micros| Duration::from_micros(micros.into()));
        (phase(), phase(), phase(), phase()).prop_map(move |(dns, connect, wait, body)| Phases {
            dns: of(dns),
            connect: of(connect),
            wait: of(wait),
            body: of(body),
        })
    }

    proptest! {
        #[test]
        fn phases_are_read_as_they_were_packed(phases in some_phases(), behind: [u8; 3]) {
            let mut bytes = Vec::new();
            phases.pack(&mut bytes);
            prop_assert!(bytes.len() <= Phases::BYTES_MAX);
            bytes.extend_from_slice(&behind);
            let rest = &mut &*bytes;
            prop_assert_eq!(Phases::unpack(rest), Some(phases));
            prop_assert_eq!(*rest, behind);
        }

        #[test]
        fn phases_are_read_as_they_were_written(phases in some_phases()) {
            let text = serde_json::to_string(&phases).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Phases>(&text).expect("valid"), phases);
        }

        #[test]
        fn junk_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let phases = Phases::unpack(&mut &*bytes);
            prop_assert!(phases.is_none_or(|phases| bytes[0] & 0x0f != 0 || phases.is_empty()));
        }
    }

    #[test]
    fn only_what_happened_is_written() {
        let millis = |millis| Some(Duration::from_millis(millis));
        let kept_alive = Phases { wait: millis(31), body: millis(0), ..Phases::NONE };
        let mut bytes = Vec::new();
        kept_alive.pack(&mut bytes);
        assert_eq!(bytes, [0b1100, 0x98, 0xf2, 0x01, 0]);
        assert_eq!(serde_json::to_string(&kept_alive).expect("serialises"), r#"{"wait":31000,"body":0}"#);
        assert!(Phases::NONE.is_empty() && !kept_alive.is_empty());
    }

    #[test]
    fn what_is_longer_than_can_be_kept_is_kept_as_the_most() {
        let mut bytes = Vec::new();
        Phases { dns: Some(Duration::MAX), ..Phases::NONE }.pack(&mut bytes);
        let most = Phases { dns: Some(Duration::from_micros(u32::MAX.into())), ..Phases::NONE };
        assert_eq!(Phases::unpack(&mut &*bytes), Some(most));
    }
}
