//! One queue as the API shows it, and the settings of one as a PUT brings them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::api::nearest::hint;
use crate::api::problem::Problem;
use crate::domain::destination::Destination;
use crate::domain::format::{Rate, RatePeriod, secret};
use crate::domain::queue::{DeliverySettings, ParkReason, QueueName, QueueSettings, Source};

/// One queue with its settings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// Who declared it.
    pub source: Source,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Why it parked itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkReason>,
    /// Whether its deliveries are signed.
    pub signed: bool,
    /// Its settings, `processor` first.
    #[serde(flatten)]
    pub settings: QueueSettings,
}

impl Queue {
    /// Puts `***` in the place of what is written and never shown: credentials in `delivery.headers` and `destination`.
    #[must_use]
    pub fn masked(mut self) -> Self {
        for (name, value) in &mut self.settings.delivery.headers {
            if secret::is_header(name) {
                secret::MASK.clone_into(value);
            }
        }
        self.settings.destination = self.settings.destination.map(|destination| destination.masked());
        self
    }
}

/// Reads the settings that a PUT brings: what is absent is as in `defaults`, the operator's `[queue_defaults]` in JSON.
///
/// Whether the processor exists and the destination may be reached is for others to judge.
///
/// # Errors
/// `malformed` for what is no JSON or has a key twice; `secret_needs_file` for a secret; `unknown_field` and
/// `invalid_value` with the pointer; `setting_out_of_range` with pointer and setting, also for a `***` that was shown in the
/// place of a credential and comes back. The first problem only.
pub fn read_settings(body: &[u8], defaults: &Value) -> Result<QueueSettings, Box<Problem>> {
    let given =
        json::parse(body).map_err(|error| Box::new(Problem::new(Code::Malformed, error.to_string())))?;
    if !given.is_object() {
        return Err(invalid(
            "",
            "a queue's settings are a JSON object, like {\"processor\":\"log\"}".to_owned(),
        ));
    }
    for key in ["secret", "secret_file", "secret_env"] {
        if given.get(key).is_some() {
            let detail = "deliveries are not signed in this version, so a queue takes no secret, neither by the API nor \
                          from the configuration file: leave it out";
            return Err(Box::new(Problem {
                pointer: Some(format!("/{key}")),
                setting: Some(key.into()),
                ..Problem::new(Code::SecretNeedsFile, detail)
            }));
        }
    }
    check_fields(&given, &every_setting(), "")?;
    check_masks(&given)?;
    let mut merged = defaults.clone();
    merge(&mut merged, &given, &every_setting());
    let settings: QueueSettings = serde_json::from_value(merged)
        .map_err(|error| first_invalid(&given, &every_setting(), defaults, &error))?;
    match settings.problems().into_iter().next() {
        None => Ok(settings),
        Some(problem) => Err(out_of_range(problem.key, &problem.detail)),
    }
}

/// A setting that cannot be: which, and what is allowed.
#[must_use]
pub fn out_of_range(setting: &str, detail: &str) -> Box<Problem> {
    Box::new(Problem {
        pointer: Some(format!("/{}", setting.replace('.', "/"))),
        setting: Some(setting.to_owned().into()),
        ..Problem::new(Code::SettingOutOfRange, format!("{setting}: {detail}"))
    })
}

fn invalid(pointer: &str, detail: String) -> Box<Problem> {
    Box::new(Problem { pointer: Some(pointer.to_owned()), ..Problem::new(Code::InvalidValue, detail) })
}

/// Settings in which every key has a value, so that its JSON names them all.
fn every_setting() -> Value {
    let example: Destination = "https://example.com/".parse().expect("a URL");
    let second = std::time::Duration::from_secs(1);
    let settings = QueueSettings {
        destination: Some(example),
        lease: Some(second),
        ttl: Some(second),
        delivery: DeliverySettings { rate: Rate::new(1, RatePeriod::Second), ..DeliverySettings::default() },
        ..QueueSettings::default()
    };
    serde_json::to_value(settings).expect("settings are plain values")
}

