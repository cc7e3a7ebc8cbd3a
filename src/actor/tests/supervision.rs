//! Restarts, and what they keep.

use std::sync::atomic::AtomicU32;

use super::*;

#[test]
fn a_panic_restarts_and_loses_nothing_queued() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let place = Place::On(supervisor.arbiter("scribes"));
        let address = supervisor.start(&place, role("scribe", "first"), notes.scribe());
        send_all(&address, [Order::Note(0), Order::Panic]);
        send_all(&address, (1..100).map(Order::Note));
        until("all is noted", || notes.all().len() == 100).await;
        assert!(notes.all().into_iter().eq(0..100));
        let status = status(&supervisor, "scribe");
        assert_eq!((status.state, status.restarts), (ActorState::Running, 1));
        assert_eq!(supervisor.gave_up(), None);
        assert!(supervisor.shutdown(None).await.is_clean());
    });
}

/// Takes batches of numbers into a guard and panics at 13.
struct Batcher {
    given_back: mpsc::SyncSender<Unfinished<u32>>,
    notes: Notes,
}

impl Actor for Batcher {
    type Message = u32;

    async fn run(&mut self, inbox: &mut Inbox<u32>, _life: &Life) -> Exit {
        let given_back = self.given_back.clone();
        let mut guard = Guard::new(move |unfinished| given_back.send(unfinished).unwrap());
        let mut batch = Vec::new();
        while inbox.next_many(&mut batch, 4).await > 0 {
            for number in &batch {
                assert_eq!(guard.take(*number, *number), None);
            }
            for number in batch.drain(..) {
                guard.start(&number).unwrap();
                tokio::task::yield_now().await;
                assert_ne!(number, 13, "13 is not for me");
                self.notes.add(guard.finish(&number).unwrap());
            }
        }
        Exit::Quit
    }
}

#[test]
fn the_message_in_hand_when_it_panicked_is_what_the_guard_reports() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let (given_back, reports) = mpsc::sync_channel(16);
        let factory = {
            let notes = notes.clone();
            move || Batcher { given_back: given_back.clone(), notes: notes.clone() }
        };
        let address = supervisor.start(&Place::Here, role("batcher", "first"), factory);
        for number in [11, 12, 13, 14, 15, 16] {
            address.try_send(number).unwrap();
        }
        drop(address);
        until("the rest is done", || notes.all().len() == 4).await;
        assert_eq!(notes.all(), [11, 12, 15, 16]);
        let unfinished = reports.recv_timeout(PATIENCE).unwrap();
        assert_eq!(unfinished, Unfinished { started: vec![13], not_started: vec![14] });
        until("it quits", || status(&supervisor, "batcher").state == ActorState::Stopped).await;
        assert!(reports.try_recv().is_err(), "the second life gave nothing back");
    });
}

#[test]
fn too_many_panics_escalate_and_name_the_actor() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let place = Place::On(supervisor.arbiter("scribes"));
        let notes = Notes::default();
        let healthy = supervisor.start(&place, role("healthy", "first"), notes.scribe());
        let broken = supervisor.start(&place, role("broken", "first"), Notes::default().scribe());
        send_all(&broken, [Order::Panic, Order::Fail, Order::Panic]);
        until("it broke as often as it may", || status(&supervisor, "broken").restarts == 3).await;
        assert_eq!(supervisor.gave_up(), None);
        send_all(&broken, [Order::Panic]);
        assert_eq!(tokio::time::timeout(PATIENCE, supervisor.until_gave_up()).await.unwrap(), "broken");
        assert_eq!(supervisor.gave_up().as_deref(), Some("broken"));
        let status = status(&supervisor, "broken");
        assert_eq!((status.state, status.restarts, status.mailbox_depth), (ActorState::GaveUp, 3, 0));
        assert!(matches!(broken.try_send(Order::Quit), Err(SendError::Closed(Order::Quit))));

        let other = supervisor.start(&place, role("other", "first"), Notes::default().scribe());
        send_all(&other, [Order::Panic, Order::Panic, Order::Panic, Order::Panic]);
        until("the other gives up", || self::status(&supervisor, "other").state == ActorState::GaveUp).await;
        assert_eq!(supervisor.until_gave_up().await, "broken", "the first is named, for good");

        send_all(&healthy, [Order::Note(1)]);
        until("the healthy one goes on", || notes.all() == [1]).await;
        assert!(supervisor.shutdown(None).await.is_clean());
    });
}

