//! The load: connections that post, by a schedule or as fast as they are answered.
//!
//! By a schedule (open loop) a message is due at its time whether or not the gateway keeps up. One that finds all connections busy
//! waits for one, and its latency counts from when it was due: a gateway that stands still for a second makes everything late that was
//! due in that second, and not only what was under way. One after the other (closed loop) each connection posts as soon as it was
//! answered; there a stall is seen by as many requests as there are connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connection::{Connection, Request};
use super::latencies::Latencies;
use super::meter::{ThreadClock, ThreadTime};
use super::numbers::Numbers;
use super::pacer::Pacer;
use super::receiver::Seen;
use super::schedule::Schedule;
use crate::cli::Failure;

/// How long a request may take, and how long after the end of a schedule what is still waiting is sent.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// What a connection waits after it broke, so that a gateway that is gone is not hammered.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How often it is looked whether enough was received.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Sent later than this after it was due, a message was late.
const LATE: Duration = Duration::from_millis(1);
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// When the next request is sent.
pub(super) enum Pace {
    /// When it is due.
    Open(Schedule),
    /// When the last one was answered; until that long has passed, or so many were sent.
    Closed { lasting: Duration, requests_max: u64 },
    /// The same, with so many messages at most that are sent and not received there.
    Behind { lasting: Duration, seen: Arc<Seen>, ahead_max: u64 },
}

/// What is sent, and how.
pub(super) struct Load<'l> {
    pub(super) address: SocketAddr,
    /// Sent in turn.
    pub(super) requests: &'l [Request],
    pub(super) connections: usize,
    pub(super) pace: Pace,
    /// What stamps are counted from.
    pub(super) epoch: Instant,
}

/// Requests that were not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Unanswered {
    /// The connection broke, or there was none.
    pub(super) connection: u64,
    /// Not within half a minute.
    pub(super) timeout: u64,
    /// What came is no answer of a gateway.
    pub(super) unreadable: u64,
    /// Never sent: half a minute after the end of the schedule they were still waiting for a connection.
    pub(super) unsent: u64,
}

impl Unanswered {
    /// All of them.
    pub(super) const fn total(&self) -> u64 {
        self.connection + self.timeout + self.unreadable + self.unsent
    }
}

/// What came of it.
pub(super) struct Outcome {
    /// From when a request was due (sent, in a closed loop) until it was answered 202, or given up: how long was waited in vain counts.
    pub(super) latency: Latencies,
    /// The same from when it was sent.
    pub(super) service: Latencies,
    /// From when it was due until it was sent.
    pub(super) delay: Latencies,
    /// Requests that were sent later than they were due.
    pub(super) late: u64,
    /// How many were answered with each status.
    pub(super) answers: BTreeMap<u16, u64>,
    pub(super) unanswered: Unanswered,
    /// The numbers of those with a stamp that were answered 202.
    pub(super) stamped: Numbers,
    /// From the begin to the last answer.
    pub(super) took: Duration,
    /// What the thread used that sent it all.
    pub(super) used: Option<ThreadTime>,
}

impl Outcome {
    fn new() -> Self {
        Self {
            latency: Latencies::new(),
            service: Latencies::new(),
            delay: Latencies::new(),
            late: 0,
            answers: BTreeMap::new(),
            unanswered: Unanswered::default(),
            stamped: Numbers::default(),
            took: Duration::ZERO,
            used: None,
        }
    }

    /// Requests that were answered 202.
    pub(super) fn accepted(&self) -> u64 {
        self.answers.get(&202).copied().unwrap_or_default()
    }

    fn note(&mut self, due: Instant, sent: Instant, result: &Result<u16, io::Error>, stamp: Option<u64>) {
        let done = Instant::now();
        let delay = sent.saturating_duration_since(due);
        self.late += u64::from(delay > LATE);
        self.delay.add(delay);
        match result {
            Ok(status) => *self.answers.entry(*status).or_default() += 1,
            Err(error) => match error.kind() {
                io::ErrorKind::TimedOut => self.unanswered.timeout += 1,
                io::ErrorKind::InvalidData => self.unanswered.unreadable += 1,
                _ => self.unanswered.connection += 1,
            },
        }
        if let (Ok(202), Some(number)) = (result, stamp) {
            self.stamped.add(number);
        }
        // A refusal is quick: it would make what was accepted look better.
        if !matches!(result, Ok(status) if *status != 202) {
            self.latency.add(done - due);
            self.service.add(done - sent);
        }
    }
}

