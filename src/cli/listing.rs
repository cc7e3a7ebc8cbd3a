//! Lists of the API: page after page until there is enough.

use clap::Args;

use crate::cli::client::{Answer, Client, ClientError, Item, Page};
use crate::cli::output::give_json;
use crate::cli::{Failure, say};

/// The most items the API gives at once.
const PAGE_MAX: usize = 1_000;

/// How much of a list, and how.
#[derive(Args)]
pub(super) struct ListArguments {
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Where the last list ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What was gathered of a list.
pub(super) struct Gathered<T> {
    /// The items.
    pub(super) items: Vec<Item<T>>,
    cursor: Option<String>,
}

impl ListArguments {
    /// Asks for pages until there is enough or no more.
    pub(super) fn gather<T>(
        &self,
        client: &Client,
        ask: &impl AsyncFn(usize, Option<&str>) -> Result<Answer<Page<T>>, ClientError>,
    ) -> Result<Gathered<T>, Failure> {
        let most = self.limit as usize;
        let mut gathered = Gathered { items: Vec::new(), cursor: self.cursor.clone() };
        loop {
            let wanted = (most - gathered.items.len()).min(PAGE_MAX);
            let page = client.block_on(ask(wanted, gathered.cursor.as_deref()))?.value;
            gathered.items.extend(page.items);
            gathered.cursor = page.cursor;
            if gathered.cursor.is_none() || gathered.items.len() >= most {
                return Ok(gathered);
            }
        }
    }
}

impl<T> Gathered<T> {
    /// As one page of the API.
    pub(super) fn give_json(&self) -> Result<(), Failure> {
        let items: Vec<&str> = self.items.iter().map(Item::text).collect();
        let cursor = self.cursor.as_ref().map(|cursor| format!(",\"cursor\":{}", serde_json::json!(cursor)));
        give_json(&format!("{{\"items\":[{}]{}}}", items.join(","), cursor.unwrap_or_default()))
    }

    /// Says how to go on when there is more.
    pub(super) fn say_more(&self) {
        if let Some(cursor) = &self.cursor {
            say(&format!("there may be more: --cursor {cursor}"));
        }
    }
}
