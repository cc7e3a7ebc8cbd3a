//! The operator's queues, given to the store.

use std::sync::{Arc, mpsc};

use crate::actor::ArbiterHandle;
use crate::app::{DECLARE_WITHIN, StartError};
use crate::domain::queue::{HTTP, ParkReason, QueueName, QueueSettings};
use crate::processor::Guard;
use crate::store::error::StoreError;
use crate::store::health::StoreHealth;
use crate::store::{Hold, MessageStore, QueueEntry, Store};

/// The queues after the operator's were declared.
pub(super) struct Declared {
    /// All there are.
    pub(super) entries: Vec<QueueEntry>,
    /// What the store says of itself.
    pub(super) health: StoreHealth,
}

/// Declares the queues on that thread and waits for it.
///
/// # Errors
/// The store cannot, or not in time.
pub(super) fn declare(
    place: &ArbiterHandle,
    store: Arc<dyn Store>,
    guard: Guard,
    queues: Vec<(QueueName, Arc<QueueSettings>)>,
) -> Result<Declared, StartError> {
    let (told, is_told) = mpsc::sync_channel(1);
    place.spawn("declare", move || async move {
        drop(told.send(declare_here(&*store.connect(), &guard, queues).await));
    });
    match is_told.recv_timeout(DECLARE_WITHIN) {
        Ok(Ok(declared)) => Ok(declared),
        Ok(Err(error)) => Err(StartError::Failed(format!("the queues cannot be declared: {error}"))),
        Err(error) => Err(StartError::Failed(format!("the queues were not declared in time: {error}"))),
    }
}

async fn declare_here(
    store: &dyn MessageStore,
    guard: &Guard,
    queues: Vec<(QueueName, Arc<QueueSettings>)>,
) -> Result<Declared, StoreError> {
    let declared: Vec<QueueName> = queues.iter().map(|(name, _)| name.clone()).collect();
    let (mut entries, changed) = store.declare(queues).await?;
    for name in changed {
        log::warn!("queue.name" = name.as_str(); "another file had declared this queue differently: this one holds now");
    }
    for entry in entries.iter_mut().filter(|entry| declared.contains(&entry.name)) {
        if let Some(refusal) = refused_by_resolution(guard, entry).await {
            log::warn!("queue.name" = entry.name.as_str(), "cause" = refusal.as_str(); "the queue starts parked: its destination is refused");
            *entry = store.hold(entry.queue_ref(), Hold::Park(ParkReason::EgressRefused)).await?;
        } else if entry.parked == Some(ParkReason::EgressRefused) {
            *entry = store.hold(entry.queue_ref(), Hold::Resume).await?;
        }
    }
    Ok(Declared { entries, health: store.health().await? })
}

/// What is against where the queue's destination leads now.
async fn refused_by_resolution(guard: &Guard, entry: &QueueEntry) -> Option<String> {
    let settings = &entry.settings;
    let destination = settings.destination.as_ref().filter(|_| settings.processor == HTTP)?;
    guard.judge_now(destination).await.err().map(|refusal| refusal.to_string())
}
