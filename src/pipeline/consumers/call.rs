//! One lease, asked of the store until it is known what became of it; and giving leases back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, sleep};

use crate::domain::queue::QueueName;
use crate::domain::retry::Verdict;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::consumers::line::{Look, Waiter};
use crate::pipeline::consumers::memory::Share;
use crate::pipeline::consumers::{Place, Release, Wish};
use crate::store::MessageStore;
use crate::store::error::{StoreError, Stored};
use crate::store::lease::{BatchId, LeaseKind, LeaseRequest, Leased, Settlement};

/// What a lease call came to.
pub(super) enum Outcome {
    /// What the store leased, when it was asked first, and the memory for it.
    Leased(Leased, Instant, Share),
    /// Nothing was leased, for sure.
    Refused(StoreError),
    /// It is not known; what was leased ends with its lease.
    GivenUp(StoreError),
}

/// A lease call that ended, for whom it was made, and when it began.
pub(super) struct Called {
    pub(super) queue: QueueName,
    pub(super) waiter: Waiter,
    pub(super) look: Look,
    pub(super) outcome: Outcome,
}

pub(super) type Calling = LocalBoxFuture<'static, Called>;

/// Makes a lease call for that one, for as much as there is memory for.
///
/// An answer that was lost is asked for again under the same batch id, as long as the lease could live, also when the consumer has
/// left: what turns up then is given back.
pub(super) fn call(
    store: Rc<dyn MessageStore>,
    memory: Share,
    queue: QueueName,
    waiter: Waiter,
    look: Look,
) -> Calling {
    Box::pin(async move {
        let outcome = ask(&*store, &waiter.wish, memory).await;
        Called { queue, waiter, look, outcome }
    })
}

async fn ask(store: &dyn MessageStore, wish: &Wish, mut memory: Share) -> Outcome {
    let request = LeaseRequest {
        queue: wish.queue.clone(),
        batch: BatchId::random(),
        kind: LeaseKind::Pull,
        max: wish.max,
        bytes_max: memory.bytes(),
        lease: wish.lease,
        // What workers lost before the queue was given to consumers is theirs as well.
        suspects: true,
    };
    let first_sent = Instant::now();
    let (mut backoff, mut is_unknown) = (Backoff::default(), false);
    loop {
        let error = match store.lease(request.clone()).await {
            Ok(leased) => {
                memory.settle_for(leased.leases.iter().map(|lease| lease.record.charged_bytes()).sum());
                return Outcome::Leased(leased, first_sent, memory);
            }
            Err(error @ (StoreError::Gone | StoreError::Newer(_))) => return Outcome::Refused(error),
            Err(error) => error,
        };
        is_unknown |= error.stored() == Stored::Unknown;
        if !is_unknown {
            return Outcome::Refused(error);
        }
        if first_sent.elapsed() >= wish.lease {
            return Outcome::GivenUp(error);
        }
        sleep(backoff.failed()).await;
    }
}

/// Gives leases back as if they had never been made; ends with them at the latest.
pub(super) async fn release(store: Rc<dyn MessageStore>, release: Release, place: Place) {
    let settlement =
        |index: &u16| Settlement { index: *index, verdict: Verdict::Release, attempt: None, gist: None };
    let settlements: Arc<Vec<_>> = Arc::new(release.indices.iter().map(settlement).collect());
    let (mut backoff, queue) = (Backoff::default(), release.batch.queue.name.as_str());
    loop {
        match store.settle(release.batch.clone(), settlements.clone()).await {
            Ok(_) | Err(StoreError::Gone) => {
                let count = settlements.len();
                log::debug!("queue.name" = queue, "count" = count; "leases that did not reach their consumer were given back");
                break;
            }
            Err(error) if Instant::now() + Duration::from_millis(1) >= release.until => {
                let cause = error.to_string();
                log::debug!("queue.name" = queue, "cause" = cause.as_str(); "leases could not be given back and have run out");
                break;
            }
            Err(_) => sleep(backoff.failed()).await,
        }
    }
    drop(place);
}
