//! `posthaste dead`: what could not be delivered.

use clap::{Args, Subcommand};

use crate::api::Code;
use crate::api::dead::{Filter, GroupBy, ReplayRequest, ReplaySelection, Stopped};
use crate::cli::client::{Client, ClientArguments, ClientError};
use crate::cli::listing::ListArguments;
use crate::cli::output::{give, give_json, give_styled, tame};
use crate::cli::question::QuestionArguments;
use crate::cli::table::{Cell, Table};
use crate::cli::{Exit, Failure, letter, progress, say};
use crate::domain::id::MessageId;
use crate::domain::queue::QueueName;

const REPLAY_EXAMPLES: &str = "\
Examples:
  posthaste dead replay orders --status 503 --dry-run
  posthaste dead replay orders --reason exhausted --from 2026-11-22T13:00:00Z
  posthaste dead replay orders 0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400

What is replayed is pending again; its attempts and its TTL start anew. It prints how many went back.";

/// What to do with dead letters.
#[derive(Subcommand)]
pub(super) enum Command {
    /// List dead letters, the oldest death first
    List(List),
    /// Show a dead letter with its attempts
    Show(Show),
    /// Count dead letters by what they have in common
    Groups(Groups),
    /// Put dead letters back into their queue
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(Replay),
    /// Throw dead letters away for good
    Discard(Discard),
}

/// Whose dead letters.
#[derive(Args)]
struct Named {
    #[command(flatten)]
    client: ClientArguments,
    /// The queue
    queue: QueueName,
}

/// Which dead letters: all that every option names.
#[derive(Args)]
struct FilterArguments {
    /// Died of this
    #[arg(long, value_name = "exhausted|rejected|expired|poison|undeliverable|damaged")]
    reason: Option<String>,
    /// The last attempt was answered with this HTTP status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// The last attempt went there
    #[arg(long, value_name = "URL")]
    destination: Option<String>,
    /// Died at that moment or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Died before that moment
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl FilterArguments {
    fn fields(&self) -> [(&'static str, Option<&String>); 5] {
        let Self { reason, status, destination, from, to } = self;
        let values = [reason, status, destination, from, to].map(Option::as_ref);
        std::array::from_fn(|index| (Filter::FIELDS[index], values[index]))
    }

    fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.is_none())
    }

    fn filter(&self) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        for (name, value) in self.fields() {
            if let Some(value) = value {
                let set = filter.set(name, value);
                set.map_err(|why| Failure::new(Exit::Usage, format!("--{name} {value}: {why}")))?;
            }
        }
        if filter.is_contradictory() {
            return Err(Failure::new(Exit::Usage, "--to is before --from"));
        }
        Ok(filter)
    }
}

/// Which dead letters of those that a filter names, or which ids.
#[derive(Args)]
struct Selected {
    /// Messages
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    #[command(flatten)]
    filter: FilterArguments,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Selected {
    fn check(&self) -> Result<(), Failure> {
        let words = match (self.ids.is_empty(), self.filter.is_empty(), self.all) {
            (true, true, false) => {
                "which ones? Name ids, or say what they have in common (see --help), or --all"
            }
            (false, false, _) => "either ids or what they have in common, not both",
            (true, false, true) => "either --all or what they have in common, not both",
            _ => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, words))
    }
}

/// Which, and how to show them.
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    filter: FilterArguments,
    #[command(flatten)]
    page: ListArguments,
}

/// Which one, and how to show it.
#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    named: Named,
    /// The message's id
    id: MessageId,
    /// Print its payload, byte for byte, and nothing else
    #[arg(long, conflicts_with = "json")]
    payload: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Counted by what.
#[derive(Args)]
pub(super) struct Groups {
    #[command(flatten)]
    named: Named,
    /// What they have in common
    #[arg(long, default_value = "reason", value_name = "reason|status|destination", value_parser = group_by)]
    by: GroupBy,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    let found = GroupBy::ALL.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, by)| by).ok_or_else(|| "it is reason, status or destination".to_owned())
}

/// Which ones to replay.
#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    selected: Selected,
    /// Only print how many it would be
    #[arg(long)]
    dry_run: bool,
}

