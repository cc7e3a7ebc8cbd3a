//! The README's commands, typed as they stand, and the output it promises for each.
//!
//! Every line of a `sh` block that begins with `curl` or `posthaste` is run; what the port and the folder of the running gateway need
//! is put in its place. A block without a language right after a `sh` block is what its last command prints. There `…`
//! stands for any text, after a word with a digit for the rest of that word; white space does not count, so that a long
//! line may be wrapped. Such a word (`01…`, an id) is remembered with what it stood for, and means that in later commands;
//! so does `RECEIPT`, what `"receipt":"…"` stood for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Block, blocks, commands};
use crate::support::command;
use crate::support::gateway::{Gateway, Home};
use crate::support::stores::on_both_stores;

/// Where the README says the gateway listens.
const LISTEN: &str = "127.0.0.1:8080";
/// How long a command that only reads may take to show what is promised: what it shows may still be under way.
const WITHIN: Duration = Duration::from_secs(20);

/// A piece of a promise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// This character.
    Character(char),
    /// `…` after a word with a digit, like the beginning of an id: its rest, up to white space or a quotation mark.
    Word,
    /// `…` elsewhere: anything.
    Anything,
}

fn pieces(promised: &str) -> Vec<Piece> {
    let mut has_digit = false;
    let mut pieces = Vec::new();
    for character in promised.chars() {
        match character {
            '…' if has_digit => pieces.push(Piece::Word),
            '…' => pieces.push(Piece::Anything),
            _ if character.is_whitespace() => {}
            _ => pieces.push(Piece::Character(character)),
        }
        has_digit = character.is_ascii_alphanumeric() && (has_digit || character.is_ascii_digit());
    }
    pieces
}

/// Whether the wildcard may stand for this character as well.
fn may_hold(piece: Piece, character: char) -> bool {
    match piece {
        Piece::Character(_) => false,
        Piece::Word => !character.is_whitespace() && character != '"',
        Piece::Anything => true,
    }
}

/// What each `…` of the promise stands for in the output, or nothing when the output is not as promised. A word is taken
/// as long as it can be, anything else as short.
fn wildcards(promised: &str, output: &str) -> Option<Vec<String>> {
    let (pieces, output) = (pieces(promised), output.chars().collect::<Vec<char>>());
    // matches[i][j]: the pieces from i on match the output from j on.
    let mut matches = vec![vec![false; output.len() + 1]; pieces.len() + 1];
    for i in (0..=pieces.len()).rev() {
        for j in (0..=output.len()).rev() {
            let character = output.get(j);
            let skips = character.is_some_and(|character| character.is_whitespace()) && matches[i][j + 1];
            matches[i][j] = match pieces.get(i) {
                None => character.is_none() || skips,
                Some(Piece::Character(wanted)) => {
                    skips || (character == Some(wanted) && matches[i + 1][j + 1])
                }
                Some(&wildcard) => {
                    let holds = character.is_some_and(|&character| may_hold(wildcard, character));
                    matches[i + 1][j] || (holds && matches[i][j + 1])
                }
            };
        }
    }
    if !matches[0][0] {
        return None;
    }
    let mut found = Vec::new();
    let mut place = 0;
    for (i, piece) in pieces.iter().enumerate() {
        if let Piece::Character(wanted) = piece {
            while output[place] != *wanted || !matches[i + 1][place + 1] {
                place += 1;
            }
            place += 1;
        } else {
            let start = place;
            let held = output[start..].iter().take_while(|&&character| may_hold(*piece, character)).count();
            let mut ends = (start..=start + held).filter(|&end| matches[i + 1][end]);
            let end = if *piece == Piece::Word { ends.next_back() } else { ends.next() };
            place = end.expect("the whole matches");
            found.push(output[start..place].iter().collect());
        }
    }
    Some(found)
}

