//! Where one request of a connection ends and the next one begins.
//!
//! The server decodes all that it is given, and writes an answer by the head that it decoded last: the method, version and
//! `Connection` of a request behind the one that is answered. So it is given one request at a time, and this finds its end.
//!
//! Nothing is judged here. A head ends at its first empty line; what follows it is what the server says when it has decoded it.
//! Until then as much as its `Content-Length` seems to say is taken along, so that a request that comes in one piece stays in one.

use std::io::BufRead as _;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const UPGRADE: &[u8] = b"upgrade:";

/// What follows the head of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Follows {
    /// No body.
    Nothing,
    /// A body of so many bytes.
    Length(u64),
    /// A body in chunks.
    Chunks,
    /// A body without an end: nothing is behind it.
    Anything,
}

/// Where in its requests a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing(Part);

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Part {
    Head(Head),
    Unsaid(Unsaid),
    /// So many bytes of a body, at least one.
    Length(u64),
    Chunks(Chunks),
    /// Another request: this one is whole.
    Next,
    /// Nobody knows: all of it is for the server.
    Anything,
}

impl Default for Framing {
    fn default() -> Self {
        Self(Part::Head(Head { line: Line::Before, length: 0, is_upgrade: false }))
    }
}

impl Framing {
    /// How many of these bytes belong to the request under way: at least one where more of it is [wanted](Self::wants_more).
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.wants_more() {
            taken += self.step(&bytes[taken..]);
        }
        taken
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        match &mut self.0 {
            Part::Head(head) => {
                let (count, is_whole) = head.take(bytes);
                if is_whole {
                    // Where another protocol is asked for, a length may not be one.
                    let length = if head.is_upgrade { 0 } else { head.length };
                    self.0 = Part::Unsaid(Unsaid { length, given: 0, is_overdue: false });
                }
                count
            }
            Part::Unsaid(unsaid) => {
                let count = at_most(bytes, unsaid.length - unsaid.given);
                unsaid.given += count as u64;
                count
            }
            Part::Length(left) => {
                let count = at_most(bytes, *left);
                self.0 = after(Follows::Length(*left - count as u64));
                count
            }
            Part::Chunks(chunks) => {
                let (count, is_whole) = chunks.take(bytes);
                if is_whole {
                    self.0 = Part::Next;
                }
                count
            }
            Part::Next => 0,
            Part::Anything => bytes.len(),
        }
    }

    /// Whether the bytes that come next belong to the request under way, as far as that is known.
    pub(super) fn wants_more(&self) -> bool {
        match self.0 {
            Part::Unsaid(unsaid) => unsaid.given < unsaid.length,
            Part::Next => false,
            Part::Head(_) | Part::Length(_) | Part::Chunks(_) | Part::Anything => true,
        }
    }

    /// Whether the request under way was taken to its end.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.0, Part::Next)
    }

    /// The head was decoded, and this follows it.
    pub(super) fn say(&mut self, follows: Follows) {
        self.0 = match (self.0, follows) {
            (Part::Anything, _) => Part::Anything,
            (Part::Unsaid(unsaid), Follows::Length(length)) => {
                after(Follows::Length(length.saturating_sub(unsaid.given)))
            }
            (_, follows) => after(follows),
        };
    }

    /// The server was given all that it wants, and looks at it now. Gives whether what follows the head is still to be said: it
    /// is when the server looks. Where it was not, it takes this for no head or wants no more requests, and gets all there is.
    pub(super) fn is_left(&mut self) -> bool {
        let Part::Unsaid(unsaid) = &mut self.0 else { return false };
        unsaid.is_overdue = true;
        true
    }

    /// More is asked for.
    pub(super) fn is_asked(&mut self) {
        if matches!(self.0, Part::Unsaid(unsaid) if unsaid.is_overdue) {
            self.0 = Part::Anything;
        }
    }
}

fn after(follows: Follows) -> Part {
    match follows {
        Follows::Nothing | Follows::Length(0) => Part::Next,
        Follows::Length(length) => Part::Length(length),
        Follows::Chunks => Part::Chunks(Chunks::Size(0)),
        Follows::Anything => Part::Anything,
    }
}

