//! Half of what it can do, for long: whether memory, files, threads and latencies stay what they were, and nothing is lost.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Bench, refused, share, used};
use crate::api::Status;
use crate::cli::Failure;
use crate::cli::bench::connection::Request;
use crate::cli::bench::course::{Course, window};
use crate::cli::bench::endurance::{AtRest, Endurance, Tail};
use crate::cli::bench::latencies::Latencies;
use crate::cli::bench::load::{Outcome, Pace};
use crate::cli::bench::receiver::Receivers;
use crate::cli::bench::report::{Findings, decimal, rounded};
use crate::cli::bench::schedule::Schedule;
use crate::cli::bench::target::Sample;
use crate::domain::queue::QueueName;

/// Messages that may wait while the knee is sought: so many that workers always find some, so few that what waits in the end is
/// little beside what was received.
const AHEAD_MAX: u64 = 1_000;
/// The part of a run that the search for the knee takes, twice: once to begin, once to count.
const KNEE_PART: u32 = 40;
const KNEE_MIN: Duration = Duration::from_millis(400);
const KNEE_MAX: Duration = Duration::from_secs(10);
/// The part of the knee at which the run goes on.
const LOAD_PART: f64 = 0.5;
/// How often it is looked; a run that is short is looked at more often, so that each end has some moments.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many moments each end has at least.
const MOMENTS: u32 = 4;
/// How long connections may take to be closed once nothing is delivered: a gateway keeps idle ones for half a minute. A run of which
/// that would be more than a third does not wait for it.
const RESTS_WITHIN: Duration = Duration::from_secs(40);

/// Measures it.
pub(super) async fn run(bench: &Bench<'_>) -> Result<Findings, Failure> {
    let receivers = Receivers::start(bench.plan.sink, &[Duration::ZERO], bench.epoch)?;
    let settings = json!({ "processor": "http", "destination": receivers.url(0) });
    let queue = bench.target.queue("soak", settings).await?;
    let resting = bench.target.sample().await;
    let plain = [bench.single(&queue, false)];
    let knee = match bench.plan.rate_per_s {
        Some(_) => None,
        None => Some(knee(bench, &plain, &receivers, &queue).await?),
    };
    let half = knee.as_ref().map(|knee| knee.per_s * LOAD_PART);
    let rate_per_s = bench.plan.rate_per_s.or(half).unwrap_or_default();
    let pace = |lasting| Pace::Open(Schedule::new(rate_per_s, bench.plan.spacing, lasting));
    let warmup = bench.plan.warmup;
    if !warmup.is_zero() {
        bench.send_at("warming up", &plain, pace(warmup), warmup, |_| {}).await?;
    }
    let (before, idle) = (bench.target.sample().await, used(&receivers));
    let watch = Watch::new(bench, &receivers, &queue);
    let stamped = [bench.single(&queue, true)];
    let lasting = bench.plan.lasting;
    let sending = bench.send_at("soaking", &stamped, pace(lasting), lasting, |outcome| watch.mark(outcome));
    let outcome = tokio::select! {
        outcome = sending => outcome?,
        never = watch.look() => match never {},
    };
    let share = share(&receivers, idle, outcome.took);
    if outcome.accepted() == 0 {
        return Err(refused("nothing was accepted", &outcome));
    }
    // What is left behind is a finding, which does not hide the others.
    let left = bench.until_processed(std::slice::from_ref(&queue)).await.err();
    let after = bench.target.sample().await;
    let fds_at_rest = AtRest {
        before: resting.gateway.fds,
        after: rest(bench, &receivers).await.and_then(|rest| rest.gateway.fds),
    };
    let mut endurance = watch.found(&outcome, knee.as_ref(), fds_at_rest);
    endurance.faults.extend(left.map(|failure| failure.to_string()));
    endurance.judge(bench.plan.rss_growth_percent_max);
    let mut findings = Findings::of(outcome.accepted(), outcome.took, before, after);
    findings.latency = Some(("from due until received", receivers.seen[0].latencies().0));
    findings.others.push(("until_202", outcome.latency.clone()));
    findings.receivers = share;
    findings.outcome = Some(outcome);
    findings.rate_per_s = Some(rounded(rate_per_s));
    findings.endurance = Some(endurance);
    Ok(findings)
}

/// The most that it does.
struct Knee {
    /// Messages a second that were received.
    per_s: f64,
    /// Connections over which they came, which are kept for a while.
    connections: u64,
}

/// The most messages a second that are published and received while no more wait than before.
async fn knee(
    bench: &Bench<'_>,
    requests: &[Request],
    receivers: &Receivers,
    queue: &QueueName,
) -> Result<Knee, Failure> {
    let lasting = (bench.plan.lasting / KNEE_PART).clamp(KNEE_MIN, KNEE_MAX);
    let seen = &receivers.seen[0];
    let mut knee = Knee { per_s: 0.0, connections: 0 };
    for words in ["running up", "seeking the knee"] {
        let (taken, began) = (seen.taken.load(Ordering::Relaxed), Instant::now());
        let pace = Pace::Behind { lasting, seen: seen.clone(), ahead_max: AHEAD_MAX };
        let outcome = bench.send_at(words, requests, pace, lasting, |_| {}).await?;
        if outcome.accepted() == 0 {
            return Err(refused("nothing was accepted", &outcome));
        }
        let taken = seen.taken.load(Ordering::Relaxed) - taken;
        knee.per_s = decimal(taken) / began.elapsed().as_secs_f64();
        knee.connections = knee.connections.max(seen.connections.load(Ordering::Relaxed));
    }
    bench.until_processed(std::slice::from_ref(queue)).await?;
    if knee.per_s < 1.0 {
        return Err(Failure::failed(
            "nothing was received while the knee was sought; --rate says how much is due",
        ));
    }
    Ok(knee)
}

