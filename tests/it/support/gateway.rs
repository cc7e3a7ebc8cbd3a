//! The real binary as a child process: started, killed, started again on the same files.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::client::{self, Answer};
use super::invariants;
use super::redis::RedisServer;
use super::wait_until;

/// How long a gateway may take to be ready on a busy machine before a test calls it stuck.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end once it was asked to and has nothing to do.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(30);

/// The kind of store that a test runs over.
pub(crate) enum Home {
    /// A file in the gateway's folder.
    Sqlite,
    /// A Redis of its own, which keeps what a 202 promises.
    Redis(RedisServer),
}

impl Home {
    /// A Redis of its own.
    pub(crate) fn redis() -> Self {
        Self::Redis(RedisServer::start_durable())
    }

    /// Makes a gateway without starting it; see [`Gateway::start`].
    pub(crate) fn prepare(&self, settings: &str, arguments: &[&str]) -> Gateway {
        let gateway = Gateway::prepare(settings, arguments);
        match self {
            Self::Sqlite => gateway,
            Self::Redis(redis) => gateway.over(redis),
        }
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) fn start(&self, settings: &str, arguments: &[&str]) -> Gateway {
        let mut gateway = self.prepare(settings, arguments);
        gateway.launch_until_ready();
        gateway
    }

    /// The line of a queue's settings by which its leases end that soon after a kill. Only where gateways share a store: the next
    /// one cannot know there that the last one is dead.
    pub(crate) fn lease(&self, lease: &str) -> String {
        match self {
            Self::Sqlite => String::new(),
            Self::Redis(_) => format!("lease = '{lease}'\n"),
        }
    }
}

/// Where a gateway is at the moment; shared with the threads that talk to it across its lives.
#[derive(Default)]
pub(crate) struct Whereabouts {
    address: Mutex<String>,
    pid: AtomicI32,
}

impl Whereabouts {
    /// A gateway that stays where it is.
    pub(crate) fn of(address: &str) -> Self {
        Self { address: Mutex::new(address.to_owned()), pid: AtomicI32::default() }
    }

    /// `127.0.0.1:PORT` of its present or last life.
    pub(crate) fn address(&self) -> String {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a signal to its present life.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid.load(Ordering::SeqCst)), signal).expect("the signal is sent");
    }
}

/// A gateway's folder with its settings, its store and its log, and the process while it runs.
pub(crate) struct Gateway {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    store: String,
    wrapper: Vec<String>,
    lives: u32,
    process: Option<Child>,
    whereabouts: Arc<Whereabouts>,
}

impl Gateway {
    /// Starts one with these settings (TOML; `server.listen` and `store.url` are given by the harness) and waits
    /// until it is ready.
    pub(crate) fn start(settings: &str, arguments: &[&str]) -> Self {
        let mut gateway = Self::prepare(settings, arguments);
        gateway.launch_until_ready();
        gateway
    }

