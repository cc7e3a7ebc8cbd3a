//! The master key: without one, with another one, with one that is none.

use super::*;
use crate::support::command::posthaste;
use crate::support::stores::on_both_stores;

on_both_stores! {
    without_a_master_key_no_secret_is_taken_and_both_ways_out_are_named
    what_is_no_secret_is_refused_and_not_shown
    with_another_master_key_nothing_is_sent_unsigned
    the_key_before_still_opens_what_it_sealed
}

fn without_a_master_key_no_secret_is_taken_and_both_ways_out_are_named(home: &Home) {
    let (gateway, sink) = (home.start("", &["--dev"]), sink());
    make(&gateway, &sink);
    let mut with_secret = pushing(&sink);
    with_secret["secret"] = FIRST.into();
    for (method, path, body) in [
        ("POST", "orders/secret", json!({})),
        ("POST", "orders/secret", json!({"secret": FIRST})),
        ("PATCH", "orders", json!({"secret": FIRST})),
        ("PUT", "orders", with_secret.clone()),
        ("PUT", "others", with_secret),
    ] {
        let detail = refused(&send(&gateway, method, path, &body), 422, "secret_needs_file");
        for way in ["secret_file", "secrets.master_key_file", "POSTHASTE__SECRETS__MASTER_KEY"] {
            assert!(detail.contains(way), "{way}: {detail}");
        }
    }
    assert_eq!(send(&gateway, "GET", "others", &json!({})).status, 404, "nothing was made");
    done(&gateway, "PATCH", "orders", &json!({"secret": null}));
    assert_eq!(deliver(&gateway, &sink, b"{}").header("webhook-signature"), None);
}

fn what_is_no_secret_is_refused_and_not_shown(home: &Home) {
    let (gateway, sink) = (start(home, ""), sink());
    make(&gateway, &sink);
    for (body, words) in [
        (json!({"secret": "whsec_c2hvcnQ="}), "24 to 64 bytes"),
        (json!({"secret": "s3cret-in-the-clear"}), "whsec_"),
    ] {
        for (method, path) in [("POST", "orders/secret"), ("PATCH", "orders")] {
            let detail = refused(&send(&gateway, method, path, &body), 422, "setting_out_of_range");
            assert!(detail.contains(words) && !detail.contains("s3cret"), "{detail}");
        }
    }
    assert!(!gateway.log().contains("s3cret-in-the-clear"));
}

fn with_another_master_key_nothing_is_sent_unsigned(home: &Home) {
    let (mut gateway, sink) = (start(home, ""), sink());
    make(&gateway, &sink);
    done(&gateway, "PATCH", "orders", &json!({"secret": FIRST}));
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
    gateway.stop();
    write_key(&gateway, 2);
    gateway.launch_until_ready();
    let path = gateway.publish("orders", &[], b"waits");
    let detail = stalled(&mut gateway);
    assert!(detail.contains("cannot sign") && detail.contains("master key"), "{detail}");
    let message = gateway.request("GET", &path, &[], b"").json();
    assert_eq!((&message["state"], &message["attempt_count"]), (&json!("pending"), &json!(0)), "{message}");
    assert!(gateway.request("GET", "/ready?check=work", &[], b"").text().contains("cannot sign"));
    // An overlap needs the old secret, which cannot be had; without one it goes on.
    let kept = send(&gateway, "POST", "orders/secret", &json!({"secret": SECOND}));
    let detail = refused(&kept, 422, "secret_needs_file");
    assert!(detail.contains("0s") && detail.contains("master_key_file_old"), "{detail}");
    done(&gateway, "POST", "orders/secret", &json!({"secret": SECOND, "overlap": "0s"}));
    let received = sink.wait_for(2, WITHIN).pop().expect("one more");
    assert_eq!(received.body.as_deref(), Some(&b"waits"[..]));
    assert_signed(&received, &[SECOND]);
}

fn the_key_before_still_opens_what_it_sealed(home: &Home) {
    let (mut gateway, sink) = (start(home, ""), sink());
    make(&gateway, &sink);
    done(&gateway, "PATCH", "orders", &json!({"secret": FIRST}));
    gateway.stop();
    let folder = gateway.folder().to_owned();
    fs::rename(folder.join("master.key"), folder.join("old.key")).expect("moved");
    write_key(&gateway, 2);
    let settings = format!("{WITH_KEY}master_key_file_old = 'old.key'\n");
    fs::write(folder.join("posthaste.toml"), settings).expect("the settings");
    gateway.launch_until_ready();
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
    // Setting the same secret again seals it with the new key, which is enough from then on.
    done(&gateway, "PATCH", "orders", &json!({"secret": FIRST}));
    gateway.stop();
    fs::write(folder.join("posthaste.toml"), WITH_KEY).expect("the settings");
    gateway.launch_until_ready();
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
}

#[test]
fn a_master_key_that_is_none_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("posthaste.toml"), WITH_KEY).expect("the settings");
    let check = |environment: &[(&str, &str)], arguments: &[&str]| {
        let ended = posthaste(folder.path(), &[&["config", "check"], arguments].concat(), environment);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        ended.stderr
    };
    let of_file = ["--config", "posthaste.toml"];
    let missing = check(&[], &of_file);
    assert!(
        missing.contains("posthaste.toml:2: secrets.master_key_file: \"master.key\" cannot be read"),
        "{missing}"
    );
    fs::write(folder.path().join("master.key"), "s3cret").expect("a file");
    let short = check(&[], &of_file);
    assert!(short.contains("openssl rand -base64 32") && !short.contains("s3cret"), "{short}");
    let of_variable = check(&[("POSTHASTE__SECRETS__MASTER_KEY", "s3cret")], &[]);
    assert!(of_variable.contains("POSTHASTE__SECRETS__MASTER_KEY: secrets.master_key: "), "{of_variable}");
    assert!(!of_variable.contains("s3cret"), "{of_variable}");
    let good = STANDARD.encode([1; 32]);
    let ended = posthaste(folder.path(), &["config", "print"], &[("POSTHASTE__SECRETS__MASTER_KEY", &good)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("master_key = \"***\"") && !ended.stdout.contains(&good), "{ended:?}");
}
