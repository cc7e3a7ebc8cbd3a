//! Hears where other gateways made work: one thread for the whole store, subscribed to the channel of wake-ups.
//!
//! What is published is a hint. When the connection is lost nothing is: the due index is looked at once a second.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::domain::queue::QueueName;
use crate::store::redis::state::State;

/// The pause before another connection is made.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How often the thread looks whether the store is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the thread; it ends soon after the store is closed or dropped.
pub(super) fn start(state: &Arc<State>) -> std::io::Result<()> {
    let state = Arc::downgrade(state);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(listen(&state)),
            Err(error) => log::error!("cause" = error.to_string().as_str(); "nothing is heard of other gateways"),
        }
    };
    std::thread::Builder::new().name("redis-wakes".to_owned()).spawn(run).map(drop)
}

async fn listen(state: &Weak<State>) {
    while let Some(state) = living(state) {
        let (client, channel) = (state.client.clone(), state.wake_channel.clone());
        let (board, weak) = (state.wakes.clone(), Arc::downgrade(&state));
        drop(state);
        let connected = tokio::time::timeout(Duration::from_secs(2), client.get_async_pubsub()).await;
        if let Ok(Ok(mut connection)) = connected
            && connection.subscribe(&channel).await.is_ok()
        {
            let mut messages = connection.on_message();
            while living(&weak).is_some() {
                match tokio::time::timeout(LOOK_EVERY, messages.next()).await {
                    Ok(Some(message)) => {
                        let name = message.get_payload::<String>().ok();
                        if let Some(name) = name.and_then(|name| name.parse::<QueueName>().ok()) {
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

fn living(state: &Weak<State>) -> Option<Arc<State>> {
    state.upgrade().filter(|state| !state.is_closed())
}
