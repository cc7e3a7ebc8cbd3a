//! Whether a setting or an option lies within its range, and the sentence that refuses it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{FormatError, bytes, duration};
use crate::domain::queue::SettingProblem;

/// The keys whose check failed.
pub fn problems(
    checks: impl IntoIterator<Item = (&'static str, Result<(), FormatError>)>,
) -> Vec<SettingProblem> {
    let failed = |(key, check): (_, Result<(), FormatError>)| {
        check.err().map(|error| SettingProblem { key, detail: error.to_string() })
    };
    checks.into_iter().filter_map(failed).collect()
}

/// Refuses a number outside its range: `70000 is out of range: 0 to 65535`.
pub fn number<T: PartialOrd + Copy + Display>(
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), FormatError> {
    shown(&value, range, T::to_string)
}

/// Refuses a size outside its range: `2TiB is out of range: 1 to 1TiB`.
pub fn size(value_bytes: u64, range: &RangeInclusive<u64>) -> Result<(), FormatError> {
    shown(&value_bytes, range, |size| bytes::show(*size))
}

/// Refuses a duration outside its range: `1ms is out of range: 100ms to 15m`.
pub fn span(value: Duration, range: &RangeInclusive<Duration>) -> Result<(), FormatError> {
    shown(&value, range, |span| duration::show(*span))
}

fn shown<T: PartialOrd>(
    value: &T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), FormatError> {
    if range.contains(value) {
        return Ok(());
    }
    let allowed = format!("is out of range: {} to {}", show(range.start()), show(range.end()));
    Err(FormatError::unquoted(show(value), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_within_and_a_refusal_names_them() {
        let refusal = |result: Result<(), FormatError>| result.expect_err("must be refused").to_string();
        assert_eq!(number(0, &(0..=9)), Ok(()));
        assert_eq!(number(9, &(0..=9)), Ok(()));
        assert_eq!(refusal(number(10, &(0..=9))), "10 is out of range: 0 to 9");
        assert_eq!(refusal(number(f64::NAN, &(0.0..=0.5))), "NaN is out of range: 0 to 0.5");
        assert_eq!(refusal(size(2 << 40, &(1..=1 << 40))), "2TiB is out of range: 1 to 1TiB");
        let minute = Duration::from_mins(1);
        assert_eq!(span(minute, &(minute..=minute)), Ok(()));
        assert_eq!(refusal(span(Duration::ZERO, &(minute..=15 * minute))), "0s is out of range: 1m to 15m");
    }
}
