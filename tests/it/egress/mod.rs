//! Where messages are pushed to: what may not be reached is refused wherever it is said, and nothing is sent there.

mod credentials;
mod declared;
mod gone;
mod options;
mod rebinding;
mod silence;
mod unresolved;
mod vectors;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use posthaste::Settings;
use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::embedded::Embedded;
use crate::support::gateway::Home;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A service of this machine that nobody outside may reach: whoever connects to it is found out.
struct Canary(TcpListener);

impl Canary {
    /// On every address of this machine, at a port that is no well-known service's.
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a setting of the socket");
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("its address").port()
    }

    /// Nobody has ever connected: whoever did would wait to be accepted.
    fn assert_untouched(&self) {
        match self.0.accept() {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            Ok((_, peer)) => panic!("somebody reached it: {peer}"),
        }
    }
}

/// Names and what they resolve to, changed while a gateway runs.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Vec<IpAddr>>>>);

impl Names {
    fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect(text)).collect();
        self.0.lock().expect("unbroken").insert(name.to_owned(), addresses);
    }

    fn fail(&self, name: &str) {
        self.0.lock().expect("unbroken").remove(name);
    }

    fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let known = self.0.lock().expect("unbroken").get(name).cloned();
        known.ok_or_else(|| io::Error::other("no such name"))
    }
}

/// A gateway over that store whose names resolve as `names` says.
fn start(home: &Home, names: &Names, change: impl FnOnce(&mut Settings)) -> Embedded {
    let names = names.clone();
    Embedded::start(
        |settings| {
            if let Home::Redis(redis) = home {
                settings.store.url = redis.url();
            }
            settings.queues.clear();
            change(settings);
        },
        |builder| builder.lookup(move |name| names.look_up(name)),
    )
}

fn http(destination: &str) -> Value {
    json!({"processor": "http", "destination": destination, "retry": {"schedule": []}})
}

fn call(gateway: &Embedded, method: &str, path: &str, body: &Value) -> Answer {
    gateway.request(method, path, &[JSON], body.to_string().as_bytes())
}

fn put(gateway: &Embedded, queue: &str, settings: &Value) -> Answer {
    call(gateway, "PUT", &format!("/v1/queues/{queue}"), settings)
}

/// An address of this machine in the settings of what may be reached.
fn allow(settings: &mut Settings, entries: &[&str]) {
    settings.egress.allow = entries.iter().map(|entry| entry.parse().expect(entry)).collect();
}

fn port_of(address: &str) -> u16 {
    address.parse::<SocketAddr>().expect("an address").port()
}
