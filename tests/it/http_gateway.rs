//! A gateway under test: the real HTTP edge over a real pipeline and a real store, and a client that sends bytes.
//!
//! What a store has a part in runs on a file and on a Redis, by `on_both_stores!`: a gateway is started over a [`Home`]. What the
//! gateway answers before it asks a store, or instead of asking it, runs over the one in memory: [`TestGateway::in_memory`].

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthaste::actor::{Place, RestartPolicy, Role, Supervisor};
use posthaste::clock::Clock;
use posthaste::domain::queue::QueueSettings;
use posthaste::http::{Edge, Gateway, ServerSettings, Stopper, bind};
use posthaste::pipeline::catalog::Catalog;
use posthaste::pipeline::lanes::settings::LaneSettings;
use posthaste::pipeline::prober::StoreWatch;
use posthaste::pipeline::settings::{IngestSettings, WorkerSettings};
use posthaste::pipeline::{Parts, Pipeline, phase};
use posthaste::processor::{Keyring, Registry};
use posthaste::store::settings::{RequiredDurability, StoreSettings};
use posthaste::store::{MessageStore, QueueRef, Store};
use serde_json::{Value, json};

use super::http_faults::{Faults, Faulty};
use crate::support::gateway::Home;

/// How long anything that should happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, stopped when it is dropped.
pub(super) struct TestGateway {
    pub(super) address: SocketAddr,
    pub(super) edge: Edge,
    pub(super) store: Arc<dyn Store>,
    pub(super) faults: Arc<Faults>,
    stopper: Stopper,
    /// Where its store is, when that is a file.
    _folder: Option<tempfile::TempDir>,
}

/// How a gateway is to be.
pub(super) struct Plan {
    pub(super) server: ServerSettings,
    pub(super) queue_defaults: Value,
    pub(super) declared: Vec<(&'static str, Value)>,
    /// What it promises; absent: what its store was opened for.
    pub(super) durability: Option<RequiredDurability>,
    pub(super) clock: Clock,
}

impl Default for Plan {
    fn default() -> Self {
        let mut server = ServerSettings::default();
        server.listen.0.set_port(0);
        server.threads = 1;
        let declared = vec![("default", json!({"processor": "log"}))];
        Self { server, queue_defaults: json!({}), declared, durability: None, clock: Clock::system() }
    }
}

/// The settings of a store that nobody has used yet, and the folder that it is in.
fn fresh_store(home: Option<&Home>) -> (StoreSettings, Option<tempfile::TempDir>) {
    /// Several gateways of one test, each for itself, share a Redis.
    static STARTED: AtomicU64 = AtomicU64::new(0);
    let mut settings = StoreSettings::default();
    let folder = match home {
        None => {
            settings.durability = RequiredDurability::None;
            "memory:".clone_into(&mut settings.url);
            None
        }
        Some(Home::Sqlite) => {
            let folder = tempfile::tempdir().expect("a folder");
            settings.url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
            Some(folder)
        }
        Some(Home::Redis(redis)) => {
            settings.url = redis.url();
            settings.prefix = format!("ph{}", STARTED.fetch_add(1, Ordering::Relaxed));
            None
        }
    };
    (settings, folder)
}

impl TestGateway {
    /// Starts one over an empty store of that kind, with a queue `default` that nobody drains.
    pub(super) fn start(home: &Home) -> Self {
        Self::start_as(home, Plan::default())
    }

    /// Starts one as planned, and waits until it is ready.
    pub(super) fn start_as(home: &Home, plan: Plan) -> Self {
        Self::start_unready(Some(home), plan).ready()
    }

    /// Starts one whose store has no part in what is looked at.
    pub(super) fn in_memory() -> Self {
        Self::in_memory_as(Plan::default())
    }

    /// The same, as planned.
    pub(super) fn in_memory_as(plan: Plan) -> Self {
        Self::start_unready(None, plan).ready()
    }

    fn ready(self) -> Self {
        self.wait_for("GET /ready", 200);
        self
    }

