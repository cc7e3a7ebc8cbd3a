//! What was asked for, checked: which scenario, how much load, of which gateway.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::load::Pace;
use super::schedule::{Schedule, Spacing};
use super::stamp::STAMP_BYTES;
use crate::cli::{Exit, Failure};
use crate::domain::format::duration;

/// Messages a second where a scenario needs a schedule and none was asked for.
const RATE_PER_S: f64 = 200.0;
/// How long a soak lasts.
const SOAK: Duration = Duration::from_mins(30);
/// The longest that it warms up unless asked: a gateway remembers the calls of a minute, and its memory grows so long and, where a
/// table then has to double once more, a little longer.
const SOAK_WARMUP_MAX: Duration = Duration::from_mins(2);
/// The most bytes of a batch: half of what a gateway takes by default, since payloads grow a little as JSON.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scenario {
    /// Publish one message a request to a queue that keeps them
    Accept,
    /// Publish batches to a queue that keeps them
    Batch,
    /// Let the workers take a backlog, with the `log` processor, which writes ten lines a second at most
    Drain,
    /// Let the workers push a backlog to a receiver
    Deliver,
    /// From when a message is due until a receiver has it
    Latency,
    /// Push to a receiver that answers 503 for a while, until everything is delivered
    RetryStorm,
    /// What other destinations notice while one is slow
    Slow,
    /// Publish, lease and settle while a long backlog waits
    Backlog,
    /// Half of what it can do, for long: whether memory, files, threads and latencies stay what they were, and nothing is lost
    Soak,
}

impl Scenario {
    /// The word for it.
    pub(super) fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What to measure, and how.
#[derive(Args)]
#[command(after_long_help = super::EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// What is measured
    #[arg(value_enum, default_value_t = Scenario::Accept)]
    scenario: Scenario,
    /// Messages (batches) a second that are due whether or not the gateway keeps up; absent: each connection posts as soon as it was
    /// answered. `latency` and `slow` always have a rate: 200; `soak` half of the most that it publishes and delivers, which it measures
    /// first [for: accept, batch, latency, slow, soak]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Lets them be due at even distances instead of as independent clients bring them [for: those with --rate]
    #[arg(long)]
    even: bool,
    /// Connections, 1 to 10000; 64 when absent, for batches 8 [for: accept, batch, latency, slow, backlog, soak]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: Option<u16>,
    /// How long is measured, 0.1 to 86400; 10 when absent, for soak 1800 [for: accept, batch, latency, slow, backlog, soak]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// The same in minutes, 0.01 to 1440
    #[arg(long, value_name = "MINUTES", value_parser = minutes, conflicts_with = "seconds")]
    minutes: Option<Duration>,
    /// How long the same load runs before, unmeasured, 0 to 3600; when absent 1, for soak a tenth of what is measured, two minutes at most
    /// [for: accept, batch, latency, slow, soak]
    #[arg(long, value_name = "SECONDS", value_parser = warmup)]
    warmup: Option<Duration>,
    /// Bytes of each payload, up to 16777216; `latency`, `slow` and `soak` need 32 of them for the moment it was due
    #[arg(long, default_value_t = 200, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=16 << 20))]
    payload_bytes: u32,
    /// Messages of a batch, 1 to 10000; 1000 when absent, which is what a gateway takes (`server.limits.batch_messages_max`) [for: batch]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch_size: Option<u16>,
    /// Messages that wait when the clock starts, 1 to 100000000; when absent 100000, for retry-storm 10000, for backlog 1000000
    /// [for: drain, deliver, retry-storm, backlog]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: Option<u64>,
    /// How long the receiver answers 503, 0.1 to 86400; 5 when absent [for: retry-storm]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    fail_seconds: Option<Duration>,
    /// How long the slow destination takes for an answer; 1s when absent [for: slow]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    delay: Option<Duration>,
    /// Destinations, one of them slow, 2 to 64; 4 when absent [for: slow]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(2..=64))]
    destinations: Option<u8>,
    /// How much the memory of the gateway may grow, 0 to 1000. With it the exit code is 1, behind the same report, where that grew more, or
    /// where anything else is not as it was: files, threads and actors more than at the begin, a message lost [for: soak]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_rss_growth: Option<f64>,
    /// Print everything as one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: WhichArguments,
}

