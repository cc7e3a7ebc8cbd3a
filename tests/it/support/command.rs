//! The real binary as a command that comes to an end: what it said and how it ended.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take on a busy machine before a test calls it stuck.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it gave.
    pub(crate) stdout: String,
    /// What it said.
    pub(crate) stderr: String,
}

/// Runs `posthaste` with these arguments and environment in a folder, until it ends by itself.
pub(crate) fn posthaste(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(arguments).envs(environment.iter().copied());
    run(folder, command)
}

/// Runs a command in a folder until it ends by itself, with nothing to read.
pub(crate) fn run(folder: &Path, command: Command) -> Ended {
    run_fed(folder, command, b"")
}

/// Runs a command in a folder until it ends by itself, with this to read from stdin.
pub(crate) fn run_fed(folder: &Path, mut command: Command, stdin: &[u8]) -> Ended {
    let outputs = tempfile::tempdir().expect("a folder");
    let fed = outputs.path().join("stdin");
    fs::write(&fed, stdin).expect("a file");
    let (stdout, stderr) = (outputs.path().join("stdout"), outputs.path().join("stderr"));
    let mut child = command
        .current_dir(folder)
        .stdin(File::open(&fed).expect("a file"))
        .stdout(File::create(&stdout).expect("a file"))
        .stderr(File::create(&stderr).expect("a file"))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let deadline = Instant::now() + END_WITHIN;
    let text = |path| String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned();
    loop {
        if let Some(status) = child.try_wait().expect("its state") {
            return Ended { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) };
        }
        if Instant::now() >= deadline {
            child.kill().and_then(|()| child.wait()).expect("it can be killed");
            panic!("{command:?} did not end within {END_WITHIN:?}; it said: {}", text(&stderr));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
