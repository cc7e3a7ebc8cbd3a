//! A batch as NDJSON: one payload a line, taken out of the body as it comes.
//!
//! A line ends with LF, with CRLF, or with the body. The CR before the LF belongs to the end of the line; every other byte
//! of a line is one of the payload, blanks at its ends included. A line of blanks alone is none.
//!
//! A line that lies in one chunk is a part of it; only one whose end did not come with its beginning is put together.

use ::bytes::{Bytes, BytesMut};

use crate::http::batch::walk::{LEVELS_MAX, NoJson, Walk};
use crate::http::pace::Pace;

/// One line: its number from 1, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number in the body, blank lines counted.
    pub(super) number: u64,
    /// Its bytes, without its end.
    pub(super) bytes: Bytes,
    /// Whether it is JSON.
    pub(super) judged: Result<(), NoJson>,
}

/// The lines of a body that are not blank.
#[derive(Default)]
pub(super) struct Lines {
    /// What came and is not cut yet.
    chunk: Bytes,
    /// The beginning of a line whose end did not come yet.
    begun: BytesMut,
    number: u64,
}

impl Lines {
    /// Takes the next chunk of the body, once all lines of the last one were taken.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    /// The next line that came whole; `None` when there is none until more comes.
    pub(super) async fn next(&mut self, pace: &mut Pace) -> Option<Line> {
        while let Some(bytes) = self.cut(pace).await {
            if let Some(line) = self.judge(bytes, pace).await {
                return Some(line);
            }
        }
        None
    }

    /// The line that ends with the body, which came to its end.
    pub(super) async fn last(&mut self, pace: &mut Pace) -> Option<Line> {
        let bytes = std::mem::take(&mut self.begun).freeze();
        if bytes.is_empty() { None } else { self.judge(bytes, pace).await }
    }

    /// Goes past the next line and its LF, or keeps what has none yet.
    async fn cut(&mut self, pace: &mut Pace) -> Option<Bytes> {
        let mut at = 0;
        while at < self.chunk.len() {
            let rest = &self.chunk[at..];
            let piece = &rest[..rest.len().min(Pace::BYTES)];
            let Some(place) = memchr::memchr(b'\n', piece) else {
                at += piece.len();
                pace.spend(piece.len()).await;
                continue;
            };
            let end = at + place;
            let mut line = self.chunk.split_to(end + 1);
            line.truncate(end);
            if !self.begun.is_empty() {
                self.begun.extend_from_slice(&line);
                line = std::mem::take(&mut self.begun).freeze();
            }
            return Some(line);
        }
        self.begun.extend_from_slice(&std::mem::take(&mut self.chunk));
        None
    }

    /// Counts a line; gives it unless it is blank.
    async fn judge(&mut self, mut bytes: Bytes, pace: &mut Pace) -> Option<Line> {
        self.number += 1;
        if bytes.ends_with(b"\r") {
            bytes.truncate(bytes.len() - 1);
        }
        let mut walk = Walk::new(&bytes, LEVELS_MAX);
        walk.blanks(pace).await;
        if walk.next().is_none() {
            pace.spend(1).await;
            return None;
        }
        let judged = judge(&mut walk, pace).await;
        Some(Line { number: self.number, bytes, judged })
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

    /// The lines of a body that comes in these chunks.
    fn lines<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> Vec<Line> {
        block_on(async {
            let (mut lines, mut pace, mut found) = (Lines::default(), Pace::default(), Vec::new());
            for chunk in chunks {
                lines.feed(Bytes::copy_from_slice(chunk));
                while let Some(line) = lines.next(&mut pace).await {
                    found.push(line);
                }
            }
            found.extend(lines.last(&mut pace).await);
            found
        })
    }

    /// The payloads, or the number of the first line that is none with what is wrong.
    fn split(body: &[u8]) -> Result<Vec<Bytes>, (u64, NoJson)> {
        lines([body])
            .into_iter()
            .map(|line| line.judged.map(|()| line.bytes).map_err(|no| (line.number, no)))
            .collect()
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
            let expected = expected.iter().map(|line| Bytes::from_static(line)).collect();
            assert_eq!(split(body), Ok(expected), "{:?}", String::from_utf8_lossy(body));
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
        assert_eq!(split(deep.as_bytes()), Ok(vec![Bytes::copy_from_slice(deep.as_bytes())]));
    }

    /// A body of the bytes that lines are about.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"\n\n\r \"[]1,a\xc3\xa4".as_slice()), 0..60)
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_body_is_cut(body in bodies(), cuts in prop::collection::vec(0..60_usize, 0..6)) {
            let whole = lines([&body[..]]);
            prop_assert_eq!(&lines(body.chunks(1)), &whole, "byte by byte");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|ends| &body[ends[0]..ends[1]]);
            prop_assert_eq!(lines(chunks), whole);
        }

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
            let expected = lines.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(split(body.as_bytes()), Ok(expected));
        }
    }
}
