//! A hundred consumers on one queue, of whom some crash, some are late, some say it twice, some give back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{fates, items, over_both, receipt};
use crate::support::client::Connection;
use crate::support::gateway::{Gateway, Whereabouts};
use crate::support::invariants::{assert_laws, count};

const CONSUMERS: u64 = 100;
const MESSAGES: u64 = 2_000;
/// The lease of those that are late.
const SHORT: Duration = Duration::from_secs(1);
/// That of the others: what nobody heard that he has it comes back when it ends.
const LEASE: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_mins(2);

/// Enough attempts that nothing dies of what is done to it here.
const QUEUE: &str = "[queues.jobs]\nprocessor = 'pull'\nlease = '1m'\n\
    [queues.jobs.retry]\nschedule = ['5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms','5ms']\n";

/// From when to when a consumer surely held a message: from its answer's arrival to before it was given up.
#[derive(Clone, Copy)]
struct Held {
    from: Instant,
    to: Instant,
}

#[derive(Default)]
struct Tally {
    /// Of each message, who surely held it when.
    held: Mutex<HashMap<String, Vec<Held>>>,
    /// Of each message, how often its ack was answered `settled` for the first time.
    done: Mutex<HashMap<String, u64>>,
    late: AtomicU64,
    late_lost: AtomicU64,
    over: AtomicBool,
}

impl Tally {
    /// These were held from then until now.
    fn held_all(&self, messages: &[Value], from: Instant) {
        let to = Instant::now();
        let mut held = self.held.lock().expect("no panic inside");
        for message in messages {
            let id = message["id"].as_str().expect("an id").to_owned();
            held.entry(id).or_default().push(Held { from, to });
        }
    }

    fn done(&self, message: &Value) {
        let id = message["id"].as_str().expect("an id").to_owned();
        *self.done.lock().expect("no panic inside").entry(id).or_default() += 1;
    }

    fn is_done(&self) -> bool {
        self.over.load(Ordering::Relaxed)
            || self.done.lock().expect("no panic inside").len() as u64 == MESSAGES
    }
}

/// One request on a kept connection; `None` when the gateway went away.
fn say(
    connection: &mut Option<Connection>,
    gateway: &Whereabouts,
    what: &str,
    body: &Value,
) -> Option<Value> {
    if connection.is_none() {
        *connection = Connection::open(&gateway.address()).ok();
    }
    let path = format!("/v1/queues/jobs/leases{what}");
    let headers = [("Content-Type", "application/json")];
    let answer = connection.as_mut()?.request("POST", &path, &headers, body.to_string().as_bytes());
    match answer {
        Ok(answer) if answer.status == 200 => Some(answer.json()),
        Ok(answer) => {
            assert!(matches!(answer.status, 500.. | 404), "{}", answer.text());
            thread::sleep(Duration::from_millis(20));
            None
        }
        Err(_) => {
            *connection = None;
            thread::sleep(Duration::from_millis(20));
            None
        }
    }
}

/// One consumer, which does what its number and turn say until all is done.
fn consume(number: u64, gateway: &Whereabouts, tally: &Tally) {
    let mut connection = None;
    let mut turn = number;
    while !tally.is_done() {
        turn += 1;
        let kind = turn % 12;
        if kind == 0 {
            // Crashes before the answer, some of them while they wait.
            if let Ok(mut crashing) = Connection::open(&gateway.address()) {
                let headers = [("Content-Type", "application/json")];
                let body = json!({"max": 3, "wait": "1s", "lease": "1s"}).to_string();
                drop(crashing.send("POST", "/v1/queues/jobs/leases", &headers, body.as_bytes()));
            }
            continue;
        }
        let lease = if matches!(kind, 1 | 2) { "1s" } else { "15s" };
        let order = json!({"max": 1 + turn % 4, "wait": "500ms", "lease": lease});
        let Some(answer) = say(&mut connection, gateway, "", &order) else { continue };
        let (from, found) = (Instant::now(), items(&answer));
        if found.is_empty() {
            continue;
        }
        let receipts: Vec<_> = found.iter().map(receipt).collect();
        match kind {
            // Crashes with messages in hand: their lease ends by itself.
            1 => connection = None,
            2 => late(&mut connection, gateway, tally, &found),
            3 => {
                tally.held_all(&found, from);
                say(&mut connection, gateway, "/settle", &json!({"release": receipts}));
            }
            4 => {
                tally.held_all(&found, from);
                let retry: Vec<_> = receipts.iter().map(|receipt| json!({"receipt": receipt})).collect();
                say(&mut connection, gateway, "/settle", &json!({"retry": retry}));
            }
            _ => {
                if kind == 5 {
                    let extended = say(
                        &mut connection,
                        gateway,
                        "/extend",
                        &json!({"receipts": receipts, "lease": "2m"}),
                    );
                    let words = extended.map(|extended| fates(&extended)).unwrap_or_default();
                    assert!(words.iter().all(|word| word == "extended"), "{words:?}");
                }
                tally.held_all(&found, from);
                settle(&mut connection, gateway, tally, &found);
                if kind == 6 {
                    // Said twice: it is so, and counts once.
                    say(&mut connection, gateway, "/settle", &json!({"ack": receipts}));
                }
            }
        }
    }
}

