//! Keeps a second process out: a lock on a file beside the database, held for as long as the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::clock::Clock;
use crate::store::error::OpenError;
use crate::store::sqlite::space::beside;

/// How often a lock that another process holds is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The lock. Dropping it lets the next process in.
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    /// Waits up to `patience` for the lock on the store at `path`.
    ///
    /// # Errors
    /// When another process still holds it then, or the file cannot be made.
    pub(super) fn acquire(path: &Path, patience: Duration) -> Result<Self, OpenError> {
        let lock_path = beside(path, ".lock");
        let shown = lock_path.display();
        let failed = |error: std::io::Error| OpenError::Failed(format!("{shown}: {error}"));
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
        // How long to be patient is real time, whatever clock the store goes by.
        let clock = Clock::system();
        let began = clock.tick();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock.tick().since(began) >= patience {
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
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file would do as well, but no sooner.
        drop(self.0.unlock());
    }
}
