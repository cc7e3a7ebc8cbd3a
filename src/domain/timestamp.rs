//! Moments in time as the product keeps and writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::format::FormatError;

/// `9999-12-31T23:59:59.999Z`, the last moment that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_999;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

const DAY_S: i64 = 86_400;

const WRITE: &str = "write RFC 3339, like 2026-11-22T13:25:00.250Z or 2026-11-22T14:25:00+01:00";

/// Milliseconds since the Unix epoch, UTC. A plain value: it reads no clock.
///
/// Written as RFC 3339 in UTC with exactly three digits of milliseconds (`2026-11-22T13:25:00.250Z`), read with any
/// offset. Every number of milliseconds can be held; one beyond the year 9999 is written as the last moment of 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment so many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment so much later, or the largest one there is; what is shorter than a millisecond is cut off.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// The moment so much earlier, or the Unix epoch; what is shorter than a millisecond is cut off.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long it is from `earlier` to this moment; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads RFC 3339 with any offset, in upper or lower case; fractions beyond the millisecond are cut off.
    ///
    /// A leap second is read as the second after it.
    ///
    /// # Errors
    ///
    /// Refuses every other form, days and times that do not exist, and moments after the year 9999 (UTC). Those before 1970 are
    /// past like any other, and read as its beginning.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let fields = Fields::read(text.as_bytes())
            .ok_or_else(|| FormatError::new(text, format_args!("is not a time: {WRITE}")))?;
        let seconds =
            fields.unix_seconds().ok_or_else(|| FormatError::new(text, "is not a time that exists"))?;
        let Ok(seconds) = u64::try_from(seconds) else { return Ok(Self::default()) };
        let millis = seconds * 1_000 + fields.millis;
        if millis > LAST_MS {
            return Err(FormatError::new(text, "lies after the year 9999 (UTC)"));
        }
        Ok(Self(millis))
    }

    /// The written form, 24 ASCII characters.
    fn text(self) -> [u8; 24] {
        let shown_ms = i64::try_from(self.0.min(LAST_MS)).expect("the last moment fits 63 bits");
        // The calendar and not `jiff::Timestamp`, which ends a day before the year 9999 does.
        let civil = EPOCH.saturating_add(SignedDuration::from_millis(shown_ms));
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[0..4], civil.year());
        put(&mut text[5..7], i16::from(civil.month()));
        put(&mut text[8..10], i16::from(civil.day()));
        put(&mut text[11..13], i16::from(civil.hour()));
        put(&mut text[14..16], i16::from(civil.minute()));
        put(&mut text[17..19], i16::from(civil.second()));
        put(&mut text[20..23], civil.millisecond());
        text
    }
}

/// A duration in whole milliseconds, or the largest number of them.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the decimal digits of a number that is not negative over a field of zeros, from its right end.
fn put(field: &mut [u8], mut number: i16) {
    for digit in field.iter_mut().rev() {
        *digit += u8::try_from(number % 10).expect("the remainder of a positive number by ten is a digit");
        number /= 10;
    }
}

/// What an RFC 3339 time says, before it is checked against the calendar.
struct Fields {
    year: i16,
    month: i8,
    day: i8,
    hour: i64,
    minute: i64,
    second: i64,
    millis: u64,
    offset_minutes: i64,
}

