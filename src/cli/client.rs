//! The typed client of the HTTP API: what the command line and the tests talk with.

use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::api::problem::Problem;
use crate::api::ready::Ready;
use crate::cli::{Exit, Failure};

/// How long a gateway may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Which gateway.
#[derive(Args)]
pub(super) struct ClientArguments {
    /// The gateway's address
    #[arg(long, env = "POSTHASTE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway answered: the connection failed, or the answer did not come.
    #[error("no gateway answers at {url}: {cause}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// Why not.
        cause: String,
    },
    /// The gateway refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Something answered that is no gateway of this version.
    #[error("{url} answered {status} with what is no answer of a gateway")]
    Strange {
        /// Who was asked.
        url: String,
        /// Its status.
        status: u16,
    },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Unreachable { .. } => Exit::Unreachable,
            ClientError::Refused(_) => Exit::Refused,
            ClientError::Strange { .. } => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

/// A client of one gateway, with a runtime of its own for commands that block.
pub struct Client {
    http: reqwest::Client,
    base: String,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Client {
    /// A client of the gateway that the arguments name, which has so long for each whole answer.
    pub(super) fn new(arguments: &ClientArguments, answer_within: Duration) -> Result<Self, Failure> {
        Self::of(&arguments.url, answer_within)
    }

    /// A client of the gateway at this URL, without a path, which has so long for each whole answer.
    ///
    /// # Errors
    /// When the machine gives no runtime or no TLS.
    pub fn of(url: &str, answer_within: Duration) -> Result<Self, Failure> {
        let is_origin =
            url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_origin {
            let words = format!("{url:?} is not the URL of a gateway, like http://127.0.0.1:8080");
            return Err(Failure::new(Exit::Usage, words));
        }
        super::serve::install_tls();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(answer_within)
            .build()
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned(), runtime: Some(runtime) })
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
    pub async fn ready(&self, work: bool) -> Result<Ready, ClientError> {
        let path = if work { "/ready?check=work" } else { "/ready" };
        let response = self.send(self.request(Method::GET, path)).await?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.read(response).await,
            _ => Err(self.refusal(response).await),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        ClientError::Unreachable { url: self.base.clone(), cause: cause.to_string() }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let strange = ClientError::Strange { url: self.base.clone(), status: response.status().as_u16() };
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|_| strange)
    }

    async fn refusal(&self, response: Response) -> ClientError {
        match self.read::<Problem>(response).await {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(error) => error,
        }
    }
}

impl Drop for Client {
    /// Does not wait for a name that is still being looked up, which may take the system far longer than a call may.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
