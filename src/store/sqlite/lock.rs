//! Keeps a second process out for as long as the store is open: by a lock on a file beside the database, and by one on the
//! database itself.
//!
//! The first is found by the name of the file, links resolved. The second is found by the file, whatever it is called: it
//! stands when somebody removes the first, and between two hard links. Both are `flock` locks, which SQLite's own do not meet.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::clock::{Clock, Tick};
use crate::store::error::OpenError;
use crate::store::sqlite::space::beside;
use crate::store::sqlite::whereabouts::Whereabouts;

/// How often a lock that another process holds is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The locks. Dropping them lets the next process in.
///
/// The database's own must not be opened and closed while SQLite has the file open in this process: closing any of a process's
/// descriptors of a file ends SQLite's locks on it (POSIX `fcntl`). The lock beside it comes first, so this happens to nobody
/// who opens a store twice.
#[derive(Debug)]
pub(super) struct FileLock {
    beside: File,
    database: File,
}

impl FileLock {
    /// Waits up to `patience` for the locks on the store at `path`, which exists.
    ///
    /// # Errors
    /// When another process still holds one then, or a file cannot be opened.
    pub(super) fn acquire(path: &Path, patience: Duration) -> Result<Self, OpenError> {
        // How long to be patient is real time, whatever clock the store goes by.
        let clock = Clock::system();
        let until = clock.tick().after(patience);
        let beside = locked(&beside(path, ".lock"), &clock, until)?;
        let database = locked(path, &clock, until)?;
        Ok(Self { beside, database })
    }

    /// The database that is locked, by the name it was opened by.
    pub(super) fn whereabouts(&self, path: &Path) -> std::io::Result<Whereabouts> {
        Whereabouts::of(path, &self.database)
    }
}

fn locked(path: &Path, clock: &Clock, until: Tick) -> Result<File, OpenError> {
    let shown = path.display();
    let failed = |error: std::io::Error| OpenError::Failed(format!("{shown}: {error}"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if clock.tick() >= until {
            let words =
                "another process has the store open; it was waited for as long as store.lock_wait says";
            return Err(OpenError::Failed(format!("{shown}: {words}")));
        }
        if !said {
            said = true;
            log::info!("waiting for another process to let go of {shown}");
        }
        std::thread::sleep(TRY_EVERY);
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the files would do as well, but no sooner.
        drop(self.database.unlock());
        drop(self.beside.unlock());
    }
}
