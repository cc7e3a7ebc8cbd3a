//! Durations: integers with units, largest unit first: `500ms`, `15s`, `1h30m`, `7d`.
//!
//! Units are `d h m s ms`, each at most once. A bare number, a sign, a fraction and blanks are refused. The resolution
//! is one millisecond, the longest duration is 10,000 days.
//!
//! The module works with `#[serde(with = "duration")]`; [`option`] and [`list`] do the same for `Option<Duration>` and
//! `Vec<Duration>`.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;

use super::FormatError;

/// The units with their length in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest duration that [`parse`] accepts: 10,000 days.
pub const LONGEST: Duration = Duration::from_millis(LONGEST_MS);

const LONGEST_MS: u64 = 10_000 * UNITS[0].1;

const WRITE: &str = "write 15s, 500ms, 2m, 1h30m or 7d";

/// Reads a duration, to the millisecond.
///
/// # Errors
///
/// Refuses everything but the documented form and what is longer than [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, FormatError> {
    if text.is_empty() {
        return Err(FormatError::new(text, format_args!("is not a duration: {WRITE}")));
    }
    let mut total_ms: u64 = 0;
    let mut units_left = &UNITS[..];
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split(rest, |byte| byte.is_ascii_digit());
        let (unit, after) = split(after, |byte| byte.is_ascii_alphabetic());
        rest = after;
        if number.is_empty() || (unit.is_empty() && !after.is_empty()) {
            return Err(FormatError::new(
                text,
                format_args!("is not a duration, which is whole numbers with units: {WRITE}"),
            ));
        }
        if unit.is_empty() {
            let place = if number.len() == text.len() { String::new() } else { format!(" after {number}") };
            return Err(FormatError::new(text, format_args!("has no unit{place}: {WRITE}")));
        }
        let Some(index) = units_left.iter().position(|(name, _)| *name == unit) else {
            return Err(unit_refused(text, unit));
        };
        let unit_ms = units_left[index].1;
        units_left = &units_left[index + 1..];
        // Digits only, so the one way to fail is a number too large for 64 bits.
        let sum = number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit_ms))
            .and_then(|ms| ms.checked_add(total_ms));
        total_ms = match sum {
            Some(sum) if sum <= LONGEST_MS => sum,
            _ => return Err(FormatError::new(text, "is too long: at most 10000d")),
        };
    }
    Ok(Duration::from_millis(total_ms))
}

/// Why a unit that is none of those still possible is refused.
fn unit_refused(text: &str, unit: &str) -> FormatError {
    if UNITS.iter().any(|(name, _)| *name == unit) {
        FormatError::new(text, "has its units out of order: the largest first, each once, like 1h30m")
    } else {
        FormatError::new(text, format_args!("has an unknown unit: {WRITE}"))
    }
}

/// Cuts `text` where the bytes at its start stop to be as `matches` wants them (ASCII only).
fn split(text: &str, matches: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !matches(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// The canonical spelling: largest unit first, units that are zero left out, `0s` for nothing.
///
/// What is shorter than a millisecond is cut off.
#[must_use]
pub fn show(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let count = rest_ms / u128::from(unit_ms);
        rest_ms %= u128::from(unit_ms);
        if count > 0 {
            write!(text, "{count}{unit}").expect("writing to a String cannot fail");
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Serialises as the string that [`show`] gives.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(*duration))
}

/// Deserialises a string in the form that [`parse`] reads; a bare number is refused.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor)
}

struct DurationVisitor;

impl DurationVisitor {
    fn bare<E: de::Error>(number: impl fmt::Display) -> E {
        E::custom(FormatError::unquoted(number, format_args!("has no unit: {WRITE}")))
    }
}

impl de::Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration like 15s, 500ms, 2m, 1h30m or 7d")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        Err(Self::bare(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        Err(Self::bare(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
        Err(Self::bare(number))
    }
}

/// A duration inside an option or a list.
struct Wrapped(Duration);

impl<'de> de::Deserialize<'de> for Wrapped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// The same for `Option<Duration>`: `#[serde(default, with = "duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer};
    use serde::ser::Serializer;

    use super::Wrapped;

    /// Serialises as the string that [`show`](super::show) gives, or as null.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&super::show(*duration)),
            None => serializer.serialize_none(),
        }
    }

    /// Deserialises null, or a string in the form that [`parse`](super::parse) reads.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// The same for `Vec<Duration>`: `#[serde(with = "duration::list")]`.
