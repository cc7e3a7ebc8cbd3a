//! What consumers that wait cost, and what they get.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{QUEUE, WITHIN, ask, items, lease, over_both, post};
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::wait_until;

/// Consumers that wait at once.
const CROWD: usize = 1_000;
/// Room for their connections on both sides.
const FILES: u64 = 8_192;

/// Waits until all of these consumers have their place: one more is refused.
fn until_all_wait(gateway: &mut Gateway) {
    gateway.wait_for("all of them wait", WITHIN, |gateway| {
        (post(&gateway.address(), "jobs", "", &json!({})).status == 503).then_some(())
    });
}

/// A queue with room for so many consumers and no more.
fn crowded() -> String {
    format!("[server.limits]\nconsumers_max = {CROWD}\n{QUEUE}")
}

fn crowd(address: &str, wait: &str) -> Vec<Connection> {
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).expect("so many files may be open");
    (0..CROWD).map(|_| ask(address, &json!({"wait": wait}))).collect()
}

/// The CPU time that a process has used.
fn cpu_of(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Behind the name, which may hold anything: user and system time are the twelfth and the thirteenth.
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().expect("a number"));
    TICK * ticks.sum::<u32>()
}

/// All that was run.
fn all_calls(redis: &RedisServer) -> u64 {
    let info = redis.ask(&["INFO", "commandstats"]);
    let count = |line: &str| {
        line.strip_prefix("cmdstat_")?.split_once(":calls=")?.1.split(',').next()?.parse::<u64>().ok()
    };
    info.lines().filter_map(count).sum()
}

#[test]
fn a_thousand_that_wait_cost_the_store_nothing_and_one_message_one_lease() {
    /// Two rounds of what an idle gateway does least often.
    const SPAN: Duration = Duration::from_secs(12);
    /// What an idle gateway may ask, see `gateways::idle`.
    const IDLE_PER_S_MAX: u64 = 20;
    let redis = RedisServer::start_durable();
    let mut gateway = Gateway::prepare(&crowded(), &[]).over(&redis);
    gateway.launch_until_ready();
    let mut waiting = crowd(&gateway.address(), "60s");
    until_all_wait(&mut gateway);
    // A look for one of them may still be under way.
    std::thread::sleep(Duration::from_millis(500));
    redis.ask(&["CONFIG", "RESETSTAT"]);
    let before = cpu_of(gateway.pid());
    std::thread::sleep(SPAN);
    let cpu = cpu_of(gateway.pid()).saturating_sub(before);
    let (idle, leases) = (all_calls(&redis), redis.calls("ltrim"));
    println!("{CROWD} consumers wait: {idle} commands and {cpu:?} of CPU in {SPAN:?}");
    assert!(cpu <= SPAN / 50, "{cpu:?} in {SPAN:?} are more than 2 % of one core");
    assert!(idle <= IDLE_PER_S_MAX * SPAN.as_secs(), "{idle} commands in {SPAN:?}");
    assert_eq!(leases, 0, "nothing was leased");

    redis.ask(&["CONFIG", "RESETSTAT"]);
    let (before, begun) = (redis.calls("evalsha"), Instant::now());
    gateway.publish("jobs", &[], b"for one of them");
    let found = wait_until("one has it", WITHIN, || {
        waiting.iter_mut().enumerate().find_map(|(place, connection)| {
            connection.wait_at_most(Duration::from_millis(1)).expect("an open socket");
            connection.peek().is_ok_and(|count| count > 0).then_some(place)
        })
    });
    let answer = waiting[found].answer(false).expect("an answer").json();
    assert_eq!(answer["items"][0]["payload"], "for one of them");
    let asked = redis.calls("evalsha") - before;
    println!("one message for {CROWD} consumers: {asked} scripts");
    // Publish, lease, and what the sweeper and the prober do in the time that it took to look at all of them.
    let meanwhile = idle * (begun.elapsed().as_secs() + 1) / SPAN.as_secs();
    assert!(asked <= 10 + meanwhile, "{asked} scripts for one message, and {meanwhile} would be idle's");
    gateway.stop();
}

#[test]
fn a_thousand_consumers_get_a_thousand_messages_each_one() {
    over_both(|home| {
        let mut gateway = home.start(&crowded(), &[]);
        let waiting = crowd(&gateway.address(), "60s");
        until_all_wait(&mut gateway);
        let mut publisher = Connection::open(&gateway.address()).expect("it connects");
        for number in 0..CROWD {
            let path = "/v1/queues/jobs/messages";
            let answer = publisher.request("POST", path, &[], number.to_string().as_bytes());
            assert_eq!(answer.expect("an answer").status, 202);
        }
        let mut numbers: Vec<usize> = waiting
            .into_iter()
            .map(|mut connection| {
                let mut found = items(&connection.answer(false).expect("an answer").json());
                assert_eq!(found.len(), 1, "{found:?}");
                found.remove(0)["payload"].as_str().and_then(|text| text.parse().ok()).expect("a number")
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..CROWD).collect::<Vec<_>>());
    });
}

#[test]
fn a_gateway_that_ends_answers_those_who_wait_with_nothing() {
    over_both(|home| {
        let mut gateway = home.start(QUEUE, &[]);
        let mut waiting: Vec<_> = (0..10).map(|_| ask(&gateway.address(), &json!({"wait": "60s"}))).collect();
        assert_eq!(lease(&gateway, &json!({})), Vec::<Value>::new());
        let began = Instant::now();
        gateway.signal(Signal::SIGTERM);
        for connection in &mut waiting {
            let answer = connection.answer(false).expect("an answer");
            assert_eq!((answer.status, answer.json()), (200, json!({"items": []})));
        }
        let status = gateway.wait_for_exit(Duration::from_secs(30));
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10), "it does not wait for the end of their time");
    });
}

#[test]
fn queues_of_which_nobody_pulls_are_not_looked_at_all_the_time() {
    /// Each second they would be twice as many as are allowed.
    const QUEUES: u64 = 40;
    const SPAN: Duration = Duration::from_secs(12);
    const SCRIPTS_PER_S_MAX: u64 = 20;
    let redis = RedisServer::start_durable();
    let queue = |number| format!("[queues.q{number}]\nprocessor = 'pull'\n");
    let settings = (0..QUEUES).map(queue).collect::<Vec<_>>().concat();
    let mut gateway = Gateway::prepare(&settings, &[]).over(&redis);
    gateway.launch_until_ready();
    for number in 0..QUEUES {
        gateway.publish(&format!("q{number}"), &[], b"nobody comes");
    }
    let begun = Instant::now();
    loop {
        redis.ask(&["CONFIG", "RESETSTAT"]);
        std::thread::sleep(SPAN);
        let scripts = redis.calls("evalsha");
        println!("{QUEUES} queues of which nobody pulls: {scripts} scripts in {SPAN:?}");
        if scripts <= SCRIPTS_PER_S_MAX * SPAN.as_secs() {
            break;
        }
        // After the start there is something to do for a while.
        assert!(begun.elapsed() < Duration::from_mins(2), "{scripts} scripts in {SPAN:?}");
    }
    for number in 0..QUEUES {
        let answer = post(&gateway.address(), &format!("q{number}"), "", &json!({})).json();
        assert_eq!(answer["items"][0]["payload"], "nobody comes");
    }
    gateway.stop();
}
