//! A request for each route that there is.

/// A request that its route takes, if there is such a queue.
pub(crate) struct Sample {
    /// The method.
    pub(crate) method: &'static str,
    /// The target.
    pub(crate) target: String,
    /// The headers.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub(crate) body: &'static str,
}

/// An id that no message has.
pub(crate) const NO_ID: &str = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";

/// Bodies with a receipt that nobody has.
const NO_RECEIPT_SETTLED: &str =
    r#"{"ack":["000000000000000000000000000000000000000000000000000000000000000000"]}"#;
const NO_RECEIPT_EXTENDED: &str =
    r#"{"receipts":["000000000000000000000000000000000000000000000000000000000000000000"],"lease":"30s"}"#;

/// The request that a route takes about a queue. A route that is not known here gets `{}` as JSON.
pub(crate) fn sample(path: &str, method: &'static str, queue: &str) -> Sample {
    let mut target = path.replace("{queue}", queue).replace("{id}", NO_ID);
    let json = ("Content-Type", "application/json");
    let (headers, body) = match (method, path.rsplit('/').next().unwrap_or_default()) {
        ("GET" | "DELETE", "groups") => {
            target.push_str("?by=reason");
            (vec![], "")
        }
        ("GET" | "DELETE", _) | (_, "pause" | "resume" | "purge") => (vec![], ""),
        ("POST", "messages") => (vec![], "x"),
        ("POST", "batch") => (vec![json], r#"[{"payload":"x"}]"#),
        ("POST", "replay") => (vec![json], r#"{"filter":{}}"#),
        ("POST", "settle") => (vec![json], NO_RECEIPT_SETTLED),
        ("POST", "extend") => (vec![json], NO_RECEIPT_EXTENDED),
        ("PUT", _) => (vec![json], r#"{"processor":"pull"}"#),
        _ => (vec![json], "{}"),
    };
    Sample { method, target, headers, body }
}
