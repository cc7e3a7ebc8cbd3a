//! How long a message is on its way in an idle gateway: from posting it over HTTP until a registered function has it; and with
//! two gateways on one Redis, when the other one has the function.
//!
//! The gateways are embedded in this process, with their HTTP servers and their stores, so that both ends read one clock. Beside
//! them stands the floor: a thread that answers the same connection's worth of bytes after one write and one `fdatasync`. What a
//! busy machine or a slow disk costs shows in both.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use posthaste::store::settings::RequiredDurability;
use posthaste::{App, Handle, Message, Outcome, Settings};

use crate::Arguments;
use crate::client::Connection;
use crate::redis_server::RedisServer;
use crate::report::Report;

const WITHIN: Duration = Duration::from_secs(30);
/// Between two posts, so that the gateway is idle when one comes: what is done after a settlement has been done by then.
const PAUSE: Duration = Duration::from_millis(20);
/// Posts before those that are timed.
const WARM_UP: usize = 50;

/// Measures it, on the embedded store, on Redis, and from one gateway to another.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = format!("sqlite:{}", folder.path().join("posthaste.db").display());
    let (began, beginnings) = sync_channel(arguments.posts + WARM_UP);
    let gateway = start(&sqlite, Some(began));
    measure("", &gateway, &beginnings, arguments.posts, report);
    stop(&gateway);
    let redis = RedisServer::start_durable();
    let (began, beginnings) = sync_channel(arguments.posts + WARM_UP);
    let processing = start(&redis.url(), Some(began));
    measure("redis_", &processing, &beginnings, arguments.posts, report);
    let taking = start(&redis.url(), None);
    measure("redis_other_", &taking, &beginnings, arguments.posts, report);
    stop(&taking);
    stop(&processing);
}

/// Measures it on a Redis that writes nothing to its disk.
pub(crate) fn run_relaxed(arguments: &Arguments, report: &mut Report) {
    let redis = RedisServer::start(&["--appendonly", "no"]);
    let (began, beginnings) = sync_channel(arguments.posts + WARM_UP);
    let gateway = start_as(&redis.url(), RequiredDurability::Relaxed, Some(began));
    measure("redis_", &gateway, &beginnings, arguments.posts, report);
    stop(&gateway);
}

/// A gateway that answers 202 once it is on the disk.
fn start(store: &str, began: Option<SyncSender<Instant>>) -> Handle {
    start_as(store, RequiredDurability::Strict, began)
}

/// A gateway; with the function that says when it was called, or without, so that it cannot process what it takes.
fn start_as(store: &str, durability: RequiredDurability, began: Option<SyncSender<Instant>>) -> Handle {
    let mut settings = Settings::default();
    settings.server.listen.0.set_port(0);
    store.clone_into(&mut settings.store.url);
    settings.store.durability = durability;
    let mut app = App::builder(settings.clone());
    if let Some(began) = began {
        settings.declare("bench", "note").expect("a name");
        app = App::builder(settings).processor("note", move |_: Message| {
            let noted = began.send(Instant::now());
            async move {
                noted.expect("the bench waits for it");
                Outcome::Done
            }
        });
    }
    app.build().expect("settings that can be").start().expect("it starts")
}

fn measure(name: &str, gateway: &Handle, beginnings: &Receiver<Instant>, posts: usize, report: &mut Report) {
    let mut connection = Connection::open(&gateway.address().to_string()).expect("it listens");
    let folder = tempfile::tempdir().expect("a folder");
    let mut floor = floor(&folder.path().join("floor"));
    let (mut to_function, mut to_answer, mut to_floor) = (Vec::new(), Vec::new(), Vec::new());
    for post in 0..posts + WARM_UP {
        thread::sleep(PAUSE);
        let posted = Instant::now();
        let answer =
            connection.request("POST", "/v1/queues/bench/messages", &[], b"{\"n\":1}").expect("an answer");
        let answered = Instant::now();
        assert_eq!(answer.status, 202, "{}", answer.text());
        let began = beginnings.recv_timeout(WITHIN).expect("it is processed");
        if post >= WARM_UP {
            to_function.push(began.saturating_duration_since(posted));
            to_answer.push(answered.saturating_duration_since(posted));
        }
        thread::sleep(PAUSE);
        let posted = Instant::now();
        floor.write_all(&[0; 256]).and_then(|()| floor.read_exact(&mut [0; 256])).expect("the floor answers");
        if post >= WARM_UP {
            to_floor.push(posted.elapsed());
        }
    }
    report.add_distribution(&format!("{name}floor"), to_floor);
    report.add_distribution(&format!("{name}post_to_202"), to_answer);
    report.add_distribution(&format!("{name}post_to_function"), to_function);
}

/// A connection to a thread that answers each 256 bytes once 4 KiB are on the disk.
fn floor(path: &Path) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    stream.set_nodelay(true).expect("an open socket");
    let (mut served, _) = listener.accept().expect("a connection");
    let mut file = File::create(path).expect("a file");
    thread::spawn(move || {
        let mut bytes = [0; 256];
        while served.read_exact(&mut bytes).is_ok() {
            file.write_all(&[0; 4_096]).and_then(|()| file.sync_data()).expect("room on the disk");
            served.write_all(&bytes).expect("the bench reads");
        }
    });
    stream
}

fn stop(gateway: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let report = runtime.block_on(gateway.stop(WITHIN));
    assert!(report.is_clean(), "{report:?}");
}
