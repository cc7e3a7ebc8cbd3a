//! Stopping in phases, and naming who was late.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::super::shutdown::{ARBITERS_PHASE, STEP};
use super::*;

const SHORT: Duration = Duration::from_millis(20);

fn late(phase: &'static str, actor: &str) -> Late {
    Late { phase, actor: actor.to_owned() }
}

type Events = Arc<Mutex<Vec<String>>>;

fn event(events: &Events, text: String) {
    events.lock().unwrap().push(text);
}

/// Tells when it is told to stop, and when it ends, several turns of its runtime later.
struct Teller {
    events: Events,
    dropped: Option<Arc<AtomicBool>>,
}

impl Actor for Teller {
    type Message = ();

    async fn run(&mut self, _inbox: &mut Inbox<()>, life: &Life) -> Exit {
        life.stopping().await;
        event(&self.events, format!("{} begins", life.name()));
        if self.dropped.is_some() {
            std::future::pending::<()>().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        event(&self.events, format!("{} ends", life.name()));
        Exit::Done
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.store(true, Ordering::SeqCst);
        }
    }
}

fn start_teller(supervisor: &Supervisor, place: &Place, phase: &'static str, events: &Events) {
    let events = events.clone();
    supervisor.start(place, role(phase, phase), move || Teller { events: events.clone(), dropped: None });
}

/// An actor that never ends by itself, and whether it has been dropped.
fn start_deaf(supervisor: &Supervisor, name: &str, phase: &'static str, events: &Events) -> Arc<AtomicBool> {
    let place = Place::On(supervisor.arbiter(name));
    let dropped = Arc::new(AtomicBool::new(false));
    let (events, probe) = (events.clone(), dropped.clone());
    supervisor.start(&place, role(name, phase), move || Teller {
        events: events.clone(),
        dropped: Some(probe.clone()),
    });
    dropped
}

async fn until_running(supervisor: &Supervisor) {
    let running = || supervisor.watch().iter().all(|status| status.state == ActorState::Running);
    until("all actors live", running).await;
}

#[test]
fn phases_run_in_order_with_the_steps_of_the_application_inside() {
    in_system(async {
        let phases = ["one", "two", "three"].map(|name| Phase::new(name, PATIENCE));
        let supervisor = Supervisor::new(phases);
        let events = Events::default();
        // Started in another order than they stop, and on different threads.
        start_teller(&supervisor, &Place::On(supervisor.arbiter("b")), "three", &events);
        start_teller(&supervisor, &Place::On(supervisor.arbiter("a")), "one", &events);
        start_teller(&supervisor, &Place::Here, "two", &events);
        until_running(&supervisor).await;
        let report = supervisor
            .shutdown_with(None, |phase, deadline| {
                assert!(deadline > tokio::time::Instant::now());
                let events = events.clone();
                async move {
                    event(&events, format!("{phase} step begins"));
                    tokio::task::yield_now().await;
                    event(&events, format!("{phase} step ends"));
                }
            })
            .await;
        assert_eq!(report, ShutdownReport::default());
        let events = events.lock().unwrap().clone();
        assert_eq!(events.len(), 12);
        for (phase, part) in ["one", "two", "three"].iter().zip(events.chunks(4)) {
            for text in ["begins", "ends", "step begins", "step ends"] {
                assert!(part.contains(&format!("{phase} {text}")), "{phase} {text}: {events:?}");
            }
        }
    });
}

#[test]
fn a_stuck_phase_is_named_and_the_others_still_stop() {
    in_system(async {
        let phases = [Phase::new("one", PATIENCE), Phase::new("stuck", SHORT), Phase::new("three", PATIENCE)];
        let supervisor = Supervisor::new(phases);
        let events = Events::default();
        start_teller(&supervisor, &Place::On(supervisor.arbiter("a")), "one", &events);
        let dropped = start_deaf(&supervisor, "deaf", "stuck", &events);
        start_teller(&supervisor, &Place::On(supervisor.arbiter("b")), "three", &events);
        until_running(&supervisor).await;
        let report = supervisor.shutdown(None).await;
        assert_eq!(report.late, [late("stuck", "deaf")]);
        let expected = ["one begins", "one ends", "deaf begins", "three begins", "three ends"];
        assert_eq!(*events.lock().unwrap(), expected);
        assert!(dropped.load(Ordering::SeqCst), "its thread was joined, so it is gone");
        assert!(supervisor.watch().iter().all(|status| status.state == ActorState::Stopped));
    });
}

#[test]
fn the_budget_cuts_the_deadlines_of_the_phases() {
    in_system(async {
        let supervisor =
            Supervisor::new([Phase::new("one", NEVER), Phase::new("two", NEVER), Phase::new("three", NEVER)]);
        let events = Events::default();
        start_deaf(&supervisor, "deaf one", "one", &events);
        start_deaf(&supervisor, "deaf two", "two", &events);
        until_running(&supervisor).await;
        let report = supervisor.shutdown(Some(SHORT)).await;
        assert_eq!(report.late, [late("one", "deaf one"), late("two", "deaf two")]);
    });
}

