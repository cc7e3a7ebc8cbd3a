//! The secrets that deliveries are signed with: how they are written, and which of them hold while one follows another.
//!
//! Written as Standard Webhooks has it: `whsec_` and base64 for HMAC-SHA256, `whsk_` and base64 for ed25519. None of these types
//! shows a secret by `Debug`, none has a `Display`, and their memory is wiped when they are dropped.

mod set;

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::domain::format::secret::MASK;

pub use set::{Kept, SecretSet};

/// Secrets that sign one delivery at most: each is a signature in one header.
pub const SECRETS_MAX: usize = 4;

/// The prefix of a secret of HMAC-SHA256, and the least and most bytes that it has.
const HMAC_PREFIX: &str = "whsec_";
const HMAC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The prefix of a private key of ed25519, and of a public one.
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
/// Bytes of the seed of a private key of ed25519; its public key may follow.
pub const SEED_BYTES: usize = 32;
/// What a secret begins with that was sealed.
const SEALED_PREFIX: &str = "sealed:";

/// Base64 as people copy it: with its padding or without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Box<str>);

impl SecretText {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for SecretText {
    fn from(mut text: String) -> Self {
        let exact = Self(text.as_str().into());
        text.zeroize();
        exact
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretText {}

impl fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

/// As `***`.
impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// What a secret signs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretKind {
    /// HMAC-SHA256: `v1`. The receiver has the same secret.
    Hmac,
    /// Ed25519: `v1a`. The receiver has the public key.
    Ed25519,
}

/// A secret, read.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret {
    kind: SecretKind,
    bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

/// A text that is no secret; never shows it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither of the two prefixes.
    #[error(
        "is no secret (not shown): it begins with whsec_ (HMAC-SHA256) or whsk_ (ed25519), and base64 follows"
    )]
    Prefix,
    /// What follows the prefix is no base64.
    #[error("is no secret (not shown): what follows {0} is no base64")]
    Base64(&'static str),
    /// Too short or too long.
    #[error("is no secret (not shown): whsec_ is followed by the base64 of 24 to 64 bytes, not of {0}")]
    HmacLength(usize),
    /// Neither a seed nor a seed with its public key.
    #[error(
        "is no secret (not shown): whsk_ is followed by the base64 of 32 bytes, or of 64 with the public key, not of {0}"
    )]
    Ed25519Length(usize),
    /// None, or too many at once.
    #[error("has {0} secrets: 1 to {SECRETS_MAX} are possible, separated by blanks, the newest first")]
    Count(usize),
}

impl SigningSecret {
    /// Reads one secret.
    ///
    /// # Errors
    /// What is wrong with it, without showing it. Whether a public key behind a seed is the seed's is for who signs to find out.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let (kind, prefix, rest) = if let Some(rest) = text.strip_prefix(HMAC_PREFIX) {
            (SecretKind::Hmac, HMAC_PREFIX, rest)
        } else if let Some(rest) = text.strip_prefix(PRIVATE_PREFIX) {
            (SecretKind::Ed25519, PRIVATE_PREFIX, rest)
        } else {
            return Err(SecretError::Prefix);
        };
        let bytes = BASE64.decode(rest).map_err(|_| SecretError::Base64(prefix))?;
        let secret = Self { kind, bytes: bytes.into() };
        match kind {
            SecretKind::Hmac if !HMAC_BYTES.contains(&secret.bytes.len()) => {
                Err(SecretError::HmacLength(secret.bytes.len()))
            }
            SecretKind::Ed25519 if ![SEED_BYTES, 2 * SEED_BYTES].contains(&secret.bytes.len()) => {
                Err(SecretError::Ed25519Length(secret.bytes.len()))
            }
            _ => Ok(secret),
        }
    }

    /// Reads 1 to [`SECRETS_MAX`] secrets separated by blanks or lines; the newest comes first.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong, or with their number.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, SecretError> {
        let count = text.split_whitespace().count();
        if !(1..=SECRETS_MAX).contains(&count) {
            return Err(SecretError::Count(count));
        }
        text.split_whitespace().map(Self::parse).collect()
    }

    /// A secret of these random bytes: [`SEED_BYTES`] of them.
    #[must_use]
    pub fn from_random(kind: SecretKind, bytes: &[u8; SEED_BYTES]) -> Self {
        Self { kind, bytes: bytes.to_vec().into() }
    }

    /// What it signs with.
    #[must_use]
    pub const fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The key: for HMAC all of it, for ed25519 the seed and perhaps its public key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> SecretText {
        let prefix = match self.kind {
            SecretKind::Hmac => HMAC_PREFIX,
            SecretKind::Ed25519 => PRIVATE_PREFIX,
        };
        let mut text = String::with_capacity(prefix.len() + self.bytes.len().div_ceil(3) * 4);
        text.push_str(prefix);
        BASE64.encode_string(&self.bytes[..], &mut text);
        text.into()
    }
}

