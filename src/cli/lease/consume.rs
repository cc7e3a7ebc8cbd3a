//! A command for each message: leasing as many as may run, extending while they run, settling by their ends.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::{LocalBoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use nix::sys::signal::Signal;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::child::Children;
use super::{Arguments, LEASE, WAIT};
use crate::api::lease::{Ending, LeaseOrder, LeasedMessage, PayloadAs, RECEIPTS_MAX, ReceiptFate};
use crate::cli::client::{Client, ClientError};
use crate::cli::signals::Signals;
use crate::cli::{Failure, letter, say};

/// The first pause after a call that failed; each one after it is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What became of the messages.
#[derive(Default)]
struct Counts {
    done: Cell<u64>,
    retried: Cell<u64>,
    rejected: Cell<u64>,
    released: Cell<u64>,
    lost: Cell<u64>,
}

/// What all parts of a consumer know.
struct Consumer<'c> {
    arguments: &'c Arguments,
    client: &'c Client,
    lease: Duration,
    children: Children,
    /// Receipts that are held: of messages that wait for their turn here, or run.
    held: RefCell<BTreeSet<String>>,
    counts: Counts,
}

/// What it is about to do.
#[derive(Default)]
struct Plan {
    waiting: VecDeque<LeasedMessage>,
    /// Whether nothing more is leased.
    is_ending: bool,
    /// Why it ends, if not because it was asked to.
    failure: Option<Failure>,
    signals: u32,
    /// Whether a gateway has ever answered.
    was_there: bool,
    /// The pause before it asks again, and the one after that.
    pause: Duration,
    next_pause: Duration,
}

/// Runs until a signal, until the queue is empty if that was asked for, or until the gateway refuses.
pub(super) async fn run(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(Failure::failed)?;
    let consumer = Consumer {
        arguments,
        client,
        lease: arguments.lease.unwrap_or(LEASE),
        children: Children::default(),
        held: RefCell::default(),
        counts: Counts::default(),
    };
    let mut plan = Plan { next_pause: PAUSE_FIRST, ..Plan::default() };
    let mut running: FuturesUnordered<LocalBoxFuture<'_, Result<(), Failure>>> = FuturesUnordered::new();
    let mut asking: OptionFuture<Pin<Box<_>>> = None.into();
    let mut extending: OptionFuture<LocalBoxFuture<'_, ()>> = None.into();
    let (mut is_asking, mut is_extending) = (false, false);
    let mut beat = interval(consumer.lease / 3);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !plan.is_ending && running.len() < usize::from(arguments.jobs) {
            let Some(message) = plan.waiting.pop_front() else { break };
            running.push(Box::pin(consumer.work(message)));
        }
        if plan.is_ending && !plan.waiting.is_empty() {
            running.push(Box::pin(consumer.release(std::mem::take(&mut plan.waiting))));
        }
        if plan.is_ending && running.is_empty() {
            break;
        }
        let has_room = plan.waiting.is_empty() && running.len() < usize::from(arguments.jobs);
        if !plan.is_ending && !is_asking && has_room {
            asking = Some(Box::pin(consumer.ask(running.len(), plan.pause))).into();
            is_asking = true;
        }
        tokio::select! {
            name = signals.next() => {
                // A request under way is dropped: its gateway releases what nobody gets.
                (asking, is_asking) = (None.into(), false);
                consumer.on_signal(&mut plan, name, running.len());
                if plan.signals > 2 {
                    return Err(Failure::failed("ended at once by a third signal"));
                }
            }
            Some(answer) = &mut asking, if is_asking => {
                (asking, is_asking) = (None.into(), false);
                consumer.on_answer(&mut plan, answer);
            }
            Some(ended) = running.next() => {
                if let Err(failure) = ended {
                    plan.is_ending = true;
                    plan.failure.get_or_insert(failure);
                    (asking, is_asking) = (None.into(), false);
                }
            }
            _ = beat.tick(), if !is_extending => {
                let extension: LocalBoxFuture<'_, ()> = Box::pin(consumer.extend());
                (extending, is_extending) = (Some(extension).into(), true);
            }
            Some(()) = &mut extending, if is_extending => (extending, is_extending) = (None.into(), false),
        }
    }
    consumer.report();
    plan.failure.map_or(Ok(()), Err)
}

