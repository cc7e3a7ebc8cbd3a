//! Gathers the settings of every component from the built-in file, files, the environment and flags.
//!
//! Each layer overrides those before it, key by key: the file that is compiled in (`config/default.toml`, which is the
//! manual as well), then each `--config FILE`, then the environment, then flags. Tables are merged, everything else is
//! replaced. Dotted keys and sub-tables are the same.
//!
//! **Environment.** `POSTHASTE__SECTION__KEY` sets `section.key`: the names of keys in any case, a queue's name as it is
//! written (`POSTHASTE__QUEUES__mail__RETRY__JITTER` sets `queues.mail.retry.jitter`), so a queue with `__` in its name
//! cannot be set this way. The text is read by the key's type; lists and tables are TOML (`[400, 404]`, `{ a = "b" }`);
//! an empty text unsets a key that may be absent. `--set section.key=value` reads its value the same way.
//!
//! **Queues.** A queue's table is laid over `[queue_defaults]`.
//!
//! **Lanes.** `[lanes."https://shop.example"]` is what holds for one origin.
//!
//! **Problems.** All that is wrong is reported at once, each with its origin, the key's full name and what is allowed.
//! No secret is ever shown.

mod check;
mod keys;
mod layers;
mod load;
mod print;
mod problem;
mod reader;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::queue::{QueueName, QueueNameError, QueueSettings};
use crate::http::settings::ServerSettings;
use crate::pipeline::lanes::settings::LaneSettings;
use crate::pipeline::settings::{IngestSettings, WorkerSettings};
use crate::processor::settings::{EgressSettings, SecretsSettings};
use crate::store::settings::StoreSettings;
use crate::telemetry::LogSettings;

pub use keys::KEYS;
pub use problem::{Origin, Problem, Problems};

/// The effective settings: a field for each section of the file.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[server]`: where to listen, and the limits over all queues.
    pub server: ServerSettings,
    /// `[store]`: where messages rest.
    pub store: StoreSettings,
    /// `[ingest]`: how publishes are gathered on their way to the store.
    pub ingest: IngestSettings,
    /// `[workers]`: how many messages are processed at once.
    pub workers: WorkerSettings,
    /// `[lanes]`: how destinations are spared.
    pub lanes: LaneSettings,
    /// `[egress]`: where messages may be pushed to besides public addresses.
    pub egress: EgressSettings,
    /// `[secrets]`: the key that seals what is kept of queues' secrets.
    pub secrets: SecretsSettings,
    /// `[log]`: what is logged.
    pub log: LogSettings,
    /// `[queue_defaults]`: what holds for every queue that does not say otherwise, declared or made by API.
    pub queue_defaults: QueueSettings,
    /// `[queues.NAME]`: the declared queues, each laid over the defaults.
    #[serde(skip)]
    pub queues: BTreeMap<QueueName, QueueSettings>,
    /// `--dev`: loopback destinations are allowed.
    #[serde(skip)]
    pub dev: bool,
    /// Where each value was given.
    #[serde(skip)]
    layered: tree::Table,
}

/// The flags of the command line that set something.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--listen IP:PORT`: `server.listen`.
    pub listen: Option<String>,
    /// `--store URL`: `store.url`.
    pub store: Option<String>,
    /// `--durability WORD`: `store.durability`.
    pub durability: Option<String>,
    /// `--log FILTER`: `log.level`; stronger than `--dev`.
    pub log: Option<String>,
    /// `--dev`: loopback destinations are allowed, text logs, our own modules at debug.
    pub dev: bool,
    /// `--insecure-no-auth`: `server.insecure_no_auth = true`.
    pub insecure_no_auth: bool,
    /// Each `--set section.key=value`; the last one of a key holds.
    pub set: Vec<String>,
}

impl Settings {
    /// Reads the files and lays all layers over each other.
    ///
    /// # Errors
    /// Everything that is wrong, if anything is.
    pub fn load<K: Into<OsString>, V: Into<OsString>>(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (K, V)>,
        flags: &Flags,
    ) -> Result<Self, Problems> {
        let load::Loaded { settings, problems } = load::load(files, environment, flags);
        settings.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// The same with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong, if anything is.
    pub fn load_from_process(files: &[PathBuf], flags: &Flags) -> Result<Self, Problems> {
        let (settings, problems) = Self::read_from_process(files, flags);
        settings.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// The same as far as it can be read, a value that cannot be as it is built in, and everything that is wrong: for who looks
    /// for what else is. `None` when a file could not be read, without which nothing can be said of the rest.
    pub(crate) fn read_from_process(files: &[PathBuf], flags: &Flags) -> (Option<Self>, Problems) {
        #[expect(clippy::disallowed_methods, reason = "this is the door by which settings come in")]
        let environment = std::env::vars_os();
        let load::Loaded { settings, problems } = load::load(files, environment, flags);
        (settings, problems)
    }

    /// What the environment of this process has under that name, for a setting that names it.
    #[must_use]
    pub(crate) fn variable(name: &str) -> Option<OsString> {
        #[expect(clippy::disallowed_methods, reason = "this is the door by which settings come in")]
        std::env::var_os(name)
    }

    /// Declares a queue of that name with that processor, by the defaults otherwise; change it in [`Settings::queues`].
    ///
    /// # Errors
    /// The name cannot be a queue's.
    pub fn declare(&mut self, name: &str, processor: &str) -> Result<&mut QueueSettings, QueueNameError> {
        let settings = QueueSettings { processor: processor.to_owned(), ..self.queue_defaults.clone() };
        Ok(self.queues.entry(name.parse()?).insert_entry(settings).into_mut())
    }

    /// What is out of its range or does not fit together. Nothing in settings as they were loaded: only what a program set can be.
    #[must_use]
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        check::check(self, &mut problems);
        check::check_queues(self, &mut problems);
        problems.by_program()
    }

    /// A problem with a key below that section, with where it was given.
    pub(crate) fn problem(&self, section: &[&str], key: &[String], detail: &str) -> Problem {
        let path: Vec<&str> = section.iter().copied().chain(key.iter().map(String::as_str)).collect();
        let origin = check::origin_of(self, &path);
        Problem { origin, key: Some(tree::dotted(&path)), detail: detail.to_owned() }
    }

    /// The effective settings as TOML, secrets masked; each line ends with where its value is from.
    ///
    /// A queue's table shows what was set for that queue; the rest is as `[queue_defaults]` shows.
    #[must_use]
    pub fn print(&self) -> String {
        print::print(self)
    }

    /// The same as JSON, in its nested form and without where it is from.
    #[must_use]
    pub fn print_json(&self) -> String {
        print::print_json(self)
    }
}

/// As they are printed: without secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.print())
    }
}

/// What holds when nothing is set.
impl Default for Settings {
    fn default() -> Self {
        let nothing: [(OsString, OsString); 0] = [];
        Self::load(&[], nothing, &Flags::default()).expect("config/default.toml is valid: a test loads it")
    }
}