impl Fields {
    /// Reads the form only: nothing when it is not that of RFC 3339.
    fn read(text: &[u8]) -> Option<Self> {
        let (head, tail) = text.split_at_checked(19)?;
        let punctuated = head[4] == b'-'
            && head[7] == b'-'
            && matches!(head[10], b'T' | b't')
            && head[13] == b':'
            && head[16] == b':';
        if !punctuated {
            return None;
        }
        let (millis, zone) = Self::fraction(tail)?;
        let offset_minutes = match zone {
            [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), hour @ .., b':', m1, m2] => {
                let (hour, minute) = (digits(hour, 2)?, digits(&[*m1, *m2], 2)?);
                if hour > 23 || minute > 59 {
                    return None;
                }
                let minutes = hour * 60 + minute;
                if *sign == b'-' { -minutes } else { minutes }
            }
            _ => return None,
        };
        Some(Self {
            year: i16::try_from(digits(&head[0..4], 4)?).ok()?,
            month: i8::try_from(digits(&head[5..7], 2)?).ok()?,
            day: i8::try_from(digits(&head[8..10], 2)?).ok()?,
            hour: digits(&head[11..13], 2)?,
            minute: digits(&head[14..16], 2)?,
            second: digits(&head[17..19], 2)?,
            millis,
            offset_minutes,
        })
    }

    /// Splits an optional fraction of a second, as milliseconds, from the zone that follows it.
    fn fraction(tail: &[u8]) -> Option<(u64, &[u8])> {
        let Some(after_dot) = tail.strip_prefix(b".") else {
            return Some((0, tail));
        };
        let end = after_dot.iter().position(|byte| !byte.is_ascii_digit())?;
        let (fraction, zone) = after_dot.split_at(end);
        if fraction.is_empty() {
            return None;
        }
        let digit_at = |index: usize| fraction.get(index).map_or(0, |digit| u64::from(digit - b'0'));
        Some((digit_at(0) * 100 + digit_at(1) * 10 + digit_at(2), zone))
    }

    /// Seconds since the Unix epoch; nothing when the day or the time of day does not exist.
    fn unix_seconds(&self) -> Option<i64> {
        let midnight = Date::new(self.year, self.month, self.day).ok()?.at(0, 0, 0, 0);
        if self.hour > 23 || self.minute > 59 || self.second > 60 {
            return None;
        }
        let minute_of_day = self.hour * 60 + self.minute - self.offset_minutes;
        // Leap seconds are only ever the last of a UTC day.
        if self.second == 60 && minute_of_day.rem_euclid(DAY_S / 60) != DAY_S / 60 - 1 {
            return None;
        }
        Some(midnight.duration_since(EPOCH).as_secs() + minute_of_day * 60 + self.second)
    }
}

/// Reads a field of exactly `count` decimal digits.
fn digits(field: &[u8], count: usize) -> Option<i64> {
    if field.len() != count {
        return None;
    }
    field
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        formatter.pad(std::str::from_utf8(&text).expect("digits and punctuation are ASCII"))
    }
}

impl FromStr for Timestamp {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        serializer.serialize_str(std::str::from_utf8(&text).expect("digits and punctuation are ASCII"))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimestampVisitor;

