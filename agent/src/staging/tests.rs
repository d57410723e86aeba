use super::staged::explain;
use super::*;
use nix::errno::Errno;
use shared::hex::Hex;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const MANIFEST: Sha256 = Hex([7; 32]);

struct Router(tempfile::TempDir);

impl Router {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }
    fn staging(&self, reserve: u64) -> Staging {
        Staging::new(vec![self.path("a"), self.path("b")], reserve, vec![])
    }
}

#[test]
fn the_first_place_with_room_is_taken_and_private() {
    let router = Router::new();
    let staged = router.staging(0).stage(&MANIFEST, 1000, 0, false).unwrap();
    assert!(staged.path().starts_with(router.path("a")));
    let image = staged.open_image("fn990.bin").unwrap();
    image.write_block(0, b"block").unwrap();
    staged.keep_manifest(b"{}", "signature").unwrap();
    for (path, mode) in [
        (router.path("a"), 0o700),
        (staged.path().to_owned(), 0o700),
        (staged.image_path("fn990.bin"), 0o600),
        (staged.path().join("manifest.json"), 0o600),
    ] {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{path:?}"
        );
    }
    assert_eq!(staged.manifest().unwrap(), (b"{}".to_vec(), "signature".to_owned()));
    // An upgrade that waits looks every few minutes, for weeks.
    let inode = || std::fs::metadata(staged.path().join("manifest.json")).unwrap().ino();
    let before = inode();
    staged.keep_manifest(b"{}", "signature").unwrap();
    assert_eq!(inode(), before, "written once more");
    staged.keep_manifest(b"{}", "another").unwrap();
    assert_eq!(staged.manifest().unwrap().1, "another");
}

#[test]
fn what_is_staged_is_found_again_although_it_fills_the_disk() {
    let router = Router::new();
    let staged = router.staging(0).stage(&MANIFEST, 1000, 0, false).unwrap();
    let again = router.staging(u64::MAX).stage(&MANIFEST, 1000, 0, false).unwrap();
    assert_eq!(again.path(), staged.path());
    assert_eq!(router.staging(0).find_all(&MANIFEST, 1000).len(), 1);
    assert!(router.staging(0).find_all(&Hex([8; 32]), 1000).is_empty());
}

#[test]
fn a_copy_that_was_begun_does_not_hide_the_whole_one() {
    let router = Router::new();
    for (place, bytes) in [("a", 400), ("b", 1000)] {
        let staging = Staging::new(vec![router.path(place)], 0, vec![]);
        let staged = staging.stage(&MANIFEST, 1000, 0, false).unwrap();
        staged.open_image("fn990.bin").unwrap().write_block(0, &vec![7; bytes]).unwrap();
    }
    let found = router.staging(0).find_all(&MANIFEST, 1000);
    let places: Vec<_> = found.iter().map(|s| s.path().parent().unwrap().to_owned()).collect();
    assert_eq!(places, [router.path("b"), router.path("a")]);
    let staged = router.staging(0).stage(&MANIFEST, 1000, 0, false).unwrap();
    assert_eq!(staged.path(), found[0].path(), "it is not fetched again either");
}

#[test]
fn room_is_counted_before_and_while_writing() {
    let router = Router::new();
    let refused = router.staging(1 << 60).stage(&MANIFEST, 1000, 0, false).unwrap_err();
    assert_eq!(refused.kind(), FailureKind::NoSpace);
    let refused = router.staging(0).stage(&MANIFEST, 1 << 60, 0, false).unwrap_err();
    assert_eq!(refused.kind(), FailureKind::NoSpace);
    assert!(!router.path("a").join(MANIFEST.to_string()).exists());

    router.staging(0).stage(&MANIFEST, 1000, 0, false).unwrap();
    let full = router.staging(1 << 60).find_all(&MANIFEST, 1000).remove(0);
    let error = full.open_image("x").unwrap().write_block(0, b"block").unwrap_err();
    assert!(matches!(error, StagingError::NoSpace { .. }));
    assert_eq!(full.open_image("x").unwrap().size().unwrap(), 0);
}

