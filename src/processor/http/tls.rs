//! TLS as deliveries have it.
//!
//! It is set up by each thread for itself, so that a program needs to install nothing: with the provider that it has installed,
//! else with ring, and with the certificates that the machine trusts. Where those could not be read nothing is kept, for they may
//! be readable the next moment.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls_platform_verifier::Verifier;

use super::shortage;

/// TLS cannot be set up now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// For lack of descriptors or memory.
    #[error("no TLS for https: {0}")]
    Short(String),
    /// There are no certificates to judge those of receivers by.
    #[error("no TLS for https: {0}")]
    Roots(String),
    /// The provider has none of the protocols.
    #[error("no TLS for https: {0}")]
    Settings(String),
}

/// TLS 1.2 and 1.3 to receivers whose certificates the machine trusts, HTTP/1.1 inside.
pub(super) fn config() -> Result<ClientConfig, TlsError> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings(error.to_string()))?;
    let verifier = Arc::new(verifier(provider)?);
    // "Dangerous" is what takes any verifier; this one is the platform's.
    let mut tls = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Judges certificates by those that the machine trusts, which are read here, all of them.
fn verifier(provider: Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
    let enough = || shortage::now().map_or(Ok(()), |error| Err(TlsError::Short(error.to_string())));
    enough()?;
    let verifier = Verifier::new(provider);
    // It passes over files that it could not open, so it may have read some of them only.
    enough()?;
    verifier.map_err(|error| TlsError::Roots(error.to_string()))
}
