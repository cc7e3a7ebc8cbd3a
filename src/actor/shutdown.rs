//! Stopping in phases, in order, one deadline each, naming who was late.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use tokio::sync::watch;
use tokio::time::Instant;

use super::supervisor::Supervisor;

/// How long [`Supervisor::shutdown`] waits for the arbiters' threads, beyond any budget.
pub const ARBITERS_DEADLINE: Duration = Duration::from_millis(750);

/// Who the report names when the application's own step was late or panicked.
pub const STEP: &str = "(step)";

/// The phase the report names when an arbiter's thread did not end.
pub const ARBITERS_PHASE: &str = "arbiters";

// Stands for "no deadline": further away than any process lives.
const FAR_AWAY: Duration = Duration::from_hours(10 * 365 * 24);

/// One step of the shutdown: all actors of this phase are told to stop at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Its name, as roles refer to it.
    pub name: &'static str,
    /// How long its actors, and the application's step, may take.
    pub deadline: Duration,
    /// What it must leave of the shutdown's budget for the phases behind it.
    pub reserve: Duration,
}

impl Phase {
    /// A phase that leaves nothing of the budget if it needs it.
    #[must_use]
    pub const fn new(name: &'static str, deadline: Duration) -> Self {
        Self { name, deadline, reserve: Duration::ZERO }
    }

    /// The same, leaving that much of the budget.
    #[must_use]
    pub const fn leaving(self, reserve: Duration) -> Self {
        Self { reserve, ..self }
    }
}

/// Somebody who had not ended when the deadline of its phase came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The phase's name, or [`ARBITERS_PHASE`].
    pub phase: &'static str,
    /// The actor's name, [`STEP`], or an arbiter's name.
    pub actor: String,
}

/// How a shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Who was late, in the order of the phases.
    pub late: Vec<Late>,
}

impl ShutdownReport {
    /// Whether everything ended in time.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.late.is_empty()
    }
}

/// A phase and whether it has begun.
#[derive(Debug)]
pub(super) struct PhaseState {
    pub(super) phase: Phase,
    // Its deadline, once it has begun.
    pub(super) begun: watch::Sender<Option<Instant>>,
}

impl PhaseState {
    pub(super) fn new(phase: Phase) -> Self {
        Self { phase, begun: watch::Sender::new(None) }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.borrow().is_some()
    }
}

impl Supervisor {
    /// Whether any phase of the shutdown has begun.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shared.phases.iter().any(PhaseState::has_begun)
    }

    /// Tells all actors of a phase to stop within this time, and answers the deadline.
    ///
    /// Does not wait. A phase begins once: later calls change nothing and answer the first deadline.
    ///
    /// # Panics
    /// When there is no such phase.
    #[expect(clippy::must_use_candidate, reason = "who does not wait for the phase needs no deadline")]
    pub fn begin_phase(&self, phase: &str, within: Duration) -> Instant {
        let begun = &self.shared.phases[self.shared.phase_index(phase)].begun;
        let deadline = instant_after(within);
        begun.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(deadline);
            first
        });
        (*begun.borrow()).unwrap_or(deadline)
    }

    /// Waits until all actors of a phase have ended; at the deadline, answers who has not.
    ///
    /// Needs a Tokio timer. Dropping the future only ends the waiting.
    ///
    /// # Panics
    /// When there is no such phase.
    pub async fn wait_phase(&self, phase: &str, deadline: Instant) -> Vec<Late> {
        let index = self.shared.phase_index(phase);
        let mut ended = self.shared.ended.subscribe();
        loop {
            // Marked as seen before looking: what ends in between wakes us.
            ended.borrow_and_update();
            let living = self.shared.living(index);
            if living.is_empty() {
                return Vec::new();
            }
            if tokio::time::timeout_at(deadline, ended.changed()).await.is_err() {
                let phase = self.shared.phases[index].phase.name;
                return living.into_iter().map(|actor| Late { phase, actor }).collect();
            }
        }
    }

    /// Stops all actors, phase by phase, then the arbiters; see [`Supervisor::shutdown_with`].
    pub async fn shutdown(&self, budget: Option<Duration>) -> ShutdownReport {
        self.shutdown_with(budget, |_, _| std::future::ready(())).await
    }

    /// Stops all actors, phase by phase, with a step of the application in each, then the arbiters.
    ///
    /// When a phase begins its actors are told to stop and `step` is called with the phase's name
    /// and deadline; the next phase begins when both have ended or the deadline has come. Who is
    /// late is named, and left alone until its thread is stopped. A step that is late is dropped.
    ///
    /// A phase takes its own deadline, or what is left of `budget` without its reserve, whichever is less: what
    /// earlier phases use up, later ones lack, unless it is reserved for them. The arbiters have
    /// [`ARBITERS_DEADLINE`] on top of it. An arbiter this is called on is not stopped here, for it
    /// could not answer; it ends with the last [`Supervisor`] of the process.
    ///
    /// Only the first call does all this; the others wait for it and get the same report. Needs a
    /// Tokio timer. When the future is dropped the shutdown stands still until the next call.
    pub async fn shutdown_with<S, F>(&self, budget: Option<Duration>, mut step: S) -> ShutdownReport
    where
        S: FnMut(&'static str, Instant) -> F,
        F: Future<Output = ()>,
    {
        let mut done = self.shared.report.lock().await;
        if let Some(report) = &*done {
            return report.clone();
        }
        let end = instant_after(budget.unwrap_or(FAR_AWAY));
        let mut report = ShutdownReport::default();
        for state in &self.shared.phases {
            let Phase { name, deadline, reserve } = state.phase;
            let left = end.saturating_duration_since(Instant::now()).saturating_sub(reserve);
            let deadline = self.begin_phase(name, deadline.min(left));
            log::debug!("phase.name" = name; "a shutdown phase begins");
            let step = run_step(name, deadline, &mut step);
            let (step_late, actors_late) = join(step, self.wait_phase(name, deadline)).await;
            report.late.extend(step_late);
            report.late.extend(actors_late);
        }
        report.late.extend(self.stop_arbiters().await);
        for Late { phase, actor } in &report.late {
            log::warn!("phase.name" = *phase, "actor.name" = actor.as_str(); "late at shutdown");
        }
        *done = Some(report.clone());
        report
    }

    async fn stop_arbiters(&self) -> Vec<Late> {
        let arbiters = self.shared.take_arbiters_but_current();
        for arbiter in &arbiters {
            arbiter.stop();
        }
        let deadline = instant_after(ARBITERS_DEADLINE);
        let mut late = Vec::new();
        for arbiter in arbiters {
            if let Err(actor) = arbiter.join(deadline).await {
                late.push(Late { phase: ARBITERS_PHASE, actor });
            }
        }
        late
    }
}

/// Runs the application's step; a panic in it must not keep the rest from stopping.
async fn run_step<S, F>(phase: &'static str, deadline: Instant, step: &mut S) -> Option<Late>
where
    S: FnMut(&'static str, Instant) -> F,
    F: Future<Output = ()>,
{
    let step = AssertUnwindSafe(async { step(phase, deadline).await }).catch_unwind();
    match tokio::time::timeout_at(deadline, step).await {
        Ok(Ok(())) => return None,
        Ok(Err(panic)) => {
            let cause = super::panic_text(panic.as_ref());
            log::error!("phase.name" = phase, "cause" = cause.as_str(); "a shutdown step panicked");
        }
        Err(_elapsed) => {}
    }
    Some(Late { phase, actor: STEP.to_owned() })
}

fn instant_after(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR_AWAY)
}
