//! Data and talk: data goes to stdout, talk to stderr, and only a terminal sees colours.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::cli::{Exit, Failure};

/// What is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What wants a look.
pub(super) const ODD: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// What a reader looks for first.
pub(super) const STRONG: Style = Style::new().bold();
/// Like the text around it.
pub(super) const PLAIN: Style = Style::new();

/// Talk: to stderr. Where that is closed there is nobody to tell.
pub(super) fn say(words: &str) {
    drop(writeln!(anstream::stderr().lock(), "posthaste: {words}"));
}

/// Data: to stdout, at once.
///
/// # Errors
/// What cannot be written. A reader who has seen enough, as in `| head`, is no failure: the command ends silently, with 0.
pub(super) fn give(data: &str) -> Result<(), Failure> {
    give_bytes(data.as_bytes())
}

/// The same for what may be no text.
pub(super) fn give_bytes(data: &[u8]) -> Result<(), Failure> {
    written(write(io::stdout().lock(), data))
}

/// Data with colours, which only a terminal sees, and none when `NO_COLOR` is set.
pub(super) fn give_styled(data: &str) -> Result<(), Failure> {
    written(write(anstream::stdout().lock(), data.as_bytes()))
}

/// A JSON document, on a line of its own.
pub(super) fn give_json(document: &str) -> Result<(), Failure> {
    give(&format!("{}\n", document.trim_end()))
}

fn write(mut stdout: impl Write, data: &[u8]) -> io::Result<()> {
    stdout.write_all(data)?;
    stdout.flush()
}

/// What the end of writing to stdout means for a command.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(Exit::Done),
        _ => Failure::failed(format!("stdout cannot be written: {error}")),
    })
}

/// A text in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Whether a character turns the direction of what follows (Unicode, annex 9): a table would show the rest of its row turned.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of strangers on one line, without what a terminal would take for an order.
pub(super) fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            tame.extend(character.escape_default());
        } else {
            tame.push(character);
        }
    }
    tame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_give_a_terminal_no_orders() {
        assert_eq!(tame("a\u{1b}[2Jb\nc\u{9b}"), "a\\u{1b}[2Jb\\nc\\u{9b}");
        assert_eq!(tame("a\u{202e}b\u{2066}c\u{2069}\u{200f}"), "a\\u{202e}b\\u{2066}c\\u{2069}\\u{200f}");
        assert_eq!(tame("grün, 17 €, שלום"), "grün, 17 €, שלום");
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure() {
        let ended = written(Err(io::ErrorKind::BrokenPipe.into())).expect_err("it ends");
        assert_eq!((ended.exit, ended.words.as_str()), (Exit::Done, ""));
        let full = written(Err(io::ErrorKind::StorageFull.into())).expect_err("it fails");
        assert_eq!(full.exit, Exit::Failed);
    }
}
