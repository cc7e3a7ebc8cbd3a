//! What was found, for a person and as JSON: both say the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::endurance::Endurance;
use super::latencies::{Latencies, Summary};
use super::load::{Outcome, Unanswered};
use super::meter::Share;
use super::plan::{Plan, Scenario};
use super::schedule::Spacing;
use super::target::{About, Sample};
use crate::cli::Failure;
use crate::cli::table::pairs;

/// What a scenario found.
pub(super) struct Findings {
    /// Messages that the rate and the costs are of.
    pub(super) messages: u64,
    /// How long they took.
    pub(super) took: Duration,
    pub(super) before: Sample,
    pub(super) after: Sample,
    /// What `latency` is of, and itself.
    pub(super) latency: Option<(&'static str, Latencies)>,
    /// Other distributions, by name.
    pub(super) others: Vec<(&'static str, Latencies)>,
    /// Of the load, where there was one.
    pub(super) outcome: Option<Outcome>,
    /// What the receivers used.
    pub(super) receivers: Option<Share>,
    /// Other figures; a name ends with its unit.
    pub(super) figures: BTreeMap<&'static str, f64>,
    /// The rate at which messages were due, where the scenario chose it.
    pub(super) rate_per_s: Option<f64>,
    /// Of a soak.
    pub(super) endurance: Option<Endurance>,
}

impl Findings {
    /// Those about so many messages, with nothing else known yet.
    pub(super) const fn of(messages: u64, took: Duration, before: Sample, after: Sample) -> Self {
        Self {
            messages,
            took,
            before,
            after,
            latency: None,
            others: Vec::new(),
            outcome: None,
            receivers: None,
            figures: BTreeMap::new(),
            rate_per_s: None,
            endurance: None,
        }
    }

    /// The same with that figure.
    pub(super) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.insert(name, value);
        self
    }
}

/// What was asked of the gateway.
#[derive(Debug, Serialize)]
struct Asked {
    /// `open`, `closed`; null where nothing was published while the clock ran.
    #[serde(rename = "loop")]
    order: Option<&'static str>,
    rate_per_s: Option<f64>,
    arrivals: Option<Spacing>,
    connections: Option<u16>,
    payload_bytes: usize,
    batch_size: Option<u16>,
    seconds: Option<f64>,
    warmup_seconds: Option<f64>,
    messages: Option<u64>,
}

/// Processor time of a message.
#[derive(Debug, Serialize)]
struct Costs {
    gateway: Option<f64>,
    store: Option<f64>,
}

/// Memory before, after, and the most there ever was.
#[derive(Debug, Serialize)]
struct Memory {
    gateway_before: Option<u64>,
    gateway_after: Option<u64>,
    gateway_peak: Option<u64>,
    store_before: Option<u64>,
    store_after: Option<u64>,
    disk_after: Option<u64>,
}

/// What happened to the requests of the load.
#[derive(Debug, Serialize)]
struct Requests {
    answers: BTreeMap<u16, u64>,
    unanswered: Unanswered,
    /// Sent more than a millisecond after they were due.
    late: u64,
    /// From when they were due until they were sent.
    delay_ms: Option<Summary>,
    /// From when they were sent until they were answered.
    service_ms: Option<Summary>,
}

/// Everything that is told.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    scenario: Scenario,
    gateway: About,
    asked: Asked,
    messages: u64,
    seconds: f64,
    rate_per_s: f64,
    latency_of: Option<&'static str>,
    latency_ms: Option<Summary>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    others_ms: BTreeMap<&'static str, Option<Summary>>,
    requests: Option<Requests>,
    cpu_us_per_message: Costs,
    /// Whether the store is a part of the gateway's process.
    store_is_inside: bool,
    memory_bytes: Memory,
    generator: Option<Share>,
    receivers: Option<Share>,
    figures: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    soak: Option<Endurance>,
}

