//! The effective settings as TOML, with origins and without secrets.

use std::fmt::Write as _;

use serde::Serialize;

use super::Settings;
use super::keys::{self, Class};
use super::problem::Origin;
use super::tree::{Node, Table, dotted};
use crate::domain::format::secret;

/// Whether the value at a path must not be shown.
pub(super) fn is_secret(path: &[impl AsRef<str>]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let in_headers = parents.last().is_some_and(|parent| parent.as_ref() == "headers");
    matches!(last.as_ref().to_ascii_lowercase().as_str(), "secret" | "password" | "master_key")
        || (in_headers && secret::is_header(last.as_ref()))
}

/// See [`Settings::print`].
pub(super) fn print(settings: &Settings) -> String {
    let mut out = String::new();
    if settings.dev {
        out.push_str("# --dev: loopback destinations are allowed\n\n");
    }
    let values = to_table(settings);
    for (section, node) in &settings.layered {
        if let (Some(toml::Value::Table(values)), Some(nodes)) = (values.get(section), node.as_table()) {
            print_section(&mut out, &[section], nodes, values);
        }
    }
    let declared = settings.layered.get("queues").and_then(Node::as_table);
    for (name, queue) in &settings.queues {
        let nodes = declared.and_then(|declared| declared.get(name.as_str())).and_then(Node::as_table);
        print_section(&mut out, &["queues", name.as_str()], nodes.unwrap_or(&Table::new()), &to_table(queue));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn to_table(settings: &impl Serialize) -> toml::Table {
    toml::Table::try_from(settings).expect("settings consist of what TOML can write")
}

fn print_section(out: &mut String, section: &[&str], nodes: &Table, values: &toml::Table) {
    writeln!(out, "[{}]", dotted(section)).expect("writing to a String cannot fail");
    let mut path: Vec<String> = section.iter().map(|&segment| segment.to_owned()).collect();
    print_table(out, section.len(), &mut path, nodes, values);
    out.push('\n');
}

/// Prints what is set in `nodes`, with the values as they were read.
fn print_table(out: &mut String, depth: usize, path: &mut Vec<String>, nodes: &Table, values: &toml::Table) {
    for (key, node) in nodes {
        path.push(key.clone());
        let inner = node.as_table().filter(|table| !table.is_empty());
        match (values.get(key), inner) {
            (Some(toml::Value::Table(values)), Some(nodes)) => print_table(out, depth, path, nodes, values),
            (Some(value), _) if keys::classify(path) != Class::Section => {
                print_line(out, depth, path, value, &node.origin);
            }
            // Set to nothing, or a group of keys none of which is set.
            _ => {}
        }
        path.pop();
    }
}

fn print_line(out: &mut String, depth: usize, path: &[String], value: &toml::Value, origin: &Origin) {
    writeln!(out, "{} = {}  # {origin}", dotted(&path[depth..]), shown(path, value))
        .expect("writing to a String cannot fail");
}

/// The value at a path without secrets.
fn shown(path: &[String], value: &toml::Value) -> toml::Value {
    match value {
        _ if is_secret(path) => toml::Value::from(secret::MASK),
        toml::Value::String(text) if path.last().is_some_and(|key| key == "destination") => {
            toml::Value::from(secret::destination(text).into_owned())
        }
        toml::Value::String(text) => toml::Value::from(secret::url(text).into_owned()),
        toml::Value::Array(values) => {
            toml::Value::Array(values.iter().map(|value| shown(path, value)).collect())
        }
        other => other.clone(),
    }
}

/// See [`Settings::print_json`].
pub(super) fn print_json(settings: &Settings) -> String {
    let values = to_table(settings);
    let mut all = toml::Table::new();
    for (section, node) in &settings.layered {
        if let (Some(toml::Value::Table(values)), Some(nodes)) = (values.get(section), node.as_table()) {
            all.insert(section.clone(), nested(&mut vec![section.clone()], nodes, values).into());
        }
    }
    let declared = settings.layered.get("queues").and_then(Node::as_table);
    let queues = settings.queues.iter().map(|(name, queue)| {
        let nodes = declared.and_then(|declared| declared.get(name.as_str())).and_then(Node::as_table);
        let mut path = vec!["queues".to_owned(), name.to_string()];
        (
            name.to_string(),
            toml::Value::from(nested(&mut path, nodes.unwrap_or(&Table::new()), &to_table(queue))),
        )
    });
    all.insert("queues".to_owned(), queues.collect::<toml::Table>().into());
    let mut text = serde_json::to_string_pretty(&all).expect("TOML's values are JSON's");
    text.push('\n');
    text
}

/// What is set in `nodes`, with the values as they were read.
fn nested(path: &mut Vec<String>, nodes: &Table, values: &toml::Table) -> toml::Table {
    let mut found = toml::Table::new();
    for (key, node) in nodes {
        path.push(key.clone());
        let inner = node.as_table().filter(|table| !table.is_empty());
        match (values.get(key), inner) {
            (Some(toml::Value::Table(values)), Some(nodes)) => {
                found.insert(key.clone(), nested(path, nodes, values).into());
            }
            (Some(value), _) if keys::classify(path) != Class::Section => {
                found.insert(key.clone(), shown(path, value));
            }
            _ => {}
        }
        path.pop();
    }
    found
}
