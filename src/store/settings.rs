//! `[store]`: which store, and what a 202 must mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::format::{FormatError, bytes, duration, range, secret};
use crate::domain::queue::SettingProblem;
use crate::store::BACKENDS;
use crate::store::health::Durability;
use crate::store::redis;

/// The most replicas that may be waited for.
const REPLICAS_MAX: u8 = 16;
/// Schemes that a later version will know.
const SCHEMES_LATER: [&str; 2] = ["redis+cluster", "redis+sentinel"];

/// `store.durability`: what a 202 must mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequiredDurability {
    /// Written and fsynced; a store that cannot is refused.
    #[default]
    Strict,
    /// As the store does it.
    Relaxed,
    /// Kept in memory: for `memory:` only.
    None,
}

impl From<RequiredDurability> for Durability {
    fn from(required: RequiredDurability) -> Self {
        match required {
            RequiredDurability::Strict => Self::Strict,
            RequiredDurability::Relaxed => Self::Relaxed,
            RequiredDurability::None => Self::None,
        }
    }
}

/// The settings of the store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `sqlite:PATH`, `redis://…`, `rediss://…`, `redis+unix://PATH` or `memory:`.
    pub url: String,
    /// What the names of all keys in Redis begin with, 1–64 letters, digits, `.`, `_`, `-`.
    pub prefix: String,
    /// What a 202 must mean.
    pub durability: RequiredDurability,
    /// Whether the operator vouches for what Redis does not let be seen of its durability.
    pub durability_assume: bool,
    /// How many replicas of Redis must have a publish before it is acknowledged, 0–16.
    pub replicas_ack: u8,
    /// How long to wait at start for another process to let go of the file.
    #[serde(with = "duration")]
    pub lock_wait: Duration,
    /// The percentage of the room there was at start from which on publishes are refused, 1–99.
    pub full_at_percent: u8,
    /// The most bytes the store may use, from 1 MiB; absent: what was free at start.
    #[serde(with = "bytes::option", skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "sqlite:data/posthaste.db".to_owned(),
            prefix: "ph".to_owned(),
            durability: RequiredDurability::Strict,
            durability_assume: false,
            replicas_ack: 0,
            lock_wait: Duration::from_secs(30),
            full_at_percent: 80,
            bytes_max: None,
        }
    }
}