/// Whose gateway.
#[derive(Args)]
#[command(next_help_heading = "Gateway")]
struct WhichArguments {
    /// A gateway that runs, at http://HOST:PORT. Absent: one of its own, on a free port and a new folder, gone afterwards
    #[arg(long, env = "POSTHASTE_URL", value_name = "URL")]
    url: Option<String>,
    /// The key to show the gateway at --url, as `Authorization: Bearer`
    #[arg(long, env = "POSTHASTE_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// The address of this machine at which the gateway at --url may push to it (its egress.allow)
    #[arg(long, value_name = "IP", requires = "url")]
    sink: Option<IpAddr>,
    /// Where its own gateway keeps messages: sqlite (when absent), memory, or redis://…, where it takes a prefix of its own
    #[arg(long, value_name = "sqlite|memory|URL", value_parser = store)]
    store: Option<Store>,
    /// What a 202 of its own gateway means
    #[arg(long, value_name = "strict|relaxed|none")]
    durability: Option<String>,
    /// The folder in which its own gateway makes its folder; absent: that for temporary files. What is in it decides what is
    /// measured: its disk is written through for each 202
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Any setting of its own gateway; what this shell or a file says of gateways does not reach it
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("it is a number from {least} to {most}"))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.01, 1e6)
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text, 0.1, 86_400.0).map(Duration::from_secs_f64)
}

fn minutes(text: &str) -> Result<Duration, String> {
    number(text, 0.01, 1_440.0).map(|minutes| Duration::from_secs_f64(minutes * 60.0))
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1_000.0)
}

fn warmup(text: &str) -> Result<Duration, String> {
    number(text, 0.0, 3_600.0).map(Duration::from_secs_f64)
}

fn store(text: &str) -> Result<Store, String> {
    let is_redis = ["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| text.starts_with(scheme));
    match text {
        "sqlite" => Ok(Store::Sqlite),
        "memory" => Ok(Store::Memory),
        _ if is_redis => Ok(Store::Redis(text.to_owned())),
        _ => Err("it is sqlite, memory, or an URL with redis://, rediss:// or redis+unix://".to_owned()),
    }
}

/// Where an own gateway keeps messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Store {
    /// A file in its folder.
    Sqlite,
    /// Nowhere.
    Memory,
    /// That Redis.
    Redis(String),
}

/// A gateway to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Own {
    pub(super) store: Store,
    pub(super) durability: Option<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) set: Vec<String>,
}

/// Whose gateway is measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// One that is started for it.
    Own(Own),
    /// One that runs, with the key it is shown.
    Running { url: String, key: Option<String> },
}

/// What is done, with everything said that was left open.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    /// In an open loop.
    pub(super) rate_per_s: Option<f64>,
    pub(super) spacing: Spacing,
    pub(super) connections: u16,
    pub(super) lasting: Duration,
    pub(super) warmup: Duration,
    pub(super) payload_bytes: usize,
    pub(super) batch_size: u16,
    pub(super) messages: u64,
    pub(super) failing: Duration,
    pub(super) delay: Duration,
    pub(super) destinations: u8,
    /// Of a soak that is judged.
    pub(super) rss_growth_percent_max: Option<f64>,
    pub(super) sink: IpAddr,
    pub(super) which: Which,
    pub(super) json: bool,
}

