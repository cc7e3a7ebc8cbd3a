//! What serde has against a value, in the words of the manual: what must be there, and what is.

use serde::de::{Expected, Unexpected};

/// How settings are written, as far as the words for their parts differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notation {
    /// A file, an environment variable or a flag.
    Toml,
    /// A request.
    Json,
}

impl Notation {
    const fn table(self) -> &'static str {
        match self {
            Self::Toml => "a table",
            Self::Json => "an object",
        }
    }

    /// What must be there.
    #[must_use]
    pub fn expected(self, expected: &dyn Expected) -> String {
        let expected = expected.to_string();
        let integer = |most: u64| format!("a whole number from 0 to {most}");
        match expected.as_str() {
            "u8" => integer(u8::MAX.into()),
            "u16" => integer(u16::MAX.into()),
            "u32" => integer(u32::MAX.into()),
            "u64" | "usize" => "a whole number from 0 on".to_owned(),
            "f32" | "f64" => "a number".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "a sequence" => "a list".to_owned(),
            "a map" => self.table().to_owned(),
            other if other.starts_with("struct ") => self.table().to_owned(),
            _ => expected,
        }
    }

    /// What is there.
    #[must_use]
    pub fn found(self, unexpected: Unexpected<'_>) -> String {
        match unexpected {
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            Unexpected::Str(text) => quoted(text),
            Unexpected::Unit => "null".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => self.table().to_owned(),
            other => other.to_string(),
        }
    }
}

/// Which words there are.
#[must_use]
pub fn one_of(words: &[&str]) -> String {
    format!("must be one of {}", words.join(", "))
}

/// A text as it was given, if it is short.
#[must_use]
pub fn quoted(text: &str) -> String {
    if text.chars().nth(40).is_none() { format!("{text:?}") } else { "a long text".to_owned() }
}

/// What a whole number must be whose range is known.
#[must_use]
pub fn within((least, most): (u64, u64), found: &str) -> String {
    format!("must be a whole number from {least} to {most}, not {found}")
}
