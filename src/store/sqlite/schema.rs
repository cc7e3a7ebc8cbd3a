//! The tables, how a file gets them, and how a connection is set up.
//!
//! `PRAGMA user_version` names the format; [`MIGRATIONS`] leads from each format to the next, one transaction a step. A
//! file of a newer format, of another program, or that is no database at all is refused before anything in it is changed.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::store::error::OpenError;
use crate::store::sqlite::transaction::is_damage;

/// The format that this program writes.
const FORMAT: i32 = 1;
/// Marks the file as ours: "Phst".
const APPLICATION_ID: i32 = 0x5068_7374;
/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of a page.
pub(super) const PAGE_BYTES: u64 = 4_096;
/// How long a statement waits for a lock that another connection holds. Only checkpoints and readers of this process hold
/// any, and none for longer than a second.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(1_500);
/// Pages that the writer caches, in KiB: the inner pages of every tree and what one transaction touches.
const WRITER_CACHE_KIB: i64 = 8_192;
/// Pages that a reader caches, in KiB.
const READER_CACHE_KIB: i64 = 2_048;
/// Statements kept prepared: more than there are.
const STATEMENTS_MAX: usize = 128;

/// One step from each format to the next: the first makes an empty file format 1.
const MIGRATIONS: &[&str] = &[TABLES];

