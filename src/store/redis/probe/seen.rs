//! What Redis is asked about itself, and what it told.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Value};

use crate::store::redis::probe::version::{Product, Version};

/// What `CONFIG GET` is asked for.
const PARAMETERS: [&str; 6] = [
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "maxmemory-policy",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
];

/// A replica that has been silent for longer is not in step, seconds: it says something each second.
const REPLICA_LAG_MAX_S: u64 = 10;
/// Replicas that are looked at: more than `store.replicas_ack` may ask for.
const REPLICAS_READ_MAX: u32 = 64;

/// Whether it writes, or follows another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Master,
    /// Of the one at `host:port`.
    Replica(String),
}

/// What keeps acknowledged writes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aof {
    Off,
    /// It was turned on, and its first file is not complete: until then a restart knows nothing of it.
    Starting,
    On,
}

/// Memory, as Redis counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    pub(super) used_bytes: u64,
    /// `maxmemory`; 0: no limit.
    pub(super) bytes_max: u64,
    /// Of the machine; 0: not known.
    pub(super) machine_bytes: u64,
}

/// What was seen; `None` where it may not be.
#[expect(clippy::struct_excessive_bools, reason = "each is a line of its own in what Redis tells")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// What it calls itself since it was started.
    pub(super) run: Option<Arc<str>>,
    pub(super) product: Product,
    pub(super) version: Option<Version>,
    pub(super) role: Option<Role>,
    pub(super) is_cluster: bool,
    /// Those that are connected and in step.
    pub(super) replicas: Option<u32>,
    pub(super) is_loading: bool,
    pub(super) aof: Option<Aof>,
    pub(super) is_rewriting: bool,
    /// Whether it was written anew since the start.
    pub(super) aof_is_rewritten: Option<bool>,
    /// Bytes that were appended behind what was written when it was written anew last.
    pub(super) aof_tail_bytes: Option<u64>,
    /// Whether the last write of the AOF went well.
    pub(super) aof_is_written: bool,
    pub(super) fsync: Option<String>,
    /// `no-appendfsync-on-rewrite`.
    pub(super) fsync_pauses: Option<bool>,
    /// Whether snapshots are taken.
    pub(super) has_snapshots: Option<bool>,
    /// Whether the last snapshot failed.
    pub(super) snapshot_failed: bool,
    /// `stop-writes-on-bgsave-error`.
    pub(super) stops_without_snapshots: Option<bool>,
    /// `min-replicas-to-write`, and how many Redis counts for it; `None` while it counts none.
    pub(super) replicas_min: Option<u64>,
    pub(super) replicas_good: Option<u64>,
    pub(super) eviction: Option<String>,
    pub(super) memory: Option<Memory>,
}

/// Asks for everything.
pub(super) fn ask_info() -> Cmd {
    let mut command = Cmd::new();
    // Without sections: only so do older versions answer.
    command.arg("INFO");
    command
}

/// Asks for memory alone.
pub(super) fn ask_memory() -> Cmd {
    let mut command = Cmd::new();
    command.arg("INFO").arg("memory");
    command
}

/// Asks for the settings that `INFO` does not tell.
pub(super) fn ask_settings() -> Cmd {
    let mut command = Cmd::new();
    command.arg("CONFIG").arg("GET").arg(&PARAMETERS);
    command
}

/// The memory that `INFO` told of.
pub(super) fn memory(info: &Value) -> Option<Memory> {
    let info = Info::of(info)?;
    Some(Memory {
        used_bytes: info.number("used_memory")?,
        bytes_max: info.number("maxmemory").unwrap_or(0),
        machine_bytes: info.number("total_system_memory").unwrap_or(0),
    })
}

impl Seen {
    /// Whether it follows another.
    pub(super) fn is_replica(&self) -> bool {
        matches!(self.role, Some(Role::Replica(_)))
    }

