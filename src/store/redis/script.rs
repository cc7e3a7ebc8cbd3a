//! The scripts: one Lua file each, put together with the pieces it uses and the keys it declares.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::store::redis::keys::Key;
use crate::store::redis::keys::Key::{
    Appended, Attempts, Batch, BatchIds, Batches, Bodies, Call, Changes, Counters, Dead, DeadRecords,
    Deadlines, Due, DueClock, Finished, Foreign, Index, Instances, Keys, Letters, List, Marks, Moments,
    Purged, Queues, Runs, Scheduled, ScheduledRecords,
};

const TIME: &str = include_str!("script/time.lua");
const AGAIN: &str = include_str!("script/again.lua");
const PLAIN: &str = include_str!("script/plain.lua");
const PLAIN_LOT: &str = include_str!("script/plain_lot.lua");
const PLAIN_LEASE: &str = include_str!("script/plain_lease.lua");
const PLAIN_SETTLE: &str = include_str!("script/plain_settle.lua");
const RECORD: &str = include_str!("script/record.lua");
const QUEUE: &str = include_str!("script/queue.lua");
const RUNS: &str = include_str!("script/runs.lua");
const INDEX: &str = include_str!("script/index.lua");
const LISTS: &str = include_str!("script/lists.lua");
const DEAD: &str = include_str!("script/dead.lua");
const FINISHED: &str = include_str!("script/finished.lua");
const BATCHES: &str = include_str!("script/batches.lua");
const LAWS: &str = include_str!("script/laws.lua");
const LEASED: &str = include_str!("script/leased.lua");
const KEYS: &str = include_str!("script/keys.lua");
const WIPE: &str = include_str!("script/wipe.lua");
const FOREIGN: &str = include_str!("script/foreign.lua");
const BROKEN: &str = include_str!("script/broken.lua");

/// Whether Redis runs a script when its memory is full, and whether the script writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Makes more of it: refused before its first write when memory is full.
    Grows,
    /// Drains: must run whatever the memory.
    Drains,
    /// Only reads.
    Reads,
}

/// A script: its name in logs, what it is made of, the keys it declares in the order of `KEYS`.
pub(super) struct Script {
    /// The name of its file.
    pub(super) name: &'static str,
    kind: Kind,
    parts: &'static [&'static str],
    /// The keys it declares.
    pub(super) keys: &'static [Key],
}

/// A script as Redis knows it.
pub(super) struct Loaded {
    /// What is sent to `SCRIPT LOAD`.
    pub(super) source: String,
    /// What is sent to `EVALSHA`.
    pub(super) hash: String,
    /// Whether it writes nothing, so that it is sent as one that does not.
    pub(super) is_read_only: bool,
}

macro_rules! scripts {
    ($($constant:ident $file:literal $kind:ident [$($part:ident)*] [$($key:expr),* $(,)?];)+) => {
        scripts!(@place 0; $($constant $file)+);
        /// Every script, at the place that its constant says.
        pub(super) static ALL: &[Script] = &[$(Script {
            name: $file,
            kind: Kind::$kind,
            parts: &[$($part,)* include_str!(concat!("script/", $file, ".lua"))],
            keys: &[$($key),*],
        }),+];
    };
    (@place $place:expr;) => {};
    (@place $place:expr; $constant:ident $file:literal $($rest:tt)*) => {
        #[doc = concat!("`script/", $file, ".lua`.")]
        pub(super) const $constant: usize = $place;
        scripts!(@place $place + 1; $($rest)*);
    };
}

