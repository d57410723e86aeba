use std::os::unix::fs::PermissionsExt;

use shared::hex::sha256;
use shared::ids::OperationId;

use super::*;
use crate::operation::Status;
use crate::serve::{self, RESTORING, StartError};
use crate::store::fixture::{Fixture, NOW, request};
use crate::store::listing::Scope;
use crate::store::{Store, StoreError};

const FIRMWARE: &str = "v2";

/// A data directory as a coordinator has it, open; the backup beside it.
struct Scene {
    dir: tempfile::TempDir,
    data: PathBuf,
    file: PathBuf,
    store: Store,
    waiting: OperationId,
    granted: OperationId,
}

impl Scene {
    async fn new() -> Self {
        let f = Fixture::new().await;
        let (one, two, image) = (f.device(1).await, f.device(2).await, f.image(FIRMWARE).await);
        let waiting = f.ask(one, image).await.unwrap().id;
        let granted = f.ask(two, image).await.unwrap().id;
        f.store.start(two, granted, request(1)).await.unwrap();
        let Fixture { dir, store, .. } = f;
        drop(store);
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::rename(dir.path().join("db"), data.join(DATABASE)).unwrap();
        for name in KEYS {
            put(&data.join(name), name.as_bytes());
        }
        put(&data.join(name_of(sha256(FIRMWARE.as_bytes()))), FIRMWARE.as_bytes());
        let store = open(&data);
        Self { file: dir.path().join("backup.tar"), dir, data, store, waiting, granted }
    }

    fn take(&self, firmware: bool) -> Result<Taken, BackupError> {
        take(&self.data, &self.file, firmware, false, &clock())
    }

    fn elsewhere(&self) -> PathBuf {
        self.dir.path().join("elsewhere")
    }

    /// As a process that has ended leaves it.
    fn stop(&self) {
        self.store.stop();
    }
}

fn clock() -> Clock {
    Clock::manual(NOW).0
}

fn open(data: &Path) -> Store {
    Store::open(&data.join(DATABASE), clock()).unwrap()
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

async fn epoch(store: &Store) -> String {
    let sql = "SELECT epoch FROM meta";
    store.read(|conn| Ok(conn.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
}

async fn status(store: &Store, id: OperationId) -> Status {
    store.operation(Scope::Everything, id).await.unwrap().unwrap().status
}

/// A restore runs a runtime of its own.
async fn put_back(file: &Path, data: &Path, wishes: Wishes) -> Result<Restored, RestoreError> {
    let (file, data) = (file.to_owned(), data.to_owned());
    tokio::task::spawn_blocking(move || restore(&file, &data, wishes, &clock())).await.unwrap()
}

#[tokio::test]
async fn a_backup_of_a_running_server_comes_back_elsewhere_under_a_new_epoch() {
    let s = Scene::new().await;
    let taken = s.take(true).unwrap();
    assert_eq!((taken.files, taken.firmware), (1, FIRMWARE.len() as u64));
    assert_eq!(fs::metadata(&s.file).unwrap().permissions().mode() & 0o777, 0o600);
    let later = s.store.forget_presence().await;
    later.unwrap();
    let restored = put_back(&s.file, &s.elsewhere(), Wishes::default()).await.unwrap();
    assert_eq!((restored.waiting, restored.cancelled, restored.replaced), (1, 0, None));
    assert!(restored.missing.is_empty());
    let again = open(&s.elsewhere());
    assert_eq!(status(&again, s.waiting).await, Status::Idle);
    assert!(again.operation(Scope::Everything, s.granted).await.unwrap().unwrap().is_granted());
    assert_ne!(epoch(&again).await, epoch(&s.store).await);
    for name in KEYS {
        assert_eq!(fs::read(s.elsewhere().join(name)).unwrap(), name.as_bytes());
    }
    let firmware = s.elsewhere().join(name_of(sha256(FIRMWARE.as_bytes())));
    assert_eq!(fs::read(firmware).unwrap(), FIRMWARE.as_bytes());
    assert!(!s.elsewhere().join("restore.new").exists() && !s.elsewhere().join(RESTORING).exists());
}

#[tokio::test]
async fn nothing_is_restored_under_a_running_server_or_over_data_without_leave() {
    let s = Scene::new().await;
    s.take(true).unwrap();
    let running = serve::lock(&s.data).unwrap();
    let wishes = Wishes { replace: true, ..Wishes::default() };
    let refused = put_back(&s.file, &s.data, wishes).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Start(StartError::InUse { .. })), "{refused}");
    drop(running);
    let refused = put_back(&s.file, &s.data, Wishes::default()).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Exists(_)), "{refused}");
}

