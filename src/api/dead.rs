//! Dead letters: listed, in full, grouped; which ones are meant; what a replay or a discard did.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::api::message::Message;
use crate::api::nearest::hint;
use crate::api::problem::Problem;
use crate::domain::destination::Destination;
use crate::domain::id::MessageId;
use crate::domain::message::State;
use crate::domain::outcome::DeadReason;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;

/// One dead letter in a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeadItem {
    /// Which message.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// `dead`.
    pub state: State,
    /// Why it died.
    pub reason: DeadReason,
    /// The same in the words of who decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// When it died.
    pub died_at: Timestamp,
    /// Where its last attempt went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The HTTP status of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Attempts counted, lost leases included.
    pub attempt_count: u8,
    /// Bytes of its payload and headers.
    pub bytes: u64,
}

/// One dead letter in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeadMessage {
    /// In the words of who decided that it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The HTTP status of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The message with its payload, unless its record is damaged.
    #[serde(flatten)]
    pub message: Message,
}

/// What dead letters are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Why they died.
    Reason,
    /// The HTTP status of the last attempt.
    Status,
    /// Where the last attempt went to.
    Destination,
}

impl GroupBy {
    /// Every one with its word.
    pub const ALL: [(&str, Self); 3] =
        [("reason", Self::Reason), ("status", Self::Status), ("destination", Self::Destination)];
}

/// Counts of dead letters: the answer of `GET …/dead/groups`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadGroups {
    /// What they are counted by.
    pub by: GroupBy,
    /// The groups, most numerous first; at most [`DeadGroups::ITEMS_MAX`].
    pub items: Vec<DeadGroup>,
    /// Dead letters in the groups beyond those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

impl DeadGroups {
    /// The most groups that are shown.
    pub const ITEMS_MAX: usize = 1_000;
}

/// One group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadGroup {
    /// The reason, the status or the destination; absent for those that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many.
    pub count: u64,
}

/// What a replay did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replay {
    /// Dead letters that were meant and there.
    pub matched: u64,
    /// Of them, back in the queue.
    pub replayed: u64,
    /// Of them, those whose record cannot be read: they stay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged: u64,
    /// Of them, those whose destination the egress guard refuses: they stay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// Why not all were replayed; absent when they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// What a discard did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Discard {
    /// Dead letters that are gone for good.
    pub discarded: u64,
    /// Why it ended before all were gone; absent when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// Why something ended before it was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// A stable word: `queue_full`, `too_many`, `too_long`, `connection_ended`, or the code of an error.
    pub code: String,
    /// What it is about, and what to do.
    pub detail: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Which dead letters are meant: all that every given field names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Filter {
    /// Died of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// The last attempt was answered with this HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The last attempt went there: a URL, as it is shown or as it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Died at that moment or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Died before that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

impl Filter {
    /// The names of its fields.
    pub const FIELDS: [&str; 5] = ["reason", "status", "destination", "from", "to"];

    /// Sets a field to what `text` says; a name that is none of its fields' is ignored.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn set(&mut self, field: &str, text: &str) -> Result<(), String> {
        match field {
            "reason" => {
                let known = DeadReason::ALL.map(DeadReason::as_str);
                let reason = DeadReason::ALL.into_iter().find(|reason| reason.as_str() == text);
                self.reason = Some(
                    reason
                        .ok_or_else(|| format!("it is one of {}{}", known.join(", "), hint(text, known)))?,
                );
            }
            "status" => {
                let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
                let status = text.parse().ok().filter(|status| is_plain && (100..=599).contains(status));
                self.status = Some(status.ok_or("it is an HTTP status, 100 to 599")?);
            }
            "destination" => {
                let destination: Destination =
                    text.parse().map_err(|error| format!("it is a URL: {error}"))?;
                self.destination = Some(destination.to_string());
            }
            "from" => self.from = Some(moment(text)?),
            "to" => self.to = Some(moment(text)?),
            _ => {}
        }
        Ok(())
    }

    /// Whether nothing can be meant, because `from` is after `to`.
    #[must_use]
    pub fn is_contradictory(&self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| from > to)
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| {
        // Unescaped, the plus of an offset arrives as a blank.
        let is_unescaped = text.contains(' ') && Timestamp::parse(&text.replace(' ', "+")).is_ok();
        let hint = if is_unescaped { " (a + in a query is written %2B)" } else { "" };
        format!("it is a time such as 2026-11-22T13:25:00Z: {error}{hint}")
    })
}

/// What is to be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplaySelection {
    /// These, each once, in the order given, as far as they are there.
    Ids(Vec<MessageId>),
    /// All that the filter names, the oldest death first.
    Filter(Filter),
}

