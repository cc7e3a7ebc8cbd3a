//! Figures, by hand: `cargo test --release --lib store::sqlite::tests::speed -- --ignored --nocapture --test-threads 1`.

use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::*;
use crate::domain::outcome::{Attempt, AttemptOutcome};
use crate::store::lease::Leased;

/// Time and CPU since it was started.
struct Watch {
    clock: Clock,
    cpu_us: i64,
    began: crate::clock::Tick,
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

impl Watch {
    fn start() -> Self {
        let clock = Clock::system();
        let began = clock.tick();
        Self { clock, cpu_us: cpu_us(), began }
    }

    fn say(&self, what: &str, messages: u64) {
        let span = self.clock.tick().since(self.began).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
        let (rate, cpu) = (messages as f64 / span, (cpu_us() - self.cpu_us) as f64 / messages as f64);
        println!("{what:44} {rate:9.0} messages/s  {cpu:6.2} µs CPU a message");
    }
}

async fn enqueue_calls(
    connection: &Rc<dyn MessageStore>,
    queue: &QueueRef,
    first: u64,
    calls: u64,
    groups: u64,
) {
    let payload = [0x61; 100];
    for call in 0..calls {
        let numbers = (0..groups).map(|index| first + call * groups + index);
        let groups = numbers.map(|number| group(queue, vec![message(number, &payload)])).collect();
        let results = connection.enqueue(CallId::random(), Arc::new(groups)).await.expect("stored");
        assert!(results.iter().all(|result| *result == GroupResult::Accepted));
    }
}

/// Leases and acknowledges until nothing is left; each settlement goes out together with the next lease.
async fn drain(connection: &Rc<dyn MessageStore>, queue: &QueueRef, max: u16) -> u64 {
    let mut drained = 0;
    let mut held: Option<Leased> = None;
    loop {
        let lease = connection.lease(request(queue, LeaseKind::Worker, max));
        let settle = async {
            if let Some(held) = &held {
                connection.settle(held.batch.clone(), acknowledge(held)).await.expect("settled");
            }
        };
        let (leased, ()) = tokio::join!(lease, settle);
        let leased = leased.expect("leased");
        drained += leased.leases.len() as u64;
        if leased.leases.is_empty() {
            return drained;
        }
        held = Some(leased);
    }
}

async fn measure(stand: &Stand, lookup: bool, base: u64) {
    let connection = stand.connect();
    let limits = crate::domain::queue::LimitSettings {
        length_max: 100_000_000,
        bytes_max: 1 << 40,
        ..Default::default()
    };
    let settings = QueueSettings { processor: "log".to_owned(), lookup, limits, ..QueueSettings::default() };
    let queue = make_queue(&connection, if lookup { "found" } else { "blind" }, settings).await;
    let word = if lookup { "lookup on" } else { "lookup off" };

    let watch = Watch::start();
    enqueue_calls(&connection, &queue, base, 2_000, 64).await;
    watch.say(&format!("enqueue, {word}, 1 caller, 64 a call"), 128_000);

    let watch = Watch::start();
    drain(&connection, &queue, 128).await;
    watch.say(&format!("lease and acknowledge, {word}, 128 a batch"), 128_000);

    let watch = Watch::start();
    let callers = (0..4).map(|caller| {
        let (connection, queue) = (&connection, &queue);
        async move { enqueue_calls(connection, queue, base + 1_000_000 * (caller + 1), 1_000, 64).await }
    });
    join_all(callers).await;
    watch.say(&format!("enqueue, {word}, 4 callers, 64 a call"), 256_000);

    let watch = Watch::start();
    let drains = (0..4).map(|_| drain(&connection, &queue, 128));
    join_all(drains).await;
    watch.say(&format!("lease and acknowledge, {word}, 4 × 128"), 256_000);

    let watch = Watch::start();
    enqueue_calls(&connection, &queue, base + 9_000_000, 2_000, 1).await;
    watch.say(&format!("enqueue, {word}, 1 caller, 1 a call"), 2_000);
    let watch = Watch::start();
    drain(&connection, &queue, 1).await;
    watch.say(&format!("lease and acknowledge, {word}, 1 a batch"), 2_000);
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[test]
#[ignore = "prints figures, asserts nothing"]
fn how_fast_it_is() {
    run(async {
        for lookup in [false, true] {
            let stand = Stand::new(Clock::system());
            measure(&stand, lookup, u64::from(lookup) << 40).await;
        }
    });
}

/// Settles batches in turn with and without the attempt that each message's end remembers; all else is the same.
#[test]
#[ignore = "prints figures, asserts nothing"]
fn what_remembering_the_last_attempt_costs() {
    const ROUNDS: u64 = 400;
    const BATCH: u64 = 128;
    run(async {
        let stand = Stand::new(Clock::system());
        let connection = stand.connect();
        let mut queues = Vec::new();
        for name in ["without", "with"] {
            queues.push(make_queue(&connection, name, settings()).await);
        }
        let mut cpu_us_of = [0, 0];
        let mut spans = [Duration::ZERO; 2];
        for round in 0..ROUNDS {
            for index in [round % 2, 1 - round % 2].map(|index| usize::try_from(index).expect("0 or 1")) {
                publish(&connection, &queues[index], round * BATCH, BATCH, BATCH).await;
                let lease = request(&queues[index], LeaseKind::Worker, 128);
                let leased = connection.lease(lease).await.expect("leased");
                let attempt = (index == 1).then(delivered);
                let settle =
                    |settlement: &Settlement| Settlement { attempt: attempt.clone(), ..settlement.clone() };
                let settlements = Arc::new(acknowledge(&leased).iter().map(settle).collect());
                let (began, cpu_before) = (stand.clock.tick(), cpu_us());
                connection.settle(leased.batch, settlements).await.expect("settled");
                cpu_us_of[index] += cpu_us() - cpu_before;
                spans[index] += stand.clock.tick().since(began);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
        let [without, with] = cpu_us_of.map(|cpu_us| cpu_us as f64 / (ROUNDS * BATCH) as f64);
        let ratio = spans[1].as_secs_f64() / spans[0].as_secs_f64();
        println!(
            "settle, {BATCH} a batch: {without:.2} µs CPU a message without, {with:.2} with: × {:.3}",
            with / without
        );
        println!("wall: {:?} without, {:?} with: × {ratio:.3}", spans[0], spans[1]);
    });
}

fn delivered() -> Attempt {
    let (at, outcome) = (START, AttemptOutcome::Delivered);
    Attempt { number: 1, at, duration_ms: 7, outcome, status: Some(200), error: None, excerpt: None }
}
