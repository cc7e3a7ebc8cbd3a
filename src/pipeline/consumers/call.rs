//! One lease, asked of the store until it is known what became of it; and giving leases back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::domain::queue::QueueName;
use crate::domain::retry::Verdict;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::consumers::line::{Look, Waiter};
use crate::pipeline::consumers::{PARCEL_BYTES_MAX, PERMIT_BYTES, Place, Release, Wish};
use crate::store::MessageStore;
use crate::store::error::{StoreError, Stored};
use crate::store::lease::{BatchId, LeaseKind, LeaseRequest, Leased, Settlement};

/// What a lease call came to.
pub(super) enum Outcome {
    /// The consumer left before the store was asked.
    NotAsked,
    /// What the store leased, when it was asked first, and the memory for it.
    Leased(Leased, Instant, OwnedSemaphorePermit),
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

/// The memory of all answers: permits, and how many there are.
#[derive(Clone)]
pub(super) struct Memory {
    pub(super) permits: Arc<Semaphore>,
    pub(super) most: usize,
}

impl Memory {
    /// The permits that an answer to this wish may need, and the bytes it may have.
    fn needed(&self, wish: &Wish) -> (u32, u64) {
        let bytes = wish.message_bytes_max.saturating_mul(u64::from(wish.max)).clamp(1, PARCEL_BYTES_MAX);
        let permits = usize::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(usize::MAX).min(self.most);
        let bytes = bytes.min(permits as u64 * PERMIT_BYTES);
        (u32::try_from(permits).unwrap_or(u32::MAX), bytes)
    }
}

/// Makes a lease call for that one.
///
/// An answer that was lost is asked for again under the same batch id, as long as the lease could live, also when the consumer has
/// left: what turns up then is given back.
pub(super) fn call(
    store: Rc<dyn MessageStore>,
    memory: Memory,
    queue: QueueName,
    mut waiter: Waiter,
    look: Look,
) -> Calling {
    Box::pin(async move {
        let (permits, bytes_max) = memory.needed(&waiter.wish);
        let permit = tokio::select! {
            biased;
            () = waiter.reply.closed() => None,
            permit = memory.permits.acquire_many_owned(permits) => permit.ok(),
        };
        let outcome = match permit {
            Some(permit) => ask(&*store, &waiter.wish, bytes_max, permit).await,
            None => Outcome::NotAsked,
        };
        Called { queue, waiter, look, outcome }
    })
}

async fn ask(
    store: &dyn MessageStore,
    wish: &Wish,
    bytes_max: u64,
    mut permit: OwnedSemaphorePermit,
) -> Outcome {
    let request = LeaseRequest {
        queue: wish.queue.clone(),
        batch: BatchId::random(),
        kind: LeaseKind::Pull,
        max: wish.max,
        bytes_max,
        lease: wish.lease,
        // What workers lost before the queue was given to consumers is theirs as well.
        suspects: true,
    };
    let first_sent = Instant::now();
    let (mut backoff, mut is_unknown) = (Backoff::default(), false);
    loop {
        let error = match store.lease(request.clone()).await {
            Ok(leased) => {
                let bytes: u64 = leased.leases.iter().map(|lease| lease.record.charged_bytes()).sum();
                let kept = usize::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(usize::MAX);
                drop(permit.split(permit.num_permits().saturating_sub(kept)));
                return Outcome::Leased(leased, first_sent, permit);
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
    let settlement = |index: &u16| Settlement { index: *index, verdict: Verdict::Release, attempt: None };
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
