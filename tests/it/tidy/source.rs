//! Reads Rust source as text: blanks out comments and literals, then finds items and paths in what is left.
//!
//! A scanner, not a parser: it knows strings, raw strings, characters, lifetimes, comments and brackets, which is all
//! that the rules need. Where it would have to guess, it reports rather than stays silent.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file, as written and as code only.
pub(super) struct Source {
    /// Its path from the root of the repository, with forward slashes.
    pub(super) path: String,
    /// What the file says.
    pub(super) text: String,
    /// The same with every comment and literal blanked out, byte for byte, so that lines and offsets stay.
    pub(super) code: String,
    test_code: Vec<Range<usize>>,
}

/// A function or an inline module with its body.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) line: usize,
    /// From the opening brace to the closing one.
    pub(super) body: Range<usize>,
}

/// A path as the code names it: `store::{self, sqlite::Writer}` gives two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    /// Where its last word starts.
    pub(super) offset: usize,
    pub(super) segments: Vec<String>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank_out(text);
        let test_code = test_spans(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, test_code }
    }

    /// The line (from 1) on which the byte at `offset` stands.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.code[..offset].matches('\n').count()
    }

    /// The modules this file lies in, outermost first: `src/store/sqlite/mod.rs` gives `store`, `sqlite`.
    pub(super) fn modules(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let stem = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut modules: Vec<&str> = stem.split('/').collect();
        if modules.last() == Some(&"mod") {
            modules.pop();
        }
        modules
    }

    /// Whether the byte at `offset` is compiled for tests only: under `tests/`, in a `tests` module, under `#[cfg(test)]`.
    pub(super) fn is_test_code(&self, offset: usize) -> bool {
        let in_a_test_file = self
            .path
            .trim_end_matches(".rs")
            .split('/')
            .any(|part| part == "tests" || part == "benches" || part.ends_with("_tests"));
        in_a_test_file || self.test_code.iter().any(|span| span.contains(&offset))
    }

    /// Every `keyword name … { … }`, inner ones too; declarations that end in a semicolon have no body and are left out.
    pub(super) fn items(&self, keyword: &str) -> Vec<Item> {
        let bytes = self.code.as_bytes();
        let mut items = Vec::new();
        for at in words(&self.code, keyword) {
            let name_start = skip_space(bytes, at + keyword.len());
            let name_end = word_end(bytes, name_start);
            if name_end > name_start
                && let Some(body) = block_after(bytes, name_end)
            {
                let name = self.code[name_start..name_end].to_owned();
                items.push(Item { name, line: self.line_at(at), body });
            }
        }
        items
    }

    /// Every path that starts with the word `first`; the segments come without it.
    pub(super) fn paths_from(&self, first: &str) -> Vec<NamedPath> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for at in words(&self.code, first) {
            if let Some(rest) = after_colons(bytes, at + first.len()) {
                follow(bytes, rest, &[], &mut found);
            }
        }
        found
    }
}

/// Every Rust file under `folder`, in the order of their paths. A folder that does not exist has none.
pub(super) fn rust_sources(folder: &str) -> Vec<Source> {
    text_files(folder)
        .into_iter()
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|extension| extension == "rs"))
        .map(|(path, text)| Source::new(&path, &text))
        .collect()
}

