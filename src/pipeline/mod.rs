//! The actors between store and processor, in the order in which a message meets them.
//!
//! | file | noun |
//! |---|---|
//! | `ingester` (`intake`) | gathers the publishes of one thread into few calls to the store |
//! | `dispatcher` (`ring`) | leases what its thread's worker has room for |
//! | `worker` (`attempt`) | makes the attempts |
//! | `settler` | tells the store, a batch at a time, what became of them |
//! | `consumers` | who waits to pull messages, and what is leased for them |
//! | `sweeper` | does what time brings |
//! | `prober` | looks at the store and its queues about once a second |
//! | `share` (`pace`, `places`) | how many messages of a queue are in flight, over all threads, and how many begin in a span of time |
//! | `met` | which lanes put the messages of a queue off |
//! | `lanes` | the same for everything that is sent to one origin, and whether it is spared |
//! | `batch` | what a worker thread holds, counted |
//! | `slots` | who may take a worker thread's slots |
//! | `catalog` | the queues as this process knows them |
//!
//! A [`Pipeline`] starts one thread for each worker, with a dispatcher, a worker and a settler on it, one for the consumers
//! that pull, and one for the sweeper and the prober. An ingester is started on each thread that publishes. [`phase`] names the order in which
//! they stop.

mod attempt;
mod backoff;
mod batch;
pub mod catalog;
pub mod consumers;
mod dispatcher;
pub mod ingester;
mod intake;
pub mod lanes;
mod mean;
mod met;
mod order;
mod pace;
mod parking;
mod places;
pub mod prober;
mod recalls;
mod ring;
pub mod settings;
mod settler;
pub mod share;
mod slots;
mod sweeper;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::future::pending;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::actor::{Life, Place, RestartPolicy, Role, Supervisor};
use crate::clock::Clock;
use crate::pipeline::batch::{Held, Suspects};
use crate::pipeline::catalog::Catalog;
use crate::pipeline::consumers::{ConsumerLimits, Consumers};
use crate::pipeline::dispatcher::{Dispatcher, Tools};
use crate::pipeline::ingester::Ingester;
use crate::pipeline::lanes::Lanes;
use crate::pipeline::lanes::settings::LaneSettings;
use crate::pipeline::prober::{Declare, Prober, StoreWatch};
use crate::pipeline::settings::{IngestSettings, WorkerSettings};
use crate::pipeline::settler::{Settler, Sheets};
use crate::pipeline::share::Shares;
use crate::pipeline::sweeper::Sweeper;
use crate::pipeline::worker::Worker;
use crate::processor::Registry;
use crate::store::Store;

/// The phases of a shutdown, in their order.
pub mod phase {
    use std::time::Duration;

    use crate::actor::Phase;

    /// No more requests are taken.
    pub const ACCEPT: &str = "accept";
    /// What was published is stored.
    pub const INGEST: &str = "ingest";
    /// Nothing more is leased; what has not begun is handed back.
    pub const DISPATCH: &str = "dispatch";
    /// Attempts run to their end.
    pub const WORK: &str = "work";
    /// The store is told what became of them.
    pub const SETTLE: &str = "settle";
    /// Time brings nothing more.
    pub const SWEEP: &str = "sweep";
    /// The store closes.
    pub const STORE: &str = "store";

    /// What a shutdown takes beyond its grace, to tell the store what the last attempts did and to close it.
    pub const TAIL: Duration = Duration::from_millis(900);

    /// All of them, for a shutdown with a budget of `grace` and [`TAIL`], in which attempts under way have about `grace` to end.
    ///
    /// Each phase ends as soon as its actors have. A quarter of the grace at most goes to requests that are slow to end.
    #[must_use]
    pub fn all(grace: Duration) -> Vec<Phase> {
        vec![
            Phase::new(ACCEPT, grace / 4).leaving(TAIL),
            Phase::new(INGEST, grace / 4).leaving(TAIL),
            Phase::new(DISPATCH, grace / 4).leaving(TAIL),
            Phase::new(WORK, grace).leaving(TAIL),
            Phase::new(SETTLE, TAIL).leaving(TAIL / 2),
            Phase::new(SWEEP, TAIL).leaving(TAIL / 3),
            Phase::new(STORE, TAIL),
        ]
    }
}

