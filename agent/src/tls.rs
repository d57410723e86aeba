//! How the coordinator proves to be it: one rustls configuration for HTTPS and MQTT.
//!
//! [`Trust`] names roots, pins or both; what is named has to hold. A pin is the SHA-256 of the
//! server's SubjectPublicKeyInfo (the base64 form is curl's `--pinnedpubkey`): it needs neither a
//! name nor a clock, because only the owner of that very key can finish the handshake.
//!
//! A chain needs a clock, and OpenWrt has none until NTP answered: the time is then that of the
//! newest file. So the time checked against is never before the build, and a certificate that is
//! "not valid yet" is judged at its own notBefore. Once the coordinator has told the time over such
//! a connection, [`Tls::prove_time`] judges the same chain again, and from then on that time counts.

mod time;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CipherSuite, ClientConfig, RootCertStore};

use crate::clock::Clock;
use crate::settings::Trust;
use verifier::ServerVerifier;

/// Why no connection could be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("CA file {path} cannot be read")]
    Unreadable { path: String, source: rustls::pki_types::pem::Error },
    #[error("CA file {path} holds no usable certificate")]
    NoRoots { path: String },
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
    #[error("the chain cannot be verified")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    #[error("neither pins nor a CA file are given")]
    NothingTrusted,
}

/// The configuration of every connection to the coordinator.
#[derive(Debug, Clone)]
pub struct Tls {
    config: ClientConfig,
    verifier: Arc<ServerVerifier>,
}

impl Tls {
    pub fn new(trust: &Trust, clock: Arc<Clock>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let roots = trust.ca_file.as_deref().map(read_roots).transpose()?;
        let verifier = Arc::new(ServerVerifier::new(trust.pins.clone(), roots, &provider, clock)?);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        Ok(Self { config, verifier })
    }

    /// For one client; HTTPS and MQTT each set their own ALPN.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Takes over the time (unix milliseconds) of an authenticated answer, also for the clock.
    ///
    /// # Errors
    /// A chain that was accepted without a clock does not hold at that time: nothing learnt over
    /// it may be used.
    pub fn prove_time(&self, unix_ms: u64) -> Result<(), rustls::Error> {
        self.verifier.prove_time(unix_ms)
    }
}

/// ring's, with ChaCha20 before AES where the processor has no instructions for AES.
fn provider() -> CryptoProvider {
    let mut provider = ring_provider::default_provider();
    if !has_aes() {
        provider.cipher_suites.sort_by_key(|suite| !is_chacha(suite.suite()));
    }
    provider
}

fn is_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// A PEM file, or a directory of PEM files as openssl's `capath` is one.
fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let shown = || path.display().to_string();
    let mut roots = RootCertStore::empty();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
        for file in entries.filter(|file| file.is_file()) {
            // There may be other things, and links that lead nowhere.
            if let Err(error) = add_roots(&mut roots, &file) {
                log::debug!("{}: {error}", file.display());
            }
        }
    } else {
        add_roots(&mut roots, path)
            .map_err(|source| TlsError::Unreadable { path: shown(), source })?;
    }
    if roots.is_empty() { Err(TlsError::NoRoots { path: shown() }) } else { Ok(roots) }
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), rustls::pki_types::pem::Error> {
    for certificate in CertificateDer::pem_file_iter(path)? {
        // A bundle may hold a root that webpki does not know how to read; the others still count.
        if let Err(error) = roots.add(certificate?) {
            log::debug!("{}: a root is left out: {error}", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
