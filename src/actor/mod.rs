//! A small supervised actor runtime on actix-rt; it knows nothing of messages in the product's sense.
//!
//! An [`Actor`] is one task on one thread that owns its state and reads one bounded mailbox. A
//! [`Supervisor`] builds it with a factory, keeps its [`Inbox`] when it panics, builds the next one
//! after a pause, and stops all actors in phases. actix-rt is named in this folder only.
//!
//! | file | noun |
//! |---|---|
//! | `mailbox` | [`Address`], [`Inbox`], [`SendError`]: the bounded queue between two threads |
//! | `life` | [`Life`]: what an actor knows of its own life: beats and the stop signal |
//! | `restart` | [`RestartPolicy`] and the life cycle as a table: exit × stage → what follows |
//! | `supervisor` | [`Supervisor`]: starts actors, restarts them, tells who gave up |
//! | `shutdown` | [`Phase`], [`ShutdownReport`]: stopping in order, naming who was late |
//! | `arbiter` | [`ArbiterHandle`]: a named thread with its own single-threaded runtime |
//! | `watch` | [`ActorStatus`]: one line of `/status` |
//! | `guard` | [`Guard`]: gives taken work back when its owner is dropped |
//!
//! Three kinds of threads meet here: arbiters, which [`Supervisor::arbiter`] starts; threads that
//! somebody else runs, such as the HTTP workers ([`Place::Here`]); and any other thread, which may
//! start actors on arbiters, send, and watch.

pub mod arbiter;
pub mod guard;
pub mod life;
pub mod mailbox;
pub mod restart;
pub mod shutdown;
pub mod supervisor;
pub mod watch;

#[cfg(test)]
mod tests;

pub use arbiter::{ArbiterHandle, Place};
pub use guard::{Guard, Unfinished};
pub use life::Life;
pub use mailbox::{Address, Inbox, SendError};
pub use restart::RestartPolicy;
pub use shutdown::{Late, Phase, ShutdownReport};
pub use supervisor::{Role, Supervisor};
pub use watch::{ActorState, ActorStatus};

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;

/// How one life of an actor ended, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to stop, or nobody can send to it any more, and it has finished.
    ///
    /// Without that it counts as [`Exit::Quit`], and the log says so.
    Done,
    /// It has nothing more to do, of its own accord; it is not restarted.
    Quit,
    /// It, or its factory, panicked with this text; only the supervisor makes this value.
    Panicked(String),
    /// It cannot go on for this cause and wants a fresh start, exactly as after a panic.
    Failed(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => formatter.write_str("done"),
            Self::Quit => formatter.write_str("quit"),
            Self::Panicked(text) => write!(formatter, "panicked: {text}"),
            Self::Failed(cause) => write!(formatter, "failed: {cause}"),
        }
    }
}

/// One task with its own state and one mailbox; a factory builds it anew for every life.
pub trait Actor: 'static {
    /// What its mailbox carries.
    type Message: 'static;

    /// Lives one life: reads the inbox until [`Life::stopping`] and the inbox is drained.
    ///
    /// The future stays on the thread it was started on and need not be `Send`. The inbox is only
    /// borrowed: what is queued survives a panic and waits for the next life. What was already
    /// taken from it does not; hold it in a [`Guard`]. The future is dropped, at any await, when
    /// its thread ends.
    #[expect(
        async_fn_in_trait,
        reason = "actors stay on one thread, so no caller needs the future to be Send"
    )]
    async fn run(&mut self, inbox: &mut Inbox<Self::Message>, life: &Life) -> Exit;
}

static SPAWNED_PANICS: AtomicU64 = AtomicU64::new(0);

/// Starts a local task on the current thread whose panic is logged and counted, never silent.
///
/// Nobody waits for it: it is dropped where it stands when its thread ends. `name` is for the log.
///
/// # Panics
/// When the current thread runs no actix runtime.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + 'static) {
    let task = async move {
        if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
            SPAWNED_PANICS.fetch_add(1, Ordering::Relaxed);
            log::error!("task.name" = name, "cause" = panic_text(panic.as_ref()).as_str(); "a task panicked");
        }
    };
    drop(spawn_local(task));
}

/// How many tasks started with [`spawn`] have panicked since the process began.
#[must_use]
pub fn spawned_panics() -> u64 {
    SPAWNED_PANICS.load(Ordering::Relaxed)
}

/// Starts a task that catches its own panics.
#[expect(
    clippy::disallowed_methods,
    reason = "the one door to actix_rt::spawn: both callers catch panics inside the task"
)]
fn spawn_local(task: impl Future<Output = ()> + 'static) -> impl Sized {
    actix_rt::spawn(task)
}

/// The text a panic was raised with, as far as it is text.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}
