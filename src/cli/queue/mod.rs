//! `posthaste queue`: looking at queues and changing them.

mod secret;
mod settings;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::Code;
use crate::cli::client::{Answer, Client, ClientArguments, ClientError, Queue};
use crate::cli::listing::ListArguments;
use crate::cli::output::{give, give_json, give_styled};
use crate::cli::question::QuestionArguments;
use crate::cli::table::{Table, pairs};
use crate::cli::{Failure, say};
use crate::domain::queue::QueueName;

use secret::Secret;
use settings::SettingArguments;

const SET_EXAMPLES: &str = "\
Examples:
  posthaste queue set orders processor=http destination=https://shop.example/orders
  posthaste queue set orders retry.schedule=10s,1m,10m limits.payload_max=2MiB
  posthaste queue set orders delivery.headers.X-Shop=7 ttl=null
  posthaste queue set orders --file orders.toml --replace

A key is written as in the configuration file's [queues.NAME], whose manual is config/default.toml. A list is separated by commas, or \
written as JSON; `null` unsets what may be absent. The queue is made when there is none. What is not named stays as it is, or with \
--replace becomes what it is in a new queue.";

/// What to do with queues.
#[derive(Subcommand)]
pub(super) enum Command {
    /// List the queues
    List(List),
    /// Show a queue with its settings
    Show(Show),
    /// Make a queue, or change settings of one
    #[command(after_long_help = SET_EXAMPLES)]
    Set(Set),
    /// Give a queue a new secret to sign with; the old one goes on for a while
    #[command(after_long_help = secret::EXAMPLES)]
    Secret(Secret),
    /// Stop processing a queue's messages; it goes on accepting
    Pause(Named),
    /// Go on processing, also where the queue stopped by itself
    Resume(Named),
    /// Throw away what waits: pending and scheduled messages, not the leased and the dead
    Purge(Purge),
    /// Delete a queue
    Delete(Delete),
}

/// Which queues, and how to show them.
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    client: ClientArguments,
    #[command(flatten)]
    list: ListArguments,
}

/// Which queue.
#[derive(Args)]
pub(super) struct Named {
    #[command(flatten)]
    client: ClientArguments,
    /// The queue's name
    queue: QueueName,
}

/// Which queue, and how to show it.
#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    named: Named,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which queue, and what to set.
#[derive(Args)]
pub(super) struct Set {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    settings: SettingArguments,
    /// Set everything that is not named to what it is in a new queue
    #[arg(long)]
    replace: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which queue to empty.
#[derive(Args)]
pub(super) struct Purge {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    question: QuestionArguments,
}

/// Which queue to delete.
#[derive(Args)]
pub(super) struct Delete {
    #[command(flatten)]
    named: Named,
    /// Also when it has messages, which are deleted with it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    question: QuestionArguments,
}

/// Runs it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Show(Show { named, json }) => {
            let client = named.client.client()?;
            show(&client.block_on(client.queue(&named.queue))?, *json)
        }
        Command::Set(arguments) => set(arguments),
        Command::Secret(arguments) => secret::run(arguments),
        Command::Pause(Named { client, queue }) => {
            let client = client.client()?;
            client.block_on(client.pause(queue))?;
            say(&format!("{queue} is paused"));
            Ok(())
        }
        Command::Resume(Named { client, queue }) => {
            let client = client.client()?;
            client.block_on(client.resume(queue))?;
            say(&format!("{queue} goes on"));
            Ok(())
        }
        Command::Purge(Purge { named: Named { client, queue }, question }) => {
            let client = client.client()?;
            question.confirm(&format!("throw away all that waits in {queue}?"))?;
            let purged = client.block_on(client.purge(queue))?;
            give(&format!("{}\n", purged.purged))
        }
        Command::Delete(Delete { named: Named { client, queue }, force, question }) => {
            let client = client.client()?;
            let with = if *force { " with all its messages" } else { "" };
            question.confirm(&format!("delete {queue}{with}?"))?;
            client.block_on(client.delete_queue(queue, *force))?;
            say(&format!("{queue} is deleted"));
            Ok(())
        }
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let client = arguments.client.client()?;
    let page = arguments.list.gather(&client, &async |limit, cursor| client.queues(limit, cursor).await)?;
    if arguments.list.json {
        return page.give_json();
    }
    let mut table = Table::new(&["QUEUE", "PROCESSOR", "SOURCE", "STATE", "DESTINATION"]);
    for queue in &page.items {
        let text = |key: &str| queue.settings.get(key).and_then(Value::as_str).unwrap_or_default();
        table.row(vec![
            queue.name.as_str().into(),
            text("processor").into(),
            queue.source.as_str().into(),
            state(queue).into(),
            text("destination").into(),
        ]);
    }
    give_styled(&table.render())?;
    page.say_more();
    Ok(())
}

fn state(queue: &Queue) -> String {
    match (queue.paused, &queue.parked) {
        (true, _) => "paused".to_owned(),
        (false, Some(parked)) => parked.clone(),
        (false, None) => "open".to_owned(),
    }
}

fn set(arguments: &Set) -> Result<(), Failure> {
    let settings = arguments.settings.read()?;
    let Named { client, queue } = &arguments.named;
    let client = client.client()?;
    let answer = client.block_on(put_or_patch(&client, queue, &settings, arguments.replace))?;
    show(&answer, arguments.json)
}

async fn put_or_patch(
    client: &Client,
    queue: &QueueName,
    settings: &Value,
    replace: bool,
) -> Result<Answer<Queue>, ClientError> {
    if !replace {
        match client.patch_queue(queue, settings).await {
            Err(ClientError::Refused(refusal))
                if refusal.problem.known_code() == Some(Code::QueueUnknown) => {}
            ended => return ended,
        }
    }
    client.put_queue(queue, settings).await
}

fn show(queue: &Answer<Queue>, json: bool) -> Result<(), Failure> {
    for warning in &queue.warnings {
        say(&format!("{}: {}", warning.code, warning.detail));
    }
    if json {
        return give_json(&queue.text);
    }
    let mut lines = vec![
        ("name".to_owned(), queue.name.to_string()),
        ("source".to_owned(), queue.source.clone()),
        ("state".to_owned(), state(queue)),
    ];
    lines.extend(settings::flat(&Value::Object(queue.settings.clone())));
    let lines: Vec<(&str, String)> = lines.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    give_styled(&pairs(&lines))
}
