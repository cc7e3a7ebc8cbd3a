//! The rules: each a function from text to the places that break it, so that each can be shown to fire.

use super::source::{Item, Source, words};
use std::fmt;
use std::path::Path;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The module tree from the bottom up. A module imports from lower ranks and from itself, never sideways or upwards.
const RANKS: &[(&str, u8)] = &[
    ("domain", 0),
    ("clock", 1),
    ("metrics", 1),
    ("telemetry", 1),
    ("actor", 2),
    ("api", 2),
    ("store", 3),
    ("processor", 3),
    ("pipeline", 4),
    ("http", 5),
    ("config", 6),
    ("app", 7),
    ("cli", 8),
    ("main", 8),
    ("lib", 9),
];

const FILE_LINES_MAX: usize = 500;
const SCRIPT_COLUMNS_MAX: usize = 130;
const FUNCTION_LINES_MAX: usize = 70;
/// A scenario reads best in one piece, so tests may be longer.
const TEST_FUNCTION_LINES_MAX: usize = 120;

/// Names that say nothing of what is inside.
const MODULES_WITHOUT_A_MEANING: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "type", "types", "misc"];
const SUFFIXES_WITHOUT_A_MEANING: &[&str] = &["Manager", "Service", "Helper"];

/// Modules that are one backend of a trait; what implements the trait in a file of its own is found besides.
const BACKENDS: &[(&str, &str, &[&str])] = &[
    ("store", "MessageStore", &["memory", "sqlite", "redis", "observed"]),
    ("processor", "Processor", &["log", "http", "pull"]),
];
/// `app` composes them; `config` gathers the settings each of them owns.
const MAY_NAME_BACKENDS: &[&str] = &["app", "config"];
const MAY_NAME_THE_RUNTIME: &[&str] = &["actor", "app", "main"];

const ACTOR_HEADINGS: &[&str] = &["What it does", "What it waits for", "What it guarantees", "When it fails"];

// In two halves, because these files are read as well.
const MARKS_OF_UNFINISHED_WORK: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const PATHS_OF_ONE_MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tm", "p/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

fn breach(source: &Source, line: usize, what: String) -> Breach {
    Breach { path: source.path.clone(), line, what }
}

/// Paths into `crate` that lead to the same rank or a higher one, and `super` paths that hide from this check.
pub(super) fn imports(source: &Source) -> Vec<Breach> {
    let modules = source.modules();
    let own = modules[0];
    let Some(own_rank) = rank(own) else {
        return vec![breach(
            source,
            1,
            format!("the module `{own}` has no rank; give it one in tests/it/tidy/rules.rs"),
        )];
    };
    let mut breaches = supers_to_the_root(source, &modules);
    for path in source.paths_from("crate") {
        let target = path.segments.first().map_or("", String::as_str);
        if target == own {
            continue;
        }
        let what = match rank(target) {
            Some(target_rank) if target_rank < own_rank => continue,
            Some(target_rank) => format!("`{own}` (rank {own_rank}) imports `{target}` (rank {target_rank})"),
            None => format!("`crate::{target}` is no module with a rank; name the module the item lives in"),
        };
        breaches.push(breach(source, source.line_at(path.offset), what));
    }
    breaches
}

fn supers_to_the_root(source: &Source, modules: &[&str]) -> Vec<Breach> {
    let depth_of_file = if matches!(modules, ["lib" | "main"]) { 0 } else { modules.len() };
    let inline = source.items("mod");
    words(&source.code, "super")
        .filter(|&at| !source.code[..at].trim_end().ends_with("::"))
        .filter(|&at| {
            let steps = source.code[at..].split("::").take_while(|part| part.trim() == "super").count();
            steps > 0
                && steps >= depth_of_file + inline.iter().filter(|module| module.body.contains(&at)).count()
        })
        .map(|at| {
            breach(source, source.line_at(at), "`super` reaches the crate root; write `crate::…`".to_owned())
        })
        .collect()
}

