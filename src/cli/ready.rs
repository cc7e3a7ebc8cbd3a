//! `posthaste ready`: for health checks.

use std::time::Duration;

use clap::Args;

use crate::cli::Failure;
use crate::cli::client::{GATEWAY, GatewayArguments};
use crate::cli::output::{give, give_json, tame};
use crate::domain::format::duration;

/// Which gateway to ask, and for what.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: GatewayArguments,
    /// Also not ready while a queue is stalled
    #[arg(long)]
    work: bool,
    /// How long the gateway may take; one that takes longer counts as unreachable: exit code 4
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = duration::parse, help_heading = GATEWAY)]
    timeout: Duration,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.gateway.client(arguments.timeout)?;
    let ready = client.block_on(client.ready(arguments.work))?;
    if arguments.json {
        give_json(&ready.text)?;
    } else if ready.ready {
        give("ready\n")?;
    }
    if ready.ready {
        return Ok(());
    }
    let reasons = ready.reasons.iter().map(|reason| format!("{}: {}", reason.code, tame(&reason.detail)));
    Err(Failure::failed(format!("not ready: {}", reasons.collect::<Vec<_>>().join("; "))))
}
