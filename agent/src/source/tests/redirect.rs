//! Redirects over real TLS: only for images, and the token stays with the coordinator.

use super::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// A server's and a client's side of one certificate for `localhost`.
fn tls() -> (TlsAcceptor, ClientConfig) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), client)
}

async fn serve(script: Script) -> (Server, Source) {
    let (acceptor, config) = tls();
    let server = Server::listen(Some(acceptor), script).await;
    let base = format!("https://localhost:{}/", server.address.port()).parse().unwrap();
    let token: TokenProvider = Box::new(|| Box::pin(async { Some("secret".to_owned()) }));
    let source = Source::new(client(config).unwrap(), base, token);
    (server, source)
}

fn redirect_to(location: &str) -> Vec<u8> {
    answer("302 Found", &format!("location: {location}\r\ncontent-length: 0\r\n"), b"")
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect() {
    let image = firmware(BLOCK + 5);
    let (router, served) = (router(&image), image.clone());
    let (server, source) = serve(Box::new(move |asked| match asked.path.as_str() {
        "/elsewhere" => part(&served, asked),
        _ => redirect_to("/elsewhere"),
    }))
    .await;
    let mut download = router.open().await;
    source.fetch(&id(), &mut download, |_| {}).await.unwrap();
    assert!(router.is_verified().await);
    let asked = server.asked.lock().unwrap();
    let carries: Vec<_> = asked.iter().map(|head| head.contains("authorization:")).collect();
    assert_eq!(carries, [true, false]);
    assert!(asked.iter().all(|head| head.contains("range: bytes=0-")));
}

#[tokio::test]
async fn redirects_that_lead_nowhere_end() {
    let router = router(&firmware(BLOCK));
    for location in ["/again", "http://localhost/plain"] {
        let (server, source) = serve(Box::new(move |_| redirect_to(location))).await;
        let error = source.fetch(&id(), &mut router.open().await, |_| {}).await.unwrap_err();
        assert!(matches!(error, SourceError::Redirect(_)), "{error}");
        assert!(server.asked.lock().unwrap().len() <= REDIRECTS + 1);
    }
}
