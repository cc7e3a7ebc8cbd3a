//! The settings of a queue as a PUT or a PATCH brings them, read strictly.

mod reader;

use serde_json::{Map, Value};

use self::reader::Mistake;
use crate::api::code::Code;
use crate::api::json;
use crate::api::mistake;
use crate::api::nearest::hint;
use crate::api::problem::Problem;
use crate::api::queue::Queue;
use crate::api::status::Warning;
use crate::domain::destination::Destination;
use crate::domain::format::{Rate, RatePeriod, secret};
use crate::domain::queue::{DeliverySettings, QueueName, QueueSettings};
use crate::domain::secret::{SecretSetting, SecretText};

/// What a queue shows beside its settings, and how it is changed.
const SHOWN: [(&str, &str); 8] = [
    ("name", "the path names the queue"),
    ("source", "whoever declared the queue is its source"),
    ("paused", "POST to the queue's /pause or /resume"),
    ("parked", "it parks by itself; POST to the queue's /resume lets it go on"),
    ("signed", "it follows from the queue's secret"),
    ("secret_set", "it follows from the queue's secret"),
    ("secret_file", NEEDS_FILE),
    ("secret_env", NEEDS_FILE),
];

/// Why the API takes neither a path nor the name of a variable: it would let its callers read the gateway's machine.
const NEEDS_FILE: &str = "only the configuration file may say where a secret is; here give the secret itself, as secret, or POST to \
                          the queue's /secret, and null for secret takes away whatever there is";

/// The settings that a request brings: an object whose every field is known.
#[derive(Clone, PartialEq, Debug)]
pub struct SettingsGiven {
    settings: Value,
    /// What is shown and not set, as it was given.
    shown: Map<String, Value>,
    secret: Option<SecretGiven>,
}

/// What a request says of a queue's secret.
#[derive(Clone, PartialEq, Debug)]
pub enum SecretGiven {
    /// There is to be none.
    Remove,
    /// It is to be this one. What it is worth is for others to judge.
    Text(SecretText),
}

impl SettingsGiven {
    /// Reads those of a PUT.
    ///
    /// # Errors
    /// `malformed` for what is no JSON or has a key twice; `unknown_field` and `invalid_value` with the pointer. The first problem only.
    pub fn of_put(body: &[u8]) -> Result<Self, Box<Problem>> {
        Self::read(body, false)
    }

    /// Reads those of a PATCH, in which null stands for the default.
    ///
    /// # Errors
    /// As for a PUT.
    pub fn of_patch(body: &[u8]) -> Result<Self, Box<Problem>> {
        Self::read(body, true)
    }

    fn read(body: &[u8], may_be_null: bool) -> Result<Self, Box<Problem>> {
        let settings =
            json::parse(body).map_err(|error| Box::new(Problem::new(Code::Malformed, error.to_string())))?;
        let Value::Object(mut settings) = settings else {
            let detail = "a queue's settings are a JSON object, like {\"processor\":\"log\"}";
            return Err(invalid("", detail.to_owned()));
        };
        let secret = match settings.remove("secret") {
            None => None,
            Some(Value::Null) => Some(SecretGiven::Remove),
            Some(Value::String(text)) => Some(SecretGiven::Text(text.into())),
            Some(_) => return Err(invalid("/secret", "/secret is a text, or null (not shown)".to_owned())),
        };
        // What an answer warned of may come back with it: it says nothing of what is to be.
        if let Some(warnings) = settings.remove("warnings") {
            let warnings: Result<Vec<Warning>, _> = serde_json::from_value(warnings);
            warnings.map_err(|_| {
                let detail = "/warnings is shown and not set here: leave it out, or as it was shown";
                invalid("/warnings", detail.to_owned())
            })?;
        }
        let shown = SHOWN.iter().filter_map(|(name, _)| settings.remove_entry(*name)).collect();
        let settings = Value::Object(settings);
        check_fields(&settings, &every_setting(), "", may_be_null)?;
        Ok(Self { settings, shown, secret })
    }

