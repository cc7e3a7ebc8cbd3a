//! What is done with one message: one trait, several kinds.
//!
//! A processor lives on one thread: it is built there by its [`Build`] and its futures need not be `Send`. It never settles: it
//! reports how the attempt ended, and `domain::retry::decide` says what follows.

pub mod function;
#[expect(clippy::result_large_err, reason = "a report is moved once an attempt, and rarely as an error")]
pub mod http;
pub(crate) mod lines;
pub mod log;
mod registry;
pub mod settings;
mod signal;
pub mod signing;

#[cfg(test)]
mod fixture;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

pub use self::http::guard::{Guard, Lookup, Refusal, Resolution};
pub use self::registry::{BuiltIn, Context, NameError, PROCESSORS, Processors, Registry, StoreId};
pub use self::signal::Signal;
pub use self::signing::Keyring;
use crate::domain::message::Headers;
use crate::domain::outcome::Outcome;
use crate::domain::phases::Phases;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::record::Record;
use crate::domain::timestamp::Timestamp;

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub record: Record,
    /// Its headers, read.
    pub headers: Headers,
    /// Its queue.
    pub queue: QueueName,
    /// The settings of the queue when it was leased.
    pub settings: Arc<QueueSettings>,
    /// The number of the attempt, from 1.
    pub attempt: u8,
    /// When it began.
    pub at: Timestamp,
}

impl Delivery {
    /// The longest this attempt may take: the message's own time-out, else the queue's.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.headers.timeout.unwrap_or(self.settings.timeout)
    }
}

/// How an attempt ended and what to remember of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The receiver's HTTP status.
    pub status: Option<u16>,
    /// What went wrong, one line.
    pub error: Option<String>,
    /// The beginning of the receiver's answer.
    pub excerpt: Option<String>,
    /// Whether the destination that the queue itself has said that it is gone for good: the queue is then parked. Never for one
    /// that came with the message.
    pub is_gone: bool,
    /// What it showed of the destination.
    pub signal: Signal,
    /// Where the time of the attempt went, as far as the processor knows.
    pub phases: Phases,
}

impl From<Outcome> for Report {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            status: None,
            error: None,
            excerpt: None,
            is_gone: false,
            signal: Signal::Nothing,
            phases: Phases::NONE,
        }
    }
}

/// Does something with one message at a time. The worker holds it to its time-out and turns a panic into a retry.
pub trait Processor {
    /// Makes one attempt. Dropping the future abandons it.
    fn process(&self, delivery: Delivery) -> LocalBoxFuture<'static, Report>;

    /// Called about once a second by the worker of each thread, also when no message comes; does nothing unless a processor has a
    /// use for it.
    fn tick(&self) {}
}

/// Builds a processor on the thread that will use it.
pub type Build = Arc<dyn Fn() -> Rc<dyn Processor> + Send + Sync>;