#[test]
fn a_second_shutdown_waits_for_the_first_and_gets_the_same_report() {
    in_system(async {
        let supervisor = Supervisor::new([Phase::new("one", SHORT)]);
        start_deaf(&supervisor, "deaf", "one", &Events::default());
        until_running(&supervisor).await;
        let other = supervisor.clone();
        let both =
            futures_util::future::join(supervisor.shutdown(None), other.shutdown(Some(Duration::ZERO)));
        let (first, second) = both.await;
        assert_eq!(first.late, [late("one", "deaf")]);
        assert_eq!(second, first);
        assert_eq!(supervisor.shutdown(None).await, first);
    });
}

#[test]
fn a_step_that_is_late_or_panics_is_named_and_the_rest_still_stops() {
    in_system(async {
        let supervisor = Supervisor::new([
            Phase::new("late", SHORT),
            Phase::new("panics", PATIENCE),
            Phase::new("last", PATIENCE),
        ]);
        let events = Events::default();
        start_teller(&supervisor, &Place::Here, "last", &events);
        until_running(&supervisor).await;
        let report = supervisor
            .shutdown_with(None, |phase, _| async move {
                match phase {
                    "late" => std::future::pending().await,
                    "panics" => panic!("told to panic"),
                    _ => {}
                }
            })
            .await;
        assert_eq!(report.late, [late("late", STEP), late("panics", STEP)]);
        assert_eq!(*events.lock().unwrap(), ["last begins", "last ends"]);
    });
}

#[test]
fn a_shutdown_that_was_dropped_is_taken_up_by_the_next() {
    in_system(async {
        let supervisor = Supervisor::new([Phase::new("one", PATIENCE)]);
        let events = Events::default();
        start_teller(&supervisor, &Place::Here, "one", &events);
        until_running(&supervisor).await;
        assert!(supervisor.shutdown(None).now_or_never().is_none());
        assert!(supervisor.shutdown(None).await.is_clean());
        assert_eq!(*events.lock().unwrap(), ["one begins", "one ends"]);
    });
}

#[test]
fn a_blocked_thread_is_named_and_left_behind() {
    in_system(async {
        let supervisor = Supervisor::new([Phase::new("one", SHORT)]);
        let place = Place::On(supervisor.arbiter("blocked"));
        let address = supervisor.start(&place, role("blocker", "one"), Notes::default().scribe());
        let (unblock, block) = mpsc::sync_channel(16);
        send_all(&address, [Order::Block(block)]);
        until("it is blocked", || address.depth() == 0).await;
        let report = supervisor.shutdown(None).await;
        assert_eq!(report.late, [late("one", "blocker"), late(ARBITERS_PHASE, "blocked")]);
        drop(unblock);
        until("its thread ends", || address.is_closed()).await;
    });
}

#[test]
fn a_shutdown_on_an_arbiter_leaves_that_one_until_the_last_supervisor_is_gone() {
    let supervisor = Supervisor::new(PHASES);
    let own = supervisor.arbiter("own");
    let other = supervisor.arbiter("other");
    let place = Place::On(own.clone());
    let _address = supervisor.start(&place, role("scribe", "first"), Notes::default().scribe());
    let (reports, report) = mpsc::sync_channel(16);
    let moved = supervisor.clone();
    own.spawn("shutdown", move || async move {
        let report = moved.shutdown(None).await;
        tokio::task::yield_now().await;
        reports.send(report).unwrap();
    });
    assert_eq!(report.recv_timeout(PATIENCE).unwrap(), ShutdownReport::default());
    assert!(!other.spawn("too late", || async {}));
    assert!(own.spawn("in time", || async {}));
    drop((supervisor, place));
    in_system(until("its thread ends", || !own.spawn("asked", || async {})));
}

#[test]
fn a_shutdown_can_be_awaited_on_any_thread() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let supervisor = Supervisor::new(PHASES);
    let place = Place::On(supervisor.arbiter("a"));
    let _address = supervisor.start(&place, role("scribe", "first"), Notes::default().scribe());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(sendable(supervisor.until_gave_up()).now_or_never().is_none());
        assert!(sendable(supervisor.shutdown(Some(PATIENCE))).await.is_clean());
    });
}

/// Asks for a timer when it is dropped, as a guard's owner might.
struct Timer(mpsc::SyncSender<bool>);

impl Drop for Timer {
    fn drop(&mut self) {
        let on_its_thread = thread::current().name() == Some("timers");
        drop(tokio::time::sleep(NEVER));
        self.0.send(on_its_thread).unwrap();
    }
}

#[test]
fn tasks_dropped_with_their_arbiter_still_have_a_runtime() {
    let supervisor = Supervisor::new(PHASES);
    let (dropped, was_dropped) = mpsc::sync_channel(16);
    supervisor.arbiter("timers").spawn("held", move || async move {
        let _timer = Timer(dropped);
        std::future::pending::<()>().await;
    });
    assert!(in_system(supervisor.shutdown(None)).is_clean());
    assert_eq!(was_dropped.try_recv(), Ok(true));
}
