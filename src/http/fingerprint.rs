//! What an idempotency key stands for: a digest of payload, Content-Type, method and destination, each with its length before it.

use sha2::{Digest as _, Sha256};

use crate::http::options::Options;
use crate::http::pace::Pace;

/// What goes before the items of a batch, so that a batch of one is not the message itself.
const BATCH: &[u8] = b"posthaste batch";

/// A fingerprint that is being taken.
pub(super) struct Fingerprint(Sha256);

impl Fingerprint {
    /// The fingerprint of one message.
    pub(super) fn of(options: &Options, payload: &[u8]) -> [u8; 16] {
        let mut digest = Sha256::new();
        for part in parts(options, payload) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest).finish()
    }

    /// The same, with turns for others in between.
    pub(super) async fn of_slowly(options: &Options, payload: &[u8], pace: &mut Pace) -> [u8; 16] {
        let mut fingerprint = Self(Sha256::new());
        fingerprint.add(options, payload, pace).await;
        fingerprint.finish()
    }

    /// The fingerprint of a batch, before its first item.
    pub(super) fn of_batch() -> Self {
        Self(Sha256::new_with_prefix(BATCH))
    }

    /// Adds a message, with turns for others in between.
    pub(super) async fn add(&mut self, options: &Options, payload: &[u8], pace: &mut Pace) {
        for part in parts(options, payload) {
            self.0.update((part.len() as u64).to_be_bytes());
            for piece in part.chunks(Pace::BYTES) {
                self.0.update(piece);
                pace.spend(piece.len()).await;
            }
        }
    }

    /// The fingerprint.
    pub(super) fn finish(self) -> [u8; 16] {
        let digest = self.0.finalize();
        std::array::from_fn(|place| digest[place])
    }
}

fn parts<'m>(options: &'m Options, payload: &'m [u8]) -> [&'m [u8]; 4] {
    let method = options.headers.method.as_deref().unwrap_or_default();
    let destination = options.destination.as_ref().map_or("", |destination| destination.as_str());
    [payload, options.headers.content_type.as_bytes(), method.as_bytes(), destination.as_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(content_type: &str, method: Option<&str>, destination: Option<&str>) -> Options {
        let mut options = Options::default();
        content_type.clone_into(&mut options.headers.content_type);
        options.headers.method = method.map(str::to_owned);
        options.destination = destination.map(|text| text.parse().expect("a URL"));
        options
    }

    #[test]
    fn a_fingerprint_differs_where_the_message_does() {
        let plain = with("text/plain", None, None);
        let prints = [
            Fingerprint::of(&plain, b"a"),
            Fingerprint::of(&plain, b"b"),
            Fingerprint::of(&plain, b""),
            Fingerprint::of(&with("text/html", None, None), b"a"),
            Fingerprint::of(&with("", None, None), b"a"),
            Fingerprint::of(&with("text/plain", Some("PUT"), None), b"a"),
            Fingerprint::of(&with("text/plain", None, Some("https://a.example/")), b"a"),
            // The same bytes, parted elsewhere.
            Fingerprint::of(&with("text/plaina", None, None), b""),
        ];
        let distinct: std::collections::HashSet<_> = prints.iter().collect();
        assert_eq!(distinct.len(), prints.len());
        assert_eq!(Fingerprint::of(&with("text/plain", None, None), b"a"), prints[0]);
    }

    async fn of_batch(payloads: &[&[u8]]) -> [u8; 16] {
        let (mut fingerprint, mut pace) = (Fingerprint::of_batch(), Pace::default());
        for payload in payloads {
            fingerprint.add(&Options::default(), payload, &mut pace).await;
        }
        fingerprint.finish()
    }

    #[tokio::test]
    async fn a_batch_has_a_fingerprint_of_its_items_in_order() {
        let prints = [
            Fingerprint::of(&Options::default(), b"a"),
            of_batch(&[b"a"]).await,
            of_batch(&[b"a", b"b"]).await,
            of_batch(&[b"b", b"a"]).await,
            of_batch(&[b"ab"]).await,
            of_batch(&[b"a", b"b", b""]).await,
        ];
        let distinct: std::collections::HashSet<_> = prints.iter().collect();
        assert_eq!(distinct.len(), prints.len());
    }

    #[tokio::test]
    async fn taken_slowly_it_is_the_same() {
        let (options, payload) = (with("text/plain", Some("PUT"), None), vec![7; 3 * Pace::BYTES + 1]);
        let slowly = Fingerprint::of_slowly(&options, &payload, &mut Pace::default()).await;
        assert_eq!(slowly, Fingerprint::of(&options, &payload));
    }
}
