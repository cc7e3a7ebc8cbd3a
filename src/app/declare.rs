//! The operator's queues, given to the store.

use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::actor::ArbiterHandle;
use crate::app::{DECLARE_WITHIN, StartError, difference};
use crate::domain::queue::{HTTP, ParkReason, QueueName, QueueSettings};
use crate::pipeline::prober::Declare;
use crate::processor::{Guard, Resolution};
use crate::store::error::StoreError;
use crate::store::health::{StoreHealth, Warning};
use crate::store::{Hold, MessageStore, QueueEntry, Store};

/// Queues of which `/status` tells how their settings differed; the log tells of all.
const WARNINGS_MAX: usize = 20;

/// How long a start waits to hear where the declared destinations lead. What is not known by then is let through: every
/// delivery asks again.
const JUDGE_WITHIN: Duration = Duration::from_secs(1);

/// The queues after the operator's were declared.
pub(super) struct Declared {
    /// All there are.
    pub(super) entries: Vec<QueueEntry>,
    /// What the store says of itself.
    pub(super) health: StoreHealth,
    /// Which queues had other settings.
    pub(super) warnings: Vec<Warning>,
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
        let declared = timeout(within, declaring).await;
        drop(told.send(declared.unwrap_or(Err(StoreError::Timeout(within)))));
    });
    match is_told.recv_timeout(DECLARE_WITHIN + REMOTE_WITHIN) {
        Ok(Ok(declared)) => Ok(Ok(declared)),
        Ok(Err(error)) if is_remote => Ok(Err(error)),
        Ok(Err(error)) => Err(StartError::Failed(format!("the queues cannot be declared: {error}"))),
        Err(error) => Err(StartError::Failed(format!("the queues were not declared in time: {error}"))),
    }
}

/// Declares the queues whenever the store can be reached, and then tells which had other settings.
pub(super) fn later(
    guard: Guard,
    queues: Vec<(QueueName, Arc<QueueSettings>)>,
    warnings: Arc<OnceLock<Vec<Warning>>>,
) -> Declare {
    Arc::new(move |store: Rc<dyn MessageStore>| {
        let (guard, queues, warnings) = (guard.clone(), queues.clone(), warnings.clone());
        Box::pin(async move {
            let declared = declare_here(&*store, &guard, queues).await?;
            warnings.get_or_init(|| declared.warnings);
            Ok(declared.entries)
        })
    })
}

async fn declare_here(
    store: &dyn MessageStore,
    guard: &Guard,
    queues: Vec<(QueueName, Arc<QueueSettings>)>,
) -> Result<Declared, StoreError> {
    let declared: Vec<QueueName> = queues.iter().map(|(name, _)| name.clone()).collect();
    let (mut entries, replaced) = store.declare(queues).await?;
    let warnings = warn_of(&replaced, &entries);
    let mut ours: Vec<_> = entries.iter_mut().filter(|entry| declared.contains(&entry.name)).collect();
    let refusals = join_all(ours.iter().map(|entry| refused_by_resolution(guard, entry))).await;
    for (entry, refusal) in ours.iter_mut().zip(refusals) {
        if let Some(refusal) = refusal {
            log::warn!("queue.name" = entry.name.as_str(), "cause" = refusal.as_str(); "the queue starts parked: its destination is refused");
            **entry = store.hold(entry.queue_ref(), Hold::Park(ParkReason::EgressRefused)).await?;
        } else if entry.parked == Some(ParkReason::EgressRefused) {
            let unpark = Hold::Unpark(ParkReason::EgressRefused);
            **entry = store.hold(entry.queue_ref(), unpark).await?;
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

/// What is against where the queue's destination leads now; nothing when that is not known in time.
async fn refused_by_resolution(guard: &Guard, entry: &QueueEntry) -> Option<String> {
    let settings = &entry.settings;
    let destination = settings.destination.as_ref().filter(|_| settings.processor == HTTP)?;
    let Ok(judged) = timeout(JUDGE_WITHIN, guard.judge_now(destination)).await else {
        let name = entry.name.as_str();
        log::warn!("queue.name" = name; "where its destination leads is not known yet: each delivery asks again");
        return None;
    };
    match judged {
        Ok(Resolution::Resolved) => None,
        Ok(Resolution::Unresolved(error)) => {
            let (name, cause) = (entry.name.as_str(), error.to_string());
            log::warn!("queue.name" = name, "cause" = cause.as_str(); "a destination does not resolve now");
            None
        }
        Err(refusal) => Some(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Settings;
    use crate::store::memory::Memory;
    use crate::store::settings::{RequiredDurability, StoreSettings};

    #[tokio::test]
    async fn a_name_server_that_does_not_answer_holds_no_start_up() {
        // Answers when the test is over: its receiver ends with the sender.
        let (answer, never) = mpsc::sync_channel::<()>(1);
        let never = std::sync::Mutex::new(never);
        let silence = Arc::new(move |_: &str| {
            drop(never.lock().map(|never| never.recv()));
            Err(std::io::Error::other("the test is over"))
        });
        let settings = Settings::default();
        let guard = Guard::with_lookup(&settings.egress, false, silence);
        let store = StoreSettings {
            url: "memory:".to_owned(),
            durability: RequiredDurability::None,
            ..StoreSettings::default()
        };
        let store = Memory::open(&store, &Clock::system()).expect("memory can be opened");
        let mut queues = BTreeMap::new();
        for number in 0..40 {
            let destination = format!("https://{number}.example/hook").parse().expect("a URL");
            let queue = QueueSettings {
                processor: HTTP.to_owned(),
                destination: Some(destination),
                ..QueueSettings::default()
            };
            queues.insert(format!("q{number}").parse().expect("a name"), Arc::new(queue));
        }
        let connection = store.connect();
        let declaring = declare_here(&*connection, &guard, queues.into_iter().collect());
        let declared = timeout(DECLARE_WITHIN / 4, declaring).await.expect("soon").expect("declared");
        assert_eq!(declared.entries.len(), 40);
        assert!(declared.entries.iter().all(|entry| entry.parked.is_none()));
        drop(answer);
    }
}
