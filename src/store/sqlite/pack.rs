//! The bytes of attempts and finished messages: what may be shed, packed so that a batch costs one row.
//!
//! Big-endian, each entry behind its length. Only this file knows the shape. What cannot be read is left out: no message
//! depends on it.

use crate::domain::id::MessageId;
use crate::domain::message::Priority;
use crate::domain::outcome::{Attempt, AttemptOutcome};
use crate::domain::phases::Phases;
use crate::domain::timestamp::Timestamp;
use crate::store::stats::Finished;

const STATUS: u8 = 1;
const ERROR: u8 = 2;
const EXCERPT: u8 = 4;
const PHASES: u8 = 8;
const NEXT: u8 = 16;

/// One message that was delivered or cancelled.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Ending {
    /// Which.
    pub(super) id: MessageId,
    /// Delivered, else cancelled.
    pub(super) delivered: bool,
    /// What is known of it.
    pub(super) finished: Finished,
    /// Its attempts, oldest first, with the one that delivered it.
    pub(super) log: Vec<Attempt>,
}

/// Appends attempts to a log.
pub(super) fn pack_attempts(out: &mut Vec<u8>, attempts: &[Attempt]) {
    for attempt in attempts {
        entry(out, |out| pack_attempt(out, attempt));
    }
}

/// The attempts of a log.
pub(super) fn unpack_attempts(bytes: &[u8]) -> Vec<Attempt> {
    entries(bytes).filter_map(|mut entry| unpack_attempt(&mut entry)).collect()
}

/// Appends one finished message to a page.
pub(super) fn pack_ending(out: &mut Vec<u8>, ending: &Ending) {
    entry(out, |out| {
        let finished = &ending.finished;
        out.extend_from_slice(ending.id.as_bytes());
        let Finished { attempts, attempts_max, priority, .. } = *finished;
        out.extend_from_slice(&[u8::from(ending.delivered), attempts, attempts_max, priority.index()]);
        out.extend_from_slice(&finished.accepted_at.as_millis().to_be_bytes());
        out.extend_from_slice(&finished.payload_bytes.to_be_bytes());
        text(out, &finished.content_type);
        pack_attempts(out, &ending.log);
    });
}

/// The finished messages of a page, each with its place in it.
pub(super) fn unpack_endings(bytes: &[u8]) -> impl DoubleEndedIterator<Item = (u64, Ending)> {
    let all: Vec<_> = entries(bytes).zip(0_u64..).collect();
    all.into_iter().filter_map(|(mut entry, place)| Some((place, unpack_ending(&mut entry)?)))
}

fn pack_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    let present = |there: bool, bit: u8| if there { bit } else { 0 };
    let flags = present(attempt.status.is_some(), STATUS)
        | present(attempt.error.is_some(), ERROR)
        | present(attempt.excerpt.is_some(), EXCERPT)
        | present(!attempt.phases.is_empty(), PHASES)
        | present(attempt.next_at.is_some(), NEXT);
    out.extend_from_slice(&[attempt.number, attempt.outcome.index(), flags]);
    out.extend_from_slice(&attempt.at.as_millis().to_be_bytes());
    out.extend_from_slice(&attempt.duration_ms.to_be_bytes());
    if let Some(status) = attempt.status {
        out.extend_from_slice(&status.to_be_bytes());
    }
    for words in [&attempt.error, &attempt.excerpt].into_iter().flatten() {
        text(out, words);
    }
    // Versions that do not know what follows leave it unread.
    if !attempt.phases.is_empty() {
        attempt.phases.pack(out);
    }
    if let Some(next_at) = attempt.next_at {
        out.extend_from_slice(&next_at.as_millis().to_be_bytes());
    }
}

fn unpack_attempt(bytes: &mut &[u8]) -> Option<Attempt> {
    let [number, outcome, flags] = take(bytes)?;
    let outcome = AttemptOutcome::from_index(outcome)?;
    let at = Timestamp::from_millis(u64::from_be_bytes(take(bytes)?));
    let duration_ms = u64::from_be_bytes(take(bytes)?);
    let status = if flags & STATUS == 0 { None } else { Some(u16::from_be_bytes(take(bytes)?)) };
    let error = if flags & ERROR == 0 { None } else { Some(untext(bytes)?) };
    let excerpt = if flags & EXCERPT == 0 { None } else { Some(untext(bytes)?) };
    let phases = if flags & PHASES == 0 { Phases::NONE } else { Phases::unpack(bytes)? };
    let next_at = if flags & NEXT == 0 { None } else { Some(u64::from_be_bytes(take(bytes)?)) };
    let next_at = next_at.map(Timestamp::from_millis);
    Some(Attempt { number, at, duration_ms, outcome, status, error, excerpt, phases, next_at })
}

