//! Reads settings structs from a [`Table`](super::tree::Table) with serde, and knows at an error which key it is about.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserializer, Expected, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::keys;
use super::problem::Origin;
use super::tree::{self, Node, Table, Value};
use crate::api::mistake::{Notation, one_of, quoted};

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) struct ReadError {
    /// The key, innermost part first.
    reversed_path: Vec<String>,
    /// Where the value was given; absent when there is none.
    pub(super) origin: Option<Origin>,
    /// What is wrong and what is allowed.
    pub(super) detail: String,
    /// The same without the value, for secrets.
    pub(super) detail_hidden: String,
    /// What is there in the place of a whole number.
    pub(super) no_count: Option<Box<str>>,
}

impl ReadError {
    fn new(detail: String, detail_hidden: impl Into<String>) -> Self {
        let (reversed_path, detail_hidden) = (Vec::new(), detail_hidden.into());
        Self { reversed_path, origin: None, detail, detail_hidden, no_count: None }
    }

    /// The key within the table that was read.
    pub(super) fn path(&self) -> Vec<String> {
        self.reversed_path.iter().rev().cloned().collect()
    }

    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), "has a value that is not allowed (not shown, it is a secret)")
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (expected, found) = (Notation::Toml.expected(expected), Notation::Toml.found(unexpected));
        let error = Self::new(format!("must be {expected}, not {found}"), format!("must be {expected}"));
        let no_count = expected.starts_with("a whole number").then_some(found.into());
        Self { no_count, ..error }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let allowed = one_of(expected);
        let nearest = keys::nearest_word(variant, expected.iter().copied());
        let nearest = nearest.map(|word| format!("; the nearest is {word}")).unwrap_or_default();
        Self::new(format!("{allowed}, not {}{nearest}", quoted(variant)), allowed)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let detail = format!("no such key; there are {}", expected.join(", "));
        let mut error = Self::new(detail.clone(), detail);
        error.reversed_path.push(field.to_owned());
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new("is missing".to_owned(), "is missing");
        error.reversed_path.push(field.to_owned());
        error
    }
}

/// Reads `T` from a table; `origin` is the table's own.
pub(super) fn read<T: de::DeserializeOwned>(table: &Table, origin: &Origin) -> Result<T, ReadError> {
    T::deserialize(TableReader { table, origin })
}

struct TableReader<'a> {
    table: &'a Table,
    origin: &'a Origin,
}

impl<'de> Deserializer<'de> for TableReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let entries = Entries { entries: self.table.iter(), value: None };
        visitor.visit_map(entries).map_err(|error| error.at(self.origin))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Node>,
    value: Option<(&'a String, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.next();
        let Some((key, node)) = self.value else { return Ok(None) };
        let key_reader: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(key_reader).map(Some).map_err(|error| error.at(&node.origin))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, node) = self.value.take().expect("serde asks for a value only after its key");
        seed.deserialize(NodeReader(node)).map_err(|error| {
            let mut error = error.at(&node.origin);
            error.reversed_path.push(key.clone());
            error
        })
    }
}

struct NodeReader<'a>(&'a Node);

impl NodeReader<'_> {
    /// Reads text of the environment or of a flag as the TOML of a list or a table.
    fn nested(raw: &str, origin: &Origin) -> Option<Node> {
        let node = tree::parse_value(raw.trim(), origin)?;
        matches!(node.value, Value::List(_) | Value::Table(_)).then_some(node)
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Raw(raw) = &self.0.value else { return self.deserialize_any(visitor) };
        if let Ok(number) = raw.trim().parse::<u64>() {
            visitor.visit_u64(number)
        } else if let Ok(number) = raw.trim().parse::<i64>() {
            visitor.visit_i64(number)
        } else {
            Err(de::Error::invalid_type(Unexpected::Str(raw), &visitor))
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Raw(raw) = &self.0.value else { return self.deserialize_any(visitor) };
        match raw.trim().parse::<f64>() {
            Ok(number) => visitor.visit_f64(number),
            Err(_) => Err(de::Error::invalid_type(Unexpected::Str(raw), &visitor)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Raw(raw) => visitor.visit_str(raw),
            _ => self.deserialize_any(visitor),
        }
    }

    fn container<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Raw(raw) = &self.0.value else { return self.deserialize_any(visitor) };
        if let Some(node) = Self::nested(raw, &self.0.origin) {
            return NodeReader(&node).deserialize_any(visitor);
        }
        let expected = Notation::Toml.expected(&visitor);
        let detail =
            format!("must be {expected}, written as TOML: [400, 404], [\"a\", \"b\"] or {{ a = \"b\" }}");
        Err(ReadError::new(detail.clone(), detail))
    }
}

macro_rules! forward {
    ($to:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.$to(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Raw(raw) => match Self::nested(raw, &self.0.origin) {
                Some(node) => NodeReader(&node).deserialize_any(visitor),
                None => visitor.visit_str(raw),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Datetime => {
                Err(de::Error::invalid_type(Unexpected::Other("a date without quotes"), &visitor))
            }
            Value::List(nodes) => visitor.visit_seq(Elements { nodes: nodes.iter(), number: 0 }),
            Value::Table(table) => TableReader { table, origin: &self.0.origin }.deserialize_any(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Raw(raw) = &self.0.value else { return self.deserialize_any(visitor) };
        match raw.trim().parse::<bool>() {
            Ok(boolean) => visitor.visit_bool(boolean),
            Err(_) => Err(de::Error::invalid_type(Unexpected::Str(raw), &visitor)),
        }
    }

    /// An empty environment variable or flag unsets what may be absent.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Raw(raw) if raw.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Raw(text) | Value::String(text) => {
                let word: StrDeserializer<'_, ReadError> = text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            _ => {
                let detail = one_of(variants);
                Err(ReadError::new(detail.clone(), detail))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.container(visitor)
    }

    forward! { integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
    deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 }
    forward! { float: deserialize_f32 deserialize_f64 }
    forward! { text: deserialize_char deserialize_str deserialize_string deserialize_identifier }
    forward! { container: deserialize_seq deserialize_map }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct tuple tuple_struct ignored_any }
}

struct Elements<'a> {
    nodes: std::slice::Iter<'a, Node>,
    number: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = ReadError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        self.number += 1;
        seed.deserialize(NodeReader(node)).map(Some).map_err(|error| {
            let mut error = error.at(&node.origin);
            error.detail = format!("entry {}: {}", self.number, error.detail);
            error.no_count = None;
            error
        })
    }
}
