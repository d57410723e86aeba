//! An operator and devices that speak HTTPS with a coordinator, trusting exactly its certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, multipart};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use shared::hex::Hex;
use shared::identity::{
    Enrol, Enrolled, Nonce, TokenRequest, Tokens, enrol_message, token_message,
};
use shared::ids::{DeviceId, OperationId};
use shared::signature::SecretKey;

use crate::manifest::manifest;

pub const FIRMWARE: &[u8] = b"firmware of a modem, version 2";

/// TLS that trusts exactly the coordinator with this data directory.
pub fn tls(data: &Path) -> rustls::ClientConfig {
    let certificate = CertificateDer::from_pem_file(data.join("tls/certificate.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub fn client(data: &Path) -> Client {
    Client::builder().use_preconfigured_tls(tls(data)).no_proxy().build().unwrap()
}

#[derive(Clone)]
pub struct Operator {
    pub client: Client,
    pub address: SocketAddr,
    pub token: String,
}

impl Operator {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://{}/api/v1/modem-upgrader/{path}", self.address);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let response = self.request(Method::POST, path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{path}");
        response.json().await.unwrap()
    }

    /// Uploads [`FIRMWARE`] with a signed manifest; answers the image's id.
    pub async fn upload(&self) -> String {
        let category = self.post("category/", json!({ "name": "FN990A" })).await;
        let build = json!({ "category": category["id"], "version": "M0F.2" });
        let build = self.post("build/", build).await["id"].as_str().unwrap().to_owned();
        let manifest = serde_json::to_vec(&manifest(FIRMWARE)).unwrap();
        let signature = SecretKey::from_random([1; 32], [2; 8]).unwrap().sign(&manifest);
        let form = multipart::Form::new()
            .text("type", "telit-uxfp")
            .part("file", multipart::Part::bytes(FIRMWARE).file_name("fn990.bin"))
            .part("manifest", multipart::Part::bytes(manifest))
            .part("signature", multipart::Part::text(signature.to_text("a test's key")));
        let request = self.request(Method::POST, &format!("build/{build}/image/"));
        let response = request.multipart(form).send().await.unwrap();
        let status = response.status();
        let image: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{image}");
        image["id"].as_str().unwrap().to_owned()
    }

    /// Asks for the upgrade of a device's only modem.
    pub async fn upgrade(&self, device: DeviceId, image: &str) -> OperationId {
        let request = self.request(Method::PUT, &format!("device/{device}/modem-firmware/"));
        let response = request.json(&json!({ "image": image })).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        let answer: Value = response.json().await.unwrap();
        answer["upgrade_operation"]["id"].as_str().unwrap().parse().unwrap()
    }

    pub async fn operation(&self, id: OperationId) -> Value {
        self.get(&format!("upgrade-operation/{id}/")).await
    }

    pub async fn cancel(&self, id: OperationId) -> StatusCode {
        let request = self.request(Method::POST, &format!("upgrade-operation/{id}/cancel/"));
        request.send().await.unwrap().status()
    }
}

/// A device's key, and what it does with it.
pub struct Device {
    client: Client,
    address: SocketAddr,
    key: Ed25519KeyPair,
    pub api: String,
}

impl Device {
    pub fn new(client: &Client, address: SocketAddr, seed: u8) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { client: client.clone(), address, key, api: String::new() }
    }

    /// Enrolled and with access.
    pub async fn ready(
        client: &Client,
        address: SocketAddr,
        seed: u8,
        token: &str,
    ) -> (Self, DeviceId) {
        let mut device = Self::new(client, address, seed);
        let response = device.enrol(token, "{}").await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let enrolled: Enrolled = response.json().await.unwrap();
        let tokens: Tokens = device.token().await.json().await.unwrap();
        assert_eq!(tokens.device, enrolled.device);
        device.api = tokens.api.token;
        (device, enrolled.device)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://{}/api/v1/agent/{path}", self.address);
        let request = self.client.request(method, url);
        if self.api.is_empty() { request } else { request.bearer_auth(&self.api) }
    }

    pub async fn post(&self, path: &str, body: &impl serde::Serialize) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn nonce(&self) -> Nonce {
        self.post("nonce", &json!({})).await.json().await.unwrap()
    }

    fn public_key(&self) -> Hex<32> {
        Hex(self.key.public_key().as_ref().try_into().unwrap())
    }

    fn sign(&self, message: &[u8]) -> Hex<64> {
        Hex(self.key.sign(message).as_ref().try_into().unwrap())
    }

    pub fn proof(&self, nonce: &Nonce, token: &str, claims: &str) -> Enrol {
        let public_key = self.public_key();
        let message = enrol_message(&nonce.audience, &nonce.nonce, &public_key, token, claims);
        Enrol {
            nonce: nonce.nonce,
            public_key,
            token: token.into(),
            claims: claims.into(),
            signature: self.sign(&message),
        }
    }

    pub async fn enrol(&self, token: &str, claims: &str) -> Response {
        let nonce = self.nonce().await;
        self.post("enrol", &self.proof(&nonce, token, claims)).await
    }

    pub async fn token(&self) -> Response {
        let Nonce { nonce, audience, .. } = self.nonce().await;
        let public_key = self.public_key();
        let signature = self.sign(&token_message(&audience, &nonce, &public_key));
        self.post("token", &TokenRequest { nonce, public_key, signature }).await
    }
}

/// The `code` of an agent's error.
pub async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}
