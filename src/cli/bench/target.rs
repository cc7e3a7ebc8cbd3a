//! The gateway that is measured: what it is, what it uses, and the queues that were made for it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::meter::{self, Usage};
use super::own::OwnGateway;
use super::plan::{Plan, Store, Which};
use crate::api::{Code, Status};
use crate::cli::client::{Client, ClientError};
use crate::cli::{Failure, say};
use crate::domain::queue::QueueName;

/// How long the gateway may take for an answer to what is no load.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// How long a gateway of its own may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long an address may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a Redis may take for an answer.
const REDIS_WITHIN: Duration = Duration::from_secs(5);
/// Keys that are removed with one command.
const KEYS_AT_ONCE: usize = 1_000;

/// What is said of the gateway that was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct About {
    pub(super) url: String,
    pub(super) version: String,
    /// Whether it was started for this.
    pub(super) is_own: bool,
    pub(super) store: String,
    /// What a 202 means, as it says itself: `strict`, `relaxed`, `none`, `assumed`, `unknown`.
    pub(super) durability: String,
    /// What that is in this store, as far as can be known.
    pub(super) durability_means: Option<String>,
}

/// What the gateway and its store use at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Sample {
    pub(super) gateway: Usage,
    pub(super) store: Usage,
    pub(super) disk_bytes: Option<u64>,
}

/// The gateway that is measured.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) address: SocketAddr,
    /// What its `Host` is.
    pub(super) host: String,
    /// What stands before each path.
    pub(super) base: String,
    pub(super) key: Option<String>,
    made: Made,
    queues: RefCell<Vec<QueueName>>,
    about: About,
    instance: String,
}

/// What is removed in the end, whatever comes of it.
struct Made {
    /// What everything that is made begins with: `bench-` and twelve digits.
    prefix: String,
    own: Option<OwnGateway>,
    /// The Redis in which that one keeps messages.
    redis: Option<MultiplexedConnection>,
}

impl Made {
    /// Ends the gateway and removes its keys, and says so where they cannot be.
    async fn remove(mut self) {
        if let Some(mut own) = self.own.take() {
            own.kill();
        }
        let Some(mut connection) = self.redis.take() else { return };
        let removed = timeout(ANSWER_WITHIN, forget(&mut connection, &self.prefix)).await;
        if !matches!(removed, Ok(Ok(()))) {
            say(&format!("keys that begin with {}: are left in Redis", self.prefix));
        }
    }
}

/// A gateway that answers.
struct Found {
    client: Client,
    address: SocketAddr,
    host: String,
    base: String,
    key: Option<String>,
    about: About,
    instance: String,
}

impl Target {
    /// Finds it, or starts it, unless this ends first.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn prepare(plan: &Plan, ended: impl Future<Output = Failure>) -> Result<Self, Failure> {
        let prefix = format!("bench-{:012x}", fastrand::u64(..1 << 48));
        let mut made = Made { prefix, own: None, redis: None };
        let found = tokio::select! {
            found = find(plan, &mut made) => found,
            failure = ended => Err(failure),
        };
        match found {
            Ok(Found { client, address, host, base, key, about, instance }) => {
                let queues = RefCell::default();
                Ok(Self { client, address, host, base, key, made, queues, about, instance })
            }
            Err(failure) => {
                made.remove().await;
                Err(failure)
            }
        }
    }

    /// What is said of it.
    pub(super) const fn about(&self) -> &About {
        &self.about
    }

    /// Makes a queue of this bench's own, with room for everything.
    ///
    /// # Errors
    /// What the gateway says.
    pub(super) async fn queue(&self, word: &str, mut settings: Value) -> Result<QueueName, Failure> {
        let name: QueueName = format!("{}-{word}", self.made.prefix).parse().map_err(Failure::failed)?;
        settings["limits"] =
            json!({ "length_max": 1_000_000_000, "bytes_max": "1TiB", "payload_max": "16MiB" });
        // Whatever comes of it: it is looked for at the end.
        self.queues.borrow_mut().push(name.clone());
        self.client.put_queue(&name, &settings).await?;
        Ok(name)
    }

    /// The path of that queue on this gateway.
    pub(super) fn path(&self, queue: &QueueName, below: &str) -> String {
        format!("{}/v1/queues/{queue}{below}", self.base)
    }

    /// A counter of one of its queues.
    ///
    /// # Errors
    /// What the gateway says.
    pub(super) async fn delivered(&self, queue: &QueueName) -> Result<u64, Failure> {
        let status = self.client.status(&[queue.as_str()]).await?;
        let found = status.queues.iter().find(|status| status.name == *queue);
        Ok(found.and_then(|status| status.history.delivered).unwrap_or_default())
    }

    /// What is used now. What cannot be known is not.
    pub(super) async fn sample(&self) -> Sample {
        let gateway = match &self.made.own {
            Some(own) => meter::of_process(own.pid()),
            None => self.told().await.unwrap_or_default(),
        };
        let store = match &self.made.redis {
            Some(connection) => info(connection.clone()).await.unwrap_or_default(),
            None => Usage::default(),
        };
        let disk_bytes =
            self.made.own.as_ref().filter(|_| self.made.redis.is_none()).and_then(OwnGateway::disk_bytes);
        Sample { gateway, store, disk_bytes }
    }

    /// What a gateway says of its process, unless another one answers than the one before.
    async fn told(&self) -> Option<Usage> {
        let status = self.client.status(&["default"; 0]).await.ok()?;
        let process = status.process;
        let cpu = process.cpu_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        (status.instance == self.instance).then_some(Usage {
            cpu,
            memory_bytes: process.rss_bytes,
            fds: process.fds_open,
            ..Usage::default()
        })
    }

    /// Removes what was made, and says what could not be.
    pub(super) async fn leave(self) {
        if self.made.own.is_some() {
            return self.made.remove().await;
        }
        for queue in self.queues.take() {
            match self.client.delete_queue(&queue, true).await {
                Ok(()) => {}
                Err(ClientError::Refused(refusal))
                    if refusal.problem.known_code() == Some(Code::QueueUnknown) => {}
                Err(error) => say(&format!("{error}\n  left behind: posthaste queue delete {queue} --force")),
            }
        }
    }
}

