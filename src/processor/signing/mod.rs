//! The secrets that deliveries are signed with, wherever they are: sealed in the store, in the configuration, in a file.
//!
//! A queue that has a secret is never delivered from unsigned: where this gateway cannot have the secret, its messages wait.

mod file;
mod seal;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ring::rand::{SecureRandom as _, SystemRandom};

use self::file::Watched;
use self::seal::{MasterKey, SealError};
use super::http::sign::{Signer, public_key_of};
use super::settings::SecretsSettings;
use crate::domain::queue::{QueueName, QueueSettings, SettingProblem};
use crate::domain::secret::{SEED_BYTES, SealedText, SecretKind, SecretSet, SecretSetting, SigningSecret};
use crate::domain::timestamp::Timestamp;

/// Queues whose signers and files are remembered; beyond, all are made anew.
const REMEMBERED_MAX: usize = 4_096;

/// Why a queue's deliveries cannot be signed here, and what would help. Shows no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsigned(String);

/// There is no master key, so that no secret can be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsealed {
    /// This gateway has no master key.
    #[error("this gateway has no master key to seal a secret with")]
    NoMasterKey,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// All secrets that a gateway has. Clones share them; usable from any thread. The default one has none.
#[derive(Clone, Default)]
pub struct Keyring(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The one that seals comes first.
    masters: Vec<MasterKey>,
    /// Those of declared queues, from the configuration and the environment.
    declared: HashMap<QueueName, SecretSet>,
    opened: Mutex<HashMap<QueueName, Opened>>,
    files: Mutex<HashMap<QueueName, Watched>>,
}

/// What came of a queue's settings.
struct Opened {
    settings: Arc<QueueSettings>,
    signer: Result<Arc<Signer>, Unsigned>,
}

impl Opened {
    /// Other settings may have the same secret, and the same settings come from the store anew.
    fn holds_for(&self, settings: &Arc<QueueSettings>) -> bool {
        let known = &self.settings;
        Arc::ptr_eq(known, settings)
            || (known.secret == settings.secret && known.secret_env == settings.secret_env)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keyring").field("can_seal", &self.can_seal()).finish_non_exhaustive()
    }
}

/// A keyring in the making: everything wrong is found before any of it is used.
#[derive(Default)]
pub struct Gathering {
    masters: Vec<MasterKey>,
    declared: HashMap<QueueName, SecretSet>,
}

impl Gathering {
    /// Reads the master keys.
    pub fn read_masters(&mut self, settings: &SecretsSettings) -> Vec<SettingProblem> {
        let given = settings.master_key.as_ref().map(|text| Ok(text.expose().to_owned()));
        let file =
            |path: &String| file::read(path).map_err(|error| format!("{path:?} cannot be read: {error}"));
        let keys = [
            ("master_key", given),
            ("master_key_file", settings.master_key_file.as_ref().map(file)),
            ("master_key_file_old", settings.master_key_file_old.as_ref().map(file)),
        ];
        let mut problems = Vec::new();
        for (key, text) in keys {
            let Some(text) = text else { continue };
            let help =
                "does not give 32 bytes of base64 (not shown): make a key with `openssl rand -base64 32`";
            match text.map(zeroize::Zeroizing::new).map(|text| MasterKey::parse(&text)) {
                Ok(Some(master)) => self.masters.push(master),
                Ok(None) => problems.push(SettingProblem { key, detail: help.to_owned() }),
                Err(detail) => problems.push(SettingProblem { key, detail }),
            }
        }
        if settings.master_key.is_none() && settings.master_key_file.is_none() && !self.masters.is_empty() {
            let detail = "is of no use without a new key: set master_key_file as well".to_owned();
            problems.push(SettingProblem { key: "master_key_file_old", detail });
        }
        problems
    }

