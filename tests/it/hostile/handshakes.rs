//! Handshakes: receivers whose TLS is wrong in one way each get nothing, and say so in the attempt.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::peer::Peer;
use crate::support::tls::{Authority, SecureSink, self_signed};

const WITHIN: Duration = Duration::from_secs(30);
const FILE: &str = "authority.pem";

/// Reads the first of what a client sends, so that nothing is reset because it was not read.
fn hear(stream: &mut TcpStream) {
    drop(stream.read(&mut [0; 4_096]));
}

/// Peers that are no TLS servers.
fn peers() -> Vec<(&'static str, Peer, &'static str)> {
    let silent = |mut stream: TcpStream| {
        let mut buffer = [0; 4_096];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    };
    let says = |bytes: &'static [u8]| {
        move |mut stream: TcpStream| {
            hear(&mut stream);
            drop(stream.write_all(bytes));
        }
    };
    let trickles = |mut stream: TcpStream| {
        hear(&mut stream);
        // A record of 16 KiB that comes one byte at a time.
        let mut bytes = b"\x16\x03\x03\x40\x00\x02".iter().copied().chain(std::iter::repeat(0));
        while stream.write_all(&[bytes.next().expect("it is endless")]).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // What was not read when a connection is closed makes a reset of it.
    let resets = |stream: TcpStream| drop(stream.peek(&mut [0; 1]));
    vec![
        ("silent", Peer::start(silent), "timeout: "),
        ("trickling", Peer::start(trickles), "timeout: "),
        ("plain", Peer::start(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")), "tls: "),
        ("garbage", Peer::start(says(&[0xff; 64])), "tls: "),
        ("alert", Peer::start(says(b"\x15\x03\x03\x00\x02\x02\x28")), "tls: "),
        ("huge-record", Peer::start(says(b"\x16\x03\x03\xff\xff\x02\x00\x00\x00")), "tls: "),
        ("old-version", Peer::start(says(b"\x15\x03\x01\x00\x02\x02\x46")), "tls: "),
        ("closing", Peer::start(|mut stream| hear(&mut stream)), "tls: "),
        ("resetting", Peer::start(resets), "tls: "),
    ]
}

/// TLS servers that must not be believed.
fn servers(trusted: &Authority) -> Vec<(&'static str, SecureSink)> {
    let stranger = Authority::new();
    let changed = |change: fn(&mut rcgen::CertificateParams)| SecureSink::serving(trusted.server(change));
    vec![
        ("stranger", SecureSink::start(&stranger)),
        ("self-signed", SecureSink::serving(self_signed())),
        ("expired", changed(|params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("early", changed(|params| params.not_before = date_time_ymd(2090, 1, 1))),
        ("another-name", changed(|params| params.subject_alt_names = vec![dns("other.example")])),
        ("longer-name", changed(|params| params.subject_alt_names = vec![dns("localhost.example")])),
        ("wildcard", changed(|params| params.subject_alt_names = vec![dns("*.localhost")])),
        ("no-name", changed(|params| params.subject_alt_names = Vec::new())),
        ("client", changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])),
        ("asking", SecureSink::serving(trusted.server_that_asks())),
    ]
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a name"))
}

#[test]
fn a_receiver_whose_tls_is_wrong_gets_nothing() {
    let authority = Authority::new();
    let (servers, peers) = (servers(&authority), peers());
    let good = [("tls12", &rustls::version::TLS12), ("tls13", &rustls::version::TLS13)];
    let good = good.map(|(name, version)| (name, SecureSink::serving(authority.server_of(&[version]))));
    let of_servers = servers.iter().chain(&good).map(|(name, sink)| (*name, sink.url()));
    let of_peers = peers.iter().map(|(name, peer, _)| (*name, peer.url("https")));
    let queues: Vec<_> = of_servers.chain(of_peers).collect();
    let mut settings = "workers.threads = 1\n".to_owned();
    for (name, url) in &queues {
        let queue = format!(
            "[queues.{name}]\nprocessor = \"http\"\ndestination = \"{url}\"\nretry.schedule = [\"1h\"]"
        );
        writeln!(settings, "{queue}\ntimeout = \"1s\"\nconnect_timeout = \"1s\"").expect("a string grows");
    }
    let wrapper = ["env", "-u", "SSL_CERT_DIR", &format!("SSL_CERT_FILE={FILE}")].map(str::to_owned);
    let mut gateway = Gateway::prepare(&settings, &["--dev"]).wrapped(wrapper.into(), "sqlite:posthaste.db");
    authority.publish(&gateway.folder().join(FILE));
    gateway.launch_until_ready();
    let paths: Vec<_> = queues.iter().map(|(name, _)| gateway.publish(name, &[], b"secret")).collect();
    for ((name, _), path) in queues.iter().zip(&paths) {
        let is_good = good.iter().any(|(good, _)| good == name);
        let state = if is_good { "delivered" } else { "scheduled" };
        let message = gateway.wait_until_message_is(state, path, WITHIN);
        if is_good {
            continue;
        }
        let error = message["attempts"][0]["error"].as_str().unwrap_or_default();
        let expected = peers.iter().find(|(peer, ..)| peer == name).map_or("tls: ", |(_, _, word)| word);
        assert!(error.starts_with(expected), "{name}: {message}");
        assert_eq!(message["attempts"][0]["status"], Value::Null, "{name}: {message}");
    }
    assert!(servers.iter().all(|(_, sink)| sink.count() == 0), "none of them read a request");
    assert!(good.iter().all(|(_, sink)| sink.count() == 1));
}
