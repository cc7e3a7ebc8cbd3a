//! From a name to its addresses: bounded, shared, with a deadline, and kept for a while.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::processor::http::shortage;

/// How a name becomes addresses. Blocks, as the system's resolver does, on a thread made for that.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The longest wait for the addresses of a name.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Names looked up at once. A dead name server holds a lookup for up to half a minute, and nothing can end it sooner;
/// 32 of them leave most of the 512 blocking threads of a runtime alone.
const LOOKUPS_MAX: usize = 32;

/// How long the addresses of a name are kept: the system's resolver does not tell what its servers allow. Long enough to spare a
/// lookup for most connections, short enough that a receiver which moves is found again soon.
pub(super) const KEPT_FOUND: Duration = Duration::from_secs(30);

/// How long it is kept that a name has no addresses: shorter than the first retry of a message, longer than a burst.
const KEPT_FAILED: Duration = Duration::from_secs(3);

/// Names of which something is kept: some hundred bytes each. Beyond, what is over goes, then anything.
const KEPT_MAX: usize = 4_096;

/// Shares remembered before those that nobody waits for are swept out: a few times [`LOOKUPS_MAX`].
const SHARES_MAX: usize = 128;

/// A name has no addresses now. Always worth another try: names come back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookupError {
    /// The resolver said so.
    #[error("the name {name:?} does not resolve: {cause}")]
    Failed {
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

type Found = Result<Arc<[IpAddr]>, LookupError>;
type Share = Shared<BoxFuture<'static, Found>>;
type Shares = Arc<Mutex<HashMap<Arc<str>, WeakShared<BoxFuture<'static, Found>>>>>;

/// What was found and when.
struct Kept {
    found: Found,
    at: Instant,
}

impl Kept {
    /// Whether it may still be given to somebody who takes what is at most so old.
    fn is_good(&self, age_max: Duration) -> bool {
        let most = if self.found.is_ok() { KEPT_FOUND } else { KEPT_FAILED };
        self.at.elapsed() <= most.min(age_max)
    }
}

type Cache = Arc<Mutex<HashMap<Arc<str>, Kept>>>;

/// Looks names up. Whoever asks for a name that is being looked up waits for the same answer, so a slow name takes one of the
/// [`LOOKUPS_MAX`] places however many messages go there.
pub(super) struct Lookups {
    lookup: Lookup,
    places: Arc<Semaphore>,
    shares: Shares,
    cache: Cache,
}

impl Lookups {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            places: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            shares: Shares::default(),
            cache: Cache::default(),
        }
    }

    /// The addresses of `name`, at least one, found at most so long ago. Dropping the future abandons the wait; the lookup itself
    /// runs to its end.
    pub(super) async fn addresses(&self, name: &str, age_max: Duration) -> Found {
        if !age_max.is_zero()
            && let Some(kept) = lock(&self.cache).get(name).filter(|kept| kept.is_good(age_max))
        {
            return kept.found.clone();
        }
        let share = self.share(name);
        match timeout(LOOKUP_TIMEOUT, share).await {
            Ok(found) => found,
            Err(_) => Err(LookupError::TimedOut(name.into())),
        }
    }

    fn share(&self, name: &str) -> Share {
        let mut shares = lock(&self.shares);
        let under_way = shares.get(name).and_then(WeakShared::upgrade).filter(|share| share.peek().is_none());
        if let Some(share) = under_way {
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

    fn begin(&self, name: Arc<str>) -> BoxFuture<'static, Found> {
        let (lookup, places) = (self.lookup.clone(), self.places.clone());
        let (shares, cache) = (self.shares.clone(), self.cache.clone());
        async move {
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            let asked = name.clone();
            let task = spawn_blocking(move || {
                // At once, for a shortage may be over the next moment.
                let found = lookup(&asked).map_err(|error| shortage::now().unwrap_or(error));
                // Only now: a lookup nobody waits for any longer still holds a thread.
                drop(place);
                found
            });
            let found = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let found = match found {
                Ok(addresses) if addresses.is_empty() => Err(LookupError::Empty(name.clone())),
                Ok(addresses) => Ok(addresses.into()),
                Err(error) if shortage::is_lack(&error) => {
                    Err(LookupError::Short { name: name.clone(), cause: error.to_string().into() })
                }
                Err(error) => {
                    Err(LookupError::Failed { name: name.clone(), cause: error.to_string().into() })
                }
            };
            keep(&cache, &name, &found);
            lock(&shares).remove(&name);
            found
        }
        .boxed()
    }
}

