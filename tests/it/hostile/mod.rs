//! Receivers that are slow, broken or hostile: what each kind of them comes to, how long it may take, how much of it is taken in.

mod answers;
mod connections;
mod handshakes;
mod kept;
mod memory;

use posthaste::processor::Report;

/// The first word of an attempt's error: what kind of failure it was.
fn word(report: &Report) -> &str {
    report.error.as_deref().and_then(|error| error.split(':').next()).unwrap_or_default()
}
