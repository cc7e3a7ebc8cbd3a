//! Queues side by side in the real binary: one whose receiver hangs takes nothing that another one needs.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gateway::Gateway;
use crate::support::invariants::assert_laws;
use crate::support::sink::{Answer, Sink};

const HANGING: usize = 10;
/// As many as each of them may have in flight.
const MESSAGES: usize = 64;
/// Far below [`TIMEOUT`], after which the receivers that hang are given up.
const WITHIN: Duration = Duration::from_mins(1);
const TIMEOUT: &str = "15m";

fn settings(sink: &Sink) -> String {
    let mut settings = "[workers]\nthreads = 2\n".to_owned();
    let mut declare = |name: &str| {
        let destination = sink.url(&format!("/{name}"));
        writeln!(
            settings,
            "[queues.{name}]\nprocessor = 'http'\ndestination = '{destination}'\ntimeout = '{TIMEOUT}'"
        )
        .expect("writing to a string cannot fail");
    };
    for number in 0..HANGING {
        declare(&format!("hanging-{number}"));
    }
    declare("healthy");
    settings
}

/// Waits until no more requests come; gives how many came.
fn wait_until_still(sink: &Sink) -> usize {
    let deadline = Instant::now() + WITHIN;
    let (mut last, mut looks) = (sink.count(), 0);
    while looks < 40 {
        assert!(Instant::now() < deadline, "requests still come after {WITHIN:?}");
        thread::sleep(Duration::from_millis(25));
        let now = sink.count();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn a_message_is_delivered_while_the_receivers_of_ten_other_queues_hang() {
    let sink = Sink::start(|received| match received.target.as_str() {
        "/healthy" => Answer::status(200),
        _ => Answer::HangBeforeHead,
    });
    let mut gateway = Gateway::start(&settings(&sink), &["--dev"]);
    thread::scope(|scope| {
        for number in 0..HANGING {
            let gateway = &gateway;
            scope.spawn(move || {
                let queue = format!("hanging-{number}");
                (0..MESSAGES).for_each(|_| drop(gateway.publish(&queue, &[], b"x")));
            });
        }
    });
    let hanging = wait_until_still(&sink);
    assert!(hanging >= 256, "only {hanging} of 512 slots are taken: this shows nothing");
    for _ in 0..5 {
        let path = gateway.publish("healthy", &[], b"x");
        gateway.wait_until_message_is("delivered", &path, WITHIN);
    }
    let received = sink.received();
    let healthy = received.iter().filter(|received| received.target == "/healthy").count();
    assert_eq!((healthy, received.len() - healthy), (5, hanging), "none of the others ended meanwhile");
    assert_eq!(sink.answers_ended(), healthy);
    assert_laws(&gateway.status());
    gateway.kill();
}
