//! `posthaste message`.

use std::time::Duration;

use super::{ask, feed, on_each_store, tell, tell_json};

const KEPT: &str = "[queues.kept]\nprocessor = 'pull'\n";

#[test]
fn a_message_is_shown_with_its_attempts_and_its_payload() {
    on_each_store("[queues.done]\nprocessor = 'log'\n", |gateway| {
        let id = tell(gateway, &["publish", "done", "hello", "--content-type", "text/plain"]);
        let id = id.trim_end();
        crate::support::wait_until("it is delivered", Duration::from_secs(20), || {
            let text = tell(gateway, &["message", "show", "done", id]);
            text.contains("delivered").then_some(())
        });
        let text = tell(gateway, &["message", "show", "done", id]);
        for word in [id, "done", "text/plain", "1 of 12", "ATTEMPT  AT"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let shown = tell_json(gateway, &["message", "show", "done", id, "--json"]);
        assert_eq!((&shown["id"], &shown["state"]), (&id.into(), &"delivered".into()));
    });
}

#[test]
fn a_payload_comes_byte_for_byte() {
    on_each_store(KEPT, |gateway| {
        for payload in [&b"\xff\x00\n\xfe"[..], b"text\n", b""] {
            let published = feed(gateway, &["publish", "kept"], payload);
            let mut command =
                super::command(&["message", "show", "kept", published.stdout.trim_end(), "--payload"]);
            command.env("POSTHASTE_URL", format!("http://{}", gateway.address()));
            let output = command.output().expect("it runs");
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            assert_eq!(output.stdout, payload);
        }
    });
}

#[test]
fn a_message_that_is_not_there_is_refused_with_a_hint() {
    on_each_store(KEPT, |gateway| {
        let id = "0192f0c1-5e3a-7c4d-9b21-3f6a52e8d400";
        let ended = ask(gateway, &["message", "show", "kept", id]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
        for word in [id, "message_unknown (404)", "hint: ", "request: "] {
            assert!(ended.stderr.contains(word), "{word}: {ended:?}");
        }
        for wrong in ["abc", "", "0192f0c1-5e3a-4c4d-9b21-3f6a52e8d400"] {
            assert_eq!(ask(gateway, &["message", "show", "kept", wrong]).code, Some(2), "{wrong:?}");
        }
    });
}

#[test]
fn a_message_is_cancelled_once() {
    on_each_store(KEPT, |gateway| {
        let id = tell(gateway, &["publish", "kept", "x"]);
        let cancelled = ask(gateway, &["message", "cancel", "kept", id.trim_end()]);
        assert_eq!((cancelled.code, cancelled.stdout.as_str()), (Some(0), ""), "{cancelled:?}");
        assert_eq!(gateway.status()["totals"]["cancelled"], 1);
        let again = ask(gateway, &["message", "cancel", "kept", id.trim_end()]);
        assert_eq!(again.code, Some(3), "{again:?}");
        assert!(again.stderr.contains("message_finished (409)"), "{again:?}");
    });
}
