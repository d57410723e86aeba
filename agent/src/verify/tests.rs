use super::*;
use crate::testing::{firmware, manifest_of, secret_key};
use std::sync::{Arc, Mutex};

fn keyring(trusted: &[u8], revoked: &[u8]) -> Keyring {
    let keys = |numbers: &[u8]| numbers.iter().map(|n| secret_key(*n).public()).collect();
    Keyring { trusted: keys(trusted), revoked: keys(revoked) }
}

fn verify(
    bytes: &[u8],
    signature: Option<&str>,
    keyring: &Keyring,
    policy: SignaturePolicy,
) -> Result<VerifiedManifest, FailureKind> {
    VerifiedManifest::verify(bytes, signature, &sha256(bytes), keyring, policy)
        .map_err(|e| e.kind())
}

fn trusted(image: &[u8]) -> VerifiedManifest {
    let bytes = serde_json::to_vec(&manifest_of(image)).unwrap();
    verify(&bytes, None, &Keyring::default(), SignaturePolicy::Optional).unwrap()
}

#[test]
fn each_distrust_has_its_kind() {
    use SignaturePolicy::{Optional, Required, TrustedBefore};
    let bytes = serde_json::to_vec(&manifest_of(&firmware(10))).unwrap();
    let by = |n: u8| secret_key(n).sign(&bytes).to_text("x");
    let wrong = secret_key(1).sign(b"other").to_text("x");
    let ring = keyring(&[1, 3], &[3]);
    let (good, unknown, revoked) = (by(1), by(2), by(3));
    let ours = secret_key(1).public().number;
    for (signature, policy, expected) in [
        (Some(good.as_str()), Required, Ok(Some(ours))),
        (None, Required, Err(FailureKind::NotSigned)),
        (Some(""), Required, Err(FailureKind::NotSigned)),
        (Some("garbage"), Required, Err(FailureKind::BadSignature)),
        (Some(&wrong), Required, Err(FailureKind::BadSignature)),
        (Some(&unknown), Required, Err(FailureKind::UnknownKey)),
        (Some(&revoked), Required, Err(FailureKind::KeyRevoked)),
        (None, Optional, Ok(None)),
        (Some(&unknown), Optional, Ok(None)),
        (Some(&wrong), Optional, Err(FailureKind::BadSignature)),
        (Some(&revoked), Optional, Err(FailureKind::KeyRevoked)),
        (Some(&good), TrustedBefore, Ok(Some(ours))),
        (None, TrustedBefore, Ok(None)),
        (Some("garbage"), TrustedBefore, Ok(None)),
        (Some(&unknown), TrustedBefore, Ok(None)),
        (Some(&revoked), TrustedBefore, Err(FailureKind::KeyRevoked)),
    ] {
        let found = verify(&bytes, signature, &ring, policy).map(|m| m.signer());
        assert_eq!(found, expected, "{signature:?} {policy:?}");
    }
}

#[test]
fn the_job_names_the_manifest() {
    let bytes = serde_json::to_vec(&manifest_of(&firmware(10))).unwrap();
    let signature = secret_key(1).sign(&bytes).to_text("x");
    let refused = VerifiedManifest::verify(
        &bytes,
        Some(&signature),
        &sha256(b"another"),
        &keyring(&[1], &[]),
        SignaturePolicy::Required,
    );
    assert!(matches!(refused, Err(ManifestRefused::Other { .. })));
    // Nor is another one trusted because something was before.
    let refused = VerifiedManifest::verify(
        &bytes,
        Some(&signature),
        &sha256(b"another"),
        &keyring(&[1], &[]),
        SignaturePolicy::TrustedBefore,
    );
    assert!(matches!(refused, Err(ManifestRefused::Other { .. })));
}

#[test]
fn nothing_is_parsed_before_the_signature_holds() {
    let garbage = b"{ not a manifest";
    let signed = secret_key(1).sign(garbage).to_text("x");
    let (ring, required) = (keyring(&[1], &[]), SignaturePolicy::Required);
    assert_eq!(verify(garbage, None, &ring, required).unwrap_err(), FailureKind::NotSigned);
    assert_eq!(
        verify(garbage, Some(&signed), &ring, required).unwrap_err(),
        FailureKind::BadManifest
    );
    let large = vec![b' '; limits::MANIFEST + 1];
    assert_eq!(verify(&large, None, &ring, required).unwrap_err(), FailureKind::BadManifest);
}

#[test]
fn keys_come_from_files() {
    let router = tempfile::tempdir().unwrap();
    let keys = router.path().join("keys");
    assert_eq!(read_keyring(&keys).unwrap(), Keyring::default());
    for directory in [&keys, &router.path().join("revoked")] {
        std::fs::create_dir(directory).unwrap();
    }
    let text = |n: u8| secret_key(n).public().to_text("key");
    std::fs::write(keys.join("a.pub"), text(1)).unwrap();
    std::fs::write(keys.join("broken.pub"), "nonsense").unwrap();
    std::fs::write(keys.join("readme.txt"), text(2)).unwrap();
    std::fs::write(router.path().join("revoked/old.pub"), text(3)).unwrap();
    assert_eq!(read_keyring(&keys).unwrap(), keyring(&[1], &[3]));
    // A revocation that cannot be read must not be taken for none.
    std::fs::write(router.path().join("revoked/old.pub"), "nonsense").unwrap();
    assert!(matches!(read_keyring(&keys), Err(KeysError::Revocation { .. })));
}

#[tokio::test]
async fn only_the_very_bytes_are_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let image = firmware(2 * 1024 * 1024 + 77);
    let manifest = trusted(&image);
    std::fs::write(&path, &image).unwrap();
    let heard = Arc::new(Mutex::new(0));
    let ear = Arc::clone(&heard);
    let open = VerifiedImage::open(&path, &manifest, move |done| *ear.lock().unwrap() = done);
    let verified = open.await.unwrap();
    assert_eq!(verified.size(), *heard.lock().unwrap());
    assert_eq!(verified.inode().1, std::fs::metadata(&path).unwrap().ino());

    let mut flipped = image.clone();
    flipped[1024 * 1024 + 5] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let refused = VerifiedImage::open(&path, &manifest, |_| {}).await.unwrap_err();
    assert!(matches!(refused, ImageRefused::Digest { block: Some(1), .. }), "{refused}");
    assert_eq!(refused.kind(), FailureKind::ChecksumMismatch);

    for length in [image.len() - 1, image.len() + 1] {
        let mut other = image.clone();
        other.resize(length, 0);
        std::fs::write(&path, &other).unwrap();
        let refused = VerifiedImage::open(&path, &manifest, |_| {}).await.unwrap_err();
        assert!(matches!(refused, ImageRefused::Size { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let image = firmware(100);
    std::fs::write(directory.path().join("real"), &image).unwrap();
    let link = directory.path().join("image");
    std::os::unix::fs::symlink(directory.path().join("real"), &link).unwrap();
    let refused = VerifiedImage::open(&link, &trusted(&image), |_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), FailureKind::Storage);
}
