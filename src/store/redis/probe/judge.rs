//! What the things seen mean: whether publishes may be taken, what a 202 means, what an operator should look at. Pure.

use crate::store::health::{Durability, Warning};
use crate::store::redis::probe::seen::{Aof, Memory, Role, Seen};
use crate::store::redis::probe::version::{VERSION_MIN, has_lua_hole};
use crate::store::redis::url::{addressed, client};
use crate::store::settings::{RequiredDurability, StoreSettings};

/// Percent of the machine's memory from which on `maxmemory` leaves too little for a fork and for others.
const MACHINE_PERCENT_MAX: u64 = 60;

/// Said where more is refused than what would not be kept.
pub(super) const REFUSES_ALL: &str = "refuses every write";

/// Something against this Redis, and what cures it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flaw {
    pub(super) what: String,
    /// Commands for a shell, or what else to do.
    pub(super) cure: String,
    /// Whether it ends by itself.
    pub(super) passes: bool,
}

impl Flaw {
    pub(super) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), passes: false }
    }

    /// On one line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", self.what, self.cure)
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    /// What a 202 means, were one given.
    pub(super) durability: Durability,
    /// Why publishes are refused; empty when they are not.
    pub(super) refusals: Vec<Flaw>,
    /// Whether `relaxed` would take it.
    pub(super) is_fit_for_relaxed: bool,
    /// Why a 202 is not strict.
    pub(super) reasons: Vec<String>,
    /// What an operator should look at.
    pub(super) warnings: Vec<Warning>,
}

impl Judgement {
    /// Names this Redis wherever a command is to be sent to it.
    fn address(&mut self, client: &str) {
        let address = |text: &mut String| *text = addressed(text, client);
        self.refusals.iter_mut().for_each(|flaw| address(&mut flaw.cure));
        self.reasons.iter_mut().for_each(address);
        self.warnings.iter_mut().for_each(|warning| address(&mut warning.detail));
    }
}

/// Judges what was seen.
pub(super) fn judge(seen: &Seen, settings: &StoreSettings) -> Judgement {
    let (unfit, short) = (unfit(seen), short_of_replicas(seen, settings));
    let (weak, unseen) = (weak(seen), unseen(seen));
    let is_strict = settings.durability == RequiredDurability::Strict;
    let assumes = settings.durability_assume;
    let durability = if !unfit.is_empty() || short.is_some() {
        Durability::Unknown
    } else if !weak.is_empty() {
        // Without AOF and snapshots nothing ever reaches a disk.
        let in_memory = seen.aof == Some(Aof::Off) && seen.has_snapshots == Some(false);
        if in_memory { Durability::None } else { Durability::Relaxed }
    } else if unseen.is_empty() {
        Durability::Strict
    } else if assumes {
        Durability::Assumed
    } else if is_strict {
        Durability::Unknown
    } else {
        Durability::Relaxed
    };
    let mut reasons: Vec<String> = unfit.iter().chain(&short).chain(&weak).map(Flaw::line).collect();
    reasons.extend(unseen.iter().map(|flaw| {
        if assumes { format!("{}: store.durability_assume vouches for it", flaw.what) } else { flaw.line() }
    }));
    let is_fit_for_relaxed = unfit.is_empty();
    let mut refusals = unfit;
    refusals.extend(short);
    if is_strict {
        refusals.extend(weak);
        if !assumes {
            refusals.extend(unseen);
        }
    }
    let warnings = warnings(seen, settings);
    let mut judgement = Judgement { durability, refusals, is_fit_for_relaxed, reasons, warnings };
    judgement.address(&client(&settings.url, false));
    judgement
}

