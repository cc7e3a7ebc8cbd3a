//! What must be true of every `/status` at any moment.

use serde_json::Value;

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("{key} is no count in {of}"))
}

/// A counter or gauge over all queues.
pub(crate) fn count(status: &Value, key: &str) -> u64 {
    number(&status["totals"], key)
}

/// Both laws, in total and for each queue.
pub(crate) fn assert_laws(status: &Value) {
    let queues = status["queues"].as_array().expect("queues");
    for (name, counts) in std::iter::once(("in total", &status["totals"]))
        .chain(queues.iter().map(|queue| (queue["name"].as_str().expect("a name"), queue)))
    {
        let count = |key| number(counts, key);
        let came = count("accepted") + count("replayed");
        let ended = count("delivered") + count("dead_lettered") + count("cancelled") + count("purged");
        let inside = count("pending") + count("scheduled") + count("leased");
        assert_eq!(came, ended + inside, "the first law is broken {name}: {counts}");
        let left = count("replayed") + count("discarded") + count("dead");
        assert_eq!(count("dead_lettered"), left, "the second law is broken {name}: {counts}");
    }
    assert_eq!(status["consistent"], Value::Bool(true), "{status}");
}

/// Nothing is pending, scheduled or leased.
pub(crate) fn is_drained(status: &Value) -> bool {
    ["pending", "scheduled", "leased"].iter().all(|key| count(status, key) == 0)
}
