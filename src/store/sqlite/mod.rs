//! The default store: one SQLite file, written by one thread.
//!
//! - [`writer`] makes the calls of all threads into transactions; [`transaction`] begins, commits and undoes them.
//! - [`work`] is what a call works with; `publish`, `lease`, `settle`, `sweep`, `find`, `dead`, `purge`, `queues`,
//!   `history` and `index` are what calls do, and [`moves`] is how a message goes from one place to another.
//! - [`key`] says how rows are keyed, [`schema`] which tables there are, [`state`] and [`batch`] what is kept in memory,
//!   [`recovery`] how that is built from the file.
//! - [`reader`], `letters` and `audit` look things up beside the writer; [`vitals`] is seen without asking anybody.
//! - [`whereabouts`] knows whether the file is still in its place; [`space`], [`checkpoint`] and [`lock`] keep the disk, the log and other processes in their bounds.

mod audit;
mod batch;
mod calls;
mod checkpoint;
mod connection;
mod counts;
mod dead;
#[cfg(any(test, feature = "fault-injection"))]
pub mod fault;
#[cfg(not(any(test, feature = "fault-injection")))]
#[path = "no_fault.rs"]
mod fault;
mod find;
mod history;
mod inbox;
mod index;
mod key;
mod lease;
mod letters;
mod lock;
mod moves;
mod operation;
mod pack;
mod publish;
mod purge;
mod queues;
mod reader;
mod recovery;
mod schema;
mod settle;
mod space;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction;
mod vitals;
mod whereabouts;
mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::clock::Clock;
use crate::store::error::{OpenError, StoreError};
use crate::store::settings::{RequiredDurability, StoreSettings};
use crate::store::sqlite::connection::Connection;
use crate::store::sqlite::inbox::Inbox;
use crate::store::sqlite::lock::FileLock;
use crate::store::sqlite::reader::Reader;
use crate::store::sqlite::space::Space;
use crate::store::sqlite::transaction::Engine;
use crate::store::sqlite::vitals::Vitals;
use crate::store::sqlite::whereabouts::Whereabouts;
use crate::store::sqlite::writer::Writer;
use crate::store::wake::WakeBoard;
use crate::store::{MessageStore, Store};

const READ_ID: &str = "SELECT lower(hex(store)) FROM meta";

/// What the writer and all connections share.
struct Shared {
    id: Arc<str>,
    inbox: Inbox,
    reader: Mutex<Option<Reader>>,
    vitals: Vitals,
    whereabouts: Arc<Whereabouts>,
    wakes: WakeBoard,
    clock: Clock,
}

impl Shared {
    fn reader(&self) -> Result<Reader, StoreError> {
        self.refuse_when_closed()?;
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reader.ok_or_else(|| StoreError::Unavailable("it is closed".to_owned()))
    }

    fn close_reader(&self) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn refuse_when_closed(&self) -> Result<(), StoreError> {
        if self.inbox.is_closed() { Err(StoreError::Unavailable("it is closed".to_owned())) } else { Ok(()) }
    }
}

/// Held by the store and by every connection: when the last of them goes, the store is closed.
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close(None);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It has said what went wrong if it panicked.
            drop(writer.join());
        }
    }
}

struct Sqlite(Arc<Handle>);

impl Store for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn id(&self) -> Arc<str> {
        Arc::clone(&self.0.shared.id)
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(Connection(Arc::clone(&self.0)))
    }

    fn wakes(&self) -> &WakeBoard {
        &self.0.shared.wakes
    }
}

/// The path in `sqlite:PATH`.
fn path_of(settings: &StoreSettings) -> Result<PathBuf, OpenError> {
    let path = settings.url.strip_prefix("sqlite:").unwrap_or_default();
    if path.is_empty() || path.ends_with('/') {
        let words = format!(
            "store.url: {:?} names no file: write sqlite:PATH, like sqlite:data/posthaste.db",
            settings.url
        );
        return Err(OpenError::Configuration(words));
    }
    Ok(PathBuf::from(path))
}

/// Opens or makes the store in a file. Blocks while another process has it, up to `store.lock_wait`, and while what that
/// process left is taken over.
pub fn open(settings: &StoreSettings, clock: &Clock) -> Result<Arc<dyn Store>, OpenError> {
    Ok(Arc::new(Sqlite(open_handle(settings, clock)?)))
}

fn open_handle(settings: &StoreSettings, clock: &Clock) -> Result<Arc<Handle>, OpenError> {
    let path = path_of(settings)?;
    if settings.durability == RequiredDurability::None {
        let words = "store.durability: none is for memory: only; sqlite: can be strict or relaxed";
        return Err(OpenError::Configuration(words.to_owned()));
    }
    let failed = |error: &dyn std::fmt::Display| OpenError::Failed(format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    }
    // Made before it is locked, so that links to it are resolved and one file has one name.
    if !path.exists() {
        let made = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        made.map_err(|error| failed(&error))?;
    }
    let path = path.canonicalize().map_err(|error| failed(&error))?;
    let lock = FileLock::acquire(&path, settings.lock_wait)?;
    let connection = schema::open(&path)?;
    let broken = |error: rusqlite::Error| schema::failed(&path, &error);
    let id: String = connection.query_row(READ_ID, [], |row| row.get(0)).map_err(broken)?;
    let space = Space::open(&path, settings)?;
    let shared = Arc::new(Shared {
        id: id.into(),
        inbox: Inbox::default(),
        reader: Mutex::new(None),
        vitals: Vitals::new(settings.durability),
        whereabouts: Arc::new(lock.whereabouts(&path).map_err(|error| failed(&error))?),
        wakes: WakeBoard::default(),
        clock: clock.clone(),
    });
    let is_relaxed = settings.durability == RequiredDurability::Relaxed;
    let engine = Engine::new(path.clone(), connection, space, Arc::clone(&shared), is_relaxed);
    let writer = start(&path, engine.map_err(broken)?, lock, &shared)?;
    Ok(Arc::new(Handle { shared, writer: Mutex::new(Some(writer)) }))
}

/// Takes over what is in the file and starts the threads.
fn start(
    path: &Path,
    engine: Engine,
    lock: FileLock,
    shared: &Arc<Shared>,
) -> Result<JoinHandle<()>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Failed(format!("{}: {error}", path.display()));
    let checkpoints = Arc::clone(&engine.checkpoints);
    let shared_by_writer = Arc::clone(shared);
    let mut writer =
        Writer { engine, shared: shared_by_writer, lock, threads: Vec::new(), checkpoint_failed: None };
    writer.take_over().map_err(|error| schema::failed(path, &error))?;
    writer.threads.push(checkpoints.start(Arc::clone(&shared.whereabouts)).map_err(failed)?);
    let (reader, reader_thread) = Reader::start(Arc::clone(&shared.whereabouts)).map_err(failed)?;
    writer.threads.push(reader_thread);
    *shared.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run()).map_err(failed)
}
