//! Sealing the secrets of a queue for the store: AES-256-GCM with the gateway's master key.
//!
//! What is sealed is bound to the name of its queue: moved to another queue it does not open. A sealed text says which master key it
//! is of, by four bytes of a hash, so that the wrong key can be told from a damaged text.

use base64::Engine as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::queue::QueueName;
use crate::domain::secret::{BASE64, Kept, SealedText, SecretSet, SecretText, SigningSecret};
use crate::domain::timestamp::Timestamp;

/// Bytes of a master key.
const KEY_BYTES: usize = 32;
/// Bytes that name a master key in what it sealed.
const ID_BYTES: usize = 4;
/// What is hashed before a key to name it, and what stands before a queue's name in what a seal is bound to: its form, in other words.
const ID_OF: &[u8] = b"posthaste master key 1:";
const BOUND_TO: &str = "posthaste secrets of a queue 1:";

/// A master key.
pub(super) struct MasterKey {
    id: [u8; ID_BYTES],
    key: LessSafeKey,
}

/// Why what is sealed does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SealError {
    /// It was sealed with a key that is not there.
    #[error("its secret was sealed with a master key that this gateway does not have")]
    OtherKey,
    /// It is not what was sealed, or was sealed for another queue.
    #[error("its sealed secret in the store is damaged, or is another queue's")]
    Damaged,
}

/// One secret in what is sealed.
#[derive(Serialize, Deserialize)]
struct Resting {
    secret: Exposed,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

/// A secret's text as it is sealed: the one place where it is written out.
#[derive(Deserialize)]
#[serde(from = "SecretText")]
struct Exposed(SecretText);

impl From<SecretText> for Exposed {
    fn from(text: SecretText) -> Self {
        Self(text)
    }
}

impl Serialize for Exposed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl MasterKey {
    /// Reads a key: base64 of 32 bytes; blanks around it do not count.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim()).ok()?);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let mut id = [0; ID_BYTES];
        let hash = Sha256::new().chain_update(ID_OF).chain_update(&bytes[..]).finalize();
        id.copy_from_slice(&hash[..ID_BYTES]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        Some(Self { id, key })
    }

    /// Seals the secrets of a queue. `None` when the system gives no random bytes.
    pub(super) fn seal(&self, queue: &QueueName, set: &SecretSet) -> Option<SealedText> {
        let resting: Vec<Resting> = set
            .all()
            .iter()
            .map(|kept| Resting {
                secret: Exposed(kept.secret.text()),
                until_ms: kept.until.map(Timestamp::as_millis),
            })
            .collect();
        let plain = Zeroizing::new(serde_json::to_vec(&resting).ok()?);
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(ID_BYTES + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        let begin = sealed.len();
        sealed.extend_from_slice(&plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, bound_to(queue), &mut sealed[begin..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(SealedText::new(&BASE64.encode(sealed)))
    }

    fn open(&self, queue: &QueueName, nonce: &[u8], body: &[u8]) -> Option<SecretSet> {
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, bound_to(queue), &mut body).ok()?;
        let resting: Vec<Resting> = serde_json::from_slice(plain).ok()?;
        let kept = resting.into_iter().map(|Resting { secret, until_ms }| {
            let secret = SigningSecret::parse(secret.0.expose()).ok()?;
            Some(Kept { secret, until: until_ms.map(Timestamp::from_millis) })
        });
        kept.collect::<Option<Vec<_>>>().filter(|kept| !kept.is_empty()).map(SecretSet::of)
    }
}

/// Opens what one of these keys sealed for that queue.
pub(super) fn open(
    keys: &[MasterKey],
    queue: &QueueName,
    sealed: &SealedText,
) -> Result<SecretSet, SealError> {
    let bytes = BASE64.decode(sealed.sealed()).map_err(|_| SealError::Damaged)?;
    let (id, rest) = bytes.split_at_checked(ID_BYTES).ok_or(SealError::Damaged)?;
    let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
    let key = keys.iter().find(|key| key.id == *id).ok_or(SealError::OtherKey)?;
    key.open(queue, nonce, body).ok_or(SealError::Damaged)
}

fn bound_to(queue: &QueueName) -> Aad<Vec<u8>> {
    Aad::from([BOUND_TO.as_bytes(), queue.as_str().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKind;

    fn key(number: u8) -> MasterKey {
        MasterKey::parse(&BASE64.encode([number; 32])).expect("a key")
    }

    fn set() -> SecretSet {
        let secret = |kind, number| SigningSecret::from_random(kind, &[number; 32]);
        SecretSet::of(vec![
            Kept { secret: secret(SecretKind::Ed25519, 1), until: None },
            Kept { secret: secret(SecretKind::Hmac, 2), until: Some(Timestamp::from_millis(7)) },
        ])
    }

    fn name(text: &str) -> QueueName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_key_is_32_bytes_of_base64() {
        assert!(MasterKey::parse(&format!(" {}\n", BASE64.encode([7; 32]))).is_some());
        for text in ["", "AAAA", "no base64", &BASE64.encode([7; 31]), &BASE64.encode([7; 33])] {
            assert!(MasterKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_was_sealed_opens_for_its_queue_alone_and_with_its_key_alone() {
        let sealed = key(1).seal(&name("orders"), &set()).expect("sealed");
        assert_ne!(Some(&sealed), key(1).seal(&name("orders"), &set()).as_ref(), "each seal is another");
        assert_eq!(open(&[key(2), key(1)], &name("orders"), &sealed), Ok(set()));
        assert_eq!(open(&[key(1)], &name("mail"), &sealed), Err(SealError::Damaged));
        assert_eq!(open(&[key(2)], &name("orders"), &sealed), Err(SealError::OtherKey));
        assert_eq!(open(&[], &name("orders"), &sealed), Err(SealError::OtherKey));
    }

    #[test]
    fn any_bit_that_changed_is_noticed() {
        let sealed = key(1).seal(&name("orders"), &set()).expect("sealed");
        let bytes = BASE64.decode(sealed.sealed()).expect("base64");
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = SealedText::new(&BASE64.encode(changed));
            assert!(open(&[key(1)], &name("orders"), &changed).is_err(), "byte {place}");
        }
        for length in 0..bytes.len() {
            let cut = SealedText::new(&BASE64.encode(&bytes[..length]));
            assert!(open(&[key(1)], &name("orders"), &cut).is_err(), "{length} bytes");
        }
    }
}