fn at_most(bytes: &[u8], count: u64) -> usize {
    usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()))
}

/// The bytes up to the first line end and with it; all of them where there is none.
fn line_of(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').expect("memory is read without an error");
    &bytes[..length]
}

/// What is behind a header's name and its colon, where this is its line.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

/// A head that is not whole.
#[derive(Clone, Copy, Debug)]
struct Head {
    line: Line,
    /// What its `Content-Length` seems to say; 0 where it was not seen, as one that came in two pieces is not.
    length: u64,
    /// Another protocol is asked for.
    is_upgrade: bool,
}

/// Where in its lines a head is.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// Before the first one: empty lines there are skipped.
    Before,
    /// At the start of another one.
    Start,
    /// The same behind a `\r`.
    Return,
    /// In the middle of one.
    Within,
}

impl Head {
    /// How many bytes belong to it, and whether it is whole with them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            taken += match (self.line, byte) {
                (Line::Before, b'\r' | b'\n') => 1,
                (Line::Start, b'\r') => {
                    self.line = Line::Return;
                    1
                }
                (Line::Start | Line::Return, b'\n') => return (taken + 1, true),
                _ => self.take_line(line_of(&bytes[taken..])),
            };
        }
        (taken, false)
    }

    fn take_line(&mut self, line: &[u8]) -> usize {
        if line.ends_with(b"\n") {
            if !matches!(self.line, Line::Within) {
                if let Some(value) = value_of(line, CONTENT_LENGTH) {
                    let value = str::from_utf8(value.trim_ascii()).ok();
                    self.length = value.and_then(|value| value.parse().ok()).unwrap_or(0);
                }
                self.is_upgrade |= value_of(line, UPGRADE).is_some();
            }
            self.line = Line::Start;
        } else {
            self.line = Line::Within;
        }
        line.len()
    }
}

/// A head is whole, and the server has not said what follows it.
#[derive(Clone, Copy, Debug)]
struct Unsaid {
    /// What the head seems to say.
    length: u64,
    /// How much of that was taken.
    given: u64,
    /// The server should have said it.
    is_overdue: bool,
}

/// Where in its chunks a body is.
#[derive(Clone, Copy, Debug)]
enum Chunks {
    /// In a size, which is this so far.
    Size(u64),
    /// Behind a size, on its line.
    Extension(u64),
    /// So many bytes before the end of a chunk, at least one.
    Data(u64),
    /// On the line end behind a chunk.
    DataEnd,
    /// At the start of a line behind the last chunk: an empty one is the end.
    Last,
    /// The same behind a `\r`.
    LastReturn,
    /// In a trailer.
    Trailer,
    /// The same behind a `\r`.
    TrailerReturn,
}