impl Plan {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// A usage error that names what is wrong, and what is allowed.
    pub(super) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let scenario = arguments.scenario;
        refuse_idle(arguments)?;
        let is_soak = scenario == Scenario::Soak;
        let has_rate = matches!(scenario, Scenario::Latency | Scenario::Slow);
        let rate_per_s = arguments.rate.or(has_rate.then_some(RATE_PER_S));
        if arguments.even && rate_per_s.is_none() && !is_soak {
            return Err(usage("--even says how arrivals are spread: it needs --rate"));
        }
        let payload_bytes = usize::try_from(arguments.payload_bytes).unwrap_or(usize::MAX);
        if (has_rate || is_soak) && payload_bytes < STAMP_BYTES {
            return Err(usage(format!(
                "--payload-bytes {payload_bytes}: {} needs {STAMP_BYTES} at least, which say when the message was due",
                scenario.word()
            )));
        }
        let is_batch = scenario == Scenario::Batch;
        let usual = if is_soak { SOAK } else { Duration::from_secs(10) };
        let lasting = arguments.seconds.or(arguments.minutes).unwrap_or(usual);
        let usual = if is_soak { (lasting / 10).min(SOAK_WARMUP_MAX) } else { Duration::from_secs(1) };
        Ok(Self {
            scenario,
            rate_per_s,
            spacing: if arguments.even { Spacing::Even } else { Spacing::Poisson },
            connections: arguments.connections.unwrap_or(if is_batch { 8 } else { 64 }),
            lasting,
            warmup: arguments.warmup.unwrap_or(usual),
            payload_bytes,
            batch_size: arguments.batch_size.unwrap_or(1_000),
            messages: arguments.messages.unwrap_or(match scenario {
                Scenario::RetryStorm => 10_000,
                Scenario::Backlog => 1_000_000,
                _ => 100_000,
            }),
            failing: arguments.fail_seconds.unwrap_or(Duration::from_secs(5)),
            delay: arguments.delay.unwrap_or(Duration::from_secs(1)),
            destinations: arguments.destinations.unwrap_or(4),
            rss_growth_percent_max: arguments.max_rss_growth,
            sink: arguments.gateway.sink.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            which: which(&arguments.gateway)?,
            json: arguments.json,
        })
    }

    /// The pace of its load over so long.
    pub(super) fn pace(&self, lasting: Duration) -> Pace {
        match self.rate_per_s {
            Some(rate_per_s) => Pace::Open(Schedule::new(rate_per_s, self.spacing, lasting)),
            None => Pace::Closed { lasting, requests_max: u64::MAX },
        }
    }

    /// Messages of the batches in which a backlog is published.
    pub(super) fn backlog_batch(&self) -> u64 {
        (BATCH_BYTES_MAX / (self.payload_bytes + 32)).clamp(1, 1_000) as u64
    }
}

fn usage(words: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, words)
}

/// Refuses what would mean nothing: who says it expects that it matters.
fn refuse_idle(arguments: &Arguments) -> Result<(), Failure> {
    use Scenario::{Accept, Backlog, Batch, Deliver, Drain, Latency, RetryStorm, Slow, Soak};
    const TIMED: &[Scenario] = &[Accept, Batch, Latency, Slow, Soak];
    const TIMED_AND_BACKLOG: &[Scenario] = &[Accept, Batch, Latency, Slow, Backlog, Soak];
    let options: [(&str, bool, &[Scenario]); 13] = [
        ("--rate", arguments.rate.is_some(), TIMED),
        ("--even", arguments.even, TIMED),
        ("--connections", arguments.connections.is_some(), TIMED_AND_BACKLOG),
        ("--seconds", arguments.seconds.is_some(), TIMED_AND_BACKLOG),
        ("--minutes", arguments.minutes.is_some(), TIMED_AND_BACKLOG),
        ("--warmup", arguments.warmup.is_some(), TIMED),
        ("--batch-size", arguments.batch_size.is_some(), &[Batch]),
        ("--messages", arguments.messages.is_some(), &[Drain, Deliver, RetryStorm, Backlog]),
        ("--fail-seconds", arguments.fail_seconds.is_some(), &[RetryStorm]),
        ("--delay", arguments.delay.is_some(), &[Slow]),
        ("--destinations", arguments.destinations.is_some(), &[Slow]),
        ("--max-rss-growth", arguments.max_rss_growth.is_some(), &[Soak]),
        ("--sink", arguments.gateway.sink.is_some(), &[Deliver, Latency, RetryStorm, Slow, Soak]),
    ];
    for (name, is_given, scenarios) in options {
        if is_given && !scenarios.contains(&arguments.scenario) {
            let words: Vec<_> = scenarios.iter().map(|scenario| scenario.word()).collect();
            let own = arguments.scenario.word();
            return Err(usage(format!("{name} means nothing to {own}: it is for {}", words.join(", "))));
        }
    }
    Ok(())
}

