//! `[workers]` and `[ingest]`: how many messages are processed and gathered at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::format::{bytes, duration, range};
use crate::domain::queue::SettingProblem;

/// The settings of the worker threads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Threads that process messages, up to 1,024; 0: one for each core.
    pub threads: u16,
    /// Messages in flight on each thread, 1–65,536. A queue that is alone may have all but a sixteenth of them; while
    /// several have work a quarter is kept for those that have few or none.
    pub concurrency: u32,
    /// Messages that each thread leases before it has a slot for them, up to 65,536. Only queues whose attempts
    /// are short use it: no more is leased early than is begun within 50 ms.
    pub prefetch: u32,
    /// Messages of one lease, 1–1,000. Half as many cost Redis a third more a message; one batch holds the
    /// settling of its mates for less long the smaller it is.
    pub lease_max: u16,
    /// Bytes of the messages that each thread holds leased, 64 KiB–1 TiB; one message may exceed it alone. 32 MiB
    /// carry a full thread (768 messages) of 42 KiB each.
    #[serde(with = "bytes")]
    pub held_bytes_max: u64,
    /// How long a finished attempt waits for its batch mates before it is settled without them, up to 1 s.
    #[serde(with = "duration")]
    pub settle_wait: Duration,
    /// Settle calls under way on each thread, 1–1,024: a store that writes one at a time then finds the next ones
    /// waiting and takes them into one commit.
    pub settle_calls_max: u16,
    /// Finished attempts on each thread that wait to be settled, 1–1,000,000; beyond it nothing is leased. The
    /// default is what the settle calls carry: 8 × 256 messages.
    pub unsettled_max: u32,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            threads: 0,
            concurrency: 256,
            prefetch: 512,
            lease_max: 256,
            held_bytes_max: 32 << 20,
            settle_wait: Duration::from_millis(20),
            settle_calls_max: 8,
            unsettled_max: 2_048,
        }
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
            ("lease_max", range::number(self.lease_max, &(1..=1_000))),
            ("held_bytes_max", range::size(self.held_bytes_max, &(64 << 10..=1 << 40))),
            ("settle_wait", range::span(self.settle_wait, &(Duration::ZERO..=Duration::from_secs(1)))),
            ("settle_calls_max", range::number(self.settle_calls_max, &(1..=1_024))),
            ("unsettled_max", range::number(self.unsettled_max, &(1..=1_000_000))),
        ])
    }

    /// Messages that a thread holds leased at most: those in flight, those leased early, and one of each queue that
    /// still finds a slot then; a quarter of the slots is kept for these.
    #[must_use]
    pub(super) fn held_max(&self) -> usize {
        let (slots, early) = (self.concurrency as usize, self.prefetch as usize);
        slots + early + slots.div_ceil(4)
    }
}

/// The settings of the ingesters, one of which gathers the publishes of each HTTP thread.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Messages that one call to the store carries, 1–100,000; one request may exceed it alone. A call of 1,000
    /// costs a store hardly less a message than one of 128, and a longer one only makes others wait.
    pub call_messages_max: u32,
    /// Bytes that one call to the store carries, 64 KiB–1 GiB; one request may exceed it alone.
    #[serde(with = "bytes")]
    pub call_bytes_max: u64,
    /// Messages that wait for their call on each HTTP thread, 1–10,000,000; one request may exceed it alone, and one that is
    /// larger than a call counts as one. Four full calls: at a store that takes ten calls a second, the last one waits for half
    /// a second.
    pub waiting_messages_max: u32,
    /// Bytes that wait for their call on each HTTP thread, 64 KiB–1 TiB; one request may exceed it alone, and one that is
    /// larger than a call counts as one. Four full calls as well.
    #[serde(with = "bytes")]
    pub waiting_bytes_max: u64,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            call_messages_max: 2_000,
            call_bytes_max: 4 << 20,
            waiting_messages_max: 8_000,
            waiting_bytes_max: 16 << 20,
        }
    }
}

impl IngestSettings {
    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        let messages = |value, most| range::number(value, &(1..=most));
        range::problems([
            ("call_messages_max", messages(self.call_messages_max, 100_000)),
            ("call_bytes_max", range::size(self.call_bytes_max, &(64 << 10..=1 << 30))),
            ("waiting_messages_max", messages(self.waiting_messages_max, 10_000_000)),
            ("waiting_bytes_max", range::size(self.waiting_bytes_max, &(64 << 10..=1 << 40))),
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
        let details = |problems: Vec<SettingProblem>| -> Vec<String> {
            problems.into_iter().map(|problem| format!("{} {}", problem.key, problem.detail)).collect()
        };
        assert_eq!(WorkerSettings::default().problems(), []);
        let settings = WorkerSettings {
            threads: 1_025,
            concurrency: 0,
            prefetch: 65_537,
            lease_max: 0,
            held_bytes_max: 1,
            settle_wait: Duration::from_mins(1),
            settle_calls_max: 0,
            unsettled_max: 0,
        };
        assert_eq!(
            details(settings.problems()),
            [
                "threads 1025 is out of range: 0 to 1024",
                "concurrency 0 is out of range: 1 to 65536",
                "prefetch 65537 is out of range: 0 to 65536",
                "lease_max 0 is out of range: 1 to 1000",
                "held_bytes_max 1 is out of range: 64KiB to 1TiB",
                "settle_wait 1m is out of range: 0s to 1s",
                "settle_calls_max 0 is out of range: 1 to 1024",
                "unsettled_max 0 is out of range: 1 to 1000000",
            ]
        );
        assert_eq!(IngestSettings::default().problems(), []);
        let settings = IngestSettings {
            call_messages_max: 0,
            call_bytes_max: 0,
            waiting_messages_max: 0,
            waiting_bytes_max: 0,
        };
        assert_eq!(
            details(settings.problems()),
            [
                "call_messages_max 0 is out of range: 1 to 100000",
                "call_bytes_max 0 is out of range: 64KiB to 1GiB",
                "waiting_messages_max 0 is out of range: 1 to 10000000",
                "waiting_bytes_max 0 is out of range: 64KiB to 1TiB",
            ]
        );
    }
}
