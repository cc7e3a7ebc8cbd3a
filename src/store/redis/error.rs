//! What every failure of a call to Redis means: one table.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError};

use crate::store::error::StoreError;
use crate::store::redis::state::lock;
use crate::store::redis::url::UNAUTHENTICATED;

/// How long a defect that comes again and again is not said again.
const SAY_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Kinds of defects that are told apart in the log; their words have names in them.
const SAID_MAX: usize = 64;

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
    /// The address may lead to another server by now: give every connection up, and tell the caller.
    Move(StoreError),
    /// The connection is sound: tell the caller.
    Tell(StoreError),
}

/// The error replies of Redis, by their first word, and what each means.
///
/// Every one of them is an answer: the command was not carried out, but for a script that broke off in the middle.
const REPLIES: &[(&str, Meaning)] = &[
    ("NOSCRIPT", Meaning::Load),
    ("LOADING", Meaning::Away("is loading its data")),
    ("BUSY", Meaning::Away("is busy with one script")),
    ("MASTERDOWN", Meaning::Replica("is a replica whose master is down")),
    ("READONLY", Meaning::Replica("is a replica: it takes no writes")),
    ("CLUSTERDOWN", Meaning::Away("is a node of a cluster that is down")),
    ("TRYAGAIN", Meaning::Away("is a node of a cluster that moves slots")),
    ("MOVED", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("ASK", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("CROSSSLOT", Meaning::Elsewhere("is a node of a cluster, which is not in this version")),
    ("UNBLOCKED", Meaning::Replica("became a replica meanwhile")),
    ("OOM", Meaning::Full),
    ("MISCONF", Meaning::NotDurable("cannot write its files")),
    ("NOREPLICAS", Meaning::NotDurable("has too few replicas: min-replicas-to-write")),
    ("NOAUTH", Meaning::Elsewhere("wants a password: put it into store.url")),
    ("WRONGPASS", Meaning::Elsewhere("does not know the user or the password of store.url")),
    ("NOPERM", Meaning::Forbidden),
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
    /// Another one is the master, and connections that are open would stay here.
    Replica(&'static str),
    Full,
    NotDurable(&'static str),
    /// The user of `store.url` may not.
    Forbidden,
    /// A script of ours found another type before its first write.
    Foreign,
    Broken(&'static str),
}

/// What a user without a right is told.
pub(super) const FORBIDDEN: &str = "does not allow the user of store.url what is needed: docs/OPERATIONS.md has the ACL SETUSER line of one that may";

/// Whether the connection was lost before an answer came, as a server or a firewall does it with one that is idle.
pub(super) fn is_lost(error: &RedisError) -> bool {
    let is_ours = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig);
    error.code().is_none() && !error.is_timeout() && !is_ours
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
    // Inside of a script Redis names no code of its own: 7.0, and from 7.2 on.
    let is_forbidden =
        ["The user executing the script", "ACL failure in script"].iter().any(|words| said().contains(words));
    let code = match code {
        _ if is_forbidden => "NOPERM",
        "ERR" if said().contains(UNAUTHENTICATED) => "NOAUTH",
        code => code,
    };
    let meaning = REPLIES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning);
    match meaning {
        Some(Meaning::Load) => Cure::Load,
        Some(Meaning::Away(words)) => Cure::Tell(away(words)),
        Some(Meaning::Elsewhere(words)) => Cure::Reconnect(away(words)),
        Some(Meaning::Replica(words)) => Cure::Move(away(words)),
        Some(Meaning::Full) => Cure::Tell(StoreError::Full(format!("Redis has no memory left ({})", said()))),
        Some(Meaning::NotDurable(words)) => {
            Cure::Tell(StoreError::NotDurable(format!("Redis {words} ({code} {})", said())))
        }
        Some(Meaning::Forbidden) => {
            let words = format!("Redis {FORBIDDEN} ({code} {})", said());
            let cure = broke_off(
                words.clone(),
                effect,
                "Redis refused a command of ours: its user has too few rights",
            );
            // What is refused outside of a script was not begun.
            if said().contains("script") || effect != Effect::Writes {
                cure
            } else {
                Cure::Tell(StoreError::Unavailable(words))
            }
        }
        Some(Meaning::Foreign) => {
            let words = said();
            // Where it is not a key to be removed, it says what else to do.
            let cure = if words.contains("; ") { "" } else { ": remove it, and the queue goes on" };
            Cure::Tell(StoreError::Foreign(format!("{words}{cure}")))
        }
        Some(Meaning::Broken(words)) => {
            broke_off(format!("Redis {words} ({code} {})", said()), effect, DEFECT)
        }
        None => broke_off(format!("Redis answered {code} {}", said()), effect, DEFECT),
    }
}

/// What a refusal means that should not be.
const DEFECT: &str = "Redis refused a command of ours: a defect, or somebody else's keys under our prefix";

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
fn broke_off(words: String, effect: Effect, meaning: &str) -> Cure {
    if effect != Effect::Asks && is_to_be_said(&words) {
        log::error!("cause" = words.as_str(); "{meaning}");
    }
    Cure::Tell(match effect {
        Effect::Writes => StoreError::Unknown(words),
        Effect::Reads | Effect::Asks => StoreError::Internal(words),
    })
}

/// Whether this was not said within the last minute, in the whole process.
fn is_to_be_said(words: &str) -> bool {
    static SAID: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);
    // What is called by a random name, or stands at some place of a script, is the same defect.
    let kind: String = words.chars().filter(|letter| !letter.is_ascii_hexdigit()).collect();
    let mut said = lock(&SAID);
    said.retain(|_, at| at.elapsed() < SAY_AGAIN_AFTER);
    if said.len() >= SAID_MAX || said.contains_key(&kind) {
        return false;
    }
    said.insert(kind, Instant::now());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn told(line: &str, effect: Effect) -> Cure {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        cure(&value.extract_error().expect_err("an error"), effect, WITHIN)
    }

    const KEEP: &str = "keep";
    const RECONNECT: &str = "reconnect";
    const MOVE: &str = "move";

    /// Each first word, what becomes of connections, and which error is told.
    const OUTCOMES: &[(&str, &str, &str)] = &[
        ("LOADING", KEEP, "Unavailable"),
        ("BUSY", KEEP, "Unavailable"),
        ("MASTERDOWN", MOVE, "Unavailable"),
        ("READONLY", MOVE, "Unavailable"),
        ("CLUSTERDOWN", KEEP, "Unavailable"),
        ("TRYAGAIN", KEEP, "Unavailable"),
        ("MOVED", RECONNECT, "Unavailable"),
        ("ASK", RECONNECT, "Unavailable"),
        ("CROSSSLOT", RECONNECT, "Unavailable"),
        ("UNBLOCKED", MOVE, "Unavailable"),
        ("OOM", KEEP, "Full"),
        ("MISCONF", KEEP, "NotDurable"),
        ("NOREPLICAS", KEEP, "NotDurable"),
        ("NOAUTH", RECONNECT, "Unavailable"),
        ("WRONGPASS", RECONNECT, "Unavailable"),
        ("NOPERM", KEEP, "Forbidden"),
        ("FOREIGNKEY", KEEP, "Foreign"),
        ("WRONGTYPE", KEEP, "Broken"),
        ("EXECABORT", KEEP, "Broken"),
        ("ERR", KEEP, "Broken"),
        ("SOMETHINGNEW", KEEP, "Broken"),
    ];

    #[test]
    fn every_reply_has_its_outcome() {
        for (code, connections, expected) in OUTCOMES {
            for effect in [Effect::Writes, Effect::Reads, Effect::Asks] {
                let (error, are) = match told(&format!("{code} said so"), effect) {
                    Cure::Reconnect(error) => (error, RECONNECT),
                    Cure::Move(error) => (error, MOVE),
                    Cure::Tell(error) => (error, KEEP),
                    Cure::Load => panic!("{code}"),
                };
                let expected = match (*expected, effect) {
                    // A script takes nothing back.
                    ("Broken", Effect::Writes) => "Unknown",
                    ("Forbidden", Effect::Writes) => "Unavailable",
                    ("Broken" | "Forbidden", _) => "Internal",
                    (other, _) => other,
                };
                assert!(format!("{error:?}").starts_with(expected), "{code} {effect:?}: {error:?}");
                assert!(error.to_string().contains("said so"), "{error}");
                assert_eq!(are, *connections, "{code} {effect:?}");
            }
        }
    }

    #[test]
    fn a_defect_is_said_once_a_minute() {
        assert!(is_to_be_said("a user of another name: script 0a1b2c"));
        assert!(!is_to_be_said("a user of another name: script 3d4e5f"));
        assert!(is_to_be_said("another command"));
    }

    #[test]
    fn no_row_is_without_a_test() {
        for (code, _) in REPLIES {
            assert!(*code == "NOSCRIPT" || OUTCOMES.iter().any(|(tested, ..)| tested == code), "{code}");
        }
        assert_eq!(told("NOSCRIPT No matching script", Effect::Writes), Cure::Load);
    }

    #[test]
    fn a_right_that_is_missing_inside_a_script_may_have_broken_it_off_behind_a_write() {
        let inside = told("NOPERM ACL failure in script: no permissions to run 'zadd'", Effect::Writes);
        assert!(matches!(inside, Cure::Tell(StoreError::Unknown(_))), "{inside:?}");
        let older =
            told("ERR The user executing the script can't run this command script: 1f", Effect::Writes);
        assert!(
            matches!(&older, Cure::Tell(StoreError::Unknown(why)) if why.contains("ACL SETUSER")),
            "{older:?}"
        );
    }

    #[test]
    fn who_says_more_than_a_stranger_may_is_told_that_a_password_is_wanted() {
        for what in ["multibulk", "bulk"] {
            let told = told(&format!("ERR Protocol error: unauthenticated {what} length"), Effect::Writes);
            assert!(
                matches!(&told, Cure::Reconnect(StoreError::Unavailable(why)) if why.contains("wants a password")),
                "{told:?}"
            );
        }
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
