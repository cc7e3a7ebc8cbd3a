//! How long a message is on its way in an idle gateway: from posting it over HTTP until a registered function has it.
//!
//! The gateway is embedded in this process, with its HTTP server and its store, so that both ends read one clock.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use posthaste::{App, Handle, Message, Outcome, Settings};

use crate::Arguments;
use crate::client::Connection;
use crate::report::Report;

const WITHIN: Duration = Duration::from_secs(30);
/// Between two posts, so that the gateway is idle when one comes: what is done after a settlement has been done by then.
const PAUSE: Duration = Duration::from_millis(20);
/// Posts before those that are timed.
const WARM_UP: usize = 50;

/// Measures it.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = Settings::default();
    settings.server.listen.0.set_port(0);
    settings.store.url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
    settings.declare("bench", "note").expect("a name");
    let (began, beginnings) = sync_channel(arguments.posts + WARM_UP);
    let note = move |_: Message| {
        let noted = began.send(Instant::now());
        async move {
            noted.expect("the bench waits for it");
            Outcome::Done
        }
    };
    let app = App::builder(settings).processor("note", note).build().expect("settings that can be");
    let gateway = app.start().expect("it starts");
    let mut connection = Connection::open(&gateway.address().to_string()).expect("it listens");
    let (mut to_function, mut to_answer) = (Vec::new(), Vec::new());
    for post in 0..arguments.posts + WARM_UP {
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
    }
    stop(&gateway);
    report.add_distribution("post_to_202", to_answer);
    report.add_distribution("post_to_function", to_function);
}

fn stop(gateway: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let report = runtime.block_on(gateway.stop(WITHIN));
    assert!(report.is_clean(), "{report:?}");
}
