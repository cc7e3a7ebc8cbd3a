//! What `/status` costs a Redis that others share, and what it says of one that they wrote to.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::invariants;
use crate::support::redis::{RedisServer, STRICT};

const QUEUES: usize = 150;
const CLIENTS: usize = 16;
const WITHIN: Duration = Duration::from_secs(30);

/// How often the script that reads counters ran, or another that only reads.
fn reads(server: &RedisServer) -> u64 {
    server.calls("evalsha_ro")
}

#[test]
fn those_who_ask_for_the_status_of_many_queues_at_once_share_one_look() {
    let server = RedisServer::start(&STRICT);
    let mut settings = "[server]\nthreads = 4\n".to_owned();
    for number in 0..QUEUES {
        write!(settings, "[queues.q{number}]\nprocessor = 'pull'\n").expect("a string takes all");
    }
    let mut gateway = Gateway::prepare(&settings, &[]).over(&server);
    gateway.launch_until_ready();
    let (address, begun, before) = (gateway.address(), Instant::now(), reads(&server));
    let ask = || {
        while begun.elapsed() < Duration::from_secs(5) {
            let answer = client::request(&address, "GET", "/status", &[], b"").expect("it answers");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(ask);
        }
    });
    // One a second, and those of the observer, however many clients and threads there are.
    let looks_max = begun.elapsed().as_secs() + 3;
    let looks = (reads(&server) - before) / QUEUES as u64;
    assert!((1..=looks_max).contains(&looks), "{looks} looks at all queues, {looks_max} at most");
    gateway.stop();
}

#[test]
fn counters_that_differ_from_what_is_there_are_not_called_consistent() {
    let server = RedisServer::start(&STRICT);
    let settings = "[queues.jobs]\nprocessor = 'pull'\n[queues.other]\nprocessor = 'pull'\n";
    let mut gateway = Gateway::prepare(settings, &[]).over(&server);
    gateway.launch_until_ready();
    for queue in ["jobs", "jobs", "other"] {
        gateway.publish(queue, &[], b"x");
    }
    let counters = "ph:{jobs#0}:c";
    assert_eq!(server.ask(&["HGET", counters, "pending"]), "$1\r\n2\r\n");
    // Both laws would hold: more were accepted, and more wait. Again and again, since each sweep mends it.
    let status = gateway.wait_for("it is seen", WITHIN, |gateway| {
        for field in ["accepted", "pending"] {
            server.ask(&["HINCRBY", counters, field, "3"]);
        }
        let status = gateway.status();
        (status["consistent"] == false).then_some(status)
    });
    let consistent = |queue: &Value| (queue["name"].clone(), queue["consistent"].clone());
    let queues: Vec<_> = status["queues"].as_array().expect("queues").iter().map(consistent).collect();
    assert!(queues.contains(&("jobs".into(), false.into())), "{queues:?}");
    assert!(queues.contains(&("other".into(), true.into())), "{queues:?}");
    let told = |status: &Value, code: &str, words: &str| {
        let warnings = status["store"]["warnings"].as_array().expect("warnings").clone();
        let detail = |warning: &Value| warning["detail"].as_str().expect("a detail").to_owned();
        warnings.iter().any(|warning| {
            warning["code"] == code && detail(warning).contains("jobs") && detail(warning).contains(words)
        })
    };
    assert!(told(&status, "counters_differ", "and its lists hold 2"), "{status}");

    let status = gateway.wait_for("it is well again", WITHIN, |gateway| {
        let status = gateway.status();
        (status["consistent"] == true).then_some(status)
    });
    invariants::assert_laws(&status);
    assert!(told(&status, "messages_gone", "purged"), "{status}");
    assert_eq!(server.ask(&["HGET", counters, "pending"]), "$1\r\n2\r\n");
    gateway.stop();
}
