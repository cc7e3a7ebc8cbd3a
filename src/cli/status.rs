//! `posthaste status`: what is where, once or again and again.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;

use crate::api::Status;
use crate::api::status::{LaneStatus, QueueStatus};
use crate::cli::client::{Answer, Client, ClientArguments};
use crate::cli::output::{BAD, GOOD, ODD, STRONG, give, give_json, give_styled, styled, tame};
use crate::cli::table::{Cell, Table};
use crate::cli::{Failure, letter, say};
use crate::domain::format::duration;
use crate::domain::queue::QueueName;

const EXAMPLES: &str = "\
Examples:
  posthaste status
  posthaste status --watch --queue orders
  posthaste status --json | jq '.totals.pending'

IN/S and OUT/S are messages accepted and delivered a second, over the last minute. OLDEST is how long the message at the head of its \
queue has been waiting. `--watch --json` prints one JSON document a line.";

/// The home position, and everything below it cleared.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Lanes shown to a person: a screen of them.
const LANES_MAX: usize = 20;

/// The shortest pause: more often, nobody can read it.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// What to show, and how often.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    /// Only this queue; may be given several times
    #[arg(long, short, value_name = "QUEUE")]
    queue: Vec<QueueName>,
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// How long to wait before it is shown again
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = duration::parse)]
    every: Duration,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.client.client()?;
    show(arguments, &ask(&client, &arguments.queue)?, "")?;
    if !arguments.watch {
        return Ok(());
    }
    loop {
        std::thread::sleep(arguments.every.max(EVERY_MIN));
        match ask(&client, &arguments.queue) {
            Ok(status) => {
                let between = if std::io::stdout().is_terminal() { CLEAR } else { "\n" };
                show(arguments, &status, between)?;
            }
            // It was there: it may come back, and then it is shown again.
            Err(failure) => say(&failure.to_string()),
        }
    }
}

fn ask(client: &Client, queues: &[QueueName]) -> Result<Answer<Status>, Failure> {
    let names: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
    Ok(client.block_on(client.status(&names))?)
}

fn show(arguments: &Arguments, status: &Answer<Status>, between: &str) -> Result<(), Failure> {
    if arguments.json {
        return give_json(&status.text);
    }
    give(between)?;
    give_styled(&describe(status))
}

/// The status for a person.
fn describe(status: &Status) -> String {
    let mut text = head(status);
    let mut table = Table::new(&[
        "QUEUE",
        "PROCESSOR",
        "PENDING",
        "SCHEDULED",
        "LEASED",
        "DEAD",
        "ACCEPTED",
        "DELIVERED",
        "IN/S",
        "OUT/S",
        "OLDEST",
        "STATE",
    ]);
    for queue in &status.queues {
        table.row(row(queue));
    }
    if status.queues.len() > 1 {
        let (counts, history) = (status.totals.counts, status.totals.history);
        let numbers = [
            counts.pending,
            counts.scheduled,
            counts.leased,
            counts.dead,
            history.accepted,
            history.delivered,
        ];
        let mut cells = vec![Cell::text("total").styled(STRONG), "".into()];
        cells.extend(numbers.into_iter().map(Cell::number));
        cells.extend([Cell::number(Some("")), Cell::number(Some("")), Cell::number(Some("")), "".into()]);
        table.row(cells);
    }
    text.push_str(&table.render());
    for queue in &status.queues {
        if let Some(stalled) = &queue.stalled {
            line(&mut text, ODD, &format!("{}: {}: {}", queue.name, stalled.code, stalled.detail));
        }
    }
    for actor in status.actors.iter().filter(|actor| actor.state != "running") {
        line(&mut text, ODD, &format!("the actor {} is {}", actor.name, actor.state));
    }
    text.push_str(&lanes(status));
    text
}