/// What a pipeline is made of.
#[derive(Clone)]
pub struct Parts {
    /// Cares for the actors; it has the phases of [`phase::all`].
    pub supervisor: Supervisor,
    /// Where messages rest.
    pub store: Arc<dyn Store>,
    /// What is done with them. A queue whose processor is not here is not leased from.
    pub registry: Registry,
    /// The queues; filled once before the start where the store answers, so that nobody waits for the first look.
    pub catalog: Catalog,
    /// How the store is, as far as who opened it knows; kept up to date from the start on.
    pub watch: StoreWatch,
    /// Makes the operator's queues known to the store; `None` when that was done.
    pub declare: Option<Declare>,
    /// The name of this gateway: new at each start.
    pub instance: Arc<str>,
    /// The time.
    pub clock: Clock,
    /// `[workers]`.
    pub workers: WorkerSettings,
    /// `[lanes]`.
    pub lanes: LaneSettings,
    /// `[ingest]`.
    pub ingest: IngestSettings,
    /// Of `[server.limits]` what is about consumers.
    pub consumers: ConsumerLimits,
}

/// The running pipeline: a handle, usable from any thread. The actors live under the supervisor, not by this.
#[derive(Clone)]
pub struct Pipeline(Arc<Running>);

struct Running {
    parts: Parts,
    shares: Shares,
    lanes: Lanes,
    ingesters: AtomicUsize,
    consumers: Consumers,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pipeline").field("lanes", &self.0.lanes).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Starts it on threads of its own: `workers.threads` for the workers, one for consumers, and one.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    ///
    /// # Panics
    /// When the supervisor lacks a phase.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let threads = parts.workers.threads_on(cores);
        let thread = |name: &str| parts.supervisor.try_arbiter(name).map(Place::On);
        let workers: Vec<_> =
            (0..threads).map(|index| thread(&format!("worker-{index}"))).collect::<io::Result<_>>()?;
        let (upkeep, consumers) = (thread("upkeep")?, thread("consumers")?);
        Ok(Self::start_in(parts, &workers, &upkeep, &consumers))
    }

    /// Starts it with a worker in each of these places, the sweeper and the prober in that one, and what serves consumers in the
    /// last.
    ///
    /// # Panics
    /// As [`Supervisor::start`].
    #[must_use]
    pub fn start_in(parts: Parts, workers: &[Place], upkeep: &Place, consumers: &Place) -> Self {
        let threads: Vec<_> = (0..workers.len()).map(|index| Arc::new(Held::new(index))).collect();
        let shares = Shares::new(threads.clone(), parts.workers.concurrency as usize);
        let lanes = Lanes::new(parts.lanes.clone(), parts.clock.clone());
        let Parts { supervisor, store, catalog, .. } = &parts;
        let consumers = Consumers::start(supervisor, consumers, store, catalog, parts.consumers);
        let running = Running { parts, shares, lanes, ingesters: AtomicUsize::new(0), consumers };
        let suspects = Suspects::default();
        let settings = Arc::new(running.parts.workers.clone());
        for (place, held) in workers.iter().zip(&threads) {
            running.start_worker(place, held, &suspects, &settings);
        }
        running.start_upkeep(upkeep);
        Self(Arc::new(running))
    }

    /// Starts an ingester on the current thread, which runs an actix runtime: an HTTP worker.
    ///
    /// # Panics
    /// As [`Supervisor::start`].
    #[must_use]
    pub fn ingester(&self) -> Ingester {
        self.ingester_in(&Place::Here)
    }

    /// Starts an ingester in that place.
    ///
    /// # Panics
    /// As [`Supervisor::start`].
    #[must_use]
    pub fn ingester_in(&self, place: &Place) -> Ingester {
        let Parts { supervisor, store, ingest, .. } = &self.0.parts;
        let name = format!("ingester-{}", self.0.ingesters.fetch_add(1, Ordering::Relaxed));
        Ingester::start(supervisor, place, name, store.clone(), ingest.clone())
    }

    /// The door for consumers that pull.
    #[must_use]
    pub fn consumers(&self) -> &Consumers {
        &self.0.consumers
    }

    /// The queues as this process knows them.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.0.parts.catalog
    }

    /// How the store is.
    #[must_use]
    pub fn store_watch(&self) -> &StoreWatch {
        &self.0.parts.watch
    }

    /// What each queue may have in flight in this process.
    #[must_use]
    pub fn shares(&self) -> &Shares {
        &self.0.shares
    }

    /// What is sent to each origin from this process.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.0.lanes
    }
}

