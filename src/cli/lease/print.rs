//! Messages that are leased to be looked at.

use std::fmt::Write as _;

use super::Arguments;
use crate::api::lease::{Ending, LeasedMessage, ReceiptFate};
use crate::cli::client::Client;
use crate::cli::output::{give_bytes, give_json, give_styled, tame};
use crate::cli::{Exit, Failure, letter, say};

/// Leases messages, prints them, and ends their leases if it was told to.
pub(super) fn run(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let queue = &arguments.queue;
    let leases = client.block_on(client.lease(queue, &arguments.order()))?;
    if leases.items.is_empty() {
        say(&format!("nothing came from {queue}"));
    }
    let printed = print(arguments, &leases.items, &leases.text);
    let ending = match (&printed, arguments.then.ack, arguments.then.release) {
        (Ok(()), true, _) => Ending::Ack,
        (_, _, true) | (Err(_), true, _) => Ending::Release,
        (_, false, false) => {
            if let Some(last) = leases.items.last() {
                say(&format!(
                    "leased until {}; what is not settled until then comes again",
                    last.lease_until
                ));
            }
            return printed;
        }
    };
    if !leases.items.is_empty() {
        let endings: Vec<(String, Ending)> =
            leases.items.iter().map(|item| (item.receipt.clone(), ending.clone())).collect();
        let results = client.block_on(client.settle(queue, &endings))?;
        let lost = results.results.iter().filter(|result| result.result == ReceiptFate::Lost).count();
        if lost > 0 {
            let words =
                format!("{lost} leases were over before they were settled: those messages come again");
            return Err(Failure::new(Exit::Failed, words));
        }
    }
    printed
}

fn print(arguments: &Arguments, items: &[LeasedMessage], text: &str) -> Result<(), Failure> {
    if arguments.json {
        return give_json(text);
    }
    for (index, item) in items.iter().enumerate() {
        if arguments.payload {
            let mut payload = letter::payload(&item.message)?;
            payload.push(b'\n');
            give_bytes(&payload)?;
        } else {
            let between = if index == 0 { "" } else { "\n" };
            give_styled(&format!("{between}{}", describe(item)))?;
        }
    }
    Ok(())
}

fn describe(item: &LeasedMessage) -> String {
    let headers = item.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let headers = headers.collect::<Vec<_>>().join(", ");
    let more = [
        ("attempt", Some(item.attempt.to_string())),
        ("receipt", Some(item.receipt.clone())),
        ("leased until", Some(item.lease_until.to_string())),
        ("headers", Some(headers).filter(|headers| !headers.is_empty())),
    ];
    let mut text = letter::describe_with(&item.message, more);
    match &item.message.payload {
        Some(payload) if !payload.is_empty() => {
            text.push('\n');
            for line in payload.lines() {
                writeln!(text, "{}", tame(line)).expect("writing to a String cannot fail");
            }
        }
        Some(_) => {}
        None => text.push_str("\n(the payload is no text: --payload or --json)\n"),
    }
    text
}
