//! What can be set for one queue, and the product's defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::destination::{Destination, parse_origin};
use crate::domain::format::{Rate, bytes, duration, secret};
use crate::domain::message::Priority;
use crate::domain::secret::SecretSetting;

/// The name of the processor that hands messages to pulling consumers.
pub const PULL: &str = "pull";
/// The name of the processor that pushes messages to a destination.
pub const HTTP: &str = "http";

/// What happens to a message that would exceed the dead letters' limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Stop leasing; publishing goes on.
    #[default]
    Park,
    /// Discard the oldest dead letters.
    Trim,
}

/// `retry.*`: when the next attempt comes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// The delay after each failed attempt; attempts = entries + 1. At most 99 entries of at most 24 h.
    #[serde(with = "duration::list")]
    pub schedule: Vec<Duration>,
    /// How far a delay is spread around its value, 0–1: 0.2 means 80 % to 120 %.
    pub jitter: f64,
}

/// `limits.*`: what a queue may hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Messages pending, scheduled and leased, 1–10⁹.
    pub length_max: u64,
    /// Bytes of payload and headers pending, scheduled and leased, up to 1 TiB.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// Bytes of one payload, up to 16 MiB.
    #[serde(with = "bytes")]
    pub payload_max: u64,
}

/// `dead.*`: the dead letters.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadSettings {
    /// Dead letters kept.
    pub length_max: u64,
    /// Their bytes of payload and headers.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// How long they are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// What happens beyond the limits.
    pub when_full: WhenFull,
}

/// `history.*`: what is remembered of messages that ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Finished messages remembered.
    pub finished_max: u64,
    /// Attempts remembered of a message.
    pub attempts: u8,
    /// How long.
    #[serde(with = "duration")]
    pub retention: Duration,
}

/// `idempotency.*`: keys of publishes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdempotencySettings {
    /// How long a key is remembered from its first 202, up to 24 h.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Keys remembered at most.
    pub keys_max: u64,
}

/// `delivery.*`: how messages are pushed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// Deliveries of this queue in flight at once, per gateway.
    pub concurrency_max: u32,
    /// Deliveries begun per second, minute or hour, per gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Statuses that mean: never.
    pub reject: Vec<u16>,
    /// HTTP method.
    pub method: String,
    /// Headers added to every delivery.
    pub headers: BTreeMap<String, String>,
    /// Whether `Posthaste-Forward-Authorization` and `-Cookie` are passed on.
    pub forward_credentials: bool,
}

/// `answer.*`: what is read and kept of a receiver's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerSettings {
    /// Bytes read before the connection is dropped, up to 1 MiB.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// Bytes kept in the attempt log, up to 1 MiB.
    #[serde(with = "bytes")]
    pub excerpt_max: u64,
}

/// Everything that can be set for one queue. The defaults are the product's; `config/default.toml` explains each.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// What is done with a message: `log`, `http`, `pull`, or the name of a registered function.
    pub processor: String,
    /// Where `http` pushes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// Whether a message may bring its own destination.
    pub destination_override: DestinationOverride,
    /// The longest attempt, 100 ms–15 min.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The longest wait for a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long a lease lasts before it must be extended, 1 s–12 h; absent: time-out + 15 s, for `pull` 30 s.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// Whether messages can be found by id while they are pending.
    pub lookup: bool,
    /// Reserved: 1.
    pub shards: u16,
    /// How long a message may wait for an attempt, up to 30 d.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Priority of what names none.
    pub priority: Priority,
    /// What deliveries are signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSetting>,
    /// A file that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// An environment variable that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// How long a secret holds after another one followed it, up to 30 d.
    #[serde(with = "duration")]
    pub secret_overlap: Duration,
    /// Retries.
    pub retry: RetrySettings,
    /// Limits.
    pub limits: LimitSettings,
    /// Dead letters.
    pub dead: DeadSettings,
    /// History.
    pub history: HistorySettings,
    /// Idempotency keys.
    pub idempotency: IdempotencySettings,
    /// Delivery.
    pub delivery: DeliverySettings,
    /// Answers.
    pub answer: AnswerSettings,
}

/// `destination_override`: which destinations a message may bring.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DestinationOverride {
    /// `"none"`.
    #[default]
    None,
    /// `"any"` that the egress guard lets through.
    Any,
    /// These origins, in their one spelling.
    Origins(Vec<String>),
}