/// What is refused whatever `store.durability` says.
fn unfit(seen: &Seen) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if let Some(version) = seen.version.filter(|version| *version < VERSION_MIN) {
        let what = format!("it is {} {version}, and scripts need {VERSION_MIN} or newer", seen.product);
        flaws.push(Flaw::new(what, "install a newer one"));
    }
    if let Some(Role::Replica(master)) = &seen.role {
        let what = format!("it is a replica of {master}, which takes no writes");
        let cure =
            format!("name {master} in store.url, or make this one the master: redis-cli REPLICAOF NO ONE");
        flaws.push(Flaw::new(what, cure));
    }
    if seen.is_cluster {
        let what = "it is a node of a cluster, which is not in this version";
        flaws.push(Flaw::new(what, "name a Redis that runs alone, with cluster-enabled no"));
    }
    if let Some(policy) = seen.eviction.as_ref().filter(|policy| *policy != "noeviction") {
        let what = format!("maxmemory-policy is {policy}: it throws messages away when its memory is full");
        flaws.push(Flaw::new(what, "redis-cli CONFIG SET maxmemory-policy noeviction"));
    }
    flaws.extend(refuses_writes(seen));
    flaws
}

/// What lets Redis refuse every write by its own settings.
fn refuses_writes(seen: &Seen) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if seen.snapshot_failed && seen.has_snapshots == Some(true) && seen.stops_without_snapshots == Some(true)
    {
        let what = format!(
            "its last snapshot failed, and with stop-writes-on-bgsave-error yes it {REFUSES_ALL} (MISCONF)"
        );
        flaws.push(Flaw::new(what, "redis-cli CONFIG SET stop-writes-on-bgsave-error no"));
    }
    if let (Some(good), Some(least)) = (seen.replicas_good, seen.replicas_min)
        && good < least
    {
        let what = format!(
            "{good} of {least} replicas (min-replicas-to-write) are connected and in step, so it {REFUSES_ALL} (NOREPLICAS)"
        );
        let cure = format!(
            "bring them back (redis-cli INFO replication), or redis-cli CONFIG SET min-replicas-to-write {good}"
        );
        flaws.push(Flaw { passes: true, ..Flaw::new(what, cure) });
    }
    flaws
}

/// Fewer replicas than a publish must reach: none is taken that could only end unknown.
fn short_of_replicas(seen: &Seen, settings: &StoreSettings) -> Option<Flaw> {
    let (connected, wanted) = (seen.replicas?, u32::from(settings.replicas_ack));
    let what = format!("{connected} of {wanted} replicas (store.replicas_ack) are connected and in step");
    let cure = "bring them back (redis-cli INFO replication), or ask for fewer with store.replicas_ack";
    (connected < wanted).then(|| Flaw { passes: true, ..Flaw::new(what, cure) })
}

/// What is refused by `strict`.
fn weak(seen: &Seen) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    match seen.aof {
        Some(Aof::Off) => flaws.push(Flaw::new(
            "appendonly is no: what was acknowledged is lost when it ends",
            "redis-cli CONFIG SET appendonly yes",
        )),
        Some(Aof::Starting) => {
            let what = "appendonly was turned on, and its first file is not complete";
            let cure = "wait until redis-cli INFO persistence says aof_rewrite_in_progress:0";
            flaws.push(Flaw { passes: true, ..Flaw::new(what, cure) });
        }
        _ => {}
    }
    if let Some(fsync) = seen.fsync.as_ref().filter(|fsync| *fsync != "always") {
        let what = format!(
            "appendfsync is {fsync}: what was acknowledged last is lost with the machine, or when its disk is full"
        );
        flaws.push(Flaw::new(what, "redis-cli CONFIG SET appendfsync always"));
    }
    if seen.fsync_pauses == Some(true) {
        let what =
            "no-appendfsync-on-rewrite is yes: nothing is fsynced while it rewrites or takes a snapshot";
        flaws.push(Flaw::new(what, "redis-cli CONFIG SET no-appendfsync-on-rewrite no"));
    }
    if !seen.aof_is_written {
        let what = "its last write to the append-only file failed";
        flaws.push(Flaw::new(what, "make room on its disk and look into its log; redis-cli INFO persistence says aof_last_write_status"));
    }
    flaws
}