#[test]
fn a_full_disk_is_no_space() {
    for errno in [Errno::ENOSPC, Errno::EDQUOT] {
        let error = explain(io::Error::from(errno), Path::new("/"), 0);
        assert_eq!(error.kind(), FailureKind::NoSpace);
    }
    let error = explain(io::Error::from(Errno::EIO), Path::new("/"), 0);
    assert_eq!(error.kind(), FailureKind::Storage);
}

#[test]
fn a_sole_uplink_is_not_staged_in_memory() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() || durability(shm) == Durability::Durable {
        return;
    }
    let memory = tempfile::tempdir_in(shm).unwrap();
    let staging = Staging::new(vec![memory.path().to_owned()], 0, vec![]);
    let refused = staging.stage(&MANIFEST, 1000, 0, true).unwrap_err();
    assert_eq!(refused.kind(), FailureKind::NoDurableStaging);
    assert_eq!(
        staging.stage(&MANIFEST, 1000, 0, false).unwrap().durability(),
        Durability::Volatile
    );
}

#[test]
fn what_sysupgrade_keeps_is_no_place() {
    let router = Router::new();
    let keep = router.path("keep.d");
    std::fs::create_dir(&keep).unwrap();
    let list = format!(
        "/etc/config/\n# comment\n{}/\n/etc/dropbear/*_key\n/*\n",
        router.path("a").display()
    );
    std::fs::write(keep.join("us"), list).unwrap();
    let kept = kept_paths(&keep, &router.path("sysupgrade.conf"));
    let expected =
        ["/etc/config".into(), router.path("a"), "/etc/dropbear".into(), PathBuf::from("")];
    assert_eq!(kept, expected[..3]);
    let staging = Staging::new(vec![router.path("a"), router.path("b")], 0, kept);
    let staged = staging.stage(&MANIFEST, 1000, 0, false).unwrap();
    assert!(staged.path().starts_with(router.path("b")));
}

#[test]
fn a_stick_that_is_not_there_is_no_place_and_nothing_is_put_under_it() {
    let router = Router::new();
    let stick = router.path("mnt/stick/staging");
    let staging = Staging::new(vec![stick.clone(), router.path("b")], 0, vec![])
        .on(Mounts::of(vec![router.path("mnt")]));
    let staged = staging.stage(&MANIFEST, 1000, 0, true).unwrap();
    assert!(staged.path().starts_with(router.path("b")));
    // Mounted once, and its mount point is still there.
    std::fs::create_dir_all(router.path("mnt/stick")).unwrap();
    let [unusable] = staging.unusable().try_into().unwrap();
    assert_eq!(unusable.directory, stick);
    assert!(unusable.reason.contains("nothing is mounted"), "{}", unusable.reason);
    assert!(!stick.exists(), "hidden as soon as the stick is mounted");
    // Where no mount is known of, what stands above it has to be there all the same.
    let elsewhere = Staging::new(vec![router.path("none/staging")], 0, vec![]);
    assert_eq!(elsewhere.unusable().len(), 1);
    assert!(!router.path("none").exists());
}

#[test]
fn room_that_another_image_takes_is_known() {
    let router = Router::new();
    router.staging(0).stage(&MANIFEST, 10, 0, false).unwrap();
    assert!(!router.staging(0).is_shared(&MANIFEST));
    assert!(router.staging(0).is_shared(&Hex([8; 32])));
}

#[test]
fn cleaning_keeps_what_is_wanted_and_what_is_not_ours() {
    let router = Router::new();
    let staging = router.staging(0);
    let (wanted, other) = (MANIFEST, Hex([8; 32]));
    staging.stage(&wanted, 10, 0, false).unwrap();
    staging.stage(&other, 10, 0, false).unwrap();
    std::fs::create_dir(router.path("a").join("photos")).unwrap();
    staging.clean(&[wanted]);
    assert!(staging.find_all(&wanted, 10).len() == 1 && staging.find_all(&other, 10).is_empty());
    assert!(router.path("a").join("photos").is_dir());
    assert_eq!(
        Staging::new(vec![], 0, vec![]).stage(&wanted, 1, 0, false).unwrap_err().kind(),
        FailureKind::Storage
    );
}
