//! The release binary as a child process, its memory and its CPU time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{self, Connection};

/// How long to wait for anything before the bench is called stuck.
const WITHIN: Duration = Duration::from_mins(5);

/// The setting that lets deliveries reach receivers on this machine; `--dev` would log each.
pub(crate) const LOOPBACK: &str = r#"egress.allow=["127.0.0.0/8"]"#;

/// A running gateway. Dropping it kills it.
pub(crate) struct Gateway {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Gateway {
    /// Starts one on the store in `folder`; gives it as soon as it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_on(folder, "sqlite:posthaste.db")
    }

    /// Starts one on that store, with its log in `folder`.
    pub(crate) fn start_on(folder: &Path, store: &str) -> Self {
        Self::start_as(env!("CARGO_BIN_EXE_posthaste"), folder, store, &[])
    }

    /// Starts that binary on that store, with its log in `folder` and these flags.
    pub(crate) fn start_as(binary: &str, folder: &Path, store: &str, flags: &[&str]) -> Self {
        let log = folder.join("log");
        let process = Command::new(binary)
            .current_dir(folder)
            .args(["serve", "--listen", "127.0.0.1:0", "--store", store])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary starts");
        let address = wait_for("it listens", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let at = text.find("address=")? + "address=".len();
            Some(text[at..].split_once('\n')?.0.split_whitespace().next()?.to_owned())
        });
        Self { process, address }
    }

    /// One request on a connection of its own, answered with this status.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str, status: u16) -> Value {
        let json = [("Content-Type", "application/json")];
        let headers = if body.is_empty() { &[][..] } else { &json };
        let answer =
            client::request(&self.address, method, path, headers, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// The address as a new connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address).expect("it listens")
    }

    /// A counter or gauge of one queue.
    pub(crate) fn count(&self, queue: &str, key: &str) -> u64 {
        let status = self.request("GET", &format!("/status?queue={queue}"), "", 200);
        status["queues"][0][key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
    }

    /// A line of its `status` in the process table, in bytes: `VmRSS`, `VmHWM`.
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
    pub(crate) fn memory_mib(&self, line: &str) -> f64 {
        let text = fs::read_to_string(self.proc().join("status")).expect("its state");
        let found = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(':'));
        let kib = found.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no {line}")) as f64 / 1_024.0
    }

    /// Where the system tells of its process.
    pub(crate) fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string())
    }

    /// CPU time of all its threads that still run.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.process.id())
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it is killed");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// CPU time of all threads of a process that still run.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("its threads");
    Duration::from_nanos(tasks.filter_map(|task| of_task(task.ok()?)).sum())
}

/// Polls until `look` gives something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waiting until {what}: not within {WITHIN:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
