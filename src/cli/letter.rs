//! One message for a person to read, dead letters included.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::Message;
use crate::cli::Failure;
use crate::cli::output::give_bytes;
use crate::cli::table::{Cell, Table, pairs};
use crate::domain::format::duration;
use crate::domain::outcome::Attempt;
use crate::domain::phases::Phases;

/// What is known of a message, and its attempts.
pub(super) fn describe(message: &Message) -> String {
    describe_with(message, [])
}

/// The same with what else is known.
pub(super) fn describe_with<const N: usize>(message: &Message, more: [(&str, Option<String>); N]) -> String {
    let mut known: Vec<(&str, String)> = vec![
        ("id", message.id.to_string()),
        ("queue", message.queue.to_string()),
        ("state", word(&message.state)),
    ];
    let optional = [
        ("reason", message.reason.map(|reason| reason.as_str().to_owned())),
        ("priority", message.priority.map(|priority| priority.as_str().to_owned())),
        ("published", Some(message.published_at.to_string())),
        ("deliver at", message.deliver_at.map(|at| at.to_string())),
        ("expires", message.expires_at.map(|at| at.to_string())),
        ("died", message.died_at.map(|at| at.to_string())),
        ("destination", message.destination.clone()),
        ("type", message.content_type.clone().filter(|text| !text.is_empty())),
        ("bytes", message.payload_bytes.map(|bytes| bytes.to_string())),
        ("attempts", Some(attempts_of(message))),
        ("next attempt", message.next_attempt_at.map(|at| at.to_string())),
    ];
    known.extend(optional.into_iter().chain(more).filter_map(|(name, value)| Some((name, value?))));
    let mut text = pairs(&known);
    if !message.attempts.is_empty() {
        text.push('\n');
        text.push_str(&table_of(&message.attempts).render());
    }
    text
}

/// Gives the payload of a message, byte for byte and nothing else.
pub(super) fn give_payload(message: &Message) -> Result<(), Failure> {
    give_bytes(&payload(message)?)
}

/// The payload of a message.
///
/// # Errors
/// When it is not kept.
pub(super) fn payload(message: &Message) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &message.payload {
        return Ok(text.clone().into_bytes());
    }
    let Some(encoded) = &message.payload_base64 else {
        return Err(Failure::failed("the payload is not kept any more"));
    };
    STANDARD.decode(encoded).map_err(|error| Failure::failed(format!("the payload is no base64: {error}")))
}

fn attempts_of(message: &Message) -> String {
    match message.max_attempts {
        Some(most) => format!("{} of {most}", message.attempt_count),
        None => message.attempt_count.to_string(),
    }
}

fn table_of(attempts: &[Attempt]) -> Table {
    let mut table = Table::new(&["ATTEMPT", "AT", "TOOK", "OUTCOME", "STATUS", "PHASES", "NEXT", "ERROR"]);
    for attempt in attempts {
        let took = duration::show(Duration::from_millis(attempt.duration_ms));
        let error = attempt.error.as_ref().or(attempt.excerpt.as_ref());
        table.row(vec![
            Cell::number(Some(attempt.number)),
            attempt.at.to_string().into(),
            Cell::number(Some(took)),
            word(&attempt.outcome).into(),
            Cell::number(attempt.status),
            phases_of(&attempt.phases).into(),
            attempt.next_at.map_or_else(String::new, |at| at.to_string()).into(),
            error.map_or("", String::as_str).into(),
        ]);
    }
    table
}

/// The phases of an attempt that happened, in their order.
fn phases_of(phases: &Phases) -> String {
    let named =
        [("dns", phases.dns), ("connect", phases.connect), ("wait", phases.wait), ("body", phases.body)];
    let shown = |(name, phase): (&str, Option<Duration>)| phase.map(|phase| format!("{name} {phase:.1?}"));
    named.into_iter().filter_map(shown).collect::<Vec<_>>().join(", ")
}

/// A value of the API that is one word there.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_phases_that_happened_are_shown() {
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(phases_of(&Phases::NONE), "");
        let kept = Phases { wait: micros(31_250), body: micros(9), ..Phases::NONE };
        assert_eq!(phases_of(&kept), "wait 31.2ms, body 9.0µs");
        let fresh = Phases { dns: micros(1_000), connect: micros(2_000_000), ..kept };
        assert_eq!(phases_of(&fresh), "dns 1.0ms, connect 2.0s, wait 31.2ms, body 9.0µs");
    }
}
