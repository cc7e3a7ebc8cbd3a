//! `store.url`: every way to name a Redis, by the real binary.

use serde_json::json;

use super::{RedisServer, StoreSettings, WITHIN, open, refusal, relaxed, run};
use crate::support::gateway::Gateway;
use crate::support::invariants::count;
use crate::support::redis::{STRICT, free_port};
use crate::support::tls::Authority;

const QUEUE: &str = "[queues.orders]\nprocessor = 'log'\n";
/// What a password may have in it, and how a URL has it.
const PASSWORD: (&str, &str) = ("p@ss:w/rd#%?ü", "p%40ss%3Aw%2Frd%23%25%3F%C3%BC");

fn gateway(url: &str, settings: &str, arguments: &[&str]) -> Gateway {
    Gateway::prepare(settings, arguments).wrapped(vec![], url)
}

#[test]
fn user_password_and_database_are_taken_from_the_address() {
    let (server, port) = RedisServer::start_on_port(&STRICT);
    server.order(&format!("ACL SETUSER us:er on >{} ~* &* +@all", PASSWORD.0));
    // Nobody comes in without.
    server.order("ACL SETUSER default -@all +info +ping +acl");
    let url =
        |password: &str, database: u8| format!("redis://us%3Aer:{password}@127.0.0.1:{port}/{database}");
    let mut gateway = gateway(&url(PASSWORD.1, 3), QUEUE, &["--log", "debug"]);
    gateway.launch_until_ready();
    let path = gateway.publish("orders", &[], b"x");
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    let keyspace = server.ask(&["INFO", "keyspace"]);
    assert!(keyspace.contains("db3:") && !keyspace.contains("db0:"), "{keyspace}");
    // Another database is another store, to those who share the same Redis as well.
    let mut other = self::gateway(&url(PASSWORD.1, 0), "", &[]);
    other.launch_until_ready();
    assert_eq!(other.request("GET", "/v1/queues/orders", &[], b"").status, 404);
    assert_eq!(other.status()["instances"].as_array().map(Vec::len), Some(1));
    let (status, log) = (gateway.status().to_string(), gateway.log());
    for password in [PASSWORD.0, PASSWORD.1] {
        assert!(!status.contains(password) && !log.contains(password), "{status} {log}");
    }
    gateway.stop();
    other.stop();

    let settings = |url: String| StoreSettings { url, ..relaxed(&server) };
    let why = refusal(&settings(url("wr%40ng", 3)));
    assert!(why.contains("does not know that user or password"), "{why}");
    assert!(!why.contains("wr%40ng") && !why.contains("wr@ng"), "{why}");
    let why = refusal(&settings(url(PASSWORD.1, 99)));
    assert!(why.contains("DB index is out of range") && !why.contains(PASSWORD.1), "{why}");
}

#[test]
fn two_prefixes_on_one_redis_are_two_stores() {
    let server = RedisServer::start(&STRICT);
    let [mut first, mut second] = [("one", "pull"), ("two", "log")].map(|(prefix, processor)| {
        let settings = format!("[queues.orders]\nprocessor = '{processor}'\n");
        let mut gateway = gateway(&server.url(), &settings, &["--set", &format!("store.prefix={prefix}")]);
        gateway.launch_until_ready();
        gateway
    });
    for _ in 0..3 {
        first.publish("orders", &[], b"x");
    }
    second.publish("orders", &[], b"x");
    let status = second.wait_until_drained(WITHIN);
    assert_eq!(["accepted", "delivered"].map(|key| count(&status, key)), [1, 1], "{status}");
    let status = first.status();
    assert_eq!(["accepted", "pending"].map(|key| count(&status, key)), [3, 3], "{status}");
    for gateway in [&first, &second] {
        let status = gateway.status();
        assert_eq!(status["instances"].as_array().map(Vec::len), Some(1), "{status}");
        assert!(status["store"]["warnings"].as_array().is_some_and(|warnings| {
            warnings.iter().all(|warning| warning["code"] != "queue_redeclared")
        }));
    }
    let keys = server.ask(&["KEYS", "*"]);
    let names: Vec<_> = keys.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    assert!(
        names.len() > 4 && names.iter().all(|name| name.starts_with("one:") || name.starts_with("two:")),
        "{names:?}"
    );
    first.stop();
    second.stop();
}

/// A server behind TLS as `localhost`, by a certificate of this authority; gives its port.
fn secure(authority: &Authority, folder: &std::path::Path) -> (RedisServer, String) {
    let (certificate, key) = authority.issue(folder);
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    let port = free_port();
    let options = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let server =
        RedisServer::start_with_tls(&[&STRICT[..], &options, &["--tls-auth-clients", "no"]].concat());
    (server, port)
}

