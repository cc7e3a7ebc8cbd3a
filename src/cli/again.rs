//! Sending a publish again when nobody knows whether it was stored: with its key it cannot be stored twice.

use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::Failure;
use crate::cli::client::{Client, ClientError, Stored};
use crate::domain::format::duration;

/// The first pause; each one after it is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause that we choose by ourselves.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long to go on.
#[derive(Args)]
pub(super) struct AgainArguments {
    /// How long to send it again, with the same key, while it is not known whether it was stored
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration::parse)]
    retry_for: Duration,
}

impl AgainArguments {
    /// Calls until it is known what became of it. Tells `say` each time why it calls again.
    ///
    /// # Errors
    /// The last one; it [may have been stored](Failure) if any of the calls may. A gateway that was not there in the first place, and a refusal that promises that nothing was stored, end
    /// it at once.
    pub(super) fn until_known<T>(
        &self,
        client: &Client,
        say: &impl Fn(&str),
        call: &impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        // Once it may have arrived, a gateway that is gone is waited for.
        let mut may_have_arrived = false;
        loop {
            let error = match client.block_on(call()) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if is_refused_for_good(&error) {
                return Err(Failure { may_be_stored: may_have_arrived, ..error.into() });
            }
            may_have_arrived |= error.may_be_stored();
            if !may_have_arrived || is_final(&error) {
                return Err(error.into());
            }
            let wait = asked_pause(&error).unwrap_or_default().max(pause);
            if began.elapsed() + wait > self.retry_for {
                return Err(Failure { may_be_stored: true, ..error.into() });
            }
            let cause = Failure::from(error).to_string();
            let cause = cause.lines().next().unwrap_or_default();
            say(&format!("{cause}; trying again with the same key in {}", duration::show(wait)));
            std::thread::sleep(wait);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether it is wrong in itself: of this call nothing was stored, whatever an earlier one with its key may have done.
fn is_refused_for_good(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if !refusal.problem.retryable && refusal.problem.status < 500)
}

/// Whether the next call would be answered the same way.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => false,
        ClientError::Refused(refusal) => !refusal.problem.retryable && refusal.stored != Stored::Unknown,
        ClientError::Strange { .. } => true,
    }
}

fn asked_pause(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Refused(refusal) => refusal.retry_after,
        _ => None,
    }
}
