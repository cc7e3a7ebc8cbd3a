//! The mark of this very Redis: an emptied or another one has none or a different one.

use std::fmt;
use std::sync::Arc;

/// The format that the keys of this version have.
pub(super) const FORMAT: u32 = 1;

/// What lies under the key `epoch`: the least format that a reader must know, and a random mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Epoch {
    pub(super) format_min: u32,
    pub(super) mark: Arc<str>,
}

impl Epoch {
    /// A new one.
    pub(super) fn random() -> Self {
        Self { format_min: FORMAT, mark: format!("{:016x}", fastrand::u64(..)).into() }
    }

    /// `1:5f0c…`; `None` for what is nothing of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (format, mark) = std::str::from_utf8(bytes).ok()?.split_once(':')?;
        let is_mark =
            !mark.is_empty() && mark.len() <= 64 && mark.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_mark.then_some(())?;
        Some(Self { format_min: format.parse().ok()?, mark: mark.into() })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.format_min, self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_as_it_was_written() {
        let epoch = Epoch::random();
        assert_eq!(Epoch::read(epoch.to_string().as_bytes()), Some(epoch.clone()));
        assert_ne!(Epoch::random(), epoch);
        assert_eq!(Epoch::read(b"2:newer").map(|epoch| epoch.format_min), Some(2));
    }

    #[test]
    fn what_is_nothing_of_ours_is_no_epoch() {
        for bytes in [&b""[..], b"1", b"1:", b":abc", b"x:abc", b"1:a b", b"1:\xff"] {
            assert_eq!(Epoch::read(bytes), None, "{bytes:?}");
        }
    }
}
