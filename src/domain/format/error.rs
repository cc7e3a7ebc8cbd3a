//! The refusal of a value that is written wrongly.

use std::fmt::Display;

/// Longest part of the refused input that a message repeats, in characters.
const INPUT_CHARS_MAX: usize = 40;

/// Says which input was refused, what is wrong with it and what is allowed.
///
/// The text is made for the person who wrote the value. It repeats at most the first 40 characters of the input,
/// with control characters escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct FormatError {
    text: String,
}

impl FormatError {
    /// A refusal of `input`; `problem` continues the sentence that the quoted input begins.
    pub(crate) fn new(input: &str, problem: impl Display) -> Self {
        let text = match input.char_indices().nth(INPUT_CHARS_MAX) {
            Some((end, _)) => format!("{:?}… {problem}", &input[..end]),
            None => format!("{input:?} {problem}"),
        };
        Self { text }
    }

    /// The same refusal, its subject preceded by what it is: `a length of 12 is out of range …`.
    pub(crate) fn about(self, subject: &str) -> Self {
        Self { text: format!("{subject} {}", self.text) }
    }

    /// A refusal of something that is not a string, a bare number for example, which is shown without quotes.
    pub(crate) fn unquoted(input: impl Display, problem: impl Display) -> Self {
        Self { text: format!("{input} {problem}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_input_is_shortened_and_control_characters_are_escaped() {
        let long = "é".repeat(100);
        let error = FormatError::new(&long, "is too long");
        assert_eq!(error.to_string(), format!("\"{}\"… is too long", "é".repeat(40)));
        let error = FormatError::new("1\n\u{1b}s", "is odd");
        assert_eq!(error.to_string(), r#""1\n\u{1b}s" is odd"#);
    }
}