impl DestinationOverride {
    /// Whether a message may bring this destination. The egress guard has a say of its own.
    #[must_use]
    pub fn allows(&self, destination: &Destination) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Origins(origins) => origins.contains(&destination.origin()),
        }
    }
}

impl Serialize for DestinationOverride {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Any => serializer.serialize_str("any"),
            Self::Origins(origins) => origins.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DestinationOverride {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OverrideVisitor)
    }
}

/// Reads a word or a list; by hand, because a derived untagged enum cannot say what is allowed.
struct OverrideVisitor;

impl<'de> de::Visitor<'de> for OverrideVisitor {
    type Value = DestinationOverride;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("none, any or a list of origins")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<DestinationOverride, E> {
        match word {
            "none" => Ok(DestinationOverride::None),
            "any" => Ok(DestinationOverride::Any),
            _ => Err(E::invalid_value(de::Unexpected::Str(&secret::unreadable(word)), &self)),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<DestinationOverride, A::Error> {
        let list: Vec<String> = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
        // What is no origin is named with all else that is out of its range.
        let origins = list.into_iter().map(|text| parse_origin(&text).unwrap_or(text));
        Ok(DestinationOverride::Origins(origins.collect()))
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Default for RetrySettings {
    fn default() -> Self {
        let schedule = [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 86_400];
        Self { schedule: schedule.into_iter().map(seconds).collect(), jitter: 0.2 }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { length_max: 1_000_000, bytes_max: 1 << 30, payload_max: 1 << 20 }
    }
}

impl Default for DeadSettings {
    fn default() -> Self {
        let retention = seconds(30 * 86_400);
        Self { length_max: 100_000, bytes_max: 1 << 30, retention, when_full: WhenFull::Park }
    }
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { finished_max: 10_000, attempts: 20, retention: seconds(7 * 86_400) }
    }
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        Self { window: seconds(600), keys_max: 1_000_000 }
    }
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            concurrency_max: 64,
            rate: None,
            reject: vec![400, 413, 415, 422, 451],
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            forward_credentials: true,
        }
    }
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { bytes_max: 16 << 10, excerpt_max: 4 << 10 }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            processor: String::new(),
            destination: None,
            destination_override: DestinationOverride::None,
            timeout: seconds(15),
            connect_timeout: seconds(5),
            lease: None,
            lookup: true,
            shards: 1,
            ttl: None,
            priority: Priority::Normal,
            secret: None,
            secret_file: None,
            secret_env: None,
            secret_overlap: seconds(86_400),
            retry: RetrySettings::default(),
            limits: LimitSettings::default(),
            dead: DeadSettings::default(),
            history: HistorySettings::default(),
            idempotency: IdempotencySettings::default(),
            delivery: DeliverySettings::default(),
            answer: AnswerSettings::default(),
        }
    }
}

impl QueueSettings {
    /// Whether consumers pull from the queue, so that no worker drains it.
    #[must_use]
    pub fn is_pull(&self) -> bool {
        self.processor == PULL
    }

    /// Whether messages may bring destinations of their own.
    #[must_use]
    pub fn takes_destinations(&self) -> bool {
        self.destination_override != DestinationOverride::None
    }

    /// How long a lease lasts before it must be extended.
    #[must_use]
    pub fn lease(&self) -> Duration {
        let absent = if self.is_pull() { seconds(30) } else { self.timeout + seconds(15) };
        self.lease.unwrap_or(absent)
    }

    /// Attempts that the retry schedule allows: entries + 1.
    #[must_use]
    pub fn attempts_max(&self) -> u8 {
        u8::try_from(self.retry.schedule.len() + 1).unwrap_or(u8::MAX)
    }
    /// Whether deliveries are signed: there is a secret, wherever it is.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some() || self.secret_env.is_some()
    }

    /// Takes over where the secret is from others, if it names none itself.
    #[must_use]
    pub fn keeping_secret_of(self: Arc<Self>, before: &Self) -> Arc<Self> {
        if self.is_signed() || !before.is_signed() {
            return self;
        }
        let (secret, secret_file) = (before.secret.clone(), before.secret_file.clone());
        let secret_env = before.secret_env.clone();
        Arc::new(Self { secret, secret_file, secret_env, ..Self::clone(&self) })
    }
}
