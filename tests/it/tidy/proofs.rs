//! Shows that each rule fires on what it forbids, stays silent on what it allows, and that the scanner is not fooled.

use super::rules::{self, Breach};
use super::settings::without_effect;
use super::source::Source;

fn lines(breaches: &[Breach]) -> Vec<usize> {
    breaches.iter().map(|breach| breach.line).collect()
}

fn paths(code: &str) -> Vec<String> {
    Source::new("src/x.rs", code).paths_from("crate").iter().map(|path| path.segments.join("::")).collect()
}

#[test]
fn the_scanner_blanks_out_comments_and_literals_and_nothing_else() {
    let text = r###"a /* b /* c */ d */ e // f
"g \" {" h 'i' '\'' '"' '\u{7b}' '…' &'j str b"k" br#"l " m"# r#type r##"n"# o"## c"p" var q;
"###;
    let code = Source::new("src/x.rs", text).code;
    assert_eq!(code.len(), text.len());
    let left: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "e", "h", "&'j", "str", "r#type", "var", "q;"]);
    assert_eq!(code.lines().count(), 2);
}

#[test]
fn the_scanner_survives_what_never_ends() {
    for text in
        ["\"a", "/* a", "'\\", "'", "r#\"a", "b'", "fn a() {", "crate::", "use crate::{a, b::{c", "super::"]
    {
        let source = Source::new("src/app.rs", text);
        assert_eq!(source.code.len(), text.len(), "{text}");
        let _ = (source.paths_from("crate"), source.items("fn"), rules::imports(&source));
    }
}

#[test]
fn the_scanner_finds_every_branch_of_a_use() {
    let code = "use crate::{a, b::{self, c as d, e::*}, f::g};\nfn h() { crate::i::J::new(crate :: k) }";
    assert_eq!(paths(code), ["a", "b::self", "b::c", "b::e::*", "f::g", "i::J::new", "k"]);
    assert_eq!(paths("pub(crate) fn a() {} // crate::b\n\"crate::c\"; $crate::d!();"), ["d"]);
    assert_eq!(paths("crate::a::<B>::c(); crate::Settings { e: 1 }"), ["a", "Settings"]);
}

#[test]
fn a_higher_an_equal_and_an_unknown_rank_are_seen_and_a_lower_one_is_not() {
    let judge = |path: &str, code: &str| lines(&rules::imports(&Source::new(path, code)));
    let code = "use crate::domain::Id;\nuse crate::store::{\n    Lease,\n};\nuse crate::pipeline::x;\nuse crate::processor;";
    assert_eq!(judge("src/store/sqlite/mod.rs", code), [5, 6]);
    assert_eq!(judge("src/pipeline/worker.rs", code), [0; 0]);
    assert_eq!(judge("src/clock.rs", "use crate::domain::Id;"), [0; 0]);
    assert_eq!(judge("src/clock.rs", "use crate::telemetry::install;"), [1]);
    assert_eq!(judge("src/pipeline/worker.rs", "use crate::{\n    domain::Id,\n    http::State,\n};"), [3]);
    assert_eq!(judge("src/http/error.rs", "fn a() {\n    crate::app::App::build()\n}"), [2]);
    assert_eq!(judge("src/http/error.rs", "#[cfg(test)]\nmod tests {\n    use crate::cli::a;\n}"), [3]);
    assert_eq!(judge("src/http/error.rs", "use crate::App;"), [1]);
    assert_eq!(judge("src/newcomer.rs", ""), [1]);
}

#[test]
fn a_super_that_reaches_the_crate_root_is_seen() {
    let judge = |path: &str, code: &str| lines(&rules::imports(&Source::new(path, code)));
    assert_eq!(judge("src/http/error.rs", "use super::super::app::App;"), [1]);
    assert_eq!(judge("src/http/error.rs", "use super::state::State;"), [0; 0]);
    assert_eq!(judge("src/http/mod.rs", "use super::app::App;"), [1]);
    assert_eq!(judge("src/clock.rs", "mod tests {\n    use super::*;\n}"), [0; 0]);
    assert_eq!(judge("src/clock.rs", "mod tests {\n    use super::super::app;\n}"), [2]);
    assert_eq!(judge("src/store/redis/keys.rs", "use super::super::Lease;"), [0; 0]);
    assert_eq!(judge("src/clock.rs", "pub(super) fn a() {}"), [0; 0]);
}

