//! Hears where other gateways made work: one thread for the whole store, subscribed to the channel of wake-ups.
//!
//! What is published is a hint. When the connection is lost nothing is: the due index is looked at once a second. As a
//! connection on which nothing is sent never finds out that the other end is gone, it is made anew whenever one of those that send
//! had to be.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::PubSub;

use crate::domain::queue::QueueName;
use crate::store::redis::state::State;

/// The pause before another connection is made.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// The longest pause while Redis refuses to be listened to.
const RETRY_REFUSED_MAX: Duration = Duration::from_mins(1);
/// How often the thread looks whether the store is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is published when a queue itself was changed; no queue is called so.
pub(super) const CHANGED: &str = "*";
/// How long making the connection and subscribing may take, each.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Starts the thread; it ends soon after the store is closed or dropped.
pub(super) fn start(state: &Arc<State>) -> std::io::Result<()> {
    let state = Arc::downgrade(state);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(listen(&state)),
            Err(error) => {
                log::error!("cause" = error.to_string().as_str(); "nothing is heard of other gateways");
            }
        }
    };
    std::thread::Builder::new().name("redis-wakes".to_owned()).spawn(run).map(drop)
}

async fn listen(state: &Weak<State>) {
    let mut refused = Duration::ZERO;
    while let Some(state) = living(state) {
        let (client, channel) = (state.client.clone(), state.wake_channel.clone());
        let (board, weak) = (state.wakes.clone(), Arc::downgrade(&state));
        let broken = Arc::clone(&state.broken);
        let broken_before = broken.load(Ordering::Relaxed);
        drop(state);
        let connected = tokio::time::timeout(CONNECT_WITHIN, client.get_async_pubsub()).await;
        if let Ok(Ok(mut connection)) = connected {
            if let Some(refusal) = subscribe(&mut connection, &channel).await {
                drop(connection);
                refused = (refused * 2).clamp(RETRY_AFTER, RETRY_REFUSED_MAX);
                if let Some(state) = living(&weak) {
                    state.note_unheard(Some(refusal));
                }
                pause(&weak, refused).await;
                continue;
            }
            refused = Duration::ZERO;
            if let Some(state) = living(&weak) {
                state.note_unheard(None);
            }
            // What changed before this is not told.
            board.post_change();
            let mut messages = connection.on_message();
            while living(&weak).is_some() && broken.load(Ordering::Relaxed) == broken_before {
                match tokio::time::timeout(LOOK_EVERY, messages.next()).await {
                    Ok(Some(message)) => {
                        let said = message.get_payload::<String>().unwrap_or_default();
                        if said == CHANGED {
                            board.post_change();
                        } else if let Ok(name) = said.parse::<QueueName>() {
                            board.post(&name);
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Waits, not longer than the store lives.
async fn pause(state: &Weak<State>, span: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < span && living(state).is_some() {
        tokio::time::sleep(LOOK_EVERY.min(span)).await;
    }
}

/// Subscribes; gives what Redis has against it. A connection that fails meanwhile is found out by the first wait on it.
async fn subscribe(connection: &mut PubSub, channel: &str) -> Option<String> {
    match tokio::time::timeout(CONNECT_WITHIN, connection.subscribe(channel)).await {
        Ok(Err(error)) if error.code().is_some() => Some(error.to_string()),
        _ => None,
    }
}

fn living(state: &Weak<State>) -> Option<Arc<State>> {
    state.upgrade().filter(|state| !state.is_closed())
}
