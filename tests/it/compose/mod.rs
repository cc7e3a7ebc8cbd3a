//! What is there to deploy with, held against the repository: the compose file, the image, the systemd unit, the scripts of wrk. What
//! they mount, copy and call exists, and the parts that run without containers are run: Redis with the flags it is given there, the
//! gateway with the settings that are mounted, the receiver, the load tests.

mod image;
mod load;
mod stack;
mod unit;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::command::{Ended, posthaste};

/// What the gateway may take beyond `server.grace` until it has ended, by docs/OPERATIONS.md.
const END_AFTER_GRACE: Duration = Duration::from_millis(1_500);
/// Where the image has its settings, and where others are mounted.
const SETTINGS: &str = "/etc/posthaste/posthaste.toml";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The compose file with its anchors and merges resolved.
fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

/// Names and services, of the compose file.
fn services(compose: &Value) -> Vec<(&str, &Value)> {
    let services = compose["services"].as_object().expect("services");
    services.iter().map(|(name, service)| (name.as_str(), service)).collect()
}

/// The services that run our binary.
fn own_services(compose: &Value) -> Vec<(&str, &Value)> {
    let mut own = services(compose);
    own.retain(|(_, service)| service["image"] == "posthaste:local");
    assert!(own.len() >= 3, "gateways and the receiver");
    own
}

/// The gateways of the compose file.
fn gateways(compose: &Value) -> Vec<(&str, &Value)> {
    let mut gateways = own_services(compose);
    gateways.retain(|(_, service)| service["command"][0] == "serve");
    assert_eq!(gateways.len(), 2, "one, and one for the profile `scale`");
    gateways
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|one| one.as_str().unwrap_or_else(|| panic!("no text: {one}"))).collect()
}

/// Host paths and container paths of what a service mounts from this repository.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let volumes = service["volumes"].as_array().into_iter().flatten();
    let volumes = volumes.map(|volume| volume.as_str().expect("the short form").split(':').collect());
    let volumes = volumes.filter(|parts: &Vec<&str>| parts[0].starts_with('.'));
    volumes
        .map(|parts| {
            assert_eq!(parts.get(2), Some(&"ro"), "{parts:?}: what is of the repository is not written to");
            (parts[0].trim_start_matches("./").to_owned(), parts[1].to_owned())
        })
        .collect()
}

/// Checks that a command line is one of this binary: its command exists and has each flag.
fn assert_known(words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = posthaste(folder.path(), &[words[0], "--help"], &[]);
    assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
    let help: BTreeSet<&str> = ended.stdout.split([' ', ',', '\n', '=']).collect();
    for flag in words.iter().filter(|word| word.starts_with('-')) {
        assert!(help.contains(flag), "{words:?}: no flag {flag}: {}", ended.stdout);
    }
}

fn check_settings(path: &str, environment: &[(&str, &str)]) -> Ended {
    assert!(root().join(path).is_file(), "no file {path}");
    posthaste(&root(), &["config", "check", "--config", path], environment)
}

/// The settings that hold with this file.
fn settings(path: &str) -> Value {
    let ended = posthaste(&root(), &["config", "print", "--json", "--config", path], &[]);
    assert_eq!(ended.code, Some(0), "{path}: {ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// A duration of our settings, of Compose or of systemd, as they are written here: `20s`, `5min`.
fn duration(text: &Value) -> Duration {
    let text = text.as_str().expect("a duration");
    let (count, unit) = text.split_at(text.find(char::is_alphabetic).expect("a unit"));
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        other => panic!("{text}: the unit {other}"),
    };
    Duration::from_secs(count.parse::<u64>().expect("a number") * seconds)
}

/// The path of a file without what is beyond the last `/`, as Compose and Docker name folders.
fn is_within(path: &str, folder: &str) -> bool {
    Path::new(path).starts_with(folder)
}

#[test]
fn whatever_the_services_mount_call_and_build_exists() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for (host, _) in mounts(service) {
            assert!(root().join(&host).exists(), "{name} mounts {host}");
        }
        let named = service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for volume in named.filter(|volume| !volume.starts_with('.')) {
            let volume = volume.split(':').next().expect("a name");
            assert!(compose["volumes"].get(volume).is_some(), "{name}: no volume {volume}");
        }
        for network in strings(&service["networks"]) {
            assert!(compose["networks"].get(network).is_some(), "{name}: no network {network}");
        }
        for needed in service["depends_on"].as_object().into_iter().flatten() {
            assert_eq!(needed.1["condition"], "service_healthy", "{name}: {needed:?}");
            let needed = &compose["services"][needed.0.as_str()];
            assert!(needed["healthcheck"]["test"].is_array(), "{name} waits for one that is not looked at");
        }
        if let Some(build) = service.get("build") {
            assert_eq!(build["context"], ".", "{name}");
            let target = build["target"].as_str().expect("a stage");
            let dockerfile = read(build["dockerfile"].as_str().expect("a file"));
            assert!(dockerfile.contains(&format!(" AS {target}\n")), "{name}: no stage {target}");
        }
    }
    for (name, service) in own_services(&compose) {
        assert_known(&strings(&service["command"]));
        let check = &service["healthcheck"];
        if check["disable"] != true {
            let words = strings(&check["test"]);
            assert_eq!(words[..2], ["CMD", image::BINARY], "{name}");
            assert_known(&words[2..]);
        }
    }
}

