//! The compiled-in file is the manual: every key once, with its default, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::config::keys::{self, Class};
use crate::config::layers::BUILT_IN;
use crate::config::tree::{self, Table, dotted};
use crate::http::settings::ServerSettings;

/// The key of a line that is a commented-out setting, `# key = value`.
fn commented_out(line: &str) -> Option<&str> {
    let setting = line.strip_prefix("# ")?;
    let (key, value) = setting.split_once(" = ")?;
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (bare && !value.is_empty()).then_some(setting)
}

/// The manual with every setting that is commented out put in.
fn with_all_put_in() -> String {
    BUILT_IN.lines().map(|line| commented_out(line).unwrap_or(line).to_owned() + "\n").collect()
}

fn leaves(table: &Table, path: &mut Vec<String>, found: &mut Vec<String>) {
    for (key, node) in table {
        path.push(key.clone());
        match node.as_table().filter(|_| keys::classify(path) == Class::Section) {
            Some(inner) => leaves(inner, path, found),
            None => found.push(dotted(path)),
        }
        path.pop();
    }
}

#[test]
fn the_manual_has_every_key_exactly_once() {
    // A key that stood there twice would be no valid TOML.
    let mut table = tree::parse(&with_all_put_in(), &|line| Origin::BuiltIn { line }).expect("valid TOML");
    let queues = table.remove("queues").expect("there are queues");
    assert_eq!(queues.as_table().expect("a table").keys().collect::<Vec<_>>(), ["default"]);
    let mut documented = Vec::new();
    leaves(&table, &mut Vec::new(), &mut documented);
    let documented: BTreeSet<_> = documented.iter().collect();
    assert_eq!(documented, KEYS.iter().collect::<BTreeSet<_>>());
}

#[test]
fn the_manual_explains_every_key_right_above_it() {
    let is_setting =
        |line: &str| commented_out(line).is_some() || (line.contains(" = ") && !line.starts_with('#'));
    let mut above = "";
    let mut settings = 0;
    for line in BUILT_IN.lines() {
        if is_setting(line) && !line.starts_with("processor =") {
            settings += 1;
            assert!(
                above.starts_with("# ") && above.ends_with('.') && !is_setting(above),
                "{line}: {above:?}"
            );
        }
        assert!(line.len() <= 140, "{line}");
        above = line;
    }
    assert_eq!(settings, KEYS.len());
}

/// A number of the manual: a count or a size in bytes.
fn amount(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let shift = match &text[digits..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    Some(text[..digits].parse::<u64>().ok()? << shift)
}

/// Every key of the manual whose comment begins with a range, `A to B`: key, A, B.
fn ranges() -> Vec<(String, String, String)> {
    let (mut section, mut comment, mut found) = (String::new(), None, Vec::new());
    for line in BUILT_IN.lines() {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
        }
        let setting = commented_out(line).unwrap_or(line);
        if let Some((key, _)) = setting.split_once(" = ").filter(|_| !setting.starts_with('#')) {
            let first: Option<&str> = comment.take();
            let words: Vec<&str> = first.unwrap_or_default().split(' ').skip(1).take(3).collect();
            if let [from, "to", to] = words[..]
                && from.starts_with(|first: char| first.is_ascii_digit())
            {
                let to = to.trim_end_matches([';', '.', ',', ':']);
                found.push((format!("{section}.{key}"), from.to_owned(), to.to_owned()));
            }
        } else if line.starts_with("# ") {
            comment = comment.or(Some(line));
        } else {
            comment = None;
        }
    }
    found
}

#[test]
fn the_ranges_of_the_manual_are_those_of_the_code() {
    let ranges = ranges();
    assert!(ranges.len() >= 45, "{ranges:?}");
    for (key, from, to) in ranges {
        let given = |value: &str| {
            let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
            let line = if is_number { format!("{key} = {value}") } else { format!("{key} = '{value}'") };
            // Some settings are for the one store that has replicas.
            file(&format!("store.url = 'redis://localhost'\n{line}")).load()
        };
        for end in [&from, &to] {
            assert!(given(end).is_ok(), "{key} = {end}: {:?}", given(end));
        }
        // A time-span as it is written, so that its first unit may be followed by a smaller one.
        let (below, above) = match (amount(&from), amount(&to)) {
            (Some(from), Some(to)) => {
                (from.checked_sub(1).map(|below| below.to_string()), (to + 1).to_string())
            }
            _ => (Some("0s".to_owned()).filter(|_| from != "0s"), format!("{to}1ms")),
        };
        for beyond in below.into_iter().chain([above]) {
            let problems = given(&beyond).expect_err(&key);
            let expected = format!("is out of range: {from} to {to}");
            assert!(problems[0].contains(&expected), "{key} = {beyond}: {problems:?}");
        }
    }
}

#[test]
fn what_the_manual_shows_commented_out_is_possible() {
    // A secret is in one of several places, and never all queues'.
    let is_choice = |line: &&str| {
        let places = ["secret = ", "secret_file = ", "secret_env = ", "master_key_file = "];
        places.iter().any(|place| line.starts_with(place))
    };
    let all = with_all_put_in();
    assert_eq!(all.lines().filter(is_choice).count(), 4);
    let text: Vec<_> = all.lines().filter(|line| !is_choice(line)).collect();
    let settings = file(&text.join("\n")).settings();
    assert_eq!(settings.store.bytes_max, Some(10 << 30));
    assert!(settings.queue_defaults.destination.is_some());
}

#[test]
fn the_defaults_of_the_manual_are_those_of_the_code() {
    let settings = Settings::default();
    assert_eq!(settings.server, ServerSettings::default());
    assert_eq!(settings.store, StoreSettings::default());
    assert_eq!(settings.ingest, IngestSettings::default());
    assert_eq!(settings.workers, WorkerSettings::default());
    assert_eq!(settings.lanes, LaneSettings::default());
    assert_eq!(settings.egress, EgressSettings::default());
    assert_eq!(settings.log, LogSettings::default());
    assert_eq!(settings.queue_defaults, QueueSettings::default());
    assert_eq!(settings.queues.len(), 1);
    let log = QueueSettings { processor: "log".to_owned(), ..QueueSettings::default() };
    assert_eq!(queue(&settings, "default"), &log);
}

#[test]
fn keys_are_drawn_from_the_structs() {
    for key in [
        "server.listen",
        "server.limits.batch_bytes_max",
        "store.bytes_max",
        "workers.concurrency",
        "egress.allow",
        "log.level",
        "queue_defaults.lease",
        "queue_defaults.delivery.headers",
        "queue_defaults.delivery.rate",
        "queue_defaults.destination_override",
    ] {
        assert!(KEYS.iter().any(|known| known == key), "{key}");
    }
    assert!(!KEYS.iter().any(|key| key == "queue_defaults.retry" || key.starts_with("queues")));
}