#[test]
fn a_backend_named_outside_of_app_is_seen() {
    let all = [Source::new("src/store/paper/mod.rs", "impl MessageStore for Paper {}")];
    let judge = |path: &str, code: &str| lines(&rules::backends_named(&Source::new(path, code), &all));
    let code = "use crate::store::{MessageStore, sqlite};\nfn a() { crate::processor::http::run() }\nuse crate::store::paper;";
    assert_eq!(judge("src/pipeline/worker.rs", code), [1, 3, 2]);
    assert_eq!(judge("src/http/state.rs", code), [1, 3, 2]);
    assert_eq!(judge("src/app.rs", code), [0; 0]);
    assert_eq!(judge("src/store/mod.rs", "use crate::store::sqlite;"), [0; 0]);
    assert_eq!(judge("src/pipeline/worker.rs", "use crate::store::MessageStore;"), [0; 0]);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::store::{\n        memory,\n    };\n}";
    assert_eq!(judge("src/pipeline/worker.rs", tests), [0; 0]);
    assert_eq!(judge("src/pipeline/worker/tests.rs", "use crate::store::memory;"), [0; 0]);
}

#[test]
fn the_runtime_named_outside_of_actor_is_seen() {
    let judge = |path: &str, code: &str| lines(&rules::runtime_named(&Source::new(path, code)));
    let code = "use actix_rt::Arbiter;\nuse actix_web::{web, rt};\nuse actix_web::HttpServer; // actix_rt";
    assert_eq!(judge("src/http/mod.rs", code), [1, 2]);
    assert_eq!(judge("src/actor/mailbox.rs", code), [0; 0]);
}

#[test]
fn a_file_of_501_lines_is_seen_and_one_of_500_is_not() {
    let judge = |count: usize| rules::long_files(&Source::new("src/x.rs", &"//! a\n".repeat(count))).len();
    assert_eq!([judge(500), judge(501)], [0, 1]);
}

#[test]
fn a_function_with_too_many_lines_is_seen_wherever_it_hides() {
    let judge = |path: &str, code: &str| lines(&rules::long_functions(&Source::new(path, code)));
    let function = |count: usize| {
        format!("impl A {{\n    fn b(c: [u8; 4]) -> D where E: F {{\n{}    }}\n}}\n", "g();\n".repeat(count))
    };
    assert_eq!(judge("src/x.rs", &function(70)), [0; 0]);
    assert_eq!(judge("src/x.rs", &function(71)), [2]);
    assert_eq!(judge("tests/it/x.rs", &function(120)), [0; 0]);
    assert_eq!(judge("tests/it/x.rs", &function(121)), [2]);
    assert_eq!(judge("src/x.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}", function(120))), [0; 0]);
    assert_eq!(judge("src/x.rs", &format!("#[cfg(not(test))]\nmod real {{\n{}}}", function(71))), [4]);
    let braces =
        format!("fn a() {{\n    let b = \"}}\"; // }}\n    let c = '}}';\n{}}}\n", "d();\n".repeat(69));
    assert_eq!(judge("src/x.rs", &braces), [1]);
    assert_eq!(judge("src/x.rs", &format!("trait A {{\n    fn b();\n}}\n{}", "\n".repeat(90))), [0; 0]);
}

#[test]
fn a_name_without_a_meaning_is_seen() {
    let judge = |path: &str, code: &str| lines(&rules::empty_names(&Source::new(path, code)));
    assert_eq!(judge("src/store/utils.rs", ""), [1]);
    assert_eq!(judge("src/helpers/mod.rs", ""), [1]);
    assert_eq!(judge("src/x.rs", "\nmod misc { }"), [2]);
    assert_eq!(judge("src/x.rs", "struct A;\npub struct QueueManager<T>(T);\nimpl Service for A {}\n"), [2]);
    assert_eq!(judge("src/x.rs", "fn a() {}\nfn get_b() {}\nfn target_c() { map.get_mut(1); }"), [2]);
}

