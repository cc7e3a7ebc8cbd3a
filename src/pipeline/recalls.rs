//! Bringing forward what a lane put off whose destination answers again, at the pace of the lane: recovery does not wait until each
//! message is due.

use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::pipeline::lanes::{EVERY, Recall, Step};
use crate::store::MessageStore;
use crate::store::error::StoreError;

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
            std::future::pending().await
        }
    }
}

async fn carry_out(store: &dyn MessageStore, recall: &Recall) {
    loop {
        match recall.next() {
            Step::End => return,
            Step::Wait => {}
            Step::Bring(queue, waiting) => {
                let messages = waiting.iter().map(|waiting| waiting.message).collect();
                match store.promote(queue.clone(), messages).await {
                    Ok(found) => {
                        let is_missing = |(_, is_found): &(_, bool)| !is_found;
                        let missing = waiting.into_iter().zip(found).filter(is_missing);
                        recall.keep(&queue, missing.map(|(waiting, _)| waiting));
                    }
                    Err(StoreError::Gone) => {}
                    Err(error) => {
                        let (name, cause) = (queue.name.as_str(), error.to_string());
                        log::debug!("queue.name" = name, "cause" = cause.as_str(); "what was put off is not brought forward");
                        recall.keep(&queue, waiting.into_iter());
                    }
                }
            }
        }
        sleep(EVERY).await;
    }
}
