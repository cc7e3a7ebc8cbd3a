//! A message that takes the gateway down each time it is processed, and what was beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use posthaste::clock::Clock;

use crate::support::gateway::{Home, Whereabouts};
use crate::support::invariants::count;
use crate::support::sink::{Answer, Sink};

const MATES: usize = 200;
const ATTEMPTS: usize = 3;
const WITHIN: Duration = Duration::from_mins(1);

fn is_killer(body: Option<&bytes::Bytes>) -> bool {
    body.is_some_and(|body| body.as_ref() == b"killer")
}

#[test]
fn after_one_kill_what_was_in_flight_is_tried_again_side_by_side() {
    in_flight_at_a_kill(&Home::Sqlite);
}

#[test]
fn after_one_kill_what_was_in_flight_is_tried_again_side_by_side_over_redis() {
    in_flight_at_a_kill(&Home::redis());
}

fn in_flight_at_a_kill(home: &Home) {
    const IN_FLIGHT: usize = 64;
    let answers: Arc<AtomicBool> = Arc::default();
    let does_answer = answers.clone();
    let sink = Sink::start(move |_| {
        if does_answer.load(Ordering::SeqCst) { Answer::status(200) } else { Answer::HangBeforeHead }
    });
    // No attempt ends by itself while the test runs: what was received is in flight.
    let settings = format!(
        "[queue_defaults]\ntimeout = '10m'\n[queue_defaults.delivery]\nconcurrency_max = {IN_FLIGHT}\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\n{}",
        sink.url("/orders"),
        home.lease("3s"),
    );
    let mut gateway = home.start(&settings, &["--dev"]);
    // All of them become due in one moment, so that they are leased together, and lost together.
    let deliver_at = Clock::system().now().saturating_add(Duration::from_secs(1)).to_string();
    for number in 0..IN_FLIGHT {
        gateway.publish("orders", &[("Posthaste-Deliver-At", &deliver_at)], format!("{number}").as_bytes());
    }
    sink.wait_for(IN_FLIGHT, WITHIN);
    gateway.kill();
    gateway.launch_until_ready();
    // Lost once, they go together, as many as one lease takes: none of them has ended when several are in flight.
    sink.wait_for(IN_FLIGHT + 8, WITHIN);
    gateway.kill();
    answers.store(true, Ordering::SeqCst);
    gateway.launch_until_ready();
    // Those lost twice are tried alone, and that is no harm to what comes to its end.
    let status = gateway.wait_until_drained(WITHIN);
    assert_eq!(["delivered", "dead"].map(|key| count(&status, key)), [IN_FLIGHT as u64, 0], "{status}");
    let lost = count(&status, "recovered");
    assert!((IN_FLIGHT as u64 + 8..=2 * IN_FLIGHT as u64).contains(&lost), "{status}");
    gateway.stop();
}

#[test]
fn a_message_that_kills_the_process_is_poison_and_its_batch_mates_are_not() {
    a_killer(&Home::Sqlite);
}

#[test]
fn a_message_that_kills_the_process_is_poison_over_redis_and_its_batch_mates_are_not() {
    a_killer(&Home::redis());
}

fn a_killer(home: &Home) {
    let victim: Arc<OnceLock<Arc<Whereabouts>>> = Arc::default();
    let known = victim.clone();
    let sink = Sink::start(move |received| {
        if is_killer(received.body.as_ref()) {
            known.get().expect("known before anything is published").signal(Signal::SIGKILL);
            return Answer::CloseEarly;
        }
        // Slow enough that the killer's batch mates are in flight, or have not begun, when it strikes.
        Answer::After(Duration::from_millis(20), Box::new(Answer::status(200)))
    });
    let settings = format!(
        "[workers]\nthreads = 1\n[queue_defaults.delivery]\nconcurrency_max = 256\n\
         [queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = ['100ms', '100ms']\n{}",
        sink.url("/orders"),
        home.lease("3s"),
    );
    let mut gateway = home.start(&settings, &["--dev"]);
    assert!(victim.set(gateway.whereabouts()).is_ok(), "only set here");
    // All of them become due in one moment, the killer amid the others.
    let deliver_at = Clock::system().now().saturating_add(Duration::from_secs(3)).to_string();
    let due = [("Posthaste-Deliver-At", deliver_at.as_str())];
    let mut killer = String::new();
    for number in 0..=MATES {
        if number == MATES / 2 {
            killer = gateway.publish("orders", &due, b"killer");
        } else {
            // Every second one has a single attempt left once it was lost.
            let of_two = [due[0], ("Posthaste-Max-Attempts", "2")];
            let options = if number % 2 == 0 { &of_two[..] } else { &due[..] };
            gateway.publish("orders", options, format!("mate {number}").as_bytes());
        }
    }
    for _ in 0..ATTEMPTS {
        gateway.wait_until_killed();
        gateway.launch_until_ready();
    }
    let status = gateway.wait_until_drained(WITHIN);
    let message = gateway.request("GET", &killer, &[], b"").json();
    assert_eq!([&message["state"], &message["reason"]], ["dead", "poison"], "{message}");
    assert_eq!(message["attempt_count"], ATTEMPTS, "{message}");
    let received = sink.received();
    let kills = received.iter().filter(|received| is_killer(received.body.as_ref())).count();
    assert_eq!(kills, ATTEMPTS, "it is tried as often as it may be, and never again");
    assert_eq!(["delivered", "dead"].map(|key| count(&status, key)), [MATES as u64, 1]);
    let lost_at_once = count(&status, "recovered");
    assert!(lost_at_once > ATTEMPTS as u64, "it struck amid its batch mates: {status}");
    gateway.stop();
}
