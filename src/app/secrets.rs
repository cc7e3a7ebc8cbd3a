//! The secrets that the settings name: read before anything is opened, and kept from the store.

use std::ffi::OsString;
use std::sync::Arc;

use crate::config::{Problem, Settings};
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::secret::SecretSetting;
use crate::processor::Keyring;
use crate::processor::signing::Gathering;

/// Reads the master keys and the secrets of the declared queues; gives what is wrong with them besides.
pub(super) fn gather(settings: &Settings) -> (Keyring, Vec<Problem>) {
    let mut gathering = Gathering::default();
    let mut problems: Vec<Problem> = gathering
        .read_masters(&settings.secrets)
        .into_iter()
        .map(|found| settings.problem(&["secrets"], &[found.key.to_owned()], &found.detail))
        .collect();
    for (name, queue) in &settings.queues {
        let variable = |name: &str| Settings::variable(name).map(OsString::into_string)?.ok();
        // What is no secret in the file itself is among the problems of the settings.
        let is_known =
            |key: &str| key == "secret" && queue.problems().iter().any(|problem| problem.key == key);
        if let Some(found) =
            gathering.read_declared(name, queue, variable).filter(|found| !is_known(found.key))
        {
            problems.push(settings.problem(
                &["queues", name.as_str()],
                &[found.key.to_owned()],
                &found.detail,
            ));
        }
    }
    (gathering.finish(), problems)
}

/// The declared queues as the store is given them: it is told that there is a secret, and not which.
pub(super) fn for_the_store(settings: &Settings) -> Vec<(QueueName, Arc<QueueSettings>)> {
    let without = |settings: &QueueSettings| QueueSettings {
        secret: settings.secret.as_ref().map(|_| SecretSetting::Declared),
        ..settings.clone()
    };
    settings.queues.iter().map(|(name, settings)| (name.clone(), Arc::new(without(settings)))).collect()
}