/// The body of `POST …/dead/replay`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayRequest {
    /// Which.
    pub selection: ReplaySelection,
    /// Only count them.
    pub dry_run: bool,
}

impl ReplayRequest {
    /// The most messages that one request replays.
    pub const MESSAGES_MAX: usize = 10_000;

    /// Reads a body strictly.
    ///
    /// # Errors
    /// `unknown_field`, `invalid_value` and `contradictory_options` with the pointer; `setting_out_of_range` for a rate, which
    /// comes with a later version. The first problem only.
    pub fn read(body: &Value) -> Result<Self, Box<Problem>> {
        const FIELDS: [&str; 4] = ["ids", "filter", "dry_run", "rate"];
        let Value::Object(fields) = body else {
            let detail = "it is an object, like {\"ids\":[\"…\"]} or {\"filter\":{\"reason\":\"exhausted\"}}";
            return Err(problem(Code::InvalidValue, "", detail));
        };
        check_fields(fields.keys(), "", &FIELDS)?;
        if fields.contains_key("rate") {
            let detail =
                "replaying at a rate is not in this version: leave it out, and replay some at a time";
            let refused = problem(Code::SettingOutOfRange, "/rate", detail);
            return Err(Box::new(Problem { setting: Some("rate".into()), ..*refused }));
        }
        let dry_run = match fields.get("dry_run") {
            None => false,
            Some(Value::Bool(dry_run)) => *dry_run,
            Some(_) => return Err(problem(Code::InvalidValue, "/dry_run", "it is true or false")),
        };
        let selection = match (fields.get("ids"), fields.get("filter")) {
            (Some(ids), None) => ReplaySelection::Ids(read_ids(ids)?),
            (None, Some(filter)) => ReplaySelection::Filter(read_filter(filter)?),
            (Some(_), Some(_)) => {
                let detail = "either ids or a filter says what is meant, not both";
                return Err(problem(Code::ContradictoryOptions, "/filter", detail));
            }
            (None, None) => {
                let detail = "say which are meant: \"ids\", or a \"filter\", which is {} for all";
                return Err(problem(Code::InvalidValue, "", detail));
            }
        };
        Ok(Self { selection, dry_run })
    }
}

fn problem(code: Code, pointer: &str, detail: &str) -> Box<Problem> {
    let at = if pointer.is_empty() { "the body" } else { pointer };
    Box::new(Problem { pointer: Some(pointer.to_owned()), ..Problem::new(code, format!("{at}: {detail}")) })
}

fn check_fields<'f>(
    given: impl Iterator<Item = &'f String>,
    at: &str,
    known: &[&'static str],
) -> Result<(), Box<Problem>> {
    for name in given {
        if !known.contains(&name.as_str()) {
            let hint = hint(name, known.iter().copied());
            let detail = format!("it is not known; taken here: {}{hint}", known.join(", "));
            return Err(problem(Code::UnknownField, &json::pointer(at, name), &detail));
        }
    }
    Ok(())
}

