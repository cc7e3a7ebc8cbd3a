//! Parking a queue in the store, because its destination answered that it is gone: for every gateway, until somebody resumes it or
//! gives it another destination.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use crate::domain::destination::Destination;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::batch::Batch;
use crate::store::error::StoreError;
use crate::store::{Hold, MessageStore, QueueRef};

/// How long a store that does not answer is told again. The next message that meets a destination which is gone tells it anew, so
/// nothing depends on this call.
const TELL_WITHIN: Duration = Duration::from_secs(10);

/// How long what was leased before the queue was parked may be on its way to the worker.
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// The calls of one thread that park queues: at most one for each queue.
#[derive(Default)]
pub(super) struct Parkings {
    calls: FuturesUnordered<LocalBoxFuture<'static, QueueRef>>,
    /// Which destinations are gone.
    queues: HashMap<QueueRef, Destination>,
}

impl Parkings {
    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether the queue of the batch is being parked for the destination that it has, or was just now.
    pub(super) fn has(&self, batch: &Batch) -> bool {
        let gone = || self.queues.get(&batch.entry.queue_ref());
        !self.queues.is_empty()
            && gone().is_some_and(|gone| batch.entry.settings.destination.as_ref() == Some(gone))
    }

    /// Parks the queue of the batch, whose own destination is gone. Nothing when it has another one by now.
    pub(super) fn begin(&mut self, store: &Rc<dyn MessageStore>, batch: &Arc<Batch>) {
        let (queue, settings) = (batch.entry.queue_ref(), batch.entry.settings.clone());
        let Some(destination) = settings.destination.clone() else { return };
        if self.queues.insert(queue.clone(), destination.clone()).is_some() {
            return;
        }
        let store = store.clone();
        self.calls.push(Box::pin(async move {
            tell(&*store, &queue, Hold::Gone(destination)).await;
            sleep(ON_THE_WAY).await;
            queue
        }));
    }

    /// Waits until one has ended; for ever when none is under way.
    pub(super) async fn next(&mut self) {
        match self.calls.next().await {
            Some(queue) => _ = self.queues.remove(&queue),
            None => std::future::pending().await,
        }
    }
}

async fn tell(store: &dyn MessageStore, queue: &QueueRef, hold: Hold) {
    let (name, until, mut backoff) = (queue.name.as_str(), Instant::now() + TELL_WITHIN, Backoff::default());
    loop {
        match store.hold(queue.clone(), hold.clone()).await {
            Ok(entry) if entry.parked.is_some() => {
                log::warn!("queue.name" = name; "the queue is parked: its destination answered that it is gone");
                return;
            }
            Ok(_) | Err(StoreError::Gone) => return,
            Err(error) if Instant::now() >= until => {
                let cause = error.to_string();
                log::warn!("queue.name" = name, "cause" = cause.as_str(); "the queue could not be parked although its destination is gone");
                return;
            }
            Err(_) => sleep(backoff.failed()).await,
        }
    }
}
