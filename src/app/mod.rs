//! The composition root, and the API of a program that embeds the gateway.
//!
//! | file | noun |
//! |---|---|
//! | `mod` | [`Builder`] and [`App`]: settings and functions become a gateway; the only place that puts the parts together |
//! | `check` | what can be said against settings before anything is opened |
//! | `declare` | the operator's queues, given to the store |
//! | `difference` | how two settings of a queue differ, in words without secrets |
//! | `handle` | [`Handle`]: publish, status, stop |
//! | `publication` | [`Publication`]: a message with its options |
//! | `reception` | the actor that a handle talks to |
//! | `secrets` | the secrets that the settings name, gathered, and kept from the store |
//!
//! A gateway runs on threads of its own and may be started from any runtime or none. Nothing here installs a signal
//! handler, a logger, a panic hook or a TLS provider. The `http` processor uses the TLS provider that the program has installed,
//! else one of its own.

mod check;
mod declare;
mod difference;
mod handle;
mod publication;
mod reception;
mod secrets;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use crate::actor::{ArbiterHandle, Place, RestartPolicy, Role, Supervisor};
use crate::clock::Clock;
use crate::config::{Problems, Settings};
use crate::domain::destination::Destination;
use crate::http::{self, Edge, Gateway, Judged, Listener, Occasion};
use crate::pipeline::catalog::Catalog;
use crate::pipeline::prober::StoreWatch;
use crate::pipeline::{Parts, Pipeline, phase};
use crate::processor::{Context, Guard, Keyring, Lookup, NameError, Registry, Resolution};
use crate::store::error::OpenError;
use crate::store::health::Warning;
use crate::store::{self, Store};

pub use crate::processor::function::{Message, Outcome};
pub use handle::Handle;
pub use publication::Publication;

/// How long the store may take to make the declared queues known.
const DECLARE_WITHIN: Duration = Duration::from_mins(1);

/// Why a gateway did not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot be.
    #[error("{0}")]
    Configuration(String),
    /// The machine or the store failed.
    #[error("{0}")]
    Failed(String),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Configuration(detail) => Self::Configuration(detail),
            OpenError::Failed(detail) => Self::Failed(detail),
        }
    }
}

/// Adds a function to the processors, once there are any.
type Register = Box<dyn FnOnce(&mut Registry) -> Result<(), NameError> + Send>;

/// A gateway in the making.
#[must_use]
pub struct Builder {
    settings: Settings,
    functions: Vec<Register>,
    lookup: Option<Lookup>,
    found: Problems,
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Builder").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

impl Builder {
    /// Registers a function under the name that a queue's `processor` gives it. It is cloned once for each worker thread; its
    /// futures stay on that thread and need not be `Send`. A panic in it is a retry of that message.
    pub fn processor<F, R>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(Message) -> R + Send + Clone + 'static,
        R: Future<Output = Outcome> + 'static,
    {
        let name = name.to_owned();
        self.functions.push(Box::new(move |registry| registry.register(&name, function)));
        self
    }

    /// Has names looked up by `lookup` in place of the system's resolver, wherever messages are pushed to. It may block, on a thread
    /// made for that; what it gives is judged by the egress guard and kept for 30 s. That there is no such name it says with
    /// [`io::ErrorKind::NotFound`]; after any other error the addresses of the last ten minutes do.
    pub fn lookup<F>(mut self, lookup: F) -> Self
    where
        F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    {
        self.lookup = Some(Arc::new(lookup));
        self
    }

    /// Adds what was found wrong with the settings as they were read: it is told with the rest.
    pub(crate) fn found(mut self, found: Problems) -> Self {
        self.found = found;
        self
    }

