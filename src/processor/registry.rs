//! Which processors there are, by the name that a queue's `processor` setting gives them.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::function::{self, Message, Outcome};
use super::http::guard::Guard;
use super::{Build, Keyring, Processor, http, log};
use crate::clock::Clock;
use crate::domain::queue::{HTTP, PULL, QueueName, QueueSettings};

/// What the built-in processors are made from.
#[derive(Clone)]
pub struct Context {
    /// The time.
    pub clock: Clock,
    /// The egress guard of the process.
    pub guard: Guard,
    /// What deliveries are signed with.
    pub keyring: Keyring,
    /// Gives the store's id, sent as `posthaste-via`; of it only visible ASCII. Asked when it is needed: a store that is away at
    /// the start is known later.
    pub store_id: StoreId,
}

/// Gives the id of the store.
pub type StoreId = Arc<dyn Fn() -> Arc<str> + Send + Sync>;

/// A built-in processor: its name, and how it is built.
pub type BuiltIn = (&'static str, fn(&Context) -> Build);

/// The built-in processors that workers run. `pull` has none: consumers lease from such a queue themselves.
pub const PROCESSORS: [BuiltIn; 2] = [("http", http::build), ("log", log::build)];

/// The longest name of a registered function.
const NAME_BYTES_MAX: usize = 64;

/// All processors of a program: the built-in ones and its own functions. The default one has none but `pull`.
#[derive(Clone, Default)]
pub struct Registry {
    builds: BTreeMap<Arc<str>, Build>,
    keyring: Keyring,
}

/// A name that no function can have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Not a word.
    #[error("{0:?} is no name for a processor: a lower-case letter, then up to 63 of a-z, 0-9, _ and -")]
    Invalid(String),
    /// Built in, or registered already.
    #[error("the processor {0:?} exists already")]
    Taken(String),
}

impl Registry {
    /// The built-in processors.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let builds = PROCESSORS.iter().map(|(name, build)| (Arc::from(*name), build(context)));
        Self { builds: builds.collect(), keyring: context.keyring.clone() }
    }

    /// The same functions, with the built-in processors made from this.
    #[must_use]
    pub fn with(mut self, context: &Context) -> Self {
        self.keyring = context.keyring.clone();
        self.builds.extend(PROCESSORS.iter().map(|(name, build)| (Arc::from(*name), build(context))));
        self
    }

    /// Adds a function of the program. It is cloned once for each thread; its futures stay on that thread.
    ///
    /// # Errors
    /// [`NameError::Invalid`] and [`NameError::Taken`].
    pub fn register<F, R>(&mut self, name: &str, function: F) -> Result<(), NameError>
    where
        F: Fn(Message) -> R + Send + Clone + 'static,
        R: Future<Output = Outcome> + 'static,
    {
        self.add(name, function::build(function))
    }

    /// Adds a processor that is built like this on each thread.
    ///
    /// # Errors
    /// [`NameError::Invalid`] and [`NameError::Taken`].
    pub fn add(&mut self, name: &str, build: Build) -> Result<(), NameError> {
        if !is_word(name) {
            return Err(NameError::Invalid(name.to_owned()));
        }
        if self.contains(name) {
            return Err(NameError::Taken(name.to_owned()));
        }
        self.builds.insert(name.into(), build);
        Ok(())
    }

    /// Whether a queue may have this `processor`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        name == PULL || self.builds.contains_key(name)
    }

    /// Whether a queue's messages can be processed here: its processor is there, and so is what its deliveries are signed with.
    #[must_use]
    pub fn can_process(&self, queue: &QueueName, settings: &Arc<QueueSettings>) -> bool {
        self.contains(&settings.processor)
            && (settings.processor != HTTP || self.keyring.may_sign(queue, settings))
    }

    /// All that a queue's `processor` may be, `pull` included, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.builds.keys().map(|name| &**name).chain([PULL]).collect();
        names.sort_unstable();
        names
    }

    /// Builds all but `pull` for the current thread, on which they must stay.
    #[must_use]
    pub fn build_all(&self) -> Processors {
        Processors(self.builds.iter().map(|(name, build)| (name.clone(), build())).collect())
    }
}

fn is_word(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// The processors of one thread.
pub struct Processors(HashMap<Arc<str>, Rc<dyn Processor>>);

impl Processors {
    /// The processor of this name; none for `pull` and for a name that is not registered in this program.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Rc<dyn Processor>> {
        self.0.get(name)
    }

    /// Calls [`Processor::tick`] of each.
    pub fn tick(&self) {
        self.0.values().for_each(|processor| processor.tick());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::domain::timestamp::Timestamp;
    use crate::processor::fixture;
    use crate::processor::settings::EgressSettings;

    fn registry() -> Registry {
        let guard = Guard::new(&EgressSettings::default(), false);
        Registry::new(&Context {
            clock: Clock::manual(Timestamp::default()),
            guard,
            keyring: Keyring::default(),
            store_id: Arc::new(|| "store".into()),
        })
    }

    #[test]
    fn a_registered_function_runs_under_its_name() {
        let mut registry = registry();
        registry.register("resize_2-b", |_| async { Outcome::Done }).expect("a free name");
        assert_eq!(registry.names(), ["http", "log", "pull", "resize_2-b"]);
        let processors = registry.build_all();
        processors.tick();
        let processor = processors.named("resize_2-b").expect("it was registered");
        assert!(processor.process(fixture::delivery("orders", b"")).now_or_never().is_some());
        assert!(processors.named("log").is_some() && processors.named("http").is_some());
        assert!(processors.named("pull").is_none() && processors.named("other").is_none());
    }

    #[test]
    fn a_name_that_is_no_word_or_is_taken_is_refused() {
        let mut registry = registry();
        let mut register = |name: &str| registry.register(name, |_| async { Outcome::Done });
        let longest = "a".repeat(64);
        assert_eq!(register(&longest), Ok(()));
        for name in ["", "A", "1a", "_a", "-a", "a b", "a.b", "größe", "a\n", &"a".repeat(65)] {
            assert_eq!(register(name), Err(NameError::Invalid(name.to_owned())));
        }
        for name in ["log", "http", "pull", &longest] {
            assert_eq!(register(name), Err(NameError::Taken(name.to_owned())));
        }
    }
}