/// What is used once every connection to the receiver is closed, of a run that is long enough to wait for that.
async fn rest(bench: &Bench<'_>, receivers: &Receivers) -> Option<Sample> {
    if bench.plan.lasting < RESTS_WITHIN * 3 {
        return None;
    }
    bench.stage("waiting until connections are closed", 1);
    let began = Instant::now();
    while receivers.seen[0].connections.load(Ordering::Relaxed) > 0 && began.elapsed() < RESTS_WITHIN {
        sleep(LOOK_EVERY).await;
    }
    Some(bench.target.sample().await)
}

/// Watches a run from its begin.
struct Watch<'w> {
    bench: &'w Bench<'w>,
    receivers: &'w Receivers,
    queue: &'w QueueName,
    began: Instant,
    course: RefCell<Course>,
    marks: RefCell<Marks>,
}

/// Latencies at the end of the begin, and at the begin of the end.
#[derive(Default)]
struct Marks {
    first: Option<Both>,
    before_last: Option<Both>,
}

/// Latencies until 202, and until received.
struct Both {
    accepted: Latencies,
    received: Latencies,
}

impl<'w> Watch<'w> {
    fn new(bench: &'w Bench<'w>, receivers: &'w Receivers, queue: &'w QueueName) -> Self {
        let course = RefCell::new(Course::new(bench.plan.lasting));
        Self { bench, receivers, queue, began: Instant::now(), course, marks: RefCell::default() }
    }

    /// Remembers the latencies of now, where one of the ends is.
    fn mark(&self, outcome: &Outcome) {
        let (at, lasting) = (self.began.elapsed(), self.bench.plan.lasting);
        let marks = &mut *self.marks.borrow_mut();
        let both = || self.both(outcome);
        if at >= window(lasting) {
            marks.first.get_or_insert_with(both);
        }
        if at >= lasting.saturating_sub(window(lasting)) {
            marks.before_last.get_or_insert_with(both);
        }
    }

    fn both(&self, outcome: &Outcome) -> Both {
        Both { accepted: outcome.latency.clone(), received: self.receivers.seen[0].latencies().0 }
    }

    /// Looks now and then, until it is cancelled.
    async fn look(&self) -> Infallible {
        let mut ticks = interval(LOOK_EVERY.min(window(self.bench.plan.lasting) / MOMENTS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let at = self.began.elapsed();
            let sample = self.bench.target.sample().await;
            let open = self.receivers.seen[0].connections.load(Ordering::Relaxed);
            let status = self.bench.target.client.status(&[self.queue.as_str()]).await.ok();
            self.note(at, sample, open, status.as_deref());
        }
    }

    fn note(&self, at: Duration, sample: Sample, open: u64, status: Option<&Status>) {
        let connections = open + u64::from(self.bench.plan.connections);
        let counts = status.map(|status| status.totals.counts);
        let in_flight = |status: &Status| status.lanes.iter().map(|lane| u64::from(lane.in_flight)).sum();
        let values = [
            ("gateway_rss_bytes", sample.gateway.memory_bytes),
            ("store_bytes", sample.store.memory_bytes),
            ("disk_bytes", sample.disk_bytes),
            ("fds", sample.gateway.fds),
            ("fds_other", sample.gateway.fds.map(|fds| fds.saturating_sub(connections))),
            ("connections", Some(open)),
            ("threads", sample.gateway.threads),
            ("actors", status.map(|status| status.actors.len() as u64)),
            ("in_flight", status.map(in_flight)),
            ("leased", counts.and_then(|counts| counts.leased)),
            ("waiting", counts.and_then(|counts| Some(counts.pending? + counts.scheduled?))),
        ];
        let mut course = self.course.borrow_mut();
        for (name, value) in values {
            course.note(name, at, value);
        }
    }

    /// What was found, all being over.
    fn found(self, outcome: &Outcome, knee: Option<&Knee>, fds_at_rest: AtRest) -> Endurance {
        let all = self.both(outcome);
        let Marks { first, before_last } = self.marks.take();
        let p99_9 = |latencies: &Latencies| latencies.summary().map(|summary| summary.p99_9);
        let tail = |of: fn(&Both) -> &Latencies| {
            let last = before_last.as_ref().map(|earlier| of(&all).since(of(earlier)));
            Tail::of(first.as_ref().and_then(|first| p99_9(of(first))), last.as_ref().and_then(p99_9))
        };
        let received = self.receivers.seen[0].numbers();
        Endurance {
            knee_per_s: knee.map(|knee| rounded(knee.per_s)),
            connections_at_knee: knee.map(|knee| knee.connections),
            window_s: window(self.bench.plan.lasting).as_secs_f64(),
            watched: self.course.borrow().watched(),
            until_202_p99_9_ms: tail(|both| &both.accepted),
            until_received_p99_9_ms: tail(|both| &both.received),
            accepted: outcome.accepted(),
            received: received.count(),
            received_again: self.receivers.seen[0].latencies().1,
            lost: outcome.stamped.missing_from(&received),
            fds_at_rest,
            faults: Vec::new(),
        }
    }
}
