//! Calls of a consumer that pulls.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::queue::with_json;
use super::{Answer, Client, ClientError};
use crate::api::Leases;
use crate::api::lease::{Ending, LeaseOrder, ReceiptResults};
use crate::domain::format::duration;
use crate::domain::queue::QueueName;

impl Client {
    /// `POST …/leases`: leases messages, and waits for the first one as long as it is told to, besides the time for the answer.
    ///
    /// # Errors
    /// See [`ClientError`]. What was leased for an answer that is lost comes again.
    pub async fn lease(&self, queue: &QueueName, order: &LeaseOrder) -> Result<Answer<Leases>, ClientError> {
        let body = serde_json::to_value(order).unwrap_or_default();
        let request = with_json(self.queue_request(Method::POST, queue, "/leases"), &body);
        self.ask(request.timeout(self.answer_within + order.wait)).await
    }

    /// `POST …/leases/settle`: ends leases; at most 1,000 at once.
    ///
    /// # Errors
    /// See [`ClientError`]. It may be said again: what has ended as asked stays so.
    pub async fn settle(
        &self,
        queue: &QueueName,
        endings: &[(String, Ending)],
    ) -> Result<Answer<ReceiptResults>, ClientError> {
        let body = settle(endings);
        self.ask(with_json(self.queue_request(Method::POST, queue, "/leases/settle"), &body)).await
    }

    /// `POST …/leases/extend`: holds on to leases for so long from now; at most 1,000 at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn extend(
        &self,
        queue: &QueueName,
        receipts: &[String],
        lease: Duration,
    ) -> Result<Answer<ReceiptResults>, ClientError> {
        let body = json!({ "receipts": receipts, "lease": duration::show(lease) });
        self.ask(with_json(self.queue_request(Method::POST, queue, "/leases/extend"), &body)).await
    }
}

fn settle(endings: &[(String, Ending)]) -> Value {
    let (mut ack, mut retry, mut reject, mut release) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (receipt, ending) in endings {
        match ending {
            Ending::Ack => ack.push(json!(receipt)),
            Ending::Release => release.push(json!(receipt)),
            Ending::Retry { delay, reason } => {
                let delay = delay.map(duration::show);
                retry.push(said(receipt, &[("delay", delay.as_deref()), ("reason", reason.as_deref())]));
            }
            Ending::Reject { reason } => reject.push(said(receipt, &[("reason", reason.as_deref())])),
        }
    }
    json!({ "ack": ack, "retry": retry, "reject": reject, "release": release })
}

fn said(receipt: &str, fields: &[(&str, Option<&str>)]) -> Value {
    let mut entry = json!({ "receipt": receipt });
    for (name, value) in fields {
        if let Some(value) = value {
            entry[*name] = json!(value);
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_leases_is_what_the_gateway_reads() {
        let retry = Ending::Retry { delay: Some(Duration::from_secs(5)), reason: None };
        let reject = Ending::Reject { reason: Some("no".to_owned()) };
        let endings = [("a", Ending::Ack), ("b", retry), ("c", reject), ("d", Ending::Release)];
        let endings = endings.map(|(receipt, ending)| (receipt.to_owned(), ending));
        let body = settle(&endings).to_string();
        let read = crate::api::lease::read_settle(body.as_bytes()).expect("valid");
        for (receipt, ending) in &endings {
            assert!(read.iter().any(|named| named.receipt == *receipt && named.said == *ending), "{body}");
        }
        assert_eq!(read.len(), endings.len());
        let order = LeaseOrder { max: 7, wait: Duration::from_secs(20), ..LeaseOrder::default() };
        let body = serde_json::to_vec(&order).expect("plain values");
        assert_eq!(crate::api::lease::read_lease(&body).expect("valid"), order);
    }
}
