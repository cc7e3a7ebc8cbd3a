//! One queue as the API shows it.

use serde::{Deserialize, Serialize};

use crate::api::status::Warning;
use crate::domain::format::secret;
use crate::domain::queue::{ParkReason, QueueName, QueueSettings, Source};

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
    /// Whether it has a secret, which is written and never shown; absent when it has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_set: bool,
    /// What was seen when its settings were set that whoever set them should look at; absent when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Its settings, `processor` first.
    #[serde(flatten)]
    pub settings: QueueSettings,
}

/// What a purge did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purged {
    /// Messages that were pending or scheduled and are gone.
    pub purged: u64,
}

impl Queue {
    /// Puts `***` in the place of what is written and never shown: credentials in `delivery.headers` and `destination`. The secret
    /// is left out.
    #[must_use]
    pub fn masked(mut self) -> Self {
        for (name, value) in &mut self.settings.delivery.headers {
            if secret::is_header(name) {
                secret::MASK.clone_into(value);
            }
        }
        self.settings.secret = None;
        self.settings.destination = self.settings.destination.map(|destination| destination.masked());
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(settings: &Value) -> QueueSettings {
        serde_json::from_value(settings.clone()).expect("valid")
    }

    #[test]
    fn credentials_are_masked_and_all_else_comes_back() {
        let with = |authorization: &str, destination: &str| {
            read(&json!({
                "processor": "http", "destination": destination,
                "delivery": {"headers": {"Authorization": authorization, "X-Team": "***"}},
            }))
        };
        let settings = with("Bearer s3cret", "https://a.example/?x=1&token=s3cret");
        let queue = Queue {
            name: "orders".parse().expect("a name"),
            source: Source::Api,
            paused: false,
            parked: None,
            signed: false,
            secret_set: false,
            warnings: Vec::new(),
            settings,
        };
        let shown = queue.clone().masked();
        assert_eq!(shown.settings.delivery.headers["Authorization"], "***");
        assert_eq!(shown.settings.delivery.headers["X-Team"], "***", "no credential by its name");
        assert_eq!(shown.settings.destination.expect("set").as_str(), "https://a.example/?x=1&token=***");
        let plain = Queue { settings: with("", "https://a.example:8443/@me?x=1"), ..queue };
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
            secret_set: false,
            warnings: Vec::new(),
            settings: read(
                &json!({"processor": "log", "ttl": "1d", "destination_override": ["https://a.example"]}),
            ),
        };
        let value = serde_json::to_value(&queue).expect("serialises");
        for (key, expected) in [
            ("name", json!("orders")),
            ("source", json!("api")),
            ("paused", json!(true)),
            ("parked", json!("dead_full")),
            ("signed", json!(false)),
            ("processor", json!("log")),
            ("timeout", json!("15s")),
            ("ttl", json!("1d")),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        assert!(value.get("destination").is_none());
        assert_eq!(serde_json::from_value::<Queue>(value).expect("valid"), queue);
    }
}