/// A section is an object with keys of its own; a map that an operator fills (`delivery.headers`) has none.
fn is_section(known: &Value) -> bool {
    known.as_object().is_some_and(|fields| !fields.is_empty())
}

fn check_fields(given: &Value, known: &Value, at: &str) -> Result<(), Box<Problem>> {
    let (Value::Object(given), Value::Object(fields)) = (given, known) else {
        return Ok(());
    };
    for (name, value) in given {
        let pointer = json::pointer(at, name);
        let Some(known) = fields.get(name) else {
            let hint = hint(name, fields.keys().map(String::as_str));
            let detail = format!("{pointer} is not a setting of a queue{hint}");
            let problem = Problem { pointer: Some(pointer), ..Problem::new(Code::UnknownField, detail) };
            return Err(Box::new(problem));
        };
        if is_section(known) && !value.is_object() {
            let names: Vec<_> =
                known.as_object().into_iter().flat_map(|fields| fields.keys()).cloned().collect();
            let detail = format!("{pointer} is an object with some of these fields: {}", names.join(", "));
            return Err(invalid(&pointer, detail));
        }
        if is_section(known) {
            check_fields(value, known, &pointer)?;
        }
    }
    Ok(())
}

/// Refuses what was shown in the place of a credential: taken for the value, it would silently replace it.
fn check_masks(given: &Value) -> Result<(), Box<Problem>> {
    let why = "is what is shown in the place of a credential: send the credential itself";
    let headers = given.pointer("/delivery/headers").and_then(Value::as_object);
    for (name, value) in headers.into_iter().flatten() {
        if value == secret::MASK && secret::is_header(name) {
            let pointer = json::pointer("/delivery/headers", name);
            let detail = format!("{pointer}: {:?} {why}", secret::MASK);
            let problem = Problem { pointer: Some(pointer), ..*out_of_range("delivery.headers", &detail) };
            return Err(Box::new(problem));
        }
    }
    let destination = given.get("destination").and_then(Value::as_str);
    if destination.is_some_and(secret::is_masked_destination) {
        return Err(out_of_range("destination", &format!("{:?} in its query {why}", secret::MASK)));
    }
    Ok(())
}

/// Puts what is given over the defaults, key by key within sections.
fn merge(into: &mut Value, given: &Value, known: &Value) {
    match (into, given) {
        (Value::Object(into), Value::Object(given)) if is_section(known) => {
            for (name, value) in given {
                merge(into.entry(name.clone()).or_insert(Value::Null), value, &known[name]);
            }
        }
        (into, given) => *into = given.clone(),
    }
}

/// Which of the given values is it that cannot be read: each is tried alone over the defaults.
fn first_invalid(given: &Value, known: &Value, defaults: &Value, error: &serde_json::Error) -> Box<Problem> {
    let mut leaves = Vec::new();
    collect_leaves(given, known, "", &mut leaves);
    for (pointer, value) in leaves {
        let mut alone = value.clone();
        for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
            alone = serde_json::json!({ part: alone });
        }
        let mut merged = defaults.clone();
        merge(&mut merged, &alone, known);
        if let Err(error) = serde_json::from_value::<QueueSettings>(merged) {
            let reason = match pointer.as_str() {
                "/destination_override" => "write \"none\", \"any\", or a list of origins".to_owned(),
                _ => error.to_string(),
            };
            return invalid(&pointer, format!("{pointer}: {reason}"));
        }
    }
    invalid("", error.to_string())
}

