//! Settings of a queue as they are typed: `key=value`, or a file.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::{Exit, Failure};
use crate::domain::queue::QueueSettings;

/// The key whose parts are names of headers, which may have dots.
const HEADERS: &str = "delivery.headers.";

/// What to set.
#[derive(Args)]
pub(super) struct SettingArguments {
    /// A setting: its key, and its value
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file")]
    settings: Vec<String>,
    /// A file of settings, TOML or JSON; those given as KEY=VALUE are laid over it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl SettingArguments {
    /// The settings as a JSON object for the gateway to judge.
    pub(super) fn read(&self) -> Result<Value, Failure> {
        let mut settings = Value::Object(Map::new());
        if let Some(file) = &self.file {
            let shown = file.display();
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::failed(format!("{shown} cannot be read: {error}")))?;
            settings =
                read_file(&text).map_err(|why| Failure::new(Exit::Usage, format!("{shown}: {why}")))?;
        }
        for setting in &self.settings {
            let usage = |why: String| Failure::new(Exit::Usage, format!("{setting:?} {why}"));
            let (key, text) = setting
                .split_once('=')
                .ok_or_else(|| usage("is no setting: write KEY=VALUE, like timeout=10s".to_owned()))?;
            put(&mut settings, key, value(key, text).map_err(usage)?).map_err(usage)?;
        }
        Ok(settings)
    }
}

/// TOML, or JSON where the file begins with a brace, which no TOML does.
fn read_file(text: &str) -> Result<Value, String> {
    let value: Value = if text.trim_start().starts_with('{') {
        crate::api::json::parse(text.as_bytes()).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    if value.is_object() { Ok(value) } else { Err("settings are a table".to_owned()) }
}

/// The parts of a key.
fn parts(key: &str) -> Vec<&str> {
    match key.strip_prefix(HEADERS) {
        Some(header) => vec!["delivery", "headers", header],
        None => key.split('.').collect(),
    }
}

/// Reads a text by the type of its key; what is not known is for the gateway to refuse, which knows the nearest name.
fn value(key: &str, text: &str) -> Result<Value, String> {
    if text == "null" {
        return Ok(Value::Null);
    }
    let defaults = serde_json::to_value(QueueSettings::default()).map_err(|error| error.to_string())?;
    let known = defaults.pointer(&format!("/{}", parts(key).join("/")));
    let is_json = text.starts_with(['[', '{', '"']);
    match known {
        _ if is_json => {
            crate::api::json::parse(text.as_bytes()).map_err(|error| format!("is no JSON: {error}"))
        }
        Some(Value::Bool(_) | Value::Number(_)) => {
            Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
        }
        Some(Value::Array(_)) => {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(item).collect())
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// One item of a list: a status, or a duration.
fn item(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| Value::String(text.to_owned()), Value::from)
}

fn put(settings: &mut Value, key: &str, value: Value) -> Result<(), String> {
    let mut place = settings;
    for part in parts(key) {
        if part.is_empty() {
            return Err("has a key without a name".to_owned());
        }
        let Value::Object(fields) = place else { return Err("is below a key that has a value".to_owned()) };
        place = fields.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    *place = value;
    Ok(())
}

/// Every setting with its dotted key, as [`value`] reads it.
pub(super) fn flat(settings: &Value) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    flatten(settings, "", &mut lines);
    lines
}

fn flatten(value: &Value, key: &str, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(value, &key, lines);
            }
        }
        Value::Object(_) => {}
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            lines.push((key.to_owned(), items.join(",")));
        }
        value => lines.push((key.to_owned(), plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(settings: &[&str]) -> Result<Value, Failure> {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        SettingArguments { settings, file: None }.read()
    }

    #[test]
    fn a_text_is_read_by_the_type_of_its_key() {
        let settings = [
            "processor=http",
            "destination=https://a.example/?b=c",
            "lookup=false",
            "limits.length_max=1000",
            "limits.bytes_max=1GiB",
            "retry.schedule=10s, 1m",
            "retry.jitter=0.5",
            "delivery.reject=400,413",
            "delivery.headers.X-Version.1=7",
            "destination_override=[\"https://a.example\"]",
            "ttl=null",
            "delivery.rate=100/s",
            "limits.lenght_max=7",
        ];
        let expected = json!({
            "processor": "http", "destination": "https://a.example/?b=c", "lookup": false,
            "limits": {"length_max": 1000, "bytes_max": "1GiB", "lenght_max": "7"},
            "retry": {"schedule": ["10s", "1m"], "jitter": 0.5},
            "delivery": {"reject": [400, 413], "headers": {"X-Version.1": "7"}, "rate": "100/s"},
            "destination_override": ["https://a.example"], "ttl": null,
        });
        assert_eq!(read(&settings).expect("sound"), expected);
        assert_eq!(read(&["retry.schedule="]).expect("sound"), json!({"retry": {"schedule": []}}));
    }

    #[test]
    fn what_is_no_setting_is_a_usage_error() {
        for wrong in ["timeout", "a..b=1", "=1", "retry.schedule=[1", ""] {
            assert_eq!(read(&[wrong]).expect_err(wrong).exit, Exit::Usage, "{wrong}");
        }
        assert_eq!(read(&["timeout=1s", "timeout.x=1"]).expect_err("below a value").exit, Exit::Usage);
    }

    #[test]
    fn a_file_is_toml_or_json() {
        let expected = json!({"processor": "log", "retry": {"schedule": ["1s"]}});
        assert_eq!(read_file("processor = 'log'\nretry.schedule = ['1s']\n"), Ok(expected.clone()));
        assert_eq!(read_file(&expected.to_string()), Ok(expected));
        assert!(read_file("processor = ").is_err() && read_file("{\"a\":1,\"a\":2}").is_err());
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let settings = serde_json::to_value(QueueSettings::default()).expect("plain values");
        let lines = flat(&settings);
        assert!(lines.contains(&("retry.jitter".to_owned(), "0.2".to_owned())), "{lines:?}");
        let mut again = Value::Object(Map::new());
        for (key, text) in lines {
            let value = value(&key, &text).expect("readable");
            put(&mut again, &key, value).expect("a place");
        }
        let again: QueueSettings = serde_json::from_value(again).expect("settings");
        assert_eq!(again, QueueSettings::default());
    }
}