/// Path and text of every text file under `folder`; for `"."` the files of the root only, not what lies below.
pub(super) fn text_files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("a folder that was opened can be listed").path();
            if path.is_dir() {
                if folder != "." {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let relative = path.strip_prefix(root()).expect("everything read lies under the root");
                let named = relative.to_string_lossy().replace('\\', "/");
                found.push((named.trim_start_matches("./").to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Offsets at which `word` stands as a whole word.
pub(super) fn words<'text>(text: &'text str, word: &'text str) -> impl Iterator<Item = usize> + 'text {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len());
        !before.is_some_and(is_word) && !after.copied().is_some_and(is_word)
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|&&byte| is_word(byte)).count()
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

fn after_colons(bytes: &[u8], at: usize) -> Option<usize> {
    let colons = skip_space(bytes, at);
    bytes[colons..].starts_with(b"::").then(|| skip_space(bytes, colons + 2))
}

/// Follows one path, or each branch of a `{…}` group, to its end; gives back where it stopped reading.
fn follow(bytes: &[u8], start: usize, before: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut segments = before.to_vec();
    let mut at = start;
    loop {
        if bytes.get(at) == Some(&b'{') {
            return follow_group(bytes, at, &segments, found);
        }
        let end = if bytes.get(at) == Some(&b'*') { at + 1 } else { word_end(bytes, at) };
        if end > at {
            segments.push(String::from_utf8_lossy(&bytes[at..end]).into_owned());
        }
        match after_colons(bytes, end) {
            Some(next) if end > at => at = next,
            _ => {
                found.push(NamedPath { offset: at, segments });
                return end;
            }
        }
    }
}

fn follow_group(bytes: &[u8], open: usize, before: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut at = open + 1;
    loop {
        at = skip_space(bytes, at);
        match bytes.get(at) {
            None => return at,
            Some(b'}') => return at + 1,
            Some(b'{') => at = follow_group(bytes, at, before, found),
            Some(&byte) if is_word(byte) || byte == b'*' => {
                at = follow(bytes, at, before, found);
                // ` as name`, up to the comma, is no part of the path.
                at += bytes[at..].iter().take_while(|&&byte| byte != b',' && byte != b'}').count();
            }
            Some(_) => at += 1,
        }
    }
}

/// The `{…}` that follows `at`, unless a semicolon comes first; brackets on the way are passed over.
fn block_after(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    for (offset, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(offset..closing_brace(bytes, offset)),
            _ => {}
        }
    }
    None
}

fn closing_brace(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return offset,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    bytes.len().saturating_sub(1)
}

/// The bodies of items under a `#[cfg(…test…)]`.
fn test_spans(code: &str) -> Vec<Range<usize>> {
    let attributes = code.match_indices("#[cfg(").filter_map(|(at, _)| {
        let end = at + code[at..].find(']')?;
        let condition = &code[at..end];
        let for_tests = words(condition, "test").next().is_some() && words(condition, "not").next().is_none();
        for_tests.then_some(end + 1)
    });
    attributes.filter_map(|end| block_after(code.as_bytes(), end)).collect()
}

/// The text with every comment, string and character blanked out; line breaks stay.
fn blank_out(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while code.len() < bytes.len() {
        let at = code.len();
        let after_a_word = at > 0 && is_word(bytes[at - 1]);
        let length = comment_or_literal(&bytes[at..], after_a_word);
        if length == 0 {
            code.push(bytes[at]);
        } else {
            let end = bytes.len().min(at + length);
            code.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
        }
    }
    String::from_utf8(code).expect("only whole characters were blanked out")
}

/// How many bytes at the start of `rest` are a comment or a literal; 0 when it is code.
fn comment_or_literal(rest: &[u8], after_a_word: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().take_while(|&&byte| byte != b'\n').count(),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest),
        [b'\'', ..] => character(rest),
        [b'b' | b'c' | b'r', ..] if !after_a_word => prefixed(rest),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// A character, or 0 for the tick of a lifetime.
fn character(rest: &[u8]) -> usize {
    let Some(&first) = rest.get(1) else { return 0 };
    if first == b'\\' {
        return 4 + rest.iter().skip(3).take_while(|&&byte| byte != b'\'').count();
    }
    let length = match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    if rest.get(1 + length) == Some(&b'\'') { 2 + length } else { 0 }
}

/// `b"…"`, `c"…"`, `b'…'`, `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; 0 for a word that only starts with these letters.
fn prefixed(rest: &[u8]) -> usize {
    let letters = rest.iter().take(2).take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let raw = rest[letters - 1] == b'r';
    let hashes = rest[letters..].iter().take_while(|&&byte| byte == b'#').count();
    let quote = letters + hashes;
    match rest.get(quote) {
        Some(b'"') if raw => raw_string(rest, quote, hashes),
        Some(b'"') if hashes == 0 => quote + string(&rest[quote..]),
        Some(b'\'') if letters == 1 && rest[0] == b'b' && hashes == 0 => quote + character(&rest[quote..]),
        _ => 0,
    }
}

fn raw_string(rest: &[u8], quote: usize, hashes: usize) -> usize {
    let closing: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let inner = rest[quote + 1..].windows(closing.len()).position(|window| window == closing);
    inner.map_or(rest.len(), |length| quote + 1 + length + closing.len())
}
