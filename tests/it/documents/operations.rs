//! docs/OPERATIONS.md explains each field of `/status` once, and every link of the documents leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::blocks;
use super::varying::unwrapped;

const API: &str = include_str!("../../../docs/API.md");
const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");

/// What the answer of the document has not got, since nothing is wrong there.
const NOT_SHOWN: &[&str] = &[
    "queues[].stalled.code",
    "queues[].stalled.detail",
    "queues[].stalled.since",
    "store.durability.reasons[]",
    "store.warnings[].code",
    "store.warnings[].detail",
];

/// The fields of an answer by their paths; counts are those of a queue.
fn fields(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, value) in fields_of {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match path.as_str() {
                    "totals" => drop(found.insert(path)),
                    // In full among what is not shown.
                    "store.warnings" | "store.durability.reasons" | "queues[].stalled" => {}
                    _ => fields(&path, value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(&format!("{path}[]"), item, found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

/// The fields that a table explains: `a.b` `.c` are `a.b` and `a.c`.
fn explained(table: &str) -> Vec<String> {
    let mut found = Vec::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        let mut before = String::new();
        for name in cell.split('`').filter(|name| !name.trim().is_empty()) {
            let name = match name.strip_prefix('.') {
                Some(rest) => format!("{before}.{rest}"),
                None => name.to_owned(),
            };
            name.rsplit_once('.').map_or("", |(before, _)| before).clone_into(&mut before);
            found.push(name);
        }
    }
    found
}

#[test]
fn each_field_of_the_status_is_explained_once() {
    let shown = blocks(API).into_iter().find(|block| block.text.contains("\"as_of\"")).expect("a status");
    let status = serde_json::from_str(&unwrapped(&shown.text)).expect("JSON");
    let mut there: BTreeSet<String> = NOT_SHOWN.iter().map(|name| (*name).to_owned()).collect();
    fields("", &status, &mut there);
    let section = OPERATIONS.split("\n## The status, field by field\n").nth(1).expect("the section");
    let table = section.split("\n## ").next().expect("its text");
    let explained = explained(table);
    let unique: BTreeSet<String> = explained.iter().cloned().collect();
    assert_eq!(unique.len(), explained.len(), "one is explained twice: {explained:?}");
    assert_eq!(unique, there);
}

#[test]
fn each_section_of_the_settings_is_in_the_table() {
    let section = OPERATIONS.split("\n## Settings\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let told: BTreeSet<&str> = section
        .lines()
        .filter_map(|row| row.strip_prefix("| `[")?.split(" | ").next())
        .flat_map(|cell| cell.split(['`', '[', ']', ' ']))
        .filter(|name| !name.is_empty() && !name.contains('.'))
        .collect();
    let mut there: BTreeSet<&str> =
        posthaste::config::KEYS.iter().filter_map(|key| key.split('.').next()).collect();
    let queues = section.contains("| `[queues.NAME]` |").then_some("queues");
    there.extend(queues);
    let told: BTreeSet<&str> = told.into_iter().chain(queues).collect();
    assert_eq!(told, there);
    assert!(queues.is_some(), "how a queue is declared is told as well");
}

/// How a heading is linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
    kept.map(|character| if character == ' ' { '-' } else { character }).collect()
}

fn text_outside_of_blocks(markdown: &str) -> String {
    let parts = markdown.split("\n```").step_by(2);
    parts.collect::<Vec<_>>().join("\n")
}

fn anchors(markdown: &str) -> BTreeSet<String> {
    let text = text_outside_of_blocks(markdown);
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = vec![root.join("docs/examples/README.md")];
    for folder in [root.to_path_buf(), root.join("docs")] {
        let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        documents.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let mut links = 0;
    for document in documents {
        let text = fs::read_to_string(&document).expect("a text");
        for link in text_outside_of_blocks(&text).split("](").skip(1) {
            let link = link.split(')').next().expect("a part");
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, place) =
                link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            if let Some(place) = place {
                let text = fs::read_to_string(&target).expect("a text");
                assert!(anchors(&text).contains(place), "{}: {link}", document.display());
            }
        }
    }
    assert!(links > 50, "{links} links were found");
}

#[test]
fn anchors_and_fields_are_found() {
    let text = "# One, two\n\n```sh\n# no heading\n```\n\n## A `code` & more\n";
    assert_eq!(anchors(text), ["a-code--more", "one-two"].map(str::to_owned).into());
    let table = "| field | is |\n|---|---|\n| `a.b` `.c[]` | x `d` |\n| `e` | y |\n";
    assert_eq!(explained(table), ["a.b", "a.c[]", "e"]);
}
