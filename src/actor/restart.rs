//! When an actor is restarted, after what pause, and when to give up: the life cycle as a table.
//!
//! | exit | running | stopping, mailbox empty | stopping, messages queued |
//! |---|---|---|---|
//! | `Done`, `Quit` | stop (a `Done` nobody asked for is logged) | stop | stop |
//! | `Panicked`, `Failed` | restart after a pause | stop | restart at once, to drain |
//! | the same beyond the intensity cap | give up | stop | give up |
//!
//! To give up brings the process down: see [`Supervisor::until_gave_up`](super::Supervisor::until_gave_up).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Exit;

/// How often, and how fast, an actor is restarted.
///
/// The default: a pause of 100 ms, doubled with every recent restart up to 5 s; a sixth restart
/// within 60 s is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The pause before the first restart.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The most restarts `within` that time; one more gives up. 0 never restarts.
    pub restarts_max: u32,
    /// How far back restarts count.
    pub within: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            restarts_max: 5,
            within: Duration::from_mins(1),
        }
    }
}

/// Where in its life cycle the actor was when a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// Its shutdown phase has begun and this many messages are in its mailbox.
    Stopping {
        queued: usize,
    },
}

/// What follows the end of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stop,
    Restart { pause: Duration },
    GiveUp,
}

/// The table above; `restarts` are those within the policy's window, this one not counted.
pub(super) fn after(exit: &Exit, stage: Stage, restarts: u32, policy: &RestartPolicy) -> Next {
    match (exit, stage) {
        (Exit::Done | Exit::Quit, _) | (_, Stage::Stopping { queued: 0 }) => Next::Stop,
        _ if restarts >= policy.restarts_max => Next::GiveUp,
        (_, Stage::Stopping { .. }) => Next::Restart { pause: Duration::ZERO },
        (_, Stage::Running) => Next::Restart { pause: pause(restarts, policy) },
    }
}

fn pause(restarts: u32, policy: &RestartPolicy) -> Duration {
    let doubled = 2_u32.saturating_pow(restarts);
    policy.backoff_min.saturating_mul(doubled).min(policy.backoff_max)
}

/// The restarts that still count; never longer than `restarts_max`.
#[derive(Debug, Default)]
pub(super) struct RecentRestarts(VecDeque<Instant>);

impl RecentRestarts {
    /// Forgets what is older than `within` and counts the rest.
    pub(super) fn count(&mut self, now: Instant, within: Duration) -> u32 {
        self.0.retain(|at| now.saturating_duration_since(*at) < within);
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(5),
        restarts_max: 10,
        within: Duration::from_mins(1),
    };

    fn broken() -> [Exit; 2] {
        [Exit::Panicked("boom".into()), Exit::Failed("no disk".into())]
    }

    #[test]
    fn an_actor_that_ended_by_itself_is_never_restarted() {
        for exit in [Exit::Done, Exit::Quit] {
            for stage in [Stage::Running, Stage::Stopping { queued: 0 }, Stage::Stopping { queued: 7 }] {
                assert_eq!(after(&exit, stage, 0, &POLICY), Next::Stop, "{exit} {stage:?}");
                assert_eq!(after(&exit, stage, 99, &POLICY), Next::Stop, "{exit} {stage:?}");
            }
        }
    }

    #[test]
    fn a_broken_actor_restarts_after_a_pause_that_doubles_up_to_its_maximum() {
        let pauses_ms = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        for exit in broken() {
            for (restarts, pause_ms) in (0..).zip(pauses_ms) {
                let expected = Next::Restart { pause: Duration::from_millis(pause_ms) };
                assert_eq!(after(&exit, Stage::Running, restarts, &POLICY), expected);
            }
        }
    }

    #[test]
    fn a_broken_actor_beyond_the_cap_gives_up() {
        for exit in broken() {
            assert_eq!(after(&exit, Stage::Running, 10, &POLICY), Next::GiveUp);
            assert_eq!(after(&exit, Stage::Stopping { queued: 1 }, 10, &POLICY), Next::GiveUp);
            let never = RestartPolicy { restarts_max: 0, ..POLICY };
            assert_eq!(after(&exit, Stage::Running, 0, &never), Next::GiveUp);
        }
    }

    #[test]
    fn a_broken_actor_that_is_stopping_restarts_at_once_only_to_drain() {
        for exit in broken() {
            let at_once = Next::Restart { pause: Duration::ZERO };
            assert_eq!(after(&exit, Stage::Stopping { queued: 1 }, 3, &POLICY), at_once);
            assert_eq!(after(&exit, Stage::Stopping { queued: 0 }, 3, &POLICY), Next::Stop);
            assert_eq!(after(&exit, Stage::Stopping { queued: 0 }, 99, &POLICY), Next::Stop);
        }
    }

    #[test]
    fn the_longest_pause_holds_however_many_restarts_there_were() {
        let endless = RestartPolicy { restarts_max: u32::MAX, ..POLICY };
        let [exit, _] = broken();
        for restarts in [31, 32, 33, 1_000_000] {
            let expected = Next::Restart { pause: Duration::from_secs(5) };
            assert_eq!(after(&exit, Stage::Running, restarts, &endless), expected);
        }
    }

    #[test]
    fn restarts_older_than_the_window_no_longer_count() {
        let start = Instant::now();
        let within = Duration::from_mins(1);
        let mut recent = RecentRestarts::default();
        recent.add(start);
        recent.add(start + Duration::from_secs(30));
        assert_eq!(recent.count(start + Duration::from_secs(59), within), 2);
        assert_eq!(recent.count(start + Duration::from_mins(1), within), 1);
        assert_eq!(recent.count(start + Duration::from_secs(90), within), 0);
    }
}