/// Sends it all; tells now and then how far it is. Cancelled it closes its connections.
///
/// # Errors
/// When this machine gives no thread.
pub(super) async fn run(load: Load<'_>, tell: impl Fn(&Outcome)) -> Result<Outcome, Failure> {
    let mut opening: FuturesUnordered<_> = (0..load.connections).map(|_| open(load.address)).collect();
    let mut connections = Vec::with_capacity(load.connections);
    while let Some(connection) = opening.next().await {
        // One that cannot be opened now is tried again for its first request, and counted there.
        connections.push(connection.ok());
    }
    let clock = ThreadClock::here();
    let before = clock.as_ref().and_then(ThreadClock::read);
    let began = Instant::now();
    let Load { address, requests, pace, epoch, .. } = load;
    let turns = Turns::begin(pace, began, connections.len()).map_err(Failure::failed)?;
    let outcome = RefCell::new(Outcome::new());
    let posting = Posting { address, requests, epoch, turns: &turns, outcome: &outcome };
    let mut posters: FuturesUnordered<_> =
        connections.into_iter().map(|connection| posting.post(connection)).collect();
    let mut ticks = interval(TOLD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = posters.next() => if ended.is_none() { break },
            _ = ticks.tick() => tell(&outcome.borrow()),
        }
    }
    let took = began.elapsed();
    drop(posters);
    let mut outcome = outcome.into_inner();
    outcome.took = took;
    for due in turns.left() {
        let waited = took.saturating_sub(due);
        outcome.unanswered.unsent += 1;
        outcome.latency.add(waited);
        outcome.delay.add(waited);
    }
    outcome.used = clock.as_ref().and_then(ThreadClock::read).zip(before).map(|(now, before)| now - before);
    Ok(outcome)
}

async fn open(address: SocketAddr) -> io::Result<Connection> {
    timeout(ANSWER_WITHIN, Connection::open(address)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// What those who post share.
#[derive(Clone, Copy)]
struct Posting<'p> {
    address: SocketAddr,
    requests: &'p [Request],
    epoch: Instant,
    turns: &'p Turns,
    outcome: &'p RefCell<Outcome>,
}

impl Posting<'_> {
    /// Posts until there are no more turns.
    async fn post(self, mut connection: Option<Connection>) {
        let mut room = Vec::new();
        let count = self.requests.len() as u64;
        while let Some((number, due)) = self.turns.next().await {
            let sent = Instant::now();
            let due = due.unwrap_or(sent);
            let turn = usize::try_from(number % count).expect("fewer than there are");
            let since = due.saturating_duration_since(self.epoch);
            let bytes = self.requests[turn].stamped(&mut room, number, since);
            let result = timeout(ANSWER_WITHIN, exchange(self.address, &mut connection, bytes)).await;
            let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let stamp = self.requests[turn].is_stamped().then_some(number);
            self.outcome.borrow_mut().note(due, sent, &result, stamp);
            if result.is_err() {
                connection = None;
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn exchange(address: SocketAddr, kept: &mut Option<Connection>, request: &[u8]) -> io::Result<u16> {
    let left_open = kept.take().and_then(Connection::if_open);
    let mut connection = match left_open {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let (status, stays) = connection.exchange(request).await?;
    if stays {
        *kept = Some(connection);
    }
    Ok(status)
}

/// Whose turn it is.
struct Turns {
    given: Cell<u64>,
    order: Order,
}

enum Order {
    Open { schedule: RefCell<Schedule>, began: Instant, due: Arc<Semaphore>, until: Instant, _pacer: Pacer },
    Closed { until: Instant, requests_max: u64 },
    Behind { until: Instant, seen: Arc<Seen>, taken: u64, ahead_max: u64 },
}

impl Turns {
    fn begin(pace: Pace, began: Instant, connections: usize) -> io::Result<Self> {
        let order = match pace {
            Pace::Closed { lasting, requests_max } => Order::Closed { until: began + lasting, requests_max },
            Pace::Behind { lasting, seen, ahead_max } => {
                let taken = seen.taken.load(Ordering::Relaxed);
                Order::Behind { until: began + lasting, seen, taken, ahead_max }
            }
            Pace::Open(schedule) => {
                let due = Arc::new(Semaphore::new(0));
                let until = began + schedule.lasting() + ANSWER_WITHIN;
                let pacer = Pacer::start(schedule.clone(), began, due.clone(), connections)?;
                Order::Open { schedule: RefCell::new(schedule), began, due, until, _pacer: pacer }
            }
        };
        Ok(Self { given: Cell::new(0), order })
    }

    /// The next request's number, and when it is due, once it is; in a closed loop that is now.
    async fn next(&self) -> Option<(u64, Option<Instant>)> {
        let due = match &self.order {
            Order::Closed { until, requests_max } => {
                if self.given.get() >= *requests_max || Instant::now() >= *until {
                    return None;
                }
                None
            }
            Order::Behind { until, seen, taken, ahead_max } => {
                while self.given.get() >= seen.taken.load(Ordering::Relaxed) - taken + ahead_max {
                    if Instant::now() >= *until {
                        return None;
                    }
                    sleep(LOOK_EVERY).await;
                }
                if Instant::now() >= *until {
                    return None;
                }
                None
            }
            Order::Open { schedule, began, due, until, .. } => {
                due.acquire().await.ok()?.forget();
                if Instant::now() >= *until {
                    return None;
                }
                Some(*began + schedule.borrow_mut().next()?)
            }
        };
        let number = self.given.get();
        self.given.set(number + 1);
        Some((number, due))
    }

    /// Arrivals that nobody took.
    fn left(self) -> impl Iterator<Item = Duration> {
        let schedule = match self.order {
            Order::Open { schedule, .. } => Some(schedule.into_inner()),
            Order::Closed { .. } | Order::Behind { .. } => None,
        };
        schedule.into_iter().flatten()
    }
}
