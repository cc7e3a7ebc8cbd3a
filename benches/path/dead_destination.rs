//! What a long queue costs whose only destination refuses every connection: the gateway and its store are watched while the lane is
//! shut, and before there is any message.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use posthaste::domain::timestamp::Timestamp;
use serde_json::Value;

use crate::Arguments;
use crate::gateway::{Gateway, LOOPBACK, cpu_of, wait_for};
use crate::redis_server::RedisServer;
use crate::report::Report;

/// Messages of one request.
const BATCH: u64 = 1_000;
/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 100;
/// Requests under way at once.
const CLIENTS: u64 = 4;
/// How long the gateway is watched.
const WATCHED: Duration = Duration::from_secs(30);
/// The start of a gateway has work for a while, and so have many messages.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures it, over both stores in turn.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    measure("sqlite", folders[0].path(), "sqlite:posthaste.db", None, arguments.messages, report);
    let redis = RedisServer::start_durable();
    measure("redis", folders[1].path(), &redis.url(), Some(&redis), arguments.messages, report);
}

fn measure(
    name: &str,
    folder: &Path,
    store: &str,
    redis: Option<&RedisServer>,
    messages: u64,
    report: &mut Report,
) {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = closed.expect("a free port");
    let gateway = Gateway::start_as(env!("CARGO_BIN_EXE_posthaste"), folder, store, &["--set", LOOPBACK]);
    let settings = format!(
        "{{\"processor\":\"http\",\"destination\":\"http://{closed}/\",\
         \"limits\":{{\"length_max\":100000000,\"bytes_max\":\"1TiB\"}}}}"
    );
    gateway.request("PUT", "/v1/queues/dead", &settings, 201);
    thread::sleep(SETTLE);
    watch(&format!("{name}_empty"), &gateway, redis, report);
    let began = Instant::now();
    publish(&gateway, messages);
    report.add(&format!("{name}_publish_s"), began.elapsed().as_secs_f64());
    thread::sleep(SETTLE);
    wait_for("its lane is shut for long enough", || {
        let left = shut_for(&gateway.request("GET", "/status", "", 200));
        thread::sleep(Duration::from_millis(100));
        (left? > WATCHED + Duration::from_secs(2)).then_some(())
    });
    let tries = || gateway.count("dead", "retried");
    let before = tries();
    watch(&format!("{name}_shut"), &gateway, redis, report);
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    for (figure, count) in [("attempts_while_watched", tries() - before), ("attempts_in_all", tries())] {
        report.add(&format!("{name}_shut_{figure}"), count as f64);
    }
    assert_eq!(gateway.count("dead", "accepted"), messages);
    assert_eq!(gateway.count("dead", "pending") + gateway.count("dead", "scheduled"), messages);
    gateway.kill();
}

/// How long the only lane is shut from now on.
fn shut_for(status: &Value) -> Option<Duration> {
    let moment = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    Some(moment(&status["lanes"][0]["open_until"])?.since(moment(&status["as_of"])?))
}

fn publish(gateway: &Gateway, messages: u64) {
    let lines = format!("\"{}\"\n", "x".repeat(PAYLOAD_BYTES - 2));
    let headers = [("Content-Type", "application/x-ndjson")];
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut left = messages / CLIENTS + u64::from(client < messages % CLIENTS);
            let (mut connection, lines) = (gateway.connect(), &lines);
            scope.spawn(move || {
                while left > 0 {
                    let count = left.min(BATCH);
                    left -= count;
                    let body = lines.repeat(usize::try_from(count).expect("a thousand"));
                    let path = "/v1/queues/dead/messages/batch";
                    let answer = connection.request("POST", path, &headers, body.as_bytes());
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.status, 202, "{}", answer.text());
                }
            });
        }
    });
}

/// What the gateway and its store do in a span of time in which nobody asks them for anything.
fn watch(name: &str, gateway: &Gateway, redis: Option<&RedisServer>, report: &mut Report) {
    let of_server = || {
        let redis = redis?;
        let pid = redis.info("process_id").try_into().expect("a process");
        Some((redis.info("total_commands_processed"), cpu_of(pid)))
    };
    let calls = || system_calls(gateway);
    let (cpu, server, before) = (gateway.cpu(), of_server(), calls());
    thread::sleep(WATCHED);
    let span = WATCHED.as_secs_f64();
    let percent = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / span * 100.0;
    report.add(&format!("{name}_cpu_percent_of_a_core"), percent(gateway.cpu(), cpu));
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_s = |now: u64, before: u64| (now - before) as f64 / span;
    for ((figure, before), (_, now)) in before.into_iter().zip(calls()) {
        report.add(&format!("{name}_{figure}_per_s"), per_s(now, before));
    }
    if let (Some((commands_before, cpu_before)), Some((commands, cpu))) = (server, of_server()) {
        // Two of the commands are this bench's own.
        report.add(&format!("{name}_redis_commands_per_s"), per_s(commands, commands_before));
        report.add(&format!("{name}_redis_cpu_percent_of_a_core"), percent(cpu, cpu_before));
    }
    report.add(&format!("{name}_rss_mib"), gateway.memory_mib("VmRSS"));
}

/// Reads and writes that the gateway asked the system for, those of files and of connections alike, and what it wrote to disk.
fn system_calls(gateway: &Gateway) -> [(&'static str, u64); 3] {
    let text = fs::read_to_string(gateway.proc().join("io")).expect("its state");
    let of = |line: &str| {
        let found = text.lines().find_map(|own| own.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} {text}"))
    };
    [("reads", of("syscr:")), ("writes", of("syscw:")), ("disk_bytes", of("write_bytes:"))]
}
