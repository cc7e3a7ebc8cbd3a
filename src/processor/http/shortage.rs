//! What this machine or process is short of, and no receiver can help: such an attempt is not counted.
//!
//! The message is put back for about a second ([`Outcome::Deferred`]), as often as it takes. The log says so when it begins, and
//! once a minute as long as it lasts.

use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;

use super::classify::chain;
use super::client::SendError;
use super::connect::ConnectError;
use crate::domain::outcome::{Outcome, RetryHint};
use crate::processor::Report;

/// How the system says that it lacks descriptors or memory. No address to connect from (`EADDRNOTAVAIL`) is not among them: that
/// may be for ever, as for `[::1]` where IPv6 is off, and a message must come to an end.
const LACKS: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];

/// How long a message waits, milliseconds: spread, so that not all come back at once.
const DELAY_MS: Range<u64> = 750..1_250;

/// How often the log says that a shortage lasts.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Descriptors that must be left for a failure to be another's: a look-up or a set of certificates takes two or three at once.
const PROBES: usize = 4;

/// What is lacking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lack {
    /// Descriptors, memory, addresses, places to look names up.
    Resources,
    /// The certificates to judge those of receivers by.
    Roots,
}

/// Puts messages back and says so; there is one in a process.
#[derive(Default)]
pub(super) struct Shortages {
    resources: Notice,
    roots: Notice,
}

/// When the log last spoke of a lack, and how many messages were put back since.
#[derive(Default)]
struct Notice(Mutex<(Option<Instant>, u64)>);

impl Shortages {
    /// How an attempt ends that could not be made for lack of something.
    pub(super) fn defer(&self, lack: Lack, cause: &str) -> Report {
        let notice = match lack {
            Lack::Resources => &self.resources,
            Lack::Roots => &self.roots,
        };
        if let Some(count) = notice.due(Instant::now()) {
            match lack {
                Lack::Resources => {
                    log::warn!("cause" = cause, "count" = count; "the gateway is short of descriptors, memory, addresses or look-ups: deliveries wait, and no attempt is counted");
                }
                Lack::Roots => {
                    log::warn!("cause" = cause, "count" = count; "the certificates that this machine trusts cannot be read: https deliveries wait, and no attempt is counted");
                }
            }
        }
        let until = RetryHint::After(Duration::from_millis(fastrand::u64(DELAY_MS)));
        Report { error: Some(cause.to_owned()), ..Report::from(Outcome::Deferred { until }) }
    }
}

impl Notice {
    /// Counts one message; gives how many there were since the log last spoke of it, when it is time to speak again.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut notice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said_at, count) = &mut *notice;
        *count += 1;
        if said_at.is_some_and(|at| now.saturating_duration_since(at) < SAID_EVERY) {
            return None;
        }
        *said_at = Some(now);
        Some(std::mem::take(count))
    }
}

/// Whether this error tells of a shortage.
pub(super) fn is_lack(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| LACKS.contains(&Errno::from_raw(code)))
}

/// The shortage that kept a connection from being made, if it was one. What breaks a connection that was made is not
/// looked at: the receiver may have the message.
pub(super) fn behind(error: &SendError) -> Option<&io::Error> {
    match error {
        SendError::Connect(ConnectError::Connect(error) | ConnectError::Tls(error)) => lack_among(error),
        SendError::Connect(_) | SendError::Http(_) => None,
    }
}

fn lack_among<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    chain(Some(error)).find_map(|cause| cause.downcast_ref::<io::Error>().filter(|error| is_lack(error)))
}

/// A shortage that holds at this moment. Resolvers and readers of certificates often hide theirs behind other words.
pub(super) fn now() -> Option<io::Error> {
    let mut held = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => return Some(error).filter(is_lack),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    const RECEIVERS: [Errno; 9] = [
        Errno::EADDRNOTAVAIL,
        Errno::ECONNREFUSED,
        Errno::ECONNRESET,
        Errno::EHOSTUNREACH,
        Errno::ENETUNREACH,
        Errno::ETIMEDOUT,
        Errno::EPIPE,
        Errno::EACCES,
        Errno::EAGAIN,
    ];

    #[test]
    fn a_shortage_is_found_however_deep_it_lies() {
        let found = |errno: Errno| {
            let plain = || io::Error::from_raw_os_error(errno as i32);
            let (shallow, deep) = (plain(), Outer(io::Error::other(Outer(io::Error::other(plain())))));
            let found = [&shallow as &(dyn Error + 'static), &deep]
                .map(|error| lack_among(error).and_then(io::Error::raw_os_error));
            assert_eq!(found[0], found[1], "{errno}");
            found[0]
        };
        for errno in LACKS {
            assert_eq!(found(errno), Some(errno as i32), "{errno}");
        }
        for errno in RECEIVERS {
            assert_eq!(found(errno), None, "{errno}");
        }
    }

    #[test]
    fn no_address_to_connect_from_and_nobody_there_count() {
        for errno in RECEIVERS {
            let error = io::Error::from_raw_os_error(errno as i32);
            assert!(behind(&ConnectError::Connect(error).into()).is_none(), "{errno}");
        }
        for errno in LACKS {
            let error = || io::Error::from_raw_os_error(errno as i32);
            assert!(behind(&ConnectError::Connect(error()).into()).is_some(), "{errno}");
            assert!(behind(&ConnectError::Tls(io::Error::other(error())).into()).is_some(), "{errno}");
        }
    }

    #[test]
    fn a_message_is_put_back_for_about_a_second_and_not_all_for_the_same() {
        let shortages = Shortages::default();
        let delays: Vec<Duration> = (0..100)
            .map(|_| match shortages.defer(Lack::Resources, "too many open files").outcome {
                Outcome::Deferred { until: RetryHint::After(delay) } => delay,
                other => panic!("{other:?}"),
            })
            .collect();
        let about_a_second = Duration::from_millis(750)..Duration::from_millis(1_250);
        assert!(delays.iter().all(|delay| about_a_second.contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }

    #[test]
    fn the_log_says_it_at_once_and_then_once_a_minute_with_the_count() {
        let (notice, began) = (Notice::default(), Instant::now());
        let after = |seconds: u64| notice.due(began + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(1));
        assert_eq!([after(0), after(1), after(59)], [None; 3]);
        assert_eq!(after(60), Some(4));
        assert_eq!(after(119), None);
        assert_eq!(after(1_000), Some(2));
    }

    #[test]
    fn a_process_with_descriptors_left_is_short_of_nothing() {
        assert!(now().is_none());
    }
}
