//! `posthaste publish`: a message from the command line, a file or stdin.

mod lines;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reqwest::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::cli::again::AgainArguments;
use crate::cli::client::{ClientArguments, Publication};
use crate::cli::output::{give, give_json};
use crate::cli::{Exit, Failure, say};
use crate::domain::format::duration;
use crate::domain::message::Priority;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::http::trace;

/// The largest payload that any queue takes.
const PAYLOAD_BYTES_MAX: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  posthaste publish orders '{\"order\":17}' --content-type application/json
  posthaste publish pictures --file cat.png --content-type image/png --header X-Album=cats
  date | posthaste publish default
  posthaste publish orders --delay 1h --ttl 1d --priority low --file order.json
  posthaste publish orders --lines --file orders.ndjson --content-type application/json

It prints the message's id once the message is stored. Each publish has a key, its own or the one of --key: when the answer is lost, it \
is sent again with that key, which cannot store it twice. With --lines, it prints an id a line. Batches are stored one after the \
other, each under the key with its number (KEY.1, KEY.2, …); the first that is refused ends it, and the line at fault is named. The same \
file with the same --key and --batch stores no line twice.";

/// What to publish, where, and how.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    /// The queue
    queue: QueueName,
    /// The payload; `-`, or nothing, reads it from stdin
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of the file or of stdin as a message of its own; blank ones are skipped
    #[arg(long)]
    lines: bool,
    /// How many lines to send at once; such a batch is stored whole or not at all
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER", requires = "lines", value_parser = batch)]
    batch: usize,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    again: AgainArguments,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// What is said of a message besides its payload.
#[derive(Args)]
struct Options {
    /// The idempotency key: the same again within the queue's window stores nothing
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Deliver it not before so long from now
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "deliver_at")]
    delay: Option<Duration>,
    /// Deliver it not before that moment, as in 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    deliver_at: Option<Timestamp>,
    /// How long it may wait for an attempt before it dies
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Its share of the turns
    #[arg(long, value_name = "high|normal|low", value_parser = priority)]
    priority: Option<Priority>,
    /// Attempts allowed
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    max_attempts: Option<u8>,
    /// Where to push it, in a queue that allows it
    #[arg(long, value_name = "URL")]
    destination: Option<String>,
    /// The method to push it with
    #[arg(long, value_name = "POST|PUT|PATCH|DELETE|GET", value_parser = method)]
    method: Option<String>,
    /// How long an attempt may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    attempt_timeout: Option<Duration>,
    /// The trace to deliver it in, as in 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    #[arg(long, value_name = "TRACE", value_parser = traceparent)]
    traceparent: Option<HeaderValue>,
    /// What else that trace carries, as in vendor=value
    #[arg(long, value_name = "STATE", requires = "traceparent", value_parser = tracestate)]
    tracestate: Option<HeaderValue>,
    /// The type of the payload, delivered with it
    #[arg(long, value_name = "TYPE")]
    content_type: Option<HeaderValue>,
    /// A header to deliver with it; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
}

fn batch(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "it is a number from 1 to 10000".to_owned())
}

fn priority(text: &str) -> Result<Priority, String> {
    let found = Priority::ALL.into_iter().find(|priority| priority.as_str() == text);
    found.ok_or_else(|| "it is high, normal or low".to_owned())
}

fn method(text: &str) -> Result<String, String> {
    let is_known = ["POST", "PUT", "PATCH", "DELETE", "GET"].contains(&text);
    is_known.then(|| text.to_owned()).ok_or_else(|| "it is POST, PUT, PATCH, DELETE or GET".to_owned())
}

/// A gateway ignores what is none, as others in a trace do; who types it wants to know.
fn traceparent(text: &str) -> Result<HeaderValue, String> {
    let value = text.parse().ok().filter(|_| trace::is_parent(text));
    value.ok_or_else(|| {
        "it is no traceparent: write 00-, 32 hex digits, -, 16 hex digits, -, 2 hex digits".to_owned()
    })
}

fn tracestate(text: &str) -> Result<HeaderValue, String> {
    let value = text.parse().ok().filter(|_| trace::is_state(text));
    value.ok_or_else(|| "it is no tracestate: write vendor=value, and others behind commas".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = value.parse().map_err(|_| "the value has characters that no header can hold")?;
    Ok((name, value))
}

impl Options {
    fn publication(&self) -> Publication {
        // Made up for each call of the command: what is repeated is its requests.
        let key = self.key.clone().unwrap_or_else(|| format!("cli-{}", Uuid::now_v7().simple()));
        Publication {
            key: Some(key),
            delay: self.delay,
            deliver_at: self.deliver_at,
            ttl: self.ttl,
            priority: self.priority,
            max_attempts: self.max_attempts,
            destination: self.destination.clone(),
            method: self.method.clone(),
            timeout: self.attempt_timeout,
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
            content_type: self.content_type.clone(),
            forward: self.header.clone(),
        }
    }
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.client.client()?;
    let publication = arguments.options.publication();
    if arguments.lines {
        return lines::publish(arguments, &client, &publication);
    }
    let payload = arguments.payload()?;
    let publish = async || client.publish(&arguments.queue, &publication, payload.clone()).await;
    let published = arguments.again.until_known(&client, &say, &publish);
    let published = published.map_err(|failure| with_key(failure, &publication))?;
    if published.duplicate && arguments.has_key() {
        say("this key was used before: nothing new is stored");
    }
    if arguments.json { give_json(&published.text) } else { give(&format!("{}\n", published.id)) }
}

impl Arguments {
    fn payload(&self) -> Result<Bytes, Failure> {
        match (&self.payload, &self.file) {
            (Some(payload), _) if payload != "-" => Ok(payload.clone().into()),
            _ => read_all(self.source()?),
        }
    }

    /// Whether the caller made up the key.
    const fn has_key(&self) -> bool {
        self.options.key.is_some()
    }

    /// The file, or stdin.
    fn source(&self) -> Result<File, Failure> {
        if self.lines && self.payload.as_ref().is_some_and(|payload| payload != "-") {
            return Err(Failure::new(Exit::Usage, "--lines reads a file or stdin, not an argument"));
        }
        if let Some(file) = self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            let failed = |error| Failure::failed(format!("{} cannot be read: {error}", file.display()));
            return File::open(file).map_err(failed);
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            say("reading from the terminal; Ctrl-D ends it");
        }
        Ok(stdin.as_fd().try_clone_to_owned().map_err(Failure::failed)?.into())
    }
}

/// What nobody knows can be found out by the same key.
fn with_key(failure: Failure, publication: &Publication) -> Failure {
    let Some(key) = publication.key.as_ref().filter(|_| failure.may_be_stored) else { return failure };
    let words = format!(
        "{failure}\n  stored: nobody knows; publishing it again with --key {key} cannot store it twice"
    );
    Failure { words, ..failure }
}

fn read_all(source: impl Read) -> Result<Bytes, Failure> {
    let mut payload = Vec::new();
    let read = source.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut payload);
    read.map_err(|error| Failure::failed(format!("the payload cannot be read: {error}")))?;
    if payload.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, "the payload has more than 16 MiB, which no queue takes"));
    }
    Ok(payload.into())
}
