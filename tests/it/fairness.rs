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

/// A receiver for each, or they would share a lane.
fn settings(hanging: &[Sink], healthy: &Sink) -> String {
    let mut settings = "[workers]\nthreads = 2\n".to_owned();
    let mut declare = |name: &str, sink: &Sink| {
        let destination = sink.url(&format!("/{name}"));
        writeln!(
            settings,
            "[queues.{name}]\nprocessor = 'http'\ndestination = '{destination}'\ntimeout = '{TIMEOUT}'"
        )
        .expect("writing to a string cannot fail");
    };
    for (number, sink) in hanging.iter().enumerate() {
        declare(&format!("hanging-{number}"), sink);
    }
    declare("healthy", healthy);
    settings
}

fn count(sinks: &[Sink]) -> usize {
    sinks.iter().map(Sink::count).sum()
}

/// Waits until no more requests come; gives how many came.
fn wait_until_still(sinks: &[Sink]) -> usize {
    let deadline = Instant::now() + WITHIN;
    let (mut last, mut looks) = (count(sinks), 0);
    while looks < 40 {
        assert!(Instant::now() < deadline, "requests still come after {WITHIN:?}");
        thread::sleep(Duration::from_millis(25));
        let now = count(sinks);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn a_message_is_delivered_while_the_receivers_of_ten_other_queues_hang() {
    let sinks: Vec<_> = (0..HANGING).map(|_| Sink::start(|_| Answer::HangBeforeHead)).collect();
    let healthy = Sink::start(|_| Answer::status(200));
    let mut gateway = Gateway::start(&settings(&sinks, &healthy), &["--dev"]);
    thread::scope(|scope| {
        for number in 0..HANGING {
            let gateway = &gateway;
            scope.spawn(move || {
                let queue = format!("hanging-{number}");
                (0..MESSAGES).for_each(|_| drop(gateway.publish(&queue, &[], b"x")));
            });
        }
    });
    let hanging = wait_until_still(&sinks);
    assert!(hanging >= 256, "only {hanging} of 512 slots are taken: this shows nothing");
    for _ in 0..5 {
        let path = gateway.publish("healthy", &[], b"x");
        gateway.wait_until_message_is("delivered", &path, WITHIN);
    }
    assert_eq!((healthy.count(), count(&sinks)), (5, hanging), "none of the others ended meanwhile");
    assert_eq!(sinks.iter().map(Sink::answers_ended).sum::<usize>(), 0);
    assert_laws(&gateway.status());
    gateway.kill();
}
