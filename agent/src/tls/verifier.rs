//! Judges a server's certificate by pins, by chain, or by both.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use shared::hex::sha256;

use super::TlsError;
use super::time::{at, judge_at};
use crate::clock::Clock;
use crate::settings::SpkiPin;

/// Certificates of a chain that may each push the time on to their own notBefore.
const MAX_CHAIN: usize = 6;

#[derive(Debug)]
pub(super) struct ServerVerifier {
    pins: Vec<SpkiPin>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
    clock: Arc<Clock>,
    /// Accepted while the time was uncertain.
    unproven: Mutex<Option<Presented>>,
}

/// What a server showed.
#[derive(Debug, Clone)]
struct Presented {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl ServerVerifier {
    pub(super) fn new(
        pins: Vec<SpkiPin>,
        roots: Option<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        clock: Arc<Clock>,
    ) -> Result<Self, TlsError> {
        if pins.is_empty() && roots.is_none() {
            return Err(TlsError::NothingTrusted);
        }
        let chain = roots
            .map(|roots| {
                let provider = provider.clone();
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
            })
            .transpose()?;
        Ok(Self {
            pins,
            chain,
            algorithms: provider.signature_verification_algorithms,
            clock,
            unproven: Mutex::new(None),
        })
    }

    pub(super) fn prove_time(&self, unix_ms: u64) -> Result<(), Error> {
        let unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(chain), Some(shown)) = (&self.chain, unproven) {
            shown.verify(chain, at(unix_ms / 1000))?;
        }
        self.clock.prove(unix_ms);
        Ok(())
    }

    fn check_pin(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let digest = sha256(&certificate.subject_public_key_info()).0;
        if self.pins.iter().any(|pin| pin.0 == digest) {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn check_chain(&self, chain: &WebPkiServerVerifier, shown: Presented) -> Result<(), Error> {
        let (mut time, certain) = judge_at(&self.clock);
        for _ in 0..MAX_CHAIN {
            match shown.verify(chain, time) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) if !certain && not_before.as_secs() > time.as_secs() => {
                    time = at(not_before.as_secs());
                }
                Ok(()) if !certain => {
                    *self.unproven.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
                    return Ok(());
                }
                verdict => return verdict,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }
}

impl Presented {
    fn verify(&self, chain: &WebPkiServerVerifier, time: UnixTime) -> Result<(), Error> {
        chain
            .verify_server_cert(&self.end_entity, &self.intermediates, &self.name, &[], time)
            .map(|_| ())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pins.is_empty() {
            self.check_pin(end_entity)?;
        }
        if let Some(chain) = &self.chain {
            let shown = Presented {
                end_entity: end_entity.clone().into_owned(),
                intermediates: intermediates.iter().map(|c| c.clone().into_owned()).collect(),
                name: server_name.to_owned(),
            };
            self.check_chain(chain, shown)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
