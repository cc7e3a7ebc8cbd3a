//! Showing what has secrets in it without them: URLs, destinations, headers.

use std::borrow::Cow;

/// What is shown in the place of a secret.
pub const MASK: &str = "***";

/// What the name of a header or query parameter has in it whose value is a secret. It hides too much rather than too little: a
/// value that is shown once is known for good.
const SECRET_PARTS: [&str; 9] =
    ["auth", "cookie", "credential", "hmac", "key", "password", "secret", "signature", "token"];

/// The words that say so only where they stand alone between `-` and `_`: `X-Pass` does, `X-Compass` does not.
const SECRET_WORDS: [&str; 9] =
    ["bearer", "jwt", "pass", "passphrase", "passwd", "session", "sessionid", "sign", "signing"];

/// The names of query parameters whose value is a secret, besides those: what is usual in the URLs of webhooks.
const SECRET_PARAMETER_NAMES: [&str; 2] = ["sig", "code"];

/// Query parameters of a store's URL that are no secret; every other is taken for one.
const PLAIN_PARAMETERS: [&str; 2] = ["db", "user"];

/// The URL with its password as `***`; works on texts that are no valid URL, and rather hides too much.
#[must_use]
pub fn url(text: &str) -> Cow<'_, str> {
    // A file's path may hold an @; it never holds a password.
    if text.starts_with("sqlite:") {
        return Cow::Borrowed(text);
    }
    let Some(authority) = text.find(':').map(|colon| colon + 1) else {
        return Cow::Borrowed(text);
    };
    // The last @ and not the first: a password may hold one, or a slash, without being escaped.
    let at = text.rfind('@').filter(|at| *at >= authority);
    let rest = at.unwrap_or(authority);
    let mut shown = match at {
        Some(at) => match text[authority..at].find(':') {
            Some(colon) => format!("{}:{MASK}", &text[..authority + colon]),
            None => text[..at].to_owned(),
        },
        None => text[..authority].to_owned(),
    };
    let (host, query) = match text[rest..].find(['?', '#']) {
        Some(mark) => text[rest..].split_at(mark),
        None => (&text[rest..], ""),
    };
    // The colons of an address in brackets are none of a password.
    let bracket = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let (address, host) = host.split_at(bracket);
    shown.push_str(address);
    match host.split_once(':').filter(|_| at.is_none()) {
        // Where the host was forgotten the password stands in the place of the port.
        Some((name, port)) if !is_port(port) => shown.extend([name, ":", MASK]),
        _ => shown.push_str(host),
    }
    for piece in query.split_inclusive(['?', '&', '#', ';']) {
        let (body, mark) = match piece.strip_suffix(['?', '&', '#', ';']) {
            Some(body) => (body, &piece[body.len()..]),
            None => (piece, ""),
        };
        match body.split_once('=') {
            Some((name, _)) if PLAIN_PARAMETERS.contains(&name) => shown.push_str(body),
            Some((name, value)) if !value.is_empty() => shown.extend([name, "=", MASK]),
            Some(_) => shown.push_str(body),
            None if body.is_empty() => {}
            // The rest of a password that has one of the marks in it.
            None => shown.push_str(MASK),
        }
        shown.push_str(mark);
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// A text that was meant as the URL of a receiver, or as its origin, and may be neither: without what stands before an `@`, the
/// values of a query or path parameter, a fragment, and what stands in the place of a port. It rather hides too much.
#[must_use]
pub fn unreadable(text: &str) -> Cow<'_, str> {
    let scheme = text.find("://").map_or(0, |colon| colon + 3);
    // One that begins with a password is none.
    let scheme = if text[..scheme].contains(['@', '?', '#', '=']) { 0 } else { scheme };
    // The last @ and not the first: a password may hold one, or any other mark, without being escaped.
    let (mut shown, rest) = match text[scheme..].rfind('@').map(|at| scheme + at) {
        Some(at) => (format!("{}{MASK}", &text[..scheme]), &text[at..]),
        None => (text[..scheme].to_owned(), &text[scheme..]),
    };
    let in_query = text[..text.len() - rest.len()].contains(['?', '#']);
    for (number, piece) in rest.split_inclusive(['?', '&', '#', ';']).enumerate() {
        let body = piece.trim_end_matches(['?', '&', '#', ';']);
        match body.split_once('=') {
            Some((name, value)) if !value.is_empty() => shown.extend([name, "=", MASK]),
            Some(_) => shown.push_str(body),
            None if number == 0 && !in_query => shown.push_str(&host_and_path(body)),
            None if body.is_empty() => {}
            None => shown.extend([if number == 0 { "@" } else { "" }, MASK]),
        }
        shown.push_str(&piece[body.len()..]);
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// What follows the `@` or the scheme, with `***` for a port that is none: where the host was forgotten it is a password.
fn host_and_path(text: &str) -> Cow<'_, str> {
    // The colons of an address in brackets are none of a password.
    let bracket = text.rfind(']').map_or(0, |bracket| bracket + 1);
    match text[bracket..].split_once(':') {
        Some((_, port)) if !is_port(port) => {
            Cow::Owned(format!("{}:{MASK}", &text[..text.len() - port.len() - 1]))
        }
        _ => Cow::Borrowed(text),
    }
}

/// Whether this is a port, with a path behind it or not.
fn is_port(text: &str) -> bool {
    text.split('/').next().unwrap_or_default().bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the value of a header of this name is a secret.
#[must_use]
pub fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
        || name.split(['-', '_']).any(|word| SECRET_WORDS.contains(&word))
}

fn is_parameter(name: &str) -> bool {
    is_header(name) || SECRET_PARAMETER_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// A destination with the values of its secret query parameters as `***`. It has neither user-info nor fragment.
#[must_use]
pub fn destination(text: &str) -> Cow<'_, str> {
    let Some((before, query)) = text.split_once('?') else { return Cow::Borrowed(text) };
    let is_secret = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| is_parameter(name));
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(text);
    }
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_parameter(name) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    Cow::Owned(format!("{before}?{}", shown.collect::<Vec<_>>().join("&")))
}

