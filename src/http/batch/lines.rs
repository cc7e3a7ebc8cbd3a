//! A batch as NDJSON: one payload a line.
//!
//! A line ends with LF, with CRLF, or with the body. The CR before the LF belongs to the end of the line; every other byte
//! of a line is one of the payload, blanks at its ends included. A line of blanks alone is none.

use std::ops::Range;

use crate::http::batch::walk::{LEVELS_MAX, NoJson, Walk};
use crate::http::pace::Pace;

/// One line: its number from 1, where it is, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number in the body, blank lines counted.
    pub(super) number: u64,
    /// Its bytes in the body, without its end.
    pub(super) range: Range<usize>,
    /// Whether it is JSON.
    pub(super) judged: Result<(), NoJson>,
}

/// The lines of a body that are not blank.
pub(super) struct Lines<'b> {
    body: &'b [u8],
    at: usize,
    number: u64,
}

impl<'b> Lines<'b> {
    /// Of this body.
    pub(super) fn new(body: &'b [u8]) -> Self {
        Self { body, at: 0, number: 0 }
    }

    /// The next one; `None` at the end.
    pub(super) async fn next(&mut self, pace: &mut Pace) -> Option<Line> {
        while self.at < self.body.len() {
            let range = self.cut(pace).await;
            self.number += 1;
            let line = &self.body[range.clone()];
            let mut walk = Walk::new(line, LEVELS_MAX);
            walk.blanks(pace).await;
            if walk.next().is_none() {
                pace.spend(1).await;
                continue;
            }
            let judged = judge(&mut walk, pace).await;
            return Some(Line { number: self.number, range, judged });
        }
        None
    }

    /// Goes past the next line and its end.
    async fn cut(&mut self, pace: &mut Pace) -> Range<usize> {
        let start = self.at;
        let mut end = self.body.len();
        while self.at < self.body.len() {
            let rest = &self.body[self.at..];
            let piece = &rest[..rest.len().min(Pace::BYTES)];
            if let Some(place) = piece.iter().position(|byte| *byte == b'\n') {
                end = self.at + place;
                self.at = end + 1;
                break;
            }
            self.at += piece.len();
            pace.spend(piece.len()).await;
        }
        if self.body[start..end].ends_with(b"\r") {
            end -= 1;
        }
        start..end
    }
}

async fn judge(walk: &mut Walk<'_>, pace: &mut Pace) -> Result<(), NoJson> {
    walk.value(pace).await?;
    walk.blanks(pace).await;
    match walk.next() {
        None => Ok(()),
        Some(_) => Err(walk.wrong("one value a line: something follows it")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::http::batch::tests::block_on;

    /// The payloads, or the number of the first line that is none with what is wrong.
    fn split(body: &[u8]) -> Result<Vec<&[u8]>, (u64, NoJson)> {
        block_on(async {
            let (mut lines, mut pace, mut found) = (Lines::new(body), Pace::default(), Vec::new());
            while let Some(line) = lines.next(&mut pace).await {
                line.judged.map_err(|wrong| (line.number, wrong))?;
                found.push(&body[line.range]);
            }
            Ok(found)
        })
    }

    #[test]
    fn every_byte_of_a_line_is_kept_but_its_end() {
        for (body, expected) in [
            (&b""[..], &[][..]),
            (b"\n \r\n\t\n\r", &[]),
            (b"1", &[&b"1"[..]]),
            (b"1\n", &[b"1"]),
            (b"1\r\n2\n\n3\r", &[b"1", b"2", b"3"]),
            (b" {\"a\" : 1}\t\n\r\r\n[ ]", &[b" {\"a\" : 1}\t", b"[ ]"]),
            (b"1\r\r\n", &[b"1\r"]),
            (b"{\"a\":1,\"a\":2}", &[b"{\"a\":1,\"a\":2}"]),
            (b"1e999", &[b"1e999"]),
            (b"\"\\ud83d\\ude00\"", &[b"\"\\ud83d\\ude00\""]),
        ] {
            assert_eq!(split(body).as_deref(), Ok(expected), "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn what_is_no_json_is_named_by_its_line() {
        for (body, number, at, words) in [
            (&b"1\n\n{\n}"[..], 3, 1, "too early"),
            (b"1 2", 1, 2, "something follows"),
            (b"1\r2", 1, 2, "something follows"),
            (b"\xef\xbb\xbf1", 1, 0, "byte order mark"),
            (b"1\n\"\\ud800\"", 2, 1, "lone surrogate"),
            (b"\"a\xff\"", 1, 2, "not UTF-8"),
            (b"\"\xc3\"", 1, 1, "not UTF-8"),
            (b"\"a\tb\"", 1, 2, "control character"),
            (b"\x00", 1, 0, "a value"),
            (b"{}\n\x0b", 2, 0, "a value"),
        ] {
            let (found, wrong) = split(body).expect_err("no JSON");
            assert_eq!((found, wrong.at), (number, at), "{:?}", String::from_utf8_lossy(body));
            assert!(wrong.what.contains(words), "{wrong:?}");
        }
        let deep = "[".repeat(129) + &"]".repeat(129);
        assert!(split(deep.as_bytes()).expect_err("too deep").1.what.contains("128 levels"));
        let deep = "[".repeat(128) + &"]".repeat(128);
        assert_eq!(split(deep.as_bytes()), Ok(vec![deep.as_bytes()]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(split(&body));
        }

        #[test]
        fn what_was_joined_is_split(
            texts in prop::collection::vec(".{0,20}", 0..20),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\n\n", "\n \t\r\n"]), 20),
        ) {
            let lines: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
            let body: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let expected: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
            prop_assert_eq!(split(body.as_bytes()), Ok(expected));
        }
    }
}
