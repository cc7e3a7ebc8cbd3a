//! How two settings of one queue differ, in words for the log and `/status`: what may be a secret is not shown.

use serde_json::{Map, Value};

use crate::domain::queue::QueueSettings;

/// The longest value that is shown, in characters.
const VALUE_CHARACTERS_MAX: usize = 100;
/// What stands for a value that may be a secret.
const MASKED: &str = "***";
/// What stands for a setting that is absent.
const ABSENT: &str = "nothing";

/// Each setting that differs, by its dotted key: `timeout: "15s", before "30s"`. Empty when none does.
pub(super) fn between(before: &QueueSettings, now: &QueueSettings) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &tree(before), &tree(now), &mut found);
    found
}

fn tree(settings: &QueueSettings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(tree)) => tree,
        _ => unreachable!("settings are a struct of what JSON can write"),
    }
}

fn compare(above: &str, before: &Map<String, Value>, now: &Map<String, Value>, found: &mut Vec<String>) {
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let nothing = Map::new();
    for key in keys {
        let name = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match (before.get(key), now.get(key)) {
            (before, now) if before == now => {}
            (Some(Value::Object(before)), Some(Value::Object(now))) => compare(&name, before, now, found),
            (Some(Value::Object(before)), None) => compare(&name, before, &nothing, found),
            (None, Some(Value::Object(now))) => compare(&name, &nothing, now, found),
            (before, now) => {
                let shown = |value| shown(&name, value);
                found.push(format!("{name}: {}, before {}", shown(now), shown(before)));
            }
        }
    }
}

/// A header may carry a credential under any name, and so may a query.
fn shown(name: &str, value: Option<&Value>) -> String {
    let Some(value) = value else { return ABSENT.to_owned() };
    if name.starts_with("delivery.headers.") || name == "secret" {
        return MASKED.to_owned();
    }
    let text = match (name, value) {
        ("destination", Value::String(url)) => match url.split_once('?') {
            Some((url, _)) => format!("\"{url}?{MASKED}\""),
            None => value.to_string(),
        },
        _ => value.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plain() -> QueueSettings {
        QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() }
    }

    #[test]
    fn the_same_settings_do_not_differ() {
        assert_eq!(between(&plain(), &plain()), [""; 0]);
    }

    #[test]
    fn each_setting_that_differs_is_named_with_both_values() {
        let mut now = plain();
        now.timeout = Duration::from_secs(30);
        now.ttl = Some(Duration::from_hours(1));
        now.limits.length_max = 5;
        now.retry.schedule = vec![Duration::from_secs(1)];
        let schedule = "retry.schedule: [\"1s\"], before [\"5s\",\"30s\",\"2m\",\"10m\",\"30m\",\"1h\",\"3h\",\"6h\",\"12h\",\"1d\",\"1d\"]";
        assert_eq!(
            between(&plain(), &now),
            [
                "limits.length_max: 5, before 1000000",
                schedule,
                "timeout: \"30s\", before \"15s\"",
                "ttl: \"1h\", before nothing",
            ]
        );
        assert_eq!(between(&now, &plain())[3], "ttl: nothing, before \"1h\"");
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let mut before = plain();
        before.destination = Some("https://example.com/hook?token=one".parse().expect("a destination"));
        before.delivery.headers.insert("X-Key".to_owned(), "one".to_owned());
        let mut now = plain();
        now.destination = Some("https://example.com/hook?token=two".parse().expect("a destination"));
        now.delivery.headers.insert("X-Key".to_owned(), "two".to_owned());
        now.delivery.headers.insert("X-Team".to_owned(), "two".to_owned());
        assert_eq!(
            between(&before, &now),
            [
                "delivery.headers.X-Key: ***, before ***",
                "delivery.headers.X-Team: ***, before nothing",
                "destination: \"https://example.com/hook?***\", before \"https://example.com/hook?***\"",
            ]
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut now = plain();
        now.delivery.reject = (400..=599).collect();
        let found = between(&plain(), &now);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("…, before [400,413,415,422,451]"), "{found:?}");
        assert!(found[0].chars().count() < 200, "{found:?}");
    }
}
