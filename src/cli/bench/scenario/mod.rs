//! What is measured: one file for each thing, and here what they share.

mod accept;
mod backlog;
mod drain;
mod latency;
mod soak;
mod storm;

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::sleep;

use super::connection::Request;
use super::load::{self, Load, Outcome, Pace};
use super::meter::{Share, ThreadTime};
use super::plan::{Plan, Scenario};
use super::receiver::Receivers;
use super::report::Findings;
use super::target::Target;
use crate::cli::Failure;
use crate::domain::queue::QueueName;

/// Connections that publish a backlog: enough for whole group commits, few enough for a batch each.
const FILLING: usize = 8;
/// How long nothing may move before it is called stuck; longer than a gateway waits between two attempts here.
const STUCK_AFTER: Duration = Duration::from_mins(2);
/// How often it is looked whether something is done: one look costs the gateway a fifth of a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What all scenarios have.
pub(super) struct Bench<'b> {
    pub(super) plan: &'b Plan,
    pub(super) target: &'b Target,
    /// What stamps are counted from.
    pub(super) epoch: Instant,
    pub(super) bar: ProgressBar,
}

/// Measures what was asked for.
///
/// # Errors
/// What the gateway or this machine does not let happen. Cancelled it leaves queues, which the target removes.
pub(super) async fn run(bench: &Bench<'_>) -> Result<Findings, Failure> {
    match bench.plan.scenario {
        Scenario::Accept => Box::pin(accept::one_by_one(bench)).await,
        Scenario::Batch => Box::pin(accept::in_batches(bench)).await,
        Scenario::Drain => Box::pin(drain::to_the_log(bench)).await,
        Scenario::Deliver => Box::pin(drain::to_a_receiver(bench)).await,
        Scenario::Latency => Box::pin(latency::to_one(bench)).await,
        Scenario::Slow => Box::pin(latency::beside_a_slow_one(bench)).await,
        Scenario::RetryStorm => Box::pin(storm::run(bench)).await,
        Scenario::Backlog => Box::pin(backlog::run(bench)).await,
        Scenario::Soak => Box::pin(soak::run(bench)).await,
    }
}