    /// Reads the secret of a queue that the configuration declares; `variable` gives what the environment has under a name.
    pub fn read_declared(
        &mut self,
        queue: &QueueName,
        settings: &QueueSettings,
        variable: impl FnOnce(&str) -> Option<String>,
    ) -> Option<SettingProblem> {
        let (key, secrets) = match (&settings.secret, &settings.secret_file, &settings.secret_env) {
            (Some(SecretSetting::Given(text)), ..) => {
                ("secret", SigningSecret::parse_all(text.expose()).map_err(|error| error.to_string()))
            }
            (_, Some(path), _) => ("secret_file", file::secrets(path)),
            (.., Some(name)) => {
                let text = variable(name).map(zeroize::Zeroizing::new);
                let text = text.ok_or_else(|| format!("there is no variable {name:?} in the environment"));
                let read = |text: zeroize::Zeroizing<String>| {
                    SigningSecret::parse_all(&text)
                        .map_err(|error| format!("what the variable {name:?} holds {error}"))
                };
                ("secret_env", text.and_then(read))
            }
            _ => return None,
        };
        let set = secrets.map(SecretSet::lasting);
        match set.and_then(|set| Signer::new(&set).map(|_| set).map_err(|error| error.to_string())) {
            Ok(set) => {
                // A file is read again from time to time.
                if key != "secret_file" {
                    self.declared.insert(queue.clone(), set);
                }
                None
            }
            Err(detail) => Some(SettingProblem { key, detail }),
        }
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> Keyring {
        let Self { masters, declared } = self;
        Keyring(Arc::new(Shared { masters, declared, ..Shared::default() }))
    }
}

impl Keyring {
    /// Whether a secret can be sealed: there is a master key.
    #[must_use]
    pub fn can_seal(&self) -> bool {
        !self.0.masters.is_empty()
    }

    /// Seals the secrets of a queue for the store.
    ///
    /// # Errors
    /// See [`Unsealed`].
    pub fn seal(&self, queue: &QueueName, set: &SecretSet) -> Result<SecretSetting, Unsealed> {
        let master = self.0.masters.first().ok_or(Unsealed::NoMasterKey)?;
        master.seal(queue, set).map(SecretSetting::Sealed).ok_or(Unsealed::NoRandom)
    }

    /// What signs the deliveries of a queue that begin `at`; `None` where they are not signed.
    ///
    /// # Errors
    /// There is a secret, and this gateway cannot have it.
    pub fn signer(
        &self,
        queue: &QueueName,
        settings: &Arc<QueueSettings>,
        at: Timestamp,
    ) -> Result<Option<Arc<Signer>>, Unsigned> {
        if !settings.is_signed() {
            return Ok(None);
        }
        if let (None, Some(path)) = (&settings.secret, &settings.secret_file) {
            return self
                .watch(queue, path, settings, at, |watched| {
                    watched.signer(queue.as_str(), at, settings.secret_overlap, Instant::now())
                })
                .map(Some);
        }
        let mut opened = lock(&self.0.opened);
        if let Some(known) = opened.get(queue).filter(|known| known.holds_for(settings)) {
            return known.signer.clone().map(Some);
        }
        if opened.len() >= REMEMBERED_MAX {
            opened.clear();
        }
        let signer = self.fixed(queue, settings).and_then(|set| {
            Signer::new(&set).map(Arc::new).map_err(|error| Unsigned(format!("what was kept {error}")))
        });
        if let Err(why) = &signer {
            log::warn!("queue.name" = queue.as_str(), "cause" = why.0.as_str(); "deliveries cannot be signed, so none is made");
        }
        opened.insert(queue.clone(), Opened { settings: settings.clone(), signer: signer.clone() });
        signer.map(Some)
    }

    /// The secrets of a queue as they are now; empty where there are none.
    ///
    /// # Errors
    /// As [`signer`](Self::signer).
    pub fn secrets(
        &self,
        queue: &QueueName,
        settings: &QueueSettings,
        at: Timestamp,
    ) -> Result<SecretSet, Unsigned> {
        match (&settings.secret, &settings.secret_file) {
            _ if !settings.is_signed() => Ok(SecretSet::default()),
            (None, Some(path)) => self.watch(queue, path, settings, at, |watched| watched.set()),
            _ => self.fixed(queue, settings),
        }
    }

