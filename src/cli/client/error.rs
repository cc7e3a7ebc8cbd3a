//! Why a call came to nothing, in words that tell what to do next.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::api::problem::Problem;
use crate::api::{Code, STORED_HEADER};
use crate::cli::{Exit, Failure};
use crate::domain::format::duration;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway answered: the connection failed, or the answer did not come.
    #[error(
        "no gateway answers at {url}: {cause}\n  hint: is it running (posthaste serve), and is this its address? \
         --url or POSTHASTE_URL says which"
    )]
    Unreachable {
        /// Who was asked.
        url: String,
        /// Why not.
        cause: String,
        /// Whether the request may have arrived.
        was_sent: bool,
    },
    /// The gateway refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Something answered that is no gateway of this version.
    #[error("{url} answered {status} with what is no answer of a gateway")]
    Strange {
        /// Who was asked.
        url: String,
        /// Its status.
        status: u16,
    },
}

/// What a refused publish says of the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Nothing of it was stored: a promise.
    No,
    /// It may have been stored.
    Unknown,
    /// It was no publish.
    Unsaid,
}

/// A refusal, with what its headers say.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// Whether a publish may have been stored all the same.
    pub stored: Stored,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(problem: Problem, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let stored = match text(STORED_HEADER) {
            Some("no") => Stored::No,
            Some(_) => Stored::Unknown,
            None => Stored::Unsaid,
        };
        let retry_after = text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        Self { problem, stored, retry_after: retry_after.map(Duration::from_secs) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { detail, code, status, .. } = &self.problem;
        write!(formatter, "{detail}\n  code: {code} ({status})")?;
        let limit = self.problem.limit.map(|limit| limit.to_string());
        let index = self.problem.index.map(|index| index.to_string());
        let places = [
            ("field", self.problem.pointer.as_deref()),
            ("header", self.problem.header.as_deref()),
            ("parameter", self.problem.parameter.as_deref()),
            ("setting", self.problem.setting.as_deref()),
            ("limit", limit.as_deref()),
            ("item", index.as_deref()),
        ];
        for (name, value) in places {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                write!(formatter, "\n  {name}: {value}")?;
            }
        }
        if let Some(hint) = hint(code) {
            write!(formatter, "\n  hint: {hint}")?;
        }
        if self.problem.retryable {
            let wait = self.retry_after.unwrap_or(Duration::from_secs(1));
            write!(formatter, "\n  again: in {}, it may succeed then", duration::show(wait))?;
        }
        write!(formatter, "\n  request: {}", self.problem.request_id)
    }
}

/// What one types next; the detail says what is wrong.
fn hint(code: &str) -> Option<&'static str> {
    Some(match Code::from_word(code)?.word() {
        "queue_unknown" => {
            "posthaste queue list shows which there are; posthaste queue set NAME processor=log makes one"
        }
        "message_unknown" => "the id and its queue belong together; the history ends some day",
        "queue_not_empty" => "--force deletes it with its messages",
        "queue_not_pull" => "posthaste queue set NAME processor=pull makes it one to lease from",
        "queue_declared_in_file" => "change it in the gateway's configuration file",
        "queue_full" => {
            "posthaste status shows whether it drains; posthaste queue set NAME limits.length_max=N"
        }
        "idempotency_key_reused" => "another --key for another message",
        "message_leased" => "it is being processed: again when that has ended",
        "store_unavailable" | "store_full" | "not_durable" | "store_timeout" => {
            "posthaste ready and posthaste status say what the store lacks"
        }
        "route_unknown" | "method_not_allowed" => "is this gateway as new as this command line?",
        "unauthenticated" | "forbidden" => "POSTHASTE_KEY has the key",
        _ => return None,
    })
}

impl ClientError {
    /// Whether a publish may have been stored all the same.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        match self {
            Self::Unreachable { was_sent, .. } => *was_sent,
            Self::Refused(refusal) => refusal.stored == Stored::Unknown,
            Self::Strange { .. } => false,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, index) = match &error {
            ClientError::Unreachable { .. } => (Exit::Unreachable, None),
            ClientError::Refused(refusal) => (Exit::Refused, refusal.problem.index),
            ClientError::Strange { .. } => (Exit::Failed, None),
        };
        Self { may_be_stored: error.may_be_stored(), index, ..Self::new(exit, error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_wrong_its_code_what_to_do_and_its_request() {
        let mut problem = Problem::new(Code::QueueFull, "the queue is full");
        problem.request_id = "0123456789abcdef".to_owned();
        problem.setting = Some("limits.length_max".into());
        problem.limit = Some(7);
        let mut headers = HeaderMap::new();
        headers.insert(STORED_HEADER, "no".parse().expect("a value"));
        headers.insert(RETRY_AFTER, "3".parse().expect("a value"));
        let refusal = Refusal::new(problem, &headers);
        assert_eq!((refusal.stored, refusal.retry_after), (Stored::No, Some(Duration::from_secs(3))));
        let text = refusal.to_string();
        let words = [
            "the queue is full\n",
            "code: queue_full (429)",
            "setting: limits.length_max",
            "limit: 7",
            "hint: ",
            "again: in 3s",
            "request: 0123456789abcdef",
        ];
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        let unsaid = Refusal::new(Problem::new(Code::Internal, ""), &HeaderMap::new());
        assert_eq!((unsaid.stored, unsaid.retry_after), (Stored::Unsaid, None));
    }

    #[test]
    fn a_code_of_a_newer_gateway_has_no_hint_and_is_shown() {
        let text = r#"{"type":"t","title":"x","status":418,"detail":"d","code":"teapot","retryable":false,"request_id":"r"}"#;
        let problem = serde_json::from_str(text).expect("a problem");
        let text = Refusal::new(problem, &HeaderMap::new()).to_string();
        assert_eq!(text, "d\n  code: teapot (418)\n  request: r");
    }
}
