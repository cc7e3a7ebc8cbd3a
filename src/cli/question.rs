//! Asking before something is destroyed: a person at a terminal is asked, a script is not.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use crate::cli::{Exit, Failure};

/// Whether to ask.
#[derive(Args)]
pub(super) struct QuestionArguments {
    /// Do not ask, also when there is a terminal to ask at
    #[arg(long, short = 'y')]
    yes: bool,
}

impl QuestionArguments {
    /// Goes on when `--yes` was given, when stdin is no terminal, or when the person there says yes.
    ///
    /// # Errors
    /// When the answer is anything else.
    pub(super) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.yes || !io::stdin().is_terminal() {
            return Ok(());
        }
        drop(write!(io::stderr().lock(), "posthaste: {question} [y/N] "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
        if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "nothing was done"))
    }
}
