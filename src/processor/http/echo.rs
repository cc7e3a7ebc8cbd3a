//! Taking what was sent as a credential out of what a receiver answered: many show the request that they did not like.

use hyper::header::HeaderValue;

use super::answer::excerpt;
use crate::domain::format::secret::MASK;

/// What is shorter is found in any text, bytes.
const BYTES_MIN: usize = 8;

/// Of a longer one this much tells it, bytes: what is escaped or cut off behind that is found as well.
const BYTES_TOLD: usize = 16;

/// The values of headers, and parts of them, that are looked for at most.
const PIECES_MAX: usize = 64;

/// The values of query parameters that are looked for at most. Not of the same lot: who publishes brings some of either kind, and
/// must not crowd out those of the queue.
const PARAMETERS_MAX: usize = 16;

/// Backslashes before a byte that are read as its escape: JSON within JSON, three times over.
const BACKSLASHES_MAX: usize = 7;

/// The longest spelling of a byte in HTML, `&#x0027;`; what is cut off amid one is shorter.
const ENTITY_BYTES_MAX: usize = 8;

/// What escapes begin with.
const MARKS: [u8; 3] = *b"\\%&";

/// What was sent and is not to be shown.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sent<'a> {
    /// The values of headers.
    pub(super) headers: &'a [HeaderValue],
    /// The values of query parameters, as sent and decoded.
    pub(super) parameters: &'a [String],
}