impl StoreSettings {
    /// Everything that is out of its range; empty when all is well. Never shows a password.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let hour = Duration::from_hours(1);
        range::problems([
            ("url", self.check_url()),
            ("prefix", self.check_prefix()),
            ("durability", self.check_durability()),
            ("replicas_ack", self.check_replicas_ack()),
            ("lock_wait", range::span(self.lock_wait, &(Duration::ZERO..=hour))),
            ("full_at_percent", range::number(self.full_at_percent, &(1..=99))),
            ("bytes_max", self.bytes_max.map_or(Ok(()), |size| range::size(size, &(1 << 20..=1 << 50)))),
        ])
    }

    fn check_url(&self) -> Result<(), FormatError> {
        let refused = |problem: &str| {
            let write = "write sqlite:PATH, like sqlite:data/posthaste.db, redis://HOST:PORT, or memory:";
            Err(FormatError::new(&secret::url(&self.url), format_args!("{problem}: {write}")))
        };
        let Some((scheme, rest)) = self.url.split_once(':') else {
            return refused("is not the URL of a store");
        };
        match scheme {
            "memory" if rest.is_empty() => Ok(()),
            "memory" => refused("has something behind memory:"),
            "sqlite" if rest.is_empty() || rest.ends_with('/') => refused("names no file"),
            "sqlite" if rest == ":memory:" => refused("is not a file"),
            "sqlite" if rest.starts_with("//") => refused("has slashes before the path"),
            "sqlite" if rest.contains(['?', '\0']) => refused("has options, and takes none"),
            _ if SCHEMES_LATER.contains(&scheme) => refused("is not in this version"),
            "redis" | "rediss" | "redis+unix" => match redis::url::problem(&self.url) {
                None => Ok(()),
                Some(problem) => refused(&format!("is not the URL of a Redis ({problem})")),
            },
            _ if BACKENDS.iter().any(|backend| backend.scheme == scheme) => Ok(()),
            _ => refused("has an unknown scheme"),
        }
    }

    fn check_prefix(&self) -> Result<(), FormatError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&self.prefix.len()) && self.prefix.bytes().all(is_allowed) {
            return Ok(());
        }
        Err(FormatError::new(&self.prefix, "is not 1 to 64 letters, digits, dots, underscores and hyphens"))
    }

    fn check_replicas_ack(&self) -> Result<(), FormatError> {
        range::number(self.replicas_ack, &(0..=REPLICAS_MAX))?;
        if self.replicas_ack > 0 && !self.url.starts_with("redis") {
            let shown = self.replicas_ack.to_string();
            return Err(FormatError::unquoted(
                shown,
                "is for Redis only: no other store has replicas".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_durability(&self) -> Result<(), FormatError> {
        let refused = |word: &str, problem: &str| Err(FormatError::new(word, problem));
        let in_memory = self.url.starts_with("memory:");
        match self.durability {
            RequiredDurability::None if !in_memory => {
                refused("none", "is for memory: only: write strict or relaxed")
            }
            RequiredDurability::Strict if in_memory => {
                refused("strict", "is not possible with memory:, which forgets all when it ends: write none")
            }
            RequiredDurability::Relaxed if in_memory => {
                refused("relaxed", "is not possible with memory:, which forgets all when it ends: write none")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(url: &str, durability: RequiredDurability) -> Vec<String> {
        let settings = StoreSettings { url: url.to_owned(), durability, ..StoreSettings::default() };
        settings
            .problems()
            .into_iter()
            .map(|problem| format!("{}: {}", problem.key, problem.detail))
            .collect()
    }

    #[test]
    fn a_file_and_memory_are_stores() {
        for url in ["sqlite:data/posthaste.db", "sqlite:/var/lib/posthaste.db", "sqlite:a:b@c"] {
            assert_eq!(problems(url, RequiredDurability::Strict), [""; 0]);
            assert_eq!(problems(url, RequiredDurability::Relaxed), [""; 0]);
        }
        assert_eq!(problems("memory:", RequiredDurability::None), [""; 0]);
    }

    #[test]
    fn other_urls_are_refused_without_showing_a_password() {
        let write = "write sqlite:PATH, like sqlite:data/posthaste.db, redis://HOST:PORT, or memory:";
        for (url, expected) in [
            ("redis+cluster://host", r#""redis+cluster://host" is not in this version"#),
            ("redis+sentinel://host", r#""redis+sentinel://host" is not in this version"#),
            ("postgres://host", r#""postgres://host" has an unknown scheme"#),
            ("posthaste.db", r#""posthaste.db" is not the URL of a store"#),
            ("", r#""" is not the URL of a store"#),
            ("sqlite:", r#""sqlite:" names no file"#),
            ("sqlite:data/", r#""sqlite:data/" names no file"#),
            ("sqlite::memory:", r#""sqlite::memory:" is not a file"#),
            ("sqlite://data/x.db", r#""sqlite://data/x.db" has slashes before the path"#),
            ("sqlite:x.db?mode=ro", r#""sqlite:x.db?mode=ro" has options, and takes none"#),
        ] {
            assert_eq!(problems(url, RequiredDurability::Strict), [format!("url: {expected}: {write}")]);
        }
        let expected = format!(r#"url: "memory:x" has something behind memory:: {write}"#);
        assert_eq!(problems("memory:x", RequiredDurability::None), [expected]);
    }

    #[test]
    fn a_redis_is_a_store_and_what_is_none_is_refused() {
        for url in ["redis://user:pw@host:6379/0", "rediss://host", "redis+unix:///r.sock?db=1&pass=pw"] {
            assert_eq!(problems(url, RequiredDurability::Strict), [""; 0]);
            assert_eq!(problems(url, RequiredDurability::Relaxed), [""; 0]);
            assert_eq!(
                problems(url, RequiredDurability::None),
                [r#"durability: "none" is for memory: only: write strict or relaxed"#]
            );
        }
        for url in ["redis://:hunter2@host/first", "redis://", "rediss://"] {
            let [problem] = &problems(url, RequiredDurability::Strict)[..] else { panic!("{url}") };
            assert!(
                problem.contains("is not the URL of a Redis") && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_prefix_is_one_word() {
        let problems = |prefix: &str| {
            let settings = StoreSettings { prefix: prefix.to_owned(), ..StoreSettings::default() };
            settings
                .problems()
                .into_iter()
                .map(|problem| format!("{}: {}", problem.key, problem.detail))
                .collect::<Vec<_>>()
        };
        for prefix in ["ph", "a.b_c-9", &"x".repeat(64)] {
            assert_eq!(problems(prefix), [""; 0]);
        }
        for prefix in ["", "a b", "a:b", "{a}", "ä", &"x".repeat(65)] {
            let [problem] = &problems(prefix)[..] else { panic!("{prefix:?}") };
            assert!(
                problem.ends_with("is not 1 to 64 letters, digits, dots, underscores and hyphens"),
                "{problem}"
            );
        }
    }

    #[test]
    fn replicas_are_for_redis_only() {
        let problems = |url: &str, replicas_ack| {
            let settings = StoreSettings { url: url.to_owned(), replicas_ack, ..StoreSettings::default() };
            settings.problems().into_iter().map(|problem| problem.detail).collect::<Vec<_>>()
        };
        assert_eq!(problems("redis://host", 16), [""; 0]);
        assert_eq!(problems("redis://host", 17), ["17 is out of range: 0 to 16"]);
        assert_eq!(problems("sqlite:x.db", 0), [""; 0]);
        assert_eq!(problems("sqlite:x.db", 1), ["1 is for Redis only: no other store has replicas"]);
    }

    #[test]
    fn durability_none_and_memory_belong_together() {
        assert_eq!(
            problems("memory:", RequiredDurability::Strict),
            [
                r#"durability: "strict" is not possible with memory:, which forgets all when it ends: write none"#
            ]
        );
        assert_eq!(
            problems("memory:", RequiredDurability::Relaxed),
            [
                r#"durability: "relaxed" is not possible with memory:, which forgets all when it ends: write none"#
            ]
        );
        assert_eq!(
            problems("sqlite:x.db", RequiredDurability::None),
            [r#"durability: "none" is for memory: only: write strict or relaxed"#]
        );
    }

    #[test]
    fn every_key_refuses_what_lies_beyond_its_range() {
        let settings = StoreSettings {
            lock_wait: Duration::from_hours(2),
            full_at_percent: 100,
            bytes_max: Some(1),
            ..StoreSettings::default()
        };
        let details: Vec<_> = settings.problems().into_iter().map(|problem| problem.detail).collect();
        assert_eq!(
            details,
            [
                "2h is out of range: 0s to 1h",
                "100 is out of range: 1 to 99",
                "1 is out of range: 1MiB to 1024TiB"
            ]
        );
    }
}
