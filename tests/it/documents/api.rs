//! The examples of docs/API.md, typed as they stand, from the first to the last, on both stores.
//!
//! Each `sh` block is one command with `curl`; the block right after it is what it prints, byte for byte but for what [`Names`]
//! forgives. A command without such a block prints nothing. What only reads is asked again until it is as shown: what it
//! shows may still be under way.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use posthaste::http::routes;

use super::varying::{self, Names, unwrapped, wrapped};
use super::{Block, blocks, commands};
use crate::support::command;
use crate::support::gateway::{Gateway, Home};
use crate::support::stores::on_both_stores;
use crate::support::wait_until;

const API: &str = include_str!("../../../docs/API.md");
/// Where the document says that the gateway listens.
const LISTEN: &str = "127.0.0.1:8080";
/// Where it says that the receiver does.
const RECEIVER: &str = "127.0.0.1:9000";
/// How long a command that only reads may take to show what is promised.
const WITHIN: Duration = Duration::from_secs(20);
/// What `/status` says of a Redis that stands alone, as the tests' does; the document shows SQLite.
const WARNED_OF_REDIS: &[&str] = &["replica_none", "maxmemory_none", "version_vulnerable"];

on_both_stores! { every_example_prints_what_the_document_shows }

/// A command and what it prints.
#[derive(Debug)]
struct Example {
    command: String,
    shown: String,
}

/// The commands that the examples need to run beside them, and the examples.
fn examples(markdown: &str) -> Result<(Vec<String>, Vec<Example>), String> {
    let (mut servers, mut examples) = (Vec::new(), Vec::new());
    let blocks = blocks(markdown);
    for (place, block) in blocks.iter().enumerate() {
        let is_answer = |next: &&Block| next.follows && next.language != "sh";
        if block.language != "sh" {
            let follows = place > 0 && block.follows && blocks[place - 1].language == "sh";
            if !follows {
                return Err(format!("of which command is this the answer? {}", block.text));
            }
            continue;
        }
        let mut commands = commands(&block.text);
        if commands.iter().all(|line| line.starts_with("posthaste ")) {
            servers.append(&mut commands);
            continue;
        }
        let [command] = &commands[..] else {
            return Err(format!("one command a block, so that each is seen with its answer: {}", block.text));
        };
        if !command.contains("curl ") {
            return Err(format!("no example with curl: {command}"));
        }
        let shown = blocks.get(place + 1).filter(is_answer).map_or("", |next| next.text.as_str());
        examples.push(Example { command: command.clone(), shown: unwrapped(shown) });
    }
    Ok((servers, examples))
}

/// The method and the path of a command.
fn request(command: &str) -> (&str, &str) {
    let curl = &command[command.find("curl ").expect("it has a curl")..];
    let words: Vec<&str> = curl.split_whitespace().collect();
    let sends = words.iter().any(|word| *word == "-d" || word.starts_with("--data"));
    let named = words.iter().position(|word| *word == "-X").map(|at| words[at + 1]);
    let method = named.unwrap_or(if sends { "POST" } else { "GET" });
    let at = curl.find(LISTEN).unwrap_or_else(|| panic!("{command} does not ask {LISTEN}")) + LISTEN.len();
    let path = curl[at..].split(|character: char| character.is_whitespace() || "?'\"".contains(character));
    (method, path.into_iter().next().filter(|path| !path.is_empty()).unwrap_or("/"))
}

/// Whether a path is one of a route.
fn is_of(path: &str, route: &str) -> bool {
    let (path, route) = (path.split('/'), route.split('/'));
    path.clone().count() == route.clone().count()
        && path.zip(route).all(|(segment, pattern)| segment == pattern || pattern.starts_with('{'))
}

/// The routes of which none of these commands is an example.
fn without_example(examples: &[Example]) -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = routes().collect();
    // What is said word by word comes before what stands for any word.
    all.sort_by_key(|(path, _)| path.matches('{').count());
    let shown: Vec<_> = examples
        .iter()
        .filter_map(|example| {
            let (method, path) = request(&example.command);
            all.iter().find(|(route, allowed)| *allowed == method && is_of(path, route)).copied()
        })
        .collect();
    all.retain(|route| !shown.contains(route));
    all
}

/// The receiver of the document, as a process of its own.
struct Receiver {
    process: Child,
    address: String,
}

impl Receiver {
    fn start(arguments: &[&str], folder: &Path) -> Self {
        let said = folder.join("receiver");
        let process = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("it starts");
        let mut receiver = Self { process, address: String::new() };
        receiver.address = wait_until("the receiver listens", WITHIN, || {
            let text = fs::read_to_string(&said).expect("a text");
            Some(text.split_once("http://")?.1.split_once('\n')?.0.to_owned())
        });
        receiver
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

/// The arguments of a server that the document starts.
fn arguments<'a>(servers: &'a [String], command: &str) -> Vec<&'a str> {
    let line = servers.iter().find_map(|line| line.strip_prefix("posthaste ")?.strip_prefix(command));
    line.unwrap_or_else(|| panic!("{command} is not started")).split_whitespace().collect()
}

