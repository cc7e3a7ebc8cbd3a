//! The right to bring forward what one lane put off: one at a time has it, while the lane moves.

use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::lanes::Lane;
use crate::pipeline::lanes::backlog::Waiting;
use crate::store::QueueRef;

/// How often the next ones are drawn.
pub(in crate::pipeline) const EVERY: Duration = Duration::from_millis(100);
/// Messages that are drawn at a time.
const DRAWN_MAX: usize = 500;

/// Whoever has it brings messages forward until there is no [`Step`] more.
pub(in crate::pipeline) struct Recall(Arc<Lane>);

/// What to do next.
pub(in crate::pipeline) enum Step {
    /// Bring these forward, if any, and ask again a moment later.
    Bring(Vec<(QueueRef, Vec<Waiting>)>),
    /// Nothing: there are none, or the lane does not move.
    End,
}

impl Recall {
    /// Of the lane that gave it.
    pub(super) fn of(lane: &Arc<Lane>) -> Self {
        Self(lane.clone())
    }

    /// What to do next.
    pub(in crate::pipeline) fn next(&self) -> Step {
        let now = self.0.clock.tick();
        let Some(most) = self.0.gate().takes_within(now, EVERY) else { return Step::End };
        let mut backlog = self.0.backlog();
        if backlog.is_empty() { Step::End } else { Step::Bring(backlog.draw(now, most.min(DRAWN_MAX))) }
    }

    /// Remembers one again that could not be brought forward: the store did not find it, or did not answer.
    pub(in crate::pipeline) fn keep(&self, queue: &QueueRef, waiting: Waiting, is_missing: bool) {
        let now = self.0.clock.tick();
        self.0.backlog().keep(now, queue, waiting, is_missing);
    }
}

impl Drop for Recall {
    fn drop(&mut self) {
        self.0.leave_backlog();
    }
}