/// Format 1.
///
/// `messages.at_ms` is when a scheduled message is due and when any other was accepted. `counts` changes in the transaction
/// that moves the messages. `batches.slots` holds eight bytes a lease: the key of its row, −1 when lost, −2 to −6 when
/// settled in one of five ways, 0 when settled in a way that was not kept.
/// `finished` holds one row for each settled batch. `graves` names deleted queues whose rows are not all gone.
const TABLES: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store BLOB NOT NULL,
    transactions INTEGER NOT NULL
) STRICT;
CREATE TABLE queues (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    source TEXT NOT NULL,
    settings TEXT NOT NULL,
    paused INTEGER NOT NULL,
    parked TEXT
) STRICT;
CREATE TABLE counts (
    queue INTEGER PRIMARY KEY,
    accepted INTEGER NOT NULL, delivered INTEGER NOT NULL, retried INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL, replayed INTEGER NOT NULL, cancelled INTEGER NOT NULL,
    purged INTEGER NOT NULL, discarded INTEGER NOT NULL, trimmed INTEGER NOT NULL,
    recovered INTEGER NOT NULL, deferred INTEGER NOT NULL,
    pending INTEGER NOT NULL, scheduled INTEGER NOT NULL, leased INTEGER NOT NULL, dead INTEGER NOT NULL,
    bytes_waiting INTEGER NOT NULL, bytes_leased INTEGER NOT NULL, bytes_dead INTEGER NOT NULL,
    last_number INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    log_bytes INTEGER NOT NULL,
    finished_bytes INTEGER NOT NULL,
    finished_next INTEGER NOT NULL,
    finished_floor INTEGER NOT NULL,
    purged_to INTEGER NOT NULL,
    indexing INTEGER NOT NULL
) STRICT;
CREATE TABLE messages (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
CREATE TABLE ids (
    queue INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (queue, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE due (
    queue INTEGER NOT NULL, due_ms INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (queue, due_ms, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE batches (
    place INTEGER PRIMARY KEY,
    batch BLOB NOT NULL, token INTEGER NOT NULL, pull INTEGER NOT NULL,
    leased_ms INTEGER NOT NULL, begun_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, ended_ms INTEGER,
    slots BLOB NOT NULL
) STRICT;
CREATE TABLE dead (
    place INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL, id BLOB NOT NULL, died_ms INTEGER NOT NULL,
    reason INTEGER NOT NULL, detail TEXT, status INTEGER, destination TEXT,
    attempts INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_by_time ON dead (queue, died_ms, place);
CREATE INDEX dead_by_id ON dead (queue, id);
CREATE TABLE dead_records (place INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE attempts (
    queue INTEGER NOT NULL, id BLOB NOT NULL, log BLOB NOT NULL,
    PRIMARY KEY (queue, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE finished (
    place INTEGER PRIMARY KEY,
    ended_ms INTEGER NOT NULL, entries INTEGER NOT NULL,
    id_first BLOB NOT NULL, id_last BLOB NOT NULL, pack BLOB NOT NULL
) STRICT;
CREATE TABLE keys (
    queue INTEGER NOT NULL, key BLOB NOT NULL, until_ms INTEGER NOT NULL,
    fingerprint BLOB NOT NULL, ids BLOB NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_end ON keys (queue, until_ms);
CREATE TABLE graves (queue INTEGER PRIMARY KEY) STRICT;
INSERT INTO meta (one, store, transactions) VALUES (1, randomblob(16), 0);
";

const COUNT_TABLES: &str = "SELECT count(*) FROM sqlite_schema";

/// Why the store at `path` cannot be opened; when it is damaged, with what can be done.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> OpenError {
    let shown = path.display();
    // What SQLite reads without complaint and is not what we wrote is damaged as well.
    let is_foreign = !matches!(error, rusqlite::Error::SqliteFailure(..));
    if !is_damage(error) && !is_foreign {
        return OpenError::Failed(format!("{shown}: {error}"));
    }
    OpenError::Failed(format!(
        "{shown} is damaged: {error}. Keep it, with its -wal if there is one; then restore a copy, or save what can be read \
         (sqlite3 {shown} .recover | sqlite3 {shown}.recovered) and put that in its place, or name another file in store.url \
         to begin with an empty store; docs/OPERATIONS.md says more"
    ))
}

/// Opens the file for writing and brings it to the present format. The file may be new.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| failed(path, &error);
    refuse_junk(path)?;
    let connection = connect_writer(path).map_err(failed)?;
    // Nothing may change before it is known whose file this is: not even a left-over log is written back.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let format = format_of(&connection, path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    migrate(&connection, format).map_err(failed)?;
    Ok(connection)
}

/// Opens the write connection to a file that is known to be ours.
pub(super) fn reopen(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect_writer(path)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Opens a connection that cannot change anything.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    keep_statements(&connection)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Opens a connection for checkpoints.
pub(super) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A first look makes the connection join the log; without one a checkpoint of it finds nothing to do.
    connection.query_row(COUNT_TABLES, [], |_| Ok(()))?;
    Ok(connection)
}

fn connect_writer(path: &Path) -> rusqlite::Result<Connection> {
    // The file is there since it was locked: one that is not must not come into being by being opened again.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    keep_statements(&connection)?;
    Ok(connection)
}

/// Has statements prepared once: without the promise that bound values do not change their plans, each with a bound `LIMIT` is
/// prepared anew whenever another value is bound to it.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// What is neither empty nor a database is refused before SQLite sees it.
fn refuse_junk(path: &Path) -> Result<(), OpenError> {
    let shown = path.display();
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpenError::Failed(format!("{shown}: {error}"))),
        Ok(file) => file,
    };
    let mut head = Vec::with_capacity(MAGIC.len());
    let read = file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head);
    read.map_err(|error| OpenError::Failed(format!("{shown}: {error}")))?;
    if head.is_empty() || head == MAGIC {
        return Ok(());
    }
    let words =
        "is no Posthaste store and no SQLite file: nothing was changed; name another file in store.url";
    Err(OpenError::Configuration(format!("{shown} {words}")))
}

/// The format of the file, 0 when it is new.
fn format_of(connection: &Connection, path: &Path) -> Result<i32, OpenError> {
    let shown = path.display();
    let read = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let looked = read("application_id").and_then(|application| {
        let tables: i64 = connection.query_row(COUNT_TABLES, [], |row| row.get(0))?;
        Ok((application, read("user_version")?, tables))
    });
    let (application, format, tables) = looked.map_err(|error| failed(path, &error))?;
    match (application, format) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION_ID, 1..=FORMAT) => Ok(format),
        (APPLICATION_ID, _) => Err(OpenError::Configuration(format!(
            "{shown} was written by a newer Posthaste: it is of format {format}, this program reads up to {FORMAT}; \
             start that version again, or name another file in store.url"
        ))),
        _ => Err(OpenError::Configuration(format!(
            "{shown} is the database of another program: nothing was changed; name another file in store.url"
        ))),
    }
}

/// Sets a write connection up. Page size and vacuuming only take hold before the first table.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let words =
            format!("the file system does not let SQLite keep a write-ahead log (journal mode is {mode})");
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        return Err(rusqlite::Error::SqliteFailure(code, Some(words)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn migrate(connection: &Connection, format: i32) -> rusqlite::Result<()> {
    let done = usize::try_from(format).unwrap_or_default();
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let reached = step + 1;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration}; PRAGMA application_id = {APPLICATION_ID}; \
             PRAGMA user_version = {reached}; COMMIT"
        ))?;
    }
    Ok(())
}