/// What Redis says where SQLite says nothing, left out.
fn as_on_sqlite(answer: &str) -> String {
    let mut text = answer.replace("\"kind\":\"redis\"", "\"kind\":\"sqlite\"");
    for code in WARNED_OF_REDIS {
        if let Some(start) = text.find(&format!("{{\"code\":\"{code}\"")) {
            let end = start + text[start..].find('}').expect("an object ends") + 1;
            let end = if text[end..].starts_with(',') { end + 1 } else { end };
            text.replace_range(start..end, "");
        }
    }
    text
}

/// Who types the examples.
struct Typist {
    gateway: Gateway,
    receiver: Receiver,
    names: Names,
}

impl Typist {
    fn run(&self, command: &str) -> String {
        let line = self.names.real(command);
        let line = line.replace(LISTEN, &self.gateway.address()).replace(RECEIVER, &self.receiver.address);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).envs([("NO_PROXY", "*"), ("no_proxy", "*")]);
        let ended = command::run(self.gateway.folder(), shell);
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        let output = ended.stdout.replace("\r\n", "\n");
        let output =
            output.replace(&self.gateway.address(), LISTEN).replace(&self.receiver.address, RECEIVER);
        as_on_sqlite(output.trim_end())
    }

    /// Runs an example until it prints what is shown; once, when running it changes something.
    fn check(&mut self, example: &Example) {
        for name in varying::names(&example.command) {
            let known = self.names.real(name);
            assert_ne!(known, name, "no answer before {} shows {name}", example.command);
        }
        let reads_only = ![" -d", " -X", " --data"].iter().any(|flag| example.command.contains(flag));
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = self.run(&example.command);
            if self.names.agree(&example.shown, &answer) {
                return;
            }
            assert!(
                reads_only && Instant::now() < deadline,
                "{}\nprints\n{}\nand docs/API.md shows\n{}",
                example.command,
                wrapped(&self.names.shown(&answer)),
                wrapped(&example.shown)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn every_example_prints_what_the_document_shows(home: &Home) {
    let (servers, examples) = examples(API).expect("every block is a command or its answer");
    let gateway = home.start("", &arguments(&servers, "serve "));
    let receiver =
        Receiver::start(&[&["sink"], &arguments(&servers, "sink ")[..]].concat(), gateway.folder());
    let mut typist = Typist { gateway, receiver, names: Names::default() };
    for example in &examples {
        typist.check(example);
    }
    typist.gateway.stop();
}

#[test]
fn every_route_has_an_example() {
    let (_, examples) = examples(API).expect("every block is a command or its answer");
    assert_eq!(without_example(&examples), [], "give them one in docs/API.md");
}

#[test]
fn a_route_without_an_example_is_found() {
    let (_, mut examples) = examples(API).expect("every block is a command or its answer");
    examples.retain(|example| !example.command.contains("/leases/extend"));
    assert_eq!(without_example(&examples), [("/v1/queues/{queue}/leases/extend", "POST")]);
    let batch = Example {
        command: "printf x | curl -i http://127.0.0.1:8080/v1/queues/a/messages/batch --data-binary @-"
            .to_owned(),
        shown: String::new(),
    };
    let missing = without_example(&[batch]);
    assert!(!missing.contains(&("/v1/queues/{queue}/messages/batch", "POST")), "{missing:?}");
    assert!(missing.contains(&("/v1/queues/{queue}/messages/{id}", "DELETE")), "{missing:?}");
    let get = "curl 'http://127.0.0.1:8080/v1/queues?limit=1'";
    assert_eq!(request(get), ("GET", "/v1/queues"));
    assert_eq!(request("curl http://127.0.0.1:8080"), ("GET", "/"));
}

#[test]
fn an_example_that_is_wrong_is_seen() {
    let right = "```sh\ncurl -s http://127.0.0.1:8080/health\n```\n\n```\nOK\n```\n";
    assert_eq!(examples(right).expect("it is one").1[0].shown, "OK");
    for wrong in [
        "```json\n{}\n```\n",
        "```sh\nls\n```\n",
        "```sh\ncurl a\ncurl b\n```\n",
        "```sh\ncurl a\n```\nand then\n```json\n{}\n```\n",
    ] {
        assert!(examples(wrong).is_err(), "{wrong}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start("", &[]);
    let receiver = Receiver::start(&["sink"], folder.path());
    let mut typist = Typist { gateway, receiver, names: Names::default() };
    let answer = typist.run("curl -s -X POST http://127.0.0.1:8080/v1/queues/default/purge");
    assert!(typist.names.agree("{\"purged\":0}", &answer), "{answer}");
    assert!(!typist.names.agree("{\"purged\":1}", &answer), "{answer}");
}