pub mod list {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer};
    use serde::ser::Serializer;

    use super::Wrapped;

    /// Serialises as a list of the strings that [`show`](super::show) gives.
    pub fn serialize<S: Serializer>(durations: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().map(|duration| super::show(*duration)))
    }

    /// Deserialises a list of strings in the form that [`parse`](super::parse) reads.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Wrapped>::deserialize(deserializer)?.into_iter().map(|wrapped| wrapped.0).collect())
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
    fn every_unit_and_their_combination_is_read() {
        for (text, ms) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("0ms", 0),
            ("90m", 5_400_000),
            ("10000d", 864_000_000_000),
            ("007s", 7_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn the_canonical_spelling_is_largest_first_without_zero_units() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1s500ms"),
            (90_000, "1m30s"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (86_400_001, "1d1ms"),
        ] {
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        assert_eq!(show(Duration::from_micros(1_999)), "1ms");
        assert_eq!(show(Duration::MAX), "213503982334601d7h15s999ms");
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_is_allowed() {
        assert_eq!(refusal("15"), r#""15" has no unit: write 15s, 500ms, 2m, 1h30m or 7d"#);
        assert_eq!(refusal("1h30"), r#""1h30" has no unit after 30: write 15s, 500ms, 2m, 1h30m or 7d"#);
        assert_eq!(refusal(""), r#""" is not a duration: write 15s, 500ms, 2m, 1h30m or 7d"#);
        for text in ["1.5h", "-1s", "+1s", " 1s", "1s ", "1 s", "s", "soon", "1h,30m", "１s"] {
            let expected =
                "is not a duration, which is whole numbers with units: write 15s, 500ms, 2m, 1h30m or 7d";
            assert_eq!(refusal(text), format!("{text:?} {expected}"));
        }
        assert_eq!(refusal("3w"), r#""3w" has an unknown unit: write 15s, 500ms, 2m, 1h30m or 7d"#);
        assert_eq!(refusal("3S"), r#""3S" has an unknown unit: write 15s, 500ms, 2m, 1h30m or 7d"#);
        let order = "has its units out of order: the largest first, each once, like 1h30m";
        assert_eq!(refusal("30m1h"), format!(r#""30m1h" {order}"#));
        assert_eq!(refusal("1s1s"), format!(r#""1s1s" {order}"#));
    }

    #[test]
    fn what_is_longer_than_ten_thousand_days_is_refused_without_overflow() {
        for text in
            ["10000d1ms", "10001d", "18446744073709551615d", "99999999999999999999999999d", "864000000001ms"]
        {
            assert_eq!(refusal(text), format!("{text:?} is too long: at most 10000d"));
        }
    }

    #[derive(Deserialize, Serialize, PartialEq, Debug)]
    struct Holder {
        #[serde(with = "crate::domain::format::duration")]
        one: Duration,
        #[serde(default, with = "crate::domain::format::duration::option")]
        maybe: Option<Duration>,
        #[serde(default, with = "crate::domain::format::duration::list")]
        many: Vec<Duration>,
    }

    #[test]
    fn serde_reads_and_writes_the_same_spelling() {
        let text = r#"{"one":"1m30s","maybe":"5s","many":["5s","1d"]}"#;
        let holder: Holder = serde_json::from_str(text).expect("valid");
        assert_eq!(holder.one, Duration::from_secs(90));
        assert_eq!(holder.many, [Duration::from_secs(5), Duration::from_hours(24)]);
        assert_eq!(serde_json::to_string(&holder).expect("serialises"), text);
        let holder: Holder = serde_json::from_str(r#"{"one":"1s","maybe":null}"#).expect("valid");
        assert_eq!(holder, Holder { one: Duration::from_secs(1), maybe: None, many: Vec::new() });
        let holder: Holder = toml::from_str("one = \"1s\"\nmaybe = \"2s\"").expect("valid");
        assert_eq!(holder.maybe, Some(Duration::from_secs(2)));
    }

    #[test]
    fn serde_refuses_a_bare_number_and_other_types() {
        let refusal = |value: &str| {
            let text = format!(r#"{{"one":{value}}}"#);
            serde_json::from_str::<Holder>(&text).expect_err("must be refused").to_string()
        };
        let unit = "has no unit: write 15s, 500ms, 2m, 1h30m or 7d at line";
        assert!(refusal("15").starts_with(&format!("15 {unit}")), "{}", refusal("15"));
        assert!(refusal("-15").starts_with(&format!("-15 {unit}")), "{}", refusal("-15"));
        assert!(refusal("1.5").starts_with(&format!("1.5 {unit}")), "{}", refusal("1.5"));
        assert!(refusal("true").contains("expected a duration like 15s"), "{}", refusal("true"));
        let refusal = toml::from_str::<Holder>("one = 15").expect_err("must be refused").to_string();
        assert!(refusal.contains("15 has no unit"), "{refusal}");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0..=864_000_000_000_u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics_and_what_is_read_has_one_spelling(text in ".*") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&show(duration)), Ok(duration));
            }
        }

        #[test]
        fn near_misses_are_read_to_one_spelling_or_refused(text in "[0-9]{0,25}(ms|[smhdw. +-]){0,2}[0-9]{0,3}(ms|s|m)?") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration <= LONGEST);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                prop_assert_eq!(parse(&show(duration)), Ok(duration));
            }
        }
    }
}
