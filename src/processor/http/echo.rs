//! Taking what was sent as a credential out of what a receiver answered: many show the request that they did not like.

use hyper::header::HeaderValue;

use super::answer::excerpt;
use crate::domain::format::secret::MASK;

/// What is shorter is found in any text, bytes.
const BYTES_MIN: usize = 8;

/// Of a longer one this much tells it, bytes: what is escaped or cut off behind that is found as well.
const BYTES_TOLD: usize = 16;

/// The values, and parts of them, that are looked for at most.
const PIECES_MAX: usize = 64;

/// The text with `***` in the place of credentials that were sent, whole or without their scheme, each of [`BYTES_MIN`] bytes at
/// least: also where it ends amid one. The work is at most [`PIECES_MAX`] comparisons a byte.
pub(super) fn without(text: String, credentials: &[HeaderValue]) -> String {
    if credentials.is_empty() || text.len() < BYTES_MIN {
        return text;
    }
    let pieces = pieces(credentials);
    let bytes = text.as_bytes();
    let (mut shown, mut kept_from, mut at) = (String::with_capacity(text.len()), 0, 0);
    while at + BYTES_MIN <= bytes.len() {
        let length = pieces.iter().map(|piece| sent_at(&bytes[at..], piece.as_bytes())).max().unwrap_or(0);
        if length == 0 {
            at += 1;
            continue;
        }
        shown.push_str(&text[kept_from..at]);
        shown.push_str(MASK);
        at += length;
        while !text.is_char_boundary(at) {
            at += 1;
        }
        kept_from = at;
    }
    shown.push_str(&text[kept_from..]);
    shown
}

/// How many bytes of the piece the text begins with, when they tell it; else 0.
fn sent_at(text: &[u8], piece: &[u8]) -> usize {
    // Most of the time there is nothing more to do.
    if text[..BYTES_MIN] != piece[..BYTES_MIN] {
        return 0;
    }
    let same = text.iter().zip(piece).take_while(|(shown, sent)| shown == sent).count();
    if same >= piece.len().min(BYTES_TOLD) || same == text.len() { same } else { 0 }
}

/// The values and what they consist of, as an excerpt would show them.
fn pieces(credentials: &[HeaderValue]) -> Vec<String> {
    let values: Vec<_> =
        credentials.iter().take(PIECES_MAX).map(|value| excerpt(value.as_bytes(), usize::MAX)).collect();
    let parts = values.iter().flat_map(|value| value.split([' ', ',', ';'])).flat_map(|part| {
        // Of a cookie, or a parameter.
        let own = part.split_once('=').map(|(_, own)| own.trim_matches('"'));
        std::iter::once(part).chain(own)
    });
    let all = values.iter().map(String::as_str).chain(parts).filter(|piece| piece.len() >= BYTES_MIN);
    all.take(PIECES_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, credentials: &[&str]) -> String {
        let credentials: Vec<_> =
            credentials.iter().map(|text| HeaderValue::from_str(text).expect("a value")).collect();
        without(text.to_owned(), &credentials)
    }

    #[test]
    fn what_was_sent_as_a_credential_is_not_shown() {
        let sent = ["Bearer 0123456789abcdef0123", "s=aaaabbbbcccc; t=x", "short"];
        for (text, expected) in [
            ("fine", "fine"),
            ("", ""),
            ("{\"authorization\": \"Bearer 0123456789abcdef0123\"}", "{\"authorization\": \"***\"}"),
            ("no such key: 0123456789abcdef0123!", "no such key: ***!"),
            ("cookie s=aaaabbbbcccc; t=x, that is aaaabbbbcccc", "cookie ***, that is ***"),
            ("0123456789abcdef01230123456789abcdef0123", "******"),
            ("ends amid 01234567", "ends amid ***"),
            ("ends amid 0123456", "ends amid 0123456"),
            ("another one: 0123456789xyz", "another one: 0123456789xyz"),
            ("Bearer 0 is short", "Bearer 0 is short"),
            ("grün aaaabbbbccccü", "grün ***ü"),
        ] {
            assert_eq!(shown(text, &sent), expected, "{text}");
        }
        assert_eq!(shown("key 0123456789abcdef\\\"0", &["0123456789abcdef\"0"]), "key ***\\\"0");
    }

    #[test]
    fn the_work_is_bounded_whatever_was_sent() {
        let many: Vec<_> = (0..500).map(|number| format!("{}{number}", "a".repeat(64))).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(
            pieces(&many.iter().map(|one| HeaderValue::from_str(one).expect("a value")).collect::<Vec<_>>())
                .len(),
            PIECES_MAX
        );
        assert_eq!(shown(&"a".repeat(1 << 16), &many), MASK.repeat((1 << 16) / 64));
    }

    proptest! {
        #[test]
        fn no_credential_shines_through(before in "[ -~ü]{0,20}", sent in "[!-~]{8,40}", after in "[ -~ü]{0,20}") {
            let text = shown(&format!("{before}{sent}{after}"), &[&sent]);
            prop_assert!(before.contains(&sent[..7]) || !text.contains(&sent), "{}", text);
        }
    }
}
