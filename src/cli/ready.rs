//! `posthaste ready`: for health checks.

use std::time::Duration;

use clap::Args;

use crate::cli::client::{Client, ClientArguments};
use crate::cli::{Exit, Failure, give};
use crate::domain::format::duration;

/// Which gateway to ask, and for what.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    /// Also not ready while a queue is stalled
    #[arg(long)]
    work: bool,
    /// How long the gateway may take; one that takes longer counts as unreachable: exit code 4
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = duration::parse)]
    timeout: Duration,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client, arguments.timeout)?;
    let ready = client.block_on(client.ready(arguments.work))?;
    if arguments.json {
        let text = serde_json::to_string(&ready).map_err(|error| Failure::new(Exit::Failed, error))?;
        give(&format!("{text}\n"));
    } else if ready.ready {
        give("ready\n");
    }
    if ready.ready {
        return Ok(());
    }
    let reasons = ready.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.detail));
    Err(Failure::new(Exit::Failed, format!("not ready: {}", reasons.collect::<Vec<_>>().join("; "))))
}
