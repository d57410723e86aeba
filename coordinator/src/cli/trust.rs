//! Which server the command line believes: one whose key has the pin, or one that a certificate
//! authority vouches for.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, WantsVerifier,
};
use shared::hex::{Hex, Sha256, sha256};

/// Debian's and OpenWrt's bundle of authorities.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// SHA-256 of a public key (SubjectPublicKeyInfo), as `serve` prints it: `sha256//<base64>`, or 64
/// hex digits.
pub fn parse_pin(text: &str) -> Result<Sha256, String> {
    let base64 = text.strip_prefix("sha256//").and_then(|base64| STANDARD.decode(base64).ok());
    match base64.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(bytes) => Ok(Hex(bytes)),
        None => text.parse().map_err(|_| "expected sha256//<base64> or 64 hex digits".to_owned()),
    }
}

/// TLS towards a server whose key has this pin, whatever its certificate says besides.
pub fn pinned(pin: Sha256) -> anyhow::Result<ClientConfig> {
    let builder = builder()?;
    let verifier = Arc::new(Pinned { pin, provider: builder.crypto_provider().clone() });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// TLS towards a server that an authority in this PEM file, or in the system's, vouches for.
pub fn authorities(file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let path = file.unwrap_or(Path::new(SYSTEM));
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("cannot read certificate authorities from {}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("{} is broken", path.display()))?;
        // A bundle may hold authorities that rustls does not take; the rest still count.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        bail!("{} holds no certificate authority", path.display());
    }
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

fn builder() -> anyhow::Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

/// The agent has a verifier of its own, for several pins beside a chain and an uncertain clock. All
/// they could share is one comparison, and what both see, `shared`, knows no TLS.
#[derive(Debug)]
struct Pinned {
    pin: Sha256,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let broken = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(broken)?;
        if sha256(certificate.subject_public_key_info().as_ref()) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_pin_are_read() {
        let hex = "00".repeat(31) + "ff";
        let base64 = format!("sha256//{}", STANDARD.encode(parse_pin(&hex).unwrap().0));
        assert_eq!(parse_pin(&base64), parse_pin(&hex));
        for bad in ["", "sha256//", "sha256//AAAA", "ff", "sha1//AAAA"] {
            assert!(parse_pin(bad).is_err(), "{bad}");
        }
    }
}
