//! Faults for tests: a chosen COMMIT fails, or the file may not grow. Not built into a release.
//!
//! A fault is armed for the path of a store and is used up by its writer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a COMMIT fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitFault {
    /// Nothing of it reached the file.
    Before,
    /// It is in the file, and only the answer was lost.
    After,
}

impl CommitFault {
    /// Lets the fault befall a COMMIT.
    pub(super) fn befall(self, commit: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        if self == Self::After {
            commit()?;
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        Err(rusqlite::Error::SqliteFailure(code, Some("an injected fault".to_owned())))
    }
}

#[derive(Default)]
struct Armed {
    commits_left: u32,
    fault: Option<CommitFault>,
    pages_max: Option<u32>,
}

static ARMED: Mutex<BTreeMap<PathBuf, Armed>> = Mutex::new(BTreeMap::new());

fn lock() -> MutexGuard<'static, BTreeMap<PathBuf, Armed>> {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the COMMIT after `commits_before` more fail, of those that write something to the store at `path`.
pub fn fail_commit(path: &Path, commits_before: u32, fault: CommitFault) {
    let mut armed = lock();
    let armed = armed.entry(path.to_owned()).or_default();
    (armed.commits_left, armed.fault) = (commits_before, Some(fault));
}

/// Lets the store at `path` hold so many pages at most, beyond which SQLite says that the disk is full.
pub fn limit_pages(path: &Path, pages_max: u32) {
    lock().entry(path.to_owned()).or_default().pages_max = Some(pages_max);
}

/// The fault of the COMMIT that the store at `path` is about to do.
pub(super) fn at_commit(path: &Path) -> Option<CommitFault> {
    let mut armed = lock();
    let armed = armed.get_mut(path)?;
    armed.fault?;
    if armed.commits_left > 0 {
        armed.commits_left -= 1;
        return None;
    }
    armed.fault.take()
}

/// A new limit of pages for the store at `path`.
pub(super) fn pages_max(path: &Path) -> Option<u32> {
    lock().get_mut(path).and_then(|armed| armed.pages_max.take())
}