#[test]
fn a_factory_that_panics_is_tried_again() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let (tries, scribe) = (AtomicU32::new(0), notes.scribe());
        let address = supervisor.start(&Place::Here, role("scribe", "first"), move || {
            assert!(tries.fetch_add(1, Ordering::Relaxed) >= 2, "not yet");
            scribe()
        });
        send_all(&address, [Order::Note(1)]);
        until("the third try works", || notes.all() == [1]).await;
        assert_eq!(status(&supervisor, "scribe").restarts, 2);
    });
}

#[test]
fn an_actor_that_failed_is_restarted() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
        send_all(&address, [Order::Fail, Order::Note(1), Order::Fail, Order::Note(2)]);
        until("both are noted", || notes.all() == [1, 2]).await;
        assert_eq!(status(&supervisor, "scribe").restarts, 2);
    });
}

#[test]
fn an_actor_that_ends_by_itself_stays_away_and_its_mailbox_closes() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        for last in [Order::Quit, Order::Done] {
            let notes = Notes::default();
            let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
            send_all(&address, [Order::Note(1), last, Order::Note(2)]);
            until("it ends", || status(&supervisor, "scribe").state == ActorState::Stopped).await;
            assert!(address.is_closed());
            assert_eq!(notes.all(), [1]);
            assert_eq!(status(&supervisor, "scribe").restarts, 0);
            assert_eq!(supervisor.watch().len(), 1, "the second takes the place of the first");
        }
        assert_eq!(supervisor.gave_up(), None);
    });
}

#[test]
fn stopping_drains_what_is_queued() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
        send_all(&address, (0..200).map(Order::Note));
        // Nothing else has run on this thread yet: all of it is still queued.
        assert_eq!(status(&supervisor, "scribe").state, ActorState::Starting);
        assert_eq!(status(&supervisor, "scribe").mailbox_depth, 200);
        let deadline = supervisor.begin_phase("first", PATIENCE);
        assert_eq!(status(&supervisor, "scribe").state, ActorState::Stopping);
        assert_eq!(supervisor.wait_phase("first", deadline).await, []);
        assert!(notes.all().into_iter().eq(0..200));
        assert_eq!(status(&supervisor, "scribe").state, ActorState::Stopped);
    });
}

#[test]
fn a_panic_while_stopping_restarts_at_once_to_drain() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let role = role_with_endless_pauses("scribe", "first");
        let address = supervisor.start(&Place::Here, role, notes.scribe());
        send_all(
            &address,
            [Order::Note(1), Order::Panic, Order::Note(2), Order::Fail, Order::Note(3), Order::Panic],
        );
        let deadline = supervisor.begin_phase("first", PATIENCE);
        assert_eq!(supervisor.wait_phase("first", deadline).await, []);
        assert_eq!(notes.all(), [1, 2, 3]);
        assert_eq!(
            status(&supervisor, "scribe").restarts,
            2,
            "after the last panic nothing was left to drain"
        );
    });
}

#[test]
fn panics_while_stopping_are_bounded_by_the_same_cap() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
        send_all(&address, (0..10).map(|_| Order::Panic));
        let deadline = supervisor.begin_phase("first", PATIENCE);
        assert_eq!(supervisor.wait_phase("first", deadline).await, []);
        assert_eq!(supervisor.gave_up().as_deref(), Some("scribe"));
        assert_eq!(status(&supervisor, "scribe").restarts, 3);
    });
}

#[test]
fn stopping_cuts_the_pause_before_a_restart_short() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let lives = Arc::new(AtomicU32::new(0));
        let [with_mail, without_mail] = ["with mail", "without mail"].map(|name| {
            let (scribe, lives) = (notes.scribe(), lives.clone());
            let address =
                supervisor.start(&Place::Here, role_with_endless_pauses(name, "first"), move || {
                    lives.fetch_add(1, Ordering::Relaxed);
                    scribe()
                });
            send_all(&address, [Order::Panic]);
            address
        });
        let pausing = || supervisor.watch().iter().all(|status| status.state == ActorState::Restarting);
        until("both pause", pausing).await;
        send_all(&with_mail, [Order::Note(1)]);
        let deadline = supervisor.begin_phase("first", PATIENCE);
        assert_eq!(supervisor.wait_phase("first", deadline).await, []);
        assert_eq!(notes.all(), [1]);
        assert_eq!(lives.load(Ordering::Relaxed), 3, "only the one with mail lives again");
        assert!(with_mail.is_closed() && without_mail.is_closed());
    });
}