async fn find(plan: &Plan, made: &mut Made) -> Result<Found, Failure> {
    let (url, key) = match &plan.which {
        Which::Running { url, key } => (url.clone(), key.clone()),
        Which::Own(own) => {
            if let Store::Redis(url) = &own.store {
                made.redis = Some(connect(url).await?);
            }
            let gateway = made.own.insert(OwnGateway::start(own, &made.prefix).await?);
            (gateway.url.clone(), None)
        }
    };
    let client = Client::with_key(&url, key.as_deref(), ANSWER_WITHIN)?;
    if made.own.is_some() {
        until_ready(&client).await?;
    }
    let status = client.status(&["default"; 0]).await?;
    let parsed = url::Url::parse(&url).map_err(Failure::failed)?;
    let (name, port) = (parsed.host_str().unwrap_or_default(), parsed.port_or_known_default().unwrap_or(80));
    let host = format!("{name}:{port}");
    let about = about(&url, &status, made.own.as_ref(), made.redis.as_mut()).await;
    let base = parsed.path().trim_end_matches('/').to_owned();
    let instance = status.instance.clone();
    Ok(Found { address: address(&host).await?, client, host, base, key, about, instance })
}

/// The first address of that host at which somebody listens: a name may have one of each kind.
async fn address(host: &str) -> Result<SocketAddr, Failure> {
    let failed = |cause: &dyn std::fmt::Display| Failure::failed(format!("{host}: {cause}"));
    for address in tokio::net::lookup_host(host).await.map_err(|error| failed(&error))? {
        if matches!(timeout(CONNECT_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_))) {
            return Ok(address);
        }
    }
    Err(failed(&"nobody listens at any of its addresses"))
}

async fn until_ready(client: &Client) -> Result<(), Failure> {
    let began = std::time::Instant::now();
    loop {
        let ready = client.ready(false).await?;
        if ready.ready {
            return Ok(());
        }
        if began.elapsed() > READY_WITHIN {
            let reasons: Vec<_> = ready.reasons.iter().map(|reason| reason.detail.clone()).collect();
            return Err(Failure::failed(format!(
                "the gateway does not become ready: {}",
                reasons.join("; ")
            )));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn about(
    url: &str,
    status: &Status,
    own: Option<&OwnGateway>,
    redis: Option<&mut MultiplexedConnection>,
) -> About {
    let durability = status.store.durability.now.clone();
    let means = match (status.store.kind.as_str(), durability.as_str(), redis) {
        ("sqlite", "strict", _) if own.is_some_and(|own| own.is_in_memory) => {
            Some("SQLite, synchronous=FULL, on a file system in memory: no disk is written".to_owned())
        }
        ("sqlite", "strict", _) => Some("SQLite, synchronous=FULL: each 202 is fsynced".to_owned()),
        ("sqlite", "relaxed", _) => Some("SQLite, flushed when the system sees fit".to_owned()),
        ("memory", ..) => Some("kept in memory only".to_owned()),
        (_, _, Some(connection)) => append_only(connection).await,
        _ => None,
    };
    About {
        url: crate::domain::format::secret::url(url).into_owned(),
        version: status.version.clone(),
        is_own: own.is_some(),
        store: status.store.kind.clone(),
        durability,
        durability_means: means,
    }
}

/// A connection of the bench's own to the Redis of its gateway.
async fn connect(url: &str) -> Result<MultiplexedConnection, Failure> {
    crate::cli::serve::install_tls();
    let failed = |cause: String| Failure::failed(format!("the Redis of --store cannot be reached: {cause}"));
    let client = redis::Client::open(url).map_err(|error| failed(error.to_string()))?;
    let connecting = timeout(REDIS_WITHIN, client.get_multiplexed_async_connection()).await;
    let connected = connecting.map_err(|_| failed("no answer within 5 s".to_owned()))?;
    connected.map_err(|error| failed(error.to_string()))
}

async fn info(mut connection: MultiplexedConnection) -> Option<Usage> {
    let mut text = String::new();
    for section in ["cpu", "memory"] {
        let mut command = redis::cmd("INFO");
        let asked = command.arg(section).query_async::<String>(&mut connection);
        text.push_str(&timeout(REDIS_WITHIN, asked).await.ok()?.ok()?);
    }
    Some(meter::of_redis(&text))
}

/// How a Redis writes what it holds, unless it does not say.
async fn append_only(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut words = Vec::new();
    for name in ["appendonly", "appendfsync"] {
        let mut command = redis::cmd("CONFIG");
        let asked = command.arg("GET").arg(name).query_async::<Vec<String>>(connection);
        words.extend(timeout(REDIS_WITHIN, asked).await.ok()?.ok()?);
    }
    Some(format!("Redis, {}", words.join(" ")))
}

/// Removes all keys under a prefix.
async fn forget(connection: &mut MultiplexedConnection, prefix: &str) -> redis::RedisResult<()> {
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}:*")).arg("COUNT").arg(KEYS_AT_ONCE);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).query_async::<()>(connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
