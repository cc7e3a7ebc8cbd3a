//! `posthaste config check` and `posthaste config print`: what holds, where it is from, what is wrong.

use clap::{Args, Subcommand};

use crate::cli::serve::SettingArguments;
use crate::cli::{Failure, give, say};

/// What to do with the configuration.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with the configuration, and end with 78 if anything is
    Check(SettingArguments),
    /// Print the settings that hold as TOML, secrets masked, each with where it is from
    Print(Print),
}

/// How to print it.
#[derive(Args)]
pub(super) struct Print {
    #[command(flatten)]
    settings: SettingArguments,
    /// As JSON, in its nested form, without where it is from
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => {
            // All that serving would refuse before it opens anything.
            drop(arguments.app()?);
            say("the configuration is sound");
        }
        Command::Print(arguments) => {
            let settings = arguments.settings.load()?;
            give(&if arguments.json { settings.print_json() } else { settings.print() })?;
        }
    }
    Ok(())
}
