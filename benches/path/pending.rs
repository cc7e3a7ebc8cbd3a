//! What a million pending messages cost.

use std::thread;
use std::time::{Duration, Instant};

use crate::Arguments;
use crate::client::Connection;
use crate::gateway::{Gateway, wait_for};
use crate::redis_server::RedisServer;
use crate::report::Report;

const PAYLOAD: [u8; 200] = [b'x'; 200];
const CLIENTS: u64 = 64;
/// `/status` requests that are timed.
const LOOKS: usize = 2_000;
/// Messages of one timed drain.
const DRAINED: u64 = 10_000;
/// Timed drains on either side.
const ROUNDS: u32 = 10;

const PULL: &str = r#"{"processor":"pull","limits":{"length_max":100000000,"bytes_max":"1TiB"}}"#;
const LOG: &str = r#"{"processor":"log","limits":{"length_max":100000000,"bytes_max":"1TiB"}}"#;
const QUEUE: &str = "/v1/queues/bench";

/// Measures it over both stores in turn, each time with two gateways side by side, one empty, so that both meet the same machine.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let sqlite = || "sqlite:posthaste.db".to_owned();
    measure("sqlite", &[sqlite(), sqlite()], arguments.messages, report);
    let servers = [(); 2].map(|()| RedisServer::start_durable());
    measure("redis", &servers.each_ref().map(RedisServer::url), arguments.messages, report);
}

fn measure(name: &str, stores: &[String; 2], messages: u64, report: &mut Report) {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let start = |side: usize| Gateway::start_on(folders[side].path(), &stores[side]);
    let (empty, full) = (start(0), start(1));
    for gateway in [&empty, &full] {
        gateway.request("PUT", QUEUE, PULL, 201);
    }
    let took = publish(&full, messages);
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    let count = messages as f64;
    report.add(&format!("{name}_publish_per_s"), count / took.as_secs_f64());
    report.add(&format!("{name}_rss_empty_mib"), empty.memory_mib("VmRSS"));
    report.add(&format!("{name}_rss_full_mib"), full.memory_mib("VmRSS"));
    report.add(&format!("{name}_rss_full_peak_mib"), full.memory_mib("VmHWM"));
    compare_status(report, &format!("{name}_status_filled"), &empty, &full);
    empty.kill();
    full.kill();
    let (empty, took) = to_202(|| start(0));
    report.add_ms(&format!("{name}_start_to_202_empty"), took);
    let (full, took) = to_202(|| start(1));
    report.add_ms(&format!("{name}_start_to_202_full"), took);
    compare_status(report, &format!("{name}_status_restarted"), &empty, &full);
    compare_drain(report, name, &empty, &full);
    report.add(&format!("{name}_rss_full_restarted_peak_mib"), full.memory_mib("VmHWM"));
    empty.kill();
    full.kill();
}

/// Publishes from many connections; gives how long it took.
fn publish(gateway: &Gateway, messages: u64) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let share = messages / CLIENTS + u64::from(client < messages % CLIENTS);
            let mut connection = gateway.connect();
            scope.spawn(move || (0..share).for_each(|_| post(&mut connection)));
        }
    });
    began.elapsed()
}

fn post(connection: &mut Connection) {
    let path = format!("{QUEUE}/messages");
    let answer = connection.request("POST", &path, &[], &PAYLOAD).expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Times `/status` of both in turn.
fn compare_status(report: &mut Report, name: &str, empty: &Gateway, full: &Gateway) {
    let mut connections = [empty.connect(), full.connect()];
    let mut times = [Vec::new(), Vec::new()];
    // The first few warm what is cold.
    for round in 0..LOOKS / 10 + LOOKS {
        for (connection, times) in connections.iter_mut().zip(&mut times) {
            let began = Instant::now();
            let answer = connection.request("GET", "/status", &[], b"").expect("an answer");
            let took = began.elapsed();
            assert_eq!(answer.status, 200, "{}", answer.text());
            if round >= LOOKS / 10 {
                times.push(took);
            }
        }
    }
    for (side, times) in ["empty", "full"].into_iter().zip(times) {
        report.add_distribution(&format!("{name}_{side}"), times);
    }
    for part in ["p50", "p99"] {
        let of = |side| report.figure(&format!("{name}_{side}_{part}_ms"));
        let ratio = of("full") / of("empty");
        report.add(&format!("{name}_{part}_full_over_empty"), ratio);
    }
}

/// Starts a gateway on what is there and publishes as soon as it takes a message.
fn to_202(start: impl Fn() -> Gateway) -> (Gateway, Duration) {
    let began = Instant::now();
    let gateway = start();
    let path = format!("{QUEUE}/messages");
    wait_for("it accepts", || {
        let mut connection = Connection::open(&gateway.address).ok()?;
        let answer = connection.request("POST", &path, &[], &PAYLOAD).ok()?;
        (answer.status == 202).then_some(())
    });
    let took = began.elapsed();
    (gateway, took)
}

/// What draining some messages took.
#[derive(Default)]
struct Drained {
    messages: u64,
    wall: Duration,
    cpu: Duration,
}

/// Times the draining of some messages of both in turn.
fn compare_drain(report: &mut Report, name: &str, empty: &Gateway, full: &Gateway) {
    let mut drained = [Drained::default(), Drained::default()];
    for _ in 0..ROUNDS {
        for (gateway, drained) in [empty, full].into_iter().zip(&mut drained) {
            publish(gateway, DRAINED);
            drain(gateway, drained);
        }
    }
    for (side, drained) in ["empty", "full"].into_iter().zip(drained) {
        #[expect(clippy::cast_precision_loss, reason = "a few millions")]
        let messages = drained.messages as f64;
        report.add(&format!("{name}_drain_{side}_per_s"), messages / drained.wall.as_secs_f64());
        report.add(
            &format!("{name}_drain_{side}_wall_us_per_message"),
            drained.wall.as_secs_f64() * 1e6 / messages,
        );
        report.add(
            &format!("{name}_drain_{side}_cpu_us_per_message"),
            drained.cpu.as_secs_f64() * 1e6 / messages,
        );
    }
    for kind in ["wall", "cpu"] {
        let of = |side| report.figure(&format!("{name}_drain_{side}_{kind}_us_per_message"));
        let ratio = of("full") / of("empty");
        report.add(&format!("{name}_drain_{kind}_full_over_empty"), ratio);
    }
}

/// Lets the workers take messages out of the queue by turning it from `pull` to `log` and back.
fn drain(gateway: &Gateway, drained: &mut Drained) {
    let before = gateway.count("bench", "delivered");
    let (began, cpu_before) = (Instant::now(), gateway.cpu());
    gateway.request("PUT", QUEUE, LOG, 200);
    let messages = wait_for("they are drained", || {
        let messages = gateway.count("bench", "delivered") - before;
        (messages >= DRAINED).then_some(messages)
    });
    drained.wall += began.elapsed();
    drained.cpu += gateway.cpu().saturating_sub(cpu_before);
    drained.messages += messages;
    gateway.request("PUT", QUEUE, PULL, 200);
    wait_for("nothing is leased", || (gateway.count("bench", "leased") == 0).then_some(()));
}
