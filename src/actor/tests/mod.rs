//! The runtime on real threads and real runtimes.

mod mailbox;
mod places;
mod shutdown;
mod supervision;

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::*;

/// Longer than any wait of a test that passes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pause so long that a test which has to sit it out fails.
const NEVER: Duration = Duration::from_hours(1);

const PHASES: &[Phase] = &[Phase::new("first", PATIENCE), Phase::new("second", PATIENCE)];

/// What a [`Scribe`] is told.
enum Order {
    Note(u32),
    Panic,
    Fail,
    Quit,
    Done,
    /// Blocks its thread until the other end of the channel is dropped.
    Block(mpsc::Receiver<()>),
}

/// Notes numbers where all its lives, and the test, can see them.
struct Scribe {
    notes: Notes,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<u32>>>);

impl Notes {
    fn add(&self, number: u32) {
        self.0.lock().unwrap().push(number);
    }

    fn all(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }

    fn scribe(&self) -> impl Fn() -> Scribe + Send + 'static {
        let notes = self.clone();
        move || Scribe { notes: notes.clone() }
    }
}

impl Actor for Scribe {
    type Message = Order;

    async fn run(&mut self, inbox: &mut Inbox<Order>, life: &Life) -> Exit {
        while let Some(order) = life.next(inbox).await {
            match order {
                Order::Note(number) => self.notes.add(number),
                Order::Panic => panic!("told to panic"),
                Order::Fail => return Exit::Failed("told to fail".to_owned()),
                Order::Quit => return Exit::Quit,
                Order::Done => return Exit::Done,
                Order::Block(until) => drop(until.recv()),
            }
        }
        Exit::Done
    }
}

fn role(name: &str, phase: &'static str) -> Role {
    let restart = RestartPolicy {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        restarts_max: 3,
        within: NEVER,
    };
    Role { name: name.to_owned(), phase, mailbox_capacity: 256, restart }
}

/// The same with pauses between lives that no test can sit out.
fn role_with_endless_pauses(name: &str, phase: &'static str) -> Role {
    let mut role = role(name, phase);
    role.restart.backoff_min = NEVER;
    role.restart.backoff_max = NEVER;
    role
}

fn send_all(address: &Address<Order>, orders: impl IntoIterator<Item = Order>) {
    for order in orders {
        address.try_send(order).unwrap();
    }
}

fn status(supervisor: &Supervisor, name: &str) -> ActorStatus {
    let found = supervisor.watch().into_iter().find(|status| status.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in the registry"))
}

/// Runs on a thread of its own System, as an HTTP worker does.
fn in_system<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

/// Waits for a condition, looking again after every turn of the runtime.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
