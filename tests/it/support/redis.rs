//! A real redis-server as a child process, on a socket in a folder of its own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to answer on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The options under which a 202 is strict.
pub(crate) const STRICT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port().to_string()
}

/// Names the redis-server that all tests use; without it, it is the installed one.
const CHOICE: &str = "POSTHASTE_TEST_REDIS_SERVER";

/// The one that `tests/run` installs by the package manager.
const INSTALLED: &str = "redis-server";

/// The redis-server that the tests use.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests chooses, and not a gateway")]
fn program() -> PathBuf {
    std::env::var_os(CHOICE).map_or_else(|| INSTALLED.into(), PathBuf::from)
}

/// One of 7.2 or newer: that of all tests where it is new enough, else the one that `tests/run` put below `target/`.
fn newer_program() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis/redis-server");
    let is_newer = |program: &PathBuf| version(program).is_some_and(|version| version >= (7, 2));
    let found = [program(), unpacked].into_iter().find(is_newer);
    found.expect("there is a redis-server of 7.2 or newer: tests/run --tools sees to it")
}

/// What `redis-server --version` says: major and minor.
fn version(program: &Path) -> Option<(u16, u16)> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut numbers = said.split_once("v=")?.1.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// A server with its folder.
pub(crate) struct RedisServer {
    program: PathBuf,
    folder: tempfile::TempDir,
    options: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one, with options as on its command line (`--appendonly yes`), and waits until it answers.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        server.launch();
        server
    }

    /// Starts one that keeps what a 202 promises.
    pub(crate) fn start_durable() -> Self {
        Self::start(&STRICT)
    }

    /// Makes its folder without starting it.
    pub(crate) fn prepare(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { program: program(), folder, options, process: None }
    }

    /// The same of 7.2 or newer, for what only those can.
    pub(crate) fn prepare_newer(options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        server.program = newer_program();
        server
    }

    /// Starts one that listens on a port of its own as well, for others to follow it; gives the port.
    pub(crate) fn start_on_port(options: &[&str]) -> (Self, String) {
        let port = free_port();
        (Self::start(&[options, &["--port", &port]].concat()), port)
    }

    /// Starts the installed one, which speaks TLS, whatever the others are.
    pub(crate) fn start_with_tls(options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        server.program = INSTALLED.into();
        server.launch();
        server
    }

    /// Starts it again on the same folder, and waits until it answers. As whatever looks after a server does, it starts it once
    /// more when it ends: so does one that was killed in a rewrite, after it cut off the end of the file before the last.
    pub(crate) fn launch(&mut self) {
        self.spawn(&[]);
        let (begun, mut is_first) = (Instant::now(), true);
        while self.try_ask(&["PING"]).is_none_or(|answer| answer != "+PONG\r\n") {
            assert!(begun.elapsed() < READY_WITHIN, "redis-server does not answer");
            let process = self.process.as_mut().expect("it was started");
            if is_first && process.try_wait().expect("it is ours").is_some() {
                is_first = false;
                self.spawn(&[]);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it again on the same folder with further options, and waits for nothing.
    pub(crate) fn spawn(&mut self, options: &[&str]) {
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"]);
        // It waits five seconds for a second replica otherwise.
        command.args(["--repl-diskless-sync-delay", "0"]);
        command.arg("--dir").arg(self.folder.path()).arg("--unixsocket").arg(self.socket());
        command.args(&self.options).args(options).stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(command.spawn().expect("redis-server is installed: tests/run does it"));
    }

    /// Sends a command that is written as for `redis-cli`; it must be answered `OK`.
    pub(crate) fn order(&self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(self.ask(&words), "+OK\r\n", "{command}");
    }

    /// How often it ran a command, for scripts as well.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let (info, begin) = (self.ask(&["INFO", "commandstats"]), format!("cmdstat_{command}:calls="));
        let line = info.lines().find_map(|line| line.strip_prefix(&begin));
        line.map_or(0, |line| line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
    }

    /// A number of `INFO`.
    pub(crate) fn info(&self, field: &str) -> u64 {
        let info = self.ask(&["INFO"]);
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("INFO says no {field}: {info}"))
    }

    /// Ends every connection but its own.
    pub(crate) fn hang_up(&self) {
        self.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        self.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }

    /// The same, of one that wants this password.
    pub(crate) fn hang_up_as(&self, password: &str) {
        let client = redis::Client::open(format!("{}?pass={password}", self.url())).expect("a URL");
        let mut connection = client.get_connection().expect("it lets in who has the password");
        let mut command = redis::cmd("CLIENT");
        command.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        let killed: i64 = command.query(&mut connection).expect("it ends them");
        assert!(killed > 0);
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The file that it appends to.
    pub(crate) fn append_only_file(&self) -> File {
        let files = std::fs::read_dir(self.folder.path().join("appendonlydir")).expect("it keeps one");
        let mut paths: Vec<_> = files.map(|entry| entry.expect("it can be listed").path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
        let [path] = &paths[..] else { panic!("one file, not {paths:?}") };
        File::options().write(true).open(path).expect("it can be written")
    }

    /// How a store names it.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Sends a command; gives the answer as it came.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("redis-server answers")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut sent = format!("*{}\r\n", command.len());
        for word in command {
            write!(sent, "${}\r\n{word}\r\n", word.len()).expect("a string takes all");
        }
        stream.write_all(sent.as_bytes()).ok()?;
        let mut answer = vec![0; 1 << 20];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Sends commands as for `redis-cli` in one go, so that nobody's comes in between; each must be answered `OK`.
    pub(crate) fn order_together(&self, commands: &[&str]) {
        let mut stream = UnixStream::connect(self.socket()).expect("it listens");
        let sent = commands.join("\r\n") + "\r\n";
        stream.write_all(sent.as_bytes()).expect("it reads");
        let mut answers = vec![0; commands.len() * "+OK\r\n".len()];
        stream.read_exact(&mut answers).expect("it answers");
        assert_eq!(String::from_utf8_lossy(&answers), "+OK\r\n".repeat(commands.len()));
    }

    /// Lets it stand still, as a machine that swaps does: it takes connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill(Pid::from_raw(process.id().try_into().expect("a process id")), signal)
            .expect("the signal is sent");
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}
