//! Looks at the counters now and then, so that `/status` can tell of rates and of how long a queue has stood still.
//!
//! # What it does
//! Asks the store for all counts every ten seconds and keeps, for each queue, those of the last five minutes, and since
//! when it has been stalled and why.
//!
//! # What it waits for
//! The store, then the next ten seconds.
//!
//! # What it guarantees
//! What it keeps is bounded: 32 samples of 32 bytes a queue, so 1 MB for a thousand queues. A queue that was deleted and made
//! again starts anew. It asks only what costs a store the same however much is queued.
//!
//! # When it fails
//! With the store away it keeps what it had; rates then cover a longer time than their name says by as long as the store was
//! away. Without it, rates are measured between the readings of `/status`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::actor::{Actor, Exit, Inbox, Life};
use crate::api::status::{Rates, Stalled};
use crate::clock::Tick;
use crate::domain::destination::Destination;
use crate::domain::queue::{Generation, HTTP, ParkReason, QueueName};
use crate::domain::timestamp::Timestamp;
use crate::http::lanes;
use crate::http::state::State;
use crate::store::health::{FOREIGN_TYPE, Trouble};
use crate::store::stats::QueueStats;
use crate::store::{MessageStore, QueueEntry};

/// The time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Samples kept of a queue: five minutes of them, one more for the beginning of the first, and one under way.
const SAMPLES_MAX: usize = 32;
/// How long messages may wait for consumers of whom none asks, before the queue is called stalled.
const UNASKED_MAX: Duration = Duration::from_mins(1);
/// A rate over less than this would be noise.
const MEASURE_MIN: Duration = Duration::from_secs(1);

/// What was seen of the store before: shared by the observer and all HTTP threads.
#[derive(Debug, Default)]
pub(super) struct Observations {
    seen: Mutex<Seen>,
    /// Held by the one request that asks for the counts of all queues.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    queues: HashMap<QueueName, Track>,
    stalled: HashMap<QueueName, Stop>,
    sampled: Option<Tick>,
    last: Option<Snapshot>,
}

/// The counts of all queues at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The counts.
    pub(super) stats: Arc<Vec<QueueStats>>,
    /// When they were read.
    pub(super) at: Timestamp,
    /// The same, by a clock that never jumps.
    pub(super) tick: Tick,
}

#[derive(Debug)]
struct Track {
    generation: Generation,
    samples: VecDeque<Sample>,
    /// Since when it has had messages pending of which none was taken, and how many had been when that began.
    standing: Option<(Tick, u64)>,
}

impl Track {
    /// Notes whether its messages are taken, by consumers of whatever gateway.
    fn note_standing(&mut self, queue: &QueueStats, tick: Tick) {
        let counters = &queue.counters;
        let taken = counters.delivered
            + counters.retried
            + counters.dead_lettered
            + counters.recovered
            + counters.cancelled
            + counters.purged;
        let stands = queue.gauges.pending > 0 && queue.gauges.leased == 0;
        self.standing = match self.standing {
            Some((since, before)) if stands && before == taken => Some((since, before)),
            _ => stands.then_some((tick, taken)),
        };
    }
}

/// Since when a queue has been stalled for which reason.
#[derive(Clone, Copy, Debug)]
struct Stop {
    generation: Generation,
    code: &'static str,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    tick: Tick,
    accepted: u64,
    delivered: u64,
}

impl Observations {
    /// The last counts of all queues; `None` when there never were any.
    pub(super) fn last(&self) -> Option<Snapshot> {
        self.lock().last.clone()
    }

    /// Notes the counts of all queues; a sample is kept of them when the last one is old enough.
    pub(super) fn note(&self, snapshot: &Snapshot) {
        let mut seen = self.lock();
        let seen = &mut *seen;
        seen.last = Some(snapshot.clone());
        // A little early is not too early: the timer and the clock are not the same.
        let due = SAMPLE_EVERY.saturating_sub(MEASURE_MIN);
        if seen.sampled.is_some_and(|sampled| snapshot.tick.since(sampled) < due) {
            return;
        }
        seen.sampled = Some(snapshot.tick);
        let names: HashSet<&QueueName> = snapshot.stats.iter().map(|queue| &queue.name).collect();
        seen.queues.retain(|name, _| names.contains(name));
        seen.stalled.retain(|name, _| names.contains(name));
        for queue in snapshot.stats.iter() {
            let new = || Track { generation: queue.generation, samples: VecDeque::new(), standing: None };
            let track = seen.queues.entry(queue.name.clone()).or_insert_with(new);
            if track.generation != queue.generation {
                *track = new();
            }
            if track.samples.len() == SAMPLES_MAX {
                track.samples.pop_front();
            }
            let (accepted, delivered) = (queue.counters.accepted, queue.counters.delivered);
            track.samples.push_back(Sample { tick: snapshot.tick, accepted, delivered });
            track.note_standing(queue, snapshot.tick);
        }
    }

