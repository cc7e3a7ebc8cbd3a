//! What clients sent against what a sink received: nothing lost, nothing invented, nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sink::Received;

/// What is known of a message that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It was answered 202, or 200 as a duplicate, with this id.
    Accepted(String),
    /// The answer was lost, or said that it is not known.
    Unknown,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Its number, which travels with it as the header `x-number`.
    pub(crate) number: u64,
    /// The SHA-256 of its payload.
    pub(crate) sha256: [u8; 32],
    /// Its Content-Type.
    pub(crate) content_type: &'static str,
    /// What is known of it.
    pub(crate) fate: Fate,
}

/// How the two sides compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reconciled {
    /// Different messages that were received.
    pub(crate) messages: u64,
    /// Requests that the sink refused.
    pub(crate) refusals: u64,
    /// Deliveries of a message that had been delivered before.
    pub(crate) duplicates: u64,
    /// Messages of unknown fate that came.
    pub(crate) recovered: u64,
}

/// Compares what was sent with what was received; `is_refused` tells which requests the sink did not answer with 2xx.
///
/// Fails when an accepted message did not arrive, when something arrived that was not sent or not as it was sent, and
/// when one message that was accepted once got two ids.
pub(crate) fn reconcile(
    sent: &[Sent],
    received: &[Arc<Received>],
    is_refused: impl Fn(&Received) -> bool,
) -> Reconciled {
    let by_number: BTreeMap<u64, &Sent> = sent.iter().map(|sent| (sent.number, sent)).collect();
    assert_eq!(by_number.len(), sent.len(), "each number is sent once");
    let mut deliveries: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ids_by_number: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut refusals = 0;
    for received in received {
        let (number, id) = compare(&by_number, received);
        ids_by_number.entry(number).or_default().insert(id);
        if is_refused(received) {
            refusals += 1;
        } else {
            *deliveries.entry(id).or_default() += 1;
        }
    }
    let mut recovered = 0;
    let mut lost = Vec::new();
    for sent in sent {
        let ids = ids_by_number.get(&sent.number).cloned().unwrap_or_default();
        assert!(ids.len() <= 1, "message {} was accepted once and is here as {ids:?}", sent.number);
        match &sent.fate {
            Fate::Accepted(id) if deliveries.contains_key(id.as_str()) => {
                assert!(ids.contains(id.as_str()), "{id} was answered for message {}", sent.number);
            }
            Fate::Accepted(id) => lost.push((sent.number, id)),
            Fate::Unknown => recovered += u64::from(!ids.is_empty()),
        }
    }
    let some = &lost[..lost.len().min(5)];
    assert!(lost.is_empty(), "{} accepted messages never arrived, among them {some:?}", lost.len());
    Reconciled {
        messages: ids_by_number.len() as u64,
        refusals,
        duplicates: deliveries.values().map(|count| count - 1).sum(),
        recovered,
    }
}

/// Holds one request against what was sent; gives the message's number and id.
fn compare<'r>(by_number: &BTreeMap<u64, &Sent>, received: &'r Received) -> (u64, &'r str) {
    let id = received.header("webhook-id").expect("every delivery names its message");
    let number = received.header("x-number").and_then(|number| number.parse().ok());
    let sent = number.and_then(|number: u64| by_number.get(&number));
    let sent = sent.unwrap_or_else(|| panic!("this was never sent: {received:?}"));
    assert_eq!(received.sha256, sent.sha256, "message {} was changed on its way", sent.number);
    assert_eq!(received.header("content-type"), Some(sent.content_type), "message {}", sent.number);
    (sent.number, id)
}

/// Whether a sink refuses the first attempt at a message: one in ten, by its id.
pub(crate) fn is_refused_at_first(received: &Received) -> bool {
    let id = received.header("webhook-id").unwrap_or_default();
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    received.header("posthaste-attempt") == Some("1") && (hash >> 32).is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sent(number: u64, fate: Fate) -> Sent {
        Sent { number, sha256: [1; 32], content_type: "text/plain", fate }
    }

    fn accepted(number: u64, id: &str) -> Sent {
        sent(number, Fate::Accepted(id.to_owned()))
    }

    fn received(number: u64, id: &str, sha256: [u8; 32]) -> Arc<Received> {
        let header = |name: &str, value: String| (name.to_owned(), value);
        Arc::new(Received {
            order: 0,
            connection: 0,
            at: Instant::now(),
            method: "POST".to_owned(),
            target: "/".to_owned(),
            headers: vec![
                header("webhook-id", id.to_owned()),
                header("x-number", number.to_string()),
                header("content-type", "text/plain".to_owned()),
            ],
            body: None,
            body_bytes: 0,
            sha256,
        })
    }

    #[test]
    fn what_came_more_than_once_and_what_came_after_all_is_counted() {
        let sent = [accepted(0, "a"), sent(1, Fate::Unknown), sent(2, Fate::Unknown)];
        let received = [received(0, "a", [1; 32]), received(1, "b", [1; 32]), received(0, "a", [1; 32])];
        let expected = Reconciled { messages: 2, refusals: 0, duplicates: 1, recovered: 1 };
        assert_eq!(reconcile(&sent, &received, |_| false), expected);
    }

    #[test]
    #[should_panic(expected = "1 accepted messages never arrived")]
    fn a_lost_message_is_seen() {
        reconcile(&[accepted(0, "a"), accepted(1, "b")], &[received(0, "a", [1; 32])], |_| false);
    }

    #[test]
    #[should_panic(expected = "1 accepted messages never arrived")]
    fn what_the_sink_only_refused_did_not_arrive() {
        reconcile(&[accepted(0, "a")], &[received(0, "a", [1; 32])], |_| true);
    }

    #[test]
    #[should_panic(expected = "this was never sent")]
    fn an_invented_message_is_seen() {
        reconcile(&[accepted(0, "a")], &[received(0, "a", [1; 32]), received(7, "b", [1; 32])], |_| false);
    }

    #[test]
    #[should_panic(expected = "was changed on its way")]
    fn a_changed_message_is_seen() {
        reconcile(&[accepted(0, "a")], &[received(0, "a", [2; 32])], |_| false);
    }

    #[test]
    #[should_panic(expected = "was accepted once and is here as")]
    fn a_message_stored_twice_is_seen() {
        reconcile(&[accepted(0, "a")], &[received(0, "a", [1; 32]), received(0, "b", [1; 32])], |_| false);
    }
}
