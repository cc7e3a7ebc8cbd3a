//! `POST /v1/queues/{queue}/secret`: a new secret for a queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::api::nearest::hint;
use crate::api::problem::Problem;
use crate::domain::format::duration;
use crate::domain::queue::QueueName;
use crate::domain::secret::SecretText;
use crate::domain::timestamp::Timestamp;

/// The longest that a secret holds after another one followed it.
pub const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);

/// What a rotation asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rotate {
    /// The new secret; absent: one is made.
    pub secret: Option<SecretText>,
    /// How long the one before it holds; absent: as the queue's `secret_overlap` says.
    pub overlap: Option<Duration>,
}

/// What a rotation did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// The queue.
    pub queue: QueueName,
    /// The new secret, when it was made: it is shown here and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Shown>,
    /// What receivers verify with, where that is another key: of ed25519.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Until when the secret before it signs as well; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
}

/// A secret that is shown, once: it is written out, but not by `Debug`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct Shown(pub SecretText);

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl Rotate {
    /// Its fields.
    const FIELDS: [&str; 2] = ["secret", "overlap"];

    /// Reads a body; an empty one asks for a new secret and the usual overlap.
    ///
    /// # Errors
    /// `malformed`, `unknown_field`, `invalid_value` and `setting_out_of_range`, with the pointer. None shows a secret.
    pub fn read(body: &[u8]) -> Result<Self, Box<Problem>> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let body =
            json::parse(body).map_err(|error| Box::new(Problem::new(Code::Malformed, error.to_string())))?;
        let Value::Object(fields) = body else {
            let detail =
                "the body is a JSON object with some of these fields: secret, overlap; or there is none";
            return Err(problem(Code::InvalidValue, "", detail.to_owned()));
        };
        let mut rotate = Self::default();
        for (name, value) in fields {
            let pointer = json::pointer("", &name);
            match (name.as_str(), value) {
                ("secret", Value::String(text)) => rotate.secret = Some(text.into()),
                ("secret", _) => {
                    let detail =
                        "/secret is a text: whsec_… or whsk_… (not shown); leave it out to have one made";
                    return Err(problem(Code::InvalidValue, &pointer, detail.to_owned()));
                }
                ("overlap", Value::String(text)) => {
                    let overlap = duration::parse(&text).map_err(|error| {
                        problem(Code::InvalidValue, &pointer, format!("/overlap: {error}"))
                    })?;
                    if overlap > OVERLAP_MAX {
                        let detail =
                            format!("overlap: {} is out of range: 0s to 30d", duration::show(overlap));
                        return Err(problem(Code::SettingOutOfRange, &pointer, detail));
                    }
                    rotate.overlap = Some(overlap);
                }
                ("overlap", _) => {
                    let detail = "/overlap is a duration, like \"24h\" or \"0s\"";
                    return Err(problem(Code::InvalidValue, &pointer, detail.to_owned()));
                }
                _ => {
                    let hint = hint(&name, Self::FIELDS);
                    let detail =
                        format!("{pointer} is not known here, but {}{hint}", Self::FIELDS.join(", "));
                    return Err(problem(Code::UnknownField, &pointer, detail));
                }
            }
        }
        Ok(rotate)
    }
}

fn problem(code: Code, pointer: &str, detail: String) -> Box<Problem> {
    Box::new(Problem { pointer: Some(pointer.to_owned()), ..Problem::new(code, detail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rotation_asks_for_is_read_strictly() {
        for empty in ["", " \r\n", "{}"] {
            assert_eq!(Rotate::read(empty.as_bytes()), Ok(Rotate::default()), "{empty:?}");
        }
        let given = Rotate::read(br#"{"secret":"whsec_s3cret","overlap":"1h"}"#).expect("read");
        assert_eq!(given.overlap, Some(Duration::from_hours(1)));
        assert_eq!(given.secret.as_ref().map(SecretText::expose), Some("whsec_s3cret"));
        for (body, code, words) in [
            ("[", Code::Malformed, "EOF"),
            ("[]", Code::InvalidValue, "a JSON object"),
            (r#"{"secret":7}"#, Code::InvalidValue, "/secret is a text"),
            (r#"{"overlap":7}"#, Code::InvalidValue, "/overlap is a duration"),
            (r#"{"overlap":"7"}"#, Code::InvalidValue, "/overlap"),
            (r#"{"overlap":"31d"}"#, Code::SettingOutOfRange, "0s to 30d"),
            (r#"{"overlp":"1d"}"#, Code::UnknownField, "overlap"),
        ] {
            let problem = Rotate::read(body.as_bytes()).expect_err(body);
            assert_eq!(problem.known_code(), Some(code), "{body}");
            assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
        }
    }
}
