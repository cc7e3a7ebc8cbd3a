//! The door of a program that embeds the gateway: publish and status without a socket, by the same rules.

use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::api::code::Code;
use crate::api::{Problem, Published, Status};
use crate::domain::queue::QueueName;
use crate::http::Edge;
use crate::http::answer::RequestId;
use crate::http::error::{Accepted, Refusal};
use crate::http::publish::publish_here;
use crate::http::state::Desk;

/// One thread's door to the gateway. Clones are the same door.
#[derive(Clone)]
pub struct Door {
    edge: Edge,
    desk: Rc<Desk>,
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door on the current thread, with an ingester and a store connection of its own.
    #[must_use]
    pub fn open(edge: &Edge) -> Self {
        Self { edge: edge.clone(), desk: Desk::new(&edge.0) }
    }

    /// Publishes one message. The options are named and written like the headers of a publish over HTTP.
    ///
    /// # Errors
    /// The same problems in the same cases. Dropping the future does not take the message back.
    pub async fn publish(
        &self,
        queue: &str,
        options: &[(String, String)],
        payload: &[u8],
    ) -> Result<Published, Box<Problem>> {
        let id = RequestId::random();
        let mut is_keyed = false;
        let result = async {
            let headers = header_map(options)?;
            is_keyed = headers.contains_key("idempotency-key");
            publish_here(&self.desk, queue, &headers, payload).await
        };
        let (accepted, message) = result.await.map_err(|refusal| {
            let refusal = refusal.of_publish(is_keyed);
            refusal.log(id.as_str());
            let (mut problem, _, _) = refusal.into_parts();
            id.as_str().clone_into(&mut problem.request_id);
            Box::new(problem)
        })?;
        let queue = queue.parse().unwrap_or_else(|_| unreachable!("a message was accepted into it"));
        Ok(match accepted {
            Accepted::New => Published { id: message, queue, duplicate: false },
            Accepted::Duplicate(first) => Published { id: first[0], queue, duplicate: true },
        })
    }

    /// What `/status` says, of all queues or of those named.
    pub async fn status(&self, named: Option<&HashSet<QueueName>>) -> Status {
        self.edge.status(&*self.desk.store, named).await
    }
}

fn header_map(options: &[(String, String)]) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::with_capacity(options.len());
    for (name, value) in options {
        let wrong = |what: &str| Refusal::new(Code::InvalidValue, format!("{what} {name:?} is not possible"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("the option's name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| wrong("the value of the option").header(name))?;
        headers.append(key, value);
    }
    Ok(headers)
}
