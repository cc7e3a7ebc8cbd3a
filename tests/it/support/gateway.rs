//! The real binary as a child process: started, killed, started again on the same files.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a gateway may take to be ready on a busy machine before a test calls it stuck.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);

/// A gateway's folder with its settings, its store and its log, and the process while it runs.
pub(crate) struct Gateway {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    lives: u32,
    process: Option<Child>,
    /// Where it listens now: `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Gateway {
    /// Starts one with these settings (TOML; `server.listen` and `store.url` are given by the harness) and waits
    /// until it is ready.
    pub(crate) fn start(settings: &str, arguments: &[&str]) -> Self {
        let mut gateway = Self::prepare(settings, arguments);
        gateway.launch();
        gateway.wait_until_ready(READY_WITHIN);
        gateway
    }

    /// Makes its folder and settings without starting it.
    pub(crate) fn prepare(settings: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("posthaste.toml"), settings).expect("the settings");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { folder, arguments, lives: 0, process: None, address: String::new() }
    }

    /// The folder it lives in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// `http://127.0.0.1:PORT` followed by `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join(format!("log.{}", self.lives))
    }

    /// What it logged in its present life.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.lives += 1;
        let log = File::create(self.log_path()).expect("the log file");
        let child = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .current_dir(self.folder.path())
            .args(["serve", "--config", "posthaste.toml", "--listen", "127.0.0.1:0"])
            .args(["--store", "sqlite:posthaste.db"])
            .args(&self.arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.process = Some(child);
        self.address = self.wait_for("it listens", READY_WITHIN, |gateway| {
            let log = gateway.log();
            let at = log.find("address=")? + "address=".len();
            let line = log[at..].split_once('\n')?.0;
            Some(line.split_whitespace().next()?.to_owned())
        });
    }

    /// Polls until `look` gives something; fails with the log when the time is over or the process ended.
    pub(crate) fn wait_for<T>(&mut self, what: &str, within: Duration, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.process.as_mut().and_then(|child| child.try_wait().expect("its state"));
            assert!(ended.is_none(), "waiting until {what}: it ended with {ended:?}\n{}", self.log());
            assert!(Instant::now() < deadline, "waiting until {what}: not within {within:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until `/ready` answers 200.
    pub(crate) fn wait_until_ready(&mut self, within: Duration) {
        self.wait_for("it is ready", within, |gateway| {
            let answer = super::client::request(&gateway.address, "GET", "/ready", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the signal is sent");
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.wait_for_exit(Duration::from_secs(30));
        assert_eq!(status.signal(), Some(9), "it ended by itself before the kill: {status:?}\n{}", self.log());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        let child = self.process.as_mut().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().expect("its state") {
                self.process = None;
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end within {within:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let ended = child.kill().and_then(|()| child.wait());
            drop(ended);
        }
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}
