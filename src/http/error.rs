//! Refusals: from what went wrong to status, code and header, in one place.

use std::fmt;

use actix_http::Payload;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::domain::id::MessageId;
use crate::pipeline::ingester::Refused;
use crate::store::enqueue::GroupResult;
use crate::store::error::{StoreError, Stored};

/// Why a request gets no answer of its own.
pub(super) struct Refusal(Box<Inner>);

struct Inner {
    problem: Problem,
    code: Code,
    /// What the store said of the message, when it was asked and knew.
    known: Option<Stored>,
    /// The methods that are allowed, for 405.
    allow: Option<String>,
    /// The rest of a body that is not wanted.
    unread: Option<Payload>,
    /// What went wrong, for the log alone.
    cause: Option<String>,
}

impl Refusal {
    /// A refusal of this code; `detail` says what is wrong and what would be right.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::of(code, Problem::new(code, detail))
    }

    fn of(code: Code, problem: Problem) -> Self {
        Self(Box::new(Inner { problem, code, known: None, allow: None, unread: None, cause: None }))
    }

    /// Names the header it is about.
    pub(super) fn header(mut self, name: &str) -> Self {
        self.0.problem.header = Some(name.to_owned());
        self
    }

    /// Names the query parameter it is about.
    pub(super) fn parameter(mut self, name: &str) -> Self {
        self.0.problem.parameter = Some(name.to_owned());
        self
    }

    /// Names the place in the body it is about.
    pub(super) fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.0.problem.pointer = Some(pointer.into());
        self
    }

    /// Names the place in the body it is about in place of a header.
    pub(super) fn in_body(mut self, pointer: impl Into<String>) -> Self {
        self.0.problem.header = None;
        self.pointer(pointer)
    }

    /// Names the item of a batch it is about.
    pub(super) fn index(mut self, index: u64) -> Self {
        self.0.problem.index = Some(index);
        self
    }

    /// Names the line of the body it is about.
    pub(super) fn line(mut self, line: u64) -> Self {
        self.0.problem.line = Some(line);
        self
    }

    /// Names the setting it comes from, and its value where that is a number.
    pub(super) fn setting(mut self, name: &'static str, limit: Option<u64>) -> Self {
        self.0.problem.setting = Some(name.into());
        self.0.problem.limit = limit;
        self
    }

    /// Names a limit that is no setting.
    pub(super) fn limit(mut self, limit: u64) -> Self {
        self.0.problem.limit = Some(limit);
        self
    }

    /// The methods that are allowed.
    pub(super) fn allow(mut self, methods: String) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Keeps the rest of the body until the answer is sent. A body that is dropped would be read to its end, however long
    /// that is; one that is kept makes the server close the connection.
    pub(super) fn unread(mut self, payload: Payload) -> Self {
        self.0.unread = Some(payload);
        self
    }

    /// What went wrong, for the log and not for the caller.
    pub(super) fn cause(mut self, cause: String) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// What is known of what is stored, whatever the rule says.
    pub(super) fn known(mut self, stored: Stored) -> Self {
        self.0.known = Some(stored);
        self
    }

    /// What the caller reads, the request id aside.
    #[cfg(test)]
    pub(super) fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The code.
    pub(super) fn code(&self) -> Code {
        self.0.code
    }

    /// The value of `Posthaste-Stored` for a publish, with or without a key.
    ///
    /// A keyed publish may be the second try of one that was stored. So whatever is refused before the store looked for the key is
    /// unknown where the first try may have passed: with the advice to try again, or for a setting, which was another then.
    pub(super) fn stored(&self, keyed: bool) -> Stored {
        let by_rule = match self.0.code {
            Code::Internal | Code::StoreTimeout => Stored::Unknown,
            code if keyed && (code.row().retryable || self.0.problem.setting.is_some()) => Stored::Unknown,
            _ => Stored::No,
        };
        self.0.known.unwrap_or(by_rule)
    }

    /// Ends as the refusal of a publish: what may be in the store may be tried again only with a key.
    pub(super) fn of_publish(mut self, keyed: bool) -> Self {
        if self.0.code == Code::StoreTimeout {
            self.0.problem.retryable = keyed;
        }
        self
    }

    /// Logs what is a defect; what is the caller's or the store's to mend is seen elsewhere.
    pub(super) fn log(&self, request_id: &str) {
        let (problem, code) = (&self.0.problem, self.0.code.word());
        let cause = self.0.cause.as_deref().unwrap_or(&problem.detail);
        if self.0.code == Code::Internal {
            log::error!("request.id" = request_id, "cause" = cause; "a request failed");
        } else if problem.status >= 500 {
            log::debug!("request.id" = request_id, "code" = code, "cause" = cause; "a request was refused");
        }
    }

    /// The parts of the answer: the problem, the allowed methods, the rest of the body.
    pub(super) fn into_parts(self) -> (Problem, Option<String>, Option<Payload>) {
        (self.0.problem, self.0.allow, self.0.unread)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.problem, formatter)
    }
}

