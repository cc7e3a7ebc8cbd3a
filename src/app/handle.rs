//! A running gateway as its program holds it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::actor::{Address, ArbiterHandle, SendError, ShutdownReport, Supervisor};
use crate::api::{Code, Problem, Published, Status};
use crate::app::Publication;
use crate::app::reception::Request;
use crate::http::{Edge, Stopper};
use crate::pipeline::phase;
use crate::store::Store;

/// How much longer than the HTTP server's own deadline its phase may take.
const MARGIN: Duration = Duration::from_millis(50);

/// A running gateway. Clones are the same gateway; usable from any thread and any runtime. Dropping them all leaves it
/// running: [`Handle::stop`] ends it.
#[derive(Clone)]
pub struct Handle(Arc<Parts>);

/// What a handle holds.
pub(super) struct Parts {
    pub(super) supervisor: Supervisor,
    pub(super) edge: Edge,
    pub(super) stopper: Stopper,
    pub(super) store: Arc<dyn Store>,
    pub(super) control: ArbiterHandle,
    pub(super) reception: Address<Request>,
    pub(super) address: SocketAddr,
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handle").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Publishes one message; resolves once the store has it safely, after 10 s at the latest.
    ///
    /// # Errors
    /// The problem that an HTTP client would read. Dropping the future does not take the message back.
    pub async fn publish(&self, publication: Publication) -> Result<Published, Box<Problem>> {
        let (told, answer) = oneshot::channel();
        let request = Request::Publish(publication, told);
        match self.0.reception.try_send(request) {
            Ok(()) => {}
            Err(SendError::Full(_)) => {
                let detail = "too many publishes of this program wait: server.limits.publishes_in_flight_max says how many may";
                return Err(problem(Code::Overloaded, detail));
            }
            Err(SendError::Closed(_)) => {
                return Err(problem(Code::ShuttingDown, "the gateway is shutting down"));
            }
        }
        let lost = "the actor that published it was restarted: the outcome is unknown";
        answer.await.unwrap_or_else(|_| Err(problem(Code::StoreTimeout, lost)))
    }

    /// Everything that `/status` says; `None` when the gateway has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (told, answer) = oneshot::channel();
        self.0.reception.try_send(Request::Status(told)).ok()?;
        answer.await.ok()
    }

    /// Resolves with an actor's name when that actor failed too often: `/ready` says so, and the gateway should be stopped.
    pub async fn until_gave_up(&self) -> String {
        self.0.supervisor.until_gave_up().await
    }

    /// Stops in order: requests, publishes, leasing, attempts under way, the store. Attempts have `grace` to end, at most
    /// `server.grace`; what has not is handed back or taken back at the next start. Says who was late; ends about a second after the grace at the latest. Later calls wait for the first.
    pub async fn stop(&self, grace: Duration) -> ShutdownReport {
        let (told, report) = oneshot::channel();
        let handle = self.clone();
        let run = async move || drop(told.send(handle.stop_here(grace).await));
        if apart("stop", run) {
            return report.await.unwrap_or_default();
        }
        ShutdownReport::default()
    }

    async fn stop_here(&self, grace: Duration) -> ShutdownReport {
        let step = |name, deadline: tokio::time::Instant| async move {
            match name {
                phase::ACCEPT => {
                    self.0.edge.drain();
                    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                    if !self.0.stopper.stop(left.saturating_sub(MARGIN)).await {
                        log::warn!("requests were cut off at shutdown");
                    }
                }
                phase::STORE => close(&self.0.control, self.0.store.clone()).await,
                _ => {}
            }
        };
        self.0.supervisor.shutdown_with(Some(grace.saturating_add(phase::TAIL)), step).await
    }
}

/// Closes the store on a thread that has a runtime for it.
async fn close(control: &ArbiterHandle, store: Arc<dyn Store>) {
    let (told, is_closed) = oneshot::channel::<()>();
    control.spawn("close", move || async move {
        if let Err(error) = store.connect().close().await {
            log::error!("cause" = error.to_string().as_str(); "the store did not close well");
        }
        drop(told);
    });
    // Ends when the other end is dropped, be it by a panic.
    drop(is_closed.await);
}

/// Stops what was started of a gateway that cannot be.
pub(super) fn stop_apart(supervisor: Supervisor, budget: Option<Duration>) {
    let run = async move || drop(supervisor.shutdown(budget).await);
    apart("stop", run);
}

/// Runs a task to its end on a thread and a runtime of its own, since the caller may have none, or one that ends with it. Gives
/// whether the system had a thread for it.
fn apart<R: AsyncFnOnce() + Send + 'static>(name: &str, run: R) -> bool {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run()),
            Err(error) => log::error!("cause" = error.to_string().as_str(); "no runtime to stop with"),
        }
    });
    thread.is_ok()
}

fn problem(code: Code, detail: &str) -> Box<Problem> {
    Box::new(Problem::new(code, detail))
}