/// Which ones to discard.
#[derive(Args)]
pub(super) struct Discard {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    selected: Selected,
    #[command(flatten)]
    question: QuestionArguments,
}

/// Runs it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Show(arguments) => show(arguments),
        Command::Groups(arguments) => groups(arguments),
        Command::Replay(arguments) => replay(arguments),
        Command::Discard(arguments) => discard(arguments),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let Named { client, queue } = &arguments.named;
    let filter = arguments.filter.filter()?;
    let client = client.client()?;
    let ask = async |limit, cursor: Option<&str>| client.dead(queue, &filter, limit, cursor).await;
    let page = arguments.page.gather(&client, &ask)?;
    if arguments.page.json {
        return page.give_json();
    }
    let mut table =
        Table::new(&["ID", "DIED", "REASON", "STATUS", "ATTEMPTS", "BYTES", "DESTINATION", "DETAIL"]);
    for item in &page.items {
        table.row(vec![
            item.id.to_string().into(),
            item.died_at.to_string().into(),
            item.reason.as_str().into(),
            Cell::number(item.status),
            Cell::number(Some(item.attempt_count)),
            Cell::number(Some(item.bytes)),
            item.destination.as_deref().unwrap_or_default().into(),
            item.detail.as_deref().unwrap_or_default().into(),
        ]);
    }
    give_styled(&table.render())?;
    page.say_more();
    Ok(())
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let Named { client, queue } = &arguments.named;
    let client = client.client()?;
    let dead = client.block_on(client.dead_message(queue, arguments.id))?;
    if arguments.json {
        return give_json(&dead.text);
    }
    if arguments.payload {
        return letter::give_payload(&dead.message);
    }
    let more = [("detail", dead.detail.clone()), ("status", dead.status.map(|status| status.to_string()))];
    give_styled(&letter::describe_with(&dead.message, more))
}

fn groups(arguments: &Groups) -> Result<(), Failure> {
    let Named { client, queue } = &arguments.named;
    let client = client.client()?;
    let groups = client.block_on(client.dead_groups(queue, arguments.by))?;
    if arguments.json {
        return give_json(&groups.text);
    }
    let title = match arguments.by {
        GroupBy::Reason => "REASON",
        GroupBy::Status => "STATUS",
        GroupBy::Destination => "DESTINATION",
    };
    let mut table = Table::new(&["DEAD", title]);
    for group in &groups.items {
        table.row(vec![Cell::number(Some(group.count)), group.key.as_deref().unwrap_or("-").into()]);
    }
    if groups.others > 0 {
        table.row(vec![Cell::number(Some(groups.others)), "(others)".into()]);
    }
    give_styled(&table.render())
}

/// Whether the next request goes on where this one ended by itself.
fn may_go_on(stopped: &Stopped) -> bool {
    ["too_many", "too_long"].contains(&stopped.code.as_str())
}

/// What is left undone, and why.
fn undone(stopped: &Stopped, done: &str) -> Failure {
    Failure::failed(format!("{}\n  code: {}\n  done: {done}", tame(&stopped.detail), tame(&stopped.code)))
}

fn replay(arguments: &Replay) -> Result<(), Failure> {
    arguments.selected.check()?;
    let Named { client, queue } = &arguments.named;
    let filter = arguments.selected.filter.filter()?;
    let client = client.client()?;
    let ids = &arguments.selected.ids;
    let selections: Vec<ReplaySelection> = if ids.is_empty() {
        vec![ReplaySelection::Filter(filter)]
    } else {
        ids.chunks(ReplayRequest::MESSAGES_MAX).map(|ids| ReplaySelection::Ids(ids.to_vec())).collect()
    };
    let mut done = Sum::default();
    let mut ended = Ok(());
    for selection in &selections {
        ended = replay_selection(&client, queue, selection, arguments.dry_run, &mut done);
        if ended.is_err() {
            break;
        }
    }
    if arguments.dry_run {
        ended?;
        return give(&format!("{}\n", done.matched));
    }
    give_count(done.replayed, &ended)?;
    if done.damaged > 0 {
        say(&format!("{} cannot be read and stay", done.damaged));
    }
    if done.refused > 0 {
        say(&format!("{} stay, for where they would go may not be reached", done.refused));
    }
    ended
}