/// The lanes that are not as they should be, or have something under way.
fn lanes(status: &Status) -> String {
    let is_shown = |lane: &&LaneStatus| lane.breaker != "closed" || lane.in_flight > 0 || lane.waiting > 0;
    let mut shown: Vec<_> = status.lanes.iter().filter(is_shown).collect();
    if shown.is_empty() {
        return String::new();
    }
    let many = shown.len().saturating_sub(LANES_MAX);
    shown.sort_by_key(|lane| (lane.breaker == "closed", std::cmp::Reverse(lane.waiting)));
    shown.truncate(LANES_MAX);
    let mut table = Table::new(&["LANE", "IN FLIGHT", "LIMIT", "RATE", "WAITING", "BREAKER"]);
    for lane in shown {
        let breaker = match lane.open_until {
            Some(until) => Cell::text(format!("{} until {until}", lane.breaker)),
            None => Cell::text(&lane.breaker),
        };
        table.row(vec![
            Cell::text(&lane.key),
            Cell::number(Some(lane.in_flight)),
            Cell::number(Some(lane.limit)),
            Cell::number(Some(lane.rate.as_deref().unwrap_or("-"))),
            Cell::number(Some(lane.waiting)),
            breaker.styled(if lane.breaker == "closed" { GOOD } else { BAD }),
        ]);
    }
    let mut text = format!("\n{}", table.render());
    if many > 0 {
        line(&mut text, ODD, &format!("and {many} more lanes: --json shows them"));
    }
    text
}

/// Which gateway this is, what its store promises, and what is wrong with either.
fn head(status: &Status) -> String {
    let mut text = String::new();
    let up = duration::show(Duration::from_secs(status.uptime_s));
    let others = match status.instances.len() {
        0 | 1 => String::new(),
        several => format!(", one of {several} on this store"),
    };
    writeln!(text, "posthaste {}, up {up}{others}", tame(&status.version))
        .expect("writing to a String cannot fail");
    let store = &status.store;
    let latency = store.latency_ms.map(|ms| format!(", {ms:.1} ms a write")).unwrap_or_default();
    let durability = &store.durability;
    let (style, words) = if !store.reachable {
        (BAD, "cannot be reached; the counts are the last ones known".to_owned())
    } else if durability.now == durability.configured {
        (GOOD, format!("{}{latency}", durability.now))
    } else {
        (BAD, format!("{}, not {} as configured{latency}", durability.now, durability.configured))
    };
    writeln!(text, "store {}: {}", tame(&store.kind), styled(style, &tame(&words))).expect("as above");
    if status.consistent == Some(false) {
        line(&mut text, BAD, "the counts do not add up: tell us, with the JSON of this");
    }
    for reason in &durability.reasons {
        line(&mut text, ODD, reason);
    }
    for warning in &store.warnings {
        line(&mut text, ODD, &format!("{}: {}", warning.code, warning.detail));
    }
    text.push('\n');
    text
}

fn row(queue: &QueueStatus) -> Vec<Cell> {
    let (counts, history, rates) = (queue.counts, queue.history, queue.rates);
    let mut cells = vec![Cell::text(queue.name.as_str()), Cell::text(&queue.processor)];
    let dead =
        if counts.dead > Some(0) { Cell::number(counts.dead).styled(ODD) } else { Cell::number(counts.dead) };
    cells.extend([counts.pending, counts.scheduled, counts.leased].map(Cell::number));
    cells.push(dead);
    cells.extend([history.accepted, history.delivered].map(Cell::number));
    let rate = |rate: Option<f64>| Cell::number(rate.map(|rate| format!("{rate:.1}")));
    cells.extend([rate(rates.accepted_per_s_1m), rate(rates.delivered_per_s_1m)]);
    cells.push(Cell::number(queue.oldest_pending_ms.map(age)));
    cells.push(match (&queue.stalled, queue.paused, &queue.parked) {
        (_, true, _) => Cell::text("paused").styled(ODD),
        (Some(stalled), ..) => Cell::text(&stalled.code).styled(BAD),
        (None, _, Some(parked)) => Cell::text(letter::word(parked)).styled(BAD),
        (None, false, None) => Cell::text("ok").styled(GOOD),
    });
    cells
}

/// An age that can be read at a glance: milliseconds matter below ten seconds only.
fn age(ms: u64) -> String {
    duration::show(Duration::from_millis(if ms < 10_000 { ms } else { ms / 1_000 * 1_000 }))
}

fn line(text: &mut String, style: anstyle::Style, words: &str) {
    text.push_str(&styled(style, &tame(words)));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_read_at_a_glance() {
        assert_eq!((age(17).as_str(), age(9_999).as_str()), ("17ms", "9s999ms"));
        assert_eq!((age(10_001).as_str(), age(3_600_250).as_str()), ("10s", "1h"));
    }
}
