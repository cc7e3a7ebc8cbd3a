//! Bringing forward what a lane put off whose destination answers again, at the pace of the lane: recovery does not wait until each
//! message is due.

use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::pipeline::lanes::{EVERY, Recall, Step, Waiting};
use crate::store::error::StoreError;
use crate::store::{MessageStore, QueueRef};

/// Those of one thread: at most one for each lane, in the whole gateway. Nothing depends on them: what is not brought forward comes
/// when it is due.
#[derive(Default)]
pub(super) struct Recalls(FuturesUnordered<LocalBoxFuture<'static, ()>>);

impl Recalls {
    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins one.
    pub(super) fn begin(&mut self, store: &Rc<dyn MessageStore>, recall: Recall) {
        let store = store.clone();
        self.0.push(Box::pin(async move { carry_out(&*store, &recall).await }));
    }

    /// Waits until one has ended; for ever when none is under way.
    pub(super) async fn next(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn carry_out(store: &dyn MessageStore, recall: &Recall) {
    while let Step::Bring(drawn) = recall.next() {
        join_all(drawn.into_iter().map(|(queue, waiting)| bring(store, recall, queue, waiting))).await;
        sleep(EVERY).await;
    }
}

async fn bring(store: &dyn MessageStore, recall: &Recall, queue: QueueRef, waiting: Vec<Waiting>) {
    let messages = waiting.iter().map(|waiting| waiting.message).collect();
    match store.promote(queue.clone(), messages).await {
        Ok(found) => {
            let missing = waiting.into_iter().zip(found).filter(|(_, is_found)| !is_found);
            missing.for_each(|(waiting, _)| recall.keep(&queue, waiting, true));
        }
        Err(StoreError::Gone) => {}
        Err(error) => {
            let (name, cause) = (queue.name.as_str(), error.to_string());
            log::debug!("queue.name" = name, "cause" = cause.as_str(); "what was put off is not brought forward yet");
            for waiting in waiting {
                recall.keep(&queue, waiting, false);
            }
        }
    }
}
