//! Dead letters: listing them, showing one in full, counting them by what they have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_http::{Method, StatusCode};
use tokio::time::timeout;

use super::Call;
use super::messages::message;
use crate::api::code::Code;
use crate::api::dead::{DeadGroup, DeadGroups, DeadItem, DeadMessage, Filter, GroupBy};
use crate::api::nearest::hint;
use crate::domain::format::secret;
use crate::domain::id::MessageId;
use crate::domain::message::State;
use crate::domain::outcome::DeadReason;
use crate::domain::record::Record;
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::http::extract::{Parameter, once, parameters, queue_name, shown};
use crate::http::list::{self, Scope};
use crate::http::payload::Shown;
use crate::store::dead::{DeadFilter, DeadGrouping, DeadLetter};
use crate::store::error::StoreError;
use crate::store::stats::Found;
use crate::store::{QueueEntry, dead};

/// The longest that dead letters are counted: a store looks at each of them.
const COUNT_WITHIN: Duration = Duration::from_secs(20);

/// Which dead letters are meant, as the store is asked for them and as they are known by what is shown.
#[derive(Clone)]
pub(super) struct Wanted {
    /// What the store looks for.
    pub(super) filter: DeadFilter,
    /// A destination with `***` in it, which the store does not know: all that are shown so are meant.
    masked: Option<String>,
}

impl From<Filter> for Wanted {
    fn from(filter: Filter) -> Self {
        let Filter { reason, status, destination, from, to } = filter;
        let is_masked = destination.as_deref().is_some_and(secret::is_masked_destination);
        let (masked, destination) = if is_masked { (destination, None) } else { (None, destination) };
        Self { filter: DeadFilter { reason, status, destination, from, to }, masked }
    }
}

impl Wanted {
    /// Whether a letter that the store found is meant.
    pub(super) fn names(&self, letter: &DeadLetter) -> bool {
        self.masked.as_ref().is_none_or(|masked| {
            letter.destination.as_deref().is_some_and(|own| secret::destination(own) == masked.as_str())
        })
    }
}

