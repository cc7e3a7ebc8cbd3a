//! How many lines a second something may write to the log before the rest is only counted. Pure: time comes in.

use std::time::Duration;

use crate::clock::Tick;

const SECOND: Duration = Duration::from_secs(1);

/// One second's lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    max_per_s: u32,
    began: Tick,
    written: u32,
    counted: u64,
}

impl Lines {
    /// So many a second from now on.
    pub(crate) const fn new(max_per_s: u32, now: Tick) -> Self {
        Self { max_per_s, began: now, written: 0, counted: 0 }
    }

    /// Begins another second when the last is over; tells how many lines of it were not written.
    pub(crate) fn turn(&mut self, now: Tick) -> u64 {
        if now.since(self.began) < SECOND {
            return 0;
        }
        let counted = self.counted;
        *self = Self::new(self.max_per_s, now);
        counted
    }

    /// Whether one more may be written; if not it is counted.
    pub(crate) fn admit(&mut self) -> bool {
        let is_admitted = self.written < self.max_per_s;
        if is_admitted {
            self.written += 1;
        } else {
            self.counted += 1;
        }
        is_admitted
    }

    /// How many were not written since it was last told; they are told by that.
    pub(crate) fn take_counted(&mut self) -> u64 {
        std::mem::take(&mut self.counted)
    }
}