impl Consumer<'_> {
    async fn ask(&self, running: usize, pause: Duration) -> Result<Vec<LeasedMessage>, ClientError> {
        sleep(pause).await;
        let free = self.arguments.jobs - u16::try_from(running).unwrap_or(self.arguments.jobs);
        let order = LeaseOrder {
            max: self.arguments.max.unwrap_or(free.max(1)),
            wait: self.arguments.wait.unwrap_or(if self.arguments.until_empty {
                Duration::ZERO
            } else {
                WAIT
            }),
            lease: Some(self.lease),
            payload_as: PayloadAs::Auto,
        };
        Ok(self.client.lease(&self.arguments.queue, &order).await?.value.items)
    }

    fn on_answer(&self, plan: &mut Plan, answer: Result<Vec<LeasedMessage>, ClientError>) {
        match answer {
            Ok(messages) => {
                if !plan.pause.is_zero() {
                    say("the gateway gives messages again");
                }
                (plan.was_there, plan.pause, plan.next_pause) = (true, Duration::ZERO, PAUSE_FIRST);
                plan.is_ending |= messages.is_empty() && self.arguments.until_empty;
                self.held.borrow_mut().extend(messages.iter().map(|message| message.receipt.clone()));
                plan.waiting.extend(messages);
            }
            Err(error) if may_pass(&error, plan.was_there) => {
                if plan.pause.is_zero() {
                    say(&format!("{}; asking again", first_line(&error)));
                }
                plan.pause = asked_pause(&error).unwrap_or_default().max(plan.next_pause).min(PAUSE_MAX);
                plan.next_pause = (plan.next_pause * 2).min(PAUSE_MAX);
            }
            Err(error) => {
                plan.is_ending = true;
                plan.failure.get_or_insert(error.into());
            }
        }
    }

    fn on_signal(&self, plan: &mut Plan, name: &str, running: usize) {
        plan.is_ending = true;
        plan.signals += 1;
        match plan.signals {
            1 if running == 0 => say(&format!("{name}: ending")),
            1 => say(&format!("{name}: ending when {running} commands have ended; once more ends them")),
            2 => self.children.signal(Signal::SIGTERM),
            _ => self.children.signal(Signal::SIGKILL),
        }
    }

    /// Runs the command for a message and settles it.
    async fn work(&self, message: LeasedMessage) -> Result<(), Failure> {
        let payload = letter::payload(&message.message);
        let ended = match &payload {
            Ok(payload) => self.children.run(&self.arguments.command, &message, payload).await,
            Err(failure) => Err(std::io::Error::other(failure.to_string())),
        };
        match ended {
            Ok(ending) => {
                let count = match &ending {
                    Ending::Ack => &self.counts.done,
                    Ending::Retry { .. } => &self.counts.retried,
                    Ending::Reject { .. } => &self.counts.rejected,
                    Ending::Release => &self.counts.released,
                };
                if let Ending::Retry { reason: Some(reason), .. } | Ending::Reject { reason: Some(reason) } =
                    &ending
                {
                    say(&format!("{}: {reason}", message.message.id));
                }
                self.settle(vec![(message.receipt, ending)], count).await;
                Ok(())
            }
            Err(error) => {
                let program = self.arguments.command.first().map_or("", String::as_str);
                self.release([message]).await?;
                Err(Failure::failed(format!("{program:?} cannot be run: {error}")))
            }
        }
    }

    async fn release(&self, messages: impl IntoIterator<Item = LeasedMessage>) -> Result<(), Failure> {
        let endings = messages.into_iter().map(|message| (message.receipt, Ending::Release)).collect();
        self.settle(endings, &self.counts.released).await;
        Ok(())
    }

    /// Settles, again and again until the leases would be over.
    async fn settle(&self, endings: Vec<(String, Ending)>, count: &Cell<u64>) {
        self.held.borrow_mut().retain(|held| endings.iter().all(|(receipt, _)| receipt != held));
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let error = match self.client.settle(&self.arguments.queue, &endings).await {
                Ok(results) => {
                    let lost =
                        results.results.iter().filter(|result| result.result == ReceiptFate::Lost).count();
                    let lost = lost as u64;
                    if lost > 0 {
                        say(&format!(
                            "{lost} leases were over before they were settled: those messages come again"
                        ));
                    }
                    self.counts.lost.set(self.counts.lost.get() + lost);
                    count.set(count.get() + endings.len() as u64 - lost);
                    break;
                }
                Err(error) => error,
            };
            if began.elapsed() + pause > self.lease || !may_pass(&error, true) {
                say(&format!(
                    "what became of {} messages cannot be said, they may come again: {error}",
                    endings.len()
                ));
                self.counts.lost.set(self.counts.lost.get() + endings.len() as u64);
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Holds on to everything that is held.
    async fn extend(&self) {
        let receipts: Vec<String> = self.held.borrow().iter().cloned().collect();
        for receipts in receipts.chunks(RECEIPTS_MAX) {
            match self.client.extend(&self.arguments.queue, receipts, self.lease).await {
                Ok(results) => {
                    let mut held = self.held.borrow_mut();
                    for result in results.results.iter().filter(|result| result.result == ReceiptFate::Lost) {
                        // One that was settled meanwhile is not lost.
                        if held.remove(&result.receipt) {
                            say("a lease is over although its command runs: that message comes again");
                        }
                    }
                }
                // The next beat is in time.
                Err(error) => say(&format!("leases are not extended: {}", first_line(&error))),
            }
        }
    }

    fn report(&self) {
        let Counts { done, retried, rejected, released, lost } = &self.counts;
        let [done, retried, rejected] = [done, retried, rejected].map(Cell::get);
        let mut words = format!("{done} done, {retried} failed, {rejected} rejected");
        for (count, word) in [(released.get(), "released"), (lost.get(), "lost")] {
            if count > 0 {
                write!(words, ", {count} {word}").expect("writing to a String cannot fail");
            }
        }
        say(&words);
    }
}

/// Whether the same call may succeed later. A gateway that never was there is none to wait for.
fn may_pass(error: &ClientError, was_there: bool) -> bool {
    match error {
        ClientError::Unreachable { .. } => was_there,
        ClientError::Refused(refusal) => refusal.problem.retryable,
        ClientError::Strange { .. } => false,
    }
}

fn asked_pause(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Refused(refusal) => refusal.retry_after,
        _ => None,
    }
}

fn first_line(error: &ClientError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
