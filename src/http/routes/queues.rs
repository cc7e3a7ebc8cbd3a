//! Queues: listing them, showing one, making, changing and deleting one.

use actix_http::StatusCode;

use super::Call;
use crate::api::code::Code;
use crate::api::json;
use crate::api::nearest::hint;
use crate::api::queue::Queue;
use crate::api::settings::{self, SecretGiven, SettingsGiven};
use crate::api::status::Warning;
use crate::domain::header::never;
use crate::domain::queue::{HTTP, QueueName, QueueSettings, Source};
use crate::http::answer::{self, Answer};
use crate::http::body::SizeLimit;
use crate::http::error::{Refusal, of_store};
use crate::http::extract::{flag, parameters, queue_name, shown};
use crate::http::list::{self, Scope};
use crate::http::state::{Occasion, State};
use crate::store::error::StoreError;
use crate::store::{Changed, Deleted, Put, QueueEntry};

/// Bytes of a PUT or PATCH: several times what every setting at its longest takes.
const SETTINGS_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 64 << 10, setting: None };
/// Times that a change is made anew because somebody else's came first: at each of them somebody's change succeeded.
pub(super) const CHANGES_MAX: usize = 20;

/// Lists the queues by name, as the store has them now.
pub(super) async fn list(call: Call) -> Result<Answer, Refusal> {
    let parameters = parameters(call.request.uri(), &["limit", "cursor"])?;
    let now = call.desk.state.gateway.clock.now();
    let scope = Scope::of(&["queues"]);
    let (limit, after) = (list::limit(&parameters)?, scope.position(&parameters, now)?);
    let mut entries = call.desk.queues().await?;
    if let Some(after) = after {
        entries.retain(|entry| entry.name.as_str() > after.as_str());
    }
    let is_last = entries.len() <= limit;
    entries.truncate(limit);
    let cursor = entries.last().filter(|_| !is_last).map(|last| scope.cursor(last.name.as_str(), now));
    Ok(list::page(entries.iter().map(shape), cursor).await)
}

/// Shows a queue with its settings.
pub(super) async fn show(call: Call) -> Result<Answer, Refusal> {
    let name = queue_name(call.segment("queue"))?;
    parameters(call.request.uri(), &[])?;
    let entry = call.desk.queue(&name).await?;
    Ok(answer::json(StatusCode::OK, &shape(&entry)))
}

/// Makes a queue, or replaces the settings of one.
pub(super) async fn put(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    let body = call.json(SETTINGS_BYTES_MAX).await?;
    let given = SettingsGiven::of_put(&body)?;
    let (desk, state) = (&call.desk, &call.desk.state);
    if given.has_shown() {
        let now = match desk.queue(name.as_str()).await {
            Ok(entry) => Some(shape(&entry)),
            Err(refusal) if refusal.code() == Code::QueueUnknown => None,
            Err(refusal) => return Err(refusal),
        };
        given.check_shown(&name, now.as_ref())?;
    }
    let settings = given.put(&state.gateway.queue_defaults)?;
    desk.check_store()?;
    let warnings = check(state, &settings, None).await?;
    match put_with_secret(&call, &name, settings, given.secret()).await? {
        Put::Created(entry) => {
            let path = format!("/v1/queues/{}", entry.name);
            Ok(answer::at(known(state, StatusCode::CREATED, entry, warnings), &path))
        }
        Put::Updated(entry) => Ok(known(state, StatusCode::OK, entry, warnings)),
        Put::DeclaredInFile => Err(declared_in_file()),
    }
}

/// Makes a queue or replaces its settings; without a word of the secret the store leaves it the one it has. A secret that follows
/// another one is made from that, so the store takes it only of the settings that had that one.
async fn put_with_secret(
    call: &Call,
    name: &QueueName,
    settings: QueueSettings,
    secret: Option<&SecretGiven>,
) -> Result<Put, Refusal> {
    let (desk, state) = (&call.desk, &call.desk.state);
    let put = async |settings: QueueSettings| {
        desk.store.put_queue(name.clone(), settings.into()).await.map_err(|error| of_store(&error))
    };
    let find = async || match desk.queue_asked(name.as_str()).await {
        Ok(entry) => Ok(Some(QueueEntry::clone(&entry))),
        Err(refusal) if refusal.code() == Code::QueueUnknown => Ok(None),
        Err(refusal) => Err(refusal),
    };
    let Some(given) = secret else { return put(settings).await };
    let mut found = find().await?;
    for _ in 0..CHANGES_MAX {
        let mut settings = settings.clone();
        let Some(entry) = &mut found else {
            super::secret::set(state, name, &mut settings, None, given)?;
            return put(settings).await;
        };
        if entry.source == Source::File {
            return Ok(Put::DeclaredInFile);
        }
        super::secret::set(state, name, &mut settings, Some(&entry.settings), given)?;
        match desk.store.change_queue(entry.queue_ref(), entry.settings.clone(), settings.into()).await {
            Ok(Changed::Changed(entry)) => return Ok(Put::Updated(entry)),
            Ok(Changed::DeclaredInFile) => return Ok(Put::DeclaredInFile),
            Ok(Changed::Otherwise(now)) => entry.settings = now,
            Err(StoreError::Gone) => found = find().await?,
            Err(error) => return Err(of_store(&error)),
        }
    }
    Err(changed_meanwhile())
}