    /// Whether deliveries of the queue may be signed here some time without a change of its settings. What is in a file may come any
    /// moment; what is not in the keyring stays away.
    #[must_use]
    pub fn may_sign(&self, queue: &QueueName, settings: &Arc<QueueSettings>) -> bool {
        let is_file = settings.secret.is_none() && settings.secret_file.is_some();
        !settings.is_signed() || is_file || self.signer(queue, settings, Timestamp::default()).is_ok()
    }

    fn watch<T>(
        &self,
        queue: &QueueName,
        path: &str,
        settings: &QueueSettings,
        at: Timestamp,
        ask: impl FnOnce(&mut Watched) -> T,
    ) -> T {
        let mut files = lock(&self.0.files);
        let make = || Watched::new(path, queue.as_str(), at, settings.secret_overlap, Instant::now());
        if files.len() >= REMEMBERED_MAX {
            files.clear();
        }
        let watched = files.entry(queue.clone()).or_insert_with(make);
        if watched.path != path {
            *watched = make();
        }
        ask(watched)
    }

    /// Secrets that are not in a file.
    fn fixed(&self, queue: &QueueName, settings: &QueueSettings) -> Result<SecretSet, Unsigned> {
        let anew =
            "declare the queue here as well, or give it a new one: POST its /secret with \"overlap\": \"0s\"";
        match &settings.secret {
            Some(SecretSetting::Sealed(sealed)) => self.open(queue, sealed),
            Some(SecretSetting::Given(text)) => SigningSecret::parse_all(text.expose())
                .map(SecretSet::lasting)
                .map_err(|error| Unsigned(format!("secret: {error}"))),
            Some(SecretSetting::Declared) => self.0.declared.get(queue).cloned().ok_or_else(|| {
                Unsigned(format!(
                    "its secret is in a configuration file that this gateway does not have: {anew}"
                ))
            }),
            None => self.0.declared.get(queue).cloned().ok_or_else(|| {
                let name = settings.secret_env.as_deref().unwrap_or_default();
                Unsigned(format!(
                    "its secret is in the variable {name:?} of a gateway that declares it: {anew}"
                ))
            }),
        }
    }

    fn open(&self, queue: &QueueName, sealed: &SealedText) -> Result<SecretSet, Unsigned> {
        seal::open(&self.0.masters, queue, sealed).map_err(|error| {
            let help = match error {
                SealError::OtherKey if self.can_seal() => {
                    "give it that key, as secrets.master_key_file_old, or the queue a new secret: POST its /secret with \"overlap\": \"0s\""
                }
                SealError::OtherKey => "give it that key: secrets.master_key_file or POSTHASTE__SECRETS__MASTER_KEY",
                SealError::Damaged => "give the queue a new secret: POST its /secret with \"overlap\": \"0s\"",
            };
            Unsigned(format!("{error}: {help}"))
        })
    }
}

/// Reads one secret of a caller, and makes sure that it can sign.
///
/// # Errors
/// What is wrong with it, without showing it.
pub fn read_secret(text: &str) -> Result<SigningSecret, String> {
    let secret = SigningSecret::parse(text).map_err(|error| error.to_string())?;
    let set = SecretSet::lasting(vec![secret.clone()]);
    Signer::new(&set).map(|_| secret).map_err(|error| error.to_string())
}

/// Makes a new secret from the system's randomness.
///
/// # Errors
/// [`Unsealed::NoRandom`].
pub fn new_secret(kind: SecretKind) -> Result<SigningSecret, Unsealed> {
    let mut bytes = zeroize::Zeroizing::new([0; SEED_BYTES]);
    SystemRandom::new().fill(&mut bytes[..]).map_err(|_| Unsealed::NoRandom)?;
    Ok(SigningSecret::from_random(kind, &bytes))
}

/// What a receiver is given of an ed25519 secret: its public key. `None` for HMAC, where the receiver has the secret itself.
#[must_use]
pub fn public_part(secret: &SigningSecret) -> Option<String> {
    public_key_of(secret)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
