//! The layers of a configuration, each as a tree of known keys: built-in, files, environment, flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::Flags;
use super::keys::{self, Class};
use super::problem::{Origin, Problems};
use super::tree::{self, Node, Table, Value, dotted};
use crate::domain::queue::{QueueName, QueueNameError};

/// The file that is compiled in, which is the manual as well.
pub(super) const BUILT_IN: &str = include_str!("../../config/default.toml");

/// What the names of our environment variables begin with.
const PREFIX: &str = "POSTHASTE__";

/// The longest file that is read: far beyond what people write, and no trouble to hold.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The layer that is compiled in.
pub(super) fn built_in() -> Table {
    tree::parse(BUILT_IN, &|line| Origin::BuiltIn { line })
        .expect("config/default.toml is valid: a test reads it")
}

/// The layer of a file; nothing when it cannot be read as a whole.
pub(super) fn file(path: &Path, problems: &mut Problems) -> Option<Table> {
    let shown: Arc<str> = path.display().to_string().into();
    let origin = |line| Origin::File { path: Arc::clone(&shown), line };
    let text = match read_file(path) {
        Ok(text) => text,
        Err(error) => {
            problems.general(origin(0), format!("cannot be read: {error}"));
            return None;
        }
    };
    let text = match String::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.split(|byte| *byte == b'\n').count();
            problems.general(origin(line), "is not valid UTF-8");
            return None;
        }
    };
    match tree::parse(&text, &origin) {
        Ok(table) => Some(known_only(table, &mut Vec::new(), problems)),
        Err(errors) => {
            for (line, message) in errors {
                problems.general(origin(line), message);
            }
            None
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1MiB"));
    }
    Ok(text)
}

/// The layer of the environment: `POSTHASTE__SECTION__KEY`, keys in any case, queue names as they are written.
pub(super) fn environment<K: Into<OsString>, V: Into<OsString>>(
    variables: impl IntoIterator<Item = (K, V)>,
    problems: &mut Problems,
) -> Table {
    // Sorted, so that a section given as a whole comes before its single keys.
    let ours: BTreeMap<String, OsString> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    let mut layer = Table::new();
    let mut set_by: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (name, value) in ours {
        let origin = Origin::Environment(name.as_str().into());
        let path = variable_path(&name[PREFIX.len()..]);
        if path.iter().any(String::is_empty) {
            problems.general(
                origin,
                "names no key: write POSTHASTE__SECTION__KEY, like POSTHASTE__SERVER__LISTEN",
            );
            continue;
        }
        let Ok(raw) = value.into_string() else {
            problems.key(origin, dotted(&path), "is not valid UTF-8");
            continue;
        };
        if let Some(other) = set_by.insert(path.clone(), name) {
            problems.key(origin, dotted(&path), format!("is set by {other} as well"));
            continue;
        }
        add_raw(&mut layer, &path, raw, origin, problems);
    }
    known_only(layer, &mut Vec::new(), problems)
}

/// The key that a variable sets: lower case, a queue's name aside.
fn variable_path(name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for segment in name.split("__") {
        let is_queue_name = path.len() == 1 && path[0] == "queues";
        path.push(if is_queue_name { segment.to_owned() } else { segment.to_ascii_lowercase() });
    }
    path
}

