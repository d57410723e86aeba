//! Who is there, and who only seems to be.

use shared::ids::SessionId;

use super::*;

#[tokio::test]
async fn a_line_whose_end_was_not_written_is_noticed() {
    let f = Fixture::new().await;
    let (gone, there) = (f.device(1).await, f.device(2).await);
    let online = |device, n| {
        let session = SessionId(Uuid::from_u128(n));
        Sign::Presence(device, Presence { v: 1, session, online: true })
    };
    f.store.record_signs(vec![online(gone, 1), online(there, 2)]).await.unwrap();
    let (told, heard) = channel();
    f.store.on_commit(move |note| told.send(note).unwrap());
    assert_eq!(f.store.take_offline(|_| true).await.unwrap(), 0);
    assert_eq!(f.store.take_offline(move |device| device == there).await.unwrap(), 1);
    let shown = async |device| f.store.device(Scope::Everything, device).await.unwrap().unwrap();
    assert!(!shown(gone).await.online && shown(there).await.online);
    assert_eq!(shown(gone).await.last_seen, Some(NOW), "nothing was heard of it");
    let notes: Vec<_> = heard.try_iter().collect();
    assert!(
        matches!(&notes[..], [Note::Presence { device, online: false, .. }] if *device == gone)
    );
    // Asked again in the transaction: it has come back meanwhile.
    let asked = std::sync::atomic::AtomicBool::new(false);
    let comes = move |_| asked.swap(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(f.store.take_offline(comes).await.unwrap(), 0);
    assert!(shown(there).await.online);
}
