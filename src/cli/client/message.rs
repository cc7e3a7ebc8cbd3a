//! Calls about messages: publishing, looking up.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};

use super::{Answer, Client, ClientError, with_query};
use crate::api::batch::BatchPublished;
use crate::api::{Message, Published};
use crate::domain::format::duration;
use crate::domain::id::MessageId;
use crate::domain::message::Priority;
use crate::domain::queue::QueueName;
use crate::domain::timestamp::Timestamp;

/// What is said of a message besides its payload; what is absent is as the queue has it.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// Makes a repeated call harmless.
    pub key: Option<String>,
    /// Not before so long from now.
    pub delay: Option<Duration>,
    /// Not before that moment.
    pub deliver_at: Option<Timestamp>,
    /// How long it may wait for an attempt.
    pub ttl: Option<Duration>,
    /// Its share of the turns.
    pub priority: Option<Priority>,
    /// Attempts allowed.
    pub max_attempts: Option<u8>,
    /// Where to push it.
    pub destination: Option<String>,
    /// The method to push it with.
    pub method: Option<String>,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// The trace that it belongs to, as in W3C Trace Context.
    pub traceparent: Option<HeaderValue>,
    /// What else that trace carries.
    pub tracestate: Option<HeaderValue>,
    /// The type of its payload.
    pub content_type: Option<HeaderValue>,
    /// Headers to deliver.
    pub forward: Vec<(HeaderName, HeaderValue)>,
}

impl Publication {
    fn apply(&self, mut request: RequestBuilder) -> RequestBuilder {
        let options = [
            ("idempotency-key", self.key.clone()),
            ("posthaste-delay", self.delay.map(duration::show)),
            ("posthaste-deliver-at", self.deliver_at.map(|at| at.to_string())),
            ("posthaste-ttl", self.ttl.map(duration::show)),
            ("posthaste-priority", self.priority.map(|priority| priority.as_str().to_owned())),
            ("posthaste-max-attempts", self.max_attempts.map(|attempts| attempts.to_string())),
            ("posthaste-destination", self.destination.clone()),
            ("posthaste-method", self.method.clone()),
            ("posthaste-timeout", self.timeout.map(duration::show)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        for (name, value) in [("traceparent", &self.traceparent), ("tracestate", &self.tracestate)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        for (name, value) in &self.forward {
            request = request.header(format!("posthaste-forward-{name}"), value);
        }
        request
    }
}

impl Client {
    /// `POST /v1/queues/{queue}/messages`: publishes one message.
    ///
    /// # Errors
    /// See [`ClientError`]. When it may have been stored all the same, the same call with the same key tells.
    pub async fn publish(
        &self,
        queue: &QueueName,
        publication: &Publication,
        payload: Bytes,
    ) -> Result<Answer<Published>, ClientError> {
        let mut request =
            publication.apply(self.request(Method::POST, &format!("/v1/queues/{queue}/messages")));
        if let Some(content_type) = &publication.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if payload.is_empty() {
            // The HTTP client leaves it out, and the gateway asks for it.
            request = request.header(CONTENT_LENGTH, 0);
        }
        self.ask(request.body(payload)).await
    }

    /// `POST /v1/queues/{queue}/messages/batch`: publishes these messages, all or none; what is said holds for each of them, the
    /// key for all together.
    ///
    /// # Errors
    /// See [`Client::publish`].
    pub async fn publish_batch(
        &self,
        queue: &QueueName,
        publication: &Publication,
        payloads: &[Bytes],
    ) -> Result<Answer<BatchPublished>, ClientError> {
        let path = format!("/v1/queues/{queue}/messages/batch");
        let content_type = publication.content_type.as_ref().map(|value| value.to_str());
        // A type that is no text is for the gateway to refuse.
        let body = batch(payloads, content_type.map(Result::unwrap_or_default));
        let request = publication.apply(self.request(Method::POST, &path));
        self.ask(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// `GET /v1/queues/{queue}/messages/{id}`: where a message is, with its payload when that is asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn message(
        &self,
        queue: &QueueName,
        id: MessageId,
        with_payload: bool,
    ) -> Result<Answer<Message>, ClientError> {
        let parameters = if with_payload { vec![("payload", "true".to_owned())] } else { Vec::new() };
        let path = with_query(&format!("/v1/queues/{queue}/messages/{id}"), &parameters);
        self.ask(self.request(Method::GET, &path)).await
    }

    /// `DELETE /v1/queues/{queue}/messages/{id}`: cancels what is not leased.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, queue: &QueueName, id: MessageId) -> Result<(), ClientError> {
        self.order(self.request(Method::DELETE, &format!("/v1/queues/{queue}/messages/{id}"))).await
    }
}

/// A batch of payloads as JSON.
fn batch(payloads: &[Bytes], content_type: Option<&str>) -> Vec<u8> {
    let content_type = content_type.map(|value| format!(",\"content_type\":{}", serde_json::json!(value)));
    let mut body = String::from("[");
    for (index, payload) in payloads.iter().enumerate() {
        body.push_str(if index == 0 { "{\"payload_base64\":\"" } else { ",{\"payload_base64\":\"" });
        STANDARD.encode_string(payload, &mut body);
        body.push('"');
        body.push_str(content_type.as_deref().unwrap_or_default());
        body.push('}');
    }
    body.push(']');
    body.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_list_of_payloads_each_with_its_type() {
        let payloads = [Bytes::from_static(b"\xff"), Bytes::new()];
        assert_eq!(batch(&payloads, None), br#"[{"payload_base64":"/w=="},{"payload_base64":""}]"#);
        let typed: serde_json::Value = serde_json::from_slice(&batch(&payloads, Some("a\"b"))).expect("JSON");
        assert_eq!(typed[1]["content_type"], "a\"b");
    }
}
