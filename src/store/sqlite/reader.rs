//! Reading beside the writer: one thread with a connection that cannot change anything.
//!
//! Each read is one snapshot, given up when its answer is made; no read but the audit takes longer than a moment, so none keeps
//! the log from being written back for long.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::store::QueueRef;
use crate::store::error::StoreError;
use crate::store::sqlite::key::QueueNumber;
use crate::store::sqlite::schema;
use crate::store::sqlite::whereabouts::Whereabouts;
use crate::store::sqlite::work::{Sql, one};

/// Reads that may wait: more than the gateway serves such requests at once.
const READS_MAX: usize = 256;
const FIND_QUEUE: &str = "SELECT number FROM queues WHERE name = ?1 AND generation = ?2";

type Read = Box<dyn FnOnce(Result<&Connection, &StoreError>) -> bool + Send>;

/// Where reads are handed over.
#[derive(Clone)]
pub(super) struct Reader(SyncSender<Read>);

impl Reader {
    /// Starts the thread; it ends when the last `Reader` is dropped.
    pub(super) fn start(whereabouts: Arc<Whereabouts>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, reads) = sync_channel(READS_MAX);
        let thread = std::thread::Builder::new().name("store-reader".to_owned());
        let thread = thread.spawn(move || run(&whereabouts, &reads))?;
        Ok((Self(sender), thread))
    }

    /// Hands a read over; its answer comes by the channel.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Sql<Result<T, StoreError>> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let task: Read = Box::new(move |connection| {
            if reply.is_closed() {
                return true;
            }
            let (outcome, is_sound) = match connection {
                Err(error) => (Err(error.clone()), false),
                Ok(connection) => match snapshot(connection, read) {
                    Ok(outcome) => (outcome, true),
                    Err(error) => (Err(StoreError::Internal(error.to_string())), false),
                },
            };
            drop(reply.send(outcome));
            is_sound
        });
        match self.0.try_send(task) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => {
                Err(StoreError::Unavailable(format!("overloaded: {READS_MAX} reads wait for it")))
            }
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Unavailable("it is closed".to_owned())),
        }
    }
}

fn snapshot<T>(connection: &Connection, read: impl FnOnce(&Connection) -> Sql<T>) -> Sql<T> {
    let transaction = connection.unchecked_transaction()?;
    let outcome = read(&transaction)?;
    transaction.finish()?;
    Ok(outcome)
}

fn run(whereabouts: &Whereabouts, reads: &Receiver<Read>) {
    let mut connection: Option<Connection> = None;
    while let Ok(read) = reads.recv() {
        if connection.is_none() {
            match whereabouts.open_with(schema::open_reader) {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    read(Err(&StoreError::Unavailable(error.to_string())));
                    continue;
                }
            }
        }
        let is_sound = connection.as_ref().is_some_and(|connection| read(Ok(connection)));
        if !is_sound {
            connection = None;
        }
    }
}

/// The number of the queue that a call means.
pub(super) fn number_of(sql: &Connection, queue: &QueueRef) -> Sql<Result<QueueNumber, StoreError>> {
    let generation = queue.generation.0.cast_signed();
    let found =
        sql.prepare_cached(FIND_QUEUE)?.query_row((queue.name.as_str(), generation), |row| row.get(0));
    Ok(one(found)?.ok_or(StoreError::Gone))
}
