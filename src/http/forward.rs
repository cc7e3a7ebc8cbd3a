//! Which headers may be delivered with a message, and which never.

/// Names that belong to one connection (RFC 9110, 7.6.1), to the framing of a request, or to the gateway itself; besides
/// every name that begins with `posthaste-` or `webhook-`.
const NEVER: [&str; 19] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Our own on a delivery.
const OURS: [&str; 3] = ["webhook-id", "webhook-signature", "webhook-timestamp"];

/// Credentials: passed on when a publisher asks for it and the queue lets it.
const CREDENTIALS: [&str; 2] = ["authorization", "cookie"];

/// Why a header is not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Never {
    /// It belongs to one connection, or frames a request.
    Connection,
    /// The gateway sets it itself.
    Ours,
}

/// Whether a header of this lower-case name can never be forwarded, and why.
pub(super) fn never(name: &str) -> Option<Never> {
    if name.starts_with("posthaste-") || OURS.contains(&name) {
        return Some(Never::Ours);
    }
    let ours =
        matches!(name, "accept-encoding" | "content-type" | "traceparent" | "tracestate" | "user-agent");
    match NEVER.binary_search(&name) {
        Ok(_) if ours => Some(Never::Ours),
        Ok(_) => Some(Never::Connection),
        Err(_) => None,
    }
}

/// Whether a header of this lower-case name carries credentials.
pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_a_request_or_is_ours_is_never_forwarded() {
        assert!(NEVER.is_sorted(), "the search needs the order");
        for name in [
            "connection",
            "host",
            "te",
            "transfer-encoding",
            "content-length",
            "upgrade",
            "proxy-authorization",
        ] {
            assert_eq!(never(name), Some(Never::Connection), "{name}");
        }
        for name in
            ["posthaste-attempt", "posthaste-x", "webhook-id", "content-type", "user-agent", "traceparent"]
        {
            assert_eq!(never(name), Some(Never::Ours), "{name}");
        }
        for name in ["authorization", "cookie", "content-encoding", "x-tenant", "accept", "webhook-delivery"]
        {
            assert_eq!(never(name), None, "{name}");
        }
        assert!(is_credential("authorization") && is_credential("cookie") && !is_credential("x-tenant"));
    }
}
