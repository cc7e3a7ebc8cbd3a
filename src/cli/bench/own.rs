//! A gateway of the bench's own: the same binary on a folder of its own, gone when it is dropped.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::plan::{Own, Store};
use crate::cli::{Exit, Failure};

/// How long it may take to listen: it may have to wait for another process to let go of a port or a Redis to answer.
const LISTEN_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A folder that is gone with everything in it when this is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A running gateway. Dropping it kills it.
pub(super) struct OwnGateway {
    process: Child,
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    /// Whether its folder rests in memory, where writing through costs nothing.
    pub(super) is_in_memory: bool,
    // Dropped after the process has ended.
    folder: Folder,
}

impl OwnGateway {
    /// Starts one, with what it keeps in a Redis under that prefix; gives it as soon as it listens.
    ///
    /// # Errors
    /// What it says when it does not start.
    pub(super) async fn start(own: &Own, prefix: &str) -> Result<Self, Failure> {
        let folder = own.folder.clone().unwrap_or_else(std::env::temp_dir);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| Failure::failed(format!("{path}: {error}"))
        };
        let path = folder.join(format!("posthaste-{prefix}"));
        // What is in it is of nobody else.
        DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
        let folder = Folder(path);
        let log = folder.0.join("log");
        let binary = std::env::current_exe().map_err(Failure::failed)?;
        let mut command = Command::new(&binary);
        command
            .current_dir(&folder.0)
            // What this shell says of another gateway is not of this one; and a Ctrl-C is for the bench, which ends it.
            .env_clear()
            .process_group(0)
            // It may have a password, and arguments are seen by all.
            .env("POSTHASTE__STORE__URL", url(&own.store))
            .args(arguments(own, prefix))
            // Held until this process ends, however that comes: the gateway ends with it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(failed(&log))?);
        let process = command.spawn().map_err(failed(&binary))?;
        let mut gateway = Self { process, url: String::new(), is_in_memory: is_in_memory(&folder.0), folder };
        gateway.url = gateway.listens(&log).await?;
        Ok(gateway)
    }

    /// Waits until it says where it listens.
    async fn listens(&mut self, log: &Path) -> Result<String, Failure> {
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(log).unwrap_or_default();
            if let Some(address) = address(&said) {
                return Ok(format!("http://{address}"));
            }
            if let Some(status) = self.process.try_wait().map_err(Failure::failed)? {
                let configuration = i32::from(Exit::Configuration.code());
                let exit =
                    if status.code() == Some(configuration) { Exit::Configuration } else { Exit::Failed };
                return Err(Failure::new(exit, format!("the gateway did not start: {}", said.trim())));
            }
            if began.elapsed() > LISTEN_WITHIN {
                return Err(Failure::failed(format!("the gateway does not listen: {}", said.trim())));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of the files in its folder, its log aside.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        let entries = fs::read_dir(&self.folder.0).ok()?.filter_map(Result::ok);
        let files = entries.filter(|entry| entry.file_name() != "log");
        Some(files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

impl Drop for OwnGateway {
    fn drop(&mut self) {
        self.kill();
    }
}

fn url(store: &Store) -> &str {
    match store {
        Store::Sqlite => "sqlite:posthaste.db",
        Store::Memory => "memory:",
        Store::Redis(url) => url,
    }
}

/// Whether what is written there never reaches a disk.
#[cfg(target_os = "linux")]
fn is_in_memory(folder: &Path) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    statfs(folder).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> bool {
    false
}

fn arguments(own: &Own, prefix: &str) -> Vec<String> {
    let mut words: Vec<String> =
        ["serve", "--until-stdin-ends", "--listen", "127.0.0.1:0"].map(str::to_owned).into();
    let durability = own.durability.as_deref().or((own.store == Store::Memory).then_some("none"));
    words.extend(durability.into_iter().flat_map(|word| ["--durability".to_owned(), word.to_owned()]));
    let sets = [
        // Its receivers are on this machine.
        r#"egress.allow=["127.0.0.0/8","::1"]"#.to_owned(),
        format!("store.prefix={prefix}"),
    ];
    // The address is read from the log.
    let last = ["log.format=text".to_owned(), "log.level=info".to_owned()];
    for set in sets.iter().chain(&own.set).chain(&last) {
        words.extend(["--set".to_owned(), set.clone()]);
    }
    words
}

/// Where a gateway says that it listens.
fn address(log: &str) -> Option<&str> {
    let at = log.find("address=")? + "address=".len();
    log[at..].split_once('\n')?.0.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_once_its_line_is_whole() {
        assert_eq!(address("x\ny address=127.0.0.1:80"), None);
        assert_eq!(address("x\ny address=127.0.0.1:80 z=1\n"), Some("127.0.0.1:80"));
        assert_eq!(address(""), None);
    }

    #[test]
    fn a_store_in_memory_promises_nothing_and_settings_of_the_caller_come_after_ours() {
        let own = Own {
            store: Store::Memory,
            durability: None,
            folder: None,
            set: vec!["workers.threads=1".to_owned()],
        };
        let words = arguments(&own, "bench-1").join(" ");
        assert!(words.contains("--durability none"), "{words}");
        assert!(
            words.contains("--set store.prefix=bench-1 --set workers.threads=1 --set log.format=text"),
            "{words}"
        );
    }
}
