//! What can be said against settings without opening the store or the address: what [`crate::config`] knows by itself, and
//! what their queues name: processors, headers, destinations.

use crate::app::StartError;
use crate::config::{Problem, Problems, Settings};
use crate::domain::header::never;
use crate::domain::queue::{HTTP, QueueSettings};
use crate::processor::{Guard, Registry};

/// What others found.
pub(super) struct Found {
    /// Wrong with the settings as they were read: what cannot be is as it is built in now, of which nothing is to be said.
    pub(super) by_others: Problems,
    /// Wrong with the secrets that they name.
    pub(super) of_secrets: Vec<Problem>,
}

/// Something against a queue's settings: the key within the queue, and what is wrong.
type Against = (Vec<String>, String);

/// Checks what a program set, and what the queues and their defaults name.
///
/// # Errors
/// All that is wrong, each with where it was given: a value out of its range that a program set, a processor that nobody
/// registered, a header that no queue may set, a destination that the egress guard refuses for what it says; and what others
/// found.
pub(super) fn check(
    settings: &Settings,
    registry: &Registry,
    guard: &Guard,
    Found { by_others, of_secrets }: Found,
) -> Result<(), StartError> {
    let is_read = by_others.is_empty();
    let mut problems = Problems::default();
    // Of what was read and is out of its range it was said before, and where.
    if is_read {
        problems.extend(settings.problems());
    }
    for problem in of_secrets {
        problems.add(problem);
    }
    let of_all = of_defaults(&settings.queue_defaults, registry, guard);
    for (key, detail) in &of_all {
        problems.add(settings.problem(&["queue_defaults"], key, detail));
    }
    for (name, queue) in &settings.queues {
        let own = of_queue(queue, registry, guard);
        // What is wrong with the defaults is said once.
        for (key, detail) in own.iter().filter(|found| !of_all.contains(found)) {
            problems.add(settings.problem(&["queues", name.as_str()], key, detail));
        }
    }
    let problems = if is_read { problems } else { by_others.with_others(problems) };
    if problems.is_empty() {
        return Ok(());
    }
    Err(StartError::Configuration(format!("configuration:\n{}", problems.sorted())))
}

/// The defaults need not name anything; what they name must be.
fn of_defaults(defaults: &QueueSettings, registry: &Registry, guard: &Guard) -> Vec<Against> {
    let mut found = headers(defaults);
    if !defaults.processor.is_empty() {
        found.extend(processor(defaults, registry));
    }
    found.extend(destination(defaults, guard));
    found
}

fn of_queue(queue: &QueueSettings, registry: &Registry, guard: &Guard) -> Vec<Against> {
    let mut found = headers(queue);
    found.extend(processor(queue, registry));
    if queue.processor == HTTP {
        found.extend(destination(queue, guard));
    }
    found
}

fn processor(queue: &QueueSettings, registry: &Registry) -> Option<Against> {
    let processor = &queue.processor;
    let detail = || format!("{processor:?} is not one of {}", registry.names().join(", "));
    (!registry.contains(processor)).then(|| (vec!["processor".to_owned()], detail()))
}

fn headers(queue: &QueueSettings) -> Vec<Against> {
    let detail = "is not for a queue to set: it frames the request or is the gateway's own";
    let unfit = queue.delivery.headers.keys().filter(|name| never(&name.to_ascii_lowercase()).is_some());
    let key = |name: &String| vec!["delivery".to_owned(), "headers".to_owned(), name.clone()];
    unfit.map(|name| (key(name), detail.to_owned())).collect()
}

fn destination(queue: &QueueSettings, guard: &Guard) -> Option<Against> {
    let refusal = guard.judge_destination(queue.destination.as_ref()?).err()?;
    Some((vec!["destination".to_owned()], refusal.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::app::App;
    use crate::config::Settings;

    #[test]
    fn what_a_program_sets_is_held_to_the_same_ranges() {
        let mut settings = Settings::default();
        settings.server.grace = Duration::from_hours(2);
        settings.queue_defaults.retry.jitter = 2.0;
        settings.declare("orders", "resize").expect("a name").timeout = Duration::ZERO;
        let refused = App::builder(settings).build().expect_err("it is refused").to_string();
        let expected = [
            "configuration:",
            "the program: queue_defaults.retry.jitter: 2 is out of range: 0 to 1",
            "the program: queues.orders.processor: \"resize\" is not one of http, log, pull",
            "the program: queues.orders.timeout: 0s is out of range: 100ms to 15m",
            "the program: server.grace: 2h is out of range: 0s to 1h",
        ];
        assert_eq!(refused.lines().collect::<Vec<_>>(), expected);
    }
}
