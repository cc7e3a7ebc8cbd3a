//! A run over time: what was seen now and then, what it was at the begin and at the end, and whether it grew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::report::{decimal, rounded};

/// The longest that the begin and the end of a run are; a shorter run has a sixth of itself.
const WINDOW_MAX: Duration = Duration::from_mins(5);
/// Parts of a run whose medians are told.
const PARTS: u32 = 12;

/// How long its begin and its end are, of a run that lasts so long.
pub(super) fn window(lasting: Duration) -> Duration {
    (lasting / 6).min(WINDOW_MAX)
}

/// What was seen, by name, each with when it was.
pub(super) struct Course {
    lasting: Duration,
    seen: BTreeMap<&'static str, Vec<(Duration, u64)>>,
}

/// One of the things that were watched. A median stands for each time, so that no single moment decides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Watched {
    /// The median of the begin.
    pub(super) first: u64,
    /// The most of the begin.
    pub(super) first_most: u64,
    /// The median of the end.
    pub(super) last: u64,
    /// The most of all.
    pub(super) most: u64,
    /// From the begin to the end; `None` where there was nothing at the begin.
    pub(super) growth_percent: Option<f64>,
    /// How steep it is: the median of the slopes between any two parts. A single step moves it where it is in the middle, not near an end.
    pub(super) per_hour: Option<f64>,
    /// The median of each twelfth of the run.
    pub(super) parts: Vec<Option<u64>>,
}

impl Course {
    /// Of a run that lasts so long, with nothing seen yet.
    pub(super) const fn new(lasting: Duration) -> Self {
        Self { lasting, seen: BTreeMap::new() }
    }

    /// Notes what was seen then; what could not be is not known.
    pub(super) fn note(&mut self, name: &'static str, at: Duration, value: Option<u64>) {
        let seen = self.seen.entry(name).or_default();
        seen.extend(value.map(|value| (at, value)));
    }

    /// All that was watched; `None` is what was not seen at both ends.
    pub(super) fn watched(&self) -> BTreeMap<&'static str, Option<Watched>> {
        self.seen.iter().map(|(name, seen)| (*name, self.watch(seen))).collect()
    }

    fn watch(&self, seen: &[(Duration, u64)]) -> Option<Watched> {
        let window = window(self.lasting);
        let between = |from: Duration, until: Duration| {
            let inside = seen.iter().filter(move |(at, _)| (from..until).contains(at));
            inside.map(|(_, value)| *value).collect::<Vec<_>>()
        };
        let begin = between(Duration::ZERO, window);
        let first_most = *begin.iter().max()?;
        let (first, last) =
            (median(begin)?, median(between(self.lasting.saturating_sub(window), Duration::MAX))?);
        let part = self.lasting / PARTS;
        let parts: Vec<_> =
            (0..PARTS).map(|index| median(between(part * index, part * (index + 1)))).collect();
        Some(Watched {
            first,
            first_most,
            last,
            most: seen.iter().map(|(_, value)| *value).max()?,
            growth_percent: (first > 0).then(|| rounded((decimal(last) / decimal(first) - 1.0) * 100.0)),
            per_hour: slope(&parts).map(|slope| rounded(slope * 3_600.0 / part.as_secs_f64().max(1e-9))),
            parts,
        })
    }
}

/// The middle one; of an even number the upper one.
fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).expect("no number is missing"));
    values.get(values.len() / 2).copied()
}

/// The median of the slopes between any two, a part being one.
fn slope(parts: &[Option<u64>]) -> Option<f64> {
    let known: Vec<(f64, f64)> =
        (0_u32..).zip(parts).filter_map(|(at, value)| Some((f64::from(at), decimal((*value)?)))).collect();
    let pairs = known.iter().enumerate().flat_map(|(index, one)| {
        known[index + 1..].iter().map(move |other| (other.1 - one.1) / (other.0 - one.0))
    });
    median(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A value each second of two minutes.
    fn watched(value: impl Fn(u64) -> u64) -> Watched {
        let mut course = Course::new(Duration::from_mins(2));
        for second in 0..=120 {
            course.note("it", Duration::from_secs(second), Some(value(second)));
        }
        course.watched()["it"].clone().expect("it was seen")
    }

    #[test]
    fn begin_and_end_are_a_sixth_and_five_minutes_at_most() {
        assert_eq!(window(Duration::from_mins(2)), Duration::from_secs(20));
        assert_eq!(window(Duration::from_mins(30)), Duration::from_mins(5));
        assert_eq!(window(Duration::from_hours(5)), Duration::from_mins(5));
    }

    #[test]
    fn what_stays_does_not_grow_and_one_moment_decides_nothing() {
        for odd in [3, 60, 118] {
            let flat = watched(|second| if second == odd { 90 * MIB } else { 10 * MIB });
            assert_eq!((flat.first, flat.last, flat.most), (10 * MIB, 10 * MIB, 90 * MIB), "{odd}");
            assert_eq!((flat.growth_percent, flat.per_hour), (Some(0.0), Some(0.0)), "{odd}");
        }
    }

    #[test]
    fn what_grows_is_told_with_how_much_and_how_steep() {
        let grown = watched(|second| 100 * MIB + second * MIB);
        assert_eq!(
            (grown.first, grown.first_most, grown.last),
            (110 * MIB, 119 * MIB, 110 * MIB + 100 * MIB)
        );
        assert_eq!(grown.growth_percent, Some(90.909));
        assert_eq!(grown.per_hour, Some(decimal(3_600 * MIB)));
        assert_eq!(grown.parts.len(), 12);
        assert_eq!(grown.parts[1], Some(115 * MIB));
    }

    #[test]
    fn a_step_is_growth_but_not_one_that_goes_on() {
        let stepped = watched(|second| if second < 25 { 10 * MIB } else { 12 * MIB });
        assert_eq!((stepped.growth_percent, stepped.per_hour), (Some(20.0), Some(0.0)));
    }

    #[test]
    fn what_was_not_seen_at_both_ends_is_not_known() {
        let mut course = Course::new(Duration::from_mins(2));
        course.note("never", Duration::ZERO, None);
        course.note("early", Duration::ZERO, Some(1));
        let watched = course.watched();
        assert_eq!((&watched["never"], &watched["early"]), (&None, &None));
    }

    #[test]
    fn of_nothing_there_is_no_growth() {
        let grown = watched(|second| second / 60);
        assert_eq!((grown.first, grown.last, grown.growth_percent), (0, 1, None));
    }
}
