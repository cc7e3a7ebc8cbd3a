//! Random operations on a store and on the model of it, the store in memory: both must answer the same, and afterwards hold
//! the same, whatever is sent twice, late or wrong, and however the clocks jump.
//!
//! 64 cases of 30 to 60 operations; `PROPTEST_CASES=5000` makes it 5,000. A case that fails is made smaller for
//! [`SHRINK_TIME_MAX`], so that the test has said what it found before a runner loses patience: the answers that differ, the
//! settings and operations that lead there, and the line that has proptest run the case again. Who wants a smaller one gives
//! it longer: `PROPTEST_MAX_SHRINK_TIME=600000`, in milliseconds.

mod operations;
mod twin;

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use operations::{Operation, QUEUES, operation, settings};
use posthaste::domain::queue::QueueSettings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRng, TestRunner};
use twin::{Reached, Twin};

use crate::conformance::Fixture;
use crate::conformance::fixtures::{MemoryFixture, RedisFixture, SqliteFixture};

/// Operations of a case, those that make the queues aside.
const OPERATIONS: std::ops::RangeInclusive<usize> = 30..=60;
/// Cases unless the environment says otherwise.
const CASES: u32 = 64;
/// How long a failing case is made smaller unless the environment says otherwise: with it, and a disk that takes a second for
/// every other case before, the test ends within a minute.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(20);

fn config() -> Config {
    let config = Config::default();
    let cases = if config.cases == 256 { CASES } else { config.cases };
    let unless_asked = u32::try_from(SHRINK_TIME_MAX.as_millis()).expect("some seconds");
    let max_shrink_time = if config.max_shrink_time == 0 { unless_asked } else { config.max_shrink_time };
    Config { cases, max_shrink_time, max_shrink_iters: 20_000, ..config }
}

/// The settings of the queues, and what is done with them.
#[derive(Clone)]
struct Case {
    queues: Vec<QueueSettings>,
    operations: Vec<Operation>,
}

/// As somebody reads it who looks for the fault: a line each.
impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, settings) in QUEUES.iter().zip(&self.queues) {
            let QueueSettings { limits, dead, history, idempotency, .. } = settings;
            write!(formatter, "\n  queue {name}: {limits:?}, {dead:?}, {history:?}, {idempotency:?}")?;
        }
        for (number, operation) in self.operations.iter().enumerate() {
            write!(formatter, "\n  {number:2}: {operation:?}")?;
        }
        Ok(())
    }
}

fn case() -> impl Strategy<Value = Case> {
    let settings = prop::collection::vec(settings(), QUEUES.len());
    (settings, prop::collection::vec(operation(), OPERATIONS))
        .prop_map(|(queues, operations)| Case { queues, operations })
}

/// Runs one case.
fn agree(fixture: Box<dyn Fixture>, case: Case, reached: &mut Reached) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut twin = Twin::new(fixture);
        for (queue, settings) in case.queues.into_iter().enumerate() {
            twin.apply(&Operation::Put { queue, settings: Box::new(settings) }, reached).await;
        }
        for operation in &case.operations {
            twin.apply(operation, reached).await;
        }
        twin.finish(reached).await;
    });
}

thread_local! {
    /// What the last panic of a case on this thread said, while one runs.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one case; gives what its panic said. Hundreds of them fail while one is made smaller: only the last is worth printing.
fn judged(fixture: Box<dyn Fixture>, case: Case) -> TestCaseResult {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = info.to_string()));
            if kept.is_none() {
                before(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let agreed = catch_unwind(AssertUnwindSafe(|| agree(fixture, case, &mut Reached::default())));
    let said = SAID.take().unwrap_or_default();
    agreed.map_err(|_| TestCaseError::fail(said))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_memory_store_agrees_with_the_model(case in case()) {
        judged(Box::<MemoryFixture>::default(), case)?;
    }

    #[test]
    fn the_sqlite_store_agrees_with_the_model(case in case()) {
        judged(Box::<SqliteFixture>::default(), case)?;
    }

    #[test]
    fn the_redis_store_agrees_with_the_model(case in case()) {
        judged(Box::<RedisFixture>::default(), case)?;
    }
}

#[test]
fn the_operations_reach_everything() {
    let rng = TestRng::deterministic_rng(Config::default().rng_algorithm);
    let mut runner = TestRunner::new_with_rng(Config { cases: CASES, ..Config::default() }, rng);
    let sum = std::cell::Cell::new(Reached::default());
    let run = |case: Case| {
        let mut reached = sum.get();
        agree(Box::<MemoryFixture>::default(), case, &mut reached);
        sum.set(reached);
        Ok(())
    };
    runner.run(&case(), run).expect("every case agrees");
    let Reached {
        counters,
        parked,
        duplicates,
        full,
        gone,
        restarts,
        promoted,
        not_promoted,
        settled_again,
        settled_otherwise,
    } = sum.get();
    let counted = [
        counters.accepted,
        counters.delivered,
        counters.retried,
        counters.dead_lettered,
        counters.replayed,
        counters.cancelled,
        counters.purged,
        counters.discarded,
        counters.trimmed,
        counters.recovered,
        counters.deferred,
        parked,
        duplicates,
        full,
        gone,
        restarts,
        promoted,
        not_promoted,
        settled_again,
        settled_otherwise,
    ];
    assert!(counted.iter().all(|count| *count >= 10), "something is hardly ever reached: {:?}", sum.get());
}
