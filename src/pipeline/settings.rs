//! `[workers]`: how many messages are processed at once.

use serde::{Deserialize, Serialize};

use crate::domain::format::range;
use crate::domain::queue::SettingProblem;

/// The settings of the worker threads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Threads that process messages, up to 1,024; 0: one for each core.
    pub threads: u16,
    /// Messages in flight on each thread, 1–65,536.
    pub concurrency: u32,
    /// Messages that each thread leases before it has a slot for them, up to 65,536.
    pub prefetch: u32,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { threads: 0, concurrency: 256, prefetch: 128 }
    }
}

impl WorkerSettings {
    /// Threads that process messages on a machine with so many cores: as set, else one for each.
    #[must_use]
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads == 0 { cores.max(1) } else { usize::from(self.threads) }
    }

    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        range::problems([
            ("threads", range::number(self.threads, &(0..=1_024))),
            ("concurrency", range::number(self.concurrency, &(1..=65_536))),
            ("prefetch", range::number(self.prefetch, &(0..=65_536))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_the_cores_unless_set() {
        let settings = WorkerSettings::default();
        assert_eq!([0, 1, 8].map(|cores| settings.threads_on(cores)), [1, 1, 8]);
        assert_eq!(WorkerSettings { threads: 3, ..settings }.threads_on(8), 3);
    }

    #[test]
    fn every_key_refuses_what_lies_beyond_its_range() {
        assert_eq!(WorkerSettings::default().problems(), []);
        let settings = WorkerSettings { threads: 1_025, concurrency: 0, prefetch: 65_537 };
        let details: Vec<_> = settings.problems().into_iter().map(|problem| problem.detail).collect();
        assert_eq!(
            details,
            [
                "1025 is out of range: 0 to 1024",
                "0 is out of range: 1 to 65536",
                "65537 is out of range: 0 to 65536"
            ]
        );
    }
}
