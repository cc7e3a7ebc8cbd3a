//! Hands a message to a function of the embedding program.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::domain::id::MessageId;
use crate::domain::outcome;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;
use crate::processor::{Build, Delivery, Processor, Report};

/// A message as a registered function gets it. At least once: the same [`Message::id`] may come again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The same on every attempt.
    pub id: MessageId,
    /// Its queue.
    pub queue: QueueName,
    /// The number of this attempt, from 1.
    pub attempt: u8,
    /// The Content-Type it was published with; empty when none was.
    pub content_type: String,
    /// The headers that were published to be forwarded: name and value, in the order given.
    pub headers: Vec<(String, String)>,
    /// The payload, byte for byte.
    pub payload: Bytes,
    /// When it was accepted.
    pub published_at: Timestamp,
}

/// What a registered function says of a message. A panic is a [`Outcome::Retry`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is processed.
    Done,
    /// Not this time: again on the queue's schedule.
    Retry {
        /// But not before so long from now, at most 24 h.
        after: Option<Duration>,
    },
    /// Never: it becomes a dead letter.
    Reject {
        /// Why; kept with the dead letter.
        reason: String,
    },
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.record.id(),
            queue: delivery.queue,
            attempt: delivery.attempt,
            content_type: delivery.headers.content_type,
            headers: delivery.headers.forward,
            payload: delivery.record.payload(),
            published_at: delivery.record.accepted_at(),
        }
    }
}

impl From<Outcome> for outcome::Outcome {
    fn from(said: Outcome) -> Self {
        match said {
            Outcome::Done => Self::Done,
            Outcome::Retry { after: None } => Self::retry(),
            Outcome::Retry { after: Some(after) } => Self::retry_after(after),
            Outcome::Reject { reason } => Self::Reject { reason },
        }
    }
}

/// A registered function on one thread.
struct Function<F>(F);

impl<F, R> Processor for Function<F>
where
    F: Fn(Message) -> R,
    R: Future<Output = Outcome> + 'static,
{
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report> {
        let said = (self.0)(delivery.into());
        said.map(|said| Report::from(outcome::Outcome::from(said))).boxed_local()
    }
}

/// How a registered function is built on each thread: by cloning it, so it need not be `Sync`.
pub(super) fn build<F, R>(function: F) -> Build
where
    F: Fn(Message) -> R + Send + Clone + 'static,
    R: Future<Output = Outcome> + 'static,
{
    let function = Mutex::new(function);
    Arc::new(move || {
        let function = function.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Rc::new(Function(function))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;
    use crate::processor::fixture;

    #[test]
    fn a_function_gets_the_message_as_it_was_published() {
        let build = build(|message: Message| async move {
            assert_eq!(message.content_type, "application/json");
            assert_eq!(message.headers, [("x-a".to_owned(), "1".to_owned())]);
            assert_eq!((message.queue.as_str(), message.attempt), ("orders", 3));
            assert_eq!(message.published_at, fixture::ACCEPTED_AT);
            Outcome::Reject { reason: format!("{} {:?}", message.id, message.payload) }
        });
        let mut delivery = fixture::delivery("orders", b"\x00\xff");
        delivery.attempt = 3;
        delivery.headers.content_type = "application/json".to_owned();
        delivery.headers.forward = vec![("x-a".to_owned(), "1".to_owned())];
        let reason = format!("{} {:?}", delivery.record.id(), b"\x00\xff".as_slice());
        let reason = reason.replace("[0, 255]", "b\"\\0\\xff\"");
        let report = build().process(delivery).now_or_never().expect("no await");
        assert_eq!(report, outcome::Outcome::reject(reason).into());
    }

    #[test]
    fn what_it_says_is_what_becomes_of_the_message() {
        let second = Duration::from_secs(1);
        for (said, meant) in [
            (Outcome::Done, outcome::Outcome::Done),
            (Outcome::Retry { after: None }, outcome::Outcome::retry()),
            (Outcome::Retry { after: Some(second) }, outcome::Outcome::retry_after(second)),
            (Outcome::Reject { reason: "no".into() }, outcome::Outcome::reject("no")),
        ] {
            let build = build(move |_| std::future::ready(said.clone()));
            let report = build().process(fixture::delivery("orders", b"")).now_or_never();
            assert_eq!(report, Some(meant.into()));
        }
    }

    #[test]
    fn each_thread_has_a_clone_of_its_own_that_may_hold_what_cannot_be_shared() {
        let calls = Cell::new(0);
        let build = build(move |_| {
            calls.set(calls.get() + 1);
            let not_send = Rc::new(calls.get());
            async move { Outcome::Reject { reason: not_send.to_string() } }
        });
        let run = move || {
            let processor = build();
            let call =
                || processor.process(fixture::delivery("orders", b"")).now_or_never().expect("no await");
            (call().outcome, call().outcome)
        };
        let elsewhere = thread::spawn(run.clone()).join().expect("no panic");
        assert_eq!(elsewhere, (outcome::Outcome::reject("1"), outcome::Outcome::reject("2")));
        assert_eq!(run(), elsewhere);
    }
}
