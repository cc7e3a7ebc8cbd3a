//! The bytes that scripts and this program exchange. Big-endian; lengths in two bytes, times and numbers in six.

use std::borrow::Cow;

use bytes::Bytes;

use crate::domain::id::MessageId;
use crate::domain::message::{Headers, Priority};
use crate::domain::outcome::{Attempt, AttemptOutcome, DeadReason};
use crate::domain::phases::Phases;
use crate::domain::queue::{QueueSettings, WhenFull};
use crate::domain::record::{FIXED_BYTES, MILLIS_MAX};
use crate::domain::timestamp::Timestamp;
use crate::store::dead::DeadLetter;
use crate::store::enqueue::NewMessage;
use crate::store::lease::Gist;
use crate::store::redis::publish::{ELEMENT_BYTES_MIN, has_head, millis};
use crate::store::stats::Finished;

/// From so many bytes on a record's payload lies apart, so that moving it costs nothing.
const APART_BYTES: usize = 32 << 10;
/// The flag that says so.
const APART: u8 = 128;
const FLAGS: usize = 21;
/// The most that is kept of an answer and of an error.
const WORDS_BYTES_MAX: usize = 256;

/// Messages that ended of which a queue remembers so many at most, whatever its settings: they are looked through from the end.
const FINISHED_MAX: u64 = 100_000;

/// Flags of what is remembered of a message that ended.
const DELIVERED: u8 = 1;
const WITH_ATTEMPT: u8 = 2;

const STATUS: u8 = 1;
const ERROR: u8 = 2;
const EXCERPT: u8 = 4;
const PHASES: u8 = 8;
/// Its last six bytes are when the next attempt is due; all zero: none followed after all.
const NEXT: u8 = 16;

/// Six bytes of a number.
pub(super) fn u48(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn push_u48(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.min(MILLIS_MAX).to_be_bytes()[2..]);
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes, 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// Whether what a list holds for a message is its record as it is.
pub(super) fn is_element(message: &NewMessage) -> bool {
    has_head(message) && message.record.len() <= APART_BYTES
}

/// Whether the record of a message that is charged so much lies in the list as it is.
pub(super) const fn is_together(charged_bytes: u64) -> bool {
    charged_bytes <= (APART_BYTES - ELEMENT_BYTES_MIN) as u64
}

/// What a list holds for a message, and the payload with its checksum when that lies apart.
///
/// Bytes that are no record are put behind a head that scripts can read and that no decoder takes for sound.
pub(super) fn element(message: &NewMessage) -> (Cow<'_, [u8]>, Option<&[u8]>) {
    let record = &message.record;
    if !has_head(message) {
        let mut wrapped = vec![0; FIXED_BYTES];
        wrapped[1..17].copy_from_slice(message.id.as_bytes());
        wrapped[19] = 1;
        wrapped[20] = message.priority.index();
        let accepted = message.id.made_at().as_millis().min(MILLIS_MAX);
        wrapped[22..28].copy_from_slice(&accepted.to_be_bytes()[2..]);
        wrapped.extend_from_slice(record.get(ELEMENT_BYTES_MIN..).unwrap_or_default());
        wrapped.extend_from_slice(&[0; 4]);
        return (wrapped.into(), None);
    }
    if record.len() <= APART_BYTES {
        return (record.into(), None);
    }
    let headers = usize::from(u16::from_be_bytes([record[40], record[41]]));
    let (head, body) = record.split_at(FIXED_BYTES + headers);
    let mut element = head.to_vec();
    element[FLAGS] |= APART;
    let payload = u32::try_from(body.len() - 4).unwrap_or(u32::MAX);
    element.extend_from_slice(&payload.to_be_bytes());
    (element.into(), Some(body))
}

/// Whether the payload of an element lies apart.
pub(super) fn is_apart(element: &[u8]) -> bool {
    element.get(FLAGS).is_some_and(|flags| flags & APART != 0)
}

/// The whole record of an element whose payload lies apart.
pub(super) fn whole(element: &[u8], body: &[u8]) -> Bytes {
    let head = element.len().saturating_sub(4);
    let mut record = Vec::with_capacity(head + body.len());
    record.extend_from_slice(&element[..head]);
    record.extend_from_slice(body);
    if let Some(flags) = record.get_mut(FLAGS) {
        *flags &= !APART;
    }
    record.into()
}

/// The results of a call, each behind its length.
pub(super) fn results(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = take(&mut rest, 4)?.try_into().ok().map(u32::from_be_bytes)?;
        take(&mut rest, usize::try_from(length).ok()?)
    })
}

