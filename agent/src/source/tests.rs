//! Against a server that speaks HTTP by hand, so that it can lie.

use super::*;
use crate::staging::{Staged, Staging};
use crate::testing::{firmware, manifest_of};
use crate::verify::{SignaturePolicy, VerifiedImage, VerifiedManifest};
use shared::failure::FailureKind;
use shared::hex::sha256;
use shared::signature::Keyring;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

mod redirect;

const BLOCK: usize = 1024 * 1024;

type Script = Box<dyn FnMut(&Asked) -> Vec<u8> + Send>;

/// A request as it came.
struct Asked {
    path: String,
    head: String,
    range: Option<(usize, usize)>,
}

/// A server that answers every request with exactly the bytes of its script and hangs up.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: Script) -> Self {
        Self::listen(None, script).await
    }

    async fn listen(tls: Option<TlsAcceptor>, mut script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The client may hang up at any time.
                let _ = match &tls {
                    None => serve_one(stream, &log, &mut script).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve_one(stream, &log, &mut script).await,
                        Err(_) => None,
                    },
                };
            }
        });
        Self { address, asked }
    }

    fn source(&self) -> Source {
        // Somebody else may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let base = format!("http://{}/", self.address).parse().unwrap();
        Source::new(client, base, Box::new(|| Box::pin(async { Some("secret".to_owned()) })))
    }

    fn ranges(&self) -> Vec<String> {
        let range = |head: &String| {
            head.lines().find_map(|l| l.strip_prefix("range: bytes=").map(str::to_owned))
        };
        self.asked.lock().unwrap().iter().filter_map(range).collect()
    }
}

