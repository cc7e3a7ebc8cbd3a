//! Whether the file that is open is still the one of that name.
//!
//! A file that is deleted or replaced while it is open can be written to for as long as it stays open, and is gone then: what
//! SQLite says is on disk is on no disk that anybody will find.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use crate::store::sqlite::work::Sql;

/// The open file, and the name it was opened by.
#[derive(Debug)]
pub(super) struct Whereabouts {
    path: PathBuf,
    device: u64,
    inode: u64,
    is_said: AtomicBool,
}

impl Whereabouts {
    /// Of a file that was just opened at `path`.
    pub(super) fn of(path: &Path, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path: path.to_owned(), device, inode, is_said: AtomicBool::new(false) })
    }

    /// Opens one more connection, unless the file by that name is another one by now: it would take the log of ours for its own.
    pub(super) fn open_with(&self, open: impl FnOnce(&Path) -> Sql<Connection>) -> Sql<Connection> {
        match self.astray() {
            None => open(&self.path),
            Some(words) => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                Err(rusqlite::Error::SqliteFailure(code, Some(words)))
            }
        }
    }

    /// Why what is written will not be found at the path; `None` when it will. A change is logged once. One look at the
    /// directory: it does not wait for the disk.
    pub(super) fn astray(&self) -> Option<String> {
        let shown = self.path.display();
        let what = match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => None,
            Ok(_) => Some("was replaced by another file"),
            Err(error) if error.kind() == ErrorKind::NotFound => Some("was deleted or moved away"),
            // Then it is not known, and who needs the file will be told.
            Err(_) => None,
        };
        let astray = what.map(|what| {
            format!(
                "{shown} {what} while the gateway has it open: what it holds ends with the process; move it back, \
                 or let the gateway deliver what it has and start it again"
            )
        });
        match (self.is_said.swap(astray.is_some(), Ordering::Relaxed), &astray) {
            (false, Some(words)) => log::error!("publishes are refused: {words}"),
            (true, None) => log::info!("{shown} is in its place again"),
            _ => {}
        }
        astray
    }
}
