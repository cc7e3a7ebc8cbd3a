//! A page of a list.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<Item<T>>,
    /// Where the next one begins, if there may be one.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// An item of a list: what it says, and its JSON as it came.
pub struct Item<T> {
    value: T,
    text: Box<RawValue>,
}

impl<T> Item<T> {
    /// Its JSON as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.get()
    }
}

impl<T> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { value, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_keeps_what_this_version_does_not_know() {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let page: Page<Named> = serde_json::from_str(r#"{"items":[{"name":"a","new":1}]}"#).expect("a page");
        assert_eq!(page.items[0].name, "a");
        assert_eq!(page.items[0].text(), r#"{"name":"a","new":1}"#);
        assert!(page.cursor.is_none());
        assert!(serde_json::from_str::<Page<Named>>(r#"{"items":[{}]}"#).is_err());
    }
}
