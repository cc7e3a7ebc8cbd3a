//! A terminal for commands that behave otherwise when a person is there.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::pty::{OpenptyResult, openpty};

use super::wait_until;

/// How long a command may take on a busy machine before a test calls it stuck.
const WITHIN: Duration = Duration::from_mins(1);

/// Which of a command's channels are the terminal.
#[derive(Clone, Copy)]
pub(crate) enum Channel {
    /// What it reads.
    Stdin,
    /// What it gives.
    Stdout,
    /// What it says.
    Stderr,
}

/// A terminal with a command at it.
pub(crate) struct Terminal {
    process: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command with some of its channels at a terminal; the others are as they were set.
    pub(crate) fn start(mut command: Command, channels: &[Channel]) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        for channel in channels {
            let end: OwnedFd = slave.try_clone().expect("a descriptor");
            match channel {
                Channel::Stdin => command.stdin(end),
                Channel::Stdout => command.stdout(end),
                Channel::Stderr => command.stderr(end),
            };
        }
        let process = command.spawn().expect("it starts");
        // Else the screen would never end.
        drop((command, slave));
        let mut screen_end = File::from(master.try_clone().expect("a descriptor"));
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let seen = screen.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = screen_end.read(&mut chunk) {
                seen.lock().expect("no panic inside").extend_from_slice(&chunk[..length]);
            }
        });
        Self { process, keyboard: master.into(), screen }
    }

    /// What was written on the screen so far.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("no panic inside")).into_owned()
    }

    /// Waits until this is on the screen.
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} is on the screen"), WITHIN, || {
            self.screen().contains(text).then_some(())
        });
    }

    /// Types a text.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a keyboard");
    }

    /// Waits for the command to end.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        wait_until("it ends", WITHIN, || self.process.try_wait().expect("its state"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}
