//! A walk over JSON text (RFC 8259): finds where values end, and whether they are valid, without building anything.
//!
//! It goes on its own stack, so that no depth of the text is a depth of the program, and gives others a turn after each
//! [`Pace::BYTES`], be they those of one value.

use std::ops::Range;

use crate::http::pace::Pace;

/// Levels of arrays and objects in a value: as many as in every other JSON that the gateway reads.
pub(super) const LEVELS_MAX: usize = 128;
/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes up to the first one that is more than a byte of a string: its end, an escape, or a control character.
fn plain(piece: &[u8]) -> usize {
    let run = memchr::memchr2(b'"', b'\\', piece).unwrap_or(piece.len());
    let is_control = |byte: &u8| *byte < 0x20;
    // Seldom there, and so looked for by a loop that goes over many bytes at once.
    let has_control = piece[..run].iter().fold(false, |has, byte| has | is_control(byte));
    if has_control { piece.iter().position(is_control).unwrap_or(run) } else { run }
}

/// Text that is no JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoJson {
    /// The byte at which that is seen, from 0.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) what: &'static str,
}

/// A place in a text.
pub(super) struct Walk<'t> {
    text: &'t [u8],
    at: usize,
    levels_max: usize,
    /// What closes each array and object that is open.
    open: Vec<u8>,
}

impl<'t> Walk<'t> {
    /// Begins at the start of a text whose values have at most so many levels.
    pub(super) fn new(text: &'t [u8], levels_max: usize) -> Self {
        Self { text, at: 0, levels_max, open: Vec::new() }
    }

    /// Where it is, a byte of the text from 0.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A part of the text.
    pub(super) fn part(&self, range: Range<usize>) -> &'t [u8] {
        &self.text[range]
    }

    /// The next byte; `None` at the end.
    pub(super) fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Goes past the next byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// That something else was to be here.
    pub(super) fn wrong(&self, what: &'static str) -> NoJson {
        let what = match self.next() {
            None => "it ends too early",
            Some(0xef) if self.at == 0 && self.text.starts_with(BYTE_ORDER_MARK) => {
                "it begins with a byte order mark: leave that out"
            }
            Some(_) => what,
        };
        NoJson { at: self.at, what }
    }

    /// Goes past blanks.
    pub(super) async fn blanks(&mut self, pace: &mut Pace) {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.run(is_blank, pace).await;
    }

    /// Goes past one value; gives where it is.
    pub(super) async fn value(&mut self, pace: &mut Pace) -> Result<Range<usize>, NoJson> {
        let start = self.at;
        self.open.clear();
        loop {
            self.blanks(pace).await;
            match self.next() {
                Some(b'{') => {
                    self.enter(b'}')?;
                    self.blanks(pace).await;
                    if self.next() != Some(b'}') {
                        self.key(pace).await?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(b']')?;
                    self.blanks(pace).await;
                    if self.next() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string(pace).await?;
                }
                Some(b'-' | b'0'..=b'9') => self.number(pace).await?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.wrong("a value is expected")),
            }
            if self.leave(pace).await? {
                return Ok(start..self.at);
            }
        }
    }

    fn enter(&mut self, close: u8) -> Result<(), NoJson> {
        if self.open.len() == self.levels_max {
            return Err(self.wrong("it has more than 128 levels"));
        }
        self.open.push(close);
        self.at += 1;
        Ok(())
    }

    /// Behind a value: goes on to the next one, or out of what ends here; gives whether that was all.
    async fn leave(&mut self, pace: &mut Pace) -> Result<bool, NoJson> {
        loop {
            let Some(&close) = self.open.last() else { return Ok(true) };
            self.blanks(pace).await;
            if self.take(close) {
                self.open.pop();
                // So that a thousand ends in a row give turns as well.
                pace.spend(1).await;
            } else if self.take(b',') {
                if close == b'}' {
                    self.blanks(pace).await;
                    self.key(pace).await?;
                }
                return Ok(false);
            } else if close == b'}' {
                return Err(self.wrong("a comma or } is expected"));
            } else {
                return Err(self.wrong("a comma or ] is expected"));
            }
        }
    }

    /// Goes past a name and its colon; gives where the name is, with its quotes.
    pub(super) async fn key(&mut self, pace: &mut Pace) -> Result<Range<usize>, NoJson> {
        if self.next() != Some(b'"') {
            return Err(self.wrong("a name in double quotes is expected"));
        }
        let name = self.string(pace).await?;
        self.blanks(pace).await;
        if self.take(b':') { Ok(name) } else { Err(self.wrong("a colon is expected")) }
    }

    async fn string(&mut self, pace: &mut Pace) -> Result<Range<usize>, NoJson> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let piece = &rest[..rest.len().min(Pace::BYTES)];
            let run = plain(piece);
            let valid = match std::str::from_utf8(&piece[..run]) {
                Ok(_) => run,
                // The end of the piece may be in the middle of a character.
                Err(error) if error.error_len().is_none() && run == piece.len() && run < rest.len() => {
                    error.valid_up_to()
                }
                Err(error) => {
                    self.at += error.valid_up_to();
                    return Err(NoJson { at: self.at, what: "it is not UTF-8" });
                }
            };
            self.at += valid;
            pace.spend(valid + 1).await;
            if valid < run || (run == piece.len() && run < rest.len()) {
                continue;
            }
            match piece.get(run) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                Some(b'\\') => {
                    let (_, length) =
                        escape(&self.text[self.at..]).map_err(|what| NoJson { at: self.at, what })?;
                    self.at += length;
                }
                _ => return Err(self.wrong("a control character in a string: write it as an escape")),
            }
        }
    }

    async fn number(&mut self, pace: &mut Pace) -> Result<(), NoJson> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits(pace).await?;
        }
        if self.take(b'.') {
            self.digits(pace).await?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits(pace).await?;
        }
        Ok(())
    }

    async fn digits(&mut self, pace: &mut Pace) -> Result<(), NoJson> {
        let start = self.at;
        self.run(u8::is_ascii_digit, pace).await;
        if self.at > start { Ok(()) } else { Err(self.wrong("a digit is expected")) }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), NoJson> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.wrong("a value is expected"))
    }

    /// Goes past all bytes of a kind.
    async fn run(&mut self, is_of_kind: impl Fn(&u8) -> bool, pace: &mut Pace) {
        loop {
            let rest = &self.text[self.at..];
            let piece = &rest[..rest.len().min(Pace::BYTES)];
            let run = piece.iter().position(|byte| !is_of_kind(byte)).unwrap_or(piece.len());
            self.at += run;
            if run > 0 {
                pace.spend(run).await;
            }
            if run < Pace::BYTES {
                return;
            }
        }
    }
}

