//! Named threads, each with its own single-threaded runtime, and where an actor is put.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};

use actix_rt::System;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The thread an actor lives on.
#[derive(Clone, Debug)]
pub enum Place {
    /// The current thread, which must run an actix runtime: an HTTP worker, an arbiter, or a test.
    ///
    /// The actor ends with that thread, wherever it stands.
    Here,
    /// A thread started by [`Supervisor::arbiter`](super::Supervisor::arbiter).
    On(ArbiterHandle),
}

/// Names one running arbiter; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct ArbiterHandle {
    name: Arc<str>,
    handle: actix_rt::ArbiterHandle,
}

impl fmt::Debug for ArbiterHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ArbiterHandle").field(&self.name).finish()
    }
}

impl ArbiterHandle {
    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a task on the arbiter; it is made there, so that it need not be `Send`.
    ///
    /// A panic of the task is handled as in [`spawn`](super::spawn). Does nothing, and answers
    /// false, when the arbiter has been stopped.
    pub fn spawn<F, T>(&self, name: &'static str, make: F) -> bool
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.handle.spawn_fn(move || super::spawn(name, async move { make().await }))
    }

    /// Calls `start` on the arbiter; `start` must not panic.
    pub(super) fn run(&self, start: impl FnOnce() + Send + 'static) {
        if !self.handle.spawn_fn(start) {
            log::warn!("arbiter.name" = self.name(); "an actor was put on an arbiter that has stopped");
        }
    }
}

/// The owner's side of an arbiter: stops it and joins its thread.
#[derive(Debug)]
pub(super) struct Arbiter {
    handle: ArbiterHandle,
    // Not an actix Arbiter: that one needs a running System on the thread that makes it, cannot be
    // named, and cannot be joined with a deadline. So each thread is a System of its own, whose
    // first (and only) arbiter is the one we hand out.
    system: System,
    thread: JoinHandle<()>,
    // Resolves, with an error, when the thread is about to end.
    ended: oneshot::Receiver<()>,
}

impl Arbiter {
    /// Starts a thread and waits until it takes work.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (ending, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Err(error) => report(&ready, Err(error)),
                Ok(runtime) => live(runtime, &ready),
            }
            drop(ending);
        })?;
        match is_ready.recv() {
            Ok(Ok(system)) => {
                let handle = ArbiterHandle { name: name.into(), handle: system.arbiter().clone() };
                Ok(Self { handle, system, thread, ended })
            }
            Ok(Err(error)) => Err(error),
            Err(_gone) => Err(io::Error::other(format!("the thread {name} ended while it was starting"))),
        }
    }

    pub(super) fn handle(&self) -> ArbiterHandle {
        self.handle.clone()
    }

    /// Whether this is the thread we are on.
    pub(super) fn is_current(&self) -> bool {
        self.thread_id() == thread::current().id()
    }

    /// Asks the thread to drop its tasks and end; does not wait.
    pub(super) fn stop(&self) {
        self.system.stop();
    }

    /// Waits for the thread to end; after the deadline it is left alone, and its name comes back.
    pub(super) async fn join(self, deadline: Instant) -> Result<(), String> {
        // An error means that the sender is gone, which is the signal.
        if tokio::time::timeout_at(deadline, self.ended).await.is_err() {
            return Err(self.handle.name().to_owned());
        }
        // Nothing of ours runs on it any more: this takes no time worth awaiting.
        if self.thread.join().is_err() {
            log::error!("arbiter.name" = self.handle.name(); "an arbiter's thread panicked");
        }
        Ok(())
    }

    fn thread_id(&self) -> ThreadId {
        self.thread.thread().id()
    }
}

type Ready = std::sync::mpsc::SyncSender<io::Result<System>>;

fn live(runtime: tokio::runtime::Runtime, ready: &Ready) {
    let handle = runtime.handle().clone();
    let system = System::with_tokio_rt(|| runtime);
    report(ready, Ok(System::current()));
    let (runtime, stop) = system.into_parts();
    if let Err(error) = runtime.block_on(stop) {
        log::error!("cause" = error.to_string().as_str(); "an arbiter ended without having been asked to");
    }
    // Tasks are dropped with the runtime; their drop guards may still ask for a timer or a channel.
    let _entered = handle.enter();
    drop(runtime);
}

fn report(ready: &Ready, result: io::Result<System>) {
    // Whoever starts an arbiter waits for this answer, so there is always somebody to take it.
    if ready.send(result).is_err() {
        log::error!("an arbiter started without an owner");
    }
}
