//! What the system says of this process, and how many connections its file descriptors are enough for.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::api::status::ProcessStatus;

/// Descriptors open at the start where the system does not tell.
const OPEN_GUESSED: u64 = 64;
/// Descriptors that each HTTP thread opens for itself: its runtime's three, and as many for the moment in which it is set up.
const OPEN_PER_THREAD: u64 = 6;
/// Descriptors for what comes and goes: files of the store and of certificates, look-ups of names, the listing of descriptors.
const OPEN_AT_TIMES: u64 = 32;

/// Reads memory, descriptors and processor time. What the system does not tell is `None`.
pub(super) fn status() -> ProcessStatus {
    let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| usage.user_time() + usage.system_time());
    ProcessStatus {
        rss_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| rss_bytes(&text)),
        fds_open: fds_open(),
        fds_max: fds_max(),
        cpu_s: cpu.map(|cpu| {
            #[expect(
                clippy::cast_precision_loss,
                reason = "milliseconds of processor time are far below 2⁵³"
            )]
            let cpu_s = cpu.num_milliseconds() as f64 / 1_000.0;
            cpu_s
        }),
    }
}

/// Connections that may be open at once, for a server that is about to start its threads: as many as the descriptors that this
/// process may have leave room for, and one at least. `None` where the system does not tell how many those are.
pub(super) fn connections_room(threads: usize, deliveries_max: u64) -> Option<u64> {
    let own = fds_open().unwrap_or(OPEN_GUESSED) + OPEN_PER_THREAD * threads as u64 + OPEN_AT_TIMES;
    Some(room(fds_max()?, own, deliveries_max))
}

/// What is left of `fds_max` beside the process's own and a connection for each delivery in flight; where that is too much for
/// both, deliveries and clients get half each: neither may starve the other.
fn room(fds_max: u64, own: u64, deliveries_max: u64) -> u64 {
    let left = fds_max.saturating_sub(own);
    (left - deliveries_max.min(left / 2)).max(1)
}

/// Descriptors that this process may have open.
fn fds_max() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

/// Descriptors that it has open, less the one that the listing itself opens.
fn fds_open() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    Some((entries.count() as u64).saturating_sub(1))
}

fn rss_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found_in_what_linux_writes() {
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn clients_get_what_deliveries_leave_and_half_where_that_is_little() {
        assert_eq!(room(20_000, 100, 512), 20_000 - 100 - 512);
        assert_eq!(room(1_100, 100, 512), 500, "half each");
        assert_eq!(room(1_124, 100, 512), 512, "just enough for both");
        assert_eq!(room(200, 60, 70_000), 70);
        assert_eq!(room(60, 60, 512), 1);
        assert_eq!(room(20, 60, 512), 1);
        assert_eq!(room(u64::MAX, 60, u64::MAX), u64::MAX - (u64::MAX - 60) / 2 - 60, "no limit at all");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_descriptors_and_has_worked() {
        let status = status();
        assert!(status.rss_bytes.is_some_and(|bytes| bytes > 100_000), "{status:?}");
        assert!(status.fds_open.is_some_and(|count| count > 2), "{status:?}");
        assert!(status.fds_max >= status.fds_open, "{status:?}");
        assert!(status.cpu_s.is_some_and(|seconds| seconds >= 0.0), "{status:?}");
    }
}