    /// What is said of the secret; `None` when nothing is, so that it stays as it is.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretGiven> {
        self.secret.as_ref()
    }

    /// Whether something is given that only what the queue is now can be held against.
    #[must_use]
    pub fn has_shown(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Lets pass what a queue shows beside its settings when it is given back as it is, and nothing else. `now` is the queue
    /// as it is shown; `None` when there is none yet.
    ///
    /// # Errors
    /// `invalid_value` with the pointer, saying what would change it; `secret_needs_file` for where a secret is.
    pub fn check_shown(&self, name: &QueueName, now: Option<&Queue>) -> Result<(), Box<Problem>> {
        let now = now.and_then(|queue| serde_json::to_value(queue).ok()).unwrap_or_else(
            || serde_json::json!({"name": name, "source": "api", "paused": false, "signed": false}),
        );
        for (field, given) in &self.shown {
            if now.get(field).unwrap_or(&Value::Null) != given {
                let how = SHOWN.iter().find(|(name, _)| name == field).map_or("", |(_, how)| how);
                let detail =
                    format!("/{field} is shown and not set here: leave it out, or as it is shown; {how}");
                let problem = invalid(&format!("/{field}"), detail);
                let is_secret = ["secret_file", "secret_env"].contains(&field.as_str());
                return Err(if is_secret { needs_file(field, &problem.detail) } else { problem });
            }
        }
        Ok(())
    }

    /// The settings that a PUT makes: what is absent is as in `defaults`, the operator's `[queue_defaults]` in JSON.
    ///
    /// Whether the processor exists and the destination may be reached is for others to judge.
    ///
    /// # Errors
    /// `invalid_value` with the pointer; `setting_out_of_range` with pointer and setting, also for a `***` that was shown in
    /// the place of a credential and comes back. The first problem only.
    pub fn put(&self, defaults: &Value) -> Result<QueueSettings, Box<Problem>> {
        check_masks(&self.settings)?;
        over(&self.settings, |given| {
            let mut merged = defaults.clone();
            merge(&mut merged, given, &every_setting());
            merged
        })
    }

    /// The settings that a PATCH makes of those that are: what is absent stays, also within a section, and so do headers of
    /// `delivery.headers` by their names. Null removes a header and unsets what may be absent; elsewhere it stands for the
    /// default, the operator's and then the product's. A `***` where that is what is shown leaves the credential as it is.
    ///
    /// # Errors
    /// As for a PUT.
    pub fn patch(&self, settings: &QueueSettings, defaults: &Value) -> Result<QueueSettings, Box<Problem>> {
        let mut given = self.settings.clone();
        leave_masked(&mut given, settings);
        check_masks(&given)?;
        let now = to_value(settings);
        over(&given, |given| {
            let mut changed = now.clone();
            change(
                &mut changed,
                given,
                &every_setting(),
                &to_value(&QueueSettings::default()),
                Some(defaults),
            );
            changed
        })
    }
}

fn to_value(settings: &QueueSettings) -> Value {
    serde_json::to_value(settings).expect("settings are plain values")
}