#[test]
fn the_settings_that_the_gateways_mount_are_sound_and_fit_the_other_services() {
    let compose = compose();
    for (name, service) in gateways(&compose) {
        let command = strings(&service["command"]);
        assert_eq!(command, ["serve", "--config", SETTINGS], "{name}");
        let mounts = mounts(service);
        let (file, _) = mounts.iter().find(|(_, container)| container == SETTINGS).expect("its settings");
        let ended = check_settings(file, &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");

        let settings = settings(file);
        assert_eq!(settings["store"]["url"], "redis://redis:6379/0");
        assert_eq!(settings["store"]["durability"], "strict");
        assert_eq!(settings["server"]["insecure_no_auth"], true, "it is said out loud");
        let grace = duration(&settings["server"]["grace"]);
        assert!(
            duration(&service["stop_grace_period"]) >= grace + END_AFTER_GRACE,
            "{name} is killed before"
        );

        let receiver = &compose["services"]["receiver"];
        let listens = strings(&receiver["command"])[2].rsplit_once(':').expect("a port").1;
        let origin = format!("http://receiver:{listens}");
        let allowed = strings(&settings["egress"]["allow"]);
        assert!(allowed.contains(&origin.as_str()), "{origin} is not allowed: {allowed:?}");
        let destination = settings["queues"]["orders"]["destination"].as_str().expect("a destination");
        assert!(is_within(destination, &origin), "{destination} is not of the receiver");
        let hosts = strings(&service["extra_hosts"]);
        let host = "host.docker.internal";
        assert!(hosts.contains(&format!("{host}:host-gateway").as_str()), "{name}: {hosts:?}");
        assert!(allowed.iter().any(|origin| origin.contains(host)), "{allowed:?}");
    }
}

#[test]
fn nothing_is_published_to_other_machines_and_redis_not_at_all() {
    let compose = compose();
    let mut published = BTreeSet::new();
    for (name, service) in services(&compose) {
        for port in service["ports"].as_array().into_iter().flatten() {
            let parts: Vec<&str> = port.as_str().expect("the short form").split(':').collect();
            assert_eq!((parts.len(), parts[0]), (3, "127.0.0.1"), "{name}: {port}");
            assert!(published.insert(parts[1].to_owned()), "{name}: {port} is published twice");
            let listen = settings("deploy/compose.toml")["server"]["listen"].clone();
            assert_eq!(listen, format!("0.0.0.0:{}", parts[2]), "{name}");
        }
    }
    assert_eq!(published, BTreeSet::from(["8080".to_owned(), "8081".to_owned()]));
    assert_eq!(compose["services"]["gateway"]["ports"][0], "127.0.0.1:8080:8080");

    let of = |service: &str| strings(&compose["services"][service]["networks"]).into_iter().collect();
    let (redis, receiver): (BTreeSet<&str>, BTreeSet<&str>) = (of("redis"), of("receiver"));
    assert!(redis.is_disjoint(&receiver), "what is pushed to does not get to Redis");
    for (name, service) in gateways(&compose) {
        let networks: BTreeSet<&str> = strings(&service["networks"]).into_iter().collect();
        assert!(!networks.is_disjoint(&redis) && !networks.is_disjoint(&receiver), "{name}");
    }
}

#[test]
fn services_have_no_rights_and_only_what_is_asked_for_is_started() {
    let compose = compose();
    for (name, service) in services(&compose) {
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        if name != "redis" {
            assert_eq!(
                (&service["read_only"], &service["cap_drop"][0]),
                (&true.into(), &"ALL".into()),
                "{name}"
            );
        }
        let profile = match name {
            "gateway-2" => Some("scale"),
            "loadtest" => Some("loadtest"),
            _ => None,
        };
        assert_eq!(service["profiles"][0].as_str(), profile, "{name}");
    }
}
