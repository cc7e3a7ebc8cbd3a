//! A gateway inside the test's own process, by the embedding API.

use std::path::PathBuf;
use std::time::Duration;

use posthaste::{App, Builder, Handle, Settings};
use serde_json::Value;

use super::client::{self, Answer};
use super::{invariants, wait_until};

/// How long the end may take.
const GRACE: Duration = Duration::from_secs(10);

/// A running gateway with a store of its own.
pub(crate) struct Embedded {
    folder: tempfile::TempDir,
    handle: Handle,
}

impl Embedded {
    /// Starts one with default settings as `change` changes them, and with the functions that `register` registers.
    pub(crate) fn start(
        change: impl FnOnce(&mut Settings),
        register: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = Settings::default();
        settings.server.listen.0.set_port(0);
        settings.store.url = format!("sqlite:{}", folder.path().join("posthaste.db").display());
        change(&mut settings);
        let app = register(App::builder(settings)).build().expect("settings that can be");
        Self { folder, handle: app.start().expect("it starts") }
    }

    /// The path of its store, as its settings name it.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("posthaste.db")
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        self.handle.address().to_string()
    }

    /// One request on a connection of its own; it is answered.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        client::request(&self.address(), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
    }

    /// `/status` as it is now; both laws hold.
    pub(crate) fn status(&self) -> Value {
        let status = self.request("GET", "/status", &[], b"").json();
        invariants::assert_laws(&status);
        status
    }

    /// Waits until nothing is pending, scheduled or leased; gives that status.
    pub(crate) fn wait_until_drained(&self, within: Duration) -> Value {
        wait_until("everything has ended", within, || {
            let status = self.status();
            invariants::is_drained(&status).then_some(status)
        })
    }

    /// Ends it in order; nobody was late.
    pub(crate) fn stop(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let report = runtime.block_on(self.handle.stop(GRACE));
        assert!(report.late.is_empty(), "{report:?}");
    }
}
