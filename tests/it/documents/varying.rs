//! What differs from one run to the next, and the comparison that forgives it and nothing else.
//!
//! Names (ids, receipts, cursors, request ids, instances) stand for what they stood for before: a document that shows the same
//! id twice means the same message twice, and two ids are two messages. Moments and what is measured only have to be there.

use std::collections::BTreeMap;

/// Fields whose numbers are measured; `null` where nothing was measured yet.
const MEASURED: &[&str] = &[
    "duration_ms",
    "uptime_s",
    "latency_ms",
    "oldest_pending_ms",
    "accepted_per_s_1m",
    "accepted_per_s_5m",
    "delivered_per_s_1m",
    "delivered_per_s_5m",
    "mailbox_depth",
    "beat_age_ms",
    "rss_bytes",
    "fds_open",
    "fds_max",
    "cpu_s",
];

/// Why a text differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Id,
    Receipt,
    Cursor,
    /// A request or an instance.
    Origin,
    Moment,
    Measure,
}

/// A piece of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// As it always is.
    Exact(char),
    /// As it was once.
    Varying(Kind, &'a str),
}

/// What the names that a document shows stand for in this run.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    real: BTreeMap<String, String>,
}

impl Names {
    /// A text of the document as it is in this run.
    pub(super) fn real(&self, shown: &str) -> String {
        self.real.iter().fold(shown.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    /// An answer as the document would show it.
    pub(super) fn shown(&self, real: &str) -> String {
        self.real.iter().fold(real.to_owned(), |text, (shown, real)| text.replace(real, shown))
    }

    /// Whether the document's name stands for that one, from now on if it has not been seen before.
    fn stands_for(&mut self, shown: &str, real: &str) -> bool {
        match self.real.get(shown) {
            Some(known) => known == real,
            None if self.real.values().any(|known| known == real) => false,
            None => self.real.insert(shown.to_owned(), real.to_owned()).is_none(),
        }
    }

    /// Whether an answer is what the document shows. Only then new names are learned from it.
    pub(super) fn agree(&mut self, shown: &str, answer: &str) -> bool {
        let (shown, answer) = (in_order(shown), in_order(answer));
        let (shown, answer) = (parts(&shown), parts(&answer));
        let mut names = self.clone();
        let agree = shown.len() == answer.len()
            && shown.iter().zip(&answer).all(|pair| match pair {
                (Part::Exact(one), Part::Exact(other)) => one == other,
                (Part::Varying(one, _), Part::Varying(other, _)) if one != other => false,
                (Part::Varying(Kind::Moment | Kind::Measure, _), Part::Varying(..)) => true,
                (Part::Varying(_, shown), Part::Varying(_, real)) => names.stands_for(shown, real),
                _ => false,
            });
        if agree {
            *self = names;
        }
        agree
    }
}

/// An answer with its headers in an order of their own: that in which they come means nothing.
fn in_order(answer: &str) -> String {
    if !answer.starts_with("HTTP/") {
        return answer.to_owned();
    }
    let (head, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
    let (first, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut headers: Vec<&str> = headers.lines().collect();
    headers.sort_unstable();
    format!("{first}\n{}\n\n{body}", headers.join("\n"))
}

/// A document's answer as it was printed: a line that begins with a blank goes on from the one before, without that blank.
pub(super) fn unwrapped(shown: &str) -> String {
    shown.replace("\n ", "").trim_end().to_owned()
}

/// How a document shows an answer: long lines are broken, after a comma or before a blank if they can be.
pub(super) fn wrapped(answer: &str) -> String {
    const COLUMNS_MAX: usize = 118;
    let mut lines = Vec::new();
    for line in answer.lines() {
        let (mut rest, mut start) = (line, "");
        loop {
            let room = COLUMNS_MAX - start.len();
            let Some((end, _)) = rest.char_indices().nth(room) else { break };
            let comma = [",\"", ",{"].iter().filter_map(|mark| rest[..end].rfind(mark)).max();
            let place =
                comma.map(|at| at + 1).or_else(|| rest[..end].rfind(' ').filter(|at| *at > 0)).unwrap_or(end);
            lines.push(format!("{start}{}", &rest[..place]));
            (rest, start) = (&rest[place..], " ");
        }
        lines.push(format!("{start}{rest}"));
    }
    lines.join("\n")
}

/// The names of messages and receipts in a text: what a command of a document may not contain before an answer has shown it.
pub(super) fn names(text: &str) -> Vec<&str> {
    let named = |part| match part {
        Part::Varying(Kind::Id | Kind::Receipt, name) => Some(name),
        _ => None,
    };
    parts(text).into_iter().filter_map(named).collect()
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut place = 0;
    while let Some(character) = text[place..].chars().next() {
        let (before, rest) = text.split_at(place);
        if let Some((kind, length)) = varying(before, rest) {
            parts.push(Part::Varying(kind, &rest[..length]));
            place += length;
        } else {
            parts.push(Part::Exact(character));
            place += character.len_utf8();
        }
    }
    parts
}

/// What varies at the beginning of `rest`, and how long it is.
fn varying(before: &str, rest: &str) -> Option<(Kind, usize)> {
    let while_it_is = |is: fn(char) -> bool| rest.find(|character| !is(character)).unwrap_or(rest.len());
    let line = while_it_is(|character| character != '\n');
    if line > 0 && before.ends_with("\ndate: ") {
        return Some((Kind::Moment, line));
    }
    let number = while_it_is(|character| character.is_ascii_digit() || character == '.');
    if number > 0 && before.ends_with("\nretry-after: ") {
        return Some((Kind::Measure, number));
    }
    if rest.starts_with('{') && before.ends_with("\"phases_us\":") {
        // Which there are depends on whether the connection was kept.
        return rest.find('}').map(|end| (Kind::Measure, end + 1));
    }
    let number = if rest.starts_with("null") { "null".len() } else { number };
    if number > 0 && MEASURED.iter().any(|field| before.ends_with(&format!("\"{field}\":"))) {
        return Some((Kind::Measure, number));
    }
    let text = while_it_is(|character| character != '"');
    if text > 0 && before.ends_with("\"cursor\":\"") {
        return Some((Kind::Cursor, text));
    }
    if before.ends_with(|character: char| character.is_ascii_alphanumeric()) {
        return None;
    }
    let word = while_it_is(|character| character.is_ascii_alphanumeric() || "-:.".contains(character));
    let word = &rest[..word];
    let is_hex = |text: &str| text.chars().all(|character| matches!(character, '0'..='9' | 'a'..='f'));
    let kind = match word.len() {
        36 if has_shape(word, "xxxxxxxx-xxxx-7xxx-xxxx-xxxxxxxxxxxx") => Kind::Id,
        66 if is_hex(word) => Kind::Receipt,
        16 if is_hex(word) => Kind::Origin,
        24 if has_shape(word, "dddd-dd-ddTdd:dd:dd.dddZ") => Kind::Moment,
        _ => return None,
    };
    Some((kind, word.len()))
}

/// `x` is a hexadecimal digit, `d` a decimal one, all else itself.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.chars().zip(shape.chars()).all(|(character, shape)| match shape {
            'x' => matches!(character, '0'..='9' | 'a'..='f'),
            'd' => character.is_ascii_digit(),
            _ => character == shape,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "HTTP/1.1 202 Accepted\ndate: Sun, 22 Nov 2026 23:37:26 GMT\nretry-after: 2\n\n\
        {\"id\":\"019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400\",\"at\":\"2026-11-22T23:37:24.205Z\",\"duration_ms\":31,\"n\":7}";

    #[test]
    fn what_varies_is_forgiven_and_nothing_else() {
        let mut names = Names::default();
        let real = SHOWN
            .replace("019f0c1e-5e3a", "01a2059f-27ca")
            .replace("23:37", "01:02")
            .replace("after: 2", "after: 13")
            .replace(":31", ":0");
        assert!(names.agree(SHOWN, &real));
        assert_eq!(
            names.real("x/019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400"),
            "x/01a2059f-27ca-7c4d-9b21-3f6a52e8d400"
        );
        assert_eq!(
            names.shown("01a2059f-27ca-7c4d-9b21-3f6a52e8d400"),
            "019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400"
        );
        for (right, wrong) in [
            ("\"n\":7", "\"n\":8"),
            ("\"n\":7", "\"n\":7,\"m\":1"),
            ("202", "200"),
            ("\"duration_ms\":0", "\"duration_ms\":\"0\""),
            ("\"id\"", "\"identity\""),
            (".205Z", "Z"),
            ("-7c4d", "-4c4d"),
            ("01a2059f", "01a20590"),
        ] {
            assert!(real.contains(right), "{right}");
            assert!(!names.agree(SHOWN, &real.replace(right, wrong)), "{wrong}");
        }
        let swapped = "\"n\":7,\"id\":\"019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400\"";
        assert!(
            !names.agree(swapped, "\"id\":\"01a2059f-27ca-7c4d-9b21-3f6a52e8d400\",\"n\":7"),
            "order counts"
        );
    }

    #[test]
    fn a_name_stands_for_one_thing() {
        let (one, other) = ("019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400", "019f0c1e-5e3a-7c4d-9b21-3f6a52e8d401");
        let (first, second) =
            ("01a2059f-27ca-71d8-a101-cb48c6791800", "01a2059f-27ca-71d8-a101-cb48c6791801");
        let mut names = Names::default();
        assert!(!names.agree(&format!("{one} {one}"), &format!("{first} {second}")));
        assert!(!names.agree(&format!("{one} {other}"), &format!("{first} {first}")));
        assert!(names.agree(&format!("{one} {other}"), &format!("{first} {second}")));
        assert!(!names.agree(other, first));
        assert_eq!(super::names(&format!("curl x/{one}")), [one]);
    }

    #[test]
    fn measures_may_be_missing_and_names_have_kinds() {
        let mut names = Names::default();
        assert!(names.agree("{\"oldest_pending_ms\":12}", "{\"oldest_pending_ms\":null}"));
        assert!(!names.agree("{\"oldest_pending\":12}", "{\"oldest_pending\":null}"));
        assert!(names.agree("\"phases_us\":{\"connect\":4,\"wait\":2},", "\"phases_us\":{\"wait\":31},"));
        assert!(!names.agree("\"phases_us\":{\"wait\":2},", "\"phases_us\":null,"));
        assert!(!names.agree("\"5be0a3d1c2f94e67\"", "\"019f0c1e-5e3a-7c4d-9b21-3f6a52e8d400\""));
        assert!(names.agree("{\"cursor\":\"MWEy\"}", "{\"cursor\":\"b\"}"));
    }

    #[test]
    fn headers_may_come_in_any_order() {
        let (one, other) = ("HTTP/1.1 200 OK\na: 1\nb: 2\n\nbody", "HTTP/1.1 200 OK\nb: 2\na: 1\n\nbody");
        assert!(Names::default().agree(one, other));
        assert!(!Names::default().agree(one, &other.replace("a: 1", "a: 2")));
        assert!(!Names::default().agree(one, &other.replace("a: 1\n", "a: 1\nc: 3\n")));
        assert!(Names::default().agree("HTTP/1.1 204\nb: 1\na: 2", "HTTP/1.1 204\na: 2\nb: 1"));
        assert!(!Names::default().agree("a\nb\n\nc", "b\na\n\nc"), "only headers");
    }

    #[test]
    fn a_wrapped_line_is_one() {
        assert_eq!(
            unwrapped("a: 1\n\n{\"a\":1,\n \"b\":\"long\n  text\"}\n"),
            "a: 1\n\n{\"a\":1,\"b\":\"long text\"}"
        );
    }
}
