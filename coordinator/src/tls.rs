//! The coordinator's TLS identity: a certificate that the operator gave, or one of our own made at
//! the first start, and the pin that agents check it by.
//!
//! A pin is the SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4), so it
//! survives a renewal with the same key. It is printed as `sha256//<base64>`, the form that curl's
//! `--pinnedpubkey` takes.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::secret_file;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// PEM files of the operator: the chain, leaf first, and its key.
    Given { certificate: PathBuf, key: PathBuf },
    /// Made at the first start as `tls/certificate.pem` and `tls/key.pem` under `folder`, for these
    /// names (DNS names or IP addresses).
    Own { folder: PathBuf, names: Vec<String> },
}

/// Why there is no TLS identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read or write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} holds no usable PEM")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    #[error("the certificate cannot be made")]
    Making(#[from] rcgen::Error),
    #[error("the certificate cannot be parsed: {0}")]
    Parsing(String),
    #[error("certificate and key do not make a server")]
    Server(#[from] rustls::Error),
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// 64 lowercase hexadecimal digits, the form of the agent's settings.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", STANDARD.encode(self.0))
    }
}

/// The certificate chain, its key and its pin.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Pin,
}

impl Identity {
    /// Reads the identity, or makes it where `source` says so and there is none yet.
    ///
    /// # Errors
    /// Files that cannot be read or written, PEM that does not parse.
    pub fn load(source: &Source) -> Result<Self, Error> {
        let (certificate, key) = match source {
            Source::Given { certificate, key } => (certificate.clone(), key.clone()),
            Source::Own { folder, names } => own(folder, names)?,
        };
        let chain = chain(&certificate)?;
        let leaf = chain.first().ok_or(Error::NoCertificate { path: certificate })?;
        let pin = pin(leaf)?;
        let key_text = read(&key)?;
        let key = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|source| Error::Pem { path: key, source })?;
        Ok(Identity { chain, key, pin })
    }

    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// The leaf certificate, for clients that are to trust exactly it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// For HTTPS: HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// The key does not belong to the certificate, or is of a kind ring does not know.
    pub fn https(&self) -> Result<Arc<ServerConfig>, Error> {
        let mut config = self.server()?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// For MQTT: no ALPN, small records, stateless resumption for the storm after a restart.
    ///
    /// # Errors
    /// As [`Identity::https`].
    pub fn mqtt(&self) -> Result<Arc<ServerConfig>, Error> {
        let mut config = self.server()?;
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    fn server(&self) -> Result<ServerConfig, Error> {
        let has_aes = cpu_has_aes();
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider(has_aes)))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        // A client without AES puts ChaCha20 first; only our own lack of AES outweighs its wish.
        config.ignore_client_order = !has_aes;
        Ok(config)
    }
}

/// ring's suites, ChaCha20 first where AES would be computed in software.
fn provider(has_aes: bool) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if !has_aes {
        provider
            .cipher_suites
            .sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    }
    provider
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}

fn own(folder: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), Error> {
    let certificate = folder.join("tls/certificate.pem");
    let key = folder.join("tls/key.pem");
    let key_text = secret_file::read_or_make(&key, file(&key), || {
        Ok(rcgen::KeyPair::generate()?.serialize_pem().into_bytes())
    })?;
    secret_file::read_or_make(&certificate, file(&certificate), || {
        let pair = rcgen::KeyPair::from_pem(&String::from_utf8_lossy(&key_text))?;
        Ok(parameters(names)?.self_signed(&pair)?.pem().into_bytes())
    })?;
    Ok((certificate, key))
}

/// Agents check the pin, so the certificate outlives every router: a renewal nobody asked for
/// would only cut the fleet off.
fn parameters(names: &[String]) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let mut parameters = rcgen::CertificateParams::new(names.to_vec())?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "modem-upgrader");
    parameters.not_before = rcgen::date_time_ymd(2024, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2064, 1, 1);
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn file(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    secret_file::read(path).map_err(file(path))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem { path: path.to_owned(), source })
}

fn pin(leaf: &CertificateDer<'_>) -> Result<Pin, Error> {
    let parsed =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| Error::Parsing(error.to_string()))?;
    Ok(Pin(Sha256::digest(parsed.subject_public_key_info().as_ref()).into()))
}

/// Names an own certificate carries when the configuration gives none.
#[must_use]
pub fn default_names(address: IpAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let address_name = address.to_string();
    if !address.is_unspecified() && !names.contains(&address_name) {
        names.push(address_name);
    }
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names() -> Vec<String> {
        default_names(IpAddr::from([127, 0, 0, 1]))
    }

    fn own_in(folder: &Path) -> Identity {
        Identity::load(&Source::Own { folder: folder.to_owned(), names: names() }).unwrap()
    }

    #[test]
    fn an_own_certificate_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = own_in(folder.path()).pin();
        assert_eq!(own_in(folder.path()).pin(), first);
        let mode = std::fs::metadata(folder.path().join("tls/key.pem")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_ne!(own_in(tempfile::tempdir().unwrap().path()).pin(), first);
    }

    #[test]
    fn the_pin_survives_a_new_certificate_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let before = own_in(folder.path());
        std::fs::remove_file(folder.path().join("tls/certificate.pem")).unwrap();
        let after = own_in(folder.path());
        assert_eq!(before.pin(), after.pin());
    }

    #[test]
    fn the_pin_is_the_hash_of_the_public_key_info() {
        let folder = tempfile::tempdir().unwrap();
        let identity = own_in(folder.path());
        let key = std::fs::read_to_string(folder.path().join("tls/key.pem")).unwrap();
        let pair = rcgen::KeyPair::from_pem(&key).unwrap();
        let hash = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&pair));
        assert_eq!(identity.pin().to_string(), format!("sha256//{}", STANDARD.encode(hash)));
        assert_eq!(identity.pin().hex().len(), 64);
    }

    #[test]
    fn given_files_are_used_and_their_absence_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let own = own_in(folder.path());
        let given = Source::Given {
            certificate: folder.path().join("tls/certificate.pem"),
            key: folder.path().join("tls/key.pem"),
        };
        assert_eq!(Identity::load(&given).unwrap().pin(), own.pin());
        let absent = Source::Given {
            certificate: folder.path().join("absent.pem"),
            key: folder.path().join("tls/key.pem"),
        };
        let error = Identity::load(&absent).err().unwrap();
        assert!(error.to_string().ends_with("absent.pem"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        own_in(one.path());
        own_in(other.path());
        let mixed = Source::Given {
            certificate: one.path().join("tls/certificate.pem"),
            key: other.path().join("tls/key.pem"),
        };
        assert!(matches!(Identity::load(&mixed).unwrap().https(), Err(Error::Server(_))));
    }

    #[test]
    fn chacha_comes_first_only_without_aes() {
        let first = |has_aes| format!("{:?}", provider(has_aes).cipher_suites[0].suite());
        assert!(first(false).contains("CHACHA20"), "{}", first(false));
        assert!(first(true).contains("AES"), "{}", first(true));
    }
}