fn push_words(out: &mut Vec<u8>, words: &str) {
    let mut end = words.len().min(WORDS_BYTES_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&u16::try_from(end).expect("it is at most 256").to_be_bytes());
    out.extend_from_slice(&words.as_bytes()[..end]);
}

/// Adds what is remembered of a message that was delivered, as `finished.lua` has it.
pub(super) fn push_finished(out: &mut Vec<u8>, gist: &Gist, last: Option<&Attempt>) {
    let begin = out.len();
    let payload_bytes = u32::try_from(gist.payload_bytes).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0, 0, DELIVERED | if last.is_some() { WITH_ATTEMPT } else { 0 }]);
    out.extend_from_slice(&gist.head);
    out.extend_from_slice(&payload_bytes.to_be_bytes());
    if let Some(last) = last {
        out.extend_from_slice(&attempt(&last.of_delivered()));
    }
    out.extend_from_slice(&gist.content_type);
    let length =
        u16::try_from(out.len() - begin - 2).expect("what is charged has a record of some thousand bytes");
    out[begin..begin + 2].copy_from_slice(&length.to_be_bytes());
}

/// The entry of an attempt, behind its length.
pub(super) fn attempt(attempt: &Attempt) -> Vec<u8> {
    let present = |there: bool, bit: u8| if there { bit } else { 0 };
    let flags = present(attempt.status.is_some(), STATUS)
        | present(attempt.error.is_some(), ERROR)
        | present(attempt.excerpt.is_some(), EXCERPT)
        | present(!attempt.phases.is_empty(), PHASES)
        | present(attempt.next_at.is_some(), NEXT);
    let mut out = vec![0, 0, attempt.number, attempt.outcome.index(), flags];
    push_u48(&mut out, attempt.at.as_millis());
    push_u48(&mut out, attempt.duration_ms);
    out.extend_from_slice(&attempt.status.unwrap_or_default().to_be_bytes());
    for words in [&attempt.error, &attempt.excerpt].into_iter().flatten() {
        push_words(&mut out, words);
    }
    // Versions that do not know what follows leave it unread.
    if !attempt.phases.is_empty() {
        attempt.phases.pack(&mut out);
    }
    if let Some(next_at) = attempt.next_at {
        push_u48(&mut out, next_at.as_millis());
    }
    let length = u16::try_from(out.len() - 2).expect("the words are cut");
    out[..2].copy_from_slice(&length.to_be_bytes());
    out
}

/// The attempts of a log; what cannot be read is left out.
pub(super) fn attempts(mut bytes: &[u8]) -> Vec<Attempt> {
    std::iter::from_fn(|| {
        let length = take_u16(&mut bytes)?;
        take(&mut bytes, usize::from(length))
    })
    .filter_map(|mut entry| read_attempt(&mut entry))
    .collect()
}

fn read_attempt(bytes: &mut &[u8]) -> Option<Attempt> {
    let &[number, outcome, flags] = take(bytes, 3)? else { return None };
    let mut next_at = None;
    if flags & NEXT != 0 {
        let (rest, next) = bytes.split_at_checked(bytes.len().checked_sub(6)?)?;
        *bytes = rest;
        next_at = Some(u48(next)).filter(|next| *next > 0).map(Timestamp::from_millis);
    }
    let outcome = AttemptOutcome::from_index(outcome)?;
    let at = Timestamp::from_millis(u48(take(bytes, 6)?));
    let duration_ms = u48(take(bytes, 6)?);
    let status = Some(take_u16(bytes)?).filter(|_| flags & STATUS != 0);
    let mut words = |bit: u8| {
        if flags & bit == 0 {
            return Some(None);
        }
        let length = take_u16(bytes)?;
        let words = take(bytes, usize::from(length))?;
        Some(Some(String::from_utf8_lossy(words).into_owned()))
    };
    let (error, excerpt) = (words(ERROR)?, words(EXCERPT)?);
    let phases = if flags & PHASES == 0 { Phases::NONE } else { Phases::unpack(bytes)? };
    Some(Attempt { number, at, duration_ms, outcome, status, error, excerpt, phases, next_at })
}

