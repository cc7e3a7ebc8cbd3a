//! The HTTP edge, on actix-web: what comes in is parsed, admitted, handed to the pipeline, and answered.
//!
//! Every request passes the [`front`]. A publish, the one hot path, goes from there straight to [`publish`]; everything else
//! goes through the router to [`routes`]. Nothing is spawned here: what outlives a request is a message to an actor.
//!
//! | file | noun |
//! |---|---|
//! | `settings` | [`ServerSettings`]: `[server]` |
//! | `state` | [`Gateway`]: what the edge needs of the rest; what its threads share, and what each has of its own |
//! | `connection` | the socket that gives up on who is too slow |
//! | `front` | limits of the head, request ids, panics |
//! | `extract` | path segments and query parameters |
//! | `options` `trace` | the headers of a publish |
//! | `destination` | the destination that a message brings |
//! | `batch` | publishing many at once |
//! | `fingerprint` | what an idempotency key stands for |
//! | `pace` | long work done in pieces, with turns for others |
//! | `budget` | memory by the byte, and a share of it |
//! | `body` | reading a body within size, time and memory |
//! | `input` | a body of JSON, or none |
//! | `list` | a page of a list: limit and cursor |
//! | `publish` | the hot path |
//! | `door` | publish and status for a program that embeds the gateway |
//! | `error` | refusals: from what went wrong to status, code and header |
//! | `answer` | how each kind of answer is written |
//! | `payload` | a payload inside an answer, written piece by piece |
//! | `handout` | leased messages inside an answer, given back if it is not taken |
//! | `observer` | rates, and since when a queue stands still |
//! | `process` | what the system says of this process |
//! | `pure` | its pure parts, for the benches |
//! | `routes` | everything else, by path |

mod answer;
mod batch;
mod body;
mod budget;
mod connection;
mod destination;
pub mod door;
mod error;
mod extract;
mod fingerprint;
mod framing;
mod front;
mod handout;
mod input;
mod lanes;
mod list;
pub mod observer;
mod options;
mod pace;
mod payload;
mod process;
mod publish;
#[doc(hidden)]
pub mod pure;
mod routes;
pub mod settings;
pub mod state;
pub(crate) mod trace;

use std::collections::HashSet;
use std::fmt;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_server::{GracefulShutdownSignal, ServerHandle};
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_service};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

pub use self::door::Door;
pub use self::observer::Observer;
pub use self::settings::ServerSettings;
pub use self::state::{Gateway, JudgeDestination, Judged, MakeIngester, Occasion};

use self::connection::Guarded;
use self::front::FrontFactory;
use self::state::State;
use crate::api::Status;
use crate::domain::queue::QueueName;
use crate::store::MessageStore;

/// How long the rest of an unwanted body is swallowed after its refusal was sent, so that the client reads the refusal and not
/// a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Every route: its path, in which `{name}` is one segment, and one of its methods. HEAD comes with each GET by itself.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    routes::all()
}

/// A port that is held, so that nobody else takes it, and not served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// The address, with the real port where port 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes the port of `server.listen`. Clients may connect from now on; they are answered once it is served.
///
/// # Errors
/// The address is in use, or not one of this machine's.
pub fn bind(settings: &ServerSettings) -> io::Result<Listener> {
    let listener = TcpListener::bind(settings.listen.0)?;
    let address = listener.local_addr()?;
    Ok(Listener { listener, address })
}

/// The HTTP edge of a gateway. Clones are the same edge; usable from any thread.
#[derive(Clone, Debug)]
pub struct Edge(Arc<State>);

