//! Calls about dead letters.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::queue::with_json;
use super::{Answer, Client, ClientError, Page, with_query};
use crate::api::dead::{
    DeadGroups, DeadItem, DeadMessage, Discard, Filter, GroupBy, Replay, ReplaySelection,
};
use crate::domain::id::MessageId;
use crate::domain::queue::QueueName;

impl Client {
    /// `GET …/dead`: so many of the dead letters that are meant, the oldest death first, behind that cursor.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dead(
        &self,
        queue: &QueueName,
        filter: &Filter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Answer<Page<DeadItem>>, ClientError> {
        let mut parameters = parameters(filter);
        parameters.push(("limit", limit.to_string()));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.ask(self.queue_request(Method::GET, queue, &with_query("/dead", &parameters))).await
    }

    /// `GET …/dead/{id}`: one in full, with its payload.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dead_message(
        &self,
        queue: &QueueName,
        id: MessageId,
    ) -> Result<Answer<DeadMessage>, ClientError> {
        self.ask(self.queue_request(Method::GET, queue, &format!("/dead/{id}"))).await
    }

    /// `GET …/dead/groups`: how many there are of each kind.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dead_groups(
        &self,
        queue: &QueueName,
        by: GroupBy,
    ) -> Result<Answer<DeadGroups>, ClientError> {
        let word = GroupBy::ALL.into_iter().find(|(_, known)| *known == by).map_or("", |(word, _)| word);
        self.ask(self.queue_request(Method::GET, queue, &format!("/dead/groups?by={word}"))).await
    }

    /// `POST …/dead/replay`: puts dead letters back into their queue, or only counts them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay(
        &self,
        queue: &QueueName,
        selection: &ReplaySelection,
        dry_run: bool,
    ) -> Result<Answer<Replay>, ClientError> {
        let mut body = match selection {
            ReplaySelection::Ids(ids) => json!({ "ids": ids }),
            ReplaySelection::Filter(filter) => json!({ "filter": fields(filter) }),
        };
        if dry_run {
            body["dry_run"] = Value::Bool(true);
        }
        self.ask(with_json(self.queue_request(Method::POST, queue, "/dead/replay"), &body)).await
    }

    /// `DELETE …/dead`: throws away for good the dead letters that are meant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard(&self, queue: &QueueName, filter: &Filter) -> Result<Answer<Discard>, ClientError> {
        let path = with_query("/dead", &parameters(filter));
        self.ask(self.queue_request(Method::DELETE, queue, &path)).await
    }

    /// `DELETE …/dead/{id}`: throws away one for good.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard_one(&self, queue: &QueueName, id: MessageId) -> Result<(), ClientError> {
        self.order(self.queue_request(Method::DELETE, queue, &format!("/dead/{id}"))).await
    }
}

fn fields(filter: &Filter) -> Map<String, Value> {
    match serde_json::to_value(filter) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The filter as query parameters.
fn parameters(filter: &Filter) -> Vec<(&'static str, String)> {
    let fields = fields(filter);
    let text = |name: &str| {
        let value = fields.get(name)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    Filter::FIELDS.into_iter().filter_map(|name| Some((name, text(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_the_same_as_parameters_and_as_json() {
        let mut filter = Filter::default();
        filter.set("status", "503").expect("a status");
        filter.set("from", "2026-11-22T13:25:00+01:00").expect("a time");
        let expected = [("status", "503".to_owned()), ("from", "2026-11-22T12:25:00.000Z".to_owned())];
        assert_eq!(parameters(&filter), expected);
        assert_eq!(Value::from(fields(&filter)), json!({"status": 503, "from": "2026-11-22T12:25:00.000Z"}));
    }
}
