//! `posthaste lease`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ask, command, feed, on_each_store, tell, tell_json};
use crate::support::gateway::Gateway;
use crate::support::wait_until;

const JOBS: &str =
    "[queues.jobs]\nprocessor = 'pull'\nretry.schedule = ['1h']\n[queues.pushed]\nprocessor = 'log'\n";
const WITHIN: Duration = Duration::from_secs(30);

fn publish(gateway: &Gateway, lines: &[&str]) {
    let published = feed(gateway, &["publish", "jobs", "--lines"], lines.join("\n").as_bytes());
    assert_eq!(published.code, Some(0), "{published:?}");
}

fn total(gateway: &Gateway, name: &str) -> u64 {
    gateway.status()["totals"][name].as_u64().expect("a count")
}

fn wait_for_total(gateway: &Gateway, name: &str, count: u64) {
    wait_until(&format!("{count} are {name}"), WITHIN, || (total(gateway, name) == count).then_some(()));
}

/// A consumer with a command for each message, its output in files of the gateway's folder.
struct Consumer {
    process: Child,
    said: PathBuf,
}

impl Consumer {
    fn start(gateway: &Gateway, arguments: &[&str], script: &str) -> Self {
        let said = gateway.folder().join("said");
        let process = command(&[&["lease", "jobs"], arguments, &["--", "sh", "-c", script]].concat())
            .env("POSTHASTE_URL", format!("http://{}", gateway.address()))
            .current_dir(gateway.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("it starts");
        Self { process, said }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).expect("an id")), signal).expect("a signal");
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("a text")
    }

    fn wait(&mut self) -> Option<i32> {
        wait_until("it ends", WITHIN, || self.process.try_wait().expect("its state")).code()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

#[test]
fn messages_are_printed_and_held_released_or_done() {
    on_each_store(JOBS, |gateway| {
        publish(gateway, &["one", "two", "three"]);
        let text = tell(gateway, &["lease", "jobs", "--max", "2", "--release"]);
        for word in ["one", "two", "receipt", "leased until", "attempt"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(total(gateway, "pending"), 3, "they went back");
        assert_eq!(tell(gateway, &["lease", "jobs", "--max", "2", "--payload", "--ack"]), "one\ntwo\n");
        assert_eq!((total(gateway, "delivered"), total(gateway, "pending")), (2, 1));
        let held = ask(gateway, &["lease", "jobs", "--json", "--lease", "1h"]);
        assert!(held.stderr.contains("leased until"), "{held:?}");
        let leases = super::json(&held.stdout);
        assert_eq!(
            (&leases["items"][0]["payload"], &leases["items"][0]["attempt"]),
            (&"three".into(), &1.into())
        );
        assert_eq!(total(gateway, "leased"), 1);
        let settle = format!("{{\"ack\":[{}]}}", leases["items"][0]["receipt"]);
        let headers = [("content-type", "application/json")];
        let settled = gateway.request("POST", "/v1/queues/jobs/leases/settle", &headers, settle.as_bytes());
        assert_eq!(settled.json()["results"][0]["result"], "settled", "{}", settled.text());
        let nothing = ask(gateway, &["lease", "jobs", "--json", "--wait", "50ms"]);
        assert_eq!(super::json(&nothing.stdout)["items"], serde_json::json!([]));
        assert!(nothing.stderr.contains("nothing came"), "{nothing:?}");
    });
}

#[test]
fn what_cannot_be_printed_is_not_taken_for_done() {
    let gateway = Gateway::start(JOBS, &[]);
    publish(&gateway, &["one"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command(&["lease", "jobs", "--ack", "--payload"])
        .env("POSTHASTE_URL", format!("http://{}", gateway.address()))
        .stdout(std::os::fd::OwnedFd::from(writer))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((total(&gateway, "pending"), total(&gateway, "delivered")), (1, 0));
}

#[test]
fn the_exit_code_of_a_command_says_what_becomes_of_its_message() {
    on_each_store(JOBS, |gateway| {
        publish(gateway, &["0", "65", "75", "1", "0", "255"]);
        let arguments = ["lease", "jobs", "--until-empty", "--", "sh", "-c", "exit $(cat)"];
        let ended = ask(gateway, &arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
        assert!(ended.stderr.contains("2 done, 3 failed, 1 rejected"), "{ended:?}");
        let of = |name| total(gateway, name);
        assert_eq!((of("delivered"), of("dead"), of("scheduled"), of("leased")), (2, 1, 3, 0));
        let letter = tell_json(gateway, &["dead", "list", "jobs", "--json"]);
        assert_eq!(
            (&letter["items"][0]["reason"], &letter["items"][0]["detail"]),
            (&"rejected".into(), &"exit code 65".into())
        );
    });
}

#[test]
fn a_command_has_its_message_on_stdin_and_in_its_environment() {
    on_each_store(JOBS, |gateway| {
        let large = vec![b'x'; 1 << 20];
        let id = feed(gateway, &["publish", "jobs", "--content-type", "text/plain"], &large).stdout;
        let script =
            "echo $POSTHASTE_ID $POSTHASTE_QUEUE $POSTHASTE_ATTEMPT $POSTHASTE_CONTENT_TYPE $(wc -c)";
        let given = tell(gateway, &["lease", "jobs", "--until-empty", "--", "sh", "-c", script]);
        assert_eq!(given, format!("{} jobs 1 text/plain 1048576\n", id.trim_end()));
        // One that reads nothing of what it is given is served all the same.
        feed(gateway, &["publish", "jobs"], &large);
        tell(gateway, &["lease", "jobs", "--until-empty", "--", "true"]);
        feed(gateway, &["publish", "jobs"], b"\xff\x00");
        let bytes = tell(gateway, &["lease", "jobs", "--until-empty", "--", "sh", "-c", "od -An -tx1"]);
        assert_eq!(bytes.trim(), "ff 00");
        assert_eq!(total(gateway, "delivered"), 3);
    });
}

#[test]
fn a_lease_is_extended_while_its_command_runs() {
    on_each_store(JOBS, |gateway| {
        publish(gateway, &["one"]);
        let mut consumer =
            Consumer::start(gateway, &["--lease", "1s", "--until-empty"], "cat > begun; cat < go");
        let pipe = gateway.folder().join("go");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        wait_until("it begins", WITHIN, || gateway.folder().join("begun").exists().then_some(()));
        // Three times as long as its lease.
        let until = Instant::now() + Duration::from_secs(3);
        wait_until("time passes", WITHIN, || (Instant::now() >= until).then_some(()));
        assert_eq!((total(gateway, "leased"), total(gateway, "recovered")), (1, 0));
        drop(File::options().write(true).open(&pipe).expect("a pipe"));
        assert_eq!(consumer.wait(), Some(0), "{}", consumer.said());
        assert_eq!(total(gateway, "delivered"), 1);
        fs::remove_file(&pipe).expect("a pipe");
    });
}

#[test]
fn ctrl_c_releases_what_has_not_begun_and_lets_the_rest_end() {
    on_each_store(JOBS, |gateway| {
        publish(gateway, &["1", "2", "3", "4", "5"]);
        let script = "cat >> begun; echo >> begun; while [ ! -e go ]; do sleep 0.05; done";
        let mut consumer = Consumer::start(gateway, &["--max", "4", "--jobs", "2"], script);
        let begun = || fs::read_to_string(gateway.folder().join("begun")).unwrap_or_default().lines().count();
        wait_until("two have begun", WITHIN, || {
            (begun() == 2 && total(gateway, "leased") == 4).then_some(())
        });
        consumer.signal(Signal::SIGINT);
        wait_for_total(gateway, "leased", 2);
        assert_eq!(total(gateway, "pending"), 3, "what had not begun is back");
        assert!(consumer.process.try_wait().expect("its state").is_none(), "it waits for what runs");
        fs::write(gateway.folder().join("go"), "").expect("a file");
        assert_eq!(consumer.wait(), Some(0), "{}", consumer.said());
        assert!(consumer.said().contains("2 done, 0 failed, 0 rejected, 2 released"), "{}", consumer.said());
        assert_eq!((total(gateway, "delivered"), total(gateway, "retried")), (2, 0));
    });
}

#[test]
fn a_second_ctrl_c_ends_the_commands() {
    let gateway = Gateway::start(JOBS, &[]);
    publish(&gateway, &["1"]);
    let mut consumer = Consumer::start(&gateway, &[], "echo > begun; sleep 600");
    wait_until("it has begun", WITHIN, || gateway.folder().join("begun").exists().then_some(()));
    consumer.signal(Signal::SIGTERM);
    wait_until("it heard", WITHIN, || consumer.said().contains("once more ends them").then_some(()));
    consumer.signal(Signal::SIGTERM);
    assert_eq!(consumer.wait(), Some(0), "{}", consumer.said());
    assert!(consumer.said().contains("ended by signal 15"), "{}", consumer.said());
    assert_eq!((total(&gateway, "scheduled"), total(&gateway, "leased")), (1, 0));
}

#[test]
fn a_waiting_consumer_ends_at_once_and_takes_what_comes() {
    on_each_store(JOBS, |gateway| {
        let mut consumer = Consumer::start(gateway, &[], "cat >> begun; echo >> begun");
        publish(gateway, &["1"]);
        wait_for_total(gateway, "delivered", 1);
        publish(gateway, &["2"]);
        wait_for_total(gateway, "delivered", 2);
        let began = Instant::now();
        consumer.signal(Signal::SIGINT);
        assert_eq!(consumer.wait(), Some(0), "{}", consumer.said());
        assert!(began.elapsed() < Duration::from_secs(15), "it does not wait for the gateway's answer");
        publish(gateway, &["3"]);
        assert_eq!(tell(gateway, &["lease", "jobs", "--payload", "--ack", "--wait", "10s"]), "3\n");
    });
}

#[test]
fn a_consumer_survives_its_gateway() {
    let mut gateway = Gateway::start(&format!("{JOBS}[server]\ngrace = '1s'\n"), &[]);
    let proxy = crate::support::sink::Sink::start({
        let whereabouts = gateway.whereabouts();
        move |received| super::publish::pass_on(&whereabouts.address(), received)
    });
    let mut consumer = command(&["lease", "jobs", "--wait", "100ms", "--timeout", "5s", "--", "cat"])
        .env("POSTHASTE_URL", proxy.url(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    publish(&gateway, &["1"]);
    wait_for_total(&gateway, "delivered", 1);
    gateway.kill();
    gateway.launch_until_ready();
    publish(&gateway, &["2"]);
    wait_for_total(&gateway, "delivered", 2);
    kill(Pid::from_raw(i32::try_from(consumer.id()).expect("an id")), Signal::SIGINT).expect("a signal");
    assert_eq!(wait_until("it ends", WITHIN, || consumer.try_wait().expect("its state")).code(), Some(0));
}

#[test]
fn a_command_that_cannot_be_run_costs_no_message_an_attempt() {
    on_each_store(JOBS, |gateway| {
        publish(gateway, &["1", "2"]);
        let ended = ask(gateway, &["lease", "jobs", "--max", "2", "--", "no-such-command"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("\"no-such-command\" cannot be run"), "{ended:?}");
        assert_eq!((total(gateway, "pending"), total(gateway, "scheduled")), (2, 0));
        let again = tell_json(gateway, &["lease", "jobs", "--release", "--json"]);
        assert_eq!(again["items"][0]["attempt"], 1);
    });
}

#[test]
fn a_queue_that_is_not_for_pulling_refuses() {
    on_each_store(JOBS, |gateway| {
        for arguments in [&["lease", "pushed"][..], &["lease", "pushed", "--", "cat"]] {
            let ended = ask(gateway, arguments);
            assert_eq!(ended.code, Some(3), "{arguments:?}: {ended:?}");
            assert!(
                ended.stderr.contains("queue_not_pull (409)") && ended.stderr.contains("hint: "),
                "{ended:?}"
            );
        }
        let usage: [&[&str]; 7] = [
            &["lease"],
            &["lease", "jobs", "--max", "0"],
            &["lease", "jobs", "--wait", "61s"],
            &["lease", "jobs", "--lease", "1ms"],
            &["lease", "jobs", "--ack", "--release"],
            &["lease", "jobs", "--ack", "--", "cat"],
            &["lease", "jobs", "--until-empty"],
        ];
        for arguments in usage {
            assert_eq!(ask(gateway, arguments).code, Some(2), "{arguments:?}");
        }
    });
}

#[test]
fn several_consumers_share_a_queue() {
    on_each_store(JOBS, |gateway| {
        let lines: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        publish(gateway, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let consume = || {
            let mut consumer: Command =
                command(&["lease", "jobs", "--jobs", "4", "--until-empty", "--", "sh", "-c", "echo $(cat)"]);
            consumer.env("POSTHASTE_URL", format!("http://{}", gateway.address()));
            consumer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
        };
        let consumers: Vec<Child> = (0..3).map(|_| consume()).collect();
        let mut seen: Vec<String> = Vec::new();
        for consumer in consumers {
            let output = consumer.wait_with_output().expect("it ends");
            assert_eq!(output.status.code(), Some(0));
            seen.extend(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned));
        }
        seen.sort_by_key(|line| line.parse::<u32>().expect("a number"));
        assert_eq!(seen, lines);
        assert_eq!(total(gateway, "delivered"), 200);
    });
}