#[test]
fn a_file_and_an_actor_without_their_docs_are_seen() {
    let source = |text: &str| Source::new("src/pipeline/worker.rs", text);
    assert_eq!(lines(&rules::missing_module_doc(&source("// a\n//! b"))), [1]);
    assert_eq!(lines(&rules::missing_module_doc(&source("//! b"))), [0; 0]);
    let complete = "//! a\n//!\n//! # What it does\n//! # What it waits for\n//! # What it guarantees\n//! # When it fails\n";
    assert_eq!(rules::missing_actor_headings(&source(complete)), []);
    let lacking = rules::missing_actor_headings(&source(&complete.replace("# When", "When")));
    assert_eq!(lacking[0].to_string(), "src/pipeline/worker.rs:1: no heading `//! # When it fails`");
    assert_eq!(rules::missing_actor_headings(&source(&format!("use a;\n{complete}"))).len(), 4);
}

#[test]
fn unfinished_work_and_machine_paths_are_seen() {
    let unfinished = |text: &str| lines(&rules::unfinished_work("docs/X.md", text));
    assert_eq!(unfinished(concat!("a\n// TO", "DO: b\nTO", "DOS\nFIX", "ME\nXX", "XX")), [2, 4]);
    let machine = |text: &str| lines(&rules::machine_paths("docs/X.md", text));
    assert_eq!(
        machine(concat!("a\n\"/wo", "rk/b\"\nat /tm", "p/c\nhttp://d/wo", "rk/e\n/wo", "rkers/f")),
        [2, 3]
    );
}

#[test]
fn a_setting_that_nothing_reads_is_seen() {
    let manual = "[store]\n\n# 1 to 9.\nsize = 1\n\n[queue_defaults]\n# Only 1: reserved.\nshards = 1\n";
    let judge = |code: &str, manual: &str| {
        let sources = [
            Source::new("src/config/check.rs", "fn a(b: B) { b.size; b.shards }"),
            Source::new("src/store/mod.rs", code),
        ];
        let keys = ["store.size".to_owned(), "queue_defaults.shards".to_owned()];
        lines(&without_effect(&keys, manual, &sources))
    };
    assert_eq!(judge("fn open(a: A) { a.size }", manual), [0; 0]);
    for unread in [
        "struct A { size: u64 }",
        "fn problems(&self) { self.size }",
        "fn open(a: A) { a.size() }",
        "#[cfg(test)]\nmod tests { fn b(a: A) { a.size } }",
        "fn open() { /* a.size */ }",
    ] {
        assert_eq!(judge(unread, manual), [4], "{unread}");
    }
    assert_eq!(judge("fn open(a: A) { (a.size, a.shards) }", manual), [8], "it is said to have no effect");
    let silent = manual.replace(": reserved", "");
    assert_eq!(judge("fn open(a: A) { a.size }", &silent), [8], "the manual does not say so");
    let stale = manual.replace("1 to 9.", "1 to 9. Not in this version.");
    assert_eq!(judge("fn open(a: A) { a.size }", &stale), [4], "the manual says so no longer rightly");
}

#[test]
fn a_changelog_and_a_readme_that_lack_their_lines_are_seen() {
    assert_eq!(rules::changelog_without_unreleased("CHANGELOG.md", "# A\n\n## 0.1.0\n").len(), 1);
    assert_eq!(rules::changelog_without_unreleased("CHANGELOG.md", "# A\n\n## Unreleased\n"), []);
    let readme = "```sh\ncargo run --release\n```\n```sh\n$ curl -i localhost\n```\n";
    assert_eq!(rules::missing_first_commands("README.md", readme), []);
    assert_eq!(rules::missing_first_commands("README.md", "Type cargo run --release, then curl.").len(), 2);
}

#[test]
#[should_panic(expected = "src/x.rs:1: a module called `misc`\nwhy: because")]
fn a_breach_fails_its_test_with_file_line_rule_and_reason() {
    let sources = [Source::new("src/x.rs", "mod misc {}")];
    super::check_sources(&sources, "names have a meaning", "because", rules::empty_names);
}

#[test]
fn a_script_without_a_head_a_wide_line_and_json_are_seen_and_other_files_are_not() {
    let wide = "x".repeat(131);
    let text = format!("local a\n{wide}\ncjson.decode(a)\n");
    assert_eq!(lines(&rules::untidy_scripts("src/a.lua", &text)), [1, 2, 3]);
    assert_eq!(lines(&rules::untidy_scripts("src/a.lua", &format!("-- a\n{}", "a\n".repeat(500)))), [501]);
    assert_eq!(rules::untidy_scripts("src/a.lua", "-- What it does.\nlocal a\n"), []);
    assert_eq!(rules::untidy_scripts("src/a.rs", &text), []);
}