    /// Checks what can be checked without opening the store or the address.
    ///
    /// # Errors
    /// [`StartError::Configuration`] for a function's name that cannot be, and for all that is wrong with the settings: what is
    /// out of its range, a processor that nobody registered, a destination that may not be reached.
    pub fn build(self) -> Result<App, StartError> {
        let clock = Clock::system();
        let (egress, dev) = (&self.settings.egress, self.settings.dev);
        let guard = match self.lookup {
            Some(lookup) => Guard::with_lookup(egress, dev, lookup),
            None => Guard::new(egress, dev),
        };
        let (keyring, problems) = secrets::gather(&self.settings);
        let unopened = Context {
            clock: clock.clone(),
            guard: guard.clone(),
            keyring: keyring.clone(),
            store_id: Arc::new(|| "".into()),
        };
        let mut registry = Registry::new(&unopened);
        for register in self.functions {
            register(&mut registry).map_err(|error| StartError::Configuration(error.to_string()))?;
        }
        check::check(
            &self.settings,
            &registry,
            &guard,
            check::Found { by_others: self.found, of_secrets: problems },
        )?;
        Ok(App { settings: self.settings, registry, guard, keyring, clock })
    }
}

/// A gateway that can be started.
#[must_use]
pub struct App {
    settings: Settings,
    registry: Registry,
    guard: Guard,
    keyring: Keyring,
    clock: Clock,
}

impl fmt::Debug for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("App").finish_non_exhaustive()
    }
}

impl App {
    /// Begins with these settings.
    pub fn builder(settings: Settings) -> Builder {
        Builder { settings, functions: Vec::new(), lookup: None, found: Problems::default() }
    }

    /// What it is made from.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts it on threads of its own and gives it once it listens. Blocks while the store is opened and recovered, at most
    /// `store.lock_wait` for another process to let go of it.
    ///
    /// # Errors
    /// The address is taken, the store cannot be opened, the system gives no threads.
    pub fn start(self) -> Result<Handle, StartError> {
        let listener = http::bind(&self.settings.server).map_err(|error| {
            StartError::Failed(format!(
                "server.listen: cannot listen on {}: {error}",
                self.settings.server.listen
            ))
        })?;
        self.guard.listens_at(listener.address());
        let store = store::open(&self.settings.store, &self.clock)?;
        let supervisor = Supervisor::new(phase::all(self.settings.server.grace));
        match self.compose(listener, store, &supervisor) {
            Ok(handle) => Ok(handle),
            Err(error) => {
                handle::stop_apart(supervisor, None);
                Err(error)
            }
        }
    }

    fn compose(
        self,
        listener: Listener,
        store: Arc<dyn Store>,
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let control = thread(supervisor, "control")?;
        let queues = secrets::for_the_store(&self.settings);
        let declared = declare::declare(&control, store.clone(), self.guard.clone(), queues.clone())?;
        let catalog = Catalog::default();
        let warnings: Arc<OnceLock<_>> = Arc::default();
        let (watch, declare) = match declared {
            Ok(declared) => {
                warnings.get_or_init(|| declared.warnings);
                catalog.replace_all(declared.entries);
                (StoreWatch::opened(declared.health, self.clock.now()), None)
            }
            Err(error) => {
                log::warn!("cause" = error.to_string().as_str(); "the store is not there yet: publishes are refused until it is");
                let declare = declare::later(self.guard.clone(), queues, warnings.clone());
                (StoreWatch::away(error, self.clock.now()), Some(declare))
            }
        };
        let known = store.clone();
        let store_id = Arc::new(move || known.id());
        let (guard, keyring) = (self.guard.clone(), self.keyring.clone());
        let context = Context { clock: self.clock.clone(), guard, keyring, store_id };
        let registry = self.registry.clone().with(&context);
        let instance = format!("{:016x}", fastrand::u64(..));
        let pipeline = Pipeline::start(Parts {
            supervisor: supervisor.clone(),
            store: store.clone(),
            registry: registry.clone(),
            catalog,
            watch,
            declare,
            instance: instance.as_str().into(),
            clock: self.clock.clone(),
            workers: self.settings.workers.clone(),
            ingest: self.settings.ingest.clone(),
            lanes: self.settings.lanes.clone(),
            consumers: self.settings.server.limits.consumers(),
        })
        .map_err(|error| {
            StartError::Failed(format!("the threads of the workers cannot be started: {error}"))
        })?;
        let edge = self.edge(&store, supervisor, &pipeline, &registry, instance, warnings)?;
        let at = Place::On(control.clone());
        let observer = edge.clone();
        supervisor.start(&at, role("observer", phase::SWEEP, 1), move || observer.observer());
        let reception = reception::start(supervisor, &at, &edge, self.requests_max());
        let address = listener.address();
        let stopper = serve(&thread(supervisor, "http")?, &edge, listener)?;
        log::info!("address" = address.to_string().as_str(), "store" = store.kind(); "listening");
        Ok(Handle::new(handle::Parts {
            supervisor: supervisor.clone(),
            edge,
            stopper,
            store,
            control,
            reception,
            address,
        }))
    }