impl Edge {
    /// The edge of a gateway that starts now.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self(Arc::new(State::new(gateway)))
    }

    /// The actor that measures rates; to be started once, with a mailbox of 1.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { state: self.0.clone() }
    }

    /// Refuses all publishes from now on with `503 shutting_down`, and says so on `/ready`. What was taken goes its way.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// What `/status` says, of all queues or of those named, read by this connection to the store. Never fails; takes at most
    /// as long as the store is given, 2 s.
    pub async fn status(&self, store: &dyn MessageStore, named: Option<&HashSet<QueueName>>) -> Status {
        routes::status(&self.0, store, named).await
    }

    /// Makes the server of a listener. It serves once [`Server::run`] is polled.
    ///
    /// # Errors
    /// The listener cannot be made ready for waiting.
    pub fn server(&self, listener: Listener) -> io::Result<Server> {
        let settings = &self.0.gateway.settings;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let threads = settings.threads_on(cores);
        let connections_max = self.connections_max(threads);
        let builder = actix_server::Server::build()
            .workers(threads)
            .max_concurrent_connections((connections_max / threads).max(1))
            .disable_signals()
            .shutdown_timeout(settings.grace.as_secs() + 1);
        let (state, stopping) = (self.0.clone(), builder.graceful_shutdown_signal());
        let make = move || connections(&state, &stopping);
        let serving = builder.listen("http", listener.listener, make)?.run();
        let (handle, kill) = (serving.handle(), Arc::new(Notify::new()));
        Ok(Server { serving, stopper: Stopper { handle, kill }, address: listener.address })
    }

    /// Connections that may be open at once: as set, and no more than this process has descriptors for beside its own needs,
    /// so that no crowd of clients takes those of the store and of deliveries.
    fn connections_max(&self, threads: usize) -> usize {
        let gateway = &self.0.gateway;
        let setting = gateway.settings.limits.connections_max;
        let room = process::connections_room(threads, gateway.deliveries_max);
        let room = u32::try_from(room.unwrap_or(u64::MAX)).unwrap_or(u32::MAX);
        if room < setting {
            log::warn!(
                connections_max = room, setting = setting;
                "the limit of open files is too low for server.limits.connections_max: fewer connections are accepted"
            );
        }
        usize::try_from(setting.min(room)).unwrap_or(usize::MAX)
    }
}

/// What is done with each connection of one thread.
fn connections(
    state: &Arc<State>,
    stopping: &GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<>
{
    let patience = state.limits().into();
    let stopping = stopping.clone();
    let requests = HttpService::build()
        // Ends idle connections when the server stops, as the server of actix-web itself does.
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        // `Guarded` ends idle connections and times the heads.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .on_connect_ext(|stream: &Guarded, data| {
            let _: Option<Rc<connection::Connection>> = data.insert(stream.connection());
        })
        .h1(FrontFactory::new(state.clone()));
    fn_service(move |stream: TcpStream| {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("cause" = error.to_string().as_str(); "a connection cannot be told not to wait");
        }
        ready(Ok((Guarded::new(stream, patience), None)))
    })
    .and_then(requests)
}

/// A server that is about to serve.
pub struct Server {
    serving: actix_server::Server,
    stopper: Stopper,
    address: SocketAddr,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// The address, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped, on threads of its own. To be polled on a runtime of the actor module's, which its threads
    /// then have as well. Dropping the future ends all connections.
    ///
    /// # Errors
    /// A thread cannot be started, or the gateway's ingester cannot.
    pub async fn run(self) -> io::Result<()> {
        let Self { serving, stopper, .. } = self;
        tokio::select! {
            result = serving => result,
            () = stopper.kill.notified() => Ok(()),
        }
    }
}

/// Stops a server. Clones stop the same one; usable from any thread.
#[derive(Clone)]
pub struct Stopper {
    handle: ServerHandle,
    kill: Arc<Notify>,
}

impl fmt::Debug for Stopper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stopper").finish_non_exhaustive()
    }
}

impl Stopper {
    /// Stops accepting, ends idle connections, and waits for the requests under way; at the deadline, ends those too. Gives
    /// whether all were answered in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        let in_time = timeout(deadline, self.handle.stop(true)).await.is_ok();
        if !in_time {
            self.kill.notify_one();
        }
        in_time
    }
}
