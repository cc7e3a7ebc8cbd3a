//! `posthaste completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::{CommandLine, Failure, give_bytes};

const EXAMPLES: &str = "\
Examples:
  source <(posthaste completions bash)
  posthaste completions zsh > \"${fpath[1]}/_posthaste\"
  posthaste completions fish > ~/.config/fish/completions/posthaste.fish";

/// For which shell.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "posthaste", &mut script);
    give_bytes(&script)
}