fn which(arguments: &WhichArguments) -> Result<Which, Failure> {
    // A variable that is set to nothing, as compose files pass those that are unset, says nothing.
    let Some(url) = arguments.url.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(Which::Own(Own {
            store: arguments.store.clone().unwrap_or(Store::Sqlite),
            durability: arguments.durability.clone(),
            folder: arguments.folder.clone(),
            set: arguments.set.clone(),
        }));
    };
    let options = [
        ("--store", arguments.store.is_some()),
        ("--durability", arguments.durability.is_some()),
        ("--folder", arguments.folder.is_some()),
        ("--set", !arguments.set.is_empty()),
    ];
    if let Some((name, _)) = options.iter().find(|(_, is_given)| *is_given) {
        return Err(usage(format!(
            "{name} is for a gateway that is started; --url (or POSTHASTE_URL) names one that runs"
        )));
    }
    if url.starts_with("https://") {
        return Err(usage("the load speaks http:// only: give the address behind what ends TLS"));
    }
    Ok(Which::Running { url: url.to_owned(), key: arguments.api_key.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn plan(words: &[&str]) -> Result<Plan, String> {
        let line = Line::try_parse_from([&["bench"], words].concat()).map_err(|error| error.to_string())?;
        let mut arguments = line.arguments;
        // What surrounds the tests names no gateway here.
        if !words.contains(&"--url") {
            arguments.gateway.url = None;
        }
        Plan::new(&arguments).map_err(|failure| {
            assert_eq!(failure.exit, Exit::Usage);
            failure.to_string()
        })
    }

    #[test]
    fn what_is_left_open_is_said() {
        let accept = plan(&[]).expect("good");
        assert_eq!((accept.scenario, accept.rate_per_s, accept.connections), (Scenario::Accept, None, 64));
        let Which::Own(own) = &accept.which else { panic!("{accept:?}") };
        assert_eq!(own.store, Store::Sqlite);
        assert_eq!(plan(&["latency"]).expect("good").rate_per_s, Some(RATE_PER_S));
        let batch = plan(&["batch"]).expect("good");
        assert_eq!((batch.connections, batch.batch_size), (8, 1_000));
        assert_eq!(plan(&["backlog"]).expect("good").messages, 1_000_000);
        let soak = plan(&["soak"]).expect("good");
        assert_eq!((soak.rate_per_s, soak.lasting, soak.warmup), (None, SOAK, SOAK_WARMUP_MAX));
        let soak = plan(&["soak", "--minutes", "0.5", "--even"]).expect("good");
        assert_eq!((soak.lasting, soak.warmup), (Duration::from_secs(30), Duration::from_secs(3)));
        assert_eq!(plan(&["accept", "--payload-bytes", "1000000"]).expect("good").backlog_batch(), 4);
        assert_eq!(plan(&["accept", "--payload-bytes", "0"]).expect("good").backlog_batch(), 1_000);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let cases: [(&[&str], &str); 18] = [
            (&["fly"], "retry-storm"),
            (&["--rate", "0"], "0.01 to 1000000"),
            (&["--seconds", "0"], "0.1 to 86400"),
            (&["--seconds", "NaN"], "0.1 to 86400"),
            (&["--connections", "0"], "1..=10000"),
            (&["--batch-size", "7"], "it is for batch"),
            (&["--messages", "7"], "drain, deliver, retry-storm, backlog"),
            (&["drain", "--rate", "7"], "accept, batch, latency, slow, soak"),
            (&["--even"], "needs --rate"),
            (&["latency", "--payload-bytes", "31"], "32 at least"),
            (&["soak", "--payload-bytes", "31"], "soak needs 32 at least"),
            (&["soak", "--minutes", "1", "--seconds", "1"], "cannot be used with"),
            (&["soak", "--max-rss-growth", "1001"], "0 to 1000"),
            (&["accept", "--max-rss-growth", "2"], "it is for soak"),
            (&["--store", "sqlite:x.db"], "sqlite, memory"),
            (&["--url", "http://a", "--store", "memory"], "--store is for a gateway that is started"),
            (&["--url", "https://a"], "http:// only"),
            (&["latency", "--sink", "::1"], "--url"),
        ];
        for (words, expected) in cases {
            let refused = plan(words).expect_err("refused");
            assert!(refused.contains(expected), "{words:?}: {refused}");
        }
    }
}