impl Report {
    /// Puts it together.
    pub(super) fn new(plan: &Plan, gateway: About, findings: Findings) -> Self {
        let rate_per_s = plan.rate_per_s.or(findings.rate_per_s);
        let Findings { messages, took, before, after, latency, others, outcome, .. } = findings;
        let cost = |before: Option<Duration>, after: Option<Duration>| {
            let used = after?.checked_sub(before?)?;
            (messages > 0).then(|| rounded(used.as_secs_f64() * 1e6 / decimal(messages)))
        };
        let store_is_inside = matches!(gateway.store.as_str(), "sqlite" | "memory");
        Self {
            scenario: plan.scenario,
            asked: asked(plan, outcome.is_some(), rate_per_s),
            messages,
            seconds: rounded(took.as_secs_f64()),
            rate_per_s: rounded(decimal(messages) / took.as_secs_f64().max(1e-9)),
            latency_of: latency.as_ref().map(|(name, _)| *name),
            latency_ms: latency.and_then(|(_, latencies)| latencies.summary()),
            others_ms: others.into_iter().map(|(name, latencies)| (name, latencies.summary())).collect(),
            generator: outcome.as_ref().and_then(|outcome| Some(Share::of(outcome.used?, outcome.took))),
            requests: outcome.map(|outcome| Requests {
                unanswered: outcome.unanswered,
                late: outcome.late,
                delay_ms: outcome.delay.summary(),
                service_ms: outcome.service.summary(),
                answers: outcome.answers,
            }),
            cpu_us_per_message: Costs {
                gateway: cost(before.gateway.cpu, after.gateway.cpu),
                store: cost(before.store.cpu, after.store.cpu),
            },
            store_is_inside,
            memory_bytes: Memory {
                gateway_before: before.gateway.memory_bytes,
                gateway_after: after.gateway.memory_bytes,
                gateway_peak: after.gateway.peak_bytes,
                store_before: before.store.memory_bytes,
                store_after: after.store.memory_bytes,
                disk_after: after.disk_bytes,
            },
            gateway,
            receivers: findings.receivers,
            soak: findings.endurance,
            figures: findings.figures.into_iter().map(|(name, value)| (name, rounded(value))).collect(),
        }
    }

    /// Whether a soak that is judged found faults.
    ///
    /// # Errors
    /// The faults.
    pub(super) fn verdict(&self, is_judged: bool) -> Result<(), Failure> {
        match &self.soak {
            Some(soak) if is_judged && !soak.faults.is_empty() => {
                Err(Failure::failed(soak.faults.join("; ")))
            }
            _ => Ok(()),
        }
    }

    /// For a person.
    pub(super) fn describe(&self) -> String {
        let mut rows: Vec<(&str, String)> = vec![("scenario", self.load())];
        let gateway = &self.gateway;
        let own = if gateway.is_own { "started for this".to_owned() } else { gateway.url.clone() };
        rows.push(("gateway", format!("posthaste {}, {own}, store {}", gateway.version, gateway.store)));
        let means = gateway.durability_means.as_deref().unwrap_or("how the store does it is unknown");
        rows.push(("durability", format!("{} ({means})", gateway.durability)));
        rows.push((
            "rate",
            format!("{:.1} messages/s ({} in {:.2} s)", self.rate_per_s, self.messages, self.seconds),
        ));
        if let Some(of) = self.latency_of {
            rows.push(("latency", format!("{of}: {}", spread(self.latency_ms.as_ref()))));
        }
        rows.extend(self.others_ms.iter().map(|(name, summary)| (*name, spread(summary.as_ref()))));
        if let Some(requests) = &self.requests {
            if self.asked.order == Some("open") {
                rows.push(("from sending", spread(requests.service_ms.as_ref())));
            }
            rows.push(("answers", requests.answers()));
            if requests.late > 0 {
                let delay = spread(requests.delay_ms.as_ref());
                rows.push(("sent late", format!("{} by more than 1 ms: {delay}", requests.late)));
            }
        }
        rows.push(("CPU a message", self.costs()));
        rows.push(("memory", self.memory()));
        for (name, share) in [("generator", &self.generator), ("receivers", &self.receivers)] {
            rows.extend(share.as_ref().map(|share| (name, share.describe())));
        }
        rows.extend(self.soak.iter().flat_map(Endurance::describe));
        rows.extend(self.figures.iter().map(|(name, value)| (*name, value.to_string())));
        pairs(&rows)
    }

