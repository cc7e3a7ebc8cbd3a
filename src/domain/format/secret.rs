//! Showing a URL without what must not be seen.

use std::borrow::Cow;

/// Query parameters whose value is a password (Redis clients read them).
const SECRET_PARAMETERS: [&str; 2] = ["pass=", "password="];

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
    let mut shown = Cow::Borrowed(text);
    // The last @ and not the first: a password may hold one, or a slash, without being escaped.
    if let Some(at) = text.rfind('@').filter(|at| *at >= authority)
        && let Some(colon) = text[authority..at].find(':')
    {
        shown = Cow::Owned(format!("{}:***{}", &text[..authority + colon], &text[at..]));
    }
    for parameter in SECRET_PARAMETERS {
        let found = ["?", "&"].iter().find_map(|mark| {
            shown.find(&format!("{mark}{parameter}")).map(|start| start + mark.len() + parameter.len())
        });
        if let Some(start) = found {
            let end = shown[start..].find(['&', '#']).map_or(shown.len(), |length| start + length);
            shown = Cow::Owned(format!("{}***{}", &shown[..start], &shown[end..]));
        }
    }
    shown
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
            ("sqlite:data/a:b@c.db", "sqlite:data/a:b@c.db"),
            ("memory:", "memory:"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(url(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_password_shines_through(user in "[a-z]{0,5}", password in "[A-Z@:/?#&=]{0,8}PW[A-Z@:/?#&=]{0,8}") {
            let text = format!("redis://{user}:{password}@host:6379/0");
            let shown = url(&text).into_owned();
            prop_assert!(!shown.contains("PW"), "{}", shown);
        }

        #[test]
        fn no_text_panics(text in ".*|[a-z+]{0,5}:[/@:?&a-z=]{0,40}") {
            let shown = url(&text);
            prop_assert!(shown.len() <= text.len() + 8);
        }
    }
}