/// What `strict` wants to see and may not.
fn unseen(seen: &Seen) -> Vec<Flaw> {
    let cure = |command: &str| {
        format!(
            "let the user of store.url see it (redis-cli ACL SETUSER NAME {command}, unless the command is renamed), or vouch for it with \
             store.durability_assume = true"
        )
    };
    let (mut by_info, mut by_config) = (Vec::new(), Vec::new());
    let mut note = |into_info: bool, name, is_seen: bool| {
        let names: &mut Vec<&str> = if into_info { &mut by_info } else { &mut by_config };
        if !is_seen {
            names.push(name);
        }
    };
    note(true, "version", seen.version.is_some());
    note(true, "role", seen.role.is_some());
    note(true, "appendonly", seen.aof.is_some());
    note(true, "maxmemory-policy", seen.eviction.is_some());
    note(false, "appendfsync", seen.fsync.is_some());
    note(false, "no-appendfsync-on-rewrite", seen.fsync_pauses.is_some());
    let mut flaws = Vec::new();
    if !by_info.is_empty() {
        flaws.push(Flaw::new(format!("it does not say (INFO): {}", by_info.join(", ")), cure("+info")));
    }
    if !by_config.is_empty() {
        flaws.push(Flaw::new(
            format!("it does not say (CONFIG GET): {}", by_config.join(", ")),
            cure("+config|get"),
        ));
    }
    flaws
}

fn warnings(seen: &Seen, settings: &StoreSettings) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, detail: String| warnings.push(Warning { code, detail });
    if let Some(memory) = seen.memory {
        let sane = memory.machine_bytes / 100 * MACHINE_PERCENT_MAX;
        let (max, machine) = (memory.bytes_max, memory.machine_bytes);
        if max == 0 {
            let value = if sane == 0 { "BYTES".to_owned() } else { sane.to_string() };
            warn(
                "maxmemory_none",
                format!(
                    "maxmemory is 0: Redis grows until the system ends it; redis-cli CONFIG SET maxmemory {value}"
                ),
            );
        } else if machine > 0 && max > sane {
            warn(
                "maxmemory_high",
                format!(
                    "maxmemory is {max} of the machine's {machine} bytes: above {MACHINE_PERCENT_MAX} % a rewrite or a snapshot \
                 may not find room; redis-cli CONFIG SET maxmemory {sane}"
                ),
            );
        }
    }
    if seen.memory.is_none() {
        warn(
            "memory_unseen",
            "INFO memory is forbidden: publishes are not refused before Redis is full, and store.bytes_max has no effect; let \
             the user of store.url see it (redis-cli ACL SETUSER NAME +info)"
                .to_owned(),
        );
    }
    if seen.run.is_none() {
        warn(
            "server_unseen",
            "INFO is forbidden or hides run_id: when the address comes to lead to another server while the old one goes on taking \
             writes, that is not noticed; let the user of store.url see it (redis-cli ACL SETUSER NAME +info), or let whatever moves \
             the address stop or demote the old server first"
                .to_owned(),
        );
    }
    if let Some(replicas) = seen.replicas {
        if replicas < settings.replicas_ack.into() {
            let wanted = settings.replicas_ack;
            warn(
                "replicas_missing",
                format!(
                    "{replicas} replicas are connected and in step and store.replicas_ack is {wanted}: publishes are refused"
                ),
            );
        } else if replicas == 0 {
            warn("replica_none", "Redis has no replica: the messages are gone with its disk".to_owned());
        }
    }
    if let Some(version) = seen.version.filter(|version| has_lua_hole(seen.product, *version)) {
        warn(
            "version_vulnerable",
            format!(
                "{} {version} lets who may run scripts run any code (CVE-2025-49844), unless your distribution repaired it: \
             install a newer one, keep strangers out",
                seen.product
            ),
        );
    }
    warnings
}

/// The memory from which on publishes are shed, in bytes; `None` when nothing says how much there may be.
pub(super) fn room_bytes(memory: Memory, settings: &StoreSettings) -> Option<u64> {
    let redis = Some(memory.bytes_max).filter(|bytes| *bytes > 0);
    let most = match (redis, settings.bytes_max) {
        (Some(redis), Some(own)) => redis.min(own),
        (redis, own) => redis.or(own)?,
    };
    Some(u64::try_from(u128::from(most) * u128::from(settings.full_at_percent) / 100).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
