//! The secret of a queue that the API made: set, taken away, followed by another. It rests sealed, and is shown once when it is made
//! here.

use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{CACHE_CONTROL, HeaderValue};

use super::Call;
use super::queues::{CHANGES_MAX, changed_meanwhile, declared_in_file, target};
use crate::api::secret::{Rotate, Rotated, Shown};
use crate::api::settings::{SecretGiven, needs_file};
use crate::domain::queue::{QueueName, QueueSettings, Source};
use crate::domain::secret::{SecretKind, SecretSet, SecretText, SigningSecret};
use crate::http::answer::{self, Answer};
use crate::http::body::SizeLimit;
use crate::http::error::{Refusal, of_store};
use crate::http::state::State;
use crate::processor::signing::{Unsealed, new_secret, public_part, read_secret};
use crate::store::error::StoreError;
use crate::store::{Changed, QueueEntry};

/// Bytes of a rotation's body: several times what a secret takes.
const ROTATE_BYTES_MAX: SizeLimit = SizeLimit { bytes_max: 4 << 10, setting: None };

/// Gives a queue a new secret; the one before it signs as well for the overlap.
pub(super) async fn rotate(mut call: Call) -> Result<Answer, Refusal> {
    let name = target(&mut call, &[])?;
    let asked = Rotate::read(&call.json_or_nothing(ROTATE_BYTES_MAX).await?)?;
    let (desk, state) = (&call.desk, &call.desk.state);
    let given = asked.secret.as_ref().map(|text| read(state, text)).transpose()?;
    let mut entry = QueueEntry::clone(&*desk.queue_asked(name.as_str()).await?);
    let mut made: Option<SigningSecret> = None;
    for _ in 0..CHANGES_MAX {
        if entry.source == Source::File {
            return Err(declared_in_file());
        }
        let overlap = asked.overlap.unwrap_or(entry.settings.secret_overlap);
        let before = secrets_of(state, &name, &entry.settings, overlap)?;
        let new = match given.as_ref().or(made.as_ref()) {
            Some(secret) => secret.clone(),
            None => made.insert(make(&before)?).clone(),
        };
        let set = before.rotated(&new, state.gateway.clock.now(), overlap);
        let mut settings = QueueSettings::clone(&entry.settings);
        put_in(state, &name, &mut settings, &set)?;
        match desk.store.change_queue(entry.queue_ref(), entry.settings.clone(), settings.into()).await {
            Ok(Changed::Changed(entry)) => {
                state.gateway.catalog.put(entry);
                let secret = made.map(|secret| Shown(secret.text()));
                let (public_key, previous_until) = (public_part(&new), set.previous_until());
                let rotated = Rotated { queue: name, secret, public_key, previous_until };
                return Ok(unkept(answer::json(StatusCode::OK, &rotated)));
            }
            Ok(Changed::DeclaredInFile) => return Err(declared_in_file()),
            Ok(Changed::Otherwise(now)) => entry.settings = now,
            Err(StoreError::Gone) => entry = QueueEntry::clone(&*desk.queue_asked(name.as_str()).await?),
            Err(error) => return Err(of_store(&error)),
        }
    }
    Err(changed_meanwhile())
}

/// Does to `settings` what a PUT or a PATCH says of the secret; `before` is what the queue had.
pub(super) fn set(
    state: &State,
    name: &QueueName,
    settings: &mut QueueSettings,
    before: Option<&QueueSettings>,
    given: &SecretGiven,
) -> Result<(), Refusal> {
    match given {
        SecretGiven::Remove => {
            (settings.secret, settings.secret_file, settings.secret_env) = (None, None, None);
            Ok(())
        }
        SecretGiven::Text(text) => {
            let (new, overlap) = (read(state, text)?, settings.secret_overlap);
            let before = before.map(|before| secrets_of(state, name, before, overlap)).transpose()?;
            let set = before.unwrap_or_default().rotated(&new, state.gateway.clock.now(), overlap);
            put_in(state, name, settings, &set)
        }
    }
}

/// Reads a secret where one can be kept.
fn read(state: &State, text: &SecretText) -> Result<SigningSecret, Refusal> {
    if !state.gateway.keyring.can_seal() {
        return Err(unsealed(Unsealed::NoMasterKey));
    }
    read_secret(text.expose()).map_err(|why| crate::api::settings::out_of_range("secret", &why).into())
}

/// The secrets that a queue has. Those that are to end at once need not be had.
fn secrets_of(
    state: &State,
    name: &QueueName,
    settings: &QueueSettings,
    overlap: Duration,
) -> Result<SecretSet, Refusal> {
    match state.gateway.keyring.secrets(name, settings, state.gateway.clock.now()) {
        Ok(set) => Ok(set),
        Err(_) if overlap.is_zero() => Ok(SecretSet::default()),
        Err(why) => {
            let detail = format!("the secret that the queue has cannot be kept for the overlap: {why}");
            Err(needs_file("secret", &detail).into())
        }
    }
}

/// A new secret of the kind that the queue had.
fn make(before: &SecretSet) -> Result<SigningSecret, Refusal> {
    new_secret(before.newest().map_or(SecretKind::Hmac, SigningSecret::kind)).map_err(unsealed)
}

fn put_in(
    state: &State,
    name: &QueueName,
    settings: &mut QueueSettings,
    set: &SecretSet,
) -> Result<(), Refusal> {
    let sealed = state.gateway.keyring.seal(name, set).map_err(unsealed)?;
    (settings.secret, settings.secret_file, settings.secret_env) = (Some(sealed), None, None);
    Ok(())
}

fn unsealed(error: Unsealed) -> Refusal {
    match error {
        Unsealed::NoMasterKey => {
            let detail = format!(
                "{error}: either declare the queue in the configuration file, with secret_file, or give the gateway a master key, \
                 as secrets.master_key_file or POSTHASTE__SECRETS__MASTER_KEY (`openssl rand -base64 32` makes one)"
            );
            needs_file("secret", &detail).into()
        }
        Unsealed::NoRandom => Refusal::new(crate::api::Code::Internal, error.to_string()),
    }
}

/// The same for nobody on the way to keep.
fn unkept(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
