//! No faults: what a release has in place of the tests' [`fault`](super::fault).

use std::path::Path;

/// How a COMMIT fails: it does not on purpose.
pub(super) enum CommitFault {}

impl CommitFault {
    /// Never.
    pub(super) fn befall(self, _: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        match self {}
    }
}

/// None.
pub(super) const fn at_commit(_: &Path) -> Option<CommitFault> {
    None
}

/// None.
pub(super) const fn pages_max(_: &Path) -> Option<u32> {
    None
}