    fn requests_max(&self) -> usize {
        usize::try_from(self.settings.server.limits.publishes_in_flight_max).unwrap_or(usize::MAX)
    }

    fn deliveries_max(&self) -> u64 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let workers = &self.settings.workers;
        workers.threads_on(cores) as u64 * u64::from(workers.concurrency)
    }

    fn edge(
        &self,
        store: &Arc<dyn Store>,
        supervisor: &Supervisor,
        pipeline: &Pipeline,
        registry: &Registry,
        instance: String,
        warnings: Arc<OnceLock<Vec<Warning>>>,
    ) -> Result<Edge, StartError> {
        let queue_defaults = serde_json::to_value(&self.settings.queue_defaults)
            .map_err(|error| StartError::Failed(error.to_string()))?;
        let (guard, ingesters) = (self.guard.clone(), pipeline.clone());
        Ok(Edge::new(Gateway {
            settings: self.settings.server.clone(),
            durability: self.settings.store.durability,
            queue_defaults,
            processors: registry.names().into_iter().map(str::to_owned).collect(),
            instance,
            clock: self.clock.clone(),
            store: store.clone(),
            store_watch: pipeline.store_watch().clone(),
            catalog: pipeline.catalog().clone(),
            supervisor: supervisor.clone(),
            deliveries_max: self.deliveries_max(),
            keyring: self.keyring.clone(),
            warnings,
            judge_destination: Arc::new(move |destination, occasion| {
                let guard = guard.clone();
                Box::pin(async move { judge(&guard, &destination, occasion).await })
            }),
            make_ingester: Arc::new(move || ingesters.ingester()),
            lanes: pipeline.lanes().clone(),
            shares: pipeline.shares().clone(),
            consumers: pipeline.consumers().clone(),
        }))
    }
}

/// What the egress guard says of a destination.
async fn judge(guard: &Guard, destination: &Destination, occasion: Occasion) -> Judged {
    let judged = match occasion {
        Occasion::Publish { within } => guard.judge_soon(destination, within).await.map(|()| None),
        Occasion::Set => guard.judge_now(destination).await.map(|resolution| {
            let Resolution::Unresolved(error) = resolution else { return None };
            let (host, cause) = (destination.url().host_str().unwrap_or_default(), error.to_string());
            log::warn!("destination.host" = host, "cause" = cause.as_str(); "a destination does not resolve now");
            Some(cause)
        }),
    };
    judged.map_err(|refusal| refusal.to_string())
}

fn thread(supervisor: &Supervisor, name: &str) -> Result<ArbiterHandle, StartError> {
    supervisor
        .try_arbiter(name)
        .map_err(|error| StartError::Failed(format!("the thread {name} cannot be started: {error}")))
}

fn role(name: &str, phase: &'static str, mailbox_capacity: usize) -> Role {
    Role { name: name.to_owned(), phase, mailbox_capacity, restart: RestartPolicy::default() }
}

/// Starts the HTTP server on its thread and waits until it is made.
fn serve(place: &ArbiterHandle, edge: &Edge, listener: Listener) -> Result<http::Stopper, StartError> {
    let (made, is_made) = mpsc::sync_channel(1);
    let edge = edge.clone();
    place.spawn("http", move || async move {
        match edge.server(listener) {
            Ok(server) => {
                drop(made.send(Ok(server.stopper())));
                if let Err(error) = server.run().await {
                    log::error!("cause" = error.to_string().as_str(); "the HTTP server ended");
                }
            }
            Err(error) => drop(made.send(Err(error))),
        }
    });
    match is_made.recv_timeout(DECLARE_WITHIN) {
        Ok(Ok(stopper)) => Ok(stopper),
        Ok(Err(error)) => Err(StartError::Failed(format!("the HTTP server cannot be made: {error}"))),
        Err(error) => Err(StartError::Failed(format!("the HTTP server was not made in time: {error}"))),
    }
}