    fn load(&self) -> String {
        let asked = &self.asked;
        let mut text = self.scenario.word();
        match (asked.order, asked.rate_per_s) {
            (Some("open"), Some(rate)) => {
                let spread = if asked.arrivals == Some(Spacing::Even) { "evenly" } else { "Poisson" };
                write!(text, ", open loop: {rate} requests/s due ({spread})").expect("a string grows");
            }
            (Some(order), _) => write!(text, ", {order} loop").expect("a string grows"),
            (None, _) => {}
        }
        if let Some(connections) = asked.connections {
            write!(text, ", {connections} connections").expect("a string grows");
        }
        if let Some(size) = asked.batch_size {
            write!(text, ", {size} messages a batch").expect("a string grows");
        }
        write!(text, ", {} bytes a message", asked.payload_bytes).expect("a string grows");
        text
    }

    fn costs(&self) -> String {
        let show = |cost: Option<f64>| cost.map_or("unknown".to_owned(), |us| format!("{us:.1} µs"));
        let store = if self.store_is_inside {
            "the store is a part of it".to_owned()
        } else {
            format!("store {}", show(self.cpu_us_per_message.store))
        };
        format!("gateway {}, {store}", show(self.cpu_us_per_message.gateway))
    }

    fn memory(&self) -> String {
        let memory = &self.memory_bytes;
        let mut text =
            format!("gateway {} before, {} after", mib(memory.gateway_before), mib(memory.gateway_after));
        if memory.gateway_peak.is_some() {
            write!(text, ", {} at most", mib(memory.gateway_peak)).expect("a string grows");
        }
        if !self.store_is_inside {
            let (before, after) = (mib(memory.store_before), mib(memory.store_after));
            write!(text, "; store {before} before, {after} after").expect("a string grows");
        }
        if memory.disk_after.is_some() {
            write!(text, "; {} on disk", mib(memory.disk_after)).expect("a string grows");
        }
        text
    }
}

impl Requests {
    fn answers(&self) -> String {
        let mut parts: Vec<String> =
            self.answers.iter().map(|(status, count)| format!("{status} × {count}")).collect();
        let Unanswered { connection, timeout, unreadable, unsent } = self.unanswered;
        let kinds = [
            (connection, "connections broken"),
            (timeout, "without an answer within 30 s"),
            (unreadable, "unreadable"),
            (unsent, "never sent"),
        ];
        let some = kinds.iter().filter(|(count, _)| *count > 0);
        parts.extend(some.map(|(count, words)| format!("{count} {words}")));
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }
}

impl Share {
    fn describe(&self) -> String {
        let limit =
            if self.is_the_limit { ": it had hardly a pause, and may be what limits the rate" } else { "" };
        let Self { cpu_percent, starved_percent, .. } = self;
        format!("{cpu_percent} % of a core, {starved_percent} % waiting for one{limit}")
    }
}

fn asked(plan: &Plan, has_load: bool, rate_per_s: Option<f64>) -> Asked {
    let is = |scenarios: &[Scenario]| scenarios.contains(&plan.scenario);
    let is_timed =
        is(&[Scenario::Accept, Scenario::Batch, Scenario::Latency, Scenario::Slow, Scenario::Soak]);
    let order = if rate_per_s.is_some() { "open" } else { "closed" };
    Asked {
        order: has_load.then_some(order),
        rate_per_s,
        arrivals: rate_per_s.map(|_| plan.spacing),
        connections: has_load.then_some(plan.connections),
        payload_bytes: plan.payload_bytes,
        batch_size: is(&[Scenario::Batch]).then_some(plan.batch_size),
        seconds: has_load.then_some(plan.lasting.as_secs_f64()),
        warmup_seconds: is_timed.then_some(plan.warmup.as_secs_f64()),
        messages: (!is_timed).then_some(plan.messages),
    }
}

fn spread(summary: Option<&Summary>) -> String {
    let Some(Summary { count, p50, p90, p99, p99_9, max, .. }) = summary else { return "of none".to_owned() };
    format!("p50 {p50:.3} ms, p90 {p90:.3}, p99 {p99:.3}, p99.9 {p99_9:.3}, max {max:.3} (of {count})")
}

/// Bytes as a person reads them.
#[expect(clippy::cast_precision_loss, reason = "shown to a tenth of a MiB")]
pub(super) fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

/// A number as one with a point.
#[expect(clippy::cast_precision_loss, reason = "messages are far below 2⁵³")]
pub(super) fn decimal(number: u64) -> f64 {
    number as f64
}

/// To three digits behind the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
