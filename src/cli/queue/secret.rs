//! `posthaste queue secret`: a new secret for a queue.

use std::io::{self, Read as _};
use std::time::Duration;

use clap::Args;

use super::Named;
use crate::cli::output::{give, give_json};
use crate::cli::{Exit, Failure, say};
use crate::domain::format::duration;
use crate::domain::secret::SecretText;

pub(super) const EXAMPLES: &str = "\
Examples:
  posthaste queue secret orders
  posthaste queue secret orders --overlap 1h
  posthaste queue secret orders --stdin < secret

Without a secret one is made, of the kind that the queue has (HMAC-SHA256 where it has none), and printed: it is shown this once. Give \
it to the receiver: until the overlap ends each delivery carries a signature of the old secret as well. `posthaste queue set QUEUE \
secret=null` takes it away.";

/// More than any secret takes.
const STDIN_BYTES_MAX: u64 = 4 << 10;

/// Which queue, and which secret.
#[derive(Args)]
pub(in crate::cli) struct Secret {
    #[command(flatten)]
    named: Named,
    /// The new secret, whsec… or whsk…; others on this machine may see a command's arguments
    #[arg(long = "secret", value_name = "SECRET", conflicts_with = "stdin")]
    new: Option<String>,
    /// Read the new secret from stdin
    #[arg(long)]
    stdin: bool,
    /// How long the secret before it signs as well, like 24h; 0s: no longer. Without it, as set for the queue
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    overlap: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Secret) -> Result<(), Failure> {
    let Named { client, queue } = &arguments.named;
    let client = client.client()?;
    let secret = given(arguments)?;
    let rotated = client.block_on(client.rotate_secret(queue, secret.as_ref(), arguments.overlap))?;
    let until = rotated.previous_until.map(|until| format!(", and with the one before it until {until}"));
    say(&format!("{queue} signs with its new secret{}", until.unwrap_or_default()));
    if arguments.json {
        return give_json(&rotated.text);
    }
    if let Some(public_key) = &rotated.public_key {
        say(&format!("its receiver verifies with {public_key}"));
    }
    match &rotated.secret {
        Some(secret) => give(&format!("{}\n", secret.0.expose())),
        None => Ok(()),
    }
}

fn given(arguments: &Secret) -> Result<Option<SecretText>, Failure> {
    if !arguments.stdin {
        return Ok(arguments.new.as_deref().map(SecretText::from));
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("stdin cannot be read: {error}")))?;
    let text = SecretText::from(text);
    if text.expose().trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no secret on stdin"));
    }
    Ok(Some(text.expose().trim().into()))
}
