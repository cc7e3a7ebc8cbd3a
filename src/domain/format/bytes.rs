//! Sizes in bytes: an integer, or an integer with a unit: `4096`, `64KiB`, `8MiB`, `1GiB`, `1TiB`.
//!
//! The module works with `#[serde(with = "bytes")]`; [`option`] does the same for `Option<u64>`.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;

use super::FormatError;

/// The units with their size as a power of two, largest first.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

const WRITE: &str = "write a whole number of bytes, or 64KiB, 8MiB, 1GiB or 1TiB";

/// Reads a size, in bytes.
///
/// # Errors
///
/// Refuses everything but digits with at most one of the units, and what does not fit 64 bits.
pub fn parse(text: &str) -> Result<u64, FormatError> {
    let digits_end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    if number.is_empty() {
        return Err(FormatError::new(text, format_args!("is not a size: {WRITE}")));
    }
    let shift = if unit.is_empty() {
        0
    } else if let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) {
        *shift
    } else if unit.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(FormatError::new(text, format_args!("has an unknown unit: {WRITE}")));
    } else {
        return Err(FormatError::new(text, format_args!("is not a size: {WRITE}")));
    };
    // Digits only, so the one way to fail is a number too large for 64 bits.
    let bytes = number.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| FormatError::new(text, "is too large: at most 18446744073709551615 bytes"))
}

/// The canonical spelling: with the largest unit that divides the size, else the integer.
#[must_use]
pub fn show(bytes: u64) -> String {
    match divisor(bytes) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// The largest unit that divides a size; none of them divides zero.
fn divisor(bytes: u64) -> Option<(&'static str, u32)> {
    UNITS.into_iter().find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift)
}

/// Serialises as a string with a unit where one divides the size, else as an integer.
pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    // TOML has no integers beyond 63 bits: those go out as a string of digits.
    if divisor(*bytes).is_none() && i64::try_from(*bytes).is_ok() {
        serializer.serialize_u64(*bytes)
    } else {
        serializer.serialize_str(&show(*bytes))
    }
}

/// Deserialises an integer, or a string in the form that [`parse`] reads.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(BytesVisitor)
}

struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number of bytes, or a size like 64KiB, 8MiB, 1GiB or 1TiB")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number)
            .map_err(|_| E::custom(FormatError::unquoted(number, format_args!("is negative: {WRITE}"))))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        Err(E::custom(FormatError::unquoted(number, format_args!("is not a whole number: {WRITE}"))))
    }
}

/// The same for `Option<u64>`: `#[serde(default, with = "bytes::option")]`.
pub mod option {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    struct Wrapped(u64);

    impl<'de> Deserialize<'de> for Wrapped {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            super::deserialize(deserializer).map(Self)
        }
    }

    impl Serialize for Wrapped {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            super::serialize(&self.0, serializer)
        }
    }

    /// Serialises as [`serialize`](super::serialize) does, or as null.
    pub fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.map(Wrapped).serialize(serializer)
    }

    /// Deserialises null, or as [`deserialize`](super::deserialize) does.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn integers_and_every_unit_are_read_and_shown() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1_000),
            ("64KiB", 65_536),
            ("1025KiB", 1_049_600),
            ("8MiB", 8_388_608),
            ("1GiB", 1_073_741_824),
            ("1TiB", 1_099_511_627_776),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(show(bytes), text);
        }
        assert_eq!(show(parse("1024KiB").expect("valid")), "1MiB");
        assert_eq!(parse("0KiB"), Ok(0));
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_is_allowed() {
        let write = "write a whole number of bytes, or 64KiB, 8MiB, 1GiB or 1TiB";
        for text in ["", "KiB", "-1", "+1", "1.5MiB", "1 KiB", "1_000", "１"] {
            assert_eq!(refusal(text), format!("{text:?} is not a size: {write}"));
        }
        for text in ["1KB", "1kib", "1K", "1B", "1PiB"] {
            assert_eq!(refusal(text), format!("{text:?} has an unknown unit: {write}"));
        }
        for text in ["18446744073709551616", "16777216TiB"] {
            assert_eq!(refusal(text), format!("{text:?} is too large: at most 18446744073709551615 bytes"));
        }
    }

    #[derive(Deserialize, Serialize, PartialEq, Debug)]
    struct Holder {
        #[serde(with = "crate::domain::format::bytes")]
        one: u64,
        #[serde(default, with = "crate::domain::format::bytes::option")]
        maybe: Option<u64>,
    }

    #[test]
    fn serde_reads_both_forms_and_writes_the_canonical_one() {
        let holder: Holder = serde_json::from_str(r#"{"one":1024,"maybe":"1000"}"#).expect("valid");
        assert_eq!(holder, Holder { one: 1_024, maybe: Some(1_000) });
        assert_eq!(serde_json::to_string(&holder).expect("serialises"), r#"{"one":"1KiB","maybe":1000}"#);
        let holder: Holder = toml::from_str("one = \"2MiB\"").expect("valid");
        assert_eq!(holder, Holder { one: 2_097_152, maybe: None });
        let largest = Holder { one: u64::MAX, maybe: None };
        let text = toml::to_string(&largest).expect("serialises");
        assert_eq!(toml::from_str::<Holder>(&text).expect("valid"), largest);
    }

    #[test]
    fn serde_refuses_negative_numbers_fractions_and_other_types() {
        let refusal = |value: &str| {
            let text = format!(r#"{{"one":{value}}}"#);
            serde_json::from_str::<Holder>(&text).expect_err("must be refused").to_string()
        };
        let write = "write a whole number of bytes, or 64KiB, 8MiB, 1GiB or 1TiB at line";
        assert!(refusal("-1").starts_with(&format!("-1 is negative: {write}")), "{}", refusal("-1"));
        assert!(
            refusal("1.5").starts_with(&format!("1.5 is not a whole number: {write}")),
            "{}",
            refusal("1.5")
        );
        assert!(
            refusal("[]").contains("expected a whole number of bytes, or a size like 64KiB"),
            "{}",
            refusal("[]")
        );
        let refusal = toml::from_str::<Holder>("one = -1").expect_err("must be refused").to_string();
        assert!(refusal.contains("-1 is negative"), "{refusal}");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes: u64, shift in 0..64_u32) {
            for bytes in [bytes, bytes >> shift << shift, bytes << shift] {
                prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
            }
        }

        #[test]
        fn no_text_panics_and_what_is_read_has_one_spelling(text in ".*|[0-9]{0,22}[KMGTP]?i?B?") {
            if let Ok(bytes) = parse(&text) {
                prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
            }
        }
    }
}
