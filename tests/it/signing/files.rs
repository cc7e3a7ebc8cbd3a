//! Secrets in a file that somebody replaces, breaks or takes away while the gateway runs. It is looked at every ten seconds, so both
//! stores take their turn at the same time.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_mins(1);
/// How long a secret that was replaced holds.
const OVERLAP: Duration = Duration::from_secs(3);

fn on_both_stores_at_once(scenario: impl Fn(&Home) + Sync) {
    thread::scope(|scope| {
        scope.spawn(|| scenario(&Home::Sqlite));
        scope.spawn(|| scenario(&Home::redis()));
    });
}

/// Replaces a file as it should be done: nobody ever sees half of it.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let path = gateway.folder().join(name);
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, &path).expect("renamed");
}

/// Publishes one message to a queue with a receiver of its own; gives it as it arrives.
fn deliver_to(gateway: &Gateway, queue: &str, sink: &Sink) -> Arc<Received> {
    let before = sink.count();
    gateway.publish(queue, &[], b"{}");
    sink.wait_for(before + 1, WITHIN).pop().expect("one more")
}

fn declaring(queues: &[(&str, &Sink)]) -> String {
    // One thread: another would go on for a moment with what it knew.
    let mut settings = format!("{WITH_KEY}[workers]\nthreads = 1\n[queue_defaults]\nsecret_overlap = '3s'\n");
    for (name, sink) in queues {
        let url = sink.url("/");
        writeln!(
            settings,
            "[queues.{name}]\nprocessor = 'http'\ndestination = '{url}'\nsecret_file = '{name}'"
        )
        .expect("a string grows");
    }
    settings
}

#[test]
fn a_secret_file_that_is_replaced_is_a_rotation_and_one_that_breaks_changes_nothing() {
    on_both_stores_at_once(|home| {
        let sinks = [sink(), sink(), sink()];
        let names = ["rotated", "junk", "gone"];
        let queues: Vec<_> = names.into_iter().zip(&sinks).collect();
        let mut gateway = prepare(home, "");
        replace(&gateway, "posthaste.toml", &declaring(&queues));
        for name in names {
            replace(&gateway, name, FIRST);
        }
        gateway.launch_until_ready();
        for (queue, sink) in &queues {
            assert_signed(&deliver_to(&gateway, queue, sink), &[FIRST]);
        }
        replace(&gateway, "rotated", SECOND);
        replace(&gateway, "junk", "whsec_AAAA");
        fs::remove_file(gateway.folder().join("gone")).expect("removed");

        // The old one alone until somebody looks, then both; what is broken goes on with what it had, and the log says so.
        let is_old =
            |received: &Received| received.header("webhook-signature") == Some(&signature(FIRST, received));
        let (mut rotated, mut warned) = (None, false);
        gateway.wait_for("the files were looked at", LONG, |gateway| {
            for (queue, sink) in &queues[1..] {
                assert_signed(&deliver_to(gateway, queue, sink), &[FIRST]);
            }
            let received = deliver_to(gateway, "rotated", &sinks[0]);
            if rotated.is_none() && !is_old(&received) {
                assert_signed(&received, &[SECOND, FIRST]);
                rotated = Some(received.at);
            }
            warned |= gateway.log().matches("the secret file gives no secret now").count() == 2;
            thread::sleep(Duration::from_millis(200));
            (rotated.is_some() && warned).then_some(())
        });

        // When the overlap is over, the new one alone.
        let rotated = rotated.expect("it was seen");
        let is_new =
            |received: &Received| received.header("webhook-signature") == Some(&signature(SECOND, received));
        let last = gateway.wait_for("the overlap is over", LONG, |gateway| {
            let received = deliver_to(gateway, "rotated", &sinks[0]);
            if is_new(&received) {
                return Some(received);
            }
            assert_signed(&received, &[SECOND, FIRST]);
            thread::sleep(Duration::from_millis(200));
            None
        });
        assert!(
            last.at.duration_since(rotated) + Duration::from_secs(1) >= OVERLAP,
            "both held for the overlap"
        );
        for (queue, sink) in &queues[1..] {
            assert_signed(&deliver_to(&gateway, queue, sink), &[FIRST]);
            assert!(gateway.log().contains(&format!("queue.name={queue} cause=")), "{}", gateway.log());
        }
        assert!(!gateway.log().contains(&SECOND[6..]) && !gateway.log().contains("whsec_AAAA"));
        gateway.stop();
        // What was there once is no excuse for a start.
        let folder = gateway.folder().to_owned();
        let ended = crate::support::command::posthaste(
            &folder,
            &["config", "check", "--config", "posthaste.toml"],
            &[],
        );
        assert_eq!(ended.code, Some(78), "{ended:?}");
        for line in ["queues.gone.secret_file: \"gone\" cannot be read", "queues.junk.secret_file: "] {
            assert!(ended.stderr.contains(line), "{line}: {ended:?}");
        }
    });
}

#[test]
fn messages_wait_for_a_secret_file_that_is_not_there_and_none_is_sent_unsigned() {
    on_both_stores_at_once(|home| {
        let sink = sink();
        let mut gateway = prepare(home, "");
        replace(&gateway, "posthaste.toml", &declaring(&[("orders", &sink)]));
        replace(&gateway, "orders", FIRST);
        gateway.launch_until_ready();
        assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
        gateway.stop();

        // No longer declared, the queue stays as it was, and its file may be anything.
        replace(&gateway, "posthaste.toml", WITH_KEY);
        fs::remove_file(gateway.folder().join("orders")).expect("removed");
        gateway.launch_until_ready();
        let path = gateway.publish("orders", &[], b"waits");
        let detail = stalled(&mut gateway);
        assert!(detail.contains("cannot sign") && detail.contains("cannot be read"), "{detail}");
        assert!(gateway.request("GET", "/ready?check=work", &[], b"").text().contains("cannot sign"));
        replace(&gateway, "orders", "s3cret");
        gateway.wait_for("the junk was seen", LONG, |gateway| {
            let status = gateway.status();
            let queue = status["queues"].as_array()?.iter().find(|queue| queue["name"] == "orders")?;
            queue["stalled"]["detail"].as_str()?.contains("whsec_").then_some(())
        });
        assert!(!gateway.log().contains("s3cret") && !gateway.status().to_string().contains("s3cret"));
        let message = gateway.request("GET", &path, &[], b"").json();
        assert_eq!((&message["attempt_count"], &message["attempts"]), (&json!(0), &json!([])), "{message}");
        assert_eq!(sink.count(), 1);
        replace(&gateway, "orders", SECOND);
        let received = sink.wait_for(2, LONG).pop().expect("one more");
        assert_eq!(received.body.as_deref(), Some(&b"waits"[..]));
        assert_signed(&received, &[SECOND]);
        gateway.stop();
    });
}
