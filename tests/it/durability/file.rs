//! The database file itself: damaged at the start.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::support::gateway::Gateway;

const WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_damaged_file_ends_the_start_with_what_can_be_done() {
    let mut gateway = Gateway::start("[queues.orders]\nprocessor = 'log'\n", &[]);
    let path = gateway.folder().join("posthaste.db");
    for number in 0..20 {
        gateway.publish("orders", &[("Posthaste-Delay", "1h")], format!("{number}").as_bytes());
    }
    gateway.stop();
    let length = fs::metadata(&path).expect("the file").len();
    let file = OpenOptions::new().write(true).open(&path).expect("the file");
    // All but the first page, which says what the file is.
    let junk = vec![0xa5; usize::try_from(length - 4_096).expect("small")];
    file.write_all_at(&junk, 4_096).expect("written");
    drop(file);
    gateway.spawn();
    assert_eq!(gateway.wait_for_exit(WITHIN).code(), Some(1));
    let log = gateway.log();
    for words in ["posthaste.db is damaged", "malformed", "restore a copy", ".recover", "store.url"] {
        assert!(log.contains(words), "{words}: {log}");
    }
}
