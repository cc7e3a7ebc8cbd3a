//! A disk of a few megabytes that nobody else sees: a tmpfs in a mount namespace of the gateway's own.
//!
//! It takes root, or a system that lets others make user namespaces; it is gone with the process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where in its gateway's folder the disk is mounted.
const MOUNTED_AT: &str = "disk";
/// What runs inside the namespace: mounts, then becomes the program that follows.
const MOUNT_THEN: &str =
    "mkdir -p \"$1\" && mount -t tmpfs -o \"size=$2\" none \"$1\" && shift 2 && exec \"$@\"";

/// The store's URL on such a disk.
pub(crate) const STORE: &str = "sqlite:disk/posthaste.db";

/// The command that gives what follows it a disk of so many bytes at `disk` in the current folder.
///
/// Fails, saying what is needed, where no namespace can be made.
pub(crate) fn wrapper(size_bytes: u64) -> Vec<String> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let command = |way: &[&str]| {
        let size = size_bytes.to_string();
        let inside = ["--", "sh", "-c", MOUNT_THEN, "sh", MOUNTED_AT, &size];
        let words = ["unshare"].iter().chain(way).chain(&inside);
        words.map(|&word| word.to_owned()).collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let works = |words: &[String]| {
        let tried = Command::new(&words[0])
            .args(&words[1..])
            .arg("true")
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    ways.into_iter().map(command).find(|words| works(words)).expect(
        "this test mounts a small tmpfs in a namespace of its own: it needs `unshare` (util-linux) and either root with \
         CAP_SYS_ADMIN or a system that allows user namespaces (kernel.unprivileged_userns_clone = 1)",
    )
}

/// The disk of a gateway in `folder` that runs as `pid`, as the rest of the system reaches it.
pub(crate) fn path(pid: u32, folder: &Path) -> PathBuf {
    let seen_by_it = Path::new("/proc").join(pid.to_string()).join("root");
    let inside = folder.join(MOUNTED_AT);
    seen_by_it.join(inside.strip_prefix("/").expect("an absolute path"))
}
