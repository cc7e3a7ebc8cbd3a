//! The operator's queues, given to the store.

use std::sync::{Arc, mpsc};

use crate::actor::ArbiterHandle;
use crate::app::{DECLARE_WITHIN, StartError, difference};
use crate::domain::queue::{HTTP, ParkReason, QueueName, QueueSettings};
use crate::processor::Guard;
use crate::store::error::StoreError;
use crate::store::health::{StoreHealth, Warning};
use crate::store::{Hold, MessageStore, QueueEntry, Store};

/// Queues of which `/status` tells how their settings differed; the log tells of all.
const WARNINGS_MAX: usize = 20;

/// The queues after the operator's were declared.
pub(super) struct Declared {
    /// All there are.
    pub(super) entries: Vec<QueueEntry>,
    /// What the store says of itself.
    pub(super) health: StoreHealth,
    /// Which queues had other settings.
    pub(super) warnings: Vec<Warning>,
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
    let (mut entries, replaced) = store.declare(queues).await?;
    let warnings = warn_of(&replaced, &entries);
    for entry in entries.iter_mut().filter(|entry| declared.contains(&entry.name)) {
        if let Some(refusal) = refused_by_resolution(guard, entry).await {
            log::warn!("queue.name" = entry.name.as_str(), "cause" = refusal.as_str(); "the queue starts parked: its destination is refused");
            *entry = store.hold(entry.queue_ref(), Hold::Park(ParkReason::EgressRefused)).await?;
        } else if entry.parked == Some(ParkReason::EgressRefused) {
            *entry = store.hold(entry.queue_ref(), Hold::Resume).await?;
        }
    }
    Ok(Declared { entries, health: store.health().await?, warnings })
}

/// Logs which settings the store had otherwise: from a file that was edited since, from another gateway's, or by API.
fn warn_of(replaced: &[QueueEntry], entries: &[QueueEntry]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for before in replaced {
        let Some(now) = entries.iter().find(|entry| entry.name == before.name) else { continue };
        let (name, changes) =
            (before.name.as_str(), difference::between(&before.settings, &now.settings).join(", "));
        log::warn!("queue.name" = name, "changes" = changes.as_str(); "the declared settings replaced others that the store had");
        if warnings.len() < WARNINGS_MAX {
            let detail = format!(
                "queues.{name}: at the start of this gateway its declared settings replaced others that the store had: {changes}"
            );
            warnings.push(Warning { code: "queue_redeclared", detail });
        }
    }
    if replaced.len() > WARNINGS_MAX {
        let detail = format!(
            "{} more queues had other settings as well: the log names them",
            replaced.len() - WARNINGS_MAX
        );
        warnings.push(Warning { code: "queue_redeclared", detail });
    }
    warnings
}

/// What is against where the queue's destination leads now.
async fn refused_by_resolution(guard: &Guard, entry: &QueueEntry) -> Option<String> {
    let settings = &entry.settings;
    let destination = settings.destination.as_ref().filter(|_| settings.processor == HTTP)?;
    guard.judge_now(destination).await.err().map(|refusal| refusal.to_string())
}
