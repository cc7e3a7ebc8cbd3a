//! Holding a queue and emptying it. None of these has a body, and all of them work while the store is full.

use actix_http::StatusCode;

use super::Call;
use super::queues::{known, target};
use crate::api::queue::Purged;
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::store::{Hold, QueueEntry};

/// Pauses a queue: it accepts, and is never leased from.
pub(super) async fn pause(call: Call) -> Result<Answer, Refusal> {
    hold(call, Hold::Pause).await
}

/// Lets a queue go on that was paused or parked itself.
pub(super) async fn resume(call: Call) -> Result<Answer, Refusal> {
    hold(call, Hold::Resume).await
}

async fn hold(mut call: Call, hold: Hold) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    call.nothing().await?;
    let desk = &call.desk;
    let act = async |entry: &QueueEntry| desk.store.hold(entry.queue_ref(), hold.clone()).await;
    let (_, entry) = desk.on_queue(name.as_str(), act).await?;
    Ok(known(&desk.state, StatusCode::OK, entry, Vec::new()))
}

/// Removes what is pending and scheduled; what is leased or dead stays.
pub(super) async fn purge(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    call.nothing().await?;
    let desk = &call.desk;
    let act = async |entry: &QueueEntry| desk.store.purge(entry.queue_ref()).await;
    let (_, purged) = desk.on_queue(name.as_str(), act).await?;
    Ok(answer::json(StatusCode::OK, &Purged { purged }))
}
