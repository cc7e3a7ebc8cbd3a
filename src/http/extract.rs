//! What a request says in its target: path segments, query parameters, the type of a body, taken strictly.

use std::borrow::Cow;

use actix_http::header::HeaderMap;
use actix_http::uri::Uri;

use crate::api::code::Code;
use crate::api::nearest::hint;
use crate::domain::queue::QueueName;
use crate::http::error::Refusal;
use crate::http::options::{check_encoding, twice};

/// The queue's name in a path segment as it came, percent-encoded or not; `None` when no queue can be called that.
pub(super) fn queue_name(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    let decoded = segment.contains('%').then(|| decode(segment)).flatten();
    let name = decoded.map_or(Cow::Borrowed(segment), Cow::Owned);
    if QueueName::is_valid(&name) { Ok(name) } else { Err(no_queue_name(&name)) }
}

/// The refusal of a name that no queue can have.
pub(super) fn no_queue_name(name: &str) -> Refusal {
    let rule = "it is a letter or digit followed by up to 127 letters, digits, dots, hyphens or underscores";
    Refusal::new(Code::InvalidQueueName, format!("{:?} is no queue name: {rule}", shown(name)))
}

/// The beginning of a text that somebody else wrote: enough to recognise it.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 64;
    let end = text.char_indices().nth(CHARS_MAX);
    end.map_or(Cow::Borrowed(text), |(end, _)| Cow::Owned(format!("{}…", &text[..end])))
}

/// Refuses a body that is not sent as JSON, or is encoded. `what` begins the sentence that says so: `settings are`.
pub(super) fn json_type(headers: &HeaderMap, what: &str) -> Result<(), Refusal> {
    headers.get_all("content-encoding").try_for_each(check_encoding)?;
    let mut types = headers.get_all("content-type").map(|value| value.to_str().unwrap_or_default());
    let (first, more) = (types.next().unwrap_or_default(), types.next());
    let essence = first.split(';').next().unwrap_or_default().trim();
    if more.is_some() {
        return Err(twice("Content-Type"));
    }
    if essence.eq_ignore_ascii_case("application/json") {
        return check_charset(first);
    }
    let detail = format!("{what} sent as Content-Type: application/json, not {:?}", shown(first));
    Err(Refusal::new(Code::UnsupportedMediaType, detail).header("Content-Type"))
}

/// Refuses JSON that is said to be in another encoding than the one it is in.
pub(super) fn check_charset(content_type: &str) -> Result<(), Refusal> {
    let charset = content_type.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let Some(charset) = charset.filter(|charset| !charset.eq_ignore_ascii_case("utf-8")) else {
        return Ok(());
    };
    let detail = format!(
        "JSON is taken as UTF-8, not {:?}: leave charset out, or write charset=utf-8",
        shown(charset)
    );
    Err(Refusal::new(Code::UnsupportedMediaType, detail).header("Content-Type"))
}

/// Percent-decodes once; `None` when an escape is broken or the bytes are no UTF-8.
pub(super) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// One query parameter, decoded.
pub(super) type Parameter<'q> = (Cow<'q, str>, Cow<'q, str>);

/// The query parameters, all of which must be `known`.
pub(super) fn parameters<'u>(uri: &'u Uri, known: &[&str]) -> Result<Vec<Parameter<'u>>, Refusal> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !known.contains(&&*name) {
            let allowed = match known {
                [] => "none is taken here".to_owned(),
                known => format!("taken here: {}{}", known.join(", "), hint(&name, known.iter().copied())),
            };
            let detail = format!("{:?} is not a query parameter: {allowed}", shown(&name));
            return Err(Refusal::new(Code::UnknownParameter, detail).parameter(&shown(&name)));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// The value of a parameter that may be there once.
pub(super) fn once<'p>(parameters: &'p [Parameter<'_>], name: &str) -> Result<Option<&'p str>, Refusal> {
    let mut values = parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("the query parameter {name} is there twice");
        return Err(Refusal::new(Code::ContradictoryOptions, detail).parameter(name));
    }
    Ok(value)
}

/// `true` or `false`, else a refusal; absent means false.
pub(super) fn flag(parameters: &[Parameter<'_>], name: &str) -> Result<bool, Refusal> {
    match once(parameters, name)? {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let detail = format!("{name}={:?}: write true or false", shown(other));
            Err(Refusal::new(Code::InvalidValue, detail).parameter(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str, known: &[&str]) -> Result<Vec<(String, String)>, String> {
        let uri: Uri = format!("/x?{query}").parse().expect("a target");
        let found = parameters(&uri, known).map_err(|refusal| refusal.problem().detail.clone())?;
        Ok(found.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    #[test]
    fn a_segment_is_decoded_once_and_judged_then() {
        assert_eq!(queue_name("orders").expect("valid"), "orders");
        assert_eq!(queue_name("or%64ers").expect("valid"), "orders");
        for segment in [
            "", ".", "..", "%2e%2e", "a%2Fb", "a%00", "a%0d%0ab", "%", "%4", "%zz", "a%2541", "%ff", "*",
            "{q}", "-a", "_a", "a b", "a+b", "ä", "%C3%A4",
        ] {
            let refusal = queue_name(segment).expect_err(segment);
            assert_eq!(refusal.problem().known_code(), Some(Code::InvalidQueueName), "{segment}");
        }
        assert!(queue_name(&"a".repeat(128)).is_ok());
        let refusal = queue_name(&"a".repeat(129)).expect_err("too long");
        assert!(refusal.problem().detail.len() < 300);
    }

    #[test]
    fn only_known_parameters_pass_and_a_slip_is_recognised() {
        assert_eq!(names("", &[]), Ok(vec![]));
        assert_eq!(
            names("a=1&a=%32+x", &["a"]),
            Ok(vec![("a".into(), "1".into()), ("a".into(), "2 x".into())])
        );
        let expected = "\"b\" is not a query parameter: none is taken here";
        assert_eq!(names("b", &[]), Err(expected.to_owned()));
        let expected = "\"payloda\" is not a query parameter: taken here: payload; did you mean \"payload\"?";
        assert_eq!(names("payloda=1", &["payload"]), Err(expected.to_owned()));
    }

    #[test]
    fn a_flag_is_true_or_false_and_there_once() {
        let with = |values: &[&str]| {
            let parameters: Vec<Parameter<'_>> =
                values.iter().map(|value| ("f".into(), (*value).into())).collect();
            flag(&parameters, "f").map_err(|refusal| refusal.problem().code.clone().into_owned())
        };
        assert_eq!(with(&[]), Ok(false));
        assert_eq!(with(&["true"]), Ok(true));
        assert_eq!(with(&["false"]), Ok(false));
        assert_eq!(with(&["1"]), Err("invalid_value".to_owned()));
        assert_eq!(with(&[""]), Err("invalid_value".to_owned()));
        assert_eq!(with(&["true", "true"]), Err("contradictory_options".to_owned()));
    }
}
