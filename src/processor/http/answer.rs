//! Reading what comes after the head of an answer: no more than is allowed, and keeping what a person may look at.

use std::error::Error;
use std::io;

use tokio::time::{Instant, timeout_at};

use super::classify::{Failure, chain};
use super::client::Answer;
use super::echo::{self, Sent};
use crate::domain::queue::AnswerSettings;

/// The longest error kept with an attempt, bytes.
const ERROR_BYTES_MAX: usize = 300;

/// How a TLS connection ends that was cut off: it cannot be seen whether all has come.
const NO_CLOSE_NOTIFY: &str = "the connection ended without TLS close_notify";

/// The longest character in UTF-8, less one: what may follow a cut inside a character.
const CHARACTER_REST_BYTES: usize = 3;

/// What came after the head. It never changes what the head said.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) excerpt: Option<String>,
    pub(super) error: Option<String>,
}

/// Reads at most `settings.bytes_max`, not beyond `until`, then lets go of the connection: it is used again only when the answer
/// ended by itself. What it repeats of the credentials that were `sent` is not kept.
pub(super) async fn read(
    mut answer: Answer,
    settings: &AnswerSettings,
    sent: Sent<'_>,
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
    let text = echo::without(excerpt(&kept, excerpt_max), sent);
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
    let text = chain(Some(error)).last().unwrap_or(error).to_string();
    // Its own words end in an address of its manual for programmers.
    if text.contains("close_notify") && chain(Some(error)).any(is_early_end) {
        NO_CLOSE_NOTIFY.into()
    } else {
        text
    }
}

fn is_early_end(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
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

    #[test]
    fn a_tls_connection_that_was_cut_off_is_told_in_our_words() {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("some");
        let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let name = "a.example".try_into().expect("a name");
        let mut connection = rustls::ClientConnection::new(config.into(), name).expect("a connection");
        assert_eq!(connection.read_tls(&mut io::empty()).expect("nothing comes"), 0);
        let error = io::Read::read(&mut connection.reader(), &mut [0]).expect_err("it ended early");
        assert!(error.to_string().contains("https://"), "else there is nothing to mend: {error}");
        assert_eq!(innermost(&error), NO_CLOSE_NOTIFY);
        let other = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(innermost(&other), "tls handshake eof");
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
