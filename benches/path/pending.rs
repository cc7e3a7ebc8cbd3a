//! What a million pending messages cost.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Arguments;
use crate::client::Connection;
use crate::gateway::{Gateway, wait_for};
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

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(folder.path());
    gateway.request("PUT", QUEUE, PULL, 201);
    report.add_distribution("status_empty", time_status(&gateway));
    drain_rounds(&gateway, report, "empty", |gateway| publish(gateway, DRAINED));
    report.add("rss_empty_mib", gateway.memory_mib("VmRSS"));
    gateway.kill();
    report.add_ms("start_to_202_empty", start_to_202(folder.path()).1);

    let gateway = Gateway::start(folder.path());
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    let messages = arguments.messages as f64;
    let took = publish(&gateway, arguments.messages);
    report.add("publish_per_s", messages / took.as_secs_f64());
    report.add("pending_messages", messages);
    report.add("rss_pending_mib", gateway.memory_mib("VmRSS"));
    report.add("rss_pending_peak_mib", gateway.memory_mib("VmHWM"));
    report.add_distribution("status_pending", time_status(&gateway));
    gateway.kill();
    let (gateway, took) = start_to_202(folder.path());
    report.add_ms("start_to_202_pending", took);
    report.add_distribution("status_pending_restarted", time_status(&gateway));
    drain_rounds(&gateway, report, "pending", |_| Duration::ZERO);
    report.add("rss_pending_restarted_peak_mib", gateway.memory_mib("VmHWM"));
    gateway.kill();
    for (name, part) in [
        ("status_p99_pending_over_empty", "status_{}_p99_ms"),
        ("drain_wall_pending_over_empty", "drain_{}_wall_us_per_message"),
        ("drain_cpu_pending_over_empty", "drain_{}_cpu_us_per_message"),
    ] {
        let of = |side| report.figure(&part.replace("{}", side));
        let ratio = of("pending") / of("empty");
        report.add(name, ratio);
    }
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

fn time_status(gateway: &Gateway) -> Vec<Duration> {
    let mut connection = gateway.connect();
    let mut look = || {
        let began = Instant::now();
        let answer = connection.request("GET", "/status", &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        began.elapsed()
    };
    // The first few warm what is cold.
    (0..LOOKS / 10 + LOOKS).map(|_| look()).skip(LOOKS / 10).collect()
}

/// Starts a gateway on what is in the folder and publishes as soon as it takes a message.
fn start_to_202(folder: &Path) -> (Gateway, Duration) {
    let began = Instant::now();
    let gateway = Gateway::start(folder);
    let path = format!("{QUEUE}/messages");
    wait_for("it accepts", || {
        let mut connection = Connection::open(&gateway.address).ok()?;
        let answer = connection.request("POST", &path, &[], &PAYLOAD).ok()?;
        (answer.status == 202).then_some(())
    });
    let took = began.elapsed();
    (gateway, took)
}

/// Lets the workers take messages out of the queue by turning it from `pull` to `log` and back, several times.
fn drain_rounds(gateway: &Gateway, report: &mut Report, side: &str, prepare: impl Fn(&Gateway) -> Duration) {
    let (mut wall, mut cpu, mut drained) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        prepare(gateway);
        let before = gateway.count("bench", "delivered");
        let (began, cpu_before) = (Instant::now(), gateway.cpu());
        gateway.request("PUT", QUEUE, LOG, 200);
        let delivered = wait_for("they are drained", || {
            let delivered = gateway.count("bench", "delivered") - before;
            (delivered >= DRAINED).then_some(delivered)
        });
        wall += began.elapsed();
        cpu += gateway.cpu().saturating_sub(cpu_before);
        drained += delivered;
        gateway.request("PUT", QUEUE, PULL, 200);
        wait_for("nothing is leased", || (gateway.count("bench", "leased") == 0).then_some(()));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    let drained = drained as f64;
    report.add(&format!("drain_{side}_per_s"), drained / wall.as_secs_f64());
    report.add(&format!("drain_{side}_wall_us_per_message"), wall.as_secs_f64() * 1e6 / drained);
    report.add(&format!("drain_{side}_cpu_us_per_message"), cpu.as_secs_f64() * 1e6 / drained);
}
