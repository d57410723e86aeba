use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use shared::hex::sha256;

use super::*;
use crate::settings::SpkiPin;

/// A root and a server certificate for "coordinator.test", valid in the given years.
struct Server {
    root_pem: String,
    config: Arc<ServerConfig>,
    pin: SpkiPin,
}

fn server(from: i32, until: i32) -> Server {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(root, root_key);

    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["coordinator.test".to_owned()]).unwrap();
    leaf.not_before = date_time_ymd(from, 1, 1);
    leaf.not_after = date_time_ymd(until, 1, 1);
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let pin = SpkiPin(sha256(&rcgen::PublicKeyData::subject_public_key_info(&key)).0);
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring_provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    Server { root_pem: root_certificate.pem(), config: Arc::new(config), pin }
}

fn trusting(server: &Server, root: bool, pins: &[SpkiPin]) -> Tls {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(server.root_pem.as_bytes()).unwrap();
    let ca_file = root.then(|| file.path().to_owned());
    Tls::new(&Trust { pins: pins.to_vec(), ca_file }, unset_clock()).unwrap()
}

/// A whole handshake in memory, as seen by the client.
fn handshake(tls: &Tls, server: &Server, name: &str) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(tls.config()), name).unwrap();
    let mut server = ServerConnection::new(server.config.clone()).unwrap();
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

/// Some day in the middle of it, unix milliseconds.
fn year(year: u64) -> u64 {
    ((year - 1970) * 31_557_600 + 86_400 * 180) * 1000
}

fn unset_clock() -> Arc<Clock> {
    Arc::new(Clock::new("/nonexistent/clock-set".into()))
}

const OTHER: SpkiPin = SpkiPin([7; 32]);

#[test]
fn a_chain_holds_for_its_name_only() {
    let server = server(2020, 2090);
    let tls = trusting(&server, true, &[]);
    assert!(handshake(&tls, &server, "coordinator.test").is_ok());
    assert!(handshake(&tls, &server, "other.test").is_err());
}

#[test]
fn another_root_is_refused() {
    let (ours, theirs) = (server(2020, 2090), server(2020, 2090));
    assert!(handshake(&trusting(&ours, true, &[]), &theirs, "coordinator.test").is_err());
}

#[test]
fn a_pin_needs_neither_name_nor_clock() {
    let expired = server(2001, 2002);
    let tls = trusting(&expired, false, &[OTHER, expired.pin]);
    assert!(handshake(&tls, &expired, "192.0.2.1").is_ok());
    assert!(handshake(&trusting(&expired, false, &[OTHER]), &expired, "192.0.2.1").is_err());
}

#[test]
fn with_both_both_have_to_hold() {
    let good = server(2020, 2090);
    let name = "coordinator.test";
    assert!(handshake(&trusting(&good, true, &[good.pin]), &good, name).is_ok());
    assert!(handshake(&trusting(&good, true, &[OTHER]), &good, name).is_err());
    let expired = server(2001, 2002);
    assert!(handshake(&trusting(&expired, true, &[expired.pin]), &expired, name).is_err());
}

#[test]
fn an_unset_clock_tolerates_not_before_until_the_time_is_proven() {
    let future = server(2060, 2070);
    let name = "coordinator.test";

    let tls = trusting(&future, true, &[]);
    assert!(handshake(&tls, &future, name).is_ok(), "the clock may be behind");
    assert!(tls.prove_time(year(2065)).is_ok());
    assert!(handshake(&tls, &future, name).is_ok());

    let tls = trusting(&future, true, &[]);
    assert!(handshake(&tls, &future, name).is_ok());
    assert!(tls.prove_time(year(2080)).is_err(), "the chain is judged again");

    let tls = trusting(&future, true, &[]);
    tls.prove_time(year(2030)).unwrap();
    assert!(handshake(&tls, &future, name).is_err(), "a proven time is not stretched");
}

#[test]
fn the_pin_is_the_one_that_curl_prints() {
    // openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary:
    // the digest is over the whole SubjectPublicKeyInfo, outer SEQUENCE included.
    let server = server(2020, 2090);
    let text =
        format!("sha256//{}", base64::engine::general_purpose::STANDARD.encode(server.pin.0));
    let toml = format!("[coordinator]\nurl = \"https://h\"\npins = [\"{text}\"]");
    let fragment = crate::settings::Fragment::from_toml(&toml, "t").unwrap();
    let settings = crate::settings::from_fragments([fragment]).unwrap();
    let tls = Tls::new(&settings.coordinator.trust, unset_clock()).unwrap();
    assert!(handshake(&tls, &server, "anything.test").is_ok());
}

#[test]
fn unusable_trust_is_said() {
    let missing = Trust { pins: Vec::new(), ca_file: Some("/nonexistent/ca.pem".into()) };
    assert!(matches!(Tls::new(&missing, unset_clock()), Err(TlsError::Unreadable { .. })));
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = Trust { pins: Vec::new(), ca_file: Some(file.path().to_owned()) };
    assert!(matches!(Tls::new(&empty, unset_clock()), Err(TlsError::NoRoots { .. })));
    let nothing = Trust { pins: Vec::new(), ca_file: None };
    assert!(matches!(Tls::new(&nothing, unset_clock()), Err(TlsError::NothingTrusted)));
}
