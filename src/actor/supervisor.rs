//! Starts actors, restarts those that break, and knows all of them.
//!
//! # What it does
//! Each actor lives in a task on its own thread that belongs to the supervisor: the task owns the
//! factory and the inbox, builds the actor, lets it live, and decides by the table in
//! [`restart`](super::restart) what follows. All tasks share one registry.
//!
//! # What it waits for
//! The end of a life; then the pause before the next one, cut short when the actor's shutdown phase
//! begins. Senders wait for room in the mailbox meanwhile, each with a deadline of its own.
//!
//! # What it guarantees
//! A panic takes nothing with it but the one message in hand: what is queued stays queued for the
//! next life. No panic and no end of an actor is silent. An actor that broke too often is named
//! once, and for good.
//!
//! # When it fails
//! An actor whose thread ends under it counts as stopped, and its mailbox closes. An actor that
//! blocks its thread blocks all actors on it, the shutdown excepted, which names it and goes on.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::arbiter::{Arbiter, ArbiterHandle, Place};
use super::life::Life;
use super::mailbox::{Address, Inbox, mailbox};
use super::restart::{Next, RecentRestarts, RestartPolicy, Stage, after};
use super::shutdown::{Phase, PhaseState, ShutdownReport};
use super::watch::{ActorState, ActorStatus, Entry};
use super::{Actor, Exit, panic_text, spawn_local};

/// How an actor is started.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name on `/status` and in the log; best unique among the living.
    pub name: String,
    /// The shutdown phase it stops in; one of the supervisor's.
    pub phase: &'static str,
    /// The most messages its mailbox holds; at least 1.
    pub mailbox_capacity: usize,
    /// How often it may be restarted.
    pub restart: RestartPolicy,
}

/// All actors of one process; cheap to clone, usable from any thread.
///
/// Without a [`shutdown`](Supervisor::shutdown), actors live on; arbiters end when the last clone
/// and the last actor are gone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
}

impl Supervisor {
    /// Makes a supervisor with these phases, in the order of the shutdown.
    ///
    /// Phases known at build time are a `&'static [Phase]`; a `Vec` takes deadlines from settings.
    pub fn new(phases: impl Into<Vec<Phase>>) -> Self {
        let shared = Shared {
            phases: phases.into().into_iter().map(PhaseState::new).collect(),
            actors: Mutex::default(),
            ended: watch::Sender::new(0),
            gave_up: watch::Sender::new(None),
            arbiters: Mutex::default(),
            report: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts an actor and answers where to send to; what is sent at once is queued.
    ///
    /// Once all clones of the address are dropped, the actor's inbox answers `None`.
    /// The factory runs on the actor's thread, once for every life, so the actor need not be `Send`.
    /// An actor started after its phase began is told so in its first moment. On an arbiter that has
    /// stopped, the actor is stopped as well and the address closed.
    ///
    /// # Panics
    /// When the role names a phase the supervisor does not have, or has a mailbox capacity of 0; for
    /// [`Place::Here`], when the current thread runs no actix runtime.
    pub fn start<A, F>(&self, place: &Place, role: Role, factory: F) -> Address<A::Message>
    where
        A: Actor,
        A::Message: Send,
        F: Fn() -> A + Send + 'static,
    {
        let phase = self.shared.phase_index(role.phase);
        let (address, inbox) = mailbox(role.mailbox_capacity);
        let entry = Arc::new(Entry::new(role.name, phase, role.mailbox_capacity, address.depth_count()));
        self.shared.register(Arc::clone(&entry));
        let life = Life::new(Arc::clone(&entry), self.shared.phases[phase].begun.subscribe());
        let ending = Ending { shared: Arc::clone(&self.shared), entry };
        let care =
            Care { factory, inbox, life, policy: role.restart, recent: RecentRestarts::default(), ending };
        match place {
            Place::Here => drop(spawn_local(care.run())),
            Place::On(arbiter) => arbiter.run(move || drop(spawn_local(care.run()))),
        }
        address
    }

    /// Starts one named thread with its own runtime; works from any thread, in a runtime or not.
    ///
    /// Blocks until the thread takes work, some 100 µs. The thread is stopped, and joined, at the end
    /// of the shutdown. The system shows the first 15 bytes of its name.
    ///
    /// # Panics
    /// When the system gives us no thread or no descriptors; [`Supervisor::try_arbiter`] answers.
    #[must_use]
    pub fn arbiter(&self, name: &str) -> ArbiterHandle {
        self.try_arbiter(name).unwrap_or_else(|error| panic!("the thread {name} cannot be started: {error}"))
    }

    /// The same as [`Supervisor::arbiter`], with the system's refusal as an error.
    pub fn try_arbiter(&self, name: &str) -> io::Result<ArbiterHandle> {
        let arbiter = Arbiter::start(name)?;
        let handle = arbiter.handle();
        lock(&self.shared.arbiters).push(arbiter);
        Ok(handle)
    }

    /// A snapshot of all actors in the order they were started; an ended one stays until another of
    /// its name is started.
    #[must_use]
    pub fn watch(&self) -> Vec<ActorStatus> {
        let actors = lock(&self.shared.actors).clone();
        actors.iter().map(|entry| entry.status(self.shared.phases[entry.phase()].has_begun())).collect()
    }

    /// The first actor that broke more often than its policy allows, if there was one.
    #[must_use]
    pub fn gave_up(&self) -> Option<String> {
        self.shared.gave_up.borrow().clone()
    }

    /// Resolves, on any executor, with the first actor that broke more often than its policy allows.
    pub async fn until_gave_up(&self) -> String {
        let mut gave_up = self.shared.gave_up.subscribe();
        match gave_up.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(name)) => name.clone(),
            // The sender is in `self.shared`, and we wait for `Some`.
            Ok(None) | Err(_) => unreachable!("the sender outlives the wait, which is for a name"),
        }
    }
}

