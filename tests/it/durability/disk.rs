//! A full disk: nothing is taken that cannot be kept, and what was taken goes out.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::support::client::Answer;
use crate::support::gateway::Gateway;
use crate::support::invariants::{assert_laws, count};
use crate::support::ledger::{Fate, Sent, reconcile};
use crate::support::sink::{Answer as SinkAnswer, Keep, Sink};
use crate::support::small_disk;

const DISK_BYTES: u64 = 24 << 20;
const PAYLOAD_BYTES: usize = 16 << 10;
const WITHIN: Duration = Duration::from_mins(1);

/// A gateway whose store is on a small disk, and its sink, which is down.
struct Scene {
    gateway: Gateway,
    sink: Sink,
    is_up: Arc<AtomicBool>,
    sent: Vec<Sent>,
    next: u64,
}

impl Scene {
    fn start() -> Self {
        let is_up = Arc::<AtomicBool>::default();
        let up = is_up.clone();
        let sink = Sink::keeping(Keep::Digests, move |_| {
            SinkAnswer::status(if up.load(Ordering::SeqCst) { 200 } else { 503 })
        });
        // A hundred attempts, a second apart: nothing dies while the disk fills.
        let settings = format!(
            "[queues.orders]\nprocessor = 'http'\ndestination = '{}'\nretry.schedule = [{}]\n",
            sink.url("/orders"),
            ["'1s'"; 99].join(", ")
        );
        let arguments = ["--dev", "--log", "info"];
        let mut gateway = Gateway::prepare(&settings, &arguments)
            .wrapped(small_disk::wrapper(DISK_BYTES), small_disk::STORE);
        gateway.launch_until_ready();
        Self { gateway, sink, is_up, sent: Vec::new(), next: 0 }
    }

    /// Publishes one message, and remembers it unless it certainly was not stored.
    fn publish(&mut self) -> Answer {
        let number = self.next;
        self.next += 1;
        let mut payload = vec![0; PAYLOAD_BYTES];
        fastrand::fill(&mut payload);
        let content_type = "application/octet-stream";
        let headers = [("Content-Type", content_type), ("Posthaste-Forward-X-Number", &number.to_string())];
        let answer = self.gateway.request("POST", "/v1/queues/orders/messages", &headers, &payload);
        let fate = match (answer.status, answer.header("posthaste-stored")) {
            (202, _) => Fate::Accepted(answer.json()["id"].as_str().expect("an id").to_owned()),
            (503, Some("unknown")) => Fate::Unknown,
            (503, Some("no")) => return answer,
            _ => panic!("{} with {:?}", answer.text(), answer.headers),
        };
        self.sent.push(Sent { number, sha256: Sha256::digest(&payload).into(), content_type, fate });
        answer
    }

    fn accepted(&self) -> usize {
        self.sent.iter().filter(|sent| matches!(sent.fate, Fate::Accepted(_))).count()
    }

    /// The sink comes up: the backlog goes out to the last message, and none of it is dead.
    fn drain(&mut self) {
        self.is_up.store(true, Ordering::SeqCst);
        let status = self.gateway.wait_until_drained(WITHIN);
        assert_eq!(count(&status, "dead"), 0, "{status}");
        assert_eq!(count(&status, "delivered"), count(&status, "accepted"), "{status}");
    }

    /// Publishing goes on by itself once there is room.
    fn wait_until_accepting(&mut self) {
        let deadline = std::time::Instant::now() + WITHIN;
        while self.publish().status != 202 {
            assert!(
                std::time::Instant::now() < deadline,
                "publishes are refused for {WITHIN:?} since there is room"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything accepted arrived as it was sent, and what was refused did not come.
    fn end(mut self) {
        let status = self.gateway.wait_until_drained(WITHIN);
        let reconciled = reconcile(&self.sent, &self.sink.received(), |_| false);
        assert_eq!(count(&status, "delivered"), reconciled.messages, "{reconciled:?}");
        self.gateway.stop();
    }
}

#[test]
fn a_full_disk_refuses_publishes_and_drains() {
    let mut scene = Scene::start();
    let refusal = loop {
        let answer = scene.publish();
        if answer.status != 202 {
            break answer;
        }
        assert!(scene.next * (PAYLOAD_BYTES as u64) < DISK_BYTES, "more was accepted than the disk can hold");
    };
    assert_eq!((refusal.status, refusal.header("posthaste-stored")), (503, Some("no")), "{}", refusal.text());
    assert_eq!(refusal.json()["code"], "store_full", "{}", refusal.text());
    assert_eq!(refusal.json()["retryable"], true, "{}", refusal.text());
    assert!(refusal.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{refusal:?}");
    println!("{} messages of {PAYLOAD_BYTES} bytes on a disk of {DISK_BYTES} bytes", scene.accepted());
    assert!(scene.accepted() as u64 * PAYLOAD_BYTES as u64 > DISK_BYTES / 16, "hardly anything was accepted");
    assert_laws(&scene.gateway.status());
    scene.drain();
    scene.wait_until_accepting();
    scene.end();
}

#[test]
fn a_disk_that_others_fill_loses_nothing_and_drains() {
    let mut scene = Scene::start();
    for _ in 0..100 {
        assert_eq!(scene.publish().status, 202);
    }
    // Somebody else takes all the room that is left, to the last byte.
    let ballast = small_disk::path(scene.gateway.pid(), scene.gateway.folder()).join("ballast");
    let mut file = File::create(&ballast).expect("the gateway's disk can be reached");
    for piece in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
    drop(file);
    // What is accepted now was kept all the same; sooner or later there is no room for more.
    let mut refusals = 0;
    for _ in 0..2_000 {
        refusals += u32::from(scene.publish().status != 202);
        if refusals == 20 {
            break;
        }
    }
    assert_eq!(refusals, 20, "{} messages were accepted on a full disk", scene.accepted());
    scene.drain();
    std::fs::remove_file(&ballast).expect("the ballast can be removed");
    scene.wait_until_accepting();
    scene.end();
}
