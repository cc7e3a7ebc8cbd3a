//! Messages in Redis lists, shared by many gateways.
//!
//! | file | noun |
//! |---|---|
//! | `keys` | the names of all keys |
//! | `script` | the scripts, one Lua file each |
//! | `call` · `answer` | a call of a script, what it gave |
//! | `pack` | the bytes that both sides exchange |
//! | `link` | one connection: made when needed, given up when it fails |
//! | `error` | what every failure means |
//! | `connection` | the trait's calls |
//! | `calls` | publishes of unknown fate, and until when each may be carried out |
//! | `lots` | groups as the script that stores them takes them |
//! | `appended` | many messages that Redis appends by itself |
//! | `publish` · `leasing` · `sweep` | the way of a message |
//! | `repair` | what somebody else did to the keys of a queue |
//! | `lookup` · `letters` · `queues` · `stats` | what is asked of it |
//! | `listing` · `shared` | the list of queues, and the other keys that all queues share |
//! | `listener` | wake-ups from other gateways |
//! | `instances` | which gateways live on it |
//! | `probe` | whether Redis keeps what a 202 promises |
//! | `url` | the URL, and how to call `redis-cli` for it |
//! | `state` | what all connections share |

mod answer;
mod appended;
mod call;
mod calls;
mod connection;
mod error;
mod instances;
mod keys;
mod leasing;
mod letters;
mod link;
mod listener;
mod listing;
mod lookup;
mod lots;
mod pack;
mod probe;
mod publish;
mod queues;
mod repair;
mod script;
mod shared;
mod spread;
mod state;
mod stats;
mod sweep;
pub(super) mod url;

use std::rc::Rc;
use std::sync::Arc;

use redis::{Client, IntoConnectionInfo as _};

use crate::clock::Clock;
use crate::domain::format::secret;
use crate::store::error::OpenError;
use crate::store::redis::connection::Connection;
use crate::store::redis::state::{State, lock};
use crate::store::settings::StoreSettings;
use crate::store::wake::WakeBoard;
use crate::store::{MessageStore, Store};

/// A store in Redis. Clones of its connections share everything.
pub struct Redis {
    state: Arc<State>,
}

/// Opens a store in Redis, and looks at it for some seconds at most. One that is not there is opened as well: it is tried again
/// at each call.
///
/// # Errors
/// [`OpenError::Configuration`] for a URL that names no Redis, a Redis that knows not its user, and one that is there and does not
/// keep what `store.durability` asks for.
pub fn open(settings: &StoreSettings, clock: &Clock) -> Result<Arc<dyn Store>, OpenError> {
    let client = client(&settings.url).map_err(|error| {
        OpenError::Configuration(format!("store.url: {:?}: {error}", secret::url(&settings.url)))
    })?;
    let state = Arc::new(State::new(settings, client, clock));
    probe::opening::look(&state)?;
    listener::start(&state)
        .map_err(|error| OpenError::Failed(format!("a thread cannot be started: {error}")))?;
    Ok(Arc::new(Redis { state }))
}

/// A client that says nothing of its library on each connection: from 7.2 on a user without that right is denied it, and the
/// server notes each time.
fn client(url: &str) -> redis::RedisResult<Client> {
    let information = url.into_connection_info()?;
    let mut settings = information.redis_settings().clone().set_skip_set_lib_name();
    // Without a password the user would be left out as well, and everything be done as another one.
    if settings.username().is_some() && settings.password().is_none() {
        settings = settings.set_password("");
    }
    Client::open(information.set_redis_settings(settings))
}

impl Store for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn id(&self) -> Arc<str> {
        lock(&self.state.vitals).id().unwrap_or_else(|| Arc::clone(&self.state.id))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn connect(&self) -> Rc<dyn MessageStore> {
        Rc::new(Connection::new(&self.state))
    }

    fn wakes(&self) -> &WakeBoard {
        &self.state.wakes
    }
}
