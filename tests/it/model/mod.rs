//! Random operations on a store and on the model of it, the store in memory: both must answer the same, and afterwards hold
//! the same, whatever is sent twice, late or wrong, and however the clocks jump.
//!
//! 64 cases of 30 to 60 operations; `PROPTEST_CASES=5000` makes it 5,000.

mod operations;
mod twin;

use operations::{Operation, QUEUES, operation, settings};
use posthaste::domain::queue::QueueSettings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};
use twin::{Reached, Twin};

use crate::conformance::Fixture;
use crate::conformance::fixtures::{MemoryFixture, SqliteFixture};

/// Operations of a case, those that make the queues aside.
const OPERATIONS: std::ops::RangeInclusive<usize> = 30..=60;
/// Cases unless the environment says otherwise.
const CASES: u32 = 64;

fn config() -> Config {
    let config = Config::default();
    let unless_asked = if config.cases == 256 { CASES } else { config.cases };
    Config { cases: unless_asked, max_shrink_iters: 20_000, ..config }
}

/// The settings of the queues, and what is done with them.
fn case() -> impl Strategy<Value = (Vec<QueueSettings>, Vec<Operation>)> {
    let settings = prop::collection::vec(settings(), QUEUES.len());
    (settings, prop::collection::vec(operation(), OPERATIONS))
}

/// Runs one case.
fn agree(
    fixture: Box<dyn Fixture>,
    queues: Vec<QueueSettings>,
    operations: &[Operation],
    reached: &mut Reached,
) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut twin = Twin::new(fixture);
        for (queue, settings) in queues.into_iter().enumerate() {
            twin.apply(&Operation::Put { queue, settings: Box::new(settings) }, reached).await;
        }
        for operation in operations {
            twin.apply(operation, reached).await;
        }
        twin.finish(reached).await;
    });
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_memory_store_agrees_with_the_model((queues, operations) in case()) {
        agree(Box::<MemoryFixture>::default(), queues, &operations, &mut Reached::default());
    }

    #[test]
    fn the_sqlite_store_agrees_with_the_model((queues, operations) in case()) {
        agree(Box::<SqliteFixture>::default(), queues, &operations, &mut Reached::default());
    }
}

#[test]
fn the_operations_reach_everything() {
    let rng = TestRng::deterministic_rng(Config::default().rng_algorithm);
    let mut runner = TestRunner::new_with_rng(Config { cases: CASES, ..Config::default() }, rng);
    let sum = std::cell::Cell::new(Reached::default());
    let run = |(queues, operations): (Vec<QueueSettings>, Vec<Operation>)| {
        let mut reached = sum.get();
        agree(Box::<MemoryFixture>::default(), queues, &operations, &mut reached);
        sum.set(reached);
        Ok(())
    };
    runner.run(&case(), run).expect("every case agrees");
    let Reached { counters, parked, duplicates, full, gone, restarts } = sum.get();
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
    ];
    assert!(counted.iter().all(|count| *count >= 10), "something is hardly ever reached: {:?}", sum.get());
}
