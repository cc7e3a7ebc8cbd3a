//! Every key there is, drawn from the settings structs themselves, and the one that was perhaps meant.

use std::fmt;
use std::sync::LazyLock;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Settings;
use super::tree::dotted;
use crate::pipeline::lanes::settings::OriginSettings;

/// Every key of the configuration, dotted and sorted; those of a queue as `queue_defaults.…`.
pub static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut keys: Vec<_> = KNOWN.iter().map(|known| dotted(&known.path)).collect();
    keys.sort();
    keys
});

/// A key that takes a value.
#[derive(Debug)]
struct Known {
    path: Vec<&'static str>,
    /// Whether its value is a table with keys of the operator's choosing.
    is_map: bool,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut known = Vec::new();
    explore::<Settings>(&mut Vec::new(), &mut known);
    known
});

/// What may stand at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// A section, a queue, or a group of keys within one.
    Section,
    /// A key with a value.
    Leaf,
    /// A key whose value is a table with keys of the operator's choosing.
    Map,
    /// One of the keys in such a table.
    Entry,
    /// Nothing that is known.
    Unknown,
}

/// What may stand at a path.
pub(super) fn classify(path: &[String]) -> Class {
    let path = match path {
        [] => return Class::Section,
        [queues, ..] if queues == "queues" => {
            if path.len() <= 2 {
                return Class::Section;
            }
            as_default(path)
        }
        [lanes, name, own @ ..] if lanes == "lanes" && is_origin(name) => {
            return match own {
                [] => Class::Section,
                [key] if OriginSettings::KEYS.contains(&key.as_str()) => Class::Leaf,
                _ => Class::Unknown,
            };
        }
        _ => path.iter().map(String::as_str).collect(),
    };
    for known in KNOWN.iter() {
        if known.path == path {
            return if known.is_map { Class::Map } else { Class::Leaf };
        }
        if known.path.starts_with(&path) {
            return Class::Section;
        }
        if known.is_map && path.starts_with(&known.path) && path.len() == known.path.len() + 1 {
            return Class::Entry;
        }
    }
    Class::Unknown
}

/// Whether this is meant as an origin: `[lanes."https://shop.example"]`.
pub(super) fn is_origin(name: &str) -> bool {
    name.contains("://")
}

/// The path with a queue's own key as that of all queues.
fn as_default(path: &[String]) -> Vec<&str> {
    std::iter::once("queue_defaults").chain(path.iter().skip(2).map(String::as_str)).collect()
}

/// The refusal of a key that is unknown: the nearest one, and what is allowed in its place.
pub(super) fn unknown(path: &[String]) -> String {
    if let [lanes, name, own, ..] = path
        && lanes == "lanes"
        && is_origin(name)
    {
        let table = dotted(&path[..2]);
        let nearest = nearest_word(own, OriginSettings::KEYS.iter().copied());
        let nearest = nearest.map(|key| format!(", the nearest is {table}.{key}")).unwrap_or_default();
        return format!("no such key{nearest}; [{table}] has {}", OriginSettings::KEYS.join(", "));
    }
    let in_queue = path.first().is_some_and(|first| first == "queues") && path.len() > 2;
    let wanted = if in_queue { as_default(path) } else { path.iter().map(String::as_str).collect() };
    let (last, parents) = wanted.split_last().expect("an unknown key has a name");
    let in_same_place = KNOWN.iter().filter(|known| known.path.starts_with(parents));
    let mut siblings: Vec<&str> =
        in_same_place.filter_map(|known| known.path.get(parents.len()).copied()).collect();
    if parents.is_empty() {
        siblings.push("queues");
    }
    siblings.sort_unstable();
    siblings.dedup();
    let place = match path.split_last() {
        _ if siblings.is_empty() => "there is nothing below this".to_owned(),
        Some((_, table @ [_, ..])) => format!("[{}] has ", dotted(table)),
        _ => "the sections are ".to_owned(),
    };
    let own = |segments: &[&str]| {
        if in_queue {
            let owned = segments.iter().skip(1).copied();
            dotted(&path[..2].iter().map(String::as_str).chain(owned).collect::<Vec<_>>())
        } else {
            dotted(segments)
        }
    };
    let nearest = nearest_word(last, siblings.iter().copied())
        .map(|sibling| own(&parents.iter().copied().chain([sibling]).collect::<Vec<_>>()))
        .or_else(|| elsewhere(&wanted).map(own));
    let nearest = nearest.map(|key| format!(", the nearest is {key}")).unwrap_or_default();
    format!("no such key{nearest}; {place}{}", siblings.join(", "))
}

/// A key of the same name in another place, rather in the same section than in another; else one of a like full name.
fn elsewhere(wanted: &[&str]) -> Option<&'static [&'static str]> {
    let same_name = |known: &&Known| known.path.last() == wanted.last();
    let same_section = |known: &&Known| known.path.first() == wanted.first();
    let found = KNOWN
        .iter()
        .find(|known| same_name(known) && same_section(known))
        .or_else(|| KNOWN.iter().find(same_name));
    let found = found.or_else(|| {
        let full = wanted.join(".");
        let near = KNOWN.iter().map(|known| (similarity(&full, &known.path.join(".")), known));
        near.filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|near| near.1)
    });
    found.map(|known| &*known.path)
}

/// How alike two words must be, 0 to 1, for the one to be named as perhaps meant.
const LIKENESS_MIN: f64 = 0.6;

fn similarity(left: &str, right: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(left, right)
}

/// The word that was perhaps meant: the most alike of them, if one is alike at all.
pub(super) fn nearest_word<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    words
        .map(|candidate| (similarity(&word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// Collects the keys of `T` below `path`: asks the struct's own `Deserialize` for each field in turn.
fn explore<T: de::DeserializeOwned>(path: &mut Vec<&'static str>, known: &mut Vec<Known>) {
    match T::deserialize(Probe { rest: path }) {
        Err(Shape::Fields(fields)) => {
            for field in fields {
                path.push(field);
                explore::<T>(path, known);
                path.pop();
            }
        }
        Err(shape) => known.push(Known { path: path.clone(), is_map: matches!(shape, Shape::Map) }),
        Ok(_) => unreachable!("a probe never gives a value"),
    }
}

/// A deserializer that walks down to a path and answers, as its error, what is expected there.
struct Probe<'a> {
    rest: &'a [&'static str],
}

/// What is expected at a path.
#[derive(Debug)]
enum Shape {
    /// A struct with these fields.
    Fields(&'static [&'static str]),
    /// A table with any keys.
    Map,
    /// Anything else.
    Leaf,
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for Shape {}

impl de::Error for Shape {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Leaf
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Shape;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Shape> {
        Err(Shape::Leaf)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Shape> {
        match self.rest.split_first() {
            Some((field, rest)) => visitor.visit_map(OneField { field: Some(field), rest }),
            None => Err(Shape::Fields(fields)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Shape> {
        Err(Shape::Map)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Shape> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Shape> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct enum identifier ignored_any
    }
}

struct OneField<'a> {
    field: Option<&'static str>,
    rest: &'a [&'static str],
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Shape;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Shape> {
        let Some(field) = self.field.take() else { return Ok(None) };
        let field: StrDeserializer<'_, Shape> = field.into_deserializer();
        seed.deserialize(field).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Shape> {
        seed.deserialize(Probe { rest: self.rest })
    }
}
