//! Reading what comes after the head of an answer: no more than is allowed, and keeping what a person may look at.

use std::error::Error;

use hyper::header::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::classify::{Failure, chain};
use super::client::Answer;
use super::echo;
use crate::domain::queue::AnswerSettings;

/// The longest error kept with an attempt, bytes.
const ERROR_BYTES_MAX: usize = 300;

/// The longest character in UTF-8, less one: what may follow a cut inside a character.
const CHARACTER_REST_BYTES: usize = 3;

/// What came after the head. It never changes what the head said.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) excerpt: Option<String>,
    pub(super) error: Option<String>,
}

/// Reads at most `settings.bytes_max`, not beyond `until`, then lets go of the connection: it is used again only when the answer
/// ended by itself. What it repeats of the credentials that it was sent is not kept.
pub(super) async fn read(
    mut answer: Answer,
    settings: &AnswerSettings,
    credentials: &[HeaderValue],
    until: Instant,
) -> Rest {
    let excerpt_max = usize::try_from(settings.excerpt_max).unwrap_or(usize::MAX);
    let kept_max = excerpt_max.saturating_add(CHARACTER_REST_BYTES);
    let (mut kept, mut read_bytes, mut error) = (Vec::new(), 0_u64, None);
    while read_bytes < settings.bytes_max {
        match timeout_at(until, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let allowed = usize::try_from(settings.bytes_max - read_bytes).unwrap_or(usize::MAX);
                let room = allowed.min(kept_max - kept.len()).min(chunk.len());
                kept.extend_from_slice(&chunk[..room]);
                read_bytes = read_bytes.saturating_add(chunk.len() as u64);
            }
            Ok(Ok(None)) => break,
            Ok(Err(cause)) => {
                error = Some(describe(Failure::Body, innermost(&cause)));
                break;
            }
            Err(_) => {
                error = Some(describe(Failure::Timeout, "the answer began but did not end in time"));
                break;
            }
        }
    }
    let text = echo::without(excerpt(&kept, excerpt_max), credentials);
    Rest { excerpt: Some(text).filter(|text| !text.is_empty()), error }
}

/// At most `bytes_max` bytes of text for a person: bytes that are not UTF-8 are shown as U+FFFD, line ends and tabs as spaces, and
/// what could steer a terminal or turn the direction of the text is left out.
#[must_use]
pub fn excerpt(bytes: &[u8], bytes_max: usize) -> String {
    let mut text = String::with_capacity(bytes.len().min(bytes_max));
    for chunk in bytes.utf8_chunks() {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for character in chunk.valid().chars().filter_map(shown).chain(invalid) {
            if text.len() + character.len_utf8() > bytes_max {
                return text;
            }
            text.push(character);
        }
    }
    text
}

fn shown(character: char) -> Option<char> {
    match character {
        '\n' | '\r' | '\t' => Some(' '),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        character if character.is_control() => None,
        character => Some(character),
    }
}

/// The `error` of an attempt: a stable word, then what happened, in one line.
pub(super) fn describe(failure: Failure, detail: impl AsRef<str>) -> String {
    let detail = detail.as_ref();
    excerpt(format!("{failure}: {detail}").as_bytes(), ERROR_BYTES_MAX)
}

/// What an error comes from in the end.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(Some(error)).last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_excerpt_is_text_that_steers_nothing() {
        for (bytes, bytes_max, text) in [
            (&b"ok"[..], 100, "ok"),
            (b"", 100, ""),
            (b"line\r\n\ttab", 100, "line   tab"),
            (b"\x1b[31mred\x07\x00\x7f", 100, "[31mred"),
            (b"a\xff\xfeb", 100, "a\u{fffd}\u{fffd}b"),
            ("a\u{202e}b\u{2066}c\u{85}d".as_bytes(), 100, "abcd"),
            ("grün".as_bytes(), 3, "gr"),
            ("grün".as_bytes(), 4, "grü"),
            (b"anything", 0, ""),
            (b"\xff\xff", 2, ""),
            (&[0x1f, 0x8b, 8, 0], 100, "\u{fffd}"),
        ] {
            assert_eq!(excerpt(bytes, bytes_max), text, "{bytes:?}");
        }
    }

    #[test]
    fn an_error_is_one_short_line_that_begins_with_its_word() {
        assert_eq!(describe(Failure::Dns, "no\nsuch name"), "dns: no such name");
        assert!(describe(Failure::Tls, "x".repeat(10_000)).len() <= ERROR_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_long_or_a_dangerous_excerpt(bytes in prop::collection::vec(any::<u8>(), 0..500), bytes_max in 0_usize..600) {
            let text = excerpt(&bytes, bytes_max);
            prop_assert!(text.len() <= bytes_max);
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn plain_text_is_kept_as_it_is(text in "[ -~äöü€😀]{0,100}") {
            prop_assert_eq!(excerpt(text.as_bytes(), 1_000), text);
        }
    }
}