    /// Starts one as planned; without a home, in memory.
    pub(super) fn start_unready(home: Option<&Home>, plan: Plan) -> Self {
        let clock = plan.clock;
        let (store_settings, folder) = fresh_store(home);
        let faults = Arc::new(Faults::default());
        let inner = posthaste::store::open(&store_settings, &clock).expect("a store that can be opened");
        let store: Arc<dyn Store> = Arc::new(Faulty::new(inner, faults.clone()));
        let supervisor = Supervisor::new(phase::all(Duration::from_secs(1)));
        let catalog = Catalog::default();
        let declared = plan.declared.into_iter().map(|(name, settings)| {
            let settings: QueueSettings = serde_json::from_value(settings).expect("settings");
            (name.parse().expect("a name"), Arc::new(settings))
        });
        let declared = declared.collect();
        let declare = async { store.connect().declare(declared).await };
        let (entries, _) = block_on(declare).expect("the store takes queues");
        catalog.replace_all(entries);
        let pipeline = Pipeline::start(Parts {
            supervisor: supervisor.clone(),
            store: store.clone(),
            registry: Registry::default(),
            catalog: catalog.clone(),
            watch: StoreWatch::default(),
            declare: None,
            instance: "test-instance".into(),
            clock: clock.clone(),
            workers: WorkerSettings { threads: 1, ..WorkerSettings::default() },
            lanes: LaneSettings::default(),
            ingest: IngestSettings::default(),
            consumers: plan.server.limits.consumers(),
        })
        .expect("the system gives threads");
        let listener = bind(&plan.server).expect("a free port");
        let make_ingester = pipeline.clone();
        let edge = Edge::new(Gateway {
            settings: plan.server,
            durability: plan.durability.unwrap_or(store_settings.durability),
            queue_defaults: plan.queue_defaults,
            processors: ["log", "http", "pull"].map(str::to_owned).to_vec(),
            instance: "test-instance".to_owned(),
            clock,
            store: store.clone(),
            store_watch: pipeline.store_watch().clone(),
            catalog,
            supervisor: supervisor.clone(),
            deliveries_max: 256,
            keyring: Keyring::default(),
            warnings: Arc::default(),
            judge_destination: Arc::new(|destination, _| {
                let refused = destination.as_str().contains("127.0.0.1");
                let result = if refused { Err("127.0.0.1 is loopback".to_owned()) } else { Ok(None) };
                Box::pin(std::future::ready(result))
            }),
            make_ingester: Arc::new(move || make_ingester.ingester()),
            lanes: pipeline.lanes().clone(),
            shares: pipeline.shares().clone(),
            consumers: pipeline.consumers().clone(),
        });
        let arbiter = supervisor.arbiter("http");
        let observed = edge.clone();
        let role = Role {
            name: "observer".to_owned(),
            phase: phase::SWEEP,
            mailbox_capacity: 1,
            restart: RestartPolicy::default(),
        };
        supervisor.start(&Place::On(arbiter.clone()), role, move || observed.observer());
        let server = edge.server(listener).expect("a server");
        let (address, stopper) = (server.address(), server.stopper());
        arbiter.spawn("http", move || async move { server.run().await.expect("the server runs") });
        Self { address, edge, store, faults, stopper, _folder: folder }
    }

