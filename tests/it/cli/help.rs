//! Help texts as they were agreed on, and completions that a shell takes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::command;

/// Every command with its sub-commands.
const COMMANDS: [&str; 30] = [
    "",
    "serve",
    "publish",
    "status",
    "ready",
    "queue",
    "queue list",
    "queue show",
    "queue set",
    "queue secret",
    "queue pause",
    "queue resume",
    "queue purge",
    "queue delete",
    "message",
    "message show",
    "message cancel",
    "dead",
    "dead list",
    "dead show",
    "dead groups",
    "dead replay",
    "dead discard",
    "lease",
    "sink",
    "bench",
    "config",
    "config check",
    "config print",
    "completions",
];

fn snapshot(name: &str) -> PathBuf {
    let name = if name.is_empty() { "posthaste".to_owned() } else { name.replace(' ', "-") };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/help").join(format!("{name}.txt"))
}

#[test]
fn help_is_as_agreed() {
    #[expect(clippy::disallowed_methods, reason = "the one setting of the tests: docs/DEVELOPING.md")]
    let update = std::env::var("UPDATE_SNAPSHOTS").is_ok();
    let mut wrong = Vec::new();
    for name in COMMANDS {
        let arguments: Vec<&str> = name.split_whitespace().chain(["--help"]).collect();
        let output = command(&arguments).env_remove("COLUMNS").output().expect("it runs");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{name}");
        let text = String::from_utf8(output.stdout).expect("text");
        let text: String = text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        if update {
            fs::create_dir_all(snapshot(name).parent().expect("a folder")).expect("a folder");
            fs::write(snapshot(name), &text).expect("a file");
        } else if fs::read_to_string(snapshot(name)).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", snapshot(name).display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "if this is meant, run the tests with UPDATE_SNAPSHOTS=1 and look at the difference:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_command_is_described_in_one_line() {
    let help = command(&["-h"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let commands =
        help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("commands");
    let described = commands.lines().filter(|line| line.trim().contains("  ")).count();
    assert_eq!(described, commands.lines().count(), "{commands}");
    let named = COMMANDS.iter().filter(|name| !name.is_empty() && !name.contains(' '));
    for name in named {
        assert!(commands.contains(&format!("  {name} ")), "{name}: {commands}");
    }
}

#[test]
fn bash_takes_the_completions_and_completes() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = command(&["completions", "bash"]).output().expect("it runs").stdout;
    fs::write(folder.path().join("posthaste.bash"), script).expect("a file");
    let words = "source posthaste.bash && complete -p posthaste && \
                 COMP_WORDS=(posthaste que) COMP_CWORD=1 && _posthaste posthaste que posthaste && echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["--norc", "-c", words])
        .current_dir(folder.path())
        .output()
        .expect("bash is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(text.contains("posthaste") && text.lines().last() == Some("queue"), "{text}");
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = command(&["completions", shell]).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && text.contains("publish"), "{shell}");
    }
    assert_eq!(command(&["completions", "tcsh"]).output().expect("it runs").status.code(), Some(2));
}
