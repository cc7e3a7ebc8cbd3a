//! Which headers HTTP can carry, which may be delivered with a message, and which never.

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
pub enum Never {
    /// It belongs to one connection, or frames a request.
    Connection,
    /// The gateway sets it itself.
    Ours,
}

/// Whether a header of this lower-case name can never be forwarded, and why.
#[must_use]
pub fn never(name: &str) -> Option<Never> {
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
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name)
}

/// Whether HTTP can carry a header of this name: a token of RFC 9110, 5.6.2.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Whether HTTP can carry this value: visible ASCII, blanks and tabs, nothing else that could end a line.
#[must_use]
pub fn is_value(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
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
        assert!(is_name("X-A") && !is_name("") && !is_name("X Y") && !is_name("X:Y") && !is_name("\u{e9}"));
        assert!(is_value("a b\tc") && is_value("") && !is_value("a\nb") && !is_value("a\0b"));
        assert!(is_credential("authorization") && is_credential("cookie") && !is_credential("x-tenant"));
    }
}