scripts! {
    ENQUEUE "enqueue" Grows [TIME AGAIN RUNS PLAIN PLAIN_LOT RECORD QUEUE INDEX LISTS KEYS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Keys(0), Keys(1), Keys(2), Keys(3), Call, Appended,
    ];
    SPREAD "spread" Grows [TIME RUNS PLAIN] [];
    LEASE "lease" Drains [TIME RECORD RUNS PLAIN_LEASE QUEUE INDEX LISTS DEAD BATCHES FOREIGN] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Batches, BatchIds, Deadlines, Marks(0), Marks(1),
        Marks(2), Foreign, Batch,
    ];
    SETTLE "settle" Drains [TIME PLAIN_SETTLE RECORD QUEUE RUNS INDEX LISTS DEAD FINISHED BATCHES] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Finished, Batches, BatchIds, Deadlines, Marks(0),
        Marks(1), Marks(2), Batch,
    ];
    QUARANTINE "quarantine" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD BATCHES] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Batches, BatchIds, Deadlines, Marks(0), Marks(1),
        Marks(2), Batch,
    ];
    EXTEND "extend" Drains [TIME RECORD QUEUE] [Counters, Batches, Deadlines, Batch];
    SWEEP "sweep" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD FINISHED BATCHES FOREIGN LAWS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Finished, Batches, BatchIds, Deadlines, Marks(0),
        Marks(1), Marks(2), Foreign, Purged,
    ];
    REPAIR "repair" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD BATCHES FOREIGN LAWS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Batches, BatchIds, Deadlines, Marks(0), Marks(1),
        Marks(2), Foreign,
    ];
    FIND "find" Reads [TIME RECORD QUEUE RUNS INDEX LISTS LEASED] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Letters, DeadRecords, Attempts, Finished, BatchIds,
    ];
    CANCEL "cancel" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD FINISHED] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Finished,
    ];
    PROMOTE "promote" Drains [TIME RECORD QUEUE RUNS INDEX LISTS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments,
    ];
    LETTERS "letters" Reads [TIME RECORD QUEUE] [Counters, Dead, Letters, DeadRecords];
    REPLAY "replay" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts,
    ];
    DISCARD "discard" Drains [TIME RECORD QUEUE RUNS INDEX LISTS DEAD] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts,
    ];
    PURGE "purge" Drains [TIME RECORD QUEUE RUNS INDEX LISTS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Attempts, Batches, Purged,
    ];
    HOLD "hold" Drains [TIME RECORD QUEUE RUNS INDEX LISTS] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments,
    ];
    STATS "stats" Reads [] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7),
    ];
    ADOPT "adopt" Drains [WIPE] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Finished, Batches, BatchIds, Deadlines, Marks(0),
        Marks(1), Marks(2), Foreign, Purged, Keys(0), Keys(1), Keys(2), Keys(3),
    ];
    DELETE "delete" Drains [TIME RECORD QUEUE WIPE] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Finished, Batches, BatchIds, Deadlines, Marks(0),
        Marks(1), Marks(2), Foreign, Purged, Keys(0), Keys(1), Keys(2), Keys(3),
    ];
    AUDIT "audit" Reads [TIME RECORD QUEUE RUNS INDEX LISTS BATCHES] [
        Counters, List(0), List(1), List(2), List(3), List(4), List(5), List(6), List(7), Scheduled,
        ScheduledRecords, Index, Runs, Moments, Bodies, Dead, Letters, DeadRecords, Attempts, Batches, BatchIds, Deadlines, Marks(0), Marks(1), Marks(2),
        Purged,
    ];
    RIGHTS "rights" Reads [] [];
    REGISTRY "registry" Drains [] [Queues];
    DUE "due" Drains [TIME] [Due, DueClock];
    DUE_AGAIN "due_again" Drains [] [Due];
    INSTANCES "instances" Drains [TIME] [Instances];
    TOUCH "touch" Drains [] [Changes];
    MARK "mark" Drains [] [Due];
}

/// Every script as it is sent, at the same places.
pub(super) static LOADED: LazyLock<Vec<Loaded>> = LazyLock::new(|| ALL.iter().map(Script::load).collect());