/// The character that an escape at the start of a text stands for, and the escape's length.
fn escape(text: &[u8]) -> Result<(char, usize), &'static str> {
    let plain = match text.get(1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(text),
        Some(_) => return Err("an escape that JSON does not have"),
        None => return Err("it ends too early"),
    };
    Ok((plain, 2))
}

fn unicode(text: &[u8]) -> Result<(char, usize), &'static str> {
    const LONE: &str = "a lone surrogate: \\ud800 to \\udfff stand for a character only in pairs";
    let first = unit(text).ok_or("four hexadecimal digits are expected behind \\u")?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 6));
    }
    let second = text.get(6..).and_then(unit).filter(|unit| (0xdc00..0xe000).contains(unit)).ok_or(LONE)?;
    let high = first.checked_sub(0xd800).filter(|high| *high < 0x400).ok_or(LONE)?;
    let character = char::from_u32(0x1_0000 + (high << 10) + (second - 0xdc00)).ok_or(LONE)?;
    Ok((character, 12))
}

/// The number behind `\u`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// The text that a valid string stands for; `raw` is what is between its quotes.
pub(super) async fn unescape(raw: &[u8], pace: &mut Pace) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while !rest.is_empty() {
        let piece = &rest[..rest.len().min(Pace::BYTES)];
        let run = piece.iter().position(|byte| *byte == b'\\').unwrap_or(piece.len());
        text.extend_from_slice(&piece[..run]);
        rest = &rest[run..];
        pace.spend(run + 1).await;
        if run < piece.len() {
            let (character, length) = escape(rest).expect("a valid string has valid escapes");
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[length..];
        }
    }
    text
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
