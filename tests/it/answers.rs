//! What answers mean, in the real binary: a row of the table, a receiver of its own for each, and what became of message and lane.

use std::time::{Duration, UNIX_EPOCH};

use posthaste::clock::Clock;
use posthaste::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::gateway::Home;
use crate::support::invariants::assert_laws;
use crate::support::sink::{Answer, Sink};
use crate::support::stores::on_both_stores;

const WITHIN: Duration = Duration::from_mins(1);
/// The only entry of the schedule.
const BACKOFF: Duration = Duration::from_mins(2);
const DAY: Duration = Duration::from_hours(24);
/// What may lie between an attempt's beginning and its settlement on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

on_both_stores! {
    every_row_of_the_answer_table_becomes_of_its_message_what_it_says
    every_form_of_retry_after_moves_the_next_attempt_and_429_and_503_hold_the_lane
    what_a_queue_rejects_is_its_own_to_say
}

/// What a receiver answers, what becomes of the message, and of its lane.
struct Row {
    status: u16,
    header: Option<(&'static str, String)>,
    expected: Expected,
    holds: bool,
}

#[derive(Clone, Copy)]
enum Expected {
    Delivered,
    Rejected,
    RetryAfter(Duration),
}

fn row(status: u16, expected: Expected) -> Row {
    Row { status, header: None, expected, holds: false }
}

fn with(status: u16, name: &'static str, value: &str, expected: Expected) -> Row {
    Row { status, header: Some((name, value.to_owned())), expected, holds: false }
}

/// A row of `Retry-After`; whether it holds the lane.
fn hint(status: u16, value: impl Into<String>, wait: Duration, holds: bool) -> Row {
    Row { status, header: Some(("retry-after", value.into())), expected: Expected::RetryAfter(wait), holds }
}

/// Sends one message to each row's receiver, and looks at what became of it. The queues are made with the defaults and then changed
/// by `change`.
fn check(home: &Home, rows: &[Row], change: Option<&Value>) {
    let answer = |row: &Row| match &row.header {
        Some((name, value)) => (row.status, Some((*name, value.clone()))),
        None => (row.status, None),
    };
    let sinks: Vec<_> = rows
        .iter()
        .map(answer)
        .map(|(status, header)| {
            Sink::start(move |_| match &header {
                Some((name, value)) => Answer::header(status, name, value.clone()),
                None => Answer::status(status),
            })
        })
        .collect();
    let mut gateway = home.start("", &["--dev"]);
    for (number, sink) in sinks.iter().enumerate() {
        let settings = json!({
            "processor": "http", "destination": sink.url("/"), "retry": {"schedule": ["2m"], "jitter": 0.0},
        });
        for (method, settings) in [("PUT", Some(&settings)), ("PATCH", change)] {
            let Some(settings) = settings else { continue };
            let (path, json) = (format!("/v1/queues/row-{number}"), [("content-type", "application/json")]);
            let answer = gateway.request(method, &path, &json, settings.to_string().as_bytes());
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        }
    }
    let paths: Vec<_> =
        (0..rows.len()).map(|number| gateway.publish(&format!("row-{number}"), &[], b"x")).collect();
    for ((row, path), sink) in rows.iter().zip(&paths).zip(&sinks) {
        let said = format!("{} {:?}", row.status, row.header);
        let state = match row.expected {
            Expected::Delivered => "delivered",
            Expected::Rejected => "dead",
            Expected::RetryAfter(_) => "scheduled",
        };
        let message = gateway.wait_until_message_is(state, path, WITHIN);
        let attempt = &message["attempts"][0];
        assert_eq!(
            (&message["attempt_count"], &attempt["status"]),
            (&json!(1), &json!(row.status)),
            "{said}"
        );
        match row.expected {
            Expected::Delivered => {}
            Expected::Rejected => assert_eq!(message["reason"], "rejected", "{said}"),
            Expected::RetryAfter(wait) => {
                assert_eq!(attempt["next_attempt_at"], message["next_attempt_at"], "{said}");
                let waits = moment(&message["next_attempt_at"]).since(moment(&attempt["at"]));
                assert!(waits + SLACK >= wait && waits <= wait + SLACK, "{said}: {waits:?} for {wait:?}");
            }
        }
        let status = gateway.status();
        let key = format!("http://{}", sink.address());
        let lane =
            status["lanes"].as_array().and_then(|all| all.iter().find(|lane| lane["key"] == key.as_str()));
        let lane = lane.unwrap_or_else(|| panic!("{said}: {key} has no lane"));
        assert_eq!(lane["open_until"].is_string(), row.holds, "{said}: {lane}");
        if let (Expected::RetryAfter(wait), true) = (row.expected, row.holds) {
            let holds = moment(&lane["open_until"]).since(moment(&attempt["at"]));
            assert!(holds + SLACK >= wait && holds <= wait + SLACK, "{said}: held {holds:?} for {wait:?}");
        }
        assert_eq!(sink.count(), 1, "{said}");
    }
    assert_laws(&gateway.status());
    gateway.kill();
}

fn moment(value: &Value) -> Timestamp {
    value.as_str().expect("a moment").parse().expect("a time")
}

fn every_row_of_the_answer_table_becomes_of_its_message_what_it_says(home: &Home) {
    let again = Expected::RetryAfter(BACKOFF);
    let mut rows: Vec<Row> =
        [200, 201, 202, 204, 206, 299].map(|status| row(status, Expected::Delivered)).into();
    rows.extend([400, 410, 413, 415, 422, 451].map(|status| row(status, Expected::Rejected)));
    rows.extend([408, 425, 429, 500, 501, 502, 503, 504, 599].map(|status| row(status, again)));
    rows.extend([300, 301, 302, 303, 304, 307, 308].map(|status| row(status, again)));
    rows.extend(
        [401, 402, 403, 404, 405, 406, 407, 409, 411, 418, 431, 489].map(|status| row(status, again)),
    );
    rows.push(with(302, "location", "http://127.0.0.1:1/", again));
    rows.push(with(500, "webhook-delivery", "abort-message", Expected::Rejected));
    rows.push(with(500, "webhook-delivery", "go-on", again));
    rows.push(with(200, "webhook-delivery", "abort-message", Expected::Delivered));
    rows.push(with(489, "upstash-nonretryable-error", "true", Expected::Rejected));
    rows.push(with(500, "upstash-nonretryable-error", "true", again));
    check(home, &rows, None);
}

fn every_form_of_retry_after_moves_the_next_attempt_and_429_and_503_hold_the_lane(home: &Home) {
    // Far enough away that a date without fractions of a second is no matter.
    let hour = Duration::from_hours(1);
    let soon = Clock::system().now().saturating_add(hour).as_millis();
    let soon = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_millis(soon));
    let rfc_1123 = soon.to_string();
    let rows = [
        hint(503, "3600", hour, true),
        hint(429, "3600", hour, true),
        hint(500, "3600", hour, false),
        hint(408, "3600", hour, false),
        hint(301, "3600", hour, false),
        hint(503, rfc_1123.clone(), hour, true),
        hint(500, rfc_1123.clone(), hour, false),
        hint(503, rfc_850(&rfc_1123), hour, true),
        hint(503, asctime(&rfc_1123), hour, true),
        // Shorter than the schedule: that holds for the message, the hint for the lane.
        hint(500, "1", BACKOFF, false),
        hint(500, "0", BACKOFF, false),
        // A pause of nothing is none.
        hint(429, "0", BACKOFF, false),
        hint(503, "0", BACKOFF, false),
        hint(503, "Thu, 01 Jan 1970 00:00:07 GMT", BACKOFF, false),
        // Ten years, and what has no end.
        hint(503, "315360000", DAY, true),
        hint(429, "99999999999999999999999", DAY, true),
        hint(500, "315360000", DAY, false),
        hint(503, "Sat, 22 Nov 2036 13:25:00 GMT", DAY, true),
        // What makes no sense is as if it were not there.
        hint(503, "-120", BACKOFF, false),
        hint(429, "soon", BACKOFF, false),
        hint(503, "1.5", BACKOFF, false),
        hint(503, "2036-11-22T13:25:00Z", BACKOFF, false),
    ];
    check(home, &rows, None);
}

