//! Lays the layers over each other and reads the settings from the result.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::problem::{Origin, Problems};
use super::reader::{self, ReadError};
use super::tree::{self, Node, Table, Value, dotted};
use super::{Flags, Settings, check, keys, layers, print};
use crate::api::mistake;
use crate::domain::queue::{QueueName, QueueSettings, SettingProblem};
use crate::pipeline::lanes::settings::OriginSettings;

/// Settings as far as they can be read, and what is wrong.
pub(super) struct Loaded {
    /// What cannot be is as it is built in; `None` where so much is missing that it says nothing.
    pub(super) settings: Option<Settings>,
    /// Everything that was found; empty when all is well.
    pub(super) problems: Problems,
}

/// See [`Settings::load`].
pub(super) fn load<K: Into<OsString>, V: Into<OsString>>(
    files: &[PathBuf],
    environment: impl IntoIterator<Item = (K, V)>,
    flags: &Flags,
) -> Loaded {
    let mut problems = Problems::default();
    let built_in = layers::built_in();
    let mut layered = built_in.clone();
    let mut all_read = true;
    for path in files {
        match layers::file(path, &mut problems) {
            Some(layer) => tree::overlay(&mut layered, layer),
            None => all_read = false,
        }
    }
    tree::overlay(&mut layered, layers::environment(environment, &mut problems));
    tree::overlay(&mut layered, layers::flags(flags, &mut problems));
    let mut found = Found { unreadable: problems, out_of_range: Problems::default() };
    let settings = read(layered, &built_in, flags.dev, &mut found);
    let Found { unreadable: mut problems, out_of_range } = found;
    // Without the whole of a file what is set elsewhere may look wrong and not be.
    if let Some(settings) = settings.as_ref().filter(|_| all_read) {
        problems.extend(out_of_range);
        check::check(settings, &mut problems);
    }
    Loaded { settings: settings.filter(|_| all_read), problems: problems.sorted() }
}

/// What is wrong.
struct Found {
    /// Values that are not what their keys ask for.
    unreadable: Problems,
    /// Values that are, and still not possible.
    out_of_range: Problems,
}

/// Reads the settings; a value that is wrong is reported and read as built in, so that everything wrong is found.
fn read(mut layered: Table, built_in: &Table, dev: bool, found: &mut Found) -> Option<Settings> {
    let declared = layered.remove("queues").map(|node| node.value);
    let origins = take_origins(&mut layered);
    let mut settings: Settings =
        read_table(&mut layered, built_in, &[], &Origin::BuiltIn { line: 1 }, &mut found.unreadable)?;

    // The defaults become part of every queue: what is wrong with them is said once.
    let defaults = QueueSettings { processor: "log".to_owned(), ..settings.queue_defaults.clone() };
    for SettingProblem { key, detail } in defaults.problems_of_defaults() {
        let path: Vec<&str> = std::iter::once("queue_defaults").chain(key.split('.')).collect();
        let origin =
            tree::find(&layered, &path).map_or(Origin::BuiltIn { line: 1 }, |node| node.origin.clone());
        found.out_of_range.key(origin, dotted(&path), detail);
        restore(&mut layered, built_in, &path);
    }
    let defaults = layered.get("queue_defaults").and_then(Node::as_table).cloned().unwrap_or_default();

    let Some(Value::Table(declared)) = declared else { unreachable!("the built-in file declares a queue") };
    settings.queues = read_queues(&declared, &defaults, found);
    let queues = Node { origin: Origin::BuiltIn { line: 1 }, value: Value::Table(declared) };
    layered.insert("queues".to_owned(), queues);
    settings.lanes.origins = read_origins(&origins, &mut found.unreadable);
    for (name, node) in origins {
        tree::insert(&mut layered, &["lanes", name.as_str()], node);
    }
    settings.dev = dev;
    settings.layered = layered;
    Some(settings)
}

/// The tables of single origins, taken out of `[lanes]`.
fn take_origins(layered: &mut Table) -> Table {
    match layered.get_mut("lanes").map(|node| &mut node.value) {
        Some(Value::Table(lanes)) => lanes.extract_if(.., |name, _| keys::is_origin(name)).collect(),
        _ => Table::new(),
    }
}

fn read_origins(origins: &Table, problems: &mut Problems) -> BTreeMap<String, OriginSettings> {
    let read = |(name, node): (&String, &Node)| {
        let mut table = node.as_table()?.clone();
        let prefix = ["lanes", name.as_str()];
        let own = read_table(&mut table, &Table::new(), &prefix, &node.origin, problems)?;
        Some((name.clone(), own))
    };
    origins.iter().filter_map(read).collect()
}

