//! Reading JSON strictly: one value, no key twice in an object, no more than 128 levels.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Text that is no JSON, or has a key twice.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Reads one JSON value and nothing behind it.
///
/// # Errors
/// What is wrong, with line and column. Never repeats more of the text than a key.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    serde_json::from_slice::<Strict>(text)
        .map(|strict| strict.0)
        .map_err(|error| JsonError(error.to_string()))
}

/// Reads one JSON object and nothing behind it; gives its fields in the order in which they stand there, or `None` for another
/// value.
///
/// # Errors
/// As [`parse`].
pub fn parse_object(text: &[u8]) -> Result<Option<Vec<(String, Value)>>, JsonError> {
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return parse(text).map(|_| None);
    }
    serde_json::from_slice::<Fields>(text)
        .map(|fields| Some(fields.0))
        .map_err(|error| JsonError(error.to_string()))
}

/// Adds the name of a field to a JSON pointer (RFC 6901).
#[must_use]
pub fn pointer(parent: &str, field: &str) -> String {
    format!("{parent}/{}", field.replace('~', "~0").replace('/', "~1"))
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StrictVisitor.deserialize(deserializer).map(Strict)
    }
}

/// The fields of an object, in their order.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(Fields)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut seen) = (Vec::new(), HashSet::new());
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(twice(&key));
            }
            let value = entries.next_value_seed(StrictVisitor)?;
            fields.push((key, value));
        }
        Ok(fields)
    }
}

fn twice<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("the key {key:?} is there twice"))
}

struct StrictVisitor;

impl<'de> DeserializeSeed<'de> for StrictVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(StrictVisitor)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(twice(&key));
            }
            let value = entries.next_value_seed(StrictVisitor)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &[u8]) -> String {
        parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_key_twice_is_refused_at_every_depth_and_in_every_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(refusal(text.as_bytes()).contains("the key \"a\" is there twice"), "{text}");
        }
        assert!(parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn the_fields_of_an_object_keep_their_order() {
        let text = br#" {"b":[{"z":1,"a":2}],"a":null} "#;
        let fields = parse_object(text).expect("JSON").expect("an object");
        assert_eq!(fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(parse_object(b" [1]"), Ok(None));
        for text in [&b"{\"a\":1,\"a\":2}"[..], b"{\"a\":{\"b\":1,\"b\":1}}", b"{} {}", b"{", b"", b"]"] {
            assert!(parse_object(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            &b""[..],
            b"{",
            b"{} {}",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"[1e999]",
            b"NaN",
            b"\"\xff\"",
            b"\"\\ud800\"",
            b"\xef\xbb\xbf{}",
            b"01",
        ] {
            assert!(parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
        assert!(refusal("[".repeat(1_000).as_bytes()).contains("recursion limit"));
    }

    #[test]
    fn a_pointer_escapes_what_means_something_in_it() {
        assert_eq!(pointer("", "a"), "/a");
        assert_eq!(pointer("/a", "b/c~d"), "/a/b~1c~0d");
    }

    proptest! {
        #[test]
        fn it_reads_what_was_written(text in ".{0,40}", number: i64, quarters: i32, flag: bool) {
            let value = serde_json::json!({"a": [text, number, null], "b": {"c": f64::from(quarters) / 4.0, "d": flag}});
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn it_agrees_with_serde_json_but_for_keys_twice(text in r#"[\[\]{}:,"a01.e -]{0,24}"#) {
            let theirs = serde_json::from_str::<Value>(&text);
            match parse(text.as_bytes()) {
                Ok(ours) => prop_assert_eq!(Some(ours), theirs.ok()),
                Err(error) => prop_assert!(theirs.is_err() || error.to_string().contains("twice")),
            }
        }
    }
}
