//! What every failure of a call to Redis means: one table.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

use crate::store::error::StoreError;

/// Whether the call that failed may have changed anything when its answer is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// It stores what was not there: a lost answer is unknown.
    Writes,
    /// It only looks, or is sent again until it is known.
    Reads,
}

/// What to do about a failure.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cure {
    /// The scripts are not loaded: load them and send it again.
    Load,
    /// Give the connection up, and tell the caller.
    Reconnect(StoreError),
    /// The connection is sound: tell the caller.
    Tell(StoreError),
}

/// The error replies of Redis, by their first word, and what each means.
///
/// Every one of them is an answer: the command was not carried out, but for a script that broke off in the middle.
const REPLIES: &[(&str, Meaning)] = &[
    ("NOSCRIPT", Meaning::Load),
    ("LOADING", Meaning::Away("is loading its data")),
    ("BUSY", Meaning::Away("is busy with a script of somebody else")),
    ("MASTERDOWN", Meaning::Elsewhere("is a replica whose master is down")),
    ("READONLY", Meaning::Elsewhere("is a replica: it takes no writes")),
    ("CLUSTERDOWN", Meaning::Away("is a node of a cluster that is down")),
    ("TRYAGAIN", Meaning::Away("is a node of a cluster that moves slots")),
    ("MOVED", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("ASK", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("CROSSSLOT", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("UNBLOCKED", Meaning::Elsewhere("became a replica meanwhile")),
    ("OOM", Meaning::Full),
    ("MISCONF", Meaning::NotDurable("cannot write its files")),
    ("NOREPLICAS", Meaning::NotDurable("has too few replicas: min-replicas-to-write")),
    ("NOAUTH", Meaning::Elsewhere("wants a password: put it into store.url")),
    ("WRONGPASS", Meaning::Elsewhere("does not know the user or the password of store.url")),
    (
        "NOPERM",
        Meaning::Broken("does not allow the user of store.url what is needed, see docs/OPERATIONS.md"),
    ),
    ("WRONGTYPE", Meaning::Broken("holds something of another type under a key of ours")),
    ("EXECABORT", Meaning::Broken("refused a transaction")),
];

#[derive(Clone, Copy, Debug)]
enum Meaning {
    Load,
    /// Not now; this connection will do.
    Away(&'static str),
    /// Not here: another connection may lead elsewhere.
    Elsewhere(&'static str),
    Full,
    NotDurable(&'static str),
    Broken(&'static str),
}

/// What a failure means for the call that met it.
pub(super) fn cure(error: &RedisError, effect: Effect, within: Duration) -> Cure {
    if let Some(code) = error.code() {
        return reply(code, error, effect);
    }
    if error.is_timeout() {
        return Cure::Reconnect(StoreError::Timeout(within));
    }
    if matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig) {
        return Cure::Reconnect(StoreError::Unavailable(format!("Redis: {error}")));
    }
    let words = format!("Redis: {error}");
    Cure::Reconnect(match effect {
        Effect::Writes => StoreError::Unknown(words),
        Effect::Reads => StoreError::Unavailable(words),
    })
}

fn reply(code: &str, error: &RedisError, effect: Effect) -> Cure {
    let said = || error.detail().map(str::to_owned).unwrap_or_default();
    let away = |words: &str| StoreError::Unavailable(format!("Redis {words} ({code} {})", said()));
    let meaning = REPLIES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning);
    match meaning {
        Some(Meaning::Load) => Cure::Load,
        Some(Meaning::Away(words)) => Cure::Tell(away(words)),
        Some(Meaning::Elsewhere(words)) => Cure::Reconnect(away(words)),
        Some(Meaning::Full) => Cure::Tell(StoreError::Full(format!("Redis has no memory left ({})", said()))),
        Some(Meaning::NotDurable(words)) => {
            Cure::Tell(StoreError::NotDurable(format!("Redis {words} ({code} {})", said())))
        }
        Some(Meaning::Broken(words)) => broke_off(format!("Redis {words} ({code} {})", said()), effect),
        None => broke_off(format!("Redis answered {code} {}", said()), effect),
    }
}

/// A script may have broken off behind its first write: Lua takes nothing back.
fn broke_off(words: String, effect: Effect) -> Cure {
    log::error!("cause" = words.as_str(); "Redis refused a command of ours: a defect, or somebody else's keys under our prefix");
    Cure::Tell(match effect {
        Effect::Writes => StoreError::Unknown(words),
        Effect::Reads => StoreError::Internal(words),
    })
}