/// What is known of a death.
pub(super) struct Letter {
    pub(super) number: u64,
    pub(super) letter: DeadLetter,
}

/// Reads a letter; `head` is the beginning of its record, up to the end of the headers.
pub(super) fn letter(id: MessageId, bytes: &[u8], head: &[u8]) -> Option<Letter> {
    let rest = &mut &*bytes;
    let number = u48(take(rest, 6)?);
    let died_at = Timestamp::from_millis(u48(take(rest, 6)?));
    let &[reason, attempts] = take(rest, 2)? else { return None };
    let reason = DeadReason::from_index(reason)?;
    let status = Some(take_u16(rest)?).filter(|status| *status > 0);
    let charged_bytes = take(rest, 4)?.try_into().ok().map(u32::from_be_bytes)?.into();
    let length = take_u16(rest)?;
    let own = String::from_utf8_lossy(take(rest, usize::from(length))?).into_owned();
    let detail = String::from_utf8_lossy(rest).into_owned();
    let headers =
        head.get(FIXED_BYTES..).and_then(|headers| Headers::decode(&Bytes::copy_from_slice(headers)));
    let brought = headers.and_then(|headers| headers.destination);
    let destination = brought.or(Some(own).filter(|own| !own.is_empty())).filter(|_| attempts > 0);
    let detail = Some(detail).filter(|detail| !detail.is_empty());
    let (record, history) = (None, Vec::new());
    let letter = DeadLetter {
        id,
        reason,
        detail,
        died_at,
        status,
        destination,
        attempts,
        charged_bytes,
        record,
        history,
    };
    Some(Letter { number, letter })
}

/// One message that ended: whether it was delivered, what is known of it, its last attempt.
pub(super) fn finished(entry: &[u8]) -> Option<(bool, Finished, Vec<Attempt>)> {
    let rest = &mut &*entry;
    let &[flags] = take(rest, 1)? else { return None };
    // Bytes 1 to 27 of the record: id, attempts, losses, allowed, priority, flags, accepted.
    let head = take(rest, 27)?;
    let payload_bytes = take(rest, 4)?.try_into().ok().map(u32::from_be_bytes)?.into();
    let mut last = Vec::new();
    if flags & 2 != 0 {
        let length = take_u16(&mut &rest[..])?;
        last = attempts(take(rest, usize::from(length) + 2)?);
    }
    let is_delivered = flags & 1 != 0;
    let finished = Finished {
        accepted_at: Timestamp::from_millis(u48(&head[21..])),
        attempts: head[16].saturating_add(u8::from(is_delivered)),
        attempts_max: head[18],
        priority: Priority::from_index(head[19]).unwrap_or_default(),
        payload_bytes,
        content_type: String::from_utf8_lossy(rest).into_owned(),
    };
    Some((is_delivered, finished, last))
}

/// The settings of a queue that scripts go by.
pub(super) fn settings(settings: &QueueSettings) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    for number in [
        settings.limits.length_max,
        settings.limits.bytes_max,
        millis(settings.idempotency.window),
        settings.idempotency.keys_max,
        settings.dead.length_max,
        settings.dead.bytes_max,
        millis(settings.dead.retention),
        settings.history.finished_max.min(FINISHED_MAX),
        millis(settings.history.retention),
    ] {
        push_u48(&mut out, number);
    }
    let trims = settings.dead.when_full == WhenFull::Trim;
    out.extend_from_slice(&[settings.history.attempts, u8::from(trims), u8::from(settings.lookup)]);
    let destination = settings.destination.as_ref().map_or("", |destination| destination.as_str());
    let length = u16::try_from(destination.len()).unwrap_or_default();
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&destination.as_bytes()[..usize::from(length)]);
    out
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
