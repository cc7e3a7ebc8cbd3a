//! Deliveries made by hand, for processors without a pipeline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste::domain::id::{MessageId, Shard};
use posthaste::domain::message::{Headers, Priority};
use posthaste::domain::phases::Phases;
use posthaste::domain::queue::QueueSettings;
use posthaste::domain::record::{Head, Record, encode};
use posthaste::domain::timestamp::Timestamp;
use posthaste::processor::http::Http;
use posthaste::processor::settings::EgressSettings;
use posthaste::processor::{Delivery, Guard, Keyring, Processor, Report};

/// When each attempt made by hand begins.
pub(crate) const AT: Timestamp = Timestamp::from_millis(1_795_353_900_250);

/// Settings of a queue that pushes to `destination` and waits two seconds for an answer.
pub(crate) fn settings(destination: &str) -> QueueSettings {
    QueueSettings {
        processor: "http".to_owned(),
        destination: Some(destination.parse().expect("a destination")),
        timeout: Duration::from_secs(2),
        ..QueueSettings::default()
    }
}

/// The first attempt of a message in the queue `orders`.
pub(crate) fn delivery(settings: &Arc<QueueSettings>, headers: Headers, payload: &[u8]) -> Delivery {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = MessageId::new(AT, random, Shard::default());
    let head = Head { id, attempts_max: 12, priority: Priority::Normal, accepted_at: AT, ttl: None };
    let record = Record::decode(Bytes::from(encode(&head, &[], payload))).expect("just encoded");
    let queue = "orders".parse().expect("a name");
    Delivery { record, headers, queue, settings: settings.clone(), attempt: 1, at: AT }
}

/// An `http` processor as `--dev` has it: loopback may be reached.
pub(crate) fn http() -> Http {
    http_with(Guard::new(&EgressSettings::default(), true))
}

/// An `http` processor behind this guard.
pub(crate) fn http_with(guard: Guard) -> Http {
    Http::new(guard, Keyring::default(), std::sync::Arc::new(|| "store-1".into()))
}

/// What such an attempt came to, but for the time that it took.
pub(crate) async fn process(http: &Http, delivery: Delivery) -> Report {
    Report { phases: Phases::NONE, ..http.process(delivery).await }
}

/// One attempt at pushing `payload` with these settings.
pub(crate) async fn push(settings: QueueSettings, payload: &[u8]) -> Report {
    process(&http(), delivery(&Arc::new(settings), Headers::default(), payload)).await
}