/// Changes some settings of a queue. Whoever changes it at the same time, here or through another gateway, does not undo it:
/// the store takes the change only of the settings that it was made from.
pub(super) async fn patch(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    let body = call.json(SETTINGS_BYTES_MAX).await?;
    let given = SettingsGiven::of_patch(&body)?;
    let (desk, state) = (&call.desk, &call.desk.state);
    let mut entry = QueueEntry::clone(&*desk.queue_asked(name.as_str()).await?);
    for _ in 0..CHANGES_MAX {
        if entry.source == Source::File {
            return Err(declared_in_file());
        }
        given.check_shown(&name, Some(&shape(&entry)))?;
        let mut settings = given.patch(&entry.settings, &state.gateway.queue_defaults)?;
        if let Some(secret) = given.secret() {
            super::secret::set(state, &name, &mut settings, Some(&entry.settings), secret)?;
        }
        let warnings = check(state, &settings, Some(&entry.settings)).await?;
        let (queue, was) = (entry.queue_ref(), entry.settings.clone());
        match desk.store.change_queue(queue, was, settings.into()).await {
            Ok(Changed::Changed(entry)) => return Ok(known(state, StatusCode::OK, entry, warnings)),
            Ok(Changed::DeclaredInFile) => return Err(declared_in_file()),
            Ok(Changed::Otherwise(now)) => entry.settings = now,
            Err(StoreError::Gone) => entry = QueueEntry::clone(&*desk.queue_asked(name.as_str()).await?),
            Err(error) => return Err(of_store(&error)),
        }
    }
    Err(changed_meanwhile())
}

pub(super) fn changed_meanwhile() -> Refusal {
    let detail = format!("others changed the queue {CHANGES_MAX} times meanwhile; nothing was changed");
    Refusal::new(Code::Overloaded, detail)
}

/// Deletes a queue: one that is empty, or with `force` all that is in it too.
pub(super) async fn delete(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &["force"])?;
    let parameters = parameters(call.request.uri(), &["force"]).map(|parameters| flag(&parameters, "force"));
    let force = call.unread(parameters.flatten())?;
    call.nothing().await?;
    let desk = &call.desk;
    let delete = async |entry: &QueueEntry| desk.store.delete_queue(entry.queue_ref(), force).await;
    match desk.on_queue(name.as_str(), delete).await?.1 {
        Deleted::Deleted => {
            desk.state.gateway.catalog.remove(&name);
            Ok(answer::nothing())
        }
        Deleted::NotEmpty => {
            let detail = "the queue holds messages, pending, scheduled, leased or dead: empty it first, or delete it with \
                          all that is in it by ?force=true";
            Err(Refusal::new(Code::QueueNotEmpty, detail).parameter("force"))
        }
        Deleted::DeclaredInFile => Err(declared_in_file()),
    }
}

/// The answer that shows a queue as it is now, which is known here from now on.
pub(super) fn known(state: &State, status: StatusCode, entry: QueueEntry, warnings: Vec<Warning>) -> Answer {
    let answer = answer::json(status, &Queue { warnings, ..shape(&entry) });
    state.gateway.catalog.put(entry);
    answer
}

pub(super) fn declared_in_file() -> Refusal {
    let detail = "the operator's configuration file declares this queue: change it there";
    Refusal::new(Code::QueueDeclaredInFile, detail)
}

/// Which queue is meant; refuses what cannot be right whatever the body says.
pub(super) fn target(call: &mut Call, known: &[&str]) -> Result<QueueName, Refusal> {
    let name = queue_name(call.segment("queue")).map(|name| name.parse());
    let checked = name.and_then(|name| parameters(call.request.uri(), known).map(|_| name));
    Ok(call.unread(checked)?.expect("queue_name gives valid names only"))
}

/// What the rest of the gateway has to say about settings that are well-formed, and what it warns of. A destination that stays is
/// not judged again: it would keep the rest from being changed.
async fn check(
    state: &State,
    settings: &QueueSettings,
    before: Option<&QueueSettings>,
) -> Result<Vec<Warning>, Refusal> {
    let known = &state.gateway.processors;
    if !known.contains(&settings.processor) {
        let hint = hint(&settings.processor, known.iter().map(String::as_str));
        let (name, known) = (shown(&settings.processor), known.join(", "));
        let detail = format!("there is no processor {name:?}, but {known}{hint}");
        return Err(settings::out_of_range("processor", &detail).into());
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
    let is_new = before.is_none_or(|before| {
        (&before.processor, &before.destination) != (&settings.processor, &settings.destination)
    });
    let destination = settings.destination.as_ref().filter(|_| is_new && settings.processor == HTTP);
    let Some(destination) = destination else { return Ok(Vec::new()) };
    match (state.gateway.judge_destination)(destination.clone(), Occasion::Set).await {
        Ok(unresolved) => Ok(unresolved.map(|cause| unresolved_now(&cause)).into_iter().collect()),
        Err(why) => {
            let refusal = Refusal::new(Code::DestinationRefused, why).pointer("/destination");
            Err(refusal.setting("destination", None))
        }
    }
}

/// What whoever sets a destination is told of its name.
fn unresolved_now(cause: &str) -> Warning {
    let detail = format!(
        "destination: {cause}; it is kept, and until the name resolves its deliveries are attempts that fail as dns"
    );
    Warning { code: "destination_unresolved".into(), detail }
}

/// The queue as the API shows it.
fn shape(entry: &QueueEntry) -> Queue {
    let queue = Queue {
        name: entry.name.clone(),
        source: entry.source,
        paused: entry.paused,
        parked: entry.parked,
        signed: entry.settings.is_signed(),
        secret_set: entry.settings.is_signed(),
        warnings: Vec::new(),
        settings: QueueSettings::clone(&entry.settings),
    };
    queue.masked()
}