    /// How fast a queue is, whose counts at `now` are these.
    pub(super) fn rates(&self, queue: &QueueStats, now: Tick) -> Rates {
        let seen = self.lock();
        let track = seen.queues.get(&queue.name).filter(|track| track.generation == queue.generation);
        let over = |window: Duration| {
            let samples = &track?.samples;
            // The youngest that is as old as the window, or the oldest there is.
            let old = |sample: &&Sample| now.since(sample.tick) >= window;
            let sample = samples.iter().rev().find(old).or_else(|| samples.front())?;
            let span = now.since(sample.tick);
            let per_s = |count: u64, before: u64| rounded(count.saturating_sub(before), span);
            (span >= MEASURE_MIN).then(|| {
                let counters = &queue.counters;
                (per_s(counters.accepted, sample.accepted), per_s(counters.delivered, sample.delivered))
            })
        };
        let (minute, five) = (over(Duration::from_mins(1)), over(Duration::from_mins(5)));
        Rates {
            accepted_per_s_1m: minute.map(|(accepted, _)| accepted),
            accepted_per_s_5m: five.map(|(accepted, _)| accepted),
            delivered_per_s_1m: minute.map(|(_, delivered)| delivered),
            delivered_per_s_5m: five.map(|(_, delivered)| delivered),
        }
    }

    /// How long messages have been pending in a queue of which none was taken.
    fn standing_for(&self, queue: &QueueName, generation: Generation, now: Tick) -> Option<Duration> {
        let seen = self.lock();
        let track = seen.queues.get(queue).filter(|track| track.generation == generation)?;
        track.standing.map(|(since, _)| now.since(since))
    }