/// The layer of the command line's flags.
pub(super) fn flags(flags: &Flags, problems: &mut Problems) -> Table {
    let mut layer = Table::new();
    let mut put = |flag: &str, path: &[&str], value: &str| {
        let value = Value::Raw(value.to_owned());
        tree::insert(&mut layer, path, Node { origin: Origin::Flag(flag.into()), value });
    };
    if flags.dev {
        put("--dev", &["log", "level"], "info,posthaste=debug");
        put("--dev", &["log", "format"], "text");
    }
    if flags.insecure_no_auth {
        put("--insecure-no-auth", &["server", "insecure_no_auth"], "true");
    }
    let with_value: [(&str, &[&str], &Option<String>); 4] = [
        ("--listen", &["server", "listen"], &flags.listen),
        ("--store", &["store", "url"], &flags.store),
        ("--durability", &["store", "durability"], &flags.durability),
        ("--log", &["log", "level"], &flags.log),
    ];
    for (flag, path, value) in with_value {
        if let Some(value) = value {
            put(flag, path, value);
        }
    }
    for assignment in &flags.set {
        match split_assignment(assignment) {
            Some((path, value)) => {
                let origin = Origin::Flag(format!("--set {}", dotted(&path)).into());
                add_raw(&mut layer, &path, value.to_owned(), origin, problems);
            }
            None => problems.general(
                Origin::Flag("--set".into()),
                "is not section.key=value, like --set server.grace=5s (the value is not shown)",
            ),
        }
    }
    known_only(layer, &mut Vec::new(), problems)
}

/// Splits `section.key=value` at the first `=` before which there is a key as TOML writes it.
fn split_assignment(assignment: &str) -> Option<(Vec<String>, &str)> {
    assignment.match_indices('=').find_map(|(at, _)| {
        let key = assignment[..at].trim();
        let table = tree::parse(&format!("{key} = 0"), &|line| Origin::BuiltIn { line }).ok()?;
        let mut path = Vec::new();
        let mut table = Some(&table);
        while let Some(inner) = table {
            let (key, node) = inner.iter().next().filter(|_| inner.len() == 1)?;
            path.push(key.clone());
            table = node.as_table();
        }
        Some((path, &assignment[at + 1..]))
    })
}

/// Adds a text of the environment or of a flag. Where a table stands it is read as TOML at once, to be merged.
fn add_raw(layer: &mut Table, path: &[String], raw: String, origin: Origin, problems: &mut Problems) {
    let unknown = (1..=path.len()).map(|length| &path[..length]).find(|part| is_unknown(part));
    if let Some(part) = unknown {
        problems.key(origin, dotted(part), keys::unknown(part));
        return;
    }
    let value = match keys::classify(path) {
        Class::Section | Class::Map => {
            let node = tree::parse_value(raw.trim(), &origin);
            let Some(table @ Value::Table(_)) = node.map(|node| node.value) else {
                let detail = "must be a table, written as TOML: { key = \"value\" }";
                problems.key(origin, dotted(path), detail);
                return;
            };
            table
        }
        Class::Leaf | Class::Entry | Class::Unknown => Value::Raw(raw),
    };
    tree::insert(layer, path, Node { origin, value });
}

fn is_unknown(path: &[String]) -> bool {
    keys::classify(path) == Class::Unknown
}

/// The layer without what is unknown, which is reported.
fn known_only(table: Table, path: &mut Vec<String>, problems: &mut Problems) -> Table {
    let mut known = Table::new();
    for (key, node) in table {
        path.push(key);
        if let Some(node) = known_node(node, path, problems) {
            let key = path.last().expect("it was pushed above").clone();
            known.insert(key, node);
        }
        path.pop();
    }
    known
}

fn known_node(node: Node, path: &mut Vec<String>, problems: &mut Problems) -> Option<Node> {
    match (keys::classify(path), node.value) {
        (Class::Unknown, _) => {
            problems.key(node.origin, dotted(path), keys::unknown(path));
            None
        }
        (Class::Section, Value::Table(table)) => {
            if path.len() == 2 && path[0] == "queues" && !QueueName::is_valid(&path[1]) {
                problems.key(node.origin, dotted(path), format!("is no queue: {QueueNameError}"));
                return None;
            }
            let value = Value::Table(known_only(table, path, problems));
            Some(Node { origin: node.origin, value })
        }
        (Class::Section, _) => {
            problems.key(node.origin, dotted(path), format!("must be a table: [{}]", dotted(path)));
            None
        }
        (Class::Leaf | Class::Map | Class::Entry, value) => Some(Node { origin: node.origin, value }),
    }
}
