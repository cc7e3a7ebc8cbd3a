//! What a sink prints of a request.

use std::io::{self, Write as _};

use actix_web::HttpRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Body;
use crate::cli::output::tame;
use crate::clock::Clock;
use crate::domain::timestamp::Timestamp;

/// How to print.
pub(super) struct Printer {
    /// As JSON documents.
    pub(super) json: bool,
    /// With their bodies.
    pub(super) body: bool,
    /// Tells when they came.
    pub(super) clock: Clock,
}

/// A request that came whole.
pub(super) struct Received<'r> {
    pub(super) number: u64,
    pub(super) request: &'r HttpRequest,
    pub(super) status: u16,
    pub(super) body: Body,
}

#[derive(Serialize)]
struct Document<'r> {
    number: u64,
    at: Timestamp,
    method: &'r str,
    path: String,
    status: u16,
    headers: Map<String, Value>,
    body_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Printer {
    /// Prints a request and sees to it that it is seen at once.
    pub(super) fn print(&self, received: &Received<'_>) -> io::Result<()> {
        let at = self.clock.now();
        let mut text = if self.json { self.document(received, at)? } else { self.line(received, at) };
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()
    }

    fn line(&self, received: &Received<'_>, at: Timestamp) -> Vec<u8> {
        let Received { number, request, status, body } = received;
        let header = |name: &str| {
            let value = request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            value.map(|value| tame(&value))
        };
        let target = tame(&request.uri().to_string());
        let mut line = format!("{number} {at} {} {target} {status} {} bytes", request.method(), body.bytes);
        let known = [("", "content-type"), ("id=", "webhook-id"), ("attempt=", "posthaste-attempt")];
        for (label, name) in known {
            if let Some(value) = header(name) {
                line.extend([" ", label, &value]);
            }
        }
        line.push('\n');
        let mut text = line.into_bytes();
        if self.body {
            text.extend_from_slice(&body.kept);
        }
        text
    }

    fn document(&self, received: &Received<'_>, at: Timestamp) -> io::Result<Vec<u8>> {
        let Received { number, request, status, body } = received;
        let mut headers = Map::new();
        for (name, value) in request.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            match headers.get_mut(name.as_str()) {
                Some(Value::String(before)) => before.extend([", ", &value]),
                _ => drop(headers.insert(name.to_string(), Value::String(value))),
            }
        }
        let kept = self.body.then_some(&body.kept);
        let as_text = kept.and_then(|kept| std::str::from_utf8(kept).ok());
        let document = Document {
            number: *number,
            at,
            method: request.method().as_str(),
            path: request.uri().to_string(),
            status: *status,
            headers,
            body_bytes: body.bytes,
            body: as_text,
            body_base64: kept.filter(|_| as_text.is_none()).map(|kept| STANDARD.encode(kept)),
        };
        Ok(serde_json::to_vec(&document)?)
    }
}