impl From<Box<Problem>> for Refusal {
    fn from(problem: Box<Problem>) -> Self {
        let code = problem.known_code().unwrap_or(Code::Internal);
        Self::of(code, *problem)
    }
}

/// What became of a publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Stored, durably as configured: 202.
    New,
    /// Its key stands for these messages, at least one: 200.
    Duplicate(Vec<MessageId>),
}

/// Why a publish was not accepted.
pub(super) enum NotAccepted {
    /// The queue of that generation is no more: ask which one is there now.
    Gone,
    /// The answer.
    Refused(Refusal),
}

impl From<Refusal> for NotAccepted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The table: what the store or its door said → what the publisher hears.
pub(super) fn of_publish(result: Result<GroupResult, Refused>) -> Result<Accepted, NotAccepted> {
    let refusal = match result {
        Ok(GroupResult::Accepted) => return Ok(Accepted::New),
        Ok(GroupResult::Duplicate(ids)) if ids.is_empty() => {
            Refusal::new(Code::Internal, "the store names no message for the key")
        }
        Ok(GroupResult::Duplicate(ids)) => return Ok(Accepted::Duplicate(ids)),
        Ok(GroupResult::Gone | GroupResult::Failed(StoreError::Gone)) => return Err(NotAccepted::Gone),
        Ok(GroupResult::KeyReused) => {
            let detail = "this key was used in this queue, within its idempotency window, with another payload, \
                          Content-Type, method or destination";
            Refusal::new(Code::IdempotencyKeyReused, detail).header("Idempotency-Key").known(Stored::No)
        }
        Ok(GroupResult::QueueFull { setting, limit }) => {
            let detail = format!("the queue is at its limit: {setting} is {limit}");
            Refusal::new(Code::QueueFull, detail).setting(setting, Some(limit)).known(Stored::No)
        }
        Ok(GroupResult::Failed(error)) => of_store(&error),
        Err(Refused::Overloaded { setting, limit }) => {
            let detail = format!("too much waits for the store: {setting} is {limit}");
            Refusal::new(Code::Overloaded, detail).setting(setting, Some(limit))
        }
        Err(Refused::ShuttingDown) => shutting_down(),
        Err(Refused::TimedOut { stored: Stored::No }) => {
            Refusal::new(Code::Overloaded, "the store did not get to it in time, so it was taken back")
        }
        Err(Refused::TimedOut { stored: Stored::Unknown }) => {
            Refusal::new(Code::StoreTimeout, "the store did not confirm in time: it may have been stored")
        }
    };
    Err(refusal.into())
}

/// The table: why the store could not → what the caller hears. `Gone` is a queue that is no more.
pub(super) fn of_store(error: &StoreError) -> Refusal {
    let detail = error.to_string();
    match error {
        StoreError::Gone => Refusal::new(Code::QueueUnknown, "the queue was deleted"),
        StoreError::Unavailable(_) | StoreError::Newer(_) | StoreError::Foreign(_) => {
            Refusal::new(Code::StoreUnavailable, detail)
        }
        StoreError::Full(_) => Refusal::new(Code::StoreFull, detail).known(Stored::No),
        StoreError::NotDurable(_) => Refusal::new(Code::NotDurable, detail),
        StoreError::Unknown(_) | StoreError::Unacknowledged(_) | StoreError::Timeout(_) => {
            Refusal::new(Code::StoreTimeout, detail)
        }
        StoreError::Internal(_) => Refusal::new(Code::Internal, detail),
    }
}

