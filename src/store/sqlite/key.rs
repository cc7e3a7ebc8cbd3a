//! Row keys: one 63-bit number says queue, band and order, so that every list of every queue is a range of one table.
//!
//! | bits | what |
//! |---|---|
//! | 47–62 | the queue's number |
//! | 44–46 | the [`Band`] |
//! | 0–43 | the running number |
//!
//! New rows of a list are appended at the end of their range, a lease is a scan from a known key, an acknowledgement is a
//! `DELETE` by key; nothing on that path needs a second index. Running numbers are given once in a queue's life and never
//! again: 8.8 × 10¹² of them, 100,000 a second for almost three years.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};

use crate::domain::message::Priority;
use crate::store::turns::List;

/// The number of a queue within the file; given again only when no row of its former owner is left.
pub(super) type QueueNumber = u16;

const NUMBER_BITS: u32 = 44;
const PLACE_BITS: u32 = 47;
/// The band for messages apart holds a list that grows at both ends: this is its middle.
const MIDDLE: u64 = 1 << (NUMBER_BITS - 1);
/// The last running number.
pub(super) const NUMBER_MAX: u64 = MIDDLE - 1;

/// Which of a queue's ranges a row lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Band {
    /// Never leased and not delayed.
    Fresh(Priority),
    /// Retried, deferred, promoted, replayed.
    Returned(Priority),
    /// Waits for its time.
    Scheduled,
    /// The head of the queue and the suspects; the record's flag tells which.
    Apart,
}

impl Band {
    /// All of them, in the order of their keys.
    pub(super) const ALL: [Self; 8] = [
        Self::Fresh(Priority::High),
        Self::Fresh(Priority::Normal),
        Self::Fresh(Priority::Low),
        Self::Returned(Priority::High),
        Self::Returned(Priority::Normal),
        Self::Returned(Priority::Low),
        Self::Scheduled,
        Self::Apart,
    ];

    const fn index(self) -> u64 {
        match self {
            Self::Fresh(priority) => priority.index() as u64,
            Self::Returned(priority) => 3 + priority.index() as u64,
            Self::Scheduled => 6,
            Self::Apart => 7,
        }
    }
}

/// The key of a message's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Seq(i64);

impl Seq {
    /// The key of a row in `list` that goes behind all others there; before all others when `first`, which only the head
    /// and the suspects know.
    pub(super) fn in_list(queue: QueueNumber, list: List, number: u64, first: bool) -> Self {
        match list {
            List::Fresh(priority) => Self::pack(queue, Band::Fresh(priority), number),
            List::Returned(priority) => Self::pack(queue, Band::Returned(priority), number),
            List::Suspects | List::Head => {
                let place = if first { MIDDLE - number } else { MIDDLE + number };
                Self::pack(queue, Band::Apart, place)
            }
        }
    }

    /// The key of a row that waits for its time.
    pub(super) fn scheduled(queue: QueueNumber, number: u64) -> Self {
        Self::pack(queue, Band::Scheduled, number)
    }

    fn pack(queue: QueueNumber, band: Band, place: u64) -> Self {
        Self((u64::from(queue) << PLACE_BITS | band.index() << NUMBER_BITS | place).cast_signed())
    }

    /// The first and the last key that a band of a queue may have.
    pub(super) fn range(queue: QueueNumber, band: Band) -> (Self, Self) {
        (Self::pack(queue, band, 0), Self::pack(queue, band, (1 << NUMBER_BITS) - 1))
    }

    /// The first and the last key that a queue may have.
    pub(super) fn range_of_queue(queue: QueueNumber) -> (Self, Self) {
        (Self::range(queue, Band::ALL[0]).0, Self::range(queue, Band::ALL[7]).1)
    }

    /// The first and the last key in a band of rows whose running number is at most `number`.
    pub(super) fn range_up_to(queue: QueueNumber, band: Band, number: u64) -> (Self, Self) {
        if band == Band::Apart {
            (Self::pack(queue, band, MIDDLE - number), Self::pack(queue, band, MIDDLE + number))
        } else {
            (Self::pack(queue, band, 0), Self::pack(queue, band, number))
        }
    }

