//! Calls about queues.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Answer, Client, ClientError, Page, with_query};
use crate::api::secret::Rotated;
use crate::api::status::Warning;
use crate::domain::format::duration;
use crate::domain::queue::QueueName;
use crate::domain::secret::SecretText;

/// A queue as a gateway shows it. A newer one may have settings that this version does not know: they are shown as they are.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// Who declared it: `file`, `api`.
    pub source: String,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Why it stopped by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
    /// What to look at after its settings were set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Its settings, and what else is said of it.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// The answer to a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purged {
    /// Messages that were thrown away.
    pub purged: u64,
}

impl Client {
    /// `GET /v1/queues`: so many queues, by name, behind that cursor.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queues(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Answer<Page<Queue>>, ClientError> {
        let mut parameters = vec![("limit", limit.to_string())];
        parameters.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.ask(self.request(Method::GET, &with_query("/v1/queues", &parameters))).await
    }

    /// `GET /v1/queues/{queue}`: a queue with its settings.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queue(&self, queue: &QueueName) -> Result<Answer<Queue>, ClientError> {
        self.ask(self.queue_request(Method::GET, queue, "")).await
    }

    /// `PUT /v1/queues/{queue}`: makes a queue, or replaces all settings of one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_queue(&self, queue: &QueueName, settings: &Value) -> Result<Answer<Queue>, ClientError> {
        self.ask(with_json(self.queue_request(Method::PUT, queue, ""), settings)).await
    }

    /// `PATCH /v1/queues/{queue}`: changes some settings of a queue.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch_queue(
        &self,
        queue: &QueueName,
        settings: &Value,
    ) -> Result<Answer<Queue>, ClientError> {
        self.ask(with_json(self.queue_request(Method::PATCH, queue, ""), settings)).await
    }

    /// `DELETE /v1/queues/{queue}`: deletes a queue, with `force` also one that has messages.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_queue(&self, queue: &QueueName, force: bool) -> Result<(), ClientError> {
        let parameters = if force { "?force=true" } else { "" };
        self.order(self.queue_request(Method::DELETE, queue, parameters)).await
    }

    /// `POST /v1/queues/{queue}/pause`: accepts, and leases no more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, queue: &QueueName) -> Result<Answer<Queue>, ClientError> {
        self.ask(self.queue_request(Method::POST, queue, "/pause")).await
    }

    /// `POST /v1/queues/{queue}/resume`: leases again, also where it stopped by itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, queue: &QueueName) -> Result<Answer<Queue>, ClientError> {
        self.ask(self.queue_request(Method::POST, queue, "/resume")).await
    }

    /// `POST /v1/queues/{queue}/secret`: lets a new secret follow the one there is; `None` for the secret has one made, which the
    /// answer shows.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_secret(
        &self,
        queue: &QueueName,
        secret: Option<&SecretText>,
        overlap: Option<Duration>,
    ) -> Result<Answer<Rotated>, ClientError> {
        let mut body = Map::new();
        body.extend(secret.map(|secret| ("secret".to_owned(), secret.expose().into())));
        body.extend(overlap.map(|overlap| ("overlap".to_owned(), duration::show(overlap).into())));
        self.ask(with_json(self.queue_request(Method::POST, queue, "/secret"), &body.into())).await
    }

    /// `POST /v1/queues/{queue}/purge`: throws away what is pending or scheduled.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn purge(&self, queue: &QueueName) -> Result<Answer<Purged>, ClientError> {
        self.ask(self.queue_request(Method::POST, queue, "/purge")).await
    }

    pub(super) fn queue_request(&self, method: Method, queue: &QueueName, below: &str) -> RequestBuilder {
        self.request(method, &format!("/v1/queues/{queue}{below}"))
    }
}

/// A request with this body.
pub(super) fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}