#[test]
fn an_actor_started_after_its_phase_began_drains_and_ends() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let notes = Notes::default();
        let deadline = supervisor.begin_phase("first", PATIENCE);
        let address = supervisor.start(&Place::Here, role("scribe", "first"), notes.scribe());
        send_all(&address, [Order::Note(1)]);
        assert_eq!(supervisor.wait_phase("first", deadline).await, []);
        assert_eq!(notes.all(), [1]);
    });
}

/// Tells what its life tells it, and does not use its mailbox.
struct Listener(mpsc::SyncSender<String>);

impl Actor for Listener {
    type Message = ();

    async fn run(&mut self, _inbox: &mut Inbox<()>, life: &Life) -> Exit {
        self.0.send(format!("{} {} {:?}", life.name(), life.is_stopping(), life.deadline())).unwrap();
        life.stopping().await;
        // It can be asked for again.
        life.stopping().await;
        self.0.send(format!("{} {}", life.is_stopping(), life.deadline().is_some())).unwrap();
        Exit::Done
    }
}

#[test]
fn a_life_tells_its_name_and_when_to_stop() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let (words, heard) = mpsc::sync_channel(16);
        let _address =
            supervisor.start(&Place::Here, role("listener", "second"), move || Listener(words.clone()));
        let mut first = None;
        until("it lives", || {
            first = first.take().or_else(|| heard.try_recv().ok());
            first.is_some()
        })
        .await;
        assert_eq!(first.as_deref(), Some("listener false None"));
        supervisor.begin_phase("first", PATIENCE);
        assert!(supervisor.is_shutting_down());
        assert_eq!(status(&supervisor, "listener").state, ActorState::Running, "its own phase is another");
        let deadline = supervisor.begin_phase("second", PATIENCE);
        assert_eq!(supervisor.wait_phase("second", deadline).await, []);
        assert_eq!(heard.try_recv().as_deref(), Ok("true true"));
    });
}

/// Beats once for each message.
struct Beater;

impl Actor for Beater {
    type Message = ();

    async fn run(&mut self, inbox: &mut Inbox<()>, life: &Life) -> Exit {
        while inbox.next().await.is_some() {
            life.beat();
        }
        Exit::Quit
    }
}

#[tokio::test(start_paused = true)]
async fn watch_shows_how_long_ago_the_last_beat_was() {
    let supervisor = Supervisor::new(PHASES);
    let beat_age_ms = || status(&supervisor, "beater").beat_age_ms;
    let test = async {
        let address = supervisor.start(&Place::Here, role("beater", "first"), || Beater);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(beat_age_ms(), 5_000);
        address.try_send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(70)).await;
        assert_eq!(beat_age_ms(), 70);
    };
    tokio::task::LocalSet::new().run_until(test).await;
}

#[test]
fn a_status_is_written_as_the_contract_says() {
    in_system(async {
        let supervisor = Supervisor::new(PHASES);
        let _address = supervisor.start(&Place::Here, role("scribe", "first"), Notes::default().scribe());
        let mut status = status(&supervisor, "scribe");
        status.beat_age_ms = 12;
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            r#"{"name":"scribe","state":"starting","restarts":0,"mailbox_depth":0,"mailbox_capacity":256,"beat_age_ms":12}"#
        );
        for state in [
            ActorState::Starting,
            ActorState::Running,
            ActorState::Restarting,
            ActorState::Stopping,
            ActorState::Stopped,
            ActorState::GaveUp,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    });
}

#[test]
fn a_panic_in_a_spawned_task_is_counted() {
    in_system(async {
        let before = spawned_panics();
        spawn("test", async { panic!("told to panic") });
        until("it is counted", || spawned_panics() > before).await;
    });
}
