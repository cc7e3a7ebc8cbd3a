//! Clients that publish: several at once, each on a connection that it keeps, through kills and restarts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::client::{Answer, Connection};
use super::gateway::Whereabouts;
use super::ledger::{Fate, Sent};

/// How long a client goes on asking for an answer to one message, whatever happens to the gateway.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// The pause before a client asks again.
const PAUSE: Duration = Duration::from_millis(10);
/// The largest payload.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 << 10;

/// What is published.
#[derive(Clone)]
pub(crate) struct Load {
    /// Where to.
    pub(crate) queue: &'static str,
    /// How many messages; each is sent until it is accepted, or until its fate cannot be known.
    pub(crate) messages: u64,
    /// By how many clients.
    pub(crate) clients: usize,
    /// The largest payload; lengths are log-uniform from 1.
    pub(crate) payload_bytes_max: usize,
    /// Decides every payload.
    pub(crate) seed: u64,
}

/// What the clients have seen so far.
#[derive(Default)]
pub(crate) struct Progress {
    next: AtomicU64,
    accepted: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
}

impl Progress {
    /// Messages accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Messages of which nobody knows whether they were accepted; they were not sent again.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::SeqCst)
    }

    /// Refusals with the promise that nothing was stored; what was refused was sent again.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Messages whose fate is decided.
    pub(crate) fn finished(&self) -> u64 {
        self.accepted() + self.unknown()
    }
}

/// Clients at work.
pub(crate) struct Publishing {
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

impl Load {
    /// Sets the clients to work.
    pub(crate) fn start(&self, whereabouts: &Arc<Whereabouts>) -> Publishing {
        let progress = Arc::<Progress>::default();
        let clients = (0..self.clients).map(|_| {
            let (load, progress, whereabouts) = (self.clone(), progress.clone(), whereabouts.clone());
            thread::spawn(move || Client { load, progress, whereabouts, connection: None }.publish_all())
        });
        Publishing { clients: clients.collect(), progress }
    }

    /// The payload of a message and its Content-Type: every second one is JSON, the others are random bytes.
    pub(crate) fn payload(&self, number: u64) -> (Vec<u8>, &'static str) {
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number));
        #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
        let longest = self.payload_bytes_max as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 ≤ length ≤ longest")]
        let length = longest.powf(random.f64()) as usize;
        if number.is_multiple_of(2) {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            return (bytes, "application/octet-stream");
        }
        let start = format!("{{\"number\":{number},\"text\":\"");
        let json = match length {
            1 => "7".to_owned(),
            _ if length < start.len() + 2 => format!("\"{}\"", "x".repeat(length - 2)),
            _ => {
                let text = (0..length - start.len() - 2).map(|_| random.alphanumeric());
                start + &text.collect::<String>() + "\"}"
            }
        };
        (json.into_bytes(), "application/json; charset=utf-8")
    }

    /// Whether a message is sent with an idempotency key, and so can be sent again when its fate is not known.
    pub(crate) fn has_key(number: u64) -> bool {
        number % 4 < 2
    }
}

impl Publishing {
    /// What the clients have seen so far.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether all have finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the clients; gives all that was sent, by number.
    pub(crate) fn join(self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for client in self.clients {
            match client.join() {
                Ok(of_client) => sent.extend(of_client),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        sent.sort_by_key(|sent| sent.number);
        sent
    }
}

/// How one try to publish ended.
enum Try {
    Accepted(String),
    /// Certainly not stored.
    Refused,
    Unknown,
}

struct Client {
    load: Load,
    progress: Arc<Progress>,
    whereabouts: Arc<Whereabouts>,
    connection: Option<Connection>,
}

impl Client {
    fn publish_all(mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let number = self.progress.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.load.messages {
                return sent;
            }
            sent.push(self.publish(number));
        }
    }

    fn publish(&mut self, number: u64) -> Sent {
        let (payload, content_type) = self.load.payload(number);
        let sha256 = Sha256::digest(&payload).into();
        let deadline = Instant::now() + ANSWER_WITHIN;
        let fate = loop {
            match self.try_once(number, &payload, content_type) {
                Try::Accepted(id) => {
                    self.progress.accepted.fetch_add(1, Ordering::SeqCst);
                    break Fate::Accepted(id);
                }
                Try::Unknown if !Load::has_key(number) => {
                    self.progress.unknown.fetch_add(1, Ordering::SeqCst);
                    break Fate::Unknown;
                }
                Try::Unknown => {}
                Try::Refused => {
                    self.progress.refused.fetch_add(1, Ordering::SeqCst);
                }
            }
            assert!(Instant::now() < deadline, "message {number} was not accepted within {ANSWER_WITHIN:?}");
            thread::sleep(PAUSE);
        };
        Sent { number, sha256, content_type, fate }
    }

    fn try_once(&mut self, number: u64, payload: &[u8], content_type: &str) -> Try {
        if self.connection.is_none() {
            // Who could not connect has sent nothing.
            let Ok(connection) = Connection::open(&self.whereabouts.address()) else { return Try::Refused };
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().expect("made above");
        let answer = post(connection, &self.load, number, payload, content_type);
        if answer.as_ref().map_or(true, |answer| answer.header("connection") == Some("close")) {
            self.connection = None;
        }
        answer.map_or(Try::Unknown, |answer| judge(number, &answer))
    }
}

fn post(
    connection: &mut Connection,
    load: &Load,
    number: u64,
    payload: &[u8],
    content_type: &str,
) -> io::Result<Answer> {
    let (number_text, key) = (number.to_string(), format!("load-{}-{number}", load.seed));
    let mut headers = vec![("Content-Type", content_type), ("Posthaste-Forward-X-Number", &number_text)];
    if Load::has_key(number) {
        headers.push(("Idempotency-Key", &key));
    }
    connection.request("POST", &format!("/v1/queues/{}/messages", load.queue), &headers, payload)
}

fn judge(number: u64, answer: &Answer) -> Try {
    let stored = answer.header("posthaste-stored");
    match answer.status {
        200 | 202 => {
            let json = answer.json();
            // Only a key can make a duplicate.
            let is_duplicate = json["duplicate"].as_bool().unwrap_or(false);
            assert_eq!(is_duplicate, answer.status == 200, "{}", answer.text());
            assert!(!is_duplicate || Load::has_key(number), "{}", answer.text());
            Try::Accepted(json["id"].as_str().expect("an id").to_owned())
        }
        503 if stored == Some("no") => Try::Refused,
        503 if stored == Some("unknown") => Try::Unknown,
        _ => panic!("message {number}: {} (stored: {stored:?})", answer.text()),
    }
}
