//! Lists: how many, from where on, and written so that a long one holds up no other request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Serialize;

use crate::api::List;
use crate::api::code::Code;
use crate::domain::timestamp::Timestamp;
use crate::http::answer::{self, Answer};
use crate::http::error::Refusal;
use crate::http::extract::{Parameter, once, shown};

/// How long a cursor is taken.
const CURSOR_FOR: Duration = Duration::from_hours(1);

/// Things written before others have a turn: some hundred microseconds.
pub(super) const WRITTEN_AT_ONCE: usize = 32;

/// The answer that shows a page.
pub(super) async fn page<T: Serialize>(items: impl Iterator<Item = T>, cursor: Option<String>) -> Answer {
    let mut body = br#"{"items":"#.to_vec();
    write(&mut body, items).await;
    if let Some(cursor) = cursor {
        body.extend_from_slice(br#","cursor":"#);
        serde_json::to_writer(&mut body, &cursor).expect("a text is JSON");
    }
    body.push(b'}');
    answer::found(Bytes::from(body))
}

/// Writes things as a JSON array, a few at a time, so that the other requests of the thread are served in between.
pub(super) async fn write<T: Serialize>(body: &mut Vec<u8>, items: impl Iterator<Item = T>) {
    body.push(b'[');
    for (place, item) in items.enumerate() {
        if place > 0 {
            body.push(b',');
            if place.is_multiple_of(WRITTEN_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        serde_json::to_writer(&mut *body, &item).expect("our answers are plain values");
    }
    body.push(b']');
}

/// `limit`: how many things a page may have.
pub(super) fn limit(parameters: &[Parameter<'_>]) -> Result<usize, Refusal> {
    let Some(text) = once(parameters, "limit")? else { return Ok(List::<()>::LIMIT) };
    let most = List::<()>::LIMIT_MAX;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| is_number && (1..=most).contains(limit));
    limit.ok_or_else(|| {
        let detail = format!("limit={:?}: write a number from 1 to {most}", shown(text));
        Refusal::new(Code::InvalidValue, detail).parameter("limit").limit(most as u64)
    })
}

/// A list that a cursor belongs to: what it lists, and what is meant of that.
pub(super) struct Scope(u32);

impl Scope {
    /// The list that all of these together name.
    pub(super) fn of(parts: &[&str]) -> Self {
        let append =
            |sum: u32, part: &&str| crc32c::crc32c_append(crc32c::crc32c_append(sum, part.as_bytes()), &[0]);
        Self(parts.iter().fold(0, append))
    }

    fn check(&self, made_ms: u64, position: &str) -> u32 {
        let sum = crc32c::crc32c_append(self.0, &made_ms.to_be_bytes());
        crc32c::crc32c_append(sum, position.as_bytes())
    }

    /// The cursor of a place in this list, handed out at `now`. It holds nothing secret, and is checked so that a slip is noticed.
    pub(super) fn cursor(&self, position: &str, now: Timestamp) -> String {
        let made_ms = now.as_millis();
        URL_SAFE_NO_PAD.encode(format!("{made_ms:x}.{:08x}.{position}", self.check(made_ms, position)))
    }

    /// `cursor`: the place in this list where the page begins.
    pub(super) fn position(
        &self,
        parameters: &[Parameter<'_>],
        now: Timestamp,
    ) -> Result<Option<String>, Refusal> {
        let Some(text) = once(parameters, "cursor")? else { return Ok(None) };
        let refused = |why: &str| {
            let detail = format!("the cursor {why}: begin again without one");
            Refusal::new(Code::InvalidValue, detail).parameter("cursor")
        };
        let (made_ms, position) = self.read(text).ok_or_else(|| refused("is none of this list"))?;
        if now.since(Timestamp::from_millis(made_ms)) > CURSOR_FOR {
            return Err(refused("is older than an hour"));
        }
        Ok(Some(position))
    }

    fn read(&self, text: &str) -> Option<(u64, String)> {
        let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (made_ms, rest) = decoded.split_once('.')?;
        let (check, position) = rest.split_once('.')?;
        let made_ms = u64::from_str_radix(made_ms, 16).ok()?;
        (u32::from_str_radix(check, 16).ok()? == self.check(made_ms, position))
            .then(|| (made_ms, position.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use actix_http::body::MessageBody as _;

    use super::*;

    fn parameters<'p>(name: &'p str, values: &[&'p str]) -> Vec<Parameter<'p>> {
        values.iter().map(|value| (name.into(), (*value).into())).collect()
    }

    #[tokio::test]
    async fn a_page_is_one_json_value_however_long_it_is() {
        for (count, cursor) in [(0, None), (1, Some("a\"b")), (100, None)] {
            let answer = page(0..count, cursor.map(str::to_owned)).await;
            let body = answer.into_body().try_into_bytes().unwrap_or_else(|_| panic!("a body in one piece"));
            let read: List<usize> = serde_json::from_slice(&body).expect("valid");
            assert_eq!(read, List { items: (0..count).collect(), cursor: cursor.map(str::to_owned) });
        }
    }

    #[test]
    fn a_limit_is_a_number_up_to_a_thousand() {
        let read =
            |values: &[&str]| limit(&parameters("limit", values)).map_err(|refusal| refusal.code().word());
        assert_eq!(read(&[]), Ok(100));
        assert_eq!(read(&["1"]), Ok(1));
        assert_eq!(read(&["1000"]), Ok(1_000));
        for text in ["", "0", "1001", "-1", "+5", "1e2", "99999999999999999999", " 5", "٥"] {
            assert_eq!(read(&[text]), Err("invalid_value"), "{text}");
        }
        assert_eq!(read(&["5", "5"]), Err("contradictory_options"));
    }

    #[test]
    fn a_cursor_is_of_its_list_and_of_its_hour() {
        let scope = Scope::of(&["dead", "orders", ""]);
        let made = Timestamp::from_millis(1_000_000);
        let cursor = scope.cursor("17-4", made);
        let read = |scope: &Scope, cursor: &str, after_ms: u64| {
            let now = Timestamp::from_millis(made.as_millis() + after_ms);
            scope
                .position(&parameters("cursor", &[cursor]), now)
                .map_err(|refusal| refusal.problem().detail.clone())
        };
        let hour_ms = 3_600_000;
        assert_eq!(read(&scope, &cursor, hour_ms), Ok(Some("17-4".to_owned())));
        assert!(read(&scope, &cursor, hour_ms + 1).is_err_and(|detail| detail.contains("an hour")));
        assert_eq!(scope.position(&[], made).expect("none"), None);
        for other in [["dead", "order", "s"], ["dead", "orders", "reason"], ["queues", "orders", ""]] {
            assert!(
                read(&Scope::of(&other), &cursor, 0)
                    .is_err_and(|detail| detail.contains("none of this list"))
            );
        }
        for text in ["", "x", "?", "AAAA", &cursor[1..], &format!("{cursor}A"), &"A".repeat(5_000)] {
            assert!(read(&scope, text, 0).is_err(), "{text}");
        }
    }
}