/// The text with `***` in the place of credentials that were sent, whole or without their scheme, each of [`BYTES_MIN`] bytes at
/// least: also where it ends amid one, and where it has them escaped for JSON, HTML or a URL. The work is at most some
/// [`PIECES_MAX`] comparisons a byte.
pub(super) fn without(text: String, sent: Sent<'_>) -> String {
    let is_nothing_sent = sent.headers.is_empty() && sent.parameters.is_empty();
    if is_nothing_sent || text.len() < BYTES_MIN {
        return text;
    }
    let pieces = pieces(sent);
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

/// How many bytes of the text the piece takes at its beginning, when they tell it; else 0.
fn sent_at(text: &[u8], piece: &[u8]) -> usize {
    // Most of the time there is nothing more to do.
    if spelled(text, piece[0], 0) == 0 {
        return 0;
    }
    // Whether a `%25`, say, stands for itself or for `%` cannot be seen from there.
    (0..1 << MARKS.len()).map(|escaped| told_at(text, piece, escaped)).max().unwrap_or(0)
}

fn told_at(text: &[u8], piece: &[u8], escaped: u8) -> usize {
    let (mut at, mut told) = (0, 0);
    while let Some(byte) = piece.get(told) {
        let length = spelled(&text[at..], *byte, escaped);
        if length == 0 {
            break;
        }
        (at, told) = (at + length, told + 1);
    }
    let rest = &text[at..];
    // It may end amid an escape, too.
    let is_over = rest.first().is_none_or(|first| rest.len() < ENTITY_BYTES_MAX && MARKS.contains(first));
    if told >= piece.len().min(BYTES_TOLD) {
        at
    } else if told >= BYTES_MIN && is_over {
        text.len()
    } else {
        0
    }
}

/// How many bytes the text spells this one with at its beginning, 0 when it does not. A mark whose bit is in `escaped` is spelled
/// with its escape where that can be.
fn spelled(text: &[u8], byte: u8, escaped: u8) -> usize {
    let Some(&first) = text.first() else { return 0 };
    let plain = usize::from(first == byte);
    let is_mark = MARKS.iter().enumerate().any(|(bit, mark)| *mark == byte && escaped >> bit & 1 == 1);
    if plain > 0 && !is_mark {
        return plain;
    }
    let escaped = match first {
        b'\\' => with_backslash(text, byte),
        b'%' | b'&' => with_mark(text, byte),
        // In the query of a URL.
        b' ' if byte == b'+' => 1,
        b'+' if byte == b' ' => 1,
        _ => 0,
    };
    if escaped > 0 { escaped } else { plain }
}

/// As JSON does: `\/`, `\"`, `\u0026`; also with what is written otherwise behind the backslash.
fn with_backslash(text: &[u8], byte: u8) -> usize {
    let count = text.iter().take(BACKSLASHES_MAX).take_while(|mark| **mark == b'\\').count();
    if byte == b'\\' && count >= 2 {
        return 2;
    }
    let rest = &text[count..];
    let is_code = rest.get(..3) == Some(b"u00") && hex(rest.get(3..5)) == Some(byte);
    let length = match rest.first() {
        _ if is_code => 5,
        Some(first) if *first == byte => 1,
        _ => with_mark(rest, byte),
    };
    if length > 0 { count + length } else { 0 }
}

/// As URLs do, `%2F`, and HTML, `&amp;`, `&#39;`, `&#x27;`.
fn with_mark(text: &[u8], byte: u8) -> usize {
    if text.first() == Some(&b'%') {
        return if hex(text.get(1..3)) == Some(byte) { 3 } else { 0 };
    }
    let end = text.iter().take(ENTITY_BYTES_MAX).position(|mark| *mark == b';');
    let Some((end, name)) = end.and_then(|end| Some((end, text.get(1..end)?))) else { return 0 };
    let meant = match name {
        _ if text[0] != b'&' => None,
        b"amp" => Some(b'&'),
        b"lt" => Some(b'<'),
        b"gt" => Some(b'>'),
        b"quot" => Some(b'"'),
        b"apos" => Some(b'\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    };
    if meant == Some(byte) { end + 1 } else { 0 }
}

fn hex(digits: Option<&[u8]>) -> Option<u8> {
    number(digits?, 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, radix).ok())
}

/// The values and what they consist of, as an excerpt would show them.
fn pieces(sent: Sent<'_>) -> Vec<String> {
    let values: Vec<_> =
        sent.headers.iter().take(PIECES_MAX).map(|value| excerpt(value.as_bytes(), usize::MAX)).collect();
    let parts = values.iter().flat_map(|value| value.split([' ', ',', ';'])).flat_map(|part| {
        // Of a cookie, or a parameter.
        let own = part.split_once('=').map(|(_, own)| own.trim_matches('"'));
        std::iter::once(part).chain(own)
    });
    let is_long = |piece: &str| piece.len() >= BYTES_MIN;
    let all = values.iter().map(String::as_str).chain(parts).filter(|piece| is_long(piece));
    let parameters = sent.parameters.iter().map(|value| excerpt(value.as_bytes(), usize::MAX));
    let parameters = parameters.filter(|value| is_long(value)).take(PARAMETERS_MAX);
    all.take(PIECES_MAX).map(str::to_owned).chain(parameters).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(texts: &[&str]) -> Vec<HeaderValue> {
        texts.iter().map(|text| HeaderValue::from_str(text).expect("a value")).collect()
    }

    fn shown(text: &str, credentials: &[&str]) -> String {
        without(text.to_owned(), Sent { headers: &values(credentials), parameters: &[] })
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
    }

    #[test]
    fn what_is_escaped_for_json_html_or_a_url_is_seen_through() {
        let sent = ["Basic YWJj/ZGVm+HEADER==", "K/\"EY12345", "it's&KEY<1>", "50%25off-now"];
        for (text, expected) in [
            (r#"{"a":"Basic YWJj\/ZGVm+HEADER=="}"#, r#"{"a":"***"}"#),
            (r"YWJj\\\/ZGVm+HEADER==.", "***."),
            ("?k=YWJj%2fZGVm%2BHEADER%3D%3D&", "?k=***&"),
            ("YWJj/ZGVm HEADER==.", "***."),
            (r#"{"k":"K\/\"EY12345"}"#, r#"{"k":"***"}"#),
            (r"K/\u0022EY12345!", "***!"),
            ("K/&quot;EY12345!", "***!"),
            (r"K\/\&#34;EY12345!", "***!"),
            ("it&#39;s&amp;KEY&lt;1&gt;!", "***!"),
            ("it&#x27;s&#038;KEY&lt;1&gt;!", "***!"),
            ("it&#39;s&amp;KEY&l", "***"),
            (r"it\u0027s\u0026KEY\u003c1\u003E!", "***!"),
            ("50%25off-now or 50%2525off-now", "*** or ***"),
            ("it&#39;s&amp;KE", "it&#39;s&amp;KE"),
            (r"it\'s\&another", r"it\'s\&another"),
            ("it&#999;s&KEY<1>", "it&#999;s&KEY<1>"),
        ] {
            assert_eq!(shown(text, &sent), expected, "{text}");
        }
        assert_eq!(shown("key 0123456789abcdef\\\"0", &["0123456789abcdef\"0"]), "key ***");
    }

    #[test]
    fn values_of_query_parameters_are_not_shown_however_many_headers_there_are() {
        let many: Vec<_> = (0..500).map(|number| format!("header-number-{number}")).collect();
        let many = values(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let parameters = ["a%2Fb%3Dc123".to_owned(), "a/b=c123".to_owned(), "short".to_owned()];
        let sent = Sent { headers: &many, parameters: &parameters };
        let text = "Not found: POST /hook?token=a%2Fb%3Dc123 token a/b=c123, short";
        assert_eq!(without(text.to_owned(), sent), "Not found: POST /hook?token=*** token ***, short");
    }

    #[test]
    fn the_work_is_bounded_whatever_was_sent() {
        let many: Vec<_> = (0..500).map(|number| format!("{}{number}", "a".repeat(64))).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let parameters: Vec<_> = many.iter().map(|&text| text.to_owned()).collect();
        let sent = Sent { headers: &values(&many), parameters: &parameters };
        assert_eq!(pieces(sent).len(), PIECES_MAX + PARAMETERS_MAX);
        assert_eq!(shown(&"a".repeat(1 << 16), &many), MASK.repeat((1 << 16) / 64));
    }

    proptest! {
        #[test]
        fn no_credential_shines_through(before in "[ -~ü]{0,20}", sent in "[!-~]{8,40}", after in "[ -~ü]{0,20}") {
            let text = shown(&format!("{before}{sent}{after}"), &[&sent]);
            prop_assert!(before.contains(&sent[..7]) || !text.contains(&sent), "{}", text);
        }

        #[test]
        fn nor_does_one_that_is_escaped(sent in "[!-~]{8,40}", after in "[a-z]{0,20}") {
            let coded = |form: fn(u32) -> String| sent.bytes().map(|byte| form(byte.into())).collect::<String>();
            let json = serde_json::to_string(&sent).expect("a text");
            let json = &json[1..json.len() - 1];
            let spellings = [
                json.to_owned(),
                json.replace('/', "\\/"),
                json.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;"),
                coded(|byte| format!("%{byte:02X}")),
                coded(|byte| format!("&#{byte};")),
                coded(|byte| format!("\\u{byte:04x}")),
                sent.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;").replace('\'', "&#039;"),
                sent.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace('&', "%26"),
            ];
            for text in spellings {
                prop_assert_eq!(shown(&format!("{text} {after}"), &[&sent]), format!("{MASK} {after}"), "{}", text);
            }
        }

        #[test]
        fn no_text_panics_and_what_was_not_sent_stays(text in r"[ -~ü\\%&#;u0-9]{0,80}") {
            prop_assert_eq!(shown(&text, &["ZZZZZZZZZZ"]), text);
        }
    }
}
