//! `[server]`: where the gateway listens and what it takes from strangers.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::format::{FormatError, bytes, duration, range};
use crate::domain::queue::SettingProblem;
use crate::pipeline::consumers::ConsumerLimits;

const DAY: Duration = Duration::from_hours(24);

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8080`. Port 0 takes a free one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for ListenAddress {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let problem = "is not an address to listen on: write ip:port, like 127.0.0.1:8080 or [::1]:8080";
        text.parse().map(Self).map_err(|_| FormatError::new(text, problem))
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The most threads that serve HTTP: what the server can start.
const THREADS_MAX: u16 = 512;

/// The settings of the HTTP server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: ListenAddress,
    /// How long attempts in flight may go on after the first signal to stop, up to 1 h.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// Threads that serve HTTP, up to 512; 0: half the cores, at least one.
    pub threads: u16,
    /// Whether to listen beyond loopback although nobody is asked for a key.
    pub insecure_no_auth: bool,
    /// Limits over all queues.
    pub limits: ServerLimits,
}

/// `[server.limits]`: what one request, and all of them together, may take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Connections open at once, 1–1,000,000.
    pub connections_max: u32,
    /// Headers of a request, 1–96.
    pub head_headers_max: u16,
    /// Bytes of a request's head, 1 KiB–128 KiB.
    #[serde(with = "bytes")]
    pub head_bytes_max: u64,
    /// Bytes of a request's target, 256 B–64 KiB.
    #[serde(with = "bytes")]
    pub uri_bytes_max: u64,
    /// How long a head may take to arrive, 100 ms–10 min.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests, 100 ms–1 h.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long a body may take to arrive, 100 ms–1 h.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Bytes a second that a body must bring on average once `body_rate_after` has passed, up to 1 GiB; 0: any.
    #[serde(with = "bytes")]
    pub body_bytes_per_s_min: u64,
    /// How long a body may be slower than that, up to 1 h.
    #[serde(with = "duration")]
    pub body_rate_after: Duration,
    /// Bytes of bodies in memory over all requests, 1 MiB–1 TiB.
    #[serde(with = "bytes")]
    pub bodies_bytes_max: u64,
    /// Bytes of payloads in answers over all requests, 1 MiB–1 TiB; one may exceed it alone.
    #[serde(with = "bytes")]
    pub answers_bytes_max: u64,
    /// Bytes a second at which an answer must be taken on average once 10 s have passed, up to 1 GiB; 0: any.
    #[serde(with = "bytes")]
    pub answer_bytes_per_s_min: u64,
    /// Publishes that wait for the store at once, 1–1,000,000.
    pub publishes_in_flight_max: u32,
    /// Requests of pulling consumers under way at once, those that wait included, 1–1,000,000.
    pub consumers_max: u32,
    /// Messages of a batch, 1–10,000.
    pub batch_messages_max: u32,
    /// Bytes of a batch, 1 KiB–64 MiB.
    #[serde(with = "bytes")]
    pub batch_bytes_max: u64,
    /// The longest delay a publish may ask for, up to 30 d.
    #[serde(with = "duration")]
    pub delay_max: Duration,
    /// The longest TTL a publish may ask for, 1 ms–30 d.
    #[serde(with = "duration")]
    pub ttl_max: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: ListenAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
            grace: Duration::from_secs(20),
            threads: 0,
            insecure_no_auth: false,
            limits: ServerLimits::default(),
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_headers_max: 64,
            head_bytes_max: 32 << 10,
            uri_bytes_max: 8 << 10,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            body_bytes_per_s_min: 1 << 10,
            body_rate_after: Duration::from_secs(5),
            bodies_bytes_max: 64 << 20,
            answers_bytes_max: 64 << 20,
            answer_bytes_per_s_min: 16 << 10,
            publishes_in_flight_max: 4_096,
            consumers_max: 5_000,
            batch_messages_max: 1_000,
            batch_bytes_max: 8 << 20,
            delay_max: 30 * DAY,
            ttl_max: 30 * DAY,
        }
    }
}

impl ServerLimits {
    /// What is about consumers.
    #[must_use]
    pub const fn consumers(&self) -> ConsumerLimits {
        ConsumerLimits { consumers_max: self.consumers_max, answers_bytes_max: self.answers_bytes_max }
    }
}

impl ServerSettings {
    /// Threads that serve HTTP on a machine with so many cores: as set, else half the cores, at least one.
    #[must_use]
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads == 0 {
            (cores / 2).clamp(1, usize::from(THREADS_MAX))
        } else {
            usize::from(self.threads)
        }
    }

    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let limits = &self.limits;
        let short = Duration::from_millis(100);
        let hour = Duration::from_hours(1);
        range::problems([
            ("grace", range::span(self.grace, &(Duration::ZERO..=hour))),
            ("threads", range::number(self.threads, &(0..=THREADS_MAX))),
            ("limits.connections_max", range::number(limits.connections_max, &(1..=1_000_000))),
            ("limits.head_headers_max", range::number(limits.head_headers_max, &(1..=96))),
            ("limits.head_bytes_max", range::size(limits.head_bytes_max, &(1 << 10..=128 << 10))),
            ("limits.uri_bytes_max", range::size(limits.uri_bytes_max, &(256..=64 << 10))),
            ("limits.head_timeout", range::span(limits.head_timeout, &(short..=Duration::from_mins(10)))),
            ("limits.idle_timeout", range::span(limits.idle_timeout, &(short..=hour))),
            ("limits.body_timeout", range::span(limits.body_timeout, &(short..=hour))),
            ("limits.body_bytes_per_s_min", range::size(limits.body_bytes_per_s_min, &(0..=1 << 30))),
            ("limits.body_rate_after", range::span(limits.body_rate_after, &(Duration::ZERO..=hour))),
            ("limits.bodies_bytes_max", range::size(limits.bodies_bytes_max, &(1 << 20..=1 << 40))),
            ("limits.answers_bytes_max", range::size(limits.answers_bytes_max, &(1 << 20..=1 << 40))),
            ("limits.answer_bytes_per_s_min", range::size(limits.answer_bytes_per_s_min, &(0..=1 << 30))),
            (
                "limits.publishes_in_flight_max",
                range::number(limits.publishes_in_flight_max, &(1..=1_000_000)),
            ),
            ("limits.consumers_max", range::number(limits.consumers_max, &(1..=1_000_000))),
            ("limits.batch_messages_max", range::number(limits.batch_messages_max, &(1..=10_000))),
            ("limits.batch_bytes_max", range::size(limits.batch_bytes_max, &(1 << 10..=64 << 20))),
            ("limits.delay_max", range::span(limits.delay_max, &(Duration::ZERO..=30 * DAY))),
            ("limits.ttl_max", range::span(limits.ttl_max, &(Duration::from_millis(1)..=30 * DAY))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_half_the_cores_unless_set() {
        let settings = ServerSettings::default();
        assert_eq!([1, 2, 3, 8, 4_000].map(|cores| settings.threads_on(cores)), [1, 1, 1, 4, 512]);
        assert_eq!(ServerSettings { threads: 3, ..settings }.threads_on(8), 3);
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for (text, expected) in [
            ("127.0.0.1:80", true),
            ("127.9.9.9:80", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("10.0.0.1:80", false),
        ] {
            let address = ListenAddress(text.parse().expect("an address"));
            assert_eq!(address.is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn every_limit_refuses_what_lies_beyond_its_range() {
        assert_eq!(ServerSettings::default().problems(), []);
        let huge = Duration::from_hours(24 * 365);
        let settings = ServerSettings {
            grace: huge,
            threads: u16::MAX,
            limits: ServerLimits {
                connections_max: 0,
                head_headers_max: 97,
                head_bytes_max: 0,
                uri_bytes_max: 0,
                head_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
                body_timeout: Duration::ZERO,
                body_bytes_per_s_min: u64::MAX,
                body_rate_after: huge,
                bodies_bytes_max: 0,
                answers_bytes_max: 0,
                answer_bytes_per_s_min: u64::MAX,
                publishes_in_flight_max: 0,
                consumers_max: 0,
                batch_messages_max: 10_001,
                batch_bytes_max: 65 << 20,
                delay_max: huge,
                ttl_max: Duration::ZERO,
            },
            ..ServerSettings::default()
        };
        let problems = settings.problems();
        assert_eq!(problems.len(), 20);
        let batch = problems.iter().find(|problem| problem.key == "limits.batch_bytes_max").expect("refused");
        assert_eq!(batch.detail, "65MiB is out of range: 1KiB to 64MiB");
    }
}