fn read_ids(given: &Value) -> Result<Vec<MessageId>, Box<Problem>> {
    let Value::Array(given) = given else {
        return Err(problem(Code::InvalidValue, "/ids", "it is a list of message ids"));
    };
    if given.len() > ReplayRequest::MESSAGES_MAX {
        let most = ReplayRequest::MESSAGES_MAX;
        let detail = format!("{} ids are too many: at most {most} are replayed at a time", given.len());
        let limit = Some(most as u64);
        return Err(Box::new(Problem { limit, ..*problem(Code::InvalidValue, "/ids", &detail) }));
    }
    let mut seen = std::collections::HashSet::new();
    let mut ids = Vec::with_capacity(given.len());
    for (place, value) in given.iter().enumerate() {
        let id: Option<MessageId> = value.as_str().and_then(|text| text.parse().ok());
        let id =
            id.ok_or_else(|| problem(Code::InvalidValue, &format!("/ids/{place}"), "it is no message id"))?;
        if seen.insert(id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn read_filter(given: &Value) -> Result<Filter, Box<Problem>> {
    let Value::Object(given) = given else {
        return Err(problem(Code::InvalidValue, "/filter", "it is an object, which is {} for all"));
    };
    check_fields(given.keys(), "/filter", &Filter::FIELDS)?;
    let mut filter = Filter::default();
    for (field, value) in given {
        let set = match value {
            Value::String(text) if field != "status" => filter.set(field, text),
            Value::Number(number) if field == "status" => filter.set(field, &number.to_string()),
            _ if field == "status" => Err("it is a number, like 503".to_owned()),
            _ => Err("it is a string".to_owned()),
        };
        set.map_err(|why| problem(Code::InvalidValue, &json::pointer("/filter", field), &why))?;
    }
    if filter.is_contradictory() {
        return Err(problem(Code::ContradictoryOptions, "/filter/to", "it is before from"));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";

    #[test]
    fn ids_are_taken_each_once_and_a_filter_as_it_is_written() {
        let read = |body: Value| ReplayRequest::read(&body).expect("valid");
        let id: MessageId = ID.parse().expect("an id");
        let expected = ReplayRequest { selection: ReplaySelection::Ids(vec![id]), dry_run: true };
        assert_eq!(read(json!({"ids": [ID, ID], "dry_run": true})), expected);
        let filter = json!({
            "reason": "exhausted", "status": 503, "destination": "https://a.example",
            "from": "2026-11-22T13:25:00+01:00", "to": "2026-11-22T12:25:00.001Z",
        });
        let ReplaySelection::Filter(filter) = read(json!({"filter": filter})).selection else {
            panic!("one")
        };
        assert_eq!((filter.reason, filter.status), (Some(DeadReason::Exhausted), Some(503)));
        assert_eq!(filter.destination.as_deref(), Some("https://a.example/"));
        let written = serde_json::to_value(&filter).expect("serialises");
        let ReplaySelection::Filter(again) = read(json!({"filter": written})).selection else {
            panic!("one")
        };
        assert_eq!(again, filter, "what a client writes is what is read");
        let all = ReplaySelection::Filter(Filter::default());
        assert_eq!(read(json!({"filter": {}})), ReplayRequest { selection: all, dry_run: false });
        assert_eq!(read(json!({"ids": []})).selection, ReplaySelection::Ids(vec![]));
    }

    #[test]
    fn each_refusal_has_its_code_and_pointer() {
        let many = vec![ID; ReplayRequest::MESSAGES_MAX + 1];
        for (body, code, pointer, words) in [
            (json!([]), Code::InvalidValue, "", "an object"),
            (json!({}), Code::InvalidValue, "", "\"ids\""),
            (json!({"id": [ID]}), Code::UnknownField, "/id", "did you mean \"ids\""),
            (json!({"ids": [], "filter": {}}), Code::ContradictoryOptions, "/filter", "not both"),
            (json!({"ids": ID}), Code::InvalidValue, "/ids", "a list"),
            (json!({"ids": [ID, "x"]}), Code::InvalidValue, "/ids/1", "no message id"),
            (json!({"ids": [1]}), Code::InvalidValue, "/ids/0", "no message id"),
            (json!({"ids": many}), Code::InvalidValue, "/ids", "at most 10000"),
            (json!({"ids": [], "dry_run": 1}), Code::InvalidValue, "/dry_run", "true or false"),
            (json!({"ids": [], "rate": "5/s"}), Code::SettingOutOfRange, "/rate", "not in this version"),
            (json!({"filter": null}), Code::InvalidValue, "/filter", "{} for all"),
            (json!({"filter": {"staus": 503}}), Code::UnknownField, "/filter/staus", "\"status\""),
            (json!({"filter": {"status": "503"}}), Code::InvalidValue, "/filter/status", "a number"),
            (json!({"filter": {"status": 503.5}}), Code::InvalidValue, "/filter/status", "100 to 599"),
            (json!({"filter": {"status": 600}}), Code::InvalidValue, "/filter/status", "100 to 599"),
            (json!({"filter": {"reason": "exausted"}}), Code::InvalidValue, "/filter/reason", "exhausted"),
            (json!({"filter": {"reason": null}}), Code::InvalidValue, "/filter/reason", "a string"),
            (json!({"filter": {"destination": "x"}}), Code::InvalidValue, "/filter/destination", "a URL"),
            (json!({"filter": {"from": "yesterday"}}), Code::InvalidValue, "/filter/from", "a time"),
            (
                json!({"filter": {"from": "2026-11-22T13:25:00Z", "to": "2026-11-22T13:24:59Z"}}),
                Code::ContradictoryOptions,
                "/filter/to",
                "before from",
            ),
        ] {
            let problem = ReplayRequest::read(&body).expect_err(words);
            assert_eq!(problem.known_code(), Some(code), "{body}: {problem}");
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem}");
            assert!(problem.detail.contains(words), "{problem}");
        }
    }

    #[test]
    fn what_went_well_says_no_more_than_that() {
        let done = Replay { matched: 3, replayed: 3, ..Replay::default() };
        assert_eq!(serde_json::to_value(done).expect("JSON"), json!({"matched": 3, "replayed": 3}));
        let done = Discard { discarded: 2, stopped: None };
        assert_eq!(serde_json::to_value(done).expect("JSON"), json!({"discarded": 2}));
    }
}
