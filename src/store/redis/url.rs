//! The URL of a Redis, read strictly: what would have no effect is refused.

use std::fmt::Write as _;
use std::path::Path;

use redis::{Client, ConnectionAddr, ErrorKind, RedisError, ServerErrorKind};

/// Parameters that the URL of a socket may have.
const PARAMETERS: [&str; 3] = ["db", "user", "pass"];
/// Parameters that others know and that are no secrets: they may be named.
const PARAMETERS_OF_OTHERS: [&str; 9] =
    ["password", "username", "protocol", "host", "port", "path", "ssl", "timeout", "prefix"];
/// How a password is written that has other characters than letters and digits.
const ESCAPES: &str =
    "in a user or password write # as %23, / as %2F, ? as %3F, @ as %40, : as %3A, % as %25";

/// What is against a URL that names a Redis; never shows its password.
pub(in crate::store) fn problem(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    if rest.contains('#') {
        return Some(format!("it has a #, and nothing may follow one: {ESCAPES}"));
    }
    let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let found = match (scheme, query) {
        ("redis+unix", query) => query.and_then(problem_of_parameters),
        (_, Some(_)) => Some(format!(
            "it has a ?, and takes no parameters: write {scheme}://USER:PASSWORD@HOST:PORT/DB; {ESCAPES}"
        )),
        (_, None) => problem_of_path(before),
    };
    found.or_else(|| {
        let error = Client::open(url).err()?;
        let escapes = if before.contains('@') { format!("; {ESCAPES}") } else { String::new() };
        Some(format!("{error}{escapes}"))
    })
}

/// What stands behind the host.
fn problem_of_path(before: &str) -> Option<String> {
    let (_, path) = before.strip_prefix("//")?.split_once('/')?;
    if path.contains('@') {
        return Some(format!("it has a / before its last @: {ESCAPES}"));
    }
    (!path.is_empty() && !is_database(path)).then(|| {
        "what is behind the host is not the number of a database: write a / and 0 or more, or nothing"
            .to_owned()
    })
}

fn problem_of_parameters(query: &str) -> Option<String> {
    let mut seen = Vec::new();
    for piece in query.split('&') {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        if !PARAMETERS.contains(&name) {
            // What is none may be the rest of a password.
            let shown = PARAMETERS_OF_OTHERS.iter().find(|other| **other == name);
            let shown = shown.map_or_else(String::new, |name| format!(", {name:?}"));
            return Some(format!(
                "it has another parameter than db, user and pass{shown}: write ?db=0&user=USER&pass=PASSWORD, & as %26, + as %2B; {ESCAPES}"
            ));
        }
        if seen.contains(&name) {
            return Some(format!("it has {name} twice"));
        }
        if name == "db" && !is_database(value) {
            return Some("db is not the number of a database: write 0 or more".to_owned());
        }
        seen.push(name);
    }
    None
}

fn is_database(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok()
}

/// How `redis-cli` is called for that Redis, without its password; with a database where a command is of one.
pub(super) fn client(url: &str, with_database: bool) -> String {
    let mut call = "redis-cli".to_owned();
    let Ok(client) = Client::open(url) else { return call };
    let info = client.get_connection_info();
    match info.addr() {
        ConnectionAddr::Unix(path) => write!(call, " -s {}", quoted(path)),
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            let is_default = matches!(host.as_str(), "127.0.0.1" | "localhost") && *port == 6379;
            if is_default { Ok(()) } else { write!(call, " -h {host} -p {port}") }
        }
        _ => Ok(()),
    }
    .expect("a string takes all");
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        call.push_str(" --tls");
    }
    let database = info.redis_settings().db();
    if with_database && database != 0 {
        write!(call, " -n {database}").expect("a string takes all");
    }
    call
}

/// A text with that call wherever it says `redis-cli`.
pub(super) fn addressed(text: &str, client: &str) -> String {
    text.replace("redis-cli", client)
}

fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Why no connection could be made, and what to write where that is known.
pub(super) fn why_none(client: &Client, error: &RedisError) -> String {
    if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) {
        return "it is loading its data".to_owned();
    }
    let words = error.to_string();
    let is_tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    if is_without_password(&words) {
        return format!("it wants a password: {WANTS_PASSWORD} ({words})");
    }
    if is_tls && (error.is_timeout() || error.is_io_error()) {
        return format!("{words} (over TLS: where Redis takes none there, write redis:// in store.url)");
    }
    words
}

/// What to write for a Redis with a password.
pub(super) const WANTS_PASSWORD: &str = "write redis://USER:PASSWORD@HOST:PORT in store.url, redis+unix:///PATH?user=USER&pass=PASSWORD for a socket";

/// Said, with no code of its own, to one that knows not that a password is wanted by now and says more than a stranger may.
pub(super) const UNAUTHENTICATED: &str = "Protocol error: unauthenticated";

/// Whether these words are those of a Redis that knows not who asks, whichever command it said them to.
pub(super) fn is_without_password(words: &str) -> bool {
    ["NOAUTH", "Authentication required", UNAUTHENTICATED].iter().any(|known| words.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_redis_is_taken() {
        for url in [
            "redis://host",
            "redis://host/",
            "redis://host:1/15",
            "rediss://user:p%23w@host:6379/0",
            "redis://:a:b@c@host",
            "redis://[::1]:6379/1",
            "redis+unix:///run/redis.sock",
            "redis+unix:///run/redis.sock?db=1&user=u&pass=a%26b",
        ] {
            assert_eq!(problem(url), None, "{url}");
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused_with_what_is_possible_and_without_the_password() {
        for (url, part) in [
            ("redis://host/0?db=3&pass=hunter2", "takes no parameters"),
            ("redis://host?protocol=resp3", "takes no parameters"),
            ("redis://host/-1", "0 or more"),
            ("redis://host/+1", "0 or more"),
            ("redis://host/first", "0 or more"),
            ("redis://host/1/2", "0 or more"),
            ("redis://host/4294967296", "0 or more"),
            ("redis://host/0#x", "nothing may follow"),
            ("rediss://host/#insecure", "nothing may follow"),
            ("redis://:hunter#2@host", "write # as %23"),
            ("redis://:hunter/2@host", "/ as %2F"),
            ("redis://:hunter?2@host", "? as %3F"),
            ("redis+unix:///r.sock?foo=1", "db, user and pass"),
            ("redis+unix:///r.sock?password=hunter2", r#", "password": write"#),
            ("redis+unix:///r.sock?pass=a&hunter2", "& as %26"),
            ("redis+unix:///r.sock?pass=a&pass=hunter2", "pass twice"),
            ("redis+unix:///r.sock?db=-1", "0 or more"),
            ("redis+unix:///r.sock?db=", "0 or more"),
            ("redis+unix:///r.sock?", "db, user and pass"),
            ("redis://host:port", "URL"),
        ] {
            let found = problem(url).unwrap_or_else(|| panic!("{url} is taken"));
            assert!(found.contains(part) && !found.contains("hunter"), "{url}: {found}");
        }
    }

    #[test]
    fn the_client_is_called_for_that_very_redis() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379/3", "redis-cli -n 3"),
            ("redis://localhost", "redis-cli"),
            ("redis://user:hunter2@db.example:6380", "redis-cli -h db.example -p 6380"),
            ("rediss://:hunter2@db.example/1", "redis-cli -h db.example -p 6379 --tls -n 1"),
            ("redis+unix:///run/redis.sock?pass=hunter2&db=2", "redis-cli -s /run/redis.sock -n 2"),
            ("redis+unix:///run/my%20redis.sock", "redis-cli -s '/run/my redis.sock'"),
        ] {
            assert_eq!(client(url, true), expected, "{url}");
        }
        assert_eq!(client("redis://h:1/9", false), "redis-cli -h h -p 1");
    }
}
