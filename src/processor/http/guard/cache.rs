//! What names resolved to lately, and what they resolved to before they stopped resolving.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lookup::{Found, LookupError, is_answer};

/// How long the addresses of a name are kept: the system's resolver does not tell what its servers allow. Long enough to spare a
/// lookup for most connections, short enough that a receiver which moves is found again soon.
pub(super) const KEPT_FOUND: Duration = Duration::from_secs(30);

/// How long it is kept that a name has no addresses: shorter than the first retry of a message, longer than a burst. So long is
/// also waited before a name is asked for again whose addresses do for now.
pub(super) const KEPT_FAILED: Duration = Duration::from_secs(3);

/// How long the addresses of a name do where no newer ones are to be had (RFC 8767, "serve stale", which leaves it to us): most
/// outages of name servers are shorter, most addresses are left alone for longer.
pub(super) const KEPT_STALE: Duration = Duration::from_mins(10);

/// Names of which something is kept: some hundred bytes each. Beyond, what is over goes, then what failed, then anything.
pub(super) const KEPT_MAX: usize = 4_096;

/// What was found last and when, and the last addresses.
struct Kept {
    found: Found,
    at: Instant,
    addresses: Option<(Arc<[IpAddr]>, Instant)>,
    /// When somebody went on with the addresses instead of waiting any longer for newer ones.
    late: Option<Instant>,
}

impl Kept {
    /// Whether what was found may still be given to somebody who takes what is at most so old.
    fn is_good(&self, age_max: Duration) -> bool {
        let most = if self.found.is_ok() { KEPT_FOUND } else { KEPT_FAILED };
        self.at.elapsed() <= most.min(age_max)
    }

    fn stale(&self) -> Option<&Arc<[IpAddr]>> {
        self.addresses.as_ref().filter(|(_, at)| at.elapsed() <= KEPT_STALE).map(|(addresses, _)| addresses)
    }
}

/// Addresses that are no longer fresh, and do where no newer ones are to be had.
pub(super) struct Stale {
    pub(super) addresses: Arc<[IpAddr]>,
    /// Whether newer ones were asked for in vain a moment ago.
    pub(super) is_asked: bool,
}

/// What is kept of names.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<Arc<str>, Kept>>);

impl Cache {
    /// What was found at most so long ago, addresses or that there are none.
    pub(super) fn fresh(&self, name: &str, age_max: Duration) -> Option<Found> {
        let kept = self.kept();
        let kept = kept.get(name).filter(|kept| !age_max.is_zero() && kept.is_good(age_max))?;
        Some(kept.found.clone())
    }

    /// The addresses that were found within the last ten minutes, if nothing else is known by now than that they could not be
    /// found again.
    pub(super) fn stale(&self, name: &str) -> Option<Stale> {
        let kept = self.kept();
        let kept = kept.get(name)?;
        let is_late = kept.late.is_some_and(|at| at.elapsed() <= KEPT_FAILED);
        let is_asked = is_late || (kept.found.is_err() && kept.is_good(Duration::MAX));
        Some(Stale { addresses: kept.stale()?.clone(), is_asked })
    }

    /// Notes that newer addresses were not to be had in time.
    pub(super) fn note_late(&self, name: &str) {
        if let Some(kept) = self.kept().get_mut(name) {
            kept.late = Some(Instant::now());
        }
    }

    /// Keeps what was found, unless it says nothing of the name.
    pub(super) fn keep(&self, name: &Arc<str>, found: &Found) {
        let mut all = self.kept();
        let at = Instant::now();
        let addresses = match found {
            Ok(addresses) => Some((addresses.clone(), at)),
            Err(LookupError::Short { .. } | LookupError::TimedOut(_)) => return,
            // Its name server is well, and says that there are none (RFC 8767, 4: what is stale is not for that).
            Err(_) if is_answer(found) => None,
            Err(_) => all.get_mut(name).and_then(|kept| kept.addresses.take()),
        };
        if all.len() >= KEPT_MAX && !all.contains_key(name) {
            make_room(&mut all);
        }
        all.insert(name.clone(), Kept { found: found.clone(), at, addresses, late: None });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept().len()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Arc<str>, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(all: &mut HashMap<Arc<str>, Kept>) {
    all.retain(|_, kept| kept.is_good(Duration::MAX) || kept.stale().is_some());
    if all.len() < KEPT_MAX {
        return;
    }
    let without = all.iter().find(|(_, kept)| kept.addresses.is_none());
    let least = without.or_else(|| all.iter().next()).map(|(name, _)| name.clone());
    if let Some(least) = least {
        all.remove(&least);
    }
}