impl Script {
    fn load(&self) -> Loaded {
        let flags = match self.kind {
            Kind::Grows => "",
            Kind::Drains => " flags=allow-oom",
            Kind::Reads => " flags=no-writes",
        };
        // The name shows where an operator looks at what Redis runs.
        let mut source = format!("#!lua{flags}\n-- {}\nlocal K = {{", self.name);
        for (place, key) in (1..).zip(self.keys) {
            write!(source, "{} = KEYS[{place}], ", key.name()).expect("a string takes all");
        }
        source.push_str("}\nlocal is_writing = false\n");
        // What breaks off says which key is to blame.
        let has_keys = !self.keys.is_empty();
        if has_keys {
            source.push_str("local went_well, answer = pcall(function()\n");
        }
        self.parts.iter().for_each(|part| source.push_str(part));
        if has_keys {
            source.push_str("\nend)\nif went_well then return answer end\nlocal KINDS = {");
            for key in self.keys {
                write!(source, "'{}', ", key.kind()).expect("a string takes all");
            }
            source.push_str("}\n");
            source.push_str(BROKEN);
        }
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Loaded { source, hash, is_read_only: self.kind == Kind::Reads }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The text of a script without its comments.
    fn code(script: &Script) -> String {
        let lines = script.parts.iter().flat_map(|part| part.lines());
        lines.map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// The keys that a text names as `K.name`.
    fn named(code: &str) -> BTreeSet<String> {
        let is_of_name = |letter: char| letter.is_ascii_alphanumeric();
        let behind = code.match_indices("K.").filter(|(at, _)| !code[..*at].ends_with(is_of_name));
        behind
            .map(|(at, _)| code[at + 2..].chars().take_while(|letter| is_of_name(*letter)).collect())
            .collect()
    }

    #[test]
    fn a_script_declares_every_key_that_it_names_and_no_key_twice() {
        for script in ALL {
            let declared: BTreeSet<String> = script.keys.iter().map(|key| key.name()).collect();
            assert_eq!(declared.len(), script.keys.len(), "{}: a key is declared twice", script.name);
            let code = code(script);
            if code.contains("K = {") {
                continue;
            }
            let named = named(&code);
            let missing: Vec<_> = named.difference(&declared).collect();
            assert!(missing.is_empty(), "{}: not declared: {missing:?}", script.name);
        }
    }

    #[test]
    fn a_script_declares_no_key_that_it_does_not_use() {
        for script in ALL {
            let code = code(script);
            // Some go through all that they declare, or through the lists by number.
            if code.contains("pairs(K)") || code.contains("KEYS[1]") || code.contains("K['l' .. list]") {
                continue;
            }
            let named = named(&code);
            let unused: Vec<_> = script.keys.iter().filter(|key| !named.contains(&key.name())).collect();
            assert!(unused.is_empty(), "{}: declared for nothing: {unused:?}", script.name);
        }
    }

    #[test]
    fn every_script_has_a_name_and_a_hash_of_its_own() {
        let names: BTreeSet<_> = ALL.iter().map(|script| script.name).collect();
        let hashes: BTreeSet<_> = LOADED.iter().map(|loaded| &loaded.hash).collect();
        assert_eq!((names.len(), hashes.len()), (ALL.len(), ALL.len()));
        assert_eq!(ALL[LEASE].name, "lease");
        assert_eq!(ALL[DUE_AGAIN].name, "due_again");
    }

    #[test]
    fn only_what_makes_more_of_it_is_refused_when_memory_is_full() {
        let growing: Vec<_> = ALL.iter().filter(|script| script.kind == Kind::Grows).collect();
        assert_eq!(growing.iter().map(|script| script.name).collect::<Vec<_>>(), ["enqueue", "spread"]);
        for (script, loaded) in ALL.iter().zip(LOADED.iter()) {
            let first = loaded.source.lines().next().unwrap_or_default();
            let flags = match script.kind {
                Kind::Grows => "#!lua",
                Kind::Drains => "#!lua flags=allow-oom",
                Kind::Reads => "#!lua flags=no-writes",
            };
            assert_eq!(first, flags, "{}", script.name);
        }
    }
}
