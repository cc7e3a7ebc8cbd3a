//! The door to the store for one thread that publishes: many concurrent publishes become few calls.
//!
//! # What it does
//! Gathers the groups that were published while the previous call was with the store, and sends them as one
//! `enqueue`. Each group gets a result of its own. An answer that was lost is asked for again, with the same call id,
//! until it is known or nobody waits for it any more.
//!
//! # What it waits for
//! The first group after an idle time; then, unless 64 messages wait already (and then every second time), for the tasks that are
//! ready to publish as well, and while the call is small for those who come during that, as long as each turn brings some, or a few
//! bring none where the last call carried more: turns of the thread, sixteen at most, and no timer; then for the store. One call is on
//! its way at a time, so under load a call carries what came in meanwhile.
//!
//! # What it guarantees
//! No answer but the store's own is ever given as success. Nothing is stored twice: a call keeps its id for as long as
//! its outcome is unknown, across a restart of the actor as well. Queues take turns when not all that waits fits one
//! call. What waits is bounded by `ingest.waiting_messages_max` and `ingest.waiting_bytes_max`. A waiter that is
//! dropped changes nothing: its group goes its way. After its deadline no waiter waits for longer than 20 ms.
//!
//! # When it fails
//! After a panic the next life sends the same call again; those who wait notice a pause. When it ends for good, or at
//! the deadline of its shutdown phase, those whose group was with the store are told that its fate is unknown, the
//! others that nothing was stored.

use std::convert::Infallible;
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::actor::{Actor, Exit, Inbox, Life, Place, RestartPolicy, Role, Supervisor};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::intake::{Answer, Intake, Sending};
use crate::pipeline::settings::IngestSettings;
use crate::pipeline::{is_late, phase};
use crate::store::enqueue::{Group, GroupResult};
use crate::store::error::{StoreError, Stored};
use crate::store::{CALL_MEMORY, MessageStore, Store};

/// How often deadlines are looked at while a call is with the store.
const DEADLINES_EVERY: Duration = Duration::from_millis(20);
/// A call of fewer messages waits for others while each turn of the thread brings some, so many turns at most; where the last
/// call carried more, so many turns in a row may bring none.
const SMALL_BELOW: usize = 64;
const TURNS_MAX: u32 = 16;
const EMPTY_TURNS_MAX: u32 = 4;
/// How long after its first sending a call may be sent again: the store remembers it for [`CALL_MEMORY`] from the
/// moment it worked on it, and a sending may take as long as a store call's own deadline.
const RESEND_FOR: Duration = CALL_MEMORY.saturating_sub(Duration::from_secs(15));

/// Why a publish has no result from the store.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Too much waits already. Nothing was stored.
    #[error("too much waits for the store: {setting} is {limit}")]
    Overloaded {
        /// The setting.
        setting: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The gateway stops. Nothing was stored.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The deadline came first.
    #[error("the store did not answer in time")]
    TimedOut {
        /// [`Stored::No`] when the store had not been asked yet.
        stored: Stored,
    },
}

impl Refused {
    /// Whether the group may be in the store. What it means to a publish with a key is for the caller to say.
    #[must_use]
    pub const fn stored(&self) -> Stored {
        match self {
            Self::TimedOut { stored } => *stored,
            Self::Overloaded { .. } | Self::ShuttingDown => Stored::No,
        }
    }
}

/// The handle of one thread's ingester: cheap to clone, usable from any thread, at its best on its own.
#[derive(Clone)]
pub struct Ingester {
    intake: Arc<Intake>,
}

impl fmt::Debug for Ingester {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, bytes) = self.depth();
        formatter.debug_struct("Ingester").field("messages", &messages).field("bytes", &bytes).finish()
    }
}

impl Ingester {
    /// Starts an ingester of that name in that place.
    #[must_use]
    pub fn start(
        supervisor: &Supervisor,
        place: &Place,
        name: String,
        store: Arc<dyn Store>,
        settings: IngestSettings,
    ) -> Self {
        let intake = Arc::new(Intake::new(settings));
        let role =
            Role { name, phase: phase::INGEST, mailbox_capacity: 1, restart: RestartPolicy::default() };
        let end = End(intake.clone());
        supervisor.start(place, role, move || {
            let End(intake) = &end;
            Gatherer {
                intake: intake.clone(),
                store: store.connect(),
                backoff: Backoff::default(),
                is_failing: false,
                last_messages: 0,
                has_hurried: false,
            }
        });
        Self { intake }
    }

    /// Publishes a group; resolves with what became of it, after the deadline at the latest.
    ///
    /// The group is taken in by the call, not by the first poll. Dropping the future does not take it back.
    pub fn publish(&self, group: Group, deadline: Instant) -> Publishing {
        let state = match self.intake.admit(group, deadline) {
            Ok(place) => PublishingState::Waiting(place),
            Err(refused) => PublishingState::Refused(refused),
        };
        Publishing { intake: self.intake.clone(), state }
    }

    /// Messages and bytes that wait for their call; a group that is larger than a call counts as one.
    #[must_use]
    pub fn depth(&self) -> (usize, u64) {
        self.intake.depth()
    }
}

/// A publish under way.
#[must_use = "only the result says whether the group was stored"]
pub struct Publishing {
    intake: Arc<Intake>,
    state: PublishingState,
}