#[tokio::test]
async fn what_was_there_goes_aside_and_what_waits_is_cancelled_on_request() {
    let s = Scene::new().await;
    s.take(false).unwrap();
    let before = epoch(&s.store).await;
    s.stop();
    let wishes = Wishes { replace: true, cancel_waiting: true };
    let restored = put_back(&s.file, &s.data, wishes).await.unwrap();
    assert_eq!((restored.waiting, restored.cancelled), (0, 1));
    // The backup has no firmware, but what was there is used.
    assert!(restored.missing.is_empty());
    let store = open(&s.data);
    assert_eq!(status(&store, s.waiting).await, Status::Cancelled);
    assert!(store.operation(Scope::Everything, s.granted).await.unwrap().unwrap().is_granted());
    let old = open(&restored.replaced.unwrap());
    assert_eq!(epoch(&old).await, before);
    assert_eq!(status(&old, s.waiting).await, Status::Idle);
}

#[tokio::test]
async fn missing_firmware_is_told() {
    let s = Scene::new().await;
    s.take(false).unwrap();
    let restored = put_back(&s.file, &s.elsewhere(), Wishes::default()).await.unwrap();
    assert_eq!(restored.missing, [sha256(FIRMWARE.as_bytes())]);
    fs::remove_dir_all(s.data.join(ARTIFACTS)).unwrap();
    let other = s.dir.path().join("other.tar");
    let refused = take(&s.data, &other, true, false, &clock()).unwrap_err();
    assert!(matches!(refused, BackupError::NoFirmware(_)), "{refused}");
    assert!(!other.exists());
    assert_eq!(fs::read_dir(s.dir.path()).unwrap().count(), 3, "nothing is left behind");
}

#[tokio::test]
async fn a_damaged_or_foreign_file_changes_nothing() {
    let s = Scene::new().await;
    s.take(true).unwrap();
    let whole = fs::read(&s.file).unwrap();
    let before = fs::read(s.data.join(DATABASE)).unwrap();
    s.stop();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (name, content) in [
        ("cut", &whole[..whole.len() / 2]),
        ("flipped", &flipped[..]),
        ("foreign", &b"not a backup"[..]),
        ("empty", &b""[..]),
    ] {
        let file = s.dir.path().join(name);
        fs::write(&file, content).unwrap();
        let wishes = Wishes { replace: true, ..Wishes::default() };
        let refused = put_back(&file, &s.data, wishes).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Archive { .. }), "{name}: {refused}");
        assert_eq!(fs::read(s.data.join(DATABASE)).unwrap(), before);
        assert!(!s.data.join("restore.new").exists());
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let s = Scene::new().await;
    for name in ["../evil", "/etc/passwd", "tls/../../evil", "artifacts/ab/evil", "lock"] {
        let mut writer = Writer::new(Vec::new(), 0);
        writer.add(name, 4, &b"evil"[..]).unwrap();
        fs::write(&s.file, writer.finish().unwrap()).unwrap();
        let refused = put_back(&s.file, &s.elsewhere(), Wishes::default()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Archive { .. }), "{name}: {refused}");
    }
    assert!(!s.dir.path().join("evil").exists());
}

#[tokio::test]
async fn a_backup_of_a_newer_program_is_refused_by_name() {
    let s = Scene::new().await;
    s.stop();
    let conn = Connection::open(s.data.join(DATABASE)).unwrap();
    conn.pragma_update(None, "user_version", 999).unwrap();
    drop(conn);
    s.take(true).unwrap();
    let refused = put_back(&s.file, &s.elsewhere(), Wishes::default()).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Store(StoreError::NewerSchema { found: 999, .. })),
        "{refused}"
    );
    assert!(!s.elsewhere().join(DATABASE).exists());
}

#[tokio::test]
async fn a_restore_that_was_cut_short_keeps_the_server_down_until_it_is_made_again() {
    let s = Scene::new().await;
    s.take(true).unwrap();
    s.stop();
    fs::write(s.data.join(RESTORING), "").unwrap();
    let config = || crate::config::Config {
        data: s.data.clone(),
        https: "127.0.0.1:0".parse().unwrap(),
        mqtt: "127.0.0.1:0".parse().unwrap(),
        ..crate::config::Fragment::default().validate().unwrap()
    };
    let refused = serve::start(config()).await.err();
    assert!(matches!(refused, Some(StartError::HalfRestored { .. })));
    put_back(&s.file, &s.data, Wishes::default()).await.unwrap();
    assert!(!s.data.join(RESTORING).exists());
    assert_eq!(status(&open(&s.data), s.waiting).await, Status::Idle);
}

#[tokio::test]
async fn an_existing_file_is_only_replaced_with_leave() {
    let s = Scene::new().await;
    s.take(true).unwrap();
    assert!(matches!(s.take(true), Err(BackupError::Exists(_))));
    take(&s.data, &s.file, true, true, &clock()).unwrap();
    let nowhere = take(&s.elsewhere(), &s.dir.path().join("x"), true, false, &clock());
    assert!(matches!(nowhere, Err(BackupError::NoDatabase(_))));
}