/// Backends named where only their trait should be. `all` is the whole of src: it tells which modules are backends.
pub(super) fn backends_named(source: &Source, all: &[Source]) -> Vec<Breach> {
    let own = source.modules()[0];
    let mut breaches = Vec::new();
    for (owner, trait_name, known) in BACKENDS {
        if own == *owner || MAY_NAME_BACKENDS.contains(&own) {
            continue;
        }
        let found = implementors(owner, trait_name, all);
        for path in source.paths_from(owner) {
            let Some(named) = path.segments.first() else { continue };
            let is_backend = known.contains(&named.as_str()) || found.contains(named);
            if is_backend && !source.is_test_code(path.offset) {
                let what = format!("`{own}` names the backend `{owner}::{named}`");
                breaches.push(breach(source, source.line_at(path.offset), what));
            }
        }
    }
    breaches
}

/// The submodules of `owner` that hold an `impl Trait for …`.
fn implementors(owner: &str, trait_name: &str, all: &[Source]) -> Vec<String> {
    let implements = |source: &&Source| {
        words(&source.code, trait_name).any(|at| {
            let rest = source.code[at + trait_name.len()..].trim_start();
            rest.starts_with("for ") && !source.is_test_code(at)
        })
    };
    let below = |source: &Source| match source.modules().as_slice() {
        [first, second, ..] if *first == owner => Some((*second).to_owned()),
        _ => None,
    };
    all.iter().filter(implements).filter_map(below).collect()
}

/// The actor runtime named outside of the module that hides it.
pub(super) fn runtime_named(source: &Source) -> Vec<Breach> {
    if MAY_NAME_THE_RUNTIME.contains(&source.modules()[0]) {
        return Vec::new();
    }
    let direct = words(&source.code, "actix_rt");
    let through_web = source.paths_from("actix_web").into_iter();
    let through_web = through_web.filter(|path| path.segments.first().is_some_and(|name| name == "rt"));
    direct
        .chain(through_web.map(|path| path.offset))
        .map(|at| {
            breach(source, source.line_at(at), "the runtime is named; `crate::actor` wraps it".to_owned())
        })
        .collect()
}

pub(super) fn long_files(source: &Source) -> Vec<Breach> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, {FILE_LINES_MAX} are allowed");
    if lines > FILE_LINES_MAX { vec![breach(source, lines, what)] } else { Vec::new() }
}