/// The gateway is about to end.
pub(super) fn shutting_down() -> Refusal {
    Refusal::new(
        Code::ShuttingDown,
        "this gateway is shutting down: another one, or this one once restarted, takes it",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Row = (&'static str, Result<GroupResult, Refused>, u16, &'static str, &'static str, &'static str);

    fn table() -> Vec<Row> {
        let text = || "why".to_owned();
        let full = GroupResult::QueueFull { setting: "limits.length_max", limit: 7 };
        let overloaded = Refused::Overloaded { setting: "ingest.waiting_messages_max", limit: 9 };
        let failed = |error| Ok(GroupResult::Failed(error));
        let timed_out = |stored| Err(Refused::TimedOut { stored });
        vec![
            ("reused", Ok(GroupResult::KeyReused), 422, "idempotency_key_reused", "no", "no"),
            ("full queue", Ok(full), 429, "queue_full", "no", "no"),
            ("no id", Ok(GroupResult::Duplicate(vec![])), 500, "internal", "unknown", "unknown"),
            (
                "unavailable",
                failed(StoreError::Unavailable(text())),
                503,
                "store_unavailable",
                "no",
                "unknown",
            ),
            ("newer", failed(StoreError::Newer(text())), 503, "store_unavailable", "no", "unknown"),
            ("foreign", failed(StoreError::Foreign(text())), 503, "store_unavailable", "no", "unknown"),
            ("full", failed(StoreError::Full(text())), 503, "store_full", "no", "no"),
            ("not durable", failed(StoreError::NotDurable(text())), 503, "not_durable", "no", "unknown"),
            ("unknown", failed(StoreError::Unknown(text())), 503, "store_timeout", "unknown", "unknown"),
            (
                "too few replicas",
                failed(StoreError::Unacknowledged(text())),
                503,
                "store_timeout",
                "unknown",
                "unknown",
            ),
            (
                "timeout",
                failed(StoreError::Timeout(Duration::ZERO)),
                503,
                "store_timeout",
                "unknown",
                "unknown",
            ),
            ("internal", failed(StoreError::Internal(text())), 500, "internal", "unknown", "unknown"),
            ("overloaded", Err(overloaded), 503, "overloaded", "no", "unknown"),
            ("stopping", Err(Refused::ShuttingDown), 503, "shutting_down", "no", "unknown"),
            ("late, not asked", timed_out(Stored::No), 503, "overloaded", "no", "unknown"),
            ("late, asked", timed_out(Stored::Unknown), 503, "store_timeout", "unknown", "unknown"),
        ]
    }

    #[test]
    fn each_result_has_its_status_code_and_promise() {
        for (name, result, status, code, unkeyed, keyed) in table() {
            let Err(NotAccepted::Refused(refusal)) = of_publish(result) else { panic!("{name}: accepted") };
            let problem = refusal.problem();
            assert_eq!((problem.status, &*problem.code), (status, code), "{name}");
            assert_eq!(refusal.stored(false).as_str(), unkeyed, "{name}");
            assert_eq!(refusal.stored(true).as_str(), keyed, "{name}");
        }
    }

    #[test]
    fn what_is_stored_and_what_is_gone_are_told_apart() {
        let id = MessageId::from_bytes([7; 16]);
        assert!(matches!(of_publish(Ok(GroupResult::Accepted)), Ok(Accepted::New)));
        let duplicate = of_publish(Ok(GroupResult::Duplicate(vec![id])));
        assert!(matches!(duplicate, Ok(Accepted::Duplicate(first)) if first == [id]));
        assert!(matches!(of_publish(Ok(GroupResult::Gone)), Err(NotAccepted::Gone)));
        assert!(matches!(of_publish(Ok(GroupResult::Failed(StoreError::Gone))), Err(NotAccepted::Gone)));
    }

    #[test]
    fn what_may_be_stored_may_be_sent_again_only_with_a_key() {
        let refusal = |keyed| of_store(&StoreError::Timeout(Duration::ZERO)).of_publish(keyed);
        assert!(!refusal(false).problem().retryable);
        assert!(refusal(true).problem().retryable);
        assert!(shutting_down().of_publish(false).problem().retryable);
    }

    #[test]
    fn a_publish_that_can_never_pass_is_not_stored_whether_it_has_a_key_or_not() {
        for code in
            [Code::InvalidValue, Code::QueueUnknown, Code::PayloadTooLarge, Code::HeaderNotForwardable]
        {
            assert_eq!(Refusal::new(code, "").stored(true), Stored::No);
        }
        let by_setting = Refusal::new(Code::PayloadTooLarge, "").setting("limits.payload_max", Some(10));
        assert_eq!(
            by_setting.stored(true),
            Stored::Unknown,
            "it may have been larger when that key was first used"
        );
        assert_eq!(by_setting.stored(false), Stored::No);
        assert_eq!(Refusal::new(Code::RequestTimeout, "").stored(true), Stored::Unknown);
        assert_eq!(Refusal::new(Code::RequestTimeout, "").stored(false), Stored::No);
    }
}
