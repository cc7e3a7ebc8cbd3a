//! `posthaste lease`: pulling messages, to print them or to run a command for each.

mod child;
mod consume;
mod print;

use std::time::Duration;

use clap::Args;

use crate::api::lease::{LEASE_MAX, LEASE_MIN, LeaseOrder, PayloadAs, WAIT_MAX};
use crate::cli::Failure;
use crate::cli::client::ClientArguments;
use crate::domain::format::duration;
use crate::domain::queue::QueueName;

/// How long a lease is that a command runs under; it is extended three times as often.
const LEASE: Duration = Duration::from_secs(30);
/// How long a gateway is asked to wait for messages before it is asked again.
const WAIT: Duration = Duration::from_secs(20);

const EXAMPLES: &str = "\
Examples:
  posthaste lease jobs --wait 10s
  posthaste lease jobs --max 10 --ack --payload
  posthaste lease jobs -- ./resize
  posthaste lease jobs --jobs 4 --until-empty -- sh -c 'jq .order >> orders'

Without a command, messages are leased and printed. Their leases go on until they are settled by the API or run out, unless --ack or \
--release ends them once they are printed.

With a command, it runs once for each message, which it reads from stdin; POSTHASTE_ID, POSTHASTE_QUEUE, POSTHASTE_ATTEMPT and \
POSTHASTE_CONTENT_TYPE are in its environment. Its exit code says what becomes of the message: 0 done · 65 (EX_DATAERR) rejected, it \
becomes a dead letter · any other, such as 75 (EX_TEMPFAIL), or a signal: tried again on the queue's schedule. The lease is extended \
while it runs. Ctrl-C lets the commands that run come to their end, and releases what has not begun, uncounted; a second Ctrl-C ends \
them.";

/// What to lease, and what to do with it.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    /// The queue
    queue: QueueName,
    /// How many messages to lease at once [default: 1, with a command as many as run at once]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    max: Option<u16>,
    /// How long to wait for the first one [default: 0s, with a command 20s again and again]
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<Duration>,
    /// How long the lease is [default: as the queue has it, with a command 30s, extended while it runs]
    #[arg(long, value_name = "DURATION", value_parser = lease)]
    lease: Option<Duration>,
    /// Print the payloads only, each with a line break behind it
    #[arg(long, conflicts_with_all = ["json", "command"])]
    payload: bool,
    /// Print the answer as JSON
    #[arg(long, conflicts_with = "command")]
    json: bool,
    #[command(flatten)]
    then: ThenArguments,
    /// How many commands run at once
    #[arg(long, default_value_t = 1, value_name = "NUMBER", requires = "command",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// End when the queue has nothing to lease, not on Ctrl-C only
    #[arg(long, requires = "command")]
    until_empty: bool,
    /// The command to run for each message, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What becomes of messages that are printed.
#[derive(Args)]
struct ThenArguments {
    /// Once they are printed, the messages are done
    #[arg(long, conflicts_with_all = ["release", "command"])]
    ack: bool,
    /// Once they are printed, the messages go back, uncounted
    #[arg(long, conflicts_with = "command")]
    release: bool,
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let span = duration::parse(text).map_err(|error| error.to_string())?;
    if span < least || span > most {
        return Err(format!("it is {} to {}", duration::show(least), duration::show(most)));
    }
    Ok(span)
}

fn wait(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, WAIT_MAX)
}

fn lease(text: &str) -> Result<Duration, String> {
    within(text, LEASE_MIN, LEASE_MAX)
}

impl Arguments {
    fn order(&self) -> LeaseOrder {
        let wait = self.wait.unwrap_or_default();
        LeaseOrder { max: self.max.unwrap_or(1), wait, lease: self.lease, payload_as: PayloadAs::Auto }
    }
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.client.client()?;
    if arguments.command.is_empty() {
        print::run(arguments, &client)
    } else {
        client.block_on(consume::run(arguments, &client))
    }
}