    /// Notes whether a queue is stalled, and gives since when it has been so for this reason.
    fn stalled(
        &self,
        queue: &QueueName,
        generation: Generation,
        why: Option<(&'static str, String)>,
        now: Timestamp,
    ) -> Option<Stalled> {
        let mut seen = self.lock();
        let Some((code, detail)) = why else {
            seen.stalled.remove(queue);
            return None;
        };
        let new = Stop { generation, code, since: now };
        let known = seen.stalled.entry(queue.clone()).or_insert(new);
        if (known.generation, known.code) != (generation, code) {
            *known = new;
        }
        Some(Stalled { code: code.into(), detail, since: known.since })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many in so long, per second, to the thousandth.
fn rounded(count: u64, span: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is rounded to a thousandth anyway")]
    let per_s = count as f64 / span.as_secs_f64();
    (per_s * 1_000.0).round() / 1_000.0
}

/// What the store says to be wrong with a queue in that way.
pub(super) fn trouble_of(state: &State, queue: &QueueName, code: &str) -> Option<String> {
    let store = state.gateway.store_watch.now();
    let troubles = &store.health.as_ref()?.troubles;
    let of_queue = |trouble: &&Trouble| trouble.queue == *queue && trouble.code == code;
    troubles.iter().find(of_queue).map(|trouble| trouble.detail.clone())
}

/// Why a queue does not move; `None` when nothing holds it. Whether anything waits in it makes no difference, except where consumers
/// are to come: what is published next would wait.
fn reason(state: &State, entry: &QueueEntry) -> Option<(&'static str, String)> {
    let store = state.gateway.store_watch.now();
    if !store.reachable {
        let why =
            store.error.as_ref().map_or_else(|| "it has not answered yet".to_owned(), ToString::to_string);
        return Some(("store_unavailable", why));
    }
    if let Some(why) = store.health.as_ref().and_then(|health| health.newer.clone()) {
        return Some(("store_newer", why));
    }
    if let Some(why) = trouble_of(state, &entry.name, FOREIGN_TYPE) {
        return Some(("store_unavailable", why));
    }
    if entry.paused {
        return Some(("paused", "an operator paused it: resume it to go on".to_owned()));
    }
    if let Some(parked) = entry.parked {
        let destination = entry.settings.destination.as_ref();
        let origin = destination.map_or_else(|| "its destination".to_owned(), Destination::origin);
        return Some(match parked {
            ParkReason::DeadFull => (
                "dead_full",
                "its dead letters are at dead.length_max or dead.bytes_max: it goes on by itself when some were replayed or discarded, or the limit was raised"
                    .to_owned(),
            ),
            ParkReason::DestinationGone => {
                ("destination_gone", format!("410 from {origin}: give the queue another destination, or resume it"))
            }
            ParkReason::EgressRefused => (
                "egress_refused",
                format!("{origin} may not be reached: allow it under [egress], or give the queue another destination"),
            ),
        });
    }
    let processor = &entry.settings.processor;
    if !state.gateway.processors.contains(processor) {
        let known = state.gateway.processors.join(", ");
        return Some(("no_worker", format!("this gateway has no processor {processor:?}, but {known}")));
    }
    if processor == HTTP
        && let Err(why) =
            state.gateway.keyring.signer(&entry.name, &entry.settings, state.gateway.clock.now())
    {
        return Some((
            "no_worker",
            format!("this gateway cannot sign its deliveries, so it makes none: {why}"),
        ));
    }
    if entry.settings.is_pull() {
        let now = state.gateway.clock.tick();
        let standing = state.observations.standing_for(&entry.name, entry.generation, now);
        if is_unasked(standing, state.gateway.consumers.unasked_for(&entry.name)) {
            let detail =
                "messages wait and nobody has asked for them for a minute: are its consumers running?";
            return Some(("no_consumer", detail.to_owned()));
        }
    }
    lanes::stalled(state, entry)
}

/// Whether messages wait for consumers and none is there: none was taken for long, by whatever gateway, and nobody has asked here.
fn is_unasked(standing: Option<Duration>, unasked: Option<Duration>) -> bool {
    standing.is_some_and(|standing| standing >= UNASKED_MAX)
        && unasked.is_none_or(|unasked| unasked >= UNASKED_MAX)
}

/// Whether this queue is stalled, why, and since when.
pub(super) fn stalled(state: &State, entry: &QueueEntry) -> Option<Stalled> {
    let (why, now) = (reason(state, entry), state.gateway.clock.now());
    state.observations.stalled(&entry.name, entry.generation, why, now)
}

/// Every queue that is stalled.
pub(super) fn stalled_queues(state: &State) -> Vec<(QueueName, Stalled)> {
    let all = state.gateway.catalog.all();
    all.iter().filter_map(|entry| Some((entry.name.clone(), stalled(state, entry)?))).collect()
}

/// The actor; see the module.
#[derive(Debug)]
pub struct Observer {
    pub(super) state: Arc<State>,
}

impl Actor for Observer {
    // Time tells it what to do.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let store = self.state.gateway.store.connect();
        let mut stopping = pin!(life.stopping());
        while !life.is_stopping() {
            life.beat();
            tokio::select! {
                biased;
                () = &mut stopping => return Exit::Done,
                () = self.look(&store) => {}
            }
            tokio::select! {
                biased;
                () = &mut stopping => {}
                () = sleep(SAMPLE_EVERY) => {}
            }
        }
        Exit::Done
    }
}

impl Observer {
    async fn look(&self, store: &Rc<dyn MessageStore>) {
        match store.observe().await {
            Ok(stats) => {
                let clock = &self.state.gateway.clock;
                let snapshot = Snapshot { stats: Arc::new(stats), at: clock.now(), tick: clock.tick() };
                self.state.observations.note(&snapshot);
            }
            // The prober says so where an operator sees it.
            Err(error) => log::debug!("cause" = error.to_string().as_str(); "the counts could not be read"),
        }
        drop(stalled_queues(&self.state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::stats::{Counters, Gauges};

    fn queue(generation: u64, accepted: u64, delivered: u64) -> QueueStats {
        QueueStats {
            name: "orders".parse().expect("a name"),
            generation: Generation(generation),
            counters: Counters { accepted, delivered, ..Counters::default() },
            gauges: Gauges::default(),
            oldest_pending_at: None,
            paused: false,
            parked: None,
            foreign: 0,
            recovering_until: None,
        }
    }

    fn at(second: u64) -> Tick {
        Tick::new(Duration::from_secs(second))
    }

    fn note(seen: &Observations, second: u64, stats: Vec<QueueStats>) {
        let at = Timestamp::from_millis(second * 1_000);
        seen.note(&Snapshot { stats: Arc::new(stats), at, tick: Tick::new(Duration::from_secs(second)) });
    }

    #[test]
    fn rates_cover_their_window_or_what_there_is() {
        let seen = Observations::default();
        assert_eq!(seen.rates(&queue(1, 5, 5), at(0)), Rates::default());
        note(&seen, 0, vec![queue(1, 0, 0)]);
        assert_eq!(seen.rates(&queue(1, 5, 5), at(0)).accepted_per_s_1m, None);
        assert_eq!(seen.rates(&queue(1, 20, 10), at(4)).accepted_per_s_1m, Some(5.0));
        // A hundred a second for ten minutes, then ten.
        for second in (10..=600).step_by(10) {
            note(&seen, second, vec![queue(1, second * 100, 0)]);
        }
        for second in (610..=660).step_by(10) {
            note(&seen, second, vec![queue(1, 60_000 + (second - 600) * 10, second - 600)]);
        }
        let rates = seen.rates(&queue(1, 60_600, 60), at(660));
        assert_eq!(rates.accepted_per_s_1m, Some(10.0));
        assert_eq!(rates.delivered_per_s_1m, Some(1.0));
        assert_eq!(rates.accepted_per_s_5m, Some(82.0));
        assert_eq!(rates.delivered_per_s_5m, Some(0.2));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_queue_made_again_starts_anew() {
        let seen = Observations::default();
        for second in 0..1_000 {
            note(&seen, second, vec![queue(1, second, 0)]);
        }
        let kept =
            |seen: &Observations| seen.lock().queues.values().map(|track| track.samples.len()).sum::<usize>();
        assert_eq!(kept(&seen), SAMPLES_MAX);
        note(&seen, 1_010, vec![queue(2, 7, 0)]);
        assert_eq!(kept(&seen), 1);
        assert_eq!(seen.rates(&queue(2, 9, 0), at(1_011)).accepted_per_s_5m, Some(2.0));
        note(&seen, 1_020, vec![]);
        assert_eq!(kept(&seen), 0);
    }

    #[test]
    fn messages_that_nobody_takes_are_seen_and_those_that_are_taken_elsewhere_are_not() {
        let seen = Observations::default();
        let name: QueueName = "orders".parse().expect("a name");
        let look = |second: u64, pending: u64, leased: u64, delivered: u64| {
            let gauges = Gauges { pending, leased, ..Gauges::default() };
            note(&seen, second, vec![QueueStats { gauges, ..queue(1, 9, delivered) }]);
            seen.standing_for(&name, Generation(1), at(second)).map(|standing| standing.as_secs())
        };
        assert_eq!(look(0, 0, 0, 0), None, "nothing waits");
        assert_eq!(look(10, 5, 0, 0), Some(0));
        assert_eq!(look(20, 6, 0, 0), Some(10), "more of it changes nothing");
        assert_eq!(look(30, 5, 1, 0), None, "somebody has one");
        assert_eq!(look(40, 5, 0, 1), Some(0));
        assert_eq!(look(50, 5, 0, 2), Some(0), "some were taken between two looks");
        assert_eq!(look(110, 5, 0, 2), Some(60));
        assert_eq!(seen.standing_for(&name, Generation(2), at(110)), None);

        let minute = Some(UNASKED_MAX);
        let less = Some(UNASKED_MAX / 2);
        for (standing, unasked, expected) in [
            (minute, None, true),
            (minute, minute, true),
            (minute, less, false),
            (less, minute, false),
            (None, None, false),
        ] {
            assert_eq!(is_unasked(standing, unasked), expected);
        }
    }

    #[test]
    fn since_is_when_this_reason_was_first_seen() {
        let seen = Observations::default();
        let name: QueueName = "orders".parse().expect("a name");
        let look = |generation, code: Option<&'static str>, ms| {
            let why = code.map(|code| (code, String::new()));
            let stalled = seen.stalled(&name, Generation(generation), why, Timestamp::from_millis(ms));
            stalled.map(|stalled| stalled.since.as_millis())
        };
        assert_eq!(look(1, Some("paused"), 1), Some(1));
        assert_eq!(look(1, Some("paused"), 2), Some(1));
        assert_eq!(look(1, Some("dead_full"), 3), Some(3));
        assert_eq!(look(1, None, 4), None);
        assert_eq!(look(1, Some("dead_full"), 5), Some(5));
        assert_eq!(look(2, Some("dead_full"), 6), Some(6), "another queue of that name");
    }

    #[test]
    fn nothing_is_kept_of_a_queue_that_went_away() {
        let seen = Observations::default();
        let (orders, gone) =
            (queue(1, 0, 0), QueueStats { name: "gone".parse().expect("a name"), ..queue(2, 0, 0) });
        note(&seen, 0, vec![orders.clone(), gone.clone()]);
        for queue in [&orders, &gone] {
            let why = Some(("paused", String::new()));
            assert!(seen.stalled(&queue.name, queue.generation, why, Timestamp::from_millis(1)).is_some());
        }
        note(&seen, 10, vec![orders.clone()]);
        let kept = seen.lock();
        assert_eq!(kept.stalled.keys().collect::<Vec<_>>(), [&orders.name]);
        assert_eq!(kept.queues.keys().collect::<Vec<_>>(), [&orders.name]);
    }
}
