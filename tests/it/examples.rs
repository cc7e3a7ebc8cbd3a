//! The examples of `docs/examples`, run as they stand against a real gateway: each message gets to its consumer or receiver, none is
//! lost, and what cannot be worked on is tried again and dies.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::client;
use crate::support::gateway::{Gateway, Home};
use crate::support::wait_until;

/// How long everything may take to be delivered on a busy machine.
const WITHIN: Duration = Duration::from_mins(1);
/// Messages that can be worked on.
const MESSAGES: usize = 40;
/// Lines of an example that are neither blank nor a comment: it is read at a glance.
const CODE_LINES_MAX: usize = 25;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples")
}

/// What runs an example; `tests/run` installs it.
fn interpreter(name: &str) -> &'static str {
    match name.rsplit_once('.').expect("an extension").1 {
        "py" => "python3",
        "mjs" => "node",
        "sh" => "sh",
        other => panic!("what runs .{other}?"),
    }
}

/// A running example, with what it wrote to both of its outputs.
struct Example {
    folder: tempfile::TempDir,
    name: &'static str,
    child: Child,
}

impl Example {
    fn start(name: &'static str, arguments: &[&str], gateway: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let output = File::create(folder.path().join("output")).expect("a file");
        let mut command = Command::new(interpreter(name));
        command.arg(examples().join(name)).args(arguments).current_dir(folder.path());
        command.env("POSTHASTE_URL", gateway).envs([("NO_PROXY", "*"), ("no_proxy", "*")]);
        let errors = output.try_clone().expect("a file");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs what is missing"));
        Self { folder, name, child }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).expect("its output")
    }

    /// How often it worked on a message, which is in the gateway at that path.
    fn count(&self, path: &str) -> usize {
        let id = path.rsplit_once('/').expect("a path").1;
        self.output().matches(id).count()
    }

    fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it can be killed");
    }
}

impl Drop for Example {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the example said")]
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
        if std::thread::panicking() {
            eprintln!("the output of {}:\n{}", self.name, self.output());
        }
    }
}

