//! A refusal as the caller reads it: RFC 9457, `application/problem+json`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::code::Code;

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was refused, and what is safe to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Where the code is explained: `/docs/errors#code`.
    pub r#type: String,
    /// What the code means, in a few words.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request, and what would be right.
    pub detail: String,
    /// The code: stable, for programs.
    pub code: Cow<'static, str>,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// The request in our log.
    pub request_id: String,
    /// Which field of the body, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Which header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Which query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Which limit was met: a count or bytes, as the setting has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Which setting that limit is: of the queue (`limits.length_max`), or of the gateway (`server.limits.…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Cow<'static, str>>,
    /// Which item of a batch, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Which line of a batch that is NDJSON, from 1; blank ones count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

impl Problem {
    /// A problem of this code, without a request id.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let row = code.row();
        Self {
            r#type: format!("/docs/errors#{}", row.word),
            title: row.title.into(),
            status: row.status,
            detail: detail.into(),
            code: row.word.into(),
            retryable: row.retryable,
            request_id: String::new(),
            pointer: None,
            header: None,
            parameter: None,
            limit: None,
            setting: None,
            index: None,
            line: None,
        }
    }

    /// The code, when this version knows it.
    #[must_use]
    pub fn known_code(&self) -> Option<Code> {
        Code::from_word(&self.code)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.code, self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_written_as_documented_and_read_back() {
        let mut problem = Problem::new(Code::PayloadTooLarge, "too much");
        problem.request_id = "0123456789abcdef".to_owned();
        problem.limit = Some(1_048_576);
        problem.setting = Some("limits.payload_max".into());
        let text = serde_json::to_string(&problem).expect("serialises");
        assert_eq!(
            text,
            concat!(
                r#"{"type":"/docs/errors#payload_too_large","title":"The body is too large","status":413,"#,
                r#""detail":"too much","code":"payload_too_large","retryable":false,"request_id":"0123456789abcdef","#,
                r#""limit":1048576,"setting":"limits.payload_max"}"#
            )
        );
        let read: Problem = serde_json::from_str(&text).expect("valid");
        assert_eq!(read, problem);
        assert_eq!(read.known_code(), Some(Code::PayloadTooLarge));
    }

    #[test]
    fn a_code_of_a_newer_gateway_is_read_and_unknown() {
        let text = r#"{"type":"t","title":"x","status":418,"detail":"d","code":"teapot","retryable":true,"request_id":"","new":1}"#;
        let problem: Problem = serde_json::from_str(text).expect("valid");
        assert_eq!((problem.known_code(), problem.retryable), (None, true));
    }
}