/// Scripts that do not say first what they do, are too long or wide to be read in one sitting, or use JSON.
pub(super) fn untidy_scripts(path: &str, text: &str) -> Vec<Breach> {
    if Path::new(path).extension().is_none_or(|extension| extension != "lua") {
        return Vec::new();
    }
    let found = |line: usize, what: &str| Breach { path: path.to_owned(), line, what: what.to_owned() };
    let mut breaches = Vec::new();
    if !text.starts_with("-- ") {
        breaches.push(found(1, "it does not start with a comment that says what it does"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        breaches.push(found(lines, "it has too many lines"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if line.chars().count() > SCRIPT_COLUMNS_MAX {
            breaches.push(found(number, "the line is too long"));
        }
        if line.contains("cjson") {
            breaches.push(found(number, "JSON in Lua: large numbers lose their last digits"));
        }
    }
    breaches
}

/// Functions with more lines between their braces than allowed, comments and blank lines included.
pub(super) fn long_functions(source: &Source) -> Vec<Breach> {
    let too_long = |function: Item| {
        let tested = source.is_test_code(function.body.start);
        let allowed = if tested { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
        let span = source.line_at(function.body.end) - source.line_at(function.body.start);
        let lines = span.saturating_sub(1);
        let what = format!("`{}` has {lines} lines, {allowed} are allowed", function.name);
        (lines > allowed).then(|| breach(source, function.line, what))
    };
    source.items("fn").into_iter().filter_map(too_long).collect()
}

/// Modules, types and functions whose names say nothing of what they are.
pub(super) fn empty_names(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let folders_and_file = source.path.trim_end_matches(".rs").split('/');
    let inline = source.items("mod").into_iter().map(|module| (module.line, module.name));
    for (line, name) in folders_and_file.map(|part| (1, part.to_owned())).chain(inline) {
        if MODULES_WITHOUT_A_MEANING.contains(&name.as_str()) {
            breaches.push(breach(source, line, format!("a module called `{name}`")));
        }
    }
    for (line, name) in names_after(source, &["struct", "enum", "trait", "union"]) {
        if SUFFIXES_WITHOUT_A_MEANING.iter().any(|suffix| name.ends_with(suffix)) {
            breaches.push(breach(source, line, format!("a type called `{name}`")));
        }
    }
    for (line, name) in names_after(source, &["fn"]) {
        if name.starts_with("get_") {
            breaches.push(breach(source, line, format!("a function called `{name}`; leave the `get_` out")));
        }
    }
    breaches
}

/// The word after each of `keywords`, with its line.
fn names_after(source: &Source, keywords: &[&'static str]) -> Vec<(usize, String)> {
    let code = &source.code;
    let name_at = |at: usize, keyword: &str| {
        let rest = code[at + keyword.len()..].trim_start();
        let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
        (source.line_at(at), name.unwrap_or_default().to_owned())
    };
    keywords.iter().flat_map(|keyword| words(code, keyword).map(move |at| name_at(at, keyword))).collect()
}

pub(super) fn missing_module_doc(source: &Source) -> Vec<Breach> {
    let what = "starts without `//!`".to_owned();
    if source.text.starts_with("//!") { Vec::new() } else { vec![breach(source, 1, what)] }
}

/// The headings that the module doc of an actor lacks.
pub(super) fn missing_actor_headings(source: &Source) -> Vec<Breach> {
    let doc = source.text.lines().map_while(|line| line.strip_prefix("//!"));
    let headings: Vec<&str> = doc
        .map(str::trim)
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    ACTOR_HEADINGS
        .iter()
        .filter(|wanted| !headings.contains(wanted))
        .map(|wanted| breach(source, 1, format!("no heading `//! # {wanted}`")))
        .collect()
}

/// Marks of unfinished work in any text file.
pub(super) fn unfinished_work(path: &str, text: &str) -> Vec<Breach> {
    let marks = |line: &str| {
        let found = MARKS_OF_UNFINISHED_WORK.iter().find(|mark| words(line, mark).next().is_some());
        found.map(|mark| format!("`{mark}`"))
    };
    breaches_by_line(path, text, marks)
}

/// Absolute paths that exist on one machine only, in any text file.
pub(super) fn machine_paths(path: &str, text: &str) -> Vec<Breach> {
    let paths = |line: &str| {
        let found = PATHS_OF_ONE_MACHINE.iter().find(|prefix| {
            line.match_indices(**prefix).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|letter| letter.is_alphanumeric() || "._-/}".contains(letter))
            })
        });
        found.map(|prefix| format!("a path under `{prefix}`"))
    };
    breaches_by_line(path, text, paths)
}

fn breaches_by_line(path: &str, text: &str, judge: impl Fn(&str) -> Option<String>) -> Vec<Breach> {
    let judged = text.lines().enumerate().map(|(index, line)| (index + 1, judge(line)));
    judged.filter_map(|(line, what)| Some(Breach { path: path.to_owned(), line, what: what? })).collect()
}

pub(super) fn changelog_without_unreleased(path: &str, text: &str) -> Vec<Breach> {
    let what = "no line `## Unreleased`".to_owned();
    let found = text.lines().any(|line| line.trim_end() == "## Unreleased");
    if found { Vec::new() } else { vec![Breach { path: path.to_owned(), line: 1, what }] }
}

/// The two commands a newcomer types, each on a line of its own: start the gateway, post a message.
pub(super) fn missing_first_commands(path: &str, text: &str) -> Vec<Breach> {
    let line_starts =
        |command: &str| text.lines().any(|line| line.trim_start_matches("$ ").starts_with(command));
    ["cargo run --release", "curl "]
        .into_iter()
        .filter(|command| !line_starts(command))
        .map(|command| {
            let what = format!("no line starts with `{}`", command.trim_end());
            Breach { path: path.to_owned(), line: 1, what }
        })
        .collect()
}
