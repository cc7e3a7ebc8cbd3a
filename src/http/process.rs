//! What the system says of this process.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::api::status::ProcessStatus;

/// Reads memory, descriptors and processor time. What the system does not tell is `None`.
pub(super) fn status() -> ProcessStatus {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok();
    let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| usage.user_time() + usage.system_time());
    ProcessStatus {
        rss_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| rss_bytes(&text)),
        // Less the one that the listing itself opens.
        fds_open: fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| (entries.count() as u64).saturating_sub(1)),
        fds_max: limit.map(|(soft, _)| soft),
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
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_descriptors_and_has_worked() {
        let status = status();
        assert!(status.rss_bytes.is_some_and(|bytes| bytes > 100_000), "{status:?}");
        assert!(status.fds_open.is_some_and(|count| count > 2), "{status:?}");
        assert!(status.fds_max >= status.fds_open, "{status:?}");
        assert!(status.cpu_s.is_some_and(|seconds| seconds >= 0.0), "{status:?}");
    }
}
