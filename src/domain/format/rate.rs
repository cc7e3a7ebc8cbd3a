//! Rates: so many in a second, a minute or an hour: `100/s`, `600/m`, `5/h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::FormatError;

/// The span of time in which a [`Rate`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RatePeriod {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl RatePeriod {
    /// How long the span is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
        }
    }
}

/// So many in a second, a minute or an hour; written `100/s`, `600/m`, `5/h`.
///
/// The count is 1 to 1,000,000,000, so that the interval between two is never shorter than a nanosecond. `60/m` and
/// `1/s` allow the same but are different values: each is shown as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    count: u32,
    per: RatePeriod,
}

impl Rate {
    /// The largest count of a rate, whatever its period.
    pub const COUNT_MAX: u64 = 1_000_000_000;

    /// A rate of `count`, 1 to [`Self::COUNT_MAX`], in each period; nothing for another count.
    #[must_use]
    pub const fn new(count: u64, per: RatePeriod) -> Option<Self> {
        if count < 1 || count > Self::COUNT_MAX {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the largest count fits 32 bits; From is not const"
        )]
        let count = count as u32;
        Some(Self { count, per })
    }

    /// How many there are in one period.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count as u64
    }

    /// The period in which they are counted.
    #[must_use]
    pub const fn per(self) -> RatePeriod {
        self.per
    }

    /// How many there are in a second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        f64::from(self.count) / self.per.duration().as_secs_f64()
    }

    /// The time from one to the next when they are spread evenly, rounded down to the nanosecond; never zero.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.per.duration() / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.count, self.per.letter())
    }
}

impl FromStr for Rate {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let refused =
            |problem: &str| FormatError::new(text, format_args!("{problem}: write 100/s, 600/m or 5/h"));
        let Some((number, unit)) = text.split_once('/') else {
            let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            return Err(refused(if bare { "has no period" } else { "is not a rate" }));
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused("is not a rate, which is a whole number for each s, m or h"));
        }
        let per = match unit {
            "s" => RatePeriod::Second,
            "m" => RatePeriod::Minute,
            "h" => RatePeriod::Hour,
            _ => return Err(refused("has an unknown period")),
        };
        let rate = number.parse().ok().and_then(|count| Self::new(count, per));
        rate.ok_or_else(|| FormatError::new(text, "has a count out of range: 1 to 1000000000 is allowed"))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;

        impl de::Visitor<'_> for RateVisitor {
            type Value = Rate;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a rate like 100/s, 600/m or 5/h")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(RateVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Rate>().expect_err("must be refused").to_string()
    }

    #[test]
    fn a_rate_is_read_shown_and_turned_into_an_interval() {
        for (text, per_second, interval) in [
            ("100/s", 100.0, Duration::from_millis(10)),
            ("600/m", 10.0, Duration::from_millis(100)),
            ("36/h", 0.01, Duration::from_secs(100)),
            ("1000000000/s", 1e9, Duration::from_nanos(1)),
        ] {
            let rate: Rate = text.parse().expect("valid");
            assert_eq!(rate.to_string(), text);
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{text}");
            assert_eq!(rate.interval(), interval);
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_is_allowed() {
        assert_eq!(refusal("100"), r#""100" has no period: write 100/s, 600/m or 5/h"#);
        assert_eq!(refusal(""), r#""" is not a rate: write 100/s, 600/m or 5/h"#);
        assert_eq!(refusal("fast"), r#""fast" is not a rate: write 100/s, 600/m or 5/h"#);
        for text in ["/s", "1.5/s", "-1/s", "1 /s", "+1/s"] {
            let expected =
                "is not a rate, which is a whole number for each s, m or h: write 100/s, 600/m or 5/h";
            assert_eq!(refusal(text), format!("{text:?} {expected}"));
        }
        for text in ["5/d", "5/", "5/S", "5/s/m", "5/ s"] {
            assert_eq!(refusal(text), format!("{text:?} has an unknown period: write 100/s, 600/m or 5/h"));
        }
        for text in ["0/s", "1000000001/h", "99999999999999999999/s"] {
            assert_eq!(
                refusal(text),
                format!("{text:?} has a count out of range: 1 to 1000000000 is allowed")
            );
        }
    }

    #[test]
    fn serde_uses_the_same_spelling_and_refuses_numbers() {
        let rate: Rate = serde_json::from_str(r#""5/h""#).expect("valid");
        assert_eq!(Some(rate), Rate::new(5, RatePeriod::Hour));
        assert_eq!(serde_json::to_string(&rate).expect("serialises"), r#""5/h""#);
        let error = serde_json::from_str::<Rate>("5").expect_err("must be refused").to_string();
        assert!(error.contains("expected a rate like 100/s, 600/m or 5/h"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(count in 1..=Rate::COUNT_MAX, period in 0..3_usize) {
            let per = [RatePeriod::Second, RatePeriod::Minute, RatePeriod::Hour][period];
            let rate = Rate::new(count, per).expect("in range");
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
            prop_assert!(rate.interval() > Duration::ZERO);
        }

        #[test]
        fn no_text_panics(text in ".*|[0-9]{0,22}/?[smhd]?") {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert!(rate.count() >= 1);
                prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
            }
        }
    }
}