/// Gives how many it were; nothing where it failed before there were any.
fn give_count(count: u64, ended: &Result<(), Failure>) -> Result<(), Failure> {
    if count == 0 && ended.is_err() { Ok(()) } else { give(&format!("{count}\n")) }
}

#[derive(Default)]
struct Sum {
    matched: u64,
    replayed: u64,
    damaged: u64,
    refused: u64,
}

/// Replays until all that was meant at first went back: what dies again meanwhile is younger, and is not replayed twice.
fn replay_selection(
    client: &Client,
    queue: &QueueName,
    selection: &ReplaySelection,
    dry_run: bool,
    done: &mut Sum,
) -> Result<(), Failure> {
    let first = client.block_on(client.replay(queue, selection, true))?;
    done.matched += first.matched;
    if dry_run {
        return Ok(());
    }
    let bar = progress::bar(Some(first.matched));
    let mut replayed = 0;
    loop {
        let answer = client.block_on(client.replay(queue, selection, false));
        let answer = answer.inspect_err(|_| bar.finish_and_clear())?;
        replayed += answer.replayed;
        done.replayed += answer.replayed;
        bar.set_position(replayed);
        let is_done = replayed + answer.damaged + answer.refused >= first.matched;
        match &answer.stopped {
            Some(stopped) if !is_done && answer.replayed > 0 && may_go_on(stopped) => {}
            Some(stopped) if !is_done => {
                bar.finish_and_clear();
                return Err(undone(stopped, &format!("{replayed} of {} are replayed", first.matched)));
            }
            _ => {
                done.damaged += answer.damaged;
                done.refused += answer.refused;
                bar.finish_and_clear();
                return Ok(());
            }
        }
    }
}

fn discard(arguments: &Discard) -> Result<(), Failure> {
    arguments.selected.check()?;
    let Named { client, queue } = &arguments.named;
    let filter = arguments.selected.filter.filter()?;
    let client = client.client()?;
    let ids = &arguments.selected.ids;
    let which = match (ids.len(), arguments.selected.all) {
        (0, true) => "all dead letters".to_owned(),
        (0, false) => "these dead letters".to_owned(),
        (count, _) => format!("{count} dead letters"),
    };
    arguments.question.confirm(&format!("throw away {which} of {queue} for good?"))?;
    let mut discarded = 0;
    let ended = if ids.is_empty() {
        discard_filtered(&client, queue, &filter, &mut discarded)
    } else {
        discard_ids(&client, queue, ids, &mut discarded)
    };
    give_count(discarded, &ended)?;
    ended
}

fn discard_filtered(
    client: &Client,
    queue: &QueueName,
    filter: &Filter,
    discarded: &mut u64,
) -> Result<(), Failure> {
    let bar = progress::bar(None);
    loop {
        let answer = client.block_on(client.discard(queue, filter));
        let answer = answer.inspect_err(|_| bar.finish_and_clear())?;
        *discarded += answer.discarded;
        bar.set_message(format!("{discarded} discarded"));
        bar.tick();
        match &answer.stopped {
            Some(stopped) if answer.discarded > 0 && may_go_on(stopped) => {}
            stopped => {
                bar.finish_and_clear();
                let failure = |stopped| Err(undone(stopped, &format!("{discarded} are discarded")));
                return stopped.as_ref().map_or(Ok(()), failure);
            }
        }
    }
}

/// One by one; those that are not there are named, and the others go.
fn discard_ids(
    client: &Client,
    queue: &QueueName,
    ids: &[MessageId],
    discarded: &mut u64,
) -> Result<(), Failure> {
    let mut missing = None;
    for id in ids {
        match client.block_on(client.discard_one(queue, *id)) {
            Ok(()) => *discarded += 1,
            Err(ClientError::Refused(refusal))
                if refusal.problem.known_code() == Some(Code::MessageUnknown) =>
            {
                missing = Some(ClientError::Refused(refusal));
            }
            Err(error) => return Err(error.into()),
        }
    }
    missing.map_or(Ok(()), |error| Err(error.into()))
}
