//! The signals that ask a process to stop: Ctrl-C, SIGTERM, and the end of its terminal.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask this process to stop.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Of a terminal that closes; `None` where whoever started this process had it ignored, as `nohup` does.
    hangup: Option<Signal>,
}

impl Signals {
    /// Listens from now on; none of them ends this process any more.
    pub(super) fn listen() -> std::io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
        })
    }

    /// Waits for the next one; tells its name.
    pub(super) async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether this process was started with that signal ignored, as far as the system tells.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status).is_some_and(|ignored| ignored >> (signal.as_raw_value() - 1) & 1 == 1)
}

/// The mask of ignored signals in what Linux says of a process, the first signal lowest.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read_from_what_the_system_says() {
        let status = "Name:\tposthaste\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored(status), Some(0x1001));
        assert_eq!(ignored("Name:\tposthaste\n"), None);
        assert_eq!(ignored("SigIgn:\tnone\n"), None);
    }
}
