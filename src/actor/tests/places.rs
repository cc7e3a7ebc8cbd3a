//! Where actors run: arbiters, this thread, HTTP workers, any runtime or none.

use std::thread;

use actix_web::{App, HttpServer};

use super::*;

/// Starts an actor on this thread, talks to it, and stops it.
async fn exercise_here() {
    let supervisor = Supervisor::new(PHASES);
    let notes = Notes::default();
    let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
    send_all(&address, [Order::Note(1), Order::Panic, Order::Note(2)]);
    until("both are noted", || notes.all() == [1, 2]).await;
    assert!(supervisor.shutdown(None).await.is_clean());
    assert!(address.is_closed());
}

/// The same on an arbiter; only plain threads' tools are used here.
fn exercise_arbiter(supervisor: &Supervisor) {
    let (names, name) = mpsc::sync_channel(16);
    let arbiter = supervisor.arbiter("named");
    assert_eq!(arbiter.name(), "named");
    assert!(arbiter.spawn("ask", move || async move {
        names.send(thread::current().name().map(str::to_owned)).unwrap();
    }));
    assert_eq!(name.recv_timeout(PATIENCE).unwrap().as_deref(), Some("named"));

    let notes = Notes::default();
    let address = supervisor.start(&Place::On(arbiter), role("scribe", "first"), notes.scribe());
    let (unblock, block) = mpsc::sync_channel(16);
    send_all(&address, [Order::Note(1), Order::Block(block), Order::Note(2)]);
    drop(unblock);
    let deadline = Instant::now() + PATIENCE;
    while notes.all() != [1, 2] {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn an_actor_lives_on_the_thread_of_a_system() {
    actix_rt::System::new().block_on(exercise_here());
}

#[test]
fn an_actor_lives_in_a_bare_runtime() {
    actix_rt::Runtime::new().unwrap().block_on(exercise_here());
}

#[test]
fn an_arbiter_is_started_from_a_thread_without_any_runtime() {
    let supervisor = Supervisor::new(PHASES);
    exercise_arbiter(&supervisor);
    assert!(in_system(supervisor.shutdown(None)).is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arbiter_is_started_from_inside_a_multi_threaded_runtime() {
    let supervisor = Supervisor::new(PHASES);
    exercise_arbiter(&supervisor);
    assert!(supervisor.shutdown(None).await.is_clean());
}

#[test]
fn an_arbiter_is_started_from_inside_a_system_and_from_another_arbiter() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        exercise_arbiter(&supervisor);
        let (done, is_done) = mpsc::sync_channel(16);
        let moved = supervisor.clone();
        supervisor.arbiter("outer").spawn("exercise", move || async move {
            exercise_arbiter(&moved);
            done.send(()).unwrap();
        });
        until("the other arbiter has tried", || is_done.try_recv().is_ok()).await;
        assert!(supervisor.shutdown(None).await.is_clean());
    });
}

#[test]
fn arbiters_end_with_the_last_supervisor() {
    let supervisor = Supervisor::new(PHASES);
    let arbiter = supervisor.arbiter("orphan");
    let other = supervisor.clone();
    drop(supervisor);
    assert!(arbiter.spawn("still there", || async {}));
    drop(other);
    in_system(until("the thread ends", || !arbiter.spawn("asked", || async {})));
}

#[test]
fn an_actor_put_on_a_stopped_arbiter_is_stopped_and_its_mailbox_closed() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let place = Place::On(supervisor.arbiter("gone"));
        assert!(supervisor.shutdown(None).await.is_clean());
        let address = supervisor.start(&place, role("scribe", "first"), Notes::default().scribe());
        assert!(matches!(address.try_send(Order::Quit), Err(SendError::Closed(Order::Quit))));
        assert_eq!(status(&supervisor, "scribe").state, ActorState::Stopped);
    });
}

#[test]
fn a_panic_of_a_task_put_on_an_arbiter_is_counted_and_the_arbiter_goes_on() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let arbiter = supervisor.arbiter("tasks");
        let before = spawned_panics();
        assert!(arbiter.spawn("async", || async { panic!("told to panic") }));
        assert!(arbiter.spawn("making", || {
            assert!(spawned_panics() > u64::MAX - 1, "told to panic before there is a future");
            async {}
        }));
        until("both are counted", || spawned_panics() >= before + 2).await;
        let (done, is_done) = mpsc::sync_channel(16);
        assert!(arbiter.spawn("after", move || async move { done.send(()).unwrap() }));
        until("the next task runs", || is_done.try_recv().is_ok()).await;
        assert!(supervisor.shutdown(None).await.is_clean());
    });
}

#[test]
fn actors_on_http_workers_end_with_their_threads_and_are_not_waited_for() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let main = supervisor.arbiter("main");
        let (servers, server) = mpsc::sync_channel(16);
        let moved = supervisor.clone();
        main.spawn("http", move || async move {
            let server = HttpServer::new(move || {
                // Two workers: two actors of one name.
                let address = moved.start(&Place::Here, role("scribe", "second"), Notes::default().scribe());
                App::new().app_data(address)
            });
            let server = server.workers(2).disable_signals().bind(("127.0.0.1", 0)).unwrap().run();
            servers.send(server.handle()).unwrap();
            server.await.unwrap();
        });
        let states = || supervisor.watch().iter().map(|status| status.state).collect::<Vec<_>>();
        until("both workers run", || states() == [ActorState::Running; 2]).await;
        let server = server.recv_timeout(PATIENCE).unwrap();
        let report = supervisor
            .shutdown_with(None, |phase, _| {
                let server = server.clone();
                async move {
                    if phase == "first" {
                        server.stop(true).await;
                    }
                }
            })
            .await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(states(), [ActorState::Stopped; 2]);
    });
}
