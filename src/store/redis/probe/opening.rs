//! The look at start: a Redis that is there and unfit stops it, one that is not there does not.

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, Value};
use tokio::time::{sleep, timeout};

use crate::domain::format::secret;
use crate::store::error::OpenError;
use crate::store::redis::connection::Connection;
use crate::store::redis::error::FORBIDDEN;
use crate::store::redis::probe::judge::Flaw;
use crate::store::redis::state::{State, lock};
use crate::store::redis::url::{self, WANTS_PASSWORD, is_without_password};
use crate::store::settings::RequiredDurability;

/// How long the start waits for a Redis that is loading its data.
const WAIT_FOR: Duration = Duration::from_secs(5);
/// The longest look, everything included.
const LOOK_WITHIN: Duration = Duration::from_secs(8);
/// The longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The longest greeting, the handshake of TLS included.
const GREET_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two looks at a Redis that is not ready.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Said of a Redis that knows not who comes.
const STRANGER: &str = "does not know that user or password (what is not a letter or digit in it is written as % and its code, # as %23)";

/// What one look found.
enum Found {
    Fit,
    /// It is not there, or does not answer as a Redis does.
    Away,
    /// It will be ready by and by.
    NotYet,
    /// It is there, and settings must change.
    Refused(String),
}

/// Looks at Redis from a thread of its own and waits for what it finds.
///
/// # Errors
/// [`OpenError::Configuration`] when Redis is there and not fit for `store.durability`; [`OpenError::Failed`] when the system
/// gives no thread.
pub(in crate::store::redis) fn look(state: &Arc<State>) -> Result<(), OpenError> {
    let no_thread =
        |error: &dyn std::fmt::Display| OpenError::Failed(format!("a thread cannot be started: {error}"));
    lock(&state.vitals).open();
    let opened = Arc::clone(state);
    let state = Arc::clone(state);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(async { timeout(LOOK_WITHIN, watch(&state)).await }).unwrap_or(Ok(())))
    };
    let thread =
        thread::Builder::new().name("redis-look".to_owned()).spawn(run).map_err(|error| no_thread(&error))?;
    let looked: std::io::Result<Result<(), OpenError>> =
        thread.join().map_err(|_| no_thread(&"the look at Redis panicked"))?;
    looked.map_err(|error| no_thread(&error))??;
    // What is refused is said by the refusal alone.
    lock(&opened.vitals).opened();
    Ok(())
}

async fn watch(state: &Arc<State>) -> Result<(), OpenError> {
    let begun = Instant::now();
    let mut has_told = false;
    loop {
        match once(state).await {
            Found::Fit | Found::Away => return Ok(()),
            Found::Refused(why) => return Err(OpenError::Configuration(why)),
            Found::NotYet if begun.elapsed() >= WAIT_FOR => return Ok(()),
            Found::NotYet => {
                if !has_told {
                    log::info!(
                        "Redis is loading its data, completing its files or without its replicas: waiting a little"
                    );
                    has_told = true;
                }
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn once(state: &Arc<State>) -> Found {
    match timeout(GREET_WITHIN, greet(state)).await {
        Ok(Ok(())) => {}
        // While writes are refused a PING is as well: what is the matter is seen below.
        Ok(Err(error)) if error.code() == Some("MISCONF") => {}
        Ok(Err(error)) => return refused_greeting(state, &error),
        // A handshake that never ends: who connects later says why.
        Err(_) => return Found::Away,
    }
    let connection = Connection::new(state);
    if let Ok(Some(missing)) = connection.missing_rights().await {
        return Found::Refused(format!(
            "store.url: Redis at {} {FORBIDDEN}: {missing}",
            secret::url(&state.settings.url)
        ));
    }
    let looked = connection.look_at_health().await;
    // What was seen before a look failed holds all the same.
    let vitals = lock(&state.vitals);
    let flaws: Vec<_> = vitals.refusals().cloned().collect();
    if flaws.is_empty() {
        if looked.is_ok() { Found::Fit } else { Found::Away }
    } else if flaws.iter().all(|flaw| flaw.passes) {
        Found::NotYet
    } else {
        Found::Refused(refusal(state, &flaws, vitals.is_fit_for_relaxed()))
    }
}

async fn greet(state: &State) -> Result<(), RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(CONNECT_WITHIN));
    let mut connection = state.client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut command = Cmd::new();
    command.arg("PING");
    connection.send_packed_command(&command).await.and_then(Value::extract_error).map(drop)
}

fn refused_greeting(state: &State, error: &RedisError) -> Found {
    let url = secret::url(&state.settings.url);
    let refused = |what: &str| Found::Refused(format!("store.url: Redis at {url} {what}"));
    match error.code() {
        Some("LOADING" | "BUSY") => Found::NotYet,
        Some("NOPERM") => refused(&format!("{FORBIDDEN}: {error}")),
        _ if is_without_password(&error.to_string()) => {
            refused(&format!("wants a password: {WANTS_PASSWORD}"))
        }
        Some("WRONGPASS") => refused(STRANGER),
        _ if error.kind() == ErrorKind::AuthenticationFailed => refused(STRANGER),
        _ if error.kind() == ErrorKind::InvalidClientConfig => {
            refused(&format!("cannot be reached that way: {error}"))
        }
        Some("ERR") => refused(&format!("refused the connection: {error}")),
        _ => Found::Away,
    }
}

/// What is wrong, what cures it, and the way out.
fn refusal(state: &State, flaws: &[Flaw], is_fit_for_relaxed: bool) -> String {
    let url = secret::url(&state.settings.url);
    let is_strict = state.settings.durability == RequiredDurability::Strict;
    let mut text = if is_strict && is_fit_for_relaxed {
        format!("store.durability is strict, and Redis at {url} does not keep that:")
    } else {
        format!("Redis at {url} cannot hold messages:")
    };
    for Flaw { what, cure, .. } in flaws {
        write!(text, "\n- {what}\n    {cure}").expect("a string takes all");
    }
    if flaws.iter().any(|flaw| flaw.cure.contains(" CONFIG SET ")) {
        write!(
            text,
            "\nSo that it stays when Redis restarts (a Redis that was started without a configuration file says so: put the same \
             into its options):\n    {} CONFIG REWRITE",
            url::client(&state.settings.url, false)
        )
        .expect("a string takes all");
    }
    if is_strict && is_fit_for_relaxed {
        text.push_str(
            "\nOr take Redis as it is: --durability relaxed (store.durability = \"relaxed\"). \
             A 202 then promises no more than these settings do.",
        );
    }
    text
}
