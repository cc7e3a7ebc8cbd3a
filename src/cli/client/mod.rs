//! The typed client of the HTTP API: what the command line and the tests talk with.
//!
//! Every call has a deadline, and every answer a bound. A call that is dropped closes its connection.

mod dead;
mod error;
mod lease;
mod message;
mod page;
mod queue;

use std::ops::Deref;
use std::time::Duration;

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::api::{Ready, Status};
use crate::cli::{Exit, Failure};
use crate::domain::format::{duration, secret};

pub use error::{ClientError, Refusal, Stored};
pub use message::Publication;
pub use page::{Item, Page};
pub use queue::{Purged, Queue};

/// How long a gateway may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: twice what the largest payload takes as JSON, and four times what a lease may bring.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a gateway listens that was told nothing else.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Where the help tells of the options that every call has.
pub(super) const GATEWAY: &str = "Gateway";

/// Which gateway.
#[derive(Args)]
pub(super) struct GatewayArguments {
    /// The gateway's address
    #[arg(long, env = "POSTHASTE_URL", default_value = DEFAULT_URL, value_name = "URL", help_heading = GATEWAY)]
    url: String,
    /// The key to show it, as `Authorization: Bearer`; gateways of this version ask for none
    #[arg(long, env = "POSTHASTE_KEY", hide_env_values = true, value_name = "KEY", help_heading = GATEWAY)]
    api_key: Option<String>,
}

/// Which gateway, and for how long to wait for each of its answers.
#[derive(Args)]
pub(super) struct ClientArguments {
    #[command(flatten)]
    gateway: GatewayArguments,
    /// How long the gateway may take for an answer; one that takes longer counts as unreachable: exit code 4
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration::parse, help_heading = GATEWAY)]
    timeout: Duration,
}

impl ClientArguments {
    /// The client that they describe.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.gateway.client(self.timeout)
    }
}

impl GatewayArguments {
    /// A client of that gateway, which has so long for each whole answer.
    pub(super) fn client(&self, answer_within: Duration) -> Result<Client, Failure> {
        // A variable that is set to nothing, as compose files pass those that are unset, says nothing.
        let url = if self.url.is_empty() { DEFAULT_URL } else { &self.url };
        Client::with_key(url, self.api_key.as_deref(), answer_within)
    }
}

/// An answer: what it says, and its JSON as it came.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it says, as far as this version knows the words.
    pub value: T,
    /// All of it.
    pub text: String,
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A client of one gateway, with a runtime of its own for commands that block.
pub struct Client {
    http: reqwest::Client,
    base: String,
    answer_within: Duration,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Client {
    /// A client of the gateway at this URL, which has so long for each whole answer.
    ///
    /// # Errors
    /// When it is no URL of a gateway, or the machine gives no runtime or no TLS.
    pub fn of(url: &str, answer_within: Duration) -> Result<Self, Failure> {
        Self::with_key(url, None, answer_within)
    }

    /// The same, which shows that key.
    pub(in crate::cli) fn with_key(
        url: &str,
        key: Option<&str>,
        answer_within: Duration,
    ) -> Result<Self, Failure> {
        let is_gateway = url::Url::parse(url).is_ok_and(|url| {
            let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
            is_web && url.query().is_none() && url.fragment().is_none()
        });
        if !is_gateway {
            let words =
                format!("{:?} is not the URL of a gateway, like http://127.0.0.1:8080", secret::url(url));
            return Err(Failure::new(Exit::Usage, words));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let value = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut value = value
                .map_err(|_| Failure::new(Exit::Usage, "the key has characters that no header can hold"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        super::serve::install_tls();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Failure::failed)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(answer_within)
            .default_headers(headers)
            .build()
            .map_err(Failure::failed)?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned(), answer_within, runtime: Some(runtime) })
    }

    /// Waits for a call on this thread.
    pub fn block_on<F: Future>(&self, call: F) -> F::Output {
        let runtime = self.runtime.as_ref().unwrap_or_else(|| unreachable!("there until it is dropped"));
        runtime.block_on(call)
    }

    /// `GET /ready`: whether it is ready, and why not.
    ///
    /// # Errors
    /// See [`ClientError`]; not being ready is no error.
    pub async fn ready(&self, work: bool) -> Result<Answer<Ready>, ClientError> {
        let path = if work { "/ready?check=work" } else { "/ready" };
        let response = self.send(self.request(Method::GET, path)).await?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.read(response).await,
            _ => Err(self.refusal(response).await),
        }
    }

    /// `GET /status`: what is where, in these queues or in all when none is named.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, queues: &[impl AsRef<str>]) -> Result<Answer<Status>, ClientError> {
        let names: Vec<_> = queues.iter().map(|name| ("queue", name.as_ref().to_owned())).collect();
        self.ask(self.request(Method::GET, &with_query("/status", &names))).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request and reads what a 2xx answers.
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>, ClientError> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            self.read(response).await
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// Sends a request that is answered 204.
    async fn order(&self, request: RequestBuilder) -> Result<(), ClientError> {
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(()),
            status if status.is_success() => Err(self.strange(&response)),
            _ => Err(self.refusal(response).await),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let cause = if error.is_timeout() && !error.is_connect() {
            format!("no answer within {}", duration::show(self.answer_within))
        } else {
            let mut deepest: &dyn std::error::Error = error;
            while let Some(deeper) = deepest.source() {
                deepest = deeper;
            }
            deepest.to_string()
        };
        ClientError::Unreachable {
            url: secret::url(&self.base).into_owned(),
            cause,
            was_sent: !error.is_connect(),
        }
    }

    fn strange(&self, response: &Response) -> ClientError {
        ClientError::Strange { url: secret::url(&self.base).into_owned(), status: response.status().as_u16() }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<Answer<T>, ClientError> {
        let strange = self.strange(&response);
        let Some(body) = self.body(response).await? else { return Err(strange) };
        let Ok(text) = String::from_utf8(body) else { return Err(strange) };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Answer { value, text }),
            Err(_) => Err(strange),
        }
    }

    /// The body, unless it is larger than any answer of a gateway.
    async fn body(&self, mut response: Response) -> Result<Option<Vec<u8>>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let headers = response.headers().clone();
        match self.read(response).await {
            Ok(problem) => ClientError::Refused(Box::new(Refusal::new(problem.value, &headers))),
            Err(error) => error,
        }
    }
}

/// A path with these parameters behind it.
fn with_query(path: &str, parameters: &[(&str, String)]) -> String {
    if parameters.is_empty() {
        return path.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

impl Drop for Client {
    /// Does not wait for a name that is still being looked up, which may take the system far longer than a call may.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, key: Option<&str>) -> Failure {
        Client::with_key(url, key, CONNECT_WITHIN).err().expect("refused")
    }

    #[test]
    fn what_is_no_gateway_is_a_usage_error_that_shows_no_password() {
        for url in ["", "127.0.0.1:8080", "ftp://a", "http://a/?b=c", "http://a/#b", "http://"] {
            assert_eq!(refused(url, None).exit, Exit::Usage, "{url}");
        }
        let words = refused("ftp://user:hunter2@a", None).words;
        assert!(!words.contains("hunter2"), "{words}");
        let words = refused("http://a", Some("hunter2\n")).words;
        assert!(!words.contains("hunter2"), "{words}");
    }

    #[test]
    fn parameters_are_encoded() {
        let query = [("queue", "a&b".to_owned()), ("queue", "ü".to_owned())];
        assert_eq!(with_query("/status", &query), "/status?queue=a%26b&queue=%C3%BC");
        assert_eq!(with_query("/status", &[]), "/status");
    }
}
