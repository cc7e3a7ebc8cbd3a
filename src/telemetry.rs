//! Log lines: `log` is the only facade, `env_logger` the only sink, as text for people or JSON for machines.
//!
//! A line is lowercase, has no full stop, and carries its facts as dotted fields (`message.id`, `queue.name`). Payloads, secrets
//! and query strings never appear.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::domain::format::{FormatError, range};
use crate::domain::queue::SettingProblem;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `time`, `level`, `target`, `message`, and the fields.
    Json,
}

/// `[log]`: what is logged and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A filter such as `info` or `warn,posthaste=debug`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl LogSettings {
    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        range::problems([("level", check_filter(&self.level))])
    }
}

/// A filter is levels and `module=level`s, with commas between them.
fn check_filter(text: &str) -> Result<(), FormatError> {
    const WRITE: &str = "write off, error, warn, info, debug or trace, or warn,posthaste=debug";
    for part in text.split(',') {
        let (module, level) = part.split_once('=').unwrap_or(("posthaste", part));
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
        if module.is_empty() || !module.bytes().all(of_name) {
            return Err(FormatError::new(text, format_args!("is not a log filter: {WRITE}")));
        }
        if level.parse::<log::LevelFilter>().is_err() {
            return Err(FormatError::new(text, format_args!("has no level {level:?}: {WRITE}")));
        }
    }
    Ok(())
}

/// Makes this process log to stderr. For a program's `main`, once; the library never calls it.
///
/// # Errors
/// When a logger was installed before.
pub fn install(settings: &LogSettings) -> Result<(), log::SetLoggerError> {
    let mut builder = filtered(&settings.level);
    if settings.format == LogFormat::Json {
        builder.format(write_json);
    }
    builder.try_init()
}

/// A logger with this filter over our own, which holds for modules that the filter does not name.
fn filtered(level: &str) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    // Its lines tell of threads, which say nothing to who runs the gateway.
    builder.filter_module("actix_server", log::LevelFilter::Warn);
    // Its lines, of level ERROR, tell of clients that send what is no HTTP: any stranger could fill the disk with them.
    builder.filter_module("actix_http", log::LevelFilter::Off);
    // It says for each refused certificate what the attempt says, and for each look at the machine's what the processor says.
    builder.filter_module("rustls_platform_verifier", log::LevelFilter::Off);
    builder.parse_filters(level);
    builder
}

fn write_json(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let now = line.timestamp_millis();
    let mut json = serde_json::Serializer::new(&mut *line);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("time", &format_args!("{now}"))?;
    map.serialize_entry("level", record.level().as_str())?;
    map.serialize_entry("target", record.target())?;
    map.serialize_entry("message", &format_args!("{}", record.args()))?;
    record.key_values().visit(&mut Fields(&mut map)).map_err(io::Error::other)?;
    map.end()?;
    writeln!(line)
}

/// Writes each field of a line into its JSON object.
struct Fields<'m, M>(&'m mut M);

impl<'kvs, M: SerializeMap<Error = serde_json::Error>> VisitSource<'kvs> for Fields<'_, M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let written = if let Some(number) = value.to_u64() {
            self.0.serialize_entry(key.as_str(), &number)
        } else if let Some(number) = value.to_i64() {
            self.0.serialize_entry(key.as_str(), &number)
        } else if let Some(truth) = value.to_bool() {
            self.0.serialize_entry(key.as_str(), &truth)
        } else {
            self.0.serialize_entry(key.as_str(), &format_args!("{value}"))
        };
        written.map_err(Error::boxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the sink").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_its_fields() {
        use log::Log;
        let sink = Sink::default();
        let logger = env_logger::Builder::new()
            .filter_level(log::LevelFilter::Info)
            .target(env_logger::Target::Pipe(Box::new(sink.clone())))
            .format(write_json)
            .build();
        let fields = [("queue.name", Value::from("a \"b\"\n")), ("payload_bytes", Value::from(17_u64))];
        logger.log(
            &Record::builder()
                .args(format_args!("message logged"))
                .level(log::Level::Info)
                .target("posthaste::processor::log")
                .key_values(&fields)
                .build(),
        );
        let line = String::from_utf8(sink.0.lock().expect("the sink").clone()).expect("text");
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let time = json["time"].as_str().expect("a text");
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert_eq!(json["message"], "message logged");
        assert_eq!(json["queue.name"], "a \"b\"\n");
        assert_eq!(json["payload_bytes"], 17);
    }

    #[test]
    fn strangers_write_no_line_unless_a_filter_says_so() {
        use log::Log;
        let shows = |filter, target: &str, level| {
            let metadata = log::Metadata::builder().target(target).level(level).build();
            filtered(filter).build().enabled(&metadata)
        };
        let stranger = "actix_http::h1::dispatcher";
        for filter in ["info", "trace", "error", "info,posthaste=debug"] {
            assert!(!shows(filter, stranger, log::Level::Error), "{filter}");
            assert!(shows(filter, "posthaste::http::error", log::Level::Error), "{filter}");
        }
        for filter in ["info,actix_http=error", "off,actix_http=trace", "info,actix_http::h1=debug"] {
            assert!(shows(filter, stranger, log::Level::Error), "{filter}");
        }
        assert!(
            shows("info", "actix_server::accept", log::Level::Warn),
            "no descriptor left is for the operator"
        );
    }

    #[test]
    fn a_level_and_levels_of_modules_are_a_filter() {
        for level in ["off", "WARN", "warn,posthaste=debug", "info,posthaste::store=trace,actix_http=off"] {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            assert_eq!(settings.problems(), [], "{level}");
        }
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_what_is_allowed() {
        let write = "write off, error, warn, info, debug or trace, or warn,posthaste=debug";
        for (level, expected) in [
            ("inof", r#""inof" has no level "inof""#),
            ("", r#""" has no level """#),
            ("info,", r#""info," has no level """#),
            ("posthaste=all", r#""posthaste=all" has no level "all""#),
            ("=info", r#""=info" is not a log filter"#),
            ("a b=info", r#""a b=info" is not a log filter"#),
        ] {
            let settings = LogSettings { level: level.to_owned(), ..LogSettings::default() };
            let details: Vec<_> = settings.problems().into_iter().map(|problem| problem.detail).collect();
            assert_eq!(details, [format!("{expected}: {write}")]);
        }
    }
}
