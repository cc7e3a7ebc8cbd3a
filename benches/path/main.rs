//! Measures the path of a message with the real release binary:
//! `cargo bench --bench path -- [pending|store|calls|redis|latency|latency-relaxed|consumers|isolation|dead-destination|delivery]
//! [FLAGS]`.
//!
//! - `pending`: what a million waiting messages cost, over both stores: `/status`, lease and settle, memory, the start.
//! - `store`: lease and settle alone, on the embedded store, with and without a million messages behind.
//! - `calls`: each call of the embedded store: messages a second and CPU a message.
//! - `redis`: CPU and memory of a message in a Redis of its own, with and without a million messages behind.
//! - `latency`: from posting a message to an idle gateway until a registered function has it: on the embedded store, on a Redis,
//!   and in another gateway on that Redis.
//! - `latency-relaxed`: the same on a Redis that keeps what it has in memory only, so that no fsync is waited for.
//! - `consumers`: the same until a consumer that waits has it, and the CPU and the Redis commands of a thousand that wait.
//! - `isolation`: what seventeen destinations lose while one refuses, one hangs and one trickles; `--binary PATH` measures another
//!   release binary in turn with this one.
//! - `dead-destination`: what a million messages cost, over both stores, whose destination refuses every connection.
//! - `delivery`: CPU and rate of draining a backlog over HTTP, beside the same client and reqwest in bare loops; `--binary PATH` as
//!   above.
//!
//! Without a name all are run. `--messages N` is how many wait (1,000,000), `--posts N` how many are timed (2,000),
//! `--json` prints one object a line instead of tables. Nothing is asserted: what a figure must be is judged by who reads it.

mod calls;
#[path = "../../tests/it/support/client.rs"]
#[expect(dead_code, reason = "the tests look at headers, the benches do not")]
mod client;
mod consumers;
mod dead_destination;
mod delivery;
#[path = "../../tests/it/support/delivery.rs"]
#[expect(dead_code, reason = "the tests make more kinds")]
mod delivery_by_hand;
mod gateway;
mod isolation;
mod latency;
mod pending;
mod redis;
#[path = "../../tests/it/support/redis.rs"]
#[expect(dead_code, reason = "the tests restart their servers, the benches do not")]
mod redis_server;
mod report;
mod store;

use std::process::ExitCode;

use report::Report;

/// What was asked for.
struct Arguments {
    names: Vec<String>,
    messages: u64,
    posts: usize,
    json: bool,
    binary: Option<String>,
}

/// Measures something, and reports it.
type Bench = fn(&Arguments, &mut Report);

/// Every bench by its name.
const BENCHES: [(&str, Bench); 10] = [
    ("pending", pending::run),
    ("store", store::run),
    ("calls", calls::run),
    ("redis", redis::run),
    ("latency", latency::run),
    ("latency-relaxed", latency::run_relaxed),
    ("consumers", consumers::run),
    ("isolation", isolation::run),
    ("dead-destination", dead_destination::run),
    ("delivery", delivery::run),
];

#[expect(clippy::print_stderr, reason = "a bench talks to a person")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((word, rest)) = words.split_first() {
        if word == delivery::RECEIVER {
            delivery::receive(rest);
            return ExitCode::SUCCESS;
        }
        if let Some((_, posting)) = delivery::LOOPS.iter().find(|(own, _)| own == word) {
            delivery::run_loop(*posting, rest);
            return ExitCode::SUCCESS;
        }
    }
    // Without `cargo bench` this is a test run, which has nothing to measure and lists no tests.
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    for (name, run) in BENCHES {
        if arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name) {
            let mut report = Report::new(name);
            run(&arguments, &mut report);
            report.print(arguments.json);
        }
    }
    ExitCode::SUCCESS
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut arguments =
        Arguments { names: Vec::new(), messages: 1_000_000, posts: 2_000, json: false, binary: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            text.parse::<u64>().map_err(|error| format!("{word} {text}: {error}"))
        };
        match word.as_str() {
            "--bench" => {}
            "--json" => arguments.json = true,
            "--binary" => arguments.binary = Some(words.next().ok_or("--binary needs a path")?.clone()),
            "--messages" => arguments.messages = number()?,
            "--posts" => arguments.posts = usize::try_from(number()?).map_err(|error| error.to_string())?,
            name if BENCHES.iter().any(|(known, _)| *known == name) => arguments.names.push(name.to_owned()),
            other => return Err(format!("{other} is neither a bench nor a flag")),
        }
    }
    Ok(arguments)
}
