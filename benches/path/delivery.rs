//! What delivering a message over HTTP costs: a backlog that was published beforehand is drained into a receiver in a process of
//! its own, and the same client posts the same payloads to the same receiver in a bare loop, and so does reqwest, in turn.
//!
//! The receiver and the loops are this program again, started with [`RECEIVER`] or one of [`LOOPS`], so that the CPU time of each is
//! its own. `benches/figures` starts them as well.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use posthaste::domain::message::Headers;
use posthaste::domain::outcome::Outcome;
use posthaste::processor::Processor as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Arguments;
use crate::delivery_by_hand::{delivery, http, settings};
use crate::gateway::{Gateway, LOOPBACK, cpu_of};
use crate::report::{Report, median};

/// The word that makes this program a receiver: then after how many messages it says so, each time.
pub(crate) const RECEIVER: &str = "--receiver";
/// The words that make it a bare loop, of the gateway's client and of reqwest: then the URL, how many at a time, how many messages.
pub(crate) const LOOPS: [(&str, Loop); 2] = [("--loop", post), ("--reqwest-loop", post_by_reqwest)];

const RUNS: usize = 5;
const MESSAGES: u64 = 100_000;
const BATCH: u64 = 1_000;
const PAYLOAD_BYTES: usize = 200;
/// What secrets set by the API are sealed with: 32 bytes in base64.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Posts to a URL, so many at a time, so many messages.
type Loop = fn(&str, usize, u64);

/// A receiver in a process of its own, which says how many it has received.
struct Receiver {
    process: Child,
    told: BufReader<ChildStdout>,
    url: String,
}

impl Receiver {
    fn start() -> Self {
        let (process, mut told) = child(&[RECEIVER, &MESSAGES.to_string()]);
        let url = format!("http://{}/", line(&mut told));
        Self { process, told, url }
    }

    /// Waits until it has received as many as a run has.
    fn wait(&mut self) {
        line(&mut self.told);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

fn child(words: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(own);
    let mut process = command.args(words).stdout(Stdio::piped()).spawn().expect("it starts");
    let told = BufReader::new(process.stdout.take().expect("it is piped"));
    (process, told)
}

fn line(told: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    assert_ne!(told.read_line(&mut line).expect("it tells"), 0, "the process ended");
    line.trim_end().to_owned()
}

/// Receives for ever: says where, then a line after each so many messages.
#[expect(
    clippy::disallowed_methods,
    reason = "a receiver that panics would be missed: the bench would wait for its messages"
)]
pub(crate) fn receive(words: &[String]) {
    let [messages] = words else { panic!("{RECEIVER} MESSAGES") };
    let messages: u64 = messages.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        tell(&listener.local_addr().expect("it is bound").to_string());
        let count = Arc::new(AtomicU64::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let count = count.clone();
            drop(tokio::spawn(async move { drop(answer(stream, &count, messages).await) }));
        }
    });
}

async fn answer(mut stream: TcpStream, count: &AtomicU64, messages: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut length) = (vec![0; 64 << 10], 0);
    loop {
        let read = stream.read(&mut buffer[length..]).await?;
        if read == 0 {
            return Ok(());
        }
        length += read;
        while let Some(whole) = crate::isolation::whole(&buffer[..length]).map(|(head, body)| head + body) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            buffer.copy_within(whole..length, 0);
            length -= whole;
            if (count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(messages) {
                tell("all");
            }
        }
    }
}

/// Runs one of [`LOOPS`] to its end; says its CPU time in nanoseconds.
pub(crate) fn run_loop(posting: Loop, words: &[String]) {
    let [url, slots, messages] = words else { panic!("a loop takes URL SLOTS MESSAGES") };
    posting(url, slots.parse().expect("a number"), messages.parse().expect("a number"));
    tell(&cpu_of(std::process::id()).as_nanos().to_string());
    // What is told is read before the process and its threads are gone.
    thread::sleep(Duration::from_millis(100));
}

/// With the client of the gateway, on one thread.
fn post(url: &str, slots: usize, messages: u64) {
    actix_rt::System::new().block_on(async {
        let (http, settings) = (http(), Arc::new(settings(url)));
        let payload = vec![b'x'; PAYLOAD_BYTES];
        let attempt = async || {
            let report = http.process(delivery(&settings, Headers::default(), &payload)).await;
            assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        };
        keep_busy(slots, messages, attempt).await;
    });
}

/// With reqwest, on one thread.
fn post_by_reqwest(url: &str, slots: usize, messages: u64) {
    rustls::crypto::ring::default_provider().install_default().expect("nobody else did");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url: reqwest::Url = url.parse().expect("a URL");
        let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
        let attempt = async || {
            let answer = client.post(url.clone()).body(payload.clone()).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{}", answer.status());
            // A connection is used again once its answer was read.
            answer.bytes().await.expect("a whole answer");
        };
        keep_busy(slots, messages, attempt).await;
    });
}

