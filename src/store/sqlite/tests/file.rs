//! The file itself: whose it is, who has it open, what is in it after a restart.

use rusqlite::params;

use super::*;
use crate::domain::outcome::{Attempt, AttemptOutcome};
use crate::domain::phases::Phases;
use crate::store::error::OpenError;
use crate::store::sqlite::key::{Band, Seq};

fn refused(stand: &Stand) -> String {
    match open_handle(&stand.settings, &stand.clock) {
        Ok(_) => panic!("it must not be opened"),
        Err(OpenError::Configuration(words) | OpenError::Failed(words)) => words,
    }
}

#[test]
fn a_second_process_is_kept_out_until_the_first_lets_go() {
    let mut stand = Stand::new(Clock::system());
    let words = refused(&stand);
    assert!(words.contains("posthaste.db.lock") && words.contains("another process"), "{words}");
    stand.settings.lock_wait = Duration::from_secs(30);
    let (settings, clock) = (stand.settings.clone(), stand.clock.clone());
    let second = std::thread::spawn(move || open_handle(&settings, &clock).map(drop));
    stand.end();
    second.join().expect("no panic").expect("the second may have it now");
}

#[test]
fn a_second_process_is_kept_out_whatever_it_calls_the_file() {
    let stand = Stand::new(Clock::system());
    let (symbolic, hard) = (stand.folder.path().join("symbolic.db"), stand.folder.path().join("hard.db"));
    std::os::unix::fs::symlink(stand.path(), &symbolic).expect("a link");
    std::fs::hard_link(stand.path(), &hard).expect("a link");
    let refused_at = |path: &std::path::Path| {
        let url = format!("sqlite:{}", path.display());
        let settings = StoreSettings { url, ..stand.settings.clone() };
        open_handle(&settings, &stand.clock).map(drop).expect_err("the store is open").to_string()
    };
    let words = refused_at(&symbolic);
    assert!(words.contains("posthaste.db.lock"), "{words}");
    let words = refused_at(&hard);
    assert!(words.contains("hard.db: another process"), "{words}");
    std::fs::remove_file(stand.folder.path().join("posthaste.db.lock")).expect("the lock's file");
    let words = refused_at(&stand.path());
    assert!(words.contains("posthaste.db: another process"), "{words}");
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_untouched() {
    let mut stand = Stand::new(Clock::system());
    stand.end();
    stand.sql().pragma_update(None, "user_version", 2).expect("set");
    let before = std::fs::read(stand.path()).expect("the file");
    let words = refused(&stand);
    assert!(words.contains("newer Posthaste") && words.contains("format 2"), "{words}");
    assert_eq!(std::fs::read(stand.path()).expect("the file"), before);
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_untouched() {
    let mut stand = Stand::new(Clock::system());
    stand.end();
    for junk in [&b"x"[..], &[0; 5_000][..], b"SQLite format 2\0 or so"] {
        std::fs::write(stand.path(), junk).expect("written");
        let words = refused(&stand);
        assert!(words.contains("no Posthaste store"), "{words}");
        assert_eq!(std::fs::read(stand.path()).expect("the file"), junk);
    }
    std::fs::remove_file(stand.path()).expect("removed");
    stand.sql().execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)").expect("made");
    let before = std::fs::read(stand.path()).expect("the file");
    let words = refused(&stand);
    assert!(words.contains("another program"), "{words}");
    assert_eq!(std::fs::read(stand.path()).expect("the file"), before);
}

#[test]
fn a_file_that_was_only_begun_is_made_anew() {
    let mut stand = Stand::new(Clock::system());
    stand.end();
    std::fs::write(stand.path(), b"").expect("emptied");
    stand.open();
    stand.end();
    std::fs::remove_file(stand.path()).expect("removed");
    stand.sql().pragma_update(None, "journal_mode", "WAL").expect("set");
    stand.open();
    run(async { assert_sound(&stand.connect()).await });
}

#[test]
fn a_folder_is_made_and_a_url_without_a_path_is_refused() {
    let mut stand = Stand::new(Clock::system());
    let deep = stand.path().with_file_name("a").join("b").join("posthaste.db");
    stand.settings.url = format!("sqlite:{}", deep.display());
    stand.open();
    assert!(deep.exists());
    stand.settings.url = "sqlite:".to_owned();
    assert!(refused(&stand).contains("names no file"));
}

#[test]
fn an_end_without_a_word_loses_nothing_and_gives_workers_leases_back() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 30, 10).await;
        let worker = connection.lease(request(&queue, LeaseKind::Worker, 3)).await.expect("leased");
        let pull = connection.lease(request(&queue, LeaseKind::Pull, 4)).await.expect("leased");
        connection
            .settle(pull.batch.clone(), Arc::new(acknowledge(&pull)[..2].to_vec()))
            .await
            .expect("settled");
        drop(connection);
        stand.end();
        stand.open();
        let connection = stand.connect();
        let now = stats(&connection, &queue).await;
        assert_eq!((now.gauges.pending, now.gauges.leased, now.counters.recovered), (26, 2, 3));
        let first = connection.lease(request(&queue, LeaseKind::Worker, 10)).await.expect("leased");
        assert_eq!(first.leases.len(), 3, "suspects go together, and with nothing else");
        for (lease, lost) in first.leases.iter().zip(&worker.leases) {
            assert_eq!((lease.record.id(), lease.record.losses()), (lost.record.id(), 1));
            assert!(lease.record.is_suspect());
        }
        let settled = connection.settle(pull.batch.clone(), acknowledge(&pull)).await.expect("settled");
        assert_eq!(settled, [Settled::Settled; 4], "a consumer's batch outlives the process");
        assert_sound(&connection).await;
    });
}

