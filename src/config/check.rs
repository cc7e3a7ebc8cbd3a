//! What must hold within the sections and between them.

use super::Settings;
use super::problem::{Origin, Problems};
use super::tree;

/// Reports every value out of its range, and what does not fit together.
pub(super) fn check(settings: &Settings, problems: &mut Problems) {
    // The queues' own are checked where their defaults are known.
    let sections = [
        ("server", settings.server.problems()),
        ("store", settings.store.problems()),
        ("ingest", settings.ingest.problems()),
        ("workers", settings.workers.problems()),
        ("egress", settings.egress.problems()),
        ("log", settings.log.problems()),
    ];
    for (section, found) in sections {
        for problem in found {
            let key = format!("{section}.{}", problem.key);
            let mut given = origin(settings, &key);
            // Who gave a URL and left the durability as it is wants to hear of the URL's line.
            if key == "store.durability" && matches!(given, Origin::BuiltIn { .. }) {
                given = origin(settings, "store.url");
            }
            problems.key(given, key, problem.detail);
        }
    }
    check_listen(settings, problems);
}

fn check_listen(settings: &Settings, problems: &mut Problems) {
    let listen = settings.server.listen;
    if listen.is_loopback() {
        return;
    }
    let key = "server.listen";
    if settings.dev {
        let detail =
            format!("--dev opens loopback destinations and so needs a loopback address, not {listen}");
        problems.key(origin(settings, key), key.to_owned(), detail);
    }
    if !settings.server.insecure_no_auth {
        let detail = format!(
            "{listen} can be reached from other machines, and nobody is asked for a key: \
             listen on 127.0.0.1, or set server.insecure_no_auth = true (--insecure-no-auth) \
             where the network keeps strangers out"
        );
        problems.key(origin(settings, key), key.to_owned(), detail);
    }
}

/// Where a key of known name was given; the built-in file for one that is not set.
fn origin(settings: &Settings, key: &str) -> Origin {
    let path: Vec<&str> = key.split('.').collect();
    tree::find(&settings.layered, &path).map_or(Origin::BuiltIn { line: 1 }, |node| node.origin.clone())
}