    /// The queue it belongs to.
    pub(super) fn queue(self) -> QueueNumber {
        QueueNumber::try_from(self.0 >> PLACE_BITS).expect("a key has 63 bits")
    }

    /// Where in the queue.
    pub(super) fn band(self) -> Band {
        let index = usize::try_from(self.0 >> NUMBER_BITS & 7).expect("three bits");
        Band::ALL[index]
    }

    /// The running number it was given.
    pub(super) fn number(self) -> u64 {
        let place = self.0.cast_unsigned() & ((1 << NUMBER_BITS) - 1);
        if self.band() == Band::Apart { place.abs_diff(MIDDLE) } else { place }
    }

    /// The next key.
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As kept in the row of a batch.
    pub(super) const fn to_bits(self) -> i64 {
        self.0
    }

    /// As read from the row of a batch.
    pub(super) const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }
}

impl ToSql for Seq {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0))
    }
}

impl FromSql for Seq {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
    }
}

/// The key of a row that belongs to a queue and is no message: a batch, a dead letter, a page of history.
pub(super) fn place(queue: QueueNumber, number: u64) -> i64 {
    (u64::from(queue) << PLACE_BITS | number).cast_signed()
}

/// The first and the last of a queue's places.
pub(super) fn places(queue: QueueNumber) -> (i64, i64) {
    (place(queue, 0), place(queue, (1 << PLACE_BITS) - 1))
}

/// The number within its queue of a place.
pub(super) fn number_of_place(place: i64) -> u64 {
    place.cast_unsigned() & ((1 << PLACE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bands_of_all_queues_follow_one_another_without_a_gap_or_an_overlap() {
        let mut last = -1;
        for queue in [0, 1, 2] {
            for band in Band::ALL {
                let (first, end) = Seq::range(queue, band);
                assert_eq!(first.to_bits(), last + 1, "{queue} {band:?}");
                assert!(first < end);
                last = end.to_bits();
            }
        }
        assert_eq!(Seq::range_of_queue(u16::MAX).1.to_bits(), i64::MAX);
        assert_eq!(places(u16::MAX).1, i64::MAX);
    }

    proptest! {
        #[test]
        fn a_key_says_what_it_was_made_of(queue in any::<u16>(), index in 0_usize..8, number in 1..=NUMBER_MAX, first in any::<bool>()) {
            let list = List::ALL[index];
            let seq = Seq::in_list(queue, list, number, first);
            let band = match list {
                List::Suspects | List::Head => Band::Apart,
                List::Fresh(priority) => Band::Fresh(priority),
                List::Returned(priority) => Band::Returned(priority),
            };
            prop_assert_eq!((seq.queue(), seq.band(), seq.number()), (queue, band, number));
            let scheduled = Seq::scheduled(queue, number);
            prop_assert_eq!((scheduled.queue(), scheduled.band(), scheduled.number()), (queue, Band::Scheduled, number));
        }

        #[test]
        fn later_rows_lie_behind_earlier_ones_and_at_the_front_before_them(number in 1..NUMBER_MAX, later in 1_u64..1000) {
            let later = (number + later).min(NUMBER_MAX);
            let key = |list, number, first| Seq::in_list(7, list, number, first);
            let fresh = List::Fresh(Priority::Normal);
            prop_assert!(key(fresh, number, false) <= key(fresh, later, false));
            prop_assert!(key(List::Head, later, true) <= key(List::Head, number, true));
            prop_assert!(key(List::Suspects, number, true) < key(List::Suspects, number, false));
            for (list, first) in [(fresh, false), (List::Head, true), (List::Suspects, false)] {
                let old = key(list, number, first);
                let (from, to) = Seq::range_up_to(7, old.band(), number);
                prop_assert!((from..=to).contains(&old));
                let new = key(list, number + 1, first);
                prop_assert!(!(from..=to).contains(&new));
            }
        }
    }
}
