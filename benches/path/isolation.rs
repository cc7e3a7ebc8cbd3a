//! What seventeen destinations lose while three others are bad: one refuses, one hangs, one trickles.
//!
//! Each run starts a gateway of its own and measures twice: how fast a backlog that was published beforehand is delivered to the
//! seventeen, and how long it takes from posting to receiving at a steady rate. Runs with and without the three take turns, with a
//! queue for each destination and with one queue whose messages bring theirs.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Arguments;
use crate::gateway::{Gateway, LOOPBACK, wait_for};
use crate::report::{Report, median, quantile};

const HEALTHY: usize = 17;
const RUNS: usize = 5;
/// Messages for each destination that wait when the clock starts.
const BACKLOG: u64 = 2_000;
/// Messages posted a second while latency is measured, over all healthy destinations.
const STEADY_PER_S: u32 = 500;
const STEADY_FOR: Duration = Duration::from_secs(4);

/// How a receiver behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    Hangs,
    Trickles,
}

/// What the receivers that answer have seen.
struct Seen {
    began: Instant,
    count: AtomicU64,
    waits: Mutex<Vec<Duration>>,
}

impl Seen {
    fn note(&self, body: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // A message of the steady rate says when it was posted.
        let posted =
            std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()).map(Duration::from_nanos);
        if let Some(posted) = posted {
            let waited = self.began.elapsed().saturating_sub(posted);
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
        }
    }
}

/// Serves one receiver on the current runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "a receiver that panics would be missed: the bench would wait for its messages"
)]
fn serve(manner: Manner, seen: &Arc<Seen>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let address = listener.local_addr().expect("it is bound");
    let (listener, seen) = (tokio::net::TcpListener::from_std(listener).expect("a listener"), seen.clone());
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::task::spawn_local(async move { drop(converse(stream, manner, &seen).await) });
        }
    });
    address
}

async fn converse(mut stream: TcpStream, manner: Manner, seen: &Seen) -> io::Result<()> {
    let (mut buffer, mut length) = (vec![0; 64 << 10], 0);
    loop {
        let Some((head, body)) = whole(&buffer[..length]) else {
            let count = stream.read(&mut buffer[length..]).await?;
            if count == 0 {
                return Ok(());
            }
            length += count;
            continue;
        };
        match manner {
            Manner::Answers => {
                seen.note(&buffer[head..head + body]);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                buffer.copy_within(head + body..length, 0);
                length -= head + body;
            }
            Manner::Hangs => std::future::pending().await,
            Manner::Trickles => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    stream.write_all(b".").await?;
                }
            }
        }
    }
}

/// The lengths of the head and the body of a request that is all there.
pub(crate) fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    (bytes.len() >= head + body).then_some((head, body))
}

/// Starts twenty receivers, of which the last three are bad; the very last has nobody listening.
fn receivers(seen: &Arc<Seen>) -> Vec<SocketAddr> {
    let (told, addresses) = std::sync::mpsc::sync_channel(1);
    let seen = seen.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let mut all: Vec<_> = (0..HEALTHY).map(|_| serve(Manner::Answers, &seen)).collect();
            all.extend([Manner::Hangs, Manner::Trickles].map(|manner| serve(manner, &seen)));
            let closed =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            all.push(closed.expect("a free port"));
            told.send(all).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    addresses.recv().expect("they are started")
}

/// How messages are spread over destinations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// A queue for each.
    Queues,
    /// One queue, whose messages bring their destinations.
    Brought,
}

/// Makes the queues, paused, with their backlog.
fn fill(gateway: &Gateway, spread: Spread, addresses: &[SocketAddr]) -> Vec<String> {
    let names: Vec<String> = match spread {
        Spread::Queues => (0..addresses.len()).map(|number| format!("q{number}")).collect(),
        Spread::Brought => vec!["all".to_owned()],
    };
    for (name, address) in names.iter().zip(addresses) {
        let settings = match spread {
            Spread::Queues => format!("{{\"processor\":\"http\",\"destination\":\"http://{address}/\"}}"),
            Spread::Brought => "{\"processor\":\"http\",\"destination_override\":\"any\"}".to_owned(),
        };
        gateway.request("PUT", &format!("/v1/queues/{name}"), &settings, 201);
        gateway.request("POST", &format!("/v1/queues/{name}/pause"), "", 200);
    }
    let item = |address: &SocketAddr| match spread {
        Spread::Queues => "{\"payload\":\"x\"}".to_owned(),
        Spread::Brought => format!("{{\"payload\":\"x\",\"destination\":\"http://{address}/\"}}"),
    };
    // In the one queue destinations follow one another, the bad ones among them.
    let rounds = usize::try_from(BACKLOG).expect("it is small");
    let batches: Vec<(&String, Vec<String>)> = match spread {
        Spread::Queues => {
            let of = |(name, address)| (name, vec![item(address); rounds]);
            names.iter().zip(addresses).map(of).collect()
        }
        Spread::Brought => {
            let all = (0..rounds).flat_map(|_| addresses.iter().map(item)).collect();
            vec![(&names[0], all)]
        }
    };
    for (name, items) in batches {
        for items in items.chunks(1_000) {
            let body = format!("[{}]", items.join(","));
            gateway.request("POST", &format!("/v1/queues/{name}/messages/batch"), &body, 202);
        }
    }
    names
}