    /// Makes its folder and settings without starting it.
    pub(crate) fn prepare(settings: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("posthaste.toml"), settings).expect("the settings");
        Self {
            folder,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            store: "sqlite:posthaste.db".to_owned(),
            wrapper: Vec::new(),
            lives: 0,
            process: None,
            whereabouts: Arc::default(),
        }
    }

    /// Starts it by another command, which ends by executing what follows it, with another store.
    pub(crate) fn wrapped(mut self, wrapper: Vec<String>, store: &str) -> Self {
        self.wrapper = wrapper;
        store.clone_into(&mut self.store);
        self
    }

    /// Lets it keep its messages in that Redis.
    pub(crate) fn over(mut self, redis: &RedisServer) -> Self {
        self.store = redis.url();
        self
    }

    /// The folder it lives in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Where it is, for other threads.
    pub(crate) fn whereabouts(&self) -> Arc<Whereabouts> {
        self.whereabouts.clone()
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        self.whereabouts.address()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join(format!("log.{}", self.lives))
    }

    /// What it logged in its present life.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts the process and does not wait for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.lives += 1;
        let log = File::create(self.log_path()).expect("the log file");
        let binary = env!("CARGO_BIN_EXE_posthaste").to_owned();
        let words: Vec<&String> = self.wrapper.iter().chain([&binary]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.folder.path())
            .args(["serve", "--config", "posthaste.toml", "--listen", "127.0.0.1:0"])
            .args(["--store", &self.store])
            .args(&self.arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", words[0]));
        let pid = i32::try_from(child.id()).expect("a process id");
        self.whereabouts.pid.store(pid, Ordering::SeqCst);
        self.process = Some(child);
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn launch(&mut self) {
        self.spawn();
        self.wait_until_listening();
    }

    /// Waits until it listens, and notes where.
    pub(crate) fn wait_until_listening(&mut self) {
        let address = self.wait_for("it listens", READY_WITHIN, |gateway| {
            let log = gateway.log();
            let at = log.find("address=")? + "address=".len();
            let line = log[at..].split_once('\n')?.0;
            Some(line.split_whitespace().next()?.to_owned())
        });
        *self.whereabouts.address.lock().expect("no panic inside") = address;
    }

    /// Starts the process and waits until it is ready; tells how long that took.
    pub(crate) fn launch_until_ready(&mut self) -> Duration {
        self.launch_until_ready_within(READY_WITHIN)
    }

    /// Starts the process; fails unless it is ready within that time. Tells how long it took.
    pub(crate) fn launch_until_ready_within(&mut self, within: Duration) -> Duration {
        let began = Instant::now();
        self.launch();
        self.wait_until_ready(within.saturating_sub(began.elapsed()));
        began.elapsed()
    }

    /// Polls until `look` gives something; fails with the log when the time is over or the process ended.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.process.as_mut().and_then(|child| child.try_wait().expect("its state"));
            assert!(ended.is_none(), "waiting until {what}: it ended with {ended:?}");
            assert!(begun.elapsed() < within, "waiting until {what}: not within {within:?}");
            super::pause_before_next_look(begun);
        }
    }

    /// Waits until `/ready` answers 200.
    pub(crate) fn wait_until_ready(&mut self, within: Duration) {
        self.wait_for("it is ready", within, |gateway| {
            let answer = client::request(&gateway.address(), "GET", "/ready", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Waits until nothing is pending, scheduled or leased; gives that status, for which both laws hold.
    pub(crate) fn wait_until_drained(&mut self, within: Duration) -> Value {
        self.wait_for("everything has ended", within, |gateway| {
            let status = gateway.status();
            invariants::assert_laws(&status);
            invariants::is_drained(&status).then_some(status)
        })
    }

    /// Waits until a message is in that state; gives it.
    pub(crate) fn wait_until_message_is(&mut self, state: &str, path: &str, within: Duration) -> Value {
        self.wait_for(&format!("{path} is {state}"), within, |gateway| {
            let answer = gateway.request("GET", path, &[], b"");
            assert_eq!(answer.status, 200, "{}", answer.text());
            let message = answer.json();
            (message["state"] == state).then_some(message)
        })
    }

    /// `/status` as it is now.
    pub(crate) fn status(&self) -> Value {
        let answer = self.request("GET", "/status", &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// One request on a connection of its own; it is answered.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        client::request(&self.address(), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
    }

    /// Publishes to a queue; the answer is a 202. Gives the message's path, which is in `Location`.
    pub(crate) fn publish(&self, queue: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let answer = self.request("POST", &format!("/v1/queues/{queue}/messages"), headers, body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location").expect("a Location").to_owned()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.process.is_some(), "it runs");
        self.whereabouts.signal(signal);
    }

    /// Lets it stand still, and waits until all of its threads do.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.process.as_ref().expect("it runs").id());
        let stands = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.expect("a thread").path().join("stat"));
            stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        };
        wait_until("it stands still", END_WITHIN, || {
            fs::read_dir(&tasks).expect("it runs").all(stands).then_some(())
        });
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_until_killed();
    }

    /// Waits for the end by a `kill -9` of somebody.
    pub(crate) fn wait_until_killed(&mut self) {
        let status = self.wait_for_exit(END_WITHIN);
        assert_eq!(status.signal(), Some(9), "it ended by itself before the kill: {status:?}");
    }

    /// Sends a SIGTERM, and waits until it ended in order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_exit(END_WITHIN);
        assert_eq!(status.code(), Some(0), "{status:?}");
    }

    /// Ends it in order and starts it again on the same files.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.launch_until_ready();
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
            assert!(Instant::now() < deadline, "it did not end within {within:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the gateway said")]
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let ended = child.kill().and_then(|()| child.wait());
            drop(ended);
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(100)..];
            eprintln!("the end of the gateway's log in life {}:\n{}", self.lives, last.join("\n"));
        }
    }
}
