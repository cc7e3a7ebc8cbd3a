//! The operator's queues: checked against the processors and the egress guard, given to the store.

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::actor::ArbiterHandle;
use crate::app::{DECLARE_WITHIN, StartError};
use crate::config::Settings;
use crate::domain::header::never;
use crate::domain::queue::{HTTP, ParkReason, QueueName, QueueSettings};
use crate::pipeline::prober::Declare;
use crate::processor::{Guard, Registry};
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

/// Checks what a declared queue names.
///
/// # Errors
/// A processor that nobody registered, or a destination that the egress guard refuses for what it says.
pub(super) fn check(settings: &Settings, registry: &Registry, guard: &Guard) -> Result<(), StartError> {
    let mut problems = Vec::new();
    for (name, queue) in &settings.queues {
        if !registry.contains(&queue.processor) {
            let (known, processor) = (registry.names().join(", "), &queue.processor);
            problems.push(format!("queues.{name}.processor: {processor:?} is not one of {known}"));
        }
        for header in
            queue.delivery.headers.keys().filter(|header| never(&header.to_ascii_lowercase()).is_some())
        {
            problems.push(format!(
                "queues.{name}.delivery.headers: {header:?} is not for a queue to set: it frames the request or is the gateway's own"
            ));
        }
        if let Some(destination) = queue.destination.as_ref().filter(|_| queue.processor == HTTP)
            && let Err(refusal) = guard.judge_destination(destination)
        {
            problems.push(format!("queues.{name}.destination: {refusal}"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(StartError::Configuration(format!("configuration:\n{}", problems.join("\n"))))
}

/// How long a store that may be away has to answer before the gateway listens without it.
const REMOTE_WITHIN: Duration = Duration::from_secs(5);

/// Declares the queues on that thread and waits for it. A store that is away is no hindrance: it is given as why, and the queues
/// are for the prober to declare.
///
/// # Errors
/// The store cannot, or not in time, and will not come back by itself.
pub(super) fn declare(
    place: &ArbiterHandle,
    store: Arc<dyn Store>,
    guard: Guard,
    queues: Vec<(QueueName, Arc<QueueSettings>)>,
) -> Result<Result<Declared, StoreError>, StartError> {
    let (told, is_told) = mpsc::sync_channel(1);
    let is_remote = store.is_remote();
    let within = if is_remote { REMOTE_WITHIN } else { DECLARE_WITHIN };
    place.spawn("declare", move || async move {
        let store = store.connect();
        let declaring = declare_here(&*store, &guard, queues);
        let declared = tokio::time::timeout(within, declaring).await;
        drop(told.send(declared.unwrap_or(Err(StoreError::Timeout(within)))));
    });
    match is_told.recv_timeout(DECLARE_WITHIN + REMOTE_WITHIN) {
        Ok(Ok(declared)) => Ok(Ok(declared)),
        Ok(Err(error)) if is_remote => Ok(Err(error)),
        Ok(Err(error)) => Err(StartError::Failed(format!("the queues cannot be declared: {error}"))),
        Err(error) => Err(StartError::Failed(format!("the queues were not declared in time: {error}"))),
    }
}

/// Declares the queues whenever the store can be reached.
pub(super) fn later(guard: Guard, queues: Vec<(QueueName, Arc<QueueSettings>)>) -> Declare {
    Arc::new(move |store: Rc<dyn MessageStore>| {
        let (guard, queues) = (guard.clone(), queues.clone());
        Box::pin(async move { Ok(declare_here(&*store, &guard, queues).await?.entries) })
    })
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