fn what_a_queue_rejects_is_its_own_to_say(home: &Home) {
    let again = Expected::RetryAfter(BACKOFF);
    let mut rows: Vec<Row> = [404, 429, 500, 503].map(|status| row(status, Expected::Rejected)).into();
    // Gone is gone, and what the list no longer has is tried again.
    rows.push(row(410, Expected::Rejected));
    rows.extend([400, 413, 415, 422, 451, 401, 501].map(|status| row(status, again)));
    // A refusal that is final asks for no pause.
    rows.push(with(503, "retry-after", "3600", Expected::Rejected));
    rows.push(row(204, Expected::Delivered));
    check(home, &rows, Some(&json!({"delivery": {"reject": [404, 429, 500, 503]}})));
}

/// `Sun, 22 Nov 2026 13:25:00 GMT` as `Sunday, 22-Nov-26 13:25:00 GMT`.
fn rfc_850(date: &str) -> String {
    let [weekday, day, month, year, time] = fields(date);
    let weekday = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        .into_iter()
        .find(|name| name.starts_with(weekday.trim_end_matches(',')))
        .expect("a day of the week");
    format!("{weekday}, {day}-{month}-{} {time} GMT", &year[2..])
}

/// The same as `Sun Nov 22 13:25:00 2026`.
fn asctime(date: &str) -> String {
    let [weekday, day, month, year, time] = fields(date);
    let day = day.trim_start_matches('0');
    format!("{} {month} {day:>2} {time} {year}", weekday.trim_end_matches(','))
}

fn fields(date: &str) -> [&str; 5] {
    let fields: Vec<_> = date.split(' ').take(5).collect();
    fields.try_into().expect("five")
}
