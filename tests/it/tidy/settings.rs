//! Whether every setting does something: a key that no code reads is a promise that nobody keeps.

use std::collections::BTreeSet;

use super::rules::Breach;
use super::source::{Source, words};

/// Keys that are taken and shown and do nothing in this version. The manual says so at each.
const WITHOUT_EFFECT: &[&str] = &["queue_defaults.shards"];
/// What the manual says of them.
const WORDS_OF_NO_EFFECT: &[&str] = &["not in this version", "reserved"];

/// Functions that only judge whether a value is possible.
const JUDGES: &[&str] = &["problems", "amounts", "retries", "times", "words"];

/// Keys that nothing reads, keys said to have no effect that something reads, here or in the manual, and such keys of which the
/// manual is silent.
/// Two keys of one name are told apart by nothing: both are read when one is.
pub(super) fn without_effect(keys: &[String], manual: &str, sources: &[Source]) -> Vec<Breach> {
    let read: BTreeSet<&str> =
        keys.iter().map(|key| name(key)).filter(|name| is_read(name, sources)).collect();
    let mut breaches = Vec::new();
    for key in keys {
        let (line, comment) = explained(key, manual);
        let is_listed = WITHOUT_EFFECT.contains(&key.as_str());
        let is_said = WORDS_OF_NO_EFFECT.iter().any(|words| comment.to_lowercase().contains(words));
        let what = match (read.contains(name(key)), is_listed) {
            (false, false) => format!("nothing reads `{key}`"),
            (true, true) => format!("`{key}` is read now: take it off the list in tests/it/tidy/settings.rs"),
            (true, false) if is_said => format!("`{key}` is read, and the manual says that it has no effect"),
            (false, true) if !is_said => format!("`{key}` has no effect, and the manual does not say so"),
            _ => continue,
        };
        breaches.push(Breach { path: "config/default.toml".to_owned(), line, what });
    }
    breaches
}

fn name(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Whether some code takes the field `.name`, other than to judge it or to gather it.
fn is_read(name: &str, sources: &[Source]) -> bool {
    sources.iter().filter(|source| source.modules()[0] != "config").any(|source| {
        let judges = source.items("fn").into_iter().filter(|item| JUDGES.contains(&item.name.as_str()));
        let judged: Vec<_> = judges.map(|item| item.body).collect();
        words(&source.code, name).any(|at| {
            let is_field = source.code[..at].ends_with('.');
            let is_called = source.code[at + name.len()..].trim_start().starts_with('(');
            let counts = !source.is_test_code(at) && !judged.iter().any(|body| body.contains(&at));
            is_field && !is_called && counts
        })
    })
}

/// The line of a key in the manual and the comment above it.
fn explained(key: &str, manual: &str) -> (usize, String) {
    let (mut section, mut comment) = (String::new(), String::new());
    for (index, line) in manual.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
        }
        let setting = line.strip_prefix("# ").unwrap_or(line).split_once(" = ");
        if setting.is_some_and(|(name, _)| format!("{section}.{name}") == key) {
            return (index + 1, comment);
        }
        match line.strip_prefix("# ") {
            Some(words) => comment = format!("{comment} {words}"),
            None => comment.clear(),
        }
    }
    (1, String::new())
}