/// What all clones of a supervisor, and all its actors, share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) phases: Vec<PhaseState>,
    actors: Mutex<Vec<Arc<Entry>>>,
    /// Counts actors that ended, to wake who waits for a phase.
    pub(super) ended: watch::Sender<u64>,
    gave_up: watch::Sender<Option<String>>,
    arbiters: Mutex<Vec<Arbiter>>,
    pub(super) report: tokio::sync::Mutex<Option<ShutdownReport>>,
}

impl Shared {
    pub(super) fn phase_index(&self, name: &str) -> usize {
        let index = self.phases.iter().position(|state| state.phase.name == name);
        index.unwrap_or_else(|| panic!("there is no shutdown phase named {name}"))
    }

    /// The names of those of a phase that have not ended.
    pub(super) fn living(&self, phase: usize) -> Vec<String> {
        let actors = lock(&self.actors);
        let living = actors.iter().filter(|entry| entry.phase() == phase && !entry.has_ended());
        living.map(|entry| entry.name().to_owned()).collect()
    }

    pub(super) fn take_arbiters_but_current(&self) -> Vec<Arbiter> {
        let mut arbiters = lock(&self.arbiters);
        arbiters.extract_if(.., |arbiter| !arbiter.is_current()).collect()
    }

    // An ended actor makes room for its successor, so the registry is bounded by the names in use.
    fn register(&self, new: Arc<Entry>) {
        let mut actors = lock(&self.actors);
        actors.retain(|entry| entry.name() != new.name() || !entry.has_ended());
        actors.push(new);
    }

    fn escalate(&self, name: &str) {
        self.gave_up.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| name.to_owned());
            is_first
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for arbiter in self.arbiters.get_mut().unwrap_or_else(PoisonError::into_inner) {
            arbiter.stop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic is done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the registry of an actor's end, also when its task was dropped where it stood.
struct Ending {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.entry.has_ended() {
            self.entry.enter(ActorState::Stopped);
            let name = self.entry.name();
            // HTTP workers end in the phase of the server, which comes before that of their actors.
            if self.shared.phases.iter().any(PhaseState::has_begun) {
                log::debug!("actor.name" = name; "an actor was stopped with its thread");
            } else {
                log::warn!("actor.name" = name; "an actor's thread ended under it");
            }
        }
        self.shared.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The task that cares for one actor. Fields are dropped in this order: the mailbox is closed
/// before the registry hears of the end.
struct Care<A: Actor, F> {
    factory: F,
    inbox: Inbox<A::Message>,
    life: Life,
    policy: RestartPolicy,
    recent: RecentRestarts,
    ending: Ending,
}

impl<A: Actor, F: Fn() -> A> Care<A, F> {
    async fn run(mut self) {
        let end = loop {
            self.ending.entry.enter(ActorState::Running);
            self.life.beat();
            let exit = self.one_life().await;
            let now = Instant::now();
            let restarts = self.recent.count(now, self.policy.within);
            match after(&exit, self.stage(), restarts, &self.policy) {
                Next::Stop => break self.stopped(&exit),
                Next::GiveUp => break self.gave_up(&exit),
                Next::Restart { pause } => {
                    self.recent.add(now);
                    self.restarting(&exit);
                    self.pause(pause).await;
                    if self.stage() == (Stage::Stopping { queued: 0 }) {
                        break self.stopped(&exit);
                    }
                }
            }
        };
        let Self { inbox, ending, .. } = self;
        drop(inbox);
        ending.entry.enter(end);
        if end == ActorState::GaveUp {
            ending.shared.escalate(ending.entry.name());
        }
    }

    /// Builds the actor and lets it live; a panic anywhere in it, its drop included, is its exit.
    async fn one_life(&mut self) -> Exit {
        let life = async {
            let mut actor = (self.factory)();
            actor.run(&mut self.inbox, &self.life).await
        };
        let ended = AssertUnwindSafe(life).catch_unwind().await;
        ended.unwrap_or_else(|panic| Exit::Panicked(panic_text(panic.as_ref())))
    }

    fn stage(&self) -> Stage {
        if self.life.is_stopping() { Stage::Stopping { queued: self.inbox.depth() } } else { Stage::Running }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.life.stopping() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn restarting(&self, exit: &Exit) {
        self.ending.entry.enter(ActorState::Restarting);
        let restarts = self.ending.entry.count_restart();
        let cause = exit.to_string();
        log::warn!(
            "actor.name" = self.life.name(), "actor.restarts" = restarts, "cause" = cause.as_str();
            "an actor broke and is restarted"
        );
    }

    fn stopped(&self, exit: &Exit) -> ActorState {
        let name = self.life.name();
        let cause = exit.to_string();
        match exit {
            Exit::Panicked(_) | Exit::Failed(_) => {
                log::warn!("actor.name" = name, "cause" = cause.as_str(); "an actor broke while stopping");
            }
            Exit::Done if !self.life.is_stopping() && !self.inbox.is_closed() => {
                log::warn!("actor.name" = name; "an actor was done without having been asked to stop");
            }
            Exit::Done | Exit::Quit => {
                let queued = self.inbox.depth();
                log::debug!("actor.name" = name, "cause" = cause.as_str(), "mailbox.depth" = queued; "an actor ended");
            }
        }
        ActorState::Stopped
    }

    fn gave_up(&self, exit: &Exit) -> ActorState {
        let cause = exit.to_string();
        log::error!(
            "actor.name" = self.life.name(), "cause" = cause.as_str(), "mailbox.depth" = self.inbox.depth();
            "an actor broke too often and is given up"
        );
        ActorState::GaveUp
    }
}
