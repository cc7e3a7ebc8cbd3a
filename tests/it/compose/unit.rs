//! The systemd unit: what it starts exists, systemd understands every line of it, and it may do little.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{END_AFTER_GRACE, SETTINGS, assert_known, check_settings, duration, read, settings};
use crate::support::command::{self, Ended};

const UNIT: &str = "deploy/posthaste.service";
/// The settings it is installed with.
const FILE: &str = "deploy/posthaste.toml";
/// Of systemd's judgement, which is from 0 (locked up) to 100 (may do all): what it has now, and little more.
const EXPOSURE_MAX: &str = "15";

/// The values of a key, in order.
fn values(key: &str) -> Vec<String> {
    let text = read(UNIT);
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn only(key: &str) -> String {
    let values = values(key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].clone()
}

/// Asks systemd about the unit, with our binary where an installed one would be.
fn judge(arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = read(UNIT).replace(super::image::BINARY, env!("CARGO_BIN_EXE_posthaste"));
    fs::write(folder.path().join("posthaste.service"), unit).expect("a file");
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg("./posthaste.service").env("SYSTEMD_COLORS", "0");
    command::run(folder.path(), command)
}

#[test]
fn the_unit_starts_the_gateway_with_settings_that_are_sound() {
    let start = only("ExecStart");
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words, [super::image::BINARY, "serve", "--config", SETTINGS]);
    assert_known(&words[1..]);
    let ended = check_settings(FILE, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let text = read(UNIT);
    assert!(text.contains(&format!("{FILE} {SETTINGS}")), "how it is installed is said");
    assert!(text.contains(&format!("target/release/posthaste {}", super::image::BINARY)), "and the binary");
}

#[test]
fn the_unit_gives_attempts_their_grace_and_starts_again_what_failed_but_not_what_cannot_be() {
    let stop = duration(&only("TimeoutStopSec").into());
    assert!(stop >= duration(&settings(FILE)["server"]["grace"]) + END_AFTER_GRACE, "{stop:?}");
    assert_eq!(only("KillSignal"), "SIGTERM");
    assert_eq!(only("Restart"), "on-failure");
    assert_eq!(only("RestartPreventExitStatus"), "78");
    let (tries, within) = (only("StartLimitBurst"), duration(&only("StartLimitIntervalSec").into()));
    let tries: u32 = tries.parse().expect("a number");
    assert!(tries >= 5 && within > Duration::from_mins(1), "a crash loop ends, a crash does not end it");
    assert!(only("LimitNOFILE").parse::<u32>().is_ok_and(|files| files >= 32_768));
}

#[test]
fn the_unit_writes_only_where_its_messages_are() {
    assert_eq!(only("DynamicUser"), "yes");
    assert_eq!(
        (only("StateDirectory"), only("WorkingDirectory")),
        ("posthaste".into(), "%S/posthaste".into())
    );
    let url = settings(FILE)["store"]["url"].clone();
    let path = url.as_str().expect("a URL").strip_prefix("sqlite:").expect("a file");
    assert!(!path.starts_with('/'), "{path} is within the working directory");
    for (key, value) in
        [("ProtectSystem", "strict"), ("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", "")]
    {
        assert_eq!(only(key), value, "{key}");
    }
}

#[test]
fn systemd_understands_every_line_and_finds_little_exposed() {
    let verified = judge(&["verify"]);
    // A key that it does not know is a warning and no error; what other units of this machine lack is not ours.
    let ours: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("posthaste.service")).collect();
    assert_eq!((verified.code, &ours[..]), (Some(0), &[][..]), "{verified:?}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let judged = judge(&["security", "--offline=true", "--no-pager", &threshold]);
    assert_eq!(judged.code, Some(0), "{judged:?}");
}
