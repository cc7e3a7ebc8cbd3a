//! Which numbers were seen, a bit for each.

/// The most words of 64 numbers that are kept: those of a thousand million messages.
const WORDS_MAX: usize = 1 << 24;

/// A set of the numbers of a run, which begin with 0.
#[derive(Clone, Default)]
pub(super) struct Numbers {
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// Adds one; tells whether it is new. A number that no run gives is of nobody: `None`.
    pub(super) fn add(&mut self, number: u64) -> Option<bool> {
        let place = usize::try_from(number / 64).ok().filter(|place| *place < WORDS_MAX)?;
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        let bit = 1 << (number % 64);
        let is_new = self.words[place] & bit == 0;
        self.words[place] |= bit;
        self.count += u64::from(is_new);
        Some(is_new)
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// How many of these are not in the other.
    pub(super) fn missing_from(&self, other: &Self) -> u64 {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(others).map(|(own, other)| u64::from((own & !other).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once_and_what_the_other_lacks_is_counted() {
        let (mut all, mut some) = (Numbers::default(), Numbers::default());
        for number in [0, 63, 64, 1_000] {
            assert_eq!(all.add(number), Some(true), "{number}");
            assert_eq!(all.add(number), Some(false), "{number}");
        }
        assert_eq!(all.add(u64::MAX), None);
        for number in [64, 7] {
            some.add(number);
        }
        assert_eq!((all.count(), all.missing_from(&some), some.missing_from(&all)), (4, 3, 1));
        assert_eq!(all.missing_from(&all), 0);
    }
}
