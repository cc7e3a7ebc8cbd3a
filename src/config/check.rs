//! What must hold within the sections and between them.

use super::Settings;
use super::problem::{Origin, Problems};
use super::tree::{self, dotted};
use crate::domain::destination::parse_origin;
use crate::domain::queue::{QueueSettings, SettingProblem};

/// Reports every value out of its range, and what does not fit together.
pub(super) fn check(settings: &Settings, problems: &mut Problems) {
    // The queues' own are checked where their defaults are known.
    let sections = [
        ("server", settings.server.problems()),
        ("store", settings.store.problems()),
        ("ingest", settings.ingest.problems()),
        ("workers", settings.workers.problems()),
        ("lanes", settings.lanes.problems()),
        ("egress", settings.egress.problems()),
        ("secrets", settings.secrets.problems()),
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
    for (name, own) in &settings.lanes.origins {
        let path = ["lanes", name.as_str()];
        if parse_origin(name).as_ref() != Ok(name) {
            let detail =
                "is no origin in its one spelling, like https://shop.example or http://10.0.0.5:8080";
            problems.key(origin_of(settings, &path), dotted(&path), detail);
        }
        for problem in own.problems() {
            let path = [path[0], path[1], problem.key];
            problems.key(origin_of(settings, &path), dotted(&path), problem.detail);
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

/// Reports every value of a queue out of its range; what the defaults have is said once.
pub(super) fn check_queues(settings: &Settings, problems: &mut Problems) {
    // The defaults may name no processor, and one of them is as good as another here.
    let defaults = QueueSettings { processor: "log".to_owned(), ..settings.queue_defaults.clone() };
    let of_all = defaults.problems_of_defaults();
    let mut report = |section: String, found: &mut dyn Iterator<Item = &SettingProblem>| {
        for SettingProblem { key, detail } in found {
            problems.key(Origin::Program, format!("{section}.{key}"), detail.as_str());
        }
    };
    report("queue_defaults".to_owned(), &mut of_all.iter());
    for (name, queue) in &settings.queues {
        let mut own = queue.problems();
        own.extend(queue.secret_of_a_store());
        report(
            dotted(&["queues", name.as_str()]),
            &mut own.iter().filter(|problem| !of_all.contains(problem)),
        );
    }
}

/// Where a key of known name was given; the built-in file for one that is not set.
fn origin(settings: &Settings, key: &str) -> Origin {
    let path: Vec<&str> = key.split('.').collect();
    tree::find(&settings.layered, &path).map_or(Origin::BuiltIn { line: 1 }, |node| node.origin.clone())
}

/// Where a value that cannot be was given: a queue's may have been given for all queues, and one that is built in can be.
pub(super) fn origin_of(settings: &Settings, path: &[&str]) -> Origin {
    let given = |path: &[&str]| {
        let origin = tree::find(&settings.layered, path).map(|node| &node.origin);
        origin.filter(|origin| !matches!(origin, Origin::BuiltIn { .. })).cloned()
    };
    let shared = || match path {
        ["queues", _, key @ ..] => given(&[&["queue_defaults"], key].concat()),
        _ => None,
    };
    given(path).or_else(shared).unwrap_or(Origin::Program)
}