impl Running {
    fn start_worker(
        &self,
        place: &Place,
        held: &Arc<Held>,
        suspects: &Suspects,
        settings: &Arc<WorkerSettings>,
    ) {
        let Parts { supervisor, store, catalog, clock, registry, .. } = &self.parts;
        let index = held.thread;
        let settler = supervisor.start(
            place,
            role(
                format!("settler-{index}"),
                phase::SETTLE,
                settings.held_max() + settings.unsettled_max as usize,
            ),
            {
                let (store, settings, held) = (store.clone(), settings.clone(), held.clone());
                let sheets: Arc<Mutex<Sheets>> = Arc::default();
                move || Settler {
                    store: store.connect(),
                    settings: settings.clone(),
                    sheets: sheets.clone(),
                    held: held.clone(),
                }
            },
        );
        let worker = supervisor.start(
            place,
            // A batch has one lease at least, and the last message tells to hand back.
            role(format!("worker-{index}"), phase::WORK, settings.held_max() + 1),
            {
                let (store, settler, held) = (store.clone(), settler.clone(), held.clone());
                let (clock, registry, settings) = (clock.clone(), registry.clone(), settings.clone());
                let lanes = self.lanes.clone();
                move || {
                    Worker::new(
                        store.connect(),
                        settler.clone(),
                        held.clone(),
                        clock.clone(),
                        registry.build_all(),
                        lanes.clone(),
                        settings.concurrency as usize,
                    )
                }
            },
        );
        let tools = Arc::new(Tools {
            catalog: catalog.clone(),
            registry: registry.clone(),
            shares: self.shares.clone(),
            lanes: self.lanes.clone(),
            clock: clock.clone(),
            suspects: suspects.clone(),
            settings: settings.clone(),
            held: held.clone(),
            worker,
            settler,
            wakes: store.wakes().clone(),
            unanswered: Mutex::default(),
        });
        let store = store.clone();
        let role = role(format!("dispatcher-{index}"), phase::DISPATCH, 1);
        supervisor.start(place, role, move || Dispatcher::new(tools.clone(), &*store));
    }

    fn start_upkeep(&self, place: &Place) {
        let Parts { supervisor, store, catalog, clock, .. } = &self.parts;
        supervisor.start(place, role("sweeper".to_owned(), phase::SWEEP, 1), {
            let (store, clock) = (store.clone(), clock.clone());
            move || Sweeper::new(&*store, clock.clone())
        });
        supervisor.start(place, role("prober".to_owned(), phase::SWEEP, 1), {
            let store = store.clone();
            let tools = prober::Tools {
                catalog: catalog.clone(),
                watch: self.parts.watch.clone(),
                clock: clock.clone(),
                undeclared: Arc::new(Mutex::new(self.parts.declare.clone())),
                instance: self.parts.instance.clone(),
            };
            move || Prober::new(&*store, tools.clone())
        });
    }
}

fn role(name: String, phase: &'static str, mailbox_capacity: usize) -> Role {
    Role { name, phase, mailbox_capacity, restart: RestartPolicy::default() }
}

/// How much earlier than its phase's deadline an actor ends, to be in time.
const BEFORE_DEADLINE: Duration = Duration::from_millis(50);

/// Whether an actor must end now to be in time.
fn is_late(life: &Life) -> bool {
    life.deadline().is_some_and(|deadline| Instant::now() + BEFORE_DEADLINE >= deadline)
}

/// Resolves when [`is_late`] becomes true.
async fn until_late(life: &Life) {
    life.stopping().await;
    if let Some(deadline) = life.deadline() {
        sleep_until(deadline.checked_sub(BEFORE_DEADLINE).unwrap_or(deadline)).await;
    }
}

/// Resolves at that moment; never, when there is none.
async fn after(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
