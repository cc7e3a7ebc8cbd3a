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

/// Makes this process log to stderr. For a program's `main`, once; the library never calls it.
///
/// # Errors
/// When a logger was installed before.
pub fn install(settings: &LogSettings) -> Result<(), log::SetLoggerError> {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&settings.level);
    if settings.format == LogFormat::Json {
        builder.format(write_json);
    }
    builder.try_init()
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
}