/// Messages a second and the 99th percentile of the latency, milliseconds.
fn run_once(binary: &str, spread: Spread, is_spoiled: bool) -> (f64, f64) {
    let seen = Arc::new(Seen { began: Instant::now(), count: AtomicU64::new(0), waits: Mutex::default() });
    let addresses = receivers(&seen);
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start_as(binary, folder.path(), "sqlite:posthaste.db", &["--set", LOOPBACK]);
    let used = if is_spoiled { addresses.len() } else { HEALTHY };
    let names = fill(&gateway, spread, &addresses[..used]);
    // The bad ones first: what they take, they have taken when the clock starts.
    for (number, name) in names.iter().enumerate().rev() {
        if number == HEALTHY - 1 {
            thread::sleep(Duration::from_secs(1));
        }
        gateway.request("POST", &format!("/v1/queues/{name}/resume"), "", 200);
    }
    let began = Instant::now();
    let all = BACKLOG * HEALTHY as u64;
    let before = seen.count.load(Ordering::Relaxed);
    wait_for("the backlog is delivered", || (seen.count.load(Ordering::Relaxed) >= all).then_some(()));
    #[expect(clippy::cast_precision_loss, reason = "some ten thousands")]
    let per_s = (all - before) as f64 / began.elapsed().as_secs_f64();
    post_steadily(&gateway, &names, &addresses, &seen);
    let mut waits = std::mem::take(&mut *seen.waits.lock().unwrap_or_else(PoisonError::into_inner));
    waits.sort_unstable();
    gateway.kill();
    (per_s, quantile(&waits, 0.99).as_secs_f64() * 1e3)
}

/// Posts at a steady rate to the healthy ones, and waits until all have come.
fn post_steadily(gateway: &Gateway, names: &[String], addresses: &[SocketAddr], seen: &Seen) {
    let before = seen.count.load(Ordering::Relaxed);
    let mut connection = gateway.connect();
    let (began, mut posted) = (Instant::now(), 0_u32);
    while began.elapsed() < STEADY_FOR {
        let due = Duration::from_secs(1) * posted / STEADY_PER_S;
        thread::sleep(due.saturating_sub(began.elapsed()));
        let number = posted as usize % HEALTHY;
        let path = format!("/v1/queues/{}/messages", names[number.min(names.len() - 1)]);
        let url = format!("http://{}/", addresses[number]);
        let headers = [("Posthaste-Destination", url.as_str())];
        let headers = if names.len() == 1 { &headers[..] } else { &[] };
        let now = seen.began.elapsed().as_nanos().to_string();
        let answer = connection.request("POST", &path, headers, now.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.text());
        posted += 1;
    }
    let all = before + u64::from(posted);
    wait_for("the last one came", || (seen.count.load(Ordering::Relaxed) >= all).then_some(()));
}

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let own = env!("CARGO_BIN_EXE_posthaste");
    let mut kinds = vec![
        ("alone", own, Spread::Queues, false),
        ("beside_bad", own, Spread::Queues, true),
        ("one_queue_alone", own, Spread::Brought, false),
        ("one_queue_beside_bad", own, Spread::Brought, true),
    ];
    if let Some(other) = &arguments.binary {
        kinds.push(("other_alone", other, Spread::Queues, false));
        kinds.push(("other_beside_bad", other, Spread::Queues, true));
    }
    let mut found: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..RUNS {
        for (name, binary, spread, is_spoiled) in &kinds {
            let (per_s, p99_ms) = run_once(binary, *spread, *is_spoiled);
            let (rates, waits) = found.entry(name).or_default();
            rates.push(per_s);
            waits.push(p99_ms);
        }
    }
    for (name, (rates, waits)) in found {
        report.add(&format!("{name}_per_s"), median(rates));
        report.add(&format!("{name}_p99_ms"), median(waits));
    }
    for kind in ["", "one_queue_"] {
        for (name, ratio) in [("per_s", "throughput_kept"), ("p99_ms", "p99_ratio")] {
            let of = |when: &str| report.figure(&format!("{kind}{when}_{name}"));
            report.add(&format!("{kind}{ratio}"), of("beside_bad") / of("alone"));
        }
    }
}