    /// Sends a request without a body on a connection of its own until it is answered so.
    pub(super) fn wait_for(&self, request: &str, status: u16) -> Reply {
        let started = Instant::now();
        loop {
            let reply = self.send(request, &[], b"");
            if reply.status == status {
                return reply;
            }
            assert!(started.elapsed() < PATIENCE, "{request} never answered {status}: {reply:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects.
    pub(super) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request on a connection of its own.
    pub(super) fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut client = self.connect();
        client.send(&request(line, headers, body));
        client.reply_to(line)
    }

    /// Publishes to a queue.
    pub(super) fn publish(&self, queue: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send(&format!("POST /v1/queues/{queue}/messages"), headers, body)
    }

    /// Makes or replaces a queue.
    pub(super) fn put(&self, queue: &str, settings: &Value) -> Reply {
        let body = settings.to_string();
        self.send(
            &format!("PUT /v1/queues/{queue}"),
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    }

    /// Looks something up.
    pub(super) fn look(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), &[], b"")
    }

    /// The next request is served, whatever came before.
    pub(super) fn assert_alive(&self, after: &str) {
        let reply = self.publish("default", &[], b"next");
        assert_eq!(reply.status, 202, "after {after}: {reply:?}");
    }

    /// Talks to its store past the gateway, as another gateway does.
    pub(super) fn with_store<T>(&self, talk: impl AsyncFnOnce(Rc<dyn MessageStore>) -> T) -> T {
        block_on(talk(self.store.connect()))
    }

    /// A queue as its store names it.
    pub(super) fn queue(&self, name: &str) -> QueueRef {
        let queues = self.with_store(async |store| store.queues().await.expect("queues"));
        queues.iter().find(|entry| entry.name.as_str() == name).expect("the queue is there").queue_ref()
    }

    /// Messages accepted by a queue.
    pub(super) fn accepted_by(&self, queue: &str) -> u64 {
        let names = vec![queue.parse().expect("a name")];
        let stats = self.with_store(async |store| store.stats(Some(names)).await);
        stats.expect("the store answers")[0].counters.accepted
    }

    /// Messages accepted by the queue `default`.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted_by("default")
    }

    /// Stops the server; gives whether all was answered in time.
    pub(super) fn stop(&self, deadline: Duration) -> bool {
        block_on(self.stopper.stop(deadline))
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        block_on(self.stopper.stop(Duration::ZERO));
    }
}

/// Waits on this thread for something short.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// The bytes of a request; `line` is method and target. Content-Length is added where there is a body and no framing yet.
pub(super) fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    let framed = headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let is_post = line.starts_with("POST ");
    if (is_post || !body.is_empty()) && !framed {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A body in chunks of so many bytes.
pub(super) fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Connects.
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes; what the gateway no longer takes is no matter.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Says that nothing more will be sent.
    pub(super) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    }

    /// Reads the answer to that request.
    pub(super) fn reply_to(&mut self, line: &str) -> Reply {
        let head_only = line.starts_with("HEAD ");
        self.reply(head_only).unwrap_or_else(|| panic!("{line}: closed before an answer"))
    }

    /// Reads all answers until the gateway closes the connection; none of them is to a HEAD.
    pub(super) fn replies(&mut self) -> Vec<Reply> {
        std::iter::from_fn(|| self.reply(false)).collect()
    }

    pub(super) fn reply(&mut self, head_only: bool) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at;
            }
            if !self.more() {
                assert!(self.read.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head = String::from_utf8(self.read[..head_end].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Reply { status: status.parse().expect("a status"), headers, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let length = if head_only { 0 } else { length };
        while self.read.len() < head_end + 4 + length {
            assert!(self.more(), "closed within an answer: {head:?}");
        }
        let rest = self.read.split_off(head_end + 4 + length);
        reply.body = self.read.split_off(head_end + 4);
        self.read = rest;
        reply.check_id();
        Some(reply)
    }

    /// Whether the gateway closes the connection without another byte.
    pub(super) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more()
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer in time: {error}"),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    /// Every answer has a name of its own, the same in its problem, but for what the server itself answers in the gateway's place.
    fn check_id(&self) {
        let ids = self.headers.iter().filter(|(name, _)| name == "posthaste-request-id");
        let ids: Vec<&str> = ids.map(|(_, id)| id.as_str()).collect();
        let is_bare = matches!(self.status, 100 | 400 | 408 | 431) && self.header("content-type").is_none();
        assert_eq!(ids.len(), usize::from(!is_bare), "{self:?}");
        if let [id] = ids[..] {
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{self:?}");
            if let Some(named) = self.json().get("request_id") {
                assert_eq!(named, id, "{self:?}");
            }
        }
    }

    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of a problem; empty when it is none.
    pub(super) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The id of a message that was published.
    pub(super) fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}
