//! Room on the disk: when publishes are refused, and the reserve that lets everything else go on.
//!
//! New messages are refused from a bound on, well before the disk is full: `store.full_at_percent` of `store.bytes_max`, or
//! of the room there was when the store was opened. Counted are the pages in use, the cap of the write-ahead log, and the reserve: a file beside the
//! database that holds real blocks. When others fill the disk all the same, that file is given up so that settling and
//! leasing, which need room before they make some, can go on; no publish is taken until it stands again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use rusqlite::Connection;

use crate::store::error::OpenError;
use crate::store::settings::StoreSettings;
use crate::store::sqlite::schema::PAGE_BYTES;
use crate::store::sqlite::work::Sql;

/// The most bytes that the write-ahead log holds, one transaction aside.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// The least, for a store with little room.
const LOG_BYTES_MIN: u64 = 64 << 10;
/// The log's share of the room.
const LOG_SHARE: u64 = 16;
/// How many logs the reserve holds.
const RESERVE_LOGS: u64 = 4;
const COUNT_PAGES: &str = "PRAGMA page_count";
const COUNT_FREE: &str = "PRAGMA freelist_count";

/// Room for one store.
pub(super) struct Space {
    reserve: PathBuf,
    directory: PathBuf,
    room: u64,
    limit: u64,
    /// Most bytes of the write-ahead log.
    pub(super) log_bytes_max: u64,
    /// Whether the reserve stands.
    pub(super) has_reserve: bool,
    /// Why nothing new is taken.
    pub(super) full: Option<String>,
}

/// Pages of the file, and those of them that are free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    /// All.
    pub(super) all: u64,
    /// Free.
    pub(super) free: u64,
}

/// Counts the pages of the file.
pub(super) fn pages(sql: &Connection) -> Sql<Pages> {
    let count = |pragma: &str| sql.prepare_cached(pragma)?.query_row([], |row| row.get(0));
    Ok(Pages { all: count(COUNT_PAGES)?, free: count(COUNT_FREE)? })
}

/// Gives up to so many free pages back to the file system.
pub(super) fn shrink(sql: &Connection, pages: u64) -> Sql<()> {
    let mut statement = sql.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // Each step gives one page back.
    while rows.next()?.is_some() {}
    Ok(())
}

/// The path of a file beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn bytes_free(directory: &Path) -> io::Result<u64> {
    let stat = statvfs(directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

impl Space {
    /// Measures the room of a store and makes its reserve.
    pub(super) fn open(path: &Path, settings: &StoreSettings) -> Result<Self, OpenError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        let reserve = beside(path, ".reserve");
        let room = match settings.bytes_max {
            Some(bytes_max) => Ok(bytes_max),
            None => bytes_free(&directory).map(|free| {
                let own = [file_bytes(path), file_bytes(&beside(path, "-wal")), file_bytes(&reserve)];
                free.saturating_add(own.iter().sum())
            }),
        };
        let room = room.map_err(|error| OpenError::Failed(format!("{}: {error}", directory.display())))?;
        let limit = room / 100 * u64::from(settings.full_at_percent);
        let log_bytes_max = (limit / LOG_SHARE).clamp(LOG_BYTES_MIN, LOG_BYTES_MAX);
        let mut space =
            Self { reserve, directory, room, limit, log_bytes_max, has_reserve: false, full: None };
        space.restore_reserve();
        Ok(space)
    }

    const fn reserve_bytes(&self) -> u64 {
        RESERVE_LOGS * self.log_bytes_max
    }

    /// Judges whether new messages are taken.
    pub(super) fn judge(&mut self, sql: &Connection) -> Sql<()> {
        let Pages { all, free } = pages(sql)?;
        let used = (all - free.min(all)) * PAGE_BYTES + self.log_bytes_max + self.reserve_bytes();
        self.full = if !self.has_reserve {
            Some("the disk is full: publishes are taken again when there is room for the reserve".to_owned())
        } else if used >= self.limit {
            let (room, percent) = (self.room, self.limit * 100 / self.room.max(1));
            Some(format!(
                "{used} bytes are in use or set aside: {percent} % of the room of {room} bytes is the most"
            ))
        } else {
            None
        };
        Ok(())
    }

    /// Gives the reserve up; gives whether there was one.
    pub(super) fn give_up_reserve(&mut self) -> bool {
        let had = std::mem::take(&mut self.has_reserve);
        if had {
            log::warn!("the disk is full: the reserve is given up, publishes are refused");
            if let Err(error) = std::fs::remove_file(&self.reserve) {
                log::error!("{} cannot be removed: {error}", self.reserve.display());
            }
        }
        had
    }

    /// Makes the reserve, if there is room for it and a log more.
    pub(super) fn restore_reserve(&mut self) {
        let bytes = self.reserve_bytes();
        if file_bytes(&self.reserve) != bytes {
            let room = bytes_free(&self.directory).unwrap_or(0).saturating_add(file_bytes(&self.reserve));
            if room < bytes + self.log_bytes_max {
                return;
            }
            if let Err(error) = allocate(&self.reserve, bytes) {
                log::debug!("no room for the reserve {}: {error}", self.reserve.display());
                drop(std::fs::remove_file(&self.reserve));
                return;
            }
        }
        self.has_reserve = true;
    }
}

/// Makes a file of so many bytes that really has its blocks.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    if posix_fallocate(&file, 0, length).is_err() {
        // A file system that cannot promise blocks is given bytes to keep.
        fill(&mut file, bytes)?;
    }
    file.sync_all()
}

fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let block = vec![0x50; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(block.len() as u64);
        file.write_all(&block[..usize::try_from(part).unwrap_or(block.len())])?;
        left -= part;
    }
    Ok(())
}
