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
    /// It only looks, and may well be forbidden: who asked decides what that means.
    Asks,
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
    ("FOREIGNKEY", Meaning::Foreign),
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
    /// A script of ours found another type before its first write.
    Foreign,
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
        Effect::Reads | Effect::Asks => StoreError::Unavailable(words),
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
        Some(Meaning::Foreign) => {
            Cure::Tell(StoreError::Foreign(format!("{}: remove it, and the queue goes on", said())))
        }
        Some(Meaning::Broken(words)) => broke_off(format!("Redis {words} ({code} {})", said()), effect),
        None => broke_off(format!("Redis answered {code} {}", said()), effect),
    }
}

/// The failure of a plain command that only looks at one key of a queue.
pub(super) fn of_key(error: StoreError, key: &str) -> StoreError {
    match error {
        StoreError::Internal(words) if words.contains("WRONGTYPE") => StoreError::Foreign(format!(
            "the key {key} holds something of another type: remove it, and the queue goes on"
        )),
        other => other,
    }
}

/// A script may have broken off behind its first write: Lua takes nothing back.
fn broke_off(words: String, effect: Effect) -> Cure {
    if effect != Effect::Asks {
        log::error!("cause" = words.as_str(); "Redis refused a command of ours: a defect, or somebody else's keys under our prefix");
    }
    Cure::Tell(match effect {
        Effect::Writes => StoreError::Unknown(words),
        Effect::Reads | Effect::Asks => StoreError::Internal(words),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn told(line: &str, effect: Effect) -> Cure {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        cure(&value.extract_error().expect_err("an error"), effect, WITHIN)
    }

    /// Each first word, whether the connection is given up, and which error is told.
    const OUTCOMES: &[(&str, bool, &str)] = &[
        ("LOADING", false, "Unavailable"),
        ("BUSY", false, "Unavailable"),
        ("MASTERDOWN", true, "Unavailable"),
        ("READONLY", true, "Unavailable"),
        ("CLUSTERDOWN", false, "Unavailable"),
        ("TRYAGAIN", false, "Unavailable"),
        ("MOVED", true, "Unavailable"),
        ("ASK", true, "Unavailable"),
        ("CROSSSLOT", true, "Unavailable"),
        ("UNBLOCKED", true, "Unavailable"),
        ("OOM", false, "Full"),
        ("MISCONF", false, "NotDurable"),
        ("NOREPLICAS", false, "NotDurable"),
        ("NOAUTH", true, "Unavailable"),
        ("WRONGPASS", true, "Unavailable"),
        ("NOPERM", false, "Broken"),
        ("FOREIGNKEY", false, "Foreign"),
        ("WRONGTYPE", false, "Broken"),
        ("EXECABORT", false, "Broken"),
        ("ERR", false, "Broken"),
        ("SOMETHINGNEW", false, "Broken"),
    ];

    #[test]
    fn every_reply_has_its_outcome() {
        for (code, gives_up, expected) in OUTCOMES {
            for effect in [Effect::Writes, Effect::Reads, Effect::Asks] {
                let (error, is_given_up) = match told(&format!("{code} said so"), effect) {
                    Cure::Reconnect(error) => (error, true),
                    Cure::Tell(error) => (error, false),
                    Cure::Load => panic!("{code}"),
                };
                let expected = match (*expected, effect) {
                    // A script takes nothing back.
                    ("Broken", Effect::Writes) => "Unknown",
                    ("Broken", _) => "Internal",
                    (other, _) => other,
                };
                assert!(format!("{error:?}").starts_with(expected), "{code} {effect:?}: {error:?}");
                assert!(error.to_string().contains("said so"), "{error}");
                assert_eq!(is_given_up, *gives_up, "{code} {effect:?}");
            }
        }
    }

    #[test]
    fn no_row_is_without_a_test() {
        for (code, _) in REPLIES {
            assert!(*code == "NOSCRIPT" || OUTCOMES.iter().any(|(tested, ..)| tested == code), "{code}");
        }
        assert_eq!(told("NOSCRIPT No matching script", Effect::Writes), Cure::Load);
    }

    #[test]
    fn a_lost_answer_is_unknown_where_something_was_written() {
        let lost = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(cure(&lost, Effect::Writes, WITHIN), Cure::Reconnect(StoreError::Unknown(_))));
        assert!(matches!(cure(&lost, Effect::Reads, WITHIN), Cure::Reconnect(StoreError::Unavailable(_))));
        let late = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(cure(&late, Effect::Writes, WITHIN), Cure::Reconnect(StoreError::Timeout(WITHIN)));
        let stranger = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert!(matches!(
            cure(&stranger, Effect::Writes, WITHIN),
            Cure::Reconnect(StoreError::Unavailable(_))
        ));
    }
}