    /// What the answers tell; an absent one was refused.
    pub(super) fn of(info: Option<&Value>, settings: Option<&Value>) -> Self {
        let text = info.and_then(Info::of).unwrap_or(Info(HashMap::new()));
        let settings = settings.map(pairs).unwrap_or_default();
        let setting = |name: &str| settings.get(name).cloned();
        let valkey = text.word("valkey_version");
        Self {
            run: text.word("run_id").filter(|name| !name.is_empty()).map(Arc::from),
            product: if valkey.is_some() { Product::Valkey } else { Product::Redis },
            version: valkey.or_else(|| text.word("redis_version")).and_then(Version::read),
            role: text.role(),
            is_cluster: text.word("cluster_enabled") == Some("1")
                || text.word("redis_mode") == Some("cluster"),
            replicas: text.replicas(),
            is_loading: text.word("loading") == Some("1") || text.word("async_loading") == Some("1"),
            aof: text.aof(),
            is_rewriting: text.is_rewriting(),
            aof_is_rewritten: text.word("aof_last_rewrite_time_sec").map(|seconds| seconds != "-1"),
            aof_tail_bytes: text.aof_tail_bytes(),
            aof_is_written: text.word("aof_last_write_status").is_none_or(|word| word == "ok"),
            fsync: setting("appendfsync"),
            fsync_pauses: setting("no-appendfsync-on-rewrite").map(|word| word == "yes"),
            has_snapshots: setting("save").map(|points| !points.is_empty()),
            snapshot_failed: text.word("rdb_last_bgsave_status") == Some("err"),
            stops_without_snapshots: setting("stop-writes-on-bgsave-error").map(|word| word == "yes"),
            replicas_min: setting("min-replicas-to-write").and_then(|count| count.parse().ok()),
            replicas_good: text.number("min_slaves_good_slaves"),
            eviction: text
                .word("maxmemory_policy")
                .map(str::to_owned)
                .or_else(|| setting("maxmemory-policy")),
            memory: info.and_then(memory),
        }
    }
}

/// The lines of `INFO`.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        let text = match value {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
            _ => return None,
        };
        Some(Self(text.lines().filter_map(|line| line.trim_end().split_once(':')).collect()))
    }

    fn word(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.word(name)?.parse().ok()
    }

    fn role(&self) -> Option<Role> {
        Some(if self.word("role")? == "master" {
            Role::Master
        } else {
            let part = |name| self.word(name).unwrap_or("?");
            Role::Replica(format!("{}:{}", part("master_host"), part("master_port")))
        })
    }

    fn replicas(&self) -> Option<u32> {
        let connected: u32 = self.number("connected_slaves")?.try_into().ok()?;
        let is_good = |line: &str| {
            let mut fields = line.split(',').filter_map(|field| field.split_once('='));
            fields.all(|(name, value)| match name {
                "state" => value == "online",
                "lag" => value.parse().is_ok_and(|lag: u64| lag <= REPLICA_LAG_MAX_S),
                _ => true,
            })
        };
        // One that is counted and not described, as hosted ones do, is taken at its word.
        let good = (0..connected.min(REPLICAS_READ_MAX))
            .filter(|number| self.word(&format!("slave{number}")).is_none_or(is_good));
        u32::try_from(good.count()).ok()
    }

    fn is_rewriting(&self) -> bool {
        ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().any(|name| self.word(name) == Some("1"))
    }

    fn aof_tail_bytes(&self) -> Option<u64> {
        Some(self.number("aof_current_size")?.saturating_sub(self.number("aof_base_size")?))
    }

    fn aof(&self) -> Option<Aof> {
        let is_empty = |name| self.number(name).unwrap_or(0) == 0;
        Some(match self.word("aof_enabled")? {
            "0" => Aof::Off,
            _ if self.is_rewriting() && is_empty("aof_base_size") && is_empty("aof_current_size") => {
                Aof::Starting
            }
            _ => Aof::On,
        })
    }
}