/// Rows of a table, as another connection sees them.
fn rows(stand: &Stand, table: &str) -> u64 {
    let count = format!("SELECT count(*) FROM {table}");
    stand.sql().query_row(&count, [], |row| row.get(0)).expect("counted")
}

#[test]
fn a_purge_counts_at_once_and_removes_its_rows_in_steps_over_a_restart() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 10_000, 1_000).await;
        let held = connection.lease(request(&queue, LeaseKind::Worker, 10)).await.expect("leased");
        assert_eq!(connection.purge(queue.clone()).await, Ok(9_990));
        publish(&connection, &queue, 20_000, 5, 5).await;
        let now = stats(&connection, &queue).await;
        assert_eq!((now.counters.purged, now.gauges.pending, now.gauges.leased), (9_990, 5, 10));
        assert_eq!(rows(&stand, "messages"), 8_005, "2,000 rows a step, and the first is taken at once");
        let purged = message(5_000, &[0x61; 100]).id;
        assert_eq!(connection.find(queue.clone(), purged).await, Ok(None));
        assert_sound(&connection).await;
        assert!(connection.sweep().await.expect("swept").more);
        assert_eq!(rows(&stand, "messages"), 6_005);
        // What was leased during the purge was not purged: it comes back with a new number.
        let release = |lease: &crate::store::lease::Lease| Settlement {
            index: lease.index,
            verdict: Verdict::Release,
            attempt: None,
            gist: None,
        };
        let released = Arc::new(held.leases[..5].iter().map(release).collect());
        connection.settle(held.batch.clone(), released).await.expect("settled");
        drop(connection);
        stand.end();
        stand.open();
        let connection = stand.connect();
        assert_eq!(stats(&connection, &queue).await.gauges.pending, 15, "five lost, five released, five new");
        while connection.sweep().await.expect("swept").more {}
        assert_eq!((rows(&stand, "messages"), rows(&stand, "ids")), (15, 15));
        for expected in [5, 10] {
            let leased = connection.lease(request(&queue, LeaseKind::Worker, 20)).await.expect("leased");
            assert_eq!(leased.leases.len(), expected);
            connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        }
        let now = stats(&connection, &queue).await;
        assert_eq!((now.counters.delivered, now.gauges.pending, now.gauges.leased), (15, 0, 0));
        assert_sound(&connection).await;
    });
}

#[test]
fn delivering_at_the_first_attempt_writes_no_row_to_the_attempt_log() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 20, 20).await;
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 20)).await.expect("leased");
        let attempt = Attempt {
            number: 1,
            at: START,
            duration_ms: 7,
            outcome: AttemptOutcome::Delivered,
            status: Some(200),
            error: None,
            excerpt: Some("thank you".repeat(100)),
            phases: Phases::NONE,
            next_at: None,
        };
        let settle =
            |settlement: &Settlement| Settlement { attempt: Some(attempt.clone()), ..settlement.clone() };
        let settlements = Arc::new(acknowledge(&leased).iter().map(settle).collect());
        connection.settle(leased.batch.clone(), settlements).await.expect("settled");
        let found = connection.find(queue.clone(), message(7, &[0x61; 100]).id).await.expect("found");
        assert_eq!(found.expect("it is remembered").history, [attempt.of_delivered()]);
        assert_eq!((rows(&stand, "attempts"), rows(&stand, "finished")), (0, 1));
        let bytes: u64 = stand
            .sql()
            .query_row("SELECT sum(length(pack)) FROM finished", [], |row| row.get(0))
            .expect("summed");
        assert!(bytes <= 20 * 110, "{bytes} bytes for 20 messages");
        assert_sound(&connection).await;
    });
}