enum PublishingState {
    Waiting(usize),
    Refused(Refused),
    Answered,
}

impl Future for Publishing {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = match &self.state {
            PublishingState::Waiting(place) => std::task::ready!(self.intake.poll(*place, context)),
            PublishingState::Refused(refused) => Err(refused.clone()),
            PublishingState::Answered => return Poll::Pending,
        };
        self.state = PublishingState::Answered;
        Poll::Ready(answer)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if let PublishingState::Waiting(place) = self.state {
            self.intake.abandon(place);
        }
    }
}

/// Lives as long as the supervisor cares for the actor: its end is the end of all waiting.
struct End(Arc<Intake>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What the store has against a call, or against one of its groups.
fn why_failed(results: &Result<Vec<GroupResult>, StoreError>) -> Option<&StoreError> {
    match results {
        Err(error) => Some(error),
        Ok(results) => results.iter().find_map(|result| match result {
            GroupResult::Failed(error) => Some(error),
            _ => None,
        }),
    }
}

struct Gatherer {
    intake: Arc<Intake>,
    store: Rc<dyn MessageStore>,
    backoff: Backoff,
    is_failing: bool,
    /// What the last call carried.
    last_messages: usize,
    /// Whether it left without a turn for others.
    has_hurried: bool,
}

impl Actor for Gatherer {
    // Groups come through the intake, which answers them as well.
    type Message = Infallible;

    async fn run(&mut self, _inbox: &mut Inbox<Infallible>, life: &Life) -> Exit {
        let mut stopping = pin!(life.stopping());
        loop {
            life.beat();
            let is_busy = self.intake.is_busy();
            if life.is_stopping() {
                self.intake.shut();
                if !is_busy || is_late(life) {
                    return Exit::Done;
                }
            } else if !is_busy {
                tokio::select! {
                    biased;
                    () = self.intake.arrived() => {}
                    () = &mut stopping => {}
                }
                continue;
            }
            if let Some(until) = self.intake.idle_until().filter(|until| *until > Instant::now()) {
                tokio::select! {
                    biased;
                    () = self.intake.arrived() => {}
                    () = sleep_until(until.min(Instant::now() + DEADLINES_EVERY)) => {}
                }
                self.intake.expire(Instant::now());
                continue;
            }
            if !self.intake.is_calling() {
                self.gather().await;
                self.intake.expire(Instant::now());
            }
            if let Some(sending) = self.intake.next_call(Instant::now()) {
                self.send(sending, life).await;
            }
        }
    }
}

impl Gatherer {
    /// Lets whoever is ready to publish now join the call, and while it is small those who come meanwhile: what a call costs besides
    /// is shared by its messages. Where the last one carried more, who was in it is likely to be on the way again. One that is not
    /// small leaves at once, so that the store has it before the answers of the last one are written; not twice in a row, since
    /// others want this thread too.
    async fn gather(&mut self) {
        self.has_hurried = !self.has_hurried && self.intake.has_enough(SMALL_BELOW);
        if self.has_hurried {
            return;
        }
        let expected = self.last_messages.min(SMALL_BELOW);
        let (mut before, mut empty_turns) = (0, 0);
        for turn in 0..TURNS_MAX {
            if turn > 0 && self.intake.has_enough(SMALL_BELOW) {
                return;
            }
            let (messages, _) = self.intake.depth();
            empty_turns = if messages == before { empty_turns + 1 } else { 0 };
            if empty_turns > if messages < expected { EMPTY_TURNS_MAX } else { 0 } {
                return;
            }
            before = messages;
            tokio::task::yield_now().await;
        }
    }

    /// Sends the call once; after an unknown outcome pauses as well.
    async fn send(&mut self, sending: Sending, life: &Life) {
        self.last_messages = sending.groups.iter().map(|group| group.messages.len()).sum();
        let Some(results) = self.ask(&sending, life).await else { return };
        let error = why_failed(&results).cloned();
        let is_last = sending.first_sent.elapsed() >= RESEND_FOR;
        let is_over = self.intake.answered(results, is_last);
        // What the next sending may tell is not said to have failed.
        if is_over || self.backoff.is_failing() {
            self.note(error.as_ref());
        }
        if is_over {
            self.backoff.succeeded();
            return;
        }
        let next = Instant::now() + self.backoff.failed();
        while Instant::now() < next && !is_late(life) {
            sleep_until(next.min(Instant::now() + DEADLINES_EVERY)).await;
            self.intake.expire(Instant::now());
        }
    }

    /// The store's answer; `None` when the actor must end before it comes.
    async fn ask(&self, sending: &Sending, life: &Life) -> Option<Result<Vec<GroupResult>, StoreError>> {
        let mut answer = self.store.enqueue(sending.id, sending.groups.clone());
        loop {
            tokio::select! {
                biased;
                results = &mut answer => return Some(results),
                () = sleep(DEADLINES_EVERY) => {
                    self.intake.expire(Instant::now());
                    if life.is_stopping() {
                        self.intake.shut();
                    }
                    if is_late(life) {
                        return None;
                    }
                }
            }
        }
    }

    fn note(&mut self, error: Option<&StoreError>) {
        match error {
            Some(error) if !self.is_failing => {
                log::warn!("cause" = error.to_string().as_str(); "the store does not take publishes");
            }
            None if self.is_failing => log::info!("the store takes publishes again"),
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}
