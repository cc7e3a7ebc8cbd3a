//! One page of a list.

use serde::{Deserialize, Serialize};

/// One page of a list: what `GET` of something plural answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct List<T> {
    /// The things, in the order of the list. A page may have few or none and still not be the last.
    pub items: Vec<T>,
    /// Where the next page begins: opaque, to be given back as `?cursor=` within an hour; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl<T> List<T> {
    /// Things on a page where nothing is said.
    pub const LIMIT: usize = 100;
    /// Things on a page at most.
    pub const LIMIT_MAX: usize = 1_000;
}