/// Makes that many attempts, so many at a time.
async fn keep_busy(slots: usize, messages: u64, attempt: impl AsyncFn()) {
    let mut attempts: FuturesUnordered<_> = (0..slots).map(|_| attempt()).collect();
    for begun in slots as u64..messages + slots as u64 {
        attempts.next().await.expect("one is under way");
        if begun < messages {
            attempts.push(attempt());
        }
    }
}

#[expect(clippy::print_stdout, reason = "the bench that started this process reads it")]
fn tell(text: &str) {
    println!("{text}");
    drop(io::stdout().flush());
}

/// One way of sending them.
type Once = Box<dyn Fn() -> Run>;

/// Messages a second and the CPU of each in microseconds.
struct Run {
    per_s: f64,
    cpu_us: f64,
}

#[expect(clippy::cast_precision_loss, reason = "some hundred thousands")]
fn run_of(took: Duration, cpu: Duration) -> Run {
    Run { per_s: MESSAGES as f64 / took.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / MESSAGES as f64 }
}

fn loop_once(word: &str) -> Run {
    let mut receiver = Receiver::start();
    let began = Instant::now();
    let (mut process, mut told) = child(&[word, &receiver.url, "64", &MESSAGES.to_string()]);
    receiver.wait();
    let took = began.elapsed();
    let cpu = Duration::from_nanos(line(&mut told).parse().expect("a number"));
    process.wait().expect("it ends");
    run_of(took, cpu)
}

/// Drains a backlog; the queue is signed where a secret is given.
fn drain_once(binary: &str, store: &str, threads: usize, secret: Option<&str>) -> Run {
    let mut receiver = Receiver::start();
    let folder = tempfile::tempdir().expect("a folder");
    let threads = format!("workers.threads={threads}");
    std::fs::write(folder.path().join("master.key"), MASTER_KEY).expect("a file");
    let key = "secrets.master_key_file=master.key";
    let mut flags = vec!["--set", LOOPBACK, "--set", &threads, "--set", key];
    if store == "memory:" {
        flags.extend(["--durability", "none"]);
    }
    let gateway = Gateway::start_as(binary, folder.path(), store, &flags);
    let secret = secret.map_or_else(String::new, |secret| format!(",\"secret\":\"{secret}\""));
    let settings = format!("{{\"processor\":\"http\",\"destination\":\"{}\"{secret}}}", receiver.url);
    gateway.request("PUT", "/v1/queues/drained", &settings, 201);
    gateway.request("POST", "/v1/queues/drained/pause", "", 200);
    let item = format!("{{\"payload\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES));
    let body = format!("[{}]", vec![item; usize::try_from(BATCH).expect("it is small")].join(","));
    for _ in 0..MESSAGES / BATCH {
        gateway.request("POST", "/v1/queues/drained/messages/batch", &body, 202);
    }
    let before = gateway.cpu();
    let began = Instant::now();
    gateway.request("POST", "/v1/queues/drained/resume", "", 200);
    receiver.wait();
    let run = run_of(began.elapsed(), gateway.cpu().saturating_sub(before));
    gateway.kill();
    run
}

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let own = env!("CARGO_BIN_EXE_posthaste");
    let mut kinds: Vec<(&str, Once)> = vec![
        ("loop", Box::new(|| loop_once(LOOPS[0].0))),
        ("reqwest_loop", Box::new(|| loop_once(LOOPS[1].0))),
        ("drain", Box::new(move || drain_once(own, "sqlite:posthaste.db", 1, None))),
        ("drain_signed", Box::new(move || drain_once(own, "sqlite:posthaste.db", 1, Some(SECRET)))),
        ("drain_2_threads", Box::new(move || drain_once(own, "sqlite:posthaste.db", 2, None))),
        ("drain_memory", Box::new(move || drain_once(own, "memory:", 1, None))),
    ];
    if let Some(other) = arguments.binary.clone() {
        kinds.push(("other_drain", Box::new(move || drain_once(&other, "sqlite:posthaste.db", 1, None))));
    }
    let mut found: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..RUNS {
        for (name, once) in &kinds {
            let run = once();
            let (rates, costs) = found.entry(name).or_default();
            rates.push(run.per_s);
            costs.push(run.cpu_us);
        }
    }
    for (name, _) in &kinds {
        let (rates, costs) = found.remove(name).expect("it was measured");
        report.add(&format!("{name}_per_s"), median(rates));
        report.add(&format!("{name}_cpu_us"), median(costs));
    }
    for name in ["loop", "reqwest_loop"] {
        let ratio = report.figure("drain_per_s") / report.figure(&format!("{name}_per_s"));
        report.add(&format!("drain_to_{name}"), ratio);
    }
}
