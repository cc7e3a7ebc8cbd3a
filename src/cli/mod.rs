//! The command line: one file a command.
//!
//! Data goes to stdout, talk to stderr. Exit codes are a contract: see [`Exit`].
//!
//! | file | noun |
//! |---|---|
//! | `again` | sending a publish again whose answer was lost |
//! | `client` | [`client::Client`]: the typed client of the HTTP API, used by the tests too |
//! | `output` | data and talk, colours, what a closed pipe means |
//! | `progress` | a bar for long work |
//! | `table` | columns that stand under one another |
//! | `listing` | a list of the API, page after page |
//! | `letter` | one message for a person to read |
//! | `question` | asking before something is destroyed |
//! | `signals` | Ctrl-C, SIGTERM, the end of a terminal |
//! | the others | the command of that name |

mod again;
mod bench;
pub mod client;
mod completions;
mod config;
mod dead;
mod lease;
mod letter;
mod listing;
mod message;
mod output;
mod progress;
mod publish;
mod question;
mod queue;
mod ready;
mod serve;
mod signals;
mod sink;
mod status;
mod table;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{give, give_bytes, say};

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
    /// Whether a publish may have been stored all the same.
    may_be_stored: bool,
    /// Which item of a batch is at fault.
    index: Option<u64>,
}

impl Failure {
    /// A failure with its words.
    pub fn new(exit: Exit, words: impl fmt::Display) -> Self {
        Self { exit, words: words.to_string(), may_be_stored: false, index: None }
    }

    /// Something that this machine did not let happen.
    pub(crate) fn failed(words: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, words)
    }

    /// The end of a command about which nothing is left to say.
    pub(crate) const fn silent(exit: Exit) -> Self {
        Self { exit, words: String::new(), may_be_stored: false, index: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words)
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
    /// Publish a message, or one a line
    Publish(publish::Arguments),
    /// Show what is where, once or again and again
    Status(status::Arguments),
    /// Ask a gateway whether it is ready
    ///
    /// The exit code tells: 0 when it is, 1 when it is not, 4 when none answers.
    Ready(ready::Arguments),
    /// Look at queues and change them
    #[command(subcommand)]
    Queue(queue::Command),
    /// Look up a message, or cancel it
    #[command(subcommand)]
    Message(message::Command),
    /// Look at what could not be delivered, put it back, or throw it away
    #[command(subcommand)]
    Dead(dead::Command),
    /// Lease messages of a queue: print them, or run a command for each
    Lease(lease::Arguments),
    /// Receive what a gateway pushes: print it, and answer as told
    Sink(sink::Arguments),
    /// Measure a gateway: rates, latencies, and what a message costs
    Bench(bench::Arguments),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Print the completions of a shell
    Completions(completions::Arguments),
}

impl Command {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Serve(arguments) => serve::run(arguments),
            Self::Publish(arguments) => publish::run(arguments),
            Self::Status(arguments) => status::run(arguments),
            Self::Ready(arguments) => ready::run(arguments),
            Self::Queue(command) => queue::run(command),
            Self::Message(command) => message::run(command),
            Self::Dead(command) => dead::run(command),
            Self::Lease(arguments) => lease::run(arguments),
            Self::Sink(arguments) => sink::run(arguments),
            Self::Bench(arguments) => bench::run(arguments),
            Self::Config(command) => config::run(command),
            Self::Completions(arguments) => completions::run(arguments),
        }
    }
}

/// Runs a command line, whose first argument is the program's name, and says how it ended on stderr.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) if error.use_stderr() => {
            // Where stderr is closed there is nobody to tell.
            drop(error.print());
            return code(Exit::Usage);
        }
        Err(help) => return ended(give(&help.render().to_string())),
    };
    ended(line.command.as_ref().map_or_else(|| serve::run(&line.serve), Command::run))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => code(Exit::Done),
        Err(failure) => {
            if !failure.words.is_empty() {
                say(&failure.words);
            }
            code(failure.exit)
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}
