//! `/status`: all of it, one JSON. Read-only, and it answers whatever the store does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout_at};

use super::Call;
use crate::api::code::Code;
use crate::api::status::{
    ActorStatus, Counts, DurabilityStatus, History, Instance, QueueStatus, Rates, Status, StoreStatus,
    Totals, Warning,
};
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::http::extract::{no_queue_name, parameters};
use crate::http::observer::{Snapshot, stalled, trouble_of};
use crate::http::process;
use crate::http::state::State;
use crate::http::{lanes, list};
use crate::store::health::{COUNTERS_DIFFER, Durability, StoreHealth};
use crate::store::stats::{Counters, Gauges, QueueStats};
use crate::store::{INSTANCE_MEMORY, MessageStore, QueueEntry};

/// This gateway's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the store may take for all of it before what was known before is shown.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Up to so many queues the counts are live; beyond, they may be a second old.
const LIVE_MAX: usize = 100;
const CACHED_FOR: Duration = Duration::from_secs(1);

/// Shows everything, of all queues or of those named.
pub(super) async fn show(call: Call) -> Result<Answer, Refusal> {
    let parameters = parameters(call.request.uri(), &["queue"])?;
    let mut named = HashSet::new();
    for (_, value) in &parameters {
        let name = valid_name(value).map_err(|refusal| refusal.parameter("queue"))?;
        named.insert(name.parse::<QueueName>().expect("valid_name gives valid names only"));
    }
    let named = Some(named).filter(|named| !named.is_empty());
    let (desk, deadline) = (&call.desk, Instant::now() + STORE_TIMEOUT);
    // All at once: those that are not known here cost the store one question, and together no more time than one.
    let finding = named.iter().flatten().map(|name| timeout_at(deadline, desk.queue(name.as_str())));
    for found in join_all(finding).await {
        // With the store away nobody knows whether it is there, and the status answers all the same, without it.
        match found {
            Ok(Err(refusal)) if refusal.code() == Code::QueueUnknown => {
                return Err(refusal.parameter("queue"));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(written(status_by(deadline, &desk.state, &*desk.store, named.as_ref()).await).await)
}

/// A name that a queue may have. It was decoded once already: what still has a percent sign is none.
fn valid_name(value: &str) -> Result<&str, Refusal> {
    if QueueName::is_valid(value) { Ok(value) } else { Err(no_queue_name(value)) }
}

/// The answer that shows a status: its queues, of which there may be thousands, are written a few at a time.
async fn written(mut status: Status) -> Answer {
    const QUEUES: &[u8] = br#""queues":[]"#;
    let queues = std::mem::take(&mut status.queues);
    let frame = serde_json::to_vec(&status).expect("our answers are plain values");
    // In a text its first quote would have a backslash before it, and its second one too.
    let at = frame.windows(QUEUES.len()).position(|part| part == QUEUES);
    let (before, after) = frame.split_at(at.expect("it has a list of queues") + QUEUES.len() - b"[]".len());
    let mut body = before.to_vec();
    list::write(&mut body, queues.into_iter()).await;
    body.extend_from_slice(&after[b"[]".len()..]);
    answer::found(Bytes::from(body))
}

/// The counts to show.
struct Reading {
    numbers: Arc<Vec<QueueStats>>,
    at: Option<Timestamp>,
    is_current: bool,
}

/// What `/status` says.
pub(in crate::http) async fn status(
    state: &State,
    store: &dyn MessageStore,
    named: Option<&HashSet<QueueName>>,
) -> Status {
    status_by(Instant::now() + STORE_TIMEOUT, state, store, named).await
}

async fn status_by(
    deadline: Instant,
    state: &State,
    store: &dyn MessageStore,
    named: Option<&HashSet<QueueName>>,
) -> Status {
    let gateway = &state.gateway;
    let mut entries = gateway.catalog.all();
    if let Some(named) = named {
        entries.retain(|entry| named.contains(&entry.name));
    }
    // Whoever looks at the store all the time knows when it is away, and nobody has to wait for that again.
    let (reading, health) = if state.store_is_silent().is_some() {
        (last_known(state), None)
    } else {
        let health = timeout_at(deadline, store.health());
        let (reading, health) = join(read(deadline, state, store, named, entries.len()), health).await;
        (reading, health.ok().and_then(Result::ok))
    };
    let by_name: HashMap<&QueueName, &QueueStats> =
        reading.numbers.iter().map(|queue| (&queue.name, queue)).collect();
    let mut totals = Some((Counters::default(), Gauges::default())).filter(|_| reading.at.is_some());
    let mut queues = Vec::with_capacity(entries.len());
    // Messages in the store that wait for a lane, by its key.
    let mut waiting: HashMap<String, u64> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        if place % list::WRITTEN_AT_ONCE == list::WRITTEN_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let numbers = by_name.get(&entry.name).copied();
        if reading.is_current && numbers.is_none() {
            // Deleted since the catalog heard of it.
            continue;
        }
        if let (Some((counters, gauges)), Some(numbers)) = (&mut totals, numbers) {
            counters.add(&numbers.counters);
            gauges.add(&numbers.gauges);
        }
        if let (Some(numbers), Some(lane)) = (numbers, lanes::only_lane(&entry.settings)) {
            *waiting.entry(lane).or_insert(0) += numbers.gauges.pending;
        }
        queues.push(queue_status(state, entry, numbers, reading.is_current));
    }
    let now = gateway.clock.now();
    Status {
        version: VERSION.to_owned(),
        instance: gateway.instance.clone(),
        started_at: state.started_at,
        uptime_s: state.uptime_s(),
        as_of: reading.at,
        consistent: reading.is_current.then(|| queues.iter().all(|queue| queue.consistent != Some(false))),
        instances: instances(state, now),
        store: store_status(state, health),
        totals: totals.map_or_else(Totals::default, |(counters, gauges)| Totals {
            counts: counts(&gauges),
            history: history(&counters),
        }),
        queues,
        actors: actors(state),
        lanes: lanes::all(state, &waiting),
        process: process::status(),
    }
}

/// The gateways on this store: this one first, then the others by name.
fn instances(state: &State, now: Timestamp) -> Vec<Instance> {
    let own = &state.gateway.instance;
    let mut all = vec![Instance { id: own.clone(), version: VERSION.to_owned(), last_seen: now }];
    let known = &state.gateway.store_watch.now().instances;
    let is_heard = |last_seen: Timestamp| now.since(last_seen) < INSTANCE_MEMORY;
    let others = known.iter().filter(|other| *other.id != **own && is_heard(other.last_seen));
    all.extend(others.map(|other| Instance {
        id: other.id.to_string(),
        version: other.version.to_string(),
        last_seen: other.last_seen,
    }));
    all[1..].sort_unstable_by(|one, other| one.id.cmp(&other.id));
    all
}

/// Reads the counts: live where that is asked for or cheap, else at most a second old; the last known when the store is away.
async fn read(
    deadline: Instant,
    state: &State,
    store: &dyn MessageStore,
    named: Option<&HashSet<QueueName>>,
    count: usize,
) -> Reading {
    let clock = &state.gateway.clock;
    let may_be_cached = named.is_none() && count > LIVE_MAX;
    // One looks; those who come meanwhile share what it finds. Who waits for too long shows what is known.
    let looking = &state.observations.looking;
    let _looking = if may_be_cached { timeout_at(deadline, looking.lock()).await.ok() } else { None };
    let last = state.observations.last();
    if may_be_cached
        && let Some(last) = last.as_ref().filter(|last| clock.tick().since(last.tick) < CACHED_FOR)
    {
        return Reading { numbers: last.stats.clone(), at: Some(last.at), is_current: true };
    }
    let wanted = named.map(|named| named.iter().cloned().collect());
    match timeout_at(deadline, store.stats(wanted)).await {
        Ok(Ok(numbers)) => {
            let snapshot = Snapshot { stats: Arc::new(numbers), at: clock.now(), tick: clock.tick() };
            if named.is_none() {
                state.observations.note(&snapshot);
            }
            Reading { numbers: snapshot.stats, at: Some(snapshot.at), is_current: true }
        }
        Ok(Err(_)) | Err(_) => last_known(state),
    }
}

/// The counts that were read last.
fn last_known(state: &State) -> Reading {
    let last = state.observations.last();
    Reading {
        numbers: last.as_ref().map(|last| last.stats.clone()).unwrap_or_default(),
        at: last.map(|last| last.at),
        is_current: false,
    }
}

fn queue_status(
    state: &State,
    entry: &QueueEntry,
    numbers: Option<&QueueStats>,
    is_current: bool,
) -> QueueStatus {
    let settings = &entry.settings;
    let clock = &state.gateway.clock;
    // The store is asked live for what the catalog may have heard of a moment ago.
    let mut entry = entry.clone();
    if let Some(numbers) = numbers.filter(|_| is_current) {
        (entry.paused, entry.parked) = (numbers.paused, numbers.parked);
    }
    QueueStatus {
        processor: settings.processor.clone(),
        source: entry.source,
        paused: entry.paused,
        parked: entry.parked,
        signed: settings.is_signed(),
        counts: numbers.map_or_else(Counts::default, |numbers| counts(&numbers.gauges)),
        length_max: settings.limits.length_max,
        bytes_max: settings.limits.bytes_max,
        history: numbers.map_or_else(History::default, |numbers| history(&numbers.counters)),
        rates: numbers
            .filter(|_| is_current)
            .map_or_else(Rates::default, |numbers| state.observations.rates(numbers, clock.tick())),
        oldest_pending_ms: numbers.and_then(|numbers| numbers.oldest_pending_at).map(|at| {
            let waited = clock.now().since(at);
            u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)
        }),
        recovering_until: numbers.and_then(|numbers| numbers.recovering_until),
        consistent: numbers
            .filter(|_| is_current)
            .map(|numbers| numbers.laws_hold() && trouble_of(state, &entry.name, COUNTERS_DIFFER).is_none()),
        stalled: stalled(state, &entry),
        name: entry.name,
    }
}

fn counts(gauges: &Gauges) -> Counts {
    Counts {
        pending: Some(gauges.pending),
        scheduled: Some(gauges.scheduled),
        leased: Some(gauges.leased),
        dead: Some(gauges.dead),
        bytes: Some(gauges.bytes_waiting + gauges.bytes_leased),
    }
}

fn history(counters: &Counters) -> History {
    History {
        accepted: Some(counters.accepted),
        delivered: Some(counters.delivered),
        retried: Some(counters.retried),
        dead_lettered: Some(counters.dead_lettered),
        replayed: Some(counters.replayed),
        cancelled: Some(counters.cancelled),
        purged: Some(counters.purged),
        discarded: Some(counters.discarded),
        trimmed: Some(counters.trimmed),
        recovered: Some(counters.recovered),
        deferred: Some(counters.deferred),
    }
}

fn store_status(state: &State, live: Option<StoreHealth>) -> StoreStatus {
    let gateway = &state.gateway;
    let reachable = live.as_ref().is_some_and(|health| health.reachable);
    let health = live.or_else(|| gateway.store_watch.now().health.clone());
    let durability =
        health.as_ref().filter(|_| reachable).map_or(Durability::Unknown, |health| health.durability);
    let warning = |warning: crate::store::health::Warning| Warning {
        code: warning.code.into(),
        detail: warning.detail,
    };
    let mut warnings: Vec<Warning> =
        gateway.warnings.get().into_iter().flatten().cloned().map(warning).collect();
    let mut reasons = Vec::new();
    let mut latency = None;
    if let Some(health) = health {
        latency = health.latency;
        reasons = health.durability_reasons;
        warnings.extend(health.warnings.into_iter().map(warning));
        warnings.extend(health.full.map(|detail| Warning { code: "store_full".into(), detail }));
        warnings.extend(health.newer.map(|detail| Warning { code: "store_newer".into(), detail }));
        warnings.extend(health.unswept.map(|detail| Warning { code: "not_swept".into(), detail }));
        warnings.extend(health.troubles.into_iter().map(|trouble| {
            let detail = format!("queue {}: {}", trouble.queue, trouble.detail);
            Warning { code: trouble.code.into(), detail }
        }));
    }
    if !reachable {
        reasons.insert(0, "the store does not answer".to_owned());
    }
    StoreStatus {
        kind: gateway.store.kind().to_owned(),
        reachable,
        latency_ms: latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        durability: DurabilityStatus {
            configured: word(gateway.durability.into()).to_owned(),
            now: word(durability).to_owned(),
            reasons,
        },
        warnings,
    }
}

fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Strict => "strict",
        Durability::Relaxed => "relaxed",
        Durability::None => "none",
        Durability::Assumed => "assumed",
        Durability::Unknown => "unknown",
    }
}

fn actors(state: &State) -> Vec<ActorStatus> {
    let actors = state.gateway.supervisor.watch().into_iter();
    actors
        .map(|actor| ActorStatus {
            name: actor.name,
            state: actor.state.as_str().into(),
            restarts: actor.restarts,
            mailbox_depth: actor.mailbox_depth,
            mailbox_capacity: actor.mailbox_capacity,
            beat_age_ms: actor.beat_age_ms,
        })
        .collect()
}