/// Reads what `merged` makes of the given settings.
fn over(given: &Value, merged: impl Fn(&Value) -> Value) -> Result<QueueSettings, Box<Problem>> {
    let settings: QueueSettings = reader::read(&merged(given))
        .map_err(|mistake| first_invalid(given, &every_setting(), merged, &mistake))?;
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

/// A secret that cannot come by this way.
#[must_use]
pub fn needs_file(field: &str, detail: &str) -> Box<Problem> {
    Box::new(Problem {
        pointer: Some(format!("/{field}")),
        setting: Some(field.to_owned().into()),
        ..Problem::new(Code::SecretNeedsFile, detail)
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
        secret: Some(SecretSetting::Declared),
        delivery: DeliverySettings { rate: Rate::new(1, RatePeriod::Second), ..DeliverySettings::default() },
        ..QueueSettings::default()
    };
    to_value(&settings)
}

/// A section is an object with keys of its own; a map that an operator fills (`delivery.headers`) has none.
fn is_section(known: &Value) -> bool {
    known.as_object().is_some_and(|fields| !fields.is_empty())
}

fn check_fields(given: &Value, known: &Value, at: &str, may_be_null: bool) -> Result<(), Box<Problem>> {
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
        if may_be_null && value.is_null() {
            continue;
        }
        if is_section(known) && !value.is_object() {
            let names: Vec<_> =
                known.as_object().into_iter().flat_map(|fields| fields.keys()).cloned().collect();
            let detail = format!("{pointer} is an object with some of these fields: {}", names.join(", "));
            return Err(invalid(&pointer, detail));
        }
        if is_section(known) {
            check_fields(value, known, &pointer, may_be_null)?;
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

/// Takes out of a change what was shown in the place of a credential that is there: it stays.
fn leave_masked(given: &mut Value, settings: &QueueSettings) {
    let is_there =
        |name: &str| settings.delivery.headers.keys().any(|known| known.eq_ignore_ascii_case(name));
    if let Some(headers) = given.pointer_mut("/delivery/headers").and_then(Value::as_object_mut) {
        headers.retain(|name, value| !(value == secret::MASK && secret::is_header(name) && is_there(name)));
    }
    let shown = settings.destination.as_ref().map(Destination::masked);
    let destination = given.get("destination").and_then(Value::as_str);
    if destination.is_some_and(secret::is_masked_destination)
        && destination == shown.as_ref().map(Destination::as_str)
        && let Some(given) = given.as_object_mut()
    {
        given.remove("destination");
    }
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

/// Puts what a PATCH gives over what is. `known` has every key, `least` those that are never absent.
fn change(into: &mut Value, given: &Value, known: &Value, least: &Value, defaults: Option<&Value>) {
    let (Value::Object(into), Value::Object(given)) = (into, given) else { return };
    for (name, value) in given {
        let (known, may_be_absent) = (&known[name], least.get(name).is_none());
        let default = defaults.and_then(|defaults| defaults.get(name));
        match (value, default) {
            (Value::Null, Some(default)) if !may_be_absent => {
                into.insert(name.clone(), default.clone());
            }
            (Value::Null, _) => {
                into.remove(name);
            }
            (Value::Object(_), _) if is_section(known) => {
                let section = into.entry(name.clone()).or_insert_with(|| Map::new().into());
                change(section, value, known, &least[name], default);
            }
            (Value::Object(names), _) if known.is_object() => {
                let map = into.entry(name.clone()).or_insert_with(|| Map::new().into());
                change_names(map, names);
            }
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Puts headers over those that are there, whatever the case of their names; null removes one.
fn change_names(into: &mut Value, given: &Map<String, Value>) {
    let Value::Object(into) = into else { return };
    for (name, value) in given {
        into.retain(|known, _| !known.eq_ignore_ascii_case(name));
        if !value.is_null() {
            into.insert(name.clone(), value.clone());
        }
    }
}

/// Which of the given values is it that cannot be read: each is tried alone.
fn first_invalid(
    given: &Value,
    known: &Value,
    merged: impl Fn(&Value) -> Value,
    mistake: &Mistake,
) -> Box<Problem> {
    let mut leaves = Vec::new();
    collect_leaves(given, known, "", &mut leaves);
    for (pointer, value) in leaves {
        let mut alone = value.clone();
        for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
            alone = serde_json::json!({ part: alone });
        }
        if let Err(Mistake { detail, no_count }) = reader::read::<QueueSettings>(&merged(&alone)) {
            let range = QueueSettings::count_range(&pointer[1..].replace('/', "."));
            let count = no_count.zip(range).map(|(found, range)| mistake::within(range, &found));
            return invalid(&pointer, format!("{pointer}: {}", count.unwrap_or(detail)));
        }
    }
    invalid("", mistake.to_string())
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
mod tests;