/// A public key of ed25519 as receivers are given it: `whpk_…`.
#[must_use]
pub fn public_key(bytes: &[u8]) -> String {
    format!("{PUBLIC_PREFIX}{}", BASE64.encode(bytes))
}

/// A queue's `secret` among its settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretSetting {
    /// As a configuration file or a program gives it: one or several secrets. It never goes to a store.
    Given(SecretText),
    /// In the store: the secret is in the configuration of the gateways that declare the queue.
    Declared,
    /// In the store: sealed with the gateway's master key.
    Sealed(SealedText),
}

/// A sealed secret; not shown either, for nobody needs to see it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedText(Box<str>);

impl SealedText {
    /// What was sealed, as text behind a prefix.
    #[must_use]
    pub fn new(sealed: &str) -> Self {
        Self(format!("{SEALED_PREFIX}{sealed}").into())
    }

    /// What [`SealedText::new`] was given.
    #[must_use]
    pub fn sealed(&self) -> &str {
        self.0.strip_prefix(SEALED_PREFIX).unwrap_or_default()
    }
}

impl fmt::Debug for SealedText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

/// As it may rest in a store: `***` where the secret itself may not.
impl Serialize for SecretSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Given(_) | Self::Declared => MASK,
            Self::Sealed(sealed) => &sealed.0,
        })
    }
}

/// Any text can be read; whether it is a secret is for [`SigningSecret::parse_all`] to say, which does not show it.
impl<'de> Deserialize<'de> for SecretSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(if text == MASK {
            Self::Declared
        } else if text.starts_with(SEALED_PREFIX) {
            Self::Sealed(SealedText(text.into()))
        } else {
            Self::Given(text.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> SecretError {
        SigningSecret::parse(text).expect_err("must be refused")
    }

    #[test]
    fn secrets_of_both_kinds_are_read_and_written_again() {
        for (bytes, kind, prefix) in [
            (24, SecretKind::Hmac, "whsec_"),
            (32, SecretKind::Hmac, "whsec_"),
            (64, SecretKind::Hmac, "whsec_"),
            (32, SecretKind::Ed25519, "whsk_"),
            (64, SecretKind::Ed25519, "whsk_"),
        ] {
            let text = format!("{prefix}{}", BASE64.encode(vec![7; bytes]));
            let secret = SigningSecret::parse(&text).expect("a secret");
            assert_eq!(
                (secret.kind(), secret.bytes(), secret.text().expose()),
                (kind, &vec![7; bytes][..], &*text)
            );
            assert_eq!(
                SigningSecret::parse(text.trim_end_matches('=')),
                Ok(secret),
                "padding may be left out"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        assert_eq!(refusal("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SecretError::Prefix);
        assert_eq!(refusal("whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SecretError::Prefix);
        assert_eq!(refusal("whsec_s3cret!"), SecretError::Base64("whsec_"));
        let of = |prefix: &str, bytes: usize| format!("{prefix}{}", BASE64.encode(vec![7; bytes]));
        assert_eq!(refusal(&of("whsec_", 23)), SecretError::HmacLength(23));
        assert_eq!(refusal(&of("whsec_", 65)), SecretError::HmacLength(65));
        assert_eq!(refusal(&of("whsk_", 33)), SecretError::Ed25519Length(33));
        let shown = refusal("whsec_s3cret!").to_string();
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(SigningSecret::parse_all(" \n"), Err(SecretError::Count(0)));
        let one = of("whsec_", 24);
        let several = |count: usize| SigningSecret::parse_all(&vec![&*one; count].join("\n"));
        assert_eq!(several(4).map(|all| all.len()), Ok(4));
        assert_eq!(several(5), Err(SecretError::Count(5)));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let text = format!("whsec_{}", BASE64.encode([7; 24]));
        let secret = SigningSecret::parse(&text).expect("a secret");
        let given: SecretSetting = serde_json::from_str(&format!("{text:?}")).expect("a text");
        let shown = format!(
            "{secret:?} {:?} {given:?} {}",
            secret.text(),
            serde_json::to_string(&given).expect("JSON")
        );
        assert_eq!(shown, "*** *** Given(***) \"***\"");
    }

    #[test]
    fn a_setting_comes_back_from_the_store_as_it_went() {
        for setting in [SecretSetting::Declared, SecretSetting::Sealed(SealedText::new("AAAA"))] {
            let text = serde_json::to_string(&setting).expect("JSON");
            assert_eq!(serde_json::from_str::<SecretSetting>(&text).expect("read"), setting, "{text}");
        }
    }
}