fn collect_leaves<'v>(given: &'v Value, known: &Value, at: &str, leaves: &mut Vec<(String, &'v Value)>) {
    match given {
        Value::Object(fields) if is_section(known) => {
            for (name, value) in fields {
                collect_leaves(value, &known[name], &json::pointer(at, name), leaves);
            }
        }
        _ => leaves.push((at.to_owned(), given)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn defaults() -> Value {
        json!({"timeout": "20s", "retry": {"jitter": 0.5}, "delivery": {"headers": {"x-from": "us"}}})
    }

    fn read(body: &Value) -> Result<QueueSettings, Box<Problem>> {
        read_settings(body.to_string().as_bytes(), &defaults())
    }

    #[test]
    fn what_is_absent_is_the_operators_default_and_then_the_products() {
        let body =
            json!({"processor": "log", "retry": {"schedule": ["1s"]}, "limits": {"payload_max": "2MiB"}});
        let settings = read(&body).expect("valid");
        assert_eq!(settings.timeout, Duration::from_secs(20));
        assert!((settings.retry.jitter - 0.5).abs() < f64::EPSILON);
        assert_eq!(settings.retry.schedule, [Duration::from_secs(1)]);
        assert_eq!(settings.limits.payload_max, 2 << 20);
        assert_eq!(settings.limits.length_max, 1_000_000);
        assert_eq!(settings.delivery.headers["x-from"], "us");
        let replaced =
            read(&json!({"processor": "log", "delivery": {"headers": {"x-to": "you"}}})).expect("valid");
        assert_eq!(replaced.delivery.headers.len(), 1);
        let null = read(&json!({"processor": "log", "ttl": null, "destination": null})).expect("valid");
        assert_eq!((null.ttl, null.destination), (None, None));
    }

    #[test]
    fn each_refusal_has_its_code_and_pointer() {
        for (body, code, pointer, words) in [
            ("{", Code::Malformed, None, "EOF"),
            (r#"{"processor":"log","processor":"log"}"#, Code::Malformed, None, "there twice"),
            ("[]", Code::InvalidValue, Some(""), "a JSON object"),
            (r#"{"secret":"whsec_x"}"#, Code::SecretNeedsFile, Some("/secret"), "not signed in this version"),
            (r#"{"secret_file":"/etc/x"}"#, Code::SecretNeedsFile, Some("/secret_file"), "leave it out"),
            (
                r#"{"delivery":{"headers":{"X-Team":"***","Authorization":"***"}}}"#,
                Code::SettingOutOfRange,
                Some("/delivery/headers/Authorization"),
                "send the credential itself",
            ),
            (
                r#"{"destination":"https://a.example/?x=1&token=***"}"#,
                Code::SettingOutOfRange,
                Some("/destination"),
                "send the credential itself",
            ),
            (r#"{"procesor":"log"}"#, Code::UnknownField, Some("/procesor"), r#"did you mean "processor"?"#),
            (
                r#"{"retry":{"shedule":[]}}"#,
                Code::UnknownField,
                Some("/retry/shedule"),
                r#"did you mean "schedule"?"#,
            ),
            (r#"{"a/b":1}"#, Code::UnknownField, Some("/a~1b"), "is not a setting"),
            (r#"{"processor":1}"#, Code::InvalidValue, Some("/processor"), "expected a string"),
            (r#"{"timeout":15}"#, Code::InvalidValue, Some("/timeout"), "has no unit"),
            (r#"{"timeout":"15"}"#, Code::InvalidValue, Some("/timeout"), "has no unit"),
            (r#"{"timeout":null}"#, Code::InvalidValue, Some("/timeout"), ""),
            (r#"{"retry":5}"#, Code::InvalidValue, Some("/retry"), ""),
            (r#"{"retry":null}"#, Code::InvalidValue, Some("/retry"), ""),
            (
                r#"{"retry":{"schedule":["1s",2]}}"#,
                Code::InvalidValue,
                Some("/retry/schedule"),
                "has no unit",
            ),
            (
                r#"{"limits":{"payload_max":"1MB"}}"#,
                Code::InvalidValue,
                Some("/limits/payload_max"),
                "unknown unit",
            ),
            (r#"{"limits":[5,6,7]}"#, Code::InvalidValue, Some("/limits"), "is an object"),
            (r#"{"retry":[["1s"],0.5]}"#, Code::InvalidValue, Some("/retry"), "is an object"),
            (r#"{"dead":[]}"#, Code::InvalidValue, Some("/dead"), "is an object"),
            (r#"{"limits":{"length_max":-1}}"#, Code::InvalidValue, Some("/limits/length_max"), ""),
            (r#"{"limits":{"length_max":1e30}}"#, Code::InvalidValue, Some("/limits/length_max"), ""),
            (r#"{"delivery":{"rate":"5"}}"#, Code::InvalidValue, Some("/delivery/rate"), ""),
            (
                r#"{"delivery":{"headers":{"a":1}}}"#,
                Code::InvalidValue,
                Some("/delivery/headers"),
                "expected a string",
            ),
            (r#"{"destination":"ftp://x.example/"}"#, Code::InvalidValue, Some("/destination"), "scheme"),
            (
                r#"{"destination_override":"all"}"#,
                Code::InvalidValue,
                Some("/destination_override"),
                "list of origins",
            ),
            (r#"{"priority":"urgent"}"#, Code::InvalidValue, Some("/priority"), "urgent"),
            (
                r#"{"processor":"log","timeout":"16m"}"#,
                Code::SettingOutOfRange,
                Some("/timeout"),
                "100ms to 15m",
            ),
            (r#"{"processor":"log","shards":2}"#, Code::SettingOutOfRange, Some("/shards"), "only 1"),
            (
                r#"{"processor":"log","retry":{"jitter":2}}"#,
                Code::SettingOutOfRange,
                Some("/retry/jitter"),
                "0 to 1",
            ),
            ("{}", Code::SettingOutOfRange, Some("/processor"), "is required"),
            (r#"{"processor":"http"}"#, Code::SettingOutOfRange, Some("/destination"), "is required"),
        ] {
            let problem = read_settings(body.as_bytes(), &defaults()).expect_err(body);
            assert_eq!(problem.known_code(), Some(code), "{body}: {problem:?}");
            assert_eq!(problem.pointer.as_deref(), pointer, "{body}");
            assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
        }
        let problem = read(&json!({"processor": "log", "retry": {"jitter": 2}})).expect_err("out of range");
        assert_eq!(problem.setting.as_deref(), Some("retry.jitter"));
    }

    #[test]
    fn every_setting_can_be_given_and_comes_back() {
        let mut body = every_setting();
        body["processor"] = json!("log");
        let settings = read(&body).expect("valid");
        assert_eq!(serde_json::to_value(&settings).expect("serialises"), body);
    }

    #[test]
    fn credentials_are_masked_and_all_else_comes_back() {
        let with = |authorization: &str, destination: &str| {
            read(&json!({
                "processor": "http", "destination": destination,
                "delivery": {"headers": {"Authorization": authorization, "X-Team": "***"}},
            }))
        };
        let settings = with("Bearer s3cret", "https://a.example/?x=1&token=s3cret").expect("valid");
        let queue = Queue {
            name: "orders".parse().expect("a name"),
            source: Source::Api,
            paused: false,
            parked: None,
            signed: false,
            settings,
        };
        let shown = queue.clone().masked();
        assert_eq!(shown.settings.delivery.headers["Authorization"], "***");
        assert_eq!(shown.settings.delivery.headers["X-Team"], "***", "no credential by its name");
        assert_eq!(shown.settings.destination.expect("set").as_str(), "https://a.example/?x=1&token=***");
        let plain = Queue { settings: with("", "https://a.example:8443/@me?x=1").expect("valid"), ..queue };
        let shown = plain.clone().masked();
        assert_eq!(shown.settings.destination, plain.settings.destination);
    }

    #[test]
    fn a_queue_is_written_flat_and_read_back() {
        let queue = Queue {
            name: "orders".parse().expect("a name"),
            source: Source::Api,
            paused: true,
            parked: Some(ParkReason::DeadFull),
            signed: false,
            settings: read(
                &json!({"processor": "log", "ttl": "1d", "destination_override": ["https://a.example"]}),
            )
            .expect("valid"),
        };
        let value = serde_json::to_value(&queue).expect("serialises");
        for (key, expected) in [
            ("name", json!("orders")),
            ("source", json!("api")),
            ("paused", json!(true)),
            ("parked", json!("dead_full")),
            ("signed", json!(false)),
            ("processor", json!("log")),
            ("timeout", json!("20s")),
            ("ttl", json!("1d")),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        assert!(value.get("destination").is_none());
        assert_eq!(serde_json::from_value::<Queue>(value).expect("valid"), queue);
    }
}
