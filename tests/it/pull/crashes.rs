//! Consumers whose connection is gone before they were answered.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{QUEUE, WITHIN, ask, lease, lease_one, over_both, post, receipt, settle, wait_until_leased};
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::invariants::count;

/// How soon it is with others again what did not arrive: a second, and what a busy machine takes.
const BACK_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_leased_for_who_has_gone_while_it_waited() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        let gone: Vec<_> =
            (0..20).map(|_| ask(&gateway.address(), &json!({"wait": "60s", "max": 10}))).collect();
        assert_eq!(lease(&gateway, &json!({})), Vec::<Value>::new());
        drop(gone);
        let mut waiting = ask(&gateway.address(), &json!({"wait": "30s"}));
        gateway.publish("jobs", &[], b"for who is there");
        let answer = waiting.answer(false).expect("an answer").json();
        let message = &answer["items"][0];
        assert_eq!((&message["payload"], &message["attempt"]), (&json!("for who is there"), &json!(1)));
        assert_eq!(count(&gateway.status(), "recovered"), 0);
    });
}

/// How a client ends its connection.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It closes it.
    Closed,
    /// It closes it while there is something that it has not read.
    Reset,
}

#[test]
fn nothing_is_leased_for_who_has_gone_behind_more_than_its_request() {
    // A part of another request: one that the server reads ahead, one that the system keeps, one that it has no room for.
    for (bytes, end) in
        [(1_000, End::Closed), (170 << 10, End::Closed), (1 << 20, End::Closed), (170 << 10, End::Reset)]
    {
        over_both(|home| {
            let one = format!("[server.limits]\nconsumers_max = 1\n{QUEUE}");
            let mut gateway = home.start(&one, &[]);
            let status = |gateway: &Gateway| post(&gateway.address(), "jobs", "", &json!({})).status;
            let mut gone = Connection::open(&gateway.address()).expect("it connects");
            if matches!(end, End::Reset) {
                gone.send("GET", "/health", &[], b"").expect("it is sent");
                assert_eq!(gone.peek().expect("an answer"), 1, "which it does not read");
            }
            let (path, json_type) = ("/v1/queues/jobs/leases", [("Content-Type", "application/json")]);
            gone.send("POST", path, &json_type, br#"{"wait":"60s","lease":"10m"}"#).expect("it is sent");
            gateway.wait_for("it waits", WITHIN, |gateway| (status(gateway) == 503).then_some(()));
            gone.send_part("POST", "/v1/queues/jobs/messages", 2 << 20, bytes).expect("it is sent");
            drop(gone);
            let what = format!("its place is free, {bytes} bytes and {end:?}");
            gateway.wait_for(&what, BACK_WITHIN * 5, |gateway| (status(gateway) == 200).then_some(()));
            gateway.publish("jobs", &[], b"for who is there");
            let message = lease_one(&gateway, &json!({"wait": "30s"}));
            assert_eq!(message["attempt"], 1);
            assert_eq!(count(&gateway.status(), "recovered"), 0);
        });
    }
}

#[test]
fn who_sends_more_behind_its_lease_than_is_read_ahead_is_answered_at_once() {
    over_both(|home| {
        let gateway = home.start(QUEUE, &[]);
        let mut sender = ask(&gateway.address(), &json!({"wait": "60s"}));
        let payload = vec![b'x'; 900 << 10];
        sender.send("POST", "/v1/queues/jobs/messages", &[], &payload).expect("it is sent");
        sender.wait_at_most(WITHIN).expect("an open socket");
        let answer = sender.answer(false).expect("an answer");
        assert_eq!((answer.status, answer.json()), (200, json!({"items": []})));
        // What it sent is taken all the same.
        assert_eq!(sender.answer(false).expect("an answer").status, 202);
        let message = lease_one(&gateway, &json!({}));
        assert_eq!(message["payload"].as_str().map(str::len), Some(payload.len()));
    });
}

#[test]
fn what_was_leased_for_who_does_not_take_it_comes_back_uncounted() {
    over_both(|home| {
        let limits = format!("{QUEUE}[queues.jobs.limits]\npayload_max = '16MiB'\n");
        let mut gateway = home.start(&limits, &[]);
        // More than the sockets hold, so that the answer is under way when its reader goes.
        let large = vec![b'x'; 12 << 20];
        gateway.publish("jobs", &[], &large);
        let reader = ask(&gateway.address(), &json!({"wait": "30s", "lease": "10m"}));
        wait_until_leased(&mut gateway, 1);
        // The answer has begun: the kernel's buffers are full.
        thread::sleep(Duration::from_millis(200));
        drop(reader);
        let gone = Instant::now();
        let message = lease_one(&gateway, &json!({"wait": "30s"}));
        let took = gone.elapsed();
        assert_eq!(message["attempt"], 1, "nothing is counted");
        assert_eq!(message["payload"].as_str().map(str::len), Some(large.len()));
        assert!(took < BACK_WITHIN * 5, "it came back after {took:?}");
        assert_eq!(settle(&gateway, &json!({"ack": [receipt(&message)]})), ["settled"]);
        let status = gateway.wait_until_drained(WITHIN);
        assert_eq!(["delivered", "retried", "recovered"].map(|key| count(&status, key)), [1, 0, 0]);
    });
}

#[test]
fn a_request_whose_sender_is_gone_when_it_is_read_leases_nothing() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        for number in 0..20 {
            gateway.publish("jobs", &[], number.to_string().as_bytes());
        }
        // It stands still meanwhile, so that the end comes with the request.
        gateway.freeze();
        for _ in 0..20 {
            drop(ask(&gateway.address(), &json!({"max": 1, "lease": "10m"})));
        }
        gateway.signal(Signal::SIGCONT);
        gateway.wait_for("all of it is pending", WITHIN, |gateway| {
            let status = gateway.status();
            (["pending", "leased"].map(|key| count(&status, key)) == [20, 0]).then_some(())
        });
        let all = lease(&gateway, &json!({"max": 100}));
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|message| message["attempt"] == 1));
    });
}
