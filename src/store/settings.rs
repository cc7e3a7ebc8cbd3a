//! `[store]`: which store, and what a 202 must mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::format::{FormatError, bytes, duration, range, secret};
use crate::domain::queue::SettingProblem;
use crate::store::BACKENDS;
use crate::store::health::Durability;

/// Schemes that a later version will know.
const SCHEMES_LATER: [&str; 5] = ["redis", "rediss", "redis+unix", "redis+cluster", "redis+sentinel"];

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
    /// `sqlite:PATH` or `memory:`.
    pub url: String,
    /// What a 202 must mean.
    pub durability: RequiredDurability,
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
            durability: RequiredDurability::Strict,
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
            ("durability", self.check_durability()),
            ("lock_wait", range::span(self.lock_wait, &(Duration::ZERO..=hour))),
            ("full_at_percent", range::number(self.full_at_percent, &(1..=99))),
            ("bytes_max", self.bytes_max.map_or(Ok(()), |size| range::size(size, &(1 << 20..=1 << 50)))),
        ])
    }

    fn check_url(&self) -> Result<(), FormatError> {
        let refused = |problem: &str| {
            let write = "write sqlite:PATH, like sqlite:data/posthaste.db, or memory:";
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
            _ if BACKENDS.iter().any(|backend| backend.scheme == scheme) => Ok(()),
            _ => refused("has an unknown scheme"),
        }
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
        let write = "write sqlite:PATH, like sqlite:data/posthaste.db, or memory:";
        for (url, expected) in [
            ("redis://user:pw@host:6379/0", r#""redis://user:***@host:6379/0" is not in this version"#),
            ("rediss://host", r#""rediss://host" is not in this version"#),
            ("redis+unix:///r.sock", r#""redis+unix:///r.sock" is not in this version"#),
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
