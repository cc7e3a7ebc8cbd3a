//! What is packed is read again; what is junk is read as nothing.

use proptest::prelude::*;

use super::*;
use crate::domain::id::Shard;
use crate::domain::phases::tests::some_phases;
use crate::domain::record::{Head, Record, charged_bytes, encode};
use crate::store::enqueue::Due;

fn an_outcome() -> impl Strategy<Value = AttemptOutcome> {
    any::<u8>().prop_filter_map("an index", AttemptOutcome::from_index)
}

fn words(bytes_max: usize) -> impl Strategy<Value = Option<String>> {
    proptest::option::of("\\PC{0,300}").prop_map(move |words| words.filter(|words| words.len() <= bytes_max))
}

fn an_attempt(words_bytes_max: usize) -> impl Strategy<Value = Attempt> {
    let times = (0..=MILLIS_MAX, 0..=MILLIS_MAX);
    let more = (some_phases(), proptest::option::of(1..=MILLIS_MAX));
    let texts = (words(words_bytes_max), words(words_bytes_max));
    (any::<u8>(), times, an_outcome(), proptest::option::of(any::<u16>()), texts, more).prop_map(
        |(number, (at, duration_ms), outcome, status, (error, excerpt), (phases, next_ms))| {
            let at = Timestamp::from_millis(at);
            let next_at = next_ms.map(Timestamp::from_millis);
            Attempt { number, at, duration_ms, outcome, status, error, excerpt, phases, next_at }
        },
    )
}

fn a_message(payload_bytes: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = NewMessage> {
    let payload = proptest::collection::vec(any::<u8>(), payload_bytes);
    (0..=MILLIS_MAX, any::<[u8; 10]>(), 1..=u8::MAX, payload).prop_map(
        |(at, random, attempts_max, payload)| {
            let accepted_at = Timestamp::from_millis(at);
            let id = MessageId::new(accepted_at, random, Shard::default());
            let priority = Priority::from_index(random[0] % 3).unwrap_or_default();
            let head = Head { id, attempts_max, priority, accepted_at, ttl: None };
            NewMessage {
                id,
                priority,
                due: Due::Now,
                record: encode(&head, &[1, 0, 2, b'a', b'b'], &payload),
            }
        },
    )
}

proptest! {
    #[test]
    fn six_bytes_hold_a_number_up_to_their_end(number: u64) {
        let mut out = Vec::new();
        push_u48(&mut out, number);
        prop_assert_eq!((out.len(), u48(&out)), (6, number.min(MILLIS_MAX)));
    }

    #[test]
    fn attempts_are_read_as_they_were_packed(all in proptest::collection::vec(an_attempt(WORDS_BYTES_MAX), 0..6)) {
        let log: Vec<u8> = all.iter().flat_map(attempt).collect();
        prop_assert_eq!(attempts(&log), all);
    }

    #[test]
    fn words_are_cut_where_a_letter_ends(long in an_attempt(usize::MAX)) {
        let read = attempts(&attempt(&long)).pop().expect("one");
        for (read, words) in [(read.error, long.error), (read.excerpt, long.excerpt)] {
            let (read, words) = (read.unwrap_or_default(), words.unwrap_or_default());
            prop_assert!(words.starts_with(&read));
            prop_assert!(read.len() + 4 > words.len().min(WORDS_BYTES_MAX));
        }
    }

    #[test]
    fn a_small_message_lies_in_its_list_whole(message in a_message(0..2_000)) {
        let (bytes, body) = element(&message);
        prop_assert!(body.is_none() && !is_apart(&bytes));
        prop_assert_eq!(&*bytes, &message.record[..]);
    }

    #[test]
    fn junk_is_read_as_nothing_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), id: [u8; 16]) {
        let _ = attempts(&bytes);
        let _ = finished(&bytes);
        let _ = letter(MessageId::from_bytes(id), &bytes, &bytes);
        let _ = is_apart(&bytes);
        let _ = whole(&bytes, &bytes);
        prop_assert!(results(&bytes).map(|result| result.len() + 4).sum::<usize>() <= bytes.len());
    }

    #[test]
    fn bytes_that_are_no_record_get_a_head_that_scripts_can_read_and_no_decoder_takes(
        message in a_message(0..10),
        junk in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let message = NewMessage { record: junk, ..message };
        prop_assume!(!has_head(&message));
        let (bytes, body) = element(&message);
        prop_assert!(body.is_none() && bytes.len() >= ELEMENT_BYTES_MIN);
        prop_assert_eq!(Record::peek_id(&bytes), Some(message.id));
        prop_assert_eq!(charged_bytes(&bytes), charged_bytes(&message.record));
        prop_assert!(Record::decode(Bytes::from(bytes.into_owned())).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_large_message_lies_apart_and_is_put_together_again(message in a_message(APART_BYTES..APART_BYTES + 2_000)) {
        let (bytes, body) = element(&message);
        let body = body.expect("it lies apart");
        prop_assert!(is_apart(&bytes) && bytes.len() < 100);
        prop_assert_eq!(bytes.len() + body.len(), message.record.len() + 4);
        prop_assert_eq!(&*whole(&bytes, body), &message.record[..]);
    }
}

#[test]
fn attempts_written_before_they_had_phases_are_read() {
    let old = [
        &[0, 23, 1, 1, STATUS | ERROR][..],
        &1_700_000_000_000_u64.to_be_bytes()[2..],
        &31_u64.to_be_bytes()[2..],
        &503_u16.to_be_bytes(),
        &[0, 4],
        b"busy",
    ]
    .concat();
    let expected = Attempt {
        number: 1,
        at: Timestamp::from_millis(1_700_000_000_000),
        duration_ms: 31,
        outcome: AttemptOutcome::Retry,
        status: Some(503),
        error: Some("busy".to_owned()),
        excerpt: None,
        phases: Phases::NONE,
        next_at: None,
    };
    assert_eq!(attempts(&old.repeat(2)), [expected.clone(), expected.clone()]);
    assert_eq!(attempt(&expected), old, "what has none is written as before");
}

#[test]
fn settings_are_as_long_as_scripts_expect() {
    let plain = settings(&QueueSettings::default());
    assert_eq!(plain.len(), 9 * 6 + 3 + 2);
    assert_eq!(u48(&plain), QueueSettings::default().limits.length_max);
}

#[test]
fn results_end_where_they_are_cut() {
    let bytes = [0, 0, 0, 1, b'A', 0, 0, 0, 2, b'R'];
    assert_eq!(results(&bytes).collect::<Vec<_>>(), [b"A"]);
}
