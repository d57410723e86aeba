use std::{collections::HashSet, fs};

use axum::{
    body::to_bytes,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use bytes::Bytes;
use shared::hex::sha256;

use super::*;

const SMALL: Limits = Limits { file: 1 << 20, quota: 3 << 19, reserve: 0 };

async fn put(artifacts: &Artifacts, content: &[u8]) -> Result<Received, ArtifactError> {
    let mut upload = artifacts.upload(Some(content.len() as u64))?;
    for chunk in content.chunks(7000) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.finish().await
}

fn incoming(root: &Path) -> usize {
    fs::read_dir(root.join("incoming")).unwrap().count()
}

#[tokio::test]
async fn a_kept_file_lies_under_its_hash_and_counts_once() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let content = vec![7; 300_000];
    for _ in 0..2 {
        let received = put(&artifacts, &content).await.unwrap();
        assert_eq!((received.sha256, received.size), (sha256(&content), 300_000));
        received.keep().await.unwrap();
    }
    let name = sha256(&content).to_string();
    assert_eq!(fs::read(root.path().join(&name[..2]).join(&name)).unwrap(), content);
    assert_eq!((artifacts.used(), incoming(root.path())), (300_000, 0));
    assert_eq!(Artifacts::open(root.path(), SMALL).unwrap().used(), 300_000);
}

#[tokio::test]
async fn an_abandoned_upload_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let mut upload = artifacts.upload(None).unwrap();
    upload.write(Bytes::from_static(&[1; 5000])).await.unwrap();
    drop(upload);
    drop(put(&artifacts, &[2; 9000]).await.unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while incoming(root.path()) > 0 || artifacts.used() > 0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn uploads_take_turns() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let mut uploads: Vec<_> = (0..UPLOADS).map(|_| artifacts.upload(None).unwrap()).collect();
    assert!(matches!(artifacts.upload(None).err(), Some(ArtifactError::Busy)));
    let finished = uploads.pop().unwrap().finish().await.unwrap();
    artifacts.upload(None).unwrap();
    drop((uploads, finished));
}

#[tokio::test]
async fn limits_hold_before_and_while_writing() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let too_much = vec![0; (1 << 20) + 1];
    assert!(matches!(
        artifacts.upload(Some(too_much.len() as u64)).map(|_| ()),
        Err(ArtifactError::TooLarge { limit: 1_048_576 })
    ));
    let mut upload = artifacts.upload(None).unwrap();
    let written = upload.write(Bytes::from(too_much)).await;
    let refused = match written {
        Ok(()) => upload.finish().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(ArtifactError::TooLarge { .. })), "{refused:?}");

    put(&artifacts, &vec![1; 1 << 20]).await.unwrap().keep().await.unwrap();
    assert!(matches!(
        artifacts.upload(Some(1 << 20)).map(|_| ()),
        Err(ArtifactError::Quota { .. })
    ));
    let mut second = artifacts.upload(None).unwrap();
    let _ = second.write(Bytes::from(vec![2; 1 << 20])).await;
    assert!(matches!(second.finish().await, Err(ArtifactError::Quota { .. })));

    let full = Limits { reserve: u64::MAX, ..SMALL };
    let artifacts = Artifacts::open(root.path(), full).unwrap();
    assert!(matches!(artifacts.upload(None).map(|_| ()), Err(ArtifactError::DiskFull { .. })));
}

#[tokio::test]
async fn only_unreferenced_files_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    for content in [b"used", b"left"] {
        put(&artifacts, content).await.unwrap().keep().await.unwrap();
    }
    let (used, left) = (sha256(b"used"), sha256(b"left"));
    for (file, referenced) in [(used, true), (left, false)] {
        let answer = async { Ok::<_, ArtifactError>(referenced) };
        artifacts.remove_unless(file, answer).await.unwrap();
    }
    assert!(artifacts.stored(used).await.unwrap().is_some());
    assert!(artifacts.stored(left).await.unwrap().is_none());
    assert_eq!(artifacts.sweep(&HashSet::from([used])).unwrap(), 0);
    assert_eq!(artifacts.sweep(&HashSet::new()).unwrap(), 1);
    assert_eq!(artifacts.used(), 0);
}

async fn get(
    artifacts: &Artifacts,
    content: &[u8],
    method: Method,
    headers: &[(header::HeaderName, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let stored = artifacts.stored(sha256(content)).await.unwrap().unwrap();
    let mut request = HeaderMap::new();
    for (name, value) in headers {
        request.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let (parts, body) = stored.respond(&method, &request, "a \"b\".bin").into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

#[tokio::test]
async fn ranges_are_served_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let content: Vec<u8> = (0..900_001_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    put(&artifacts, &content).await.unwrap().keep().await.unwrap();
    let etag = format!("\"{}\"", sha256(&content));

    let (status, headers, body) = get(&artifacts, &content, Method::GET, &[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, content.len()));
    assert!(body == content);
    assert_eq!(headers[header::ETAG], etag);
    assert_eq!(headers[header::CONTENT_LENGTH], "900001");
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"a__b_.bin\"");

    let part = [(header::RANGE, "bytes=200000-699999")];
    let (status, headers, body) = get(&artifacts, &content, Method::GET, &part).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(headers[header::CONTENT_RANGE], "bytes 200000-699999/900001");
    assert!(body == content[200_000..700_000]);

    let stale = [(header::RANGE, "bytes=1-2"), (header::IF_RANGE, "\"other\"")];
    assert_eq!(get(&artifacts, &content, Method::GET, &stale).await.0, StatusCode::OK);
    let fresh = [(header::RANGE, "bytes=1-2"), (header::IF_RANGE, etag.as_str())];
    assert_eq!(get(&artifacts, &content, Method::GET, &fresh).await.2.len(), 2);

    let past = [(header::RANGE, "bytes=900001-")];
    let (status, headers, body) = get(&artifacts, &content, Method::GET, &past).await;
    assert_eq!((status, body.len()), (StatusCode::RANGE_NOT_SATISFIABLE, 0));
    assert_eq!(headers[header::CONTENT_RANGE], "bytes */900001");

    let (status, headers, body) = get(&artifacts, &content, Method::HEAD, &part).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers[header::CONTENT_LENGTH], "900001");

    let known = [(header::IF_NONE_MATCH, etag.as_str())];
    assert_eq!(get(&artifacts, &content, Method::GET, &known).await.0, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn blocks_cover_the_file() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(root.path(), SMALL).unwrap();
    let content = vec![5; 2500];
    put(&artifacts, &content).await.unwrap().keep().await.unwrap();
    let stored = artifacts.stored(sha256(&content)).await.unwrap().unwrap();
    let mut seen = Vec::new();
    stored
        .blocks::<io::Error>(1000, |number, block| {
            seen.push((number, block.len()));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(0, 1000), (1, 1000), (2, 500)]);
}
