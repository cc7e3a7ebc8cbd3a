//! `/`: what this is, for somebody who looks with a browser or with curl.

use actix_http::StatusCode;

use super::Call;
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::http::extract::parameters;

/// Shows the version, where the status is, and how to post.
pub(super) fn show(call: &Call) -> Result<Answer, Refusal> {
    parameters(call.request.uri(), &[])?;
    let host = call.request.headers().get("host").and_then(|host| host.to_str().ok());
    // Only what a host can look like: the line is meant to be copied into a shell.
    let host_char = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let host =
        host.filter(|host| !host.is_empty() && host.bytes().all(host_char)).unwrap_or("127.0.0.1:8080");
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "Posthaste {version}\n\n\
         status:  http://{host}/status\n\
         publish: curl -i http://{host}/v1/queues/default/messages -H 'Content-Type: text/plain' -d hello\n"
    );
    Ok(answer::text(StatusCode::OK, text))
}
