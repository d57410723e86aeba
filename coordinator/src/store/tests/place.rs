//! Groups and locations.

use super::*;
use crate::store::place::Kind;

#[tokio::test]
async fn devices_leave_a_place_before_it_goes_and_not_all_at_once() {
    let f = Fixture::new().await;
    let (one, path) = (f.device(1).await, f.dir.path().join("db"));
    let organization = f.store.device(Scope::Everything, one).await.unwrap().unwrap().organization;
    let db = rusqlite::Connection::open(path).unwrap();
    for (kind, table, column) in
        [(Kind::Group, "device_groups", "device_group"), (Kind::Location, "locations", "location")]
    {
        let place = f.store.create_place(kind, organization, "north".into()).await.unwrap().id;
        db.execute(&format!("UPDATE devices SET {column} = ?1"), [place.to_string()]).unwrap();
        let guard = format!(
            "CREATE TRIGGER {table}_guard BEFORE DELETE ON {table}
             WHEN EXISTS (SELECT 1 FROM devices WHERE {column} = OLD.id)
             BEGIN SELECT RAISE(ABORT, 'it would rewrite them all'); END"
        );
        db.execute_batch(&guard).unwrap();
        f.store.delete_place(kind, place).await.unwrap();
        assert!(f.store.place(kind, place).await.unwrap().is_none());
    }
}
