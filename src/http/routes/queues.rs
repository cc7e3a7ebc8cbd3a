//! Queues: showing one, making or replacing one.

use actix_http::StatusCode;

use super::Call;
use crate::api::code::Code;
use crate::api::json;
use crate::api::nearest::hint;
use crate::api::queue::{self, Queue};
use crate::domain::header::never;
use crate::domain::queue::{HTTP, QueueName, QueueSettings};
use crate::http::answer::{self, Answer};
use crate::http::body::{self, SizeLimit};
use crate::http::error::{Refusal, of_store};
use crate::http::extract::{json_type, parameters, queue_name, shown};
use crate::http::state::State;
use crate::store::{Put, QueueEntry};

/// Bytes of a PUT: several times what every setting at its longest takes.
const SETTINGS_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 64 << 10, setting: None };

/// Shows a queue with its settings.
pub(super) async fn show(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    parameters(call.request.uri(), &[])?;
    let entry = call.desk.queue(&name).await?;
    Ok(answer::json(StatusCode::OK, &shape(&entry)))
}

/// Makes a queue, or replaces the settings of one.
pub(super) async fn put(call: Call) -> Result<Answer, Refusal> {
    let name = match target(&call) {
        Ok(name) => name,
        Err(refusal) => return Err(refusal.unread(call.payload)),
    };
    let Call { desk, request, payload, connection, .. } = call;
    let (state, headers) = (&desk.state, request.headers());
    let body =
        body::read(payload, headers, SETTINGS_BYTES_MAX, state.limits(), &state.bodies, &connection).await?;
    let settings = queue::read_settings(&body.bytes, &state.gateway.queue_defaults)?;
    check(state, &settings).await?;
    match desk.store.put_queue(name, settings.into()).await.map_err(|error| of_store(&error))? {
        Put::Created(entry) => {
            let path = format!("/v1/queues/{}", entry.name);
            Ok(answer::at(put_answer(state, StatusCode::CREATED, entry), &path))
        }
        Put::Updated(entry) => Ok(put_answer(state, StatusCode::OK, entry)),
        Put::DeclaredInFile => {
            let detail = "the operator's configuration file declares this queue: change it there";
            Err(Refusal::new(Code::QueueDeclaredInFile, detail))
        }
    }
}

fn put_answer(state: &State, status: StatusCode, entry: QueueEntry) -> Answer {
    let answer = answer::json(status, &shape(&entry));
    state.gateway.catalog.put(entry);
    answer
}

/// Which queue is meant; refuses what cannot be right whatever the body says.
fn target(call: &Call) -> Result<QueueName, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    parameters(call.request.uri(), &[])?;
    json_type(call.request.headers(), "settings are")?;
    Ok(name.parse().expect("queue_name gives valid names only"))
}

/// What the rest of the gateway has to say about settings that are well-formed.
async fn check(state: &State, settings: &QueueSettings) -> Result<(), Refusal> {
    let known = &state.gateway.processors;
    if !known.contains(&settings.processor) {
        let hint = hint(&settings.processor, known.iter().map(String::as_str));
        let (name, known) = (shown(&settings.processor), known.join(", "));
        let detail = format!("there is no processor {name:?}, but {known}{hint}");
        return Err(queue::out_of_range("processor", &detail).into());
    }
    for name in settings.delivery.headers.keys() {
        if never(&name.to_ascii_lowercase()).is_some() {
            let pointer = json::pointer("/delivery/headers", name);
            let detail = format!(
                "{:?} is not for a queue to set: it frames the request or is the gateway's own",
                shown(name)
            );
            return Err(Refusal::new(Code::HeaderNotForwardable, detail).pointer(pointer));
        }
    }
    if settings.processor == HTTP
        && let Some(destination) = &settings.destination
        && let Err(why) = (state.gateway.judge_destination)(destination.clone()).await
    {
        let refusal = Refusal::new(Code::DestinationRefused, why).pointer("/destination");
        return Err(refusal.setting("destination", None));
    }
    Ok(())
}

/// The queue as the API shows it.
fn shape(entry: &QueueEntry) -> Queue {
    let queue = Queue {
        name: entry.name.clone(),
        source: entry.source,
        paused: entry.paused,
        parked: entry.parked,
        signed: false,
        settings: QueueSettings::clone(&entry.settings),
    };
    queue.masked()
}