/// A gateway that trusts the authorities of the file `authority.pem` in its folder.
fn trusting(url: &str) -> Gateway {
    let wrapper = ["env", "-u", "SSL_CERT_DIR", "SSL_CERT_FILE=authority.pem"].map(str::to_owned);
    Gateway::prepare(QUEUE, &["--log", "info"]).wrapped(wrapper.into(), url)
}

#[test]
fn a_redis_behind_tls_is_used_when_its_authority_is_trusted() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let (server, port) = secure(&authority, folder.path());
    let mut gateway = trusting(&format!("rediss://localhost:{port}"));
    authority.publish(&gateway.folder().join("authority.pem"));
    gateway.launch_until_ready();
    let path = gateway.publish("orders", &[], &vec![b'x'; 1 << 20]);
    gateway.wait_until_message_is("delivered", &path, WITHIN);
    server.hang_up();
    gateway.wait_for("it goes on", WITHIN, |gateway| {
        let answer = gateway.request("POST", "/v1/queues/orders/messages", &[], b"again");
        (answer.status == 202).then_some(())
    });
    gateway.stop();
}

#[test]
fn a_user_without_a_password_is_that_user_and_no_other() {
    let (server, port) = RedisServer::start_on_port(&STRICT);
    server.order("ACL SETUSER bob on nopass ~* &* +@all");
    let host = format!("127.0.0.1:{port}");
    for url in [format!("redis://bob@{host}"), format!("redis://bob:@{host}")] {
        let store = open(&StoreSettings { url: url.clone(), ..relaxed(&server) }).expect("he may come in");
        run(async {
            store.connect().health().await.expect("it answers");
            let clients = server.ask(&["CLIENT", "LIST"]);
            let own = clients.matches(" user=bob ").count();
            // One that has said nothing yet is of nobody.
            let others =
                clients.lines().filter(|line| line.contains(" user=default ") && !line.contains("cmd=NULL"));
            let others = others.count();
            assert!(own > 0 && others <= 1, "{url}: {clients}");
        });
    }
    for url in [format!("redis://nobody@{host}"), format!("redis://nobody:@{host}")] {
        let why = refusal(&StoreSettings { url, ..relaxed(&server) });
        assert!(why.contains("does not know that user or password"), "{why}");
    }
}

#[test]
fn a_redis_whose_certificate_is_not_trusted_is_named_and_given_nothing() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let (server, port) = secure(&authority, folder.path());
    // Of a stranger; for another name; nobody is trusted; and no TLS where TLS is spoken.
    for (trusted, url, said) in [
        (Some(&Authority::new()), format!("rediss://localhost:{port}"), "invalid peer certificate"),
        (Some(&authority), format!("rediss://127.0.0.1:{port}"), "not valid for name"),
        (None, format!("rediss://localhost:{port}"), "authority.pem"),
        (Some(&authority), format!("redis://127.0.0.1:{port}"), "Redis: "),
    ] {
        let mut gateway = trusting(&url);
        if let Some(trusted) = trusted {
            trusted.publish(&gateway.folder().join("authority.pem"));
        }
        gateway.launch();
        let ready = gateway.wait_for("it says why it is not ready", WITHIN, |gateway| {
            let answer = gateway.request("GET", "/ready", &[], b"");
            assert_eq!(answer.status, 503, "{}", answer.text());
            answer.text().contains(said).then_some(answer)
        });
        assert_eq!(ready.json()["reasons"][0]["code"], json!("store_unavailable"), "{}", ready.text());
        assert!(gateway.log().contains(said), "{}", gateway.log());
        let refused = gateway.request("POST", "/v1/queues/orders/messages", &[], b"x");
        assert_eq!(
            (refused.status, refused.header("posthaste-stored")),
            (503, Some("no")),
            "{}",
            refused.text()
        );
        gateway.stop();
    }
    assert_eq!(server.ask(&["DBSIZE"]), ":0\r\n");
}

#[test]
fn an_address_that_could_never_lead_anywhere_is_refused() {
    let server = RedisServer::start(&STRICT);
    for (url, said) in [
        ("redis://127.0.0.1/three", "not the number of a database"),
        ("redis://", "is not the URL of a Redis"),
        ("rediss://localhost/#insecure", "#"),
        ("redis://127.0.0.1?protocol=resp9", "protocol"),
    ] {
        let settings = StoreSettings { url: url.to_owned(), ..relaxed(&server) };
        let problems: Vec<_> = settings.problems().into_iter().map(|problem| problem.detail).collect();
        assert!(problems.len() == 1 && problems[0].contains(said), "{url}: {problems:?}");
    }
}
