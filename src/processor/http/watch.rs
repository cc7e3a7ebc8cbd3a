//! Where the time of an attempt goes, while it goes there.

use tokio::time::Instant;

use crate::domain::phases::Phases;

/// What an attempt does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Finds the addresses of a name.
    Dns,
    /// Connects, with the TLS handshake.
    Connect,
    /// Sends the request and waits for the head of the answer.
    Wait,
    /// Reads the answer.
    Body,
}

/// Takes the time of each phase: the next one ends the one before.
#[derive(Default)]
pub(super) struct Watch {
    phases: Phases,
    now: Option<(Phase, Instant)>,
}

impl Watch {
    /// This phase begins now. What was sent in vain on a connection that had been closed is not counted.
    pub(super) fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        self.note(now);
        self.now = Some((phase, now));
    }

    /// Whether this is what it does now.
    pub(super) fn is_in(&self, phase: Phase) -> bool {
        self.now.is_some_and(|(now, _)| now == phase)
    }

    /// How long each took, the one that was not ended included.
    pub(super) fn stop(mut self) -> Phases {
        self.note(Instant::now());
        self.phases
    }

    fn note(&mut self, now: Instant) {
        let Some((phase, since)) = self.now else { return };
        let place = match phase {
            Phase::Dns => &mut self.phases.dns,
            Phase::Connect => &mut self.phases.connect,
            Phase::Wait => &mut self.phases.wait,
            Phase::Body => &mut self.phases.body,
        };
        *place = Some(now.saturating_duration_since(since));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_phase_lasts_until_the_next_begins_and_the_last_until_the_end() {
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let mut watch = Watch::default();
        pass(1).await;
        watch.enter(Phase::Connect);
        pass(2).await;
        watch.enter(Phase::Wait);
        pass(4).await;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(watch.stop(), Phases { connect: seconds(2), wait: seconds(4), ..Phases::NONE });
        assert_eq!(Watch::default().stop(), Phases::NONE);
    }
}