impl Bench<'_> {
    /// One message.
    fn single(&self, queue: &QueueName, is_stamped: bool) -> Request {
        let body = vec![b'x'; self.plan.payload_bytes];
        self.request(queue, "/messages", "application/octet-stream", &body, is_stamped)
    }

    /// A batch of so many: a line each, or an array of those that are too short to be text in JSON.
    fn batch(&self, queue: &QueueName, size: u64) -> Request {
        let bytes = self.plan.payload_bytes;
        let (content_type, body) = if let Some(letters) = bytes.checked_sub(2) {
            let line = format!("\"{}\"\n", "x".repeat(letters));
            ("application/x-ndjson", (0..size).map(|_| line.as_str()).collect())
        } else {
            let item = json!({ "payload": "x".repeat(bytes) });
            ("application/json", json!((0..size).map(|_| &item).collect::<Vec<_>>()).to_string())
        };
        self.request(queue, "/messages/batch", content_type, body.as_bytes(), false)
    }

    fn request(
        &self,
        queue: &QueueName,
        below: &str,
        content_type: &str,
        body: &[u8],
        is_stamped: bool,
    ) -> Request {
        let Target { host, key, .. } = self.target;
        Request::post(host, &self.target.path(queue, below), key.as_deref(), content_type, body, is_stamped)
    }

    fn stage(&self, words: &str, total: u64) {
        self.bar.set_message(words.to_owned());
        self.bar.set_length(total.max(1));
        self.bar.set_position(0);
    }

    /// Sends that for so long at the pace that was asked for.
    async fn send(&self, words: &str, requests: &[Request], lasting: Duration) -> Result<Outcome, Failure> {
        self.send_at(words, requests, self.plan.pace(lasting), lasting, |_| {}).await
    }

    /// Sends that at that pace, and tells now and then how far it is.
    async fn send_at(
        &self,
        words: &str,
        requests: &[Request],
        pace: Pace,
        lasting: Duration,
        tell: impl Fn(&Outcome),
    ) -> Result<Outcome, Failure> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.stage(words, ms(lasting));
        let began = Instant::now();
        let load = Load {
            address: self.target.address,
            requests,
            connections: self.plan.connections.into(),
            pace,
            epoch: self.epoch,
        };
        let told = |outcome: &Outcome| {
            tell(outcome);
            self.bar.set_position(ms(began.elapsed().min(lasting)));
        };
        load::run(load, told).await
    }

    /// The same load before, of which nothing is told.
    async fn warm_up(&self, requests: &[Request]) -> Result<(), Failure> {
        if !self.plan.warmup.is_zero() {
            self.send("warming up", requests, self.plan.warmup).await?;
        }
        Ok(())
    }

    /// Publishes so many messages in batches; gives how long that took.
    async fn fill(&self, queue: &QueueName, messages: u64) -> Result<Duration, Failure> {
        let size = self.plan.backlog_batch().min(messages);
        self.stage("publishing a backlog", messages);
        let began = Instant::now();
        for (size, count) in
            [(size, messages / size), (messages % size, u64::from(!messages.is_multiple_of(size)))]
        {
            let Some(connections) = usize::try_from(count).ok().filter(|count| *count > 0) else { continue };
            let load = Load {
                address: self.target.address,
                requests: &[self.batch(queue, size)],
                connections: connections.min(FILLING),
                pace: Pace::Closed { lasting: Duration::from_hours(24), requests_max: count },
                epoch: self.epoch,
            };
            let outcome = load::run(load, |outcome| self.bar.set_position(outcome.accepted() * size)).await?;
            if outcome.accepted() < count {
                return Err(refused("the backlog could not be published", &outcome));
            }
        }
        Ok(began.elapsed())
    }

    /// Waits until that many are done; gives how long it took.
    async fn until(
        &self,
        words: &str,
        total: u64,
        look: impl AsyncFn() -> Result<u64, Failure>,
    ) -> Result<Duration, Failure> {
        self.stage(words, total);
        let began = Instant::now();
        let (mut last, mut moved) = (0, began);
        loop {
            let done = look().await?;
            if done >= total {
                return Ok(began.elapsed());
            }
            if done != last {
                (last, moved) = (done, Instant::now());
            }
            if moved.elapsed() > STUCK_AFTER {
                return Err(Failure::failed(format!("{words}: nothing moves; {done} of {total} are done")));
            }
            self.bar.set_position(done);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everything that those queues accepted is processed.
    async fn until_processed(&self, queues: &[QueueName]) -> Result<(), Failure> {
        let names: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
        let total = self.target.client.status(&names).await?.totals.history.accepted.unwrap_or_default();
        let done = async || {
            let totals = self.target.client.status(&names).await?.totals;
            Ok(totals.history.delivered.unwrap_or_default() + totals.counts.dead.unwrap_or_default())
        };
        self.until("waiting for what is left", total, done).await.map(drop)
    }
}

/// What load came to nothing.
fn refused(words: &str, outcome: &Outcome) -> Failure {
    let statuses = outcome.answers.iter().map(|(status, count)| format!("{count} answered {status}"));
    let unanswered = outcome.unanswered.total();
    let rest = (unanswered > 0).then(|| format!("{unanswered} not answered"));
    let all: Vec<_> = statuses.chain(rest).collect();
    Failure::failed(format!("{words}: {}", all.join(", ")))
}

/// What receivers have used so far.
fn used(receivers: &Receivers) -> Option<ThreadTime> {
    receivers.clock.as_ref()?.read()
}

/// What they used since then.
fn share(receivers: &Receivers, before: Option<ThreadTime>, took: Duration) -> Option<Share> {
    Some(Share::of(used(receivers)? - before?, took))
}