fn unpack_ending(bytes: &mut &[u8]) -> Option<Ending> {
    let id = MessageId::from_bytes(take(bytes)?);
    let [delivered, attempts, attempts_max, priority] = take(bytes)?;
    let accepted_at = Timestamp::from_millis(u64::from_be_bytes(take(bytes)?));
    let payload_bytes = u64::from_be_bytes(take(bytes)?);
    let content_type = untext(bytes)?;
    let priority = Priority::from_index(priority)?;
    let finished = Finished { accepted_at, attempts, attempts_max, priority, payload_bytes, content_type };
    Some(Ending { id, delivered: delivered == 1, finished, log: unpack_attempts(bytes) })
}

/// Writes an entry behind its length.
fn entry(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start - 4).expect("an entry has less than 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// The entries of a pack, up to the first that is cut.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(take(&mut bytes)?);
        let (entry, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        bytes = rest;
        Some(entry)
    })
}

fn text(out: &mut Vec<u8>, words: &str) {
    entry(out, |out| out.extend_from_slice(words.as_bytes()));
}

fn untext(bytes: &mut &[u8]) -> Option<String> {
    let length = u32::from_be_bytes(take(bytes)?);
    let (words, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    std::str::from_utf8(words).ok().map(str::to_owned)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::phases::tests::some_phases;

    fn attempt() -> impl Strategy<Value = Attempt> {
        let words = || prop::option::of(".{0,40}");
        let fixed = (any::<u8>(), any::<u64>(), any::<u64>(), 0_u8..5, prop::option::of(any::<u16>()));
        let more = (some_phases(), prop::option::of(any::<u64>()));
        (fixed, words(), words(), more).prop_map(|(fixed, error, excerpt, (phases, next_ms))| {
            let (number, at, duration_ms, outcome, status) = fixed;
            Attempt {
                number,
                at: Timestamp::from_millis(at),
                duration_ms,
                outcome: AttemptOutcome::from_index(outcome).expect("one of five"),
                status,
                error,
                excerpt,
                phases,
                next_at: next_ms.map(Timestamp::from_millis),
            }
        })
    }

    fn ending() -> impl Strategy<Value = Ending> {
        let fixed = (any::<[u8; 16]>(), any::<bool>(), any::<u64>(), any::<[u8; 2]>(), 0_u8..3, any::<u64>());
        (fixed, ".{0,30}", prop::collection::vec(attempt(), 0..4)).prop_map(
            |(
                (id, delivered, accepted, [attempts, attempts_max], priority, payload_bytes),
                content_type,
                log,
            )| {
                let priority = Priority::from_index(priority).expect("one of three");
                let accepted_at = Timestamp::from_millis(accepted);
                let finished =
                    Finished { accepted_at, attempts, attempts_max, priority, payload_bytes, content_type };
                Ending { id: MessageId::from_bytes(id), delivered, finished, log }
            },
        )
    }

    #[test]
    fn attempts_written_before_they_had_phases_are_read() {
        let mut page = Vec::new();
        for status in [503_u16, 500] {
            let entry = [
                &[1, 1, STATUS | ERROR][..],
                &1_700_000_000_000_u64.to_be_bytes(),
                &31_u64.to_be_bytes(),
                &status.to_be_bytes(),
                &[0, 0, 0, 4],
                b"busy",
            ];
            let entry = entry.concat();
            page.extend_from_slice(&[0, 0, 0, 29]);
            page.extend_from_slice(&entry);
        }
        let expected = |status| Attempt {
            number: 1,
            at: Timestamp::from_millis(1_700_000_000_000),
            duration_ms: 31,
            outcome: AttemptOutcome::Retry,
            status: Some(status),
            error: Some("busy".to_owned()),
            excerpt: None,
            phases: Phases::NONE,
            next_at: None,
        };
        assert_eq!(unpack_attempts(&page), [expected(503), expected(500)]);
        let mut again = Vec::new();
        pack_attempts(&mut again, &[expected(503), expected(500)]);
        assert_eq!(again, page, "what has none is written as before");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(endings in prop::collection::vec(ending(), 0..5)) {
            let mut out = Vec::new();
            for ending in &endings {
                pack_ending(&mut out, ending);
            }
            let back: Vec<_> = unpack_endings(&out).collect();
            let expected: Vec<_> = (0..).zip(endings).collect();
            prop_assert_eq!(back, expected);
        }

        #[test]
        fn junk_and_cuts_are_left_out_without_a_panic(endings in prop::collection::vec(ending(), 0..3), keep in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            for ending in &endings {
                pack_ending(&mut out, ending);
            }
            if !out.is_empty() {
                let cut = &out[..keep.index(out.len())];
                prop_assert!(unpack_endings(cut).count() <= endings.len());
            }
            let _ = (unpack_endings(&junk).count(), unpack_attempts(&junk));
        }
    }
}
