//! Consumers whose connection is gone before they were answered.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{QUEUE, WITHIN, ask, lease, lease_one, over_both, receipt, settle, wait_until_leased};
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
        for _ in 0..20 {
            // Closed at once: the end comes with the request.
            drop(ask(&gateway.address(), &json!({"max": 1, "lease": "10m"})));
        }
        gateway.wait_for("all of it is pending", WITHIN, |gateway| {
            let status = gateway.status();
            (["pending", "leased"].map(|key| count(&status, key)) == [20, 0]).then_some(())
        });
        let all = lease(&gateway, &json!({"max": 100}));
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|message| message["attempt"] == 1));
    });
}
