//! `posthaste message`: where one message is, and taking it back.

use clap::{Args, Subcommand};

use crate::cli::client::ClientArguments;
use crate::cli::output::{give_json, give_styled};
use crate::cli::{Failure, letter, say};
use crate::domain::id::MessageId;
use crate::domain::queue::QueueName;

/// What to do with a message.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Show where a message is, and its last 20 attempts
    Show(Show),
    /// Cancel a message that is not being processed
    Cancel(Cancel),
}

/// Which one.
#[derive(Args)]
struct Named {
    #[command(flatten)]
    client: ClientArguments,
    /// The message's queue
    queue: QueueName,
    /// The message's id
    id: MessageId,
}

/// How to show it.
#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    named: Named,
    /// Print its payload, byte for byte, and nothing else; with --json as a field
    #[arg(long)]
    payload: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which one.
#[derive(Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    named: Named,
}

/// Runs it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show(arguments) => show(arguments),
        Command::Cancel(Cancel { named }) => {
            let client = named.client.client()?;
            client.block_on(client.cancel(&named.queue, named.id))?;
            say(&format!("{} is cancelled", named.id));
            Ok(())
        }
    }
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let Named { client, queue, id } = &arguments.named;
    let client = client.client()?;
    let message = client.block_on(client.message(queue, *id, arguments.payload))?;
    if arguments.json {
        give_json(&message.text)
    } else if arguments.payload {
        letter::give_payload(&message)
    } else {
        give_styled(&letter::describe(&message))
    }
}