async fn serve_one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<String>>,
    script: &mut Script,
) -> Option<()> {
    let request = read_request(&mut stream).await?;
    log.lock().unwrap().push(request.head.clone());
    stream.write_all(&script(&request)).await.ok()?;
    stream.shutdown().await.ok()
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let path = head.split(' ').nth(1)?.to_owned();
    let range = head.lines().find_map(|line| {
        let (first, last) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Some(Asked { path, head, range })
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// An honest 206.
fn part(image: &[u8], asked: &Asked) -> Vec<u8> {
    let (first, last) = asked.range.unwrap();
    let body = &image[first..=last];
    let length = body.len();
    let headers = format!(
        "content-range: bytes {first}-{last}/{}\r\ncontent-length: {length}\r\n",
        image.len()
    );
    answer("206 Partial Content", &headers, body)
}

struct Router {
    _directory: tempfile::TempDir,
    staged: Staged,
    manifest: VerifiedManifest,
}

fn router(image: &[u8]) -> Router {
    let bytes = serde_json::to_vec(&manifest_of(image)).unwrap();
    let digest = sha256(&bytes);
    let policy = SignaturePolicy::Optional;
    let manifest =
        VerifiedManifest::verify(&bytes, None, &digest, &Keyring::default(), policy).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let staging = Staging::new(vec![directory.path().to_owned()], 0, vec![]);
    let staged = staging.stage(&digest, image.len() as u64, 0, false).unwrap();
    Router { _directory: directory, staged, manifest }
}

impl Router {
    async fn open(&self) -> Download {
        Download::open(&self.staged, &self.manifest).await.unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.staged.image_path(&self.manifest.manifest().file.name)
    }

    async fn is_verified(&self) -> bool {
        VerifiedImage::open(&self.path(), &self.manifest, |_| {}).await.is_ok()
    }
}

fn id() -> ImageId {
    ImageId::from(Uuid::from_u128(7))
}

#[tokio::test]
async fn one_request_brings_the_whole_image() {
    let image = firmware(3 * BLOCK + 500);
    let (router, served) = (router(&image), image.clone());
    let server = Server::start(Box::new(move |asked| part(&served, asked))).await;
    let (mut download, mut heard) = (router.open().await, Vec::new());
    assert!(!download.is_complete());
    server.source().fetch(&id(), &mut download, |transfer| heard.push(transfer)).await.unwrap();
    assert!(download.is_complete() && router.is_verified().await);
    assert_eq!(server.ranges(), [format!("0-{}", image.len() - 1)]);
    let last = heard.last().unwrap();
    assert_eq!(
        (last.verified, last.received, last.total),
        (last.total, last.total, image.len() as u64)
    );
    assert!(heard.windows(2).all(|pair| pair[0].verified <= pair[1].verified));
    assert!(server.asked.lock().unwrap()[0].contains("authorization: bearer secret"));
    assert!(
        server.asked.lock().unwrap()[0].contains(&format!("/api/v1/agent/images/{}/file", id()))
    );
}

#[tokio::test]
async fn an_interruption_costs_less_than_a_block() {
    let image = firmware(5 * BLOCK);
    let (router, served) = (router(&image), image.clone());
    let mut cuts = vec![BLOCK / 2, BLOCK + 77, 2 * BLOCK - 1].into_iter();
    let server = Server::start(Box::new(move |asked| {
        let whole = part(&served, asked);
        let head = whole.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        match cuts.next() {
            Some(cut) => whole[..head + cut].to_vec(),
            None => whole,
        }
    }))
    .await;
    let mut download = router.open().await;
    let source = server.source();
    let mut interruptions = 0;
    while let Err(error) = source.fetch(&id(), &mut download, |_| {}).await {
        assert_eq!(error.kind(), None, "{error}");
        interruptions += 1;
    }
    assert_eq!(interruptions, 3);
    assert!(router.is_verified().await);
    let again = download.transfer().received - image.len() as u64;
    assert!(again <= 3 * BLOCK as u64, "{again} bytes again");
    let ends = image.len() - 1;
    let firsts = [0, 0, BLOCK, 2 * BLOCK].map(|first| format!("{first}-{ends}"));
    assert_eq!(server.ranges(), firsts);
}

#[tokio::test]
async fn a_fresh_process_fetches_only_what_is_missing_or_spoilt() {
    let image = firmware(6 * BLOCK + 9);
    let (router, served) = (router(&image), image.clone());
    let mut staged = image[..4 * BLOCK + 100].to_vec();
    staged[BLOCK + 3] ^= 1;
    std::fs::write(router.path(), staged).unwrap();
    let server = Server::start(Box::new(move |asked| part(&served, asked))).await;
    let mut download = router.open().await;
    assert_eq!(download.transfer().verified, 3 * BLOCK as u64);
    server.source().fetch(&id(), &mut download, |_| {}).await.unwrap();
    assert!(router.is_verified().await);
    let expected =
        [format!("{}-{}", BLOCK, 2 * BLOCK - 1), format!("{}-{}", 4 * BLOCK, image.len() - 1)];
    assert_eq!(server.ranges(), expected);
    // And then nothing any more.
    server.source().fetch(&id(), &mut router.open().await, |_| {}).await.unwrap();
    assert_eq!(server.ranges().len(), 2);
}

#[tokio::test]
async fn what_is_too_long_on_the_disk_is_cut() {
    let image = firmware(BLOCK + 9);
    let router = router(&image);
    let mut staged = image.clone();
    staged.extend([0; 5000]);
    std::fs::write(router.path(), staged).unwrap();
    assert!(router.open().await.is_complete());
    assert!(router.is_verified().await);
}

/// What a fetch of a two-block image ends with, and whether anything wrong was staged.
async fn fetch_from(script: impl Fn(&[u8], &Asked) -> Vec<u8> + Send + 'static) -> SourceError {
    let image = firmware(2 * BLOCK);
    let (router, served) = (router(&image), image.clone());
    let server = Server::start(Box::new(move |asked| script(&served, asked))).await;
    let mut download = router.open().await;
    let error = server.source().fetch(&id(), &mut download, |_| {}).await.unwrap_err();
    let staged = std::fs::read(router.path()).unwrap();
    assert!(image.starts_with(&staged), "something else was staged after: {error}");
    error
}

#[tokio::test]
async fn lies_are_told_from_accidents() {
    let range =
        |image: &[u8]| format!("content-range: bytes 0-{}/{}\r\n", image.len() - 1, image.len());
    let partial = "206 Partial Content";

    let flipped = fetch_from(|image, asked| {
        let mut image = image.to_vec();
        image[BLOCK + 1] ^= 0x20;
        part(&image, asked)
    });
    let error = flipped.await;
    assert!(matches!(error, SourceError::Block { index: 1 }), "{error}");
    assert_eq!(error.kind(), Some(FailureKind::ChecksumMismatch));

    let announced = |length: usize| {
        move |image: &[u8], _: &Asked| {
            answer(partial, &format!("{}content-length: {length}\r\n", range(image)), image)
        }
    };
    for length in [BLOCK, 2 * BLOCK + 1, 0] {
        let error = fetch_from(announced(length)).await;
        assert_eq!(error.kind(), Some(FailureKind::ChecksumMismatch), "{length}: {error}");
    }

    let short = fetch_from(move |image, _| {
        let headers = format!("{}content-length: {}\r\n", range(image), image.len());
        answer(partial, &headers, &image[..BLOCK + 5])
    });
    assert_eq!(short.await.kind(), None);
    // Without a length the end of the connection is the end of the body.
    let error =
        fetch_from(move |image, _| answer(partial, &range(image), &image[..BLOCK + 5])).await;
    assert!(matches!(error, SourceError::TooShort { .. }), "{error}");
    let error =
        fetch_from(move |image, _| answer(partial, &range(image), &[image, b"and more"].concat()));
    assert!(matches!(error.await, SourceError::TooLong));

    let error = fetch_from(|image, _| {
        let headers = format!("content-range: bytes 5-9/{}\r\ncontent-length: 5\r\n", image.len());
        answer("206 Partial Content", &headers, &image[5..10])
    });
    assert_eq!(error.await.kind(), Some(FailureKind::ChecksumMismatch));
}

#[tokio::test]
async fn each_status_has_its_meaning() {
    for (status, headers, kind, pause) in [
        ("401 Unauthorized", "", None, None),
        ("404 Not Found", "", Some(FailureKind::Refused), None),
        ("403 Forbidden", "", Some(FailureKind::Refused), None),
        ("416 Range Not Satisfiable", "", Some(FailureKind::ChecksumMismatch), None),
        ("429 Too Many Requests", "retry-after: 7\r\n", None, Some(7)),
        ("503 Service Unavailable", "", None, None),
        ("302 Found", "location: http://127.0.0.1:1/x\r\n", Some(FailureKind::Refused), None),
        ("302 Found", "", Some(FailureKind::Refused), None),
    ] {
        let headers = format!("{headers}content-length: 0\r\n");
        let error = fetch_from(move |_, _| answer(status, &headers, b"")).await;
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert_eq!(error.retry_after(), pause.map(Duration::from_secs), "{status}");
    }
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    let image = firmware(BLOCK);
    let router = router(&image);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), asked: Arc::default() };
    drop(listener);
    let error = server.source().fetch(&id(), &mut router.open().await, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), None);
}

