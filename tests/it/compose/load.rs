//! The load tests: each script of wrk runs, and says truly how many messages were accepted.

use std::fs;
use std::process::Command;

use super::{compose, mounts, read, root, strings};
use crate::support::command;
use crate::support::gateway::Gateway;

const SCRIPTS: &str = "benches/wrk";
/// What is on its way when wrk ends is not counted: one request a connection.
const CONNECTIONS: u64 = 4;

/// Runs a script for a second; gives what it says was accepted and what the gateway accepted in the queue `jobs`, which keeps it.
fn run(script: &str, arguments: &[&str]) -> (u64, u64) {
    let gateway = Gateway::start("[queues.jobs]\nprocessor = 'pull'\n", &[]);
    let mut wrk = Command::new("wrk");
    wrk.args(["-t2", "-d1s", "--latency", &format!("-c{CONNECTIONS}"), "-s"]);
    wrk.arg(root().join(SCRIPTS).join(script)).arg(format!("http://{}", gateway.address()));
    wrk.args(["--", "jobs"]).args(arguments);
    let ended = command::run(&root(), wrk);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("Non-2xx"), "{}", ended.stdout);
    let last = ended.stdout.lines().last().unwrap_or_default();
    assert!(last.contains("refused: 0"), "{}", ended.stdout);
    let said = last.strip_prefix("accepted: ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let said = said.unwrap_or_else(|| panic!("no count: {}", ended.stdout));
    (said, gateway.status()["totals"]["accepted"].as_u64().expect("a count"))
}

fn assert_true(said: u64, accepted: u64, a_request: u64) {
    assert!(said > 0 && said.is_multiple_of(a_request), "{said}");
    assert!((said..=said + CONNECTIONS * a_request).contains(&accepted), "said {said}, accepted {accepted}");
}

#[test]
fn single_messages_are_published_and_counted() {
    let (said, accepted) = run("single.lua", &["10"]);
    assert_true(said, accepted, 1);
}

#[test]
fn batches_are_published_and_counted() {
    let (said, accepted) = run("batch.lua", &["50", "20"]);
    assert_true(said, accepted, 50);
}

#[test]
fn messages_of_mixed_sizes_are_published_and_counted() {
    let (said, accepted) = run("mixed.lua", &[]);
    assert_true(said, accepted, 1);
}

#[test]
fn the_service_loadtest_runs_a_script_that_is_there_against_the_gateway() {
    let compose = compose();
    let service = &compose["services"]["loadtest"];
    let command = strings(&service["command"]);
    let (host, container) = &mounts(service)[0];
    assert_eq!(host, SCRIPTS);
    let script = command.iter().find_map(|word| word.strip_prefix(container.as_str())).expect("a script");
    assert!(root().join(host).join(script.trim_start_matches('/')).is_file(), "no script {script}");
    assert_eq!(command.last(), Some(&"http://gateway:8080"));
    assert_eq!(compose["services"]["gateway"]["ports"][0], "127.0.0.1:8080:8080");
}

#[test]
fn every_script_says_how_it_is_run_and_the_readme_runs_it() {
    let readme = read("README.md");
    for entry in fs::read_dir(root().join(SCRIPTS)).expect("the scripts") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let line = format!("-s {SCRIPTS}/{name} http://127.0.0.1:8080");
        assert!(read(&format!("{SCRIPTS}/{name}")).contains(&line), "{name}");
        assert!(readme.contains(&line), "the README does not run {name}");
    }
}