/// Reads a filter from query parameters.
pub(super) fn filter(parameters: &[Parameter<'_>]) -> Result<Filter, Refusal> {
    let mut filter = Filter::default();
    for field in Filter::FIELDS {
        if let Some(text) = once(parameters, field)? {
            let refused = |why| {
                let detail = format!("{field}={:?}: {why}", shown(text));
                Refusal::new(Code::InvalidValue, detail).parameter(field)
            };
            filter.set(field, text).map_err(refused)?;
        }
    }
    if filter.is_contradictory() {
        return Err(Refusal::new(Code::ContradictoryOptions, "to is before from").parameter("to"));
    }
    Ok(filter)
}

/// Lists dead letters, the oldest death first.
pub(super) async fn list(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    let known = [&Filter::FIELDS[..], &["limit", "cursor"]].concat();
    let parameters = parameters(call.request.uri(), &known)?;
    let filter = filter(&parameters)?;
    let now = call.desk.state.gateway.clock.now();
    let meant = serde_json::to_string(&filter).expect("a filter is plain values");
    let scope = Scope::of(&["dead", &name, &meant]);
    let (limit, position) = (list::limit(&parameters)?, scope.position(&parameters, now)?);
    let (desk, wanted) = (&call.desk, Wanted::from(filter));
    let look = async |entry: &QueueEntry| {
        desk.store.list_dead(entry.queue_ref(), wanted.filter.clone(), position.clone(), limit).await
    };
    let (entry, page) = desk.on_queue(&name, look).await?;
    let cursor = page.cursor.map(|position| scope.cursor(&position, now));
    let letters = page.letters.into_iter().filter(|letter| wanted.names(letter));
    Ok(list::page(letters.map(|letter| item(&entry, letter)), cursor).await)
}

fn item(entry: &QueueEntry, letter: DeadLetter) -> DeadItem {
    DeadItem {
        id: letter.id,
        queue: entry.name.clone(),
        state: State::Dead,
        reason: letter.reason,
        detail: detail(letter.reason, letter.detail),
        published_at: letter.id.made_at(),
        died_at: letter.died_at,
        destination: letter.destination.map(|text| secret::destination(&text).into_owned()),
        status: letter.status,
        attempt_count: letter.attempts,
        bytes: letter.charged_bytes,
    }
}

/// Shows one dead letter with its payload.
pub(super) async fn show(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    parameters(call.request.uri(), &[])?;
    let desk = &call.desk;
    let entry = desk.queue_in_store(&name).await?;
    let text = call.segment("id");
    let Ok(id) = text.parse::<MessageId>() else { return Err(unknown(&entry, text)) };
    let looking = desk.state.begin_look_up(entry.settings.limits.payload_max).await?;
    let look = async |entry: &QueueEntry| desk.store.dead(entry.queue_ref(), id).await;
    let (entry, letter) = desk.on_queue(&name, look).await?;
    let Some(letter) = letter else { return Err(unknown(&entry, text)) };
    let payload = letter.record.as_ref().map(Record::payload);
    let message = whole(&entry, letter);
    let Some(payload) = payload else { return Ok(answer::json(StatusCode::OK, &message)) };
    let share = desk.state.take_answer(payload.len() as u64)?;
    drop(looking);
    let shown = Shown::look(payload, share).await;
    Ok(shown.answer(&message, call.request.method() == Method::HEAD))
}

/// No dead letter has that id.
pub(super) fn unknown(entry: &QueueEntry, text: &str) -> Refusal {
    let (text, name) = (shown(text), &entry.name);
    let detail = format!("there is no dead letter {text:?} in queue {name}");
    Refusal::new(Code::MessageUnknown, detail)
}

fn whole(entry: &QueueEntry, letter: DeadLetter) -> DeadMessage {
    let DeadLetter { id, reason, detail, died_at, status, destination, attempts, record, history, .. } =
        letter;
    let is_damaged = record.is_none();
    let found = Found {
        state: State::Dead,
        reason: Some(reason),
        detail: None,
        ended_at: Some(died_at),
        due_at: None,
        record,
        finished: None,
        history,
    };
    let mut message = message(entry, id, found);
    if let Some(destination) = destination {
        message.destination = Some(secret::destination(&destination).into_owned());
    }
    if is_damaged {
        message.attempt_count = attempts;
    }
    DeadMessage { detail: self::detail(reason, detail), status, message }
}

/// Why it died, where somebody said so or it can be no other.
fn detail(reason: DeadReason, said: Option<String>) -> Option<String> {
    let lost = || "nobody settled its last lease in time".to_owned();
    said.or_else(|| (reason == DeadReason::Poison).then(lost))
}

/// Counts dead letters by what they have in common.
pub(super) async fn groups(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    let parameters = parameters(call.request.uri(), &["by"])?;
    let by = group_by(once(&parameters, "by")?)?;
    let grouping = match by {
        GroupBy::Reason => DeadGrouping::Reason,
        GroupBy::Status => DeadGrouping::Status,
        GroupBy::Destination => DeadGrouping::Destination,
    };
    let desk = &call.desk;
    let count = async |entry: &QueueEntry| {
        let counting = desk.store.dead_groups(entry.queue_ref(), grouping);
        timeout(COUNT_WITHIN, counting).await.unwrap_or(Err(StoreError::Timeout(COUNT_WITHIN)))
    };
    let (_, groups) = desk.on_queue(&name, count).await?;
    Ok(answer::json(StatusCode::OK, &grouped(by, groups)))
}

fn group_by(text: Option<&str>) -> Result<GroupBy, Refusal> {
    let words = GroupBy::ALL.map(|(word, _)| word);
    let refused = |detail| Err(Refusal::new(Code::InvalidValue, detail).parameter("by"));
    let Some(text) = text else {
        return refused(format!("say what to count by: ?by={}", words.join(", ?by=")));
    };
    match GroupBy::ALL.iter().find(|(word, _)| *word == text) {
        Some((_, by)) => Ok(*by),
        None => {
            refused(format!("by={:?}: write one of {}{}", shown(text), words.join(", "), hint(text, words)))
        }
    }
}

/// The groups as they are shown: destinations that are shown alike are one group.
fn grouped(by: GroupBy, groups: Vec<dead::DeadGroup>) -> DeadGroups {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for dead::DeadGroup { key, count } in groups {
        let key = if by == GroupBy::Destination { secret::destination(&key).into_owned() } else { key };
        *counts.entry(key).or_default() += count;
    }
    let mut items: Vec<_> = counts
        .into_iter()
        .map(|(key, count)| DeadGroup { key: Some(key).filter(|key| !key.is_empty()), count })
        .collect();
    // Ties stay in the order of their keys.
    items.sort_by_key(|group| std::cmp::Reverse(group.count));
    let others = items.iter().skip(DeadGroups::ITEMS_MAX).map(|group| group.count).sum();
    items.truncate(DeadGroups::ITEMS_MAX);
    DeadGroups { by, items, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(key: &str, count: u64) -> dead::DeadGroup {
        dead::DeadGroup { key: key.to_owned(), count }
    }

    #[test]
    fn destinations_that_are_shown_alike_are_one_group() {
        let found = vec![
            group("https://b.example/?token=1", 3),
            group("https://a.example/", 4),
            group("https://b.example/?token=2", 2),
            group("", 4),
        ];
        let shown = grouped(GroupBy::Destination, found);
        let items: Vec<_> = shown.items.iter().map(|group| (group.key.as_deref(), group.count)).collect();
        assert_eq!(
            items,
            [(Some("https://b.example/?token=***"), 5), (None, 4), (Some("https://a.example/"), 4)]
        );
        assert_eq!(shown.others, 0);
    }

    #[test]
    fn only_so_many_groups_are_shown_and_the_rest_is_counted() {
        let found = (0..=DeadGroups::ITEMS_MAX + 1).map(|number| group(&format!("{number}"), 2)).collect();
        let shown = grouped(GroupBy::Status, found);
        assert_eq!((shown.items.len(), shown.others), (DeadGroups::ITEMS_MAX, 4));
    }
}
