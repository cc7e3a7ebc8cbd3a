//! What an idle gateway asks of Redis.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;

/// Commands a second, those that scripts run included.
const COMMANDS_PER_S_MAX: u64 = 20;
/// Long enough for two rounds of what runs least often.
const SPAN: Duration = Duration::from_secs(12);
/// After a start there may be something to do for a while.
const CALM_WITHIN: Duration = Duration::from_mins(2);

/// All commands that Redis has run, and how often each.
fn commands(redis: &RedisServer) -> (u64, String) {
    let info = redis.ask(&["INFO", "commandstats"]);
    let counts = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls: u64 = rest.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), calls))
    });
    counts.fold((0, String::new()), |(sum, mut shown), (name, calls)| {
        write!(shown, "{name} {calls}, ").expect("a string grows");
        (sum + calls, shown)
    })
}

#[expect(clippy::print_stdout, reason = "who reads the test wants the figures")]
fn settles_down(queues: usize) {
    let redis = RedisServer::start_durable();
    let mut settings = String::new();
    for number in 0..queues {
        write!(settings, "[queues.q{number}]\nprocessor = 'log'\n").expect("a string grows");
    }
    let mut gateway = Gateway::prepare(&settings, &[]).over(&redis);
    gateway.launch_until_ready();
    let begun = Instant::now();
    loop {
        redis.ask(&["CONFIG", "RESETSTAT"]);
        thread::sleep(SPAN);
        let (sum, shown) = commands(&redis);
        println!("{queues} queues: {sum} commands in {SPAN:?}: {shown}");
        if sum <= COMMANDS_PER_S_MAX * SPAN.as_secs() {
            break;
        }
        assert!(begun.elapsed() < CALM_WITHIN, "{sum} commands in {SPAN:?}: {shown}");
    }
    gateway.stop();
}

#[test]
fn an_idle_gateway_asks_little_whatever_the_number_of_queues() {
    // Each with a Redis of its own, and at the same time: the one's wait is the other's.
    thread::scope(|scope| {
        for queues in [10, 1_000] {
            scope.spawn(move || settles_down(queues));
        }
    });
}
