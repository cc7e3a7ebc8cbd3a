//! `[log]`: what is logged and in which form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::format::FormatError;

/// The settings of the log. Logs go to stderr.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// What is logged.
    pub level: LogFilter,
    /// In which form.
    pub format: LogFormat,
}

/// `log.format`: the form of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Which lines are logged: a level, and levels for single modules: `info`, `warn,posthaste=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter in the form that `env_logger` reads.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        const WRITE: &str = "write off, error, warn, info, debug or trace, or info,posthaste=debug";
        for part in text.split(',') {
            let (module, level) = part.split_once('=').unwrap_or(("posthaste", part));
            let named = !module.is_empty()
                && module
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-'));
            if !named {
                return Err(FormatError::new(text, format_args!("is not a log filter: {WRITE}")));
            }
            if level.parse::<log::LevelFilter>().is_err() {
                return Err(FormatError::new(text, format_args!("has no level {level:?}: {WRITE}")));
            }
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for LogFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_of_modules_are_read() {
        for text in ["off", "info", "warn,posthaste=debug", "info,posthaste::store=trace,actix_http=off"] {
            assert_eq!(text.parse::<LogFilter>().expect(text).as_str(), text);
        }
        assert_eq!("WARN".parse::<LogFilter>().expect("a level").as_str(), "warn");
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let write = "write off, error, warn, info, debug or trace, or info,posthaste=debug";
        for (text, expected) in [
            ("inof", r#""inof" has no level "inof""#),
            ("", r#""" has no level """#),
            ("info,", r#""info," has no level """#),
            ("posthaste=all", r#""posthaste=all" has no level "all""#),
            ("=info", r#""=info" is not a log filter"#),
            ("a b=info", r#""a b=info" is not a log filter"#),
        ] {
            let refusal = text.parse::<LogFilter>().expect_err("must be refused").to_string();
            assert_eq!(refusal, format!("{expected}: {write}"));
        }
    }
}
