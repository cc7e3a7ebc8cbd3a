//! What a request brings in its body where that is not a payload: JSON, or nothing.

use actix_http::Payload;
use actix_http::header::HeaderMap;
use bytes::Bytes;
use serde_json::Value;

use crate::api::code::Code;
use crate::api::json;
use crate::http::body::{self, SizeLimit};
use crate::http::connection::Connection;
use crate::http::error::Refusal;
use crate::http::extract::{json_type, shown};
use crate::http::state::State;

/// Bytes of a body that is to be empty: what is longer is not looked at.
const NOTHING_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 4 << 10, setting: None };

/// Reads a body of JSON, as it is.
pub(super) async fn json(
    state: &State,
    headers: &HeaderMap,
    payload: Payload,
    connection: &Connection,
    limit: SizeLimit,
) -> Result<Bytes, Refusal> {
    if let Err(refusal) = json_type(headers, "the body is") {
        return Err(refusal.unread(payload));
    }
    let body = body::read(payload, headers, limit, state.limits(), &state.bodies, connection).await?;
    Ok(body.bytes)
}

/// Reads a body of JSON, as it is; where there is none its type does not matter.
pub(super) async fn json_or_nothing(
    state: &State,
    headers: &HeaderMap,
    payload: Payload,
    connection: &Connection,
    limit: SizeLimit,
) -> Result<Bytes, Refusal> {
    let body = body::read(payload, headers, limit, state.limits(), &state.bodies, connection).await?;
    if !body.bytes.trim_ascii().is_empty() {
        json_type(headers, "the body is")?;
    }
    Ok(body.bytes)
}

/// Reads a body that has nothing to say: none at all, or an empty object. Whatever else is in it would not be done, which
/// might be taken for the opposite.
pub(super) async fn nothing(
    state: &State,
    headers: &HeaderMap,
    payload: Payload,
    connection: &Connection,
) -> Result<(), Refusal> {
    if matches!(payload, Payload::None) {
        return Ok(());
    }
    let body =
        body::read(payload, headers, NOTHING_BYTES_MAX, state.limits(), &state.bodies, connection).await?;
    if body.bytes.trim_ascii().is_empty() {
        return Ok(());
    }
    json_type(headers, "the body is")?;
    let value = json::parse(&body.bytes)
        .map_err(|error| Refusal::new(Code::Malformed, format!("no body is taken here: {error}")))?;
    match value {
        Value::Object(fields) => match fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let detail = format!("{:?} is not taken here: the request has no body", shown(name));
                Err(Refusal::new(Code::UnknownField, detail).pointer(json::pointer("", &shown(name))))
            }
        },
        _ => Err(Refusal::new(Code::InvalidValue, "no body is taken here, but an empty object").pointer("")),
    }
}