/// The values that [`destination`] hides, as they stand there and, where they are another then, decoded.
#[must_use]
pub fn values_in_destination(text: &str) -> Vec<String> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let secret = pairs.filter(|(name, value)| !value.is_empty() && is_parameter(name));
    secret.flat_map(|(_, value)| as_sent_and_decoded(value)).collect()
}

fn as_sent_and_decoded(value: &str) -> impl Iterator<Item = String> {
    let pair = format!("name={value}");
    let decoded =
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, decoded)| decoded.into_owned());
    std::iter::once(value.to_owned()).chain(decoded.filter(|decoded| decoded != value))
}

/// Whether a destination has `***` in the place of a secret: it was shown, and somebody gives it back.
#[must_use]
pub fn is_masked_destination(text: &str) -> bool {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().any(|(name, value)| value == MASK && is_parameter(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_a_url_may_carry_it() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://:pw@host:6379", "redis://:***@host:6379"),
            ("rediss://user:pw@host", "rediss://user:***@host"),
            ("redis://user:p@w/:x@host", "redis://user:***@host"),
            ("redis:user:pw@host", "redis:user:***@host"),
            ("redis+unix:///run/redis.sock?db=1&pass=pw", "redis+unix:///run/redis.sock?db=1&pass=***"),
            ("redis+unix:///r.sock?password=pw&db=1", "redis+unix:///r.sock?password=***&db=1"),
            ("redis+unix:///s?pass=a&pass=bsecret", "redis+unix:///s?pass=***&pass=***"),
            (
                "redis+unix:///s?PASS=a&pas%73=b&x=c&user=u",
                "redis+unix:///s?PASS=***&pas%73=***&x=***&user=u",
            ),
            ("redis+unix:///s?pass=a&bsecret", "redis+unix:///s?pass=***&***"),
            ("redis://u:secretpw/0", "redis://u:***"),
            ("redis://u:deadbeef", "redis://u:***"),
            ("redis://host:6379/0?pass=pw#pw", "redis://host:6379/0?pass=***#***"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("sqlite:data/a:b@c.db", "sqlite:data/a:b@c.db"),
            ("memory:", "memory:"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }

    #[test]
    fn what_a_destination_hides_is_told_as_sent_and_decoded() {
        for (text, values) in [
            ("https://a.example/hook", &[][..]),
            ("https://a.example/?x=1&y=token", &[]),
            ("https://a.example/?token=&key=k&x=1", &["k"]),
            ("https://a.example/?token=a%2Fb+c%3D=&sig=s?t", &["a%2Fb+c%3D=", "a/b c==", "s?t"]),
        ] {
            assert_eq!(values_in_destination(text), values, "{text}");
        }
    }

    #[test]
    fn a_destination_is_shown_without_the_values_of_secret_parameters() {
        for (text, shown) in [
            ("https://a.example/hook", "https://a.example/hook"),
            ("https://a.example:8443/@me?x=1&y", "https://a.example:8443/@me?x=1&y"),
            ("https://a.example/?token=pw", "https://a.example/?token=***"),
            ("https://a.example/?x=1&Access_Token=a=b&y=2", "https://a.example/?x=1&Access_Token=***&y=2"),
            (
                "https://a.example/?key=k&sig=s&code=c&pass=",
                "https://a.example/?key=***&sig=***&code=***&pass=***",
            ),
            (
                "https://a.example/?sign=s&jwt=j&session_id=i&design=d&compass=n",
                "https://a.example/?sign=***&jwt=***&session_id=***&design=d&compass=n",
            ),
            ("https://a.example/?coder=k&token", "https://a.example/?coder=k&token"),
            ("https://a.example/?x=y?token=pw", "https://a.example/?x=y?token=pw"),
        ] {
            assert_eq!(destination(text), shown, "{text}");
            assert_eq!(destination(shown), shown, "{text}");
            assert_eq!(is_masked_destination(shown), shown.contains(MASK), "{text}");
            assert!(!is_masked_destination(text), "{text}");
        }
        assert!(!is_masked_destination("https://a.example/***?x=***"), "no secret has these places");
    }

    #[test]
    fn what_is_no_url_is_shown_without_what_may_be_a_secret() {
        for (text, shown) in [
            ("example.com", "example.com"),
            ("nay", "nay"),
            ("https://a.example:99999/hook", "https://a.example:99999/hook"),
            ("https://[::1]:8080/x", "https://[::1]:8080/x"),
            ("http://user:pw@127.0.0.1:99999/x", "http://***@127.0.0.1:99999/x"),
            ("https://pw@exa mple/hook", "https://***@exa mple/hook"),
            ("https://u:p@w/:x?y#z@exa mple/", "https://***@***"),
            ("https://u:pw@exa mple/hook?token=pw&x=1#pw", "https://***@exa mple/hook?token=***&x=***#***"),
            ("https://exa mple/?email=a@b&token=pw", "https://***@***&token=***"),
            ("https://exa mple/?a@pw", "https://***@***"),
            ("my_user:pw@host", "***@host"),
            ("u:pw@//host://x", "***@//host://x"),
            ("https://user:pw", "https://user:***"),
            ("//u:pw@host/x;token=pw", "***@host/x;token=***"),
            ("?token=pw", "?token=***"),
        ] {
            assert_eq!(unreadable(text), shown, "{text}");
        }
    }

    #[test]
    fn a_header_is_a_secret_by_its_name() {
        for (name, expected) in [
            ("Authorization", true),
            ("Proxy-Authorization", true),
            ("Cookie", true),
            ("X-Api-Key", true),
            ("X-Hub-Signature-256", true),
            ("X-Auth-Token", true),
            ("X-Custom-Auth", true),
            ("X-Shopify-Hmac-Sha256", true),
            ("X-Amz-Credential", true),
            ("X-Functions-Key", true),
            ("x-passwords", true),
            ("SET-COOKIE", true),
            ("X-Client-Secret", true),
            ("X-Pass", true),
            ("db_pass", true),
            ("X-Sign", true),
            ("X-Signing", true),
            ("X-Session-Id", true),
            ("PHPSESSIONID", false),
            ("JWT", true),
            ("X-Bearer", true),
            ("X-Compass", false),
            ("X-Passenger", false),
            ("X-Design", false),
            ("X-Signal", false),
            ("X-Sessions-Max", false),
            ("X-Team", false),
            ("X-Request-Id", false),
            ("Accept", false),
            ("Accept-Language", false),
            ("Content-Type", false),
            ("User-Agent", false),
        ] {
            assert_eq!(is_header(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_password_shines_through(user in "[a-z]{0,5}", password in "[A-Z@:/?#&=]{0,8}PW[A-Z@:/?#&=]{0,8}") {
            let text = format!("redis://{user}:{password}@host:6379/0");
            let shown = url(&text).into_owned();
            prop_assert!(!shown.contains("PW"), "{}", shown);
            let text = format!("https://{user}:{password}@exa mple/x");
            prop_assert!(!unreadable(&text).contains("PW"), "{}", unreadable(&text));
        }

        #[test]
        fn no_text_panics(text in ".*|[a-z+]{0,5}:[/@:?&a-z=]{0,40}") {
            let shown = url(&text);
            prop_assert!(shown.len() <= text.len() * 4 + 8);
        }
    }
}
