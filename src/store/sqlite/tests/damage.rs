//! Bits that flip on the disk, and pages that cannot be read.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use super::*;
use crate::domain::message::State;
use crate::domain::outcome::DeadReason;

/// Flips a bit of the first place where `marker` lies in the file.
fn flip(path: &std::path::Path, marker: &[u8]) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    let place = bytes.windows(marker.len()).position(|window| window == marker).expect("it is in the file");
    file.seek(SeekFrom::Start(place as u64)).expect("sought");
    file.write_all(&[marker[0] ^ 1]).expect("written");
}

#[test]
fn a_flipped_bit_in_a_payload_is_quarantined_and_its_neighbours_stay() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        let payload = |number: u64| format!("payload number {number:04}!").into_bytes();
        let messages: Vec<_> = (0..20).map(|number| message(number, &payload(number))).collect();
        let damaged = messages[7].id;
        connection.enqueue(CallId::random(), Arc::new(vec![group(&queue, messages)])).await.expect("stored");
        drop(connection);
        stand.end();
        flip(&stand.path(), &payload(7));
        stand.open();
        let connection = stand.connect();
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 100)).await.expect("leased");
        assert_eq!(leased.leases.len(), 19);
        let letter = connection.dead(queue.clone(), damaged).await.expect("read").expect("it is dead");
        assert_eq!((letter.reason, letter.record), (DeadReason::Damaged, None));
        assert!(letter.charged_bytes > 0, "its bytes are kept");
        let found = connection.find(queue.clone(), damaged).await.expect("found").expect("it is there");
        assert_eq!(found.state, State::Dead);
        connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        assert_sound(&connection).await;
    });
}

#[test]
fn a_damaged_id_is_known_by_the_index_all_the_same() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 3, 3).await;
        let id = message(1, b"").id;
        drop(connection);
        stand.end();
        // The second row, with another byte in its id.
        let damage =
            "UPDATE messages SET record = CAST(substr(record, 1, 5) || x'ee' || substr(record, 7) AS BLOB)
            WHERE seq = (SELECT seq FROM messages ORDER BY seq LIMIT 1 OFFSET 1)";
        assert_eq!(stand.sql().execute(damage, []), Ok(1));
        stand.open();
        let connection = stand.connect();
        let leased = connection.lease(request(&queue, LeaseKind::Worker, 100)).await.expect("leased");
        assert_eq!(leased.leases.len(), 2);
        assert!(connection.dead(queue.clone(), id).await.expect("read").is_some());
        assert_sound(&connection).await;
    });
}

#[test]
fn what_was_damaged_while_leased_is_quarantined_when_it_comes_back() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let queue = make_queue(&connection, "orders", settings()).await;
        publish(&connection, &queue, 0, 4, 4).await;
        let leased = connection.lease(request(&queue, LeaseKind::Pull, 4)).await.expect("leased");
        drop(connection);
        stand.end();
        let damage =
            "UPDATE messages SET record = CAST(substr(record, 1, 60) || x'ee' || substr(record, 62) AS BLOB)";
        assert_eq!(stand.sql().execute(damage, []), Ok(4));
        stand.open();
        let connection = stand.connect();
        let verdicts = [Verdict::Retry { delay: Duration::ZERO }, Verdict::Release, Verdict::Ack];
        let settle = |(index, verdict)| Settlement { index, verdict, attempt: None, gist: None };
        let settlements = Arc::new((0..).zip(verdicts).map(settle).collect());
        let settled = connection.settle(leased.batch.clone(), settlements).await.expect("settled");
        assert_eq!(settled, [Settled::Settled; 3]);
        stand.clock.advance(Duration::from_mins(1));
        connection.sweep().await.expect("swept");
        let now = stats(&connection, &queue).await;
        assert_eq!(
            (now.gauges.leased, now.gauges.pending, now.gauges.dead, now.counters.delivered),
            (0, 1, 2, 1)
        );
        let again = connection.lease(request(&queue, LeaseKind::Worker, 4)).await.expect("leased");
        assert!(again.leases.is_empty());
        assert_eq!(stats(&connection, &queue).await.gauges.dead, 3);
        assert_sound(&connection).await;
    });
}

#[test]
fn a_page_that_cannot_be_read_fails_its_calls_and_no_others() {
    run(async {
        let mut stand = Stand::new(Clock::manual(START));
        let connection = stand.connect();
        let broken = make_queue(&connection, "broken", settings()).await;
        let sound = make_queue(&connection, "sound", settings()).await;
        publish(&connection, &broken, 0, 500, 500).await;
        publish(&connection, &sound, 1_000, 5, 5).await;
        drop(connection);
        stand.end();
        let find =
            "SELECT pageno FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf' ORDER BY path LIMIT 1";
        let page: u64 = stand.sql().query_row(find, [], |row| row.get(0)).expect("a leaf");
        let mut file = std::fs::OpenOptions::new().write(true).open(stand.path()).expect("the file");
        file.seek(SeekFrom::Start((page - 1) * 4_096)).expect("sought");
        file.write_all(&[0xee; 4_096]).expect("written");
        drop(file);
        stand.open();
        let connection = stand.connect();
        let leased = connection.lease(request(&broken, LeaseKind::Worker, 10)).await;
        assert!(matches!(leased, Err(StoreError::Internal(_))), "{leased:?}");
        let leased = connection.lease(request(&sound, LeaseKind::Worker, 10)).await.expect("leased");
        assert_eq!(leased.leases.len(), 5);
        connection.settle(leased.batch.clone(), acknowledge(&leased)).await.expect("settled");
        publish(&connection, &sound, 2_000, 5, 5).await;
        let health = connection.health().await.expect("health");
        assert!(health.warnings.iter().any(|warning| warning.code == "store_damaged"), "{health:?}");
    });
}