/// Acks in time, again and again until it is known what came of it.
fn settle(connection: &mut Option<Connection>, gateway: &Whereabouts, tally: &Tally, found: &[Value]) {
    let ack = json!({"ack": found.iter().map(receipt).collect::<Vec<_>>()});
    let answer = answered(connection, gateway, &ack).expect("the gateway comes back");
    for (message, fate) in found.iter().zip(fates(&answer)) {
        assert_eq!(fate, "settled", "its lease is not over: {message}");
        tally.done(message);
    }
}

/// Settles until an answer comes: without one, what became of it is not known.
fn answered(connection: &mut Option<Connection>, gateway: &Whereabouts, order: &Value) -> Option<Value> {
    let deadline = Instant::now() + LEASE / 2;
    while Instant::now() < deadline {
        let answer = say(connection, gateway, "/settle", order);
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// Acks when its lease is over: what others have got meanwhile is lost to it.
fn late(connection: &mut Option<Connection>, gateway: &Whereabouts, tally: &Tally, found: &[Value]) {
    thread::sleep(SHORT + Duration::from_millis(1_500));
    let ack = json!({"ack": found.iter().map(receipt).collect::<Vec<_>>()});
    let Some(answer) = answered(connection, gateway, &ack) else { return };
    for (message, fate) in found.iter().zip(fates(&answer)) {
        tally.late.fetch_add(1, Ordering::Relaxed);
        if fate == "lost" {
            tally.late_lost.fetch_add(1, Ordering::Relaxed);
        } else {
            // Nobody had taken it back yet.
            tally.done(message);
        }
    }
}

#[expect(clippy::print_stdout, reason = "who reads the test wants the figures")]
fn a_hundred(gateway: &mut Gateway, disturb: impl Fn(&mut Gateway)) {
    let whereabouts = gateway.whereabouts();
    let tally = Arc::new(Tally::default());
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|number| {
            let (whereabouts, tally) = (whereabouts.clone(), tally.clone());
            thread::spawn(move || consume(number * 7, &whereabouts, &tally))
        })
        .collect();
    let mut publisher = Connection::open(&gateway.address()).expect("it connects");
    for number in 0..MESSAGES {
        let path = "/v1/queues/jobs/messages";
        let answer = publisher.request("POST", path, &[], number.to_string().as_bytes());
        assert_eq!(answer.expect("an answer").status, 202);
        if number % 500 == 0 {
            assert_laws(&gateway.status());
        }
    }
    disturb(gateway);
    let deadline = Instant::now() + WITHIN;
    while !tally.is_done() && Instant::now() < deadline {
        assert!(
            consumers.iter().all(|consumer| !consumer.is_finished() || tally.is_done()),
            "a consumer failed"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let is_done = tally.is_done();
    tally.over.store(true, Ordering::Relaxed);
    for consumer in consumers {
        consumer.join().expect("no consumer saw what may not be");
    }
    let status = gateway.wait_until_drained(WITHIN);
    assert!(is_done, "{} of {MESSAGES} were done", tally.done.lock().expect("no panic inside").len());
    assert_eq!(
        ["accepted", "delivered", "dead"].map(|key| count(&status, key)),
        [MESSAGES, MESSAGES, 0],
        "{status}"
    );
    let done = tally.done.lock().expect("no panic inside");
    assert!(done.values().all(|times| *times == 1), "each message is done once");
    let mut held = tally.held.lock().expect("no panic inside");
    for (id, spans) in held.iter_mut() {
        spans.sort_by_key(|held| held.from);
        let overlap = spans.windows(2).any(|two| two[1].from < two[0].to);
        assert!(!overlap, "two held {id} at once");
    }
    let (late, lost) = (tally.late.load(Ordering::Relaxed), tally.late_lost.load(Ordering::Relaxed));
    println!("{late} late acks, {lost} of them lost; {} lost leases", count(&status, "recovered"));
    assert!(lost > 0 && count(&status, "recovered") > 0, "{late} {lost}");
}

#[test]
fn a_hundred_consumers_lose_nothing_and_never_share_a_message() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        a_hundred(&mut gateway, |_| {});
    });
}

#[test]
fn a_hundred_consumers_lose_nothing_to_a_kill_of_their_gateway() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        a_hundred(&mut gateway, |gateway| {
            gateway.kill();
            gateway.launch_until_ready();
        });
    });
}
