//! Writes that Redis refuses, or leaves without an answer, while it answers whoever only looks: no setting need show it.
//!
//! Each is noted where it is met and holds until something is written. The sweep writes every second, so it finds both the
//! beginning and the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::error::StoreError;
use crate::store::health::{Durability, StoreHealth};
use crate::store::redis::state::lock;
use crate::store::redis::url;

/// The first words of such refusals, and what to do when no setting says why.
const CURES: [(&str, &str); 2] = [
    ("MISCONF", "make room on its disk; its log and redis-cli INFO persistence say what it could not write"),
    ("NOREPLICAS", "bring its replicas back, or redis-cli CONFIG SET min-replicas-to-write 0"),
];
/// What to do about writes without an answer.
const END_OF_PAUSE: &str = "redis-cli CLIENT UNPAUSE ends a pause of writes";

/// What is known of writes.
#[derive(Default)]
pub(in crate::store::redis) struct Refused {
    why: Mutex<Option<String>>,
    /// Whether it was noted since everything was looked at.
    is_news: AtomicBool,
}

impl Refused {
    /// Notes what a command was answered with, if it is a refusal of every write.
    pub(in crate::store::redis) fn heard(&self, error: &StoreError) {
        if let StoreError::NotDurable(why) = error {
            self.note(why.clone());
        }
    }

    /// Notes that a write was not answered, and a look was.
    pub(in crate::store::redis) fn unanswered(&self, error: &StoreError) {
        self.note(format!("Redis answers whoever only looks, and no write: {error}"));
    }

    fn note(&self, why: String) {
        if lock(&self.why).replace(why).is_none() {
            self.is_news.store(true, Ordering::Release);
        }
    }

    /// Notes that something was written.
    pub(in crate::store::redis) fn written(&self) {
        *lock(&self.why) = None;
    }

    /// Whether there is a refusal that the last look at everything could not explain; says so once.
    pub(super) fn is_news(&self) -> bool {
        self.is_news.swap(false, Ordering::AcqRel)
    }

    /// Adds it to what was found, unless that explains it.
    pub(super) fn add_to(&self, health: &mut StoreHealth, client: &str) {
        let Some(why) = lock(&self.why).clone() else { return };
        let known = CURES.iter().find(|(word, _)| why.contains(word));
        let is_explained =
            |(word, _): &(&str, &str)| health.durability_reasons.iter().any(|reason| reason.contains(word));
        if known.is_some_and(is_explained) {
            return;
        }
        let cure = known.map_or(END_OF_PAUSE, |(_, cure)| cure);
        health.durability = Durability::Unknown;
        health.durability_reasons.push(format!("{why}: {}", url::addressed(cure, client)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::probe::vitals::Vitals;

    fn reasons(refused: &Refused, known: &[&str]) -> Vec<String> {
        let mut health = Vitals::default().health(None);
        health.durability = Durability::Strict;
        health.durability_reasons = known.iter().map(|&reason| reason.to_owned()).collect();
        refused.add_to(&mut health, "redis-cli -p 1");
        let is_told = health.durability_reasons.len() > known.len();
        assert_eq!(health.durability == Durability::Unknown, is_told);
        health.durability_reasons.split_off(known.len())
    }

    #[test]
    fn a_refusal_holds_until_something_is_written_and_calls_for_one_look() {
        let refused = Refused::default();
        assert!(!refused.is_news() && reasons(&refused, &[]).is_empty());
        for _ in 0..2 {
            refused.heard(&StoreError::NotDurable("Redis has too few replicas (NOREPLICAS)".to_owned()));
        }
        assert!(refused.is_news() && !refused.is_news());
        assert!(reasons(&refused, &[])[0].ends_with("redis-cli -p 1 CONFIG SET min-replicas-to-write 0"));
        refused.written();
        assert!(reasons(&refused, &[]).is_empty());
    }

    #[test]
    fn what_a_setting_explains_is_told_once() {
        let refused = Refused::default();
        refused.heard(&StoreError::NotDurable("Redis cannot write its files (MISCONF)".to_owned()));
        assert!(reasons(&refused, &["its last snapshot failed (MISCONF)"]).is_empty());
        assert_eq!(reasons(&refused, &["appendfsync is everysec"]).len(), 1);
    }

    #[test]
    fn what_is_no_refusal_of_every_write_is_not_noted() {
        let refused = Refused::default();
        refused.heard(&StoreError::Unavailable("it is away".to_owned()));
        refused.heard(&StoreError::Full("no memory".to_owned()));
        assert!(reasons(&refused, &[]).is_empty());
        refused.unanswered(&StoreError::Timeout(std::time::Duration::from_secs(5)));
        assert!(reasons(&refused, &[])[0].contains("CLIENT UNPAUSE"));
    }
}
