//! Keeps the house in order: each style rule that a program can check is a test named as the rule.
//!
//! A breach is printed as `file:line: what`, with the rule and its reason. `proofs` shows on small snippets that each
//! rule is able to fire; `source` is the scanner they all read with. The rules are explained in CONTRIBUTING.md.

mod proofs;
mod rules;
mod settings;
mod source;

use rules::Breach;
use source::{Source, rust_sources, text_files};
use std::fmt::Write as _;

/// Where text is written by hand. Lock file, build output and data are not.
const FOLDERS_OF_TEXT: &[&str] = &[
    "src", "tests", "benches", "examples", "docs", "config", "deploy", ".ci", ".cargo", ".config", ".github",
];
/// `.git` is a file where the checkout is a linked worktree.
const ROOT_FILES_NOT_BY_HAND: &[&str] = &["Cargo.lock", ".git"];

/// Fails with every breach, its file and line, and why the rule exists.
fn assert_none(rule: &str, why: &str, breaches: &[Breach]) {
    let mut report = format!("{rule}: {} of them\n", breaches.len());
    for breach in breaches {
        writeln!(report, "  {breach}").expect("writing to a string cannot fail");
    }
    assert!(breaches.is_empty(), "{report}why: {why}");
}

fn check_sources(sources: &[Source], rule: &str, why: &str, judge: impl Fn(&Source) -> Vec<Breach>) {
    assert!(!sources.is_empty(), "{rule}: found no source to read");
    let breaches: Vec<Breach> = sources.iter().flat_map(judge).collect();
    assert_none(rule, why, &breaches);
}

fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches", "examples"].into_iter().flat_map(rust_sources).collect()
}

fn check_texts(rule: &str, why: &str, judge: impl Fn(&str, &str) -> Vec<Breach>) {
    let mut texts = text_files(".");
    texts.retain(|(path, _)| !ROOT_FILES_NOT_BY_HAND.contains(&path.as_str()));
    texts.extend(FOLDERS_OF_TEXT.iter().copied().flat_map(text_files));
    let breaches: Vec<Breach> = texts.iter().flat_map(|(path, text)| judge(path, text)).collect();
    assert_none(rule, why, &breaches);
}

fn check_root_file(name: &str, rule: &str, why: &str, judge: impl Fn(&str, &str) -> Vec<Breach>) {
    match std::fs::read_to_string(source::root().join(name)) {
        Ok(text) => assert_none(rule, why, &judge(name, &text)),
        Err(error) => panic!("{rule}: {name}: {error}\nwhy: {why}"),
    }
}

#[test]
fn no_module_imports_a_higher_rank() {
    let why = "each module can be read, tested and replaced knowing only those below it";
    check_sources(&rust_sources("src"), "no module imports a higher or an equal rank", why, rules::imports);
}

#[test]
fn only_the_composition_root_names_a_backend() {
    let why = "a new store or processor is one new file; everything else sees the trait alone";
    let sources = rust_sources("src");
    let judge = |source: &Source| rules::backends_named(source, &sources);
    check_sources(&sources, "backends are named in app and config only", why, judge);
}

#[test]
fn only_the_actor_module_names_the_runtime() {
    let why = "actix-rt may be deprecated some day: then one folder changes";
    check_sources(&rust_sources("src"), "the runtime is named in actor only", why, rules::runtime_named);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let why = "a file is one noun and is read in one sitting; split it along the nouns it holds";
    check_sources(&all_sources(), "files have at most 500 lines", why, rules::long_files);
}

#[test]
fn every_script_says_first_what_it_does_and_can_be_read() {
    let why = "a script runs inside Redis, where nobody can step through it: it is read";
    check_texts("scripts are tidy", why, rules::untidy_scripts);
}

#[test]
fn no_function_is_longer_than_70_lines_or_120_in_tests() {
    let why = "what does not fit on a screen is not seen whole; name a part and take it out";
    check_sources(
        &all_sources(),
        "functions have at most 70 lines, in tests 120",
        why,
        rules::long_functions,
    );
}

#[test]
fn every_name_says_what_it_is() {
    let why = "a thing without a home gets a home with a name, and a name is what a reader searches for";
    check_sources(&all_sources(), "names have a meaning", why, rules::empty_names);
}

#[test]
fn every_source_file_starts_with_what_it_is() {
    let why = "the first line tells whether to read on";
    check_sources(&rust_sources("src"), "every file starts with `//!`", why, rules::missing_module_doc);
}

#[test]
fn every_actor_says_what_it_does_waits_for_and_guarantees_and_when_it_fails() {
    let why = "an operator who reads its name on /status finds here what to expect of it";
    let actors = ["ingester", "dispatcher", "worker", "settler", "sweeper"];
    let mut sources = rust_sources("src/pipeline");
    sources.retain(|source| {
        let modules = source.modules();
        let stands_for_itself = modules.len() == 2 && actors.contains(&modules[1]);
        stands_for_itself && !source.is_test_code(0)
    });
    let breaches: Vec<Breach> = sources.iter().flat_map(rules::missing_actor_headings).collect();
    assert_none("every actor's doc has the four headings", why, &breaches);
}

#[test]
fn every_setting_does_something_or_the_manual_says_that_it_does_not() {
    let why = "who sets a key relies on it; one that is only checked and printed is worse than none";
    let manual = std::fs::read_to_string(source::root().join("config/default.toml")).expect("the manual");
    let breaches = settings::without_effect(&posthaste::config::KEYS, &manual, &rust_sources("src"));
    assert_none("every setting is read", why, &breaches);
}

#[test]
fn no_work_is_left_unfinished_in_the_text() {
    let why = "what is missing belongs in the issue tracker, where it is seen and sorted";
    check_texts("no marks of unfinished work", why, rules::unfinished_work);
}

#[test]
fn no_path_of_one_machine_is_committed() {
    let why =
        "it exists nowhere else; use a path within the repository, or a temporary directory of the test";
    check_texts("no absolute paths of one machine", why, rules::machine_paths);
}

#[test]
fn the_changelog_has_a_section_for_what_is_not_released_yet() {
    let why = "the entry is written in the commit that changes the behaviour";
    check_root_file("CHANGELOG.md", "CHANGELOG has Unreleased", why, rules::changelog_without_unreleased);
}

#[test]
fn the_readme_shows_how_to_start_and_how_to_post() {
    let why = "a newcomer types two commands and has seen a message go through";
    check_root_file("README.md", "README has the two commands", why, rules::missing_first_commands);
}
