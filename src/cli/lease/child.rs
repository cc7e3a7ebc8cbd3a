//! The command that runs for one message.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::api::lease::{Ending, LeasedMessage};

/// The exit code that rejects a message: `EX_DATAERR` of sysexits.h, "the input data was incorrect in some way".
const REJECT: i32 = 65;

/// The commands that run, by their process groups.
#[derive(Default)]
pub(super) struct Children {
    running: RefCell<BTreeSet<i32>>,
}

impl Children {
    /// Runs a command with the payload on its stdin until it ends; its output goes where ours goes.
    ///
    /// It has a process group of its own, so that Ctrl-C asks us and not it.
    ///
    /// # Errors
    /// When it cannot be started: the message is not at fault.
    pub(super) async fn run(
        &self,
        command: &[String],
        message: &LeasedMessage,
        payload: &[u8],
    ) -> io::Result<Ending> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env("POSTHASTE_ID", message.message.id.to_string())
            .env("POSTHASTE_QUEUE", message.message.queue.as_str())
            .env("POSTHASTE_ATTEMPT", message.attempt.to_string())
            .env("POSTHASTE_CONTENT_TYPE", message.message.content_type.as_deref().unwrap_or_default())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        self.running.borrow_mut().extend(group);
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command need not read what it does not need.
                drop(stdin.write_all(payload).await);
                drop(stdin.shutdown().await);
            }
        };
        // What it leaves behind may keep the pipe open for ever: its end is the end.
        let mut feed = std::pin::pin!(feed);
        let mut ended = std::pin::pin!(child.wait());
        let status = tokio::select! {
            status = &mut ended => status,
            () = &mut feed => ended.await,
        };
        if let Some(group) = group {
            self.running.borrow_mut().remove(&group);
        }
        Ok(ending_of(status?))
    }

    /// Sends a signal to all that run.
    pub(super) fn signal(&self, signal: Signal) {
        for group in self.running.borrow().iter() {
            // One that has just ended needs no signal.
            killpg(Pid::from_raw(*group), signal).unwrap_or_default();
        }
    }
}

/// What an end means for the message.
fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ending::Ack,
        (Some(REJECT), _) => Ending::Reject { reason: Some(format!("exit code {REJECT}")) },
        (Some(code), _) => retry(format!("exit code {code}")),
        (None, Some(signal)) => retry(format!("ended by signal {signal}")),
        (None, None) => retry("ended for no known reason".to_owned()),
    }
}

const fn retry(reason: String) -> Ending {
    Ending::Retry { delay: None, reason: Some(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_says_what_becomes_of_the_message() {
        let of = |wait_status| ending_of(ExitStatus::from_raw(wait_status));
        assert_eq!(of(0), Ending::Ack);
        assert_eq!(of(65 << 8), Ending::Reject { reason: Some("exit code 65".to_owned()) });
        assert_eq!(of(75 << 8), retry("exit code 75".to_owned()));
        assert_eq!(of(1 << 8), retry("exit code 1".to_owned()));
        assert_eq!(of(9), retry("ended by signal 9".to_owned()));
    }
}
