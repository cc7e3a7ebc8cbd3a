//! The command line: one file a command.
//!
//! Data goes to stdout, talk to stderr. Exit codes are a contract: see [`Exit`].

pub mod client;
mod config;
mod ready;
mod serve;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did what it was asked.
    Done,
    /// It failed.
    Failed,
    /// It was called wrongly.
    Usage,
    /// The gateway refused.
    Refused,
    /// No gateway answers.
    Unreachable,
    /// The configuration cannot be: `EX_CONFIG` of sysexits.h.
    Configuration,
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::Configuration => 78,
        }
    }
}

/// Why a command did not do what it was asked: the words for a person, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    words: String,
}

impl Failure {
    /// A failure with its words.
    pub fn new(exit: Exit, words: impl fmt::Display) -> Self {
        Self { exit, words: words.to_string() }
    }
}

/// A self-hosted HTTP message gateway: POST a message, get a 202 when it is safe, have it delivered.
#[derive(Parser)]
#[command(
    name = "posthaste",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command the gateway is served, with these flags.
    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (what happens without a command as well)
    Serve(serve::Arguments),
    /// Ask a gateway whether it is ready: exit code 0 when it is, 1 when it is not, 4 when none answers
    Ready(ready::Arguments),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
}

/// Runs a command line, whose first argument is the program's name, and says how it ended on stderr.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let printed = error.print();
            return code(if printed.is_ok() { exit } else { Exit::Failed });
        }
    };
    let ended = match line.command {
        None => serve::run(&line.serve),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        Some(Command::Ready(arguments)) => ready::run(&arguments),
        Some(Command::Config(command)) => config::run(&command),
    };
    match ended {
        Ok(()) => code(Exit::Done),
        Err(failure) => {
            say(&failure.words);
            code(failure.exit)
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}

/// Talk: to stderr.
#[expect(clippy::print_stderr, reason = "the command line talks to a person here")]
fn say(words: &str) {
    eprintln!("posthaste: {words}");
}

/// Data: to stdout.
#[expect(clippy::print_stdout, reason = "the command line gives its data here")]
fn give(data: &str) {
    print!("{data}");
}
