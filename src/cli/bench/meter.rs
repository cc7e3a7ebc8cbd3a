//! What processes use: processor time and memory, as their system tells; a Redis, as it tells itself.

use std::fs;
use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// Processor time and memory of one process at one moment. What is not known is `None`, never 0.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu: Option<Duration>,
    pub(super) memory_bytes: Option<u64>,
    /// The most it has ever had.
    pub(super) peak_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

/// A process of this machine.
pub(super) fn of_process(pid: u32) -> Usage {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
    Usage {
        cpu: cpu(&folder.join("task")),
        memory_bytes: kib(&status, "VmRSS:"),
        peak_bytes: kib(&status, "VmHWM:"),
        fds: fs::read_dir(folder.join("fd")).ok().map(|entries| entries.count() as u64),
        threads: line(&status, "Threads:").and_then(|count| count.parse().ok()),
    }
}

/// Processor time of all threads that still run.
fn cpu(tasks: &Path) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(tasks).ok()? {
        // A thread may end while it is looked at.
        if let Some(time) = read_schedstat(&task.ok()?.path().join("schedstat")) {
            sum += time.ran;
        }
    }
    (!sum.is_zero()).then_some(sum)
}

/// What stands behind a name.
fn line<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    Some(line(status, name)?.strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

/// What `INFO` of a Redis says: all its threads, not the children that write its files.
pub(super) fn of_redis(info: &str) -> Usage {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let seconds = |name: &str| field(name)?.trim().parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
    let bytes = |name: &str| field(name)?.trim().parse().ok();
    let cpu = seconds("used_cpu_user").zip(seconds("used_cpu_sys"));
    Usage {
        cpu: cpu.and_then(|(user, system)| Duration::try_from_secs_f64(user + system).ok()),
        memory_bytes: bytes("used_memory"),
        peak_bytes: bytes("used_memory_peak"),
        ..Usage::default()
    }
}

/// How long a thread ran, and how long it wanted to and had no processor.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct ThreadTime {
    pub(super) ran: Duration,
    pub(super) starved: Duration,
}

impl Sub for ThreadTime {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { ran: self.ran.saturating_sub(other.ran), starved: self.starved.saturating_sub(other.starved) }
    }
}

/// Tells the time of one thread, also to others.
#[derive(Clone, Debug)]
pub(super) struct ThreadClock(PathBuf);

impl ThreadClock {
    /// That of the thread which asks; `None` where the system tells nothing.
    pub(super) fn here() -> Option<Self> {
        let folder = fs::read_link("/proc/thread-self").ok()?;
        Some(Self(Path::new("/proc").join(folder).join("schedstat")))
    }

    /// What it has used until now.
    pub(super) fn read(&self) -> Option<ThreadTime> {
        read_schedstat(&self.0)
    }
}

fn read_schedstat(path: &Path) -> Option<ThreadTime> {
    schedstat(&fs::read_to_string(path).ok()?)
}

/// Nanoseconds on a processor, and waiting for one.
fn schedstat(text: &str) -> Option<ThreadTime> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (ran, starved) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(ThreadTime { ran: Duration::from_nanos(ran), starved: Duration::from_nanos(starved) })
}

/// Whether the generator kept up, in percent of one core.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Share {
    /// What its thread used.
    pub(super) cpu_percent: f64,
    /// What it wanted besides and did not get.
    pub(super) starved_percent: f64,
    /// Whether that is so much that the figures are about it rather than about the gateway.
    pub(super) is_the_limit: bool,
}

/// Of a core, both together; from here on a thread has hardly a pause in which it could have sent more.
const LIMIT_PERCENT: f64 = 90.0;

impl Share {
    /// That of a thread over that time.
    pub(super) fn of(time: ThreadTime, took: Duration) -> Self {
        let percent = |part: Duration| {
            let share = part.as_secs_f64() / took.as_secs_f64().max(1e-9);
            (share * 1_000.0).round() / 10.0
        };
        let (cpu_percent, starved_percent) = (percent(time.ran), percent(time.starved));
        let is_the_limit = cpu_percent + starved_percent >= LIMIT_PERCENT;
        Self { cpu_percent, starved_percent, is_the_limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_one_that_is_not_there_is_not_known() {
        let own = of_process(std::process::id());
        assert!(own.cpu > Some(Duration::ZERO) && own.memory_bytes > Some(1 << 20), "{own:?}");
        assert!(own.peak_bytes >= own.memory_bytes, "{own:?}");
        assert!(own.fds >= Some(3) && own.threads >= Some(1), "{own:?}");
        assert_eq!(of_process(u32::MAX), Usage::default());
        let clock = ThreadClock::here().expect("a thread");
        assert!(clock.read().is_some());
    }

    #[test]
    fn what_a_redis_says_is_read_and_what_it_does_not_say_is_not_known() {
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\nused_cpu_sys_children:9\r\nused_memory:1048576\r\n";
        let usage = of_redis(info);
        assert_eq!((usage.cpu, usage.memory_bytes), (Some(Duration::from_millis(3_750)), Some(1 << 20)));
        assert_eq!(of_redis("# CPU\r\n"), Usage::default());
    }

    #[test]
    fn a_generator_without_pauses_is_the_limit() {
        let second = Duration::from_secs(1);
        let time = |ran, starved| ThreadTime {
            ran: Duration::from_millis(ran),
            starved: Duration::from_millis(starved),
        };
        assert!(!Share::of(time(600, 100), second).is_the_limit);
        assert!(Share::of(time(500, 450), second).is_the_limit);
        assert_eq!(
            schedstat("17 5 3\n"),
            Some(ThreadTime { ran: Duration::from_nanos(17), starved: Duration::from_nanos(5) })
        );
        assert_eq!(schedstat("17"), None);
    }
}
