//! Secrets of queues that a configuration file declares: in the file, in another one, in the environment.

use super::*;
use crate::support::command::posthaste;
use crate::support::stores::on_both_stores;

on_both_stores! {
    a_declared_queue_signs_with_what_its_configuration_names
    a_secret_that_went_with_its_configuration_is_no_reason_to_send_unsigned
}

/// The configuration of `orders` with this line.
fn declaring(sink: &Sink, line: &str) -> String {
    format!("[queues.orders]\nprocessor = 'http'\ndestination = '{}'\n{line}\n", sink.url("/hook"))
}

fn a_declared_queue_signs_with_what_its_configuration_names(home: &Home) {
    let sink = sink();
    let mut gateway = prepare(home, "");
    let configure = |gateway: &Gateway, line: &str| {
        let settings = format!("{WITH_KEY}{}", declaring(&sink, line));
        fs::write(gateway.folder().join("posthaste.toml"), settings).expect("the settings");
    };
    fs::write(gateway.folder().join("secret"), format!("{SECOND}\n{FIRST}\n")).expect("a file");
    for (line, secrets) in [
        (format!("secret = '{FIRST}'"), &[FIRST][..]),
        (format!("secret = '{SECOND} {FIRST}'"), &[SECOND, FIRST]),
        ("secret_file = 'secret'".to_owned(), &[SECOND, FIRST]),
    ] {
        configure(&gateway, &line);
        gateway.launch_until_ready();
        assert_signed(&deliver(&gateway, &sink, b"{}"), secrets);
        for (method, path, body) in [
            ("POST", "orders/secret", json!({})),
            ("PATCH", "orders", json!({"secret": null})),
            ("PUT", "orders", json!({"processor": "log", "secret": FIRST})),
        ] {
            refused(&send(&gateway, method, path, &body), 409, "queue_declared_in_file");
        }
        let shown = send(&gateway, "GET", "orders", &json!({})).json();
        assert_eq!((&shown["signed"], shown.get("secret")), (&json!(true), None), "{shown}");
        gateway.stop();
        let log = gateway.log();
        assert!([FIRST, SECOND].iter().all(|secret| !log.contains(&secret[6..])), "{log}");
    }
    gateway.launch_until_ready();
    assert_eq!(leaks(home, &gateway, &[FIRST, SECOND]), ["secret"], "where it was put, and nowhere else");
}

fn a_secret_that_went_with_its_configuration_is_no_reason_to_send_unsigned(home: &Home) {
    let sink = sink();
    let mut gateway = prepare(home, &declaring(&sink, &format!("secret = '{FIRST}'")));
    gateway.launch_until_ready();
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
    gateway.stop();
    fs::write(gateway.folder().join("posthaste.toml"), WITH_KEY).expect("the settings");
    gateway.launch_until_ready();
    gateway.publish("orders", &[], b"waits");
    let detail = stalled(&mut gateway);
    assert!(detail.contains("configuration file"), "{detail}");
    assert_eq!(sink.count(), 1);
    done(&gateway, "POST", "orders/secret", &json!({"secret": SECOND, "overlap": "0s"}));
    assert_signed(&sink.wait_for(2, WITHIN)[1], &[SECOND]);
}

#[test]
fn a_secret_that_cannot_be_had_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "[queues.one]\nprocessor = 'log'\nsecret_env = 'ONE_SECRET'\n\
                    [queues.two]\nprocessor = 'log'\nsecret_file = 'two'\n";
    fs::write(folder.path().join("posthaste.toml"), settings).expect("the settings");
    let check = |environment: &[(&str, &str)]| {
        posthaste(folder.path(), &["config", "check", "--config", "posthaste.toml"], environment)
    };
    let missing = check(&[]);
    assert_eq!(missing.code, Some(78), "{missing:?}");
    for line in [
        "posthaste.toml:3: queues.one.secret_env: there is no variable \"ONE_SECRET\" in the environment",
        "posthaste.toml:6: queues.two.secret_file: \"two\" cannot be read",
    ] {
        assert!(missing.stderr.contains(line), "{line}: {missing:?}");
    }
    fs::write(folder.path().join("two"), "s3cret").expect("a file");
    let wrong = check(&[("ONE_SECRET", "s3cret")]);
    assert!(wrong.code == Some(78) && !wrong.stderr.contains("s3cret"), "{wrong:?}");
    fs::write(folder.path().join("two"), SECOND).expect("a file");
    let right = check(&[("ONE_SECRET", FIRST)]);
    assert_eq!(right.code, Some(0), "{right:?}");
}

#[test]
fn a_queue_signs_with_a_secret_of_the_environment() {
    let sink = sink();
    // `env` hands the variable on to the gateway that it becomes.
    let wrapper = vec!["env".to_owned(), format!("ORDERS_SECRET={FIRST}")];
    let settings = declaring(&sink, "secret_env = 'ORDERS_SECRET'");
    let mut gateway = Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper, "sqlite:posthaste.db");
    gateway.launch_until_ready();
    assert_signed(&deliver(&gateway, &sink, b"{}"), &[FIRST]);
}