/// A beginning and the `…` after it, as `019f…`: what names an id.
fn named_wildcards(promised: &str) -> Vec<String> {
    let parts: Vec<&str> = promised.split('…').collect();
    let beginning = |part: &&str| {
        if part.ends_with("\"receipt\":\"") {
            return "RECEIPT".to_owned();
        }
        let at = part.rfind(|character: char| !character.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        format!("{}…", &part[at..])
    };
    parts[..parts.len() - 1].iter().map(beginning).collect()
}

/// The reader of the README: what it has seen so far.
struct Reader {
    gateway: Gateway,
    known: BTreeMap<String, String>,
}

impl Reader {
    fn run(&self, line: &str) -> String {
        let mut line = line.replace(LISTEN, &self.gateway.address());
        for (name, meaning) in &self.known {
            line = line.replace(name, meaning);
        }
        assert!(!line.contains('…'), "no output before this line says what … is: {line}");
        let mut shell = Command::new("sh");
        let binary = Path::new(env!("CARGO_BIN_EXE_posthaste")).parent().expect("it is in a folder");
        shell.args(["-c", &format!("PATH={}:$PATH; {line}", binary.display())]);
        shell.env("POSTHASTE_URL", format!("http://{}", self.gateway.address()));
        let ended = command::run(self.gateway.folder(), shell);
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        ended.stdout
    }

    /// Runs a command until its output is as promised; once, when running it changes something.
    fn check(&mut self, line: &str, promised: &str) {
        let reads_only = ![" -d", " -X", " --data", " -T", " --request", " publish ", " lease "]
            .iter()
            .any(|flag| line.contains(flag));
        let deadline = Instant::now() + WITHIN;
        loop {
            let output = self.run(line).replace(&self.gateway.address(), LISTEN);
            if let Some(found) = wildcards(promised, &output) {
                for (name, rest) in named_wildcards(promised).into_iter().zip(found) {
                    if name != "…" {
                        let meaning = if name == "RECEIPT" { rest } else { name.replace('…', &rest) };
                        self.known.insert(name, meaning);
                    }
                }
                return;
            }
            assert!(
                reads_only && Instant::now() < deadline,
                "{line}\nprinted\n{output}\nand the README promises\n{promised}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

on_both_stores! {
    every_command_of_the_readme_does_what_it_promises
}

fn every_command_of_the_readme_does_what_it_promises(home: &Home) {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    // It shows the store that is there without a word; all else is the same on another.
    let readme = match home {
        Home::Sqlite => readme,
        Home::Redis(_) => readme
            .replace("\"kind\":\"sqlite\"", "\"kind\":\"redis\"")
            .replace("store sqlite:", "store redis:"),
    };
    let blocks = blocks(&readme);
    let mut reader = Reader { gateway: home.start("", &["--dev"]), known: BTreeMap::new() };
    let mut ran = 0;
    let mut checked = 0;
    for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        let promised = blocks.get(index + 1).filter(|next| next.follows && next.language.is_empty());
        let commands: Vec<String> = commands(&block.text)
            .into_iter()
            .filter(|line| line.starts_with("curl ") || line.starts_with("posthaste "))
            .collect();
        for (place, line) in commands.iter().enumerate() {
            ran += 1;
            match promised {
                Some(promised) if place + 1 == commands.len() => {
                    checked += 1;
                    reader.check(line, &promised.text);
                }
                _ => drop(reader.run(line)),
            }
        }
    }
    assert!(ran >= 3 && checked >= 2, "{ran} commands were run, the output of {checked} was compared");
    reader.gateway.stop();
}

#[test]
fn the_settings_that_the_readme_shows_are_sound() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let blocks = blocks(&readme);
    let shown: Vec<&Block> = blocks.iter().filter(|block| block.language == "toml").collect();
    assert!(!shown.is_empty(), "the README shows settings");
    for block in shown {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("shown.toml"), &block.text).expect("a file");
        let checked = command::posthaste(folder.path(), &["config", "check", "--config", "shown.toml"], &[]);
        assert_eq!(checked.code, Some(0), "{}{checked:?}", block.text);
    }
}

#[test]
fn a_promise_is_compared_with_the_output() {
    let promised = "HTTP/1.1 202 Accepted\nlocation: /v1/019f…\n…\n{\"id\":\"019f…\",\n \"n\":1}\n";
    let output =
        "HTTP/1.1 202 Accepted\r\nlocation: /v1/019fabc\r\ndate: x\r\n\r\n{\"id\":\"019fabc\",\"n\":1}\n";
    assert_eq!(wildcards(promised, output), Some(vec!["abc".into(), "\r\ndate: x".into(), "abc".into()]));
    assert_eq!(named_wildcards(promised), ["019f…", "…", "019f…"]);
    assert_eq!(wildcards("a…", "abc"), Some(vec!["bc".to_owned()]));
    assert_eq!(wildcards("abc", "a b c\n"), Some(Vec::new()));
    for wrong in ["abc", "bcd", "…b", "b…", "a…b…b…", ""] {
        assert_eq!(wildcards(wrong, "abcd"), None, "{wrong}");
    }
    assert_eq!(wildcards("id: 01…", "id: 01ab cd"), None, "a word ends where it ends");
    assert_eq!(wildcards("no…", "no such file"), Some(vec![" such file".to_owned()]));
    assert_eq!(wildcards("id: …", "id: 01ab cd"), Some(vec![" 01ab cd".to_owned()]));
    assert_eq!(named_wildcards("{\"receipt\":\"…\",\"x\":\"…\"}"), ["RECEIPT", "…"]);
}