        impl de::Visitor<'_> for TimestampVisitor {
            type Value = Timestamp;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an RFC 3339 time like 2026-11-22T13:25:00.250Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(TimestampVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        Timestamp::parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn known_moments_are_written_in_utc_with_three_digits() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_795_353_900_250, "2026-11-22T13:25:00.250Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_millis(ms)));
        }
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(format!("{:>26}", Timestamp::default()), "  1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_offset_letter_case_and_fraction_is_read() {
        for (text, ms) in [
            ("2026-11-22T13:25:00Z", 1_795_353_900_000),
            ("2026-11-22t13:25:00.25z", 1_795_353_900_250),
            ("2026-11-22T14:25:00.250999999999999999+01:00", 1_795_353_900_250),
            ("2026-11-22T02:55:00-10:30", 1_795_353_900_000),
            ("2026-11-22T13:25:00-00:00", 1_795_353_900_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("2017-01-01T05:29:60.5+05:30", 1_483_228_800_500),
            ("1969-12-31T23:59:59-00:01", 59_000),
        ] {
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_is_allowed() {
        for text in [
            "",
            "now",
            "1795353900",
            "2026-11-22",
            "2026-11-22 13:25:00Z",
            "2026-11-22T13:25Z",
            "2026-11-22T13:25:00",
            "2026-11-22T13:25:00.Z",
            "2026-11-22T13:25:00.5",
            "2026-11-22T13:25:00+0100",
            "2026-11-22T13:25:00+1:00",
            "2026-11-22T13:25:00+24:00",
            "2026-11-22T13:25:00Z ",
            "26-11-22T13:25:00Z",
            "+026-11-22T13:25:00Z",
            "2026-11-22T13:25:00ZZ",
        ] {
            let write = "write RFC 3339, like 2026-11-22T13:25:00.250Z or 2026-11-22T14:25:00+01:00";
            assert_eq!(refusal(text), format!("{text:?} is not a time: {write}"));
        }
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T13:60:00Z",
            "2026-11-22T13:25:60Z",
            "2026-11-22T23:59:61Z",
        ] {
            assert_eq!(refusal(text), format!("{text:?} is not a time that exists"));
        }
        for text in ["9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z"] {
            assert_eq!(refusal(text), format!("{text:?} lies after the year 9999 (UTC)"));
        }
        for text in ["1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01", "0000-01-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(text), Ok(Timestamp::default()), "{text}: past is past");
        }
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let moment = Timestamp::from_millis(1_000);
        assert_eq!(moment.saturating_add(Duration::from_micros(1_999)), Timestamp::from_millis(1_001));
        assert_eq!(moment.saturating_sub(Duration::from_secs(2)), Timestamp::default());
        assert_eq!(moment.saturating_add(Duration::MAX), Timestamp::from_millis(u64::MAX));
        assert_eq!(moment.since(Timestamp::from_millis(400)), Duration::from_millis(600));
        assert_eq!(moment.since(Timestamp::from_millis(1_001)), Duration::ZERO);
    }

    #[test]
    fn serde_uses_the_written_form_and_refuses_numbers() {
        let moment = Timestamp::from_millis(250);
        let text = serde_json::to_string(&moment).expect("serialises");
        assert_eq!(text, r#""1970-01-01T00:00:00.250Z""#);
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("valid"), moment);
        let error = serde_json::from_str::<Timestamp>("250").expect_err("must be refused").to_string();
        assert!(error.contains("expected an RFC 3339 time like 2026-11-22T13:25:00.250Z"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0..=LAST_MS) {
            let moment = Timestamp::from_millis(ms);
            prop_assert_eq!(Timestamp::parse(&moment.to_string()), Ok(moment));
        }

        #[test]
        fn the_same_moment_at_every_offset_is_equal(ms in DAY_S as u64 * 1_000..LAST_MS - DAY_S as u64 * 1_000, minutes in -1_439..=1_439_i64) {
            let local = if minutes < 0 {
                Timestamp::from_millis(ms).saturating_sub(Duration::from_secs(minutes.unsigned_abs() * 60))
            } else {
                Timestamp::from_millis(ms).saturating_add(Duration::from_secs(minutes.unsigned_abs() * 60))
            };
            let sign = if minutes < 0 { '-' } else { '+' };
            let local = local.to_string();
            let (hour, minute) = (minutes.abs() / 60, minutes.abs() % 60);
            let text = format!("{}{sign}{hour:02}:{minute:02}", &local[..23]);
            prop_assert_eq!(Timestamp::parse(&text), Ok(Timestamp::from_millis(ms)));
        }

        #[test]
        fn it_agrees_with_an_independent_parser(text in "[0-8][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])") {
            let ours = Timestamp::parse(&text).ok();
            let theirs = text.parse::<jiff::Timestamp>().ok()
                .map(|moment| u64::try_from(moment.as_nanosecond().div_euclid(1_000_000)).unwrap_or(0))
                .map(Timestamp::from_millis);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn no_text_panics(text in ".*|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}[.]?[0-9]{0,12}.{0,6}") {
            if let Ok(moment) = Timestamp::parse(&text) {
                prop_assert_eq!(Timestamp::parse(&moment.to_string()), Ok(moment));
            }
        }
    }
}