/// What `CONFIG GET` gave, in either protocol.
fn pairs(value: &Value) -> HashMap<String, String> {
    redis::from_redis_value_ref(value).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn text(lines: &[&str]) -> Value {
        Value::BulkString(lines.join("\r\n").into_bytes())
    }

    fn bulk(word: &str) -> Value {
        Value::BulkString(word.as_bytes().to_vec())
    }

    /// A Redis as strict wants it.
    pub(in crate::store::redis::probe) fn sound() -> Seen {
        let info = text(&[
            "# Server",
            "redis_version:7.2.11",
            "redis_mode:standalone",
            "run_id:5f0c",
            "used_memory:1000000",
            "maxmemory:8000000000",
            "total_system_memory:16000000000",
            "maxmemory_policy:noeviction",
            "loading:0",
            "aof_enabled:1",
            "aof_rewrite_in_progress:0",
            "aof_last_rewrite_time_sec:0",
            "aof_base_size:88",
            "aof_current_size:100",
            "aof_last_write_status:ok",
            "rdb_last_bgsave_status:ok",
            "role:master",
            "connected_slaves:1",
            "cluster_enabled:0",
        ]);
        let settings = [
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("save", ""),
            ("stop-writes-on-bgsave-error", "yes"),
            ("min-replicas-to-write", "0"),
        ];
        let settings = settings.iter().flat_map(|(name, value)| [bulk(name), bulk(value)]).collect();
        Seen::of(Some(&info), Some(&Value::Array(settings)))
    }

    #[test]
    fn everything_told_is_seen() {
        let seen = sound();
        assert_eq!((seen.version, seen.run.as_deref()), (Version::read("7.2.11"), Some("5f0c")));
        assert_eq!((seen.role, seen.replicas, seen.aof), (Some(Role::Master), Some(1), Some(Aof::On)));
        assert_eq!((seen.aof_is_rewritten, seen.aof_tail_bytes), (Some(true), Some(12)));
        assert_eq!(seen.fsync.as_deref(), Some("always"));
        assert_eq!((seen.fsync_pauses, seen.has_snapshots), (Some(false), Some(false)));
        assert_eq!(seen.eviction.as_deref(), Some("noeviction"));
        assert_eq!((seen.snapshot_failed, seen.stops_without_snapshots), (false, Some(true)));
        assert_eq!((seen.replicas_min, seen.replicas_good), (Some(0), None));
        let memory =
            Memory { used_bytes: 1_000_000, bytes_max: 8_000_000_000, machine_bytes: 16_000_000_000 };
        assert_eq!(seen.memory, Some(memory));
    }

    #[test]
    fn what_is_refused_is_not_known() {
        let seen = Seen::of(None, None);
        assert_eq!((seen.version, seen.role, seen.aof), (None, None, None));
        assert_eq!((seen.fsync, seen.eviction, seen.memory), (None, None, None));
    }

    #[test]
    fn a_replica_names_its_master_and_valkey_itself() {
        let info = text(&[
            "redis_version:7.2.4",
            "valkey_version:8.1.1",
            "role:slave",
            "master_host:db",
            "master_port:1",
        ]);
        let seen = Seen::of(Some(&info), None);
        assert_eq!(seen.role, Some(Role::Replica("db:1".to_owned())));
        assert_eq!((seen.product, seen.version), (Product::Valkey, Version::read("8.1.1")));
    }

    #[test]
    fn an_aof_whose_first_file_is_being_written_is_starting() {
        let lines = ["aof_enabled:1", "aof_rewrite_in_progress:1", "aof_base_size:0", "aof_current_size:0"];
        assert_eq!(Seen::of(Some(&text(&lines)), None).aof, Some(Aof::Starting));
        let written =
            ["aof_enabled:1", "aof_rewrite_in_progress:1", "aof_base_size:0", "aof_current_size:58"];
        assert_eq!(Seen::of(Some(&text(&written)), None).aof, Some(Aof::On));
    }

    #[test]
    fn only_a_replica_that_is_online_and_answers_is_counted() {
        let replicas = |lines: &[&str]| Seen::of(Some(&text(lines)), None).replicas;
        assert_eq!(replicas(&[]), None);
        assert_eq!(replicas(&["connected_slaves:0"]), Some(0));
        assert_eq!(replicas(&["connected_slaves:2"]), Some(2));
        let all = [
            "connected_slaves:4",
            "slave0:ip=::1,port=1,state=online,offset=9,lag=0",
            "slave1:ip=::1,port=2,state=wait_bgsave,offset=0,lag=0",
            "slave2:ip=::1,port=3,state=online,offset=9,lag=11",
            "slave3:ip=::1,port=4,state=online,offset=9,lag=10",
        ];
        assert_eq!(replicas(&all), Some(2));
    }
}