#[tokio::test]
async fn a_dropped_transfer_goes_on_where_it_was() {
    let image = firmware(4 * BLOCK);
    let (router, served) = (router(&image), image.clone());
    let server = Server::start(Box::new(move |asked| part(&served, asked))).await;
    let (source, mut download) = (server.source(), router.open().await);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (mut stop, image) = (Some(stop), id());
    tokio::select! {
        biased;
        _ = stopped => {}
        done = source.fetch(&image, &mut download, |transfer| {
            if transfer.received >= 2 * BLOCK as u64 && let Some(stop) = stop.take() {
                stop.send(()).unwrap();
            }
        }) => done.unwrap(),
    }
    source.fetch(&image, &mut download, |_| {}).await.unwrap();
    assert!(router.is_verified().await);
    assert!(download.transfer().received <= 5 * BLOCK as u64);
}

#[tokio::test]
async fn small_things_are_bounded() {
    let server = Server::start(Box::new(|asked: &Asked| match asked.path.rsplit('/').next() {
        Some("manifest") => answer("200 OK", "", b"{}"),
        _ => answer("404 Not Found", "content-length: 0\r\n", b""),
    }))
    .await;
    assert_eq!(server.source().manifest(&id()).await.unwrap(), b"{}");
    assert_eq!(server.source().signature(&id()).await.unwrap(), None);

    let endless = vec![b' '; limits::MANIFEST + 1];
    let server = Server::start(Box::new(move |_| answer("200 OK", "", &endless))).await;
    let error = server.source().manifest(&id()).await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::BadManifest));
    assert!(server.source().signature(&id()).await.is_err());

    let elsewhere = "location: https://127.0.0.1:1/\r\ncontent-length: 0\r\n";
    let server = Server::start(Box::new(move |_| answer("302 Found", elsewhere, b""))).await;
    assert!(matches!(server.source().manifest(&id()).await, Err(SourceError::Redirect(_))));
}
