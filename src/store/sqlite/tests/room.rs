//! Bounds on the disk: the log, the reserve, and what happens without room.

use super::*;
use crate::store::sqlite::fault::limit_pages;
use crate::store::sqlite::space::beside;

fn bytes_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[test]
fn the_log_stays_under_its_cap_and_one_transaction() {
    run(async {
        let stand = Stand::new(Clock::system());
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        let log = beside(&stand.path(), "-wal");
        let mut largest = 0;
        for round in 0..60 {
            let messages = (0..16).map(|index| message(round * 16 + index, &vec![7; 60_000])).collect();
            connection
                .enqueue(CallId::random(), Arc::new(vec![group(&queue, messages)]))
                .await
                .expect("stored");
            largest = largest.max(bytes_of(&log));
        }
        // 57 MB went through it. One transaction is a megabyte here, with the pages of its indexes.
        assert!(largest <= (8 << 20) + (2 << 20), "{largest} bytes");
        assert!(largest >= 2 << 20, "{largest} bytes: something was logged");
        assert_sound(&connection).await;
    });
}

#[test]
fn the_reserve_has_its_blocks_and_goes_with_the_room_that_is_set() {
    use std::os::unix::fs::MetadataExt;
    let mut stand = Stand::new(Clock::system());
    let reserve = beside(&stand.path(), ".reserve");
    let file = std::fs::metadata(&reserve).expect("the reserve");
    assert_eq!(file.len(), 32 << 20);
    assert!(file.blocks() * 512 >= file.len(), "it is not sparse");
    stand.end();
    stand.settings.bytes_max = Some(16 << 20);
    stand.open();
    assert!(bytes_of(&reserve) < 4 << 20);
}

#[test]
fn without_room_settling_goes_on_and_publishing_comes_back() {
    run(async {
        let stand = Stand::new(Clock::system());
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 2_000, 500).await;
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 500)).await.expect("leased");
        let reserve = beside(&stand.path(), ".reserve");
        assert!(reserve.exists());
        // From here on no page can be had: a retry that moves rows fails at first.
        let pages = bytes_of(&stand.path()) / 4_096;
        limit_pages(&stand.path(), u32::try_from(pages).expect("few"));
        let verdict = Verdict::Retry { delay: Duration::from_secs(1) };
        let retry = |lease: &crate::store::lease::Lease| Settlement {
            index: lease.index,
            verdict: verdict.clone(),
            attempt: None,
            gist: None,
        };
        let retries = Arc::new(leased.leases.iter().map(retry).collect::<Vec<_>>());
        let refused = connection.settle(leased.batch.clone(), Arc::clone(&retries)).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        // Acknowledging needs no room.
        let settled = connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        assert_eq!(settled, vec![Settled::Settled; 500]);
        limit_pages(&stand.path(), u32::MAX);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let mut number = 10_000;
        loop {
            let groups = Arc::new(vec![group(&queue, vec![message(number, b"x")])]);
            number += 1;
            match &connection.enqueue(CallId::random(), groups).await.expect("an answer")[0] {
                GroupResult::Accepted => break,
                refused => assert!(std::time::Instant::now() < deadline, "{refused:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(reserve.exists());
        assert_eq!(connection.health().await.map(|health| health.full), Ok(None));
        assert_sound(&connection).await;
    });
}

#[test]
fn room_that_was_freed_goes_back_to_the_disk() {
    run(async {
        let stand = Stand::new(Clock::system());
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        for round in 0..20 {
            let messages = (0..16).map(|index| message(round * 16 + index, &vec![7; 60_000])).collect();
            connection
                .enqueue(CallId::random(), Arc::new(vec![group(&queue, messages)]))
                .await
                .expect("stored");
        }
        connection.purge(queue.clone()).await.expect("purged");
        while connection.sweep().await.expect("swept").more {}
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        loop {
            let pages: u64 = stand.sql().query_row("PRAGMA page_count", [], |row| row.get(0)).expect("pages");
            if pages < 2_000 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{pages} pages");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_sound(&connection).await;
    });
}