impl Chunks {
    /// How many bytes belong to it, and whether it is whole with them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            if let Self::Data(left) = *self {
                let count = at_most(&bytes[taken..], left);
                taken += count;
                let left = left - count as u64;
                *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                continue;
            }
            taken += 1;
            if matches!(self, Self::LastReturn) {
                return (taken, true);
            }
            *self = self.after(*byte);
        }
        (taken, false)
    }

    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size(0) | Self::Extension(0), b'\n') | (Self::TrailerReturn, _) => Self::Last,
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size),
            (Self::Size(size), byte) => {
                char::from(byte).to_digit(16).map_or(Self::Extension(size), |digit| {
                    Self::Size(size.saturating_mul(16).saturating_add(digit.into()))
                })
            }
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::Last, b'\r') => Self::LastReturn,
            (Self::Trailer, b'\r') => Self::TrailerReturn,
            (Self::Last, _) => Self::Trailer,
            (other, _) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Requests, and what the server says of each.
    const REQUESTS: &[(&str, Follows)] = &[
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Follows::Nothing),
        ("HEAD / HTTP/1.0\n\n", Follows::Nothing),
        ("\r\n\nGET / HTTP/1.1\r\nHost: x\n\r\n", Follows::Nothing),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", Follows::Nothing),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\n\r\n\r\n", Follows::Length(5)),
        ("POST / HTTP/1.1\r\ncontent-LENGTH:3 \nHost: x\r\n\r\nabc", Follows::Length(3)),
        ("POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 14\r\n\r\nGET / HTTP/1.1", Follows::Length(14)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Follows::Chunks),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1A;x=y\r\nabcdefghijklmnopqrstuvwx\r\n\r\n2 \r\n\r\n\r\n00\r\n\r\n",
            Follows::Chunks,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nDigest: x\r\nA: \r\n\r\n",
            Follows::Chunks,
        ),
    ];

    /// What is taken as one request of what comes in pieces, with the server's word where it is due.
    fn take_one(framing: &mut Framing, bytes: &[u8], piece: usize, follows: Follows) -> usize {
        let mut taken = 0;
        let mut is_said = false;
        loop {
            framing.is_asked();
            let end = bytes.len().min(taken + piece);
            let count = framing.take(&bytes[taken..end]);
            taken += count;
            if framing.is_whole() || (count == 0 && taken == bytes.len()) {
                return taken;
            }
            if framing.is_left() {
                assert!(!std::mem::replace(&mut is_said, true), "it was said");
                framing.say(follows);
            }
        }
    }

    proptest! {
        #[test]
        fn every_request_is_taken_to_its_end_and_no_further(
            requests in vec(select(REQUESTS), 1..8),
            piece in 1..200_usize,
        ) {
            let all: String = requests.iter().map(|(text, _)| *text).collect();
            let mut rest = all.as_bytes();
            for (text, follows) in requests {
                let mut framing = Framing::default();
                prop_assert_eq!(take_one(&mut framing, rest, piece, follows), text.len(), "{:?}", text);
                rest = &rest[text.len()..];
            }
        }
    }

    #[test]
    fn a_body_in_one_piece_with_its_head_is_taken_with_it() {
        for (text, follows) in REQUESTS {
            let both = format!("{text}GET / HTTP/1.1\r\n");
            let taken = Framing::default().take(both.as_bytes());
            if matches!(follows, Follows::Chunks) {
                assert!(text[..taken].ends_with("\r\n\r\n"), "up to the end of its head: {text:?}");
            } else {
                assert_eq!(taken, text.len(), "{text:?}");
            }
        }
    }

    #[test]
    fn where_another_protocol_is_asked_for_nothing_is_taken_along() {
        let head = b"POST / HTTP/1.1\r\nupgrade: websocket\r\nContent-Length: 3\r\n\r\n";
        let mut framing = Framing::default();
        assert_eq!(framing.take(&[&head[..], &[b'x'; 1_000]].concat()), head.len());
        framing.say(Follows::Anything);
        assert_eq!(framing.take(&[b'x'; 1_000]), 1_000);
    }

    #[test]
    fn what_the_server_says_counts_and_not_what_seems() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        for (follows, wanted) in [
            (Follows::Nothing, 0),
            (Follows::Length(2), 0),
            (Follows::Length(9), 6),
            (Follows::Anything, 1_000),
        ] {
            let mut framing = Framing::default();
            assert_eq!(framing.take(&[&head[..], &[b'x'; 1_000]].concat()), head.len() + 3);
            framing.say(follows);
            assert_eq!(framing.take(&[b'x'; 1_000]), wanted, "{follows:?}");
        }
    }

    #[test]
    fn who_does_not_say_what_follows_a_head_gets_all_there_is() {
        let mut framing = Framing::default();
        let bytes = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!((framing.take(bytes), framing.wants_more()), (18, false));
        framing.is_asked();
        assert_eq!(framing.take(&bytes[18..]), 0, "nobody had time to");
        assert!(framing.is_left());
        framing.is_asked();
        assert_eq!(framing.take(&bytes[18..]), 18);
        framing.say(Follows::Nothing);
        assert_eq!(framing.take(bytes), 36, "for good");
    }
}
