//! Secrets in a file, which somebody may replace while the gateway runs: a mounted secret, for one.
//!
//! The file is looked at when a delivery needs it and the last look was ten seconds ago or more. Another secret in it is a rotation:
//! what was there before holds for the queue's overlap, in this process; for longer than that it stands in the file as well. A file
//! that cannot be read any more changes nothing and is logged.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Unsigned;
use crate::domain::secret::{SecretSet, SigningSecret};
use crate::domain::timestamp::Timestamp;
use crate::processor::http::sign::Signer;

/// How long what a file said is taken to hold.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The largest file that is read: several times what four secrets take.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// Reads a file of a secret or a key. Nothing but a regular file, or a link to one: others may never end.
pub(super) fn read(path: &str) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 4KiB"));
    }
    Ok(text)
}

/// The secrets in a file.
pub(super) fn secrets(path: &str) -> Result<Vec<SigningSecret>, String> {
    let text =
        zeroize::Zeroizing::new(read(path).map_err(|error| format!("{path:?} cannot be read: {error}"))?);
    SigningSecret::parse_all(&text).map_err(|error| format!("what {path:?} holds {error}"))
}

/// What is known of a file.
pub(super) struct Watched {
    pub(super) path: String,
    looked: Instant,
    /// What it held when it last held secrets.
    held: Vec<SigningSecret>,
    set: SecretSet,
    signer: Result<Arc<Signer>, Unsigned>,
    /// Whether the log has said that it cannot be read now.
    is_said: bool,
}

impl Watched {
    /// A file that nobody has looked at.
    pub(super) fn new(path: &str, queue: &str, at: Timestamp, overlap: Duration, now: Instant) -> Self {
        let mut watched = Self {
            path: path.to_owned(),
            looked: now,
            held: Vec::new(),
            set: SecretSet::default(),
            signer: Err(Unsigned(String::new())),
            is_said: false,
        };
        watched.look(queue, at, overlap);
        watched
    }

    /// What signs now.
    pub(super) fn signer(
        &mut self,
        queue: &str,
        at: Timestamp,
        overlap: Duration,
        now: Instant,
    ) -> Result<Arc<Signer>, Unsigned> {
        if now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.look(queue, at, overlap);
        }
        self.signer.clone()
    }

    /// The secrets that hold now.
    pub(super) fn set(&self) -> Result<SecretSet, Unsigned> {
        self.signer.as_ref().map(|_| self.set.clone()).map_err(Clone::clone)
    }

    fn look(&mut self, queue: &str, at: Timestamp, overlap: Duration) {
        let found = secrets(&self.path).and_then(|found| {
            if self.signer.is_ok() && found == self.held {
                return Ok(());
            }
            let set = self.with(&found, at, overlap);
            let signer = Signer::new(&set).map_err(|error| format!("what {:?} holds {error}", self.path))?;
            let is_first = self.signer.is_err();
            (self.signer, self.set, self.held) = (Ok(Arc::new(signer)), set, found);
            if !is_first {
                log::info!("queue.name" = queue; "the secret file has other secrets: they are used from now on");
            }
            Ok(())
        });
        match found {
            Ok(()) => self.is_said = false,
            Err(why) => {
                if !std::mem::replace(&mut self.is_said, true) {
                    log::warn!("queue.name" = queue, "cause" = why.as_str(); "the secret file gives no secret now");
                }
                if self.signer.is_err() {
                    self.signer = Err(Unsigned(format!("secret_file: {why}")));
                }
            }
        }
    }

    /// What holds once the file has these: all of them for good, and those before them for the overlap.
    fn with(&self, found: &[SigningSecret], at: Timestamp, overlap: Duration) -> SecretSet {
        let Some(newest) = found.first() else { return SecretSet::default() };
        let before = SecretSet::clone(&self.set).rotated(newest, at, overlap);
        let others = before.all().iter().filter(|kept| !found.contains(&kept.secret)).cloned();
        let lasting = SecretSet::lasting(found.to_vec());
        let room = crate::domain::secret::SECRETS_MAX - found.len();
        SecretSet::of(lasting.all().iter().cloned().chain(others.take(room)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKind;

    const DAY: Duration = Duration::from_hours(24);

    fn secret(number: u8) -> SigningSecret {
        SigningSecret::from_random(SecretKind::Hmac, &[number; 32])
    }

    fn shown(watched: &Watched) -> Vec<(u8, Option<u64>)> {
        let set = watched.set().expect("there is one");
        set.all().iter().map(|kept| (kept.secret.bytes()[0], kept.until.map(Timestamp::as_millis))).collect()
    }

    #[test]
    fn another_secret_in_the_file_is_a_rotation_seen_within_ten_seconds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret").display().to_string();
        let write = |numbers: &[u8]| {
            let lines: Vec<_> =
                numbers.iter().map(|number| secret(*number).text().expose().to_owned()).collect();
            fs::write(&path, lines.join("\n")).expect("written");
        };
        let (began, at) = (Instant::now(), Timestamp::from_millis(0));
        write(&[1]);
        let mut watched = Watched::new(&path, "orders", at, DAY, began);
        let after = |watched: &mut Watched, seconds: u64| {
            let at = Timestamp::from_millis(seconds * 1_000);
            watched.signer("orders", at, DAY, began + Duration::from_secs(seconds)).expect("it signs");
            shown(watched)
        };
        assert_eq!(after(&mut watched, 0), [(1, None)]);
        write(&[2]);
        assert_eq!(after(&mut watched, 9), [(1, None)], "not looked at yet");
        assert_eq!(after(&mut watched, 10), [(2, None), (1, Some(86_410_000))]);
        write(&[3, 2]);
        assert_eq!(after(&mut watched, 20), [(3, None), (2, None), (1, Some(86_410_000))]);
        // What is no secret, no file, nothing: what was there goes on.
        for _ in 0..2 {
            fs::write(&path, "whsec_AAAA").expect("written");
            assert_eq!(after(&mut watched, 30), [(3, None), (2, None), (1, Some(86_410_000))]);
            fs::remove_file(&path).expect("removed");
            assert_eq!(after(&mut watched, 40), [(3, None), (2, None), (1, Some(86_410_000))]);
        }
        write(&[4]);
        assert_eq!(after(&mut watched, 90_000).first(), Some(&(4, None)));
    }

    #[test]
    fn a_file_that_never_gave_a_secret_is_no_reason_to_send_unsigned() {
        let folder = tempfile::tempdir().expect("a folder");
        let (began, at) = (Instant::now(), Timestamp::from_millis(0));
        let path = folder.path().display().to_string();
        let watched = Watched::new(&path, "orders", at, DAY, began);
        assert!(watched.set().is_err_and(|why| why.0.ends_with("cannot be read: it is not a file")));
        let path = format!("{path}/secret");
        let mut watched = Watched::new(&path, "orders", at, DAY, began);
        assert!(watched.set().is_err_and(|why| why.0.starts_with("secret_file: ")));
        fs::write(&path, "x".repeat(5_000)).expect("written");
        assert!(read(&path).is_err_and(|error| error.to_string() == "it is larger than 4KiB"));
        fs::write(&path, secret(1).text().expose()).expect("written");
        let later = began + LOOK_EVERY;
        assert!(watched.signer("orders", at, DAY, later).is_ok(), "it is there now");
    }
}
