//! The database file itself: damaged at the start, deleted or replaced under a running gateway.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::support::gateway::Gateway;
use crate::support::invariants::count;

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

/// What `/ready` and a publish answer, once the gateway has noticed that nothing can be kept.
fn assert_refuses(gateway: &mut Gateway, what: &str) {
    let ready = gateway.wait_for(&format!("/ready says that the file {what}"), WITHIN, |gateway| {
        let ready = gateway.request("GET", "/ready", &[], b"");
        (ready.status == 503 && ready.text().contains(what)).then(|| ready.json())
    });
    assert_eq!(ready["reasons"][0]["code"], "not_durable", "{ready}");
    let detail = ready["reasons"][0]["detail"].as_str().expect("words");
    assert!(detail.contains("posthaste.db"), "{detail}");
    let refused = gateway.request("POST", "/v1/queues/orders/messages", &[], b"late");
    assert_eq!((refused.status, refused.header("posthaste-stored")), (503, Some("no")), "{}", refused.text());
    assert_eq!(refused.json()["code"], "not_durable");
    assert!(gateway.status()["store"]["durability"]["now"] == "none");
}

#[test]
fn a_file_deleted_or_replaced_under_a_running_gateway_stops_publishing_only() {
    for durability in ["strict", "relaxed"] {
        let mut gateway =
            Gateway::start("[queues.orders]\nprocessor = 'log'\n", &["--durability", durability]);
        let path = gateway.folder().join("posthaste.db");
        let aside = path.with_extension("aside");
        for _ in 0..5 {
            gateway.publish("orders", &[("Posthaste-Delay", "5s")], b"early");
        }
        fs::rename(&path, &aside).expect("moved");
        assert_refuses(&mut gateway, "deleted or moved away");
        fs::copy(&aside, &path).expect("copied");
        assert_refuses(&mut gateway, "replaced by another file");
        let delivered = gateway.wait_until_drained(WITHIN);
        assert_eq!(["accepted", "delivered"].map(|key| count(&delivered, key)), [5, 5], "delivering goes on");
        let said = gateway.log().matches("publishes are refused").count();
        assert_eq!(said, 1, "once, however often it was looked at: {}", gateway.log());
        fs::rename(&aside, &path).expect("moved back");
        gateway.wait_until_ready(WITHIN);
        gateway.publish("orders", &[], b"kept");
        gateway.stop();
    }
}
