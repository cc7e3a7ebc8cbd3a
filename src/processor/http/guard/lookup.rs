//! From a name to its addresses: bounded, shared, with a deadline, and kept for a while.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use dns_lookup::{LookupErrorKind, lookup_host};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared, ready};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::cache::{Cache, KEPT_FOUND};
use super::places::{Place, Places};
use crate::processor::http::shortage;

/// How a name becomes addresses. Blocks, as the system's resolver does, on a thread made for that.
///
/// No addresses, and an error of the kind [`io::ErrorKind::NotFound`] that is none of the operating system's, are what the name's own
/// servers say: they end what was found before. Any other error leaves it standing for a while.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The longest wait for the addresses of a name.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Quick and slow places for names that did not resolve lately, and for those that did: what hangs among the first takes nothing
/// from the second. A dead name server holds a lookup for up to half a minute, and nothing can end it sooner. Each place is a
/// thread, 256 in all: a few MiB.
const STRANGERS: (usize, usize) = (24, 168);
const KNOWN: (usize, usize) = (8, 56);

/// How long somebody waits for newer addresses of a name who has some that will do.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a lookup is waited for by those who come later, longer than the system's resolver takes to give up.
const SHARED_MAX: Duration = Duration::from_secs(30);

/// Shares remembered before those that nobody waits for are swept out.
const SHARES_MAX: usize = 128;

/// Why a name is not looked up now.
const NO_PLACE: &str = "too many others are being looked up";

/// A name has no addresses now. Always worth another try: names come back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookupError {
    /// The resolver could not find out.
    #[error("the name {name:?} does not resolve: {cause}")]
    Failed {
        /// The name.
        name: Arc<str>,
        /// In the resolver's words.
        cause: Arc<str>,
    },
    /// There is no such name, or it has no address: its own servers say so.
    #[error("the name {name:?} does not resolve: {cause}")]
    Unknown {
        /// The name.
        name: Arc<str>,
        /// In the resolver's words.
        cause: Arc<str>,
    },
    /// It has no address.
    #[error("the name {0:?} has no address")]
    Empty(Arc<str>),
    /// This machine or process is short of what a lookup takes.
    #[error("the name {name:?} cannot be looked up: {cause}")]
    Short {
        /// The name.
        name: Arc<str>,
        /// In the system's words.
        cause: Arc<str>,
    },
    /// It took longer than [`LOOKUP_TIMEOUT`].
    #[error("the name {0:?} did not resolve within 5s")]
    TimedOut(Arc<str>),
}

/// The addresses of a name, or why there are none.
pub(super) type Found = Result<Arc<[IpAddr]>, LookupError>;
type Share = Shared<BoxFuture<'static, Found>>;
type WeakShare = WeakShared<BoxFuture<'static, Found>>;

/// A lookup that a thread is at.
struct UnderWay {
    share: Share,
    since: Instant,
}

/// Looks names up. Whoever asks for a name that is being looked up waits for the same answer, so a slow name takes one place however
/// many messages go there.
pub(super) struct Lookups {
    lookup: Lookup,
    strangers: Arc<Places>,
    known: Arc<Places>,
    /// Of those who wait for a place or an answer: one that nobody waits for any longer gives up its turn.
    shares: Arc<Mutex<HashMap<Arc<str>, WeakShare>>>,
    threads: Arc<Mutex<HashMap<Arc<str>, UnderWay>>>,
    cache: Arc<Cache>,
}

