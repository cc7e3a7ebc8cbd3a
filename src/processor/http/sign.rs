//! Signing a delivery as Standard Webhooks has it: `webhook-signature` over `id.timestamp.payload`, the payload byte for byte as it
//! was posted. `v1` is HMAC-SHA256, `v1a` ed25519; where several secrets hold there is a signature of each, the newest first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::domain::secret::{SEED_BYTES, SecretKind, SecretSet, SigningSecret, public_key};
use crate::domain::timestamp::Timestamp;

/// Characters of the longest signature, its version and the blank before it: 64 bytes of ed25519 in base64.
const SIGNATURE_LENGTH_MAX: usize = 5 + 88;

/// What signs the deliveries of a queue: the keys with what is the same for each message computed once.
pub struct Signer(Vec<Key>);

struct Key {
    algorithm: Algorithm,
    until: Option<Timestamp>,
}

enum Algorithm {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

/// A private key whose public key is another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no secret (not shown): the public key behind the seed of a whsk_ is not the seed's")]
pub(in crate::processor) struct KeyError;

impl Signer {
    /// Makes the keys.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub(in crate::processor) fn new(set: &SecretSet) -> Result<Self, KeyError> {
        let keys = set.all().iter().map(|kept| {
            let algorithm = match kept.secret.kind() {
                SecretKind::Hmac => Algorithm::Hmac(hmac::Key::new(hmac::HMAC_SHA256, kept.secret.bytes())),
                SecretKind::Ed25519 => Algorithm::Ed25519(Box::new(pair(&kept.secret)?)),
            };
            Ok(Key { algorithm, until: kept.until })
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The value of `webhook-signature` for an attempt that begins `at`; `id` and `timestamp` are as their headers have them.
    #[must_use]
    pub fn header(&self, at: Timestamp, id: &[u8], timestamp: &[u8], payload: &[u8]) -> HeaderValue {
        let mut value = String::with_capacity(self.0.len() * SIGNATURE_LENGTH_MAX);
        let parts = [id, b".", timestamp, b".", payload];
        for key in self.0.iter().filter(|key| key.until.is_none_or(|until| at < until)) {
            if !value.is_empty() {
                value.push(' ');
            }
            match &key.algorithm {
                Algorithm::Hmac(key) => {
                    let mut context = hmac::Context::with_key(key);
                    for part in parts {
                        context.update(part);
                    }
                    value.push_str("v1,");
                    STANDARD.encode_string(context.sign(), &mut value);
                }
                Algorithm::Ed25519(pair) => {
                    value.push_str("v1a,");
                    STANDARD.encode_string(pair.sign(&parts.concat()), &mut value);
                }
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(value)).expect("base64 and blanks are allowed in a header")
    }
}

fn pair(secret: &SigningSecret) -> Result<Ed25519KeyPair, KeyError> {
    let pair = match secret.bytes().split_at_checked(SEED_BYTES) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
        Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        None => return Err(KeyError),
    };
    pair.map_err(|_| KeyError)
}

/// The public key of an ed25519 secret as its receiver is given it; `None` for one that has none.
#[must_use]
pub(in crate::processor) fn public_key_of(secret: &SigningSecret) -> Option<String> {
    (secret.kind() == SecretKind::Ed25519)
        .then(|| pair(secret).ok())?
        .map(|pair| public_key(pair.public_key().as_ref()))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::domain::secret::Kept;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &[u8] = b"msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: &[u8] = b"1614265330";
    const PAYLOAD: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn read(text: &str) -> SigningSecret {
        SigningSecret::parse(text).expect("a secret")
    }

    fn header(set: &SecretSet, at_ms: u64) -> String {
        let signer = Signer::new(set).expect("keys");
        let value = signer.header(Timestamp::from_millis(at_ms), ID, AT, PAYLOAD);
        value.to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn the_published_example_is_signed_as_published() {
        assert_eq!(header(&SecretSet::lasting(vec![read(SECRET)]), 0), SIGNATURE);
    }

    #[test]
    fn during_a_rotation_each_secret_signs_and_after_it_only_the_new_one() {
        let new = read(&format!("whsec_{}", STANDARD.encode([7; 32])));
        let set = || {
            SecretSet::of(vec![
                Kept { secret: new.clone(), until: None },
                Kept { secret: read(SECRET), until: Some(Timestamp::from_millis(10)) },
            ])
        };
        let both = header(&set(), 9);
        let (first, second) = both.split_once(' ').expect("two");
        assert_eq!(second, SIGNATURE);
        assert!(first.starts_with("v1,") && first != SIGNATURE);
        assert_eq!(header(&set(), 10), first);
    }

    #[test]
    fn ed25519_signs_as_v1a_what_its_public_key_verifies() {
        // RFC 8032, 7.1, test 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let secret = SigningSecret::from_random(SecretKind::Ed25519, &seed);
        let public = public_key_of(&secret).expect("it has one");
        assert_eq!(public, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let value = header(&SecretSet::lasting(vec![secret]), 0);
        let signature = STANDARD.decode(value.strip_prefix("v1a,").expect("its version")).expect("base64");
        let public = STANDARD.decode(&public[5..]).expect("base64");
        let signed = [ID, b".", AT, b".", PAYLOAD].concat();
        UnparsedPublicKey::new(&ED25519, &public).verify(&signed, &signature).expect("it is verified");
        // With the public key behind the seed it is the same; with another's it is none.
        let with = |public: &[u8]| read(&format!("whsk_{}", STANDARD.encode([&seed[..], public].concat())));
        assert_eq!(header(&SecretSet::lasting(vec![with(&public)]), 0), value);
        assert_eq!(Signer::new(&SecretSet::lasting(vec![with(&[7; 32])])).err(), Some(KeyError));
        assert_eq!(public_key_of(&read(SECRET)), None);
    }
}