/// Keeps what was found, unless it says nothing of the name.
fn keep(cache: &Cache, name: &Arc<str>, found: &Found) {
    let mut cache = lock(cache);
    if matches!(found, Err(LookupError::Short { .. })) {
        cache.remove(name);
        return;
    }
    if cache.len() >= KEPT_MAX && !cache.contains_key(name) {
        cache.retain(|_, kept| kept.is_good(Duration::MAX));
        if cache.len() >= KEPT_MAX
            && let Some(any) = cache.keys().next().cloned()
        {
            cache.remove(&any);
        }
    }
    cache.insert(name.clone(), Kept { found: found.clone(), at: Instant::now() });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use futures_util::future::{join, join_all};

    use super::*;

    /// Whoever takes nothing that was found before.
    const NOW: Duration = Duration::ZERO;

    /// A lookup that counts itself and answers when told to.
    fn gated() -> (Lookups, Arc<AtomicUsize>, SyncSender<()>) {
        let (open, gate): (SyncSender<()>, Receiver<()>) = sync_channel(1_000);
        let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Mutex::new(gate));
        let counted = calls.clone();
        let lookups = Lookups::new(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            lock(&gate).recv().expect("the test opens the gate");
            Ok(vec![IpAddr::from([8, 8, 8, 8])])
        }));
        (lookups, calls, open)
    }

    #[tokio::test]
    async fn whoever_asks_for_the_same_name_shares_one_lookup() {
        let (lookups, calls, open) = gated();
        let asked = join_all((0..50).map(|_| lookups.addresses("a.example", NOW)));
        // Polled in this order, so all have asked before the gate opens.
        let (found, ()) = join(asked, async { open.send(()).expect("room") }).await;
        assert!(found.iter().all(|found| found.as_ref().is_ok_and(|addresses| addresses.len() == 1)));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(lock(&lookups.shares).is_empty(), "nothing is kept after the answer");
        open.send(()).expect("room");
        lookups.addresses("a.example", NOW).await.expect("found");
        assert_eq!(calls.load(Ordering::SeqCst), 2, "who wants to know what is now is told what is now");
    }

    #[tokio::test]
    async fn no_more_than_the_bound_are_looked_up_at_once_even_when_nobody_waits_any_longer() {
        let (lookups, calls, open) = gated();
        let names: Vec<String> = (0..200).map(|number| format!("{number}.example")).collect();
        let abandoned = join_all(names.iter().map(|name| lookups.addresses(name, NOW)));
        timeout(Duration::from_millis(50), abandoned).await.expect_err("the gate is shut");
        assert!(calls.load(Ordering::SeqCst) <= LOOKUPS_MAX);
        for name in &names {
            timeout(Duration::ZERO, lookups.addresses(name, NOW)).await.expect_err("the gate is shut");
        }
        assert!(calls.load(Ordering::SeqCst) <= LOOKUPS_MAX, "a thread that still blocks keeps its place");
        assert!(lock(&lookups.shares).len() <= SHARES_MAX + LOOKUPS_MAX, "abandoned waits are swept out");
        for _ in 0..=LOOKUPS_MAX {
            open.send(()).expect("room");
        }
        lookups.addresses("last.example", NOW).await.expect("places are given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_answers_is_given_up() {
        let (lookups, _, open) = gated();
        // The paused clock stands still while a blocking thread works, so the share is made to wait for a place instead.
        let places = lookups.places.clone().acquire_many_owned(32).await.expect("open");
        assert_eq!(lookups.addresses("a.example", NOW).await, Err(LookupError::TimedOut("a.example".into())));
        drop((places, open));
    }

    #[tokio::test]
    async fn failures_and_empty_answers_are_told_apart() {
        let lookups = Lookups::new(Arc::new(|name| match name {
            "empty.example" => Ok(Vec::new()),
            "short.example" => Err(io::Error::from_raw_os_error(24)),
            "panics.example" => panic!("a resolver that panics"),
            _ => Err(io::Error::other("no such name")),
        }));
        let error = lookups.addresses("none.example", NOW).await.expect_err("fails").to_string();
        assert_eq!(error, r#"the name "none.example" does not resolve: no such name"#);
        assert_eq!(
            lookups.addresses("empty.example", NOW).await,
            Err(LookupError::Empty("empty.example".into()))
        );
        let error = lookups.addresses("short.example", NOW).await.expect_err("fails");
        assert!(matches!(error, LookupError::Short { .. }), "{error:?}");
        assert!(lookups.addresses("panics.example", NOW).await.is_err());
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = Lookups::new(system()).addresses("localhost", NOW).await.expect("in every hosts file");
        assert!(found.iter().all(IpAddr::is_loopback));
    }

    /// A lookup that counts itself: names that begin with `no` have no address, and for one this machine is short.
    fn counted() -> (Lookups, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let lookups = Lookups::new(Arc::new(move |name| {
            counted.fetch_add(1, Ordering::SeqCst);
            match name {
                "short.example" => Err(io::Error::from_raw_os_error(24)),
                name if name.starts_with("no") => Err(io::Error::other("no such name")),
                _ => Ok(vec![IpAddr::from([8, 8, 8, 8])]),
            }
        }));
        (lookups, calls)
    }

    #[tokio::test]
    async fn what_was_found_is_kept_for_a_while_and_failures_for_less() {
        let (lookups, calls) = counted();
        let mut expected = 0;
        for (name, kept) in
            [("a.example", KEPT_FOUND), ("no.example", KEPT_FAILED), ("short.example", Duration::ZERO)]
        {
            let first = lookups.addresses(name, KEPT_FOUND).await;
            expected += 1;
            tokio::time::pause();
            if !kept.is_zero() {
                tokio::time::advance(kept.mul_f64(0.5)).await;
                assert_eq!(lookups.addresses(name, KEPT_FOUND).await, first, "{name}");
                assert_eq!(calls.load(Ordering::SeqCst), expected, "{name} is kept");
            }
            tokio::time::advance(kept + Duration::from_millis(2)).await;
            tokio::time::resume();
            drop(lookups.addresses(name, KEPT_FOUND).await);
            expected += 1;
            assert_eq!(calls.load(Ordering::SeqCst), expected, "{name} is asked for again");
        }
        drop(lookups.addresses("a.example", NOW).await);
        assert_eq!(calls.load(Ordering::SeqCst), expected + 1, "what is kept is not what is now");
    }

    #[tokio::test]
    async fn no_more_names_than_the_bound_are_kept() {
        let (lookups, calls) = counted();
        for number in 0..KEPT_MAX + 10 {
            drop(lookups.addresses(&format!("{number}.example"), KEPT_FOUND).await);
        }
        assert_eq!((lock(&lookups.cache).len(), calls.load(Ordering::SeqCst)), (KEPT_MAX, KEPT_MAX + 10));
    }
}