#[test]
fn the_number_of_a_deleted_queue_is_given_again_when_none_of_its_rows_is_left() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let old = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &old, 0, 5_000, 1_000).await;
        connection.delete_queue(old.clone(), true).await.expect("deleted");
        let new = make_queue(&connection, "orders", settings()).await;
        let number = |name: &str| -> u16 {
            let find = "SELECT number FROM queues WHERE name = ?1";
            stand.sql().query_row(find, params![name], |row| row.get(0)).expect("it is there")
        };
        assert_eq!(number("orders"), 1, "rows of number 0 are left");
        assert_eq!(stats(&connection, &new).await.gauges.pending, 0);
        while connection.sweep().await.expect("swept").more {}
        assert_eq!((rows(&stand, "messages"), rows(&stand, "ids"), rows(&stand, "graves")), (0, 0, 0));
        make_queue(&connection, "letters", settings()).await;
        assert_eq!(number("letters"), 0);
        assert_sound(&connection).await;
    });
}

#[test]
fn the_id_index_follows_lookup_in_steps() {
    run(async {
        let stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let blind = QueueSettings { lookup: false, ..settings() };
        let queue = make_queue(&connection, "orders", blind.clone()).await;
        publish(&connection, &queue, 0, 5_000, 1_000).await;
        assert_eq!(rows(&stand, "ids"), 0);
        make_queue(&connection, "orders", settings()).await;
        assert_eq!(rows(&stand, "ids"), 2_000);
        // Whatever happens meanwhile, the index is right in the end.
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 1_000)).await.expect("leased");
        connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        publish(&connection, &queue, 10_000, 10, 10).await;
        while connection.sweep().await.expect("swept").more {}
        assert_eq!(rows(&stand, "ids"), 4_010);
        assert_sound(&connection).await;
        make_queue(&connection, "orders", blind).await;
        assert_eq!(rows(&stand, "ids"), 2_010);
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 1_000)).await.expect("leased");
        connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        while connection.sweep().await.expect("swept").more {}
        assert_eq!(rows(&stand, "ids"), 0);
        assert_sound(&connection).await;
    });
}

#[test]
fn numbers_that_were_given_are_never_given_again() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 3, 3).await;
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 3)).await.expect("leased");
        connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        drop(connection);
        stand.end();
        stand.open();
        let connection = stand.connect();
        publish(&connection, &queue, 10, 1, 1).await;
        let (first, _) = Seq::range(0, Band::Fresh(Priority::Normal));
        let key: Seq = stand.sql().query_row("SELECT seq FROM messages", [], |row| row.get(0)).expect("one");
        assert_eq!(key.number(), 5, "three messages and a batch had the first four");
        assert!(key > first);
    });
}

#[test]
fn of_what_an_earlier_version_settled_every_verdict_is_told_that_it_is_settled() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 4, 4).await;
        let mut batches = Vec::new();
        for settled in [1, 2] {
            let leased = connection.lease(request(&queue, LeaseKind::Pull, 2)).await.expect("leased");
            let first = acknowledge(&leased).iter().take(settled).cloned().collect();
            connection.settle(leased.batch.clone(), Arc::new(first)).await.expect("settled");
            batches.push(leased.batch);
        }
        drop(connection);
        stand.end();
        let read = "SELECT slots FROM batches ORDER BY place";
        let kept: Vec<Vec<u8>> = {
            let sql = stand.sql();
            let mut statement = sql.prepare(read).expect("prepared");
            statement.query_map([], |row| row.get(0)).expect("read").collect::<Result<_, _>>().expect("read")
        };
        let acknowledged = (-2_i64).to_be_bytes();
        assert_eq!(kept.iter().map(|slots| slots[..8] == acknowledged).collect::<Vec<_>>(), [true, true]);
        // An earlier version wrote 0, whatever the verdict had been.
        for slots in kept {
            let words = slots.chunks(8).map(|word| if word == acknowledged { &[0; 8] } else { word });
            let earlier: Vec<u8> = words.flatten().copied().collect();
            let write = "UPDATE batches SET slots = ?2 WHERE slots = ?1";
            assert_eq!(stand.sql().execute(write, params![slots, earlier]).expect("written"), 1);
        }
        stand.open();
        let connection = stand.connect();
        for (batch, settled) in batches.iter().zip([1, 2]) {
            for verdict in [Verdict::Ack, Verdict::Release] {
                let again = (0..settled).map(|index| Settlement {
                    index,
                    verdict: verdict.clone(),
                    attempt: None,
                    gist: None,
                });
                let again = Arc::new(again.collect::<Vec<_>>());
                let results = connection.settle(batch.clone(), again.clone()).await.expect("settled");
                assert_eq!(results, vec![Settled::Settled; again.len()]);
            }
        }
        assert_eq!(stats(&connection, &queue).await.counters.delivered, 3);
        assert_sound(&connection).await;
    });
}