fn read_queues(declared: &Table, defaults: &Table, found: &mut Found) -> BTreeMap<QueueName, QueueSettings> {
    let mut queues = BTreeMap::new();
    for (name, node) in declared {
        let (Ok(queue), Some(own)) = (name.parse::<QueueName>(), node.as_table()) else { continue };
        let mut table = defaults.clone();
        tree::overlay(&mut table, own.clone());
        let prefix = ["queues", name.as_str()];
        let Some(settings) =
            read_table::<QueueSettings>(&mut table, defaults, &prefix, &node.origin, &mut found.unreadable)
        else {
            continue;
        };
        for SettingProblem { key, detail } in
            settings.problems().into_iter().chain(settings.secret_of_a_store())
        {
            let path: Vec<&str> = key.split('.').collect();
            let origin = tree::find(own, &path).map_or(&node.origin, |own| &own.origin);
            let key = format!("{}.{key}", dotted(&prefix));
            // What is there and cannot be read was taken away, and is not missing.
            if !found.unreadable.are_about(&key) {
                found.out_of_range.key(origin.clone(), key, detail);
            }
        }
        queues.insert(queue, settings);
    }
    queues
}

/// Reads a table; after an error its key is set back to `fallback` and the table read again, until all are found.
fn read_table<T: DeserializeOwned>(
    table: &mut Table,
    fallback: &Table,
    prefix: &[&str],
    origin: &Origin,
    problems: &mut Problems,
) -> Option<T> {
    loop {
        let error = match reader::read(table, origin) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let path = error.path();
        let ReadError { origin: given, detail, detail_hidden, no_count, .. } = error;
        let full: Vec<&str> = prefix.iter().copied().chain(path.iter().map(String::as_str)).collect();
        let range = count_range(&full);
        let detail = match no_count.zip(range) {
            _ if print::is_secret(&full) => detail_hidden,
            Some((found, range)) => mistake::within(range, &found),
            None => detail,
        };
        problems.key(given.unwrap_or_else(|| origin.clone()), dotted(&full), detail);
        // Each round takes one wrong value away, or ends.
        if !restore(table, fallback, &path) {
            return None;
        }
    }
}

/// The numbers of the gateway's own sections, with the ranges that their checks have.
const COUNTS: [(&str, u64, u64); 17] = [
    ("server.threads", 0, 512),
    ("server.limits.connections_max", 1, 1_000_000),
    ("server.limits.head_headers_max", 1, 96),
    ("server.limits.publishes_in_flight_max", 1, 1_000_000),
    ("server.limits.consumers_max", 1, 1_000_000),
    ("server.limits.batch_messages_max", 1, 10_000),
    ("store.replicas_ack", 0, 16),
    ("store.full_at_percent", 1, 99),
    ("ingest.call_messages_max", 1, 100_000),
    ("ingest.waiting_messages_max", 1, 10_000_000),
    ("workers.threads", 0, 1_024),
    ("workers.concurrency", 1, 65_536),
    ("workers.prefetch", 0, 65_536),
    ("workers.lease_max", 1, 1_000),
    ("workers.settle_calls_max", 1, 1_024),
    ("workers.unsettled_max", 1, 1_000_000),
    ("lanes.concurrency_max", 1, 65_536),
];

/// The range of a number, where it has one.
fn count_range(path: &[&str]) -> Option<(u64, u64)> {
    let own =
        |key: &str| COUNTS.iter().find(|(name, ..)| *name == key).map(|(_, least, most)| (*least, *most));
    match path {
        ["queues", _, key @ ..] | ["queue_defaults", key @ ..] => QueueSettings::count_range(&dotted(key)),
        ["lanes", _, key] => own(&format!("lanes.{key}")),
        path => own(&path.join(".")),
    }
}

/// Sets a key back to what it is in `fallback`, or takes it away; whether that changed anything.
fn restore(table: &mut Table, fallback: &Table, path: &[impl AsRef<str>]) -> bool {
    let before = tree::remove(table, path);
    let after = tree::find(fallback, path);
    let changed = match (&before, after) {
        (Some(before), Some(after)) => before.origin != after.origin,
        (before, after) => before.is_some() != after.is_some(),
    };
    if let Some(after) = after {
        tree::insert(table, path, after.clone());
    }
    changed
}
