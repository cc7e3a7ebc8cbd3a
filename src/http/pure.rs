//! The pure parts of the edge as `benches/pure.rs` calls them. No interface: it changes with what it measures.

use actix_http::header::HeaderMap;
use bytes::Bytes;

use crate::domain::timestamp::Timestamp;
use crate::http::batch::lines_of;
use crate::http::framing::{Follows, Framing};
use crate::http::options::Options;
use crate::http::settings::ServerLimits;

/// Finds the end of one request that is there as a whole and has a body of so many bytes, as a connection does; gives how many
/// bytes it has.
#[must_use]
pub fn frame(request: &[u8], body_length: u64) -> usize {
    let mut framing = Framing::default();
    let taken = framing.take(request);
    framing.say(Follows::Length(body_length));
    taken + framing.take(&request[taken..])
}

/// Reads the options of a publish; gives whether they were accepted.
#[must_use]
pub fn read_options(headers: &HeaderMap, limits: &ServerLimits, now: Timestamp) -> bool {
    Options::read(headers, limits, now).is_ok()
}

/// Walks over a batch of NDJSON to its end; gives how many lines are JSON.
pub async fn walk_lines(body: Bytes) -> usize {
    lines_of(body).await
}