impl Lookups {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            strangers: Places::new(STRANGERS.0, STRANGERS.1),
            known: Places::new(KNOWN.0, KNOWN.1),
            shares: Arc::default(),
            threads: Arc::default(),
            cache: Arc::default(),
        }
    }

    /// The addresses of `name`, at least one, found at most so long ago. Dropping the future abandons the wait; a lookup that has
    /// begun runs to its end, and what it finds is kept.
    pub(super) async fn addresses(&self, name: &str, age_max: Duration) -> Found {
        if let Some(found) = self.cache.fresh(name, age_max) {
            return found;
        }
        match timeout(LOOKUP_TIMEOUT, self.share(name)).await {
            Ok(found) => found,
            Err(_) => Err(LookupError::TimedOut(name.into())),
        }
    }

    /// The addresses of `name`, those of the last [`KEPT_FOUND`] or newer; where they are not to be had at once, those of the last
    /// ten minutes. For whoever asks again and again: not for judging what is being set.
    pub(super) async fn addresses_lately(&self, name: &str) -> Found {
        if let Some(Ok(addresses)) = self.cache.fresh(name, KEPT_FOUND) {
            return Ok(addresses);
        }
        let Some(stale) = self.cache.stale(name) else { return self.addresses(name, KEPT_FOUND).await };
        if stale.is_asked {
            return Ok(stale.addresses);
        }
        let refreshed = timeout(REFRESH_TIMEOUT, self.share(name)).await;
        if let Ok(found) = refreshed
            && is_answer(&found)
        {
            return found;
        }
        self.cache.note_late(name);
        Ok(stale.addresses)
    }

    /// Whether nothing is known of `name` now and nobody is looking it up: whoever waits for it waits for a place.
    pub(super) fn is_without_place(&self, name: &str) -> bool {
        !lock(&self.threads).contains_key(name) && self.cache.fresh(name, Duration::MAX).is_none()
    }

    fn share(&self, name: &str) -> Share {
        if let Some(under_way) = lock(&self.threads).get(name).filter(|it| it.since.elapsed() < SHARED_MAX) {
            return under_way.share.clone();
        }
        let mut shares = lock(&self.shares);
        let waited_for =
            shares.get(name).and_then(WeakShared::upgrade).filter(|share| share.peek().is_none());
        if let Some(share) = waited_for {
            return share;
        }
        if shares.len() >= SHARES_MAX {
            shares.retain(|_, share| share.upgrade().is_some());
        }
        let share = self.begin(name.into()).shared();
        if let Some(weak) = share.downgrade() {
            shares.insert(name.into(), weak);
        }
        share
    }

    /// Waits for a place, then for the answer.
    fn begin(&self, name: Arc<str>) -> BoxFuture<'static, Found> {
        let places = if self.cache.stale(&name).is_some() { &self.known } else { &self.strangers }.clone();
        let (lookup, shares) = (self.lookup.clone(), self.shares.clone());
        let (threads, cache) = (self.threads.clone(), self.cache.clone());
        async move {
            let found = match places.place().await {
                Some(place) => run(lookup, &name, place, &threads, cache).await,
                None => Err(LookupError::Short { name: name.clone(), cause: NO_PLACE.into() }),
            };
            lock(&shares).remove(&name);
            found
        }
        .boxed()
    }
}

/// Looks `name` up on a thread of its own, so that one which hangs holds up nothing else, and no runtime that ends waits for it.
fn run(
    lookup: Lookup,
    name: &Arc<str>,
    place: Place,
    threads: &Arc<Mutex<HashMap<Arc<str>, UnderWay>>>,
    cache: Arc<Cache>,
) -> Share {
    let (tell, told) = oneshot::channel();
    let (all, asked, since, clock) = (threads.clone(), name.clone(), Instant::now(), Handle::current());
    let thread = move || {
        // Whose clock it is: tests set it.
        let _clock = clock.enter();
        let found = catch_unwind(AssertUnwindSafe(|| lookup(&asked)));
        let found = found.unwrap_or_else(|_| Err(io::Error::other("looking it up panicked")));
        // At once, for a shortage may be over the next moment.
        let found = found.map_err(|error| shortage::now().unwrap_or(error));
        let found = judge(&asked, found);
        cache.keep(&asked, &found);
        let mut all = lock(&all);
        if all.get(&asked).is_some_and(|under_way| under_way.since == since) {
            all.remove(&asked);
        }
        drop(all);
        // Only now: a lookup nobody waits for any longer still holds a thread.
        drop(place);
        // Nobody may be waiting.
        drop(tell.send(found));
    };
    let failed = LookupError::Failed { name: name.clone(), cause: "its thread is gone".into() };
    let share = async move { told.await.unwrap_or(Err(failed)) }.boxed().shared();
    lock(threads).insert(name.clone(), UnderWay { share: share.clone(), since });
    if let Err(error) = thread::Builder::new().name("name-lookup".to_owned()).spawn(thread) {
        lock(threads).remove(name);
        let short = LookupError::Short { name: name.clone(), cause: error.to_string().into() };
        return ready(Err(short)).boxed().shared();
    }
    share
}

fn judge(name: &Arc<str>, found: io::Result<Vec<IpAddr>>) -> Found {
    let name = name.clone();
    match found {
        Ok(addresses) if addresses.is_empty() => Err(LookupError::Empty(name)),
        Ok(addresses) => Ok(addresses.into()),
        Err(error) => {
            let cause = error.to_string().into();
            let is_unknown = error.kind() == io::ErrorKind::NotFound && error.raw_os_error().is_none();
            Err(if shortage::is_lack(&error) {
                LookupError::Short { name, cause }
            } else if is_unknown {
                LookupError::Unknown { name, cause }
            } else {
                LookupError::Failed { name, cause }
            })
        }
    }
}

/// Whether it is what those who know the name say of it, and no failure to ask them.
pub(super) fn is_answer(found: &Found) -> bool {
    matches!(found, Ok(_) | Err(LookupError::Empty(_) | LookupError::Unknown { .. }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| match lookup_host(name) {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => {
                io::Error::new(io::ErrorKind::NotFound, error)
            }
            _ => error.into(),
        }),
    })
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