fn publish(gateway: &Gateway, queue: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    let json = [("Content-Type", "application/json")];
    numbers.map(|number| gateway.publish(queue, &json, format!(r#"{{"n":{number}}}"#).as_bytes())).collect()
}

/// Publishes what no example can work on: it dies after two attempts.
fn publish_bad(gateway: &Gateway, queue: &str) -> String {
    gateway.publish(queue, &[("Posthaste-Max-Attempts", "2")], b"")
}

fn assert_ended(status: &Value, queue: &str, delivered: usize, dead: usize) {
    let found = status["queues"].as_array().expect("queues").iter().find(|one| one["name"] == queue);
    let counts = found.map(|queue| (queue["delivered"].clone(), queue["dead"].clone()));
    assert_eq!(counts, Some((delivered.into(), dead.into())), "{status}");
}

fn assert_worked_on_each_once(example: &Example, good: &[String], bad: &str, gateway: &Gateway) {
    for path in good {
        assert_eq!(example.count(path), 1, "{path}");
    }
    assert_eq!(example.count(bad), 0, "{bad}");
    let message = gateway.request("GET", bad, &[], b"").json();
    assert_eq!((&message["state"], &message["reason"]), (&"dead".into(), &"exhausted".into()), "{message}");
    assert_eq!(message["attempt_count"], 2, "{message}");
}

fn a_consumer_works_on_every_message(home: &Home, name: &'static str) {
    let mut gateway = home.start("[queues.jobs]\nprocessor = 'pull'\nretry.schedule = ['0s']\n", &[]);
    let mut good = publish(&gateway, "jobs", 0..MESSAGES / 2);
    let consumer = Example::start(name, &["jobs"], &format!("http://{}", gateway.address()));
    wait_until("the backlog is worked on", WITHIN, || {
        (consumer.count(&good[MESSAGES / 2 - 1]) == 1).then_some(())
    });
    let bad = publish_bad(&gateway, "jobs");
    good.extend(publish(&gateway, "jobs", MESSAGES / 2..MESSAGES));
    let status = gateway.wait_until_drained(WITHIN);
    assert_ended(&status, "jobs", MESSAGES, 1);
    assert_worked_on_each_once(&consumer, &good, &bad, &gateway);
}

/// Kills a consumer amid its work, and starts another.
fn a_killed_consumer_loses_nothing(home: &Home, name: &'static str) {
    let mut gateway = home.start("[queues.jobs]\nprocessor = 'pull'\nlease = '1s'\n", &[]);
    let good = publish(&gateway, "jobs", 0..MESSAGES);
    let url = format!("http://{}", gateway.address());
    let mut first = Example::start(name, &["jobs"], &url);
    wait_until("it works", WITHIN, || good.iter().any(|path| first.count(path) > 0).then_some(()));
    first.kill();
    let second = Example::start(name, &["jobs"], &url);
    let status = gateway.wait_until_drained(WITHIN);
    assert_ended(&status, "jobs", MESSAGES, 0);
    for path in &good {
        assert!(first.count(path) + second.count(path) >= 1, "{path}");
    }
}

fn free_port() -> String {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port().to_string()
}

/// Messages that were published while there was no receiver come as well.
fn a_receiver_works_on_every_message(home: &Home, name: &'static str) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let schedule = vec!["'200ms'"; 99].join(",");
    let settings = format!(
        "[queues.orders]\nprocessor = 'http'\ndestination = 'http://{address}/orders'\nretry.schedule = [{schedule}]\n"
    );
    let mut gateway = home.start(&settings, &["--dev"]);
    let mut good = publish(&gateway, "orders", 0..MESSAGES / 2);
    gateway.wait_for("an attempt has failed", WITHIN, |gateway| {
        (gateway.status()["totals"]["retried"].as_u64() > Some(0)).then_some(())
    });
    let receiver = Example::start(name, &[&port], "");
    wait_until("it listens", WITHIN, || TcpStream::connect(&address).ok().map(drop));
    let bad = publish_bad(&gateway, "orders");
    good.extend(publish(&gateway, "orders", MESSAGES / 2..MESSAGES));
    let status = gateway.wait_until_drained(WITHIN);
    assert_ended(&status, "orders", MESSAGES, 1);
    assert_worked_on_each_once(&receiver, &good, &bad, &gateway);

    let twice = "019f0000-0000-7000-8000-000000000000";
    for _ in 0..2 {
        let answer =
            client::request(&address, "POST", "/", &[("webhook-id", twice)], b"{}").expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    assert_eq!(receiver.count(&format!("/{twice}")), 1, "what comes twice is worked on once");
}

/// Tests over both stores, each with its name.
macro_rules! on_both_stores {
    ($($test:ident: $scenario:ident($example:literal);)*) => {
        /// The examples that are run.
        const RUN: &[&str] = &[$($example),*];
        $(mod $test {
            use super::{Home, $scenario};
            #[test]
            fn over_sqlite() { $scenario(&Home::Sqlite, $example); }
            #[test]
            fn over_redis() { $scenario(&Home::redis(), $example); }
        })*
    };
}

on_both_stores! {
    the_python_consumer_works_on_every_message: a_consumer_works_on_every_message("pull.py");
    the_node_consumer_works_on_every_message: a_consumer_works_on_every_message("pull.mjs");
    the_shell_consumer_works_on_every_message: a_consumer_works_on_every_message("pull.sh");
    a_killed_python_consumer_loses_nothing: a_killed_consumer_loses_nothing("pull.py");
    a_killed_node_consumer_loses_nothing: a_killed_consumer_loses_nothing("pull.mjs");
    a_killed_shell_consumer_loses_nothing: a_killed_consumer_loses_nothing("pull.sh");
    the_python_receiver_works_on_every_message: a_receiver_works_on_every_message("push.py");
    the_node_receiver_works_on_every_message: a_receiver_works_on_every_message("push.mjs");
    the_shell_receiver_works_on_every_message: a_receiver_works_on_every_message("push.sh");
}

#[test]
fn every_example_is_short_is_run_and_stands_in_the_overview() {
    let overview = fs::read_to_string(examples().join("README.md")).expect("the overview");
    let mut found = 0;
    for entry in fs::read_dir(examples()).expect("the examples") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        if name == "README.md" {
            continue;
        }
        found += 1;
        assert!(RUN.contains(&name.as_str()), "{name} is run by no test");
        assert!(overview.contains(&format!("({name})")), "{name} is not in the overview");
        let text = fs::read_to_string(examples().join(&name)).expect("an example");
        let is_code =
            |line: &&str| !["", "#", "//"].contains(&line.trim().split(' ').next().unwrap_or_default());
        let lines = text.lines().filter(is_code).count();
        assert!(lines <= CODE_LINES_MAX, "{name} has {lines} lines of code");
    }
    assert_eq!(found, 6, "two kinds in three languages");
}
