//! `posthaste config check` and `posthaste config print`: what holds, where it is from, what is wrong.

use clap::Subcommand;

use crate::cli::serve::SettingArguments;
use crate::cli::{Failure, give, say};

/// What to do with the configuration.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Say everything that is wrong with the configuration, and end with 78 if anything is
    Check(SettingArguments),
    /// Print the settings that hold as TOML, secrets masked, each with where it is from unless it is built in
    Print(SettingArguments),
}

/// Runs it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => {
            // All that serving would refuse before it opens anything.
            drop(arguments.app()?);
            say("the configuration is sound");
        }
        Command::Print(arguments) => give(&arguments.load()?.print()),
    }
    Ok(())
}
